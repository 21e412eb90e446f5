//! `eddy denoise`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use clap::Args;
use eddy::frame::source::{self, Job};
use eddy::frame::{Format, picture};
use eddy::model::Package;
use eddy::task::{DenoiseOptions, Denoiser, Report, SigmaChoice};
use serde_json::json;

use super::console::{Bar, Console, SomeFailed};
use super::interrupt;
use super::options::{DeviceOptions, MemoryOptions, PrecisionOption};

/// Take the noise out of pictures
///
/// Each picture is read, denoised and written before the next; one that fails is complained of and the others go on.
#[derive(Debug, Args)]
#[command(after_help = "Example: eddy denoise photo.png -o clean.png")]
pub(crate) struct Arguments {
    /// Pictures, or folders of pictures (PNG, JPEG, WebP, TIFF, BMP)
    #[arg(required_unless_present = "input", value_name = "SOURCE", help_heading = "Input and output")]
    sources: Vec<PathBuf>,

    /// The same, for those who are used to it
    #[arg(short, long, value_name = "SOURCE", conflicts_with = "sources", hide = true)]
    input: Vec<PathBuf>,

    /// The picture to write, or the folder where several go
    #[arg(short, long, value_name = "SINK", help_heading = "Input and output")]
    output: PathBuf,

    /// Format to write: png, jpg, webp, tiff or bmp; as the output's name ends when left out
    #[arg(short, long, value_name = "FORMAT", help_heading = "Input and output")]
    format: Option<Format>,

    /// Quality of a JPEG, 1 to 100
    #[arg(long, value_name = "Q", default_value_t = picture::Options::default().jpeg_quality, value_parser = clap::value_parser!(u8).range(1..=100), help_heading = "Input and output")]
    jpeg_quality: u8,

    /// A bundled model or the folder of a model package
    #[arg(short, long, value_name = "MODEL", default_value = "denoise-fast", help_heading = "Model")]
    model: String,

    #[command(flatten)]
    precision: PrecisionOption,

    /// Standard deviation of the noise in 8-bit units, such as 25; `auto` estimates it
    #[arg(long, value_name = "auto|SIGMA", default_value = "auto", help_heading = "Sampling")]
    sigma: Sigma,

    /// Evaluations of the network: 1 has the highest PSNR, a few trade PSNR for texture
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000), help_heading = "Sampling")]
    steps: Option<u16>,

    /// Part of each step's noise that is fresh, 0 to 1
    #[arg(long, value_name = "ETA", default_value_t = 0.0, help_heading = "Sampling")]
    eta: f64,

    /// Where fresh noise comes from
    #[arg(long, value_name = "SEED", default_value_t = 0, help_heading = "Sampling")]
    seed: u64,

    #[command(flatten)]
    memory: MemoryOptions,

    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    console: Console,
}

#[derive(Clone, Copy, Debug)]
struct Sigma(SigmaChoice);

impl FromStr for Sigma {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self(SigmaChoice::Auto));
        }
        let sigma: f64 = text.parse().map_err(|_| "expected auto or a number, such as 25".to_owned())?;
        if sigma.is_finite() && sigma >= 0.0 {
            Ok(Self(SigmaChoice::Known(sigma)))
        } else {
            Err("expected auto or a number from 0 on".into())
        }
    }
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let sources = if self.sources.is_empty() { &self.input } else { &self.sources };
        let package = Package::find(&self.model)?;
        let jobs = source::jobs(sources, &self.output, self.format)?;
        let runtime = self.device.open()?;
        let mut network = package.load(&runtime, self.precision.precision(), self.device.session())?;
        let options = DenoiseOptions {
            sigma: self.sigma.0,
            steps: self.steps.map(usize::from),
            eta: self.eta,
            seed: self.seed,
            tile: self.memory.tile(),
            budget: self.memory.budget(),
        };
        let mut denoiser = Denoiser::new(&package.manifest, &mut network, options)?;
        let bar = self.console.bar(jobs.len());
        let mut first_failure = None;
        let mut failed = 0;
        for (index, job) in jobs.iter().enumerate() {
            bar.begin(index, &job.input.display().to_string());
            // Before each picture too: one that needs no evaluation does not ask.
            if interrupt::poll().is_break() {
                return Err(eddy::Error::Interrupted.into());
            }
            match self.denoise(&mut denoiser, index, job, &bar) {
                Ok(()) => {}
                // One picture, or nothing that another picture would fare better with.
                Err(error) if jobs.len() == 1 || ends_the_run(&error) => return Err(error.into()),
                Err(error) => {
                    bar.error(&error);
                    failed += 1;
                    first_failure.get_or_insert(error.exit_code());
                }
            }
        }
        drop(bar);
        match first_failure {
            None => Ok(()),
            Some(exit_code) => Err(SomeFailed { failed, total: jobs.len(), exit_code }.into()),
        }
    }

    fn denoise(&self, denoiser: &mut Denoiser<'_>, index: usize, job: &Job, bar: &Bar) -> eddy::Result<()> {
        let mut frame = picture::read(&job.input, &picture::Limits::default())?;
        picture::check(&frame, &job.output, job.format)?;
        let begun = Instant::now();
        let report = denoiser.denoise(&mut frame, &mut |progress| {
            bar.advance(index, progress);
            interrupt::poll()
        })?;
        let took = begun.elapsed();
        let options = picture::Options { jpeg_quality: self.jpeg_quality };
        let warnings = picture::write(&frame, &job.output, job.format, &options)?;
        for warning in &warnings {
            bar.note(format!("{}: {warning}", job.output.display()));
        }
        let line = self.describe(&report, job, took.as_secs_f64());
        let record = json!({
            "input": job.input.to_string_lossy(), "output": job.output.to_string_lossy(), "width": frame.width, "height": frame.height,
            "sigma": report.sigma, "sigma_limited": report.sigma_limited, "steps": report.steps, "precision": self.precision.precision().name(),
            "tiles": report.tiles, "tile_width": report.tile_size.0, "tile_height": report.tile_size.1,
            "seconds": took.as_secs_f64(),
            "warnings": warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        bar.report(line, &record).map_err(|cause| eddy::Error::output_from("standard output", "it broke", cause))
    }

    fn describe(&self, report: &Report, job: &Job, seconds: f64) -> String {
        let how = match (self.sigma.0, report.sigma_limited) {
            (_, true) => ", the most that the model knows; the picture is noisier",
            (SigmaChoice::Auto, false) => " (estimated)",
            (SigmaChoice::Known(_), false) => "",
        };
        let tiles = match report.tiles {
            0 => "nothing to do".to_owned(),
            1 => "one tile".to_owned(),
            tiles => format!("{tiles} tiles of {}x{}", report.tile_size.0, report.tile_size.1),
        };
        let steps = if report.steps == 1 { "1 step".to_owned() } else { format!("{} steps", report.steps) };
        let (input, output) = (job.input.display(), job.output.display());
        format!("{input} -> {output}: sigma {:.1}{how}, {steps}, {tiles}, {seconds:.2} s", report.sigma)
    }
}

/// Whether an error says nothing about the picture at hand.
fn ends_the_run(error: &eddy::Error) -> bool {
    matches!(
        error,
        eddy::Error::Interrupted | eddy::Error::Model { .. } | eddy::Error::Runtime { .. } | eddy::Error::Usage { .. }
    )
}
