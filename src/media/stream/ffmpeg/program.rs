//! Runs ffmpeg and ffprobe, and reads their messages.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crate::machine::process::spawn;

/// An output of ffmpeg that reports the presentation time of each frame before the frame, in
/// milliseconds, one per line.
pub(super) const TIMES: [&str; 7] =
    ["-c:v", "wrapped_avframe", "-flush_packets", "1", "-f", "mkvtimestamp_v2", "pipe:2"];

/// How long to wait for the time of a frame; after that it has none.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Maximum length in bytes of ffmpeg's messages that are passed on.
const WORDS: usize = 600;

/// Maximum length of a line.
const MAX_LINE: u64 = 4096;

/// Messages of ffmpeg about damaged or missing frames, whether it goes on or not.
const DAMAGE_MESSAGES: [&str; 23] = [
    "corrupt input packet",
    "corrupt decoded frame",
    "Packet corrupt",
    "error while decoding MB",
    "Error while decoding stream",
    "Error submitting packet to decoder",
    "Decoding error",
    "Truncating packet",
    "Invalid NAL unit size",
    "overread",
    "error count:",
    "Packet mismatch",
    "EBML number",
    // Ogg, MXF, GIF.
    "CRC mismatch",
    "edit unit sync lost",
    "bad FooterPartition",
    "invalid block label",
    "LZW decode failed",
    // H.265, TS, APNG.
    "Could not find ref with POC",
    "could not find sync byte",
    "Not yet implemented in FFmpeg",
    // Entries of a playlist.
    "Impossible to open",
    "Failed to open segment",
];

/// The demuxer all whose errors are about what it leaves out, in many words.
const ASF: &str = "[asf @";

/// Messages about a file that is shorter than it declares.
const TRUNCATION_MESSAGES: [&str; 4] = [
    "partial file",
    "ended prematurely",
    "Stream ends prematurely",
    "exceeds containing master element",
];

/// Messages about incomplete output, after which some versions of ffmpeg succeed for some
/// containers.
const INCOMPLETE_OUTPUT_MESSAGES: [&str; 2] = ["Error writing trailer", "Error closing file"];

/// A running ffmpeg, which is killed on drop.
pub(super) struct Program {
    pub(super) child: Child,
    messages: Arc<Mutex<Messages>>,
    times: mpsc::Receiver<Duration>,
    listener: Option<thread::JoinHandle<()>>,
}

/// The messages of ffmpeg.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Messages {
    /// Its error messages, joined.
    pub(super) errors: String,
    /// The first message about damage, if any.
    pub(super) damage: Option<String>,
    /// Whether that says that the file is shorter than it declares.
    pub(super) is_truncated: bool,
    /// Whether the output is incomplete.
    is_unwritten: bool,
}

impl Messages {
    /// Reads one line, which begins with its origin and level: `[h264 @ 0x5577] [error] overread
    /// 6`.
    fn take(&mut self, line: &str) {
        let line = line.trim();
        let (level, words) = ["[panic]", "[fatal]", "[error]", "[warning]"]
            .into_iter()
            .find_map(|level| line.find(level).map(|at| (level, line[at + level.len()..].trim())))
            .unwrap_or(("", line));
        let is_truncated =
            !self.is_truncated && TRUNCATION_MESSAGES.iter().any(|cut| words.contains(cut));
        let is_damage = DAMAGE_MESSAGES.iter().any(|damage| words.contains(damage))
            || (line.starts_with(ASF) && level == "[error]");
        if is_truncated || (self.damage.is_none() && is_damage) {
            self.damage = Some(words.to_owned());
            self.is_truncated = is_truncated;
        }
        self.is_unwritten |=
            INCOMPLETE_OUTPUT_MESSAGES.iter().any(|unwritten| words.starts_with(unwritten));
        if level == "[warning]" || words.is_empty() {
            return;
        }
        // The first errors are the cause of those that follow, and may repeat for each packet.
        if self.errors.len() < WORDS && !self.errors.contains(words) {
            let separator = if self.errors.is_empty() { "" } else { "; " };
            self.errors.extend(separator.chars().chain(words.chars().take(WORDS)));
        }
    }
}

/// The time on a line of [`TIMES`]. A message that another thread of ffmpeg writes at that time may
/// have its origin and its level, in brackets, before it.
fn time_of(line: &str) -> Option<Duration> {
    let mut rest = line.trim();
    while let Some((_, after)) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        rest = after.trim_start();
    }
    rest.parse().ok().map(Duration::from_millis)
}

impl Program {
    /// Starts ffmpeg, which is killed when this process ends.
    pub(super) fn start(command: Command) -> std::io::Result<Self> {
        Self::begin(command, false)
    }

    /// Starts an ffmpeg that reads from this process. When this process ends, it finishes its file
    /// with what it has and ends.
    pub(super) fn start_reader(command: Command) -> std::io::Result<Self> {
        Self::begin(command, true)
    }

    fn begin(mut command: Command, outlives: bool) -> std::io::Result<Self> {
        command.stderr(Stdio::piped());
        let mut child = spawn(command, outlives)?;
        let messages = Arc::new(Mutex::new(Messages::default()));
        let (time, times) = mpsc::channel();
        let listener = child.stderr.take().map(|stderr| {
            let messages = Arc::clone(&messages);
            thread::spawn(move || {
                let mut stderr = BufReader::new(stderr);
                let mut line = Vec::new();
                while let Ok(1..) = stderr.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                    let text = String::from_utf8_lossy(&line);
                    match time_of(&text) {
                        Some(shown) => drop(time.send(shown)),
                        // The header above the times.
                        None if text.starts_with('#') => {}
                        None => messages.lock().unwrap_or_else(PoisonError::into_inner).take(&text),
                    }
                    line.clear();
                }
            })
        });
        Ok(Self { child, messages, times, listener })
    }

    /// Presentation time of the next frame, if ffmpeg reports it by [`TIMES`]; `None` when it no
    /// longer does.
    pub(super) fn next_time(&self) -> Option<Duration> {
        self.times.recv_timeout(TIME_LIMIT).ok()
    }

    /// Waits for the end. Returns the error messages if ffmpeg failed, and otherwise all that it
    /// reported.
    pub(super) fn end(&mut self) -> Result<Messages, String> {
        let status = self.child.wait();
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        match status {
            Ok(status) if status.success() && !messages.is_unwritten => Ok(messages.clone()),
            Ok(status) if messages.errors.is_empty() => {
                Err(format!("ffmpeg ended with {status} without a message"))
            }
            Ok(_) => Err(format!("ffmpeg says: {}", messages.errors)),
            Err(error) => Err(format!("ffmpeg cannot be waited for: {error}")),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // This has no effect if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The log level that [`Program`] reads: from warnings on, with the level in each line.
pub(super) const LOG_LEVEL: &str = "level+warning";

/// ffmpeg without interaction, at this log level.
pub(in crate::media) fn ffmpeg(log_level: &str) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", log_level]);
    command
}

/// Runs a program to its end and returns its output. It has no input and is killed when this
/// process ends.
pub(in crate::media) fn output(mut command: Command) -> std::io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn(command, false)?.wait_with_output()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Messages, WORDS, time_of};

    #[test]
    fn reads_a_time_within_a_message() {
        let time = Some(Duration::from_millis(120));
        for line in ["120\n", "[avi @ 0x55] 120\n", "[avi @ 0x55] [warning] 120\n"] {
            assert_eq!(time_of(line), time, "{line}");
        }
        for line in ["", "# timestamp format v2", "[avi @ 0x55] [warning] Packet corrupt", "[1"] {
            assert_eq!(time_of(line), None, "{line}");
        }
    }

    #[test]
    fn keeps_errors_and_detects_damage_among_warnings() {
        let mut messages = Messages::default();
        messages.take(
            "[swscaler @ 0x55] [warning] deprecated pixel format used, make sure you did \
             set range correctly\n",
        );
        assert_eq!(messages, Messages::default());
        messages.take("[warning] in.ts: corrupt input packet in stream 0\n");
        assert_eq!(
            (messages.errors.as_str(), messages.damage.as_deref()),
            ("", Some("in.ts: corrupt input packet in stream 0"))
        );
        messages.take("[h264 @ 0x55] [error] error while decoding MB 5 9, bytestream -8\r\n");
        messages.take("in.ts: no more");
        assert_eq!(messages.errors, "error while decoding MB 5 9, bytestream -8; in.ts: no more");
        messages.take("in.ts: no more");
        messages.take("[error] \n");
        assert!(messages.errors.ends_with("no more") && !messages.is_unwritten);
        for (line, damage) in [
            ("[asf @ 0x5a] [error] packet_obj_size -747348737 invalid", true),
            ("[asf @ 0x5a] [warning] a word", false),
            ("[mxf @ 0x5a] [warning] edit unit sync lost on stream 1, jumping from 20 to 21", true),
            ("[wmv2 @ 0x5a] [error] ignoring overflow at 3 5", false),
        ] {
            let mut messages = Messages::default();
            messages.take(line);
            assert_eq!(messages.damage.is_some(), damage, "{line}");
        }
        for _ in 0..1000 {
            messages.take("[error] again and again");
        }
        assert!(messages.errors.len() < WORDS + 100);
    }
}
