//! The constraints of a manifest: the range of each number, and which keys may be combined.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::{Layout, Manifest, SigmaRange, Task};
use crate::diffusion::Prediction;
use crate::error::{Error, Result};
use crate::network::{Axes, Colors};

/// The possible number of channels.
pub(in crate::model) const CHANNELS: RangeInclusive<usize> = 1..=256;
/// The possible values of `scale`, of `multiple_of`, and of their product.
const FACTORS: RangeInclusive<usize> = 1..=1024;
const SIDES: RangeInclusive<usize> = 1..=65_535;
const DISTANCES: RangeInclusive<usize> = 0..=65_535;
const BYTES: RangeInclusive<usize> = 1..=1 << 30;
/// The possible number of frames.
const FRAMES: RangeInclusive<usize> = 1..=31;
const STEPS: RangeInclusive<usize> = 1..=1000;
/// The possible number of classes.
pub(in crate::model) const CLASSES: RangeInclusive<usize> = 1..=1_000_000;
/// The possible scaling factors of latents.
pub(in crate::model) const SCALING_FACTORS: RangeInclusive<f64> = 1e-6..=1e6;
const PARAMETERS: RangeInclusive<u64> = 0..=1_000_000_000_000;
/// The largest sigma, pixel value and tolerance.
const MAX_NUMBER: f64 = 1e6;
/// The most values of a constant.
const CONSTANTS: RangeInclusive<usize> = 1..=65_536;
/// The smallest standard deviation of the data.
const MIN_NUMBER: f64 = 1e-6;

/// A number of a manifest. Numbers are texts, as the manifest has them: 0.1, not 0.10000000149.
pub(super) struct Number {
    /// Its key, after those of its tables. Tables that are named by a precision are left out.
    pub(super) key: &'static str,
    /// Its values, none where the key is absent.
    found: Vec<String>,
    pub(super) low: String,
    pub(super) high: String,
}

impl Number {
    fn new(
        key: &'static str,
        found: impl IntoIterator<Item = impl Display>,
        range: RangeInclusive<impl Display>,
    ) -> Self {
        let found = found.into_iter().map(|found| found.to_string()).collect();
        Self { key, found, low: range.start().to_string(), high: range.end().to_string() }
    }

    fn problem(&self) -> Option<String> {
        let Self { key, found, low, high } = self;
        let value = |text: &str| text.parse().unwrap_or(f64::NAN);
        let range = value(low)..=value(high);
        let outside = found.iter().find(|found| !range.contains(&value(found)))?;
        Some(format!("{key} = {outside}; expected {low} to {high}"))
    }
}

impl Manifest {
    /// Checks that every number is in its range, and that the keys do not contradict each other.
    /// `model` is the package's name in errors.
    ///
    /// # Errors
    /// [`Error::Model`] names the key, what was found and what was expected.
    pub fn validate(&self, model: &str) -> Result<()> {
        if let Some(problem) = self.problem() {
            return Err(Error::model(model, format!("its model.toml has {problem}")));
        }
        self.discrete_schedule(model).map(drop)
    }

    /// The first number out of range, or what contradicts itself.
    pub(in crate::model) fn problem(&self) -> Option<String> {
        let out_of_range = self.numbers().iter().find_map(Number::problem);
        out_of_range.or_else(|| self.contradiction())
    }

    /// Every number that a manifest may have. The ranges limit what is allocated later.
    pub(super) fn numbers(&self) -> Vec<Number> {
        let bound = || 0.0..=MAX_NUMBER;
        let signed = || -MAX_NUMBER..=MAX_NUMBER;
        let sigma_data = match self.prediction {
            Prediction::Edm { sigma_data } => Some(sigma_data),
            _ => None,
        };
        let (decoder, check) = (self.decoder.as_ref(), self.check.as_ref());
        let tolerances = self.files.values().filter_map(|file| file.tolerance);
        let product = self.multiple_of.saturating_mul(self.scale);
        vec![
            Number::new("channels", [self.channels], CHANNELS),
            Number::new("scale", [self.scale], FACTORS),
            Number::new("multiple_of", [self.multiple_of], FACTORS),
            Number::new("multiple_of times scale", [product], FACTORS),
            Number::new("grid", self.grid, FACTORS),
            Number::new("receptive_field", self.receptive_field, DISTANCES),
            Number::new("border", [self.border], DISTANCES),
            Number::new("bytes_per_pixel", self.bytes_per_pixel, BYTES),
            Number::new("parameters", self.parameters, PARAMETERS),
            Number::new("size", self.size.into_iter().flatten(), SIDES),
            Number::new("frames", [self.frames], FRAMES),
            Number::new("states.divisor", self.states.iter().map(|it| it.divisor), FACTORS),
            Number::new("classes", self.classes, CLASSES),
            Number::new("null_class", self.null_class, 0..=*CLASSES.end()),
            Number::new("range", self.range, signed()),
            Number::new("output_range", self.output_range.into_iter().flatten(), signed()),
            Number::new("mean", &self.mean, signed()),
            Number::new("std", &self.std, MIN_NUMBER..=MAX_NUMBER),
            Number::new("prediction.edm.sigma_data", sigma_data, MIN_NUMBER..=MAX_NUMBER),
            Number::new("sigma.min", self.sigma.map(|sigma| sigma.min), bound()),
            Number::new("sigma.max", self.sigma.map(|sigma| sigma.max), bound()),
            Number::new("noise_level.factor", [self.noise_level.factor], MIN_NUMBER..=MAX_NUMBER),
            Number::new(
                "constants",
                self.constants.values().flat_map(|constant| constant.values()),
                -MAX_NUMBER..=MAX_NUMBER,
            ),
            Number::new(
                "unconditional",
                self.unconditional.values().flat_map(|constant| constant.values()),
                -MAX_NUMBER..=MAX_NUMBER,
            ),
            Number::new("decoder.scale", decoder.map(|it| it.scale), FACTORS),
            Number::new(
                "decoder.scaling_factor",
                decoder.map(|it| it.scaling_factor),
                SCALING_FACTORS,
            ),
            Number::new(
                "decoder.receptive_field",
                decoder.and_then(|it| it.receptive_field),
                DISTANCES,
            ),
            Number::new(
                "decoder.bytes_per_pixel",
                decoder.and_then(|it| it.bytes_per_pixel),
                BYTES,
            ),
            Number::new("defaults.steps", [self.defaults.steps], STEPS),
            Number::new("defaults.guidance_scale", self.defaults.guidance_scale, bound()),
            Number::new("files.tolerance", tolerances, bound()),
            Number::new("check.tolerance", check.map(|check| check.tolerance), bound()),
            Number::new("check.timestep", check.and_then(|check| check.timestep), signed()),
            Number::new("check.class", check.and_then(|check| check.class), 0..=*CLASSES.end()),
        ]
    }

    /// Keys that are given twice or contradict others, and what was expected.
    fn contradiction(&self) -> Option<String> {
        let (task, scale, range) = (self.task, self.scale, self.range);
        if self.layout == Layout::Yuv420
            && (self.channels != 6 || task != Task::Denoise || range != [0.0, 1.0])
        {
            let (channels, [low, high]) = (self.channels, range);
            return Some(format!(
                "layout = \"yuv420\", channels = {channels}, task = \"{task}\", \
                 range = [{low:.1}, {high:.1}]; expected 6 channels, the task `denoise` and the \
                 range [0.0, 1.0]"
            ));
        }
        if !matches!(self.image_channels(), 1 | 3) {
            let of = if self.decoder.is_some() { "decoder.channels" } else { "channels" };
            return Some(format!("{of} = {}; expected 1 or 3", self.image_channels()));
        }
        if let Some(decoder) = &self.decoder {
            if task == Task::Upscale && !scale.is_multiple_of(decoder.scale) {
                let decoded = decoder.scale;
                return Some(format!(
                    "scale = {scale}, decoder.scale = {decoded}; expected a multiple of what the \
                     decoder enlarges"
                ));
            }
            if !matches!(task, Task::Upscale | Task::Generate) {
                return Some(format!(
                    "task = \"{task}\" and a [decoder]; expected one to generate or to upscale"
                ));
            }
        }
        let [low, high] = range;
        if low >= high {
            return Some(format!("range = [{low}, {high}]; expected black's value below white's"));
        }
        if let Some([black, white]) = self.output_range.filter(|[black, white]| black >= white) {
            return Some(format!(
                "output_range = [{black}, {white}]; expected black's value below white's"
            ));
        }
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            if ![0, 1, self.image_channels()].contains(&values.len()) {
                let (count, channels) = (values.len(), self.image_channels());
                return Some(format!("{count} values of {key}; expected 1 or {channels}"));
            }
        }
        if self.residual && self.prediction != Prediction::Denoised {
            let prediction = self.prediction;
            return Some(format!(
                "residual = true, prediction = \"{prediction}\"; expected `denoised`, of which the \
                 residual is what is subtracted"
            ));
        }
        let has_encoding = self.axes != Axes::Nchw
            || self.colors != Colors::Rgb
            || self.output_range.is_some()
            || self.residual
            || !(self.mean.is_empty() && self.std.is_empty());
        if has_encoding && (self.decoder.is_some() || self.layout != Layout::Full) {
            return Some(
                "axes, colors, mean, std, output_range or residual beside a [decoder] or a layout \
                 of planes; expected them of a network of pixels alone"
                    .into(),
            );
        }
        if let Some(name) =
            self.unconditional.keys().find(|name| !self.constants.contains_key(*name))
        {
            return Some(format!(
                "unconditional values of {name}, which is not in [constants]; expected a name that is"
            ));
        }
        if let Some(name) = self
            .constants
            .iter()
            .chain(&self.unconditional)
            .find(|(_, constant)| !CONSTANTS.contains(&constant.values().len()))
        {
            let ((name, constant), most) = (name, CONSTANTS.end());
            let count = constant.values().len();
            return Some(format!("{count} values of the constant {name}; expected 1 to {most}"));
        }
        let named = self.inputs.neighbors.len();
        if self.frames.is_multiple_of(2) || (named > 0 && named + 1 != self.frames) {
            let frames = self.frames;
            return Some(format!(
                "frames = {frames} and {named} neighbors among the inputs; expected an odd \
                 number, one more than neighbors if they are named"
            ));
        }
        let is_enlarger = self.is_feed_forward_upscaler() && self.frames == 1;
        let is_restorer = matches!(task, Task::Denoise | Task::Deblur)
            && self.inputs.condition.is_none()
            && self.inputs.sample.is_some();
        if self.is_of_video()
            && (self.colors == Colors::Luma
                || self.layout != Layout::Full
                || !(is_restorer || is_enlarger))
        {
            return Some(
                "frames or states beside a condition, luma, a layout of planes or a task of images; expected a \
                 network to denoise or to deblur that sees its frames alone, or one that enlarges by itself and \
                 keeps states"
                    .into(),
            );
        }
        let masks = [&self.inputs.mask, &self.inputs.known].into_iter().flatten().count();
        let expected = usize::from(task == Task::Inpaint);
        if masks != expected || (masks > 0 && !self.is_blind()) {
            return Some(format!(
                "task = \"{task}\" and {masks} masks among the inputs; expected one, mask or \
                 known, of a model to inpaint, which has no noise level, and none of others"
            ));
        }
        if self.inputs.sample.is_none() && !self.is_feed_forward_upscaler() {
            return Some(
                "no sample among the inputs; expected one, or a condition alone for a \
                 feed-forward upscaler"
                    .into(),
            );
        }
        if let Some(SigmaRange { min, max, .. }) = self.sigma.filter(|sigma| sigma.min >= sigma.max)
        {
            return Some(format!(
                "sigma = {{ min = {min}, max = {max} }}; expected 0 <= min < max"
            ));
        }
        if self.files.is_empty() {
            let found = "no [files.f32], [files.f16] or [files.int8]";
            return Some(format!("{found}; expected at least one"));
        }
        let enlarges = task == Task::Upscale;
        if enlarges != (scale > 1) || enlarges != self.inputs.condition.is_some() {
            let has = if self.inputs.condition.is_some() { "a" } else { "no" };
            return Some(format!(
                "task = \"{task}\", scale = {scale}, {has} condition among its inputs; expected \
                 that a model to upscale, and no other, has a scale above 1 and a condition"
            ));
        }
        if self.inputs.class.is_some() != self.classes.is_some() {
            return Some(match &self.inputs.class {
                Some(input) => format!(
                    "the class input `{input}`, but not the number of classes; expected `classes`"
                ),
                None => "classes, but no class input; expected `inputs.class`".into(),
            });
        }
        if let (Task::Denoise | Task::Deblur, Some(input)) = (task, &self.inputs.timestep) {
            return Some(format!(
                "task = \"{task}\" and the timestep input `{input}`; expected that a network with \
                 timesteps generates (task = \"generate\", its prediction and [schedule])"
            ));
        }
        if self.schedule.is_some() && self.sigma.is_some() {
            return Some("[sigma] and [schedule]; expected one of them".into());
        }
        None
    }
}
