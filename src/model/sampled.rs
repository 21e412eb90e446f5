//! The model of `eddy sample`: a network and the schedule on which it is sampled.

use std::path::Path;
use std::sync::Arc;

use super::{ClassIndices, DecoderSpec, DiffusersFolder, Package, Precision};
use crate::diffusion::Schedule;
use crate::error::{Error, Result};
use crate::network::{Interface, OnnxNetwork, Runtime, SessionOptions};
use crate::setting::PRECISION;

/// The graph of a model's network, with what is known of it.
pub(crate) struct NetworkGraph {
    /// Its name in errors.
    pub(crate) name: String,
    /// The ONNX file, weights included.
    pub(crate) bytes: Vec<u8>,
    pub(crate) interface: Interface,
    /// Channels of the sample.
    pub(crate) channels: usize,
    /// Height and width of the sample must be multiples of this.
    pub(crate) multiple_of: usize,
}

/// A model for sampling.
#[derive(Clone, Debug)]
pub enum SampledModel {
    /// A model package.
    Package(Box<Package>),
    /// A folder in the diffusers layout.
    Diffusers(Box<DiffusersFolder>),
}

impl SampledModel {
    /// The bundled model of that name, or the package or diffusers folder at that path.
    ///
    /// # Errors
    /// [`Error::Model`] when there is none or it is invalid.
    pub fn find(model: &str) -> Result<Self> {
        let path = Path::new(model);
        if DiffusersFolder::is_at(path) {
            return DiffusersFolder::open(path).map(|folder| Self::Diffusers(Box::new(folder)));
        }
        Package::find(model).map(|package| Self::Package(Box::new(package)))
    }

    /// The schedule on which the network is sampled.
    ///
    /// # Errors
    /// [`Error::Model`] when a package does not declare the noise that its network was trained on.
    pub fn schedule(&self) -> Result<Schedule> {
        let package = match self {
            Self::Diffusers(folder) => {
                return Ok(Schedule::Discrete(Box::new(folder.schedule.clone())));
            }
            Self::Package(package) => package,
        };
        package.manifest.schedule_of()
    }

    /// Height and width of the network's input must be multiples of this. A diffusers folder does
    /// not declare it.
    pub fn multiple_of(&self) -> usize {
        match self {
            Self::Diffusers(_) => 1,
            Self::Package(package) => package.manifest.multiple_of,
        }
    }

    /// The classes of a network that takes one.
    pub fn classes(&self) -> Option<ClassIndices> {
        match self {
            Self::Diffusers(folder) => folder.classes(),
            Self::Package(package) => package.manifest.class_indices(),
        }
    }

    /// The graph of the network. `precision` is for packages only; f32 if absent.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub(crate) fn graph(&self, precision: Option<Precision>) -> Result<NetworkGraph> {
        match self {
            Self::Diffusers(folder) => match precision {
                None => folder.graph(),
                Some(_) => Err(has_one_precision()),
            },
            Self::Package(package) => package.graph(precision.unwrap_or_default()),
        }
    }

    /// Whether the network samples latents, for which the model has a decoder.
    pub(crate) fn has_decoder(&self) -> bool {
        matches!(self, Self::Package(package) if package.manifest.decoder.is_some())
    }

    /// The decoder of latents and its graph, if the model has one.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub(crate) fn decoder_graph(&self) -> Result<Option<(&DecoderSpec, Vec<u8>)>> {
        match self {
            Self::Diffusers(_) => Ok(None),
            Self::Package(package) => package.decoder_graph(),
        }
    }

    /// Loads the network. `precision` is for packages only; f32 if absent.
    ///
    /// # Errors
    /// [`Error::Usage`] for a precision with a diffusers folder, [`Error::Model`] when the network
    /// cannot be loaded.
    pub fn load(
        &self,
        runtime: &Arc<Runtime>,
        precision: Option<Precision>,
        options: SessionOptions,
    ) -> Result<OnnxNetwork> {
        match self {
            Self::Diffusers(folder) => match precision {
                None => folder.load(runtime, options),
                Some(_) => Err(has_one_precision()),
            },
            Self::Package(package) => package.load(runtime, precision.unwrap_or_default(), options),
        }
    }
}

fn has_one_precision() -> Error {
    Error::usage(format!(
        "a folder in the diffusers layout has one network, in the precision that it was exported \
         in; leave {PRECISION} out",
    ))
}
