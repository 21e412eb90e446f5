//! Our tables against diffusers' own schedulers on a network with a closed form, see `golden/make_samplers.py`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod loops;

use eddy::diffusion::{Clip, Plan, Recorded, Sampler, Schedule, config, plan};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Largest difference over largest value.
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
    /// What diffusers as it is published gives.
    result: Vec<f64>,
    /// What it gives when it computes in f64, where that differs by more than 1e-6.
    exact: Option<Vec<f64>>,
    /// That difference, which is diffusers' own error.
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
        format!("{} {} {:?} in {} steps, eta {}", self.sampler, self.betas, self.config, self.steps, self.eta)
    }
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/samplers.json")).unwrap()
}

fn network(x: f64, t: f64) -> f64 {
    0.3 * x + 0.1 * (3.0 * x + 0.01 * t).sin()
}

#[test]
fn every_sampler_gives_the_numbers_of_diffusers() {
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
        let found = [loops::difference(&executed, exact), loops::difference(&reference, exact), published];
        // A row that multiplies a difference of predictions by hundreds costs diffusers digits, too.
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
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), golden.cases.len(), failures.join("\n"));
}

#[test]
fn the_network_is_told_the_timesteps_of_diffusers() {
    let golden = golden();
    for case in &golden.cases {
        let told: Vec<f64> = case.plan(&golden).steps.iter().map(|row| row.t).collect();
        assert_eq!(told.len(), case.timesteps.len(), "{}", case.label());
        for (told, expected) in told.iter().zip(&case.timesteps) {
            assert!((told - expected).abs() < 2e-3, "{told} is not {expected}: {}", case.label());
        }
    }
}

/// What the golden numbers are there to cover.
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
    assert!(golden.cases.iter().any(|case| matches!(case.plan(&golden).clip, Clip::Threshold { .. })));
}
