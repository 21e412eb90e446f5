//! Samplers on normal data, for which closed forms exist.
//!
//! For data of variance `v`, the mean of `x0` given `y = x0 + sigma * n` is `v / (v + sigma^2) *
//! y`, and the probability flow scales by `sqrt((v + sigma'^2) / (v + sigma^2))`. Every sampler is
//! linear, so the result of a run is one number.
#![allow(clippy::unwrap_used, reason = "tests")]

use eddy::diffusion::{
    DiscreteSchedule, HISTORY_SLOTS, Level, Plan, Prediction, Sampler, Schedule, SigmaSchedule,
    Step, plan,
};

const VARIANCE: f64 = 0.25;

/// The output of a perfect network of each kind for input `input` at noise-to-signal ratio `sigma`.
fn perfect(prediction: Prediction, row: &Step, input: f64) -> f64 {
    let sigma = row.level.sigma();
    let y = input / row.c_in / row.level.signal;
    let x0 = VARIANCE / (VARIANCE + sigma * sigma) * y;
    let n = (y - x0) / sigma;
    let alpha = 1.0 / sigma.hypot(1.0);
    match prediction {
        Prediction::Epsilon => n,
        Prediction::VPrediction => alpha * n - sigma * alpha * x0,
        Prediction::Sample | Prediction::Denoised => x0,
        Prediction::Edm { sigma_data } => {
            let norm = sigma.hypot(sigma_data);
            (x0 - sigma_data * sigma_data / (norm * norm) * y) * norm / (sigma * sigma_data)
        }
        Prediction::Score => -n / sigma,
        Prediction::Flow => n - x0,
    }
}

/// The factor by which a run scales the state, and the variance of the noise that it adds.
fn run(plan: &Plan, prediction: Prediction) -> (f64, f64) {
    // The state and the kept values as multiples of the start. The noise is tracked by its
    // variance, so stochastic steps must not read kept values.
    let (mut x, mut kept, mut variance) = (1.0, [0.0; HISTORY_SLOTS], 0.0);
    for row in &plan.steps {
        let d_of = |x: f64| row.c_skip * x + row.c_out * perfect(prediction, row, row.c_in * x);
        let next = |x: f64| row.a * x + (row.b + row.e) * d_of(x);
        variance = next(1.0).powi(2) * variance + row.d * row.d;
        let d = d_of(x);
        let past: f64 = row.past.iter().zip(&kept).map(|(factor, kept)| factor * kept).sum();
        if let Some(entry) = row.store {
            let [of_x, of_d] = row.factors(entry.value);
            kept[entry.slot] = of_x * x + of_d * d;
        }
        x = next(x) + past;
    }
    (x, variance)
}

fn discrete(prediction: Prediction) -> Schedule {
    Schedule::Discrete(Box::new(DiscreteSchedule {
        prediction,
        clip_sample: Some(false),
        ..DiscreteSchedule::default()
    }))
}

const SIGMA_MAX: f64 = 20.0;

fn sigmas(prediction: Prediction) -> Schedule {
    Schedule::Sigmas(SigmaSchedule::new(prediction, 0.002, SIGMA_MAX))
}

/// The difference between a run on sigmas and the exact flow.
fn error(sampler: Sampler, steps: usize) -> f64 {
    let exact = (VARIANCE / (VARIANCE + SIGMA_MAX * SIGMA_MAX)).sqrt();
    let plan = plan(&sigmas(Prediction::Denoised), sampler, steps, None).unwrap();
    (run(&plan, Prediction::Denoised).0 / exact - 1.0).abs()
}

#[test]
fn many_steps_reach_the_variance_of_the_data() {
    for prediction in [Prediction::Epsilon, Prediction::VPrediction, Prediction::Sample] {
        for (sampler, eta) in [
            (Sampler::DDIM, 0.0),
            (Sampler::DDIM, 0.5),
            (Sampler::DDIM, 1.0),
            (Sampler::DDPM, 0.0),
            (Sampler::EULER, 0.0),
            (Sampler::EULER_A, 1.0),
            (Sampler::HEUN, 0.0),
            (Sampler::DPMPP_2M, 0.0),
            (Sampler::PC, 0.0),
            (Sampler::ODE, 0.0),
        ] {
            let plan = plan(&discrete(prediction), sampler, 1000, Some(eta))
                .unwrap_or_else(|_| plan(&discrete(prediction), sampler, 500, Some(eta)).unwrap());
            let level = plan.steps[0].level;
            let start = level.signal * level.signal * VARIANCE + level.noise * level.noise;
            let (scale, noise) = run(&plan, prediction);
            let end = scale * scale * start + noise;
            // The paper's discretization of the flow is exact only to first order in beta.
            let allowed = if sampler == Sampler::ODE { 0.05 } else { 0.02 };
            assert!(
                (end / VARIANCE - 1.0).abs() < allowed,
                "{sampler} eta {eta} of {prediction:?}: {end}"
            );
        }
    }
}

#[test]
fn euler_is_of_first_order_and_dpmpp_of_second() {
    for (sampler, order) in [
        (Sampler::EULER, 1.0),
        (Sampler::DDIM, 1.0),
        (Sampler::ODE, 1.0),
        (Sampler::DPMPP_2M, 2.0),
        (Sampler::HEUN, 2.0),
    ] {
        let measured = (error(sampler, 64) / error(sampler, 128)).log2();
        assert!((measured - order).abs() < 0.25, "{sampler} is of order {measured}");
    }
    for steps in [32, 64] {
        assert!(
            error(Sampler::DPMPP_2M, steps) < error(Sampler::EULER, steps) / 3.0,
            "{steps} steps"
        );
    }
}

#[test]
fn results_do_not_depend_on_the_kind_of_prediction() {
    let of = |prediction| {
        Sampler::ALL
            .map(|sampler| run(&plan(&sigmas(prediction), sampler, 7, None).unwrap(), prediction))
    };
    let expected = of(Prediction::Denoised);
    for prediction in [Prediction::Edm { sigma_data: 0.5 }, Prediction::Score, Prediction::Flow] {
        for (found, expected) in of(prediction).into_iter().zip(expected) {
            let is_same = |found: f64, expected: f64| {
                (found - expected).abs() < 1e-12 * expected.abs().max(1.0)
            };
            assert!(
                is_same(found.0, expected.0) && is_same(found.1, expected.1),
                "{prediction:?}: {found:?}"
            );
        }
    }
}

/// Equal samplers in both kinds of coordinates: first-order DPM-Solver++ is Euler's method.
#[test]
fn results_do_not_depend_on_the_coordinates() {
    let schedule = DiscreteSchedule {
        solver_order: 1,
        sigma_spacing: eddy::diffusion::discrete::SigmaSpacing::Exponential,
        spacing: Some(eddy::diffusion::schedule::Spacing::Trailing),
        sigma_min: Some(0.05),
        sigma_max: Some(20.0),
        ..DiscreteSchedule::default()
    };
    let schedule = Schedule::Discrete(Box::new(schedule));
    let vp = plan(&schedule, Sampler::DPMPP_2M, 6, None).unwrap();
    let ve = plan(&schedule, Sampler::EULER, 6, None).unwrap();
    let start = vp.steps[0].level.signal;
    for (p, e) in vp.steps.iter().zip(&ve.steps) {
        assert!((p.level.sigma() - e.level.sigma()).abs() < 1e-9 * e.level.noise);
    }
    let end = |plan: &Plan| run(plan, Prediction::Epsilon).0;
    assert!((end(&vp) * start - end(&ve)).abs() < 1e-12);
}

#[test]
fn one_step_of_a_network_conditioned_on_sigma_is_the_posterior_mean() {
    for sampler in Sampler::ALL {
        let plan = plan(&sigmas(Prediction::Denoised), sampler, 1, None).unwrap();
        // Some samplers add noise first.
        let row = plan.steps[plan.steps.len() - 1];
        assert_eq!((row.a, row.b, row.d, row.t), (0.0, 1.0, 0.0, row.level.noise), "{sampler}");
        assert_eq!(row.level.signal, Level::CLEAN.signal);
        assert!((row.level.noise - SIGMA_MAX).abs() < 1e-9);
    }
}

#[test]
fn rejects_invalid_sigma_ranges() {
    for (prediction, min, max) in [
        (Prediction::Epsilon, 0.1, 1.0),
        (Prediction::Denoised, 0.0, 1.0),
        (Prediction::Denoised, 2.0, 1.0),
        (Prediction::Denoised, 0.1, f64::INFINITY),
    ] {
        let schedule = Schedule::Sigmas(SigmaSchedule::new(prediction, min, max));
        assert!(plan(&schedule, Sampler::EULER, 3, None).is_err(), "{prediction:?} {min} {max}");
    }
}
