//! What keeps requests of several models within the limit of memory.
//!
//! Each looks at what the process holds before it takes more. Those that look at the same time
//! would all take what is left, and so decoding, and large images, take turns among all models,
//! which share the threads of the processor anyway.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::Duration;

use hyper::StatusCode;

use super::problem::Problem;
use super::queue::Ticket;
use super::work::Outcome;
use crate::error::Error;
use crate::http::lock;
use crate::setting::MAX_MEMORY;
use crate::task::Budget;

/// An image is large if it would take more than this part of the memory, at so many bytes a pixel.
const PART: u64 = 8;
const BYTES_PER_PIXEL: u64 = 512;

/// How often a request that waits for its turn is checked for being stopped.
const POLL: Duration = Duration::from_millis(5);

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    decoding: Mutex<()>,
    large: Mutex<()>,
}

impl Turns {
    /// Waits until no other image is decoded.
    pub(super) fn decode(&self) -> MutexGuard<'_, ()> {
        lock(&self.decoding)
    }

    /// Waits until no other large image is in work, if one of so many pixels is large.
    pub(super) fn take(
        &self,
        pixels: u64,
        budget: Budget,
        ticket: &Ticket,
    ) -> Outcome<Option<MutexGuard<'_, ()>>> {
        if pixels.saturating_mul(BYTES_PER_PIXEL) <= budget.max_memory / PART {
            return Ok(None);
        }
        loop {
            match self.large.try_lock() {
                Ok(turn) => return Ok(Some(turn)),
                Err(TryLockError::Poisoned(turn)) => return Ok(Some(turn.into_inner())),
                Err(TryLockError::WouldBlock) if ticket.poll().is_break() => {
                    return Err(Problem::stopping());
                }
                Err(TryLockError::WouldBlock) => thread::sleep(POLL),
            }
        }
    }
}

/// Why a request failed: while others are in work, memory may be short for a moment.
pub(super) fn problem(error: &Error, has_others: bool, wording: fn(&str) -> String) -> Problem {
    let problem = Problem::of(error, wording);
    if has_others && error.to_string().contains(&MAX_MEMORY.to_string()) {
        let text = format!("other requests are in work; try again after them: {}", problem.text);
        return Problem::retry(StatusCode::SERVICE_UNAVAILABLE, text, 1);
    }
    problem
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::{Error, MAX_MEMORY, Ticket, Turns, problem};
    use crate::task::Budget;

    #[test]
    fn large_images_take_turns() {
        let (turns, budget) = (Turns::default(), Budget { max_memory: 512 << 20 });
        let take =
            |pixels, ticket: &Ticket| turns.take(pixels, budget, ticket).map(|it| it.is_some());
        let (waiting, stopped) = (Ticket::default(), Ticket::default());
        let turn = turns.take(4200 * 4200, budget, &waiting).unwrap();
        assert!(turn.is_some());
        // A small image does not wait, and one that is stopped does not for long.
        assert!(!take(64 * 48, &waiting).unwrap());
        stopped.stop();
        assert!(take(4200 * 4200, &stopped).is_err());
        thread::scope(|scope| {
            let other = scope.spawn(|| take(4200 * 4200, &waiting).unwrap());
            thread::sleep(Duration::from_millis(50));
            assert!(!other.is_finished(), "two large images are in work");
            drop(turn);
            assert!(other.join().unwrap());
        });
    }

    #[test]
    fn memory_that_others_take_is_short_for_a_moment() {
        let short = Error::input("the body", format!("it takes too much; raise {MAX_MEMORY}"));
        let damaged = Error::input("the body", "it is damaged");
        let status = |error, has_others| problem(error, has_others, str::to_owned).status.as_u16();
        assert_eq!((status(&short, true), status(&short, false)), (503, 422));
        assert_eq!((status(&damaged, true), status(&damaged, false)), (422, 422));
    }
}
