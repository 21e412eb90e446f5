//! A single image, whose finest structure is noise in smooth parts.

use super::level::{Level, is_clipped, level_of};
use crate::error::Result;
use crate::media::Image;
use crate::task::estimate::{HIGH_PASS, LOW_PASS};
use crate::tensor::{Range, Rect, read_region};

/// Side of a patch in pixels, and with the tails of the filters.
const PATCH: usize = 8;
const COVERED: usize = PATCH + 2;

/// Variance of the noise in the mean of a patch, relative to that of a sample.
pub(super) const NOISE_IN_SIGNAL: f64 = 1.0 / (PATCH * PATCH) as f64;

/// Approximate number of patches per channel in a large image; in a small one they overlap by
/// half.
const PATCHES: usize = 1 << 16;

/// One in this many patches of a level is taken as smooth.
const SMOOTH: usize = 8;

/// A patch of a channel.
struct Patch {
    signal: f64,
    /// Energy of its horizontal and vertical coefficients.
    roughness: f64,
    /// Number of black or white samples.
    clipped: usize,
    diagonal: [f32; PATCH * PATCH / 4],
}

/// Collects noise from the smooth parts of an image.
pub(super) fn measure(frame: &Image, channels: &mut [Vec<Level>]) -> Result<()> {
    if frame.width < COVERED || frame.height < COVERED {
        return Ok(());
    }
    let width = frame.width;
    let step = (PATCH / 2).max((width * frame.height / PATCHES).isqrt());
    let mut rows = vec![0.0; channels.len() * COVERED * width];
    let mut patches: Vec<Vec<Vec<Patch>>> =
        channels.iter().map(|levels| levels.iter().map(|_| Vec::new()).collect()).collect();
    for y in (0..=frame.height - COVERED).step_by(step) {
        let rect = Rect { x0: 0, y0: y.cast_signed(), width, height: COVERED };
        read_region(frame, Range::UNIT, rect, &mut rows)?;
        for (rows, patches) in rows.chunks_exact(COVERED * width).zip(&mut patches) {
            for x in (0..=width - COVERED).step_by(step) {
                let patch = Patch::new(|i, j| rows[j * width + x + i]);
                patches[level_of(patch.signal)].push(patch);
            }
        }
    }
    for (level, mut patches) in channels.iter_mut().flatten().zip(patches.into_iter().flatten()) {
        patches.sort_unstable_by(|one, other| one.roughness.total_cmp(&other.roughness));
        for patch in patches.iter().take(patches.len().div_ceil(SMOOTH)) {
            level.noise.extend(patch.diagonal);
            level.signal += patch.signal * patch.diagonal.len() as f64;
            level.clipped += patch.clipped;
            level.samples += PATCH * PATCH;
        }
    }
    Ok(())
}

impl Patch {
    fn new(at: impl Fn(usize, usize) -> f32) -> Self {
        let mut patch =
            Self { signal: 0.0, roughness: 0.0, clipped: 0, diagonal: [0.0; PATCH * PATCH / 4] };
        for (index, diagonal) in patch.diagonal.iter_mut().enumerate() {
            let (x, y) = (index % (PATCH / 2) * 2, index / (PATCH / 2) * 2);
            let (mut horizontal, mut vertical, mut both) = (0.0, 0.0, 0.0);
            for j in 0..4 {
                let line = std::array::from_fn::<f64, 4, _>(|i| f64::from(at(x + i, y + j)));
                let filtered = |taps: &[f64; 4]| {
                    line.iter().zip(taps).map(|(value, tap)| value * tap).sum::<f64>()
                };
                let (low, high) = (filtered(&LOW_PASS), filtered(&HIGH_PASS));
                horizontal += LOW_PASS[j] * high;
                vertical += HIGH_PASS[j] * low;
                both += HIGH_PASS[j] * high;
            }
            *diagonal = both as f32;
            patch.roughness += horizontal.powi(2) + vertical.powi(2);
        }
        for (i, j) in (0..PATCH).flat_map(|j| (0..PATCH).map(move |i| (i, j))) {
            patch.signal += f64::from(at(i, j)) / (PATCH * PATCH) as f64;
            patch.clipped += usize::from(is_clipped(at(i, j)));
        }
        patch
    }
}
