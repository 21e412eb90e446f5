//! `dpmpp-2m` on a training schedule: DPM-Solver++(2M) (Lu et al. 2022, algorithm 2).

use crate::diffusion::discrete::{DiscreteSchedule, FinalSigma, SigmaSpacing};
use crate::diffusion::parameterization::Scaling;
use crate::diffusion::plan::{Clip, Level, Plan, Step};
use crate::diffusion::sampler::rows::{self, SolverType};
use crate::diffusion::schedule::sigmas::{KARRAS_RHO, TimestepOf, exponential, karras, sigma_at};
use crate::diffusion::schedule::timesteps::solver_timesteps;
use crate::diffusion::schedule::{BetaSchedule, Spacing};
use crate::error::{Error, Result};

/// DPM-Solver++ of order 1 or 2 in variance-preserving coordinates. Predictions are thresholded where the schedule says
/// so, and never clipped to a range.
///
/// # Errors
/// When the schedule leaves no timestep to visit.
pub fn plan(schedule: &DiscreteSchedule, steps: usize) -> Result<Plan> {
    let sigmas = schedule.table()?.sigmas();
    let points = points(schedule, &sigmas, steps)?;
    let levels: Vec<Level> = points.iter().map(|&(_, sigma)| Level::preserving_from_sigma(sigma)).collect();
    let end = Level::preserving_from_sigma(schedule.final_sigma(&sigmas));
    let ends_low = schedule.euler_at_final
        || (schedule.lower_order_final && points.len() < 15)
        || schedule.final_sigma == FinalSigma::Zero;
    let scaling = |i: usize| schedule.prediction.scaling(levels[i], points[i].0);
    let order = Order { second: schedule.solver_order > 1, ends_low, solver: schedule.solver_type };
    let clip = match schedule.clip() {
        clip @ Clip::Threshold { .. } => clip,
        _ => Clip::None,
    };
    Ok(Plan { steps: multistep(&levels, end, order, scaling), clip })
}

/// Which rows are of second order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// Whether any is.
    pub(super) second: bool,
    /// Whether the last one is not.
    pub(super) ends_low: bool,
    /// How they extrapolate.
    pub(super) solver: SolverType,
}

/// The rows of the multistep method through `levels` to `end`; the first is always of first order.
pub(super) fn multistep(levels: &[Level], end: Level, order: Order, scaling: impl Fn(usize) -> Scaling) -> Vec<Step> {
    let rows = levels.iter().enumerate().map(|(i, &from)| {
        let to = levels.get(i + 1).copied().unwrap_or(end);
        let is_last = i + 1 == levels.len();
        if i > 0 && order.second && !(is_last && order.ends_low) {
            rows::dpmpp_2m(levels[i - 1], from, scaling(i), to, order.solver)
        } else {
            rows::ddim(from, scaling(i), to, 0.0, false)
        }
    });
    rows.collect()
}

/// The visited timesteps and sigmas. Timesteps are whole numbers: Karras ones are rounded, except on the cosine
/// schedule, and all others are cut, as in diffusers.
fn points(schedule: &DiscreteSchedule, sigmas: &[f64], steps: usize) -> Result<Vec<(f64, f64)>> {
    let (min, max) = schedule.sigma_range(sigmas[0], sigmas[sigmas.len() - 1]);
    let told = |values: Vec<f64>, whole: fn(f64) -> f64| {
        let timestep = TimestepOf::new(sigmas);
        values.into_iter().map(|sigma| (whole(timestep.sigma(sigma)), sigma)).collect()
    };
    let points: Vec<(f64, f64)> = match schedule.sigma_spacing {
        SigmaSpacing::Karras => {
            let is_cosine = schedule.betas == BetaSchedule::SquaredCosCapV2;
            told(karras(min, max, steps, KARRAS_RHO), if is_cosine { f64::trunc } else { f64::round_ties_even })
        }
        SigmaSpacing::Exponential => told(exponential(min, max, steps), f64::trunc),
        SigmaSpacing::Timesteps => {
            // Timesteps noisier than lambda_min_clipped, lambda = -ln(sigma), are not visited.
            let noisier = sigmas.iter().filter(|sigma| -sigma.ln() < schedule.lambda_min_clipped).count();
            let last = schedule.train_steps - noisier;
            if last == 0 {
                return Err(Error::model(&schedule.name, "lambda_min_clipped leaves no timestep; lower it"));
            }
            let spacing = schedule.spacing.unwrap_or(Spacing::Linspace);
            if spacing == Spacing::Leading && last <= steps {
                return Err(Error::usage(format!(
                    "dpmpp-2m with leading timesteps goes down {last} timesteps in at most {} steps, not {steps}",
                    last - 1
                )));
            }
            let timesteps = solver_timesteps(spacing, schedule.train_steps, last, steps, schedule.steps_offset);
            timesteps.into_iter().map(|t| (t as f64, sigma_at(sigmas, t as f64))).collect()
        }
    };
    Ok(points)
}
