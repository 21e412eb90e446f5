//! Ctrl-C and SIGTERM. The first signal requests a stop after the current evaluation, which is
//! terminated if it takes too long; the second ends the process at once. While there is nothing to
//! keep yet, the first signal ends it at once.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use eddy::durable::discard_folders;
use eddy::machine::{exit_at_once, install_signal_handler};

use super::console;

static STOP_REQUESTED: AtomicBool = AtomicBool::new(false);

/// How many inputs or models are being opened, before anything is written.
static OPENING_COUNT: AtomicUsize = AtomicUsize::new(0);

/// How long an evaluation may take after a stop was requested.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// The exit code after a requested stop.
const INTERRUPTED: i32 = 130;

/// The file that takes a while to finish, and its temporary name.
static FINISHING: OnceLock<[PathBuf; 2]> = OnceLock::new();

/// What a server does at the first signal, in place of the default.
static STOP_SERVER: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Installs the signal handler. If that fails, signals end the process as usual.
pub(crate) fn listen() {
    install_signal_handler(|| drop(ctrlc::set_handler(on_signal)));
}

fn on_signal() {
    let is_second = STOP_REQUESTED.swap(true, Ordering::Relaxed);
    if is_second {
        end(INTERRUPTED);
    }
    if OPENING_COUNT.load(Ordering::Relaxed) > 0 {
        end_with_message();
    }
    if let Some(stop) = STOP_SERVER.get() {
        return stop();
    }
    eddy::network::stop_evaluations(SHUTDOWN_GRACE);
    if let Some([path, part]) = FINISHING.get() {
        let name = path.display();
        let message = format!(
            "finishing {name} (again to stop now; what is written stays in {})",
            part.display()
        );
        // Stderr may be closed.
        let _ = writeln!(std::io::stderr(), "eddy: {}", console::plain(&message));
    }
}

/// Ends the process at once. Folders that are being filled are deleted.
fn end(code: i32) {
    discard_folders(|| exit_at_once(code));
}

/// Like [`end`], after the first signal.
fn end_with_message() {
    end(console::report_error(&eddy::Error::Interrupted.into()).into());
}

/// From now on, the first signal calls `stop`, and evaluations go on.
pub(crate) fn on_stop(stop: impl Fn() + Send + Sync + 'static) {
    let _ = STOP_SERVER.set(Box::new(stop));
}

/// From now on, a stop request prints that this file is being finished, and that `part` holds what
/// is written.
pub(crate) fn announce_finishing(path: &Path, part: &Path) {
    let _ = FINISHING.set([path.to_owned(), part.to_owned()]);
}

/// Marks that something is being opened, until it is dropped.
pub(crate) struct OpeningGuard {
    /// Dropping the sender ends the watch thread.
    _watch: Option<mpsc::Sender<()>>,
}

impl Drop for OpeningGuard {
    fn drop(&mut self) {
        OPENING_COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Marks that something is being opened that may never answer, before anything is written. Until
/// the returned value is dropped, the first signal ends the process at once, and so does `limit`,
/// with its error.
pub(crate) fn guard_opening(limit: Option<(Duration, eddy::Error)>) -> OpeningGuard {
    OPENING_COUNT.fetch_add(1, Ordering::Relaxed);
    if STOP_REQUESTED.load(Ordering::Relaxed) {
        end_with_message();
    }
    let watch = limit.and_then(|(limit, problem)| {
        let (watch, ended) = mpsc::channel::<()>();
        let body = move || {
            if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                end(console::report_error(&problem.into()).into());
            }
        };
        // Without this thread there is no time limit; signals still work.
        std::thread::Builder::new().name("opening".into()).spawn(body).ok().map(|_| watch)
    });
    OpeningGuard { _watch: watch }
}

/// Whether to continue.
pub(crate) fn poll() -> ControlFlow<()> {
    if STOP_REQUESTED.load(Ordering::Relaxed) {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

/// Fails if a stop was requested.
pub(crate) fn check() -> eddy::Result<()> {
    if poll().is_break() { Err(eddy::Error::Interrupted) } else { Ok(()) }
}
