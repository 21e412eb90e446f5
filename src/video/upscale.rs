//! Enlarging the pictures of a stream, in memory that is taken once.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Array4;

use super::failures::Failures;
use super::governor::{Choices, Keeper};
use super::{Quality, Restore, Scale, Treatment, Wishes, memory};
use crate::error::Result;
use crate::frame::stream::{Picture, Video};
use crate::model::Precision;
use crate::task::{Small, Upscaler};
use crate::tensor::Pictures;
use crate::tile::TilePlan;

/// Enlarges the pictures of a stream.
pub struct StreamUpscaler<'a> {
    upscaler: Upscaler<'a>,
    reader: Pictures,
    writer: Pictures,
    tiles: TilePlan,
    small: Small,
    x: Array4<f32>,
    /// What is to be kept within, and chooses how many steps are taken once a picture has told what they take.
    budget: Option<Duration>,
    keeper: Option<Keeper>,
    treatment: Treatment,
    failures: Failures,
}

impl<'a> Upscaler<'a> {
    /// What pictures are like that come of pictures as `video` describes them.
    pub fn enlarged(&self, video: &Video) -> Video {
        let scale = self.manifest.scale;
        let (width, height) = (scale * video.width, scale * video.height);
        // What it meant it goes on meaning, although a large picture that says nothing would mean something else.
        Video { width, height, ..video.clone() }
    }

    /// For the pictures of a stream that are as `video` describes them; results are as `result` does, which is
    /// [`enlarged`](Self::enlarged) but for the kind of samples. `precision` is what the network computes in.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when they do not fit the memory that may be used, or have colour that the network
    /// does not.
    pub fn on_stream(self, video: &Video, result: &Video, precision: Precision) -> Result<StreamUpscaler<'a>> {
        let (channels, scale) = (self.manifest.channels, self.manifest.scale);
        let (width, height) = (video.width, video.height);
        let reader = Pictures::new(video, channels, self.range)?;
        let writer = Pictures::new(result, channels, self.range)?;
        let tiles = self.tiles([width, height], true, memory::of_converters(&reader, &writer))?;
        let small = Small::of_planes(vec![0.0; channels * width * height], [width, height], self.range, scale);
        let x = Array4::zeros(small.enlarged_shape());
        let quality = Quality {
            model: Arc::from(self.manifest.name.as_str()),
            precision,
            steps: self.steps(),
            thrifty: false,
            scale: Scale::FULL,
        };
        let treatment = Treatment { quality, changes: 0, sigma: None, temporal: false, repeated: 0, failed: 0 };
        Ok(StreamUpscaler {
            upscaler: self,
            reader,
            writer,
            tiles,
            small,
            x,
            budget: None,
            keeper: None,
            treatment,
            failures: Failures::default(),
        })
    }
}

impl StreamUpscaler<'_> {
    /// How many times larger results are, along each axis.
    pub fn scale(&self) -> usize {
        self.upscaler.manifest.scale
    }

    /// How large pictures are cut.
    pub fn tiles(&self) -> &TilePlan {
        &self.tiles
    }

    fn set_steps(&mut self, steps: usize) -> Result<()> {
        self.treatment.quality.steps = steps;
        self.upscaler.set_steps(steps)
    }

    /// Looks whether the next picture is to take another number of steps.
    fn keep_up(&mut self, network: Duration, beside: Duration) -> Result<()> {
        let Some(budget) = self.budget else { return Ok(()) };
        let steps = self.treatment.quality.steps;
        let keeper = self.keeper.get_or_insert_with(|| {
            let costs = vec![network.as_secs_f64() / steps as f64];
            Keeper::new(Choices { steps, costs, temporal: false, scales: Vec::new() }, budget)
        });
        keeper.allow(budget);
        let wanted = keeper.took(network, beside).unwrap_or_else(|| keeper.rung()).steps;
        if wanted != steps {
            self.treatment.changes += 1;
            self.set_steps(wanted)?;
        }
        Ok(())
    }
}

impl Restore for StreamUpscaler<'_> {
    fn restore(
        &mut self,
        input: &Picture,
        output: &mut Picture,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        let begun = Instant::now();
        self.reader.read(&input.bytes, self.small.planes_mut());
        let before = Instant::now();
        let mut repeated = 0;
        let done = self.upscaler.run(&self.small, &mut self.x, &self.tiles, &mut |progress| {
            repeated = progress.repeated;
            watch()
        });
        match done {
            Ok(()) => self.failures.none(),
            Err(reason) => {
                self.failures.bear(reason)?;
                self.treatment.failed += 1;
                self.small.enlarge_whole(self.x.as_slice_mut().unwrap_or_default());
            }
        }
        self.treatment.repeated += repeated as u64;
        let network = before.elapsed();
        self.writer.write(self.x.as_slice().unwrap_or_default(), &mut output.bytes);
        self.keep_up(network, begun.elapsed().saturating_sub(network))
    }

    fn treatment(&self) -> Treatment {
        self.treatment.clone()
    }

    fn allow(&mut self, budget: Duration) {
        self.budget = Some(budget);
    }

    fn heed(&mut self, wishes: &Wishes) -> Result<()> {
        let Some(steps) = wishes.steps else { return Ok(()) };
        // What a step takes is measured anew.
        self.keeper = None;
        self.set_steps(steps)
    }
}
