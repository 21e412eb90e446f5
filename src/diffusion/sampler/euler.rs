//! `euler` on a training schedule: Euler's method on the probability flow in sigma (Karras et al. 2022, algorithm 1
//! without its correction).

use crate::diffusion::discrete::{DiscreteSchedule, SigmaSpacing};
use crate::diffusion::plan::{Clip, Level, Plan};
use crate::diffusion::sampler::rows;
use crate::diffusion::schedule::Spacing;
use crate::diffusion::schedule::sigmas::{KARRAS_RHO, TimestepOf, exponential, karras, sigma_at};
use crate::diffusion::schedule::timesteps::euler_timesteps;
use crate::error::Result;

/// Euler's method in variance-exploding coordinates. Predictions are not clipped, whatever the schedule says.
///
/// Karras and exponential sigmas run between the first and the last sigma that the spacing visits.
///
/// # Errors
/// When the training schedule is no schedule.
pub fn plan(schedule: &DiscreteSchedule, steps: usize) -> Result<Plan> {
    let table = schedule.table()?.sigmas();
    let spacing = schedule.spacing.unwrap_or(Spacing::Linspace);
    let timesteps = euler_timesteps(spacing, schedule.train_steps, steps, schedule.steps_offset);
    let sigmas: Vec<f64> = timesteps.iter().map(|&t| sigma_at(&table, t)).collect();
    let (min, max) = schedule.sigma_range(sigmas[steps - 1], sigmas[0]);
    let told = |sigmas: Vec<f64>| {
        let timestep = TimestepOf::new(&table);
        sigmas.into_iter().map(|sigma| (timestep.sigma(sigma), sigma)).collect()
    };
    let points: Vec<(f64, f64)> = match schedule.sigma_spacing {
        SigmaSpacing::Timesteps => timesteps.into_iter().zip(sigmas).collect(),
        SigmaSpacing::Karras => told(karras(min, max, steps, KARRAS_RHO)),
        SigmaSpacing::Exponential => told(exponential(min, max, steps)),
    };
    let rows = points.iter().enumerate().map(|(i, &(t, sigma))| {
        let next = points.get(i + 1).map_or(schedule.final_sigma(&table), |&(_, next)| next);
        let from = Level::exploding(sigma);
        rows::ddim(from, schedule.prediction.scaling(from, t), Level::exploding(next), 0.0, false)
    });
    Ok(Plan { steps: rows.collect(), clip: Clip::None })
}
