//! The status of a stream, and changes of its settings.

use std::fmt;
use std::sync::Arc;

use crate::model::Precision;
use crate::task::SigmaChoice;

/// Resolution at which frames are processed, as a fraction of their own along each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    numerator: usize,
    denominator: usize,
}

impl Scale {
    /// Full resolution.
    pub const FULL: Self = Self { numerator: 1, denominator: 1 };

    /// Reduced resolutions, from large to small.
    pub(in crate::video) const SMALLER: [Self; 5] =
        [Self::of(3, 4), Self::of(2, 3), Self::of(1, 2), Self::of(1, 3), Self::of(1, 4)];

    const fn of(numerator: usize, denominator: usize) -> Self {
        Self { numerator, denominator }
    }

    /// The ratio along each side.
    pub fn factor(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// The reduced length of a side, in pixels.
    pub(in crate::video) fn of_side(self, length: usize) -> usize {
        (length * self.numerator).div_ceil(self.denominator)
    }
}

impl fmt::Display for Scale {
    /// `1`, or `2/3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            denominator => write!(f, "{}/{denominator}", self.numerator),
        }
    }
}

/// The quality level of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityLevel {
    /// The network's name.
    pub model: Arc<str>,
    /// The numeric precision of the network.
    pub precision: Precision,
    /// Evaluations of the network for each frame (sampler steps).
    pub steps: usize,
    /// Whether static tiles are reused although a better estimate is available.
    pub reuse_tiles_longer: bool,
    /// The resolution at which frames are processed.
    pub scale: Scale,
}

impl fmt::Display for QualityLevel {
    /// Such as `denoise-fast in int8, 1 step, at 2/3 of the size`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.model)?;
        if self.precision != Precision::F32 {
            write!(f, " in {}", self.precision)?;
        }
        write!(f, ", {} step{}", self.steps, if self.steps == 1 { "" } else { "s" })?;
        if self.reuse_tiles_longer {
            f.write_str(", static tiles reused longer")?;
        }
        if self.scale != Scale::FULL {
            write!(f, ", at {} of the size", self.scale)?;
        }
        Ok(())
    }
}

/// How frames are processed at present.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamStatus {
    /// The quality level.
    pub quality: QualityLevel,
    /// Number of changes of the quality level to keep up.
    pub changes: u64,
    /// Standard deviation of the noise in 8-bit units, for denoisers; 0 before the first frame.
    pub sigma: Option<f64>,
    /// Whether previous frames are used.
    pub temporal: bool,
    /// Tiles with invalid output that were computed again.
    pub repeated: u64,
    /// Frames whose output stayed invalid, which were passed through unchanged or enlarged
    /// bicubically.
    pub failed: u64,
}

/// Changes of settings from the next frame on; `None` leaves a setting unchanged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingsUpdate {
    /// The noise level.
    pub sigma: Option<SigmaChoice>,
    /// Evaluations of the network for each frame; the maximum where a target rate is set.
    pub steps: Option<usize>,
    /// Whether previous frames are used.
    pub temporal: Option<bool>,
}

impl SettingsUpdate {
    /// Both changes; `later` decides about settings that both change.
    pub fn then(self, later: Self) -> Self {
        Self {
            sigma: later.sigma.or(self.sigma),
            steps: later.steps.or(self.steps),
            temporal: later.temporal.or(self.temporal),
        }
    }
}
