//! The measurements at each level of the signal.

use super::line::{Point, clipped_variance};

/// Number of signal levels.
pub(super) const LEVELS: usize = 48;

/// Maximum part of clipped (black or white) samples of a level.
const MAX_CLIPPED: f64 = 0.005;

/// The measurements at one signal level.
#[derive(Clone, Debug, Default)]
pub(super) struct Level {
    /// Noise samples, scaled to the variance of a single sample.
    pub(super) noise: Vec<f32>,
    /// Sum of the signals of these samples.
    pub(super) signal: f64,
    /// Number of clipped (black or white) samples.
    pub(super) clipped: usize,
    /// Number of samples that were checked for clipping.
    pub(super) samples: usize,
    /// The noise of all samples so far.
    pub(super) found: Point,
}

impl Level {
    /// Adds the samples of one position in two frames; `clipped` of them are black or white.
    pub(super) fn add_pair(&mut self, [before, after]: [f32; 2], signal: f64, clipped: usize) {
        self.noise.push((after - before) * std::f32::consts::FRAC_1_SQRT_2);
        self.signal += signal;
        self.clipped += clipped;
        self.samples += 2;
    }

    /// Reduces the collected noise to a variance, and merges it with the previous ones.
    pub(super) fn settle(&mut self, quantum: f64) {
        let count = self.noise.len() as f64;
        if count > 0.0 {
            let variance = clipped_variance(&mut self.noise, quantum);
            let all = self.found.count + count;
            let share = count / all;
            self.found.variance += share * (variance - self.found.variance);
            self.found.signal += share * (self.signal / count - self.found.signal);
            self.found.count = all;
        }
        self.noise.clear();
        self.signal = 0.0;
    }

    /// Whether few enough samples are clipped.
    pub(super) fn is_intact(&self) -> bool {
        self.clipped as f64 <= MAX_CLIPPED * self.samples as f64
    }
}

/// The level of a signal.
pub(super) fn level_of(signal: f64) -> usize {
    ((signal * LEVELS as f64) as usize).min(LEVELS - 1)
}

/// Whether a sample is black or white.
pub(super) fn is_clipped(value: f32) -> bool {
    // The tolerance is far below a step of 16 bits.
    !(1e-6..=1.0 - 1e-6).contains(&value)
}
