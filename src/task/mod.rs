//! Tasks: what `x` starts as, its map of sigma, and what becomes of the result.

mod bicubic;
mod budget;
mod decode;
mod denoise;
mod draw;
mod estimate;
mod inpaint;
mod kind;
mod meter;
mod noise_map;
mod pixels;
mod plane_noise;
mod plane_pixels;
mod profile;
mod restore;
mod small;
mod upscale;

pub(crate) use bicubic::keys;
pub use budget::{Budget, Room, TileChoice};
pub use denoise::{DenoiseOptions, Denoiser, Report, SigmaChoice, Strength};
pub use draw::{Classes, Classifier, DrawOptions, Drawer, Drawing, as_images};
pub use estimate::estimate_sigma;
pub use inpaint::{Mask, Repair};
pub use kind::{Assessment, NoiseKind};
pub(crate) use meter::{Planes as MeteredPlanes, StreamMeter};
pub(crate) use noise_map::{noise_map_of_planes, noise_maps_of_yuv};
pub(crate) use plane_noise::PlaneRole;
pub use profile::{ColorModel, Method, NoiseLine, NoiseProfile, Profiler, YuvPlanes};
pub use restore::{Degradation, Kernel};
pub(crate) use small::Small;
pub use upscale::{Enlargement, UpscaleOptions, Upscaler};
