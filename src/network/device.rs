//! The devices that networks run on: which of them work on this machine, and why the others do not.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use ort::session::Session;
use ort::value::Tensor;

use super::elf;
use super::provider::{self, OpenVinoTarget, Provider};
use super::runtime::Runtime;
use crate::error::{Error, Result};
use crate::machine::nvidia;
use crate::setting::RUNTIME;

/// A graph of one convolution that doubles four floats, used to probe a device. Convolutions need
/// more libraries than other operators, such as cuDNN.
const CONVOLUTION: &[u8] = b"\
    \x08\x08:e\x0a\x0f\x0a\x01x\x0a\x01w\x12\x01y\x22\x04Conv\x12\x03one*\x13\x08\x01\x08\x01\x08\
    \x01\x08\x01\x10\x01\x22\x04\x00\x00\x00@B\x01wZ\x1b\x0a\x01x\x12\x16\x0a\x14\x08\x01\x12\x10\
    \x0a\x02\x08\x01\x0a\x02\x08\x01\x0a\x02\x08\x02\x0a\x02\x08\x02b\x1b\x0a\x01y\x12\x16\x0a\x14\
    \x08\x01\x12\x10\x0a\x02\x08\x01\x0a\x02\x08\x01\x0a\x02\x08\x02\x0a\x02\x08\x02B\x04\x0a\x00\
    \x10\x0d";

/// The same with a multiplication, for providers that may lack operators.
const MULTIPLICATION: &[u8] = b"\
    \x08\x08:d\x0a\x0e\x0a\x01x\x0a\x01w\x12\x01y\x22\x03Mul\x12\x03one*\x13\x08\x01\x08\x01\x08\
    \x01\x08\x01\x10\x01\x22\x04\x00\x00\x00@B\x01wZ\x1b\x0a\x01x\x12\x16\x0a\x14\x08\x01\x12\x10\
    \x0a\x02\x08\x01\x0a\x02\x08\x01\x0a\x02\x08\x02\x0a\x02\x08\x02b\x1b\x0a\x01y\x12\x16\x0a\x14\
    \x08\x01\x12\x10\x0a\x02\x08\x01\x0a\x02\x08\x01\x0a\x02\x08\x02\x0a\x02\x08\x02B\x04\x0a\x00\
    \x10\x0d";

/// The device that a network runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU, counted from 0, with ONNX Runtime's CUDA provider.
    Cuda(u32),
    /// An NVIDIA GPU, counted from 0, with TensorRT. Nodes that TensorRT does not support run with
    /// CUDA.
    TensorRt(u32),
    /// A device of OpenVINO.
    OpenVino(OpenVinoTarget),
    /// A device, counted from 0, of a provider that [`Runtime::register_plugin`] registered.
    Plugin(u32),
}

impl Device {
    /// Whether the device is a GPU with its own memory, so that inputs are copied to it.
    pub fn is_gpu(self) -> bool {
        self.provider().has_own_memory
    }

    /// Whether each session is built for one shape.
    pub(super) fn has_fixed_shapes(self) -> bool {
        self.provider().has_fixed_shapes
    }

    /// The execution provider of ONNX Runtime for the device.
    pub(super) fn provider(self) -> &'static Provider {
        match self {
            Self::Cpu => &provider::CPU,
            Self::Cuda(_) => &provider::CUDA,
            Self::TensorRt(_) => &provider::TENSORRT,
            Self::OpenVino(_) => &provider::OPENVINO,
            Self::Plugin(_) => &provider::PLUGIN,
        }
    }

    /// The index of the GPU.
    pub(super) fn index(self) -> Option<i32> {
        match self {
            Self::Cpu | Self::OpenVino(_) | Self::Plugin(_) => None,
            Self::Cuda(index) | Self::TensorRt(index) => {
                Some(i32::try_from(index).unwrap_or(i32::MAX))
            }
        }
    }

    /// One device of each kind, in the order in which they are probed.
    pub fn of_each_kind() -> impl Iterator<Item = Self> {
        provider::ALL.into_iter().filter_map(|provider| (provider.parse)(None))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.pad("cpu"),
            Self::Cuda(index) => f.pad(&format!("cuda:{index}")),
            Self::TensorRt(index) => f.pad(&format!("tensorrt:{index}")),
            Self::OpenVino(OpenVinoTarget::Cpu) => f.pad("openvino"),
            Self::Plugin(index) => f.pad(&format!("plugin:{index}")),
            Self::OpenVino(target) => f.pad(&format!("openvino:{}", target.name())),
        }
    }
}

/// The requested device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first of TensorRT, CUDA and the CPU that works.
    #[default]
    Auto,
    /// This device only.
    Named(Device),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let (name, suffix) =
            text.split_once(':').map_or((text, None), |(name, suffix)| (name, Some(suffix)));
        let provider = provider::ALL.into_iter().find(|provider| provider.name == name);
        provider.and_then(|provider| (provider.parse)(suffix)).map(Self::Named).ok_or_else(|| {
            let names: Vec<String> = provider::ALL
                .iter()
                .map(|provider| format!("{}{}", provider.name, provider.suffix))
                .collect();
            format!(
                "expected auto, {}; a GPU that is not the first has a number, as in cuda:1",
                names.join(", ")
            )
        })
    }
}

/// The chosen device, and the preferred devices that do not work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The device that networks run on.
    pub device: Device,
    /// The devices that were rejected, each with the reason.
    pub rejected: Vec<(Device, String)>,
}

impl fmt::Display for Placement {
    /// `cpu (tensorrt:0: libnvinfer.so.10 is missing; ...)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.device)?;
        let mut reasons = self.rejected.iter();
        if let Some((device, problem)) = reasons.next() {
            write!(f, " (not {device}: {problem}")?;
            reasons.try_for_each(|(device, problem)| write!(f, "; not {device}: {problem}"))?;
            write!(f, ")")?;
        }
        Ok(())
    }
}

/// How thoroughly a device is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeDepth {
    /// Loads the provider, finds the device and runs one node there. Builds no TensorRT engine.
    Quick,
    /// Also builds a TensorRT engine for one node, which takes seconds.
    Thorough,
}

impl Runtime {
    /// Chooses the device to run on.
    ///
    /// With `require`, [`DeviceChoice::Auto`] does not fall back to the CPU.
    ///
    /// # Errors
    /// [`Error::Device`] when the named device does not work, or with `require` when no GPU works.
    pub fn choose(&self, choice: DeviceChoice, require: bool) -> Result<Placement> {
        let candidates = match choice {
            DeviceChoice::Named(device) => {
                return match self.try_device(device, ProbeDepth::Quick) {
                    Ok(()) => Ok(Placement { device, rejected: Vec::new() }),
                    Err(problem) => Err(Error::Device { device: device.to_string(), problem }),
                };
            }
            DeviceChoice::Auto => Device::of_each_kind()
                .filter(|device| device.provider().is_automatic)
                .collect::<Vec<_>>(),
        };
        let mut rejected = Vec::new();
        for device in candidates {
            match self.try_device(device, ProbeDepth::Quick) {
                Ok(()) => return Ok(Placement { device, rejected }),
                Err(problem) => rejected.push((device, problem)),
            }
        }
        if require {
            let problems: Vec<String> =
                rejected.iter().map(|(device, problem)| format!("{device}: {problem}")).collect();
            return Err(Error::Device { device: "any GPU".into(), problem: problems.join("; ") });
        }
        Ok(Placement { device: Device::Cpu, rejected })
    }

    /// Runs one node on `device`, without fallback to another.
    ///
    /// # Errors
    /// The reason why the device does not work, and what to do about it.
    pub fn try_device(&self, device: Device, depth: ProbeDepth) -> Result<(), String> {
        self.has_provider(device)?;
        self.clear_logged_errors();
        let run = || -> ort::Result<bool> {
            let mut builder = Session::builder(self.environment())?.with_intra_threads(1)?;
            if device != Device::Cpu {
                builder = builder.with_disable_cpu_fallback()?;
            }
            builder = device.provider().probe(builder, self, device, depth)?;
            let graph =
                if matches!(device, Device::Plugin(_)) { MULTIPLICATION } else { CONVOLUTION };
            let mut session = builder.commit_from_memory(graph)?;
            let x = Tensor::from_array(([1_usize, 1, 2, 2], vec![-1.0_f32, 0.0, 0.5, 2.0]))?;
            let outputs = session.run(ort::inputs!["x" => x])?;
            let y = outputs["y"].try_extract_tensor::<f32>()?.1;
            Ok(y == [-2.0, 0.0, 1.0, 4.0])
        };
        match run() {
            Ok(true) => Ok(()),
            Ok(false) => Err(
                "it gives wrong values; update its driver, and check that the library is built \
                     for it"
                    .into(),
            ),
            Err(error) => {
                // The final error often says less than the log before it.
                let mut words = self.logged_errors();
                words.push(error.to_string());
                Err(explain(&words))
            }
        }
    }

    /// Checks that the library was built with a provider for `device`, and that the provider's
    /// files are beside it.
    fn has_provider(&self, device: Device) -> Result<(), String> {
        if let Device::Plugin(number) = device
            && self.plugin_devices().nth(number as usize).is_none()
        {
            return Err(self.no_plugin_device(number));
        }
        let provider = device.provider();
        let Some(is_built) = provider.is_built else { return Ok(()) };
        let Some(file) = self.file() else {
            return Err(format!(
                "the ONNX Runtime inside eddy is for the CPU; name the library of {} by {RUNTIME}",
                provider.build
            ));
        };
        if !is_built().unwrap_or(false) {
            return Err(format!(
                "this ONNX Runtime was built without it; take one from {}",
                provider.build
            ));
        }
        let folder = file.parent().unwrap_or(Path::new("."));
        for part in provider.parts {
            let part = format!("libonnxruntime_providers_{part}.so");
            let path = folder.join(&part);
            if !path.exists() {
                return Err(format!(
                    "{part} is not beside {}; copy the whole folder of the library",
                    file.display()
                ));
            }
            if let Some(problem) = elf::problem(&path) {
                return Err(format!("{part}: {problem}"));
            }
        }
        Ok(())
    }
}

/// Turns ONNX Runtime's messages on a failed device into one that says what to do.
fn explain(words: &[String]) -> String {
    let missing = words.iter().find_map(|text| text.split_once(": cannot open shared object file"));
    if let Some((before, _)) = missing {
        let library = before.rsplit([' ', ':']).next().unwrap_or(before);
        return format!("{library} is missing; {}", remedy(library));
    }
    let text = words.iter().max_by_key(|text| text.len()).map_or("", String::as_str);
    for (sign, remedy) in [
        (
            "no CUDA-capable device",
            "there is no NVIDIA GPU here, or its driver does not run (try nvidia-smi)",
        ),
        (
            "driver version is insufficient",
            "the NVIDIA driver is older than this library's CUDA; update the driver",
        ),
        ("CUDNN", "cuDNN does not start; install the version that this ONNX Runtime is built for"),
        ("invalid device ordinal", "there is no GPU of that number; nvidia-smi -L lists them"),
        ("no kernel image", "the library was not built for this GPU; take a build for this board"),
        ("out of memory", "the GPU is out of memory; end other programs that use it"),
    ] {
        if text.contains(sign) {
            return remedy.to_owned();
        }
    }
    let reason = text.lines().next().unwrap_or_default();
    // The message starts with the path of a source file and the name of a function.
    let reason = reason.rsplit_once("FAIL : ").map_or(reason, |(_, reason)| reason);
    format!("ONNX Runtime says: {}", reason.trim())
}

/// How to install a library of NVIDIA's: the command to type.
fn remedy(library: &str) -> String {
    let (name, version) = library.split_once(".so.").unwrap_or((library, ""));
    let package = match name {
        "libcuda" | "libnvidia-ml" if nvidia::jetpack().is_some() => "nvidia-l4t-cuda".to_owned(),
        "libcuda" | "libnvidia-ml" => {
            return "it comes with NVIDIA's driver: sudo apt install nvidia-driver".into();
        }
        _ if nvidia::jetpack().is_some() => "nvidia-jetpack".to_owned(),
        name if name.starts_with("libcudnn") => format!("cudnn{version}"),
        name if name.starts_with("libnvinfer") || name.starts_with("libnvonnxparser") => {
            format!("libnvinfer{version} libnvinfer-plugin{version} libnvonnxparsers{version}")
        }
        name if name.starts_with("libcublas") || name.starts_with("libcudart") => {
            format!("cuda-libraries-{version}-0")
        }
        name if name.starts_with("libcu") || name.starts_with("libnv") => {
            "cuda-libraries-13-0".to_owned()
        }
        _ => return "install it, or put the folder that holds it into LD_LIBRARY_PATH".into(),
    };
    format!(
        "sudo apt install {package} (from NVIDIA), or put the folder that holds it into \
         LD_LIBRARY_PATH"
    )
}

#[cfg(test)]
mod tests {
    use super::{Device, DeviceChoice, OpenVinoTarget, Placement, explain};

    #[test]
    fn parses_device_names() {
        let named = |device| Ok(DeviceChoice::Named(device));
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cpu".parse(), named(Device::Cpu));
        assert_eq!("cuda".parse(), named(Device::Cuda(0)));
        assert_eq!("tensorrt:3".parse(), named(Device::TensorRt(3)));
        assert_eq!("openvino".parse(), named(Device::OpenVino(OpenVinoTarget::Cpu)));
        assert_eq!("openvino:npu".parse(), named(Device::OpenVino(OpenVinoTarget::Npu)));
        for text in [
            "",
            "gpu",
            "openvino:",
            "openvino:tpu",
            "cpu:0",
            "auto:1",
            "cuda:",
            "cuda:-1",
            "cuda:x",
            "CUDA",
        ] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_the_missing_library() {
        let log = "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1988 \
                   onnxruntime::Provider& onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : \
                   1 : FAIL : Failed to load library /opt/libonnxruntime_providers_cuda.so with \
                   error: libcudnn.so.9: cannot open shared object file: No such file or directory";
        let words = explain(&[log.to_owned(), "it failed".to_owned()]);
        assert!(words.starts_with("libcudnn.so.9 is missing; sudo apt install cudnn9"), "{words}");
        let words =
            explain(&["error: libnvinfer.so.10: cannot open shared object file".to_owned()]);
        assert!(words.contains("apt install libnvinfer10 "), "{words}");
        let words =
            explain(&["CUDA failure 100: no CUDA-capable device is detected ; GPU=-1".to_owned()]);
        assert!(words.contains("nvidia-smi"), "{words}");
        let words = explain(&["[ONNXRuntimeError] : 1 : FAIL : something else\nmore".to_owned()]);
        assert_eq!(words, "ONNX Runtime says: something else");
    }

    #[test]
    fn placement_lists_reasons() {
        let rejected =
            vec![(Device::TensorRt(0), "no".to_owned()), (Device::Cuda(0), "neither".to_owned())];
        let placement = Placement { device: Device::Cpu, rejected };
        assert_eq!(placement.to_string(), "cpu (not tensorrt:0: no; not cuda:0: neither)");
        assert_eq!(Placement::default().to_string(), "cpu");
    }
}
