//! State shared by the run and the clients of the live view.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::http::lock;
use crate::media::still::{self, Options};
use crate::media::stream::{VideoFormat, VideoFrame};
use crate::media::{Image, Metadata, Samples};
use crate::tensor::{FrameConverter, Range};
use crate::video::{Counters, Histogram, RunStatus, SettingsUpdate, StreamStatus, record};

/// Interval between updates of the metrics.
const UPDATE_INTERVAL: Duration = Duration::from_millis(250);

/// Time window of the reported rate.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// Maximum width of shown frames; wider ones are reduced.
const MAX_WIDTH: usize = 1280;

/// JPEG quality of shown frames.
const JPEG_QUALITY: u8 = 85;

/// How long a request waits for a frame.
const FRAME_TIMEOUT: Duration = Duration::from_secs(2);

/// Minimum interval between shown frames, for any number of clients.
const MIN_FRAME_INTERVAL: Duration = Duration::from_millis(50);

/// The metrics of a run.
#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) counters: Counters,
    pub(super) rate: f64,
    pub(super) stream_status: StreamStatus,
    pub(super) latency: Histogram,
}

/// The input and the result of a frame.
pub(super) struct Pair {
    pub(super) index: u64,
    before: Vec<u8>,
    after: Vec<u8>,
    shown: Instant,
    /// Both as JPEGs, or the error; computed on the first request.
    encoded: OnceLock<std::result::Result<Bytes, String>>,
}

/// State shared by the run and the clients of the live view.
pub(super) struct SharedState {
    before: VideoFormat,
    after: VideoFormat,
    metrics: Mutex<Option<Metrics>>,
    /// Whether a client waits for a frame.
    has_waiting_client: AtomicBool,
    pair: watch::Sender<Option<Arc<Pair>>>,
    settings: Mutex<Option<SettingsUpdate>>,
}

impl SharedState {
    pub(super) fn new(before: VideoFormat, after: VideoFormat) -> Self {
        Self {
            before,
            after,
            metrics: Mutex::default(),
            has_waiting_client: AtomicBool::new(false),
            pair: watch::Sender::new(None),
            settings: Mutex::default(),
        }
    }

    /// Called by the run with a frame, which is kept if a client waits for one.
    pub(super) fn on_frame(&self, before: &VideoFrame, after: &VideoFrame) {
        if !self.has_waiting_client.load(Ordering::Relaxed) {
            return;
        }
        let shown = Instant::now();
        if self
            .pair
            .borrow()
            .as_ref()
            .is_some_and(|last| shown.duration_since(last.shown) < MIN_FRAME_INTERVAL)
        {
            return;
        }
        self.has_waiting_client.store(false, Ordering::Relaxed);
        let pair = Pair {
            index: after.index,
            before: before.bytes.clone(),
            after: after.bytes.clone(),
            shown,
            encoded: OnceLock::new(),
        };
        self.pair.send_replace(Some(Arc::new(pair)));
    }

    /// Called by the run: takes the new settings since the last call.
    pub(super) fn take_settings(&self) -> Option<SettingsUpdate> {
        lock(&self.settings).take()
    }

    /// Called for a client: merges new settings with those that were not applied yet.
    pub(super) fn request_settings(&self, more: SettingsUpdate) {
        let mut settings = lock(&self.settings);
        *settings = Some(settings.take().unwrap_or_default().then(more));
    }

    pub(super) fn metrics(&self) -> Option<Metrics> {
        lock(&self.metrics).clone()
    }

    /// The next frame after index `after`; `None` on timeout.
    pub(super) async fn next(&self, after: Option<u64>) -> Option<Arc<Pair>> {
        // The stored frame may be old, from an earlier request.
        let mut pair = self.pair.subscribe();
        let new = async {
            loop {
                self.has_waiting_client.store(true, Ordering::Relaxed);
                pair.changed().await.ok()?;
                let shown = pair.borrow_and_update().clone();
                if let Some(new) = shown.filter(|pair| Some(pair.index) != after) {
                    return Some(new);
                }
            }
        };
        timeout(FRAME_TIMEOUT, new).await.ok()?
    }

    /// Two JPEGs; the first is preceded by its length in four bytes, big-endian. They are encoded
    /// once for all clients.
    pub(super) fn encode(&self, pair: &Pair) -> std::result::Result<Bytes, String> {
        let encode = || {
            let before = jpeg(&self.before, &pair.before)?;
            let after = jpeg(&self.after, &pair.after)?;
            let length = u32::try_from(before.len()).unwrap_or(u32::MAX).to_be_bytes();
            Ok(Bytes::from([length.as_slice(), &before, &after].concat()))
        };
        pair.encoded.get_or_init(|| encode().map_err(|error: Error| error.to_string())).clone()
    }
}

/// Updates the metrics in the shared state.
pub(super) struct MetricsSampler {
    written: Instant,
    recent: record::Recent,
}

impl MetricsSampler {
    pub(super) fn new() -> Self {
        Self { written: Instant::now(), recent: record::Recent::over(RATE_WINDOW) }
    }

    pub(super) fn write(&mut self, state: &SharedState, running: &RunStatus<'_>) {
        let mut metrics = lock(&state.metrics);
        if metrics.is_some() && self.written.elapsed() < UPDATE_INTERVAL {
            return;
        }
        self.written = Instant::now();
        let counters = running.counters();
        let (rate, _) = self.recent.rate(&counters);
        *metrics = Some(Metrics {
            counters,
            rate,
            stream_status: running.stream_status().clone(),
            latency: running.latency(),
        });
    }
}

/// Encodes a frame of a stream as JPEG, reduced if it is wide.
fn jpeg(video: &VideoFormat, bytes: &[u8]) -> Result<Vec<u8>> {
    let range = Range::new(0.0, 255.0)?;
    let area = video.width * video.height;
    let mut planes = vec![0.0; 3 * area];
    FrameConverter::new(video, 3, range)?.read(bytes, &mut planes);
    let step = video.width.div_ceil(MAX_WIDTH).max(1);
    let (width, height) = ((video.width / step).max(1), (video.height / step).max(1));
    let mut samples = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            for plane in planes.chunks_exact(area) {
                let mut sum = 0.0;
                for row in plane[y * step * video.width..].chunks(video.width).take(step) {
                    sum += row[x * step..].iter().take(step).sum::<f32>();
                }
                // The cast saturates to 0 and 255.
                samples.push((sum / (step * step) as f32).round() as u8);
            }
        }
    }
    let frame = Image {
        width,
        height,
        channels: 3,
        samples: Samples::U8(samples),
        metadata: Metadata::default(),
    };
    still::encoded(&frame, still::Format::Jpeg, &Options { jpeg_quality: JPEG_QUALITY })
}

#[cfg(test)]
mod tests {
    use super::{SharedState, jpeg};
    use crate::media::still::{Limits, decode};
    use crate::media::stream::{Rate, VideoFormat, VideoFrame};
    use crate::media::{Image, Samples};
    use crate::video::SettingsUpdate;
    use std::sync::Arc;
    use std::time::Duration;

    fn read(jpeg: &[u8]) -> Image {
        decode("a.jpg".as_ref(), std::io::Cursor::new(jpeg), &Limits::default()).unwrap()
    }

    #[test]
    fn shows_frames_at_full_or_reduced_size() {
        for (width, height, shown) in [(64, 48, (64, 48)), (1300, 20, (650, 10)), (1, 1, (1, 1))] {
            let video = VideoFormat::new(width, height, Rate::of(25), "rgb24".parse().unwrap());
            let frame = read(&jpeg(&video, &[200, 100, 50].repeat(width * height)).unwrap());
            assert_eq!((frame.width, frame.height), shown);
            let Samples::U8(samples) = frame.samples else { panic!("a JPEG has 8 bits") };
            assert!(
                samples
                    .iter()
                    .zip([200_u8, 100, 50].iter().cycle())
                    .all(|(a, b)| a.abs_diff(*b) <= 4)
            );
        }
    }

    #[test]
    fn keeps_frames_only_for_waiting_clients() {
        let video = VideoFormat::new(2, 2, Rate::of(25), "gray".parse().unwrap());
        let state = Arc::new(SharedState::new(video.clone(), video));
        let frame =
            |index| VideoFrame { bytes: vec![index as u8; 4], index, ..VideoFrame::default() };
        state.on_frame(&frame(0), &frame(0));
        assert!(state.pair.borrow().is_none());
        let waiting = std::thread::spawn({
            let state = Arc::clone(&state);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            move || {
                runtime
                    .block_on(state.next(None))
                    .map(|pair| (pair.index, state.encode(&pair).unwrap()))
            }
        });
        let mut index = 1;
        while !waiting.is_finished() {
            state.on_frame(&frame(index), &frame(index));
            index += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        let (index, bytes) = waiting.join().unwrap().unwrap();
        assert!(index > 0);
        let length = u32::from_be_bytes(*bytes.first_chunk().unwrap()) as usize;
        assert_eq!((read(&bytes[4..4 + length]).width, read(&bytes[4 + length..]).width), (2, 2));
    }

    #[test]
    fn merges_settings() {
        let video = VideoFormat::new(2, 2, Rate::of(25), "gray".parse().unwrap());
        let state = SharedState::new(video.clone(), video);
        state.request_settings(SettingsUpdate { steps: Some(2), ..SettingsUpdate::default() });
        state.request_settings(SettingsUpdate {
            steps: Some(3),
            temporal: Some(true),
            ..SettingsUpdate::default()
        });
        state.request_settings(SettingsUpdate {
            temporal: Some(false),
            ..SettingsUpdate::default()
        });
        assert_eq!(
            state.take_settings(),
            Some(SettingsUpdate { sigma: None, steps: Some(3), temporal: Some(false) })
        );
        assert_eq!(state.take_settings(), None);
    }
}
