//! The processor, which every ONNX Runtime supports.

use super::Provider;
use crate::network::Device;

pub(in crate::network) static CPU: Provider = Provider {
    name: "cpu",
    suffix: "",
    parse: |suffix| suffix.is_none().then_some(Device::Cpu),
    is_automatic: false,
    is_built: None,
    build: "",
    parts: &[],
    configure: |builder, _, _, _| Ok(builder),
    trial: None,
    has_own_memory: false,
    has_fixed_shapes: false,
};
