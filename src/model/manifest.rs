//! `model.toml`: what a package says of its network. It says everything, so that nothing has to be guessed.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::precision::Precision;
use crate::diffusion::{Prediction, Schedule, SigmaSchedule, config};
use crate::error::{Error, Result};
use crate::tile::Locality;

/// A network trained down to no noise at all is sampled down to this part of its largest sigma, since a step to nothing
/// needs a level to start from.
const LOWEST_PART: f64 = 1e-3;

/// How many channels there may be.
pub(super) const CHANNELS: RangeInclusive<usize> = 1..=256;
/// Of `scale` and `multiple_of`, each and both.
const FACTORS: RangeInclusive<usize> = 1..=1024;
const SIDES: RangeInclusive<usize> = 1..=65_535;
const DISTANCES: RangeInclusive<usize> = 0..=65_535;
const BYTES: RangeInclusive<usize> = 1..=1 << 30;
const STEPS: RangeInclusive<usize> = 1..=1000;
/// How many classes there may be.
pub(super) const CLASSES: RangeInclusive<usize> = 1..=1_000_000;
/// What latents may be divided by.
pub(super) const SCALING_FACTORS: RangeInclusive<f32> = 1e-6..=1e6;
/// No sigma, no value of an image and no tolerance is larger.
const LARGEST: f64 = 1e6;

/// The manifest of a model package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The name by which a bundled model is asked for.
    pub name: String,
    /// The package's own version.
    pub version: String,
    /// What the network is for.
    pub task: Task,
    /// What the network's output means.
    pub prediction: Prediction,
    /// Channels of a sample: an image's colours, or a latent's where there is a decoder.
    pub channels: usize,
    /// How the channels hold an image.
    #[serde(default)]
    pub layout: Layout,
    /// The network's values for black and white; the decoder's, where there is one.
    pub range: [f32; 2],
    /// Output pixels per input pixel, along each axis.
    #[serde(default = "one")]
    pub scale: usize,
    /// Width and height of an input are multiples of this; of the small image where the model enlarges, of the latent where
    /// there is a decoder.
    #[serde(default = "one")]
    pub multiple_of: usize,
    /// No output depends on an input further away than this many pixels, of the small image where the model enlarges;
    /// absent when the network is not local.
    pub receptive_field: Option<usize>,
    /// ONNX Runtime's working memory per input pixel, of the small image where the model enlarges, in bytes, as measured.
    pub bytes_per_pixel: Option<usize>,
    /// How many weights it has.
    pub parameters: Option<u64>,
    /// Under which terms it may be used.
    pub licence: String,
    /// What it is, in a line.
    pub description: String,
    /// How it was trained.
    #[serde(default)]
    pub training: String,
    /// The only width and height that it takes, where it is made for one.
    pub size: Option<[usize; 2]>,
    /// How many classes of images it knows, counted from 0.
    pub classes: Option<usize>,
    /// The class that stands for none of them, where it was trained with one.
    pub null_class: Option<usize>,
    /// The noise levels that it was trained for, in its own units.
    pub sigma: Option<SigmaRange>,
    /// The training schedule of a network that is told a timestep, by the keys of diffusers' `scheduler_config.json`.
    pub schedule: Option<toml::Table>,
    /// What makes images of latents, where the network works on those.
    pub decoder: Option<DecoderSpec>,
    /// What the graph calls its inputs.
    pub inputs: InputNames,
    /// What the graph calls its outputs.
    pub outputs: OutputNames,
    /// What a command uses when nothing else is asked for.
    #[serde(default)]
    pub defaults: Defaults,
    /// The files, by precision: `f32`, `f16`, `int8`.
    pub files: BTreeMap<Precision, ModelFile>,
    /// A recorded input and output, for `eddy check`.
    pub check: Option<Check>,
}

fn one() -> usize {
    1
}

/// How the channels of a network's sample hold an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One channel a colour, at the image's own size: grey, or red, green and blue.
    #[default]
    Full,
    /// Six channels at half the width and height, as 4:2:0 video has its planes: luma of the four pixels of 2x2 (row by row),
    /// blue-difference and red-difference chroma. Luma is 0 to 1, chroma is centred on 0.5. The map of sigma has two planes, for
    /// luma and for chroma.
    Yuv420,
}

impl Layout {
    /// Planes of the map of sigma.
    pub fn sigma_planes(self) -> usize {
        match self {
            Self::Full => 1,
            Self::Yuv420 => 2,
        }
    }

    /// Pixels of an image for one of the sample, along each axis.
    pub fn pixels(self) -> usize {
        match self {
            Self::Full => 1,
            Self::Yuv420 => 2,
        }
    }
}

/// What a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Removes noise of a known level.
    Denoise,
    /// Enlarges.
    Upscale,
    /// Draws images, or fills in what is missing.
    Generate,
    /// Leads a network that draws: the gradient of the logarithm of a class's probability.
    Classifier,
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Denoise => "denoise",
            Self::Upscale => "upscale",
            Self::Generate => "generate",
            Self::Classifier => "classifier",
        })
    }
}

/// A range of noise levels, as standard deviations in the network's units.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigmaRange {
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Whether some pixels may have the smallest and others any of these, as where something is missing of an image. One evaluation at
    /// the largest then gives the mean of what may be there.
    #[serde(default)]
    pub mixed: bool,
}

/// What the graph calls its inputs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputNames {
    /// The noisy sample, float `[B, C, H, W]`.
    pub sample: String,
    /// The map of sigma, float `[B, 1, H, W]`.
    pub sigma: Option<String>,
    /// The scalar that tells the noise level.
    pub timestep: Option<String>,
    /// The small image, float `[B, C, H / scale, W / scale]`. Under the name of the sample it stands behind that one's channels in one
    /// tensor, `[1, 2 C, H, W]`, enlarged bicubically where it is smaller (Saharia et al. 2021, SR3; Rombach et al. 2022).
    pub condition: Option<String>,
    /// The class of each sample, int64 `[B]`.
    pub class: Option<String>,
}

/// A second network, which makes an image of a latent: the decoder half of an autoencoder (Rombach et al. 2022, section 3.1).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderSpec {
    /// Its ONNX file inside the package.
    pub path: String,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// Colour channels of the image.
    pub channels: usize,
    /// Pixels of the image for one of the latent, along each axis.
    pub scale: usize,
    /// What latents are divided by before they are decoded (diffusers' name).
    #[serde(default = "unchanged")]
    pub scaling_factor: f32,
    /// What the graph calls the latent, float `[B, C, H / scale, W / scale]`.
    pub input: String,
    /// What the graph calls the image, float `[B, channels, H, W]`.
    pub output: String,
    /// No pixel depends on a value of the latent further away than this many pixels of the image; absent when it is not local.
    pub receptive_field: Option<usize>,
    /// ONNX Runtime's working memory per pixel of the image, in bytes, as measured.
    pub bytes_per_pixel: Option<usize>,
}

fn unchanged() -> f32 {
    1.0
}

/// What the graph calls its outputs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputNames {
    /// What the network predicts, float `[B, C, H, W]`; under this key or under the prediction's own name.
    #[serde(alias = "denoised", alias = "epsilon", alias = "v_prediction", alias = "score", alias = "gradient")]
    pub prediction: String,
    /// The logarithm of a class's probability, of a network that guides; not used.
    #[serde(default)]
    pub log_probability: Option<String>,
}

/// What a command uses when nothing else is asked for.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Steps of a plan.
    pub steps: usize,
    /// The sampler that draws.
    pub sampler: Option<String>,
    /// How strongly a class is asked for.
    pub guidance_scale: Option<f64>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { steps: 1, sampler: None, guidance_scale: None }
    }
}

/// An ONNX file of a package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Its path inside the package.
    pub path: String,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// The largest difference that passes `eddy check`, in the network's units; that of `[check]` when left out.
    pub tolerance: Option<f32>,
}

/// A recorded input and output, as `.npy` files inside the package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The sample, `[B, C, H, W]`.
    pub sample: String,
    /// The map of sigma, `[B, 1, H, W]`.
    pub sigma: Option<String>,
    /// The scalar that tells the noise level.
    pub timestep: Option<f64>,
    /// The class of all samples.
    pub class: Option<i64>,
    /// The small image, `[B, C, H / scale, W / scale]`.
    pub condition: Option<String>,
    /// The output that was recorded.
    #[serde(alias = "denoised", alias = "epsilon", alias = "v_prediction", alias = "score", alias = "gradient")]
    pub prediction: String,
    /// The largest difference that passes, in the network's units, for files that do not say their own.
    pub tolerance: f32,
}

impl Manifest {
    /// Reads a manifest and checks what its fields say of each other; `model` is what errors call the package.
    ///
    /// # Errors
    /// [`Error::Model`] when the text is no manifest, or contradicts itself.
    pub fn parse(text: &str, model: &str) -> Result<Self> {
        let manifest: Self =
            toml::from_str(text).map_err(|cause| Error::model_from(model, "its model.toml is not readable", cause))?;
        let broken = |problem: String| Err(Error::model(model, format!("its model.toml says {problem}")));
        if let Some(problem) = manifest.out_of_range() {
            return broken(problem);
        }
        if manifest.layout == Layout::Yuv420
            && (manifest.channels != 6 || manifest.task != Task::Denoise || manifest.range != [0.0, 1.0])
        {
            let (channels, task, [low, high]) = (manifest.channels, manifest.task, manifest.range);
            return broken(format!(
                "layout = \"yuv420\", channels = {channels}, task = \"{task}\", range = [{low:.1}, {high:.1}]; expected 6 \
                 channels, the task `denoise` and the range [0.0, 1.0]"
            ));
        }
        if !matches!(manifest.image_channels(), 1 | 3) {
            let of = if manifest.decoder.is_some() { "decoder.channels" } else { "channels" };
            return broken(format!("{of} = {}; expected 1 or 3", manifest.image_channels()));
        }
        if let Some(decoder) = &manifest.decoder {
            let scale = decoder.scale;
            if manifest.task == Task::Upscale && !manifest.scale.is_multiple_of(scale) {
                return broken(format!(
                    "scale = {}, decoder.scale = {scale}; expected a multiple of what the decoder enlarges",
                    manifest.scale
                ));
            }
            if !matches!(manifest.task, Task::Upscale | Task::Generate) {
                return broken(format!(
                    "task = \"{}\" and a [decoder]; expected one to draw or to enlarge",
                    manifest.task
                ));
            }
        }
        let [low, high] = manifest.range;
        if !(low.is_finite() && high.is_finite() && low < high) {
            return broken(format!("range = [{low}, {high}]; expected black's value below white's"));
        }
        if let Some(SigmaRange { min, max, .. }) = manifest.sigma
            && !(min >= 0.0 && min < max && max.is_finite())
        {
            return broken(format!("sigma = {{ min = {min}, max = {max} }}; expected 0 <= min < max"));
        }
        if manifest.files.is_empty() {
            return broken("no [files.f32], [files.f16] or [files.int8]; expected at least one".into());
        }
        let enlarges = manifest.task == Task::Upscale;
        if enlarges != (manifest.scale > 1) || enlarges != manifest.inputs.condition.is_some() {
            let (task, scale) = (manifest.task, manifest.scale);
            let has = if manifest.inputs.condition.is_some() { "a" } else { "no" };
            return broken(format!(
                "task = \"{task}\", scale = {scale}, {has} condition among its inputs; expected that a model to upscale, and \
                 no other, has a scale above 1 and a condition"
            ));
        }
        if manifest.inputs.class.is_some() != manifest.classes.is_some() {
            return broken("of classes and inputs.class one without the other; expected both or none".into());
        }
        if manifest.schedule.is_some() && manifest.sigma.is_some() {
            return broken("[sigma] and [schedule]; expected one of them".into());
        }
        Ok(manifest)
    }

    /// The first number that is out of its range, and the range. What is allocated by these numbers is small enough then.
    fn out_of_range(&self) -> Option<String> {
        let mut counts = vec![
            ("channels", self.channels, CHANNELS),
            ("scale", self.scale, FACTORS),
            ("multiple_of", self.multiple_of, FACTORS),
            ("multiple_of times scale", self.multiple_of.saturating_mul(self.scale), FACTORS),
            ("defaults.steps", self.defaults.steps, STEPS),
        ];
        let optional = [
            ("receptive_field", self.receptive_field, DISTANCES),
            ("bytes_per_pixel", self.bytes_per_pixel, BYTES),
            ("classes", self.classes, CLASSES),
            ("null_class", self.null_class, 0..=*CLASSES.end()),
            ("size", self.size.map(|[width, _]| width), SIDES),
            ("size", self.size.map(|[_, height]| height), SIDES),
        ];
        let given = |(key, count, range): (&'static str, Option<usize>, _)| count.map(|count| (key, count, range));
        counts.extend(optional.into_iter().filter_map(given));
        let [low, high] = self.range.map(f64::from);
        let mut numbers = vec![("range", low, -LARGEST..=LARGEST), ("range", high, -LARGEST..=LARGEST)];
        if let Some(SigmaRange { min, max, .. }) = self.sigma {
            numbers.extend([("sigma.min", min, 0.0..=LARGEST), ("sigma.max", max, 0.0..=LARGEST)]);
        }
        if let Some(decoder) = &self.decoder {
            let optional = [
                ("decoder.receptive_field", decoder.receptive_field, DISTANCES),
                ("decoder.bytes_per_pixel", decoder.bytes_per_pixel, BYTES),
            ];
            counts.push(("decoder.scale", decoder.scale, FACTORS));
            counts.extend(optional.into_iter().filter_map(given));
            let factors = f64::from(*SCALING_FACTORS.start())..=f64::from(*SCALING_FACTORS.end());
            numbers.push(("decoder.scaling_factor", decoder.scaling_factor.into(), factors));
        }
        numbers.extend(self.defaults.guidance_scale.map(|scale| ("defaults.guidance_scale", scale, 0.0..=LARGEST)));
        for file in self.files.values() {
            numbers.extend(file.tolerance.map(|tolerance| ("files.tolerance", tolerance.into(), 0.0..=LARGEST)));
        }
        if let Some(check) = &self.check {
            numbers.push(("check.tolerance", check.tolerance.into(), 0.0..=LARGEST));
            numbers.extend(check.timestep.map(|timestep| ("check.timestep", timestep, -LARGEST..=LARGEST)));
        }
        let said = |key: &str, found: &dyn Display, low: &dyn Display, high: &dyn Display| {
            format!("{key} = {found}; expected {low} to {high}")
        };
        let count = counts.iter().find(|(_, count, range)| !range.contains(count));
        let number = || numbers.iter().find(|(_, number, range)| !range.contains(number));
        count
            .map(|(key, count, range)| said(key, count, range.start(), range.end()))
            .or_else(|| number().map(|(key, number, range)| said(key, number, range.start(), range.end())))
    }

    /// The schedule on which the network is sampled.
    ///
    /// # Errors
    /// [`Error::Model`] when it does not say, or says what cannot be honoured.
    pub fn schedule_of(&self) -> Result<Schedule> {
        if let Some(table) = &self.schedule {
            let mut table = table.clone();
            let prediction = config::prediction_name(self.prediction).ok_or_else(|| {
                let problem = "its prediction does not go with a [schedule], on which networks give epsilon, v_prediction or \
                               sample; give it one of these, or a [sigma] in place of the [schedule]";
                Error::model(&self.name, problem)
            })?;
            table.insert("prediction_type".into(), prediction.into());
            let text = serde_json::to_string(&table)
                .map_err(|cause| Error::model_from(&self.name, "its [schedule] is odd", cause))?;
            return config::parse_of(&self.name, "model.toml's [schedule]", &text)
                .map(|schedule| Schedule::Discrete(Box::new(schedule)));
        }
        let Some(SigmaRange { min, max, .. }) = self.sigma else {
            let problem = "its manifest has no [sigma] and no [schedule], so there is nothing to sample on; add one";
            return Err(Error::model(&self.name, problem));
        };
        let lowest = if min > 0.0 { min } else { LOWEST_PART * max };
        Ok(Schedule::Sigmas(SigmaSchedule::new(self.prediction, lowest, max)))
    }

    /// Colour channels of images.
    pub fn image_channels(&self) -> usize {
        match self.layout {
            Layout::Full => self.decoder.as_ref().map_or(self.channels, |decoder| decoder.channels),
            Layout::Yuv420 => 3,
        }
    }

    /// Pixels of an image for one of the sample, along each axis.
    pub fn decoded_scale(&self) -> usize {
        self.decoder.as_ref().map_or(1, |decoder| decoder.scale)
    }

    /// How many times larger than the small image the sample is.
    pub fn sample_scale(&self) -> usize {
        match self.task {
            Task::Upscale => self.scale / self.decoded_scale(),
            _ => 1,
        }
    }

    /// Whether it enlarges as diffusion models usually do, by drawing from noise on its schedule beside the small image; Eddy's own
    /// begin at the small image, which a map of sigma tells them.
    pub fn is_generative_upscaler(&self) -> bool {
        self.task == Task::Upscale && (self.inputs.sigma.is_none() || self.is_concatenated() || self.decoder.is_some())
    }

    /// Whether the network was trained with pixels that are known beside pixels that are missing.
    pub fn takes_mixed_noise(&self) -> bool {
        self.inputs.sigma.is_some() && self.sigma.is_some_and(|sigma| sigma.mixed)
    }

    /// Whether the small image stands behind the sample's channels in one tensor.
    pub fn is_concatenated(&self) -> bool {
        self.inputs.condition.as_ref() == Some(&self.inputs.sample)
    }

    /// What the network's geometry asks of a tile.
    pub fn locality(&self) -> Locality {
        Locality { multiple_of: self.multiple_of, receptive_field: self.receptive_field }
    }
}

#[cfg(test)]
mod tests {
    use super::Manifest;

    const GOOD: &str = r#"
        name = "m"
        version = "1"
        task = "denoise"
        prediction = "denoised"
        channels = 3
        range = [0.0, 1.0]
        licence = "CC0-1.0"
        description = "a test"
        [inputs]
        sample = "x"
        sigma = "sigma"
        [outputs]
        denoised = "y"
        [files.f32]
        path = "m.onnx"
        sha256 = "00"
    "#;

    #[test]
    fn a_minimal_manifest_has_defaults() {
        let manifest = Manifest::parse(GOOD, "m").unwrap();
        assert_eq!((manifest.multiple_of, manifest.scale, manifest.defaults.steps), (1, 1, 1));
        assert_eq!(manifest.outputs.prediction, "y");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (from, to, said) in [
            ("channels = 3", "channels = 2", "channels = 2"),
            ("[0.0, 1.0]", "[1.0, 0.0]", "range"),
            ("version", "verzion", "verzion"),
            ("\"denoised\"", "\"magic\"", "magic"),
            ("channels = 3", "channels = 3\nmultiple_of = 0", "multiple_of"),
        ] {
            let error = Manifest::parse(&GOOD.replace(from, to), "m").unwrap_err();
            let text = format!("{:#}", anyhow::Error::from(error));
            assert!(text.contains(said), "{text} does not mention {said}");
        }
    }
}
