//! Reading a diffusers `scheduler_config.json`.
//!
//! As with diffusers' `from_config`, one file serves every sampler: a key applies to each sampler
//! that has the setting, and absent keys take the sampler's default. A key that would change the
//! numbers and is not supported is an error: at once if it concerns every sampler, else when a plan
//! of that sampler is requested.

mod keys;

use std::ops::RangeInclusive;

use crate::diffusion::discrete::{
    DiscreteSchedule, FinalSigma, SigmaSpacing, SolverType, Threshold, UniPcVariant, Unsupported,
    Variance,
};
use crate::diffusion::level_path::LevelPath;
use crate::diffusion::parameterization::Prediction;
use crate::diffusion::schedule::{BetaSchedule, Spacing};
use crate::error::Result;
pub(crate) use keys::Keys;
pub(crate) use keys::{keys_of, shortened};

/// The scheduler classes that describe a variance-preserving training schedule by the same keys.
const CLASSES: [&str; 16] = [
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "PNDMScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverSDEScheduler",
    "LCMScheduler",
    "TCDScheduler",
];

/// Keys of other classes that do not affect these samplers.
const IGNORED_KEYS: [&str; 3] = ["use_dynamic_shifting", "time_shift_type", "shift_terminal"];

/// The number of training timesteps.
pub(crate) const TRAIN_STEPS: RangeInclusive<usize> = 2..=100_000;
/// The upper limit of sigmas and of bounds on predictions.
const MAX_SIGMA: f64 = 1e6;

/// Parses the text of a `scheduler_config.json`. `name` is the model's name in messages.
///
/// # Errors
/// [`Error::Model`](crate::Error::Model) when the text is not a JSON object, is of a class with
/// another kind of schedule, or has an unsupported key that would change the numbers. The error
/// names the key, its value and the possible values.
pub fn parse(name: &str, text: &str) -> Result<DiscreteSchedule> {
    parse_of(name, "scheduler_config.json", text)
}

/// Like [`parse`], for keys in this `place` of the model.
pub(crate) fn parse_of(name: &str, place: &'static str, text: &str) -> Result<DiscreteSchedule> {
    let mut keys = Keys::new(name, place, text)?;
    if let Some(class) = keys.text("_class_name")?
        && !CLASSES.contains(&class.as_str())
    {
        return Err(keys.refusal("_class_name", &class, &CLASSES.join(", ")));
    }
    let defaults = DiscreteSchedule::default();
    let train_steps =
        keys.count("num_train_timesteps", TRAIN_STEPS)?.unwrap_or(defaults.train_steps);
    let mut schedule = DiscreteSchedule {
        name: name.into(),
        train_steps,
        betas: betas(&mut keys, train_steps)?,
        zero_terminal_snr: keys.flag("rescale_betas_zero_snr")?.unwrap_or(false),
        prediction: keys.choice("prediction_type", &PREDICTIONS)?.unwrap_or(Prediction::Epsilon),
        spacing: keys.choice("timestep_spacing", &SPACINGS)?,
        steps_offset: keys.count("steps_offset", 0..=*TRAIN_STEPS.end())?.unwrap_or(0),
        ..defaults
    };
    read_clip(&mut keys, &mut schedule)?;
    read_ddpm(&mut keys, &mut schedule)?;
    read_sigmas(&mut keys, &mut schedule)?;
    read_solver(&mut keys, &mut schedule)?;
    read_distilled(&mut keys, &mut schedule)?;
    keys.finish(&IGNORED_KEYS)?;
    schedule.table()?;
    Ok(schedule)
}

/// The predictions of networks that take a timestep. Three are named as in a manifest.
const PREDICTIONS: [(&str, Prediction); 5] = [
    ("epsilon", Prediction::Epsilon),
    ("v_prediction", Prediction::VPrediction),
    ("sample", Prediction::Sample),
    // An older name of `sample` that EulerDiscreteScheduler still accepts.
    ("original_sample", Prediction::Sample),
    // With `use_flow_sigmas` alone.
    ("flow_prediction", Prediction::Flow),
];

const SPACINGS: [(&str, Spacing); 3] = [
    ("leading", Spacing::Leading),
    ("linspace", Spacing::Linspace),
    ("trailing", Spacing::Trailing),
];

fn betas(keys: &mut Keys<'_>, train_steps: usize) -> Result<BetaSchedule> {
    let mut beta = |key, default| {
        let beta = keys.number(key)?.unwrap_or(default);
        keys.checked(key, beta, 0.0 < beta && beta < 1.0, "between 0 and 1")
    };
    let (start, end) = (beta("beta_start", 1e-4)?, beta("beta_end", 0.02)?);
    let trained = keys.numbers("trained_betas")?;
    if let Some(betas) = trained.as_ref().filter(|betas| betas.len() != train_steps) {
        let possible = format!("one for each of the {train_steps} timesteps of training");
        return Err(keys.refusal("trained_betas", &format!("{} betas", betas.len()), &possible));
    }
    if let Some(beta) = trained.iter().flatten().find(|beta| !(0.0..=1.0).contains(*beta)) {
        return Err(keys.refusal(
            "trained_betas",
            &format!("[... {beta} ...]"),
            "betas between 0 and 1",
        ));
    }
    let schedule = keys.text("beta_schedule")?;
    match (trained, schedule.as_deref().unwrap_or("linear")) {
        (Some(betas), _) => Ok(BetaSchedule::Trained(betas)),
        (None, "linear") => Ok(BetaSchedule::Linear { start, end }),
        (None, "scaled_linear") => Ok(BetaSchedule::ScaledLinear { start, end }),
        (None, "squaredcos_cap_v2") => Ok(BetaSchedule::SquaredCosCapV2),
        (None, other) => {
            Err(keys.refusal("beta_schedule", other, "linear, scaled_linear, squaredcos_cap_v2"))
        }
    }
}

/// The possible values of a sigma or a bound.
const SIGMA_RANGE_TEXT: &str = "a number above 0, at most 1000000";

fn is_bound(number: f64) -> bool {
    0.0 < number && number <= MAX_SIGMA
}

fn read_clip(keys: &mut Keys<'_>, schedule: &mut DiscreteSchedule) -> Result<()> {
    schedule.clip_sample = keys.flag("clip_sample")?;
    schedule.clips_direction = keys.flag("use_clipped_model_output")?.unwrap_or(false);
    if let Some(range) = keys.number("clip_sample_range")? {
        schedule.clip_sample_range =
            keys.checked("clip_sample_range", range, is_bound(range), SIGMA_RANGE_TEXT)?;
    }
    let ratio = keys.number("dynamic_thresholding_ratio")?.unwrap_or(0.995);
    let ratio =
        keys.checked("dynamic_thresholding_ratio", ratio, (0.0..=1.0).contains(&ratio), "0 to 1")?;
    let max = keys.number("sample_max_value")?.unwrap_or(1.0);
    let max = keys.checked("sample_max_value", max, is_bound(max), SIGMA_RANGE_TEXT)?;
    schedule.threshold =
        keys.flag("thresholding")?.unwrap_or(false).then_some(Threshold { ratio, max });
    schedule.set_alpha_to_one = keys.flag("set_alpha_to_one")?;
    schedule.skip_prk_steps = keys.flag("skip_prk_steps")?.unwrap_or(false);
    Ok(())
}

fn read_ddpm(keys: &mut Keys<'_>, schedule: &mut DiscreteSchedule) -> Result<()> {
    let Some(variance) = keys.text("variance_type")? else { return Ok(()) };
    match variance.as_str() {
        // The logarithm is taken and inverted again, so the two are equal.
        "fixed_small" | "fixed_small_log" => schedule.variance = Variance::FixedSmall,
        "fixed_large" => schedule.variance = Variance::FixedLarge,
        // A learned variance is a second half of the network's output, with every sampler.
        "learned" | "learned_range" => {
            return Err(keys.refusal(
                "variance_type",
                &variance,
                "fixed_small, fixed_small_log, fixed_large",
            ));
        }
        _ => {
            let possible = "fixed_small, fixed_small_log, fixed_large";
            schedule.unsupported.push(unsupported(
                keys,
                "variance_type",
                &variance,
                possible,
                &[LevelPath::Ancestral],
            ));
        }
    }
    Ok(())
}

/// The level paths in sigma, those of DPM-Solver++ and similar solvers, and both.
const SIGMAS: &[LevelPath] = &[
    LevelPath::VarianceExploding,
    LevelPath::VarianceExplodingClipped,
    LevelPath::VarianceExplodingMidpoint,
    LevelPath::GeometricSigmas,
];
const SOLVERS: &[LevelPath] =
    &[LevelPath::DpmSolver, LevelPath::DpmSolverSinglestep, LevelPath::UniPc, LevelPath::Deis];
const BOTH: &[LevelPath] = &[
    LevelPath::VarianceExploding,
    LevelPath::VarianceExplodingClipped,
    LevelPath::VarianceExplodingMidpoint,
    LevelPath::GeometricSigmas,
    LevelPath::DpmSolver,
    LevelPath::DpmSolverSinglestep,
    LevelPath::UniPc,
    LevelPath::Deis,
];

fn read_sigmas(keys: &mut Keys<'_>, schedule: &mut DiscreteSchedule) -> Result<()> {
    let karras = keys.flag("use_karras_sigmas")?.unwrap_or(false);
    let exponential = keys.flag("use_exponential_sigmas")?.unwrap_or(false);
    let shift = keys.number("flow_shift")?.unwrap_or(1.0);
    schedule.flow_shift = keys.checked("flow_shift", shift, is_bound(shift), SIGMA_RANGE_TEXT)?;
    schedule.sigma_spacing = match (karras, exponential) {
        (false, false) if schedule.prediction == Prediction::Flow => SigmaSpacing::Flow,
        (false, false) => SigmaSpacing::Timesteps,
        (true, false) => SigmaSpacing::Karras,
        (false, true) => SigmaSpacing::Exponential,
        (true, true) => {
            return Err(keys.refusal(
                "use_exponential_sigmas",
                "true",
                "one of it and use_karras_sigmas",
            ));
        }
    };
    for key in ["sigma_min", "sigma_max"] {
        let Some(sigma) = keys.number(key)? else { continue };
        let sigma = keys.checked(key, sigma, is_bound(sigma), SIGMA_RANGE_TEXT)?;
        *(if key == "sigma_min" { &mut schedule.sigma_min } else { &mut schedule.sigma_max }) =
            Some(sigma);
    }
    if let (Some(min), Some(max)) = (schedule.sigma_min, schedule.sigma_max)
        && min >= max
    {
        return Err(keys.refusal(
            "sigma_min",
            &min.to_string(),
            &format!("less than sigma_max, {max}"),
        ));
    }
    let finals = [("zero", FinalSigma::Zero), ("sigma_min", FinalSigma::SigmaMin)];
    schedule.final_sigma = keys.choice("final_sigmas_type", &finals)?.unwrap_or_default();
    let is_flow = schedule.is_flow();
    let mut refuse = |keys: &Keys<'_>, key: &str, value: &str, possible: &str, level_paths| {
        schedule.unsupported.push(unsupported(keys, key, value, possible, level_paths));
    };
    if keys.flag("use_beta_sigmas")? == Some(true) {
        refuse(keys, "use_beta_sigmas", "true", "use_karras_sigmas, use_exponential_sigmas", BOTH);
    }
    if keys.flag("use_lu_lambdas")? == Some(true) {
        let possible = "use_karras_sigmas, use_exponential_sigmas";
        refuse(keys, "use_lu_lambdas", "true", possible, SOLVERS);
    }
    let has_flow_sigmas = keys.flag("use_flow_sigmas")?.unwrap_or(false);
    if has_flow_sigmas && !is_flow {
        let possible = "prediction_type flow_prediction beside it, and no other sigmas";
        refuse(keys, "use_flow_sigmas", "true", possible, SOLVERS);
    }
    if schedule.prediction == Prediction::Flow {
        if !has_flow_sigmas || !is_flow {
            let possible = "epsilon, v_prediction, sample; or use_flow_sigmas beside it";
            return Err(keys.refusal("prediction_type", "flow_prediction", possible));
        }
        if keys.flag("use_dynamic_shifting")? == Some(true) {
            return Err(keys.refusal("use_dynamic_shifting", "true", "false, and a flow_shift"));
        }
        if schedule.final_sigma == FinalSigma::SigmaMin {
            return Err(keys.refusal("final_sigmas_type", "sigma_min", "zero"));
        }
    }
    if let Some(kind) = keys.text("interpolation_type")?.filter(|kind| kind != "linear") {
        refuse(keys, "interpolation_type", &kind, "linear", SIGMAS);
    }
    let takes_sigma = schedule.prediction == Prediction::VPrediction;
    if let Some(kind) = keys.text("timestep_type")?.filter(|kind| kind != "discrete" && takes_sigma)
    {
        refuse(keys, "timestep_type", &kind, "discrete", SIGMAS);
    }
    Ok(())
}

fn read_solver(keys: &mut Keys<'_>, schedule: &mut DiscreteSchedule) -> Result<()> {
    const DPM: &[LevelPath] = &[LevelPath::DpmSolver, LevelPath::DpmSolverSinglestep];
    const UNIPC: &[LevelPath] = &[LevelPath::UniPc];
    schedule.lower_order_final = keys.flag("lower_order_final")?;
    schedule.euler_at_final = keys.flag("euler_at_final")?.unwrap_or(false);
    schedule.lambda_min_clipped = keys.extended("lambda_min_clipped")?.unwrap_or(f64::NEG_INFINITY);
    match keys.count("solver_order", 1..=100)? {
        None => {}
        Some(order @ 1..=3) => schedule.solver_order = order,
        Some(order) => schedule.unsupported.push(unsupported(
            keys,
            "solver_order",
            &order.to_string(),
            "1, 2, 3",
            SOLVERS,
        )),
    }
    match keys.text("solver_type")?.as_deref() {
        // As in diffusers, each solver reads its own names and takes its default for the names of
        // other solvers.
        None | Some("midpoint" | "logrho" | "bh2") => {}
        Some("heun") => schedule.solver_type = SolverType::Heun,
        Some("bh1") => schedule.unipc_variant = UniPcVariant::Bh1,
        Some(other) => {
            let possible = "midpoint, heun, logrho, bh1, bh2";
            schedule.unsupported.push(unsupported(keys, "solver_type", other, possible, SOLVERS));
        }
    }
    match keys.text("algorithm_type")?.as_deref() {
        // The sampler decides whether noise is added.
        None | Some("dpmsolver++" | "sde-dpmsolver++" | "deis") => {}
        Some(other) => {
            let possible = "dpmsolver++, sde-dpmsolver++";
            schedule.unsupported.push(unsupported(keys, "algorithm_type", other, possible, DPM));
        }
    }
    schedule.predicts_noise = !keys.flag("predict_x0")?.unwrap_or(true);
    let is_step =
        |step: &f64| step.fract() == 0.0 && (0.0..=*TRAIN_STEPS.end() as f64).contains(step);
    if let Some(steps) = keys.numbers("disable_corrector")? {
        if let Some(step) = steps.iter().find(|step| !is_step(step)) {
            return Err(keys.refusal(
                "disable_corrector",
                &step.to_string(),
                "the numbers of steps, from 0 on",
            ));
        }
        schedule.disable_corrector = steps.into_iter().map(|step| step as usize).collect();
    }
    if let Some(solver) = keys.value("solver_p") {
        let possible = "none, UniPC's own predictor";
        schedule.unsupported.push(unsupported(
            keys,
            "solver_p",
            &solver.to_string(),
            possible,
            UNIPC,
        ));
    }
    Ok(())
}

fn read_distilled(keys: &mut Keys<'_>, schedule: &mut DiscreteSchedule) -> Result<()> {
    if let Some(steps) = keys.count("original_inference_steps", 1..=schedule.train_steps)? {
        schedule.original_inference_steps = steps;
    }
    if let Some(scaling) = keys.number("timestep_scaling")? {
        schedule.timestep_scaling =
            keys.checked("timestep_scaling", scaling, is_bound(scaling), SIGMA_RANGE_TEXT)?;
    }
    Ok(())
}

fn unsupported(
    keys: &Keys<'_>,
    key: &str,
    value: &str,
    possible: &str,
    level_paths: &'static [LevelPath],
) -> Unsupported {
    Unsupported { problem: keys.problem(key, value, possible), level_paths }
}

#[cfg(test)]
mod tests;
