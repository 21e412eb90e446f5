//! A picture file into a frame.

use super::borrowed::Borrowed;
use super::format::Format;
use super::refusal::{Refusal, Result};
use super::{intact, orientation, tiff};
use crate::error::{self, Error};
use crate::frame::{Frame, Metadata, Samples, open};
use image::codecs::bmp::BmpDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

/// What a picture may cost. A small file can claim a huge picture; it is refused before memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest side, in pixels.
    pub max_side: usize,
    /// The most that a picture's samples may take, in bytes.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// 65535 pixels a side and 1 GiB: about 18000 x 18000 in 8-bit RGB.
    fn default() -> Self {
        Self { max_side: 65_535, max_bytes: 1 << 30 }
    }
}

impl Limits {
    /// Refuses a picture of that size.
    pub(super) fn check(&self, width: u32, height: u32, bytes_per_pixel: u32) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(Refusal::new(format!("the picture is empty: it has {width} x {height} pixels")));
        }
        let bytes = u128::from(width) * u128::from(height) * u128::from(bytes_per_pixel);
        let longest = width.max(height) as usize;
        if longest > self.max_side || bytes > u128::from(self.max_bytes) {
            return Err(Refusal::new(format!(
                "the picture has {width} x {height} pixels and takes {} MiB; at most {} pixels a side and {} MiB are \
                 read; scale it down or cut it into parts",
                bytes.div_ceil(1 << 20),
                self.max_side,
                self.max_bytes >> 20,
            )));
        }
        Ok(())
    }
}

/// Reads a picture file.
///
/// The format is told from the content. AVIF, HEIF and JPEG 2000 are decoded by ffmpeg where it is installed. Of a TIFF's tags the
/// orientation and the ICC profile are kept. Printing colours (CMYK) become RGB, without their profile. The frame takes `width * height * channels * bits / 8` bytes; a JPEG and
/// a WebP take about their file's size on top while they are read.
///
/// # Errors
/// [`Error::Input`] for a file that is missing, cut off, damaged, larger than `limits`, of another format, animated or of several pages,
/// or with samples other than 8 or 16 bit grey or RGB (floating point, premultiplied alpha, a TIFF's palette).
pub fn read(path: &Path, limits: &Limits) -> error::Result<Frame> {
    let mut reader = BufReader::new(open(path)?);
    let refused = |Refusal { problem, source }| Error::Input { path: path.into(), problem, source };
    match Borrowed::of(&intact::head(&mut reader).map_err(refused)?) {
        Some(borrowed) => borrowed.read(path, limits).map_err(refused),
        None => decode(path, reader, limits),
    }
}

/// Reads a picture from anything that can be read and sought in; `name` stands for it in messages. See [`read`].
///
/// # Errors
/// As [`read`].
pub fn decode(name: &Path, mut reader: impl BufRead + Seek, limits: &Limits) -> error::Result<Frame> {
    decode_any(&mut reader, limits).map_err(|Refusal { problem, source }| Error::Input {
        path: name.into(),
        problem,
        source,
    })
}

pub(super) fn decode_any(reader: &mut (impl BufRead + Seek), limits: &Limits) -> Result<Frame> {
    let head = intact::head(reader)?;
    let Some(format) = Format::from_content(&head) else { return Err(unknown(&head)) };
    let found = intact::check(format, reader)?;
    reader.seek(SeekFrom::Start(0))?;
    let mut frame = match format {
        Format::Png => {
            let mut png_limits = image::Limits::no_limits();
            png_limits.max_alloc = Some(limits.max_bytes);
            let decoder = PngDecoder::with_limits(reader, png_limits)?;
            refuse_animation(decoder.is_apng()?)?;
            decode_with(decoder, limits)?
        }
        Format::Jpeg => decode_with(JpegDecoder::new(reader)?, limits)?,
        Format::WebP => {
            let decoder = WebPDecoder::new(reader)?;
            refuse_animation(decoder.has_animation())?;
            decode_with(decoder, limits)?
        }
        Format::Tiff => tiff::read(reader, limits)?,
        Format::Bmp => decode_with(BmpDecoder::new(reader)?, limits)?,
    };
    let exif = frame.metadata.exif.take().or(found.exif);
    frame.metadata.exif = exif.map(orientation::bare_exif).filter(|exif| !exif.is_empty());
    frame.metadata.chunks = found.chunks;
    frame.metadata.from_print |= found.from_print;
    if frame.metadata.from_print {
        // It is that of the printing colours.
        frame.metadata.icc = None;
    }
    Ok(frame)
}

fn decode_with(mut decoder: impl ImageDecoder, limits: &Limits) -> Result<Frame> {
    let (width, height) = decoder.dimensions();
    limits.check(width, height, decoder.color_type().bytes_per_pixel().into())?;
    let metadata = Metadata { exif: decoder.exif_metadata()?, icc: decoder.icc_profile()?, ..Metadata::default() };
    let (channels, samples) = match DynamicImage::from_decoder(decoder)? {
        DynamicImage::ImageLuma8(pixels) => (1, Samples::U8(pixels.into_raw())),
        DynamicImage::ImageLumaA8(pixels) => (2, Samples::U8(pixels.into_raw())),
        DynamicImage::ImageRgb8(pixels) => (3, Samples::U8(pixels.into_raw())),
        DynamicImage::ImageRgba8(pixels) => (4, Samples::U8(pixels.into_raw())),
        DynamicImage::ImageLuma16(pixels) => (1, Samples::U16(pixels.into_raw())),
        DynamicImage::ImageLumaA16(pixels) => (2, Samples::U16(pixels.into_raw())),
        DynamicImage::ImageRgb16(pixels) => (3, Samples::U16(pixels.into_raw())),
        DynamicImage::ImageRgba16(pixels) => (4, Samples::U16(pixels.into_raw())),
        _ => return Err(Refusal::new("its samples are floating point; save it as 8 or 16 bit grey or RGB")),
    };
    Ok(Frame { width: width as usize, height: height as usize, channels, samples, metadata })
}

fn refuse_animation(animated: bool) -> Result<()> {
    if animated {
        return Err(Refusal::new("it is an animation and not one picture; save its frames as pictures first"));
    }
    Ok(())
}

fn unknown(head: &[u8]) -> Refusal {
    if head.is_empty() {
        return Refusal::new("the file is empty");
    }
    if let Some(borrowed) = Borrowed::of(head) {
        let (kind, advice) = borrowed.words();
        return Refusal::new(format!(
            "by its content it is {kind}, which is read from a file alone, by ffmpeg; {advice}"
        ));
    }
    let (kind, advice) = match head.get(4..12) {
        _ if head.starts_with(b"GIF8") => ("a GIF", "; save it anew, as `ffmpeg -i in.gif out.png` does"),
        _ if head.starts_with(b"\xff\x0a") || head.get(4..8) == Some(b"JXL ") => {
            ("a JPEG XL", "; save it anew, as `djxl in.jxl out.png` does")
        }
        Some(b"ftypcrx ") => ("what a camera's sensor gave (CR3)", "; develop it in another program first"),
        _ => ("no picture", ""),
    };
    Refusal::new(format!("by its content it is {kind}; PNG, JPEG, WebP, TIFF and BMP are read{advice}"))
}
