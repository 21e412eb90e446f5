//! Streams: pictures are read, worked on and written at the same time, in bounded memory.

mod blocks;
mod denoise;
mod flicker;
mod histogram;
mod light;
mod pipeline;
mod queue;
mod shift;
mod stills;
mod temporal;
mod upscale;

pub use denoise::{Persistence, StreamDenoiser};
pub use histogram::Histogram;
pub use pipeline::{Flow, Restore, Summary, Tally, run};
pub use temporal::Temporal;
pub use upscale::StreamUpscaler;
