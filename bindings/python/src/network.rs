//! A network and a sampler, as tensors.

use eddy::Error;
use eddy::ndarray::Ix4;
use eddy::pipelines::SamplePipeline;
use numpy::{IntoPyArray, PyArray4, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::errors::{check_memory, exception, usage};
use crate::run::Shared;
use crate::session::Settings;

/// See `__init__.pyi`.
#[pyclass(module = "eddy._eddy", frozen)]
pub(crate) struct Network(Shared<SamplePipeline>);

#[pymethods]
impl Network {
    #[new]
    fn new(py: Python<'_>, model: String, settings: Settings) -> PyResult<Self> {
        settings.open(py, |eddy| eddy.network(&model)).map(|it| Self(Shared::new(it)))
    }

    #[allow(clippy::too_many_arguments)]
    fn run<'py>(
        &self,
        py: Python<'py>,
        noise: PyReadonlyArrayDyn<'py, f32>,
        sampler: &str,
        steps: usize,
        eta: Option<f64>,
        class_label: Option<usize>,
        seed: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray4<f32>>> {
        let sampler = sampler.parse().map_err(|error: Error| exception(py, &error))?;
        let shape = noise.shape().to_vec();
        // The noise, the state, the network's input and output, and what samplers remember.
        let bytes = shape.iter().try_fold(8 * size_of::<f32>(), |all, n| all.checked_mul(*n));
        check_memory(py, &format!("noise of shape {shape:?}"), bytes)?;
        let noise = noise.as_array().to_owned();
        let noise = noise.into_dimensionality::<Ix4>().map_err(|_| {
            let expected = "expected [batch, channels, height, width]";
            usage(py, format!("noise of shape {shape:?}; {expected}"))
        })?;
        let sample = self.0.run(py, progress.as_ref(), move |pipeline, observe| {
            pipeline.configure(sampler, steps, eta, seed);
            pipeline.set_class(class_label);
            pipeline.sample_observed(noise, observe)
        })?;
        Ok(sample.into_pyarray(py))
    }
}
