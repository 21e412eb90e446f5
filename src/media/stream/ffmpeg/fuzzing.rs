//! What is read of files and of ffprobe before and after ffmpeg reads them.

use std::io::Write;
use std::path::Path;

use super::probe::Probe;
use super::truncation;
use crate::fuzzing::text;
use crate::media::stream::{FormatOverrides, PixelFormat, Rate, VideoFormat};

/// A file of any container, whose end may be missing.
pub(crate) fn container(bytes: &[u8]) {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(bytes).is_ok() {
        let _ = truncation::missing(file.path());
    }
}

/// A report of ffprobe, whose texts are those of a file.
pub(crate) fn probe(bytes: &[u8]) {
    let Ok(report) = serde_json::from_str(text(bytes)) else { return };
    let probe = Probe::of_report(report);
    let _ = (probe.is_uneven(), probe.frames(), probe.bits_of_rgb(), probe.delay());
    let Some([width, height]) = probe.size() else { return };
    let mut video = VideoFormat::new(width, height, Rate::of(25), PixelFormat::I420);
    let _ = probe.describe(Path::new("file"), FormatOverrides::default(), &mut video);
    let _ = (video.rate.time_of(1 << 32), video.rate.per_second());
}
