//! Guidance on a mixture of two normal distributions whose modes are the classes. Bayes' rule gives
//! the expected results.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::ops::ControlFlow;

use eddy::Result;
use eddy::diffusion::guidance::label;
use eddy::diffusion::{
    ClassifierFree, ClassifierFreeOptions, ClassifierGuidance, Guidance, Philox, Plan, Prediction,
    Sampler, Schedule, SigmaMap, SigmaSchedule, State, StepContext, execute, plan,
};
use eddy::network::{Inputs, Network, Shape};
use eddy::tile::TilePlan;
use ndarray::Array4;

const MEANS: [f64; 2] = [-1.0, 1.5];
const VARIANCE: f64 = 0.09;

/// Which function of the mixture a network computes.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The mean of `x0` given `y` and the class. Class 2 is the null class.
    Denoised,
    /// The gradient of `log p(class | y)`.
    Gradient,
}

struct Mixture {
    kind: Kind,
    sample: Vec<f32>,
    class: Vec<i64>,
    output: Vec<f32>,
    /// The batch sizes of all evaluations.
    evaluated: Vec<usize>,
}

impl Mixture {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            sample: Vec::new(),
            class: Vec::new(),
            output: Vec::new(),
            evaluated: Vec::new(),
        }
    }
}

/// The probability of the second mode.
fn second(y: f64, sigma: f64) -> f64 {
    let square = |mean: f64| (y - mean).powi(2) / (2.0 * (VARIANCE + sigma * sigma));
    1.0 / (1.0 + (square(MEANS[1]) - square(MEANS[0])).exp())
}

fn of_mode(y: f64, sigma: f64, mode: usize) -> f64 {
    MEANS[mode] + VARIANCE / (VARIANCE + sigma * sigma) * (y - MEANS[mode])
}

impl Network for Mixture {
    fn bind(&mut self, shape: Shape) -> Result<()> {
        let count = shape.iter().product();
        self.sample.resize(count, 0.0);
        self.output.resize(count, 0.0);
        self.class.resize(shape[0], 2);
        Ok(())
    }

    fn inputs(&mut self) -> Inputs<'_> {
        Inputs {
            sample: &mut self.sample,
            sigma: None,
            condition: None,
            class: Some(&mut self.class),
        }
    }

    fn evaluate(&mut self, sigma: f64) -> Result<&[f32]> {
        self.evaluated.push(self.class.len());
        for ((output, y), class) in self.output.iter_mut().zip(&self.sample).zip(&self.class) {
            let (y, p) = (f64::from(*y), second(f64::from(*y), sigma));
            let total = VARIANCE + sigma * sigma;
            *output = match (self.kind, class) {
                (Kind::Denoised, 2) => (1.0 - p) * of_mode(y, sigma, 0) + p * of_mode(y, sigma, 1),
                (Kind::Denoised, class) => of_mode(y, sigma, *class as usize),
                (Kind::Gradient, 0) => -p * (MEANS[1] - MEANS[0]) / total,
                (Kind::Gradient, _) => (1.0 - p) * (MEANS[1] - MEANS[0]) / total,
            } as f32;
        }
        Ok(&self.output)
    }
}

const COUNT: usize = 64;

fn table(sampler: Sampler) -> Plan {
    let schedule = Schedule::Sigmas(SigmaSchedule::new(Prediction::Denoised, 0.01, 10.0));
    plan(&schedule, sampler, 20, None).unwrap()
}

fn run(plan: &Plan, network: &mut dyn Network, guides: Vec<&mut dyn Guidance>) -> Vec<f32> {
    let guides = guides.into_iter().map(|guide| guide as &mut dyn Guidance).collect();
    let noise = Philox::new(5);
    let x = Array4::from_shape_fn([COUNT, 1, 1, 1], |(i, ..)| (i as f32 - 32.0) / 3.0);
    let mut state = State::new(x, plan, &noise, &SigmaMap::ABSOLUTE).unwrap().guided(guides);
    let tiles = TilePlan::whole(1, 1, 1);
    execute(plan, network, &mut state, &tiles, &SigmaMap::ABSOLUTE, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    state.into_inner().into_raw_vec_and_offset().0
}

/// The result of conditional sampling without guidance.
fn conditional(plan: &Plan, class: i64) -> Vec<f32> {
    let mut network = Mixture::new(Kind::Denoised);
    network.bind([COUNT, 1, 1, 1]).unwrap();
    label(network.inputs().class, &[class; COUNT]).unwrap();
    run(plan, &mut network, Vec::new())
}

fn near(found: &[f32], expected: &[f32]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 2e-4, "{found} is not {expected}");
    }
}

#[test]
fn classifier_guidance_turns_unconditional_into_conditional_sampling() {
    for sampler in [Sampler::DDIM, Sampler::DDPM, Sampler::HEUN, Sampler::DPMPP_2M] {
        let plan = table(sampler);
        for class in [0, 1] {
            let (mut network, mut classifier) =
                (Mixture::new(Kind::Denoised), Mixture::new(Kind::Gradient));
            let mut guide =
                ClassifierGuidance::new(&mut classifier, vec![class; COUNT], 1.0, f64::INFINITY);
            near(&run(&plan, &mut network, vec![&mut guide]), &conditional(&plan, class));
        }
    }
}

#[test]
fn a_classifier_is_not_evaluated_above_its_largest_sigma() {
    let plan = table(Sampler::EULER);
    let (mut network, mut classifier) =
        (Mixture::new(Kind::Denoised), Mixture::new(Kind::Gradient));
    let mut guide = ClassifierGuidance::new(&mut classifier, vec![1; COUNT], 1.0, 2.0);
    run(&plan, &mut network, vec![&mut guide]);
    let known = plan.steps.iter().filter(|step| step.level.noise <= 2.0).count();
    assert!(known > 0 && known < plan.steps.len());
    assert_eq!(classifier.evaluated.len(), known);
}

#[test]
fn guidance_scale_one_is_conditional_and_zero_is_unconditional() {
    let plan = table(Sampler::DPMPP_2M);
    let free = |scale: f64, interval: [f64; 2]| {
        let mut network = Mixture::new(Kind::Denoised);
        let options = ClassifierFreeOptions { scale, rescale: 0.0, interval };
        let mut free = ClassifierFree::new(
            &mut network,
            Some([vec![1; COUNT], vec![2; COUNT]]),
            options,
            &plan,
        );
        let found = run(&plan, &mut free, Vec::new());
        // Both halves in one batch.
        assert!(
            network.evaluated.iter().all(|count| *count == 2 * COUNT)
                && network.evaluated.len() == plan.steps.len()
        );
        found
    };
    let everywhere = [0.0, f64::INFINITY];
    near(&free(1.0, everywhere), &conditional(&plan, 1));
    near(&free(0.0, everywhere), &conditional(&plan, 2));
    // With a larger scale the mean moves further from the other mode. Outside the interval, the
    // conditional output is used.
    let mean = |values: &[f32]| values.iter().sum::<f32>() / COUNT as f32;
    assert!(mean(&free(4.0, everywhere)) > mean(&conditional(&plan, 1)) + 0.01);
    near(&free(4.0, [100.0, 200.0]), &conditional(&plan, 1));
}

#[test]
fn a_custom_energy_guides_a_run() {
    let plan = table(Sampler::DDIM);
    let mut network = Mixture::new(Kind::Denoised);
    let mut seen = Vec::new();
    let mut energy = |context: &StepContext<'_>, d: &mut Array4<f32>| {
        seen.push((context.index, context.level.noise));
        d.mapv_inplace(|_| 0.25);
        Ok(())
    };
    let found = run(&plan, &mut network, vec![&mut energy]);
    assert!(found.iter().all(|value| *value == 0.25), "what is known in the end is exact");
    assert_eq!(seen.len(), plan.steps.len());
    assert!(seen.is_sorted_by(|a, b| a.0 < b.0 && a.1 > b.1));
}

#[test]
fn guidance_can_end_a_run() {
    let plan = table(Sampler::DDIM);
    let mut network = Mixture::new(Kind::Denoised);
    let mut guide = |context: &StepContext<'_>, _: &mut Array4<f32>| match context.index {
        3 => Err(eddy::Error::Interrupted),
        _ => Ok(()),
    };
    let noise = Philox::new(5);
    let x = Array4::zeros([COUNT, 1, 1, 1]);
    let mut state =
        State::new(x, &plan, &noise, &SigmaMap::ABSOLUTE).unwrap().guided(vec![&mut guide]);
    let tiles = TilePlan::whole(1, 1, 1);
    let ended = execute(&plan, &mut network, &mut state, &tiles, &SigmaMap::ABSOLUTE, &mut |_| {
        ControlFlow::Continue(())
    });
    assert!(matches!(ended, Err(eddy::Error::Interrupted)));
    drop(state);
    assert_eq!(network.evaluated.len(), 4);
}

/// A repeated step adds noise again and keeps the level, measured by the variance for data at a
/// single point.
#[test]
fn resampling_keeps_levels() {
    for sampler in [Sampler::DDPM, Sampler::EULER_A, Sampler::DDIM] {
        let plan = table(sampler).resampled(3).unwrap();
        assert_eq!(plan.steps.len(), 60);
        let mut variance = plan.steps[0].level.noise.powi(2);
        for (i, row) in plan.steps.iter().enumerate() {
            assert!(
                (variance.sqrt() - row.level.noise).abs() < 1e-9 * row.level.noise.max(1.0),
                "{sampler} {i}"
            );
            variance = row.a * row.a * variance + row.d * row.d;
        }
        assert!(variance.abs() < 1e-12);
    }
    assert!(table(Sampler::HEUN).resampled(2).is_err());
}
