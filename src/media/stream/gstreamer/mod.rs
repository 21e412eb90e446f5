//! Frames of a GStreamer pipeline, through a `gst-launch-1.0` process if it is installed, and the
//! text by which GStreamer describes a format.

mod caps;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod program;
mod request;
mod source;

use std::path::Path;

pub use caps::GSTREAMER_FORMATS;
use request::Request;
pub use source::GstreamerSource;

/// Whether the name is that of a GStreamer pipeline, or of a camera that is read by one.
pub fn is_gstreamer(name: &Path) -> bool {
    Request::of(name).is_some()
}
