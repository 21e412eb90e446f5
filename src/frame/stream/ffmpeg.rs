//! Everything else, through an `ffmpeg` process where one is installed.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::file::Output;
use super::sink::{Framing, PlainSink};
use super::video::Video;
use super::y4m::Y4mSource;
use super::{Arrival, Interpretation, Origin, Picture, Sink, Source};
use crate::error::{Error, Result};
use crate::frame::picture;

/// The formats that y4m holds and we read; ffmpeg takes the one that loses least.
const FORMATS: &str = "format=pix_fmts=yuv420p|yuv422p|yuv444p|gray|yuv420p10le|yuv422p10le|yuv444p10le|gray10le";

/// As much of what ffmpeg says as is passed on.
const WORDS: usize = 600;

/// A running ffmpeg. It is killed when this is dropped.
struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
    listener: Option<thread::JoinHandle<()>>,
}

impl Process {
    fn start(arguments: &mut Command) -> std::io::Result<Self> {
        // A process group of its own: Ctrl-C is for us, who end it in good order.
        let mut child = arguments.stderr(Stdio::piped()).process_group(0).spawn()?;
        let said = Arc::new(Mutex::new(String::new()));
        let listener = child.stderr.take().map(|mut stderr| {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    said.push_str(&String::from_utf8_lossy(&buffer[..count]));
                    // The first complaint is the cause of those that follow.
                    let end = said.char_indices().nth(WORDS).map_or(said.len(), |(end, _)| end);
                    said.truncate(end);
                }
            })
        });
        Ok(Self { child, said, listener })
    }

    /// Waits for the end, and returns what ffmpeg complained of if it failed.
    fn end(&mut self) -> std::result::Result<(), String> {
        let status = self.child.wait();
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) if said.trim().is_empty() => Err(format!("ffmpeg ended with {status} and without a word")),
            Ok(_) => Err(format!("ffmpeg says: {}", said.trim().lines().collect::<Vec<_>>().join("; "))),
            Err(error) => Err(format!("ffmpeg cannot be waited for: {error}")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already does not mind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error"]);
    command
}

fn not_started(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "it takes ffmpeg, which is not installed (apt install ffmpeg); or use y4m",
        _ => "ffmpeg cannot be started",
    }
}

/// What ffmpeg reads: a file or a URL.
pub struct FfmpegSource {
    process: Process,
    y4m: Y4mSource<ChildStdout>,
    name: PathBuf,
    live: bool,
}

impl FfmpegSource {
    /// Starts ffmpeg and waits for the header. A URL of a live protocol (RTSP, RTP, UDP, TCP, SRT, RTMP) is a live source.
    ///
    /// # Errors
    /// [`Error::Input`] when ffmpeg is not there or does not read this, with what it says.
    pub fn open(name: &Path, interpretation: Interpretation) -> Result<Self> {
        let scheme = name.to_str().and_then(|name| name.split_once("://")).map(|(scheme, _)| scheme.to_lowercase());
        let live = scheme.is_some_and(|scheme| {
            ["rtsp", "rtsps", "rtp", "udp", "tcp", "srt", "rtmp", "rtmps", "mms"].contains(&scheme.as_str())
        });
        let mut command = ffmpeg();
        command.arg("-i").arg(input(name)).args(["-map", "0:v:0", "-an", "-sn", "-vf", FORMATS]);
        command.args(["-f", "yuv4mpegpipe", "-strict", "-1", "pipe:1"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process =
            Process::start(&mut command).map_err(|error| Error::input_from(name, not_started(&error), error))?;
        let Some(stdout) = process.child.stdout.take() else { return Err(Error::input(name, "ffmpeg gives nothing")) };
        match Y4mSource::open(name, stdout, interpretation) {
            Ok(y4m) => Ok(Self { process, y4m, name: name.into(), live }),
            Err(error) => Err(process.end().err().map_or(error, |said| Error::input(name, said))),
        }
    }
}

pub(super) fn is_url(name: &Path) -> bool {
    name.to_str().is_some_and(|name| name.contains("://"))
}

/// A file's name as no URL and no option.
fn input(name: &Path) -> PathBuf {
    if is_url(name) || name.is_absolute() { name.into() } else { Path::new(".").join(name) }
}

impl Source for FfmpegSource {
    fn video(&self) -> &Video {
        self.y4m.video()
    }

    fn next(&mut self, picture: &mut Picture) -> Result<Arrival> {
        match self.y4m.next(picture)? {
            Arrival::End => match self.process.end() {
                Ok(()) => Ok(Arrival::End),
                Err(said) if self.live => Ok(Arrival::Lost(format!("{}: {said}", self.name.display()))),
                Err(said) => Err(Error::input(&self.name, said)),
            },
            other => Ok(other),
        }
    }

    fn is_live(&self) -> bool {
        self.live
    }

    fn container(&self) -> Option<&Path> {
        (!is_url(&self.name)).then_some(&self.name)
    }
}

/// What ffmpeg writes: a file that appears when it is complete.
pub struct FfmpegSink {
    process: Process,
    /// None once it is finished.
    pipe: Option<PlainSink<Pipe>>,
    video: Video,
    part: tempfile::TempPath,
    target: PathBuf,
    written: u64,
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
    /// Starts ffmpeg, which chooses container and codec by the name's end. Pictures that come when they are taken are shown when
    /// they came, also where some are missing; sound that belongs to them is taken along, as it is into the same kind of file.
    ///
    /// # Errors
    /// [`Error::Output`] when ffmpeg is not there or does not write this, with what it says.
    pub fn create(path: &Path, video: &Video, origin: Origin<'_>) -> Result<Self> {
        let (file, target) = picture::begin(path)?;
        let mut part = file.into_temp_path();
        if let Some(extension) = path.extension() {
            let named = part.with_extension(extension);
            std::fs::rename(&part, &named)
                .map_err(|error| Error::output_from(path, "its folder cannot be written to", error))?;
            part = tempfile::TempPath::try_from_path(named)
                .map_err(|error| Error::output_from(path, "its folder cannot be written to", error))?;
        }
        let mut command = ffmpeg();
        command.arg("-y");
        if origin.live {
            command.args(["-use_wallclock_as_timestamps", "1"]);
        }
        command.args(["-f", "yuv4mpegpipe", "-i", "pipe:0"]);
        if let Some(sound) = origin.sound {
            // Up to the end of the pictures, of which there may be fewer.
            command.arg("-i").arg(input(sound)).args(["-map", "0:v:0", "-map", "1:a?", "-shortest"]);
            if sound.extension() == path.extension() {
                command.args(["-c:a", "copy"]);
            }
        }
        command.arg(&part).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut process =
            Process::start(&mut command).map_err(|error| Error::output_from(path, not_started(&error), error))?;
        let Some(stdin) = process.child.stdin.take() else {
            return Err(Error::Output { path: path.into(), problem: "ffmpeg takes nothing".into(), source: None });
        };
        let pipe = PlainSink::create(path, Pipe(stdin), Framing::Y4m, video);
        let mut sink = Self { process, pipe: None, video: video.clone(), part, target, written: 0 };
        match pipe {
            Ok(pipe) => {
                sink.pipe = Some(pipe);
                Ok(sink)
            }
            Err(error) => Err(sink.complaint().unwrap_or(error)),
        }
    }

    /// Waits for ffmpeg, and turns what it says into an error if it failed.
    fn complaint(&mut self) -> Option<Error> {
        self.pipe = None;
        let problem = self.process.end().err()?;
        Some(Error::Output { path: self.target.clone(), problem, source: None })
    }
}

impl Sink for FfmpegSink {
    fn video(&self) -> &Video {
        &self.video
    }

    fn write(&mut self, picture: &Picture) -> Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        match pipe.write(picture) {
            Ok(()) => {
                self.written += 1;
                Ok(())
            }
            // It closed its end: why, it says itself.
            Err(error) => Err(self.complaint().unwrap_or(error)),
        }
    }

    fn finish(&mut self) -> Result<()> {
        if self.pipe.is_none() {
            // It failed, and that was said.
            return Ok(());
        }
        if let Some(error) = self.complaint() {
            return Err(error);
        }
        if self.written == 0 {
            return Ok(());
        }
        std::fs::rename(&self.part, &self.target)
            .map_err(|error| Error::output_from(&self.target, "the finished file cannot be renamed", error))
    }
}
