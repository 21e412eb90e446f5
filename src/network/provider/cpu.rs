//! The CPU, which every ONNX Runtime supports.

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
    configure: |builder, runtime, _, _| {
        if runtime.plugin_providers().is_empty() {
            return Ok(builder);
        }
        // ONNX Runtime would prefer a plugin's device, which may be the CPU as well.
        Ok(builder.with_devices(runtime.devices_of("CPUExecutionProvider"), None)?)
    },
    probe_fn: None,
    has_own_memory: false,
    has_fixed_shapes: false,
};
