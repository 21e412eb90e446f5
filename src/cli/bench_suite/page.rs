//! The tables of a suite, in Markdown.

use std::fmt::Write;

use super::super::console::plain_line;
use super::record::{Kind, Machine, Record, Row};

/// What the table says of a sensor that there is not.
const NOT_MEASURABLE: &str = "not measurable here";

/// A column of a table: its title, and the text of a figure.
type Column = (&'static str, &'static str, fn(f64) -> String);

/// The page of a record, of which `planned` rows were planned.
pub(super) fn text(record: &Record, planned: usize) -> String {
    let Record { command, machine, rows, .. } = record;
    let Machine { eddy, .. } = machine;
    let mut text = format!(
        "# Benchmarks\n\nMade by `{command}` (eddy {eddy}) in {:.0} s, {} s a figure.\n",
        record.took_seconds, record.seconds
    );
    if !record.complete {
        let _ = write!(text, "\n**Incomplete**: stopped after {} of {planned} rows.\n", rows.len());
    }
    text += &machine_table(machine);
    let of = |kind: Kind| rows.iter().filter(|row| row.kind == kind).collect::<Vec<_>>();
    let temperature: Column = ("temperature", "temperature_c", |it| format!("{it:.0} °C"));
    let memory: Column = ("memory", "peak_resident_bytes", mebibytes);
    text += &section(
        "Start",
        "A run on an image of 64x64: read, load the network, evaluate, write. The process alone is \
         `eddy --version`, in rounds with it; times are medians.",
        &of(Kind::Start),
        &[("whole run", "wall_ms", ms), ("process alone", "version_ms", ms), memory],
    );
    text += &section(
        "Images",
        "Whole frames, pixels in and pixels out, in one step, in rounds with the network alone; \
         medians. The size is that of the input; for networks that make images, of the result. \
         Memory is the peak of the process.",
        &of(Kind::Image),
        &[
            ("frame", "frame_ms", ms),
            ("network alone", "session_ms", ms),
            ("ratio", "ratio", ratio),
            memory,
            ("energy", "energy_j", joules),
            temperature,
        ],
    );
    text += &section(
        "Streams",
        "Frames per second of 4:2:0 video of a static scene with noise of sigma 10. The network \
         alone evaluates whole frames, just before. Where everything moves, `--temporal` is about \
         as fast as without.",
        &of(Kind::Stream),
        &[
            ("fps", "fps", fps),
            ("with `--temporal`", "fps_temporal", fps),
            ("network alone", "fps_network", fps),
            ("one by one", "fps_one_by_one", fps),
            memory,
            ("energy", "energy_j", joules),
            ("with `--temporal`", "energy_temporal_j", joules),
            temperature,
        ],
    );
    text += &section(
        "Other programs",
        "The time of a frame on the same input, and that of Eddy in this suite; a ratio above 1 \
         is in favor of Eddy. Speeds alone: the results are not equally good. Filters of ffmpeg \
         are timed as the difference from a run without them.",
        &of(Kind::Peer),
        &[
            ("frame", "ms", ms),
            ("Eddy", "eddy_ms", ms),
            ("ratio", "ratio", ratio),
            memory,
            ("Eddy's memory", "eddy_peak_resident_bytes", mebibytes),
        ],
    );
    text
}

fn machine_table(machine: &Machine) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NOT_MEASURABLE.to_owned());
    let Machine { temperature_before_c, temperature_after_c, temperature_sensor, .. } = machine;
    let temperature = temperature_before_c.map(|before| {
        let after =
            temperature_after_c.map_or_else(String::new, |it| format!(", {it:.0} °C after"));
        let sensor = temperature_sensor.as_deref().unwrap_or_default();
        format!("{before:.0} °C before{after} ({sensor})")
    });
    let clock = machine.max_mhz.map(|mhz| format!("{mhz:.0} MHz"));
    let clock: Vec<String> = machine.governor.iter().cloned().chain(clock).collect();
    let unknown = || "unknown".to_owned();
    let version = machine.onnxruntime.clone().unwrap_or_else(unknown);
    let device = machine.device.clone().unwrap_or_else(unknown);
    let cores = machine.cores;
    let lines = [
        ("CPU", format!("{}, {cores} threads", machine.cpu)),
        ("board", machine.board.clone().unwrap_or_default()),
        ("memory", format!("{:.1} GiB", machine.memory_bytes as f64 / f64::from(1 << 30))),
        ("ONNX Runtime", format!("{version} on {device}")),
        ("governor, highest frequency", or_none((!clock.is_empty()).then(|| clock.join(", ")))),
        ("load before the start", format!("{:.1} threads", machine.load)),
        ("temperature", or_none(temperature)),
        ("energy", or_none(machine.power_sensor.as_ref().map(|it| format!("of {it}, a frame")))),
    ];
    let mut text = "\n| machine | |\n|---|---|\n".to_owned();
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "| {name} | {} |", cell(value));
    }
    text
}

/// A section with a table, without columns that no row has; nothing if there is no row.
fn section(title: &str, introduction: &str, rows: &[&Row], columns: &[Column]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let has = |column: &&Column| rows.iter().any(|row| row.get(column.1).is_some());
    let columns: Vec<&Column> = columns.iter().filter(has).collect();
    let titles: String = columns.iter().map(|(title, ..)| format!(" {title} |")).collect();
    let rule = "---|".repeat(columns.len() + 3);
    let mut text = format!("\n## {title}\n\n{introduction}\n\n| | size |{titles} |\n|{rule}\n");
    for row in rows {
        let precision = row.precision.map_or_else(String::new, |it| format!(", {it}"));
        let _ = write!(text, "| {}{precision} | {} |", cell(&row.name), row.size());
        for (_, figure, shown) in &columns {
            let _ = write!(text, " {} |", row.get(figure).map_or_else(String::new, shown));
        }
        let _ = writeln!(text, " {} |", row.note.as_deref().map_or_else(String::new, cell));
    }
    text
}

/// Text that cannot end its cell.
pub(super) fn cell(text: &str) -> String {
    plain_line(text).replace('|', "\\|")
}

/// Three digits, without an exponent.
pub(super) fn digits(value: f64) -> String {
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$}")
}

fn ms(value: f64) -> String {
    digits(value) + " ms"
}

fn fps(value: f64) -> String {
    digits(value)
}

fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

fn joules(value: f64) -> String {
    digits(value) + " J"
}

fn mebibytes(value: f64) -> String {
    format!("{:.0} MiB", value / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::super::super::options::Size;
    use super::super::record::{Kind, Record, Row};
    use super::text;

    #[test]
    fn sensors_that_are_missing_are_never_zero() {
        let mut record = Record::new("eddy bench --suite".into(), 1.0);
        record.machine.power_sensor = None;
        record.machine.temperature_before_c = None;
        let size = Size { width: 64, height: 48 };
        let mut row = Row::new(Kind::Image, "a|b", None, size);
        row.set("frame_ms", Some(12.345));
        row.set("energy_j", None);
        record.rows.push(row.clone());
        let page = text(&record, 2);
        assert!(page.contains("| energy | not measurable here |"), "{page}");
        assert!(page.contains("| temperature | not measurable here |"), "{page}");
        assert!(page.contains("**Incomplete**: stopped after 1 of 2 rows"), "{page}");
        assert!(
            page.contains(
                "\n| | size | frame | |\n|---|---|---|---|\n| a\\|b | 64x48 | 12.3 ms |  |"
            )
        );
        row.set("energy_j", Some(0.5));
        record.rows.push(row);
        record.machine.power_sensor = Some("VDD_IN".into());
        let page = text(&record, 2);
        assert!(page.contains("| energy | of VDD_IN, a frame |"), "{page}");
        assert!(page.contains("| 12.3 ms | 0.50 J |"), "{page}");
    }
}
