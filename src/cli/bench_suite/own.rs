//! What a suite measures of this binary, by running it.

use std::ffi::OsStr;
use std::process::Command;

use eddy::media::still::{self, Format, Options};
use eddy::model::{Precision, Task};
use serde_json::Value;

use super::super::bench::median;
use super::super::dry_run::noisy_frame;
use super::super::io_args::counted;
use super::super::options::Size;
use super::child::{self, Failure, Finished};
use super::record::{Kind, Record, Row, bytes};
use super::{Model, Session};

/// The size of the image at whose run the start is measured.
pub(super) const TINY: Size = Size { width: 64, height: 64 };

/// The rounds in which two programs alternate.
const ROUNDS: usize = 5;

/// Seconds after which rounds of frames end, and after which a figure is given up.
const IMAGE_SECONDS: [f64; 2] = [8.0, 30.0];
const STREAM_SECONDS: [f64; 2] = [40.0, 60.0];

/// The frames that `eddy bench --video` measures at least.
const STREAM_FRAMES: f64 = 12.0;

/// The command that runs a model on an image in its own way, with a known sigma; none for models
/// that take no image.
pub(super) fn start_command(model: &Model) -> Option<&'static [&'static str]> {
    match model.package.manifest.task {
        Task::Denoise => Some(&["denoise", "--sigma", "25"]),
        Task::Upscale => Some(&["upscale"]),
        _ => None,
    }
}

impl Session {
    /// Runs this binary with these arguments.
    pub(super) fn own(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        seconds: f64,
    ) -> Result<Finished, Failure> {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        child::run(command, self.limit(seconds))
    }

    /// The record that `eddy bench` prints with these options.
    fn bench(
        &self,
        model: &str,
        precision: Option<Precision>,
        size: Size,
        options: &[&str],
        limit: f64,
    ) -> Result<Value, Failure> {
        let (size, seconds) = (size.to_string(), self.seconds.to_string());
        let mut command = Command::new(&self.program);
        command.args(["bench", "--json", "--size", &size, "--seconds", &seconds]);
        if let Some(precision) = precision {
            command.args(["--precision", precision.name()]);
        }
        command.args(options).args(&self.arguments).args(["--", model]);
        let finished = child::run(command, self.limit(limit))?;
        serde_json::from_str(finished.stdout.trim())
            .map_err(|cause| Failure::Failed(format!("its record cannot be read: {cause}")))
    }

    /// A run of the whole binary on a tiny image, and in turn one that does nothing.
    pub(super) fn start(&self, model: &Model, row: &mut Row) -> Result<(), Failure> {
        const SECONDS: f64 = 10.0;
        let (mut whole, mut bare, mut peak) = (Vec::new(), Vec::new(), None);
        for _ in 0..ROUNDS {
            bare.push(self.own(["--version"], SECONDS)?.seconds * 1e3);
            let run = self.start_once(model, SECONDS)?;
            whole.push(run.seconds * 1e3);
            peak = peak.max(run.peak);
        }
        row.set("wall_ms", Some(median(&mut whole)));
        row.set("version_ms", Some(median(&mut bare)));
        row.set("peak_resident_bytes", bytes(peak));
        Ok(())
    }

    /// One run of the whole binary on a tiny image.
    pub(super) fn start_once(&self, model: &Model, seconds: f64) -> Result<Finished, Failure> {
        let [input, output] =
            ["tiny.png", "tiny-out.png"].map(|name| self.folder.path().join(name));
        if !input.exists() {
            let written =
                still::write(&noisy_frame(TINY), &input, Format::Png, &Options::default());
            written.map_err(|error| Failure::Failed(error.to_string()))?;
        }
        let command = start_command(model).unwrap_or_default();
        let mut arguments: Vec<&OsStr> = command.iter().map(OsStr::new).collect();
        arguments.extend(["--quiet", "--no-sync", "-m", &model.name].map(OsStr::new));
        arguments.extend(self.arguments.iter().map(AsRef::<OsStr>::as_ref));
        arguments.extend([OsStr::new("-o"), output.as_os_str(), input.as_os_str()]);
        self.own(arguments, seconds)
    }

    /// Whole frames of a network, in rounds with the network alone.
    pub(super) fn image(&self, row: &mut Row, record: &mut Record) -> Result<(), Failure> {
        const FIGURES: [&str; 8] = [
            "frame_ms",
            "session_ms",
            "ratio",
            "rounds",
            "peak_resident_bytes",
            "energy_j",
            "temperature_c",
            "evaluations",
        ];
        let [within, limit] = IMAGE_SECONDS;
        let longest = self.scaled(within) * 1e3;
        let known = smaller(row, record).find_map(|(smaller, factor)| {
            let ms = smaller.get("frame_ms").or(smaller.get("estimated_frame_ms"))?;
            Some((ms * factor, smaller.size()))
        });
        if let Some((ms, size)) = known.filter(|(ms, _)| *ms > longest) {
            estimate(row, ms, size);
            return Ok(());
        }
        let within = self.scaled(within).to_string();
        let options = ["--within", within.as_str()];
        // Another precision that is too slow saves the time to find out.
        let is_slow = record.rows.iter().any(|other| {
            (&other.name, other.size()) == (&row.name, row.size())
                && other.get("estimated_frame_ms").is_some()
        });
        let found = match is_slow {
            true => Err(Failure::Late(self.limit(limit))),
            false => self.bench(&row.name, row.precision, row.size(), &options, limit),
        };
        match found {
            Ok(found) => fill(row, &found, &FIGURES, record),
            Err(Failure::Late(_)) => {
                let size = Size { width: row.width.div_ceil(4), height: row.height.div_ceil(4) };
                let found = self.bench(&row.name, row.precision, size, &options, limit)?;
                let factor = pixels(row.size()) / pixels(size);
                let ms = found["frame_ms"].as_f64();
                estimate(row, ms.unwrap_or(f64::NAN) * factor, size);
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// The time of an evaluation of the network alone, in f32, and the peak memory.
    pub(super) fn session_ms(
        &self,
        model: &Model,
        size: Size,
    ) -> Result<(f64, Option<u64>), Failure> {
        let precision = Some(Precision::F32);
        let found =
            self.bench(&model.name, precision, size, &["--within", "4"], IMAGE_SECONDS[1])?;
        let number = |name: &str| found[name].as_f64().unwrap_or(f64::NAN);
        Ok((number("session_ms") / number("evaluations"), found["peak_resident_bytes"].as_u64()))
    }

    /// A stream, with and without previous frames.
    pub(super) fn stream(&self, row: &mut Row, record: &mut Record) -> Result<(), Failure> {
        const FIGURES: [&str; 8] = [
            "fps",
            "fps_temporal",
            "fps_network",
            "fps_one_by_one",
            "peak_resident_bytes",
            "energy_j",
            "energy_temporal_j",
            "temperature_c",
        ];
        let is_cpu = record.machine.device.as_ref().is_none_or(|device| device == "cpu");
        if is_cpu && row.precision == Some(Precision::F16) {
            row.note = Some("left out: on a CPU, f16 is not faster than f32".into());
            return Ok(());
        }
        let [longest, limit] = STREAM_SECONDS;
        let known = smaller(row, record).find_map(|(smaller, factor)| {
            let frames = FIGURES[..4].iter().map(|name| Some(smaller.get(name)?.recip()));
            let seconds = frames.sum::<Option<f64>>()? * STREAM_FRAMES * factor;
            Some((seconds, smaller.get("fps")? / factor, smaller.size()))
        });
        if let Some((_, fps, size)) = known.filter(|(seconds, ..)| *seconds > self.scaled(longest))
        {
            row.set("estimated_fps", Some(fps));
            row.note = Some(format!("too slow to measure: about {fps:.2} fps, by those at {size}"));
            return Ok(());
        }
        let found = self.bench(&row.name, row.precision, row.size(), &["--video"], limit)?;
        fill(row, &found, &FIGURES, record);
        Ok(())
    }
}

/// The rows of other sizes that are about the same, the last first, and how many times more pixels
/// `row` has.
fn smaller<'r>(row: &Row, record: &'r Record) -> impl Iterator<Item = (&'r Row, f64)> {
    let (kind, name, precision) = (row.kind, row.name.clone(), row.precision);
    let size = pixels(row.size());
    let is_alike =
        move |other: &&Row| (other.kind, &other.name, other.precision) == (kind, &name, precision);
    let rows = record.rows.iter().rev().filter(is_alike);
    rows.map(move |other| (other, size / pixels(other.size())))
}

fn pixels(Size { width, height }: Size) -> f64 {
    (width * height) as f64
}

/// States what a frame that takes too long would take.
fn estimate(row: &mut Row, ms: f64, by: Size) {
    row.set("estimated_frame_ms", Some(ms));
    let seconds = ms / 1e3;
    row.note = Some(format!("too slow to measure: about {seconds:.1} s a frame, by that at {by}"));
}

/// Takes figures from the record of `eddy bench`.
fn fill(row: &mut Row, found: &Value, figures: &[&str], record: &mut Record) {
    figures.iter().for_each(|name| row.set(name, found[name].as_f64()));
    let rounds = row.get("rounds").unwrap_or(f64::INFINITY);
    if row.kind == Kind::Image && rounds < ROUNDS as f64 {
        row.note = Some(format!("of {}", counted(rounds as u64, "round")));
    }
    let text = |name: &str| found[name].as_str().map(str::to_owned);
    let machine = &mut record.machine;
    machine.onnxruntime = machine.onnxruntime.take().or_else(|| text("onnxruntime"));
    machine.device = machine.device.take().or_else(|| text("device"));
}
