//! `eddy upscale`.

use std::path::Path;
use std::time::Instant;

use clap::Args;
use eddy::diffusion::{Guidance, NoiseSource};
use eddy::machine::Sandbox;
use eddy::model::{ModelFolder, Package};
use eddy::stages::is_pipeline;
use eddy::task::{Degradation, GenerateOptions, GenerateRequest, UpscaleOptions, Upscaler};
use eddy::video::FrameProcessor;
use serde_json::json;

use super::generative::{Generated, GenerativeRun, JobContext};
use super::io_args::{ImageJob, IoArgs, repeated, steps, tiles};
use super::onnx_options::OnnxOptions;
use super::options::{NoiseOptions, SamplingOptions};
use super::run_args::{NetworkRecord, RunArgs};
use super::sandbox::SandboxOption;
use super::stream::{Stream, StreamOptions};
use super::upscale_by_prompt::ByPromptOptions;

/// The default scale.
const DEFAULT_SCALE: usize = 2;

/// Super-resolution for images and video
///
/// Images are processed one by one; failures are reported, and the run continues. For a stream,
/// reading, upscaling and writing overlap.
#[derive(Debug, Args)]
#[command(after_help = "Examples: eddy upscale photo.png -o large.png -s 4 --steps 4\n          \
                  eddy upscale photo.png -o large.png -m x4-upscaler/ --prompt \"a lighthouse\"")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) images: IoArgs,

    /// Factor along each axis; bundled models have 2 and 4. Default: the model's, or 2
    #[arg(short, long, value_name = "N", help_heading = "Model")]
    pub(super) scale: Option<usize>,

    /// A bundled model, the folder of a model package, an .onnx file, or a folder in the diffusers
    /// layout; by default `upscale-x2` or `upscale-x4`, by the scale
    #[arg(short, long, value_name = "MODEL", help_heading = "Model")]
    model: Option<String>,

    /// Solve the inverse problem with a diffusion prior (`prior`, or the model of -m) in place of a
    /// network trained for upscaling: by 2 to 8, far slower
    #[arg(long, help_heading = "Model")]
    prior: bool,

    /// With --prior, the number of posterior samples that are averaged: a larger number lowers the
    /// error, 1 has the most texture
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        requires = "prior",
        value_parser = clap::value_parser!(u16).range(1..=64),
        help_heading = "Sampling"
    )]
    samples: u16,

    #[command(flatten)]
    pub(super) onnx: OnnxOptions,

    #[command(flatten)]
    pub(super) pipeline: ByPromptOptions,

    #[command(flatten)]
    pub(super) sampling: SamplingOptions,

    #[command(flatten)]
    pub(super) noise: NoiseOptions,

    #[command(flatten)]
    pub(super) stream: StreamOptions,

    #[command(flatten)]
    sandbox: SandboxOption,

    #[command(flatten)]
    pub(super) run: RunArgs,
}

impl Arguments {
    /// The files of the run, if it is to be confined.
    pub(crate) fn sandbox(&self) -> eddy::Result<Option<Sandbox>> {
        let Some(sandbox) = self.sandbox.start() else { return Ok(None) };
        let sandbox = self.images.confine(sandbox)?;
        self.stream.confine()?;
        let sandbox = self.run.device.confine(sandbox)?;
        let sandbox = self.model.iter().fold(sandbox, |it, model| it.model(Path::new(model)));
        Ok(Some(self.noise.files().iter().fold(sandbox, |it, path| it.read(path))))
    }

    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.images.sync.apply();
        let model = self.model.as_deref().filter(|_| !self.prior);
        if let Some(model) = model.filter(|model| is_pipeline(&ModelFolder::find(model))) {
            return self.run_staged(model);
        }
        if let Some(option) = self.pipeline.given() {
            let model = self.model.as_deref().unwrap_or("a bundled model");
            return Err(eddy::Error::usage(format!(
                "{model} has no text encoder, so {option} does not apply to it; take a folder in \
                 the diffusers layout that enlarges, with -m"
            ))
            .into());
        }
        if self.prior {
            let scale = self.scale.unwrap_or(DEFAULT_SCALE);
            if !(2..=8).contains(&scale) {
                return Err(eddy::Error::usage(format!(
                    "--prior enlarges 2 to 8 times, not {scale}"
                ))
                .into());
            }
            let (degradation, model) =
                (Degradation::BoxDownsample(scale), self.model.as_deref().unwrap_or("prior"));
            let package = Package::find(model)?;
            return self.generative_run(&package).restore(&degradation, 0.0, self.samples);
        }
        let package = self.package()?;
        if package.manifest.is_generative_upscaler() {
            return self.upscale_by_sampling(&package);
        }
        if self.noise.is_given() {
            let problem = "it starts from the low-resolution image; leave --initial-noise and \
                           --noise out, or use a generative model";
            return Err(eddy::Error::usage(format!("{}: {problem}", package.manifest.name)).into());
        }
        let stream = self.stream.stream(&self.images, &[], self.run.memory.limits())?;
        let jobs =
            if stream.is_none() { self.images.jobs(&[], self.run.console)? } else { Vec::new() };
        let mut opened = self.run.open()?;
        // A live or paced stream has pauses between frames, in which threads can sleep.
        opened.sleep_when_idle =
            self.stream.target().is_some() || stream.as_ref().is_some_and(Stream::is_live);
        let record = self.run.record(&package, opened.device());
        let mut network = opened.network_with_fallback(&package, record.precision)?;
        let options = UpscaleOptions {
            steps: self.sampling.steps(),
            eta: self.sampling.eta,
            seed: self.sampling.seed,
            tile: self.run.memory.tile(),
            budget: self.run.memory.budget(),
        };
        let mut upscaler = Upscaler::new(&package.manifest, &mut network, options)?;
        match stream {
            Some(stream) => self.upscale_stream(upscaler, stream, &record),
            None => IoArgs::each(&jobs, self.run.console, |job| {
                self.upscale(&mut upscaler, job, &record)
            }),
        }
    }

    /// Enlarges images with a network that generates them from noise, conditioned on the
    /// low-resolution image.
    fn upscale_by_sampling(&self, package: &Package) -> anyhow::Result<()> {
        if self.stream.stream(&self.images, &[], self.run.memory.limits())?.is_some() {
            let name = &package.manifest.name;
            let problem = format!(
                "{name} is a generative model, which processes images only; a stream needs a model \
                 such as upscale-x2"
            );
            return Err(eddy::Error::usage(problem).into());
        }
        let given = self.noise.read()?;
        let scale = package.manifest.scale;
        self.generative_run(package).run(|image, JobContext { generator, guides, watch }| {
            let (initial, fresh) = given.of(0, 1)?;
            let fresh = fresh.as_ref().map(|fresh| fresh as &dyn NoiseSource);
            // Borrowed for as long as the noise.
            let guides = guides.into_iter().map(|guide| guide as &mut dyn Guidance).collect();
            let request = GenerateRequest {
                seeds: vec![self.sampling.seed],
                initial,
                fresh,
                guides,
                ..GenerateRequest::default()
            };
            let image = generator.enlarge(&image, request, watch)?;
            let summary = format!("{scale} times larger, {}x{}", image.width, image.height);
            Ok(Generated { image, summary, fields: json!({"upscale_factor": scale}) })
        })
    }

    fn generative_run<'a>(&'a self, package: &'a Package) -> GenerativeRun<'a> {
        GenerativeRun {
            images: &self.images,
            also_read: self.noise.files(),
            package,
            options: GenerateOptions {
                steps: self.sampling.steps(),
                eta: (self.sampling.eta > 0.0).then_some(self.sampling.eta),
                tile: self.run.memory.tile(),
                budget: self.run.memory.budget(),
                ..GenerateOptions::default()
            },
            seed: self.sampling.seed,
            save_steps: None,
            run: &self.run,
        }
    }

    fn upscale_stream(
        &self,
        upscaler: Upscaler<'_>,
        stream: Stream<'_>,
        record: &NetworkRecord,
    ) -> anyhow::Result<()> {
        let result = stream.result(&upscaler.enlarged(&stream.video));
        let mut upscaler = upscaler.on_stream(&stream.video, &result, record.precision)?;
        stream.run(&mut upscaler, &result, self.run.console, |upscaler| {
            let scale = upscaler.scale();
            let count = upscaler.stream_status().quality.steps;
            let (width, height) = upscaler.tiles().tile_size();
            let tiles = tiles(upscaler.tiles().count(), (width / scale, height / scale));
            let fields = json!({
                "upscale_factor": scale, "tiles": upscaler.tiles().count(),
                "device": record.device.to_string(),
            });
            (format!("{scale} times larger, {}, {tiles}", steps(count)), fields)
        })
    }

    fn package(&self) -> eddy::Result<Package> {
        let Some(model) = &self.model else {
            return match self.scale.unwrap_or(DEFAULT_SCALE) {
                scale @ (2 | 4) => Package::find(&format!("upscale-x{scale}")),
                scale => Err(eddy::Error::usage(format!(
                    "no bundled model enlarges {scale} times; use -s 2 or -s 4, or name a package \
                     with -m"
                ))),
            };
        };
        let package = self.onnx.find(model, &self.run.device, self.run.console)?;
        let has = package.manifest.scale;
        match self.scale {
            Some(scale) if scale != has => Err(eddy::Error::usage(format!(
                "{model} enlarges {has} times, {scale} was requested; leave -s out or choose \
                 another model"
            ))),
            _ => Ok(package),
        }
    }

    /// Enlarges an image by the network of that record.
    fn upscale(
        &self,
        upscaler: &mut Upscaler<'_>,
        job: &ImageJob<'_>,
        network: &NetworkRecord,
    ) -> eddy::Result<()> {
        let small = job.read(&self.run.memory.limits())?;
        job.check(&upscaler.outline(&small)?)?;
        let begun = Instant::now();
        let (large, report) =
            upscaler.upscale(&small, &mut |progress| job.on_progress(progress))?;
        let (width, height, scale) = (large.width, large.height, report.scale);
        let (steps, tiles) = (steps(report.steps), tiles(report.tiles, report.tile_size));
        let again = repeated(report.repeated);
        let summary = format!("{scale} times larger, {width}x{height}, {steps}, {tiles}{again}");
        let fields = report.fields();
        self.images.finish(job, &large, begun, network, &summary, fields)
    }
}
