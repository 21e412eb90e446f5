//! What is given up to keep up with a frame rate, and what is in use.

mod controller;
mod reduced_resolution;
mod status;

pub(super) use controller::{Choices, QualityController, QualityStep};
pub(super) use reduced_resolution::ReducedResolution;
pub use status::{QualityLevel, Scale, SettingsUpdate, StreamStatus};
