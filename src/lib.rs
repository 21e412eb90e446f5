//! Eddy: an inference runtime for diffusion networks on edge boards.
//!
//! A network goes in as ONNX, frames come out clean. ONNX Runtime is inside; one loop runs every sampler; tiles give the
//! numbers of the whole picture. `ARCHITECTURE.md` is the map.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use std::path::Path;
//!
//! use eddy::frame::picture;
//! use eddy::model::{Package, Precision};
//! use eddy::network::{Library, Runtime, SessionOptions};
//! use eddy::task::{DenoiseOptions, Denoiser};
//!
//! # fn main() -> eddy::Result<()> {
//! let runtime = Runtime::load(&Library::Embedded)?;
//! let package = Package::find("denoise-fast")?;
//! let mut network = package.load(&runtime, Precision::F32, SessionOptions::default())?;
//! let mut denoiser = Denoiser::new(&package.manifest, &mut network, DenoiseOptions::default())?;
//!
//! let mut frame = picture::read(Path::new("noisy.png"), &picture::Limits::default())?;
//! let report = denoiser.denoise(&mut frame, &mut |_| ControlFlow::Continue(()))?;
//! picture::write(&frame, Path::new("clean.png"), picture::Format::Png, &picture::Options::default())?;
//! println!("took out noise of sigma {:.1}", report.sigma);
//! # Ok(())
//! # }
//! ```

pub mod array;
pub mod diffusion;
pub mod durable;
pub mod error;
pub mod frame;
pub mod machine;
pub mod model;
pub mod network;
#[cfg(feature = "cli")]
pub mod preview;
pub mod task;
pub mod tensor;
pub mod tile;
pub mod video;

pub use error::{Error, Result};
