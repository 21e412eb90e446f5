//! The containers that are written.

use std::path::Path;

/// The containers by extension, with the options by which ffmpeg writes them whatever the name of
/// the file is.
const CONTAINERS: [(&str, &[&str]); 18] = [
    ("mp4", &["-f", "mp4"]),
    ("m4v", &["-f", "ipod"]),
    ("mkv", &["-f", "matroska"]),
    ("mov", &["-f", "mov"]),
    ("avi", &["-f", "avi"]),
    ("webm", &["-f", "webm"]),
    ("ts", &["-f", "mpegts"]),
    ("m2ts", &["-f", "mpegts", "-mpegts_m2ts_mode", "1"]),
    ("mts", &["-f", "mpegts"]),
    ("mpg", &["-f", "mpeg"]),
    ("mpeg", &["-f", "mpeg"]),
    ("flv", &["-f", "flv"]),
    ("wmv", &["-f", "asf"]),
    ("ogv", &["-f", "ogv"]),
    ("mjpeg", &["-f", "mjpeg"]),
    ("h264", &["-f", "h264"]),
    ("hevc", &["-f", "hevc"]),
    ("3gp", &["-f", "3gp"]),
];

/// The options by which ffmpeg writes the container that a file is named after; `None` for another
/// name.
pub(super) fn options(path: &Path) -> Option<&'static [&'static str]> {
    let extension = path.extension()?.to_str()?.to_lowercase();
    CONTAINERS.iter().find(|(name, _)| *name == extension).map(|(_, options)| *options)
}

/// Whether a file is named after a container.
pub(in crate::media) fn is_container(path: &Path) -> bool {
    options(path).is_some()
}
