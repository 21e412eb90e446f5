//! Denoising.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use eddy::media::Image;
use eddy::pipelines::DenoisePipeline;
use eddy::task::{Assessment, DenoiseReport, NoiseKind, SigmaChoice, Strength};
use eddy::{Eddy, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array;
use crate::errors::exception;
use crate::run::Shared;
use crate::session::Settings;

/// The models for white noise, and for the noise of cameras and codecs.
const WHITE: &str = "denoise-fast";
const CAMERA: &str = "camera";

/// The pipelines that have been needed, by the names of their models.
struct Models {
    eddy: Eddy,
    /// Without one, the noise of each image decides.
    model: Option<String>,
    loaded: HashMap<String, DenoisePipeline>,
}

impl Models {
    fn pipeline(&mut self, image: &Image, sigma: &SigmaChoice) -> Result<&mut DenoisePipeline> {
        let name = match (&self.model, sigma) {
            (Some(model), _) => model.as_str(),
            (None, SigmaChoice::Planes(_)) => CAMERA,
            (None, SigmaChoice::Auto) if Assessment::of(image)?.kind == NoiseKind::Camera => CAMERA,
            (None, _) => WHITE,
        };
        let name = name.to_owned();
        self.load(&name)
    }

    fn load(&mut self, name: &str) -> Result<&mut DenoisePipeline> {
        Ok(match self.loaded.entry(name.to_owned()) {
            Entry::Occupied(loaded) => loaded.into_mut(),
            Entry::Vacant(place) => place.insert(self.eddy.denoiser(name)?),
        })
    }
}

/// See `__init__.pyi`.
#[pyclass(module = "eddy._eddy", frozen)]
pub(crate) struct Denoiser(Shared<Models>);

/// A noise level: one number, or one for luma and one for chroma.
#[derive(FromPyObject)]
pub(crate) enum Sigma {
    Known(f64),
    Planes([f64; 2]),
}

#[pymethods]
impl Denoiser {
    #[new]
    fn new(py: Python<'_>, model: Option<String>, settings: Settings) -> PyResult<Self> {
        let models = settings.open(py, |eddy| {
            let mut models = Models { eddy: eddy.clone(), model, loaded: HashMap::new() };
            if let Some(model) = models.model.clone() {
                models.load(&model)?;
            }
            Ok(models)
        })?;
        Ok(Self(Shared::new(models)))
    }

    /// The denoised image, and what is known of it.
    #[allow(clippy::too_many_arguments)]
    fn run<'py>(
        &self,
        image: &Bound<'py, PyAny>,
        sigma: Option<Sigma>,
        steps: Option<usize>,
        eta: f64,
        seed: u64,
        strength: f64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyDict>)> {
        let py = image.py();
        let (mut image, form) = array::read(image)?;
        let sigma = match sigma {
            None => SigmaChoice::Auto,
            Some(Sigma::Known(sigma)) => SigmaChoice::Known(sigma),
            Some(Sigma::Planes(planes)) => SigmaChoice::Planes(planes),
        };
        let strength = Strength::new(strength).map_err(|error| exception(py, &error))?;
        let (image, report) = self.0.run(py, progress.as_ref(), move |models, observe| {
            let pipeline = models.pipeline(&image, &sigma)?;
            let options = pipeline.options();
            (options.sigma, options.steps, options.eta) = (sigma, steps, eta);
            (options.seed, options.strength) = (seed, strength);
            let report = pipeline.run_observed(&mut image, observe)?;
            Ok((image, report))
        })?;
        Ok((array::write(py, image, form)?, facts(py, &report)?))
    }
}

fn facts<'py>(py: Python<'py>, report: &DenoiseReport) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("sigma", report.sigma)?;
    facts.set_item("steps", report.steps)?;
    facts.set_item("tiles", report.tiles)?;
    Ok(facts)
}
