//! Noise schedules as plain numbers.

pub mod betas;
pub mod sigmas;
pub mod timesteps;

pub use betas::{BetaSchedule, NoiseTable};
pub use timesteps::Spacing;
