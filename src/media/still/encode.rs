//! Encodes an image as the bytes of an image file.

use super::adapt::Fitted;
use super::codec_error::{CodecError, Result};
use super::format::Format;
use super::warning::Warning;
use super::{adapt, tiff};
use crate::media::{Image, Metadata, Samples};
use image::codecs::bmp::BmpEncoder;
use image::codecs::jpeg::{JpegEncoder, PixelDensity, PixelDensityUnit};
use image::codecs::qoi::QoiEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageError};
use std::borrow::Cow;
use std::io::{self, Seek, Write};

/// Options for writing images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// JPEG quality, from 1 to 100. Default: 95.
    pub jpeg_quality: u8,
}

impl Default for Options {
    /// JPEG quality 95: visually almost lossless.
    fn default() -> Self {
        Self { jpeg_quality: 95 }
    }
}

/// Writes the bytes of the file, and returns what the format could not hold.
pub(super) fn encode(
    image: &Image,
    format: Format,
    options: &Options,
    out: &mut (impl Write + Seek),
) -> Result<Vec<Warning>> {
    adapt::check(image, format)?;
    let fitted = adapt::fit(image, format);
    match format {
        Format::Png => encode_png(&fitted, out)?,
        Format::Tiff => tiff::write(&fitted.image, fitted.icc, out)?,
        Format::Jpeg => {
            let mut encoder = JpegEncoder::new_with_quality(out, options.jpeg_quality);
            density(&image.metadata)
                .into_iter()
                .for_each(|density| encoder.set_pixel_density(density));
            encode_with(&fitted, encoder)?;
        }
        Format::WebP => encode_with(&fitted, WebPEncoder::new_lossless(out))?,
        Format::Bmp => encode_with(&fitted, BmpEncoder::new(out))?,
        Format::Qoi => encode_with(&fitted, QoiEncoder::new(out))?,
    }
    Ok(fitted.warnings)
}

/// The JPEG density of a `pHYs` chunk; `None` if it is out of range for JPEG.
fn density(metadata: &Metadata) -> Option<PixelDensity> {
    let (_, body) = metadata.chunks.iter().find(|(name, _)| name == b"pHYs")?;
    let [x @ .., _, _, _, _, unit] = body.first_chunk::<9>()?;
    let y = [body[4], body[5], body[6], body[7]];
    let (unit, factor) = match unit {
        1 => (PixelDensityUnit::Inches, 0.0254),
        _ => (PixelDensityUnit::PixelAspectRatio, 1.0),
    };
    let [x, y] = [*x, y].map(|number| (f64::from(u32::from_be_bytes(number)) * factor).round());
    let fits = |density: &f64| (1.0..=f64::from(u16::MAX)).contains(density);
    (fits(&x) && fits(&y)).then_some(PixelDensity { density: (x as u16, y as u16), unit })
}

fn encode_with(fitted: &Fitted<'_>, mut encoder: impl ImageEncoder) -> Result<()> {
    if let Some(icc) = fitted.icc {
        encoder.set_icc_profile(icc.to_vec()).map_err(ImageError::Unsupported)?;
    }
    if let Some(exif) = &fitted.exif {
        encoder.set_exif_metadata(exif.to_vec()).map_err(ImageError::Unsupported)?;
    }
    let image = &fitted.image;
    let Samples::U8(samples) = &image.samples else {
        return Err(CodecError::new("samples of 16 bits cannot be written as 8"));
    };
    Ok(encoder.write_image(
        samples,
        image.width as u32,
        image.height as u32,
        color_type(image.channels),
    )?)
}

fn color_type(channels: usize) -> ExtendedColorType {
    match channels {
        1 => ExtendedColorType::L8,
        2 => ExtendedColorType::La8,
        3 => ExtendedColorType::Rgb8,
        _ => ExtendedColorType::Rgba8,
    }
}

/// The encoder turns I/O errors into text, which hides that the disk is full; so the original
/// error is kept.
fn encode_png(fitted: &Fitted<'_>, out: &mut impl Write) -> Result<()> {
    let mut out = Watched { out, failure: None };
    write_png(fitted, &mut out).map_err(|refusal| match out.failure {
        Some(code) => io::Error::from_raw_os_error(code).into(),
        None => refusal,
    })
}

/// A writer that keeps the last I/O error.
struct Watched<W> {
    out: W,
    failure: Option<i32>,
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).inspect_err(|error| self.failure = error.raw_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().inspect_err(|error| self.failure = error.raw_os_error())
    }
}

/// Writes row by row: the general encoder holds the compressed image in memory, and for 16 bits
/// another copy.
fn write_png(fitted: &Fitted<'_>, out: &mut impl Write) -> Result<()> {
    let image = &fitted.image;
    let mut info = png::Info::with_size(image.width as u32, image.height as u32);
    info.icc_profile = fitted.icc.map(Cow::Borrowed);
    info.exif_metadata = fitted.exif.as_deref().map(Cow::Borrowed);
    let mut encoder = png::Encoder::with_info(out, info)?;
    encoder.set_color(match image.channels {
        1 => png::ColorType::Grayscale,
        2 => png::ColorType::GrayscaleAlpha,
        3 => png::ColorType::Rgb,
        _ => png::ColorType::Rgba,
    });
    encoder.set_depth(match &image.samples {
        Samples::U8(_) => png::BitDepth::Eight,
        Samples::U16(_) => png::BitDepth::Sixteen,
    });
    if let Some(note) = &image.metadata.note {
        encoder.add_itxt_chunk("parameters".to_owned(), note.clone())?;
    }
    encoder.set_compression(png::Compression::Fast);
    let mut file = encoder.write_header()?;
    for (name, body) in &image.metadata.chunks {
        file.write_chunk(png::chunk::ChunkType(*name), body)?;
    }
    let mut pixels = file.stream_writer_with_size(1 << 16)?;
    let row_length = image.width * image.channels;
    match &image.samples {
        Samples::U8(samples) => pixels.write_all(samples)?,
        Samples::U16(samples) => {
            let mut row = Vec::with_capacity(2 * row_length);
            for samples in samples.chunks(row_length) {
                row.clear();
                row.extend(samples.iter().flat_map(|sample| sample.to_be_bytes()));
                pixels.write_all(&row)?;
            }
        }
    }
    pixels.finish()?;
    Ok(file.finish()?)
}
