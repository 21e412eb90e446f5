//! The `gst-launch-1.0` process, and what it says.

use std::io::{BufRead, BufReader, PipeReader, Read, pipe};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::request::FRAMES;
use crate::error::{Error, Result};
use crate::machine::process::spawn;

const PROGRAM: &str = "gst-launch-1.0";

/// Maximum length in bytes of the messages that are passed on.
const WORDS: usize = 600;

/// Maximum length of a line.
const MAX_LINE: u64 = 1 << 14;

/// How long the program may still run after an error. It never ends by itself if the error comes
/// before its main loop runs.
const GRACE: Duration = Duration::from_secs(2);

/// How often it is checked whether the program has ended.
const POLL: Duration = Duration::from_millis(5);

/// Elements that a pipeline often lacks, and the Debian package of each.
const PACKAGES: [(&str, &str); 9] = [
    ("textoverlay", "gstreamer1.0-x"),
    ("h264parse", "gstreamer1.0-plugins-bad"),
    ("libcamerasrc", "gstreamer1.0-libcamera"),
    ("multipartmux", "gstreamer1.0-plugins-good"),
    ("v4l2src", "gstreamer1.0-plugins-good"),
    ("rtspsrc", "gstreamer1.0-plugins-good"),
    ("videoconvert", "gstreamer1.0-plugins-base"),
    ("avdec_h264", "gstreamer1.0-libav"),
    ("nvarguscamerasrc", "nvidia-l4t-gstreamer, on a Jetson"),
];

/// What a pipeline says before its first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// The format of its frames.
    pub(super) caps: String,
    /// Whether its frames come as they are captured.
    pub(super) is_live: bool,
}

/// A running pipeline, which is killed on drop.
pub(super) struct Program {
    child: Arc<Mutex<Child>>,
    announced: mpsc::Receiver<Announced>,
    errors: Arc<Mutex<String>>,
    listeners: Vec<JoinHandle<()>>,
}

impl Program {
    /// Starts `gst-launch-1.0` with these arguments. Its descriptor 0 is the other end of the pipe
    /// that is returned.
    ///
    /// # Errors
    /// [`Error::Input`] when it is not installed, or cannot be started.
    pub(super) fn start(name: &Path, arguments: &[String]) -> Result<(Self, PipeReader)> {
        let failed = |error: std::io::Error| {
            let problem = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "it takes gst-launch-1.0, which is not installed (apt install \
                     gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good)"
                }
                _ => "gst-launch-1.0 cannot be started",
            };
            Error::input_from(name, problem, error)
        };
        let (frames, writer) = pipe().map_err(failed)?;
        let mut command = Command::new(PROGRAM);
        // Its messages are read in English, and without color.
        command.args(arguments).envs([("LC_ALL", "C"), ("GST_DEBUG_NO_COLOR", "1")]);
        command.stdin(writer).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command, false).map_err(failed)?;
        let errors = Arc::new(Mutex::new(String::new()));
        let (announce, announced) = mpsc::channel();
        let mut listeners = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            listeners.push(thread::spawn(move || {
                let mut is_live = false;
                each_line(stdout, |line| {
                    is_live |= line.starts_with("Pipeline is live");
                    if let Some(caps) = caps_of(line) {
                        // Nobody listens any more once the source is dropped.
                        let _ = announce.send(Announced { caps: caps.to_owned(), is_live });
                    }
                });
            }));
        }
        let stderr = child.stderr.take();
        let child = Arc::new(Mutex::new(child));
        if let Some(stderr) = stderr {
            let (errors, child) = (Arc::clone(&errors), Arc::clone(&child));
            listeners.push(thread::spawn(move || {
                let mut has_failed = false;
                each_line(stderr, |line| {
                    add(&mut errors.lock().unwrap_or_else(PoisonError::into_inner), line);
                    if line.starts_with("ERROR:") && !std::mem::replace(&mut has_failed, true) {
                        kill_after_grace(Arc::clone(&child));
                    }
                });
            }));
        }
        Ok((Self { child, announced, errors, listeners }, frames))
    }

    /// Waits for the format of the frames; `None` when the pipeline ends without any.
    pub(super) fn announced(&self) -> Option<Announced> {
        self.announced.recv().ok()
    }

    /// A further format, which frames have from now on.
    pub(super) fn changed(&self) -> Option<Announced> {
        self.announced.try_iter().last()
    }

    /// Waits for the end. Returns what went wrong, if anything did.
    pub(super) fn end(&mut self) -> std::result::Result<(), String> {
        let status = loop {
            // The child is not locked while it is waited for, so that it can be killed.
            match lock(&self.child).try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => break Ok(status),
                Err(error) => break Err(error),
            }
            thread::sleep(POLL);
        };
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) if errors.is_empty() => {
                Err(format!("gst-launch-1.0 ended with {status} without a message"))
            }
            Ok(_) => Err(format!("gst-launch-1.0 says: {errors}{}", advice(&errors))),
            Err(error) => Err(format!("gst-launch-1.0 cannot be waited for: {error}")),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // This has no effect if it has already ended.
        let mut child = lock(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills a program that goes on after an error.
fn kill_after_grace(child: Arc<Mutex<Child>>) {
    thread::spawn(move || {
        thread::sleep(GRACE);
        // This has no effect if it has already ended.
        let _ = lock(&child).kill();
    });
}

fn each_line(stream: impl Read, mut take: impl FnMut(&str)) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(1..) = stream.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
        take(String::from_utf8_lossy(&line).trim());
        line.clear();
    }
}

/// The caps on a line about the pad that gives the frames.
fn caps_of(line: &str) -> Option<&str> {
    line.split_once(&format!(":{FRAMES}.GstPad:src: caps = ")).map(|(_, caps)| caps)
}

/// Adds a line of an error message. The second line of each is a title, and what is in the source
/// code of GStreamer is of no use.
fn add(errors: &mut String, line: &str) {
    let line = line.strip_prefix("ERROR: ").unwrap_or(line);
    let line = line.strip_prefix("WARNING: ").unwrap_or(line);
    let is_title = line.is_empty() || line == "Additional debug info:" || line.starts_with("../");
    if is_title || errors.len() > WORDS || errors.contains(line) {
        return;
    }
    let separator = if errors.is_empty() { "" } else { "; " };
    errors.extend(separator.chars().chain(line.chars().take(WORDS)));
}

/// What to do about an error: the package of an element that is missing, or how a pipeline ends.
fn advice(errors: &str) -> String {
    if errors.contains("could not link") && errors.contains(" to videoconvert") {
        return " (expected a pipeline that ends in frames, video/x-raw, and not in a sink)".into();
    }
    let missing = |element: &str| errors.contains(&format!("no element \"{element}\""));
    let package = PACKAGES.iter().find(|(element, _)| missing(element));
    package.map_or_else(String::new, |(_, package)| format!(" (apt install {package})"))
}

#[cfg(test)]
mod tests {
    use super::{WORDS, add, advice, caps_of};

    #[test]
    fn reads_caps_of_the_frames_alone() {
        let line =
            "/GstPipeline:pipeline0/GstCapsFilter:eddy-frames.GstPad:src: caps = video/x-raw";
        assert_eq!(caps_of(line), Some("video/x-raw"));
        assert_eq!(caps_of(&line.replace("src", "sink")), None);
        assert_eq!(caps_of("Setting pipeline to PAUSED ..."), None);
    }

    #[test]
    fn keeps_messages_and_names_packages() {
        let mut errors = String::new();
        for line in [
            "ERROR: from element /a: Cannot identify device.",
            "Additional debug info:",
            "../sys/v4l2/v4l2_calls.c(608): open ():",
            "system error: No such file or directory",
        ] {
            add(&mut errors, line);
        }
        assert_eq!(
            errors,
            "from element /a: Cannot identify device.; system error: No such file or directory"
        );
        (0..100).for_each(|i| add(&mut errors, &format!("a further message, number {i}")));
        assert!(errors.len() < WORDS + 100);
        let missing = "erroneous pipeline: no element \"libcamerasrc\"";
        assert_eq!(advice(missing), " (apt install gstreamer1.0-libcamera)");
        assert_eq!(advice("no element \"other\""), "");
        assert!(advice("could not link fakesink0 to videoconvert0").contains("not in a sink"));
    }
}
