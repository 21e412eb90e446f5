//! All other formats, through an `ffmpeg` process if it is installed.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use super::container;
use super::cut::{Missing, missing};
use super::file::Output;
use super::format::{Chroma, Order, PixelFormat};
use super::probe::Probe;
use super::program::{LOG_LEVEL, Program, Said, TIMES, ffmpeg};
use super::raw::RawSource;
use super::sink::{Framing, PlainSink};
use super::sound::Sound;
use super::video::{Color, Matrix, Rate, SaidBy, Scan, Siting, VideoFormat};
use super::y4m::Y4mSource;
use super::{FormatOverrides, Origin, ReadOutcome, Sink, Source, VideoFrame};
use crate::durable::{self, Part};
use crate::error::{Cause, Error, Result};
use crate::media::still;

/// The formats that y4m supports and we read, in limited and full range; ffmpeg chooses the one
/// with the least loss.
const FORMATS: &str = "format=pix_fmts=yuv420p|yuvj420p|yuv422p|yuvj422p|yuv444p|yuvj444p|gray\
                       |yuv420p9le|yuv422p9le|yuv444p9le|gray9le|yuv420p10le|yuv422p10le|yuv444p10le|gray10le\
                       |yuv420p12le|yuv422p12le|yuv444p12le|gray12le|yuv420p14le|yuv422p14le|yuv444p14le\
                       |yuv420p16le|yuv422p16le|yuv444p16le|gray16le";

/// Interval at which encoded data is written so that it can be read, in milliseconds of the video.
const PART_MS: u32 = 1000;

/// Frames per second from which on the default encoders' own lookahead is short enough.
const STEADY: f64 = 25.0;

/// How many seconds of frames the default encoders may hold back at lower rates.
const HELD_BACK: f64 = 2.0;

/// Maximum number of partial files that are kept side by side.
const MOST_PARTS: usize = 100;

/// Encoder settings. `None` uses ffmpeg's default for the container, except for [`Encoder::CRF`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoder {
    /// The encoder's name in ffmpeg, such as `libx265`.
    pub codec: Option<String>,
    /// The constant quality (CRF) on the encoder's own scale: smaller is better.
    pub crf: Option<f64>,
    /// Bit rate in ffmpeg's syntax: `4M`.
    pub bitrate: Option<String>,
    /// Further options of the encoder, by name.
    pub options: Vec<(String, String)>,
}

impl Encoder {
    /// Default quality of MP4, MOV and Matroska: visually almost lossless.
    pub const CRF: f64 = 18.0;

    /// Whether the options say that sound is not encoded.
    pub(super) fn copies_sound(&self) -> bool {
        self.options.iter().any(|(key, value)| {
            ["c:a", "codec:a", "acodec"].contains(&key.as_str()) && value == "copy"
        })
    }

    /// The ffmpeg arguments for a file of that name and frames of format `video`.
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
        if self.codec.is_none() {
            lookahead(&kind, video.rate).into_iter().for_each(|(key, value)| say(key, value));
        }
        let is_odd = video.width % 2 == 1 || video.height % 2 == 1;
        if is_usual && is_odd && matches!(video.format.chroma(), Some(Chroma::C420 | Chroma::C422))
        {
            // 4:2:0 encoders require even sizes.
            say("-pix_fmt", if video.format.bits() > 8 { "yuv444p10le" } else { "yuv444p" }.into());
        }
        for (key, value) in &self.options {
            say(&format!("-{key}"), value.clone());
        }
        if kind == "mp4" {
            // Keeps the file readable up to what was written, even after a crash.
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

/// The options of the default encoders, which otherwise hold back up to 50 frames: below
/// [`STEADY`] no more than come in [`HELD_BACK`] seconds.
fn lookahead(kind: &str, rate: Rate) -> Vec<(&'static str, String)> {
    let rate = rate.per_second();
    if rate >= STEADY {
        return Vec::new();
    }
    let frames = (rate * HELD_BACK) as u32;
    match kind {
        "mp4" | "mkv" => {
            // Half for the decision on B-frames and what follows it, half for the lookahead.
            let b_frames = (frames / 8).min(3);
            let analysed = (frames / 2).saturating_sub(b_frames).min(40);
            // Threads for slices, and not each for a frame.
            vec![
                ("-bf", b_frames.to_string()),
                ("-rc-lookahead", analysed.to_string()),
                ("-thread_type", "slice".into()),
            ]
        }
        "webm" => vec![("-lag-in-frames", (frames / 2).min(25).to_string())],
        _ => Vec::new(),
    }
}

fn not_started(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            "it takes ffmpeg, which is not installed (apt install ffmpeg); or use y4m"
        }
        _ => "ffmpeg cannot be started",
    }
}

/// A file or URL that ffmpeg reads.
pub struct FfmpegSource {
    process: Program,
    frames: Frames,
    name: PathBuf,
    live: bool,
    count: u64,
    /// What ffprobe reports about the file.
    probe: Probe,
    /// The number of frames that the file declares.
    expected: Option<u64>,
    /// Presentation time of the first frame, once known; `None` where the frame rate is constant.
    times: Option<Option<Duration>>,
    is_over: bool,
}

/// The format of frames from ffmpeg: y4m, or raw for RGB, which y4m does not support.
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
    /// Starts ffmpeg and waits for the header. A URL of a live protocol (RTSP, RTP, UDP, TCP, SRT,
    /// RTMP) is a live source; other sources are examined with ffprobe, whose answer takes
    /// precedence over defaults.
    ///
    /// # Errors
    /// [`Error::Input`] when ffmpeg is missing or cannot read the source, with its message.
    pub fn open(name: &Path, interpretation: FormatOverrides) -> Result<Self> {
        let scheme = name
            .to_str()
            .and_then(|name| name.split_once("://"))
            .map(|(scheme, _)| scheme.to_lowercase());
        let live = scheme.is_some_and(|scheme| {
            ["rtsp", "rtsps", "rtp", "udp", "tcp", "srt", "rtmp", "rtmps", "mms"]
                .contains(&scheme.as_str())
        });
        // Data that is sent only once would be consumed by ffprobe.
        let probe = if live || is_pipe(name) {
            Probe::default()
        } else {
            Probe::of(&input(name), !is_url(name))
        };
        let rgb = probe.bits_of_rgb().zip(probe.size());
        let mut command = ffmpeg(LOG_LEVEL);
        let uneven = probe.is_uneven();
        // Selects the video and not a cover image. Each frame is passed once, even where sound
        // begins earlier.
        let frames = ["-map", "0:V:0", "-an", "-sn", "-vsync", "passthrough"];
        command.arg("-i").arg(input(name));
        if uneven {
            command.args(frames).args(TIMES);
        }
        command.args(frames);
        match rgb {
            Some((bits, _)) => command.args([
                "-f",
                "rawvideo",
                "-pix_fmt",
                if bits > 8 { "rgb48le" } else { "rgb24" },
            ]),
            None => command.args(["-vf", FORMATS, "-f", "yuv4mpegpipe", "-strict", "-1"]),
        };
        command.arg("pipe:1").stdin(Stdio::null()).stdout(Stdio::piped());
        let started = Program::start(command);
        let mut process =
            started.map_err(|error| Error::input_from(name, not_started(&error), error))?;
        let Some(stdout) = process.child.stdout.take() else {
            return Err(Error::input(name, "ffmpeg gives nothing"));
        };
        let frames = match rgb {
            Some((bits, [width, height])) => {
                let format = PixelFormat::Packed { order: Order::Rgb, bits };
                let mut video = VideoFormat::new(width, height, Rate::of(25), format);
                probe.describe(name, interpretation, &mut video)?;
                Frames::Raw(RawSource::new(name, stdout, video)?)
            }
            None => {
                let opened = Y4mSource::open(name, stdout, FormatOverrides::default());
                let says =
                    |error| process.end().err().map_or(error, |said| Error::input(name, said));
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

/// Whether the source can be read only once.
fn is_pipe(name: &Path) -> bool {
    !is_url(name) && name.metadata().is_ok_and(|found| !found.is_file())
}

/// The name of a file in a form that ffmpeg reads as neither URL nor option.
pub(super) fn input(name: &Path) -> PathBuf {
    if is_url(name) || name.is_absolute() { name.into() } else { Path::new(".").join(name) }
}

impl FfmpegSource {
    /// Whether both frames and sound end before the declared duration. This is checked only if
    /// there are fewer frames than a constant rate would give.
    fn ends_early(&self) -> bool {
        let seems_short = self.expected.is_none_or(|expected| expected > self.count + 1);
        seems_short
            && !is_url(&self.name)
            && !is_pipe(&self.name)
            && self.probe.ends_early(&input(&self.name))
    }

    /// The defect of a file after all its available frames were read.
    fn defect(&self, said: &Said) -> Option<Error> {
        let count = match self.expected {
            // Sound may be slightly longer.
            Some(expected) if expected > self.count + self.count / 50 + 1 => {
                format!("{} of {expected} frames came", self.count)
            }
            _ => format!("{} frames came", self.count),
        };
        let missing = match missing(&self.name) {
            Some(Missing::End) => Some(Missing::End),
            _ if self.ends_early() => Some(Missing::End),
            // Chunks that only ffmpeg knows are no loss.
            Some(Missing::Part)
                if self.probe.declared_frames().is_some_and(|frames| frames <= self.count) =>
            {
                None
            }
            other => other,
        };
        let problem = match &said.damage {
            Some(damage) if said.is_cut => {
                format!(
                    "it ends before its end ({damage}): {count}, and are kept; fetch the file again"
                )
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
                format!(
                    "it is damaged ({damage}): {count}, and are kept, some of them spoilt; fetch the file again"
                )
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
                    Err(said) if self.live => {
                        Ok(ReadOutcome::Disconnected(format!("{}: {said}", self.name.display())))
                    }
                    Err(said) => Err(Error::input(&self.name, said)),
                    Ok(_) if self.live => Ok(ReadOutcome::End),
                    // ffmpeg succeeds even so.
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
        // Sound is read separately.
        (!is_url(&self.name) && !is_pipe(&self.name)).then_some(&self.name)
    }
}

/// A file that ffmpeg writes, and that appears when complete.
pub struct FfmpegSink {
    process: Program,
    /// `None` once it is finished.
    pipe: Option<PlainSink<Pipe>>,
    video: VideoFormat,
    file: File,
    part: tempfile::TempPath,
    /// The path by which ffmpeg opens the file.
    place: PathBuf,
    target: PathBuf,
    written: u64,
    /// When the presentation of the last frame ends.
    end: Duration,
    /// Whether the frame rate is variable.
    uneven: bool,
    /// Whether sound ends with the last frame, because the run was stopped or the source was cut off.
    is_cut: bool,
    sound: Option<Sound>,
}

/// The input of ffmpeg.
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
    /// Starts ffmpeg, which chooses the codec by the container, and that is chosen by the extension. Frames of a live source
    /// are shown at their arrival times, with gaps where some are missing. Their sound is copied,
    /// without change if the container allows it.
    ///
    /// # Errors
    /// [`Error::Output`] when ffmpeg is missing or cannot write the file, with its message.
    pub fn create(path: &Path, video: &VideoFormat, origin: Origin<'_>) -> Result<Self> {
        // Elementary streams hold no sound.
        let is_bare =
            kind(path).is_some_and(|kind| ["h264", "hevc", "mjpeg"].contains(&kind.as_str()));
        let origin = Origin { sound: origin.sound.filter(|_| !is_bare), ..origin };
        let sound =
            origin.sound.map(|file| Sound::of(file, path, video.delay, origin.encoder)).transpose();
        let (sound, pipe) =
            sound.map_err(|error| Error::output_from(path, not_started(&error), error))?.unzip();
        let Part { file, target } = still::begin(path)?;
        // If this process is killed, the partial file has a recognisable name and can be played.
        let (file, name) = file.into_parts();
        let part = named_part(name, &target)
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
            // The header holds all there is to know.
            command.args([
                "-f",
                "matroska",
                "-analyzeduration",
                "0",
                "-fpsprobesize",
                "0",
                "-i",
                "pipe:0",
            ]);
        } else {
            command.args(["-f", "yuv4mpegpipe", "-i", "pipe:0"]);
        }
        if let Some(sound) = &sound {
            sound.add_to(&mut command, path);
        }
        if has_times
            && kind(path).is_some_and(|kind| ["mp4", "mkv", "webm"].contains(&kind.as_str()))
        {
            // Frames of variable rate keep their own times; others have a constant rate.
            command.args(["-vsync", "vfr", "-enc_time_base", "-1"]);
        }
        command.args(tags(video));
        // Another user may rename files in the folder meanwhile.
        let place = container::options(path)
            .map_or_else(|| part.to_path_buf(), |_| durable::descriptor(&file, &part));
        command.args(container::options(path).unwrap_or_default());
        if let Some(encoder) = origin.encoder {
            command.args(encoder.arguments(path, video));
        }
        command
            .arg(&place)
            .stdin(Stdio::piped())
            .stdout(pipe.flatten().map_or_else(Stdio::null, Stdio::from));
        let started = Program::start_reader(command);
        let mut process =
            started.map_err(|error| Error::output_from(path, not_started(&error), error))?;
        let Some(stdin) = process.child.stdin.take() else {
            return Err(Error::Output {
                path: path.into(),
                problem: "ffmpeg takes nothing".into(),
                source: None,
            });
        };
        let pipe = PlainSink::create(path, Pipe(stdin), framing, video);
        let mut sink = Self {
            process,
            pipe: None,
            video: video.clone(),
            file,
            part,
            place,
            target,
            written: 0,
            end: Duration::ZERO,
            uneven: framing == Framing::Timed,
            is_cut: false,
            sound,
        };
        match pipe {
            Ok(pipe) => {
                sink.pipe = Some(pipe);
                Ok(sink)
            }
            Err(error) => Err(sink.end().err().unwrap_or(error)),
        }
    }

    /// Waits for ffmpeg, and returns its messages.
    ///
    /// # Errors
    /// [`Error::Output`] if it failed, with its message.
    fn end(&mut self) -> Result<Said> {
        self.pipe = None;
        if self.is_cut
            && let Some(sound) = &mut self.sound
        {
            sound.stop();
        }
        self.process.end().map_err(|problem| self.failed(problem, None))
    }

    /// The error with which it ends; recorded data is kept.
    fn failed(&mut self, problem: String, source: Option<Cause>) -> Error {
        let mut problem =
            problem.replace(&*self.place.to_string_lossy(), &self.part.to_string_lossy());
        if self.written > 0 && self.file.metadata().is_ok_and(|part| part.len() > 0) {
            self.part.disable_cleanup(true);
            problem +=
                &format!("; what was recorded until then is kept in {}", self.part.display());
        }
        Error::Output { path: self.target.clone(), problem, source }
    }
}

impl FfmpegSink {
    /// Remuxes the finished file without encoding: an MP4 gets its index at the beginning, and
    /// sound is cut at the last frame if the run was stopped.
    fn rewrite(&self) -> std::result::Result<(File, tempfile::TempPath), String> {
        let extension =
            self.target.extension().map(|end| format!(".{}", end.display())).unwrap_or_default();
        let failed = |error: std::io::Error| error.to_string();
        let whole = durable::create(durable::folder_of(&self.target), &format!(".part{extension}"))
            .map_err(failed)?;
        let permissions = self.file.metadata().map_err(failed)?.permissions();
        whole.as_file().set_permissions(permissions).map_err(failed)?;
        let mut command = ffmpeg(LOG_LEVEL);
        command.arg("-y").arg("-i").arg(&self.place);
        let subtitles = self.sound.as_ref().filter(|sound| sound.lacks_subtitles());
        if let Some(sound) = subtitles {
            sound.add_as_input(&mut command);
        }
        command.args(["-map", "0", "-c", "copy"]);
        if subtitles.is_some() {
            command.args(["-map", "1:s?"]);
        }
        if self.is_cut && self.sound.is_some() {
            command.arg("-t").arg(format!("{:.6}", self.end.as_secs_f64()));
        }
        if kind(&self.target).as_deref() == Some("mp4") {
            command.args(["-movflags", "+faststart"]);
        }
        let place = match container::options(&self.target) {
            Some(options) => {
                command.args(options);
                durable::descriptor(whole.as_file(), whole.path())
            }
            None => whole.path().to_owned(),
        };
        command.arg(place).stdin(Stdio::null()).stdout(Stdio::null());
        Program::start(command).map_err(failed)?.end()?;
        Ok(whole.into_parts())
    }
}

/// Renames a new file to the partial name of `target`. Partial files of other runs are kept.
fn named_part(mut file: tempfile::TempPath, target: &Path) -> std::io::Result<tempfile::TempPath> {
    for number in 0..MOST_PARTS {
        let named = numbered_part(target, number);
        match file.persist_noclobber(&named) {
            Ok(()) => return tempfile::TempPath::try_from_path(named),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                file = error.path
            }
            Err(error) => return Err(error.error),
        }
    }
    Err(std::io::Error::other(format!(
        "{} and {MOST_PARTS} like it are there already",
        part_of(target).display()
    )))
}

/// The name of a container while it is written: `out.part.mp4` for `out.mp4`.
pub fn part_of(path: &Path) -> PathBuf {
    numbered_part(path, 0)
}

/// The next name if that exists: `out.part1.mp4` and so on.
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

/// The family of containers by extension; those of one family support the same sound codecs.
pub(super) fn kind(path: &Path) -> Option<String> {
    let extension = path.extension()?.to_str()?.to_lowercase();
    Some(if ["m4v", "mov"].contains(&extension.as_str()) { "mp4".to_owned() } else { extension })
}

/// The ffmpeg options for colour properties that y4m does not carry.
fn tags(video: &VideoFormat) -> Vec<&'static str> {
    let Color { matrix, said_by, primaries, transfer, full_range, siting } = video.color;
    let mut tags = Vec::new();
    tags.extend(primaries.primaries().map(|name| ["-color_primaries", name]));
    tags.extend(transfer.transfer().map(|name| ["-color_trc", name]));
    if !video.format.is_grey() {
        // Unspecified properties stay unspecified where the reader's default is right.
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
                self.end =
                    if self.uneven { frame.time + self.video.rate.time_of(1) } else { steady };
                Ok(())
            }
            // ffmpeg closed the pipe; its message says why. Without a message it still is a
            // failure, and not a disconnected reader.
            Err(_) => Err(match self.end() {
                Err(error) => error,
                Ok(_) => self.failed(
                    format!("ffmpeg ended after {} frames, before the last", self.written),
                    None,
                ),
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
            // ffmpeg failed, and that was reported.
            return Ok(());
        }
        let said = self.end()?;
        if self.written == 0 {
            return Ok(());
        }
        let sound = self.sound.as_ref();
        let is_to_be_rewritten = kind(&self.target).as_deref() == Some("mp4")
            || sound
                .is_some_and(|sound| (self.is_cut && sound.is_piped()) || sound.lacks_subtitles());
        // The recording keeps its name until the remuxed file has replaced it.
        let rewritten = is_to_be_rewritten
            .then(|| self.rewrite())
            .transpose()
            .map_err(|problem| self.failed(problem, None))?;
        let (file, name) =
            rewritten.as_ref().map_or((&self.file, &self.part), |(file, name)| (file, name));
        durable::rename(file, name, &self.target).map_err(|error| {
            self.failed("the finished file cannot be renamed".into(), Some(error.into()))
        })?;
        // Frames arrive through a pipe, so a message about damage is about the sound.
        match self.sound.as_mut().and_then(|sound| Some((sound.end(&said)?, &sound.file))) {
            Some(((damage, is_cut), file)) => {
                let problem = if is_cut { "ends before its end" } else { "is damaged" };
                let problem = format!(
                    "its sound {problem} ({damage}): {} frames and what sound came are kept; fetch the file again",
                    self.written
                );
                Err(Error::input(file, problem))
            }
            None => Ok(()),
        }
    }
}
