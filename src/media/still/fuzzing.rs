//! Parsers of metadata.

use super::ffmpeg_format::FfmpegFormat;
use super::{exif, orientation};
use crate::fuzzing::limits;
use crate::media::Metadata;

/// An EXIF block. It keeps its length.
pub(crate) fn exif(bytes: &[u8]) {
    let block = orientation::strip_exif_marker(bytes.to_vec());
    let sized = exif::with_size(&block, [640, 70_000]);
    assert_eq!(sized.len(), block.len());
    let upright = exif::upright(&block);
    assert_eq!(upright.len(), block.len());
    let _ = orientation::is_all_of(&block);
    let _ = orientation::of(&Metadata { exif: Some(block), ..Metadata::default() });
}

/// An AVIF, a HEIF or a JPEG 2000, up to ffmpeg.
pub(crate) fn heif(bytes: &[u8]) {
    let Some(format) = FfmpegFormat::of(bytes.get(..12).unwrap_or(bytes)) else { return };
    let _ = format.examine(bytes, &limits()).map(|properties| properties.orientation());
}
