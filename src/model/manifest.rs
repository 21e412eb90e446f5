//! `model.toml`: the description of a package's network. It is complete, so that nothing has to be
//! guessed.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::precision::Precision;
use crate::diffusion::{Prediction, Schedule, SigmaSchedule, config};
use crate::error::{Error, Result};
use crate::tile::Locality;

/// The fraction of the largest sigma at which sampling ends if a network was trained down to sigma 0.
/// The last step needs a level above zero to start from.
const LOWEST_PART: f64 = 1e-3;

/// The possible number of channels.
pub(super) const CHANNELS: RangeInclusive<usize> = 1..=256;
/// The possible values of `scale`, of `multiple_of`, and of their product.
const FACTORS: RangeInclusive<usize> = 1..=1024;
const SIDES: RangeInclusive<usize> = 1..=65_535;
const DISTANCES: RangeInclusive<usize> = 0..=65_535;
const BYTES: RangeInclusive<usize> = 1..=1 << 30;
const STEPS: RangeInclusive<usize> = 1..=1000;
/// The possible number of classes.
pub(super) const CLASSES: RangeInclusive<usize> = 1..=1_000_000;
/// The possible scaling factors of latents.
pub(super) const SCALING_FACTORS: RangeInclusive<f32> = 1e-6..=1e6;
/// The largest sigma, pixel value and tolerance.
const LARGEST: f64 = 1e6;

/// The manifest of a model package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The model's name.
    pub name: String,
    /// The version of the package.
    pub version: String,
    /// The task of the network.
    pub task: Task,
    /// The meaning of the network's output.
    pub prediction: Prediction,
    /// Channels of a sample: the image's colours, or latent channels if there is a decoder.
    pub channels: usize,
    /// How the channels represent an image.
    #[serde(default)]
    pub layout: Layout,
    /// The values of black and white of the network, or of the decoder if there is one.
    pub range: [f32; 2],
    /// Output pixels per input pixel, along each axis.
    #[serde(default = "one")]
    pub scale: usize,
    /// Input width and height must be multiples of this. It refers to the low-resolution image of an
    /// upscaler, and to the latent if there is a decoder.
    #[serde(default = "one")]
    pub multiple_of: usize,
    /// No output depends on an input further away than this many pixels (of the low-resolution image
    /// for an upscaler). Absent when the network is not local.
    pub receptive_field: Option<usize>,
    /// ONNX Runtime's working memory per input pixel (of the low-resolution image for an upscaler), in
    /// bytes, measured.
    pub bytes_per_pixel: Option<usize>,
    /// The number of weights.
    pub parameters: Option<u64>,
    /// The licence.
    pub licence: String,
    /// A description in one line.
    pub description: String,
    /// How the network was trained.
    #[serde(default)]
    pub training: String,
    /// The only supported width and height, if there is only one size.
    pub size: Option<[usize; 2]>,
    /// The number of classes, counted from 0.
    pub classes: Option<usize>,
    /// The null class, which means no class, if the network was trained with one.
    pub null_class: Option<usize>,
    /// The noise levels that the network was trained on, in its own units.
    pub sigma: Option<SigmaRange>,
    /// The training schedule of a network that takes a timestep, by the keys of diffusers'
    /// `scheduler_config.json`.
    pub schedule: Option<toml::Table>,
    /// The decoder, if the network works on latents.
    pub decoder: Option<DecoderSpec>,
    /// The names of the graph's inputs.
    pub inputs: InputNames,
    /// The names of the graph's outputs.
    pub outputs: OutputNames,
    /// The defaults of commands.
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

/// How the channels of a network's sample represent an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One channel per colour at full resolution: grey, or red, green and blue.
    #[default]
    Full,
    /// Six channels at half the width and height, like the planes of 4:2:0 video: luma of the four
    /// pixels of each 2x2 block (row by row), then blue-difference and red-difference chroma. Luma is 0
    /// to 1, and chroma is centred on 0.5. The sigma map has one plane for luma and one for chroma.
    Yuv420,
}

impl Layout {
    /// Planes of the sigma map.
    pub fn sigma_planes(self) -> usize {
        match self {
            Self::Full => 1,
            Self::Yuv420 => 2,
        }
    }

    /// Image pixels per sample pixel, along each axis.
    pub fn pixels(self) -> usize {
        match self {
            Self::Full => 1,
            Self::Yuv420 => 2,
        }
    }
}

/// The task of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Removes noise of a known level.
    Denoise,
    /// Enlarges images.
    Upscale,
    /// Generates images, or fills masked areas.
    Generate,
    /// Guides a generating network by the gradient of a class's log-probability.
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
    /// Whether sigma may differ between pixels: the smallest for known pixels, any of the range for the
    /// others, as in inpainting. One evaluation at the largest sigma then gives the mean of the masked
    /// area.
    #[serde(default)]
    pub mixed: bool,
}

/// The names of the graph's inputs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputNames {
    /// The noisy sample, float `[B, C, H, W]`.
    pub sample: String,
    /// The sigma map, float `[B, 1, H, W]`.
    pub sigma: Option<String>,
    /// The scalar noise level.
    pub timestep: Option<String>,
    /// The low-resolution image, float `[B, C, H / scale, W / scale]`. If it has the name of the
    /// sample, both are one tensor `[1, 2 C, H, W]`: the sample's channels, then the image, enlarged
    /// bicubically if it is smaller (Saharia et al. 2021, SR3; Rombach et al. 2022).
    pub condition: Option<String>,
    /// The class of each sample, int64 `[B]`.
    pub class: Option<String>,
}

/// The decoder of an autoencoder: a second network that turns a latent into an image (Rombach et al.
/// 2022, section 3.1).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderSpec {
    /// The ONNX file inside the package.
    pub path: String,
    /// The file's SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// Colour channels of the image.
    pub channels: usize,
    /// Image pixels per latent pixel, along each axis.
    pub scale: usize,
    /// The divisor of latents before decoding (diffusers' name).
    #[serde(default = "unchanged")]
    pub scaling_factor: f32,
    /// The name of the latent input, float `[B, C, H / scale, W / scale]`.
    pub input: String,
    /// The name of the image output, float `[B, channels, H, W]`.
    pub output: String,
    /// No pixel depends on a latent value further away than this many pixels of the image. Absent when
    /// the decoder is not local.
    pub receptive_field: Option<usize>,
    /// ONNX Runtime's working memory per pixel of the image, in bytes, measured.
    pub bytes_per_pixel: Option<usize>,
}

fn unchanged() -> f32 {
    1.0
}

/// The names of the graph's outputs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputNames {
    /// The network's prediction, float `[B, C, H, W]`, under this key or under the name of the
    /// prediction.
    #[serde(alias = "denoised", alias = "epsilon", alias = "v_prediction", alias = "score", alias = "gradient")]
    pub prediction: String,
    /// The log-probability of a class, which classifiers may have; not used.
    #[serde(default)]
    pub log_probability: Option<String>,
}

/// The defaults of commands.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// The number of steps.
    pub steps: usize,
    /// The sampler.
    pub sampler: Option<String>,
    /// The guidance scale.
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
    /// The path inside the package.
    pub path: String,
    /// The file's SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// The largest difference that passes `eddy check`, in the network's units; by default that of
    /// `[check]`.
    pub tolerance: Option<f32>,
}

/// A recorded input and output, as `.npy` files inside the package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The sample, `[B, C, H, W]`.
    pub sample: String,
    /// The sigma map, `[B, 1, H, W]`.
    pub sigma: Option<String>,
    /// The scalar noise level.
    pub timestep: Option<f64>,
    /// The class of all samples.
    pub class: Option<i64>,
    /// The low-resolution image, `[B, C, H / scale, W / scale]`.
    pub condition: Option<String>,
    /// The recorded output.
    #[serde(alias = "denoised", alias = "epsilon", alias = "v_prediction", alias = "score", alias = "gradient")]
    pub prediction: String,
    /// The largest difference that passes, in the network's units, for files without their own
    /// tolerance.
    pub tolerance: f32,
}

impl Manifest {
    /// Parses a manifest and checks that its fields are consistent. `model` is the package's name in
    /// errors.
    ///
    /// # Errors
    /// [`Error::Model`] when the text is not a manifest, or contradicts itself.
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

    /// The first number that is out of range, and the range. The ranges limit what is allocated later.
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
    /// [`Error::Model`] when the manifest has no schedule, or an unsupported one.
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

    /// Image pixels per sample pixel, along each axis.
    pub fn decoded_scale(&self) -> usize {
        self.decoder.as_ref().map_or(1, |decoder| decoder.scale)
    }

    /// How many times larger the sample is than the low-resolution image.
    pub fn sample_scale(&self) -> usize {
        match self.task {
            Task::Upscale => self.scale / self.decoded_scale(),
            _ => 1,
        }
    }

    /// Whether the model is a generative upscaler: it starts from noise on its schedule and is
    /// conditioned on the low-resolution image. Eddy's own upscalers start at the low-resolution image
    /// and take a sigma map.
    pub fn is_generative_upscaler(&self) -> bool {
        self.task == Task::Upscale && (self.inputs.sigma.is_none() || self.is_concatenated() || self.decoder.is_some())
    }

    /// Whether the network was trained with known and masked pixels in one image.
    pub fn takes_mixed_noise(&self) -> bool {
        self.inputs.sigma.is_some() && self.sigma.is_some_and(|sigma| sigma.mixed)
    }

    /// Whether the low-resolution image is concatenated to the sample's channels.
    pub fn is_concatenated(&self) -> bool {
        self.inputs.condition.as_ref() == Some(&self.inputs.sample)
    }

    /// The constraints that the network puts on tiles.
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
    fn reports_inconsistent_fields() {
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
