//! Everything else, through an `ffmpeg` process where one is installed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use super::cut::{Missing, missing};
use super::file::Output;
use super::format::{Chroma, Order, PixelFormat};
use super::probe::Probe;
use super::program::{LOG_LEVEL, Program, Said, TIMES, ffmpeg};
use super::raw::RawSource;
use super::sink::{Framing, PlainSink};
use super::video::{Color, Matrix, Rate, SaidBy, Scan, Siting, VideoFormat};
use super::y4m::Y4mSource;
use super::{FormatOverrides, Origin, ReadOutcome, Sink, Source, VideoFrame};
use crate::durable::{self, Part};
use crate::error::{Cause, Error, Result};
use crate::media::still;

/// The formats that y4m holds and we read, of limited and of full range; ffmpeg takes the one that loses least.
const FORMATS: &str = "format=pix_fmts=yuv420p|yuvj420p|yuv422p|yuvj422p|yuv444p|yuvj444p|gray\
                       |yuv420p9le|yuv422p9le|yuv444p9le|gray9le|yuv420p10le|yuv422p10le|yuv444p10le|gray10le\
                       |yuv420p12le|yuv422p12le|yuv444p12le|gray12le|yuv420p14le|yuv422p14le|yuv444p14le\
                       |yuv420p16le|yuv422p16le|yuv444p16le|gray16le";

/// What was encoded is written, so that it can be read, as often as this; in milliseconds of the video.
const PART_MS: u32 = 1000;

/// So many files that were being written are kept beside each other.
const MOST_PARTS: usize = 100;

/// How frames are encoded; what is none is as ffmpeg has it for the container, but for [`Encoder::CRF`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoder {
    /// ffmpeg's name of the encoder, such as `libx265`.
    pub codec: Option<String>,
    /// The constant quality, in the encoder's own scale: smaller is better.
    pub crf: Option<f64>,
    /// Bits per second, as ffmpeg reads them: `4M`.
    pub bitrate: Option<String>,
    /// Further options of the encoder, by name.
    pub options: Vec<(String, String)>,
}

impl Encoder {
    /// The quality of MP4, MOV and Matroska where nothing else is asked for: hardly to be told from what was encoded.
    pub const CRF: f64 = 18.0;

    /// What ffmpeg is told, for a file of that name and frames as `video` describes them.
    fn arguments(&self, path: &Path, video: &VideoFormat) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut say = |key: &str, value: String| arguments.extend([key.to_owned(), value]);
        let kind = kind(path).unwrap_or_default();
        let is_usual = self.codec.is_none() && ["mp4", "mkv"].contains(&kind.as_str());
        if let Some(codec) = &self.codec {
            say("-c:v", codec.clone());
        }
        match (self.crf, &self.bitrate) {
            (Some(crf), _) => say("-crf", crf.to_string()),
            (None, Some(bitrate)) => say("-b:v", bitrate.clone()),
            (None, None) if is_usual => say("-crf", Self::CRF.to_string()),
            (None, None) => {}
        }
        let is_odd = video.width % 2 == 1 || video.height % 2 == 1;
        if is_usual && is_odd && matches!(video.format.chroma(), Some(Chroma::C420 | Chroma::C422)) {
            // An encoder of 4:2:0 takes even sizes alone.
            say("-pix_fmt", if video.format.bits() > 8 { "yuv444p10le" } else { "yuv444p" }.into());
        }
        for (key, value) in &self.options {
            say(&format!("-{key}"), value.clone());
        }
        if kind == "mp4" {
            // Readable as far as it was written, whatever happens.
            say("-movflags", "+frag_keyframe+delay_moov+default_base_moof".into());
        }
        match kind.as_str() {
            "mp4" => say("-frag_duration", PART_MS.to_string() + "000"),
            "mkv" | "webm" => say("-cluster_time_limit", PART_MS.to_string()),
            _ => {}
        }
        say("-flush_packets", "1".into());
        arguments
    }
}

fn not_started(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "it takes ffmpeg, which is not installed (apt install ffmpeg); or use y4m",
        _ => "ffmpeg cannot be started",
    }
}

/// What ffmpeg reads: a file or a URL.
pub struct FfmpegSource {
    process: Program,
    frames: Frames,
    name: PathBuf,
    live: bool,
    count: u64,
    /// What it says of itself.
    probe: Probe,
    /// How many frames it says that it has.
    expected: Option<u64>,
    /// When the first frame was shown, once that is known; none where frames come at an even pace.
    times: Option<Option<Duration>>,
    is_over: bool,
}

/// How frames come from ffmpeg: as y4m, or raw where they are red, green and blue, which y4m does not hold.
enum Frames {
    Y4m(Y4mSource<ChildStdout>),
    Raw(RawSource<ChildStdout>),
}

impl Frames {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Y4m(frames) => frames,
            Self::Raw(frames) => frames,
        }
    }
}

impl FfmpegSource {
    /// Starts ffmpeg and waits for the header. A URL of a live protocol (RTSP, RTP, UDP, TCP, SRT, RTMP) is a live source; what
    /// any other says of its frames is asked of ffprobe, and counts before any guess.
    ///
    /// # Errors
    /// [`Error::Input`] when ffmpeg is not there or does not read this, with what it says.
    pub fn open(name: &Path, interpretation: FormatOverrides) -> Result<Self> {
        let scheme = name.to_str().and_then(|name| name.split_once("://")).map(|(scheme, _)| scheme.to_lowercase());
        let live = scheme.is_some_and(|scheme| {
            ["rtsp", "rtsps", "rtp", "udp", "tcp", "srt", "rtmp", "rtmps", "mms"].contains(&scheme.as_str())
        });
        // What is sent once would be gone by then.
        let probe = if live || is_pipe(name) { Probe::default() } else { Probe::of(&input(name)) };
        let rgb = probe.bits_of_rgb().zip(probe.size());
        let mut command = ffmpeg(LOG_LEVEL);
        let uneven = !live && !is_url(name) && !is_pipe(name) && Probe::is_uneven(&input(name));
        // The frames of the film, and not a cover; each once, also where sound begins before them.
        let frames = ["-map", "0:V:0", "-an", "-sn", "-vsync", "passthrough"];
        command.arg("-i").arg(input(name));
        if uneven {
            command.args(frames).args(TIMES);
        }
        command.args(frames);
        match rgb {
            Some((bits, _)) => command.args(["-f", "rawvideo", "-pix_fmt", if bits > 8 { "rgb48le" } else { "rgb24" }]),
            None => command.args(["-vf", FORMATS, "-f", "yuv4mpegpipe", "-strict", "-1"]),
        };
        command.arg("pipe:1").stdin(Stdio::null()).stdout(Stdio::piped());
        let started = Program::start(command);
        let mut process = started.map_err(|error| Error::input_from(name, not_started(&error), error))?;
        let Some(stdout) = process.child.stdout.take() else { return Err(Error::input(name, "ffmpeg gives nothing")) };
        let frames = match rgb {
            Some((bits, [width, height])) => {
                let format = PixelFormat::Packed { order: Order::Rgb, bits };
                let mut video = VideoFormat::new(width, height, Rate::of(25), format);
                probe.describe(name, interpretation, &mut video)?;
                Frames::Raw(RawSource::new(name, stdout, video)?)
            }
            None => {
                let opened = Y4mSource::open(name, stdout, FormatOverrides::default());
                let says = |error| process.end().err().map_or(error, |said| Error::input(name, said));
                let mut y4m = opened.map_err(says)?;
                probe.describe(name, interpretation, y4m.video_mut())?;
                Frames::Y4m(y4m)
            }
        };
        Ok(Self {
            process,
            frames,
            name: name.into(),
            live,
            count: 0,
            expected: probe.frames(),
            probe,
            times: uneven.then_some(None),
            is_over: false,
        })
    }
}

pub(super) fn is_url(name: &Path) -> bool {
    name.to_str().is_some_and(|name| name.contains("://"))
}

/// Whether what it gives can be read once alone.
fn is_pipe(name: &Path) -> bool {
    !is_url(name) && name.metadata().is_ok_and(|found| !found.is_file())
}

/// A file's name as no URL and no option.
fn input(name: &Path) -> PathBuf {
    if is_url(name) || name.is_absolute() { name.into() } else { Path::new(".").join(name) }
}

impl FfmpegSource {
    /// Whether neither frames nor sound go on for as long as the file says. That is looked for where fewer frames came than it would have
    /// at an even pace.
    fn ends_early(&self) -> bool {
        let seems_short = self.expected.is_none_or(|expected| expected > self.count + 1);
        seems_short && !is_url(&self.name) && !is_pipe(&self.name) && self.probe.ends_early(&input(&self.name))
    }

    /// What is wrong with a file of which all frames came that there are.
    fn defect(&self, said: &Said) -> Option<Error> {
        let count = match self.expected {
            // Sound may be a little longer.
            Some(expected) if expected > self.count + self.count / 50 + 1 => {
                format!("{} of {expected} frames came", self.count)
            }
            _ => format!("{} frames came", self.count),
        };
        let missing = missing(&self.name).or_else(|| self.ends_early().then_some(Missing::End));
        let problem = match &said.damage {
            Some(damage) if said.is_cut => {
                format!("it ends before its end ({damage}): {count}, and are kept; fetch the file again")
            }
            _ if missing == Some(Missing::End) => {
                format!(
                    "it ends before its end, by the length that it declares: {count}, and are kept; fetch the file again"
                )
            }
            None if missing == Some(Missing::Part) => {
                format!("parts of it are missing: {count}, and are kept; fetch the file again")
            }
            Some(damage) => {
                format!("it is damaged ({damage}): {count}, and are kept, some of them spoilt; fetch the file again")
            }
            None => return None,
        };
        Some(Error::input(&self.name, problem))
    }
}

impl Source for FfmpegSource {
    fn video(&self) -> &VideoFormat {
        match &self.frames {
            Frames::Y4m(frames) => frames.video(),
            Frames::Raw(frames) => frames.video(),
        }
    }

    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome> {
        match self.frames.source().next(frame)? {
            ReadOutcome::End if self.is_over => Ok(ReadOutcome::End),
            ReadOutcome::End => {
                self.is_over = true;
                match self.process.end() {
                    Err(said) if self.live => Ok(ReadOutcome::Disconnected(format!("{}: {said}", self.name.display()))),
                    Err(said) => Err(Error::input(&self.name, said)),
                    Ok(_) if self.live => Ok(ReadOutcome::End),
                    // It ends with success all the same.
                    Ok(said) => self.defect(&said).map_or(Ok(ReadOutcome::End), Err),
                }
            }
            ReadOutcome::Frame => {
                self.count += 1;
                if let Some(first) = &mut self.times
                    && let Some(time) = self.process.next_time()
                {
                    frame.time = time.saturating_sub(*first.get_or_insert(time));
                }
                Ok(ReadOutcome::Frame)
            }
            other => Ok(other),
        }
    }

    fn is_live(&self) -> bool {
        self.live
    }

    fn is_uneven(&self) -> bool {
        self.times.is_some()
    }

    fn container(&self) -> Option<&Path> {
        // Sound is read a second time.
        (!is_url(&self.name) && !is_pipe(&self.name)).then_some(&self.name)
    }
}

/// What ffmpeg writes: a file that appears when it is complete.
pub struct FfmpegSink {
    process: Program,
    /// None once it is finished.
    pipe: Option<PlainSink<Pipe>>,
    video: VideoFormat,
    part: tempfile::TempPath,
    target: PathBuf,
    written: u64,
    /// When the last frame is over.
    end: Duration,
    /// Whether its frames have times of their own.
    uneven: bool,
    /// Whether there may be sound that goes on after the last frame, since the run was stopped.
    is_cut: bool,
    /// Whose sound is taken along.
    sound: Option<PathBuf>,
}

/// What goes into ffmpeg.
struct Pipe(ChildStdin);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Output for Pipe {}

impl FfmpegSink {
    /// Starts ffmpeg, which chooses container and codec by the name's end. Frames that come when they are taken are shown when
    /// they came, also where some are missing; sound that belongs to them is taken along, as it is into the same kind of file.
    ///
    /// # Errors
    /// [`Error::Output`] when ffmpeg is not there or does not write this, with what it says.
    pub fn create(path: &Path, video: &VideoFormat, origin: Origin<'_>) -> Result<Self> {
        // Bare frames have no sound beside them.
        let is_bare = kind(path).is_some_and(|kind| ["h264", "hevc", "mjpeg"].contains(&kind.as_str()));
        let origin = Origin { sound: origin.sound.filter(|_| !is_bare), ..origin };
        let Part { file, target } = still::begin(path)?;
        // Under a name by which it is found if this process is killed: what was written of it is a film.
        let part = named_part(file.into_temp_path(), &target)
            .map_err(|error| Error::output_from(path, "its folder cannot be written to", error))?;
        let mut command = ffmpeg(LOG_LEVEL);
        command.arg("-y");
        let framing = match origin {
            Origin { live: true, .. } => Framing::Live,
            Origin { uneven: true, .. } => Framing::Timed,
            _ => Framing::Y4m,
        };
        let has_times = framing != Framing::Y4m;
        if has_times {
            // All that there is to know stands in the header.
            command.args(["-f", "matroska", "-analyzeduration", "0", "-fpsprobesize", "0", "-i", "pipe:0"]);
        } else {
            command.args(["-f", "yuv4mpegpipe", "-i", "pipe:0"]);
        }
        if let Some(sound) = origin.sound {
            // It may have begun before the frames, and ends when it ends: what is shorter does not cut what is longer.
            if !video.delay.is_zero() {
                command.arg("-itsoffset").arg(format!("-{:.6}", video.delay.as_secs_f64()));
            }
            command.arg("-i").arg(input(sound)).args(["-map", "0:v:0", "-map", "1:a?"]);
            // Titles, comments and chapters are the file's, not the pipe's.
            command.args(["-map_metadata", "1", "-map_chapters", "1"]);
            if kind(sound).is_some() && kind(sound) == kind(path) {
                command.args(["-c:a", "copy", "-map", "1:s?", "-c:s", "copy"]);
            } else if kind(path).as_deref() == Some("3gp") {
                // Speech, which is what ffmpeg takes there by itself, is not in every ffmpeg.
                command.args(["-c:a", "aac"]);
            }
        }
        if has_times && kind(path).is_some_and(|kind| ["mp4", "mkv", "webm"].contains(&kind.as_str())) {
            // Frames may come sooner or later than the nominal rate says, and each has its time; others hold a steady rate alone.
            command.args(["-vsync", "vfr", "-enc_time_base", "-1"]);
        }
        command.args(tags(video));
        if let Some(encoder) = origin.encoder {
            command.args(encoder.arguments(path, video));
        }
        command.arg(&part).stdin(Stdio::piped()).stdout(Stdio::null());
        let started = Program::start_reader(command);
        let mut process = started.map_err(|error| Error::output_from(path, not_started(&error), error))?;
        let Some(stdin) = process.child.stdin.take() else {
            return Err(Error::Output { path: path.into(), problem: "ffmpeg takes nothing".into(), source: None });
        };
        let pipe = PlainSink::create(path, Pipe(stdin), framing, video);
        let mut sink = Self {
            process,
            pipe: None,
            video: video.clone(),
            part,
            target,
            written: 0,
            end: Duration::ZERO,
            uneven: framing == Framing::Timed,
            is_cut: false,
            sound: origin.sound.map(Path::to_owned),
        };
        match pipe {
            Ok(pipe) => {
                sink.pipe = Some(pipe);
                Ok(sink)
            }
            Err(error) => Err(sink.end().err().unwrap_or(error)),
        }
    }

    /// Waits for ffmpeg, and returns what it said all the same.
    ///
    /// # Errors
    /// [`Error::Output`] if it failed, with what it says.
    fn end(&mut self) -> Result<Said> {
        self.pipe = None;
        self.process.end().map_err(|problem| self.failed(problem, None))
    }

    /// The error with which it ends; what was recorded until then stays.
    fn failed(&mut self, mut problem: String, source: Option<Cause>) -> Error {
        if self.written > 0 && self.part.metadata().is_ok_and(|part| part.len() > 0) {
            self.part.disable_cleanup(true);
            problem += &format!("; what was recorded until then is kept in {}", self.part.display());
        }
        Error::Output { path: self.target.clone(), problem, source }
    }
}

impl FfmpegSink {
    /// Writes what is finished once more, without encoding it again: an MP4 with its index at the beginning, and no more sound than
    /// there are frames where the run was stopped.
    fn rewrite(&self) -> std::result::Result<tempfile::TempPath, String> {
        // By the end of its name ffmpeg knows the container.
        let extension = self.target.extension().map(|end| format!(".{}", end.display())).unwrap_or_default();
        let failed = |error: std::io::Error| error.to_string();
        let whole = durable::create(durable::folder_of(&self.target), &format!(".part{extension}")).map_err(failed)?;
        let permissions = self.part.metadata().map_err(failed)?.permissions();
        whole.as_file().set_permissions(permissions).map_err(failed)?;
        let mut command = ffmpeg(LOG_LEVEL);
        command.arg("-y").arg("-i").arg(&self.part).args(["-map", "0", "-c", "copy"]);
        if self.is_cut && self.sound.is_some() {
            command.arg("-t").arg(format!("{:.6}", self.end.as_secs_f64()));
        }
        if kind(&self.target).as_deref() == Some("mp4") {
            command.args(["-movflags", "+faststart"]);
        }
        command.arg(whole.path()).stdin(Stdio::null()).stdout(Stdio::null());
        Program::start(command).map_err(failed)?.end()?;
        Ok(whole.into_temp_path())
    }
}

/// Gives a new file the name that `target` has while it is written. What another run is writing, or left behind, stays.
fn named_part(mut file: tempfile::TempPath, target: &Path) -> std::io::Result<tempfile::TempPath> {
    for number in 0..MOST_PARTS {
        let named = numbered_part(target, number);
        match file.persist_noclobber(&named) {
            Ok(()) => return tempfile::TempPath::try_from_path(named),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => file = error.path,
            Err(error) => return Err(error.error),
        }
    }
    Err(std::io::Error::other(format!("{} and {MOST_PARTS} like it are there already", part_of(target).display())))
}

/// What a container is called while it is written: `out.part.mp4` for `out.mp4`.
pub fn part_of(path: &Path) -> PathBuf {
    numbered_part(path, 0)
}

/// The same where that is there already: `out.part1.mp4` and so on.
fn numbered_part(path: &Path, number: usize) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".part");
    if number > 0 {
        name.push(number.to_string());
    }
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Which kind of container a name tells: those of one kind hold the same sound.
fn kind(path: &Path) -> Option<String> {
    let extension = path.extension()?.to_str()?.to_lowercase();
    Some(if ["m4v", "mov"].contains(&extension.as_str()) { "mp4".to_owned() } else { extension })
}

/// What ffmpeg is told of the frames that y4m does not say, for the container to say it.
fn tags(video: &VideoFormat) -> Vec<&'static str> {
    let Color { matrix, said_by, primaries, transfer, full_range, siting } = video.color;
    let mut tags = Vec::new();
    tags.extend(primaries.primaries().map(|name| ["-color_primaries", name]));
    tags.extend(transfer.transfer().map(|name| ["-color_trc", name]));
    if !video.format.is_grey() {
        // What nobody said stays unsaid, where readers take it for what it is.
        if said_by != SaidBy::Nobody || matrix != Matrix::usual(video.height) {
            tags.push(["-colorspace", matrix.name()]);
        }
        if video.format.chroma() == Some(Chroma::C420) && siting == Siting::TopLeft {
            tags.push(["-chroma_sample_location", "topleft"]);
        }
    }
    if video.color != Color::usual(video.height, video.format) {
        tags.push(["-color_range", if full_range { "pc" } else { "tv" }]);
    }
    match video.scan {
        Scan::TopFirst => tags.push(["-field_order", "tt"]),
        Scan::BottomFirst => tags.push(["-field_order", "bb"]),
        Scan::Progressive | Scan::Mixed => {}
    }
    if matches!(video.scan, Scan::TopFirst | Scan::BottomFirst) {
        tags.push(["-flags", "+ilme+ildct"]);
    }
    tags.concat()
}

impl Sink for FfmpegSink {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn write(&mut self, frame: &VideoFrame) -> Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        match pipe.write(frame) {
            Ok(()) => {
                self.written += 1;
                let steady = self.video.rate.time_of(self.written);
                self.end = if self.uneven { frame.time + self.video.rate.time_of(1) } else { steady };
                Ok(())
            }
            // It closed its end: why, it says itself. Where it does not, it is no reader who has had enough.
            Err(_) => Err(match self.end() {
                Err(error) => error,
                Ok(_) => self.failed(format!("ffmpeg ended after {} frames, before the last", self.written), None),
            }),
        }
    }

    fn part(&self) -> Option<&Path> {
        Some(&self.part)
    }

    fn stopped(&mut self) {
        self.is_cut = true;
    }

    fn finish(&mut self) -> Result<()> {
        if self.pipe.is_none() {
            // It failed, and that was said.
            return Ok(());
        }
        let said = self.end()?;
        if self.written == 0 {
            return Ok(());
        }
        let is_to_be_rewritten = kind(&self.target).as_deref() == Some("mp4") || (self.is_cut && self.sound.is_some());
        // What was recorded has its own name until the other is in its place for good.
        let rewritten =
            is_to_be_rewritten.then(|| self.rewrite()).transpose().map_err(|problem| self.failed(problem, None))?;
        let finished = rewritten.as_deref().unwrap_or(&self.part);
        durable::rename(finished, &self.target)
            .map_err(|error| self.failed("the finished file cannot be renamed".into(), Some(error.into())))?;
        match (&self.sound, &said.damage) {
            // Frames come through a pipe, which says nothing of the kind.
            (Some(sound), Some(damage)) => {
                let problem = if said.is_cut { "ends before its end" } else { "is damaged" };
                let problem = format!(
                    "its sound {problem} ({damage}): {} frames and what sound came are kept; fetch the file again",
                    self.written
                );
                Err(Error::input(sound, problem))
            }
            _ => Ok(()),
        }
    }
}
