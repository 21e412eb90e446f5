//! The parts shared by commands that generate an image from a given image.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use eddy::diffusion::{Guidance, Progress, Sampler};
use eddy::media::Image;
use eddy::model::Package;
use eddy::task::{Degradation, GenerateOptions, Generator};
use eddy::video::record;
use serde_json::{Value, json};

use super::generate_args::StepWriter;
use super::io_args::{IoArgs, evaluations as count_of};
use super::run_args::{LoadedNetwork, RunArgs};

/// A run over images that generates a new image from each.
pub(crate) struct GenerativeRun<'a> {
    pub(crate) images: &'a IoArgs,
    /// Other files that are read: a mask, a kernel, noise.
    pub(crate) also_read: Vec<PathBuf>,
    pub(crate) package: &'a Package,
    pub(crate) options: GenerateOptions,
    pub(crate) seed: u64,
    pub(crate) save_steps: Option<&'a Path>,
    pub(crate) run: &'a RunArgs,
}

/// What generating one image needs.
pub(crate) struct JobContext<'w, 'd, 'm> {
    pub(crate) generator: &'d mut Generator<'m>,
    /// The guidance, which saves the steps.
    pub(crate) guides: Vec<&'w mut dyn Guidance>,
    /// The callback for every evaluation.
    pub(crate) watch: &'w mut dyn FnMut(Progress) -> ControlFlow<()>,
}

/// A generated image and its report, as text and as JSON.
pub(crate) struct Generated {
    pub(crate) image: Image,
    pub(crate) summary: String,
    pub(crate) fields: Value,
}

/// The random seeds of `samples` samples, from `first` on.
pub(crate) fn seeds(first: u64, samples: u16) -> Vec<u64> {
    (0..samples).map(|i| first.wrapping_add(i.into())).collect()
}

/// The default number of steps of a restoration.
const STEPS: usize = 20;

impl GenerativeRun<'_> {
    /// Restores each image from `degradation`, as the mean of `samples` posterior samples. `noise`
    /// is the standard deviation of the noise added after the degradation, in 8-bit units.
    pub(crate) fn restore(
        mut self,
        degradation: &Degradation,
        noise: f64,
        samples: u16,
    ) -> anyhow::Result<()> {
        self.options.sampler = self.options.sampler.or(Some(Sampler::DDPM));
        self.options.steps = self.options.steps.or(Some(STEPS));
        let seeds = seeds(self.seed, samples);
        self.run(|image, JobContext { generator, guides, watch }| {
            let image = generator.restore(&image, degradation, noise, &seeds, guides, watch)?;
            let summary = format!("{}x{}", image.width, image.height);
            Ok(Generated { image, summary, fields: json!({}) })
        })
    }

    /// Generates each image with `generate`.
    pub(crate) fn run(
        self,
        mut generate: impl FnMut(Image, JobContext<'_, '_, '_>) -> eddy::Result<Generated>,
    ) -> anyhow::Result<()> {
        let Self { images, package, run, .. } = self;
        let jobs = images.jobs(&self.also_read, run.console)?;
        let limits = run.memory.limits();
        let LoadedNetwork { opened, mut network, record: network_record } = run.load(package)?;
        let mut decoder = opened.decoder(package)?;
        let mut generator = Generator::new(&package.manifest, &mut network, self.options)?
            .decoded_by(decoder.as_mut());
        IoArgs::each(&jobs, run.console, |job| {
            // Masks and kernels refer to the image as displayed.
            let image = job.read(&limits)?.upright();
            job.check(&image)?;
            let mut step_writer = StepWriter::new(self.save_steps, &generator)?;
            let guides = step_writer
                .iter_mut()
                .map(|step_writer| step_writer as &mut dyn Guidance)
                .collect();
            let mut watch = |progress| job.on_progress(progress);
            let started = Instant::now();
            let Generated { image, summary, mut fields } = generate(
                image,
                JobContext { generator: &mut generator, guides, watch: &mut watch },
            )?;
            let (sampler, evaluations) = (generator.sampler(), generator.evaluations());
            let model = &network_record.model;
            let summary = format!("{summary} by {model}, {sampler}, {}", count_of(evaluations));
            let sampling = json!({
                "sampler": sampler.name(), "evaluations": evaluations, "seed": self.seed,
            });
            record::extend(&mut fields, sampling);
            images.finish(job, &image, started, &network_record, &summary, fields)
        })
    }
}
