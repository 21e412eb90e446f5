//! Denoising.

use eddy::pipelines::ImageDenoiser;
use eddy::task::{DenoiseReport, SigmaChoice, Strength};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array;
use crate::errors::exception;
use crate::run::Shared;
use crate::session::Settings;

/// See `__init__.pyi`.
#[pyclass(module = "eddy._eddy", frozen)]
pub(crate) struct Denoiser(Shared<ImageDenoiser>);

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
        let denoiser = settings.open(py, |eddy| eddy.image_denoiser(model.as_deref()))?;
        Ok(Self(Shared::new(denoiser)))
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
        let (image, report) = self.0.run(py, progress.as_ref(), move |denoiser, observe| {
            let pipeline = denoiser.pipeline(&image, &sigma)?;
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
