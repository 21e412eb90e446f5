//! The images that a pipeline is given, as tensors.

use image::imageops::{self, FilterType};
use ndarray::{Array4, ArrayView4};

use crate::error::{Error, Result};
use crate::media::{Image, Samples};
use crate::tensor::{Range, read_planes};

/// An image as `[1, 3, height, width]` in `range`, resized to `[width, height]` if it has another
/// size (Lanczos, as diffusers does). Alpha is left out.
///
/// # Errors
/// [`Error::Usage`] for an image of no colours.
pub(super) fn color_planes(image: &Image, size: [usize; 2], range: Range) -> Result<Array4<f32>> {
    let image = resized(&image.visible(), size)?;
    let mut planes = Array4::zeros([1, 3, image.height, image.width]);
    read_planes(&image, range, planes.as_slice_mut().unwrap_or_default())?;
    Ok(planes)
}

/// A mask as `[1, 1, height, width]`, 1 where it is at least half white.
///
/// # Errors
/// [`Error::Usage`] for an image of no colours.
pub(super) fn mask_planes(mask: &Image, size: [usize; 2]) -> Result<Array4<f32>> {
    let planes = color_planes(mask, size, Range::new(0.0, 1.0)?)?;
    let [width, height] = size;
    // BT.601's luma, as Pillow converts to grey, rounded to a byte.
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
    let unlike = || Error::usage("the image has another number of channels than 1 or 3");
    let samples = match image.channels {
        1 => {
            let grey = image::GrayImage::from_raw(from[0], from[1], bytes).ok_or_else(unlike)?;
            imageops::resize(&grey, to[0], to[1], FilterType::Lanczos3).into_raw()
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
