//! Converts pixels to planes and back: the only place that knows range, layout and rounding.
//!
//! An image holds interleaved samples of 8 or 16 bits. A network takes planes of `f32`, one after
//! the other (NCHW with N = 1), in a [`Range`] of its own. Alpha is skipped on input and left
//! unchanged on output.
//!
//! The number of planes follows from the length of the slice: `width * height` values are one
//! plane, three times as many are three. A gray image fills three equal planes, and takes the mean
//! of three; a color image does not fit one plane.

mod convert;
mod range;
mod stream;
#[cfg(test)]
mod tests;
mod yuv;

pub use range::Range;
pub use stream::FrameConverter;
pub use yuv::{YuvFrameConverter, grid_of, pack, sigmas_of_rgb, unpack};
pub(crate) use yuv::{kept_of, rise};

use crate::error::{Error, Result};
use crate::media::{Image, Samples};

/// Binomial filter with five taps and a standard deviation of one pixel.
pub(crate) const BINOMIAL: [f32; 5] = [1.0 / 16.0, 4.0 / 16.0, 6.0 / 16.0, 4.0 / 16.0, 1.0 / 16.0];

/// A rectangle of pixels in the coordinates of an image. It may extend beyond the image's edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// The leftmost column; negative left of the image.
    pub x0: isize,
    /// The topmost row; negative above the image.
    pub y0: isize,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

impl Rect {
    /// The rectangle that covers exactly the image.
    pub fn of(image: &Image) -> Self {
        Self { x0: 0, y0: 0, width: image.width, height: image.height }
    }
}

/// Reads the color of the whole image into planes.
///
/// `out` holds `[planes, height, width]`, with one or three planes; all values are written and lie
/// in `range`. Does not allocate.
///
/// # Errors
/// [`Error::Usage`] for a color image and one plane.
///
/// # Panics
/// If `out` is not one or three times `width * height` long.
pub fn read_planes(image: &Image, range: Range, out: &mut [f32]) -> Result<()> {
    read_region(image, range, Rect::of(image), out)
}

/// Reads the color of a rectangle of the image into planes of the rectangle's size.
///
/// Beyond its edges the image is mirrored without repeating the edge (`reflect` in numpy,
/// reflect-101 in OpenCV), as often as needed: the rectangle may be larger than the image and may
/// lie completely outside it.
///
/// `out` holds `[planes, rect.height, rect.width]`, with one or three planes. Does not allocate.
///
/// # Errors
/// [`Error::Usage`] for a color image and one plane.
///
/// # Panics
/// If `out` is not one or three times `rect.width * rect.height` long.
pub fn read_region(image: &Image, range: Range, rect: Rect, out: &mut [f32]) -> Result<()> {
    let planes = plane_count(image, rect, out.len())?;
    match &image.samples {
        Samples::U8(samples) => {
            let (lo, step) = (range.lo(), range.step(u8::MAX.into()));
            read_rows(image, samples, rect, planes, out, |value: u8| f32::from(value) * step + lo);
        }
        Samples::U16(samples) => {
            let (lo, step) = (range.lo(), range.step(u16::MAX.into()));
            read_rows(image, samples, rect, planes, out, |value: u16| f32::from(value) * step + lo);
        }
    }
    Ok(())
}

/// Writes planes of the image's size to its color; alpha is kept. See [`write_region`].
///
/// # Errors
/// [`Error::Usage`] for a color image and one plane.
///
/// # Panics
/// If `planes` is not one or three times `width * height` long.
pub fn write_planes(planes: &[f32], range: Range, image: &mut Image) -> Result<usize> {
    write_region(planes, range, image, Rect::of(image))
}

/// Writes planes of the rectangle's size to the image's color; alpha and all pixels outside are
/// kept.
///
/// `planes` holds `[planes, rect.height, rect.width]`. Values are rounded to the nearest sample,
/// halves to even, and clamped to the range of samples; NaN becomes 0. Returns the number of
/// written values that were NaN or infinite: more than 0 means that the network failed. Does not
/// allocate.
///
/// # Errors
/// [`Error::Usage`] for a color image and one plane.
///
/// # Panics
/// If `planes` is not one or three times `rect.width * rect.height` long.
pub fn write_region(planes: &[f32], range: Range, image: &mut Image, rect: Rect) -> Result<usize> {
    let count = plane_count(image, rect, planes.len())?;
    let Some((columns, rows)) = inside(rect, image.width, image.height) else { return Ok(0) };
    let area = rect.width * rect.height;
    let mut broken = 0;
    for row in rows {
        let y = rect.y0.wrapping_add_unsigned(row).unsigned_abs();
        let x = rect.x0.wrapping_add_unsigned(columns.start).unsigned_abs();
        let at = row * rect.width + columns.start;
        let source: [&[f32]; 3] = std::array::from_fn(|plane| {
            let start = if plane < count { plane * area + at } else { at };
            &planes[start..start + columns.len()]
        });
        broken += write_row(&source[..count], range, image, x, y);
    }
    Ok(broken)
}

/// Writes one or three planes to row `y` of the image, from column `x` on, and returns the same
/// count as [`write_region`]. The planes are of equal length; the caller must have checked their
/// number.
///
/// # Panics
/// If the values extend beyond the end of the row.
pub fn write_row(planes: &[&[f32]], range: Range, image: &mut Image, x: usize, y: usize) -> usize {
    let (channels, lo) = (image.channels, range.lo());
    let length = planes.first().map_or(0, |plane| plane.len());
    assert!(
        x + length <= image.width,
        "{length} values from column {x} on reach over a row of {}",
        image.width
    );
    let start = (y * image.width + x) * channels;
    let pixels = start..start + length * channels;
    match &mut image.samples {
        Samples::U8(samples) => {
            let scale = range.inverse_step(u8::MAX.into());
            convert::write_row(planes, channels, &mut samples[pixels], |value| {
                convert::rounded((value - lo) * scale, u8::MAX.into()) as u8
            })
        }
        Samples::U16(samples) => {
            let scale = range.inverse_step(u16::MAX.into());
            convert::write_row(planes, channels, &mut samples[pixels], |value| {
                convert::rounded((value - lo) * scale, u16::MAX.into()) as u16
            })
        }
    }
}

/// The column or row, from 0 to `size - 1`, at position `at` of a line of `size` that is mirrored
/// infinitely.
pub fn mirror(at: isize, size: usize) -> usize {
    let last = size.saturating_sub(1).cast_signed();
    if last == 0 {
        return 0;
    }
    let folded = at.rem_euclid(2 * last);
    folded.min(2 * last - folded).unsigned_abs()
}

/// The number of planes in `len` values, checked against the image.
fn plane_count(image: &Image, rect: Rect, len: usize) -> Result<usize> {
    let area = rect.width * rect.height;
    let planes = if len == area { 1 } else { 3 };
    assert!(
        len == planes * area,
        "{len} values are neither one nor three planes of {}x{}",
        rect.width,
        rect.height
    );
    assert!(image.width > 0 && image.height > 0, "the frame has no pixels");
    if planes == 1 && image.color_channels() == 3 {
        return Err(Error::usage(
            "the frame has three color channels and the model takes one; convert the frame to \
             gray or choose a model for color",
        ));
    }
    Ok(planes)
}

/// The columns and rows of the rectangle, relative to its own corner, that lie inside the image.
fn inside(
    rect: Rect,
    width: usize,
    height: usize,
) -> Option<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    let along = |start: isize, length: usize, size: usize| {
        let first = start.min(0).unsigned_abs();
        let end = size.cast_signed().saturating_sub(start).max(0).unsigned_abs().min(length);
        (first < end).then_some(first..end)
    };
    Some((along(rect.x0, rect.width, width)?, along(rect.y0, rect.height, height)?))
}

fn read_rows<T: Copy>(
    image: &Image,
    samples: &[T],
    rect: Rect,
    planes: usize,
    out: &mut [f32],
    to_unit: impl Fn(T) -> f32,
) {
    let (width, channels) = (image.width, image.channels);
    let area = rect.width * rect.height;
    let (first, rest) = out.split_at_mut(area);
    let (second, third) = rest.split_at_mut(if planes == 3 { area } else { 0 });
    // Columns [before, after) lie inside the image and are read at once; the others are mirrored
    // one by one.
    let columns =
        inside(Rect { y0: 0, height: 1, ..rect }, width, 1).map_or(0..0, |(columns, _)| columns);
    for row in 0..rect.height {
        let y = mirror(rect.y0.wrapping_add_unsigned(row), image.height);
        let line = &samples[y * width * channels..(y + 1) * width * channels];
        let mut read = |x: usize, columns: std::ops::Range<usize>| {
            let pixels = &line[x * channels..(x + columns.len()) * channels];
            let at = row * rect.width + columns.start..row * rect.width + columns.end;
            if planes == 1 {
                convert::read_row(pixels, channels, &mut [&mut first[at]], &to_unit);
            } else {
                let third = &mut third[at.clone()];
                convert::read_row(
                    pixels,
                    channels,
                    &mut [&mut first[at.clone()], &mut second[at], third],
                    &to_unit,
                );
            }
        };
        if !columns.is_empty() {
            read(rect.x0.wrapping_add_unsigned(columns.start).unsigned_abs(), columns.clone());
        }
        for column in (0..columns.start).chain(columns.end..rect.width) {
            read(mirror(rect.x0.wrapping_add_unsigned(column), width), column..column + 1);
        }
    }
}
