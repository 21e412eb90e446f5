//! Two frames of a static scene, whose differences are noise.

use super::level::{Level, is_clipped, level_of};
use crate::error::Result;
use crate::media::Image;
use crate::tensor::{Range, Rect, read_region};

/// Approximate number of pixels of a pair that are examined.
const SAMPLES: usize = 1 << 20;

/// The planes of a frame of video, as [`YuvFrameConverter`](crate::tensor::YuvFrameConverter) reads
/// them.
#[derive(Clone, Debug)]
pub struct YuvPlanes {
    /// Luma `[2 H, 2 W]` from 0 to 1, then Cb and Cr `[H, W]`, centered on 0.5.
    pub samples: Vec<f32>,
    /// `[W, H]`.
    pub grid: [usize; 2],
    /// Bits per sample of the source.
    pub bits: u32,
}

/// Collects the differences between two frames.
pub(super) fn compare(one: &Image, other: &Image, channels: &mut [Vec<Level>]) -> Result<()> {
    // The step is odd, so that it does not align with the block grid of a compressed image.
    let step = (one.width * one.height / SAMPLES).isqrt() | 1;
    let width = one.width + 2;
    let size = 3 * width;
    let (mut before, mut after) =
        (vec![0.0; channels.len() * size], vec![0.0; channels.len() * size]);
    for y in (0..one.height).step_by(step) {
        let rect = Rect { x0: -1, y0: y.cast_signed() - 1, width, height: 3 };
        read_region(one, Range::UNIT, rect, &mut before)?;
        read_region(other, Range::UNIT, rect, &mut after)?;
        let planes = before.chunks_exact(size).zip(after.chunks_exact(size));
        for (levels, (before, after)) in channels.iter_mut().zip(planes) {
            for x in (0..one.width).step_by(step) {
                let both = |i: usize| f64::from(before[i]) + f64::from(after[i]);
                let own = width + x + 1;
                let around = (0..3).flat_map(|row| row * width + x..row * width + x + 3);
                let neighbors = around.map(both).sum::<f64>() - both(own);
                let level = &mut levels[level_of(neighbors / 16.0)];
                let signal = both(own) / 2.0;
                let (before, after) = (before[own], after[own]);
                let clipped = usize::from(is_clipped(before)) + usize::from(is_clipped(after));
                level.add_pair([before, after], signal, clipped);
            }
        }
    }
    Ok(())
}

/// Collects the differences between the planes of two frames: luma, and Cb and Cr by the luma at
/// their position.
pub(super) fn compare_planes(one: &YuvPlanes, other: &YuvPlanes, channels: &mut [Vec<Level>]) {
    let [width, height] = one.grid;
    let (area, row) = (width * height, 2 * width);
    let luma_step = (4 * area / SAMPLES).isqrt() | 1;
    let [luma, chroma @ ..] = channels else { return };
    let both = |i: usize| f64::from(one.samples[i]) + f64::from(other.samples[i]);
    let pair = |i: usize| [one.samples[i], other.samples[i]];
    let clipped = |i: usize| {
        usize::from(is_clipped(one.samples[i])) + usize::from(is_clipped(other.samples[i]))
    };
    for y in (1..(2 * height).saturating_sub(1)).step_by(luma_step) {
        for x in (1..row.saturating_sub(1)).step_by(luma_step) {
            let own = y * row + x;
            let around = [own - row, own, own + row].map(|i| both(i - 1) + both(i) + both(i + 1));
            let neighbors = around.iter().sum::<f64>() - both(own);
            luma[level_of(neighbors / 16.0)].add_pair(pair(own), both(own) / 2.0, clipped(own));
        }
    }
    let step = (area / SAMPLES).isqrt() | 1;
    for (plane, levels) in chroma.iter_mut().enumerate() {
        for (x, y) in
            (0..height).step_by(step).flat_map(|y| (0..width).step_by(step).map(move |x| (x, y)))
        {
            let four = [0, 1, row, row + 1].map(|i| 2 * (y * row + x) + i);
            let signal = four.iter().map(|i| both(*i)).sum::<f64>() / 8.0;
            let own = (4 + plane) * area + y * width + x;
            let is_clipped = four.iter().any(|i| clipped(*i) > 0) || clipped(own) > 0;
            levels[level_of(signal)].add_pair(pair(own), signal, 2 * usize::from(is_clipped));
        }
    }
}
