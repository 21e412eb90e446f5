//! Enlarges the frames of a stream, in buffers that are allocated once.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Array4;

use super::pipeline::{FailurePolicy, memory};
use super::quality::{Choices, QualityController};
use super::{FrameProcessor, QualityLevel, Scale, SettingsUpdate, StreamStatus};
use crate::error::Result;
use crate::media::stream::{VideoFormat, VideoFrame};
use crate::model::Precision;
use crate::task::{LowRes, Upscaler};
use crate::tensor::FrameConverter;
use crate::tile::TilePlan;

/// Enlarges the frames of a stream.
pub struct StreamUpscaler<'a> {
    upscaler: Upscaler<'a>,
    reader: FrameConverter,
    writer: FrameConverter,
    tiles: TilePlan,
    small: LowRes,
    x: Array4<f32>,
    /// The time budget; the number of sampler steps is chosen once a frame's time has been
    /// measured.
    budget: Option<Duration>,
    controller: Option<QualityController>,
    stream_status: StreamStatus,
    failures: FailurePolicy,
}

impl<'a> Upscaler<'a> {
    /// The format of the enlarged frames of `video`.
    pub fn enlarged(&self, video: &VideoFormat) -> VideoFormat {
        let scale = self.manifest.scale;
        let (width, height) = (scale * video.width, scale * video.height);
        // Keeps the color description explicit, since the default for an unspecified one depends
        // on the frame size.
        VideoFormat { width, height, ..video.clone() }
    }

    /// An upscaler for the frames of a stream of format `video`. Results have format `result`,
    /// which is [`enlarged`](Self::enlarged) except for the sample format. `precision` is that of
    /// the network.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when frames do not fit the memory budget, or have
    /// color that the network does not support.
    pub fn on_stream(
        self,
        video: &VideoFormat,
        result: &VideoFormat,
        precision: Precision,
    ) -> Result<StreamUpscaler<'a>> {
        let (channels, scale) = (self.manifest.channels, self.manifest.scale);
        let (width, height) = (video.width, video.height);
        let reader = FrameConverter::new(video, channels, self.range)?;
        let writer = FrameConverter::new(result, channels, self.range)?;
        let tiles = self.tiles([width, height], true, memory::of_converters(&reader, &writer))?;
        self.manifest.check_state(&tiles, [width, height])?;
        let small = LowRes::of_planes(
            vec![0.0; channels * width * height],
            [width, height],
            self.range,
            scale,
        );
        let x = Array4::zeros(small.enlarged_shape());
        let quality = QualityLevel {
            model: Arc::from(self.manifest.name.as_str()),
            precision,
            steps: self.steps(),
            reuse_tiles_longer: false,
            scale: Scale::FULL,
        };
        let stream_status = StreamStatus {
            quality,
            changes: 0,
            sigma: None,
            temporal: false,
            repeated: 0,
            failed: 0,
        };
        Ok(StreamUpscaler {
            upscaler: self,
            reader,
            writer,
            tiles,
            small,
            x,
            budget: None,
            controller: None,
            stream_status,
            failures: FailurePolicy::default(),
        })
    }
}

impl StreamUpscaler<'_> {
    /// Upscale factor along each axis.
    pub fn scale(&self) -> usize {
        self.upscaler.manifest.scale
    }

    /// How the large frames are divided into tiles.
    pub fn tiles(&self) -> &TilePlan {
        &self.tiles
    }

    fn set_steps(&mut self, steps: usize) -> Result<()> {
        self.stream_status.quality.steps = steps;
        self.upscaler.set_steps(steps)
    }

    /// Checks whether the next frame needs another number of sampler steps.
    fn update_quality(&mut self, network: Duration, overhead: Duration) -> Result<()> {
        let Some(budget) = self.budget else { return Ok(()) };
        let steps = self.stream_status.quality.steps;
        let controller = self.controller.get_or_insert_with(|| {
            let costs = vec![network.as_secs_f64() / steps as f64];
            QualityController::new(
                Choices { steps, costs, temporal: false, scales: Vec::new() },
                budget,
            )
        });
        controller.set_budget(budget);
        let requested =
            controller.record_time(network, overhead).unwrap_or_else(|| controller.step()).steps;
        if requested != steps {
            self.stream_status.changes += 1;
            self.set_steps(requested)?;
        }
        Ok(())
    }
}

impl FrameProcessor for StreamUpscaler<'_> {
    fn process(
        &mut self,
        input: &VideoFrame,
        output: &mut VideoFrame,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        let started = Instant::now();
        self.reader.read(&input.bytes, self.small.planes_mut());
        let before = Instant::now();
        let done = self.upscaler.run(&self.small, &mut self.x, &self.tiles, &mut |_| watch());
        match done {
            Ok(stats) => {
                self.failures.none();
                self.stream_status.repeated += stats.repeated as u64;
            }
            Err(reason) => {
                self.failures.tolerate(reason)?;
                self.stream_status.failed += 1;
                self.small.enlarge_whole(self.x.as_slice_mut().unwrap_or_default());
            }
        }
        let network = before.elapsed();
        self.writer.write(self.x.as_slice().unwrap_or_default(), &mut output.bytes);
        self.update_quality(network, started.elapsed().saturating_sub(network))
    }

    fn stream_status(&self) -> StreamStatus {
        self.stream_status.clone()
    }

    fn set_budget(&mut self, budget: Duration) {
        self.budget = Some(budget);
    }

    fn apply_settings(&mut self, settings: &SettingsUpdate) -> Result<()> {
        let Some(steps) = settings.steps else { return Ok(()) };
        // The time of a step is measured again.
        self.controller = None;
        self.set_steps(steps)
    }
}
