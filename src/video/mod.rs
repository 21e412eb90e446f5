//! Streams: pictures are read, worked on and written at the same time, in bounded memory.

mod blocks;
mod denoise;
mod failures;
mod fields;
mod flicker;
mod governor;
mod grid;
mod histogram;
mod levels;
mod light;
mod memory;
mod noise;
mod pace;
mod pipeline;
mod planes;
mod queue;
pub mod record;
mod reduced;
mod shift;
mod stills;
mod temporal;
mod treatment;
mod upscale;

pub use denoise::{Candidate, Persistence, StreamDenoiser};
pub use fields::{Fields, field_of};
pub use histogram::Histogram;
pub use pace::Target;
pub use pipeline::{Flow, Restore, Running, Summary, Tally, Watch, run};
pub use planes::{Group, Planes};
pub use temporal::Temporal;
pub use treatment::{Quality, Scale, Treatment, Wishes};
pub use upscale::StreamUpscaler;
