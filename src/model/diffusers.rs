//! A folder in the layout of diffusers and optimum, read without conversion: `unet/model.onnx` and
//! `scheduler/scheduler_config.json`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::class_indices::ClassIndices;
use super::external::with_weights;
use super::files::{Links, MAX_CONFIG_BYTES, MAX_GRAPH_BYTES, find_weights};
use super::folder::ModelFolder;
use super::import::Config;
use super::manifest::CLASSES;
use super::protobuf::{Fields, Value, last, messages};
use super::sampled::NetworkGraph;
use crate::diffusion::{DiscreteSchedule, config};
use crate::error::{Error, Result};
use crate::network::{Interface, ModelSource, OnnxNetwork, Runtime, SessionOptions};

pub(super) const NETWORK: &str = "unet/model.onnx";
/// The configuration of the U-Net, which has the number of its classes.
pub(super) const NETWORK_CONFIG: &str = "unet/config.json";
pub(super) const SCHEDULER: &str = "scheduler/scheduler_config.json";
/// Why the scheduler's file is needed.
pub(crate) const SCHEDULE_PURPOSE: &str = "it has the schedule on which the network was trained";

/// A diffusers folder: a U-Net and its training schedule.
#[derive(Clone, Debug)]
pub struct DiffusersFolder {
    path: PathBuf,
    /// The training schedule, with the sampling settings of the file.
    pub schedule: DiscreteSchedule,
    /// The number of classes of a network that is conditioned on one.
    class_count: Option<usize>,
}

/// The folders of text encoders.
pub(crate) const TEXT_ENCODERS: [&str; 4] =
    ["text_encoder", "text_encoder_2", "text_encoder_3", "prior_text_encoder"];

/// Whether a folder in the layout of diffusers has a text encoder.
pub fn has_text_encoder(path: &Path) -> bool {
    path.join("model_index.json").is_file()
        && TEXT_ENCODERS.iter().any(|part| path.join(part).is_dir())
}

impl DiffusersFolder {
    /// Whether `path` looks like a diffusers folder.
    pub fn is_at(path: &Path) -> bool {
        ["model_index.json", NETWORK, SCHEDULER].iter().any(|name| path.join(name).exists())
    }

    /// Reads the folder's scheduler and finds its network.
    ///
    /// # Errors
    /// [`Error::Model`] when a part is missing, or the scheduler's file has an unsupported setting.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        if has_text_encoder(path) {
            let problem = "it is a text-conditioned pipeline; `eddy generate -m FOLDER --prompt \
                           TEXT` runs it, with --from IMAGE where it takes one";
            return Err(Error::model(name, problem));
        }
        for part in [NETWORK, SCHEDULER] {
            if !path.join(part).is_file() {
                let problem =
                    format!("a folder in the diffusers layout has a {part}; this one does not");
                return Err(Error::model(name, problem));
            }
        }
        let folder = ModelFolder::from(path);
        let text = text_of(&folder, SCHEDULER, SCHEDULE_PURPOSE)?;
        let class_count = if path.join(NETWORK_CONFIG).exists() {
            let why = "it has the number of classes";
            Config::read(&folder, NETWORK_CONFIG, why)?.count("num_class_embeds", CLASSES)?
        } else {
            None
        };
        Ok(Self { path: path.to_owned(), schedule: config::parse(&name, &text)?, class_count })
    }

    /// The classes of a network that takes one. The files do not declare an unconditional one.
    pub fn classes(&self) -> Option<ClassIndices> {
        let count = self.class_count?;
        Some(ClassIndices::new(&self.path.display().to_string(), Some(count), None))
    }

    /// Loads the U-Net: inputs `sample`, `timestep` and, if it has classes, `class_labels`; output
    /// `out_sample`.
    ///
    /// # Errors
    /// [`Error::Model`] when ONNX Runtime rejects it, or it has other inputs or outputs.
    pub fn load(&self, runtime: &Arc<Runtime>, options: SessionOptions) -> Result<OnnxNetwork> {
        let file = self.path.join(NETWORK);
        let name = file.display().to_string();
        let bytes = self.network()?;
        find_weights(&bytes, file.parent().unwrap_or(&self.path), Links::Cache, &name)?;
        // Loaded from the file, so that ONNX Runtime finds weights beside it.
        OnnxNetwork::load(runtime, &name, ModelSource::File(&file), self.interface(), options)
    }

    fn network(&self) -> Result<Vec<u8>> {
        let folder = ModelFolder::from(self.path.as_path());
        bytes_of(&folder, NETWORK, MAX_GRAPH_BYTES, "it is the network")
    }

    fn interface(&self) -> Interface {
        Interface {
            sample: Some("sample".into()),
            timestep: Some("timestep".into()),
            class: self.class_count.map(|_| "class_labels".into()),
            output: "out_sample".into(),
            ..Interface::default()
        }
    }

    /// The graph of the U-Net.
    pub(super) fn graph(&self) -> Result<NetworkGraph> {
        let file = self.path.join(NETWORK);
        let name = file.display().to_string();
        let bytes = self.network()?;
        let folder = file.parent().unwrap_or(&self.path);
        let bytes = with_weights(bytes, folder, Links::Cache, &name)?;
        let interface = self.interface();
        let channels = channels_of(&bytes, "sample").ok_or_else(|| {
            let problem = "its input `sample` does not declare its channels; export it with them";
            Error::model(&name, problem)
        })?;
        Ok(NetworkGraph { name, bytes, interface, channels, multiple_of: 1 })
    }
}

/// The length of axis 1 of an input of a graph, by the field numbers of `onnx.proto`.
pub(super) fn channels_of(network: &[u8], input: &str) -> Option<usize> {
    let graph = last(network, 7)?;
    let mut ports = messages(graph).filter(|(field, _)| *field == 11);
    let (_, port) = ports.find(|(_, port)| last(port, 1) == Some(input.as_bytes()))?;
    let shape = [2, 1, 2].iter().try_fold(port, |bytes, field| last(bytes, *field))?;
    let (_, axis) = messages(shape).filter(|(field, _)| *field == 1).nth(1)?;
    let length = Fields(axis).find(|(field, _)| *field == 1)?;
    match length.1 {
        Value::Number(length) => usize::try_from(length).ok(),
        _ => None,
    }
}

/// The bytes of a file in a diffusers folder.
///
/// # Errors
/// [`Error::Model`] when it cannot be read; `why` says why it is needed.
pub(super) fn bytes_of(folder: &ModelFolder, name: &str, most: u64, why: &str) -> Result<Vec<u8>> {
    folder.read(name, most).map_err(|cause| {
        let problem = format!("its {name} cannot be read; {why}");
        Error::model_from(folder.to_string(), problem, cause)
    })
}

/// The text of a configuration file in a diffusers folder; see [`bytes_of`].
pub(crate) fn text_of(folder: &ModelFolder, name: &str, why: &str) -> Result<String> {
    String::from_utf8(bytes_of(folder, name, MAX_CONFIG_BYTES, why)?).map_err(|cause| {
        let problem = format!("its {name} is not UTF-8 text");
        Error::model_from(folder.to_string(), problem, cause.utf8_error())
    })
}
