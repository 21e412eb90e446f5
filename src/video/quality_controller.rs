//! What is given up to keep up: from what frames took, how much is done to the next.
//!
//! There is a ladder of ways to treat a frame, each cheaper than the one before: fewer steps, static tiles that are kept
//! longer, smaller networks, frames made smaller. The governor goes down as far as it must as soon as frames take too
//! long, and up again rung by rung when the next better one would fit; a way up that had to be taken back is tried again
//! later each time.

use std::time::{Duration, Instant};

use super::stream_status::Scale;

/// Of the time that there is, so much is used after a way down, and expected to be used after a way up.
const DOWN_TO: f64 = 0.92;
const UP_TO: f64 = 0.85;

/// At first, when it is not known what there is beside the network, so much.
const AT_FIRST: f64 = 0.8;

/// So many frames in a row have to take too long before less is done.
const TOO_LONG: u32 = 3;

/// Frames tell how fast the machine is now; so many after a change, what a rung costs beside the others, too.
const SETTLING: u32 = 6;

/// How long it takes before more is tried, in seconds: the first time, and at most.
const POLL_TIMEOUT: f64 = 2.0;
const MOST_PATIENCE: f64 = 60.0;

/// So many times as long is hardly longer.
const HARDLY: f64 = 1.1;

/// Each time that the longest patience passes, the next better rung is thought to take this part of what it was.
const HOPE: f64 = 0.95;

/// Tiles that are kept longer save about this part.
const THRIFT: f64 = 0.8;

/// Another network is worth a rung when it takes less than this part.
const CHEAPER: f64 = 0.9;

/// A way to treat a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct QualityStep {
    /// Which of the networks.
    pub(super) network: usize,
    pub(super) steps: usize,
    pub(super) reuse_tiles_longer: bool,
    pub(super) scale: Scale,
}

impl QualityStep {
    pub(super) fn best(steps: usize) -> Self {
        Self { network: 0, steps, reuse_tiles_longer: false, scale: Scale::FULL }
    }
}

/// What there is to choose from.
#[derive(Clone, Debug)]
pub(super) struct Choices {
    /// Steps at most.
    pub(super) steps: usize,
    /// What an evaluation of a whole frame takes, in seconds, by network, the best first.
    pub(super) costs: Vec<f64>,
    /// Whether previous frames are used, so that tiles can be kept.
    pub(super) temporal: bool,
    /// At what smaller sizes frames can be worked on, from large to small.
    pub(super) scales: Vec<Scale>,
}

/// Ways to treat a frame, from the best to the cheapest, and what each takes.
fn ladder(Choices { steps, costs, temporal, scales }: &Choices) -> (Vec<QualityStep>, Vec<f64>) {
    let (mut rungs, mut times) = (Vec::new(), Vec::new());
    let mut add = |step: QualityStep| {
        let cost = costs.get(step.network).copied().unwrap_or_default();
        let kept = if step.reuse_tiles_longer { THRIFT } else { 1.0 };
        rungs.push(step);
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
    (rungs, times)
}

/// Keeps frames within the time that they may take.
#[derive(Debug)]
pub(super) struct QualityController {
    choices: Choices,
    governor: Governor,
    budget: Duration,
    begun: Instant,
}

impl QualityController {
    /// For frames that may take so long.
    pub(super) fn new(choices: Choices, budget: Duration) -> Self {
        let governor = Governor::new(&choices, budget.as_secs_f64());
        Self { choices, governor, budget, begun: Instant::now() }
    }

    /// How to treat the next frame.
    pub(super) fn step(&self) -> QualityStep {
        self.governor.step()
    }

    /// The next frame may take so long.
    pub(super) fn set_budget(&mut self, budget: Duration) {
        self.budget = budget;
    }

    /// Begins anew, with at most so many steps where that changes.
    pub(super) fn restart(&mut self, steps: Option<usize>, temporal: bool) {
        self.choices.steps = steps.unwrap_or(self.choices.steps);
        self.choices.temporal = temporal;
        self.governor = Governor::new(&self.choices, self.budget.as_secs_f64());
        self.begun = Instant::now();
    }

    /// A frame took so long for evaluations and beside them. Returns how to treat the next where that changes.
    pub(super) fn took(&mut self, network: Duration, beside: Duration) -> Option<QualityStep> {
        let [now, network, beside, budget] =
            [self.begun.elapsed(), network, beside, self.budget].map(|time| time.as_secs_f64());
        self.governor.took(now, network, beside, budget).then(|| self.governor.step())
    }
}

/// Chooses the rung for each frame.
#[derive(Debug)]
struct Governor {
    rungs: Vec<QualityStep>,
    /// What the network takes on each rung, in seconds, at speed 1.
    weights: Vec<f64>,
    /// What it was thought to take at first.
    priors: Vec<f64>,
    /// How much longer it takes at present.
    speed: f64,
    /// What is beside the network.
    overhead: f64,
    at: usize,
    /// Frames since the last change.
    frames: u32,
    too_long: u32,
    patience: f64,
    /// When the rung last changed, if it did, and when the last way up was taken.
    changed: Option<f64>,
    raised: Option<f64>,
    /// When the next better rung was last thought to be cheaper than it was.
    hoped: f64,
}

impl Governor {
    /// For frames that may take `budget` seconds.
    fn new(choices: &Choices, budget: f64) -> Self {
        let (rungs, weights) = ladder(choices);
        let mut governor = Self {
            rungs,
            priors: weights.clone(),
            weights,
            speed: 1.0,
            overhead: 0.0,
            at: 0,
            frames: 0,
            too_long: 0,
            patience: POLL_TIMEOUT,
            changed: None,
            raised: None,
            hoped: 0.0,
        };
        governor.at = governor.first_within(AT_FIRST * budget, 0);
        governor
    }

    /// How to treat the next frame.
    fn step(&self) -> QualityStep {
        self.rungs[self.at]
    }

    fn expected(&self, step: usize) -> f64 {
        self.overhead + self.speed * self.weights[step]
    }

    /// The best rung from `from` on that fits; where none does, the best that hardly takes longer than the cheapest.
    fn first_within(&self, seconds: f64, from: usize) -> usize {
        let last = self.rungs.len() - 1;
        let seconds = seconds.max(HARDLY * self.expected(last));
        (from..last).find(|step| self.expected(*step) <= seconds).unwrap_or(last)
    }

    /// A frame took `network` seconds of evaluations and `overhead` seconds beside them, at the time `now`; the next may take
    /// `budget`. Returns whether it is to be treated otherwise.
    fn took(&mut self, now: f64, network: f64, overhead: f64, budget: f64) -> bool {
        self.frames += 1;
        if self.frames == 1 {
            // It took memory for the others, too.
            return false;
        }
        self.learn(network, overhead);
        self.too_long = if network + overhead > budget { self.too_long + 1 } else { 0 };
        if self.too_long >= TOO_LONG && self.expected(self.at) > budget {
            let to = self.first_within(DOWN_TO * budget, (self.at + 1).min(self.rungs.len() - 1));
            if self.raised.is_some_and(|raised| now - raised < 2.0 * self.patience) {
                self.patience = (2.0 * self.patience).min(MOST_PATIENCE);
            }
            return self.change(to, now);
        }
        if self.raised.is_some_and(|raised| now - raised > MOST_PATIENCE) {
            self.patience = POLL_TIMEOUT;
        }
        if self.at > 0 && now - self.hoped >= MOST_PATIENCE {
            // What was measured long ago, or never on its own, may be wrong.
            self.hoped = now;
            self.weights[self.at - 1] = (HOPE * self.weights[self.at - 1]).max(0.5 * self.priors[self.at - 1]);
        }
        let has_settled = self.frames > SETTLING && now - self.changed.unwrap_or(0.0) >= self.patience;
        if has_settled && self.at > 0 && self.expected(self.at - 1) <= UP_TO * budget {
            self.raised = Some(now);
            return self.change(self.at - 1, now);
        }
        false
    }

    fn learn(&mut self, network: f64, overhead: f64) {
        if self.overhead == 0.0 {
            self.overhead = overhead;
        }
        self.overhead += 0.2 * (overhead - self.overhead);
        // A scene at rest takes next to nothing.
        let ratio = (network / (self.speed * self.weights[self.at]).max(1e-6)).clamp(0.05, 20.0);
        // Worse is believed sooner than better.
        self.speed *= ratio.powf(if ratio > 1.5 { 0.6 } else { 0.2 });
        if self.changed.is_some() && self.frames <= SETTLING {
            let prior = self.priors[self.at];
            self.weights[self.at] = (self.weights[self.at] * ratio.powf(0.1)).clamp(0.5 * prior, 2.0 * prior);
        }
    }

    fn change(&mut self, to: usize, now: f64) -> bool {
        if to == self.at {
            return false;
        }
        (self.at, self.frames, self.too_long) = (to, 0, 0);
        (self.changed, self.hoped) = (Some(now), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Choices, Governor, QualityStep, ladder};
    use crate::video::Scale;

    const COSTS: [f64; 3] = [0.16, 0.07, 0.045];

    fn choices(steps: usize, costs: &[f64], temporal: bool) -> Choices {
        Choices { steps, costs: costs.to_vec(), temporal, scales: Scale::SMALLER.to_vec() }
    }

    /// A machine on which a frame takes what the ladder says, `slow(t)` times, and `overhead` beside.
    fn run(
        governor: &mut Governor,
        seconds: f64,
        budget: f64,
        overhead: f64,
        slow: impl Fn(f64, QualityStep) -> f64,
    ) -> (f64, Vec<QualityStep>) {
        let (mut now, mut frames, mut rungs) = (0.0, 0.0, vec![governor.step()]);
        while now < seconds {
            let step = governor.step();
            let jitter = 1.0 + 0.05 * f64::sin(frames * 1.7);
            let network = COSTS[step.network] * step.steps as f64 * step.scale.factor().powi(2) * slow(now, step);
            now += (network * jitter + overhead).max(budget);
            frames += 1.0;
            if governor.took(now, network * jitter, overhead, budget) {
                rungs.push(governor.step());
            }
        }
        (frames / now, rungs)
    }

    #[test]
    fn what_is_given_up_goes_by_rank() {
        let (rungs, times) = ladder(&choices(4, &COSTS, true));
        let facts: Vec<_> =
            rungs.iter().map(|r| (r.steps, r.reuse_tiles_longer, r.network, r.scale.to_string())).collect();
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
        // What is not cheaper is no way out.
        assert_eq!(ladder(&choices(1, &[0.1, 0.095, 0.2], false)).0.len(), 1 + Scale::SMALLER.len());
    }

    #[test]
    fn the_best_that_fits_is_found_and_kept() {
        for (budget, network, scale) in
            [(1.0, 0, "1"), (0.1, 1, "1"), (0.06, 2, "1"), (0.035, 2, "3/4"), (0.008, 2, "1/3")]
        {
            let mut governor = Governor::new(&choices(1, &COSTS, false), budget);
            let (rate, rungs) = run(&mut governor, 120.0, budget, 0.002, |_, _| 1.0);
            let last = governor.step();
            assert_eq!((last.network, last.scale.to_string().as_str()), (network, scale), "{budget}: {rungs:?}");
            assert!((rate * budget - 1.0).abs() < 0.02, "{budget}: {rate}");
            assert!(rungs.len() <= 3, "{budget}: {rungs:?}");
        }
    }

    #[test]
    fn steps_go_first() {
        let mut governor = Governor::new(&choices(8, &COSTS, false), 0.4);
        run(&mut governor, 60.0, 0.4, 0.01, |_, _| 1.0);
        assert_eq!(governor.step(), QualityStep { steps: 2, ..QualityStep::best(8) });
    }

    #[test]
    fn a_slower_machine_is_noticed_at_once_and_a_faster_one_soon() {
        let mut governor = Governor::new(&choices(1, &COSTS, false), 0.1);
        let slow = |now: f64, _| if (20.0..60.0).contains(&now) { 2.5 } else { 1.0 };
        let (rate, rungs) = run(&mut governor, 60.0, 0.1, 0.005, slow);
        assert!(rate > 9.5, "{rate}: {rungs:?}");
        assert!(governor.step().scale != Scale::FULL, "{rungs:?}");
        run(&mut governor, 120.0, 0.1, 0.005, |_, _| 1.0);
        assert_eq!(governor.step(), QualityStep { network: 1, ..QualityStep::best(1) });
    }

    #[test]
    fn a_rung_that_costs_more_than_it_should_is_not_tried_for_ever() {
        let mut governor = Governor::new(&choices(1, &COSTS, false), 0.1);
        // The middle network, here, is no faster than the large one.
        let (rate, rungs) = run(&mut governor, 600.0, 0.1, 0.005, |_, step| if step.network == 1 { 2.0 } else { 1.0 });
        assert_eq!(governor.step().network, 2);
        assert!(rate > 9.9 && rungs.len() < 12, "{rate}: {}", rungs.len());
    }

    #[test]
    fn a_rung_that_was_measured_at_a_bad_time_is_tried_all_the_same() {
        let mut disturbed = choices(1, &COSTS, false);
        disturbed.costs[1] *= 1.6;
        let mut governor = Governor::new(&disturbed, 0.1);
        let (rate, rungs) = run(&mut governor, 1800.0, 0.1, 0.005, |_, _| 1.0);
        assert_eq!(governor.step().network, 1, "{rungs:?}");
        assert!(rate > 9.9);
    }

    #[test]
    fn too_little_time_for_anything_is_borne() {
        let mut governor = Governor::new(&choices(1, &COSTS, false), 0.001);
        let (_, rungs) = run(&mut governor, 10.0, 0.001, 0.01, |_, _| 1.0);
        assert_eq!((rungs.len(), governor.step().scale.to_string().as_str()), (1, "1/4"));
    }
}
