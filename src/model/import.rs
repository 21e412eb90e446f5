//! Conversion of other projects' models to packages: a diffusers folder, or a bare `.onnx` file
//! with a description.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use toml::{Table, Value};

use super::diffusers::{
    DiffusersFolder, NETWORK_CONFIG, SCHEDULE_PURPOSE, SCHEDULER, bytes_of, text_of,
};
use super::files::MAX_GRAPH_BYTES;
use super::folder::ModelFolder;
use super::manifest::{
    CHANNELS, CLASSES, DecoderSpec, Defaults, InputNames, Layout, Manifest, NoiseLevel,
    OutputNames, SCALING_FACTORS, Task,
};
use crate::diffusion::config::{self, shortened};
use crate::diffusion::{Prediction, Sampler};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::network::{Axes, Colors};

/// The `config.json` of a part, whose keys are read one by one. `null` counts as absent.
pub(crate) struct Config {
    folder: String,
    file: String,
    keys: serde_json::Map<String, serde_json::Value>,
}

/// The possible width and height of a U-Net's input.
pub(super) const SIDES: RangeInclusive<usize> = 1..=8192;
/// The most blocks of a network. Each but the last halves the resolution.
const MAX_BLOCKS: usize = 11;
/// The possible number of feature channels.
const FEATURES: RangeInclusive<usize> = 1..=65_536;

impl Config {
    /// Reads a configuration. `why` says why it is needed.
    pub(crate) fn read(folder: &ModelFolder, file: &str, why: &str) -> Result<Self> {
        let text = text_of(folder, file, why)?;
        let folder = folder.to_string();
        let keys = serde_json::from_str(&text).map_err(|cause| {
            Error::model_from(
                &folder,
                format!("{folder}/{file} is not as diffusers writes it"),
                cause,
            )
        })?;
        Ok(Self { folder, file: file.to_owned(), keys })
    }

    /// The configuration of a part that has none.
    pub(crate) fn empty(folder: &ModelFolder, file: &str) -> Self {
        let (folder, file) = (folder.to_string(), file.to_owned());
        Self { folder, file, keys: serde_json::Map::new() }
    }

    /// The value of a key, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&serde_json::Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// The error for a value that is not supported.
    pub(crate) fn refusal(&self, key: &str, value: &serde_json::Value, expected: &str) -> Error {
        let value = shortened(&value.to_string());
        Error::model(
            &self.folder,
            format!("its {} has {key} = {value}; expected {expected}", self.file),
        )
    }

    /// A whole number in a range.
    pub(crate) fn count(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let expected = || format!("a whole number, {} to {}", range.start(), range.end());
        let count = count_in(value, &range).ok_or_else(|| self.refusal(key, value, &expected()))?;
        Ok(Some(count))
    }

    /// Height and width; a single number means both.
    pub(crate) fn sides(&self, key: &str) -> Result<Option<[usize; 2]>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let sides = match value.as_array().map(Vec::as_slice) {
            None => count_in(value, &SIDES).map(|side| [side; 2]),
            Some([height, width]) => {
                count_in(height, &SIDES).zip(count_in(width, &SIDES)).map(<[usize; 2]>::from)
            }
            Some(_) => None,
        };
        let expected =
            format!("a whole number, {} to {}, or two of them", SIDES.start(), SIDES.end());
        sides.map(Some).ok_or_else(|| self.refusal(key, value, &expected))
    }

    /// The downsampling factor of the network's coarsest resolution.
    fn halved(&self) -> Result<usize> {
        const KEY: &str = "block_out_channels";
        let Some(value) = self.get(KEY) else { return Ok(1) };
        let blocks = value.as_array().filter(|blocks| {
            blocks.len() <= MAX_BLOCKS
                && blocks.iter().all(|channels| count_in(channels, &FEATURES).is_some())
        });
        let expected = || {
            format!(
                "at most {MAX_BLOCKS} whole numbers, {} to {}",
                FEATURES.start(),
                FEATURES.end()
            )
        };
        let blocks = blocks.ok_or_else(|| self.refusal(KEY, value, &expected()))?;
        Ok(1 << blocks.len().saturating_sub(1))
    }
}

fn count_in(value: &serde_json::Value, range: &RangeInclusive<usize>) -> Option<usize> {
    value
        .as_u64()
        .and_then(|count| usize::try_from(count).ok())
        .filter(|count| range.contains(count))
}

/// Where a latent pipeline has its decoder: as optimum exports it, or beside diffusers' weights.
const DECODERS: [&str; 4] =
    ["vae_decoder/model.onnx", "vqvae/decoder.onnx", "vqvae/model.onnx", "vae/decoder.onnx"];

/// The decoder of a latent pipeline and the number of latent channels; none for other pipelines.
fn decoder_of(path: &Path) -> Result<Option<(DecoderSpec, usize)>> {
    let (model, folder) = (path.display().to_string(), ModelFolder::from(path));
    let Some(file) = DECODERS.into_iter().find(|file| path.join(file).is_file()) else {
        return match ["vqvae", "vae"].into_iter().find(|part| path.join(part).is_dir()) {
            None => Ok(None),
            Some(part) => {
                let problem = format!(
                    "its {part} makes images of latents, and no decoder was exported; expected one \
                     of {}, with the input latent_sample and the output sample",
                    DECODERS.join(", ")
                );
                Err(Error::model(model, problem))
            }
        };
    };
    let (part, _) = file.split_once('/').unwrap_or((file, ""));
    // Absent keys have diffusers' defaults.
    let autoencoder =
        Config::read(&folder, &format!("{part}/config.json"), "a decoder is exported with it")?;
    let scaling_factor = match autoencoder.get("scaling_factor") {
        None => 0.18215,
        Some(value) => {
            let factor = value.as_f64().filter(|factor| SCALING_FACTORS.contains(factor));
            let expected =
                format!("a number, {} to {}", SCALING_FACTORS.start(), SCALING_FACTORS.end());
            factor.ok_or_else(|| autoencoder.refusal("scaling_factor", value, &expected))? as f32
        }
    };
    let latent_channels = autoencoder.count("latent_channels", CHANNELS)?.unwrap_or(3);
    let decoding = DecoderSpec {
        path: file.into(),
        sha256: sha256(&bytes_of(&folder, file, MAX_GRAPH_BYTES, "it is the decoder")?),
        channels: autoencoder.count("out_channels", CHANNELS)?.unwrap_or(3),
        scale: autoencoder.halved()?,
        scaling_factor,
        input: "latent_sample".into(),
        output: "sample".into(),
        receptive_field: None,
        bytes_per_pixel: None,
    };
    Ok(Some((decoding, latent_channels)))
}

/// The manifest of the U-Net in a diffusers folder, without its file. Supported pipelines are
/// `DDPMPipeline`, `DDIMPipeline` and similar ones that generate pixels, `LDMPipeline`, which
/// generates latents, and `LDMSuperResolutionPipeline`, which generates latents conditioned on a
/// low-resolution image.
///
/// # Errors
/// [`Error::Model`] when a part is missing or has an unsupported setting.
pub fn manifest_of_diffusers(path: &Path) -> Result<Manifest> {
    DiffusersFolder::open(path)?;
    let (model, folder) = (path.display().to_string(), ModelFolder::from(path));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "imported".into());
    let fail = |problem: String| Error::model(&model, problem);
    let unet = Config::read(&folder, NETWORK_CONFIG, "it has the number of channels")?;
    let taken = unet.count("in_channels", CHANNELS)?.ok_or_else(|| {
        let found = "its unet/config.json has no in_channels";
        fail(format!("{found}, which is the number of channels"))
    })?;
    let given = unet.count("out_channels", CHANNELS)?.unwrap_or(taken);
    let (mut decoder, latent_channels) = decoder_of(path)?.unzip();
    let channels = latent_channels.unwrap_or(given);
    let colors = decoder.as_ref().map_or(channels, |decoder| decoder.channels);
    let enlarges = decoder.is_some() && given == channels && taken == channels + colors;
    if given != channels || !matches!(colors, 1 | 3) || (taken != channels && !enlarges) {
        return Err(fail(format!(
            "its U-Net takes {taken} channels and gives {given}, of images of {colors}; expected \
             as many in as out, 1 or 3 without a decoder, or beside a latent the colors of a \
             small image. `eddy sample` runs the U-Net alone"
        )));
    }
    // Latents may be of any multiple of the coarsest resolution; pixel networks have one size.
    let coarsest = unet.halved()?;
    let multiple_of = decoder.as_ref().map_or(1, |_| coarsest);
    let scale = decoder.as_ref().map_or(1, |decoder| decoder.scale);
    if let Some(decoder) = decoder.as_mut().filter(|_| enlarges) {
        // That pipeline does not scale latents.
        decoder.scaling_factor = 1.0;
    }
    let classes = unet.count("num_class_embeds", CLASSES)?;
    if let Some(kind) = unet.get("class_embed_type").filter(|_| classes.is_none()) {
        let kind = shortened(kind.as_str().unwrap_or("a value that is not text"));
        let expected = "expected num_class_embeds, class indices";
        return Err(fail(format!("its classes are encoded as {kind}; {expected}")));
    }
    // The file has the height first. An upscaler may take any size; latents are generated at one.
    let size = unet.sides("sample_size")?.filter(|_| !enlarges);
    let size = size.map(|[height, width]| [scale * width, scale * height]);
    let scheduler = Scheduler::parse(&model, &text_of(&folder, SCHEDULER, SCHEDULE_PURPOSE)?)?;
    let steps = match scheduler.sampler.map(Sampler::name) {
        Some("ddpm") => 1000,
        Some("lcm" | "tcd") => 4,
        _ if enlarges => 100,
        _ => 50,
    };
    let task = if enlarges { Task::Upscale } else { Task::Generate };
    Ok(Manifest {
        name,
        version: "1".into(),
        task,
        prediction: scheduler.prediction,
        channels,
        layout: Layout::Full,
        range: [-1.0, 1.0],
        output_range: None,
        mean: Vec::new(),
        std: Vec::new(),
        axes: Axes::Nchw,
        colors: Colors::Rgb,
        residual: false,
        scale: if enlarges { scale } else { 1 },
        multiple_of,
        receptive_field: None,
        border: 0,
        grid: None,
        bytes_per_pixel: None,
        parameters: None,
        license: UNKNOWN_LICENSE.into(),
        description: format!("Imported network to {task}"),
        training: String::new(),
        size,
        classes,
        // The files do not declare the unconditional class.
        null_class: None,
        sigma: None,
        frames: 1,
        states: Vec::new(),
        noise_level: NoiseLevel::default(),
        schedule: Some(scheduler.keys),
        decoder,
        inputs: InputNames {
            sample: Some("sample".into()),
            sigma: None,
            timestep: Some("timestep".into()),
            condition: enlarges.then(|| "sample".into()),
            class: classes.map(|_| "class_labels".into()),
            neighbors: Vec::new(),
            mask: None,
            known: None,
        },
        constants: BTreeMap::new(),
        unconditional: BTreeMap::new(),
        outputs: OutputNames { prediction: "out_sample".into(), log_probability: None },
        defaults: Defaults { steps, sampler: scheduler.sampler, guidance_scale: None },
        files: BTreeMap::new(),
        check: None,
    })
}

/// The license in manifests of networks whose files do not name one.
pub const UNKNOWN_LICENSE: &str = "unknown";

const SCHEDULER_FILE: &str = "scheduler_config.json";

/// What a manifest takes from a diffusers `scheduler_config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheduler {
    /// The `[schedule]`: the keys of the file that can have an effect.
    pub keys: Table,
    /// What the network predicts.
    pub prediction: Prediction,
    /// The sampler of the file's class; none if it names no class.
    pub sampler: Option<Sampler>,
}

impl Scheduler {
    /// Reads the text of a `scheduler_config.json`. `model` is the model's name in errors.
    ///
    /// # Errors
    /// [`Error::Model`] when it is not JSON, has an unsupported setting, or Eddy has no equivalent
    /// of its class.
    pub fn parse(model: &str, text: &str) -> Result<Self> {
        let keys = config::keys_of(model, SCHEDULER_FILE, text)?;
        let sampler = sampler_of(model, &keys)?;
        let prediction = config::parse(model, text)?.prediction;
        // Notes have no effect, and the class is the sampler.
        let keys = keys.into_iter().filter(|(key, _)| !key.starts_with('_'));
        let keys = keys.filter_map(|(key, value)| Some((key, toml_of(value)?))).collect();
        Ok(Self { keys, prediction, sampler })
    }
}

/// The sampler of a `scheduler_config.json`; none if the file names no class.
fn sampler_of(
    model: &str,
    keys: &serde_json::Map<String, serde_json::Value>,
) -> Result<Option<Sampler>> {
    let text = |key: &str| keys.get(key).and_then(serde_json::Value::as_str);
    let Some(class) = text("_class_name") else { return Ok(None) };
    let is_sde = text("algorithm_type").is_some_and(|kind| kind.starts_with("sde-"));
    let is_third = keys.get("solver_order").and_then(serde_json::Value::as_u64) == Some(3);
    let sampler = match (class, is_sde, is_third) {
        ("DPMSolverMultistepScheduler", true, true) | ("DPMSolverSinglestepScheduler", true, _) => {
            None
        }
        ("DPMSolverMultistepScheduler", true, false) => Some(Sampler::DPMPP_2M_SDE),
        ("DPMSolverMultistepScheduler", false, true) => Some(Sampler::DPMPP_3M),
        _ => Sampler::ALL.into_iter().find(|sampler| sampler.class() == Some(class)),
    };
    sampler.map(Some).ok_or_else(|| {
        let mut classes: Vec<&str> = Sampler::ALL.into_iter().filter_map(Sampler::class).collect();
        classes.dedup();
        let how = if is_sde { " with this algorithm_type and solver_order" } else { "" };
        let (class, classes) = (shortened(class), classes.join(", "));
        let problem = format!(
            "its {SCHEDULER_FILE} is of {class}{how}, of which Eddy has no sampler; there are \
             {classes}. Save the scheduler as one of these, if the pipeline may run with another"
        );
        Error::model(model, problem)
    })
}

/// The same value in TOML, which has no `null`.
fn toml_of(value: serde_json::Value) -> Option<Value> {
    match value {
        serde_json::Value::Null => None,
        serde_json::Value::Bool(value) => Some(value.into()),
        serde_json::Value::Number(number) => {
            number.as_i64().map(Value::Integer).or_else(|| number.as_f64().map(Value::Float))
        }
        serde_json::Value::String(text) => Some(text.into()),
        serde_json::Value::Array(values) => {
            Some(Value::Array(values.into_iter().filter_map(toml_of).collect()))
        }
        serde_json::Value::Object(keys) => {
            let keys = keys.into_iter().filter_map(|(key, value)| Some((key, toml_of(value)?)));
            Some(Value::Table(keys.collect()))
        }
    }
}
