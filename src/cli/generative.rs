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

use super::console::Console;
use super::generate_args::StepKeeper;
use super::interrupt;
use super::io_args::IoArgs;
use super::options::{DeviceOptions, MemoryOptions, PrecisionOption};

/// A run over images that generates a new image from each.
pub(crate) struct GenerativeRun<'a> {
    pub(crate) images: &'a IoArgs,
    /// Other files that are read: a mask, a kernel, noise.
    pub(crate) also_read: Vec<PathBuf>,
    pub(crate) package: &'a Package,
    pub(crate) memory: &'a MemoryOptions,
    pub(crate) options: GenerateOptions,
    pub(crate) seed: u64,
    pub(crate) save_steps: Option<&'a Path>,
    pub(crate) precision: &'a PrecisionOption,
    pub(crate) device: &'a DeviceOptions,
    pub(crate) console: Console,
}

/// What generating one image needs.
pub(crate) struct JobContext<'w, 'd, 'm> {
    pub(crate) drawer: &'d mut Generator<'m>,
    /// The guidance, which saves the steps.
    pub(crate) guides: Vec<&'w mut dyn Guidance>,
    /// The callback for every evaluation.
    pub(crate) watch: &'w mut dyn FnMut(Progress) -> ControlFlow<()>,
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
        self.run(|image, JobContext { drawer, guides, watch }| {
            let result = drawer.restore(&image, degradation, noise, &seeds, guides, watch)?;
            let words = format!("{}x{}", result.width, result.height);
            Ok((result, words, Value::Null))
        })
    }

    /// Generates each image with `draw`, which returns the result and its report, as text and as
    /// JSON.
    pub(crate) fn run(
        self,
        mut draw: impl FnMut(Image, JobContext<'_, '_, '_>) -> eddy::Result<(Image, String, Value)>,
    ) -> anyhow::Result<()> {
        let Self { images, package, console, .. } = self;
        let jobs = images.jobs(&self.also_read, console)?;
        let limits = self.memory.limits();
        let opened = self.device.open_within(self.memory, console)?;
        let model = &package.manifest.name;
        let precision = self.precision.on(opened.device(), package);
        let mut network = opened.guarded(package, precision)?;
        let mut decoder = opened.decoder(package)?;
        let mut drawer = Generator::new(&package.manifest, &mut network, self.options)?
            .decoded_by(decoder.as_mut());
        IoArgs::each(&jobs, console, |turn| {
            // Masks and kernels refer to the image as displayed.
            let image = turn.read(&limits)?.upright();
            turn.check(&image)?;
            let mut keeper = StepKeeper::new(self.save_steps, &drawer)?;
            let guides = keeper.iter_mut().map(|keeper| keeper as &mut dyn Guidance).collect();
            let mut watch = |progress| {
                turn.bar.advance(turn.index, progress);
                interrupt::poll()
            };
            let begun = Instant::now();
            let (result, words, facts) =
                draw(image, JobContext { drawer: &mut drawer, guides, watch: &mut watch })?;
            let seconds = begun.elapsed().as_secs_f64();
            let warnings = images.write(&result, turn)?;
            let (sampler, evaluations) = (drawer.sampler(), drawer.evaluations());
            let line =
                format!("{words} by {model}, {sampler}, {evaluations} evaluations, {seconds:.2} s");
            let mut record = json!({
                "input": turn.job.input.to_string_lossy(),
                "output": turn.job.output.to_string_lossy(),
                "width": result.width, "height": result.height, "model": model,
                "sampler": sampler.name(),
                "evaluations": evaluations, "seed": self.seed, "seconds": seconds,
                "warnings": warnings,
                "precision": precision.name(), "device": opened.device().to_string(),
            });
            record::extend(&mut record, facts);
            turn.report(&line, &record)
        })
    }
}
