//! The networks of a pipeline that are loaded: one at a time, or as many as the memory limit
//! allows.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::machine;
use crate::model::{
    Links, MAX_GRAPH_BYTES, ModelFolder, Precision, external_files, find_inside, find_weights,
};
use crate::network::{
    Device, Interface, ModelSource, OnnxNetwork, OptimizedGraph, Runtime, SessionOptions,
    TensorGraph,
};
use crate::setting::MAX_MEMORY;
use crate::task::{Budget, TileChoice};

/// How a pipeline runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextToImageOptions {
    /// How its networks run. Default: on the CPU, with a thread per physical core.
    pub session: SessionOptions,
    /// Which files are taken where a part has several: `model_fp16.onnx` for `F16`,
    /// `model_int8.onnx` for `Int8`. A part without such a file runs its `model.onnx`. Default:
    /// `F32`.
    pub precision: Precision,
    /// How a decoder is run in tiles. Default: the fastest that fit the memory limit.
    pub tile: TileChoice,
    /// Maximum memory of the whole process, in bytes. Default: none; networks then stay loaded
    /// within what the machine has available, and tiles fit into a quarter of its memory.
    pub max_memory: Option<u64>,
    /// Which networks stay loaded after use. Default: all.
    pub retention: Retention,
}

impl TextToImageOptions {
    pub(super) fn budget(&self) -> Budget {
        self.max_memory.map_or_else(Budget::default, |max_memory| Budget { max_memory })
    }
}

/// Which networks of a pipeline stay loaded after use, if the memory limit allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// All of them, for further images of other prompts.
    #[default]
    All,
    /// All but the text encoders, for further images of the same prompts.
    ExceptTextEncoders,
    /// None of them: only one image is generated.
    None,
}

/// A network whose optimized graph is in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedGraph {
    /// Its file in the pipeline's folder.
    pub file: String,
    /// What was written, in bytes; `None` if it was there before.
    pub bytes: Option<u64>,
}

/// Names of the files of a part in a precision.
fn variants(precision: Precision) -> &'static [&'static str] {
    match precision {
        Precision::F32 => &[],
        Precision::F16 => &["model_fp16.onnx", "model_f16.onnx"],
        Precision::Int8 => &["model_int8.onnx", "model_quantized.onnx"],
    }
}

/// The file of that network of a folder in `precision`, or `file` itself if there is none.
pub(crate) fn variant(folder: &ModelFolder, file: &str, precision: Precision) -> String {
    let beside = |name| Path::new(file).with_file_name(name).display().to_string();
    let found = variants(precision).iter().map(beside).find(|name| folder.contains(name));
    found.unwrap_or_else(|| file.to_owned())
}

/// A loaded network that is not in use.
#[derive(Debug)]
enum Idle {
    Graph(TensorGraph),
    Decoder(Box<OnnxNetwork>),
}

/// Loads the networks of a folder, and keeps those that are given back while there is room.
#[derive(Debug)]
pub(super) struct NetworkPool {
    runtime: Arc<Runtime>,
    folder: ModelFolder,
    options: TextToImageOptions,
    /// Networks that are not in use, with their files and sizes in bytes, the least recently used
    /// first.
    idle: Vec<(String, u64, Idle)>,
    /// The bytes of networks whose size was asked for, by file, so that each graph is read once for
    /// it.
    sizes: RefCell<BTreeMap<String, u64>>,
    /// How many networks have been loaded.
    loads: usize,
    /// The time that loading took of networks whose optimized graphs could have been saved.
    unprepared: Duration,
    /// Measures the memory that the process has, in bytes.
    resident: fn() -> u64,
}

impl NetworkPool {
    pub(super) fn new(
        runtime: &Arc<Runtime>,
        folder: &ModelFolder,
        options: TextToImageOptions,
    ) -> Self {
        let (runtime, folder) = (Arc::clone(runtime), folder.clone());
        let resident = machine::resident_memory;
        let (idle, sizes) = (Vec::new(), RefCell::default());
        Self {
            runtime,
            folder,
            options,
            idle,
            sizes,
            loads: 0,
            unprepared: Duration::ZERO,
            resident,
        }
    }

    pub(super) fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    pub(super) fn options(&self) -> &TextToImageOptions {
        &self.options
    }

    /// How many networks have been loaded since the pipeline was opened.
    pub(super) fn loads(&self) -> usize {
        self.loads
    }

    /// The time that loading took of networks whose optimized graphs could have been saved.
    pub(super) fn unprepared(&self) -> Duration {
        self.unprepared
    }

    /// The network in this file, loaded unless it still is.
    ///
    /// # Errors
    /// [`Error::Model`] when it is missing or ONNX Runtime does not accept it.
    pub(super) fn graph(&mut self, file: &str) -> Result<TensorGraph> {
        if let Some(Idle::Graph(graph)) = self.idle(file) {
            return Ok(graph);
        }
        let files = self.prepare(file)?;
        let (model, options) = (files.name.clone(), self.options.session);
        let optimized = self.optimized(&files);
        if let Some(optimized) = optimized.as_ref().filter(|optimized| optimized.is_saved())
            && let Ok(graph) =
                TensorGraph::open_optimized(&self.runtime, &model, optimized, options)
        {
            return Ok(graph);
        }
        let begun = Instant::now();
        let graph = TensorGraph::open(&self.runtime, &model, files.source(), options)?;
        if optimized.is_some() {
            self.unprepared += begun.elapsed();
        }
        Ok(graph)
    }

    /// Saves the optimized graph of the network in this file, unless it is in the cache.
    ///
    /// # Errors
    /// As for [`OptimizedGraph::save`], and [`Error::Usage`] where there is no cache for it.
    pub(super) fn save_optimized(&mut self, file: &str) -> Result<SavedGraph> {
        let files = self.prepare(file)?;
        let optimized = self.optimized(&files).ok_or_else(|| {
            Error::usage(
                "optimized graphs are saved for the CPU alone, in the user's cache; set HOME \
                 or XDG_CACHE_HOME",
            )
        })?;
        let file = self.variant(file);
        if optimized.is_saved() {
            return Ok(SavedGraph { file, bytes: None });
        }
        let bytes = optimized.save(&self.runtime, self.options.session)?;
        Ok(SavedGraph { file, bytes: Some(bytes) })
    }

    /// The place of the optimized graph of a network.
    fn optimized(&self, files: &NetworkFiles) -> Option<OptimizedGraph> {
        let Origin::Disk { graph, weights } = &files.origin else { return None };
        OptimizedGraph::of(&self.runtime, graph, weights, self.options.session)
    }

    /// The decoder in this file, loaded unless it still is.
    ///
    /// # Errors
    /// As for [`graph`](Self::graph).
    pub(super) fn decoder(&mut self, file: &str, interface: Interface) -> Result<OnnxNetwork> {
        if let Some(Idle::Decoder(network)) = self.idle(file) {
            return Ok(*network);
        }
        let files = self.prepare(file)?;
        let session = self.options.session;
        OnnxNetwork::load(&self.runtime, &files.name, files.source(), interface, session)
    }

    /// Keeps a network that another image needs, too.
    pub(super) fn give_back(&mut self, file: &str, mut graph: TensorGraph) {
        if self.options.retention != Retention::None {
            // What it was conditioned on is not.
            drop(graph.take_constants());
            self.keep(file, Idle::Graph(graph));
        }
    }

    /// Keeps a text encoder that another prompt needs, too.
    pub(super) fn give_back_encoder(&mut self, file: &str, graph: TensorGraph) {
        if self.options.retention == Retention::All {
            self.keep(file, Idle::Graph(graph));
        }
    }

    /// Keeps a decoder that another image needs, too.
    pub(super) fn give_back_decoder(&mut self, file: &str, network: OnnxNetwork) {
        if self.options.retention != Retention::None {
            self.keep(file, Idle::Decoder(Box::new(network)));
        }
    }

    /// Unloads idle networks, the least recently used first, until the process can take `bytes`
    /// more within `limit`.
    pub(super) fn make_room(&mut self, bytes: u64, limit: u64) {
        while !self.idle.is_empty() && self.held().saturating_add(bytes) > limit {
            self.idle.remove(0);
        }
    }

    /// Whether all of these networks fit together, so that none is loaded twice.
    pub(super) fn fit_together<'a>(&self, files: impl IntoIterator<Item = &'a str>) -> bool {
        let is_idle = |file: &str| self.idle.iter().any(|(name, ..)| name == file);
        let files = files.into_iter().filter(|file| !is_idle(file));
        let bytes: u64 = files.filter_map(|file| self.size(file)).sum();
        self.options.retention != Retention::None
            && self.held().saturating_add(bytes) <= for_networks(self.limit())
    }

    /// Checks that each of these networks alone fits the memory limit, before any is loaded.
    ///
    /// # Errors
    /// [`Error::Usage`] with the size of the first that does not.
    pub(super) fn check<'a>(&self, files: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let (limit, held) = (self.limit(), self.held_without_idle());
        for file in files {
            let variant = self.variant(file);
            // A file that is missing is reported when it is loaded.
            let Some(size) = self.size(file) else { continue };
            let is_half = variants(Precision::F16).iter().any(|name| variant.ends_with(name));
            let is_converted = is_half && self.options.session.device == Device::Cpu;
            let needed = if is_converted { size.saturating_mul(7) / 2 } else { size };
            if held.saturating_add(needed) <= limit || self.is_prepared(&variant) {
                continue;
            }
            let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
            let what = if is_converted {
                format!("takes about {} MiB to load in f16 on a CPU", mebibytes(needed))
            } else {
                format!("has {} MiB of weights", mebibytes(size))
            };
            let smaller = match self.options.precision {
                Precision::Int8 => "",
                _ => ", take int8 weights",
            };
            let whose = if self.options.max_memory.is_some() { "limit" } else { "machine" };
            return Err(Error::usage(format!(
                "{}/{variant} {what}, and {} of the {whose}'s {} MiB are left for it; raise {MAX_MEMORY}\
                 {smaller}, or save its optimized graph by `eddy prepare`, so that the weights \
                 stay in their file",
                self.folder,
                mebibytes(limit.saturating_sub(held)),
                mebibytes(limit)
            )));
        }
        Ok(())
    }

    /// Whether the optimized graph of a network is in the cache, so that its weights are mapped.
    fn is_prepared(&self, variant: &str) -> bool {
        let files = find_graph(&self.folder, variant).ok();
        let optimized = files.and_then(|files| self.optimized(&files));
        optimized.is_some_and(|optimized| optimized.is_saved())
    }

    /// Takes an idle network out.
    fn idle(&mut self, file: &str) -> Option<Idle> {
        let at = self.idle.iter().position(|(name, ..)| name == file)?;
        Some(self.idle.remove(at).2)
    }

    fn keep(&mut self, file: &str, network: Idle) {
        self.idle.retain(|(name, ..)| name != file);
        let size = self.size(file).unwrap_or(0);
        self.idle.push((file.to_owned(), size, network));
    }

    /// The files of a network that is to be loaded, with its weights checked, and room for it.
    fn prepare(&mut self, file: &str) -> Result<NetworkFiles> {
        let file = self.variant(file);
        let files = find_graph(&self.folder, &file)?;
        let size = self.size(&file).unwrap_or(0);
        self.make_room(size, for_networks(self.limit()));
        self.loads += 1;
        Ok(files)
    }

    /// The file of that network in the requested precision, or itself.
    fn variant(&self, file: &str) -> String {
        variant(&self.folder, file, self.options.precision)
    }

    /// Whether any of these networks has a file in the requested precision.
    pub(super) fn has_precision<'a>(&self, files: impl IntoIterator<Item = &'a str>) -> bool {
        self.options.precision == Precision::F32
            || files.into_iter().any(|file| self.variant(file) != file)
    }

    /// The bytes of a network's graph and weights.
    fn size(&self, file: &str) -> Option<u64> {
        let file = self.variant(file);
        if let Some(size) = self.sizes.borrow().get(&file) {
            return Some(*size);
        }
        let size = self.measure(&file)?;
        self.sizes.borrow_mut().insert(file, size);
        Some(size)
    }

    fn measure(&self, file: &str) -> Option<u64> {
        /// A larger graph has its weights within.
        const LARGEST_WITH_FILES: u64 = 32 << 20;
        let Some(folder) = self.folder.path() else {
            return self.folder.read(file, MAX_GRAPH_BYTES).ok().map(|bytes| bytes.len() as u64);
        };
        let path = find_inside(folder, file, Links::Cache).ok()?;
        let own = fs::metadata(&path).ok()?.len();
        if own > LARGEST_WITH_FILES {
            return Some(own);
        }
        let beside = folder.join(file);
        let weights = external_files(&fs::read(&path).ok()?).into_iter().filter_map(|name| {
            let path = find_inside(beside.parent()?, &name, Links::Cache).ok()?;
            Some(fs::metadata(path).ok()?.len())
        });
        Some(own + weights.sum::<u64>())
    }

    /// The memory that the process may take.
    fn limit(&self) -> u64 {
        let available = || (self.resident)().saturating_add(machine::available_memory());
        self.options.max_memory.unwrap_or_else(available)
    }

    /// The memory that the process has, at least that of its idle networks.
    fn held(&self) -> u64 {
        (self.resident)().max(self.idle.iter().map(|(_, size, _)| size).sum())
    }

    fn held_without_idle(&self) -> u64 {
        self.held().saturating_sub(self.idle.iter().map(|(_, size, _)| size).sum())
    }
}

/// The part of a memory limit up to which networks are loaded. The rest is for their evaluations.
fn for_networks(limit: u64) -> u64 {
    limit - limit / 4
}

/// The files of a network.
struct NetworkFiles {
    /// The network in messages.
    name: String,
    origin: Origin,
}

/// Where ONNX Runtime reads a network.
enum Origin {
    Bundled(Vec<u8>),
    Disk {
        graph: PathBuf,
        /// The files beside the graph that have its weights.
        weights: Vec<PathBuf>,
    },
}

impl NetworkFiles {
    fn source(&self) -> ModelSource<'_> {
        match &self.origin {
            Origin::Bundled(bytes) => ModelSource::Bytes(bytes),
            Origin::Disk { graph, .. } => ModelSource::File(graph),
        }
    }
}

/// The files of a network in a folder, with its weights checked.
fn find_graph(folder: &ModelFolder, file: &str) -> Result<NetworkFiles> {
    let model = folder.to_string();
    let bytes = folder.read(file, MAX_GRAPH_BYTES).map_err(|cause| {
        Error::model_from(&model, format!("its {file} cannot be read; export it again"), cause)
    })?;
    let name = format!("{folder}/{file}");
    let Some(path) = folder.path() else {
        return Ok(NetworkFiles { name, origin: Origin::Bundled(bytes) });
    };
    // Weights lie beside the name in the folder, even if that is a link.
    let graph = path.join(file);
    find_weights(&bytes, graph.parent().unwrap_or(path), Links::Cache, &model)?;
    let weights = external_files(&bytes);
    let weights = weights.iter().map(|name| graph.with_file_name(name)).collect();
    Ok(NetworkFiles { name, origin: Origin::Disk { graph, weights } })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{NetworkPool, Retention, TextToImageOptions, for_networks};
    use crate::error::Result;
    use crate::network::{Library, Runtime};

    const UNET: &str = "unet/model.onnx";
    const TEXT: &str = "text_encoder/model.onnx";

    /// A pool whose process holds nothing but networks.
    fn pool(max_memory: u64, retention: Retention) -> Result<NetworkPool> {
        let runtime = Runtime::load(&Library::Embedded)?;
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pipelines/text/folders/sd15");
        let max_memory = Some(max_memory);
        let options = TextToImageOptions { max_memory, retention, ..TextToImageOptions::default() };
        let mut pool = NetworkPool::new(&runtime, &Path::new(folder).into(), options);
        pool.resident = || 0;
        Ok(pool)
    }

    /// How many networks are loaded for two images.
    fn loads(max_memory: u64, retention: Retention) -> Result<usize> {
        let mut pool = pool(max_memory, retention)?;
        for _ in 0..2 {
            let text = pool.graph(TEXT)?;
            pool.give_back_encoder(TEXT, text);
            let unet = pool.graph(UNET)?;
            pool.give_back(UNET, unet);
        }
        Ok(pool.loads())
    }

    #[test]
    fn networks_stay_loaded_while_there_is_memory() -> Result<()> {
        let sizes = pool(1 << 30, Retention::All)?;
        let [unet, text] = [UNET, TEXT].map(|file| sizes.size(file).unwrap_or(0));
        assert!(unet > 10_000 && text > 10_000, "{unet} {text}");
        let of_both = 4 * (unet + text) / 3 + 4;
        assert!(for_networks(of_both) >= unet + text);
        assert_eq!(loads(of_both, Retention::All)?, 2);
        assert_eq!(loads(of_both - 16, Retention::All)?, 4, "one at a time");
        assert_eq!(
            loads(of_both, Retention::ExceptTextEncoders)?,
            3,
            "the text encoder is unloaded"
        );
        assert_eq!(loads(of_both, Retention::None)?, 4);
        assert!(pool(of_both, Retention::ExceptTextEncoders)?.fit_together([UNET, TEXT]));
        assert!(!pool(of_both - 16, Retention::ExceptTextEncoders)?.fit_together([UNET, TEXT]));
        Ok(())
    }

    #[test]
    fn a_network_larger_than_the_memory_is_refused_before_it_is_loaded() -> Result<()> {
        let fits = pool(1 << 30, Retention::None)?;
        fits.check([UNET, TEXT, "gone/model.onnx"])?;
        let size = fits.size(UNET).unwrap_or(0);
        let problem = pool(size - 1, Retention::None)?.check([UNET]).unwrap_err().to_string();
        assert!(problem.contains("unet/model.onnx has 1 MiB of weights, and 1 of"), "{problem}");
        Ok(())
    }
}
