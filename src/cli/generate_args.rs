//! Options shared by commands that generate: the sampler, and which steps are saved.

use std::path::{Path, PathBuf};

use clap::Args;
use eddy::diffusion::{Guidance, Sampler, StepContext};
use eddy::media::still;
use eddy::media::{Format, Image, Metadata, Samples};
use eddy::task::{GenerateOptions, Generator, as_images};
use eddy::tensor::Range;
use ndarray::Array4;

use super::options::MemoryOptions;

/// The sampler of a generated image.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplerOptions {
    /// Sampler steps; by default the model's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: Option<u16>,

    /// The sampler, of those of `eddy sample`
    #[arg(long, value_name = "NAME")]
    sampler: Option<Sampler>,

    /// Stochasticity, from 0 to 1, of samplers that have an eta
    #[arg(long, value_name = "ETA")]
    eta: Option<f64>,

    /// Random seed: the same seed gives the same image
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,

    /// Save the predicted clean image (x0) of each step in this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) save_steps: Option<PathBuf>,
}

impl SamplerOptions {
    pub(crate) fn options(&self, memory: &MemoryOptions) -> GenerateOptions {
        GenerateOptions {
            sampler: self.sampler,
            steps: self.steps.map(usize::from),
            eta: self.eta,
            resample: 1,
            strength: None,
            tile: memory.tile(),
            budget: memory.budget(),
        }
    }

    /// The writer of each step's prediction, if requested.
    pub(crate) fn step_writer(
        &self,
        generator: &Generator<'_>,
    ) -> eddy::Result<Option<StepWriter>> {
        StepWriter::new(self.save_steps.as_deref(), generator)
    }
}

/// Writes each predicted clean image as `step-001.png`; several images are placed side by side.
pub(crate) struct StepWriter {
    folder: PathBuf,
    range: Range,
}

impl StepWriter {
    /// Writes to `folder`, if there is one.
    pub(crate) fn new(
        folder: Option<&Path>,
        generator: &Generator<'_>,
    ) -> eddy::Result<Option<Self>> {
        let Some(folder) = folder else { return Ok(None) };
        if generator.generates_latents() {
            return Err(eddy::Error::usage(
                "its steps are latents, not images; leave --save-steps out",
            ));
        }
        let problem = "the folder for the steps cannot be created";
        eddy::durable::create_folder(folder)
            .map_err(|cause| eddy::Error::output_from(folder, problem, cause))?;
        Ok(Some(Self { folder: folder.to_owned(), range: generator.range() }))
    }
}

impl Guidance for StepWriter {
    fn guide(&mut self, moment: &StepContext<'_>, d: &mut Array4<f32>) -> eddy::Result<()> {
        let digits = moment.count.to_string().len();
        let name = format!("step-{:0digits$}.png", moment.index + 1);
        let beside = as_images(d, self.range)?;
        let mut image = tabled(&beside, beside.len());
        image.metadata.note = Some(format!(
            "step {} of {}, sigma {:.4}",
            moment.index + 1,
            moment.count,
            moment.level.sigma()
        ));
        still::write(&image, &self.folder.join(name), Format::Png, &still::Options::default())
            .map(drop)
    }
}

/// Arranges images of one kind in a table of `columns`, row by row.
pub(crate) fn tabled(images: &[Image], columns: usize) -> Image {
    let rows = images.len().div_ceil(columns.max(1));
    let (width, height, channels) =
        images.first().map_or((1, 1, 1), |first| (first.width, first.height, first.channels));
    let across = columns * width * channels;
    let mut samples = vec![0; across * rows * height];
    for (i, image) in images.iter().enumerate() {
        let Samples::U8(own) = &image.samples else { continue };
        let corner = (i / columns) * height * across + (i % columns) * width * channels;
        for (y, row) in own.chunks_exact(width * channels).enumerate() {
            samples[corner + y * across..][..row.len()].copy_from_slice(row);
        }
    }
    let metadata = Metadata::default();
    Image {
        width: columns * width,
        height: rows * height,
        channels,
        samples: Samples::U8(samples),
        metadata,
    }
}
