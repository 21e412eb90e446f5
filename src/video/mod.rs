//! Streams: pictures are read, worked on and written at the same time, in bounded memory.

mod denoise;
mod histogram;
mod pipeline;
mod queue;
mod upscale;

pub use denoise::StreamDenoiser;
pub use histogram::Histogram;
pub use pipeline::{Flow, Restore, Summary, Tally, run};
pub use upscale::StreamUpscaler;
