//! TIFF, for which the general decoder would hold the samples twice, and report neither alpha of
//! gray images nor orientation.

use super::codec_error::{CodecError, Result};
use super::limits::Limits;
use super::orientation;
use crate::media::{Image, Metadata, Samples};
use ::tiff::ColorType;
use ::tiff::decoder::{Decoder, DecodingResult, Limits as DecoderLimits};
use ::tiff::encoder::colortype::{ColorType as Layout, Gray8, Gray16, RGB8, RGB16};
use ::tiff::encoder::{TiffEncoder, TiffValue};
use ::tiff::tags::{ExtraSamples, Tag};
use std::collections::HashSet;
use std::io::{Read, Seek, Write};

/// Memory for the values of a tag, in bytes, before the size of the image is known.
const TAG_MEMORY: usize = 32 << 20;

/// Reads the only page.
pub(super) fn read(reader: impl Read + Seek, limits: &Limits) -> Result<Image> {
    let mut tag_limits = DecoderLimits::default();
    tag_limits.decoding_buffer_size = TAG_MEMORY;
    let mut decoder = Decoder::new(reader)?.with_limits(tag_limits);
    refuse_pages(&mut decoder)?;
    let (width, height) = decoder.dimensions()?;
    let (channels, bits) = pixel_kind(&mut decoder)?;
    let sample = channels * bits.div_ceil(8);
    // The planes of a planar file are interleaved.
    let area = u64::from(width) * u64::from(height);
    let bytes = area.saturating_mul(sample.into());
    limits.check(width, height, sample, bytes)?;
    let max_bytes =
        usize::try_from(limits.max_bytes.min(bytes.saturating_add(1 << 20))).unwrap_or(usize::MAX);
    let mut decoder_limits = DecoderLimits::default();
    decoder_limits.decoding_buffer_size = max_bytes;
    decoder_limits.intermediate_buffer_size = max_bytes;
    let mut decoder = decoder.with_limits(decoder_limits);

    // A tag of another type is ignored; one that cannot be read means that the file is truncated.
    let icc = decoder.find_tag(Tag::IccProfile)?.and_then(|tag| tag.into_u8_vec().ok());
    let orientation = decoder.find_tag(Tag::Orientation)?.and_then(|tag| tag.into_u16().ok());
    let is_partial = decoder.find_tag(Tag::ExifDirectory)?.is_some();
    let exif = orientation.and_then(|value| orientation::exif_of(u8::try_from(value).ok()?));
    let (width, height, channels) = (width as usize, height as usize, channels as usize);
    let mut result = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut result)?;
    let samples = match result {
        DecodingResult::U8(packed) if bits == 1 => Samples::U8(expand(&packed, width, height)),
        DecodingResult::U8(samples) => Samples::U8(interleave(samples, layout.planes)),
        DecodingResult::U16(samples) => Samples::U16(interleave(samples, layout.planes)),
        _ => {
            return Err(CodecError::new(
                "its samples are not 8 or 16 bit integers; save it as 8 or 16 bit gray or RGB",
            ));
        }
    };
    let from_print = matches!(decoder.colortype()?, ColorType::CMYK(_));
    let (channels, samples) = match samples {
        _ if !from_print => (channels, samples),
        Samples::U8(inks) => {
            (3, Samples::U8(shown(&inks, u8::MAX, u32::from, |light| light as u8)))
        }
        Samples::U16(inks) => {
            (3, Samples::U16(shown(&inks, u16::MAX, u32::from, |light| light as u16)))
        }
    };
    if samples.len() != width * height * channels {
        return Err(CodecError::new(
            "it holds channels beside color and alpha; save it as 8 or 16 bit gray or RGB",
        ));
    }
    let metadata = Metadata { exif, icc, from_print, is_partial, ..Metadata::default() };
    Ok(Image { width, height, channels, samples, metadata })
}

/// Rejects a file with several images, or whose first image is not the main one. A reduced copy or
/// a mask after the image is ignored.
fn refuse_pages(decoder: &mut Decoder<impl Read + Seek>) -> Result<()> {
    /// Bits of NewSubfileType: a reduced copy of another page, and a mask of another.
    const REDUCED: u32 = 1;
    const MASK: u32 = 4;
    const DNG_VERSION: Tag = Tag::Unknown(0xC612);
    /// Limit on pages: those of a damaged file may overlap, so that each takes long to read.
    const PAGES: usize = 256;
    let kind =
        decoder.find_tag_unsigned::<u32>(Tag::NewSubfileType).ok().flatten().unwrap_or_default();
    if kind & REDUCED != 0 || decoder.find_tag(DNG_VERSION).is_ok_and(|version| version.is_some()) {
        return Err(CodecError::new(
            "it is a raw image of a camera (DNG or the like), with a small preview in front; \
             develop it in another program and save an image",
        ));
    }
    let mut next = match decoder.ifd_pointer() {
        Some(first) => decoder.read_directory(first)?.next(),
        None => None,
    };
    let mut seen = HashSet::new();
    for _ in 0..PAGES {
        // The links of a damaged file may form a loop.
        let Some(pointer) = next.filter(|pointer| seen.insert(pointer.0)) else { break };
        // A damaged directory is not a readable page.
        let Ok(directory) = decoder.read_directory(pointer) else { break };
        let kind =
            decoder.read_directory_tags(&directory).find_tag_unsigned::<u32>(Tag::NewSubfileType);
        if kind.ok().flatten().unwrap_or_default() & (REDUCED | MASK) == 0 {
            return Err(CodecError::new(
                "it has several pages and is not one image; save each as an image of its own first \
                 (`tiffsplit` does)",
            ));
        }
        next = directory.next();
    }
    Ok(())
}

/// Channels and bits per sample, for supported files.
fn pixel_kind(decoder: &mut Decoder<impl Read + Seek>) -> Result<(u32, u32)> {
    const UNSIGNED: u16 = 1;
    const PREMULTIPLIED: u16 = 1;
    let formats = decoder.find_tag_unsigned_vec::<u16>(Tag::SampleFormat)?.unwrap_or_default();
    if formats.iter().any(|format| *format != UNSIGNED) {
        return Err(CodecError::new(
            "its samples are signed or floating point; save it as 8 or 16 bit gray or RGB",
        ));
    }
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples)?.unwrap_or_default();
    if extra.first() == Some(&PREMULTIPLIED) {
        return Err(CodecError::new(
            "its colors are multiplied by alpha; save it with straight (unassociated) alpha",
        ));
    }
    match decoder.colortype()? {
        ColorType::Gray(bits @ (1 | 8 | 16)) => Ok((1, bits.into())),
        ColorType::GrayA(bits @ (8 | 16)) => Ok((2, bits.into())),
        ColorType::Multiband { bit_depth: bits @ (8 | 16), num_samples: 2 }
            if !extra.is_empty() =>
        {
            Ok((2, bits.into()))
        }
        ColorType::RGB(bits @ (8 | 16)) => Ok((3, bits.into())),
        ColorType::RGBA(bits @ (8 | 16)) | ColorType::CMYK(bits @ (8 | 16)) => Ok((4, bits.into())),
        other => Err(CodecError::new(format!(
            "its pixels are {other:?}; save it as 8 or 16 bit gray or RGB"
        ))),
    }
}

/// Converts CMYK to RGB: the part of white that the inks leave.
fn shown<T: Copy>(inks: &[T], full: T, to_number: fn(T) -> u32, to_sample: fn(u64) -> T) -> Vec<T> {
    let left = |ink: T| u64::from(to_number(full) - to_number(ink));
    let white = u64::from(to_number(full));
    let pixels = inks.as_chunks::<4>().0.iter();
    let light = |ink: T, black: T| to_sample((left(ink) * left(black) + white / 2) / white);
    pixels.flat_map(|[c, m, y, k]| [c, m, y].map(|ink| light(*ink, *k))).collect()
}

/// Expands one bit per pixel, with rows padded to bytes, to 0 and 255.
fn expand(packed: &[u8], width: usize, height: usize) -> Vec<u8> {
    let rows = packed.chunks_exact(width.div_ceil(8)).take(height);
    rows.flat_map(|row| {
        (0..width).map(|x| if row[x / 8] >> (7 - x % 8) & 1 == 1 { u8::MAX } else { 0 })
    })
    .collect()
}

/// Interleaves planar samples.
fn interleave<T: Copy>(samples: Vec<T>, planes: usize) -> Vec<T> {
    if planes < 2 {
        return samples;
    }
    let area = samples.len() / planes;
    (0..area * planes).map(|at| samples[at % planes * area + at / planes]).collect()
}

/// Writes one uncompressed page, with the orientation and the profile as tags.
pub(super) fn write(image: &Image, icc: Option<&[u8]>, out: impl Write + Seek) -> Result<()> {
    match (&image.samples, image.color_channels()) {
        (Samples::U8(samples), 1) => write_as::<Gray8>(image, samples, icc, out),
        (Samples::U8(samples), _) => write_as::<RGB8>(image, samples, icc, out),
        (Samples::U16(samples), 1) => write_as::<Gray16>(image, samples, icc, out),
        (Samples::U16(samples), _) => write_as::<RGB16>(image, samples, icc, out),
    }
}

fn write_as<L: Layout>(
    image: &Image,
    samples: &[L::Inner],
    icc: Option<&[u8]>,
    out: impl Write + Seek,
) -> Result<()>
where
    [L::Inner]: TiffValue,
{
    let mut encoder = TiffEncoder::new(out)?;
    let mut page = encoder.new_image::<L>(image.width as u32, image.height as u32)?;
    if image.has_alpha() {
        page.extra_samples(&[ExtraSamples::UnassociatedAlpha])?;
    }
    let orientation = orientation::of(&image.metadata);
    page.encoder().write_tag(Tag::Orientation, u16::from(orientation.to_exif()))?;
    if let Some(icc) = icc {
        page.encoder().write_tag(Tag::IccProfile, icc)?;
    }
    Ok(page.write_data(samples)?)
}
