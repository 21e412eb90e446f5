//! Target frame rate and deadline, and the pace of processing.

use std::time::{Duration, Instant};

/// The target frame rate and deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Target {
    /// Frames per second. No more are processed, and a processor with quality steps lowers quality
    /// to reach it.
    pub rate: Option<f64>,
    /// Limit of the time from a frame's arrival to when it is written.
    pub deadline: Option<Duration>,
}

impl Target {
    /// Whether there is any target.
    pub fn is_some(&self) -> bool {
        self.rate.is_some() || self.deadline.is_some()
    }

    /// Time budget for processing a frame that has waited for `waiting` and takes `writing` to be
    /// written.
    pub fn budget(&self, waiting: Duration, writing: Duration) -> Option<Duration> {
        let of_rate = self.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        // A deadline that is already missed still leaves a twentieth of it.
        let of_deadline = self
            .deadline
            .map(|deadline| deadline.saturating_sub(waiting + writing).max(deadline / 20));
        of_rate.into_iter().chain(of_deadline).min()
    }
}

/// Exponential moving average with a weight of 1/5 for `new`.
pub(in crate::video) fn moving_average(mean: Duration, new: Duration) -> Duration {
    (4 * mean + new) / 5
}

/// Schedules the start of each frame.
pub(in crate::video) struct Pace {
    period: Duration,
    due: Option<Instant>,
}

impl Pace {
    pub(in crate::video) fn new(rate: f64) -> Self {
        Self { period: Duration::from_secs_f64(1.0 / rate), due: None }
    }

    /// Time left until the next frame is due.
    pub(in crate::video) fn early(&self) -> Option<Duration> {
        self.due
            .map(|due| due.saturating_duration_since(Instant::now()))
            .filter(|early| !early.is_zero())
    }

    /// Starts a frame. A delay of up to one period is made up by starting the next frame earlier.
    pub(in crate::video) fn begin(&mut self) {
        let now = Instant::now();
        let due = self.due.unwrap_or(now).max(now.checked_sub(self.period).unwrap_or(now));
        self.due = Some(due + self.period);
    }
}
