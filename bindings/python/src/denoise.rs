//! Denoising.

use std::path::{Path, PathBuf};

use eddy::Error;
use eddy::media::source::refuse_replacing;
use eddy::media::still::{self, Format, Limits};
use eddy::pipelines::{DenoisePipeline, ImageDenoiser};
use eddy::task::{DenoiseReport, SigmaChoice, Strength};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array;
use crate::errors::exception;
use crate::run::Shared;
use crate::session::Settings;

/// See `__init__.pyi`.
#[pyclass(module = "eddy._eddy", frozen)]
pub(crate) struct Denoiser {
    denoiser: Shared<ImageDenoiser>,
    limits: Limits,
}

/// A noise level: one number, or one for luma and one for chroma.
#[derive(FromPyObject)]
pub(crate) enum Sigma {
    Known(f64),
    Planes([f64; 2]),
}

impl Sigma {
    fn choice(sigma: Option<Self>) -> SigmaChoice {
        match sigma {
            None => SigmaChoice::Auto,
            Some(Self::Known(sigma)) => SigmaChoice::Known(sigma),
            Some(Self::Planes(planes)) => SigmaChoice::Planes(planes),
        }
    }
}

/// The options of a call, except the noise level.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Sampling {
    steps: Option<usize>,
    eta: f64,
    seed: u64,
    strength: f64,
}

impl Sampling {
    fn apply(&self, pipeline: &mut DenoisePipeline) -> eddy::Result<()> {
        let options = pipeline.options();
        (options.steps, options.eta, options.seed) = (self.steps, self.eta, self.seed);
        options.strength = Strength::new(self.strength)?;
        Ok(())
    }
}

#[pymethods]
impl Denoiser {
    #[new]
    fn new(py: Python<'_>, model: Option<String>, settings: Settings) -> PyResult<Self> {
        let limits = settings.limits();
        let denoiser = settings.open(py, |eddy| eddy.image_denoiser(model.as_deref()))?;
        Ok(Self { denoiser: Shared::new(denoiser), limits })
    }

    /// The denoised image, and what is known of it.
    fn run<'py>(
        &self,
        image: &Bound<'py, PyAny>,
        sigma: Option<Sigma>,
        sampling: Sampling,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyDict>)> {
        let py = image.py();
        let (mut image, form) = array::read(image)?;
        let sigma = Sigma::choice(sigma);
        let (image, report) =
            self.denoiser.run(py, progress.as_ref(), move |denoiser, observe| {
                let pipeline = denoiser.pipeline(&image, &sigma)?;
                pipeline.options().sigma = sigma;
                sampling.apply(pipeline)?;
                let report = pipeline.run_observed(&mut image, observe)?;
                Ok((image, report))
            })?;
        Ok((array::write(py, image, form)?, facts(py, &report)?))
    }

    /// Denoises the image of a file into another, as `eddy denoise` does, and returns what is known
    /// of it.
    #[allow(clippy::too_many_arguments)]
    fn file<'py>(
        &self,
        py: Python<'py>,
        source: PathBuf,
        output: PathBuf,
        format: Option<&str>,
        jpeg_quality: Option<u8>,
        sigma: Option<Sigma>,
        sampling: Sampling,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let refused = |error: Error| exception(py, &error);
        let format = format_of(&output, format).map_err(refused)?;
        let options = options(jpeg_quality).map_err(refused)?;
        let sigma = Sigma::choice(sigma);
        let (report, warnings) =
            self.denoiser.run(py, progress.as_ref(), |denoiser, observe| {
                refuse_replacing(&[&source], &output)?;
                let mut image = still::read(&source, &self.limits)?;
                still::check(&image, &output, format)?;
                let pipeline = denoiser.pipeline_of_file(&source, &image, &sigma)?;
                sampling.apply(pipeline)?;
                let report = pipeline.run_observed(&mut image, observe)?;
                Ok((report, still::write(&image, &output, format, &options)?))
            })?;
        let facts = facts(py, &report)?;
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        facts.set_item("warnings", warnings)?;
        Ok(facts)
    }
}

fn format_of(output: &Path, given: Option<&str>) -> eddy::Result<Format> {
    if let Some(name) = given {
        return name.parse();
    }
    Format::from_path(output).ok_or_else(|| {
        let output = output.display();
        let problem = "has an unknown extension of an image; end it in .png or the like, or give a";
        Error::usage(format!("the name {output} {problem} format"))
    })
}

fn options(jpeg_quality: Option<u8>) -> eddy::Result<still::Options> {
    match jpeg_quality {
        None => Ok(still::Options::default()),
        Some(jpeg_quality @ 1..=100) => Ok(still::Options { jpeg_quality }),
        Some(other) => Err(Error::usage(format!("jpeg_quality {other}; it is from 1 to 100"))),
    }
}

fn facts<'py>(py: Python<'py>, report: &DenoiseReport) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("sigma", report.sigma)?;
    facts.set_item("steps", report.steps)?;
    facts.set_item("tiles", report.tiles)?;
    Ok(facts)
}
