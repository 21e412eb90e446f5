//! Tasks: the initial state of each, its sigma map, and post-processing.

mod bicubic;
mod budget;
mod decode;
mod denoise;
mod estimate;
mod generate;
mod inpaint;
mod kind;
mod low_res;
mod masked;
mod meter;
mod noise_map;
mod pixels;
mod plane_noise;
mod plane_pixels;
mod profile;
mod restore;
mod upscale;

pub(crate) use bicubic::keys;
pub(crate) use budget::UNKNOWN_BYTES_PER_PIXEL;
pub use budget::{Budget, MemoryHeadroom, TileChoice};
pub(crate) use decode::decode;
pub use denoise::{DenoiseOptions, DenoiseReport, Denoiser, SigmaChoice, Strength};
pub use estimate::estimate_sigma;
pub use generate::{Classes, Classifier, GenerateOptions, GenerateRequest, Generator, as_images};
pub use inpaint::{InpaintReport, Mask};
pub use kind::{Assessment, NoiseKind};
pub(crate) use low_res::LowRes;
pub use masked::Inpainter;
pub(crate) use meter::{Planes as MeteredPlanes, StreamMeter};
pub(crate) use noise_map::{noise_map_of_planes, noise_maps_of_yuv};
pub(crate) use plane_noise::PlaneRole;
pub use profile::{ColorModel, Method, NoiseLine, NoiseProfile, Profiler, YuvPlanes};
pub use restore::{Degradation, Kernel};
pub(crate) use upscale::enlarged;
pub use upscale::{UpscaleOptions, UpscaleReport, Upscaler};
