//! Diffusion proper: schedules, parameterizations, samplers as tables, noise by position, and the executor.
//!
//! Everything here is a pure function of its arguments, and everything before the loop is f64.

pub mod clip;
pub mod config;
pub mod discrete;
pub mod noise;
pub mod parameterization;
pub mod plan;
pub mod sampler;
pub mod schedule;

pub use discrete::DiscreteSchedule;
pub use noise::{NoiseAt, NoiseSource, Philox, Recorded};
pub use parameterization::{Prediction, Scaling};
pub use plan::{Clip, Level, Plan, Step};
pub use sampler::{Sampler, Schedule, SigmaSchedule, denoise_plan, plan};
