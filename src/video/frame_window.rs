//! Denoises video with a network that takes a window of frames, or has a recurrent state.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::pipeline::{FailurePolicy, memory};
use super::{FrameProcessor, QualityLevel, Scale, StreamStatus};
use crate::diffusion::{Canvas, SigmaMap, Update, Window, read_plane};
use crate::error::Result;
use crate::media::stream::{VideoFormat, VideoFrame};
use crate::model::Precision;
use crate::network::Shape;
use crate::task::{Denoiser, MeteredPlanes, PlaneRole, SigmaChoice, StreamMeter, Strength};
use crate::tensor::FrameConverter;
use crate::tile::TilePlan;

/// Denoises each frame of a video with a window of frames around it.
pub struct FrameWindowDenoiser<'a> {
    denoiser: Denoiser<'a>,
    reader: FrameConverter,
    writer: FrameConverter,
    tiles: TilePlan,
    meter: StreamMeter,
    /// The planes of the frames in the window; the middle one is restored next.
    window: VecDeque<Vec<f32>>,
    spare: Vec<Vec<f32>>,
    x: Vec<f32>,
    sigma: f64,
    stream_status: StreamStatus,
    failures: FailurePolicy,
}

impl<'a> FrameWindowDenoiser<'a> {
    /// A denoiser for a stream of format `video`, with output of format `result` and the same size.
    /// `precision` is that of the network.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when frames do not fit the memory budget, or have
    /// color that the network does not support.
    pub fn new(
        denoiser: Denoiser<'a>,
        video: &VideoFormat,
        result: &VideoFormat,
        precision: Precision,
    ) -> Result<Self> {
        let manifest = denoiser.manifest;
        let (channels, range) = (manifest.channels, denoiser.range);
        let reader = FrameConverter::new(video, channels, range)?;
        let writer = FrameConverter::new(result, channels, range)?;
        let (width, height) = (video.width, video.height);
        let role = PlaneRole::Luma;
        let meter = StreamMeter::new(vec![MeteredPlanes { count: channels, width, height, role }]);
        let frame = channels * width * height * size_of::<f32>();
        let held =
            memory::of_converters(&reader, &writer) + meter.bytes() + (manifest.frames + 2) * frame;
        let room = denoiser.options.budget.room(held as u64);
        let tiles = denoiser.tiles([width, height], room)?;
        denoiser.manifest.check_state(&tiles, [width, height])?;
        let quality = QualityLevel {
            model: Arc::from(manifest.name.as_str()),
            precision,
            steps: denoiser.steps(),
            reuse_tiles_longer: false,
            scale: Scale::FULL,
        };
        let is_blind = denoiser.is_blind();
        let stream_status = StreamStatus {
            quality,
            changes: 0,
            sigma: (!is_blind).then_some(0.0),
            temporal: true,
            repeated: 0,
            failed: 0,
        };
        let x = vec![0.0; channels * width * height];
        Ok(Self {
            denoiser,
            reader,
            writer,
            tiles,
            meter,
            window: VecDeque::new(),
            spare: Vec::new(),
            x,
            sigma: 0.0,
            stream_status,
            failures: FailurePolicy::default(),
        })
    }

    /// The division of frames into tiles.
    pub fn tiles(&self) -> &TilePlan {
        &self.tiles
    }

    /// The number of frames in the window.
    pub fn frames(&self) -> usize {
        self.denoiser.manifest.frames
    }

    /// Whether the network is not conditioned on a noise level (blind).
    pub fn is_blind(&self) -> bool {
        self.denoiser.is_blind()
    }

    /// The standard deviation of the last frame's noise in 8-bit units; 0 for a blind network.
    pub fn sigma(&self) -> f64 {
        255.0 * self.sigma
    }

    /// The sigma of the middle frame, in the network's units.
    fn measure(&mut self) -> SigmaMap {
        if self.is_blind() {
            return SigmaMap::Uniform(0.0);
        }
        let video = self.reader.video();
        let stated =
            self.denoiser.options.sigma.stated(false, video.format.is_gray(), video.color.matrix);
        let range = self.denoiser.range;
        let middle = self.window.get(self.look_ahead());
        let sigma = match (stated, &self.denoiser.options.sigma, middle) {
            (Some([sigma, _]), ..) => sigma,
            (None, SigmaChoice::Auto, Some(frame)) => {
                let reading = self.meter.measure(frame, range);
                if reading.is_clean { 0.0 } else { reading.levels[0].sigma }
            }
            _ => 0.0,
        };
        let (sigma, _) = self.denoiser.limit(sigma);
        self.sigma = sigma;
        SigmaMap::Uniform((sigma * f64::from(range.span())) as f32)
    }

    fn evaluate(&mut self, watch: &mut dyn FnMut() -> ControlFlow<()>) -> Result<()> {
        let sigma = self.measure();
        let middle = self.look_ahead();
        let video = self.reader.video();
        let (width, height) = (video.width, video.height);
        let mut canvas = FrameWindow {
            window: &self.window,
            middle,
            channels: self.denoiser.manifest.channels,
            width,
            height,
            x: &mut self.x,
        };
        let stats =
            self.denoiser.evaluate_on(&mut canvas, &self.tiles, &sigma, &mut |_| watch())?;
        self.stream_status.repeated += stats.repeated as u64;
        Ok(())
    }
}

impl FrameProcessor for FrameWindowDenoiser<'_> {
    fn look_ahead(&self) -> usize {
        self.frames() / 2
    }

    fn announce(&mut self, next: Option<&VideoFrame>) {
        let mut planes = self.spare.pop().unwrap_or_else(|| vec![0.0; self.x.len()]);
        match (next, self.window.back()) {
            (Some(frame), _) => self.reader.read(&frame.bytes, &mut planes),
            // The last frame is repeated after the end,
            (None, Some(last)) => planes.clone_from(last),
            (None, None) => {}
        }
        if self.window.is_empty() {
            // and the first one before the start.
            self.window.extend(vec![planes.clone(); self.look_ahead()]);
        }
        self.window.push_back(planes);
    }

    fn process(
        &mut self,
        _input: &VideoFrame,
        output: &mut VideoFrame,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        let middle = self.look_ahead();
        match self.evaluate(watch) {
            Ok(()) => self.failures.none(),
            Err(reason) => {
                self.failures.tolerate(reason)?;
                self.stream_status.failed += 1;
                self.x.clone_from(&self.window[middle]);
            }
        }
        let strength = self.denoiser.options.strength;
        if strength != Strength::FULL {
            strength.blend(&self.window[middle], &mut self.x);
        }
        if !self.is_blind() {
            self.stream_status.sigma = Some(self.sigma());
        }
        self.writer.write(&self.x, &mut output.bytes);
        self.spare.extend(self.window.pop_front());
        Ok(())
    }

    fn stream_status(&self) -> StreamStatus {
        self.stream_status.clone()
    }
}

/// The canvas of a window of frames, whose prediction is the middle frame.
struct FrameWindow<'a> {
    window: &'a VecDeque<Vec<f32>>,
    middle: usize,
    channels: usize,
    width: usize,
    height: usize,
    x: &'a mut [f32],
}

impl FrameWindow<'_> {
    fn read_frame(&self, frame: usize, window: Window, out: &mut [f32]) {
        let Some(planes) = self.window.get(frame) else { return };
        let planes = planes.chunks_exact(self.width * self.height);
        for (plane, out) in planes.zip(out.chunks_exact_mut(window.width * window.height)) {
            read_plane(plane, self.width, window, 1.0, out);
        }
    }
}

impl Canvas for FrameWindow<'_> {
    fn shape(&self) -> Shape {
        [1, self.channels, self.height, self.width]
    }

    fn read(&self, window: Window, _scale: f32, out: &mut [f32]) -> Result<()> {
        self.read_frame(self.middle, window, out);
        Ok(())
    }

    fn condition(&self, window: Window, out: &mut [f32]) -> Result<()> {
        let others = (0..self.window.len()).filter(|frame| *frame != self.middle);
        let size = self.channels * window.width * window.height;
        for (frame, out) in others.zip(out.chunks_exact_mut(size)) {
            self.read_frame(frame, window, out);
        }
        Ok(())
    }

    fn update(&mut self, update: &Update<'_>) -> Result<()> {
        for plane in 0..self.channels {
            for y in update.rows.clone() {
                let row = update.output.row(plane, y, self.width);
                self.x[(plane * self.height + y) * self.width..][..self.width].copy_from_slice(row);
            }
        }
        Ok(())
    }
}
