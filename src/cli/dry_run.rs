//! A whole image through a model, pixels in and pixels out, without a file: for measurements and
//! for building engines.

use std::ops::ControlFlow;

use eddy::diffusion::{NoiseAt, NoiseSource, Philox, Progress};
use eddy::media::{Image, Metadata, Samples};
use eddy::model::{Manifest, Task};
use eddy::network::Network;
use eddy::task::{
    Budget, DenoiseOptions, Denoiser, GenerateOptions, GenerateRequest, Generator, SigmaChoice,
    TileChoice, UpscaleOptions, Upscaler, as_images,
};

use super::interrupt;
use super::options::Size;

/// How an image is processed.
pub(super) struct DryRun {
    pub(super) steps: usize,
    pub(super) tile: TileChoice,
    pub(super) budget: Budget,
}

impl DryRun {
    /// Processes `image`, or generates one of its size, and returns the number of evaluations.
    pub(super) fn run(
        &self,
        manifest: &Manifest,
        network: &mut dyn Network,
        mut image: Image,
    ) -> eddy::Result<usize> {
        let (steps, tile, budget) = (Some(self.steps), self.tile, self.budget);
        let on = &mut |_| ControlFlow::Continue(());
        interrupt::check()?;
        if manifest.task == Task::Upscale {
            let options = UpscaleOptions { steps, tile, budget, ..UpscaleOptions::default() };
            let (_, report) = Upscaler::new(manifest, network, options)?.upscale(&image, on)?;
            return Ok(report.tiles * report.steps);
        }
        if manifest.task == Task::Generate {
            let options = GenerateOptions { steps, tile, budget, ..GenerateOptions::default() };
            let mut evaluations = 0;
            let on = &mut |progress: Progress| {
                evaluations = progress.total;
                ControlFlow::Continue(())
            };
            let mut generator = Generator::new(manifest, network, options)?;
            let (size, range) = ([image.width, image.height], generator.range());
            let request = GenerateRequest { seeds: vec![0], ..GenerateRequest::default() };
            as_images(&generator.generate(size, request, on)?, range)?;
            return Ok(evaluations);
        }
        let options = DenoiseOptions {
            sigma: SigmaChoice::Known(25.0),
            steps,
            tile,
            budget,
            ..DenoiseOptions::default()
        };
        let report = Denoiser::new(manifest, network, options)?.denoise(&mut image, on)?;
        Ok(report.tiles * report.steps)
    }
}

/// A shaded image with noise of 25 gray levels.
pub(super) fn noisy_frame(Size { width, height }: Size) -> Image {
    let noise = Philox::new(0);
    let mut row = vec![0.0; 3 * width];
    let mut samples = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        noise.fill(NoiseAt { step: 0, batch: 0, channel: 0, y: y as u32 }, 0, &mut row);
        samples.extend(row.iter().enumerate().map(|(x, z)| {
            let clean = 64.0 + 128.0 * (x / 3 + y) as f32 / (width + height) as f32;
            (clean + 25.0 * z).round() as u8
        }));
    }
    Image {
        width,
        height,
        channels: 3,
        samples: Samples::U8(samples),
        metadata: Metadata::default(),
    }
}
