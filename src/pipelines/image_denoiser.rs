//! A denoiser whose model is given, or the one for the noise of each image.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{DenoisePipeline, Eddy};
use crate::error::Result;
use crate::media::Image;
use crate::task::{Assessment, NoiseKind, SigmaChoice};

/// The models for white noise, and for the noise of cameras and codecs.
pub(super) const WHITE: &str = "denoise-fast";
pub(super) const CAMERA: &str = "camera";

/// Denoises images, each by a given model or by the one for its noise.
#[derive(Debug)]
pub struct ImageDenoiser {
    eddy: Eddy,
    given: Option<Box<DenoisePipeline>>,
    loaded: HashMap<&'static str, DenoisePipeline>,
}

impl ImageDenoiser {
    pub(super) fn new(eddy: Eddy, model: Option<&str>) -> Result<Self> {
        let given = model.map(|model| eddy.denoiser(model)).transpose()?.map(Box::new);
        Ok(Self { eddy, given, loaded: HashMap::new() })
    }

    /// The pipeline for `image`. Without a given model, the kind of its noise decides where `sigma`
    /// is to be estimated, and otherwise whether `sigma` is that of luma and chroma.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when the image has other samples than it declares;
    /// otherwise as for [`Eddy::denoiser`].
    pub fn pipeline(&mut self, image: &Image, sigma: &SigmaChoice) -> Result<&mut DenoisePipeline> {
        if let Some(given) = &mut self.given {
            return Ok(given);
        }
        let name = match sigma {
            SigmaChoice::Planes(_) => CAMERA,
            SigmaChoice::Auto if Assessment::of(image)?.kind == NoiseKind::Camera => CAMERA,
            _ => WHITE,
        };
        Ok(match self.loaded.entry(name) {
            Entry::Occupied(loaded) => loaded.into_mut(),
            Entry::Vacant(place) => place.insert(self.eddy.denoiser(name)?),
        })
    }
}
