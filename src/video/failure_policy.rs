//! Frames of which a network makes none.

use crate::error::{Error, Result};

/// So many in a row end the run.
const MOST: u32 = 25;

/// How often evaluations failed, and whether that can be borne.
#[derive(Debug, Default)]
pub(super) struct FailurePolicy {
    /// Whether any frame ever came out.
    sound: bool,
    in_a_row: u32,
}

impl FailurePolicy {
    /// A frame came out.
    pub(super) fn none(&mut self) {
        (self.sound, self.in_a_row) = (true, 0);
    }

    /// No frame came out, for this reason.
    ///
    /// # Errors
    /// That reason, where it is not the network's failure with one frame among others: another kind of error, the first
    /// frame, or one of many in a row.
    pub(super) fn tolerate(&mut self, reason: Error) -> Result<()> {
        self.in_a_row += 1;
        if matches!(reason, Error::Evaluation { .. }) && self.sound && self.in_a_row < MOST {
            Ok(())
        } else {
            Err(reason)
        }
    }
}
