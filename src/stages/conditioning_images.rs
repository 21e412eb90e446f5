//! The images of a request, as tensors.

use image::imageops::{self, FilterType};
use ndarray::{Array4, ArrayView4};

use crate::error::{Error, Result};
use crate::media::{Image, Samples};
use crate::task::keys;
use crate::tensor::{Range, read_planes};

/// An image as `[1, 3, height, width]` in `range`, resized to `[width, height]` if it has another
/// size (Lanczos, as diffusers does). Alpha is left out.
///
/// # Errors
/// [`Error::Usage`] for an image without colors.
pub(super) fn color_planes(image: &Image, size: [usize; 2], range: Range) -> Result<Array4<f32>> {
    let image = resized(&image.visible(), size)?;
    let mut planes = Array4::zeros([1, 3, image.height, image.width]);
    read_planes(&image, range, planes.as_slice_mut().unwrap_or_default())?;
    Ok(planes)
}

/// A mask as `[1, 1, height, width]`, 1 where it is at least half white.
///
/// # Errors
/// [`Error::Usage`] for an image without colors.
pub(super) fn mask_planes(mask: &Image, size: [usize; 2]) -> Result<Array4<f32>> {
    let planes = color_planes(mask, size, Range::new(0.0, 1.0)?)?;
    let [width, height] = size;
    // BT.601's luma, as Pillow converts to gray, rounded to a byte.
    const LUMA: [f32; 3] = [0.299, 0.587, 0.114];
    Ok(Array4::from_shape_fn([1, 1, height, width], |(_, _, y, x)| {
        let luma: f32 = (0..3).map(|channel| LUMA[channel] * planes[[0, channel, y, x]]).sum();
        if (255.0 * luma).round() / 255.0 >= 0.5 { 1.0 } else { 0.0 }
    }))
}

/// Every `factor`th value of each plane.
pub(super) fn subsampled(planes: ArrayView4<'_, f32>, factor: usize) -> Array4<f32> {
    let (batch, channels, height, width) = planes.dim();
    let shape = [batch, channels, height / factor, width / factor];
    Array4::from_shape_fn(shape, |(b, c, y, x)| planes[[b, c, factor * y, factor * x]])
}

fn resized(image: &Image, [width, height]: [usize; 2]) -> Result<Image> {
    if [image.width, image.height] == [width, height] {
        return Ok(image.clone());
    }
    let bytes = match &image.samples {
        Samples::U8(samples) => samples.clone(),
        Samples::U16(samples) => {
            samples.iter().map(|value| (f32::from(*value) / 257.0).round() as u8).collect()
        }
    };
    let sides = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    let [from, to] = [[image.width, image.height], [width, height]].map(|size| size.map(sides));
    let unlike = || Error::usage("the image has neither 1 nor 3 channels");
    let samples = match image.channels {
        1 => {
            let gray = image::GrayImage::from_raw(from[0], from[1], bytes).ok_or_else(unlike)?;
            imageops::resize(&gray, to[0], to[1], FilterType::Lanczos3).into_raw()
        }
        3 => {
            let color = image::RgbImage::from_raw(from[0], from[1], bytes).ok_or_else(unlike)?;
            imageops::resize(&color, to[0], to[1], FilterType::Lanczos3).into_raw()
        }
        _ => return Err(unlike()),
    };
    let samples = Samples::U8(samples);
    Ok(Image { width, height, samples, channels: image.channels, metadata: image.metadata.clone() })
}

/// Which points of two images are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alignment {
    /// The centers of the pixels at the corners.
    Corners,
    /// The edges of the images, as pixels are squares.
    Centers,
}

/// Planes resized linearly.
pub(super) fn bilinear(
    planes: &Array4<f32>,
    [width, height]: [usize; 2],
    alignment: Alignment,
) -> Array4<f32> {
    let taps = |from: usize, to: usize| -> Vec<Taps> {
        let position = |i: usize| match alignment {
            Alignment::Corners => (from - 1) as f32 / to.saturating_sub(1).max(1) as f32 * i as f32,
            Alignment::Centers => ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).max(0.0),
        };
        let tap = |i: usize| {
            let at = position(i);
            let first = (at as usize).min(from - 1);
            let part = at - first as f32;
            match (from - 1).checked_sub(first + 1) {
                Some(_) => Taps { first, weights: vec![1.0 - part, part] },
                None => Taps { first, weights: vec![1.0] },
            }
        };
        (0..to).map(tap).collect()
    };
    let (_, _, from_height, from_width) = planes.dim();
    resampled(planes, &taps(from_height, height), &taps(from_width, width))
}

/// Planes enlarged by Keys' cubic convolution with a = -1/2, whose weights are normalized at the
/// borders, as Pillow does it.
pub(super) fn bicubic(planes: &Array4<f32>, [width, height]: [usize; 2]) -> Array4<f32> {
    let taps = |from: usize, to: usize| -> Vec<Taps> {
        let scale = from as f64 / to as f64;
        // Wider where the image is reduced.
        let stretch = scale.max(1.0);
        let tap = |i: usize| {
            let center = (i as f64 + 0.5) * scale;
            let first = ((center - 2.0 * stretch + 0.5).max(0.0)) as usize;
            let end = ((center + 2.0 * stretch + 0.5) as usize).min(from);
            let weight = |j: usize| keys((j as f64 - center + 0.5) / stretch);
            let sum: f64 = (first..end).map(weight).sum();
            Taps { first, weights: (first..end).map(|j| (weight(j) / sum) as f32).collect() }
        };
        (0..to).map(tap).collect()
    };
    let (_, _, from_height, from_width) = planes.dim();
    resampled(planes, &taps(from_height, height), &taps(from_width, width))
}

/// The values that one value of a resampled row is a sum of.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

fn resampled(planes: &Array4<f32>, rows: &[Taps], columns: &[Taps]) -> Array4<f32> {
    let (batch, channels, from_height, _) = planes.dim();
    let sum = |taps: &Taps, value: &dyn Fn(usize) -> f32| -> f32 {
        taps.weights.iter().enumerate().map(|(i, weight)| weight * value(taps.first + i)).sum()
    };
    let wide =
        Array4::from_shape_fn([batch, channels, from_height, columns.len()], |(b, c, y, x)| {
            sum(&columns[x], &|at| planes[[b, c, y, at]])
        });
    Array4::from_shape_fn([batch, channels, rows.len(), columns.len()], |(b, c, y, x)| {
        sum(&rows[y], &|at| wide[[b, c, at, x]])
    })
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::{Alignment, bilinear};

    /// As `interpolate` of PyTorch gives it with and without `align_corners`.
    #[test]
    fn resizes_linearly_by_corners_and_by_centers() {
        let small = Array4::from_shape_fn([1, 1, 1, 4], |(.., x)| (x * x) as f32);
        for (alignment, expected) in [
            (Alignment::Centers, [0.0, 0.25, 0.75, 1.75, 3.25, 5.25, 7.75, 9.0]),
            (
                Alignment::Corners,
                [0.0, 3.0 / 7.0, 6.0 / 7.0, 13.0 / 7.0, 22.0 / 7.0, 33.0 / 7.0, 48.0 / 7.0, 9.0],
            ),
        ] {
            let large = bilinear(&small, [8, 1], alignment);
            for (found, expected) in large.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{alignment:?}: {large}");
            }
        }
    }
}
