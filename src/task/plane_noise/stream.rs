//! Estimates the noise of a plane of a stream from the differences between its frames.

use super::features::{self, OF_PAIR, PARTS, Work};
use super::{Plane, PlaneNoise, PlaneRole, deviation, line, output, regression};

/// Minimum weight of a new pair of frames in the averages.
const MIN_WEIGHT: f64 = 1.0 / 16.0;

/// Upper limit of the median part of the difference that motion explains in noise, which resembles
/// motion by chance, the more so when it is correlated. Real motion explains more.
const OF_NOISE: f64 = 0.25;

/// The noise of a plane of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StreamNoise {
    /// From the differences between frames as far as the scene is static, and from the single
    /// frame where it is not or where an encoder repeats blocks.
    pub(crate) noise: PlaneNoise,
    /// Static part of the more textured half of the blocks, from 0 to 1; it is 1 where frames are
    /// aligned or the difference is noise. Below 0.3 everything moves, and the differences can
    /// only lower the estimate of the single frame.
    pub(crate) still: f64,
    /// Part of the blocks that repeat the previous frame bit-exactly.
    pub(crate) repeated: f64,
}

/// Accumulates the differences between the frames of a stream, for one plane.
#[derive(Debug)]
pub(crate) struct TemporalNoise {
    work: Work,
    /// Means over the pairs of frames, with more weight on later ones.
    features: [f64; OF_PAIR],
    parts: [(f64, f64); PARTS],
    still: f64,
    /// Median part of the difference that motion explains in textured blocks: moving average, and
    /// of the newest pair.
    explained: f64,
    newest_explained: f64,
    repeated: f64,
    /// Number of pairs with enough usable blocks.
    pairs: usize,
    /// Number of examined pairs.
    looks: usize,
    role: PlaneRole,
}

impl TemporalNoise {
    /// An empty estimator.
    pub(crate) fn new(role: PlaneRole) -> Self {
        Self {
            work: Work::default(),
            features: [0.0; OF_PAIR],
            parts: [(0.0, 0.0); PARTS],
            still: 0.0,
            explained: 1.0,
            newest_explained: 1.0,
            repeated: 0.0,
            pairs: 0,
            looks: 0,
            role,
        }
    }

    /// Resets the estimator for another scene.
    pub(crate) fn clear(&mut self) {
        *self = Self { work: std::mem::take(&mut self.work), ..Self::new(self.role) };
    }

    /// Adds the planes of two successive frames, of `width` samples a row, as parts of the full
    /// range. Planes of different sizes are ignored. `is_aligned` says that the first was moved by
    /// the global motion: both then show the same content at the same position, even if blocks
    /// look as if they moved.
    pub(crate) fn update(&mut self, [before, after]: [&[f32]; 2], width: usize, is_aligned: bool) {
        if before.len() != after.len() {
            return;
        }
        let [before, after] = [before, after].map(|samples| Plane::new(samples, width, self.role));
        let found = features::of_pair(before, after, &mut self.work);
        self.looks += 1;
        mix(&mut self.repeated, found.repeated, weight(self.looks));
        let Some(features) = found.features else { return };
        self.pairs += 1;
        let weight = weight(self.pairs);
        self.newest_explained = found.explained;
        mix(&mut self.explained, found.explained, weight);
        let is_still = is_aligned || found.explained < OF_NOISE;
        mix(&mut self.still, if is_still { 1.0 } else { found.still }, weight);
        for (mean, feature) in self.features.iter_mut().zip(features) {
            mix(mean, f64::from(feature), weight);
        }
        for ((brightness, variance), (own, found)) in self.parts.iter_mut().zip(found.parts) {
            mix(brightness, own, weight);
            mix(variance, found, weight);
        }
    }

    /// Whether the differences are noise and not motion in most of the textured blocks: on
    /// average, and between the newest two frames.
    pub(crate) fn is_static(&self) -> bool {
        self.explained.max(self.newest_explained) < OF_NOISE
    }

    /// The estimate from all frames and a single frame's noise; `None` before two different frames
    /// were found.
    pub(crate) fn estimate(&self, frame: &PlaneNoise) -> Option<StreamNoise> {
        if self.pairs == 0 {
            return None;
        }
        let of_frame =
            [output(frame.sigma), output(frame.fine), output(frame.coarse), frame.clean as f32];
        let pair = self.features.map(|feature| feature as f32);
        let [sigma, clean] =
            regression::of_stream(&pair, of_frame, self.role == PlaneRole::Chroma, self.still);
        let sigma = deviation(sigma);
        let scale = if frame.sigma > 0.0 { sigma / frame.sigma } else { 1.0 };
        let noise = PlaneNoise {
            sigma,
            fine: scale * frame.fine,
            coarse: scale * frame.coarse,
            clean: clean.into(),
            line: line(&self.parts, sigma, self.role),
            ..*frame
        };
        Some(StreamNoise { noise, still: self.still, repeated: self.repeated })
    }
}

/// Weight of the newest of `count` items.
fn weight(count: usize) -> f64 {
    (1.0 / count as f64).max(MIN_WEIGHT)
}

fn mix(mean: &mut f64, new: f64, weight: f64) {
    *mean += weight * (new - *mean);
}
