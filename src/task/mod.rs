//! Tasks: what `x` starts as, its map of sigma, and what becomes of the result.

mod budget;
mod denoise;
mod estimate;
mod pixels;

pub use budget::{Budget, TileChoice};
pub use denoise::{DenoiseOptions, Denoiser, Report, SigmaChoice};
pub use estimate::estimate_sigma;
