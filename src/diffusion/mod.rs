//! Diffusion proper: schedules, parameterizations, samplers as tables, noise by position, and the executor.
//!
//! Everything here is a pure function of its arguments, and everything before the loop is f64.

pub mod plan;

pub use plan::{Clip, Level, Plan, Step};
