//! Sessions for one shape each, as TensorRT's engines require, and the cache of their engines.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::build::{SessionOverrides, build, refused};
use super::{ModelSource, OnnxNetwork, SessionOptions};
use crate::digest::sha256;
use crate::error::Result;
use crate::machine::nvidia;
use crate::network::cache::Key;
use crate::network::engines::{self, CacheEntry};
use crate::network::{Shape, watch};

/// Builds one session per shape, as TensorRT's engines require.
#[derive(Debug)]
pub(super) struct PerShapeSession {
    pub(super) graph: Arc<Graph>,
    pub(super) options: SessionOptions,
    /// The shape of the current session.
    pub(super) shape: Option<Shape>,
    /// The cache entry of its engine.
    pub(super) place: Option<CacheEntry>,
    pub(super) engine: Engine,
}

/// The TensorRT engine that runs a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Read from the cache.
    Found,
    /// Built in this run, and cached after its first evaluation.
    Built,
    /// Built in this run and not cached, for this reason.
    NotCached(String),
}

/// A graph that is kept in order to build sessions from it.
#[derive(Debug)]
pub(super) enum Graph {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Graph {
    pub(super) fn source(&self) -> ModelSource<'_> {
        match self {
            Self::Bytes(bytes) => ModelSource::Bytes(bytes),
            Self::File(path) => ModelSource::File(path),
        }
    }

    /// The SHA-256 of the graph and its weights, which may be in other files.
    fn sha256(&self) -> String {
        let path = match self {
            Self::Bytes(bytes) => return sha256(bytes),
            Self::File(path) => path,
        };
        let beside =
            path.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten();
        let mut files: Vec<PathBuf> = beside
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        let hashes =
            files.iter().map(|file| fs::read(file).map(|bytes| sha256(&bytes)).unwrap_or_default());
        sha256(hashes.collect::<Vec<_>>().join(" ").as_bytes())
    }
}

impl OnnxNetwork {
    /// Builds a session for this shape, on devices that need one per shape.
    pub(super) fn build_for_shape(&mut self, shape: Shape) -> Result<()> {
        let Some(per_shape) = &mut self.per_shape else { return Ok(()) };
        if per_shape.shape == Some(shape) {
            return Ok(());
        }
        per_shape.shape = None;
        let sizes = self.types.sizes(&self.interface, shape);
        let key = Key::default()
            .with("network", per_shape.graph.sha256())
            .with("shape", format!("{shape:?} {sizes:?}"))
            .with("numbers", self.types.output.element.to_string())
            .with("flags", "fp16")
            .with("runtime", self.runtime.build())
            .with("libraries", nvidia::loaded().join(" "))
            .with("driver", nvidia::driver().unwrap_or_default())
            .with("gpu", format!("{} {}", per_shape.options.device, nvidia::gpus().join(" ")));
        // Without a cache folder, the engine is built for this run only.
        let place = engines::folder().map(|root| CacheEntry::open(&root, key)).transpose();
        let (place, engine) = match place {
            Ok(None) => (
                None,
                Engine::NotCached("there is no folder for it; set HOME or XDG_CACHE_HOME".into()),
            ),
            Ok(Some(place)) if place.is_to_be_built() => (Some(place), Engine::Built),
            Ok(place) => (place, Engine::Found),
            Err(error) => (None, Engine::NotCached(error.to_string())),
        };
        per_shape.engine = engine;
        let (runtime, graph, options) =
            (Arc::clone(&self.runtime), Arc::clone(&per_shape.graph), per_shape.options);
        let model = self.model.clone();
        (self.session, per_shape.place) = watch::load(&self.model, move || {
            let special =
                SessionOverrides { sizes, engines: place.as_ref(), ..SessionOverrides::default() };
            let built = build(&runtime, graph.source(), options, &special);
            Ok((built.map_err(|cause| refused(&model, options, cause))?, place))
        })?;
        per_shape.shape = Some(shape);
        Ok(())
    }
}
