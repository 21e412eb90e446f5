//! A model package: a manifest and its files, embedded in the binary or in a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bare::{Description, DetectedProperty, ProbedModel};
use super::bundled::{self, Bundle};
use super::diffusers::{DiffusersFolder, NETWORK, has_text_encoder};
use super::files::{
    LARGEST_RECORD, Links, MAX_CONFIG_BYTES, MAX_GRAPH_BYTES, find_inside, find_weights,
    read_regular,
};
use super::import::manifest_of_diffusers;
use super::manifest::{Manifest, ModelFile, State};
use super::precision::Precision;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::network::{Device, Interface, ModelSource, OnnxNetwork, Runtime, SessionOptions};
use crate::setting::PRECISION;

/// A model package.
#[derive(Clone, Debug)]
pub struct Package {
    /// The manifest of the package.
    pub manifest: Manifest,
    files: Files,
}

#[derive(Clone, Debug)]
enum Files {
    Bundled(&'static Bundle),
    Folder(PathBuf),
    /// A folder without a manifest, whose files are used as found.
    AsIs(PathBuf),
}

/// Where ONNX Runtime reads a network: from its file, so that it finds weights beside it, or from
/// this binary.
enum Origin {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Origin {
    fn source(&self) -> ModelSource<'_> {
        match self {
            Self::File(path) => ModelSource::File(path),
            Self::Bytes(bytes) => ModelSource::Bytes(bytes),
        }
    }
}

impl Package {
    /// The bundled model of that name, or the package in that folder.
    ///
    /// # Errors
    /// [`Error::Model`] when there is none, or its manifest is invalid.
    pub fn find(model: &str) -> Result<Self> {
        if let Some(bundle) = bundled::find(model) {
            return Self::from_files(Files::Bundled(bundle), model);
        }
        let path = Path::new(model);
        let is_diffusers = DiffusersFolder::is_at(path) || has_text_encoder(path);
        if is_diffusers && !path.join("model.toml").exists() {
            return Self::of_diffusers(path);
        }
        if path.is_dir() {
            return Self::from_files(Files::Folder(path.to_owned()), model);
        }
        let names = bundled::names().join(", ");
        let problem =
            match (path.exists(), path.extension().is_some_and(|extension| extension == "onnx")) {
                (true, true) => {
                    "it is a bare .onnx, which declares neither its prediction nor its schedule; \
                 convert it to a package with `eddy import`"
                        .to_owned()
                }
                (true, false) => "it is a file; expected a folder with a model.toml".to_owned(),
                (false, true) => "there is no such file".to_owned(),
                (false, false) => {
                    format!(
                        "there is no bundled model and no folder of that name; bundled are {names}"
                    )
                }
            };
        Err(Error::model(model, problem))
    }

    /// A bundled model, the folder of a package, or a bare ONNX file, which is run some dozens of
    /// times to find out how its values are to be read.
    ///
    /// # Errors
    /// [`Error::Model`] when there is none of that name, or it cannot be used.
    pub fn open(runtime: &Arc<Runtime>, model: &str, options: SessionOptions) -> Result<Self> {
        let path = Path::new(model);
        if path.extension().is_some_and(|it| it == "onnx") && path.is_file() {
            return Ok(Self::of_onnx(runtime, path, &Description::default(), options)?.0);
        }
        Self::find(model)
    }

    /// A diffusers folder, without conversion.
    fn of_diffusers(path: &Path) -> Result<Self> {
        let mut manifest = manifest_of_diffusers(path)?;
        let files = Files::AsIs(path.to_owned());
        let network = files.read(NETWORK, &manifest.name, MAX_GRAPH_BYTES)?;
        manifest.set_file(Precision::F32, NETWORK, &network);
        manifest.validate(&manifest.name)?;
        Ok(Self { manifest, files })
    }

    /// A bare ONNX file as a package, and the properties that were detected by running it because
    /// `description` does not state them.
    ///
    /// # Errors
    /// As for [`ProbedModel::open`].
    pub fn of_onnx(
        runtime: &Arc<Runtime>,
        path: &Path,
        description: &Description,
        options: SessionOptions,
    ) -> Result<(Self, Vec<DetectedProperty>)> {
        let model = path.display().to_string();
        let path = path
            .canonicalize()
            .map_err(|cause| Error::model_from(model, "it cannot be read", cause))?;
        let ProbedModel { manifest, detected, .. } =
            ProbedModel::open(runtime, &path, description, options)?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        Ok((Self { manifest, files: Files::Folder(folder) }, detected))
    }

    fn from_files(files: Files, model: &str) -> Result<Self> {
        let text = files.read("model.toml", model, MAX_CONFIG_BYTES)?;
        let text = std::str::from_utf8(&text)
            .map_err(|cause| Error::model_from(model, "its model.toml is not UTF-8 text", cause))?;
        Ok(Self { manifest: Manifest::parse(text, model)?, files })
    }

    /// The bytes of a file of the package.
    ///
    /// # Errors
    /// [`Error::Model`] when it is missing or cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        self.files.read(name, &self.manifest.name, MAX_GRAPH_BYTES)
    }

    /// The bytes of a recorded input or output.
    pub(super) fn record(&self, name: &str) -> Result<Vec<u8>> {
        self.files.read(name, &self.manifest.name, LARGEST_RECORD)
    }

    /// The package's folder; none for an embedded package.
    pub fn folder(&self) -> Option<&Path> {
        match &self.files {
            Files::Bundled(_) => None,
            Files::Folder(path) | Files::AsIs(path) => Some(path),
        }
    }

    /// The manifest's entry for the file in `precision`.
    ///
    /// # Errors
    /// [`Error::Model`] when the package has none; it names the available precisions.
    pub fn file(&self, precision: Precision) -> Result<&ModelFile> {
        let manifest = &self.manifest;
        manifest.files.get(&precision).ok_or_else(|| {
            let present: Vec<&str> =
                manifest.files.keys().map(|precision| precision.name()).collect();
            let present = present.join(", ");
            let problem = format!(
                "it has no {precision} file; it has {present}; choose one with {PRECISION}"
            );
            Error::model(&manifest.name, problem)
        })
    }

    /// The precisions to process: the requested one, or all that the package has.
    ///
    /// # Errors
    /// [`Error::Model`] when the package does not have the requested one.
    pub fn precisions(&self, requested: Option<Precision>) -> Result<Vec<Precision>> {
        match requested {
            Some(precision) => self.file(precision).map(|_| vec![precision]),
            None => Ok(self.manifest.files.keys().copied().collect()),
        }
    }

    /// The precision that suits a device: f16 on a GPU if there is such a file, or else f32. A
    /// package may have one file alone, whose precision is then taken.
    pub fn default_precision(&self, device: Device) -> Precision {
        let files = &self.manifest.files;
        let halves = device.is_gpu() && files.contains_key(&Precision::F16);
        let preferred = if halves { Precision::F16 } else { Precision::F32 };
        if files.contains_key(&preferred) {
            return preferred;
        }
        files.keys().next().copied().unwrap_or_default()
    }

    /// Loads the network in `precision`, after checking the SHA-256 of its file.
    ///
    /// # Errors
    /// [`Error::Model`] when the package has no such file, its SHA-256 differs, or it does not fit
    /// ONNX Runtime or the names in the manifest.
    pub fn load(
        &self,
        runtime: &Arc<Runtime>,
        precision: Precision,
        options: SessionOptions,
    ) -> Result<OnnxNetwork> {
        let file = self.file(precision)?;
        let origin = self.origin(&file.path, &file.sha256)?;
        OnnxNetwork::load(
            runtime,
            &self.manifest.name,
            origin.source(),
            self.interface(precision),
            options,
        )
    }

    /// How many nodes of the network in `precision` each provider of ONNX Runtime runs, measured on
    /// a small image.
    ///
    /// # Errors
    /// As for [`load`](Self::load), and when the network does not run.
    pub fn count_nodes(
        &self,
        runtime: &Arc<Runtime>,
        precision: Precision,
        options: SessionOptions,
    ) -> Result<BTreeMap<String, usize>> {
        let (name, file) = (&self.manifest.name, self.file(precision)?);
        let origin = self.origin(&file.path, &file.sha256)?;
        let side = 64_usize
            .next_multiple_of(self.manifest.multiple_of.max(1) * self.manifest.sample_scale());
        let shape = [1, self.manifest.channels, side, side];
        OnnxNetwork::count_nodes(
            runtime,
            name,
            origin.source(),
            self.interface(precision),
            options,
            shape,
        )
    }

    /// Loads the decoder, if the package has one: a network without a sample, whose condition is
    /// the latent.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_decoder(
        &self,
        runtime: &Arc<Runtime>,
        options: SessionOptions,
    ) -> Result<Option<OnnxNetwork>> {
        let manifest = &self.manifest;
        let Some(decoder) = &manifest.decoder else { return Ok(None) };
        let origin = self.origin(&decoder.path, &decoder.sha256)?;
        let interface = Interface {
            condition: Some(decoder.input.clone()),
            condition_channels: Some(manifest.channels),
            scale: decoder.scale,
            output: decoder.output.clone(),
            channels: Some(decoder.channels),
            ..Interface::default()
        };
        OnnxNetwork::load(runtime, &manifest.name, origin.source(), interface, options).map(Some)
    }

    fn interface(&self, precision: Precision) -> Interface {
        let manifest = &self.manifest;
        let [encoding, output_encoding] = manifest.encodings();
        let constants = manifest.constants.iter();
        let unconditional = manifest.unconditional.iter();
        Interface {
            sample: manifest.inputs.sample.clone(),
            // The mask takes the place of the map of sigma.
            sigma: manifest.inputs.sigma.clone().or_else(|| manifest.mask().cloned()),
            sigma_planes: manifest.layout.sigma_planes(),
            timestep: manifest.inputs.timestep.clone(),
            condition: manifest.inputs.condition.clone(),
            condition_channels: Some(manifest.image_channels()),
            class: manifest.inputs.class.clone(),
            scale: manifest.sample_scale(),
            output: manifest.outputs.prediction.clone(),
            channels: Some(manifest.channels),
            half: Some(precision == Precision::F16),
            encoding,
            output_encoding,
            residual: manifest.residual,
            noise_encoding: manifest.noise_encoding(),
            frames: manifest.frames,
            border: manifest.border,
            neighbors: manifest.inputs.neighbors.clone(),
            states: manifest.states.iter().map(State::as_interface).collect(),
            constants: constants.map(|(name, it)| (name.clone(), it.values().to_vec())).collect(),
            unconditional: unconditional
                .map(|(name, it)| (name.clone(), it.values().to_vec()))
                .collect(),
        }
    }

    /// Where to load a file from, after checking its SHA-256.
    fn origin(&self, path: &str, expected: &str) -> Result<Origin> {
        let (bytes, folder, links) = match &self.files {
            Files::Bundled(_) => return self.checked(path, expected).map(Origin::Bytes),
            Files::Folder(folder) => (self.checked(path, expected)?, folder, Links::Inside),
            Files::AsIs(folder) => (self.read(path)?, folder, Links::Cache),
        };
        let cannot =
            |cause| Error::model_from(&self.manifest.name, format!("{path} cannot be read"), cause);
        let file = match links {
            Links::Inside => find_inside(folder, path, links).map_err(cannot)?,
            // External weights are beside the link, not beside its target.
            Links::Cache => folder.join(path),
        };
        // ONNX Runtime opens external weights on its own, so they are checked first.
        find_weights(&bytes, file.parent().unwrap_or(folder), links, &self.manifest.name)?;
        Ok(Origin::File(file))
    }

    /// The bytes of a file, after checking its SHA-256.
    pub(super) fn checked(&self, path: &str, expected: &str) -> Result<Vec<u8>> {
        let bytes = self.read(path)?;
        let found = sha256(&bytes);
        if found != expected {
            let problem = format!(
                "{path} has SHA-256 {found}, its manifest declares {expected}; the file is damaged \
                 or was replaced: fetch it again, or correct the manifest"
            );
            return Err(Error::model(&self.manifest.name, problem));
        }
        Ok(bytes)
    }
}

impl Files {
    fn read(&self, name: &str, model: &str, most: u64) -> Result<Vec<u8>> {
        let (folder, links) = match self {
            Self::Bundled(bundle) => {
                let missing =
                    || Error::model(model, format!("this binary does not contain its {name}"));
                return bundle.file(name).ok_or_else(missing);
            }
            Self::Folder(folder) => (folder, Links::Inside),
            Self::AsIs(folder) => (folder, Links::Cache),
        };
        let path = find_inside(folder, name, links);
        let bytes = path.and_then(|path| read_regular(&path, most)).map_err(|cause| {
            let path = folder.join(name);
            let problem = format!(
                "{} cannot be read; a package is a folder with a model.toml and the files that it \
                 names",
                path.display()
            );
            Error::model_from(model, problem, cause)
        })?;
        Ok(bytes)
    }
}
