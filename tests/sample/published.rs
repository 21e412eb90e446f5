//! Numbers published in diffusers' own test-suite:
//! `tests/schedulers/test_scheduler_{ddim,euler,dpm_multi, dpm_single,unipc,deis,pndm}.py`.
//!
//! The state counts evenly from 0 to 1 (`dummy_sample_deter`), the network is `sample * t / (t +
//! 1)`, and the sum and mean of the magnitudes of the result are compared within 1e-2 and 1e-3.

use ndarray::Array4;

use crate::common::eddy;
use crate::pipelines::place_of;

const BETAS: &str = r#""num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear""#;

/// Element i of [3, 8, 8, 4] is i / 768; the last axis is then moved to the front.
fn start() -> Array4<f32> {
    Array4::from_shape_fn((4, 3, 8, 8), |(b, c, y, x)| {
        (((c * 8 + y) * 8 + x) * 4 + b) as f32 / 768.0
    })
}

/// Ten steps with one of the networks that stand for diffusers' own.
#[track_caller]
fn check(sampler: &str, network: &str, config: &str, scale: f32, sum: Option<f64>, mean: f64) {
    let place = place_of(&start().mapv(|x| x * scale));
    place.pipeline("m", network, &format!("{{{config}}}"));
    let run = eddy("sample m --input x.npy -o y.npy --steps 10 --sampler").arg(sampler);
    run.within(&place).succeeds();
    let result = place.result("y.npy");
    let found: f64 = result.iter().map(|x| f64::from(x.abs())).sum();
    if let Some(sum) = sum {
        assert!((found - sum).abs() < 1e-2, "{sampler} {config}: the sum is {found}, not {sum}");
    }
    let found = found / result.len() as f64;
    assert!((found - mean).abs() < 1e-3, "{sampler} {config}: the mean is {found}, not {mean}");
}

#[test]
fn ddim_full_loop() {
    let ddim = |config: &str, sum, mean| {
        let config = format!(r#""_class_name": "DDIMScheduler", "clip_sample": true, {config}"#);
        check("ddim", "published.onnx", &config, 1.0, Some(sum), mean);
    };
    ddim(BETAS, 172.0067, 0.223967);
    ddim(&format!(r#"{BETAS}, "prediction_type": "v_prediction""#), 52.5302, 0.0684);
    let short = r#""beta_start": 0.01, "beta_end": 0.02"#;
    ddim(&format!(r#"{short}, "set_alpha_to_one": true"#), 149.8295, 0.1951);
    ddim(&format!(r#"{short}, "set_alpha_to_one": false"#), 149.0784, 0.1941);
}

/// `scale` is the `init_noise_sigma` of that schedule: its largest sigma, since the timesteps are
/// spaced by `linspace`.
#[test]
fn euler_full_loop() {
    let betas = BETAS.replace("1000", "1100");
    let alphas_cumprod: f64 =
        (0..1100).map(|i| 1.0 - (1e-4 + (0.02 - 1e-4) * f64::from(i) / 1099.0)).product();
    let scale = ((1.0 - alphas_cumprod) / alphas_cumprod).sqrt() as f32;
    check("euler", "published-euler.onnx", &betas, scale, Some(10.0807), 0.0131);
    let karras = format!(r#"{betas}, "use_karras_sigmas": true"#);
    check("euler", "published-euler-karras.onnx", &karras, scale, Some(124.523), 0.162139);
}

#[test]
fn dpm_solver_full_loop() {
    let solver = |config: &str, mean| {
        let order =
            r#""solver_order": 2, "lower_order_final": false, "final_sigmas_type": "sigma_min""#;
        let class =
            r#""_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++""#;
        check(
            "dpmpp-2m",
            "published.onnx",
            &format!("{class}, {BETAS}, {order}, {config}"),
            1.0,
            None,
            mean,
        );
    };
    solver(r#""sample_max_value": 1.0"#, 0.3301);
    solver(r#""prediction_type": "v_prediction""#, 0.2251);
    solver(
        r#""thresholding": true, "dynamic_thresholding_ratio": 0.87, "sample_max_value": 0.5"#,
        1.1364,
    );
}

/// The predictor and corrector of second order, and on Karras' sigmas.
#[test]
fn unipc_full_loop() {
    let unipc = |config: &str, mean| {
        let order = r#""solver_order": 2, "solver_type": "bh2", "final_sigmas_type": "sigma_min""#;
        let class = r#""_class_name": "UniPCMultistepScheduler""#;
        check(
            "unipc",
            "published.onnx",
            &format!("{class}, {BETAS}, {order}, {config}"),
            1.0,
            None,
            mean,
        );
    };
    unipc(r#""thresholding": false"#, 0.2464);
    unipc(r#""use_karras_sigmas": true"#, 0.2925);
    unipc(r#""prediction_type": "v_prediction""#, 0.1014);
    unipc(r#""prediction_type": "v_prediction", "use_karras_sigmas": true"#, 0.1966);
}

#[test]
fn deis_full_loop() {
    let deis = |config: &str, mean| {
        let class = r#""_class_name": "DEISMultistepScheduler", "solver_order": 2"#;
        check("deis", "published.onnx", &format!("{class}, {BETAS}{config}"), 1.0, None, mean);
    };
    deis("", 0.23916);
    deis(r#", "prediction_type": "v_prediction""#, 0.091);
}

/// Three Runge-Kutta steps and six of Adams and Bashforth.
#[test]
fn pndm_full_loop() {
    let pndm = |config: &str, sum, mean| {
        check(
            "pndm",
            "published.onnx",
            &format!(r#""_class_name": "PNDMScheduler", {config}"#),
            1.0,
            Some(sum),
            mean,
        );
    };
    pndm(BETAS, 198.1318, 0.2580);
    pndm(&format!(r#"{BETAS}, "prediction_type": "v_prediction""#), 67.3986, 0.0878);
    let short = r#""beta_start": 0.01, "beta_end": 0.02"#;
    pndm(&format!(r#"{short}, "set_alpha_to_one": true"#), 230.0399, 0.2995);
    pndm(&format!(r#"{short}, "set_alpha_to_one": false"#), 186.9482, 0.2434);
}

#[test]
fn dpm_solver_in_single_steps_full_loop() {
    let single = |config: &str, mean| {
        let order = r#""solver_order": 2, "final_sigmas_type": "sigma_min""#;
        let class =
            r#""_class_name": "DPMSolverSinglestepScheduler", "algorithm_type": "dpmsolver++""#;
        check(
            "dpmpp-single",
            "published.onnx",
            &format!("{class}, {BETAS}, {order}, {config}"),
            1.0,
            None,
            mean,
        );
    };
    single(r#""thresholding": false"#, 0.2791);
    single(r#""prediction_type": "v_prediction""#, 0.1453);
    single(r#""use_karras_sigmas": true"#, 0.2248);
}

/// What diffusers 0.42.1 gives in the same loop; its own suite has no number of that order.
#[test]
fn third_order_full_loop() {
    let order = r#""solver_order": 3, "final_sigmas_type": "sigma_min""#;
    let of = |sampler: &str, class: &str, config: &str, mean| {
        let config = format!(r#""_class_name": "{class}", {BETAS}, {order}{config}"#);
        check(sampler, "published.onnx", &config, 1.0, None, mean);
    };
    of("dpmpp-3m", "DPMSolverMultistepScheduler", r#", "lower_order_final": false"#, 0.23042);
    of("dpmpp-3m", "DPMSolverMultistepScheduler", "", 0.24762);
    of("dpmpp-single", "DPMSolverSinglestepScheduler", "", 0.24622);
    of("unipc", "UniPCMultistepScheduler", "", 0.24736);
    of("deis", "DEISMultistepScheduler", "", 0.24164);
}
