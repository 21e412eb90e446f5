//! Conversion of other projects' models to packages: a diffusers folder, or a bare `.onnx` file with a
//! description.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use toml::{Table, Value};

use super::diffusers::{DiffusersFolder, NETWORK, SCHEDULER, WHY, bytes_of, text_of};
use super::files::LARGEST_GRAPH;
use super::manifest::{CHANNELS, CLASSES, DecoderSpec, Manifest, SCALING_FACTORS};
use crate::diffusion::Sampler;
use crate::diffusion::config::{self, shortened};
use crate::error::{Error, Result};
use crate::network::sha256;

/// The description of a network, by the keys of the manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackageSpec {
    /// The name of the package.
    pub name: String,
    /// `denoise`, `upscale`, `generate` or `guide`.
    pub task: String,
    /// What the output means.
    pub prediction: String,
    /// Channels of the sample.
    pub channels: usize,
    /// The values of black and white.
    pub range: [f32; 2],
    /// The upscaling factor along each axis.
    pub scale: usize,
    /// Width and height must be multiples of this.
    pub multiple_of: usize,
    /// The only supported width and height.
    pub size: Option<[usize; 2]>,
    /// The receptive field in pixels.
    pub receptive_field: Option<usize>,
    /// The number of classes.
    pub classes: Option<usize>,
    /// The null class, which means no class.
    pub null_class: Option<usize>,
    /// The range of sigma that the network was trained on.
    pub sigma: Option<[f64; 2]>,
    /// The training schedule of a network that takes a timestep, by diffusers' keys.
    pub schedule: Option<Table>,
    /// The decoder, if the network generates latents.
    pub decoder: Option<DecoderSpec>,
    /// The names of the inputs by role: `sample`, `sigma`, `timestep`, `condition`, `class`.
    pub inputs: BTreeMap<String, String>,
    /// The name of the output.
    pub output: String,
    /// The default sampler; the task's own if absent.
    pub sampler: Option<String>,
    /// The default number of steps.
    pub steps: usize,
    /// The licence.
    pub licence: String,
    /// The file within the package.
    pub file: String,
    /// `f32`, `f16` or `int8`.
    pub precision: String,
}

impl PackageSpec {
    /// The text of the `model.toml` for a network with these bytes.
    ///
    /// # Errors
    /// [`Error::Model`] when the description contradicts itself.
    pub fn manifest(&self, network: &[u8]) -> Result<String> {
        let integer = |number: usize| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        let mut top = Table::new();
        let mut say = |key: &str, value: Value| drop(top.insert(key.to_owned(), value));
        say("name", self.name.clone().into());
        say("version", "1".into());
        say("task", self.task.clone().into());
        say("prediction", self.prediction.clone().into());
        say("channels", integer(self.channels));
        // In short decimals: 0.1 and not 0.10000000149.
        say(
            "range",
            self.range.map(|value| Value::Float(value.to_string().parse().unwrap_or_default())).to_vec().into(),
        );
        say("scale", integer(self.scale));
        say("multiple_of", integer(self.multiple_of));
        if let Some(size) = self.size {
            say("size", size.map(integer).to_vec().into());
        }
        if let Some(receptive_field) = self.receptive_field {
            say("receptive_field", integer(receptive_field));
        }
        if let Some(classes) = self.classes {
            say("classes", integer(classes));
        }
        if let Some(class) = self.null_class {
            say("null_class", integer(class));
        }
        say("licence", self.licence.clone().into());
        say("description", format!("Imported network to {}", self.task).into());
        if let Some([min, max]) = self.sigma {
            say("sigma", Table::from_iter([("min".to_owned(), min.into()), ("max".to_owned(), max.into())]).into());
        }
        if let Some(schedule) = &self.schedule {
            say("schedule", schedule.clone().into());
        }
        let odd = |cause| Error::model_from(&self.name, "its manifest cannot be written", cause);
        if let Some(decoder) = &self.decoder {
            say("decoder", Value::try_from(decoder).map_err(odd)?);
        }
        say(
            "inputs",
            self.inputs.iter().map(|(role, name)| (role.clone(), name.clone().into())).collect::<Table>().into(),
        );
        say("outputs", Table::from_iter([("prediction".to_owned(), self.output.clone().into())]).into());
        let sampler = self.sampler.iter().map(|sampler| ("sampler".to_owned(), sampler.clone().into()));
        let steps = [("steps".to_owned(), integer(self.steps))];
        say("defaults", steps.into_iter().chain(sampler).collect::<Table>().into());
        let file = [("path".to_owned(), self.file.clone().into()), ("sha256".to_owned(), sha256(network).into())];
        say("files", Table::from_iter([(self.precision.clone(), Table::from_iter(file).into())]).into());
        let text = toml::to_string(&top).map_err(odd)?;
        Manifest::parse(&text, &self.name)?;
        Ok(text)
    }
}

/// The `config.json` of a part, whose keys are read one by one. `null` counts as absent.
struct Config {
    folder: String,
    file: String,
    keys: serde_json::Map<String, serde_json::Value>,
}

/// The possible width and height of a U-Net's input.
const SIDES: RangeInclusive<usize> = 1..=8192;
/// The most blocks of a network. Each but the last halves the resolution.
const MOST_BLOCKS: usize = 11;
/// The possible number of feature channels.
const FEATURES: RangeInclusive<usize> = 1..=65_536;

impl Config {
    /// Reads a configuration. `why` says why it is needed.
    fn read(folder: &Path, file: &str, why: &str) -> Result<Self> {
        let text = text_of(folder, file, why)?;
        let folder = folder.display().to_string();
        let keys = serde_json::from_str(&text).map_err(|cause| {
            Error::model_from(&folder, format!("{folder}/{file} is not as diffusers writes it"), cause)
        })?;
        Ok(Self { folder, file: file.to_owned(), keys })
    }

    fn get(&self, key: &str) -> Option<&serde_json::Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn refusal(&self, key: &str, value: &serde_json::Value, expected: &str) -> Error {
        let value = shortened(&value.to_string());
        Error::model(&self.folder, format!("its {} has {key} = {value}; expected {expected}", self.file))
    }

    fn count(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let expected = || format!("a whole number, {} to {}", range.start(), range.end());
        let count = count_in(value, &range).ok_or_else(|| self.refusal(key, value, &expected()))?;
        Ok(Some(count))
    }

    /// Height and width; a single number means both.
    fn sides(&self, key: &str) -> Result<Option<[usize; 2]>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let sides = match value.as_array().map(Vec::as_slice) {
            None => count_in(value, &SIDES).map(|side| [side; 2]),
            Some([height, width]) => count_in(height, &SIDES).zip(count_in(width, &SIDES)).map(<[usize; 2]>::from),
            Some(_) => None,
        };
        let expected = format!("a whole number, {} to {}, or two of them", SIDES.start(), SIDES.end());
        sides.map(Some).ok_or_else(|| self.refusal(key, value, &expected))
    }

    /// The downsampling factor of the network's coarsest resolution.
    fn halved(&self) -> Result<usize> {
        const KEY: &str = "block_out_channels";
        let Some(value) = self.get(KEY) else { return Ok(1) };
        let blocks = value.as_array().filter(|blocks| {
            blocks.len() <= MOST_BLOCKS && blocks.iter().all(|channels| count_in(channels, &FEATURES).is_some())
        });
        let expected = || format!("at most {MOST_BLOCKS} whole numbers, {} to {}", FEATURES.start(), FEATURES.end());
        let blocks = blocks.ok_or_else(|| self.refusal(KEY, value, &expected()))?;
        Ok(1 << blocks.len().saturating_sub(1))
    }
}

fn count_in(value: &serde_json::Value, range: &RangeInclusive<usize>) -> Option<usize> {
    value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| range.contains(count))
}

/// Where a latent pipeline has its decoder: as optimum exports it, or beside diffusers' weights.
const DECODERS: [&str; 4] = ["vae_decoder/model.onnx", "vqvae/decoder.onnx", "vqvae/model.onnx", "vae/decoder.onnx"];

/// The decoder of a latent pipeline and the number of latent channels; none for other pipelines.
fn decoder_of(path: &Path) -> Result<Option<(DecoderSpec, usize)>> {
    let model = path.display().to_string();
    let Some(file) = DECODERS.into_iter().find(|file| path.join(file).is_file()) else {
        return match ["vqvae", "vae"].into_iter().find(|part| path.join(part).is_dir()) {
            None => Ok(None),
            Some(part) => {
                let problem = format!(
                    "its {part} makes images of latents, and no decoder was exported; expected one of {}, with the input \
                     latent_sample and the output sample",
                    DECODERS.join(", ")
                );
                Err(Error::model(model, problem))
            }
        };
    };
    let (part, _) = file.split_once('/').unwrap_or((file, ""));
    // Absent keys have diffusers' defaults.
    let autoencoder = Config::read(path, &format!("{part}/config.json"), "a decoder is exported with it")?;
    let scaling_factor = match autoencoder.get("scaling_factor") {
        None => 0.18215,
        Some(value) => {
            let factor = value.as_f64().map(|factor| factor as f32).filter(|factor| SCALING_FACTORS.contains(factor));
            let expected = format!("a number, {} to {}", SCALING_FACTORS.start(), SCALING_FACTORS.end());
            factor.ok_or_else(|| autoencoder.refusal("scaling_factor", value, &expected))?
        }
    };
    let latent_channels = autoencoder.count("latent_channels", CHANNELS)?.unwrap_or(3);
    let decoding = DecoderSpec {
        path: file.into(),
        sha256: sha256(&bytes_of(path, file, LARGEST_GRAPH, "it is the decoder")?),
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

/// The description of the U-Net in a diffusers folder. Supported pipelines are `DDPMPipeline`,
/// `DDIMPipeline` and similar ones that generate pixels, `LDMPipeline`, which generates latents, and
/// `LDMSuperResolutionPipeline`, which generates latents conditioned on a low-resolution image.
///
/// # Errors
/// [`Error::Model`] when a part is missing or has an unsupported setting.
pub fn facts_of_diffusers(path: &Path) -> Result<PackageSpec> {
    let folder = DiffusersFolder::open(path)?;
    let name = path.file_name().map_or_else(|| "imported".into(), |name| name.to_string_lossy().into_owned());
    let fail = |problem: String| Error::model(path.display().to_string(), problem);
    let unet = Config::read(path, "unet/config.json", "it says how many channels there are")?;
    let taken = unet.count("in_channels", CHANNELS)?;
    let taken = taken.ok_or_else(|| {
        fail("its unet/config.json has no in_channels, which says how many channels there are".into())
    })?;
    let given = unet.count("out_channels", CHANNELS)?.unwrap_or(taken);
    let decoder = decoder_of(path)?;
    let (mut decoder, latent) = decoder.unzip();
    let drawn = latent.unwrap_or(given);
    let colours = decoder.as_ref().map_or(drawn, |decoder| decoder.channels);
    let enlarges = decoder.is_some() && given == drawn && taken == drawn + colours;
    if given != drawn || !matches!(colours, 1 | 3) || (taken != drawn && !enlarges) {
        return Err(fail(format!(
            "its U-Net takes {taken} channels and gives {given}, of images of {colours}; expected as many in as out, 1 or 3 without a \
             decoder, or beside a latent the colours of a small image. `eddy sample` runs the U-Net by itself"
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
        let kind = shortened(kind.as_str().unwrap_or("what is no text"));
        return Err(fail(format!("its classes are told as {kind}; expected num_class_embeds, classes by number")));
    }
    // The file has the height first.
    let size = unet.sides("sample_size")?.map(|[height, width]| [width, height]);
    let scheduler = text_of(path, SCHEDULER, WHY)?;
    let json: serde_json::Value = serde_json::from_str(&scheduler)
        .map_err(|cause| Error::model_from(path.display().to_string(), format!("its {SCHEDULER} is no JSON"), cause))?;
    let sampler = sampler_of(&path.display().to_string(), &json)?.map(Sampler::name);
    let steps = match sampler {
        Some("ddpm") => 1000,
        Some("lcm" | "tcd") => 4,
        _ if enlarges => 100,
        _ => 50,
    };
    let schedule = table_of(json);
    let prediction = config::prediction_name(folder.schedule.prediction)
        .ok_or_else(|| fail(format!("its {SCHEDULER} has a prediction_type that such a file does not know")))?;
    // An upscaler may take any size; latents are generated at one size.
    let size = size.filter(|_| !enlarges).map(|size: [usize; 2]| size.map(|side| scale * side));
    let mut inputs =
        BTreeMap::from([("sample".to_owned(), "sample".to_owned()), ("timestep".to_owned(), "timestep".to_owned())]);
    if classes.is_some() {
        inputs.insert("class".into(), "class_labels".into());
    }
    if enlarges {
        inputs.insert("condition".into(), "sample".into());
    }
    Ok(PackageSpec {
        name,
        task: if enlarges { "upscale" } else { "generate" }.into(),
        prediction: prediction.into(),
        channels: drawn,
        range: [-1.0, 1.0],
        scale: if enlarges { scale } else { 1 },
        multiple_of,
        size,
        receptive_field: None,
        classes,
        // The files do not say which class it is, if any.
        null_class: None,
        sigma: None,
        schedule: Some(schedule),
        decoder,
        inputs,
        output: "out_sample".into(),
        sampler: sampler.map(str::to_owned),
        steps,
        licence: "as its maker says".into(),
        file: NETWORK.into(),
        precision: "f32".into(),
    })
}

/// The sampler of a `scheduler_config.json`; none if the file names no class.
///
/// # Errors
/// [`Error::Model`] when Eddy has no equivalent of that class.
fn sampler_of(model: &str, scheduler: &serde_json::Value) -> Result<Option<Sampler>> {
    let text = |key: &str| scheduler.get(key).and_then(serde_json::Value::as_str);
    let Some(class) = text("_class_name") else { return Ok(None) };
    let draws = text("algorithm_type").is_some_and(|kind| kind.starts_with("sde-"));
    let is_third = scheduler.get("solver_order").and_then(serde_json::Value::as_u64) == Some(3);
    let sampler = match (class, draws, is_third) {
        ("DPMSolverMultistepScheduler", true, true) | ("DPMSolverSinglestepScheduler", true, _) => None,
        ("DPMSolverMultistepScheduler", true, false) => Some(Sampler::DPMPP_2M_SDE),
        ("DPMSolverMultistepScheduler", false, true) => Some(Sampler::DPMPP_3M),
        _ => Sampler::ALL.into_iter().find(|sampler| sampler.class() == Some(class)),
    };
    let refusal = || {
        let mut classes: Vec<&str> = Sampler::ALL.into_iter().filter_map(Sampler::class).collect();
        classes.dedup();
        let how = if draws { " with this algorithm_type and solver_order" } else { "" };
        let problem = format!(
            "its {SCHEDULER} is of {}{how}, of which Eddy has no sampler; there are {}. Save the scheduler as one of these, if the \
             pipeline may run with another",
            shortened(class),
            classes.join(", ")
        );
        Error::model(model, problem)
    };
    sampler.map(Some).ok_or_else(refusal)
}

/// The keys of a `scheduler_config.json` as in a manifest, without keys that have no effect.
///
/// # Errors
/// When the text is not JSON.
pub fn schedule_of_diffusers(text: &str) -> serde_json::Result<Table> {
    serde_json::from_str(text).map(table_of)
}

fn table_of(scheduler: serde_json::Value) -> Table {
    let serde_json::Value::Object(keys) = scheduler else { return Table::new() };
    keys.into_iter().filter_map(|(key, value)| Some((key, toml_of(value)?))).collect()
}

fn toml_of(value: serde_json::Value) -> Option<Value> {
    match value {
        serde_json::Value::Bool(value) => Some(value.into()),
        serde_json::Value::Number(number) => {
            number.as_i64().map(Value::Integer).or_else(|| number.as_f64().map(Value::Float))
        }
        serde_json::Value::String(text) => Some(text.into()),
        serde_json::Value::Array(values) => {
            values.into_iter().map(toml_of).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        serde_json::Value::Null | serde_json::Value::Object(_) => None,
    }
}
