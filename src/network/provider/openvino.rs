//! Intel CPUs, GPUs and NPUs with OpenVINO.

use ort::ep::{ExecutionProvider, ExecutionProviderDispatch, OpenVINO};

use super::Provider;
use crate::network::Device;

pub(in crate::network) static OPENVINO: Provider = Provider {
    name: "openvino",
    suffix: "[:cpu|gpu|npu]",
    parse: |suffix| {
        let all = [Target::Cpu, Target::Gpu, Target::Npu];
        let target = suffix.map_or(Some(Target::Cpu), |suffix| {
            all.into_iter().find(|target| target.name() == suffix)
        });
        target.map(Device::OpenVino)
    },
    is_automatic: false,
    is_built: Some(OpenVINO::is_available),
    build: "onnxruntime-openvino",
    parts: &["shared", "openvino"],
    configure: |builder, _, device, _| Ok(builder.with_execution_providers([dispatch(device)])?),
    probe_fn: None,
    has_own_memory: false,
    has_fixed_shapes: false,
};

/// The device that OpenVINO runs a network on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// An x86-64 CPU, Intel's or another.
    #[default]
    Cpu,
    /// An Intel GPU.
    Gpu,
    /// An Intel neural processing unit.
    Npu,
}

impl Target {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Npu => "npu",
        }
    }
}

fn dispatch(device: Device) -> ExecutionProviderDispatch {
    let target = if let Device::OpenVino(target) = device { target } else { Target::Cpu };
    // Sizes change from image to image, and results must match f32.
    let openvino = OpenVINO::default()
        .with_device_type(target.name().to_uppercase())
        .with_precision("ACCURACY");
    openvino.build().error_on_failure()
}
