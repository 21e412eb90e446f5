//! Ctrl-C and SIGTERM: the first asks to stop after the evaluation in hand, which is ended where it does not end by itself; the second stops at once, as the first does while there
//! is nothing yet to be kept.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use eddy::durable::discard_folders;
use eddy::machine::{exit_at_once, listen_but_to_ignored_hangups};

use super::console;

static ASKED: AtomicBool = AtomicBool::new(false);

/// How many things are being opened, of which nothing is written yet.
static OPENING: AtomicUsize = AtomicUsize::new(0);

/// How long an evaluation may take from when somebody asked to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// The exit code of a process that was asked to stop.
const INTERRUPTED: i32 = 130;

/// What is being written that takes a while to be finished, and under which name until then.
static FINISHING: OnceLock<[PathBuf; 2]> = OnceLock::new();

/// Starts to listen. Where no handler can be set, signals end the process as they always do.
pub(crate) fn listen() {
    listen_but_to_ignored_hangups(|| drop(ctrlc::set_handler(asked)));
}

fn asked() {
    let is_second = ASKED.swap(true, Ordering::Relaxed);
    if is_second {
        end(INTERRUPTED);
    }
    if OPENING.load(Ordering::Relaxed) > 0 {
        end(console::complain_of(&eddy::Error::Interrupted.into()).into());
    }
    eddy::network::stop_evaluations(SHUTDOWN_GRACE);
    if let Some([path, part]) = FINISHING.get() {
        let name = path.display();
        let words = format!("finishing {name} (again to stop now; what is written stays in {})", part.display());
        // Nobody may be listening.
        let _ = writeln!(std::io::stderr(), "eddy: {}", console::plain(&words));
    }
}

/// Ends the process at once. Nothing of a folder that is being filled is kept.
fn end(code: i32) {
    discard_folders(|| exit_at_once(code));
}

/// Says from now on, when somebody asks to stop, that this file is being finished, of which `part` is written.
pub(crate) fn finishing(path: &Path, part: &Path) {
    let _ = FINISHING.set([path.to_owned(), part.to_owned()]);
}

/// Something is being opened while this lives.
pub(crate) struct Opening {
    /// Its end ends the watch.
    _watch: Option<mpsc::Sender<()>>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        OPENING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Something is being opened that may take for ever to answer, and nothing is written yet: until what is returned goes, the first
/// signal ends the process at once, and so does `problem` after that time.
pub(crate) fn opening(limit: Option<(Duration, eddy::Error)>) -> Opening {
    OPENING.fetch_add(1, Ordering::Relaxed);
    if ASKED.load(Ordering::Relaxed) {
        end(INTERRUPTED);
    }
    let watch = limit.and_then(|(limit, problem)| {
        let (watch, ended) = mpsc::channel::<()>();
        let body = move || {
            if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                end(console::complain_of(&problem.into()).into());
            }
        };
        // Without a thread nobody watches the time, and signals still work.
        std::thread::Builder::new().name("opening".into()).spawn(body).ok().map(|_| watch)
    });
    Opening { _watch: watch }
}

/// Whether to go on.
pub(crate) fn poll() -> ControlFlow<()> {
    if ASKED.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// An error where somebody asked to stop.
pub(crate) fn check() -> eddy::Result<()> {
    if poll().is_break() { Err(eddy::Error::Interrupted) } else { Ok(()) }
}
