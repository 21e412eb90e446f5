//! Devices of a provider in a library of its own, which any ONNX Runtime from 1.22 on can register.

use super::{Provider, index};
use crate::network::Device;

pub(in crate::network) static PLUGIN: Provider = Provider {
    name: "plugin",
    suffix: "[:N]",
    parse: |suffix| index(suffix).map(Device::Plugin),
    is_automatic: false,
    is_built: None,
    build: "",
    parts: &[],
    configure: |builder, runtime, device, _| {
        let number = if let Device::Plugin(number) = device { number } else { 0 };
        let device = runtime.plugin_devices().nth(number as usize);
        let device = device.ok_or_else(|| ort::Error::new(runtime.no_plugin_device(number)))?;
        Ok(builder.with_devices([device], None)?)
    },
    probe_fn: None,
    has_own_memory: false,
    has_fixed_shapes: false,
};
