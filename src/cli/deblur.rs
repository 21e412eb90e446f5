//! `eddy deblur`.

use std::path::Path;
use std::time::Instant;

use clap::Args;
use eddy::machine::Sandbox;
use eddy::media::still;
use eddy::model::{Package, Task};
use eddy::task::{Degradation, DenoiseOptions, Denoiser, Kernel};
use serde_json::json;

use super::generate_args::SamplerOptions;
use super::generative::GenerativeRun;
use super::io_args::{IMAGE_FORMAT, IMAGE_OUTPUT, IMAGES, IoArgs, tiles};
use super::onnx_options::OnnxOptions;
use super::run_args::{LoadedNetwork, RunArgs};
use super::sandbox::SandboxOption;

/// Deblur images, by a known blur kernel or a deblurring network
///
/// With --kernel, a diffusion prior samples images that the kernel blurs to the given one. Without
/// it, the network of -m deblurs them in one evaluation.
#[derive(Debug, Args)]
#[command(after_help = "Example: eddy deblur soft.png --kernel gaussian:1.6 -o sharp.png",
    mut_arg("sources", |arg| arg.help(IMAGES).long_help(IMAGES)),
    mut_arg("output", |arg| arg.help(IMAGE_OUTPUT).long_help(IMAGE_OUTPUT)),
    mut_arg("format", |arg| arg.help(IMAGE_FORMAT).long_help(IMAGE_FORMAT)),
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    images: IoArgs,

    /// The blur kernel: gaussian:SIGMA with a standard deviation in pixels, or an image of the
    /// kernel (its point spread function), of an odd number of pixels a side
    #[arg(long, value_name = "KERNEL", help_heading = "Input and output")]
    kernel: Option<String>,

    /// Standard deviation of the noise added after the blur, in 8-bit units
    #[arg(long, value_name = "F", default_value_t = 2.0, help_heading = "Input and output")]
    sigma: f64,

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

    /// A bundled model, the folder of a model package or an .onnx file
    #[arg(short, long, value_name = "MODEL", default_value = "prior", help_heading = "Model")]
    model: String,

    #[command(flatten)]
    onnx: OnnxOptions,

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
        let sandbox = self.images.confine(sandbox)?;
        let sandbox = self.run.device.confine(sandbox)?.model(Path::new(&self.model));
        let sandbox = self.kernel.iter().fold(sandbox, |it, kernel| it.read(Path::new(kernel)));
        let steps = self.sampling.save_steps.iter();
        Ok(Some(steps.fold(sandbox, |it, folder| it.write(folder))))
    }

    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.images.sync.apply();
        // With a kernel it has to be a prior.
        let task = self.kernel.is_none().then_some(Task::Deblur);
        let package = self.onnx.find_for(task, &self.model, &self.run.device, self.run.console)?;
        let is_network = matches!(package.manifest.task, Task::Denoise | Task::Deblur)
            && package.manifest.is_blind();
        let Some(kernel_name) = &self.kernel else {
            if is_network {
                return self.sharpen(&package);
            }
            let problem = format!(
                "{} is a prior, which needs --kernel, such as gaussian:1.6; without it -m must be \
                 a deblurring network",
                self.model
            );
            return Err(eddy::Error::usage(problem).into());
        };
        let kernel = match kernel_name.strip_prefix("gaussian:") {
            Some(sigma) => {
                let sigma = sigma.parse().map_err(|_| {
                    eddy::Error::usage(format!(
                        "--kernel {kernel_name} has no standard deviation; expected such as \
                         gaussian:1.6"
                    ))
                })?;
                Kernel::gaussian(sigma)?
            }
            None => Kernel::of(
                &still::read(Path::new(kernel_name), &self.run.memory.limits())?.upright(),
            )?,
        };
        let run = GenerativeRun {
            images: &self.images,
            // A kernel given as gaussian:SIGMA is not a file that needs protection.
            also_read: vec![kernel_name.clone().into()],
            package: &package,
            options: self.sampling.options(&self.run.memory),
            seed: self.sampling.seed,
            save_steps: self.sampling.save_steps.as_deref(),
            run: &self.run,
        };
        run.restore(&Degradation::Blur(kernel), self.sigma, self.samples)
    }

    /// Sharpens each image by a feed-forward network.
    fn sharpen(&self, package: &Package) -> anyhow::Result<()> {
        let jobs = self.images.jobs(&[], self.run.console)?;
        let LoadedNetwork { mut network, record, .. } = self.run.load(package)?;
        let options = DenoiseOptions {
            tile: self.run.memory.tile(),
            budget: self.run.memory.budget(),
            ..DenoiseOptions::default()
        };
        let mut denoiser = Denoiser::new(&package.manifest, &mut network, options)?;
        IoArgs::each(&jobs, self.run.console, |job| {
            let mut image = job.read(&self.run.memory.limits())?;
            job.check(&image)?;
            let started = Instant::now();
            let report = denoiser.denoise(&mut image, &mut |progress| job.on_progress(progress))?;
            let tiles = tiles(report.tiles, report.tile_size);
            let summary = format!("sharpened by {}, {tiles}", record.model);
            let fields = json!({
                "tiles": report.tiles, "tile_width": report.tile_size.0,
                "tile_height": report.tile_size.1,
            });
            self.images.finish(job, &image, started, &record, &summary, fields)
        })
    }
}
