//! The cache of optimized graphs.
//!
//! While ONNX Runtime loads a graph, it fuses nodes and converts weights to the layouts of its
//! kernels. With weights of gigabytes this takes most of the time of loading, and several copies of
//! them. The result can be saved once; loaded from there, the weights are used where the file is
//! mapped. It is valid for one graph, one build of ONNX Runtime and one CPU, of which the
//! hash is the name of its folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::device::Device;
use super::engines::{self, Key};
use super::runtime::Runtime;
use super::session::{self, SessionOptions};
use crate::durable::{self, Owner};
use crate::error::{Error, Result};
use crate::machine;

/// The names of the optimized graph and of its weights.
pub(super) const GRAPH: &str = "model.onnx";
pub(super) const WEIGHTS: &str = "model.onnx_data";
const MANIFEST_FILE: &str = "manifest.json";

/// The place of an optimized graph in the cache.
#[derive(Clone, Debug)]
pub struct OptimizedGraph {
    root: PathBuf,
    name: String,
    /// The graph that it is made of.
    source: PathBuf,
}

/// The manifest of an optimized graph, stored beside it.
#[derive(Debug, Serialize, Deserialize)]
struct CacheManifest {
    /// The graph that it is made of.
    source: PathBuf,
    /// The length of each file, in bytes.
    files: BTreeMap<String, u64>,
}

impl OptimizedGraph {
    /// The place for the graph in a file, with weights in other files. `None` without a cache
    /// folder, and on devices other than the CPU, whose graphs are not saved.
    pub fn of(
        runtime: &Runtime,
        file: &Path,
        weights: &[PathBuf],
        options: SessionOptions,
    ) -> Option<Self> {
        let root = engines::cache_folder()?.join("optimized");
        if options.device != Device::Cpu {
            return None;
        }
        let source = file.canonicalize().ok()?;
        let mut state = String::new();
        for path in std::iter::once(&source).chain(weights) {
            let metadata = fs::metadata(path).ok()?;
            let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            state += &format!("{} {};", metadata.len(), changed.as_nanos());
        }
        let key = Key::default()
            .with("graph", source.display().to_string())
            .with("files", state)
            .with("runtime", runtime.build())
            .with("cpu", machine::cpu_name())
            .with("features", machine::cpu_features().join(" "));
        Some(Self { root, name: key.name(), source })
    }

    fn folder(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// The optimized graph.
    pub(super) fn file(&self) -> PathBuf {
        self.folder().join(GRAPH)
    }

    /// Whether the graph has been saved, and its files have their lengths.
    pub fn is_saved(&self) -> bool {
        read_manifest(&self.folder()).is_some_and(|manifest| {
            lengths(&self.folder()).is_ok_and(|lengths| lengths == manifest.files)
        })
    }

    /// Loads the graph, and saves what ONNX Runtime makes of it. Earlier ones of the same graph are
    /// deleted. Returns the bytes that are used on disk.
    ///
    /// # Errors
    /// [`Error::Model`] when ONNX Runtime does not accept the graph, [`Error::Output`] when it
    /// cannot be saved, for instance on a full disk. Nothing is left in the cache then.
    pub fn save(&self, runtime: &Runtime, options: SessionOptions) -> Result<u64> {
        let failed = |cause| {
            let problem = "the optimized graph cannot be saved; free some space, or set \
                           XDG_CACHE_HOME to a folder with more";
            Error::output_from(self.folder(), problem, cause)
        };
        let part = self.root.join(format!("{}.{}.part", self.name, Owner::own()));
        fs::create_dir_all(&self.root).map_err(failed)?;
        engines::delete_old(&self.root);
        let saved = self.save_to(&part, runtime, options).and_then(|bytes| {
            let _ = fs::remove_dir_all(self.folder());
            durable::rename_folder(&part, &self.folder()).map_err(failed)?;
            Ok(bytes)
        });
        if saved.is_err() {
            let _ = fs::remove_dir_all(&part);
        } else {
            self.delete_earlier();
        }
        saved
    }

    fn save_to(&self, part: &Path, runtime: &Runtime, options: SessionOptions) -> Result<u64> {
        let failed = |cause: std::io::Error| {
            Error::output_from(part, "the optimized graph cannot be saved", cause)
        };
        let _ = fs::remove_dir_all(part);
        fs::create_dir_all(part).map_err(failed)?;
        let model = self.source.display().to_string();
        session::save_optimized(runtime, &self.source, part, options)
            .map_err(|cause| session::refused(&model, options, cause))?;
        let files = lengths(part).map_err(failed)?;
        let bytes = files.values().sum();
        let manifest = CacheManifest { source: self.source.clone(), files };
        let text = serde_json::to_vec_pretty(&manifest).map_err(std::io::Error::from);
        text.and_then(|text| fs::write(part.join(MANIFEST_FILE), text)).map_err(failed)?;
        Ok(bytes)
    }

    /// Deletes what was saved of an earlier state of the graph.
    fn delete_earlier(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().filter_map(|entry| entry.ok()) {
            let is_earlier = entry.file_name() != self.name.as_str()
                && read_manifest(&entry.path()).is_some_and(|it| it.source == self.source);
            if is_earlier {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn read_manifest(folder: &Path) -> Option<CacheManifest> {
    serde_json::from_slice(&fs::read(folder.join(MANIFEST_FILE)).ok()?).ok()
}

/// The length of every file in a folder but its manifest.
fn lengths(folder: &Path) -> std::io::Result<BTreeMap<String, u64>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != MANIFEST_FILE {
            files.insert(name, entry.metadata()?.len());
        }
    }
    Ok(files)
}
