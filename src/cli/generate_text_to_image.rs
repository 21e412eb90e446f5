//! `eddy generate` with a pipeline of several networks: text to image, and from image to image.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use eddy::media::source::refuse_replacing;
use eddy::media::{Image, still};
use eddy::stages::{NoiseDraws, StageRequest, TextToImage, TextToImageReport, TextToImageRequest};
use eddy::task::as_images;
use eddy::tensor::Range;
use ndarray::Array4;
use serde_json::json;

use super::generate::{Arguments, Sink};
use super::interrupt;

/// What a pipeline with text encoders takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Text to image (folders in the diffusers layout)")]
pub(crate) struct PromptOptions {
    /// The text prompt; `(word:1.3)` gives a word more weight
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,

    /// The negative prompt
    #[arg(long, value_name = "TEXT", requires = "prompt", allow_hyphen_values = true)]
    negative_prompt: Option<String>,

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

    /// How many of the text encoder's last layers are left out
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=12))]
    clip_skip: u8,
}

/// The beginning of a text on one line.
fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        None => line,
        Some((at, _)) => format!("{}...", &line[..at]),
    }
}

impl PromptOptions {
    /// What is asked of each stage.
    fn stages(&self) -> Vec<StageRequest> {
        let stage = |i: usize| StageRequest {
            steps: self.stage_steps.get(i).map(|steps| usize::from(*steps)),
            guidance_scale: self.stage_guidance.get(i).copied(),
        };
        (0..self.stage_steps.len().max(self.stage_guidance.len())).map(stage).collect()
    }

    /// An option that only a pipeline takes.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.prompt.is_some(), "--prompt"),
            (self.mask.is_some(), "--mask"),
            (self.image_guidance_scale.is_some(), "--image-guidance-scale"),
            (self.noise_level.is_some(), "--noise-level"),
            (self.control.is_some(), "--control"),
            (self.clip_skip > 0, "--clip-skip"),
            (!self.stage_steps.is_empty(), "--stage-steps"),
            (!self.stage_guidance.is_empty(), "--stage-guidance"),
        ];
        given.into_iter().find(|(is_given, _)| *is_given).map(|(_, name)| name)
    }
}

impl Arguments {
    /// Refuses options that a pipeline does not take.
    fn refuse_others(&self) -> eddy::Result<()> {
        let given = [
            (!self.class.is_empty(), "--class"),
            (self.classifier.is_some(), "--classifier"),
            (self.guidance_interval.is_some(), "--guidance-interval"),
            (self.sampling.save_steps.is_some(), "--save-steps"),
            (self.run.precision.asked().is_some(), "--precision"),
        ];
        match given.into_iter().find(|(is_given, _)| *is_given) {
            None => Ok(()),
            Some((_, name)) => Err(eddy::Error::usage(format!(
                "{} is a folder in the diffusers layout with text encoders, which takes no {name}; \
                 leave it out",
                self.model
            ))),
        }
    }

    /// Generates with a pipeline of several networks.
    pub(crate) fn run_staged(self) -> anyhow::Result<()> {
        self.refuse_others()?;
        let Self { prompts, sampling, run, .. } = &self;
        let (memory, console) = (&run.memory, run.console);
        let Some(prompt) = prompts.prompt.clone() else {
            return Err(eddy::Error::usage(format!(
                "{} generates images of a text; give it with --prompt",
                self.model
            ))
            .into());
        };
        let count = self.count as usize;
        let sink = Sink::choose(&self.output, count, self.grid)?;
        let images = [&self.from, &prompts.mask, &prompts.control];
        let also_read: Vec<PathBuf> =
            images.into_iter().flatten().cloned().chain(self.noise.files()).collect();
        refuse_replacing(&also_read, &self.output)?;
        let read = |path: &Option<PathBuf>| -> eddy::Result<Option<Image>> {
            let image =
                path.as_ref().map(|path| still::read(path, &memory.limits())).transpose()?;
            Ok(image.map(Image::upright))
        };
        let [start, mask, control] =
            [read(&self.from)?, read(&prompts.mask)?, read(&prompts.control)?];
        let recorded = self.noise.values()?;
        if recorded.is_some() && count > 1 {
            let problem = "noise from files is for one image; leave --count out";
            return Err(eddy::Error::usage(problem).into());
        }
        let opened = self.run.open()?;
        let tiles = (memory.tile(), memory.budget());
        let path = std::path::Path::new(&self.model);
        let mut pipeline = opened.load(&self.model, |runtime, options| {
            TextToImage::open(runtime, path, options, tiles)
        })?;
        let options = sampling.options(memory);
        let request = TextToImageRequest {
            prompt,
            negative_prompt: prompts.negative_prompt.clone(),
            size: self.size.map(|size| [size.width, size.height]),
            steps: options.steps,
            sampler: options.sampler,
            eta: options.eta,
            guidance_scale: self.guidance_scale,
            guidance_rescale: self.guidance_rescale,
            image_guidance_scale: prompts.image_guidance_scale,
            clip_skip: prompts.clip_skip.into(),
            start: start.as_ref(),
            strength: self.strength,
            mask: mask.as_ref(),
            noise_level: prompts.noise_level,
            control: control.as_ref(),
            control_scale: Some(prompts.control_scale),
            stages: prompts.stages(),
        };
        let bar = console.bar(count);
        let begun = Instant::now();
        let mut samples = Vec::new();
        for i in 0..count {
            bar.begin(i, &self.model);
            interrupt::check()?;
            let mut draws = match &recorded {
                Some(values) => NoiseDraws::recorded(values.clone()),
                None => NoiseDraws::of_seed(sampling.seed.wrapping_add(i as u64)),
            };
            samples.push(pipeline.sample(&request, &mut draws, &mut |progress| {
                bar.advance(i, progress);
                interrupt::poll()
            })?);
        }
        let report = samples.first().map(|(_, report)| report.clone());
        if let Some(report) = &report {
            for (end, room) in &report.truncated {
                let end = shortened(end);
                console.note_unless_json(format!(
                    "the prompt is longer than {room} tokens; this end of it has no effect: {end}"
                ));
            }
        }
        if prompts.negative_prompt.is_some()
            && report.as_ref().is_some_and(|report| !report.uses_negative_prompt)
        {
            console.note_unless_json(
                "the negative prompt has no effect: this network is not guided by one, or the \
                 guidance scale is 1 or less",
            );
        }
        // By now no other network is held, so all images are decoded together.
        let (mut images, mut tensors): (Vec<Image>, Vec<Array4<f32>>) = (Vec::new(), Vec::new());
        for (i, (sample, report)) in samples.into_iter().enumerate() {
            let decoded = pipeline.decode(sample, &mut |_| interrupt::poll())?;
            if let Sink::Tensor(_) = &sink {
                tensors.push(decoded);
                continue;
            }
            let seed = sampling.seed.wrapping_add(i as u64);
            for mut image in as_images(&decoded, Range::new(0.0, 1.0)?)? {
                image.metadata.note = Some(self.parameters(&request, &report, seed));
                sink.put(image, seed, &mut images)?;
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
            "device": opened.device().to_string(),
        });
        bar.report(line, &record)
    }

    /// The parameters from which the image can be generated again.
    fn parameters(
        &self,
        request: &TextToImageRequest<'_>,
        report: &TextToImageReport,
        seed: u64,
    ) -> String {
        let [width, height] = report.size;
        let mut note = json!({
            "eddy": env!("CARGO_PKG_VERSION"), "model": self.model, "seed": seed,
            "sampler": report.sampler, "evaluations": report.evaluations, "width": width,
            "height": height, "prompt": request.prompt, "guidance_scale": report.guidance_scale,
        });
        let mut add = |key: &str, value: serde_json::Value| {
            if !value.is_null() {
                note[key] = value;
            }
        };
        let path = |path: &Option<PathBuf>| json!(path.as_ref().map(|path| path.to_string_lossy()));
        add("negative_prompt", json!(request.negative_prompt));
        add("steps", json!(request.steps));
        add("eta", json!(request.eta));
        if request.guidance_rescale > 0.0 {
            add("guidance_rescale", json!(request.guidance_rescale));
        }
        add("image_guidance_scale", json!(request.image_guidance_scale));
        add("noise_level", json!(request.noise_level));
        if !self.prompts.stage_steps.is_empty() {
            add("stage_steps", json!(self.prompts.stage_steps));
        }
        if !self.prompts.stage_guidance.is_empty() {
            add("stage_guidance", json!(self.prompts.stage_guidance));
        }
        if request.clip_skip > 0 {
            add("clip_skip", json!(request.clip_skip));
        }
        add("from", path(&self.from));
        add("strength", json!(request.strength));
        add("mask", path(&self.prompts.mask));
        add("control", path(&self.prompts.control));
        if self.prompts.control.is_some() {
            add("control_scale", json!(request.control_scale));
        }
        note.to_string()
    }
}
