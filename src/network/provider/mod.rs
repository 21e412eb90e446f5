//! The kinds of devices: execution providers of ONNX Runtime, one file each, and one line in [`ALL`].

mod cpu;
mod cuda;
mod openvino;
mod tensorrt;

use ort::ep::ExecutionProviderDispatch;

pub use openvino::Target as OpenVinoTarget;
pub(super) use {cpu::CPU, cuda::CUDA, openvino::OPENVINO, tensorrt::TENSORRT};

use super::device::{Device, ProbeDepth};
use super::engines::CacheEntry;

/// All kinds of devices, the faster ones first.
pub(super) static ALL: [&Provider; 4] = [&TENSORRT, &CUDA, &OPENVINO, &CPU];

/// A kind of device.
pub(super) struct Provider {
    /// The name on the command line, before a colon.
    pub(super) name: &'static str,
    /// The allowed values after the colon, for messages.
    pub(super) suffix: &'static str,
    /// Parses the value after the colon; without a value, the first device.
    pub(super) parse: fn(Option<&str>) -> Option<Device>,
    /// Whether the device is chosen automatically if it works.
    pub(super) is_automatic: bool,
    /// Whether the library was built with the provider; none if every library has it.
    pub(super) is_built: Option<fn() -> ort::Result<bool>>,
    /// Where to get a library with the provider.
    pub(super) build: &'static str,
    /// The files beside such a library: `libonnxruntime_providers_{}.so`.
    pub(super) parts: &'static [&'static str],
    /// The providers of a session. Compiled engines are stored in the cache entry.
    pub(super) configure: fn(Device, Option<&CacheEntry>) -> Vec<ExecutionProviderDispatch>,
    /// The providers of a probe with a single node.
    pub(super) trial: fn(Device, ProbeDepth) -> Vec<ExecutionProviderDispatch>,
    /// Whether the device has its own memory, so that inputs are copied to it. Networks in f16 are
    /// faster there.
    pub(super) has_own_memory: bool,
    /// Whether each session is built for one shape.
    pub(super) has_fixed_shapes: bool,
}

/// The device index after a colon; 0 without one.
fn index(text: Option<&str>) -> Option<u32> {
    text.map_or(Some(0), |text| text.parse().ok())
}
