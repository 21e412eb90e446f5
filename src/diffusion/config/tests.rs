use super::{BOTH, SIGMAS, SOLVERS, parse};
use crate::diffusion::discrete::{
    DiscreteSchedule, FinalSigma, SigmaSpacing, SolverType, Threshold, UniPcVariant, Variance,
};
use crate::diffusion::level_path::LevelPath;
use crate::diffusion::parameterization::Prediction;
use crate::diffusion::sampler::{Sampler, Schedule, plan};
use crate::diffusion::schedule::{BetaSchedule, Spacing};

fn read(text: &str) -> DiscreteSchedule {
    parse("tiny", text).unwrap()
}

fn problem(text: &str) -> String {
    parse("tiny", text).unwrap_err().to_string()
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(read("{}"), DiscreteSchedule { name: "tiny".into(), ..DiscreteSchedule::default() });
}

/// Sets every supported key to a value other than its default, so that no key is read without
/// effect.
#[test]
fn every_key_has_an_effect() {
    type Change = fn(&mut DiscreteSchedule);
    let changes: [(&str, Change); 27] = [
        (r#""num_train_timesteps": 500"#, |s| s.train_steps = 500),
        (r#""beta_start": 0.001"#, |s| s.betas = BetaSchedule::Linear { start: 0.001, end: 0.02 }),
        (r#""beta_end": 0.01"#, |s| s.betas = BetaSchedule::Linear { start: 1e-4, end: 0.01 }),
        (r#""beta_schedule": "squaredcos_cap_v2""#, |s| s.betas = BetaSchedule::SquaredCosCapV2),
        (r#""trained_betas": [0.5, 0.25], "num_train_timesteps": 2"#, |s| {
            s.train_steps = 2;
            s.betas = BetaSchedule::Trained(vec![0.5, 0.25]);
        }),
        (r#""rescale_betas_zero_snr": true"#, |s| s.zero_terminal_snr = true),
        (r#""prediction_type": "v_prediction""#, |s| s.prediction = Prediction::VPrediction),
        (r#""timestep_spacing": "trailing""#, |s| s.spacing = Some(Spacing::Trailing)),
        (r#""steps_offset": 1"#, |s| s.steps_offset = 1),
        (r#""clip_sample": false"#, |s| s.clip_sample = Some(false)),
        (r#""clip_sample_range": 2.0"#, |s| s.clip_sample_range = 2.0),
        (
            r#""thresholding": true, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 3"#,
            |s| {
                s.threshold = Some(Threshold { ratio: 0.9, max: 3.0 });
            },
        ),
        (r#""set_alpha_to_one": false"#, |s| s.set_alpha_to_one = Some(false)),
        (r#""variance_type": "fixed_large""#, |s| s.variance = Variance::FixedLarge),
        (r#""use_karras_sigmas": true"#, |s| s.sigma_spacing = SigmaSpacing::Karras),
        (r#""use_exponential_sigmas": true"#, |s| s.sigma_spacing = SigmaSpacing::Exponential),
        (r#""sigma_min": 0.1, "sigma_max": 9.0"#, |s| {
            (s.sigma_min, s.sigma_max) = (Some(0.1), Some(9.0))
        }),
        (r#""final_sigmas_type": "sigma_min""#, |s| s.final_sigma = FinalSigma::SigmaMin),
        (r#""solver_order": 1"#, |s| s.solver_order = 1),
        (r#""solver_type": "heun""#, |s| s.solver_type = SolverType::Heun),
        (r#""lower_order_final": false, "euler_at_final": true"#, |s| {
            (s.lower_order_final, s.euler_at_final) = (Some(false), true);
        }),
        (r#""solver_order": 3"#, |s| s.solver_order = 3),
        (r#""solver_type": "bh1""#, |s| s.unipc_variant = UniPcVariant::Bh1),
        (r#""predict_x0": false"#, |s| s.predicts_noise = true),
        (r#""disable_corrector": [0, 2]"#, |s| s.disable_corrector = vec![0, 2]),
        (r#""skip_prk_steps": true"#, |s| s.skip_prk_steps = true),
        (r#""lambda_min_clipped": -5.1"#, |s| s.lambda_min_clipped = -5.1),
    ];
    for (text, change) in changes {
        let mut expected = read("{}");
        change(&mut expected);
        assert_ne!(expected, read("{}"), "{text}");
        assert_eq!(read(&format!("{{{text}}}")), expected, "{text}");
    }
}

#[test]
fn reads_files_written_by_diffusers() {
    let schedule = read(
        r#"{
            "_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.42.1",
            "algorithm_type": "dpmsolver++",
            "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
            "clip_sample": false,
            "dynamic_thresholding_ratio": 0.995, "euler_at_final": false,
            "final_sigmas_type": "zero", "flow_shift": 1.0,
            "lambda_min_clipped": -Infinity, "lower_order_final": true, "num_train_timesteps": 1000,
            "prediction_type": "epsilon", "rescale_betas_zero_snr": false, "sample_max_value": 1.0,
            "set_alpha_to_one": false, "skip_prk_steps": true, "solver_order": 2,
            "solver_type": "bh2", "steps_offset": 1,
            "thresholding": false, "time_shift_type": "exponential", "timestep_spacing": "leading",
            "trained_betas": null, "use_beta_sigmas": false, "use_dynamic_shifting": false,
            "use_exponential_sigmas": false, "use_flow_sigmas": false, "use_karras_sigmas": false,
            "use_lu_lambdas": false, "variance_type": null
        }"#,
    );
    assert_eq!(schedule.betas, BetaSchedule::ScaledLinear { start: 0.00085, end: 0.012 });
    assert_eq!(schedule.lambda_min_clipped, f64::NEG_INFINITY);
    assert!(
        schedule.clip_sample == Some(false)
            && schedule.set_alpha_to_one == Some(false)
            && schedule.unsupported.is_empty()
    );
}

#[test]
fn ignores_values_marked_as_defaults() {
    let schedule = read(
        r#"{"timestep_spacing": "leading", "steps_offset": 1,
            "_use_default_values": ["timestep_spacing"]}"#,
    );
    assert_eq!((schedule.spacing, schedule.steps_offset), (None, 1));
}

#[test]
fn names_unsupported_keys_that_change_the_numbers() {
    for (text, expected) in [
        (r#"{"snr_shift_scale": 3.0}"#, ["snr_shift_scale", "3.0"]),
        (r#"{"beta_schedule": "sigmoid"}"#, ["beta_schedule", "scaled_linear"]),
        (r#"{"prediction_type": "flow_prediction"}"#, ["flow_prediction", "use_flow_sigmas"]),
        (r#"{"variance_type": "learned_range"}"#, ["learned_range", "fixed_small"]),
        (r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#, ["FlowMatch", "DDIMScheduler"]),
        (r#"{"steps_offset": -1}"#, ["steps_offset", "-1"]),
        (r#"{"clip_sample": "yes"}"#, ["clip_sample", "yes"]),
        (r#"{"clip_sample_range": 0}"#, ["clip_sample_range", "above 0"]),
        (r#"{"beta_start": Infinity}"#, ["beta_start", "Infinity"]),
        (
            r#"{"use_karras_sigmas": true, "use_exponential_sigmas": true}"#,
            ["use_karras_sigmas", "one of"],
        ),
        (r#"{"trained_betas": [0.1, 0.2]}"#, ["2 betas", "1000"]),
        (r#"{"beta_end": 2.0}"#, ["beta_end = 2", "between 0 and 1"]),
        ("[]", ["object", "tiny"]),
        ("{", ["JSON", "tiny"]),
    ] {
        let problem = problem(text);
        assert!(expected.iter().all(|part| problem.contains(part)), "{text}: {problem}");
    }
}

#[test]
fn rejects_a_setting_only_for_samplers_without_support() {
    for (text, key, level_paths) in [
        (r#""use_beta_sigmas": true"#, "use_beta_sigmas", BOTH),
        (r#""use_lu_lambdas": true"#, "use_lu_lambdas", SOLVERS),
        (r#""solver_order": 4"#, "solver_order", SOLVERS),
        (r#""solver_type": "rk4""#, "solver_type", SOLVERS),
        (r#""solver_p": {"order": 2}"#, "solver_p", &[LevelPath::UniPc]),
        (
            r#""algorithm_type": "dpmsolver""#,
            "algorithm_type",
            &[LevelPath::DpmSolver, LevelPath::DpmSolverSinglestep],
        ),
        (r#""interpolation_type": "log_linear""#, "interpolation_type", SIGMAS),
        (
            r#""timestep_type": "continuous", "prediction_type": "v_prediction""#,
            "timestep_type",
            SIGMAS,
        ),
        (r#""variance_type": "fixed_large_log""#, "variance_type", &[LevelPath::Ancestral]),
    ] {
        let schedule = Schedule::Discrete(Box::new(read(&format!("{{{text}}}"))));
        for sampler in Sampler::ALL {
            let result = plan(&schedule, sampler, 5, None);
            if level_paths.contains(&sampler.path()) {
                let problem = result.unwrap_err().to_string();
                assert!(problem.contains(key) && problem.contains("tiny"), "{problem}");
            } else {
                assert!(result.is_ok(), "{text} with {sampler}");
            }
        }
    }
}

#[test]
fn infinities_within_strings_are_unchanged() {
    assert!(
        problem(r#"{"note": "to \"Infinity\" and NaN"}"#).contains(r#"to \"Infinity\" and NaN"#)
    );
}

#[test]
fn a_short_schedule_has_no_plan_of_its_distilled_timesteps() {
    for (keys, is_possible) in [
        (r#""num_train_timesteps": 10"#, false),
        (r#""num_train_timesteps": 10, "original_inference_steps": 5"#, true),
    ] {
        let schedule = Schedule::Discrete(Box::new(read(&format!("{{{keys}}}"))));
        for sampler in ["lcm", "tcd"] {
            let found = plan(&schedule, sampler.parse().unwrap(), 1, None);
            let problem = found.map(drop).map_err(|error| error.to_string());
            assert_eq!(problem.is_ok(), is_possible, "{sampler}: {problem:?}");
            assert!(problem.err().is_none_or(|it| it.contains("original_inference_steps")));
        }
    }
}
