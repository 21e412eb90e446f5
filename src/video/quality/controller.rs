//! Quality control: lowers the quality of processing to keep up with the frame rate.
//!
//! Quality steps form a ladder, each cheaper than the one before: fewer sampler steps, longer reuse
//! of static tiles, smaller networks, reduced resolution. The control goes down as far as necessary
//! as soon as frames take too long. It goes up one step at a time when the next better quality step
//! is expected to fit. A step up is on trial at first: what is measured then is the step's own cost,
//! as the machine's speed is known from the step before. A step that fails its trial is not tried
//! again for a while, which grows with each failure, unless the machine becomes faster.

use std::time::{Duration, Instant};

use super::Scale;

/// Part of the budget to use after a step down, and that may be used after a step up.
const TARGET_AFTER_DOWN: f64 = 0.92;
const LIMIT_FOR_UP: f64 = 0.85;

/// Part of the budget for the network at first, when the time outside the network is unknown.
const INITIAL_PART: f64 = 0.8;

/// Consecutive frames that must exceed the budget before quality is lowered.
const LATE_FRAMES: u32 = 3;

/// Frames after a change from which the relative cost of the quality step is learned; all frames
/// measure the speed of the machine.
const SETTLING: u32 = 6;

/// Seconds after a change before a better quality step is tried.
const RAISE_DELAY: f64 = 2.0;

/// Seconds that a step up is on trial.
const TRIAL: f64 = 60.0;

/// Seconds before a step that failed its trial is tried again: at first, the factor with each further
/// failure, and at most.
const RETRY_DELAY: f64 = 4.0;
const RETRY_GROWTH: f64 = 4.0;
const MAX_RETRY_DELAY: f64 = 600.0;

/// Parts of the slowdown at a failed trial below which the machine has become faster, and above which
/// it became slower during the trial, which says nothing of the step then.
const FASTER: f64 = 0.7;
const SLOWER: f64 = 1.25;

/// Mean of the logarithm of measured to expected times within which the machine's speed is known.
const STEADY: f64 = 0.1;

/// Times within this factor count as equal.
const EQUAL_WITHIN: f64 = 1.1;

/// Factor on the expected cost of the next better quality step, and the seconds after which it is
/// applied each time.
const ESTIMATE_DECAY: f64 = 0.95;
const DECAY_INTERVAL: f64 = 60.0;

/// Limits of a quality step's cost, as parts of the initial estimate.
const COST_LIMITS: [f64; 2] = [0.25, 4.0];

/// Factor on the cost when static tiles are reused longer.
const REUSE_COST: f64 = 0.8;

/// A network is a quality step of its own only if its cost is below this part of the previous
/// one's.
const CHEAPER: f64 = 0.9;

/// A quality step: the settings with which a frame is processed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::video) struct QualityStep {
    /// Index of the network.
    pub(in crate::video) network: usize,
    pub(in crate::video) steps: usize,
    pub(in crate::video) reuse_tiles_longer: bool,
    pub(in crate::video) scale: Scale,
}

impl QualityStep {
    pub(in crate::video) fn best(steps: usize) -> Self {
        Self { network: 0, steps, reuse_tiles_longer: false, scale: Scale::FULL }
    }
}

/// The options to choose from.
#[derive(Clone, Debug)]
pub(in crate::video) struct Choices {
    /// Maximum number of sampler steps.
    pub(in crate::video) steps: usize,
    /// Time of one evaluation of a whole frame in seconds, for each network, from best to
    /// cheapest.
    pub(in crate::video) costs: Vec<f64>,
    /// Whether previous frames are used, so that tiles can be reused.
    pub(in crate::video) temporal: bool,
    /// Reduced sizes at which frames can be processed, from large to small.
    pub(in crate::video) scales: Vec<Scale>,
}

/// Quality steps from best to cheapest, and the expected time of each.
fn ladder(Choices { steps, costs, temporal, scales }: &Choices) -> (Vec<QualityStep>, Vec<f64>) {
    let (mut ladder_steps, mut times) = (Vec::new(), Vec::new());
    let mut add = |step: QualityStep| {
        let cost = costs.get(step.network).copied().unwrap_or_default();
        let kept = if step.reuse_tiles_longer { REUSE_COST } else { 1.0 };
        ladder_steps.push(step);
        times.push(cost * step.steps as f64 * kept * step.scale.factor().powi(2));
    };
    let mut step = QualityStep::best(*steps);
    add(step);
    while step.steps > 1 {
        step.steps = step.steps.div_ceil(2);
        add(step);
    }
    if *temporal {
        step.reuse_tiles_longer = true;
        add(step);
    }
    for network in 1..costs.len() {
        if costs[network] < CHEAPER * costs[step.network] {
            step.network = network;
            add(step);
        }
    }
    for scale in scales {
        step.scale = *scale;
        add(step);
    }
    (ladder_steps, times)
}

/// Keeps frames within their time budget.
#[derive(Debug)]
pub(in crate::video) struct QualityController {
    choices: Choices,
    control: LadderControl,
    budget: Duration,
    started: Instant,
}

impl QualityController {
    /// A controller for frames with this time budget.
    pub(in crate::video) fn new(choices: Choices, budget: Duration) -> Self {
        let control = LadderControl::new(&choices, budget.as_secs_f64());
        Self { choices, control, budget, started: Instant::now() }
    }

    /// The quality step for the next frame.
    pub(in crate::video) fn step(&self) -> QualityStep {
        self.control.step()
    }

    /// Sets the time budget of the next frame.
    pub(in crate::video) fn set_budget(&mut self, budget: Duration) {
        self.budget = budget;
    }

    /// Starts again, with at most `steps` sampler steps where given.
    pub(in crate::video) fn restart(&mut self, steps: Option<usize>, temporal: bool) {
        self.choices.steps = steps.unwrap_or(self.choices.steps);
        self.choices.temporal = temporal;
        self.control = LadderControl::new(&self.choices, self.budget.as_secs_f64());
        self.started = Instant::now();
    }

    /// Records the time that a frame took in evaluations and outside them. Returns the quality
    /// step for the next frame if it changes.
    pub(in crate::video) fn record_time(
        &mut self,
        network: Duration,
        overhead: Duration,
    ) -> Option<QualityStep> {
        let [now, network, overhead, budget] =
            [self.started.elapsed(), network, overhead, self.budget].map(|time| time.as_secs_f64());
        self.control.record_time(now, network, overhead, budget).then(|| self.control.step())
    }
}

/// Chooses the quality step for each frame.
#[derive(Debug)]
struct LadderControl {
    ladder_steps: Vec<QualityStep>,
    /// Time of the network in each quality step in seconds, at a slowdown of 1.
    weights: Vec<f64>,
    /// The initial estimates of these times.
    estimates: Vec<f64>,
    /// Factor by which the network is slower at present.
    slowdown: f64,
    /// Moving average of the logarithm of measured to expected times, far from 0 while the machine
    /// changes its speed.
    drift: f64,
    /// Time outside the network, in seconds.
    overhead: f64,
    at: usize,
    /// Frames since the last change.
    frames: u32,
    late_frames: u32,
    /// When the quality step last changed, if ever.
    changed: Option<f64>,
    /// The trial of the present quality step, if it is on trial.
    trial: Option<Trial>,
    failed: Option<FailedTrial>,
    /// When the expected cost of the next better quality step was last lowered.
    lowered_estimate: f64,
}

/// A quality step that has been raised.
#[derive(Clone, Copy, Debug)]
struct Trial {
    since: f64,
    /// The step's time as it was expected, at a slowdown of 1.
    weight: f64,
}

/// A quality step that took too long when it was tried.
#[derive(Clone, Copy, Debug)]
struct FailedTrial {
    step: usize,
    /// The step's time as it was expected before.
    weight: f64,
    /// Seconds that it is not tried again, and when they are over.
    delay: f64,
    until: f64,
    /// The slowdown of the machine at the failure.
    slowdown: f64,
}

impl LadderControl {
    /// A control for frames with a budget of `budget` seconds.
    fn new(choices: &Choices, budget: f64) -> Self {
        let (ladder_steps, weights) = ladder(choices);
        let mut control = Self {
            ladder_steps,
            estimates: weights.clone(),
            weights,
            slowdown: 1.0,
            drift: 0.0,
            overhead: 0.0,
            at: 0,
            frames: 0,
            late_frames: 0,
            changed: None,
            trial: None,
            failed: None,
            lowered_estimate: 0.0,
        };
        control.at = control.first_within(INITIAL_PART * budget, 0);
        control
    }

    /// The quality step for the next frame.
    fn step(&self) -> QualityStep {
        self.ladder_steps[self.at]
    }

    fn expected(&self, step: usize) -> f64 {
        self.overhead + self.slowdown * self.weights[step]
    }

    /// The best quality step from `from` on that fits; if none fits, the best whose time is about
    /// equal to the cheapest one's.
    fn first_within(&self, seconds: f64, from: usize) -> usize {
        let last = self.ladder_steps.len() - 1;
        let seconds = seconds.max(EQUAL_WITHIN * self.expected(last));
        (from..last).find(|step| self.expected(*step) <= seconds).unwrap_or(last)
    }

    /// Records a frame that took `network` seconds of evaluations and `overhead` seconds outside
    /// them, at the time `now`. `budget` is that of the next frame. Returns whether the quality
    /// step changes.
    fn record_time(&mut self, now: f64, network: f64, overhead: f64, budget: f64) -> bool {
        self.frames += 1;
        if self.frames == 1 {
            // The first frame's time includes the allocation of memory.
            return false;
        }
        self.learn(network, overhead);
        self.late_frames = if network + overhead > budget { self.late_frames + 1 } else { 0 };
        if self.late_frames >= LATE_FRAMES && self.expected(self.at) > budget {
            return self.lower(now, budget);
        }
        self.review(now);
        if self.at > 0 && now - self.lowered_estimate >= DECAY_INTERVAL {
            // Estimates that are old or were never measured on their own may be wrong.
            self.lowered_estimate = now;
            self.weights[self.at - 1] =
                (ESTIMATE_DECAY * self.weights[self.at - 1]).max(0.5 * self.estimates[self.at - 1]);
        }
        if self.may_raise(now) && self.expected(self.at - 1) <= LIMIT_FOR_UP * budget {
            self.change(self.at - 1, now);
            self.trial = Some(Trial { since: now, weight: self.weights[self.at] });
            return true;
        }
        false
    }

    /// Takes a cheaper quality step, if there is one. Returns whether there is.
    fn lower(&mut self, now: f64, budget: f64) -> bool {
        if let Some(Trial { weight, .. }) = self.trial.take() {
            let delay = self
                .failed
                .map_or(RETRY_DELAY, |failed| (RETRY_GROWTH * failed.delay).min(MAX_RETRY_DELAY));
            let (step, slowdown, until) = (self.at, self.slowdown, now + delay);
            self.failed = Some(FailedTrial { step, weight, delay, until, slowdown });
        }
        let next = (self.at + 1).min(self.ladder_steps.len() - 1);
        self.change(self.first_within(TARGET_AFTER_DOWN * budget, next), now)
    }

    /// Ends a trial that has succeeded, and forgets a failure on a machine that has become faster, or
    /// slower during the trial.
    fn review(&mut self, now: f64) {
        if self.trial.is_some_and(|trial| now - trial.since > TRIAL) {
            self.trial = None;
            self.failed = self.failed.filter(|failed| failed.step < self.at);
        }
        let Some(failed) = self.failed else { return };
        let slowdown = self.slowdown / failed.slowdown;
        if self.trial.is_none() && self.frames == SETTLING && slowdown > SLOWER {
            self.weights[failed.step] = failed.weight;
            self.failed = None;
        } else if slowdown < FASTER {
            self.failed = None;
        }
    }

    /// Whether the next better quality step may be tried.
    fn may_raise(&self, now: f64) -> bool {
        let is_blocked =
            self.failed.is_some_and(|failed| self.at <= failed.step + 1 && now < failed.until);
        self.at > 0
            && !is_blocked
            && self.frames > SETTLING
            && self.drift.abs() < STEADY
            && now - self.changed.unwrap_or(0.0) >= RAISE_DELAY
    }

    fn learn(&mut self, network: f64, overhead: f64) {
        if self.overhead == 0.0 {
            self.overhead = overhead;
        }
        self.overhead += 0.2 * (overhead - self.overhead);
        // A static scene takes almost no time.
        let ratio = (network / (self.slowdown * self.weights[self.at]).max(1e-6)).clamp(0.05, 20.0);
        self.drift += 0.2 * (ratio.ln() - self.drift);
        // Slower frames change the estimate sooner than faster ones.
        let gain = if ratio > 1.5 { 0.6 } else { 0.2 };
        let [of_step, of_machine] = match (self.changed, self.trial) {
            (Some(_), Some(_)) if self.frames <= SETTLING => [gain + 0.1, 0.0],
            (Some(_), None) if self.frames <= SETTLING => [0.1, gain],
            _ => [0.0, gain],
        };
        self.slowdown *= ratio.powf(of_machine);
        let limits = COST_LIMITS.map(|part| part * self.estimates[self.at]);
        let weight = self.weights[self.at] * ratio.powf(of_step);
        self.weights[self.at] = weight.clamp(limits[0], limits[1]);
    }

    fn change(&mut self, to: usize, now: f64) -> bool {
        if to == self.at {
            return false;
        }
        (self.at, self.frames, self.late_frames) = (to, 0, 0);
        (self.changed, self.lowered_estimate) = (Some(now), now);
        true
    }
}

#[cfg(test)]
mod simulated;

#[cfg(test)]
mod tests {
    use super::{Choices, LadderControl, QualityStep, ladder};
    use crate::video::Scale;

    const COSTS: [f64; 3] = [0.16, 0.07, 0.045];

    fn choices(steps: usize, costs: &[f64], temporal: bool) -> Choices {
        Choices { steps, costs: costs.to_vec(), temporal, scales: Scale::SMALLER.to_vec() }
    }

    /// Simulates a machine on which a frame takes the ladder's time multiplied by `slow(t)`, and
    /// `overhead` seconds outside it.
    fn run(
        control: &mut LadderControl,
        seconds: f64,
        budget: f64,
        overhead: f64,
        slow: impl Fn(f64, QualityStep) -> f64,
    ) -> (f64, Vec<QualityStep>) {
        let (mut now, mut frames, mut ladder_steps) = (0.0, 0.0, vec![control.step()]);
        while now < seconds {
            let step = control.step();
            let jitter = 1.0 + 0.05 * f64::sin(frames * 1.7);
            let network = COSTS[step.network]
                * step.steps as f64
                * step.scale.factor().powi(2)
                * slow(now, step);
            now += (network * jitter + overhead).max(budget);
            frames += 1.0;
            if control.record_time(now, network * jitter, overhead, budget) {
                ladder_steps.push(control.step());
            }
        }
        (frames / now, ladder_steps)
    }

    #[test]
    fn orders_quality_steps_from_best_to_cheapest() {
        let (ladder_steps, times) = ladder(&choices(4, &COSTS, true));
        let facts: Vec<_> = ladder_steps
            .iter()
            .map(|r| (r.steps, r.reuse_tiles_longer, r.network, r.scale.to_string()))
            .collect();
        let expected = [
            (4, false, 0, "1"),
            (2, false, 0, "1"),
            (1, false, 0, "1"),
            (1, true, 0, "1"),
            (1, true, 1, "1"),
            (1, true, 2, "1"),
            (1, true, 2, "3/4"),
            (1, true, 2, "2/3"),
            (1, true, 2, "1/2"),
            (1, true, 2, "1/3"),
            (1, true, 2, "1/4"),
        ];
        assert_eq!(
            facts,
            expected.map(|(steps, reuse_tiles_longer, network, scale)| (
                steps,
                reuse_tiles_longer,
                network,
                scale.to_owned()
            ))
        );
        assert!(times.is_sorted_by(|a, b| a > b), "{times:?}");
        // Networks that are not cheaper are left out.
        assert_eq!(
            ladder(&choices(1, &[0.1, 0.095, 0.2], false)).0.len(),
            1 + Scale::SMALLER.len()
        );
    }

    #[test]
    fn finds_and_keeps_the_best_step_that_fits() {
        for (budget, network, scale) in
            [(1.0, 0, "1"), (0.1, 1, "1"), (0.06, 2, "1"), (0.035, 2, "3/4"), (0.008, 2, "1/3")]
        {
            let mut control = LadderControl::new(&choices(1, &COSTS, false), budget);
            let (rate, ladder_steps) = run(&mut control, 120.0, budget, 0.002, |_, _| 1.0);
            let last = control.step();
            assert_eq!(
                (last.network, last.scale.to_string().as_str()),
                (network, scale),
                "{budget}: {ladder_steps:?}"
            );
            assert!((rate * budget - 1.0).abs() < 0.02, "{budget}: {rate}");
            assert!(ladder_steps.len() <= 3, "{budget}: {ladder_steps:?}");
        }
    }

    #[test]
    fn reduces_sampler_steps_first() {
        let mut control = LadderControl::new(&choices(8, &COSTS, false), 0.4);
        run(&mut control, 60.0, 0.4, 0.01, |_, _| 1.0);
        assert_eq!(control.step(), QualityStep { steps: 2, ..QualityStep::best(8) });
    }

    #[test]
    fn lowers_quality_at_once_and_raises_it_soon() {
        let mut control = LadderControl::new(&choices(1, &COSTS, false), 0.1);
        let slow = |now: f64, _| if (20.0..60.0).contains(&now) { 2.5 } else { 1.0 };
        let (rate, ladder_steps) = run(&mut control, 60.0, 0.1, 0.005, slow);
        assert!(rate > 9.5, "{rate}: {ladder_steps:?}");
        assert!(control.step().scale != Scale::FULL, "{ladder_steps:?}");
        run(&mut control, 120.0, 0.1, 0.005, |_, _| 1.0);
        assert_eq!(control.step(), QualityStep { network: 1, ..QualityStep::best(1) });
    }

    #[test]
    fn stops_trying_a_step_that_costs_more_than_expected() {
        let mut control = LadderControl::new(&choices(1, &COSTS, false), 0.1);
        // Here the middle network is not faster than the large one.
        let (rate, ladder_steps) =
            run(
                &mut control,
                600.0,
                0.1,
                0.005,
                |_, step| if step.network == 1 { 2.0 } else { 1.0 },
            );
        assert_eq!(control.step().network, 2);
        assert!(rate > 9.9 && ladder_steps.len() < 12, "{rate}: {}", ladder_steps.len());
    }

    #[test]
    fn tries_a_step_again_whose_measured_cost_was_too_high() {
        let mut disturbed = choices(1, &COSTS, false);
        disturbed.costs[1] *= 1.6;
        let mut control = LadderControl::new(&disturbed, 0.1);
        let (rate, ladder_steps) = run(&mut control, 1800.0, 0.1, 0.005, |_, _| 1.0);
        assert_eq!(control.step().network, 1, "{ladder_steps:?}");
        assert!(rate > 9.9);
    }

    #[test]
    fn uses_the_cheapest_step_when_nothing_fits() {
        let mut control = LadderControl::new(&choices(1, &COSTS, false), 0.001);
        let (_, ladder_steps) = run(&mut control, 10.0, 0.001, 0.01, |_, _| 1.0);
        assert_eq!((ladder_steps.len(), control.step().scale.to_string().as_str()), (1, "1/4"));
    }
}
