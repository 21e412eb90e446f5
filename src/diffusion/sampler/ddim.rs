//! `ddim` on a training schedule: denoising diffusion implicit models (Song et al. 2021).

use crate::diffusion::discrete::DiscreteSchedule;
use crate::diffusion::plan::{Clip, Level, Plan};
use crate::diffusion::sampler::rows;
use crate::diffusion::schedule::Spacing;
use crate::diffusion::schedule::timesteps::markov_timesteps;
use crate::error::Result;

/// DDIM as diffusers counts it: each step goes down by the whole stride `train_steps / steps`, wherever the next
/// visited timestep lies. The two differ for `linspace`, and for `trailing` when the stride is not whole.
///
/// # Errors
/// When a timestep lies beyond the training schedule.
pub fn plan(schedule: &DiscreteSchedule, steps: usize, eta: f64) -> Result<Plan> {
    let table = schedule.table()?;
    let spacing = schedule.spacing.unwrap_or(Spacing::Leading);
    let clip = schedule.clip();
    let stride = schedule.train_steps / steps;
    let last = if schedule.ends_at_clean { Level::CLEAN } else { schedule.level(&table, 0)? };
    let rows = markov_timesteps(spacing, schedule.train_steps, steps, schedule.steps_offset).into_iter().map(|t| {
        let from = schedule.level(&table, t)?;
        let to = if t >= stride { schedule.level(&table, t - stride)? } else { last };
        Ok(rows::ddim(from, schedule.prediction.scaling(from, t as f64), to, eta, clip != Clip::None))
    });
    Ok(Plan { steps: rows.collect::<Result<_>>()?, clip })
}
