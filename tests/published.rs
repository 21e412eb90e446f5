//! Numbers published in diffusers' own test suite:
//! `tests/schedulers/test_scheduler_{ddim,ddpm,euler,dpm_multi}.py`.
//!
//! In these tests the network is `x * t / (t + 1)`, and the state counts evenly from 0 to 1 in the
//! shape [4, 3, 8, 8] (innermost over the batch). The sum and mean of the result's magnitudes are
//! compared within 1e-2 and 1e-3.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod loops;

use eddy::diffusion::{NoiseAt, NoiseSource, Plan, Recorded, Sampler, Schedule, config, plan};

const SHAPE: [usize; 4] = [4, 3, 8, 8];
const COUNT: usize = 4 * 3 * 8 * 8;

/// `dummy_sample_deter`: element i of [3, 8, 8, 4] is i / 768, with the last axis then moved to the
/// front.
fn start() -> Vec<f64> {
    (0..COUNT).map(|i| ((i % (COUNT / 4)) * 4 + i / (COUNT / 4)) as f64 / COUNT as f64).collect()
}

fn network(x: f64, t: f64) -> f64 {
    x * t / (t + 1.0)
}

/// A noise source for samplers that must not use noise.
struct Silent;

impl NoiseSource for Silent {
    fn fill(&self, _: NoiseAt, _: usize, _: &mut [f32]) {
        panic!("a deterministic sampler draws nothing");
    }
}

fn table(config: &str, sampler: Sampler, steps: usize) -> Plan {
    let schedule = config::parse("published", config).unwrap();
    plan(&Schedule::Discrete(Box::new(schedule)), sampler, steps, None).unwrap()
}

fn sum(plan: &Plan, start: Vec<f64>) -> f64 {
    sum_with(plan, start, &Silent)
}

fn sum_with(plan: &Plan, start: Vec<f64>, noise: &dyn NoiseSource) -> f64 {
    let magnitude = |values: Vec<f64>| values.iter().map(|x| x.abs()).sum();
    let executed: f64 = magnitude(loops::run_executor(plan, SHAPE, &start, noise, network));
    let reference: f64 = magnitude(loops::run(plan, SHAPE, start, noise, network));
    assert!((executed - reference).abs() < 2e-3, "{executed} in f32 is not {reference}");
    executed
}

#[track_caller]
fn check(sum: f64, published_sum: Option<f64>, published_mean: f64) {
    if let Some(published) = published_sum {
        assert!((sum - published).abs() < 1e-2, "the sum is {sum}, not {published}");
    }
    let mean = sum / COUNT as f64;
    assert!((mean - published_mean).abs() < 1e-3, "the mean is {mean}, not {published_mean}");
}

const BETAS: &str = r#""num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear""#;

fn ddim(further: &str) -> f64 {
    sum(
        &table(&format!(r#"{{{BETAS}, "clip_sample": true {further}}}"#), Sampler::DDIM, 10),
        start(),
    )
}

#[test]
fn ddim_full_loop() {
    check(ddim(""), Some(172.0067), 0.223967);
    check(ddim(r#", "prediction_type": "v_prediction""#), Some(52.5302), 0.0684);
}

#[test]
fn ddim_ends_at_the_clean_image_or_at_timestep_zero() {
    let with = |further: &str| {
        let config =
            format!(r#"{{"beta_start": 0.01, "beta_end": 0.02, "clip_sample": true, {further}}}"#);
        sum(&table(&config, Sampler::DDIM, 10), start())
    };
    check(with(r#""set_alpha_to_one": true"#), Some(149.8295), 0.1951);
    check(with(r#""set_alpha_to_one": false"#), Some(149.0784), 0.1941);
}

/// The last two of ten steps, from the state noised to the level of the eighth step.
#[test]
fn ddim_from_the_middle() {
    let mut plan = table(&format!(r#"{{{BETAS}}}"#), Sampler::DDIM, 10);
    plan.steps.drain(..8);
    let level = plan.steps[0].level;
    let noisy = start().into_iter().map(|x| level.signal * x + level.noise * (767.0 / 768.0 - x));
    check(sum(&plan, noisy.collect()), Some(354.5418), 0.4616);
}

fn ddpm(further: &str) -> f64 {
    let config =
        format!(r#"{{{BETAS}, "variance_type": "fixed_small", "clip_sample": true {further}}}"#);
    let plan = table(&config, Sampler::DDPM, 1000);
    assert_eq!(plan.noise_rows(), 999);
    let noise = Recorded::new(999, SHAPE, mersenne::normals(0, 999 * COUNT, COUNT)).unwrap();
    sum_with(&plan, start(), &noise)
}

#[test]
fn ddpm_full_loop() {
    check(ddpm(""), Some(258.9606), 0.3372);
    check(ddpm(r#", "prediction_type": "v_prediction""#), Some(202.0296), 0.2631);
}

fn euler(further: &str) -> f64 {
    let config = format!(
        r#"{{"num_train_timesteps": 1100, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear" {further}}}"#
    );
    let mut plan = table(&config, Sampler::EULER, 10);
    let scale = plan.steps[0].level.noise;
    // The published test computes each step from the scaled input rather than from the state
    // itself.
    for row in &mut plan.steps {
        (row.a, row.c_skip) = (row.a * row.c_in, row.c_skip * row.c_in);
    }
    sum(&plan, start().into_iter().map(|x| x * scale).collect())
}

#[test]
fn euler_full_loop() {
    check(euler(""), Some(10.0807), 0.0131);
    check(euler(r#", "prediction_type": "v_prediction""#), Some(0.0002), 2.2676e-6);
    check(euler(r#", "use_karras_sigmas": true"#), Some(124.52299499511719), 0.16213932633399963);
}

fn solver(further: &str) -> f64 {
    let order =
        r#""solver_order": 2, "lower_order_final": false, "final_sigmas_type": "sigma_min""#;
    let config = format!(r#"{{{BETAS}, {order} {further}}}"#);
    sum(&table(&config, Sampler::DPMPP_2M, 10), start())
}

#[test]
fn dpm_solver_full_loop() {
    check(solver(r#", "sample_max_value": 1.0"#), None, 0.3301);
    check(solver(r#", "prediction_type": "v_prediction""#), None, 0.2251);
    let thresholding =
        r#", "thresholding": true, "dynamic_thresholding_ratio": 0.87, "sample_max_value": 0.5"#;
    check(solver(thresholding), None, 1.1364);
}

/// The noise of `torch.manual_seed(0)` on a CPU: MT19937 (Matsumoto and Nishimura 1998), and
/// Box-Muller on blocks of 16.
mod mersenne {
    const N: usize = 624;

    /// `count` normal values of a generator that computes `block` of them at a time, a multiple of 16.
    pub(super) fn normals(seed: u32, count: usize, block: usize) -> Vec<f32> {
        assert!(block.is_multiple_of(16) && count.is_multiple_of(block));
        let mut words = Words::new(seed);
        let uniforms: Vec<f32> =
            (0..count).map(|_| (words.next() & 0xff_ffff) as f32 / 16_777_216.0).collect();
        let mut normals = uniforms;
        for sixteen in normals.chunks_exact_mut(16) {
            let (radii, angles) = sixteen.split_at_mut(8);
            for (u, v) in radii.iter_mut().zip(angles) {
                let radius = (-2.0 * (1.0 - *u).ln()).sqrt();
                let angle = 2.0 * std::f32::consts::PI * *v;
                (*u, *v) = (radius * angle.cos(), radius * angle.sin());
            }
        }
        normals
    }

    struct Words {
        state: Vec<u32>,
        at: usize,
    }

    impl Words {
        fn new(seed: u32) -> Self {
            let mut state = vec![seed; N];
            for i in 1..N {
                let before = state[i - 1];
                state[i] =
                    (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
            }
            Self { state, at: N }
        }

        fn next(&mut self) -> u32 {
            if self.at == N {
                for i in 0..N {
                    let mixed =
                        (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                    let odd = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
                    self.state[i] = self.state[(i + 397) % N] ^ (mixed >> 1) ^ odd;
                }
                self.at = 0;
            }
            let mut word = self.state[self.at];
            self.at += 1;
            word ^= word >> 11;
            word ^= (word << 7) & 0x9d2c_5680;
            word ^= (word << 15) & 0xefc6_0000;
            word ^ (word >> 18)
        }
    }
}
