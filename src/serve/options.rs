//! What a server is started with.

use std::sync::Arc;
use std::time::Duration;

use super::listen::Listen;
use super::record::Log;
use super::shared::Kind;
use crate::error::{Error, Result};
use crate::http::Token;
use crate::media::still::Limits;
use crate::model::{Layout, ModelFolder, Package, Precision, Task};
use crate::network::{Runtime, SessionOptions};
use crate::stages::TextToImageOptions;
use crate::task::{Budget, TileChoice};

/// A model to serve.
#[derive(Debug)]
pub struct ServedModel {
    /// Its name in requests.
    pub name: String,
    /// Its files.
    pub files: ModelFiles,
}

impl ServedModel {
    /// What the model does.
    pub(super) fn kind(&self) -> Result<Kind> {
        let ModelFiles::Package { package, .. } = &self.files else { return Ok(Kind::Generate) };
        let manifest = &package.manifest;
        match manifest.task {
            Task::Denoise | Task::Deblur if !manifest.is_of_video() => {
                Ok(Kind::Denoise { has_planes: manifest.layout == Layout::Yuv420 })
            }
            Task::Upscale if !manifest.is_generative_upscaler() => {
                Ok(Kind::Upscale { scale: manifest.scale })
            }
            task => Err(Error::model(
                &self.name,
                format!(
                    "it is a model to {task}, of images or of video; a server runs denoisers and \
                     upscalers of images in a few steps, and text-to-image folders"
                ),
            )),
        }
    }
}

/// The files of a model.
#[derive(Debug)]
pub enum ModelFiles {
    /// A denoiser or an upscaler.
    Package {
        /// Its package.
        package: Box<Package>,
        /// The precision in which it runs.
        precision: Precision,
    },
    /// A text-to-image pipeline.
    Pipeline {
        /// Where the pipeline is.
        folder: ModelFolder,
        /// How it runs.
        options: TextToImageOptions,
    },
}

/// How models are loaded and run.
#[derive(Debug)]
pub struct Loader {
    /// ONNX Runtime.
    pub runtime: Arc<Runtime>,
    /// How networks run.
    pub session: SessionOptions,
    /// The name of the device.
    pub device: String,
    /// How images are divided into tiles.
    pub tile: TileChoice,
    /// The memory budget.
    pub budget: Budget,
    /// Limits on images.
    pub limits: Limits,
    /// Turns messages of the library into those of the program, such as settings into options.
    pub wording: fn(&str) -> String,
}

/// How the server treats its clients.
pub struct ServeOptions {
    /// Where to listen; if empty, at the sockets of systemd or at [`Listen::default`].
    pub listen: Vec<Listen>,
    /// The token that clients need.
    pub token: Option<Token>,
    /// How many requests may wait for each model.
    pub queue: usize,
    /// Maximum size of the body of a request, in bytes.
    pub max_body: u64,
    /// How long a request may wait and run.
    pub request_timeout: Option<Duration>,
    /// How long requests may go on after a stop was requested.
    pub grace: Duration,
    /// Called with each request that was answered, on the thread of the connections: it must not
    /// block.
    pub log: Option<Log>,
    /// Called when all models are loaded.
    pub ready: Box<dyn FnOnce() + Send>,
}
