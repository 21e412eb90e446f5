//! Builds ONNX Runtime's sessions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ort::session::Session;
use ort::session::builder::{AutoDevicePolicy, GraphOptimizationLevel};

use super::{ModelSource, SessionOptions};
use crate::error::Error;
use crate::machine;
use crate::network::device::Device;
use crate::network::engines::CacheEntry;
use crate::network::optimized;
use crate::network::runtime::Runtime;
use crate::setting::{ALL_ON_DEVICE, DEVICE, MAX_MEMORY};

/// The threads per core that are of use: more would only wait for each other.
pub const THREADS_PER_CORE: usize = 8;

/// The highest [`SessionOptions::threads`] that is of use: [`THREADS_PER_CORE`] for each core that
/// this process may use.
pub fn max_threads() -> usize {
    THREADS_PER_CORE * std::thread::available_parallelism().map_or(1, usize::from)
}

/// The number of threads for [`SessionOptions::threads`] `= 0`.
pub fn default_threads() -> usize {
    if let Some(cores) = machine::fast_cores() {
        return cores.len();
    }
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    num_cpus::get_physical().clamp(1, allowed)
}

/// How a session differs from others with equal options.
#[derive(Debug, Default)]
pub(super) struct SessionOverrides<'a> {
    /// Only the inputs and outputs are inspected; the session never runs.
    pub(super) inspect_only: bool,
    /// The sizes of the free axes, by name.
    pub(super) sizes: BTreeMap<String, i64>,
    /// The cache entry of the engine.
    pub(super) engines: Option<&'a CacheEntry>,
    /// The prefix of profile file names.
    pub(super) profile: Option<PathBuf>,
    /// The graph has been optimized already.
    pub(super) is_optimized: bool,
    /// The folder to which the optimized graph is saved.
    pub(super) save_optimized: Option<&'a Path>,
}

/// Whether ONNX Runtime failed to allocate memory.
pub(in crate::network) fn is_out_of_memory(cause: &ort::Error) -> bool {
    ["Failed to allocate memory", "std::bad_alloc"]
        .iter()
        .any(|words| cause.message().contains(words))
}

/// Whether a graph was accepted, but could not be saved in `folder`, which then is in most of the
/// messages.
pub(in crate::network) fn is_not_saved(cause: &ort::Error, folder: &Path) -> bool {
    let message = cause.message();
    message.contains(&*folder.to_string_lossy())
        || ["Failed to write", "Protobuf serialization failed"]
            .iter()
            .any(|words| message.contains(words))
}

/// A session on the CPU for inputs of any shape.
pub(in crate::network) fn build_plain(
    runtime: &Runtime,
    source: ModelSource<'_>,
    options: SessionOptions,
) -> ort::Result<Session> {
    let options = SessionOptions { device: Device::Cpu, ..options };
    build(runtime, source, options, &SessionOverrides::default())
}

/// A session for inputs of any shape. `is_optimized` is for graphs that were saved by
/// [`save_optimized`].
pub(in crate::network) fn build_graph(
    runtime: &Runtime,
    source: ModelSource<'_>,
    options: SessionOptions,
    is_optimized: bool,
) -> ort::Result<Session> {
    build(runtime, source, options, &SessionOverrides { is_optimized, ..Default::default() })
}

/// Loads the graph in a file and saves it, as it is after optimization, in a folder.
pub(in crate::network) fn save_optimized(
    runtime: &Runtime,
    file: &Path,
    folder: &Path,
    options: SessionOptions,
) -> ort::Result<()> {
    let overrides = SessionOverrides { save_optimized: Some(folder), ..Default::default() };
    build(runtime, ModelSource::File(file), options, &overrides).map(drop)
}

/// The error for a session that could not be built.
pub(in crate::network) fn refused(
    model: &str,
    options: SessionOptions,
    cause: ort::Error,
) -> Error {
    if options.device != Device::Cpu {
        let whole = if options.disable_cpu_fallback {
            format!(
                ", or leave out {ALL_ON_DEVICE}, so that the CPU runs the operators that it lacks"
            )
        } else {
            String::new()
        };
        let problem = format!("it does not run {model} ({cause}); try {DEVICE} cpu{whole}");
        return Error::Device { device: options.device.to_string(), problem };
    }
    if is_out_of_memory(&cause) {
        let problem =
            format!("model {model}: loading it failed for lack of memory; raise {MAX_MEMORY}");
        return Error::Evaluation { problem, source: Some(Box::new(cause)) };
    }
    Error::model_from(
        model,
        "ONNX Runtime does not accept it; expected an ONNX file whose operators it has",
        cause,
    )
}

pub(super) fn build(
    runtime: &Runtime,
    source: ModelSource<'_>,
    options: SessionOptions,
    special: &SessionOverrides<'_>,
) -> ort::Result<Session> {
    let threads = if options.threads == 0 { default_threads() } else { options.threads };
    let level = if special.inspect_only || special.is_optimized {
        GraphOptimizationLevel::Disable
    } else {
        GraphOptimizationLevel::All
    };
    let mut builder = Session::builder(runtime.environment())?
        // Otherwise ONNX Runtime would choose the device.
        .with_auto_device(AutoDevicePolicy::PreferCPU)?
        .with_optimization_level(level)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        // The memory pattern is a second copy of all activations, laid out on the first run, and
        // gives no measurable speed. At 1920x1080 it used 230 of 615 MiB.
        .with_memory_pattern(false)?;
    if options.sleep_when_idle {
        builder = builder.with_intra_op_spinning(false)?;
    }
    if options.threads == 0
        && let Some(cores) = machine::fast_cores()
        && cores.len() > 1
    {
        builder =
            builder.with_config_entry("session.intra_op_thread_affinities", affinities(&cores))?;
    }
    if options.device != Device::Cpu && options.disable_cpu_fallback && !special.inspect_only {
        builder = builder.with_disable_cpu_fallback()?;
    }
    if !special.inspect_only {
        let configure = options.device.provider().configure;
        builder = configure(builder, runtime, options.device, special.engines)?;
    }
    for (name, size) in &special.sizes {
        builder = builder.with_dimension_override(name, *size)?;
    }
    if let Some(path) = &special.profile {
        builder = builder.with_profiling(path)?;
    }
    if let Some(folder) = special.save_optimized {
        let prefix = "session.optimized_model_external_initializers";
        builder = builder
            .with_optimized_model_path(folder.join(optimized::GRAPH))?
            .with_config_entry(format!("{prefix}_file_name"), optimized::WEIGHTS)?
            // Smaller ones stay in the graph.
            .with_config_entry(format!("{prefix}_min_size_in_bytes"), "1024")?
            .with_config_entry("session.save_external_prepacked_constant_initializers", "1")?;
    }
    match source {
        ModelSource::Bytes(bytes) => builder.commit_from_memory(bytes),
        ModelSource::File(path) => builder.commit_from_file(path),
    }
}

/// The cores of a session's threads in ONNX Runtime's format: one list for each thread but the
/// caller's, of cores counted from 1. Each thread may move between all of them.
fn affinities(cores: &[usize]) -> String {
    let list = cores.iter().map(|core| (core + 1).to_string()).collect::<Vec<_>>().join(",");
    vec![list; cores.len().saturating_sub(1)].join(";")
}

#[cfg(test)]
mod tests {
    use super::affinities;

    #[test]
    fn worker_threads_share_the_fast_cores() {
        assert_eq!(affinities(&[4, 5, 6]), "5,6,7;5,6,7");
        assert_eq!(affinities(&[0, 1]), "1,2");
    }
}
