//! The noise of a stream's plane, from the differences of its frames.

use super::features::{self, OF_PAIR, PARTS, Work};
use super::{Plane, PlaneNoise, PlaneRole, deviation, line, output, regression};

/// A new pair of frames has at least this weight beside those before.
const LEAST_WEIGHT: f64 = 1.0 / 16.0;

/// Noise looks like motion by chance, the more so where neighbours share it: motion explains this part of the difference in half of
/// the blocks at most. Of a scene that moves it explains more.
const OF_NOISE: f64 = 0.25;

/// The noise of a stream's plane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StreamNoise {
    /// By the frames' differences as far as they hold still, and by the single frame where they do not or where an
    /// encoder repeats itself.
    pub(crate) noise: PlaneNoise,
    /// What part of the half of the blocks with most texture holds still, from 0 to 1; all where frames are aligned or what
    /// differs is noise. Below 0.3
    /// everything moves, and the differences can only lower what the single frame says.
    pub(crate) still: f64,
    /// What part of the blocks are those of the frame before, to the bit.
    pub(crate) repeated: f64,
}

/// Gathers the differences of a stream's frames, one plane of them.
#[derive(Debug)]
pub(crate) struct TemporalNoise {
    work: Work,
    /// Means over the pairs of frames, later ones with more weight.
    features: [f64; OF_PAIR],
    parts: [(f64, f64); PARTS],
    still: f64,
    /// What part of the difference motion would explain in the median of the textured blocks: of late, and of the newest pair.
    explained: f64,
    newest_explained: f64,
    repeated: f64,
    /// How many pairs had enough blocks to see noise in.
    pairs: usize,
    /// How many pairs were looked at.
    looks: usize,
    role: PlaneRole,
}

impl TemporalNoise {
    /// Nothing gathered yet.
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

    /// Forgets everything: another scene.
    pub(crate) fn clear(&mut self) {
        *self = Self { work: std::mem::take(&mut self.work), ..Self::new(self.role) };
    }

    /// Looks at two successive frames' planes, of `width` samples a row, as parts of the full range. Planes of different
    /// sizes say nothing. `is_aligned` says that the first was moved as the whole scene has: both show the same at the same places
    /// then, whatever else the blocks look like.
    pub(crate) fn update(&mut self, [before, after]: [&[f32]; 2], width: usize, is_aligned: bool) {
        if before.len() != after.len() {
            return;
        }
        let [before, after] = [before, after].map(|samples| Plane::new(samples, width, self.role));
        let seen = features::of_pair(before, after, &mut self.work);
        self.looks += 1;
        mix(&mut self.repeated, seen.repeated, weight(self.looks));
        let Some(features) = seen.features else { return };
        self.pairs += 1;
        let weight = weight(self.pairs);
        self.newest_explained = seen.explained;
        mix(&mut self.explained, seen.explained, weight);
        let is_still = is_aligned || seen.explained < OF_NOISE;
        mix(&mut self.still, if is_still { 1.0 } else { seen.still }, weight);
        for (mean, feature) in self.features.iter_mut().zip(features) {
            mix(mean, f64::from(feature), weight);
        }
        for ((brightness, variance), (own, seen)) in self.parts.iter_mut().zip(seen.parts) {
            mix(brightness, own, weight);
            mix(variance, seen, weight);
        }
    }

    /// Whether what differs is noise, and no motion, in most of the textured blocks: of late and between the newest two frames.
    pub(crate) fn holds_still(&self) -> bool {
        self.explained.max(self.newest_explained) < OF_NOISE
    }

    /// What the frames say together with a single one's noise; `None` before two frames that differ have been seen.
    pub(crate) fn estimate(&self, frame: &PlaneNoise) -> Option<StreamNoise> {
        if self.pairs == 0 {
            return None;
        }
        let said = [output(frame.sigma), output(frame.fine), output(frame.coarse), frame.clean as f32];
        let pair = self.features.map(|feature| feature as f32);
        let [sigma, clean] = regression::of_stream(&pair, said, self.role == PlaneRole::Chroma, self.still);
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

/// Of the newest of so many.
fn weight(count: usize) -> f64 {
    (1.0 / count as f64).max(LEAST_WEIGHT)
}

fn mix(mean: &mut f64, new: f64, weight: f64) {
    *mean += weight * (new - *mean);
}
