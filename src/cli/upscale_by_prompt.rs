//! `eddy upscale` with a pipeline of several networks, such as Stable Diffusion's upscaler.

use std::time::Instant;

use clap::Args;
use eddy::media::{Image, Samples};
use eddy::model::{Description, Precision};
use eddy::stages::{NoiseSequence, Retention, TextToImageRequest};
use serde_json::json;

use super::io_args::{IoArgs, evaluations as count_of};
use super::prompt_options::{
    GuidanceOptions, PromptOptions, first_given, open_pipeline, parameters,
};
use super::run_args::NetworkRecord;
use super::upscale::Arguments;

/// What `eddy upscale` takes for pipelines alone.
#[derive(Debug, Args)]
pub(crate) struct ByPromptOptions {
    #[command(flatten)]
    prompts: PromptOptions,

    /// Noise augmentation of the image before it is enlarged, as a timestep
    #[arg(
        long,
        value_name = "N",
        help_heading = "Text to image (folders in the diffusers layout)"
    )]
    noise_level: Option<usize>,

    #[command(flatten)]
    guidance: GuidanceOptions,
}

impl ByPromptOptions {
    /// An option that only a pipeline takes.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let own = first_given(&[(self.noise_level.is_some(), "--noise-level")]);
        self.prompts.given().or(own).or(self.guidance.given())
    }
}

impl Arguments {
    /// Enlarges images by the pipeline in the folder `model`, one after the other.
    pub(crate) fn run_staged(&self, model: &str) -> anyhow::Result<()> {
        let Self { images, pipeline: own, sampling, run, .. } = self;
        own.guidance.check()?;
        let refused = |problem: String| Err(eddy::Error::usage(problem).into());
        if self.stream.stream(images, &[], run.memory.limits())?.is_some() {
            return refused(format!(
                "{model} enlarges images only, a step at a time; a stream needs a model such as \
                 upscale-x2"
            ));
        }
        if self.onnx.description() != Description::default() {
            return refused(format!(
                "{model} is not an .onnx; leave out the options that describe one"
            ));
        }
        let recorded = self.noise.values()?;
        let jobs = images.jobs(&self.noise.files(), run.console)?;
        if recorded.is_some() && jobs.len() > 1 {
            return refused("noise from files is for one image, and there are several".into());
        }
        let opened = run.open()?;
        let retention =
            if jobs.len() > 1 { Retention::ExceptTextEncoders } else { Retention::None };
        let mut pipeline = open_pipeline(&opened, model, run, retention)?;
        let Some(factor) = pipeline.spec().upscale_factor() else {
            return refused(format!(
                "{model} generates images and enlarges none; `eddy generate -m {model}` runs it, \
                 with --from IMAGE where it takes one"
            ));
        };
        if let Some(scale) = self.scale.filter(|scale| *scale != factor) {
            return refused(format!(
                "{model} enlarges {factor} times, {scale} was requested; leave -s out or choose \
                 another model"
            ));
        }
        // A prompt is optional here.
        let prompt = own.prompts.prompt.as_deref().unwrap_or_default();
        let request = TextToImageRequest {
            steps: sampling.steps(),
            eta: (sampling.eta > 0.0).then_some(sampling.eta),
            noise_level: own.noise_level,
            ..own.prompts.request(prompt, &own.guidance)
        };
        let precision = run.precision.requested().unwrap_or(Precision::F32);
        let network = NetworkRecord { model: model.to_owned(), precision, device: opened.device() };
        let mut is_reported = false;
        IoArgs::each(&jobs, run.console, |job| {
            let small = job.read(&run.memory.limits())?.upright();
            let [width, height] =
                [small.width, small.height].map(|side| side.saturating_mul(factor));
            let channels = if small.has_alpha() { 4 } else { 3 };
            let size = width.saturating_mul(height).saturating_mul(channels);
            job.check(&Image::new(width, height, channels, Samples::U8(vec![0; size]))?)?;
            let mut draws = match &recorded {
                Some(values) => NoiseSequence::recorded(values.clone()),
                None => NoiseSequence::from_seed(sampling.seed),
            };
            let begun = Instant::now();
            let (mut large, report) =
                pipeline.enlarge(&small, &request, &mut draws, &mut |it| job.on_progress(it))?;
            if !is_reported {
                own.prompts.report(model, &report, run.console);
                is_reported = true;
            }
            let request = TextToImageRequest { start: Some(&small), ..request.clone() };
            let files = [("from", job.source())].into_iter().chain(self.noise.named_files());
            let note = parameters(model, run, &request, &report, sampling.seed, files);
            large.metadata.note = Some(note.to_string());
            let (sampler, evaluations) = (report.sampler, report.evaluations);
            let summary = format!(
                "{factor} times larger, {width}x{height} by {model}, {sampler}, {}",
                count_of(evaluations)
            );
            let fields = json!({
                "upscale_factor": factor, "sampler": sampler, "evaluations": evaluations,
                "seed": sampling.seed, "guidance_scale": report.guidance_scale,
                "noise_level": report.noise_level, "networks_loaded": report.loads,
            });
            images.finish(job, &large, begun, &network, &summary, fields)
        })
    }
}
