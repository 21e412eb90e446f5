//! Ctrl-C and SIGTERM: the first asks to stop after the evaluation in hand, the second stops at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Starts to listen. Where no handler can be set, signals end the process as they always do.
pub(crate) fn listen() {
    let _ = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
}

/// Whether to go on.
pub(crate) fn poll() -> ControlFlow<()> {
    if ASKED.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// An error where somebody asked to stop.
pub(crate) fn check() -> eddy::Result<()> {
    if poll().is_break() { Err(eddy::Error::Interrupted) } else { Ok(()) }
}
