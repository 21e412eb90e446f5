//! Frames that ffmpeg reads.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::thread;
use std::time::Duration;

use super::probe::Probe;
use super::program::{LOG_LEVEL, Messages, Program, TIMES, ffmpeg};
use super::sound::is_lacking;
use super::truncation::{Missing, missing};
use super::{input, is_pipe, is_url, not_started};
use crate::error::{Error, Result};
use crate::media::stream::{
    FormatOverrides, Order, PixelFormat, Rate, RawSource, ReadOutcome, Source, VideoFormat,
    VideoFrame, Y4mSource, check_same_format,
};

/// The formats that y4m supports and we read, in limited and full range; ffmpeg chooses the one
/// with the least loss.
const FORMATS: &str = "\
    format=pix_fmts=yuv420p|yuvj420p|yuv422p|yuvj422p|yuv444p|yuvj444p|gray|yuv420p9le|yuv422p9le\
    |yuv444p9le|gray9le|yuv420p10le|yuv422p10le|yuv444p10le|gray10le|yuv420p12le|yuv422p12le\
    |yuv444p12le|gray12le|yuv420p14le|yuv422p14le|yuv444p14le|yuv420p16le|yuv422p16le|yuv444p16le\
    |gray16le";

/// A file or URL that ffmpeg reads.
pub struct FfmpegSource {
    process: Program,
    frames: Frames,
    name: PathBuf,
    interpretation: FormatOverrides,
    live: bool,
    /// Whether it can be read only once.
    is_pipe: bool,
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
        Self::start(name, None, interpretation)
    }

    /// Starts ffmpeg for a container that comes through `pipe`. `name` identifies it in messages.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn of_pipe(
        name: &Path,
        pipe: impl Read + Send + 'static,
        interpretation: FormatOverrides,
    ) -> Result<Self> {
        Self::start(name, Some(Box::new(pipe)), interpretation)
    }

    fn start(
        name: &Path,
        fed: Option<Box<dyn Read + Send>>,
        interpretation: FormatOverrides,
    ) -> Result<Self> {
        let scheme = name
            .to_str()
            .and_then(|name| name.split_once("://"))
            .map(|(scheme, _)| scheme.to_lowercase());
        let live = scheme.is_some_and(|scheme| {
            ["rtsp", "rtsps", "rtp", "udp", "tcp", "srt", "rtmp", "rtmps", "mms"]
                .contains(&scheme.as_str())
        });
        // Data that is sent only once would be consumed by ffprobe.
        let is_pipe = fed.is_some() || is_pipe(name);
        let probe =
            if live || is_pipe { Probe::default() } else { Probe::of(&input(name), !is_url(name)) };
        let rgb = probe.bits_of_rgb().zip(probe.size());
        let mut command = ffmpeg(LOG_LEVEL);
        let uneven = probe.is_uneven();
        // Selects the video and not a cover image. Each frame is passed once, even where sound
        // begins earlier.
        let frames = ["-map", "0:V:0", "-an", "-sn", "-vsync", "passthrough"];
        command.arg("-i").arg(if fed.is_some() { "pipe:0".into() } else { input(name) });
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
        command.stdin(if fed.is_some() { Stdio::piped() } else { Stdio::null() });
        command.arg("pipe:1").stdout(Stdio::piped());
        let started = Program::start(command);
        let mut process =
            started.map_err(|error| Error::input_from(name, not_started(&error), error))?;
        if let Some((mut from, mut to)) = fed.zip(process.child.stdin.take()) {
            // It ends with either; ffmpeg says what is wrong with what came.
            thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
        let Some(stdout) = process.child.stdout.take() else {
            return Err(Error::input(name, "ffmpeg delivered no frames"));
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
                let with_messages = |error| {
                    process.end().err().map_or(error, |problem| Error::input(name, problem))
                };
                let mut y4m = opened.map_err(with_messages)?;
                probe.describe(name, interpretation, y4m.video_mut())?;
                Frames::Y4m(y4m)
            }
        };
        Ok(Self {
            process,
            frames,
            name: name.into(),
            interpretation,
            live,
            is_pipe,
            count: 0,
            expected: probe.frames(),
            probe,
            times: uneven.then_some(None),
            is_over: false,
        })
    }
}

impl FfmpegSource {
    /// Starts ffmpeg again for a live source that has ended. Returns what is wrong, if it is not
    /// there yet.
    fn restart(&mut self) -> Result<Option<String>> {
        let started = match Self::start(&self.name, None, self.interpretation) {
            Ok(started) => started,
            Err(error) => return Ok(Some(error.to_string())),
        };
        let advice = "start another run";
        check_same_format(&self.name, [self.video(), started.video()], advice)?;
        *self = Self { count: self.count, ..started };
        Ok(None)
    }

    /// Whether both frames and sound end before the declared duration. This is checked only if
    /// there are fewer frames than a constant rate would give.
    fn ends_early(&self) -> bool {
        let seems_short = self.expected.is_none_or(|expected| expected > self.count + 1);
        seems_short
            && !is_url(&self.name)
            && !self.is_pipe
            && self.probe.ends_early(&input(&self.name))
    }

    /// The defect of a file after all its available frames were read.
    fn defect(&self, messages: &Messages) -> Option<Error> {
        let count = match self.expected {
            // Sound may be slightly longer.
            Some(expected) if expected > self.count + self.count / 50 + 1 => {
                format!("{} of {expected} frames were read", self.count)
            }
            _ => format!("{} frames were read", self.count),
        };
        let count = |after: &str| {
            let sound = if !self.is_pipe && is_lacking(&self.name) {
                "; none of its sound was read"
            } else {
                ""
            };
            format!("{count} and are kept{after}{sound}; fetch the file again")
        };
        let missing = match missing(&self.name) {
            Some(Missing::End) => Some(Missing::End),
            _ if self.ends_early() => Some(Missing::End),
            // Chunks that only ffmpeg knows need not be complete.
            Some(Missing::Part)
                if self.probe.declared_frames().is_some_and(|frames| frames <= self.count) =>
            {
                None
            }
            None if self.expected.is_some_and(|expected| expected > self.count)
                && self.probe.lacks_packets(&input(&self.name)) =>
            {
                Some(Missing::Part)
            }
            other => other,
        };
        let problem = match &messages.damage {
            Some(damage) if messages.is_truncated => {
                format!("it is truncated ({damage}): {}", count(""))
            }
            _ if missing == Some(Missing::End) => {
                format!("it is truncated, by the length that it declares: {}", count(""))
            }
            None if missing == Some(Missing::Part) => {
                format!("parts of it are missing: {}", count(""))
            }
            Some(damage) => {
                format!("it is damaged ({damage}): {}", count(", some of them damaged"))
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
        if self.is_over
            && self.restarts()
            && let Some(problem) = self.restart()?
        {
            return Ok(ReadOutcome::Disconnected(problem));
        }
        match self.frames.source().next(frame)? {
            ReadOutcome::End if self.is_over => Ok(ReadOutcome::End),
            ReadOutcome::End => {
                self.is_over = true;
                match self.process.end() {
                    Err(error) if self.live => {
                        Ok(ReadOutcome::Disconnected(format!("{}: {error}", self.name.display())))
                    }
                    Err(error) => Err(Error::input(&self.name, error)),
                    Ok(_) if self.live => Ok(ReadOutcome::End),
                    // ffmpeg succeeds even so.
                    Ok(messages) => self.defect(&messages).map_or(Ok(ReadOutcome::End), Err),
                }
            }
            ReadOutcome::Frame => {
                if self.live {
                    // It may have been started several times.
                    (frame.index, frame.time) = (self.count, self.video().rate.time_of(self.count));
                }
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

    fn restarts(&self) -> bool {
        self.live
    }

    fn is_uneven(&self) -> bool {
        self.times.is_some()
    }

    fn container(&self) -> Option<&Path> {
        // Sound is read separately.
        (!is_url(&self.name) && !self.is_pipe).then_some(&self.name)
    }
}
