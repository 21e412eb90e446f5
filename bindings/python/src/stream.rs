//! Streams: frames that Python gives one by one, and those of cameras, files and URLs.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use eddy::media::still::Limits;
use eddy::media::stream::{CameraRequest, FormatOverrides, Rate, VideoFormat, open};
use eddy::pipelines::{FrameDenoiser, FrameStream};
use numpy::{IntoPyArray, PyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::array::elements;
use crate::errors::{check_memory, exception, usage};
use crate::session::Settings;

/// See `__init__.pyi`.
#[pyclass(module = "eddy._eddy", frozen)]
pub(crate) struct Stream {
    format: VideoFormat,
    /// `None` once it is closed.
    denoiser: Mutex<Option<FrameDenoiser>>,
}

#[pymethods]
impl Stream {
    #[new]
    fn new(
        py: Python<'_>,
        model: String,
        size: [usize; 2],
        pixel_format: &str,
        fps: u32,
        settings: Settings,
    ) -> PyResult<Self> {
        let pixel_format = pixel_format
            .parse()
            .map_err(|problem| usage(py, format!("pixel_format {pixel_format}: {problem}")))?;
        let [width, height] = size;
        const SIDES: std::ops::RangeInclusive<usize> = 1..=65_535;
        if ![width, height].iter().all(|side| SIDES.contains(side)) || fps == 0 {
            let problem = format!(
                "frames of {width}x{height} at {fps} fps; expected sides from 1 to 65535 and at \
                 least 1 fps"
            );
            return Err(usage(py, problem));
        }
        let format = VideoFormat::new(width, height, Rate::of(fps), pixel_format);
        // A frame, its planes in floating point, and what is known of those before.
        let bytes = format.bytes().checked_mul(16);
        check_memory(py, &format!("a stream of {width}x{height}"), bytes)?;
        let denoiser =
            settings.open(py, |eddy| eddy.denoiser(&model)?.frame_by_frame(format.clone()))?;
        Ok(Self { format, denoiser: Mutex::new(Some(denoiser)) })
    }

    /// The bytes of one frame.
    #[getter]
    fn frame_bytes(&self) -> usize {
        self.format.bytes()
    }

    /// Denoises the next frame, with what is known from those before it.
    fn run<'py>(&self, frame: &Bound<'py, PyArrayDyn<u8>>) -> PyResult<Bound<'py, PyAny>> {
        let py = frame.py();
        let shape = frame.shape().to_vec();
        if frame.len() != self.format.bytes() {
            let VideoFormat { width, height, format, .. } = &self.format;
            let problem = format!(
                "a frame of shape {shape:?} has {} bytes; {width}x{height} {format} has {}",
                frame.len(),
                self.format.bytes()
            );
            return Err(usage(py, problem));
        }
        let bytes = elements(frame)?;
        let denoised = py.detach(|| {
            let mut denoiser = self.denoiser.lock().unwrap_or_else(PoisonError::into_inner);
            let closed = || eddy::Error::usage("the stream is closed; make another one");
            denoiser.as_mut().ok_or_else(closed)?.run(bytes)
        });
        let frame = denoised.map_err(|error| exception(py, &error))?;
        frame.bytes.into_pyarray(py).into_any().call_method1("reshape", (shape,))
    }

    /// Ends the stream.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.denoiser.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }
}

/// See `__init__.pyi`.
#[pyclass(module = "eddy._eddy", frozen)]
pub(crate) struct Frames {
    format: VideoFormat,
    denoised: Mutex<Option<FrameStream>>,
}

#[pymethods]
impl Frames {
    #[new]
    fn new(
        py: Python<'_>,
        source: PathBuf,
        model: Option<String>,
        settings: Settings,
    ) -> PyResult<Self> {
        let denoised = settings.open(py, |eddy| {
            let (request, overrides) = (CameraRequest::default(), FormatOverrides::default());
            let source = open(&[source], request, overrides, Limits::default())?;
            let format = source.video().clone();
            eddy.frame_denoiser(model.as_deref(), &format)?.stream(source)
        })?;
        Ok(Self { format: denoised.format().clone(), denoised: Mutex::new(Some(denoised)) })
    }

    /// Width and height.
    #[getter]
    fn size(&self) -> [usize; 2] {
        [self.format.width, self.format.height]
    }

    /// Frames per second.
    #[getter]
    fn fps(&self) -> f64 {
        self.format.rate.per_second()
    }

    /// The next frame as RGB, and its time in seconds; none at the end.
    fn read<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyAny>, f64)>> {
        let next = py.detach(|| {
            let mut denoised = self.denoised.lock().unwrap_or_else(PoisonError::into_inner);
            let frame = denoised.as_mut().and_then(Iterator::next).transpose()?;
            frame.map(|frame| Ok((frame.to_rgb()?, frame.frame.time.as_secs_f64()))).transpose()
        });
        let Some((image, time)) = next.map_err(|error| exception(py, &error))? else {
            return Ok(None);
        };
        let rows = crate::array::stack(py, vec![image])?;
        Ok(Some((rows.get_item(0)?, time)))
    }

    /// Ends the stream.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.denoised.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }
}
