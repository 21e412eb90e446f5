//! Eddy: an inference runtime for diffusion networks on edge boards.
//!
//! Input is a network in ONNX format; output is clean images and frames. ONNX Runtime is embedded.
//! One loop runs every sampler, and tiles give exactly the numbers of the whole image. [`Eddy`]
//! makes pipelines, which own their network and can be sent to other threads:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use eddy::Eddy;
//! use eddy::diffusion::Sampler;
//! use eddy::media::still::{self, Format, Limits, Options};
//! use eddy::media::stream::{CameraRequest, FormatOverrides, open};
//! use eddy::ndarray::Array4;
//! use eddy::stages::TextToImageRequest;
//!
//! # fn main() -> eddy::Result<()> {
//! // The embedded runtime; `Eddy::builder()` chooses a device, threads, memory.
//! let eddy = Eddy::new()?;
//!
//! // An image from a file; `Image::new` makes one of a buffer in memory.
//! let mut image = still::read(Path::new("noisy.png"), &Limits::default())?;
//! let report = eddy.denoiser("denoise-fast")?.run(&mut image)?;
//! println!("removed noise of sigma {:.1}", report.sigma);
//! still::write(&image, Path::new("clean.png"), Format::Png, &Options::default())?;
//!
//! // A camera. The frames are denoised on a worker thread.
//! let device = ["/dev/video0".into()];
//! let (request, overrides) = (CameraRequest::default(), FormatOverrides::default());
//! let camera = open(&device, request, overrides, Limits::default())?;
//! for frame in eddy.denoiser("camera")?.stream(camera)? {
//!     let rgb = frame?.to_rgb()?;
//!     println!("{}x{}", rgb.width, rgb.height);
//! }
//!
//! // Any network, any sampler: a model package, a diffusers folder, or an ONNX file
//! // (`Eddy::onnx`).
//! let mut ddim = eddy.network("digits-ddpm")?.sampler(Sampler::DDIM).steps(50);
//! let x0 = ddim.sample(Array4::zeros([1, 1, 8, 8]))?;
//!
//! // Text to image, by a folder in the layout of diffusers.
//! let request = TextToImageRequest::new("a lighthouse in a storm");
//! let image = eddy.text_to_image("sd-turbo/")?.run(&request, 7)?;
//! # drop((x0, image));
//! # Ok(())
//! # }
//! ```
//!
//! The pipelines are made of public parts: [`diffusion`] (schedules, samplers as tables, the
//! executor, guidance), [`tile`] (exact tiles), [`task`] (denoising, super-resolution, inpainting,
//! generation), [`video`] (temporal fusion, the streaming pipeline), [`media`] (images and
//! streams), [`stages`] (text-conditioned pipelines of several networks), [`network`] (ONNX Runtime
//! sessions), [`model`] (packages) and [`mod@compile`] (trajectories as one ONNX graph).
//! `ARCHITECTURE.md` gives an overview; `examples/` has a program for each use.

pub mod array;
pub mod compile;
pub mod diffusion;
pub mod digest;
pub mod durable;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "cli")]
mod http;
pub mod machine;
pub mod media;
pub mod model;
mod names;
pub mod network;
pub mod pipelines;
#[cfg(feature = "cli")]
pub mod preview;
#[cfg(test)]
#[path = "../tests/common/random.rs"]
mod random;
#[cfg(feature = "cli")]
pub mod serve;
pub mod setting;
pub mod stages;
pub mod task;
pub mod tensor;
pub mod tile;
pub mod video;

pub use error::{Error, Result};
pub use ndarray;
pub use pipelines::{Eddy, EddyBuilder};
