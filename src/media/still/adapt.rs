//! Converts an image to what a format can hold.

use super::codec_error::{CodecError, Result};
use super::format::Format;
use super::warning::Warning;
use super::{exif, orientation};
use crate::media::{Image, Metadata, Samples};
use image::metadata::Orientation::NoTransforms;
use std::borrow::Cow;

/// Rejects an image that the format cannot hold even with warnings.
pub(super) fn check(image: &Image, format: Format) -> Result<()> {
    let (width, height, channels) = (image.width, image.height, image.channels);
    if width * height * channels != image.samples.len() || image.samples.is_empty() || channels > 4
    {
        return Err(CodecError::new(format!(
            "the frame claims {width} x {height} pixels of {channels} samples and holds {} samples",
            image.samples.len()
        )));
    }
    let max_side = format.max_side();
    if width.max(height) > max_side {
        return Err(CodecError::new(format!(
            "{format} holds at most {max_side} pixels a side and the image has {width} x {height}; \
             write PNG or TIFF"
        )));
    }
    if !format.holds_alpha() && !image.is_opaque() {
        return Err(CodecError::new(format!(
            "{format} cannot store the image's transparency; write PNG or WebP"
        )));
    }
    Ok(())
}

/// An image as it is written.
pub(super) struct Fitted<'a> {
    /// The pixels as the format can hold them; borrowed if they need no conversion.
    pub(super) image: Cow<'a, Image>,
    /// The EXIF block, if the format holds it.
    pub(super) exif: Option<Cow<'a, [u8]>>,
    /// The ICC profile, if the format holds it.
    pub(super) icc: Option<&'a [u8]>,
    /// The losses.
    pub(super) warnings: Vec<Warning>,
}

/// Converts an image to a format that [`check`] accepts.
pub(super) fn fit(image: &Image, format: Format) -> Fitted<'_> {
    let mut warnings = Vec::new();
    let mut fitted = Cow::Borrowed(image);
    if image.samples.bits() > 8 && !format.holds_16_bits() {
        warnings.push(Warning::DepthReduced(format));
        fitted = Cow::Owned(with_samples(&fitted, fitted.channels, reduced(&fitted.samples)));
    }
    if image.has_alpha() && !format.holds_alpha() {
        let channels = image.channels - 1;
        fitted =
            Cow::Owned(with_samples(&fitted, channels, regrouped(&fitted, &[0, 1, 2][..channels])));
    }
    // QOI has no gray.
    if format == Format::Qoi && fitted.channels < 3 {
        let order = &[0, 0, 0, 1][..if fitted.has_alpha() { 4 } else { 3 }];
        fitted = Cow::Owned(with_samples(&fitted, order.len(), regrouped(&fitted, order)));
    }
    // Gray BMPs have a palette, which has no alpha. The WebP encoder converts by itself.
    if format == Format::Bmp && fitted.channels == 2 {
        fitted = Cow::Owned(with_samples(&fitted, 4, regrouped(&fitted, &[0, 0, 0, 1])));
    }

    let block = image.metadata.exif.as_deref();
    let kept_exif = block.filter(|block| format.holds_exif(block.len()));
    if kept_exif.is_none() && block.is_some_and(|block| !orientation::is_all_of(block)) {
        warnings.push(Warning::ExifDropped(format));
    }
    // TIFF stores the orientation as a tag.
    if kept_exif.is_none()
        && orientation::of(&image.metadata) != NoTransforms
        && format != Format::Tiff
    {
        fitted = Cow::Owned(orientation::upright(&fitted));
    }

    // A gray profile does not apply to RGB.
    let icc = image.metadata.icc.as_deref();
    let fits = |icc: &&[u8]| {
        format.holds_icc() && (format.holds_gray() || icc.get(16..20) != Some(b"GRAY"))
    };
    let kept_icc = icc.filter(fits);
    if kept_icc.is_none() && icc.is_some() {
        warnings.push(Warning::IccDropped(format));
    }
    if image.metadata.is_partial {
        warnings.push(Warning::MetadataUnread);
    }
    if image.metadata.from_print {
        warnings.push(Warning::PrintColors);
    }
    if format != Format::Png && has_other_color_chunks(&image.metadata) {
        warnings.push(Warning::ColorDropped(format));
    }
    let kept_exif = kept_exif.map(|block| exif::with_size(block, [image.width, image.height]));
    Fitted { image: fitted, exif: kept_exif, icc: kept_icc, warnings }
}

/// Whether the chunks of a PNG, which other formats do not hold, specify colors other than sRGB,
/// the usual default, and nothing else does.
fn has_other_color_chunks(metadata: &Metadata) -> bool {
    /// In units of 1/100000: the gamma, and x and y of white, red, green and blue.
    const GAMMA: u32 = 45_455;
    const PRIMARIES: [u32; 8] = [31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000];
    let chunk = |name: &[u8; 4]| {
        metadata.chunks.iter().find(|(own, _)| own == name).map(|(_, body)| body.as_slice())
    };
    if let Some([primaries, transfer, ..]) = chunk(b"cICP") {
        return (*primaries, *transfer) != (1, 13);
    }
    if metadata.icc.is_some() || chunk(b"sRGB").is_some() {
        return false;
    }
    let differs = |name: &[u8; 4], expected: &[u32], by: u32| {
        let numbers = chunk(name).unwrap_or_default().as_chunks::<4>().0;
        numbers
            .iter()
            .zip(expected)
            .any(|(number, expected)| u32::from_be_bytes(*number).abs_diff(*expected) > by)
    };
    differs(b"gAMA", &[GAMMA], 500) || differs(b"cHRM", &PRIMARIES, 100)
}

fn with_samples(image: &Image, channels: usize, samples: Samples) -> Image {
    Image {
        width: image.width,
        height: image.height,
        channels,
        samples,
        metadata: image.metadata.clone(),
    }
}

/// Converts 16 bits to 8, rounding to nearest.
fn reduced(samples: &Samples) -> Samples {
    match samples {
        Samples::U8(samples) => Samples::U8(samples.clone()),
        Samples::U16(samples) => Samples::U8(
            samples
                .iter()
                .map(|value| ((u32::from(*value) * 255 + 32_767) / 65_535) as u8)
                .collect(),
        ),
    }
}

/// Pixels with the given channels of the image.
fn regrouped(image: &Image, channels: &[usize]) -> Samples {
    fn regroup<T: Copy>(samples: &[T], before: usize, channels: &[usize]) -> Vec<T> {
        samples
            .chunks_exact(before)
            .flat_map(|pixel| channels.iter().map(|channel| pixel[*channel]))
            .collect()
    }
    match &image.samples {
        Samples::U8(samples) => Samples::U8(regroup(samples, image.channels, channels)),
        Samples::U16(samples) => Samples::U16(regroup(samples, image.channels, channels)),
    }
}
