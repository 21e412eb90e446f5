//! Inpainting.

use eddy::pipelines::InpaintPipeline;
use eddy::task::Mask;
use pyo3::prelude::*;

use crate::array;
use crate::run::Shared;
use crate::session::Settings;

/// See `__init__.pyi`.
#[pyclass(module = "eddy._eddy", frozen)]
pub(crate) struct Inpainter(Shared<InpaintPipeline>);

#[pymethods]
impl Inpainter {
    #[new]
    fn new(py: Python<'_>, model: String, settings: Settings) -> PyResult<Self> {
        settings.open(py, |eddy| eddy.inpainter(&model)).map(|it| Self(Shared::new(it)))
    }

    #[allow(clippy::too_many_arguments)]
    fn run<'py>(
        &self,
        image: &Bound<'py, PyAny>,
        mask: &Bound<'py, PyAny>,
        steps: Option<usize>,
        samples: u64,
        seed: u64,
        grow: usize,
        feather: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = image.py();
        let (mut image, form) = array::read(image)?;
        let (mask, _) = array::read(mask)?;
        let mask = Mask::of(&mask).grown(grow).feathered(feather);
        let image = self.0.run(py, progress.as_ref(), move |pipeline, observe| {
            pipeline.options().steps = steps.or(Some(10));
            *pipeline.seeds() = (0..samples.max(1)).map(|i| seed.wrapping_add(i)).collect();
            pipeline.run_observed(&mut image, &mask, observe).map(|_| image)
        })?;
        array::write(py, image, form)
    }
}
