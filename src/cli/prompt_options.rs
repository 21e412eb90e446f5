//! Options of `eddy generate` and `eddy upscale` for pipelines with text encoders, and the record
//! of a run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use eddy::digest::sha256;
use eddy::model::ModelFolder;
use eddy::network::SessionOptions;
use eddy::stages::{
    Retention, TextToImage, TextToImageOptions, TextToImageReport, TextToImageRequest,
};
use serde_json::{Value, json};

use super::console::Console;
use super::options::{Opened, pair};
use super::run_args::RunArgs;

/// Prompts, for a pipeline with text encoders.
#[derive(Debug, Args)]
#[command(next_help_heading = "Text to image (folders in the diffusers layout)")]
pub(crate) struct PromptOptions {
    /// The text prompt; `(word:1.3)` gives a word more weight
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,

    /// The negative prompt
    #[arg(long, value_name = "TEXT", requires = "prompt", allow_hyphen_values = true)]
    negative_prompt: Option<String>,

    /// Skip this many of the text encoder's last layers
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=12))]
    clip_skip: u8,

    /// Leave out the instruction that the pipeline puts before a prompt (Sana)
    #[arg(long)]
    no_instruction: bool,
}

/// The guidance of a conditional network.
#[derive(Debug, Args)]
#[command(next_help_heading = "Guidance")]
pub(crate) struct GuidanceOptions {
    /// Guidance scale: 1 is the conditional model, a larger scale has more fidelity and less
    /// diversity; with a classifier the inverse of its temperature. Default: the model's
    #[arg(long, value_name = "F")]
    pub(crate) guidance_scale: Option<f64>,

    /// Guidance rescale, from 0 to 1: how much of the contrast that guidance adds is removed
    #[arg(long, value_name = "F", default_value_t = 0.0)]
    pub(crate) guidance_rescale: f64,

    /// Guidance interval: guide only between these sigmas (noise to signal), such as 0.3,5
    #[arg(long, value_name = "LOW,HIGH", value_parser = interval)]
    pub(crate) guidance_interval: Option<[f64; 2]>,
}

fn interval(text: &str) -> Result<[f64; 2], &'static str> {
    let parsed = pair(text).ok();
    parsed
        .filter(|[low, high]| 0.0 <= *low && low < high)
        .ok_or("expected two sigmas, such as 0.3,5")
}

impl GuidanceOptions {
    pub(crate) fn check(&self) -> eddy::Result<()> {
        if let Some(scale) = self.guidance_scale
            && !(scale.is_finite() && scale >= 0.0)
        {
            return Err(eddy::Error::usage(format!(
                "the guidance scale is {scale}; expected a number of 0 or more"
            )));
        }
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            return Err(eddy::Error::usage("--guidance-rescale must lie between 0 and 1"));
        }
        Ok(())
    }

    /// An option that is given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        first_given(&[
            (self.guidance_scale.is_some(), "--guidance-scale"),
            (self.guidance_rescale > 0.0, "--guidance-rescale"),
            (self.guidance_interval.is_some(), "--guidance-interval"),
        ])
    }
}

/// The name of the first option that is given.
pub(crate) fn first_given(options: &[(bool, &'static str)]) -> Option<&'static str> {
    options.iter().find(|(is_given, _)| *is_given).map(|(_, name)| *name)
}

impl PromptOptions {
    /// An option that only a pipeline takes.
    pub(crate) fn given(&self) -> Option<&'static str> {
        first_given(&[
            (self.prompt.is_some(), "--prompt"),
            (self.clip_skip > 0, "--clip-skip"),
            (self.no_instruction, "--no-instruction"),
        ])
    }

    /// A request for this prompt.
    pub(crate) fn request(
        &self,
        prompt: &str,
        guidance: &GuidanceOptions,
    ) -> TextToImageRequest<'static> {
        TextToImageRequest {
            prompt: prompt.to_owned(),
            negative_prompt: self.negative_prompt.clone(),
            clip_skip: self.clip_skip.into(),
            without_instruction: self.no_instruction,
            guidance_scale: guidance.guidance_scale,
            guidance_rescale: guidance.guidance_rescale,
            guidance_interval: guidance.guidance_interval,
            ..TextToImageRequest::default()
        }
    }

    /// Reports the parts of the prompts that had no effect, and how to load the model faster.
    pub(crate) fn report(&self, model: &str, report: &TextToImageReport, console: Console) {
        if report.unprepared >= LONG_LOAD {
            console.note_unless_json(format!(
                "its networks took {:.0} s to load; run `eddy prepare {model}` once, and they load \
                 in a fraction of that from then on",
                report.unprepared.as_secs_f64()
            ));
        }
        for (end, room) in &report.truncated {
            let end = shortened(end);
            console.note_unless_json(format!(
                "the prompt is longer than {room} tokens; this end of it has no effect: {end}"
            ));
        }
        if !report.unknown.is_empty() {
            let words: Vec<String> =
                report.unknown.iter().map(|word| format!("\"{}\"", shortened(word))).collect();
            console.note_unless_json(format!(
                "{model} was trained without these words, which mean nothing to it: {}",
                words.join(", ")
            ));
        }
        if self.negative_prompt.is_some() && !report.uses_negative_prompt {
            console.note_unless_json(
                "the negative prompt has no effect: this network is not guided by one, the \
                 guidance scale is 1 or less, or no step lies within the guidance interval",
            );
        }
    }
}

/// The minimum time of loading for which `eddy prepare` is recommended.
const LONG_LOAD: Duration = Duration::from_secs(5);

/// Opens the pipeline in the folder `model`. `retention` says which networks stay loaded.
pub(crate) fn open_pipeline(
    opened: &Opened,
    model: &str,
    run: &RunArgs,
    retention: Retention,
) -> eddy::Result<TextToImage> {
    opened.load(model, |runtime, session: SessionOptions| {
        let options = TextToImageOptions {
            session,
            precision: run.precision.requested().unwrap_or_default(),
            tile: run.memory.tile(),
            max_memory: run.memory.requested(),
            retention,
        };
        TextToImage::open(runtime, &ModelFolder::find(model), options)
    })
}

/// The beginning of a text on one line.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        None => line,
        Some((at, _)) => format!("{}...", &line[..at]),
    }
}

/// The parameters from which an image can be generated again, for its PNG. Files are named with the
/// SHA-256 of what they hold.
pub(crate) fn parameters<'a>(
    model: &str,
    run: &RunArgs,
    request: &TextToImageRequest<'_>,
    report: &TextToImageReport,
    seed: u64,
    files: impl IntoIterator<Item = (&'static str, &'a Path)>,
) -> Value {
    let [width, height] = report.size;
    let mut note = json!({
        "eddy": env!("CARGO_PKG_VERSION"), "model": model, "seed": seed,
        "sampler": report.sampler, "steps": report.steps, "evaluations": report.evaluations,
        "width": width, "height": height, "guidance_scale": report.guidance_scale,
    });
    let mut add = |key: &str, value: Value| {
        if !value.is_null() {
            note[key] = value;
        }
    };
    // A pipeline with classes has no prompt.
    add("prompt", json!(request.class.is_none().then_some(&request.prompt)));
    let above_0 = |value: f64| (value > 0.0).then_some(value);
    add("negative_prompt", json!(request.negative_prompt));
    add("class", json!(request.class));
    add("negative_class", json!(request.negative_class));
    add("eta", json!(request.eta));
    add("guidance_rescale", json!(above_0(request.guidance_rescale)));
    add("guidance_interval", json!(request.guidance_interval));
    add("image_guidance_scale", json!(report.image_guidance_scale));
    add("noise_level", json!(report.noise_level));
    add("clip_skip", json!((request.clip_skip > 0).then_some(request.clip_skip)));
    add("no_instruction", json!(request.without_instruction.then_some(true)));
    add("strength", json!(report.strength));
    add("control_scale", json!(report.control_scale));
    add("precision", json!(run.precision.requested().map(|precision| precision.name())));
    run.memory.record(&mut add);
    for (key, path) in files {
        add(key, json!(path.to_string_lossy()));
        // A file that is gone by now was read before.
        let hash = fs::read(path).ok().map(|bytes| sha256(&bytes));
        add(&format!("{key}_sha256"), json!(hash));
    }
    note
}
