//! Frames that ffmpeg writes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use super::probe::Probe;
use super::program::{LOG_LEVEL, Messages, Program, ffmpeg};
use super::sound::Sound;
use super::{container, kind, not_started};
use crate::durable::{self, Part};
use crate::error::{Cause, Error, Result};
use crate::media::still::{self, TOO_LARGE};
use crate::media::stream::{
    Chroma, Color, Framing, Matrix, Origin, Output, PlainSink, Scan, Sink, Siting, TagSource,
    VideoFormat, VideoFrame,
};

/// Maximum number of partial files that are kept side by side.
const MAX_PARTS: usize = 100;

/// ffmpeg's messages about system limits, and what they mean.
const LIMITS: [(&str, &str); 3] = [
    ("No space left on device", "the disk is full; free some space and try again"),
    ("Disk quota exceeded", "the quota of this user is used up; free some space and try again"),
    ("File too large", TOO_LARGE),
];

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
    /// Whether sound ends with the last frame, because the run was stopped or the source was cut
    /// off.
    is_truncated: bool,
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
    /// Starts ffmpeg, which chooses the codec by the container, and that is chosen by the
    /// extension. Frames of a live source are shown at their arrival times, with gaps where some
    /// are missing. Their sound is copied, without change if the container allows it.
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
        // If this process is killed, the partial file has a recognizable name and can be played.
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
        frames_from_pipe(&mut command, framing);
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
                problem: "ffmpeg accepts no frames".into(),
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
            is_truncated: false,
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
    fn end(&mut self) -> Result<Messages> {
        self.pipe = None;
        if self.is_truncated
            && let Some(sound) = &mut self.sound
        {
            sound.stop();
        }
        self.process.end().map_err(|problem| self.failed(problem, None))
    }

    /// The error with which it ends; recorded data is kept.
    fn failed(&mut self, problem: String, source: Option<Cause>) -> Error {
        let mut problem = LIMITS
            .into_iter()
            .find(|(pattern, _)| problem.contains(pattern))
            .map_or(problem, |(_, meaning)| meaning.into())
            .replace(&*self.place.to_string_lossy(), &self.part.to_string_lossy());
        if self.written > 0 && self.file.metadata().is_ok_and(|part| part.len() > 0) {
            if self.part.exists() {
                self.part.disable_cleanup(true);
                problem +=
                    &format!("; what was recorded until then is kept in {}", self.part.display());
            } else {
                problem +=
                    &format!("; what was recorded is gone: {} was deleted", self.part.display());
            }
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
        if self.is_truncated && self.sound.is_some() {
            // The file may begin with sound, earlier than the frames.
            let end = self.end + Probe::of(&self.place, false).delay();
            command.arg("-t").arg(format!("{:.6}", end.as_secs_f64()));
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
    for number in 0..MAX_PARTS {
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
        "{} and {MAX_PARTS} like it already exist",
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

/// Makes ffmpeg read frames of that framing from its standard input.
pub(super) fn frames_from_pipe(command: &mut Command, framing: Framing) {
    if framing == Framing::Y4m {
        command.args(["-f", "yuv4mpegpipe", "-i", "pipe:0"]);
        return;
    }
    // The header holds all there is to know.
    command.args(["-f", "matroska", "-analyzeduration", "0", "-fpsprobesize", "0", "-i", "pipe:0"]);
}

/// The ffmpeg options for color properties that y4m does not carry.
pub(super) fn tags(video: &VideoFormat) -> Vec<&'static str> {
    let Color { matrix, matrix_source, primaries, transfer, full_range, siting } = video.color;
    let mut tags = Vec::new();
    tags.extend(primaries.primaries().map(|name| ["-color_primaries", name]));
    tags.extend(transfer.transfer().map(|name| ["-color_trc", name]));
    if !video.format.is_gray() {
        // Unspecified properties stay unspecified where the reader's default is right.
        if matrix_source != TagSource::None || matrix != Matrix::default_for(video.height) {
            tags.push(["-colorspace", matrix.name()]);
        }
        if video.format.chroma() == Some(Chroma::C420) && siting == Siting::TopLeft {
            tags.push(["-chroma_sample_location", "topleft"]);
        }
    }
    if video.color != Color::default_for(video.height, video.format) {
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
        self.is_truncated = true;
    }

    fn finish(&mut self) -> Result<()> {
        if self.pipe.is_none() {
            // ffmpeg failed, and that was reported.
            return Ok(());
        }
        let messages = self.end()?;
        if self.written == 0 {
            return Ok(());
        }
        let sound = self.sound.as_ref();
        let is_to_be_rewritten = kind(&self.target).as_deref() == Some("mp4")
            || sound.is_some_and(|sound| {
                (self.is_truncated && sound.is_piped()) || sound.lacks_subtitles()
            });
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
        match self.sound.as_mut().and_then(|sound| Some((sound.end(&messages)?, &sound.file))) {
            Some(((damage, is_truncated), file)) => {
                let problem = if is_truncated { "is truncated" } else { "is damaged" };
                let problem = format!(
                    "its sound {problem} ({damage}): {} frames and what sound came are kept; fetch \
                     the file again",
                    self.written
                );
                Err(Error::input(file, problem))
            }
            None => Ok(()),
        }
    }
}
