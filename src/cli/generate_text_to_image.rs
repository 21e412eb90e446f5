//! `eddy generate` with a pipeline of several networks: text to image, and from image to image.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use eddy::media::source::refuse_replacing;
use eddy::media::{Image, still};
use eddy::stages::{
    NoiseSequence, Retention, StageRequest, StepObserver, TextToImage, TextToImageReport,
    TextToImageRequest,
};
use eddy::task::as_images;
use eddy::tensor::Range;
use ndarray::Array4;
use serde_json::json;

use super::generate::{Arguments, Sink};
use super::interrupt;
use super::preview_steps::{PreviewWriter, Waiting};
use super::prompt_options::{first_given, open_pipeline, parameters};

/// Options of `eddy generate` for pipelines only, beside their prompts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Text to image (folders in the diffusers layout)")]
pub(crate) struct PipelineOptions {
    /// Fill the areas of the --from image that are white in this mask
    #[arg(long, value_name = "IMAGE", requires = "from")]
    mask: Option<PathBuf>,

    /// How closely an edited image follows the --from image (InstructPix2Pix)
    #[arg(long, value_name = "F", requires = "from")]
    image_guidance_scale: Option<f64>,

    /// Noise augmentation of the --from image before it is enlarged (upscalers), as a timestep
    #[arg(long, value_name = "N", requires = "from")]
    noise_level: Option<usize>,

    /// The image that a ControlNet follows: edges, depth, a pose
    #[arg(long, value_name = "IMAGE")]
    control: Option<PathBuf>,

    /// The factor of the ControlNet's residuals
    #[arg(long, value_name = "F", default_value_t = 1.0, requires = "control")]
    control_scale: f64,

    /// Steps of each stage of a cascade, in order, such as 25,25,7
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1000))]
    stage_steps: Vec<u16>,

    /// Guidance scale of each stage of a cascade, in order, such as 4,8,1
    #[arg(long, value_name = "F,F", value_delimiter = ',')]
    stage_guidance: Vec<f64>,

    /// A tiny decoder (TAESD's form) for the images of --save-steps: a folder with a model.onnx.
    /// Default: `vae_tiny_decoder` in the model's folder, or else a linear map of latents to colors
    #[arg(long, value_name = "DIR", requires = "save_steps")]
    preview_decoder: Option<PathBuf>,
}

impl PipelineOptions {
    /// What is requested of each stage.
    fn stages(&self) -> Vec<StageRequest> {
        let stage = |i: usize| StageRequest {
            steps: self.stage_steps.get(i).map(|steps| usize::from(*steps)),
            guidance_scale: self.stage_guidance.get(i).copied(),
        };
        (0..self.stage_steps.len().max(self.stage_guidance.len())).map(stage).collect()
    }

    /// An option that only a pipeline takes.
    pub(crate) fn given(&self) -> Option<&'static str> {
        first_given(&[
            (self.mask.is_some(), "--mask"),
            (self.image_guidance_scale.is_some(), "--image-guidance-scale"),
            (self.noise_level.is_some(), "--noise-level"),
            (self.control.is_some(), "--control"),
            (!self.stage_steps.is_empty(), "--stage-steps"),
            (!self.stage_guidance.is_empty(), "--stage-guidance"),
            (self.preview_decoder.is_some(), "--preview-decoder"),
        ])
    }
}

/// What was sampled, with the files of its steps that wait for the decoded image.
struct Sampled {
    seed: u64,
    sample: Array4<f32>,
    report: TextToImageReport,
    waiting: Vec<Waiting>,
}

impl Arguments {
    /// Rejects options that a pipeline does not take.
    fn refuse_others(&self) -> eddy::Result<()> {
        let given = [(self.classifier.is_some(), "--classifier")];
        match first_given(&given) {
            None => Ok(()),
            Some(name) => Err(eddy::Error::usage(format!(
                "{} is a folder in the diffusers layout with text encoders, which takes no {name}; \
                 leave it out",
                self.model
            ))),
        }
    }

    /// Generates with a pipeline of several networks.
    pub(crate) fn run_staged(self) -> anyhow::Result<()> {
        self.refuse_others()?;
        let Self { prompts, pipeline: own, sampling, run, .. } = &self;
        let (memory, console) = (&run.memory, run.console);
        let count = self.count as usize;
        let sink = Sink::choose(&self.output, count, self.grid)?;
        let also_read: Vec<PathBuf> = self.files().map(|(_, path)| path.to_owned()).collect();
        refuse_replacing(&also_read, &self.output)?;
        let read = |path: &Option<PathBuf>| -> eddy::Result<Option<Image>> {
            let image =
                path.as_ref().map(|path| still::read(path, &memory.limits())).transpose()?;
            Ok(image.map(Image::upright))
        };
        let [start, mask, control] = [read(&self.from)?, read(&own.mask)?, read(&own.control)?];
        let recorded = self.noise.values()?;
        if recorded.is_some() && count > 1 {
            let problem = "noise from files is for one image; leave --count out";
            return Err(eddy::Error::usage(problem).into());
        }
        let opened = self.run.open()?;
        let retention = if count > 1 { Retention::ExceptTextEncoders } else { Retention::None };
        let mut pipeline = open_pipeline(&opened, &self.model, run, retention)?;
        let takes_text = !pipeline.spec().text.is_empty();
        let prompt = match &prompts.prompt {
            Some(prompt) => prompt.as_str(),
            None if !takes_text => "",
            None => {
                return Err(eddy::Error::usage(format!(
                    "{} generates images of a text; give it with --prompt",
                    self.model
                ))
                .into());
            }
        };
        let options = sampling.options(memory);
        let request = TextToImageRequest {
            negative_class: self.negative_class,
            size: self.size.map(|size| [size.width, size.height]),
            steps: options.steps,
            sampler: options.sampler,
            eta: options.eta,
            image_guidance_scale: own.image_guidance_scale,
            start: start.as_ref(),
            strength: self.strength,
            mask: mask.as_ref(),
            noise_level: own.noise_level,
            control: control.as_ref(),
            control_scale: Some(own.control_scale),
            stages: own.stages(),
            ..prompts.request(prompt, &self.guidance)
        };
        let decoder = own.preview_decoder.as_deref();
        let steps = sampling.save_steps.as_deref();
        let mut steps =
            steps.map(|folder| PreviewWriter::new(&mut pipeline, folder, decoder)).transpose()?;
        let bar = console.bar(count);
        let begun = Instant::now();
        // Where the networks do not fit together, each is loaded once for all images.
        let together = if pipeline.fits_memory() { 1 } else { count };
        let (mut images, mut tensors): (Vec<Image>, Vec<Array4<f32>>) = (Vec::new(), Vec::new());
        let mut report = None;
        for first in (0..count).step_by(together) {
            let mut samples = Vec::new();
            for i in first..(first + together).min(count) {
                bar.begin(i, &self.model);
                interrupt::check()?;
                let mut draws = match &recorded {
                    Some(values) => NoiseSequence::recorded(values.clone()),
                    None => NoiseSequence::from_seed(self.seed(i)),
                };
                let request = TextToImageRequest { class: self.class(i), ..request.clone() };
                samples.push(self.sample(
                    &mut pipeline,
                    &request,
                    i,
                    &mut draws,
                    &mut steps,
                    &mut |progress| {
                        bar.advance(i, progress);
                        interrupt::poll()
                    },
                )?);
            }
            if report.is_none() {
                report = samples.first().map(|sampled| sampled.report.clone());
                report.iter().for_each(|report| prompts.report(report, console));
            }
            for Sampled { seed, sample, report, waiting } in samples {
                let kept = (!waiting.is_empty()).then(|| sample.clone());
                let decoded = pipeline.decode(sample, &mut |_| interrupt::poll())?;
                if let (Some(steps), Some(latent)) = (&mut steps, kept) {
                    steps.decoded(waiting, &latent, &decoded)?;
                }
                if let Sink::Tensor(_) = &sink {
                    tensors.push(decoded);
                    continue;
                }
                for mut image in as_images(&decoded, Range::new(0.0, 1.0)?)? {
                    let class = self.class(seed.wrapping_sub(sampling.seed) as usize);
                    let request = TextToImageRequest { class, ..request.clone() };
                    image.metadata.note = Some(self.parameters(&request, &report, seed));
                    sink.put(image, seed, &mut images)?;
                }
            }
        }
        sink.finish(&images, &tensors)?;
        let Some(report) = report else { return Ok(()) };
        let seconds = begun.elapsed().as_secs_f64();
        let [width, height] = report.size;
        let (sampler, evaluations) = (report.sampler, report.evaluations);
        let what = if count == 1 { "one image".to_owned() } else { format!("{count} images") };
        let line = format!(
            "{}: {what} of {width}x{height} by {}, {sampler}, {evaluations} evaluations each, {seconds:.2} s",
            self.output.display(),
            self.model
        );
        let record = json!({
            "output": self.output.to_string_lossy(), "count": count, "width": width,
            "height": height, "model": self.model, "sampler": sampler,
            "evaluations": evaluations, "seed": sampling.seed, "seconds": seconds,
            "guidance_scale": report.guidance_scale, "truncated": report.truncated.iter().map(|(end, _)| end).collect::<Vec<_>>(),
            "networks_loaded": pipeline.loads(), "device": opened.device().to_string(),
        });
        bar.report(line, &record)
    }

    /// The seed of an image.
    fn seed(&self, i: usize) -> u64 {
        self.sampling.seed.wrapping_add(i as u64)
    }

    /// Samples an image, and saves its steps if that is requested.
    fn sample(
        &self,
        pipeline: &mut TextToImage,
        request: &TextToImageRequest<'_>,
        i: usize,
        draws: &mut NoiseSequence,
        steps: &mut Option<PreviewWriter>,
        watch: &mut dyn FnMut(eddy::diffusion::Progress) -> std::ops::ControlFlow<()>,
    ) -> eddy::Result<Sampled> {
        let seed = self.seed(i);
        let (sample, report) = match steps {
            None => pipeline.sample(request, draws, watch)?,
            Some(steps) => {
                let name = (self.count > 1).then(|| format!("{seed:06}"));
                let mut observer = steps.of_image(name.as_deref())?;
                let observer: &mut dyn StepObserver = &mut observer;
                pipeline.sample_observed(request, draws, Some(observer), watch)?
            }
        };
        let waiting = steps.as_mut().map(PreviewWriter::waiting).unwrap_or_default();
        Ok(Sampled { seed, sample, report, waiting })
    }

    /// The files that the image depends on, with their options.
    fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let PipelineOptions { mask, control, .. } = &self.pipeline;
        let images = [("from", &self.from), ("mask", mask), ("control", control)];
        let images = images.into_iter().filter_map(|(key, path)| Some((key, path.as_deref()?)));
        images.chain(self.noise.named_files())
    }

    /// The parameters from which the image can be generated again.
    fn parameters(
        &self,
        request: &TextToImageRequest<'_>,
        report: &TextToImageReport,
        seed: u64,
    ) -> String {
        let mut note = parameters(&self.model, &self.run, request, report, seed, self.files());
        let PipelineOptions { stage_steps, stage_guidance, .. } = &self.pipeline;
        if !stage_steps.is_empty() {
            note["stage_steps"] = json!(stage_steps);
        }
        if !stage_guidance.is_empty() {
            note["stage_guidance"] = json!(stage_guidance);
        }
        note.to_string()
    }
}
