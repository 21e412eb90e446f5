//! Reads images from files.

use super::codec_error::{CodecError, Result};
use super::ffmpeg_format::FfmpegFormat;
use super::format::Format;
use super::limits::Limits;
use super::{integrity, orientation, tiff};
use crate::error::{self, Error};
use crate::machine;
use crate::media::{Image, Metadata, Samples, Uninterrupted, open};
use crate::setting::MAX_MEMORY;
use image::codecs::bmp::BmpDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::qoi::QoiDecoder;
use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

/// Maximum size of the metadata of a PNG after decompression: color profiles have a few MiB at
/// most.
const PNG_METADATA: u64 = 32 << 20;

/// Reads an image file.
///
/// The format is detected from the content. AVIF, HEIF and JPEG 2000 are decoded by ffmpeg if it
/// is installed. Of the tags of a TIFF, the orientation and the ICC profile are kept. CMYK is
/// converted to RGB, without its profile. The image takes `width * height * channels * bits / 8`
/// bytes; a JPEG or a WebP takes about the size of its file in addition during reading.
///
/// # Errors
/// [`Error::Input`] for a file that is missing, truncated, damaged, larger than `limits`, of
/// another format, animated or with several pages, or with samples other than 8- or 16-bit gray or
/// RGB (floating point, premultiplied alpha, a palette in a TIFF).
pub fn read(path: &Path, limits: &Limits) -> error::Result<Image> {
    let mut reader = BufReader::new(Uninterrupted(open(path)?));
    match FfmpegFormat::of(&integrity::head(&mut reader).map_err(|refusal| refused(path, refusal))?)
    {
        Some(format) => format.read(path, limits).map_err(|refusal| refused(path, refusal)),
        None => decode(path, reader, limits),
    }
}

/// Reads an image from any seekable reader; `name` identifies it in messages. See [`read`].
///
/// # Errors
/// As [`read`].
pub fn decode(
    name: &Path,
    mut reader: impl BufRead + Seek,
    limits: &Limits,
) -> error::Result<Image> {
    decode_any(&mut reader, limits).map_err(|refusal| refused(name, refusal))
}

fn refused(name: &Path, CodecError { problem, source }: CodecError) -> Error {
    Error::Input { path: name.into(), problem, source }
}

pub(super) fn decode_any(reader: &mut (impl BufRead + Seek), limits: &Limits) -> Result<Image> {
    let head = integrity::head(reader)?;
    let Some(format) = Format::from_content(&head) else { return Err(unknown(&head)) };
    let found = integrity::check(format, reader)?;
    let length = reader.seek(SeekFrom::End(0))?;
    reader.seek(SeekFrom::Start(0))?;
    let holds_file = matches!(format, Format::Jpeg | Format::WebP);
    if holds_file && machine::resident_memory().saturating_add(length) > limits.max_memory {
        return Err(CodecError::new(format!(
            "the file takes {} MiB and is held while it is read, which is more than the {} MiB \
             that the process may hold allow; raise {MAX_MEMORY}",
            length >> 20,
            limits.max_memory >> 20
        )));
    }
    // Memory of a decoder besides the samples, in bytes per pixel.
    let working = match format {
        Format::Png | Format::Bmp | Format::Tiff | Format::Qoi => 0,
        // The coefficients of all components, in 16 bits.
        Format::Jpeg if found.is_progressive => 6,
        Format::Jpeg => 0,
        Format::WebP => 5,
    };
    let mut image = match format {
        Format::Png => {
            let mut png_limits = image::Limits::no_limits();
            png_limits.max_alloc = Some(PNG_METADATA);
            let decoder = PngDecoder::with_limits(reader, png_limits)?;
            refuse_animation(decoder.is_apng()?)?;
            decode_with(decoder, limits, working)?
        }
        Format::Jpeg => decode_with(JpegDecoder::new(reader)?, limits, working)?,
        Format::WebP => {
            let decoder = WebPDecoder::new(reader)?;
            refuse_animation(decoder.has_animation())?;
            decode_with(decoder, limits, working)?
        }
        Format::Tiff => tiff::read(reader, limits)?,
        Format::Bmp => decode_with(BmpDecoder::new(reader)?, limits, working)?,
        Format::Qoi => decode_with(QoiDecoder::new(reader)?, limits, working)?,
    };
    let exif = image.metadata.exif.take().or(found.exif);
    image.metadata.exif = exif.map(orientation::strip_exif_marker).filter(|exif| !exif.is_empty());
    image.metadata.chunks = found.chunks;
    image.metadata.from_print |= found.from_print;
    // The profile is damaged, or decompresses to more than the limit.
    image.metadata.is_partial |= found.has_profile && image.metadata.icc.is_none();
    if image.metadata.from_print {
        // The profile describes CMYK.
        image.metadata.icc = None;
    }
    Ok(image)
}

/// `working` is the memory of the decoder besides the samples, in bytes per pixel.
fn decode_with(mut decoder: impl ImageDecoder, limits: &Limits, working: u64) -> Result<Image> {
    let (width, height) = decoder.dimensions();
    let area = u64::from(width) * u64::from(height);
    limits.check(
        width,
        height,
        decoder.color_type().bytes_per_pixel().into(),
        working.saturating_mul(area),
    )?;
    let metadata = Metadata {
        exif: decoder.exif_metadata()?,
        icc: decoder.icc_profile()?,
        ..Metadata::default()
    };
    let (channels, samples) = match DynamicImage::from_decoder(decoder)? {
        DynamicImage::ImageLuma8(pixels) => (1, Samples::U8(pixels.into_raw())),
        DynamicImage::ImageLumaA8(pixels) => (2, Samples::U8(pixels.into_raw())),
        DynamicImage::ImageRgb8(pixels) => (3, Samples::U8(pixels.into_raw())),
        DynamicImage::ImageRgba8(pixels) => (4, Samples::U8(pixels.into_raw())),
        DynamicImage::ImageLuma16(pixels) => (1, Samples::U16(pixels.into_raw())),
        DynamicImage::ImageLumaA16(pixels) => (2, Samples::U16(pixels.into_raw())),
        DynamicImage::ImageRgb16(pixels) => (3, Samples::U16(pixels.into_raw())),
        DynamicImage::ImageRgba16(pixels) => (4, Samples::U16(pixels.into_raw())),
        _ => {
            return Err(CodecError::new(
                "its samples are floating point; save it as 8 or 16 bit gray or RGB",
            ));
        }
    };
    Ok(Image { width: width as usize, height: height as usize, channels, samples, metadata })
}

fn refuse_animation(animated: bool) -> Result<()> {
    if animated {
        return Err(CodecError::new(
            "it is an animation, not a single image; save its frames as images first",
        ));
    }
    Ok(())
}

fn unknown(head: &[u8]) -> CodecError {
    if head.is_empty() {
        return CodecError::new("the file is empty");
    }
    if let Some(format) = FfmpegFormat::of(head) {
        let (kind, advice) = format.kind_and_advice();
        return CodecError::new(format!(
            "by its content it is {kind}, which is read from a file alone, by ffmpeg; {advice}"
        ));
    }
    let read = Format::listed(|format| format.to_string(), "and");
    let (kind, advice) = match head.get(4..12) {
        _ if head.starts_with(b"GIF8") => {
            ("a GIF", "; save it anew, as `ffmpeg -i in.gif out.png` does")
        }
        _ if head.starts_with(b"\xff\x0a") || head.get(4..8) == Some(b"JXL ") => {
            ("a JPEG XL", "; save it anew, as `djxl in.jxl out.png` does")
        }
        Some(b"ftypcrx ") => {
            ("a raw image of a camera (CR3)", "; develop it in another program first")
        }
        _ => {
            return CodecError::new(format!("its content is not an image; {read} are read"));
        }
    };
    CodecError::new(format!("by its content it is {kind}; {read} are read{advice}"))
}
