//! What is done to the frames of a stream, and what whoever watches would like to be done.

use std::fmt;
use std::sync::Arc;

use crate::model::Precision;
use crate::task::SigmaChoice;

/// A size within which frames are worked on, as a part of their own: a fraction along each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    numerator: usize,
    denominator: usize,
}

impl Scale {
    /// As large as they are.
    pub const FULL: Self = Self { numerator: 1, denominator: 1 };

    /// Smaller ones, from large to small.
    pub(super) const SMALLER: [Self; 5] =
        [Self::of(3, 4), Self::of(2, 3), Self::of(1, 2), Self::of(1, 3), Self::of(1, 4)];

    const fn of(numerator: usize, denominator: usize) -> Self {
        Self { numerator, denominator }
    }

    /// Along a side, as a part of 1.
    pub fn factor(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// What becomes of a side of so many pixels.
    pub(super) fn of_side(self, length: usize) -> usize {
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

/// How much is done to each frame.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityLevel {
    /// The network's name.
    pub model: Arc<str>,
    /// The numeric precision in which it computes.
    pub precision: Precision,
    /// Evaluations of it for each frame.
    pub steps: usize,
    /// Whether static tiles are kept although more is known by now.
    pub reuse_tiles_longer: bool,
    /// At what size.
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
            f.write_str(", tiles kept longer")?;
        }
        if self.scale != Scale::FULL {
            write!(f, ", at {} of the size", self.scale)?;
        }
        Ok(())
    }
}

/// What is being done to frames.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamStatus {
    /// How much is done to each.
    pub quality: QualityLevel,
    /// How often that changed so as to keep up.
    pub changes: u64,
    /// The standard deviation of the noise in 8-bit units, of denoisers; 0 before the first frame.
    pub sigma: Option<f64>,
    /// Whether previous frames are used.
    pub temporal: bool,
    /// Tiles that came out as no frame and were computed again.
    pub repeated: u64,
    /// Frames of which that did not help, and which were passed on as they were, or enlarged bicubically.
    pub failed: u64,
}

/// What is to be done otherwise from the next frame on; what is none stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingsUpdate {
    /// How noisy frames are taken to be.
    pub sigma: Option<SigmaChoice>,
    /// Evaluations of the network for each, at most where a rate is to be held.
    pub steps: Option<usize>,
    /// Whether previous frames are used.
    pub temporal: Option<bool>,
}
