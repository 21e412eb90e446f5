//! Packages of what others made: a folder in the layout of diffusers, or a bare `.onnx` and what is known of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::diffusers::{DiffusersFolder, NETWORK, SCHEDULER};
use super::manifest::Manifest;
use crate::diffusion::config;
use crate::error::{Error, Result};
use crate::network::sha256;

/// What is known of a network beside its file; by the names of the manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The name of the package.
    pub name: String,
    /// `denoise`, `upscale`, `generate` or `guide`.
    pub task: String,
    /// What the output means.
    pub prediction: String,
    /// Colour channels.
    pub channels: usize,
    /// The values of black and white.
    pub range: [f32; 2],
    /// How many times larger the result is.
    pub scale: usize,
    /// What sides are multiples of.
    pub multiple_of: usize,
    /// The only width and height that it takes.
    pub size: Option<[usize; 2]>,
    /// How far it looks, in pixels.
    pub receptive_field: Option<usize>,
    /// How many classes it knows.
    pub classes: Option<usize>,
    /// The class that stands for none of them.
    pub null_class: Option<usize>,
    /// The noise that it was trained for.
    pub sigma: Option<[f64; 2]>,
    /// The training schedule of one that is told a timestep, by diffusers' keys.
    pub schedule: Option<Table>,
    /// Inputs by role: `sample`, `sigma`, `timestep`, `condition`, `class`.
    pub inputs: BTreeMap<String, String>,
    /// The output.
    pub output: String,
    /// Steps where none are asked for.
    pub steps: usize,
    /// Under which terms it may be used.
    pub licence: String,
    /// Its file within the package.
    pub file: String,
    /// `f32`, `f16` or `int8`.
    pub precision: String,
}

impl Facts {
    /// The text of a `model.toml` that says so, of a network with these bytes.
    ///
    /// # Errors
    /// [`Error::Model`] when the facts contradict each other.
    pub fn manifest(&self, network: &[u8]) -> Result<String> {
        let integer = |number: usize| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        let mut top = Table::new();
        let mut say = |key: &str, value: Value| drop(top.insert(key.to_owned(), value));
        say("name", self.name.clone().into());
        say("version", "1".into());
        say("task", self.task.clone().into());
        say("prediction", self.prediction.clone().into());
        say("channels", integer(self.channels));
        // As people write them: 0.1 and not 0.10000000149.
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
        say(
            "inputs",
            self.inputs.iter().map(|(role, name)| (role.clone(), name.clone().into())).collect::<Table>().into(),
        );
        say("outputs", Table::from_iter([("prediction".to_owned(), self.output.clone().into())]).into());
        say("defaults", Table::from_iter([("steps".to_owned(), integer(self.steps))]).into());
        let file = [("path".to_owned(), self.file.clone().into()), ("sha256".to_owned(), sha256(network).into())];
        say("files", Table::from_iter([(self.precision.clone(), Table::from_iter(file).into())]).into());
        let text = toml::to_string(&top)
            .map_err(|cause| Error::model_from(&self.name, "its manifest cannot be written", cause))?;
        Manifest::parse(&text, &self.name)?;
        Ok(text)
    }
}

/// What `unet/config.json` says that is needed.
#[derive(Deserialize)]
struct Unet {
    in_channels: usize,
    out_channels: Option<usize>,
    sample_size: Option<serde_json::Value>,
    num_class_embeds: Option<usize>,
    class_embed_type: Option<String>,
}

/// What a folder in the layout of diffusers says of its U-Net: of `DDPMPipeline`, `DDIMPipeline` and the like, whose pictures are
/// what the network sees.
///
/// # Errors
/// [`Error::Model`] when a part is missing or says something that cannot be honoured.
pub fn facts_of_diffusers(path: &Path) -> Result<Facts> {
    let folder = DiffusersFolder::open(path)?;
    let name = path.file_name().map_or_else(|| "imported".into(), |name| name.to_string_lossy().into_owned());
    let fail = |problem: String| Error::model(path.display().to_string(), problem);
    let config = path.join("unet/config.json");
    let text = fs::read_to_string(&config).map_err(|cause| {
        let problem = format!("{} cannot be read; it says how many channels there are", config.display());
        Error::model_from(path.display().to_string(), problem, cause)
    })?;
    let unet: Unet = serde_json::from_str(&text).map_err(|cause| {
        Error::model_from(
            path.display().to_string(),
            format!("{} is not as diffusers writes it", config.display()),
            cause,
        )
    })?;
    let given = unet.out_channels.unwrap_or(unet.in_channels);
    if !matches!(unet.in_channels, 1 | 3) || given != unet.in_channels {
        return Err(fail(format!(
            "its U-Net takes {} channels and gives {given}; pictures have 1 or 3. One that works on latents needs a decoder, which \
             Eddy does not run yet; `eddy sample` runs the U-Net by itself",
            unet.in_channels
        )));
    }
    if let Some(kind) = unet.class_embed_type.filter(|_| unet.num_class_embeds.is_none()) {
        return Err(fail(format!("its classes are told as {kind}; expected num_class_embeds, classes by number")));
    }
    let size = match unet.sample_size {
        Some(serde_json::Value::Number(side)) => side.as_u64().map(|side| [side as usize; 2]),
        // Height comes first there.
        Some(serde_json::Value::Array(sides)) => match sides.as_slice() {
            [height, width] => {
                height.as_u64().zip(width.as_u64()).map(|(height, width)| [width as usize, height as usize])
            }
            _ => None,
        },
        _ => None,
    };
    let scheduler = fs::read_to_string(path.join(SCHEDULER)).map_err(|cause| {
        Error::model_from(path.display().to_string(), format!("its {SCHEDULER} cannot be read"), cause)
    })?;
    let json: serde_json::Value = serde_json::from_str(&scheduler)
        .map_err(|cause| Error::model_from(path.display().to_string(), format!("its {SCHEDULER} is no JSON"), cause))?;
    let keys = json.as_object().cloned().unwrap_or_default();
    let schedule = keys.into_iter().filter_map(|(key, value)| Some((key, toml_of(value)?))).collect();
    let mut inputs =
        BTreeMap::from([("sample".to_owned(), "sample".to_owned()), ("timestep".to_owned(), "timestep".to_owned())]);
    if unet.num_class_embeds.is_some() {
        inputs.insert("class".into(), "class_labels".into());
    }
    Ok(Facts {
        name,
        task: "generate".into(),
        prediction: config::prediction_name(folder.schedule.prediction).unwrap_or("epsilon").into(),
        channels: unet.in_channels,
        range: [-1.0, 1.0],
        scale: 1,
        multiple_of: 1,
        size,
        receptive_field: None,
        classes: unet.num_class_embeds,
        // Which one it is, if any, is nowhere said.
        null_class: None,
        sigma: None,
        schedule: Some(schedule),
        inputs,
        output: "out_sample".into(),
        steps: 50,
        licence: "as its maker says".into(),
        file: NETWORK.into(),
        precision: "f32".into(),
    })
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
