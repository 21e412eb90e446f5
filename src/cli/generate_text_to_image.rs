//! `eddy generate` with a pipeline of several networks: text to image, and from image to image.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use eddy::media::source::refuse_replacing;
use eddy::media::{Image, still};
use eddy::network::Device;
use eddy::stages::{
    NoiseSequence, Retention, StageRequest, StepObserver, TextToImage, TextToImageReport,
    TextToImageRequest,
};
use eddy::task::as_images;
use eddy::tensor::Range;
use ndarray::Array4;
use serde_json::json;

use super::console::Bar;
use super::generate::{Arguments, Sink};
use super::interrupt;
use super::io_args::images;
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

    /// The factor of the ControlNet's residuals. Default: that of the pipeline's class, usually 1
    #[arg(long, value_name = "F", requires = "control")]
    control_scale: Option<f64>,

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
    /// The files and folders that are read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let named = [&self.mask, &self.control, &self.preview_decoder];
        named.into_iter().filter_map(|path| path.as_deref())
    }

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

/// A run of a pipeline for all requested images.
struct StagedRun<'a> {
    arguments: &'a Arguments,
    pipeline: TextToImage,
    /// The request, except for the class, which differs between images.
    request: TextToImageRequest<'a>,
    /// Noise from files, in place of the seed's.
    recorded: Option<Vec<f32>>,
    steps: Option<PreviewWriter>,
    bar: Bar,
}

impl<'a> StagedRun<'a> {
    /// Samples image `i`, and saves its steps if that is requested.
    fn sample(&mut self, i: usize) -> eddy::Result<Sampled> {
        let Self { arguments, pipeline, request, recorded, steps, bar } = self;
        bar.begin(i, &arguments.model);
        interrupt::check()?;
        let seed = arguments.seed(i);
        let mut draws = match recorded {
            Some(values) => NoiseSequence::recorded(values.clone()),
            None => NoiseSequence::from_seed(seed),
        };
        let request = TextToImageRequest { class: arguments.class(i), ..request.clone() };
        let mut watch = |progress| {
            bar.advance(i, progress);
            interrupt::poll()
        };
        let (sample, report) = match steps {
            None => pipeline.sample(&request, &mut draws, &mut watch)?,
            Some(steps) => {
                let name = (arguments.count > 1).then(|| format!("{seed:06}"));
                let mut observer = steps.of_image(name.as_deref())?;
                let observer: &mut dyn StepObserver = &mut observer;
                pipeline.sample_observed(&request, &mut draws, Some(observer), &mut watch)?
            }
        };
        let waiting = steps.as_mut().map(PreviewWriter::waiting).unwrap_or_default();
        Ok(Sampled { seed, sample, report, waiting })
    }

    /// Decodes what was sampled, and writes the steps that waited for it.
    fn decode(&mut self, sampled: Sampled) -> eddy::Result<Array4<f32>> {
        let Sampled { sample, waiting, .. } = sampled;
        let latent = (!waiting.is_empty()).then(|| sample.clone());
        let decoded = self.pipeline.decode(sample, &mut |_| interrupt::poll())?;
        if let (Some(steps), Some(latent)) = (&mut self.steps, latent) {
            steps.decoded(waiting, &latent, &decoded)?;
        }
        Ok(decoded)
    }

    /// Generates all images into `sink`, and returns the report of the first.
    fn generate(&mut self, sink: &Sink) -> eddy::Result<Option<TextToImageReport>> {
        let count = self.arguments.count as usize;
        // Where the networks do not fit together, each is loaded once for all images.
        let together = if self.pipeline.fits_memory() { 1 } else { count };
        let (mut images, mut tensors) = (Vec::new(), Vec::new());
        let mut report: Option<TextToImageReport> = None;
        for first in (0..count).step_by(together) {
            let indices = first..(first + together).min(count);
            let samples =
                indices.clone().map(|i| self.sample(i)).collect::<eddy::Result<Vec<_>>>()?;
            let arguments = self.arguments;
            for (i, sampled) in indices.zip(samples) {
                let report = report.get_or_insert_with(|| {
                    let Arguments { prompts, model, run, .. } = arguments;
                    prompts.report(model, &sampled.report, run.console);
                    sampled.report.clone()
                });
                let seed = sampled.seed;
                let decoded = self.decode(sampled)?;
                if let Sink::Tensor(_) = sink {
                    tensors.push(decoded);
                    continue;
                }
                for mut image in as_images(&decoded, Range::UNIT)? {
                    let class = self.arguments.class(i);
                    let request = TextToImageRequest { class, ..self.request.clone() };
                    image.metadata.note = Some(self.arguments.parameters(&request, report, seed));
                    sink.put(image, seed, &mut images)?;
                }
            }
        }
        sink.finish(&images, &tensors)?;
        Ok(report)
    }
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
        let sink = Sink::choose(&self.output, self.count as usize, self.grid)?;
        let also_read: Vec<PathBuf> = self.files().map(|(_, path)| path.to_owned()).collect();
        refuse_replacing(&also_read, &self.output)?;
        let PipelineOptions { mask, control, preview_decoder, .. } = &self.pipeline;
        let [start, mask, control] =
            [self.read(&self.from)?, self.read(mask)?, self.read(control)?];
        let images = [start.as_ref(), mask.as_ref(), control.as_ref()];
        let recorded = self.noise.values()?;
        if recorded.is_some() && self.count > 1 {
            let problem = "noise from files is for one image; leave --count out";
            return Err(eddy::Error::usage(problem).into());
        }
        let opened = self.run.open()?;
        let retention =
            if self.count > 1 { Retention::ExceptTextEncoders } else { Retention::None };
        let mut pipeline = open_pipeline(&opened, &self.model, &self.run, retention)?;
        let request = self.request(!pipeline.spec().text.is_empty(), images)?;
        let folder = self.sampling.save_steps.as_deref();
        let writer = |folder| PreviewWriter::new(&mut pipeline, folder, preview_decoder.as_deref());
        let steps = folder.map(writer).transpose()?;
        let bar = self.run.console.bar(self.count as usize);
        let mut run = StagedRun { arguments: &self, pipeline, request, recorded, steps, bar };
        let begun = Instant::now();
        let Some(report) = run.generate(&sink)? else { return Ok(()) };
        let loads = run.pipeline.loads();
        self.report(&run.bar, &report, begun.elapsed().as_secs_f64(), loads, opened.device())
    }

    /// The image in that file, as displayed.
    fn read(&self, path: &Option<PathBuf>) -> eddy::Result<Option<Image>> {
        let limits = self.run.memory.limits();
        let image = path.as_ref().map(|path| still::read(path, &limits)).transpose()?;
        Ok(image.map(Image::upright))
    }

    /// The request for all images, with the image to start from, its mask and the control image.
    fn request<'a>(
        &self,
        takes_text: bool,
        [start, mask, control]: [Option<&'a Image>; 3],
    ) -> eddy::Result<TextToImageRequest<'a>> {
        let prompt = match &self.prompts.prompt {
            Some(prompt) => prompt.as_str(),
            None if !takes_text => "",
            None => {
                let model = &self.model;
                let problem = format!("{model} generates images of a text; give it with --prompt");
                return Err(eddy::Error::usage(problem));
            }
        };
        let options = self.sampling.options(&self.run.memory);
        Ok(TextToImageRequest {
            negative_class: self.negative_class,
            size: self.size.map(|size| [size.width, size.height]),
            steps: options.steps,
            sampler: options.sampler,
            eta: options.eta,
            image_guidance_scale: self.pipeline.image_guidance_scale,
            start,
            strength: self.strength,
            mask,
            noise_level: self.pipeline.noise_level,
            control,
            control_scale: self.pipeline.control_scale,
            stages: self.pipeline.stages(),
            ..self.prompts.request(prompt, &self.guidance)
        })
    }

    /// Reports the finished run, as text and as JSON.
    fn report(
        &self,
        bar: &Bar,
        report: &TextToImageReport,
        seconds: f64,
        networks_loaded: usize,
        device: Device,
    ) -> anyhow::Result<()> {
        let [width, height] = report.size;
        let (sampler, evaluations, count) = (report.sampler, report.evaluations, self.count);
        let [what, taken] = images(count as usize, evaluations);
        let line = format!(
            "{}: {what} of {width}x{height} by {}, {sampler}, {taken}, {seconds:.2} s",
            self.output.display(),
            self.model
        );
        let truncated: Vec<_> = report.truncated.iter().map(|(end, _)| end).collect();
        let record = json!({
            "output": self.output.to_string_lossy(), "count": count, "width": width,
            "height": height, "model": self.model, "sampler": sampler,
            "evaluations": evaluations, "seed": self.sampling.seed, "seconds": seconds,
            "guidance_scale": report.guidance_scale, "truncated": truncated,
            "unknown_words": report.unknown,
            "networks_loaded": networks_loaded, "device": device.to_string(),
        });
        bar.report(line, &record)
    }

    /// The seed of an image.
    fn seed(&self, i: usize) -> u64 {
        self.sampling.seed.wrapping_add(i as u64)
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
