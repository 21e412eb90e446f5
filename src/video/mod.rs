//! Streams: reads, processes and writes frames in parallel, in bounded memory.

mod denoise;
mod fields;
mod frame_window;
mod lanes;
mod models;
mod noise;
mod pipeline;
mod planes;
mod quality;
mod temporal;
mod upscale;
mod working_layout;

pub use denoise::{
    Candidate, ParallelChoice, ParallelStatistics, StreamDenoiser, TemporalStatistics,
};
pub use fields::{Fields, field_of};
pub use frame_window::FrameWindowDenoiser;
pub use models::{models_of_stream, precisions_of_stream};
pub use pipeline::{
    Counters, FrameProcessor, Histogram, PipelineOptions, RunObserver, RunStatus, Summary, Target,
    record, run,
};
pub use planes::{Group, Planes};
pub use quality::{QualityLevel, Scale, SettingsUpdate, StreamStatus};
pub use temporal::Temporal;
pub use upscale::StreamUpscaler;
