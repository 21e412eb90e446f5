//! A denoiser whose model is the one for the noise of each image.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{DenoisePipeline, Eddy};
use crate::error::Result;
use crate::media::Image;
use crate::task::{Assessment, NoiseKind, SigmaChoice};

/// The models for white noise, and for the noise of cameras and codecs.
const WHITE: &str = "denoise-fast";
const CAMERA: &str = "camera";

/// Denoises each image by the model for its noise.
#[derive(Debug)]
pub struct AutoDenoiser {
    eddy: Eddy,
    loaded: HashMap<&'static str, DenoisePipeline>,
}

impl AutoDenoiser {
    pub(super) fn new(eddy: Eddy) -> Self {
        Self { eddy, loaded: HashMap::new() }
    }

    /// The pipeline for `image`: where `sigma` is to be estimated, by the kind of its noise, and
    /// otherwise by whether `sigma` is that of luma and chroma.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when the image has other samples than it declares;
    /// otherwise as for [`Eddy::denoiser`].
    pub fn pipeline(&mut self, image: &Image, sigma: &SigmaChoice) -> Result<&mut DenoisePipeline> {
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
