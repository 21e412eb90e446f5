//! The training schedule of a stage, and its plans.

use serde_json::{Map, Value};

use crate::diffusion::{
    DiscreteSchedule, FlowSchedule, Plan, Sampler, Schedule, config, flow_plan, plan_from,
    schedule::NoiseTable,
};
use crate::error::{Error, Result};
use crate::model::{ModelFolder, SCHEDULE_PURPOSE, Scheduler, text_of};

/// A training schedule, with the sampler of its file.
#[derive(Clone, Debug)]
pub(crate) enum StageSchedule {
    /// Timesteps of a variance-preserving process.
    Discrete {
        /// The schedule.
        schedule: Box<DiscreteSchedule>,
        /// The sampler of the scheduler's class.
        sampler: Option<Sampler>,
        /// Whether the network predicts the variance of the sampler's noise (Nichol and Dhariwal
        /// 2021, equation 15).
        has_learned_variance: bool,
        /// Whether it is of diffusers' `UnCLIPScheduler`.
        is_unclip: bool,
    },
    /// Straight paths between image and noise.
    Flow(FlowSchedule),
}

/// A plan, and how its state begins.
#[derive(Clone, Debug)]
pub(crate) struct StagePlan {
    /// The plan.
    pub(crate) plan: Plan,
    /// The factor of the initial noise, when there is no image to start from.
    pub(crate) noise: f64,
    /// The name of the sampler.
    pub(crate) sampler: &'static str,
    /// Whether the noise of its steps has a variance that the network predicts.
    pub(crate) has_learned_variance: bool,
}

/// A request for a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanRequest {
    /// Steps of the sampler, all that there are before some are left out.
    pub(crate) steps: usize,
    /// How many of the first are left out.
    pub(crate) skipped: usize,
    /// In place of the sampler of the scheduler's class.
    pub(crate) sampler: Option<Sampler>,
    /// Stochasticity.
    pub(crate) eta: Option<f64>,
    /// Values that the network attends to, on which some schedules depend.
    pub(crate) tokens: usize,
    /// See [`StageSpec::has_even_sigmas`](super::StageSpec::has_even_sigmas).
    pub(crate) has_even_sigmas: bool,
    /// The part of the distilled timesteps that is visited.
    pub(crate) part: f64,
}

impl StageSchedule {
    /// Reads a `scheduler_config.json`.
    ///
    /// # Errors
    /// [`Error::Model`] when it is missing, or of a class that Eddy has no sampler for.
    pub(crate) fn read(folder: &ModelFolder, file: &str) -> Result<Self> {
        Self::parse(&folder.to_string(), &text_of(folder, file, SCHEDULE_PURPOSE)?)
    }

    /// Reads the text of a `scheduler_config.json`; `model` is the model's name in errors.
    pub(super) fn parse(model: &str, text: &str) -> Result<Self> {
        if let Some(flow) = FlowSchedule::parse(model, text)? {
            return Ok(Self::Flow(flow));
        }
        let AsDdpm { text, has_learned_variance, is_unclip } = AsDdpm::of(text);
        let sampler = Scheduler::parse(model, &text)?.sampler;
        let schedule = Box::new(config::parse(model, &text)?);
        Ok(Self::Discrete { schedule, sampler, has_learned_variance, is_unclip })
    }

    /// A plan of this schedule.
    ///
    /// # Errors
    /// [`Error::Usage`] for a sampler that does not fit it, or a number of steps that is
    /// impossible; [`Error::Model`] for an unsupported setting.
    pub(crate) fn plan(&self, request: PlanRequest) -> Result<StagePlan> {
        let PlanRequest { steps, skipped, sampler, eta, tokens, has_even_sigmas, part } = request;
        if skipped >= steps {
            return Err(Error::usage(format!(
                "the strength is too low: none of {steps} steps remain; raise it, or take more steps"
            )));
        }
        match self {
            Self::Discrete { schedule, sampler: own, has_learned_variance, is_unclip } => {
                let sampler = sampler.or(*own).unwrap_or(Sampler::DDIM);
                let mut used = schedule.clone();
                used.original_steps_limit = (part < 1.0)
                    .then_some((schedule.original_inference_steps as f64 * part) as usize);
                let whole = Schedule::Discrete(used);
                let mut plan = plan_from(&whole, sampler, steps, eta, skipped)?;
                if *is_unclip && sampler == Sampler::DDPM {
                    let betas = schedule.betas.betas(schedule.train_steps);
                    round_as_unclip(&mut plan, &schedule.table()?, &betas);
                }
                let noise = plan.steps.first().map_or(1.0, |step| {
                    let level = step.level;
                    if schedule.is_flow() || (level.signal.hypot(level.noise) - 1.0).abs() < 1e-6 {
                        // For a variance-preserving state, the rest of the image is replaced by
                        // noise, too.
                        1.0
                    } else if schedule.starts_at_sigma() {
                        level.noise
                    } else {
                        level.noise.hypot(1.0)
                    }
                });
                let has_learned_variance = *has_learned_variance && sampler == Sampler::DDPM;
                Ok(StagePlan { plan, noise, sampler: sampler.name(), has_learned_variance })
            }
            Self::Flow(schedule) => {
                if let Some(other) = sampler.filter(|sampler| *sampler != Sampler::EULER) {
                    return Err(Error::usage(format!(
                        "this network was trained on straight paths (flow matching), and {other} \
                         is not for them; leave the sampler out, or take euler"
                    )));
                }
                let plan = flow_plan(schedule, steps, tokens, has_even_sigmas)?;
                let plan = plan.from_row(skipped);
                Ok(StagePlan {
                    plan,
                    noise: 1.0,
                    sampler: Sampler::EULER.name(),
                    has_learned_variance: false,
                })
            }
        }
    }

    /// How many of the first of `steps` steps an image of this `strength` leaves out, as diffusers
    /// rounds it.
    pub(crate) fn skipped(&self, steps: usize, strength: f64) -> usize {
        let taken = steps as f64 * strength;
        match self {
            Self::Discrete { .. } => steps - (taken as usize).min(steps),
            Self::Flow(_) => (steps as f64 - taken.min(steps as f64)) as usize,
        }
    }

    /// A level of the schedule for the noise of a condition, and its factors of image and noise.
    pub(crate) fn level(&self, timestep: usize) -> Option<[f64; 2]> {
        let Self::Discrete { schedule, .. } = self else { return None };
        let level = schedule.table().ok()?.level(timestep)?;
        Some([level.signal, level.noise])
    }
}

/// A scheduler's file in the terms of `DDPMScheduler`.
struct AsDdpm {
    text: String,
    has_learned_variance: bool,
    is_unclip: bool,
}

impl AsDdpm {
    ///
    /// `UnCLIPScheduler` is that scheduler on the cosine schedule, from each visited timestep to the
    /// next. A learned variance lies between the smallest one, which is kept here, and the largest.
    fn of(text: &str) -> Self {
        let Ok(Value::Object(mut keys)) = serde_json::from_str(text) else {
            return Self { text: text.to_owned(), has_learned_variance: false, is_unclip: false };
        };
        let is = |keys: &Map<String, Value>, key: &str, value: &str| {
            keys.get(key).and_then(Value::as_str) == Some(value)
        };
        let is_unclip = is(&keys, "_class_name", "UnCLIPScheduler");
        if is_unclip {
            for (key, value) in [
                ("_class_name", "DDPMScheduler"),
                ("beta_schedule", "squaredcos_cap_v2"),
                ("timestep_spacing", "linspace"),
            ] {
                keys.insert(key.into(), value.into());
            }
        }
        let has_learned_variance = is(&keys, "variance_type", "learned_range");
        if has_learned_variance {
            keys.insert("variance_type".into(), "fixed_small".into());
        }
        Self { text: Value::Object(keys).to_string(), has_learned_variance, is_unclip }
    }
}

/// Gives a plan the factors that `UnCLIPScheduler` computes, whose differences of numbers near 1
/// lose digits in f32: by up to 5e-4 of the state, in the first and in the last step.
fn round_as_unclip(plan: &mut Plan, table: &NoiseTable, betas: &[f32]) {
    let product = |t: Option<usize>| t.and_then(|t| table.alpha_cumprod(t)).unwrap_or(1.0) as f32;
    let timesteps: Vec<usize> = plan.steps.iter().map(|step| step.t as usize).collect();
    for (i, step) in plan.steps.iter_mut().enumerate() {
        let (t, to) = (timesteps[i], timesteps.get(i + 1).copied());
        let (from, to_product) = (product(Some(t)), product(to));
        let beta = match betas.get(t) {
            // The training schedule's own.
            Some(beta) if to.map_or(0, |to| to + 1) == t => *beta,
            _ => 1.0 - from / to_product,
        };
        let alpha = 1.0 - beta;
        step.a = f64::from(alpha.sqrt() * (1.0 - to_product) / (1.0 - from));
        step.b = f64::from(to_product.sqrt() * beta / (1.0 - from));
        if step.d != 0.0 {
            step.d = f64::from((1.0 - to_product) / (1.0 - from) * beta).sqrt();
        }
        // Of networks that predict the noise.
        if step.c_skip != 0.0 {
            step.c_out *= f64::from(1.0 - from).sqrt() / step.level.noise;
        }
    }
}
