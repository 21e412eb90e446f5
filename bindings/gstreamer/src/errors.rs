//! Errors of the library as messages of an element.

use eddy::Error;
use eddy::error::with_causes;
use eddy::setting::{self, Setting};

/// The properties by which users know the settings that messages of the library name.
const PROPERTIES: [(Setting, &str); 9] = [
    (setting::ALL_ON_DEVICE, "require-device"),
    (setting::DEVICE, "device"),
    (setting::MATRIX, "the colorimetry of the caps"),
    (setting::MAX_MEMORY, "max-memory"),
    (setting::MODEL, "model"),
    (setting::PRECISION, "precision"),
    (setting::RUNTIME, "runtime"),
    (setting::TILE, "tile"),
    (setting::TILE_OVERLAP, "tile-overlap"),
];

/// The text of an error with all causes, which names properties, and elements in place of commands.
pub(crate) fn text(error: &Error) -> String {
    let text = with_causes(error).replace("ffmpeg -vf bwdif", "deinterlace");
    setting::named(&text, &PROPERTIES)
}

/// The message that ends a pipeline.
pub(crate) fn message(error: &Error) -> gst::ErrorMessage {
    let text = text(error);
    match error {
        Error::Usage { .. } => gst::error_msg!(gst::LibraryError::Settings, ("{text}")),
        Error::Input { .. } => gst::error_msg!(gst::ResourceError::Read, ("{text}")),
        Error::Model { .. } => gst::error_msg!(gst::ResourceError::NotFound, ("{text}")),
        Error::Runtime { .. } | Error::Device { .. } => {
            gst::error_msg!(gst::LibraryError::Init, ("{text}"))
        }
        _ => gst::error_msg!(gst::StreamError::Failed, ("{text}")),
    }
}
