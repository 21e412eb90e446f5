//! Quality control: reduced quality to keep up with a frame rate, and the current quality.

mod controller;
mod reduced_resolution;
mod status;

pub(super) use controller::{Choices, QualityController, QualityStep};
pub(super) use reduced_resolution::ReducedResolution;
pub use status::{QualityLevel, Scale, SettingsUpdate, StreamStatus};
