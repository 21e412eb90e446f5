//! What kinds of devices there are: execution providers of ONNX Runtime, a file for each, and a line in [`ALL`].

mod cpu;
mod cuda;
mod openvino;
mod tensorrt;

use ort::ep::ExecutionProviderDispatch;

pub use openvino::Target as OpenVinoTarget;

use super::device::{Device, ProbeDepth};
use super::engines::CacheEntry;

/// All of them, those first that are faster where they work.
pub(super) static ALL: [&Provider; 4] = [&tensorrt::PROVIDER, &cuda::PROVIDER, &openvino::PROVIDER, &cpu::PROVIDER];

/// A kind of device.
pub(super) struct Provider {
    /// What it is called on the command line, before a colon.
    pub(super) name: &'static str,
    /// What may stand behind the colon, for messages.
    pub(super) suffix: &'static str,
    /// The device of which this stands behind the colon; without one, the first.
    pub(super) parse: fn(Option<&str>) -> Option<Device>,
    /// Whether it is taken without being asked for, where it works.
    pub(super) is_automatic: bool,
    /// Whether the library was built with it; none where every library is.
    pub(super) is_built: Option<fn() -> ort::Result<bool>>,
    /// Where a library comes from that was.
    pub(super) build: &'static str,
    /// What lies beside such a library: `libonnxruntime_providers_{}.so`.
    pub(super) parts: &'static [&'static str],
    /// What a session on it is built with; what is built for good is kept in the place.
    pub(super) configure: fn(Device, Option<&CacheEntry>) -> Vec<ExecutionProviderDispatch>,
    /// What a single node is tried with.
    pub(super) trial: fn(Device, ProbeDepth) -> Vec<ExecutionProviderDispatch>,
    /// Whether its memory is another than the processor's, so that inputs are sent there; networks in f16 are faster on such.
    pub(super) has_own_memory: bool,
    /// Whether sessions are built for one shape each.
    pub(super) has_fixed_shapes: bool,
}

/// The number of a device behind a colon; the first without one.
fn index(text: Option<&str>) -> Option<u32> {
    text.map_or(Some(0), |text| text.parse().ok())
}
