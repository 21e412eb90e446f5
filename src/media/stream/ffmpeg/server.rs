//! Frames that ffmpeg sends to a server.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::retry_on_intr;

use super::program::{LOG_LEVEL, Program, ffmpeg};
use super::sink::{frames_from_pipe, tags};
use super::{Encoder, not_started};
use crate::error::{Error, Result};
use crate::media::stream::{Framing, Origin, Output, PlainSink, Sink, VideoFormat, VideoFrame};
use crate::setting::RECONNECT;

/// The protocols by which frames are sent, with the options of ffmpeg for each.
const PROTOCOLS: [(&str, &[&str]); 7] = [
    ("rtsp", &["-f", "rtsp", "-rtsp_transport", "tcp"]),
    ("rtsps", &["-f", "rtsp", "-rtsp_transport", "tcp"]),
    ("rtmp", &["-f", "flv"]),
    ("rtmps", &["-f", "flv"]),
    ("srt", &["-f", "mpegts"]),
    ("tcp", &["-f", "mpegts"]),
    ("udp", &["-f", "mpegts"]),
];

/// How long a server may take no data.
const STALL: Duration = Duration::from_secs(10);

/// What a pipe holds on Linux.
const PIPE_BYTES: usize = 1 << 16;

/// How long to wait before a server is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A server that has taken frames for so long was there. Before, ffmpeg may have filled its buffers
/// only.
const SETTLED: Duration = Duration::from_secs(5);

/// How long ffmpeg may take to say why it takes no more frames.
const GRACE: Duration = Duration::from_secs(2);

/// How often it is checked whether ffmpeg has ended.
const POLL: Duration = Duration::from_millis(20);

/// Whether frames can be sent to this URL.
pub(in crate::media) fn is_server(name: &Path) -> bool {
    options(name).is_some()
}

/// The protocols that are known, for messages.
pub(in crate::media) fn protocols() -> String {
    PROTOCOLS.map(|(scheme, _)| format!("{scheme}://")).join(", ")
}

fn options(name: &Path) -> Option<&'static [&'static str]> {
    let (scheme, _) = name.to_str()?.split_once("://")?;
    let known = PROTOCOLS.iter().find(|(known, _)| scheme.eq_ignore_ascii_case(known));
    known.map(|(_, options)| *options)
}

/// A server that takes frames. Where it is waited for, it is tried again each second when it is
/// gone; meanwhile frames of a live source are dropped.
pub struct ServerSink {
    url: PathBuf,
    video: VideoFormat,
    encoder: Encoder,
    framing: Framing,
    /// How long a server is waited for that is gone.
    patience: Option<Duration>,
    /// `None` while the server is gone, and after the end.
    sending: Option<Sending>,
    /// Since when it has been gone, and when it was tried last.
    gone: Option<[Instant; 2]>,
    is_finished: bool,
}

/// A running ffmpeg.
struct Sending {
    process: Program,
    /// `None` once it is closed.
    pipe: Option<PlainSink<Pipe>>,
    started: Instant,
    /// When it took the last frame.
    taken: Instant,
}

impl ServerSink {
    /// Starts ffmpeg. Frames that are not live are sent at their rate.
    ///
    /// # Errors
    /// [`Error::Usage`] for a protocol that is not known, [`Error::Output`] when ffmpeg is missing.
    pub fn connect(url: &Path, video: &VideoFormat, origin: Origin<'_>) -> Result<Self> {
        let framing = match origin {
            Origin { live: true, .. } => Framing::Live,
            Origin { uneven: true, .. } => Framing::Timed,
            _ => Framing::Y4m,
        };
        let mut sink = Self {
            url: url.into(),
            video: video.clone(),
            encoder: origin.encoder.cloned().unwrap_or_default(),
            framing,
            patience: origin.reconnect,
            sending: None,
            gone: None,
            is_finished: false,
        };
        sink.start()?;
        Ok(sink)
    }

    fn start(&mut self) -> Result<()> {
        let Some(options) = options(&self.url) else {
            return Err(Error::usage(format!(
                "{}: expected {}, to which frames are sent",
                self.url.display(),
                protocols()
            )));
        };
        let mut command = ffmpeg(LOG_LEVEL);
        if self.framing != Framing::Live {
            command.arg("-re");
        }
        frames_from_pipe(&mut command, self.framing);
        if self.framing != Framing::Y4m {
            command.args(["-vsync", "vfr", "-enc_time_base", "-1"]);
        }
        // What the caller chooses comes last, and wins.
        command.args(options).args(tags(&self.video));
        command
            .args(self.encoder.arguments_of_server(&self.video))
            .arg(&self.url)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let failed = |error: io::Error| Error::output_from(&self.url, not_started(&error), error);
        let mut process = Program::start(command).map_err(failed)?;
        let Some(stdin) = process.child.stdin.take() else {
            return Err(self.failed("ffmpeg accepts no frames".into()));
        };
        let period = self.video.rate.time_of(1);
        let pipe = Pipe::new(stdin, STALL.max(3 * period)).map_err(failed)?;
        let pipe = PlainSink::create(&self.url, pipe, self.framing, &self.video)?;
        let now = Instant::now();
        self.sending = Some(Sending { process, pipe: Some(pipe), started: now, taken: now });
        Ok(())
    }

    fn failed(&self, problem: String) -> Error {
        Error::Output { path: self.url.clone(), problem, source: None }
    }

    /// Ends an ffmpeg that takes no more frames. An error unless the server is waited for.
    fn lose(&mut self) -> Result<()> {
        let Some(mut sending) = self.sending.take() else { return Ok(()) };
        let problem = match sending.end(GRACE) {
            Ended::Unfinished => format!("it has taken no data for {} s", STALL.as_secs()),
            Ended::Finished => "ffmpeg ended before the last frame".into(),
            Ended::Failed(problem) => problem,
        };
        let now = Instant::now();
        let was_there = sending.taken.duration_since(sending.started) >= SETTLED;
        let since = match self.gone {
            Some([since, _]) if !was_there => since,
            _ => now,
        };
        self.gone = Some([since, now]);
        match self.patience {
            Some(patience) if since.elapsed() < patience => Ok(()),
            Some(patience) => {
                Err(self.failed(format!("{problem}; it was waited for {} s", patience.as_secs())))
            }
            None => Err(self.failed(format!("{problem}; {RECONNECT} waits for a server"))),
        }
    }
}

impl Sink for ServerSink {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn has_reader(&mut self) -> Result<bool> {
        if self.sending.is_none()
            && !self.is_finished
            && self.gone.is_none_or(|[_, tried]| tried.elapsed() >= RETRY)
        {
            self.start()?;
        }
        Ok(self.sending.is_some())
    }

    fn waits_for_reader(&self) -> bool {
        true
    }

    fn write(&mut self, frame: &VideoFrame) -> Result<()> {
        let Some(Sending { pipe: Some(pipe), taken, .. }) = &mut self.sending else {
            return Ok(());
        };
        if pipe.write(frame).is_ok() {
            *taken = Instant::now();
            return Ok(());
        }
        self.lose()
    }

    fn finish(&mut self) -> Result<()> {
        self.is_finished = true;
        let Some(mut sending) = self.sending.take() else { return Ok(()) };
        // Frames in the pipe are sent at their rate.
        let waiting = PIPE_BYTES / self.video.bytes() + 1;
        let limit = STALL + self.video.rate.time_of(waiting as u64);
        match sending.end(limit) {
            Ended::Finished => Ok(()),
            Ended::Unfinished => {
                let seconds = limit.as_secs();
                Err(self.failed(format!("it has not taken the last frames within {seconds} s")))
            }
            Ended::Failed(problem) => Err(self.failed(problem)),
        }
    }
}

/// How ffmpeg ended.
enum Ended {
    Finished,
    /// It was killed.
    Unfinished,
    Failed(String),
}

impl Sending {
    /// Waits for the end, at most this long.
    fn end(&mut self, limit: Duration) -> Ended {
        self.pipe = None;
        let begun = Instant::now();
        while begun.elapsed() < limit {
            match self.process.child.try_wait() {
                Ok(None) => std::thread::sleep(POLL),
                _ => {
                    return self.process.end().map_or_else(Ended::Failed, |_| Ended::Finished);
                }
            }
        }
        Ended::Unfinished
    }
}

/// The input of ffmpeg, which is an error when it takes nothing for `limit`.
struct Pipe {
    stdin: ChildStdin,
    limit: Duration,
}

impl Pipe {
    fn new(stdin: ChildStdin, limit: Duration) -> io::Result<Self> {
        fcntl_setfl(&stdin, fcntl_getfl(&stdin)? | OFlags::NONBLOCK)?;
        Ok(Self { stdin, limit })
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stdin.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            let limit = Timespec { tv_sec: self.limit.as_secs() as i64, tv_nsec: 0 };
            let mut ready = [PollFd::new(&self.stdin, PollFlags::OUT)];
            if retry_on_intr(|| poll(&mut ready, Some(&limit)))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdin.flush()
    }
}

impl Output for Pipe {}

#[cfg(test)]
mod tests {
    use super::{Path, is_server, options};

    #[test]
    fn knows_servers_by_their_protocol() {
        for name in
            ["rtsp://host:8554/a.mp4", "RTMP://host/a/b", "srt://host:9000", "udp://1.2.3.4:5"]
        {
            assert!(is_server(Path::new(name)), "{name}");
        }
        for name in ["rtsp:host", "http://host/a", "a/rtsp.mp4", "file:///a.mp4", "-"] {
            assert!(options(Path::new(name)).is_none(), "{name}");
        }
    }
}
