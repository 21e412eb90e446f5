//! Compares sampler tables with diffusers' schedulers on a closed-form network, see
//! `golden/make_samplers.py`, and with the formulas of papers, see `golden/make_papers.py`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod loops;

use std::collections::{BTreeMap, BTreeSet};

use eddy::diffusion::{
    Clip, Plan, Prediction, Recorded, Sampler, Schedule, SigmaSchedule, config, plan,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The tolerance of the largest difference divided by the largest value.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Golden {
    shape: [usize; 4],
    start: Vec<f64>,
    noise: Vec<f32>,
    betas: Map<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    sampler: String,
    betas: String,
    config: Map<String, Value>,
    steps: usize,
    eta: f64,
    /// diffusers' `init_noise_sigma`, for Euler.
    scale: Option<f64>,
    timesteps: Vec<f64>,
    /// The result of diffusers as published.
    result: Vec<f64>,
    /// The result of diffusers in f64, where it differs by more than 1e-6.
    exact: Option<Vec<f64>>,
    /// The difference between the two, the rounding error of diffusers.
    rounding: Option<f64>,
}

impl Case {
    fn plan(&self, golden: &Golden) -> Plan {
        let mut config = golden.betas[&self.betas].as_object().unwrap().clone();
        config.extend(self.config.clone());
        let schedule = config::parse("golden", &Value::Object(config).to_string()).unwrap();
        let sampler: Sampler = self.sampler.parse().unwrap();
        plan(&Schedule::Discrete(Box::new(schedule)), sampler, self.steps, Some(self.eta)).unwrap()
    }

    fn label(&self) -> String {
        format!(
            "{} {} {:?} in {} steps, eta {}",
            self.sampler, self.betas, self.config, self.steps, self.eta
        )
    }
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/samplers.json")).unwrap()
}

fn network(x: f64, t: f64) -> f64 {
    0.3 * x + 0.1 * (3.0 * x + 0.01 * t).sin()
}

#[test]
fn every_sampler_matches_diffusers() {
    let golden = golden();
    let noise = Recorded::new(50, golden.shape, golden.noise.clone()).unwrap();
    let mut worst = (0.0, String::new());
    let mut failures = Vec::new();
    for case in &golden.cases {
        let plan = case.plan(&golden);
        let start: Vec<f64> = golden.start.iter().map(|x| x * case.scale.unwrap_or(1.0)).collect();
        let exact = case.exact.as_ref().unwrap_or(&case.result);
        let executed = loops::run_executor(&plan, golden.shape, &start, &noise, network);
        let reference = loops::run(&plan, golden.shape, start, &noise, network);
        let published = loops::difference(&executed, &case.result) - case.rounding.unwrap_or(0.0);
        let found =
            [loops::difference(&executed, exact), loops::difference(&reference, exact), published];
        // A step that multiplies a difference of predictions by hundreds also loses digits in
        // diffusers.
        let tolerance = TOLERANCE.max(5.0 * case.rounding.unwrap_or(0.0));
        if !found.iter().all(|&difference| difference <= tolerance) {
            let [executed, reference, published] = found;
            failures.push(format!(
                "{executed:.2e}, {reference:.2e} in f64, {published:.2e} more than published: {}",
                case.label()
            ));
        }
        let difference = found.into_iter().fold(0.0, f64::max);
        if difference > worst.0 {
            worst = (difference, case.label());
        }
    }
    println!("worst of {}: {:.2e}, {}", golden.cases.len(), worst.0, worst.1);
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        golden.cases.len(),
        failures.join("\n")
    );
}

#[test]
fn timesteps_match_diffusers() {
    let golden = golden();
    for case in &golden.cases {
        let timesteps: Vec<f64> = case.plan(&golden).steps.iter().map(|row| row.t).collect();
        assert_eq!(timesteps.len(), case.timesteps.len(), "{}", case.label());
        for (timesteps, expected) in timesteps.iter().zip(&case.timesteps) {
            assert!(
                (timesteps - expected).abs() < 2e-3,
                "{timesteps} is not {expected}: {}",
                case.label()
            );
        }
    }
}

/// `golden/papers.json`.
#[derive(Deserialize)]
struct Papers {
    shape: [usize; 4],
    start: Vec<f64>,
    noise: Vec<f32>,
    /// Ranges of sigma.
    sigma: BTreeMap<String, [f64; 2]>,
    /// Start and end of training schedules.
    betas: BTreeMap<String, [f64; 2]>,
    cases: Vec<PaperCase>,
}

#[derive(Deserialize)]
struct PaperCase {
    sampler: String,
    /// Exactly one of the next two is set.
    sigma: Option<String>,
    betas: Option<String>,
    steps: usize,
    /// The factor of the initial state.
    scale: f64,
    result: Vec<f64>,
}

impl Papers {
    fn schedule(&self, case: &PaperCase) -> Schedule {
        if let Some(name) = &case.sigma {
            let [low, high] = self.sigma[name];
            return Schedule::Sigmas(SigmaSchedule::new(Prediction::Score, low, high));
        }
        let name = case.betas.as_ref().unwrap();
        let [start, end] = self.betas[name];
        let kind = if name == "linear" { "linear" } else { "scaled_linear" };
        let config = json!({"beta_schedule": kind, "beta_start": start, "beta_end": end, "clip_sample": false});
        Schedule::Discrete(Box::new(config::parse("golden", &config.to_string()).unwrap()))
    }
}

#[test]
fn samplers_that_diffusers_lacks_match_their_papers() {
    let papers: Papers = serde_json::from_str(include_str!("golden/papers.json")).unwrap();
    let [batch, channels, height, width] = papers.shape;
    let rows = papers.noise.len() / (batch * channels * height * width);
    let noise = Recorded::new(rows, papers.shape, papers.noise.clone()).unwrap();
    let score =
        |x: f64, sigma: f64| -(0.4 * x + 0.1 * (3.0 * x + sigma).sin()) / (1.0 + sigma * sigma);
    for case in &papers.cases {
        let sampler: Sampler = case.sampler.parse().unwrap();
        let plan = plan(&papers.schedule(case), sampler, case.steps, None).unwrap();
        let start: Vec<f64> = papers.start.iter().map(|x| x * case.scale).collect();
        let network: &dyn Fn(f64, f64) -> f64 =
            if case.sigma.is_some() { &score } else { &network };
        let executed = loops::run_executor(&plan, papers.shape, &start, &noise, network);
        let reference = loops::run(&plan, papers.shape, start, &noise, network);
        let found = [executed, reference].map(|values| loops::difference(&values, &case.result));
        let label = format!(
            "{} {:?} {:?} in {}: {found:?}",
            case.sampler, case.sigma, case.betas, case.steps
        );
        assert!(found[0] < TOLERANCE && found[1] < 1e-6, "{label}");
    }
    for sampler in ["langevin", "pc", "ode"] {
        assert!(
            papers.cases.iter().filter(|case| case.sampler == sampler).count() >= 10,
            "{sampler}"
        );
    }
}

/// Checks what the golden numbers cover.
#[test]
fn the_goldens_cover_every_sampler_prediction_and_spacing() {
    let golden = golden();
    for sampler in ["ddim", "ddpm", "euler", "euler-a", "heun", "dpmpp-2m", "dpmpp-2m-sde"] {
        for prediction in ["epsilon", "v_prediction", "sample"] {
            for spacing in ["leading", "linspace", "trailing"] {
                for steps in [1, 2, 3, 5, 10, 20, 50] {
                    let is_there = golden.cases.iter().any(|case| {
                        case.sampler == sampler
                            && case.config["prediction_type"] == prediction
                            && case.config["timestep_spacing"] == spacing
                            && case.steps == steps
                    });
                    assert!(is_there, "{sampler} {prediction} {spacing} {steps}");
                }
            }
        }
    }
    for sampler in ["unipc", "deis", "dpmpp-3m", "pndm", "lms", "kdpm2", "kdpm2-a"] {
        for prediction in ["epsilon", "v_prediction", "sample"] {
            for spacing in ["leading", "linspace", "trailing"] {
                let steps: BTreeSet<usize> = golden
                    .cases
                    .iter()
                    .filter(|case| {
                        case.sampler == sampler
                            && case.config["prediction_type"] == prediction
                            && case.config["timestep_spacing"] == spacing
                    })
                    .map(|case| case.steps)
                    .collect();
                assert!(
                    [1, 4, 10].iter().all(|count| steps.contains(count)),
                    "{sampler} {prediction} {spacing}"
                );
            }
        }
    }
    assert!(
        golden.cases.iter().any(|case| matches!(case.plan(&golden).clip, Clip::Threshold { .. }))
    );
}
