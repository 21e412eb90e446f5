//! The sound of a source, on its way to the encoder of its frames.
//!
//! The encoder finishes its file when its inputs end. It does not open the source for sound, which
//! may last hours longer than the frames: another ffmpeg copies the sound into a pipe. That ends
//! with this process, or soon after the run is stopped. An encoder fails at an input that ends
//! before its first packet, and all frames with it: so only streams that have a packet are taken
//! along, and the pipe does not end before one has gone through it.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::probe::{Streams, streams};
use super::program::{LOG_LEVEL, Messages, Program, ffmpeg, output};
use super::{Encoder, input, kind};

/// Added to the times of sound in the pipe, in seconds, so that none is negative.
const OFFSET: f64 = 10.0;

/// What goes through the pipe before the encoder knows its streams: a header and a packet, each
/// written at once.
const BEGINNING: usize = 2;

/// How long to wait for that. It takes long where sound begins late in a large file.
const BEGINNING_LIMIT: Duration = Duration::from_secs(30);

/// How long the rest of the sound of a file that is cut off may take after its frames.
const REST_LIMIT: Duration = Duration::from_millis(500);

/// The sound of a file, and the subtitles where the pipe holds them.
pub(super) struct Sound {
    pub(super) file: PathBuf,
    /// What reads the file; `None` where it has no sound, and after [`stop`](Self::stop).
    reader: Option<Program>,
    /// Gets a message for each of the [`BEGINNING`], and ends with the sound.
    progress: Option<Receiver<()>>,
    streams: Streams,
    /// The streams that go through the pipe, as ffmpeg names them.
    piped: Vec<String>,
    /// Whether the result is of the same kind as the file.
    is_same_kind: bool,
    /// Whether sound is copied and not encoded.
    is_copied: bool,
    /// Whether the result holds the subtitles of the file.
    with_subtitles: bool,
    /// ffmpeg's name of the format in the pipe.
    format: &'static str,
    /// Time of the first frame in the file.
    delay: Duration,
}

/// The kinds of files whose times are finer than milliseconds, and whose sound needs nothing that
/// NUT does not hold.
const EXACT: [&str; 7] = ["mp4", "3gp", "ts", "m2ts", "mts", "mpg", "flv"];

fn is_kind(file: &Path, kinds: &[&str]) -> bool {
    kind(file).is_some_and(|kind| kinds.contains(&kind.as_str()))
}

/// The command that reads these streams of a file, sound with that codec, without its output.
fn reading(file: &Path, streams: &[String], codec: &str) -> Command {
    let mut command = ffmpeg(LOG_LEVEL);
    command.arg("-i").arg(input(file));
    for stream in streams {
        command.args(["-map", stream]);
    }
    command.args(["-c:s", "copy", "-c:a", codec]).stdin(Stdio::null());
    command
}

/// Whether a format of ffmpeg holds the sound of a file as it is.
fn can_copy(file: &Path, streams: &[String], format: &str) -> bool {
    let mut command = reading(file, streams, "copy");
    command.args(["-t", "0", "-f", format, "pipe:1"]);
    output(command).is_ok_and(|output| output.status.success())
}

/// Whether a stream of a file has a packet; one may be declared and have none, as where the file is
/// cut off before.
fn has_packet(file: &Path, stream: &str) -> bool {
    let mut command = reading(file, &[stream.to_owned()], "copy");
    command.args(["-frames", "1", "-f", "framecrc", "pipe:1"]);
    output(command).is_ok_and(|output| {
        output.stdout.split(|byte| *byte == b'\n').any(|line| !matches!(line, [] | [b'#', ..]))
    })
}

/// Whether a file declares sound and has none.
pub(super) fn is_lacking(file: &Path) -> bool {
    let count = streams(&input(file)).sound;
    count > 0 && (0..count).all(|number| !has_packet(file, &format!("0:a:{number}")))
}

/// Copies sound into the pipe of the encoder until either ends.
fn pass_on(mut from: ChildStdout, mut to: PipeWriter, progress: &SyncSender<()>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(bytes.get(..read).unwrap_or_default()).is_err() {
            return;
        }
        // Only the first are waited for.
        let _ = progress.try_send(());
    }
}

impl Sound {
    /// Starts to read the sound of `file` for a result named `target`, if there is any. Returns the
    /// end of the pipe, too.
    ///
    /// # Errors
    /// When ffmpeg cannot be started.
    pub(super) fn of(
        file: &Path,
        target: &Path,
        delay: Duration,
        encoder: Option<&Encoder>,
    ) -> std::io::Result<(Self, Option<PipeReader>)> {
        let streams = streams(&input(file));
        let is_same_kind = kind(file).is_some() && kind(file) == kind(target);
        let with_subtitles = is_same_kind && is_kind(file, &["mkv", "webm"]);
        let mut piped: Vec<String> = (0..streams.sound)
            .map(|number| format!("0:a:{number}"))
            .filter(|stream| has_packet(file, stream))
            .collect();
        // NUT keeps exact times, and Matroska all properties; what neither holds is decoded.
        let [first, second] =
            if is_kind(file, &EXACT) { ["nut", "matroska"] } else { ["matroska", "nut"] };
        let copied = [first, second]
            .into_iter()
            .find(|format| piped.is_empty() || can_copy(file, &piped, format));
        if with_subtitles && streams.subtitles && (!piped.is_empty() || has_packet(file, "0:s:0")) {
            piped.push("0:s".into());
        }
        let mut sound = Self {
            file: file.into(),
            reader: None,
            progress: None,
            streams,
            piped,
            is_same_kind,
            is_copied: copied.is_some()
                && (is_same_kind || encoder.is_some_and(Encoder::copies_sound)),
            with_subtitles,
            format: copied.unwrap_or("nut"),
            delay,
        };
        if !sound.is_piped() {
            return Ok((sound, None));
        }
        let codec = if copied.is_some() { "copy" } else { "pcm_s16le" };
        let mut command = reading(file, &sound.piped, codec);
        command.args([
            "-flush_packets",
            "1",
            "-output_ts_offset",
            &OFFSET.to_string(),
            "-f",
            sound.format,
            "pipe:1",
        ]);
        command.stdout(Stdio::piped());
        let mut reader = Program::start(command)?;
        let (pipe, to) = std::io::pipe()?;
        if let Some(from) = reader.child.stdout.take() {
            let (sender, progress) = sync_channel(BEGINNING);
            thread::Builder::new()
                .name("sound".into())
                .spawn(move || pass_on(from, to, &sender))?;
            sound.progress = Some(progress);
        }
        sound.reader = Some(reader);
        Ok((sound, Some(pipe)))
    }

    /// Whether the file has anything for the pipe.
    pub(super) fn is_piped(&self) -> bool {
        !self.piped.is_empty()
    }

    /// Adds the inputs of the encoder after that of the frames, and their maps. The pipe is its
    /// standard output, which is of no other use.
    pub(super) fn add_to(&self, command: &mut Command, target: &Path) {
        // Sound may begin earlier than the frames. The shorter of the two does not cut the longer.
        let delay = self.delay.as_secs_f64();
        if self.is_piped() {
            command.arg("-itsoffset").arg(format!("{:.6}", -delay - OFFSET));
            command.args(["-f", self.format, "-i", "pipe:1"]);
        }
        command.arg("-i").arg(input(&self.file)).args(["-map", "0:v:0"]);
        let mut file = "1";
        if self.is_piped() {
            file = "2";
            // Times are what the pipe says, without its start.
            command.args(["-copyts", "-map", "1:a?"]);
            if self.is_copied {
                command.args(["-c:a", "copy"]);
            } else {
                // Samples before the beginning only start the decoder; they are not played.
                command.arg("-af").arg(format!("atrim=start={:.6}", -delay));
                if kind(target).as_deref() == Some("3gp") {
                    // The speech codec that is ffmpeg's default there is missing in some builds of
                    // ffmpeg.
                    command.args(["-c:a", "aac"]);
                }
            }
            if self.with_subtitles {
                command.args(["-map", "1:s?", "-c:s", "copy"]);
            }
        }
        // Titles, comments and chapters are the file's, not the pipe's.
        command.args(["-map_metadata", file, "-map_chapters", file]);
    }

    /// Whether the file has subtitles for the result that the pipe does not hold.
    pub(super) fn lacks_subtitles(&self) -> bool {
        self.is_same_kind && !self.with_subtitles && self.streams.subtitles
    }

    /// Adds the file itself as an input, timed as the pipe is.
    pub(super) fn add_as_input(&self, command: &mut Command) {
        command
            .arg("-itsoffset")
            .arg(format!("{:.6}", -self.delay.as_secs_f64()))
            .arg("-i")
            .arg(input(&self.file));
    }

    /// Ends the sound, soon: what a file that is cut off has left is less than [`REST_LIMIT`]
    /// takes, and the encoder needs the beginning in any case.
    pub(super) fn stop(&mut self) {
        if let Some(progress) = self.progress.take() {
            let begins = (0..BEGINNING).all(|_| progress.recv_timeout(BEGINNING_LIMIT).is_ok());
            let end = Instant::now() + REST_LIMIT;
            while begins
                && progress.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok()
            {
            }
        }
        self.reader = None;
    }

    /// Waits for the end of the sound, and returns what is wrong with it, by the messages of its
    /// reader or by those of the encoder, and whether it is cut off.
    pub(super) fn end(&mut self, encoder: &Messages) -> Option<(String, bool)> {
        let messages = self.reader.take()?.end();
        match messages {
            Ok(messages) => [messages, encoder.clone()]
                .into_iter()
                .find_map(|messages| Some((messages.damage?, messages.is_truncated))),
            Err(problem) => Some((problem, false)),
        }
    }
}
