//! Tasks: what `x` starts as, its map of sigma, and what becomes of the result.

mod bicubic;
mod budget;
mod denoise;
mod estimate;
mod noise_map;
mod pixels;
mod profile;
mod small;
mod upscale;

pub use budget::{Budget, TileChoice};
pub use denoise::{DenoiseOptions, Denoiser, Report, SigmaChoice};
pub use estimate::estimate_sigma;
pub use profile::{Method, NoiseLine, NoiseProfile, Profiler};
pub use upscale::{Enlargement, UpscaleOptions, Upscaler};
