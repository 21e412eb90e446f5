//! Tasks: what `x` starts as, its map of sigma, and what becomes of the result.

mod bicubic;
mod budget;
mod decode;
mod denoise;
mod draw;
mod estimate;
mod inpaint;
mod noise_map;
mod pixels;
#[allow(dead_code, unused_imports)] // until the denoisers of planes ask it
mod plane_noise;
mod profile;
mod restore;
mod small;
mod upscale;

pub(crate) use bicubic::keys;
pub use budget::{Budget, Room, TileChoice};
pub use denoise::{DenoiseOptions, Denoiser, Report, SigmaChoice};
pub use draw::{Classes, Classifier, DrawOptions, Drawer, Drawing, frames};
pub use estimate::estimate_sigma;
pub(crate) use estimate::estimate_sigma_of_planes;
pub use inpaint::{Mask, Repair};
pub(crate) use noise_map::noise_map_of_planes;
pub use profile::{Method, NoiseLine, NoiseProfile, Profiler};
pub use restore::{Degradation, Kernel};
pub(crate) use small::Small;
pub use upscale::{Enlargement, UpscaleOptions, Upscaler};
