//! Image orientation.
//!
//! Samples keep the order of the file, and the EXIF block says how to rotate them. They are
//! rotated where a format holds no such block, and where an image is compared with another or
//! passed on without its block.

use super::exif;
use crate::media::{Image, Metadata, Samples};
use image::metadata::Orientation;

/// The marker of an EXIF block in a JPEG, which some other files contain by mistake.
const MARK: &[u8] = b"Exif\0\0";

/// The orientation in the metadata.
pub(in crate::media) fn of(metadata: &Metadata) -> Orientation {
    let exif = metadata.exif.as_deref();
    exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

/// The smallest EXIF block with that orientation, from 1 to 8; `None` for 1, the default.
pub(super) fn exif_of(orientation: u8) -> Option<Vec<u8>> {
    (2..=8).contains(&orientation).then(|| {
        let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        block.extend([orientation, 0, 0, 0]);
        block.extend([0; 4]);
        block
    })
}

/// Whether the block holds only the orientation.
pub(super) fn is_all_of(exif: &[u8]) -> bool {
    let orientation = Orientation::from_exif_chunk(exif).map(Orientation::to_exif);
    orientation.and_then(exif_of).is_some_and(|block| block == exif)
}

/// The block, starting at its byte order mark.
pub(super) fn strip_exif_marker(exif: Vec<u8>) -> Vec<u8> {
    match exif.strip_prefix(MARK) {
        Some(bare) => bare.to_vec(),
        None => exif,
    }
}

/// The image rotated for display, with its EXIF block set to upright.
pub(in crate::media) fn upright(image: &Image) -> Image {
    let orientation = of(&image.metadata);
    let swaps = matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let (width, height) =
        if swaps { (image.height, image.width) } else { (image.width, image.height) };
    let (right, bottom) = (image.width - 1, image.height - 1);
    let source = |x: usize, y: usize| match orientation {
        Orientation::NoTransforms => (x, y),
        Orientation::FlipHorizontal => (right - x, y),
        Orientation::Rotate180 => (right - x, bottom - y),
        Orientation::FlipVertical => (x, bottom - y),
        Orientation::Rotate90FlipH => (y, x),
        Orientation::Rotate90 => (y, bottom - x),
        Orientation::Rotate270FlipH => (right - y, bottom - x),
        Orientation::Rotate270 => (right - y, x),
    };
    let samples = match &image.samples {
        Samples::U8(samples) => Samples::U8(turned(samples, image, (width, height), source)),
        Samples::U16(samples) => Samples::U16(turned(samples, image, (width, height), source)),
    };
    let block = image.metadata.exif.as_deref().filter(|block| !is_all_of(block));
    let metadata = Metadata {
        exif: block.map(|block| exif::upright(block).into_owned()),
        ..image.metadata.clone()
    };
    Image { width, height, channels: image.channels, samples, metadata }
}

fn turned<T: Copy>(
    samples: &[T],
    image: &Image,
    (width, height): (usize, usize),
    source: impl Fn(usize, usize) -> (usize, usize),
) -> Vec<T> {
    let mut turned = Vec::with_capacity(samples.len());
    for y in 0..height {
        for x in 0..width {
            let (from_x, from_y) = source(x, y);
            let at = (from_y * image.width + from_x) * image.channels;
            turned.extend_from_slice(&samples[at..at + image.channels]);
        }
    }
    turned
}
