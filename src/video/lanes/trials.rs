//! Which way is faster at present, one frame after another or several at the same time, from the
//! times of the stream's own frames.

use std::time::{Duration, Instant};

use super::FRAMES_PER_LANE;

/// Shortest measurement.
const SHORTEST: Duration = Duration::from_millis(250);

/// Part of the time frame by frame that a frame may take at most for frames in parallel.
const LEAST_GAIN: f64 = 0.97;

/// Part of the time that trials of the slower way may cost on average.
const TRIAL_SHARE: f64 = 0.02;

/// Limits of the time between trials.
const WAITS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// Change of the time of a frame, as a ratio, after which the next trial comes earlier: the load of
/// the machine or the frames have changed.
const CHANGED: f64 = 1.15;

/// Part of that wait which is kept then.
const EARLIER: f64 = 0.25;

/// Times of a frame after which the program was paused rather than slow.
const PAUSE: f64 = 8.0;

/// Part of the time that processing takes at least for a trial. Otherwise the source or the sink
/// limits the rate.
const BUSY: f64 = 0.9;

/// Measures frames and decides. Frames are processed one after another at first.
#[derive(Debug)]
pub(in crate::video) struct Trials {
    lanes: usize,
    parallel: bool,
    /// Whether the present way is on trial.
    on_trial: bool,
    changes: u64,
    /// Seconds of a frame at the last decision: one after another, and in parallel.
    times: [Option<f64>; 2],
    /// Seconds of a frame the present way since then.
    recent: Option<f64>,
    measured: Measured,
    /// Frames after a change that are not measured.
    settling: usize,
    last: Option<Instant>,
    /// The last decision, and how long it holds.
    decided: Option<(Instant, Duration)>,
}

/// A measurement in progress.
#[derive(Debug, Default)]
struct Measured {
    frames: usize,
    elapsed: Duration,
    /// Time spent in processing, which waits for lanes too.
    processing: Duration,
}

impl Trials {
    /// For that number of lanes.
    pub(in crate::video) fn new(lanes: usize) -> Self {
        Self {
            lanes,
            parallel: false,
            on_trial: false,
            changes: 0,
            times: [None; 2],
            recent: None,
            measured: Measured::default(),
            settling: 0,
            last: None,
            decided: None,
        }
    }

    /// Whether the next frame is processed in parallel.
    pub(in crate::video) fn is_parallel(&self) -> bool {
        self.parallel
    }

    /// How often the way has changed.
    pub(in crate::video) fn changes(&self) -> u64 {
        self.changes
    }

    /// Seconds of a frame, one after another and in parallel, as last measured.
    pub(in crate::video) fn times(&self) -> [Option<f64>; 2] {
        let mut times = self.times;
        if let (Some(recent), false) = (self.recent, self.on_trial) {
            times[usize::from(self.parallel)] = Some(recent);
        }
        times
    }

    /// Records a frame whose processing took from `started` to `ended`, and decides about the next.
    pub(in crate::video) fn record(&mut self, started: Instant, ended: Instant) {
        // The first frame allocates memory.
        let Some(last) = self.last.replace(ended) else { return };
        if self.settling > 0 {
            self.settling -= 1;
            return;
        }
        let elapsed = ended.saturating_duration_since(last);
        let [alone, together] = self.times();
        if let Some(usual) = alone.or(together)
            && elapsed.as_secs_f64() > PAUSE * usual
        {
            self.measured = Measured::default();
            return;
        }
        let round = self.frames();
        let measured = &mut self.measured;
        measured.frames += 1;
        measured.elapsed += elapsed;
        measured.processing += ended.saturating_duration_since(started);
        // Lanes finish frames together, so only whole rounds have a mean.
        if !measured.frames.is_multiple_of(round) || measured.elapsed < SHORTEST {
            return;
        }
        let Measured { frames, elapsed, processing } = std::mem::take(measured);
        let seconds = elapsed.as_secs_f64() / frames as f64;
        if self.on_trial {
            self.times[usize::from(self.parallel)] = Some(seconds);
            self.decide(ended);
        } else {
            let is_waiting = !self.parallel && processing < elapsed.mul_f64(BUSY);
            self.follow(seconds, is_waiting, ended);
        }
    }

    /// Frames of a measurement: two for each lane, and no fewer than four.
    fn frames(&self) -> usize {
        (2 * self.lanes).max(4)
    }

    /// Frames that finish after a change before the new way has its own pace: the first for each
    /// lane, or those that lanes still hold and the first without them.
    fn settling(&self) -> usize {
        if self.parallel { self.lanes } else { FRAMES_PER_LANE * self.lanes }
    }

    /// Ends a trial.
    fn decide(&mut self, now: Instant) {
        self.on_trial = false;
        self.recent = None;
        let [Some(alone), Some(together)] = self.times else { return };
        let parallel = together < LEAST_GAIN * alone;
        // A trial of the slower way costs its frames' difference, and about a frame's time to
        // change.
        let cost = (alone - together).abs() * (self.frames() + self.settling()) as f64
            + alone.min(together);
        let [least, most] = WAITS.map(|wait| wait.as_secs_f64());
        let wait = Duration::from_secs_f64((cost / TRIAL_SHARE).clamp(least, most));
        self.decided = Some((now, wait));
        if parallel != self.parallel {
            self.change();
        }
    }

    /// Begins a trial of the other way when one is due.
    fn follow(&mut self, seconds: f64, is_waiting: bool, now: Instant) {
        let recent = self.recent.map_or(seconds, |recent| 0.5 * (recent + seconds));
        self.recent = Some(recent);
        let way = usize::from(self.parallel);
        let due = self.decided.is_none_or(|(at, wait)| {
            let changed =
                self.times[way].is_some_and(|then| (recent / then).max(then / recent) > CHANGED);
            let wait = if changed { wait.mul_f64(EARLIER) } else { wait };
            now.saturating_duration_since(at) >= wait
        });
        if due && !is_waiting {
            self.times[way] = Some(recent);
            self.on_trial = true;
            self.change();
        }
    }

    fn change(&mut self) {
        self.parallel = !self.parallel;
        self.changes += 1;
        self.measured = Measured::default();
        self.settling = self.settling();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Trials;

    /// Frames of a stream on a machine whose times of a frame, one after another and in parallel,
    /// are given in milliseconds.
    struct Machine {
        trials: Trials,
        began: Instant,
        now: Instant,
        frames: u32,
        in_parallel: u32,
    }

    impl Machine {
        fn new() -> Self {
            let now = Instant::now();
            Self { trials: Trials::new(2), began: now, now, frames: 0, in_parallel: 0 }
        }

        fn run(&mut self, seconds: u64, [alone, together]: [u64; 2], source: u64) -> &mut Self {
            let until = self.now + Duration::from_secs(seconds);
            (self.began, self.frames, self.in_parallel) = (self.now, 0, 0);
            while self.now < until {
                let work = if self.trials.is_parallel() { together } else { alone };
                let ready = self.now + Duration::from_millis(work.max(source));
                self.in_parallel += u32::from(self.trials.is_parallel());
                self.trials.record(ready - Duration::from_millis(work), ready);
                self.now = ready;
                self.frames += 1;
            }
            self
        }

        /// Mean milliseconds of a frame.
        fn mean(&self) -> f64 {
            1e3 * (self.now - self.began).as_secs_f64() / f64::from(self.frames)
        }

        /// Whether frames are processed in parallel, apart from a trial.
        fn is_parallel(&self) -> bool {
            self.trials.parallel != self.trials.on_trial
        }

        fn parallel_part(&self) -> f64 {
            f64::from(self.in_parallel) / f64::from(self.frames)
        }
    }

    #[test]
    fn the_faster_way_is_taken_and_trials_of_the_other_cost_little() {
        for [alone, together] in [[100, 60], [100, 90], [100, 130], [100, 300], [500, 400]] {
            let mut machine = Machine::new();
            let mean = machine.run(200, [alone, together], 0).mean();
            let best = alone.min(together) as f64;
            assert!(mean < 1.03 * best, "{alone} {together}: {mean}");
            assert_eq!(machine.is_parallel(), together < alone);
        }
    }

    #[test]
    fn a_change_of_load_changes_the_way_within_seconds() {
        let mut machine = Machine::new();
        machine.run(60, [100, 105], 0);
        assert!(!machine.is_parallel());
        assert!(machine.run(10, [160, 110], 0).is_parallel());
        assert!(machine.run(60, [160, 110], 0).parallel_part() > 0.9);
        assert!(!machine.run(30, [60, 150], 0).is_parallel());
        assert!(machine.run(60, [60, 150], 0).parallel_part() < 0.1);
    }

    #[test]
    fn the_same_time_means_one_after_another() {
        let mut machine = Machine::new();
        machine.run(120, [100, 99], 0);
        assert!(machine.parallel_part() < 0.1, "{}", machine.parallel_part());
    }

    /// Then nothing can be gained, and frames would only wait for others.
    #[test]
    fn frames_of_a_slow_source_are_processed_one_after_another() {
        let mut machine = Machine::new();
        machine.run(60, [50, 30], 200);
        assert_eq!((machine.in_parallel, machine.trials.changes()), (0, 0));
        machine.run(60, [50, 30], 0);
        assert!(machine.is_parallel());
        machine.run(60, [50, 30], 200);
        assert!(!machine.is_parallel());
    }

    #[test]
    fn a_pause_of_the_whole_program_is_not_lasting() {
        let mut machine = Machine::new();
        machine.run(20, [100, 60], 0).now += Duration::from_secs(30);
        assert!(machine.run(60, [100, 60], 0).parallel_part() > 0.9);
        assert!(machine.is_parallel());
    }

    #[test]
    fn times_are_those_that_were_measured() {
        let mut machine = Machine::new();
        assert_eq!(machine.trials.times(), [None; 2]);
        machine.run(30, [100, 60], 0);
        let [alone, together] = machine.trials.times().map(|time| time.unwrap());
        assert!((alone - 0.1).abs() < 1e-6 && (together - 0.06).abs() < 1e-6);
    }
}
