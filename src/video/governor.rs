//! What is given up to keep up: from what pictures took, how much is done to the next.
//!
//! There is a ladder of ways to treat a picture, each cheaper than the one before: fewer steps, tiles at rest that are kept
//! longer, smaller networks, pictures made smaller. The governor goes down as far as it must as soon as pictures take too
//! long, and up again rung by rung when the next better one would fit; a way up that had to be taken back is tried again
//! later each time.

use std::time::{Duration, Instant};

use super::treatment::Scale;

/// Of the time that there is, so much is used after a way down, and expected to be used after a way up.
const DOWN_TO: f64 = 0.92;
const UP_TO: f64 = 0.85;

/// At first, when it is not known what there is beside the network, so much.
const AT_FIRST: f64 = 0.8;

/// So many pictures in a row have to take too long before less is done.
const TOO_LONG: u32 = 3;

/// Pictures tell how fast the machine is now; so many after a change, what a rung costs beside the others, too.
const SETTLING: u32 = 6;

/// How long it takes before more is tried, in seconds: the first time, and at most.
const PATIENCE: f64 = 2.0;
const MOST_PATIENCE: f64 = 60.0;

/// So many times as long is hardly longer.
const HARDLY: f64 = 1.1;

/// Each time that the longest patience passes, the next better rung is thought to take this part of what it was.
const HOPE: f64 = 0.95;

/// Tiles that are kept longer save about this part.
const THRIFT: f64 = 0.8;

/// Another network is worth a rung when it takes less than this part.
const CHEAPER: f64 = 0.9;

/// A way to treat a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rung {
    /// Which of the networks.
    pub(super) network: usize,
    pub(super) steps: usize,
    pub(super) thrifty: bool,
    pub(super) scale: Scale,
}

impl Rung {
    pub(super) fn best(steps: usize) -> Self {
        Self { network: 0, steps, thrifty: false, scale: Scale::FULL }
    }
}

/// What there is to choose from.
#[derive(Clone, Debug)]
pub(super) struct Choices {
    /// Steps at most.
    pub(super) steps: usize,
    /// What an evaluation of a whole picture takes, in seconds, by network, the best first.
    pub(super) costs: Vec<f64>,
    /// Whether pictures before are drawn on, so that tiles can be kept.
    pub(super) temporal: bool,
    /// At what smaller sizes pictures can be worked on, from large to small.
    pub(super) scales: Vec<Scale>,
}

/// Ways to treat a picture, from the best to the cheapest, and what each takes.
fn ladder(Choices { steps, costs, temporal, scales }: &Choices) -> (Vec<Rung>, Vec<f64>) {
    let (mut rungs, mut times) = (Vec::new(), Vec::new());
    let mut add = |rung: Rung| {
        let cost = costs.get(rung.network).copied().unwrap_or_default();
        let kept = if rung.thrifty { THRIFT } else { 1.0 };
        rungs.push(rung);
        times.push(cost * rung.steps as f64 * kept * rung.scale.factor().powi(2));
    };
    let mut rung = Rung::best(*steps);
    add(rung);
    while rung.steps > 1 {
        rung.steps = rung.steps.div_ceil(2);
        add(rung);
    }
    if *temporal {
        rung.thrifty = true;
        add(rung);
    }
    for network in 1..costs.len() {
        if costs[network] < CHEAPER * costs[rung.network] {
            rung.network = network;
            add(rung);
        }
    }
    for scale in scales {
        rung.scale = *scale;
        add(rung);
    }
    (rungs, times)
}

/// Keeps pictures within the time that they may take.
#[derive(Debug)]
pub(super) struct Keeper {
    choices: Choices,
    governor: Governor,
    budget: Duration,
    begun: Instant,
}

impl Keeper {
    /// For pictures that may take so long.
    pub(super) fn new(choices: Choices, budget: Duration) -> Self {
        let governor = Governor::new(&choices, budget.as_secs_f64());
        Self { choices, governor, budget, begun: Instant::now() }
    }

    /// How to treat the next picture.
    pub(super) fn rung(&self) -> Rung {
        self.governor.rung()
    }

    /// The next picture may take so long.
    pub(super) fn allow(&mut self, budget: Duration) {
        self.budget = budget;
    }

    /// Begins anew, with at most so many steps where that changes.
    pub(super) fn restart(&mut self, steps: Option<usize>, temporal: bool) {
        self.choices.steps = steps.unwrap_or(self.choices.steps);
        self.choices.temporal = temporal;
        self.governor = Governor::new(&self.choices, self.budget.as_secs_f64());
        self.begun = Instant::now();
    }

    /// A picture took so long for evaluations and beside them. Returns how to treat the next where that changes.
    pub(super) fn took(&mut self, network: Duration, beside: Duration) -> Option<Rung> {
        let [now, network, beside, budget] =
            [self.begun.elapsed(), network, beside, self.budget].map(|time| time.as_secs_f64());
        self.governor.took(now, network, beside, budget).then(|| self.governor.rung())
    }
}

/// Chooses the rung for each picture.
#[derive(Debug)]
struct Governor {
    rungs: Vec<Rung>,
    /// What the network takes on each rung, in seconds, at speed 1.
    weights: Vec<f64>,
    /// What it was thought to take at first.
    priors: Vec<f64>,
    /// How much longer it takes at present.
    speed: f64,
    /// What is beside the network.
    overhead: f64,
    at: usize,
    /// Pictures since the last change.
    pictures: u32,
    too_long: u32,
    patience: f64,
    /// When the rung last changed, if it did, and when the last way up was taken.
    changed: Option<f64>,
    raised: Option<f64>,
    /// When the next better rung was last thought to be cheaper than it was.
    hoped: f64,
}

impl Governor {
    /// For pictures that may take `budget` seconds.
    fn new(choices: &Choices, budget: f64) -> Self {
        let (rungs, weights) = ladder(choices);
        let mut governor = Self {
            rungs,
            priors: weights.clone(),
            weights,
            speed: 1.0,
            overhead: 0.0,
            at: 0,
            pictures: 0,
            too_long: 0,
            patience: PATIENCE,
            changed: None,
            raised: None,
            hoped: 0.0,
        };
        governor.at = governor.first_within(AT_FIRST * budget, 0);
        governor
    }

    /// How to treat the next picture.
    fn rung(&self) -> Rung {
        self.rungs[self.at]
    }

    fn expected(&self, rung: usize) -> f64 {
        self.overhead + self.speed * self.weights[rung]
    }

    /// The best rung from `from` on that fits; where none does, the best that hardly takes longer than the cheapest.
    fn first_within(&self, seconds: f64, from: usize) -> usize {
        let last = self.rungs.len() - 1;
        let seconds = seconds.max(HARDLY * self.expected(last));
        (from..last).find(|rung| self.expected(*rung) <= seconds).unwrap_or(last)
    }

    /// A picture took `network` seconds of evaluations and `overhead` seconds beside them, at the time `now`; the next may take
    /// `budget`. Returns whether it is to be treated otherwise.
    fn took(&mut self, now: f64, network: f64, overhead: f64, budget: f64) -> bool {
        self.pictures += 1;
        if self.pictures == 1 {
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
            self.patience = PATIENCE;
        }
        if self.at > 0 && now - self.hoped >= MOST_PATIENCE {
            // What was measured long ago, or never on its own, may be wrong.
            self.hoped = now;
            self.weights[self.at - 1] = (HOPE * self.weights[self.at - 1]).max(0.5 * self.priors[self.at - 1]);
        }
        let has_settled = self.pictures > SETTLING && now - self.changed.unwrap_or(0.0) >= self.patience;
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
        if self.changed.is_some() && self.pictures <= SETTLING {
            let prior = self.priors[self.at];
            self.weights[self.at] = (self.weights[self.at] * ratio.powf(0.1)).clamp(0.5 * prior, 2.0 * prior);
        }
    }

    fn change(&mut self, to: usize, now: f64) -> bool {
        if to == self.at {
            return false;
        }
        (self.at, self.pictures, self.too_long) = (to, 0, 0);
        (self.changed, self.hoped) = (Some(now), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Choices, Governor, Rung, ladder};
    use crate::video::Scale;

    const COSTS: [f64; 3] = [0.16, 0.07, 0.045];

    fn choices(steps: usize, costs: &[f64], temporal: bool) -> Choices {
        Choices { steps, costs: costs.to_vec(), temporal, scales: Scale::SMALLER.to_vec() }
    }

    /// A machine on which a picture takes what the ladder says, `slow(t)` times, and `overhead` beside.
    fn run(
        governor: &mut Governor,
        seconds: f64,
        budget: f64,
        overhead: f64,
        slow: impl Fn(f64, Rung) -> f64,
    ) -> (f64, Vec<Rung>) {
        let (mut now, mut pictures, mut rungs) = (0.0, 0.0, vec![governor.rung()]);
        while now < seconds {
            let rung = governor.rung();
            let jitter = 1.0 + 0.05 * f64::sin(pictures * 1.7);
            let network = COSTS[rung.network] * rung.steps as f64 * rung.scale.factor().powi(2) * slow(now, rung);
            now += (network * jitter + overhead).max(budget);
            pictures += 1.0;
            if governor.took(now, network * jitter, overhead, budget) {
                rungs.push(governor.rung());
            }
        }
        (pictures / now, rungs)
    }

    #[test]
    fn what_is_given_up_goes_by_rank() {
        let (rungs, times) = ladder(&choices(4, &COSTS, true));
        let facts: Vec<_> = rungs.iter().map(|r| (r.steps, r.thrifty, r.network, r.scale.to_string())).collect();
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
        assert_eq!(facts, expected.map(|(steps, thrifty, network, scale)| (steps, thrifty, network, scale.to_owned())));
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
            let last = governor.rung();
            assert_eq!((last.network, last.scale.to_string().as_str()), (network, scale), "{budget}: {rungs:?}");
            assert!((rate * budget - 1.0).abs() < 0.02, "{budget}: {rate}");
            assert!(rungs.len() <= 3, "{budget}: {rungs:?}");
        }
    }

    #[test]
    fn steps_go_first() {
        let mut governor = Governor::new(&choices(8, &COSTS, false), 0.4);
        run(&mut governor, 60.0, 0.4, 0.01, |_, _| 1.0);
        assert_eq!(governor.rung(), Rung { steps: 2, ..Rung::best(8) });
    }

    #[test]
    fn a_slower_machine_is_noticed_at_once_and_a_faster_one_soon() {
        let mut governor = Governor::new(&choices(1, &COSTS, false), 0.1);
        let slow = |now: f64, _| if (20.0..60.0).contains(&now) { 2.5 } else { 1.0 };
        let (rate, rungs) = run(&mut governor, 60.0, 0.1, 0.005, slow);
        assert!(rate > 9.5, "{rate}: {rungs:?}");
        assert!(governor.rung().scale != Scale::FULL, "{rungs:?}");
        run(&mut governor, 120.0, 0.1, 0.005, |_, _| 1.0);
        assert_eq!(governor.rung(), Rung { network: 1, ..Rung::best(1) });
    }

    #[test]
    fn a_rung_that_costs_more_than_it_should_is_not_tried_for_ever() {
        let mut governor = Governor::new(&choices(1, &COSTS, false), 0.1);
        // The middle network, here, is no faster than the large one.
        let (rate, rungs) = run(&mut governor, 600.0, 0.1, 0.005, |_, rung| if rung.network == 1 { 2.0 } else { 1.0 });
        assert_eq!(governor.rung().network, 2);
        assert!(rate > 9.9 && rungs.len() < 12, "{rate}: {}", rungs.len());
    }

    #[test]
    fn a_rung_that_was_measured_at_a_bad_time_is_tried_all_the_same() {
        let mut disturbed = choices(1, &COSTS, false);
        disturbed.costs[1] *= 1.6;
        let mut governor = Governor::new(&disturbed, 0.1);
        let (rate, rungs) = run(&mut governor, 1800.0, 0.1, 0.005, |_, _| 1.0);
        assert_eq!(governor.rung().network, 1, "{rungs:?}");
        assert!(rate > 9.9);
    }

    #[test]
    fn too_little_time_for_anything_is_borne() {
        let mut governor = Governor::new(&choices(1, &COSTS, false), 0.001);
        let (_, rungs) = run(&mut governor, 10.0, 0.001, 0.01, |_, _| 1.0);
        assert_eq!((rungs.len(), governor.rung().scale.to_string().as_str()), (1, "1/4"));
    }
}
