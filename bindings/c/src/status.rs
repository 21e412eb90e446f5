//! Statuses, and the text of the last error of each thread.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use eddy::error::with_causes;
use eddy::setting::{self, Setting};
use eddy::{Error, Result};

use crate::api::EddyStatus;

thread_local! {
    static LAST_ERROR: RefCell<Option<CString>> = const { RefCell::new(None) };
}

/// The members of structures by which users know the settings that messages of the library name.
const MEMBERS: [(Setting, &str); 6] = [
    (setting::DEVICE, "device"),
    (setting::MAX_MEMORY, "max_memory"),
    (setting::MODEL, "model"),
    (setting::PIXEL_FORMAT, "the pixel format"),
    (setting::PRECISION, "precision"),
    (setting::RUNTIME, "runtime"),
];

/// The status of an error, whose text is kept for [`last_error`].
fn failed(error: &Error) -> EddyStatus {
    remember(&setting::named(&with_causes(error), &MEMBERS));
    match error {
        Error::Usage { .. } => EddyStatus::Usage,
        Error::Input { .. } => EddyStatus::Input,
        Error::Model { .. } => EddyStatus::Model,
        Error::Runtime { .. } => EddyStatus::Runtime,
        Error::Device { .. } => EddyStatus::Device,
        Error::Interrupted => EddyStatus::Interrupted,
        _ => EddyStatus::Failed,
    }
}

fn remember(text: &str) {
    // A name with a zero byte cannot have come from C.
    let text = CString::new(text.replace('\0', " ")).ok();
    LAST_ERROR.with(|last| *last.borrow_mut() = text);
}

/// The status of `work`, which does not unwind into C.
pub(crate) fn status_of(work: impl FnOnce() -> Result<()>) -> EddyStatus {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => EddyStatus::Ok,
        Ok(Err(error)) => failed(&error),
        Err(_) => {
            remember("a bug in Eddy: it panicked; the message is on standard error");
            EddyStatus::Panicked
        }
    }
}

/// The text of the last error of this thread, null if there was none.
pub(crate) fn last_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ref().map_or(ptr::null(), |text| text.as_ptr()))
}
