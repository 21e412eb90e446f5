//! `model.toml`: the description of a package's network. It is complete, so that nothing has to be
//! guessed.

mod tables;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::class_indices::ClassIndices;
use super::files::MAX_CONFIG_BYTES;
use super::precision::Precision;
use crate::diffusion::{DiscreteSchedule, Prediction, Schedule, SigmaSchedule, config};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::network::NoiseScale::{Linear, QuarterLog};
use crate::network::{Axes, Colors, Encoding, NoiseEncoding};
use crate::setting::{MAX_MEMORY, TILE};
use crate::tile::{Locality, TilePlan};
pub use tables::{
    Check, Constant, DecoderSpec, Defaults, InputNames, Layout, ModelFile, NoiseLevel, OutputNames,
    SigmaRange, State, Task,
};
pub(super) use validate::{CHANNELS, CLASSES, SCALING_FACTORS};

/// The fraction of the largest sigma at which sampling ends if a network was trained down to
/// sigma 0. The last step needs a level above zero to start from.
const LOWEST_PART: f64 = 1e-3;

/// The manifest of a model package, as `model.toml` has it. Absent options are not written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
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
    /// Channels of a sample: the image's colors, or latent channels if there is a decoder.
    pub channels: usize,
    /// How the channels represent an image.
    #[serde(default, skip_serializing_if = "is_default")]
    pub layout: Layout,
    /// The values of black and white of the network, or of the decoder if there is one.
    pub range: [f32; 2],
    /// The values of black and white of the network's output, if they are not those of its input.
    pub output_range: Option<[f32; 2]>,
    /// What is subtracted from values of the range for the network, for each channel or for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f32>,
    /// What they are divided by then. The output is multiplied and added to, unless it has an
    /// `output_range`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f32>,
    /// The order of the axes of its tensors.
    #[serde(default, skip_serializing_if = "is_default")]
    pub axes: Axes,
    /// Its color channels.
    #[serde(default, skip_serializing_if = "is_default")]
    pub colors: Colors,
    /// Whether its output is what is to be subtracted from the noisy image (residual learning).
    #[serde(default, skip_serializing_if = "is_default")]
    pub residual: bool,
    /// Output pixels per input pixel, along each axis.
    #[serde(default = "one")]
    pub scale: usize,
    /// Input width and height must be multiples of this. It refers to the low-resolution image of
    /// an upscaler, and to the latent if there is a decoder.
    #[serde(default = "one")]
    pub multiple_of: usize,
    /// Tiles begin at multiples of this, if it is more than `multiple_of`: of a network that pads
    /// an image to its grid by itself.
    pub grid: Option<usize>,
    /// No output depends on an input further away than this many pixels (of the low-resolution
    /// image for an upscaler). Absent when the network is not local.
    pub receptive_field: Option<usize>,
    /// Pixels that convolutions without padding take off each side of the input, of which its
    /// output is that much smaller. The input is mirrored beyond its edges by as many.
    #[serde(default, skip_serializing_if = "is_default")]
    pub border: usize,
    /// ONNX Runtime's working memory per input pixel (of the low-resolution image for an upscaler),
    /// in bytes, measured.
    pub bytes_per_pixel: Option<usize>,
    /// The number of weights.
    pub parameters: Option<u64>,
    /// The license.
    pub license: String,
    /// A description in one line.
    pub description: String,
    /// How the network was trained.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub training: String,
    /// The only supported width and height, if there is only one size.
    pub size: Option<[usize; 2]>,
    /// The number of classes, counted from 0.
    pub classes: Option<usize>,
    /// The null class, which means no class, if the network was trained with one.
    pub null_class: Option<usize>,
    /// The noise levels that the network was trained on, in its own units.
    pub sigma: Option<SigmaRange>,
    /// How many frames of a video it sees at once: as many before the one that it restores as after
    /// it.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub frames: usize,
    /// What it keeps from one frame of a video to the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<State>,
    /// How the noise level is encoded for the network.
    #[serde(default, skip_serializing_if = "is_default")]
    pub noise_level: NoiseLevel,
    /// The training schedule of a network that takes a timestep, by the keys of diffusers'
    /// `scheduler_config.json`. They stay a table, because that file is the reference: its keys are
    /// many, each concerns some samplers alone, and an absent one has the sampler's own default.
    /// [`config`] reads both, and [`validate`](Self::validate) refuses what it does not know.
    pub schedule: Option<toml::Table>,
    /// The decoder, if the network works on latents.
    pub decoder: Option<DecoderSpec>,
    /// The names of the graph's inputs.
    pub inputs: InputNames,
    /// The values of further inputs, by their names in the graph.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub constants: BTreeMap<String, Constant>,
    /// The values of some of these that mean no condition, for classifier-free guidance.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unconditional: BTreeMap<String, Constant>,
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

/// Writes infinite numbers and NaN, which JSON does not have, as Python does and the reader
/// expects.
fn quote_infinite(value: &mut toml::Value) {
    match value {
        toml::Value::Array(values) => values.iter_mut().for_each(quote_infinite),
        toml::Value::Float(number) if !number.is_finite() => {
            let word = if number.is_nan() {
                "NaN"
            } else if *number > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            *value = word.into();
        }
        _ => {}
    }
}

fn one() -> usize {
    1
}

fn is_one(count: &usize) -> bool {
    *count == 1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Manifest {
    /// Reads the text of a `model.toml`. `model` is the package's name in errors.
    ///
    /// # Errors
    /// [`Error::Model`] when the text is not a manifest, or contradicts itself.
    pub fn parse(text: &str, model: &str) -> Result<Self> {
        let manifest: Self = toml::from_str(text)
            .map_err(|cause| Error::model_from(model, "its model.toml is not readable", cause))?;
        manifest.validate(model)?;
        Ok(manifest)
    }

    /// The text of the `model.toml`, which [`parse`](Self::parse) reads back.
    ///
    /// # Errors
    /// [`Error::Model`] when the manifest contradicts itself, or is longer than such a file may be.
    pub fn to_toml(&self) -> Result<String> {
        self.validate(&self.name)?;
        let text = toml::to_string(self).map_err(|cause| {
            Error::model_from(&self.name, "its manifest cannot be written", cause)
        })?;
        if text.len() as u64 > MAX_CONFIG_BYTES {
            let length = text.len();
            let problem =
                format!("its model.toml has {length} bytes; expected at most {MAX_CONFIG_BYTES}");
            return Err(Error::model(&self.name, problem));
        }
        Ok(text)
    }

    /// Enters a file of the package with these bytes as the network in `precision`.
    pub fn set_file(&mut self, precision: Precision, path: impl Into<String>, network: &[u8]) {
        let file = ModelFile { path: path.into(), sha256: sha256(network), tolerance: None };
        self.files.insert(precision, file);
    }

    /// The classes of a network that takes one.
    pub fn class_indices(&self) -> Option<ClassIndices> {
        self.inputs.class.as_ref()?;
        Some(ClassIndices::new(&self.name, self.classes, self.null_class))
    }

    /// The schedule on which the network is sampled.
    ///
    /// # Errors
    /// [`Error::Model`] when the manifest has no schedule, or an unsupported one.
    pub fn schedule_of(&self) -> Result<Schedule> {
        if let Some(schedule) = self.discrete_schedule(&self.name)? {
            return Ok(Schedule::Discrete(Box::new(schedule)));
        }
        let Some(SigmaRange { min, max, .. }) = self.sigma else {
            let problem = "its manifest has no [sigma] and no [schedule], so there is nothing to \
                           sample on; add one";
            return Err(Error::model(&self.name, problem));
        };
        let lowest = if min > 0.0 { min } else { LOWEST_PART * max };
        Ok(Schedule::Sigmas(SigmaSchedule::new(self.prediction, lowest, max)))
    }

    /// The training schedule in `[schedule]`, if there is one.
    fn discrete_schedule(&self, model: &str) -> Result<Option<DiscreteSchedule>> {
        const PLACE: &str = "model.toml's [schedule]";
        let Some(table) = &self.schedule else { return Ok(None) };
        if !self.prediction.takes_timestep() {
            let problem = format!(
                "its prediction is {}, but a [schedule] needs epsilon, v_prediction or sample; change \
                 it to one of these, or write a [sigma] in place of the [schedule]",
                self.prediction
            );
            return Err(Error::model(model, problem));
        }
        let mut table = table.clone();
        table.iter_mut().for_each(|(_, value)| quote_infinite(value));
        table.entry("prediction_type").or_insert_with(|| self.prediction.name().into());
        let text = serde_json::to_string(&table)
            .map_err(|cause| Error::model_from(model, "its [schedule] is not readable", cause))?;
        let schedule = config::parse_of(model, PLACE, &text)?;
        if schedule.prediction != self.prediction {
            let (own, other) = (self.prediction, schedule.prediction);
            let problem = format!(
                "its prediction is \"{own}\", and its schedule has prediction_type = \"{other}\"; \
                 expected the same, or no prediction_type"
            );
            return Err(Error::model(model, problem));
        }
        Ok(Some(schedule))
    }

    /// Color channels of images.
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
    /// conditioned on the low-resolution image. Eddy's own upscalers start at the low-resolution
    /// image and take a sigma map.
    pub fn is_generative_upscaler(&self) -> bool {
        self.task == Task::Upscale
            && self.inputs.sample.is_some()
            && (self.inputs.sigma.is_none() || self.is_concatenated() || self.decoder.is_some())
    }

    /// Whether the network was trained with known and masked pixels in one image.
    pub fn takes_mixed_noise(&self) -> bool {
        self.inputs.sigma.is_some() && self.sigma.is_some_and(|sigma| sigma.mixed)
    }

    /// Whether the low-resolution image is concatenated to the sample's channels.
    pub fn is_concatenated(&self) -> bool {
        self.inputs.condition.is_some() && self.inputs.condition == self.inputs.sample
    }

    /// Whether the network is a feed-forward upscaler: its condition is its only image, and it has
    /// no noise level.
    pub fn is_feed_forward_upscaler(&self) -> bool {
        self.task == Task::Upscale
            && self.inputs.sample.is_none()
            && self.inputs.condition.is_some()
            && self.decoder.is_none()
            && self.prediction == Prediction::Denoised
    }

    /// Whether the network is not conditioned on a noise level (blind).
    pub fn is_blind(&self) -> bool {
        self.inputs.sigma.is_none() && self.inputs.timestep.is_none()
    }

    /// Whether the network restores a frame with the help of others.
    pub fn is_of_video(&self) -> bool {
        self.frames > 1 || !self.states.is_empty()
    }

    /// The mask among the inputs.
    pub fn mask(&self) -> Option<&String> {
        self.inputs.mask.as_ref().or(self.inputs.known.as_ref())
    }

    /// How the network's input represents an image, and how its output does.
    pub(super) fn encodings(&self) -> [Encoding; 2] {
        let Self { axes, colors, range: [low, high], output_range, .. } = *self;
        let count = self.mean.len().max(self.std.len());
        let of = |values: &[f32], i: usize, other: f32| {
            values.get(i).or(values.first()).copied().unwrap_or(other)
        };
        let normalized = (0..count).map(|i| {
            let (mean, std) = (of(&self.mean, i, 0.0), of(&self.std, i, 1.0));
            [1.0 / std, -mean / std]
        });
        let input = Encoding { axes, colors, scaling: normalized.collect() };
        let output = match output_range {
            None => input.clone(),
            Some([black, white]) => {
                let factor = (white - black) / (high - low);
                let scaling = vec![[factor, black - factor * low]];
                let is_same = scaling == [[1.0, 0.0]];
                Encoding { axes, colors, scaling: if is_same { Vec::new() } else { scaling } }
            }
        };
        [input, output]
    }

    /// How sigma is encoded for the network.
    pub(super) fn noise_encoding(&self) -> NoiseEncoding {
        let NoiseLevel { factor, scale } = self.noise_level;
        // The scale on which the sampler passes the noise level for this prediction.
        let source =
            if matches!(self.prediction, Prediction::Edm { .. }) { QuarterLog } else { Linear };
        NoiseEncoding { factor, source, scale: scale.unwrap_or(source) }
    }

    /// Checks that a network with a state of whole frames sees them whole.
    pub(crate) fn check_state(&self, tiles: &TilePlan, [width, height]: [usize; 2]) -> Result<()> {
        if self.states.is_empty() || tiles.is_whole() {
            return Ok(());
        }
        Err(Error::usage(format!(
            "{} keeps a state of whole frames, and {width}x{height} has to be cut into {} tiles; raise \
             {MAX_MEMORY}, leave {TILE} out, or take smaller frames",
            self.name,
            tiles.count()
        )))
    }

    /// The constraints that the network puts on tiles.
    pub fn locality(&self) -> Locality {
        Locality {
            multiple_of: self.multiple_of,
            grid: self.grid.unwrap_or(1).max(1).next_multiple_of(self.multiple_of),
            receptive_field: self.receptive_field,
            size: self.size.filter(|_| self.task != Task::Generate),
        }
    }
}
