//! How fast frames are to go through, and when the next is due.

use std::time::{Duration, Instant};

/// How fast frames are to go through.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Target {
    /// Frames per second: no more are worked on, and a restorer that can do less to each frame does so that it be no fewer.
    pub rate: Option<f64>,
    /// The time that a frame may take from its arrival to when it is written.
    pub deadline: Option<Duration>,
}

impl Target {
    /// Whether there is one.
    pub fn is_some(&self) -> bool {
        self.rate.is_some() || self.deadline.is_some()
    }

    /// The time that work on a frame may take which has waited for so long already, and that takes so long to be written.
    pub fn budget(&self, waiting: Duration, writing: Duration) -> Option<Duration> {
        let of_rate = self.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        // A deadline that is missed already asks for the least, but not for nothing.
        let of_deadline = self.deadline.map(|deadline| deadline.saturating_sub(waiting + writing).max(deadline / 20));
        of_rate.into_iter().chain(of_deadline).min()
    }
}

/// The mean of the last few, of which `new` is one.
pub(super) fn moving_average(mean: Duration, new: Duration) -> Duration {
    (4 * mean + new) / 5
}

/// When work on the next frame is to begin.
pub(super) struct Pace {
    period: Duration,
    due: Option<Instant>,
}

impl Pace {
    pub(super) fn new(rate: f64) -> Self {
        Self { period: Duration::from_secs_f64(1.0 / rate), due: None }
    }

    /// How much too early it is.
    pub(super) fn early(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now())).filter(|early| !early.is_zero())
    }

    /// Work on a frame begins. What is late is made up for, by one period at most: the next frame comes earlier.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        let due = self.due.unwrap_or(now).max(now.checked_sub(self.period).unwrap_or(now));
        self.due = Some(due + self.period);
    }
}
