//! The sound of a source, on its way to the encoder of its frames.
//!
//! The encoder finishes its file when its inputs end. It does not open the source for sound, which may
//! last hours longer than the frames: another ffmpeg copies the sound into a pipe. That ends with this
//! process, or as soon as the run is stopped.

use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use super::probe::{Streams, streams};
use super::program::{LOG_LEVEL, Program, Said, ffmpeg, output};
use super::{Encoder, input, kind};

/// Added to the times of sound in the pipe, in seconds, so that none is negative.
const OFFSET: f64 = 10.0;

/// The sound of a file, and the subtitles where the pipe holds them.
pub(super) struct Sound {
    pub(super) file: PathBuf,
    /// What reads the file; `None` where it has no sound, and after [`stop`](Self::stop).
    reader: Option<Program>,
    streams: Streams,
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

/// The kinds of files whose times are finer than milliseconds, and whose sound needs nothing that NUT
/// does not hold.
const EXACT: [&str; 7] = ["mp4", "3gp", "ts", "m2ts", "mts", "mpg", "flv"];

fn is_kind(file: &Path, kinds: &[&str]) -> bool {
    kind(file).is_some_and(|kind| kinds.contains(&kind.as_str()))
}

/// The command that reads the sound of a file with that codec, without its output.
fn reading(file: &Path, codec: &str) -> Command {
    let mut command = ffmpeg(LOG_LEVEL);
    command
        .arg("-i")
        .arg(input(file))
        .args(["-map", "0:a?", "-c:s", "copy", "-c:a", codec])
        .stdin(Stdio::null());
    command
}

/// Whether a format of ffmpeg holds the sound of a file as it is.
fn can_copy(file: &Path, format: &str) -> bool {
    let mut command = reading(file, "copy");
    command.args(["-t", "0", "-f", format, "pipe:1"]);
    output(command).is_ok_and(|output| output.status.success())
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
    ) -> std::io::Result<(Self, Option<ChildStdout>)> {
        let streams = streams(&input(file));
        let is_same_kind = kind(file).is_some() && kind(file) == kind(target);
        let with_subtitles = is_same_kind && is_kind(file, &["mkv", "webm"]);
        // NUT keeps exact times, and Matroska all properties; what neither holds is decoded.
        let [first, second] =
            if is_kind(file, &EXACT) { ["nut", "matroska"] } else { ["matroska", "nut"] };
        let copied =
            [first, second].into_iter().find(|format| !streams.sound || can_copy(file, format));
        let mut sound = Self {
            file: file.into(),
            reader: None,
            streams,
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
        let mut command = reading(file, if copied.is_some() { "copy" } else { "pcm_s16le" });
        if with_subtitles {
            command.args(["-map", "0:s?"]);
        }
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
        let pipe = reader.child.stdout.take();
        sound.reader = Some(reader);
        Ok((sound, pipe))
    }

    /// Whether the file has anything for the pipe.
    pub(super) fn is_piped(&self) -> bool {
        self.streams.sound || (self.with_subtitles && self.streams.subtitles)
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
                // What a decoder needs before the beginning is no sound.
                command.arg("-af").arg(format!("atrim=start={:.6}", -delay));
                if kind(target).as_deref() == Some("3gp") {
                    // The speech codec that is ffmpeg's default there is missing in some builds of ffmpeg.
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

    /// Ends the sound here.
    pub(super) fn stop(&mut self) {
        self.reader = None;
    }

    /// Waits for the end of the sound, and returns what is wrong with it, by the messages of its
    /// reader or by those of the encoder, and whether it is cut off.
    pub(super) fn end(&mut self, encoder: &Said) -> Option<(String, bool)> {
        let said = self.reader.take()?.end();
        match said {
            Ok(said) => [said, encoder.clone()]
                .into_iter()
                .find_map(|said| Some((said.damage?, said.is_cut))),
            Err(problem) => Some((problem, false)),
        }
    }
}
