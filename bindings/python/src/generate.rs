//! Generation of images.

use eddy::Error;
use eddy::diffusion::ClassifierFreeOptions;
use eddy::pipelines::GeneratePipeline;
use eddy::task::{Classes, GenerateRequest};
use pyo3::prelude::*;

use crate::array;
use crate::errors::{check_memory, exception};
use crate::run::Shared;
use crate::session::Settings;

/// See `__init__.pyi`.
#[pyclass(module = "eddy._eddy", frozen)]
pub(crate) struct Generator(Shared<GeneratePipeline>);

#[pymethods]
impl Generator {
    #[new]
    fn new(py: Python<'_>, model: String, settings: Settings) -> PyResult<Self> {
        settings.open(py, |eddy| eddy.generator(&model)).map(|it| Self(Shared::new(it)))
    }

    #[allow(clippy::too_many_arguments)]
    fn run<'py>(
        &self,
        py: Python<'py>,
        count: usize,
        size: Option<[usize; 2]>,
        class_labels: Vec<usize>,
        guidance_scale: Option<f64>,
        sampler: Option<String>,
        steps: Option<usize>,
        eta: Option<f64>,
        seed: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // The state, its noise and predictions, of 3 channels of f32 each.
        let values = size
            .map_or(Some(count), |[width, height]| count.checked_mul(width)?.checked_mul(height));
        let bytes = values.and_then(|values| values.checked_mul(12 * size_of::<f32>()));
        check_memory(py, &format!("{count} images of that size"), bytes)?;
        let parsed = sampler.map(|name| name.parse()).transpose();
        let sampler = parsed.map_err(|error: Error| exception(py, &error))?;
        let seeds = (0..count as u64).map(|i| seed.wrapping_add(i)).collect();
        let images = self.0.run(py, progress.as_ref(), move |pipeline, observe| {
            let options = pipeline.options();
            (options.sampler, options.steps, options.eta) = (sampler, steps, eta);
            let scale = guidance_scale.unwrap_or_else(|| pipeline.guidance_scale());
            // Several classes take turns.
            let labels: Vec<usize> = class_labels.iter().copied().cycle().take(count).collect();
            let classes = (!labels.is_empty()).then(|| Classes {
                labels,
                options: ClassifierFreeOptions { scale, ..ClassifierFreeOptions::default() },
                ..Classes::default()
            });
            let request = GenerateRequest { seeds, classes, ..GenerateRequest::default() };
            pipeline.run_observed(size, request, observe)
        })?;
        array::stack(py, images)
    }
}
