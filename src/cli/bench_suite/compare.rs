//! Two suites side by side.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::page::{cell, digits};
use super::record::{Kind, Record, Row};

/// What changed since an earlier suite.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// How the machines differ; none if they do not.
    pub(super) machine: Option<String>,
    rows: Vec<Change>,
}

/// The time of one figure, then and now.
#[derive(Debug, Serialize)]
struct Change {
    /// What was measured, and at which size.
    what: String,
    old_ms: f64,
    new_ms: f64,
    /// New over old: below 1 is faster.
    ratio: f64,
    /// The same ratio of the network alone, which depends on the machine and ONNX Runtime only.
    ratio_network: Option<f64>,
    ratio_memory: Option<f64>,
}

impl Comparison {
    /// The rows that both have.
    pub(super) fn of(old: &Record, new: &Record) -> Self {
        let before = |row: &Row| old.rows.iter().find(|it| it.matches(row));
        let pairs = new.rows.iter().filter_map(|row| Some((before(row)?, row)));
        let rows = pairs.flat_map(|(old, new)| changes(old, new)).collect();
        Self { machine: new.machine.difference(&old.machine), rows }
    }

    /// The table, in Markdown.
    pub(super) fn text(&self, old: &Path) -> String {
        let old = cell(&old.display().to_string());
        let mut text = format!("\n## Compared with {old}\n");
        if let Some(difference) = &self.machine {
            let _ = write!(text, "\n**Another machine**: {}.\n", cell(difference));
        }
        if self.rows.is_empty() {
            return text + "\nNothing was measured by both.\n";
        }
        text += "\nTimes of a frame, and new over old: below 1 is faster, or less. Where the \
                 network alone changed as much, it is the machine, its load or ONNX Runtime.\n\n\
                 | | old | new | ratio | of the network alone | of the memory |\n\
                 |---|---|---|---|---|---|\n";
        let ratio = |ratio: Option<f64>| ratio.map_or_else(String::new, |it| format!("{it:.2}"));
        for Change { what, old_ms, new_ms, ratio: whole, ratio_network, ratio_memory } in &self.rows
        {
            let (old, new) = (digits(*old_ms), digits(*new_ms));
            let _ = writeln!(
                text,
                "| {} | {old} ms | {new} ms | {whole:.2} | {} | {} |",
                cell(what),
                ratio(*ratio_network),
                ratio(*ratio_memory)
            );
        }
        text
    }
}

/// The times of a row that both records have.
fn changes(old: &Row, new: &Row) -> Vec<Change> {
    // A figure, whether it is frames per second, and the same of the network alone.
    type Compared = (&'static str, &'static str, Option<&'static str>);
    const IN_MS: bool = false;
    const FPS: bool = true;
    let figures: &[(Compared, bool)] = match new.kind {
        Kind::Start => &[(("", "wall_ms", Some("version_ms")), IN_MS)],
        Kind::Image => &[(("", "frame_ms", Some("session_ms")), IN_MS)],
        Kind::Stream => &[
            (("", "fps", Some("fps_network")), FPS),
            ((" --temporal", "fps_temporal", Some("fps_network")), FPS),
        ],
        Kind::Peer => &[(("", "ms", None), IN_MS)],
    };
    let positive = |row: &Row, figure: &str| row.get(figure).filter(|it| *it > 0.0);
    let ratio = |figure: &str| Some(positive(new, figure)? / positive(old, figure)?);
    let change = |((suffix, figure, alone), is_rate): &(Compared, bool)| {
        let ms = |value: f64| if *is_rate { 1e3 / value } else { value };
        let of_time = |ratio: f64| if *is_rate { ratio.recip() } else { ratio };
        let kind = match new.kind {
            Kind::Start => "start, ",
            Kind::Stream => "stream, ",
            Kind::Image | Kind::Peer => "",
        };
        let precision = new.precision.map_or_else(String::new, |it| format!(", {it}"));
        Some(Change {
            what: format!("{kind}{}{suffix}{precision}, {}", new.name, new.size()),
            old_ms: ms(positive(old, figure)?),
            new_ms: ms(positive(new, figure)?),
            ratio: of_time(ratio(figure)?),
            ratio_network: alone.and_then(ratio).map(of_time),
            ratio_memory: ratio("peak_resident_bytes"),
        })
    };
    figures.iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::options::Size;
    use super::super::record::{Kind, Record, Row};
    use super::Comparison;
    use std::path::Path;

    fn record(frame_ms: f64, fps: f64) -> Record {
        let mut record = Record::new(String::new(), 1.0);
        let size = Size { width: 64, height: 48 };
        let mut image = Row::new(Kind::Image, "net", None, size);
        image.set("frame_ms", Some(frame_ms));
        image.set("session_ms", None);
        let mut stream = Row::new(Kind::Stream, "net", None, size);
        stream.set("fps", Some(fps));
        stream.set("fps_network", Some(20.0));
        record.rows = vec![image, stream];
        record
    }

    #[test]
    fn ratios_are_of_times() {
        let (old, mut new) = (record(10.0, 10.0), record(5.0, 40.0));
        let comparison = Comparison::of(&old, &new);
        assert_eq!(comparison.machine, None);
        let [image, stream] = comparison.rows.as_slice() else { panic!("{comparison:?}") };
        assert_eq!((image.ratio, image.ratio_network), (0.5, None));
        assert_eq!((stream.old_ms, stream.new_ms, stream.ratio), (100.0, 25.0, 0.25));
        assert_eq!(stream.ratio_network, Some(1.0));
        new.machine.cpu = "another".into();
        new.rows.clear();
        let page = Comparison::of(&old, &new).text(Path::new("old.json"));
        assert!(page.contains("**Another machine**") && page.contains("by both"), "{page}");
    }
}
