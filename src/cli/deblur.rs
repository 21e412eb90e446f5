//! `eddy deblur`.

use std::path::Path;

use clap::Args;
use eddy::media::still;
use eddy::model::Package;
use eddy::task::{Degradation, Kernel};

use super::console::Console;
use super::generate_args::DrawingOptions;
use super::generative::GenerativeRun;
use super::io_args::{IMAGE_FORMAT, IMAGE_OUTPUT, IMAGES, IoArgs};
use super::options::{DeviceOptions, MemoryOptions, PrecisionOption};

/// Deblur images whose blur kernel is known
///
/// Samples, with a diffusion prior, images that the kernel turns into the given one.
#[derive(Debug, Args)]
#[command(after_help = "Example: eddy deblur soft.png --kernel gaussian:1.6 -o sharp.png",
    mut_arg("sources", |arg| arg.help(IMAGES).long_help(IMAGES)),
    mut_arg("output", |arg| arg.help(IMAGE_OUTPUT).long_help(IMAGE_OUTPUT)),
    mut_arg("format", |arg| arg.help(IMAGE_FORMAT).long_help(IMAGE_FORMAT)),
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    images: IoArgs,

    /// The blur kernel: gaussian:SIGMA with a standard deviation in pixels, or an image of the kernel (its point spread function), of an
    /// odd number of pixels a side
    #[arg(long, value_name = "KERNEL", help_heading = "Input and output")]
    kernel: String,

    /// Standard deviation of the noise added after the blur, in 8-bit units
    #[arg(long, value_name = "F", default_value_t = 2.0, help_heading = "Input and output")]
    sigma: f64,

    /// The number of posterior samples that are averaged: more is nearer to the truth, 1 has the most texture
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Sampling")]
    samples: u16,

    /// A bundled model or the folder of a model package
    #[arg(short, long, value_name = "MODEL", default_value = "prior", help_heading = "Model")]
    model: String,

    #[command(flatten)]
    precision: PrecisionOption,

    #[command(flatten)]
    drawing: DrawingOptions,

    #[command(flatten)]
    memory: MemoryOptions,

    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    console: Console,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.images.sync.apply();
        let kernel = match self.kernel.strip_prefix("gaussian:") {
            Some(sigma) => {
                let sigma = sigma.parse().map_err(|_| {
                    eddy::Error::usage(format!(
                        "--kernel {} has no deviation; expected such as gaussian:1.6",
                        self.kernel
                    ))
                })?;
                Kernel::gaussian(sigma)?
            }
            None => {
                Kernel::of(&still::read(Path::new(&self.kernel), &self.memory.limits())?.upright())?
            }
        };
        let package = Package::find(&self.model)?;
        let redraw = GenerativeRun {
            images: &self.images,
            // A kernel given in words is not a file, so nothing is protected then.
            also_read: vec![self.kernel.clone().into()],
            package: &package,
            memory: &self.memory,
            options: self.drawing.options(&self.memory),
            seed: self.drawing.seed,
            save_steps: self.drawing.save_steps.as_deref(),
            precision: &self.precision,
            device: &self.device,
            console: self.console,
        };
        redraw.restore(&Degradation::Blur(kernel), self.sigma, self.samples)
    }
}
