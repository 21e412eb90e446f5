//! The training schedule of a stage, and its plans.

use std::path::Path;

use crate::diffusion::{
    DiscreteSchedule, FlowSchedule, Plan, Sampler, Schedule, config, flow_plan, plan_from,
};
use crate::error::{Error, Result};
use crate::model::{LARGEST_CONFIG, Links, Scheduler, find_inside, read_regular};

/// A training schedule, with the sampler of its file.
#[derive(Clone, Debug)]
pub(super) enum Training {
    /// Timesteps of a variance-preserving process.
    Discrete {
        /// The schedule.
        schedule: Box<DiscreteSchedule>,
        /// The sampler of the scheduler's class.
        sampler: Option<Sampler>,
    },
    /// Straight paths between image and noise.
    Flow(FlowSchedule),
}

/// A plan, and how its state begins.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// The plan.
    pub(super) plan: Plan,
    /// The factor of the initial noise, when there is no image to start from.
    pub(super) noise: f64,
    /// The name of the sampler.
    pub(super) sampler: &'static str,
}

/// A request for a plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlanRequest {
    /// Steps of the sampler, all that there are before some are left out.
    pub(super) steps: usize,
    /// How many of the first are left out.
    pub(super) skipped: usize,
    /// In place of the sampler of the scheduler's class.
    pub(super) sampler: Option<Sampler>,
    /// Stochasticity.
    pub(super) eta: Option<f64>,
    /// Values that the network attends to, on which some schedules depend.
    pub(super) tokens: usize,
}

impl Training {
    /// Reads a `scheduler_config.json`.
    ///
    /// # Errors
    /// [`Error::Model`] when it is missing, or of a class that Eddy has no sampler for.
    pub(super) fn read(folder: &Path, file: &str) -> Result<Self> {
        let model = folder.display().to_string();
        let bytes = find_inside(folder, file, Links::Cache)
            .and_then(|path| read_regular(&path, LARGEST_CONFIG))
            .map_err(|cause| {
                let problem = format!(
                    "its {file} cannot be read; it says on what schedule the network was trained"
                );
                Error::model_from(&model, problem, cause)
            })?;
        let text = String::from_utf8_lossy(&bytes);
        if let Some(flow) = FlowSchedule::parse(&model, &text)? {
            return Ok(Self::Flow(flow));
        }
        let sampler = Scheduler::parse(&model, &text)?.sampler;
        let schedule = Box::new(config::parse(&model, &text)?);
        Ok(Self::Discrete { schedule, sampler })
    }

    /// A plan of this schedule.
    ///
    /// # Errors
    /// [`Error::Usage`] for a sampler that does not go with it, or a number of steps that is
    /// impossible; [`Error::Model`] for an unsupported setting.
    pub(super) fn plan(&self, request: PlanRequest) -> Result<Start> {
        let PlanRequest { steps, skipped, sampler, eta, tokens } = request;
        if skipped >= steps {
            return Err(Error::usage(format!(
                "so little strength leaves none of {steps} steps; raise it, or take more steps"
            )));
        }
        match self {
            Self::Discrete { schedule, sampler: own } => {
                let sampler = sampler.or(*own).unwrap_or(Sampler::DDIM);
                let whole = Schedule::Discrete(schedule.clone());
                let plan = plan_from(&whole, sampler, steps, eta, skipped)?;
                let noise = plan.steps.first().map_or(1.0, |step| {
                    let level = step.level;
                    if (level.signal.hypot(level.noise) - 1.0).abs() < 1e-6 {
                        // For a variance-preserving state, the rest of the image is replaced by
                        // noise, too.
                        1.0
                    } else if schedule.starts_at_sigma() {
                        level.noise
                    } else {
                        level.noise.hypot(1.0)
                    }
                });
                Ok(Start { plan, noise, sampler: sampler.name() })
            }
            Self::Flow(schedule) => {
                if let Some(other) = sampler.filter(|sampler| *sampler != Sampler::EULER) {
                    return Err(Error::usage(format!(
                        "this network was trained on straight paths (flow matching), and {other} \
                         is not for them; leave the sampler out, or take euler"
                    )));
                }
                let plan = flow_plan(schedule, steps, tokens)?;
                let plan = plan.from_row(skipped);
                Ok(Start { plan, noise: 1.0, sampler: Sampler::EULER.name() })
            }
        }
    }

    /// A level of the schedule for the noise of a condition, and its factors of image and noise.
    pub(super) fn level(&self, timestep: usize) -> Option<[f64; 2]> {
        let Self::Discrete { schedule, .. } = self else { return None };
        let level = schedule.table().ok()?.level(timestep)?;
        Some([level.signal, level.noise])
    }
}
