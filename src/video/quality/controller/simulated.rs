//! The control on simulated machines, whose speed changes at random.

use std::time::Duration;

use proptest::prelude::*;

use super::{Choices, LadderControl, ladder};
use crate::random::cases;
use crate::video::Scale;

/// Seconds of constant speed after which the control has found its quality step.
const SETTLE: f64 = 30.0;

/// Changes of quality at constant speed afterward, in at most ten minutes: trials of better steps,
/// which are needed to notice that costs were overestimated.
const MOST_CHANGES: usize = 10;

/// A machine, and frames to process on it.
#[derive(Clone, Debug)]
struct Machine {
    choices: Choices,
    /// Factor of the true cost of each quality step relative to its estimate.
    errors: Vec<f64>,
    /// Relative deviation of the time of a frame.
    jitter: f64,
    /// Seconds for a frame.
    budget: f64,
    /// Time outside the network, as a part of the budget.
    overhead: f64,
    /// Seconds of constant speed, and the factor of all times then.
    phases: Vec<(f64, f64)>,
    seed: u64,
}

/// What happened in a phase after it had settled.
#[derive(Debug)]
struct Settled {
    /// Frames per second as a part of the target.
    rate: f64,
    changes: usize,
    /// The time of the cheapest step as a part of the budget.
    cheapest: f64,
    /// The quality step at the end, and the best whose time is 0.7 of the budget at most.
    step: usize,
    fitting: Option<usize>,
}

/// A factor between `1 / most` and `most`.
fn factor(most: f64) -> impl Strategy<Value = f64> {
    (-1.0..1.0).prop_map(move |power| most.powf(power))
}

fn machines() -> impl Strategy<Value = Machine> {
    let choices = (
        prop::sample::select(vec![1_usize, 1, 2, 4, 8]),
        (factor(10.0), prop::collection::vec(0.3..1.1, 0..3)),
        any::<bool>(),
        prop::sample::select(vec![true, true, false]),
    )
        .prop_map(|(steps, (first, others), temporal, scales)| {
            let mut costs = vec![0.1 * first];
            costs.extend(others.iter().scan(0.1 * first, |cost, part| {
                *cost *= part;
                Some(*cost)
            }));
            let scales = if scales { Scale::SMALLER.to_vec() } else { Vec::new() };
            Choices { steps, costs, temporal, scales }
        });
    let errors = (prop::sample::select(vec![1.2, 2.0, 3.0]))
        .prop_flat_map(|most| prop::collection::vec(factor(most), 16));
    let phases = prop::collection::vec((100.0..600.0, factor(4.0)), 1..5);
    (choices, errors, 0.0..0.1, (0.0..1.0, 0.0..0.3), phases, any::<u64>()).prop_map(
        |(choices, errors, jitter, (place, overhead), phases, seed)| {
            // Budgets between the times of the cheapest and of the best step, and a bit beyond.
            let times = ladder(&choices).1;
            let ends = [0.8 * times[times.len() - 1], 1.5 * times[0]];
            let budget = ends[0] * (ends[1] / ends[0]).powf(place);
            let budget = budget.clamp(1.0 / 60.0, 0.5);
            Machine { choices, errors, jitter, budget, overhead, phases, seed }
        },
    )
}

impl Machine {
    /// The true times of the network in each quality step: in the order of their estimates.
    fn times(&self) -> Vec<f64> {
        let (mut times, mut most) = (Vec::new(), f64::INFINITY);
        for (estimate, error) in ladder(&self.choices).1.iter().zip(&self.errors) {
            let time = (estimate * error).min(most);
            most = 0.97 * time;
            times.push(time);
        }
        times
    }

    /// Runs the control through all phases.
    fn run(&self) -> Vec<Settled> {
        let Self { budget, overhead, jitter, .. } = *self;
        let (times, overhead) = (self.times(), overhead * budget);
        let mut control = LadderControl::new(&self.choices, budget);
        let (mut now, mut due) = (0.0_f64, 0.0_f64);
        let mut state = self.seed | 1;
        let mut random = || {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
        };
        let mut phase = |&(seconds, slow): &(f64, f64)| {
            let began = now;
            let (mut frames, mut changes, mut settled) = (0, 0, None);
            while now < began + seconds {
                // A late frame makes the next start at once, as the pipeline's pace does.
                let start = now.max(due);
                due = due.max(start - budget) + budget;
                let network = slow * times[control.at] * (1.0 + jitter * random());
                now = start + network + overhead;
                let changed = control.record_time(now, network, overhead, budget);
                match settled {
                    Some(_) => (frames, changes) = (frames + 1, changes + usize::from(changed)),
                    None if now > began + SETTLE => settled = Some(now),
                    None => {}
                }
            }
            let total = |step: usize| (slow * times[step] + overhead) / budget;
            Settled {
                rate: f64::from(frames) / (now - settled.unwrap_or(now)) * budget,
                changes,
                cheapest: total(times.len() - 1),
                step: control.at,
                fitting: (0..times.len()).find(|step| total(*step) <= 0.7),
            }
        };
        self.phases.iter().map(&mut phase).collect()
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn keeps_the_rate_without_oscillating(machine in machines()) {
        for (phase, settled) in machine.run().iter().enumerate() {
            let case = format!("phase {phase}: {settled:?}");
            prop_assert!(settled.changes <= MOST_CHANGES, "{case}");
            prop_assert!(settled.cheapest > 0.95 || settled.rate > 0.95, "{case}");
        }
    }
}

/// A machine of three networks whose costs are estimated as 0.16, 0.07 and 0.045 s.
fn machine(errors: [f64; 3], budget: f64, phases: &[(f64, f64)]) -> Machine {
    let choices = Choices {
        steps: 1,
        costs: vec![0.16, 0.07, 0.045],
        temporal: false,
        scales: Scale::SMALLER.to_vec(),
    };
    let rest = [errors[2]; Scale::SMALLER.len()];
    let errors = errors.into_iter().chain(rest).collect();
    let phases = phases.to_vec();
    Machine { choices, errors, jitter: 0.05, budget, overhead: 0.02, phases, seed: 1 }
}

#[test]
fn tries_a_step_whose_cost_was_far_underestimated_ever_more_rarely() {
    // The network in the middle takes 3.5 times as long as estimated, beyond what an estimate may
    // be corrected by at first.
    let settled = machine([3.6, 3.5, 1.0], 0.1, &[(600.0, 1.0)]).run();
    assert!(settled[0].changes <= 4 && settled[0].step == 2, "{settled:?}");
}

#[test]
fn frames_that_take_long_do_not_hide_that_a_step_failed() {
    // A trial takes several seconds to fail at a frame per second.
    let slow = Machine { jitter: 0.0, ..machine([36.0, 35.0, 10.0], 1.0, &[(600.0, 1.0)]) };
    let estimates = Choices { costs: vec![1.6, 0.7, 0.45], ..slow.choices.clone() };
    let errors = slow.errors.iter().map(|error| error / 10.0).collect();
    let settled = Machine { choices: estimates, errors, ..slow }.run();
    assert!(settled[0].changes <= 4, "{settled:?}");
}

#[test]
fn finds_the_best_step_after_the_machine_becomes_faster_suddenly() {
    for slow in [1.5, 2.5, 4.0] {
        let settled = machine([1.0; 3], 0.1, &[(200.0, slow), (200.0, 1.0), (200.0, 0.3)]).run();
        let steps: Vec<_> = settled.iter().map(|phase| (phase.step, phase.fitting)).collect();
        assert_eq!(steps[1..], [(1, Some(2)), (0, Some(0))], "{settled:?}");
    }
}

#[test]
fn a_budget_that_changes_is_followed() {
    let choices = machine([1.0; 3], 0.1, &[]).choices;
    let mut control = super::QualityController::new(choices, Duration::from_millis(500));
    assert_eq!(control.step().network, 0);
    control.set_budget(Duration::from_millis(100));
    let ms = Duration::from_millis;
    let changed = (0..5).find_map(|_| control.record_time(ms(160), ms(2)));
    assert_eq!(changed.map(|step| step.network), Some(1));
}
