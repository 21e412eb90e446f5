//! `ddpm` on a training schedule: denoising diffusion probabilistic models (Ho et al. 2020).

use crate::diffusion::discrete::DiscreteSchedule;
use crate::diffusion::plan::{Level, Plan};
use crate::diffusion::sampler::rows;
use crate::diffusion::schedule::Spacing;
use crate::diffusion::schedule::timesteps::markov_timesteps;
use crate::error::Result;

/// DDPM from each visited timestep to the next and from the last to the clean picture.
///
/// The last step draws no noise where it starts at timestep 0, as in algorithm 2 of the paper. Where it starts above
/// and the variance is `FixedLarge`, diffusers draws it, and so does this.
///
/// # Errors
/// When a timestep lies beyond the training schedule.
pub fn plan(schedule: &DiscreteSchedule, steps: usize) -> Result<Plan> {
    let table = schedule.table()?;
    let spacing = schedule.spacing.unwrap_or(Spacing::Leading);
    let timesteps = markov_timesteps(spacing, schedule.train_steps, steps, schedule.steps_offset);
    let rows = timesteps.iter().enumerate().map(|(i, &t)| {
        let from = schedule.level(&table, t)?;
        let to = timesteps.get(i + 1).map_or(Ok(Level::CLEAN), |&next| schedule.level(&table, next))?;
        let mut row = rows::ddpm(from, schedule.prediction.scaling(from, t as f64), to, schedule.variance);
        if t == 0 {
            row.d = 0.0;
        }
        Ok(row)
    });
    Ok(Plan { steps: rows.collect::<Result<_>>()?, clip: schedule.clip() })
}
