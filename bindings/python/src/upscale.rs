//! Super-resolution.

use eddy::pipelines::UpscalePipeline;
use pyo3::prelude::*;

use crate::array;
use crate::run::Shared;
use crate::session::Settings;

/// See `__init__.pyi`.
#[pyclass(module = "eddy._eddy", frozen)]
pub(crate) struct Upscaler {
    pipeline: Shared<UpscalePipeline>,
    /// The factor along each axis.
    #[pyo3(get)]
    scale: usize,
}

#[pymethods]
impl Upscaler {
    #[new]
    fn new(py: Python<'_>, model: String, settings: Settings) -> PyResult<Self> {
        let pipeline = settings.open(py, |eddy| eddy.upscaler(&model))?;
        let scale = pipeline.scale();
        Ok(Self { pipeline: Shared::new(pipeline), scale })
    }

    fn run<'py>(
        &self,
        image: &Bound<'py, PyAny>,
        steps: Option<usize>,
        eta: f64,
        seed: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = image.py();
        let (image, form) = array::read(image)?;
        let large = self.pipeline.run(py, progress.as_ref(), |pipeline, observe| {
            let options = pipeline.options();
            (options.steps, options.eta, options.seed) = (steps, eta, seed);
            pipeline.run_observed(&image, observe).map(|(large, _)| large)
        })?;
        array::write(py, large, form)
    }
}
