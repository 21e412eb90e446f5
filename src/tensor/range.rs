//! The values of black and white for a model.

use crate::error::{Error, Result};

/// The values of black (`lo`) and white (`hi`) for a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    lo: f32,
    hi: f32,
}

impl Range {
    /// From 0 to 1.
    pub const UNIT: Self = Self { lo: 0.0, hi: 1.0 };
    /// From -1 to 1.
    pub const SIGNED: Self = Self { lo: -1.0, hi: 1.0 };

    /// A range from `lo` to `hi`.
    ///
    /// # Errors
    /// [`Error::Usage`] unless both are finite and `lo < hi`.
    pub fn new(lo: f32, hi: f32) -> Result<Self> {
        if lo < hi && (hi - lo).is_finite() {
            Ok(Self { lo, hi })
        } else {
            Err(Error::usage(format!(
                "a range from {lo} to {hi} is not valid; give two finite numbers, the smaller first"
            )))
        }
    }

    /// The value for black.
    pub fn lo(self) -> f32 {
        self.lo
    }

    /// The value for white.
    pub fn hi(self) -> f32 {
        self.hi
    }

    /// The distance from black to white.
    pub fn span(self) -> f32 {
        self.hi - self.lo
    }

    /// Maps a value to 0 for black and 1 for white; it is not clamped.
    pub fn to_unit(self, value: f32) -> f32 {
        (value - self.lo) / self.span()
    }

    /// The size of one step of a sample from 0 to `max`.
    pub(super) fn step(self, max: f32) -> f32 {
        self.span() / max
    }

    /// The number of steps of a sample from 0 to `max` in a distance of 1.
    pub(super) fn inverse_step(self, max: f32) -> f32 {
        max / self.span()
    }
}
