//! Other programs beside this one, where they are installed.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Instant;

use eddy::media::Samples;
use eddy::media::still::{self, Format, Options};
use eddy::model::{Precision, Task};
use serde::Deserialize;

use super::super::bench::median;
use super::super::bench_video::frames;
use super::super::dry_run::noisy_frame;
use super::super::options::Size;
use super::child::{self, Failure, Finished};
use super::own::{TINY, start_command};
use super::record::{Kind, Record, Row, bytes};
use super::{Model, Session};

/// Seconds after which a run of a peer is given up.
const LIMIT: f64 = 30.0;

/// The rounds in which two programs alternate.
const ROUNDS: usize = 3;

/// Another program, and the network that it is compared with.
pub(super) enum Peer<'a> {
    /// The same network in Python's onnxruntime.
    OnnxRuntime(&'a Model),
    /// From the start of Python to one evaluation.
    OnnxRuntimeStart(&'a Model),
    /// A filter of ffmpeg on the frames of the stream.
    Ffmpeg(&'static str, &'a Model),
    /// Non-local means of OpenCV.
    OpenCv(&'a Model),
    /// An upscaler that runs on Vulkan.
    RealEsrgan(&'a Model),
}

/// What `peers.py` prints.
#[derive(Deserialize)]
struct PythonRecord {
    ms: Option<f64>,
    version: Option<String>,
    missing: Option<String>,
}

impl<'a> Peer<'a> {
    /// The programs to compare these networks and streams with, some of them at the first size
    /// alone.
    pub(super) fn all(models: &'a [Model], streams: &[&'a Model], is_first: bool) -> Vec<Self> {
        let of = |task: Task| models.iter().find(move |it| it.package.manifest.task == task);
        let mut peers = Vec::new();
        if let Some(model) = of(Task::Denoise) {
            if is_first && model.package.file(Precision::F32).is_ok() {
                peers.extend([Self::OnnxRuntimeStart(model), Self::OnnxRuntime(model)]);
            }
            peers.push(Self::OpenCv(model));
        }
        if let Some(model) = streams.first() {
            peers.extend(["hqdn3d", "nlmeans"].map(|filter| Self::Ffmpeg(filter, model)));
        }
        let enlarges = |model: &&Model| {
            let manifest = &model.package.manifest;
            manifest.task == Task::Upscale && manifest.scale == 4
        };
        let upscaler = models.iter().find(enlarges).filter(|_| is_first);
        peers.extend(upscaler.map(Self::RealEsrgan));
        peers
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::OnnxRuntime(model) => format!("Python onnxruntime, {}", model.name),
            Self::OnnxRuntimeStart(model) => format!("Python onnxruntime, {}: start", model.name),
            Self::Ffmpeg(filter, _) => format!("ffmpeg {filter}"),
            Self::OpenCv(_) => "OpenCV fastNlMeansDenoisingColored".to_owned(),
            Self::RealEsrgan(_) => "realesrgan-ncnn-vulkan".to_owned(),
        }
    }

    /// The size at which it is measured, where the others are at `size`.
    pub(super) fn size(&self, size: Size) -> Size {
        if matches!(self, Self::OnnxRuntimeStart(_)) { TINY } else { size }
    }
}

impl Session {
    /// Measures another program, with what this one took for the same.
    pub(super) fn peer(
        &self,
        peer: &Peer<'_>,
        row: &mut Row,
        record: &Record,
    ) -> Result<(), Failure> {
        match peer {
            Peer::OnnxRuntime(model) => self.onnxruntime(model, row),
            Peer::OnnxRuntimeStart(model) => self.onnxruntime_start(model, row),
            Peer::Ffmpeg(filter, model) => {
                self.ffmpeg(filter, row)?;
                let stream = record.find(Kind::Stream, &model.name, row.size());
                beside(row, stream, |stream| Some(1e3 / stream.get("fps")?), "stream");
                Ok(())
            }
            Peer::OpenCv(model) => {
                self.opencv(row)?;
                let image = record.find(Kind::Image, &model.name, row.size());
                beside(row, image, |image| image.get("frame_ms"), "image");
                Ok(())
            }
            Peer::RealEsrgan(model) => {
                self.realesrgan(row)?;
                let image = record.find(Kind::Image, &model.name, row.size());
                beside(row, image, |image| image.get("frame_ms"), "image, without start");
                Ok(())
            }
        }
    }

    /// Evaluations in Python, in rounds with those of the network alone here.
    fn onnxruntime(&self, model: &Model, row: &mut Row) -> Result<(), Failure> {
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            let (run, found) = self.python(model, row.size(), self.seconds / ROUNDS as f64)?;
            let (own, own_peak) = self.session_ms(model, row.size())?;
            rounds.add((found.ms.unwrap_or(f64::NAN), run.peak), (own, own_peak));
            row.note = noted(found.version, "the network alone");
        }
        rounds.finish(row);
        Ok(())
    }

    /// A run of Python with one evaluation, in rounds with one of this binary.
    fn onnxruntime_start(&self, model: &Model, row: &mut Row) -> Result<(), Failure> {
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            let (run, found) = self.python(model, TINY, 0.0)?;
            if start_command(model).is_some() {
                let own = self.start_once(model, LIMIT)?;
                rounds.add((run.seconds * 1e3, run.peak), (own.seconds * 1e3, own.peak));
            }
            row.note = noted(found.version, "the start");
        }
        rounds.finish(row);
        Ok(())
    }

    /// Evaluations of a network at that size by Python's onnxruntime.
    fn python(
        &self,
        model: &Model,
        size: Size,
        seconds: f64,
    ) -> Result<(Finished, PythonRecord), Failure> {
        let failed = |error: eddy::Error| Failure::Failed(error.to_string());
        let manifest = &model.package.manifest;
        let file = model.package.file(Precision::F32).map_err(failed)?;
        let path = self.folder.path().join(format!("{}.onnx", file.sha256));
        if !path.exists() {
            let bytes = model.package.read(&file.path).map_err(failed)?;
            std::fs::write(&path, bytes).map_err(|error| Failure::Failed(error.to_string()))?;
        }
        // The grid of the network.
        let [width, height] = [size.width, size.height].map(|side| {
            side.div_ceil(manifest.layout.pixels()).next_multiple_of(manifest.multiple_of)
        });
        let numbers = [width.to_string(), height.to_string(), seconds.to_string()];
        let mut arguments = vec![OsStr::new("onnxruntime"), path.as_os_str()];
        arguments.extend(numbers.iter().map(OsStr::new));
        let threads = self.threads.to_string();
        arguments.push(OsStr::new(&threads));
        self.python_script(&arguments)
    }

    fn python_script(&self, arguments: &[&OsStr]) -> Result<(Finished, PythonRecord), Failure> {
        let mut command = Command::new("python3");
        command.args(["-c", include_str!("peers.py")]).args(arguments);
        let run = child::run(command, self.limit(LIMIT))?;
        let found: PythonRecord = serde_json::from_str(run.stdout.trim())
            .map_err(|cause| Failure::Failed(format!("Python printed no record: {cause}")))?;
        match &found.missing {
            None => Ok((run, found)),
            Some(_) => Err(Failure::NotInstalled),
        }
    }

    fn opencv(&self, row: &mut Row) -> Result<(), Failure> {
        let Samples::U8(samples) = noisy_frame(row.size()).samples else { return Ok(()) };
        let path = self.folder.path().join("frame.rgb");
        std::fs::write(&path, samples).map_err(|error| Failure::Failed(error.to_string()))?;
        let numbers = [row.width.to_string(), row.height.to_string(), self.seconds.to_string()];
        let mut arguments = vec![OsStr::new("opencv"), path.as_os_str()];
        arguments.extend(numbers.iter().map(OsStr::new));
        let (run, found) = self.python_script(&arguments)?;
        row.set("ms", found.ms);
        row.set("peak_resident_bytes", bytes(run.peak));
        row.note = found.version;
        Ok(())
    }

    /// The time of a frame in a filter of ffmpeg, over that of a run without the filter.
    fn ffmpeg(&self, filter: &str, row: &mut Row) -> Result<(), Failure> {
        let version = self.ffmpeg_version()?;
        let size = row.size();
        let path = self.folder.path().join(format!("{size}.yuv"));
        if !path.exists() {
            let written = frames([size.width, size.height], 4)
                .map_err(|error| error.to_string())
                .and_then(|frames| std::fs::write(&path, frames).map_err(|it| it.to_string()));
            written.map_err(Failure::Failed)?;
        }
        let run = |filter: &str, count: usize| {
            let mut command = Command::new("ffmpeg");
            command.args(["-nostdin", "-loglevel", "error", "-f", "rawvideo"]);
            command.args(["-pix_fmt", "yuv420p", "-s", &size.to_string(), "-stream_loop", "-1"]);
            command.arg("-i").arg(&path).args(["-frames:v", &count.to_string(), "-vf", filter]);
            command.args(["-f", "null", "-"]);
            child::run(command, self.limit(LIMIT))
        };
        // As many frames as take the duration of a figure.
        let time = (run(filter, 4)?.seconds - run("null", 4)?.seconds) / 4.0;
        let count = (self.seconds / time.max(1e-4)).clamp(4.0, 2000.0) as usize;
        let (mut times, mut peak, started) = (Vec::new(), None, Instant::now());
        while times.len() < ROUNDS
            && (times.is_empty() || started.elapsed().as_secs_f64() < 3.0 * self.seconds)
        {
            let (filtered, plain) = (run(filter, count)?, run("null", count)?);
            times.push(1e3 * (filtered.seconds - plain.seconds) / count as f64);
            peak = peak.max(filtered.peak);
        }
        // Of a few tiny frames, the filter's part can be lost in the start of the program.
        let ms = Some(median(&mut times)).filter(|ms| *ms > 0.0);
        row.set("ms", ms);
        row.set("peak_resident_bytes", bytes(peak));
        row.note = Some(match ms {
            Some(_) => version,
            None => format!("{version}; too fast to measure in so short a time"),
        });
        Ok(())
    }

    fn ffmpeg_version(&self) -> Result<String, Failure> {
        let mut command = Command::new("ffmpeg");
        command.arg("-version");
        let text = child::run(command, self.limit(LIMIT))?.stdout;
        let version = text.strip_prefix("ffmpeg version ").and_then(|rest| rest.split(' ').next());
        Ok(version.unwrap_or("of an unknown version").to_owned())
    }

    /// One run of the whole program, which has no other way to be measured.
    fn realesrgan(&self, row: &mut Row) -> Result<(), Failure> {
        let [input, output] = ["frame.png", "frame-x4.png"].map(|it| self.folder.path().join(it));
        still::write(&noisy_frame(row.size()), &input, Format::Png, &Options::default())
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let mut command = Command::new("realesrgan-ncnn-vulkan");
        command.args(["-n", "realesrgan-x4plus", "-i"]).arg(input).arg("-o").arg(&output);
        let run = child::run(command, self.limit(LIMIT))?;
        // Without its models or a GPU it ends well, and writes nothing.
        if !output.exists() {
            return Err(Failure::Failed("it wrote no image".into()));
        }
        row.set("ms", Some(run.seconds * 1e3));
        row.set("peak_resident_bytes", bytes(run.peak));
        Ok(())
    }
}

/// States what this program took for the same, where that was measured.
fn beside(row: &mut Row, own: Option<&Row>, ms: impl Fn(&Row) -> Option<f64>, what: &str) {
    let Some(own) = own else { return };
    let own_ms = ms(own);
    row.set("eddy_ms", own_ms);
    row.set("ratio", row.get("ms").zip(own_ms).map(|(ms, own)| ms / own));
    row.set("eddy_peak_resident_bytes", own.get("peak_resident_bytes"));
    let precision = own.precision.map_or_else(String::new, |precision| format!(" in {precision}"));
    let version = row.note.take().map_or_else(String::new, |version| version + "; ");
    row.note = Some(format!("{version}beside {}{precision}, {what}", own.name));
}

/// The note of a version of onnxruntime, which runs on the CPU.
fn noted(version: Option<String>, beside: &str) -> Option<String> {
    version.map(|version| format!("{version} on the CPU; beside {beside}, in rounds"))
}

/// Times and peaks of memory of two programs that alternate.
#[derive(Default)]
struct Rounds {
    ms: Vec<f64>,
    own_ms: Vec<f64>,
    peak: Option<u64>,
    own_peak: Option<u64>,
}

/// Milliseconds and peak memory.
type Measured = (f64, Option<u64>);

impl Rounds {
    fn add(&mut self, (ms, peak): Measured, (own_ms, own_peak): Measured) {
        self.ms.push(ms);
        self.own_ms.push(own_ms);
        self.peak = self.peak.max(peak);
        self.own_peak = self.own_peak.max(own_peak);
    }

    fn finish(mut self, row: &mut Row) {
        if self.ms.is_empty() {
            return;
        }
        // The median of ratios ignores a disturbance of one round.
        let pairs = self.ms.iter().zip(&self.own_ms);
        let mut ratios: Vec<f64> = pairs.map(|(ms, own)| ms / own).collect();
        row.set("ms", Some(median(&mut self.ms)));
        row.set("eddy_ms", Some(median(&mut self.own_ms)));
        row.set("ratio", Some(median(&mut ratios)));
        row.set("peak_resident_bytes", bytes(self.peak));
        row.set("eddy_peak_resident_bytes", bytes(self.own_peak));
    }
}
