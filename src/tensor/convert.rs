//! Converts one row between interleaved samples and planes. Pixels are arrays of fixed length, so
//! that the loops have neither bounds checks nor branches.

/// Number of values that are rounded before they are interleaved: few enough for the stack and the
/// L1 cache.
const BLOCK: usize = 256;

/// Added to an `f32`, it leaves no bits for a fraction, so that the lowest bits of the sum are the
/// rounded number.
const ROUNDER: f32 = 8_388_608.0;

/// The lowest bits of the result are `value`, clamped to `0..=max` and rounded to nearest, halves
/// to even; NaN becomes 0. `max` is at most 65535. Unlike `as`, this compiles to vector code on
/// every target.
#[inline]
pub(super) fn rounded(value: f32, max: f32) -> u32 {
    // A comparison with NaN is false, and takes the other branch.
    let above = if value > 0.0 { value } else { 0.0 };
    let within = if above < max { above } else { max };
    (within + ROUNDER).to_bits()
}

/// Splits a row of pixels into one or three planes, each as long as the row.
pub(super) fn read_row<T: Copy>(
    pixels: &[T],
    channels: usize,
    planes: &mut [&mut [f32]],
    to_unit: &impl Fn(T) -> f32,
) {
    match (channels, planes) {
        (1, planes) => read_gray::<T, 1>(pixels, planes, to_unit),
        (2, planes) => read_gray::<T, 2>(pixels, planes, to_unit),
        (3, [r, g, b]) => read_color::<T, 3>(pixels, r, g, b, to_unit),
        (_, [r, g, b]) => read_color::<T, 4>(pixels, r, g, b, to_unit),
        _ => {}
    }
}

fn read_gray<T: Copy, const N: usize>(
    pixels: &[T],
    planes: &mut [&mut [f32]],
    to_unit: &impl Fn(T) -> f32,
) {
    let Some((first, others)) = planes.split_first_mut() else { return };
    for (pixel, value) in pixels.as_chunks::<N>().0.iter().zip(first.iter_mut()) {
        *value = to_unit(pixel[0]);
    }
    for other in others {
        other.copy_from_slice(first);
    }
}

fn read_color<T: Copy, const N: usize>(
    pixels: &[T],
    r: &mut [f32],
    g: &mut [f32],
    b: &mut [f32],
    to_unit: &impl Fn(T) -> f32,
) {
    for (((pixel, r), g), b) in pixels.as_chunks::<N>().0.iter().zip(r).zip(g).zip(b) {
        *r = to_unit(pixel[0]);
        *g = to_unit(pixel[1]);
        *b = to_unit(pixel[2]);
    }
}

/// Interleaves one or three planes, each as long as the row, to a row of pixels. Returns the
/// number of non-finite values.
pub(super) fn write_row<T: Copy + Default>(
    planes: &[&[f32]],
    channels: usize,
    pixels: &mut [T],
    to_sample: impl Fn(f32) -> T,
) -> usize {
    match (channels, planes) {
        (1, planes) => write_gray::<T, 1>(planes, pixels, to_sample),
        (2, planes) => write_gray::<T, 2>(planes, pixels, to_sample),
        (3, [r, g, b]) => write_color::<T, 3>([r, g, b], pixels, to_sample),
        (_, [r, g, b]) => write_color::<T, 4>([r, g, b], pixels, to_sample),
        _ => 0,
    }
}

fn write_gray<T: Copy, const N: usize>(
    planes: &[&[f32]],
    pixels: &mut [T],
    to_sample: impl Fn(f32) -> T,
) -> usize {
    let pixels = pixels.as_chunks_mut::<N>().0.iter_mut();
    let mut broken = 0;
    match planes {
        [r, g, b] => {
            for (((pixel, r), g), b) in pixels.zip(*r).zip(*g).zip(*b) {
                let mean = (r + g + b) / 3.0;
                broken += u32::from(!mean.is_finite());
                pixel[0] = to_sample(mean);
            }
        }
        [plane, ..] => {
            for (pixel, value) in pixels.zip(*plane) {
                broken += u32::from(!value.is_finite());
                pixel[0] = to_sample(*value);
            }
        }
        [] => {}
    }
    broken as usize
}

fn write_color<T: Copy + Default, const N: usize>(
    planes: [&[f32]; 3],
    pixels: &mut [T],
    to_sample: impl Fn(f32) -> T,
) -> usize {
    let mut rounded = [[T::default(); BLOCK]; 3];
    let mut broken = 0;
    for (block, pixels) in pixels.as_chunks_mut::<N>().0.chunks_mut(BLOCK).enumerate() {
        for (plane, rounded) in planes.iter().zip(&mut rounded) {
            let values = &plane[block * BLOCK..block * BLOCK + pixels.len()];
            let mut broken_here = 0_u32;
            for (value, rounded) in values.iter().zip(rounded.iter_mut()) {
                broken_here += u32::from(!value.is_finite());
                *rounded = to_sample(*value);
            }
            broken += broken_here as usize;
        }
        let [r, g, b] = &rounded;
        for (((pixel, r), g), b) in pixels.iter_mut().zip(r).zip(g).zip(b) {
            pixel[0] = *r;
            pixel[1] = *g;
            pixel[2] = *b;
        }
    }
    broken
}
