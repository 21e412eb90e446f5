//! Streams: frames that Python gives one by one, and those of cameras, files and URLs.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use eddy::media::still::Limits;
use eddy::media::stream::{
    CameraRequest, FormatOverrides, Rate, ReadOutcome, Source, VideoFormat, VideoFrame, open,
};
use eddy::pipelines::{FrameStream, StreamFrame};
use numpy::{IntoPyArray, PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::errors::{exception, usage};
use crate::session::Settings;

/// How long a source waits before it lets a stream look whether it was closed.
const POLL: Duration = Duration::from_millis(100);

/// The frames that [`Stream`] is given.
struct Given {
    format: VideoFormat,
    frames: Receiver<VideoFrame>,
}

impl Source for Given {
    fn video(&self) -> &VideoFormat {
        &self.format
    }

    fn next(&mut self, frame: &mut VideoFrame) -> eddy::Result<ReadOutcome> {
        Ok(match self.frames.recv_timeout(POLL) {
            Ok(given) => {
                *frame = given;
                ReadOutcome::Frame
            }
            Err(RecvTimeoutError::Timeout) => ReadOutcome::Waiting,
            Err(RecvTimeoutError::Disconnected) => ReadOutcome::End,
        })
    }
}

/// The way in and the way out of a [`Stream`], which one thread at a time uses.
struct Ends {
    given: Sender<VideoFrame>,
    denoised: FrameStream,
    count: u64,
}

/// See `__init__.pyi`.
#[pyclass(module = "eddy._eddy", frozen)]
pub(crate) struct Stream {
    format: VideoFormat,
    /// `None` once it is closed.
    ends: Mutex<Option<Ends>>,
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
        let (given, frames) = channel();
        let source = Given { format: format.clone(), frames };
        let denoised = settings.open(py, |eddy| eddy.denoiser(&model)?.stream(Box::new(source)))?;
        Ok(Self { format, ends: Mutex::new(Some(Ends { given, denoised, count: 0 })) })
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
        let bytes = {
            let view = frame.try_readonly()?;
            let array = view.as_array();
            match array.as_slice() {
                Some(bytes) => bytes.to_vec(),
                None => array.iter().copied().collect(),
            }
        };
        if bytes.len() != self.format.bytes() {
            let VideoFormat { width, height, format, .. } = &self.format;
            let problem = format!(
                "a frame of shape {shape:?} has {} bytes; {width}x{height} {format} has {}",
                bytes.len(),
                self.format.bytes()
            );
            return Err(usage(py, problem));
        }
        let denoised = py.detach(|| {
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(Ends { given, denoised, count }) = ends.as_mut() else {
                return Err(eddy::Error::usage("the stream is closed; make another one"));
            };
            let time = self.format.rate.time_of(*count);
            let frame = VideoFrame { bytes, index: *count, time, ..VideoFrame::default() };
            *count += 1;
            let ended = || eddy::Error::usage("the stream has ended by an error; make another one");
            given.send(frame).map_err(|_| ended())?;
            denoised.next().unwrap_or_else(|| Err(ended()))
        });
        let StreamFrame { frame, .. } = denoised.map_err(|error| exception(py, &error))?;
        frame.bytes.into_pyarray(py).into_any().call_method1("reshape", (shape,))
    }

    /// Ends the stream.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.ends.lock().unwrap_or_else(PoisonError::into_inner).take()));
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
            let has_planes = source.video().format.chroma().is_some();
            let model = model.as_deref().unwrap_or(match has_planes {
                true => "camera",
                false => "denoise-fast",
            });
            eddy.denoiser(model)?.stream(source)
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
