//! Text to image, by a folder in the layout of diffusers.

use eddy::Error;
use eddy::media::Image;
use eddy::stages::{TextToImage as Pipeline, TextToImageRequest};
use pyo3::prelude::*;

use crate::array;
use crate::errors::exception;
use crate::run::Shared;
use crate::session::Settings;

/// See `__init__.pyi`.
#[pyclass(module = "eddy._eddy", frozen)]
pub(crate) struct TextToImage(Shared<Pipeline>);

/// The sampler, its steps, the guidance scale, and the evaluations.
type Figures = (String, usize, f64, usize);

/// What is requested, without its images.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
struct Wanted {
    prompt: String,
    negative_prompt: Option<String>,
    class_label: Option<usize>,
    size: Option<[usize; 2]>,
    steps: Option<usize>,
    sampler: Option<String>,
    eta: Option<f64>,
    guidance_scale: Option<f64>,
    guidance_rescale: f64,
    guidance_interval: Option<[f64; 2]>,
    image_guidance_scale: Option<f64>,
    clip_skip: usize,
    strength: Option<f64>,
    noise_level: Option<usize>,
    control_scale: Option<f64>,
}

#[pymethods]
impl TextToImage {
    #[new]
    fn new(py: Python<'_>, folder: String, settings: Settings) -> PyResult<Self> {
        settings.open(py, |eddy| eddy.text_to_image(&folder)).map(|it| Self(Shared::new(it)))
    }

    /// The image, and the figures of its run.
    fn run<'py>(
        &self,
        py: Python<'py>,
        wanted: Wanted,
        images: [Option<Bound<'py, PyAny>>; 3],
        seed: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, Figures)> {
        let parsed = wanted.sampler.as_deref().map(str::parse).transpose();
        let sampler = parsed.map_err(|error: Error| exception(py, &error))?;
        let read = |array: &Bound<'py, PyAny>| array::read(array).map(|(image, _)| image);
        let mut arrays: [Option<Image>; 3] = Default::default();
        for (to, from) in arrays.iter_mut().zip(&images) {
            *to = from.as_ref().map(read).transpose()?;
        }
        let (image, report) = self.0.run(py, progress.as_ref(), move |pipeline, observe| {
            let [start, mask, control] = arrays.each_ref().map(Option::as_ref);
            let request = TextToImageRequest {
                prompt: wanted.prompt,
                negative_prompt: wanted.negative_prompt,
                class: wanted.class_label,
                size: wanted.size,
                steps: wanted.steps,
                sampler,
                eta: wanted.eta,
                guidance_scale: wanted.guidance_scale,
                guidance_rescale: wanted.guidance_rescale,
                guidance_interval: wanted.guidance_interval,
                image_guidance_scale: wanted.image_guidance_scale,
                clip_skip: wanted.clip_skip,
                strength: wanted.strength,
                noise_level: wanted.noise_level,
                control_scale: wanted.control_scale,
                start,
                mask,
                control,
                ..TextToImageRequest::default()
            };
            pipeline.run_observed(&request, seed, observe)
        })?;
        let figures =
            (report.sampler.to_owned(), report.steps, report.guidance_scale, report.evaluations);
        let image = array::stack(py, vec![image])?.get_item(0)?;
        Ok((image, figures))
    }
}
