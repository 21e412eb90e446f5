//! Streams: reads, processes and writes frames in parallel, in bounded memory.

mod blocks;
mod denoise;
mod exposure;
mod failure_policy;
mod fields;
mod flicker;
mod global_motion;
mod histogram;
mod levels;
mod memory;
mod noise;
mod pace;
mod pipeline;
mod planes;
mod quality_controller;
mod queue;
pub mod record;
mod reduced_resolution;
mod stream_status;
mod temporal;
mod tile_cache;
mod upscale;
mod working_layout;

pub use denoise::{Candidate, Persistence, StreamDenoiser};
pub use fields::{Fields, field_of};
pub use histogram::Histogram;
pub use pace::Target;
pub use pipeline::{Counters, FrameProcessor, PipelineOptions, RunObserver, RunStatus, Summary, run};
pub use planes::{Group, Planes};
pub use stream_status::{QualityLevel, Scale, SettingsUpdate, StreamStatus};
pub use temporal::Temporal;
pub use upscale::StreamUpscaler;
