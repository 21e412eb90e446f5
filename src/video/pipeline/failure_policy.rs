//! Tolerates frames for which the network gives invalid output.

use crate::error::{Error, Result};

/// Consecutive failures that end the run.
const MOST: u32 = 25;

/// Counts failed evaluations and decides whether the run may go on.
#[derive(Debug, Default)]
pub(in crate::video) struct FailurePolicy {
    /// Whether any frame has succeeded.
    sound: bool,
    in_a_row: u32,
}

impl FailurePolicy {
    /// Records that a frame succeeded.
    pub(in crate::video) fn none(&mut self) {
        (self.sound, self.in_a_row) = (true, 0);
    }

    /// Records that a frame failed for this reason.
    ///
    /// # Errors
    /// Returns `reason` when it is not an isolated failure of the network: another kind of error,
    /// a failure before any frame succeeded, or too many in a row.
    pub(in crate::video) fn tolerate(&mut self, reason: Error) -> Result<()> {
        self.in_a_row += 1;
        if matches!(reason, Error::Evaluation { .. }) && self.sound && self.in_a_row < MOST {
            Ok(())
        } else {
            Err(reason)
        }
    }
}
