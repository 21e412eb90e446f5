//! Streams of denoised frames: of a source, or one by one of what the caller gives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::DenoisePipeline;
use crate::error::{Error, Result};
use crate::media::stream::{ReadOutcome, Source, VideoFormat, VideoFrame};
use crate::media::{Image, Samples};
use crate::tensor::{FrameConverter, Range, write_planes};
use crate::video::SettingsUpdate;

/// How many finished frames are buffered for the iterator.
const FRAMES_AHEAD: usize = 2;

/// How long a source of given frames waits before it lets its reader check whether it was stopped.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Finished frames, in order. At most a few wait here; then processing waits, too.
///
/// Dropping the iterator ends processing, and waits until it has ended: for the evaluation in hand,
/// and for [`Source::next`]. A source that may have to wait long for a frame therefore returns
/// [`ReadOutcome::Waiting`] from time to time.
#[derive(Debug)]
pub struct FrameStream {
    format: Arc<VideoFormat>,
    frames: Option<Receiver<Result<Denoised>>>,
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

/// A frame, and the standard deviation of its noise in 8-bit units, if there is one.
pub(super) type Denoised = (VideoFrame, Option<f64>);

/// What the reader of a stream tells the thread that processes it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    stop: AtomicBool,
    settings: Mutex<Option<SettingsUpdate>>,
}

impl Shared {
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The changes of settings since the last call.
    pub(super) fn take_settings(&self) -> Option<SettingsUpdate> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl FrameStream {
    pub(super) fn start<W>(format: VideoFormat, work: W) -> Result<Self>
    where
        W: FnOnce(&SyncSender<Result<Denoised>>, &Shared) -> Result<()> + Send + 'static,
    {
        let (sender, frames) = sync_channel(FRAMES_AHEAD);
        let shared = Arc::new(Shared::default());
        let of_worker = Arc::clone(&shared);
        let worker = std::thread::Builder::new().name("frames".to_owned()).spawn(move || {
            if let Err(error) = work(&sender, &of_worker) {
                // The receiver may be gone.
                let _ = sender.send(Err(error));
            }
        });
        let worker =
            worker.map_err(|error| Error::usage(format!("no thread can be started: {error}")))?;
        Ok(Self { format: Arc::new(format), frames: Some(frames), shared, worker: Some(worker) })
    }

    /// Changes settings from the next frame on that is processed.
    pub fn apply_settings(&self, update: SettingsUpdate) {
        let mut settings = self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner);
        *settings = Some(settings.take().unwrap_or_default().then(update));
    }

    /// The format of all frames.
    pub fn format(&self) -> &VideoFormat {
        &self.format
    }
}

impl Iterator for FrameStream {
    type Item = Result<StreamFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        let Ok(frame) = self.frames.as_ref()?.recv() else {
            // The thread has ended. A panic in a source must not look like the end of the stream.
            let ended = self.worker.take()?.join();
            let problem =
                "the thread that processes frames panicked; its message is on standard error";
            return ended
                .is_err()
                .then(|| Err(Error::Evaluation { problem: problem.into(), source: None }));
        };
        let format = Arc::clone(&self.format);
        Some(frame.map(|(frame, sigma)| StreamFrame { format, frame, sigma }))
    }
}

impl Drop for FrameStream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // A blocked sender then sees that the receiver is gone.
        self.frames = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// A frame of a stream, with its format.
#[derive(Clone, Debug)]
pub struct StreamFrame {
    /// The format of the samples.
    pub format: Arc<VideoFormat>,
    /// The samples, frame number and timestamp.
    pub frame: VideoFrame,
    /// Standard deviation of the noise that was removed, in 8-bit units: of luma where the network
    /// works on luma and chroma. `None` for a blind network.
    pub sigma: Option<f64>,
}

impl StreamFrame {
    /// Converts the frame to an RGB image with 8 bits per sample.
    ///
    /// # Errors
    /// [`Error::Usage`] for formats that cannot be converted to RGB.
    pub fn to_rgb(&self) -> Result<Image> {
        let (width, height) = (self.format.width, self.format.height);
        let mut planes = vec![0.0; 3 * width * height];
        FrameConverter::new(&self.format, 3, Range::UNIT)?.read(&self.frame.bytes, &mut planes);
        let mut image = Image::new(width, height, 3, Samples::U8(vec![0; 3 * width * height]))?;
        write_planes(&planes, Range::UNIT, &mut image)?;
        Ok(image)
    }
}

/// Denoises frames that the caller gives one by one, using previous frames.
#[derive(Debug)]
pub struct FrameDenoiser {
    given: Sender<VideoFrame>,
    denoised: FrameStream,
    count: u64,
    sigma: Option<f64>,
}

impl FrameDenoiser {
    pub(super) fn new(pipeline: DenoisePipeline, format: VideoFormat) -> Result<Self> {
        let (given, frames) = channel();
        let denoised = pipeline.stream(Box::new(GivenFrames { format, frames }))?;
        Ok(Self { given, denoised, count: 0, sigma: None })
    }

    /// Changes settings from the next frame on.
    pub fn apply_settings(&mut self, update: SettingsUpdate) {
        self.denoised.apply_settings(update);
    }

    /// Standard deviation of the noise that was removed from the last frame, in 8-bit units: of
    /// luma where the network works on luma and chroma. `None` before the first frame, and for a
    /// blind network.
    pub fn sigma(&self) -> Option<f64> {
        self.sigma
    }

    /// The format of all frames.
    pub fn format(&self) -> &VideoFormat {
        self.denoised.format()
    }

    /// Denoises the next frame, whose samples are `bytes` in the format's layout, and waits for the
    /// result.
    ///
    /// # Errors
    /// [`Error::Usage`] for another number of bytes than the format has, after which other frames
    /// can be given; [`Error::Evaluation`] when the network fails, after which none can.
    pub fn run(&mut self, bytes: Vec<u8>) -> Result<VideoFrame> {
        let format = self.format();
        if bytes.len() != format.bytes() {
            let VideoFormat { width, height, format: pixels, .. } = format;
            return Err(Error::usage(format!(
                "a frame has {} bytes; {width}x{height} {pixels} has {}",
                bytes.len(),
                format.bytes()
            )));
        }
        let time = format.rate.time_of(self.count);
        let frame = VideoFrame { bytes, index: self.count, time, ..VideoFrame::default() };
        self.count += 1;
        let ended = || Error::usage("the stream has ended by an error; make another one");
        self.given.send(frame).map_err(|_| ended())?;
        let StreamFrame { frame, sigma, .. } =
            self.denoised.next().unwrap_or_else(|| Err(ended()))?;
        self.sigma = sigma;
        Ok(frame)
    }
}

/// The frames that a [`FrameDenoiser`] is given.
struct GivenFrames {
    format: VideoFormat,
    frames: Receiver<VideoFrame>,
}

impl Source for GivenFrames {
    fn video(&self) -> &VideoFormat {
        &self.format
    }

    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome> {
        Ok(match self.frames.recv_timeout(POLL_TIMEOUT) {
            Ok(given) => {
                *frame = given;
                ReadOutcome::Frame
            }
            Err(RecvTimeoutError::Timeout) => ReadOutcome::Waiting,
            Err(RecvTimeoutError::Disconnected) => ReadOutcome::End,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::error::Result;
    use crate::media::stream::{PixelFormat, Rate, VideoFormat};
    use crate::pipelines::Eddy;
    use crate::task::SigmaChoice;
    use crate::video::SettingsUpdate;

    #[test]
    fn frames_given_one_by_one_come_back_in_order() -> Result<()> {
        let format = VideoFormat::new(32, 16, Rate::of(25), PixelFormat::I420);
        let bytes = format.bytes();
        let mut denoiser = Eddy::new()?.denoiser("camera")?.frame_by_frame(format)?;
        for index in 0..3 {
            let frame = denoiser.run(vec![100 + index; bytes])?;
            assert_eq!((frame.index, frame.bytes.len()), (u64::from(index), bytes));
            assert!(frame.bytes.iter().all(|value| value.abs_diff(100 + index) <= 1));
        }
        let problem = denoiser.run(vec![0; 5]).unwrap_err().to_string();
        assert_eq!(problem, "a frame has 5 bytes; 32x16 yuv420p has 768");
        denoiser.run(vec![100; bytes]).map(|_| ())
    }

    #[test]
    fn sigma_changes_from_the_next_frame_on() -> Result<()> {
        let format = VideoFormat::new(32, 16, Rate::of(25), PixelFormat::I420);
        let bytes = format.bytes();
        let mut denoiser = Eddy::new()?.denoiser("camera")?.frame_by_frame(format)?;
        denoiser.run(vec![100; bytes])?;
        assert_eq!(denoiser.sigma(), Some(0.0));
        for sigma in [12.0, 30.0] {
            denoiser.apply_settings(SettingsUpdate {
                sigma: Some(SigmaChoice::Known(sigma)),
                ..SettingsUpdate::default()
            });
            denoiser.run(vec![100; bytes])?;
            assert_eq!(denoiser.sigma().map(f64::round), Some(sigma));
        }
        Ok(())
    }
}
