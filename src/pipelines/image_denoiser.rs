//! A denoiser whose model is given, or the one for the noise of each image.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use super::{DenoisePipeline, Eddy};
use crate::error::Result;
use crate::media::Image;
use crate::model::{CAMERA_DENOISER, WHITE_NOISE_DENOISER};
use crate::task::{Assessment, NoiseKind, SigmaChoice};

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
        let Self { eddy, given, loaded } = self;
        if let Some(given) = given {
            return Ok(given);
        }
        let name = match sigma {
            SigmaChoice::Planes(_) => CAMERA_DENOISER,
            SigmaChoice::Auto if Assessment::of(image)?.kind == NoiseKind::Camera => {
                CAMERA_DENOISER
            }
            _ => WHITE_NOISE_DENOISER,
        };
        load(eddy, loaded, name)
    }

    /// The pipeline for the image of the file `path`, chosen as `eddy denoise` does: without a
    /// given model, by the kind of its noise, also where `sigma` is known for RGB. The noise level
    /// of its options is set.
    ///
    /// # Errors
    /// As for [`pipeline`](Self::pipeline).
    pub fn pipeline_of_file(
        &mut self,
        path: &Path,
        image: &Image,
        sigma: &SigmaChoice,
    ) -> Result<&mut DenoisePipeline> {
        let Self { eddy, given, loaded } = self;
        let is_auto = *sigma == SigmaChoice::Auto;
        let is_needed = match given {
            Some(given) => is_auto && !given.is_blind(),
            None => !sigma.is_of_planes(),
        };
        let noise = is_needed.then(|| Assessment::of_file(path, image)).transpose()?;
        let pipeline = match given {
            Some(given) => given.as_mut(),
            None if noise.is_none_or(|noise| noise.kind == NoiseKind::Camera) => {
                load(eddy, loaded, CAMERA_DENOISER)?
            }
            None => load(eddy, loaded, WHITE_NOISE_DENOISER)?,
        };
        match noise.filter(|_| is_auto) {
            Some(noise) => pipeline.set_assessment(&noise),
            None => pipeline.options().sigma = sigma.clone(),
        }
        Ok(pipeline)
    }
}

/// The pipeline of a bundled model, which is loaded when it is first needed.
fn load<'a>(
    eddy: &Eddy,
    loaded: &'a mut HashMap<&'static str, DenoisePipeline>,
    name: &'static str,
) -> Result<&'a mut DenoisePipeline> {
    Ok(match loaded.entry(name) {
        Entry::Occupied(loaded) => loaded.into_mut(),
        Entry::Vacant(place) => place.insert(eddy.denoiser(name)?),
    })
}
