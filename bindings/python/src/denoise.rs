//! Denoising.

use eddy::Result;
use eddy::media::Image;
use eddy::pipelines::{AutoDenoiser, DenoisePipeline};
use eddy::task::{DenoiseReport, SigmaChoice, Strength};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array;
use crate::errors::exception;
use crate::run::Shared;
use crate::session::Settings;

/// A given model, or the one for the noise of each image.
enum Model {
    Given(Box<DenoisePipeline>),
    Auto(AutoDenoiser),
}

impl Model {
    fn pipeline(&mut self, image: &Image, sigma: &SigmaChoice) -> Result<&mut DenoisePipeline> {
        match self {
            Self::Given(pipeline) => Ok(pipeline),
            Self::Auto(denoiser) => denoiser.pipeline(image, sigma),
        }
    }
}

/// See `__init__.pyi`.
#[pyclass(module = "eddy._eddy", frozen)]
pub(crate) struct Denoiser(Shared<Model>);

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
        let model = settings.open(py, |eddy| {
            Ok(match model {
                Some(model) => Model::Given(Box::new(eddy.denoiser(&model)?)),
                None => Model::Auto(eddy.auto_denoiser()),
            })
        })?;
        Ok(Self(Shared::new(model)))
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
        let (image, report) = self.0.run(py, progress.as_ref(), move |model, observe| {
            let pipeline = model.pipeline(&image, &sigma)?;
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
