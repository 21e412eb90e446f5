//! NVIDIA GPUs with CUDA and cuDNN.

use ort::ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch};

use super::{Provider, index};
use crate::network::Device;

pub(in crate::network) static CUDA: Provider = Provider {
    name: "cuda",
    suffix: "[:N]",
    parse: |suffix| index(suffix).map(Device::Cuda),
    is_automatic: true,
    is_built: Some(CUDA::is_available),
    build: "onnxruntime-gpu",
    parts: &["shared", "cuda"],
    configure: |builder, _, device, _| Ok(builder.with_execution_providers([dispatch(device)])?),
    probe_fn: None,
    has_own_memory: true,
    has_fixed_shapes: false,
};

pub(super) fn dispatch(device: Device) -> ExecutionProviderDispatch {
    // TF32 rounds to 19 bits, which is not f32. For speed there is f16.
    CUDA::default()
        .with_device_id(device.index().unwrap_or(0))
        .with_tf32(false)
        .build()
        .error_on_failure()
}
