//! `eddy doctor`.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use eddy::machine::{self, ComputeCapability, CudaCode, nvidia};
use eddy::media::stream;
use eddy::model::{Package, bundled_names, verify};
use eddy::network::{Device, DeviceChoice, Library, ProbeDepth, default_threads};
use serde_json::{Value, json};

use super::console::{Console, with_flags};
use super::options::{DeviceOptions, Opened};

/// Diagnose this machine
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    console: Console,
}

/// Run one node on a device and report the error: in its own process, which a broken driver may
/// crash
#[derive(Debug, Args)]
pub(crate) struct ProbeDevice {
    /// The device
    #[arg(value_name = "DEVICE")]
    which: DeviceChoice,

    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    console: Console,
}

/// Longer than TensorRT takes to build an engine for one node, and than a GPU takes to wake up.
const PROBE_TIMEOUT: Duration = Duration::from_secs(120);

impl ProbeDevice {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let DeviceChoice::Named(device) = self.which else { return Ok(()) };
        match self.device.runtime()?.try_device(device, ProbeDepth::Thorough) {
            Ok(()) => Ok(()),
            // The doctor parses the bare reason.
            Err(problem) => self.console.result(problem, &Value::Null),
        }
    }
}

/// The report, as text and as JSON.
struct Page {
    lines: Vec<String>,
    record: Value,
}

impl Page {
    fn line(&mut self, name: &str, text: impl AsRef<str>) {
        self.lines.push(format!("{name:<12}{}", text.as_ref()));
    }

    /// The GPUs that the library's CUDA code is for, and whether this machine's is one of them.
    fn cuda_code(&mut self, code: &CudaCode, gpu: Option<ComputeCapability>) {
        let list = |prefix: &str, numbers: &BTreeSet<u32>| {
            numbers.iter().map(|number| format!("{prefix}{number}")).collect::<Vec<_>>()
        };
        let names = [list("sm_", &code.machine_code), list("compute_", &code.ptx)].concat();
        let fits = gpu.map(|gpu| code.runs_on(gpu));
        let verdict = match (gpu, fits) {
            (Some(gpu), Some(true)) => format!("; this GPU is sm_{}", gpu.number),
            (Some(gpu), _) => format!(
                "; NOT for this GPU, which is sm_{}: it would end in \"no kernel image\"; take a \
                 build for this board",
                gpu.number
            ),
            (None, _) => String::new(),
        };
        self.line("cuda code", format!("{}{verdict}", names.join(" ")));
        self.record["cuda_code"] = json!({"architectures": names, "runs_on_this_gpu": fits});
    }
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut page = Page { lines: Vec::new(), record: json!({}) };
        machine_page(&mut page);
        nvidia_page(&mut page);
        cameras_page(&mut page);
        let outcome =
            self.library_page(&mut page).and_then(|opened| Self::models_page(&opened, &mut page));
        if let Err(error) = &outcome {
            page.record["problem"] = with_flags(&format!("{error:#}")).into();
        }
        self.console.result(page.lines.join("\n"), &page.record)?;
        outcome
    }

    fn library_page(&self, page: &mut Page) -> anyhow::Result<Opened> {
        let library = match self.device.library() {
            Library::Embedded => "the embedded one".to_owned(),
            Library::File(path) => path.display().to_string(),
        };
        page.record["library"] = library.clone().into();
        let others = runtimes();
        for path in &others {
            let gpu = if has_cuda(path) { ", with CUDA" } else { "" };
            page.line("found", format!("{}{gpu}: eddy doctor --runtime {0}", path.display()));
        }
        page.record["libraries_found"] =
            others.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let started = Instant::now();
        let runtime = self.device.runtime().inspect_err(|_| {
            page.line("runtime", format!("{library}: DOES NOT OPEN (see below)"));
            page.line("", "leave out --runtime and unset ORT_DYLIB_PATH for the embedded one");
        })?;
        let opened = started.elapsed().as_secs_f64() * 1e3;
        page.line(
            "runtime",
            format!("{library}: ONNX Runtime {}, opened in {opened:.0} ms", runtime.version()),
        );
        page.record["onnxruntime"] = runtime.version().into();
        if let Some(code) =
            runtime.file().and_then(|file| CudaCode::of(&file.with_file_name(CUDA_PART)))
        {
            page.cuda_code(&code, nvidia::compute_capability());
        }
        page.record["open_ms"] = opened.into();
        let mut devices = Vec::new();
        let has_plugin = !runtime.plugin_providers().is_empty();
        for device in Device::of_each_kind()
            .filter(|device| has_plugin || !matches!(device, Device::Plugin(_)))
        {
            let started = Instant::now();
            // The embedded library has no driver that could crash the process.
            let outcome = match runtime.file() {
                Some(file) if !matches!(device, Device::Cpu | Device::Plugin(_)) => {
                    probe_in_subprocess(file, device)
                }
                _ => runtime.try_device(device, ProbeDepth::Thorough),
            };
            let ms = started.elapsed().as_secs_f64() * 1e3;
            match &outcome {
                Ok(()) => page.line("device", format!("{device} works (a node ran in {ms:.0} ms)")),
                Err(problem) => page.line("device", format!("{device} does not work: {problem}")),
            }
            devices.push(json!({
                "device": device.to_string(), "works": outcome.is_ok(), "ms": ms,
                "problem": outcome.err().map(|problem| with_flags(&problem)),
            }));
        }
        page.record["devices"] = devices.into();
        Ok(self.device.place(runtime)?)
    }

    fn models_page(opened: &Opened, page: &mut Page) -> anyhow::Result<()> {
        page.line("runs on", opened.placement.device.to_string());
        page.record["device"] = opened.device().to_string().into();
        let mut models = Vec::new();
        for name in bundled_names() {
            let package = Package::find(name)?;
            for precision in package.precisions(None)? {
                let started = Instant::now();
                let verdict =
                    verify(&package, precision, &mut opened.network(&package, precision)?)?;
                let took = started.elapsed().as_secs_f64() * 1e3;
                let outcome = if verdict.passes() {
                    "gives the expected result"
                } else {
                    "GIVES OTHER VALUES than were recorded"
                };
                page.line(
                    "model",
                    format!("{name} {precision}: {outcome} (loaded and run in {took:.0} ms)"),
                );
                models.push(json!({
                    "name": name, "precision": precision.name(), "passes": verdict.passes(),
                    "ms": took,
                }));
                if !verdict.passes() {
                    let problem = format!(
                        "its {precision} file gives other values than were recorded; run `eddy \
                         check` with another --runtime"
                    );
                    return Err(eddy::Error::model(name, problem).into());
                }
            }
        }
        page.record["models"] = models.into();
        Ok(())
    }
}

fn machine_page(page: &mut Page) {
    let mebibytes = |bytes: u64| bytes >> 20;
    let (cpu, features) = (machine::cpu_name(), machine::cpu_features());
    let (threads, memory) = (default_threads(), machine::total_memory());
    let (version, arch, board) =
        (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, machine::board());
    page.line("eddy", format!("{version} for {arch}"));
    if let Some(board) = &board {
        page.line("board", board);
    }
    page.line("CPU", &cpu);
    page.line("features", features.join(" "));
    let fast = machine::fast_cores();
    let which = fast.as_ref().map_or(String::new(), |cores| {
        let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
        format!(", on the fast cores {}", cores.join(" "))
    });
    page.line("threads", format!("{threads} by default{which}"));
    let budget = eddy::task::Budget::default().max_memory;
    page.line(
        "memory",
        format!("{} MiB, of which {} MiB by default", mebibytes(memory), mebibytes(budget)),
    );
    let problems: Vec<String> =
        machine::Health::default().unreported().iter().map(ToString::to_string).collect();
    for problem in &problems {
        page.line("TROUBLE", problem);
    }
    page.record = json!({
        "version": version, "arch": arch, "board": board, "cpu": cpu,
        "features": features, "threads": threads,
        "fast_cores": fast, "memory_bytes": memory, "troubles": problems,
    });
}

fn nvidia_page(page: &mut Page) {
    let (jetpack, driver, gpus, libraries) =
        (nvidia::jetpack(), nvidia::driver(), nvidia::gpus(), nvidia::libraries());
    if let Some(jetpack) = &jetpack {
        page.line("jetpack", jetpack);
    }
    if let Some(driver) = &driver {
        page.line("driver", format!("NVIDIA {driver}"));
    }
    for gpu in &gpus {
        page.line("gpu", gpu);
    }
    if gpus.is_empty() {
        page.line("gpus", "no NVIDIA GPU");
    }
    for nvidia::Library { part, version, path } in &libraries {
        page.line(part, format!("{version}: {}", path.display()));
    }
    let libraries = libraries.iter().map(|nvidia::Library { part, version, path }| {
        json!({"part": part, "version": version, "path": path.to_string_lossy()})
    });
    page.record["nvidia"] = json!({
        "jetpack": jetpack, "driver": driver, "gpus": gpus,
        "libraries": libraries.collect::<Vec<_>>(),
    });
}

fn cameras_page(page: &mut Page) {
    let mut cameras = Vec::new();
    for path in stream::cameras() {
        let (name, text) = match stream::describe(&path) {
            Ok((name, gives)) => {
                let text = format!("{name}, offers {gives}");
                (Some((name, gives)), text)
            }
            Err(error) => (None, error.to_string()),
        };
        page.line("camera", format!("{}: {text}", path.display()));
        let (name, gives) = name.unzip();
        cameras.push(json!({"path": path.to_string_lossy(), "name": name, "gives": gives}));
    }
    if cameras.is_empty() {
        page.line("cameras", "none");
    }
    page.record["cameras"] = cameras.into();
}

/// Probes a device in a separate process.
fn probe_in_subprocess(library: &Path, device: Device) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("it could not be tried ({error})");
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["try-device", &device.to_string(), "--quiet", "--runtime"]).arg(library);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    let started = Instant::now();
    // The output fits into the pipe.
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if started.elapsed() > PROBE_TIMEOUT {
            child.kill().and_then(|()| child.wait().map(drop)).map_err(failed)?;
            return Err(format!(
                "it does not answer within {} s; restart the machine",
                PROBE_TIMEOUT.as_secs()
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let output = child.wait_with_output().map_err(failed)?.stdout;
    let output = String::from_utf8_lossy(&output).trim().to_owned();
    match (status.signal(), output.is_empty()) {
        (Some(signal), _) => Err(format!(
            "it ends the process with signal {signal}; the library, CUDA and the driver do not fit \
             each other: take builds of one CUDA version"
        )),
        (None, false) => Err(output),
        (None, true) if status.success() => Ok(()),
        (None, true) => Err(format!("trying it ended with {status}")),
    }
}

/// ONNX Runtime libraries in the usual locations.
fn runtimes() -> Vec<PathBuf> {
    let home = std::env::var("HOME").unwrap_or_default();
    let places = [
        "/usr/lib".to_owned(),
        "/usr/lib/*".to_owned(),
        "/usr/local/lib".to_owned(),
        "/opt/*/lib".to_owned(),
        "/opt/onnxruntime*".to_owned(),
        "/usr/local/lib/python3*/*-packages/onnxruntime/capi".to_owned(),
        format!("{home}/.local/lib/python3*/site-packages/onnxruntime/capi"),
    ];
    let found = places
        .iter()
        .filter_map(|place| glob::glob(&format!("{place}/libonnxruntime.so*")).ok())
        .flatten()
        .flatten();
    // Several names may link to one file.
    let mut files: Vec<PathBuf> = found.filter_map(|path| path.canonicalize().ok()).collect();
    files.sort();
    files.dedup();
    files
}

/// The file of ONNX Runtime's provider for CUDA, beside the library.
const CUDA_PART: &str = "libonnxruntime_providers_cuda.so";

fn has_cuda(library: &Path) -> bool {
    library.with_file_name(CUDA_PART).exists()
}
