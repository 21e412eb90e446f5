//! `eddy inpaint`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use eddy::machine::Sandbox;
use eddy::media::still;
use eddy::model::{Package, Task};
use eddy::task::{GenerateOptions, Inpainter, Mask};
use serde_json::json;

use super::generate_args::SamplerOptions;
use super::generative::{Generated, GenerativeRun, JobContext, seeds};
use super::io_args::{IMAGE_FORMAT, IMAGE_OUTPUT, IMAGES, IoArgs};
use super::onnx_options::OnnxOptions;
use super::run_args::{LoadedNetwork, RunArgs};
use super::sandbox::SandboxOption;

/// Fill masked areas of images
///
/// White areas of the mask are generated to fit their surroundings; the pixels of black areas stay
/// bit-exact.
#[derive(Debug, Args)]
#[command(after_help = "Example: eddy inpaint scratched.png --mask scratches.png -o whole.png",
    mut_arg("sources", |arg| arg.help(IMAGES).long_help(IMAGES)),
    mut_arg("output", |arg| arg.help(IMAGE_OUTPUT).long_help(IMAGE_OUTPUT)),
    mut_arg("format", |arg| arg.help(IMAGE_FORMAT).long_help(IMAGE_FORMAT)),
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    images: IoArgs,

    /// The mask: an image of the same size as displayed, white where the image is to be filled, or
    /// any color on a transparent layer
    #[arg(long, value_name = "MASK", help_heading = "Input and output")]
    mask: PathBuf,

    /// Dilate the mask by this many pixels. Its antialiased edge always belongs to it
    #[arg(
        long,
        value_name = "PX",
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=64),
        help_heading = "Input and output"
    )]
    grow: u32,

    /// Width in pixels of the blend, inside the mask, of original and generated pixels
    #[arg(
        long,
        value_name = "PX",
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=64),
        help_heading = "Input and output"
    )]
    feather: u32,

    /// The number of posterior samples that are averaged: a larger number lowers the error, 1
    /// has the most texture
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=64),
        help_heading = "Sampling"
    )]
    samples: u16,

    /// Part of the noise schedule that is sampled, from 0 to 1: 1 starts from noise; a smaller
    /// part starts from a smooth fill of the mask plus noise, for smoother results
    #[arg(long, value_name = "F", default_value_t = 1.0, help_heading = "Sampling")]
    strength: f64,

    /// A bundled model, the folder of a model package or an .onnx file
    #[arg(short, long, value_name = "MODEL", default_value = "prior", help_heading = "Model")]
    model: String,

    #[command(flatten)]
    onnx: OnnxOptions,

    /// Resampling (RePaint): how often each step is taken; more often fits better and takes longer.
    /// Default: 4, or 1 for models that were trained with missing pixels
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=100),
        help_heading = "Sampling"
    )]
    resample: Option<u16>,

    #[command(flatten)]
    sampling: SamplerOptions,

    #[command(flatten)]
    sandbox: SandboxOption,

    #[command(flatten)]
    run: RunArgs,
}

impl Arguments {
    /// The files of the run, if it is to be confined.
    pub(crate) fn sandbox(&self) -> eddy::Result<Option<Sandbox>> {
        let Some(sandbox) = self.sandbox.start() else { return Ok(None) };
        let sandbox = self.images.confine(sandbox)?.read(&self.mask);
        let sandbox = self.run.device.confine(sandbox)?.model(Path::new(&self.model));
        let steps = self.sampling.save_steps.iter();
        Ok(Some(steps.fold(sandbox, |it, folder| it.write(folder))))
    }

    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.images.sync.apply();
        let package = self.onnx.find(&self.model, &self.run.device, self.run.console)?;
        let painted = still::read(&self.mask, &self.run.memory.limits())?.upright();
        let mask = Mask::of(&painted).grown(self.grow as usize).feathered(self.feather as usize);
        if mask.is_empty() {
            let problem = format!(
                "{} has no white pixels, so nothing is missing; paint the pixels to fill white",
                self.mask.display()
            );
            return Err(eddy::Error::usage(problem).into());
        }
        if package.manifest.task == Task::Inpaint {
            return self.inpaint_at_once(&package, &mask);
        }
        let defaults = GenerateOptions::for_inpainting(&package.manifest);
        let mut options = GenerateOptions {
            resample: self.resample.map_or(defaults.resample, usize::from),
            strength: Some(self.strength),
            ..self.sampling.options(&self.run.memory)
        };
        options.sampler = options.sampler.or(defaults.sampler);
        options.steps = options.steps.or(defaults.steps);
        let seed = self.sampling.seed;
        let seeds = seeds(seed, self.samples);
        let run = GenerativeRun {
            images: &self.images,
            also_read: vec![self.mask.clone()],
            package: &package,
            options,
            seed,
            save_steps: self.sampling.save_steps.as_deref(),
            run: &self.run,
        };
        run.run(|mut image, JobContext { generator, guides, watch }| {
            let report = generator.inpaint(&mut image, &mask, &seeds, guides, watch)?;
            let [x, y, width, height] = report.part.unwrap_or_default();
            let summary =
                format!("{} pixels filled within {width}x{height} at {x},{y}", report.pixels);
            let fields = json!({"pixels": report.pixels, "part": report.part});
            Ok(Generated { image, summary, fields })
        })
    }

    /// Fills the mask in one evaluation, by a network that is conditioned on the mask.
    fn inpaint_at_once(&self, package: &Package, mask: &Mask) -> anyhow::Result<()> {
        let jobs = self.images.jobs(std::slice::from_ref(&self.mask), self.run.console)?;
        let LoadedNetwork { mut network, record, .. } = self.run.load(package)?;
        let (tile, budget) = (self.run.memory.tile(), self.run.memory.budget());
        let manifest = &package.manifest;
        let mut inpainter = Inpainter::new(manifest, &mut network, tile, budget)?;
        IoArgs::each(&jobs, self.run.console, |job| {
            // The mask refers to the image as displayed.
            let mut image = job.read(&self.run.memory.limits())?.upright();
            job.check(&image)?;
            let begun = Instant::now();
            let report =
                inpainter.inpaint(&mut image, mask, &mut |progress| job.on_progress(progress))?;
            let pixels = report.pixels;
            let summary = format!("{pixels} pixels filled by {}", record.model);
            let fields = json!({"pixels": pixels});
            self.images.finish(job, &image, begun, &record, &summary, fields)
        })
    }
}
