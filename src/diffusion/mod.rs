//! The mathematics of diffusion: schedules, parameterizations, samplers, noise, and the executor.
//!
//! A [`Schedule`] says how signal and noise are mixed at each **level**, from pure noise to the clean
//! image. A [`Sampler`] makes a [`Plan`] of it: a list of **steps**, each of which evaluates the
//! network at one level and computes the state of the next as a linear combination of the state,
//! the prediction, earlier predictions and fresh noise. [`execute`] runs any plan. Noise depends on
//! the seed and the position of a pixel alone, so that tiles share it.
//!
//! Everything here is a pure function of its arguments. Everything computed before the sampling
//! loop is f64.

pub mod clip;
pub mod config;
pub mod discrete;
pub mod executor;
mod guard;
pub mod guidance;
mod level_path;
pub mod noise;
pub mod parameterization;
pub mod plan;
pub mod sampler;
pub mod schedule;
pub mod state;

pub use discrete::DiscreteSchedule;
pub(crate) use executor::read_plane;
pub use executor::{Canvas, Progress, RunStats, SigmaMap, Update, Window, execute};
pub use guidance::{
    ClassifierFree, ClassifierFreeOptions, ClassifierGuidance, Guidance, StepContext,
};
pub use noise::{NoiseAt, NoiseSource, Philox, Recorded};
pub use parameterization::{Prediction, Scaling};
pub use plan::{Clip, HISTORY_SLOTS, HistoryEntry, HistoryValue, Level, Plan, Step};
pub use sampler::{
    DynamicShift, FlowSchedule, Sampler, Schedule, SigmaSchedule, TimeShift, denoise_plan,
    flow_plan, plan, plan_from,
};
pub(crate) use state::Linear;
pub use state::{CachedTiles, State};
