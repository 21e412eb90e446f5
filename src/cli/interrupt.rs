//! Ctrl-C and SIGTERM: the first asks to stop after the evaluation in hand, the second stops at once.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// What is being written that takes a while to be finished, and under which name until then.
static FINISHING: OnceLock<[PathBuf; 2]> = OnceLock::new();

/// Starts to listen. Where no handler can be set, signals end the process as they always do.
pub(crate) fn listen() {
    let _ = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        if let Some([path, part]) = FINISHING.get() {
            let name = path.display();
            let words = format!("finishing {name} (again to stop now; what is written stays in {})", part.display());
            // Nobody may be listening.
            let _ = writeln!(std::io::stderr(), "eddy: {words}");
        }
    });
}

/// Says from now on, when somebody asks to stop, that this file is being finished, of which `part` is written.
pub(crate) fn finishing(path: &Path, part: &Path) {
    let _ = FINISHING.set([path.to_owned(), part.to_owned()]);
}

/// Whether to go on.
pub(crate) fn poll() -> ControlFlow<()> {
    if ASKED.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// An error where somebody asked to stop.
pub(crate) fn check() -> eddy::Result<()> {
    if poll().is_break() { Err(eddy::Error::Interrupted) } else { Ok(()) }
}
