//! Two frames of a still scene: what differs is noise.

use super::measure::{Level, is_cut, level_of};
use crate::error::Result;
use crate::frame::Frame;
use crate::tensor::{Range, Rect, read_region};

/// About how many pixels of a pair of frames are looked at.
const SAMPLES: usize = 1 << 20;

/// Collects the differences of two frames.
pub(super) fn compare(one: &Frame, other: &Frame, channels: &mut [Vec<Level>]) -> Result<()> {
    // A grid whose step is odd, so that it does not fall in with the grid of a compressed picture.
    let step = (one.width * one.height / SAMPLES).isqrt() | 1;
    let width = one.width + 2;
    let size = 3 * width;
    let (mut before, mut after) = (vec![0.0; channels.len() * size], vec![0.0; channels.len() * size]);
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
                let neighbours = around.map(both).sum::<f64>() - both(own);
                let level = &mut levels[level_of(neighbours / 16.0)];
                let signal = both(own) / 2.0;
                let (before, after) = (before[own], after[own]);
                level.noise.push((after - before) * std::f32::consts::FRAC_1_SQRT_2);
                level.signal += signal;
                level.cut += usize::from(is_cut(before)) + usize::from(is_cut(after));
                level.seen += 2;
            }
        }
    }
    Ok(())
}
