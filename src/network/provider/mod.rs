//! The kinds of devices: execution providers of ONNX Runtime, one file each, and one line in
//! [`ALL`].

mod cpu;
mod cuda;
mod openvino;
mod plugin;
mod tensorrt;

use ort::session::builder::SessionBuilder;

pub use openvino::Target as OpenVinoTarget;
pub(super) use {cpu::CPU, cuda::CUDA, openvino::OPENVINO, plugin::PLUGIN, tensorrt::TENSORRT};

use super::device::{Device, ProbeDepth};
use super::engines::CacheEntry;
use super::runtime::Runtime;

/// All kinds of devices, the faster ones first.
pub(super) static ALL: [&Provider; 5] = [&TENSORRT, &CUDA, &OPENVINO, &PLUGIN, &CPU];

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
    /// Adds the providers to a session. Compiled engines are stored in the cache entry.
    pub(super) configure: Configure,
    /// Adds the providers to a probe with a single node; none if it is like any other session.
    pub(super) probe_fn: Option<ProbeFn>,
    /// Whether the device has its own memory, so that inputs are copied to it. Networks in f16 are
    /// faster there.
    pub(super) has_own_memory: bool,
    /// Whether each session is built for one shape.
    pub(super) has_fixed_shapes: bool,
}

type ProbeFn = fn(SessionBuilder, Device, ProbeDepth) -> ort::Result<SessionBuilder>;

type Configure =
    fn(SessionBuilder, &Runtime, Device, Option<&CacheEntry>) -> ort::Result<SessionBuilder>;

impl Provider {
    /// Adds the providers to a probe with a single node.
    pub(super) fn probe(
        &self,
        builder: SessionBuilder,
        runtime: &Runtime,
        device: Device,
        depth: ProbeDepth,
    ) -> ort::Result<SessionBuilder> {
        match self.probe_fn {
            Some(probe_fn) => probe_fn(builder, device, depth),
            None => (self.configure)(builder, runtime, device, None),
        }
    }
}

/// The device index after a colon; 0 without one.
fn index(text: Option<&str>) -> Option<u32> {
    text.map_or(Some(0), |text| text.parse().ok())
}
