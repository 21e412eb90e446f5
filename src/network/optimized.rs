//! The cache of optimized graphs.
//!
//! While ONNX Runtime loads a graph, it fuses nodes and converts weights to the layouts of its
//! kernels. With weights of gigabytes this takes most of the time of loading, and several copies of
//! them. The result can be saved once; loaded from there, the weights are used where the file is
//! mapped. It is valid for one graph, one build of ONNX Runtime and one CPU.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::cache::{self, CacheFolder, Key, read_manifest};
use super::device::Device;
use super::runtime::Runtime;
use super::session::{self, SessionOptions};
use crate::error::{Cause, Error, Result};
use crate::machine;

/// The names of the optimized graph and of its weights.
pub(super) const GRAPH: &str = "model.onnx";
pub(super) const WEIGHTS: &str = "model.onnx_data";

/// The place of an optimized graph in the cache.
#[derive(Clone, Debug)]
pub struct OptimizedGraph {
    place: CacheFolder,
    /// The graph that it is made of.
    source: PathBuf,
}

/// The manifest of an optimized graph, stored beside it.
#[derive(Debug, Serialize, Deserialize)]
struct GraphManifest {
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
        let root = cache::root()?.join("optimized");
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
        Some(Self { place: CacheFolder::new(root, &key), source })
    }

    /// The optimized graph.
    pub(super) fn file(&self) -> PathBuf {
        self.place.path().join(GRAPH)
    }

    /// Whether the graph has been saved, and its files have their lengths.
    pub fn is_saved(&self) -> bool {
        let folder = self.place.path();
        read_manifest::<GraphManifest>(&folder)
            .is_some_and(|manifest| lengths(&folder).is_ok_and(|files| files == manifest.files))
    }

    /// Loads the graph, and saves what ONNX Runtime makes of it. Earlier ones of the same graph are
    /// deleted. Returns the bytes that are used on disk.
    ///
    /// # Errors
    /// [`Error::Model`] when ONNX Runtime does not accept the graph, [`Error::Output`] when it
    /// cannot be saved, for instance on a full disk. Nothing is left in the cache then.
    pub fn save(&self, runtime: &Runtime, options: SessionOptions) -> Result<u64> {
        let saved = self.save_part(runtime, options);
        match saved {
            Ok(_) => self.delete_earlier(),
            Err(_) => self.place.abandon(),
        }
        saved
    }

    fn save_part(&self, runtime: &Runtime, options: SessionOptions) -> Result<u64> {
        let not_saved = |cause: Cause| {
            let problem = "the optimized graph cannot be saved; free some space, or set \
                           XDG_CACHE_HOME to a folder with more";
            Error::output_from(self.place.path(), problem, cause)
        };
        let failed = |cause: io::Error| not_saved(cause.into());
        self.place.begin().map_err(failed)?;
        let part = self.place.part();
        let model = self.source.display().to_string();
        session::save_optimized(runtime, &self.source, &part, options).map_err(|cause| {
            match session::is_not_saved(&cause, &part) {
                true => not_saved(cause.into()),
                false => session::refused(&model, options, cause),
            }
        })?;
        let files = lengths(&part).map_err(failed)?;
        let bytes = files.values().sum();
        let _ = fs::remove_dir_all(self.place.path());
        let manifest = GraphManifest { source: self.source.clone(), files };
        self.place.finish(&manifest).map_err(failed)?;
        Ok(bytes)
    }

    /// Deletes what was saved of an earlier state of the graph.
    fn delete_earlier(&self) {
        let folders = fs::read_dir(self.place.root())
            .into_iter()
            .flatten()
            .filter_map(std::result::Result::ok);
        for folder in folders.map(|entry| entry.path()).filter(|path| *path != self.place.path()) {
            if read_manifest::<GraphManifest>(&folder).is_some_and(|it| it.source == self.source) {
                let _ = fs::remove_dir_all(folder);
            }
        }
    }
}

/// The length of every file in a folder but its manifest.
fn lengths(folder: &Path) -> io::Result<BTreeMap<String, u64>> {
    cache::files(folder, |path| Ok(fs::metadata(path)?.len()))
}
