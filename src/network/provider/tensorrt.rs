//! NVIDIA GPUs with TensorRT. Nodes that it does not support run with CUDA.

use ort::ep::{ExecutionProvider, TensorRT};

use super::{Provider, cuda, index};
use crate::network::Device;
use crate::network::device::ProbeDepth;

pub(in crate::network) static TENSORRT: Provider = Provider {
    name: "tensorrt",
    suffix: "[:N]",
    parse: |suffix| index(suffix).map(Device::TensorRt),
    is_automatic: true,
    is_built: Some(TensorRT::is_available),
    build: "onnxruntime-gpu",
    parts: &["shared", "tensorrt"],
    configure: |builder, _, device, engines| {
        let mut tensorrt = tensorrt(device);
        if let Some(place) = engines {
            tensorrt = tensorrt
                .with_engine_cache(true)
                .with_engine_cache_path(place.engines().display())
                .with_timing_cache(true)
                .with_timing_cache_path(place.timings().display());
        }
        Ok(builder.with_execution_providers([
            tensorrt.build().error_on_failure(),
            cuda::dispatch(device),
        ])?)
    },
    probe_fn: Some(|builder, device, depth| {
        // Subgraphs smaller than this run with CUDA.
        let least = if depth == ProbeDepth::Quick { 2 } else { 1 };
        let tensorrt = tensorrt(device).with_min_subgraph_size(least).build().error_on_failure();
        Ok(builder.with_execution_providers([tensorrt, cuda::dispatch(device)])?)
    }),
    has_own_memory: true,
    has_fixed_shapes: true,
};

fn tensorrt(device: Device) -> TensorRT {
    // f16 kernels are used if the graph is f16; an f32 graph stays f32.
    TensorRT::default().with_device_id(device.index().unwrap_or(0)).with_fp16(true)
}
