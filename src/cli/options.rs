//! Options that several commands share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use eddy::array;
use eddy::diffusion::Recorded;
use eddy::machine::{self, Sandbox};
use eddy::media::still::Limits;
use eddy::model::{Manifest, NetworkWithFallback, Package, Precision};
use eddy::network::{
    Device, DeviceChoice, Library, OnnxNetwork, Placement, Runtime, SessionOptions,
    THREADS_PER_CORE, default_threads, limit_evaluations, max_threads, too_long,
};
use eddy::task::{Budget, TileChoice};
use ndarray::{Array4, Array5, Axis, IxDyn, Slice};
use serde_json::{Value, json};

use super::console::Console;
use super::interrupt;
use super::sandbox::refused;

/// Whether results are synced to the disk.
#[derive(Debug, Args)]
#[command(next_help_heading = "Input and output")]
pub(crate) struct SyncOption {
    /// Do not sync results to the disk: faster, but a power cut may lose them or leave them empty
    #[arg(long)]
    no_sync: bool,
}

impl SyncOption {
    /// Applies the option. Call this before anything is written.
    pub(crate) fn apply(&self) {
        if self.no_sync {
            eddy::durable::disable_sync();
        }
    }
}

/// The device and runtime of the network.
#[derive(Debug, Args)]
#[command(next_help_heading = "Device")]
pub(crate) struct DeviceOptions {
    /// `auto` is the first of tensorrt, cuda and cpu that works; openvino[:cpu|gpu|npu] and
    /// plugin[:N] must be requested; all but cpu and plugin need --runtime
    #[arg(
        long,
        value_name = "auto|cpu|cuda[:N]|tensorrt[:N]|openvino[:D]|plugin[:N]",
        default_value = "auto"
    )]
    device: DeviceChoice,

    /// Disable the fallback to the CPU: of `auto` where no GPU works, and of single operators that
    /// the device lacks. A named device that does not work is an error in any case
    #[arg(long)]
    require_device: bool,

    /// Load this libonnxruntime.so (or the one in this folder) in place of the embedded one [env:
    /// ORT_DYLIB_PATH]
    #[arg(long, value_name = "LIB")]
    runtime: Option<PathBuf>,

    /// Register this plugin provider library with ONNX Runtime, and run on its first device;
    /// others by `--device plugin:N`
    #[arg(long, value_name = "LIB")]
    ep_library: Option<PathBuf>,

    /// Intra-op threads, at most 8 per core; 0 is one per physical core, or one per fast core if
    /// cores differ in speed
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,

    /// Lower the process priority, 0 to 19
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=19))]
    nice: Option<i32>,

    /// Time limit for loading a network, and for one evaluation of it; none by default
    #[arg(long, value_name = "SECONDS", value_parser = timeout)]
    timeout: Option<Duration>,
}

fn timeout(text: &str) -> Result<Duration, &'static str> {
    /// 31 years.
    const MOST: f64 = 1e9;
    let seconds = text.parse().ok().filter(|seconds| (0.001..=MOST).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or("expected seconds, 0.001 or more")
}

impl DeviceOptions {
    pub(crate) fn library(&self) -> Library {
        Library::choose(self.runtime.clone())
    }

    /// Adds the library to a sandbox.
    ///
    /// # Errors
    /// [`eddy::Error::Usage`] for plugins, and for devices other than the CPU.
    pub(crate) fn confine(&self, sandbox: Sandbox) -> eddy::Result<Sandbox> {
        if self.ep_library.is_some() {
            return Err(refused("--ep-library", "whose devices are out of reach"));
        }
        if !matches!(self.device, DeviceChoice::Auto | DeviceChoice::Named(Device::Cpu)) {
            return Err(refused("that --device", "which is out of reach"));
        }
        Ok(match self.library() {
            Library::File(path) => sandbox.model(&path),
            _ => sandbox,
        })
    }

    /// Opens the library and chooses the device, which is reported if there was a choice.
    pub(crate) fn open(&self, console: Console) -> eddy::Result<Opened> {
        let opened = self.place(self.runtime()?)?;
        if opened.runtime.file().is_some() && self.device == DeviceChoice::Auto {
            console.note_unless_json(format!("runs on {}", opened.placement));
        }
        Ok(opened)
    }

    /// Opens the library and limits the memory of this process, so that a network cannot exceed
    /// --max-memory. Memory of a GPU's driver is mapped beyond what it uses and is not limited.
    pub(crate) fn open_within(
        &self,
        memory: &MemoryOptions,
        console: Console,
    ) -> eddy::Result<Opened> {
        let opened = self.open(console)?;
        if let Some(bytes) = memory.requested().filter(|_| !opened.device().is_gpu()) {
            let threads = if self.threads == 0 { default_threads() } else { self.threads };
            // The threads of up to four networks, and our own. ONNX Runtime waits forever for a
            // thread that has no memory for its stack.
            let threads = 4 * threads + 16;
            // Without the limit of the kernel, only our own allocations keep to it.
            let _ = machine::limit_allocations(bytes, threads);
        }
        Ok(opened)
    }

    /// Chooses the device.
    pub(crate) fn place(&self, runtime: Arc<Runtime>) -> eddy::Result<Opened> {
        let device = match (self.device, &self.ep_library) {
            (DeviceChoice::Auto, Some(_)) => DeviceChoice::Named(Device::Plugin(0)),
            (device, _) => device,
        };
        let placement = runtime.choose(device, self.require_device)?;
        if let Some(limit) = self.timeout {
            limit_evaluations(limit);
        }
        Ok(Opened {
            runtime,
            placement,
            threads: self.threads,
            disable_cpu_fallback: self.require_device,
            sleep_when_idle: false,
            timeout: self.timeout,
        })
    }

    /// Opens the library, and that of a plugin, without choosing a device.
    pub(crate) fn runtime(&self) -> eddy::Result<Arc<Runtime>> {
        self.lower_priority()?;
        let runtime = Runtime::load(&self.library())?;
        if let Some(library) = &self.ep_library {
            runtime.register_plugin(library)?;
        }
        Ok(runtime)
    }
}

impl DeviceOptions {
    /// Applies --nice. Threads and programs that start later inherit the priority.
    pub(crate) fn lower_priority(&self) -> eddy::Result<()> {
        let Some(nice) = self.nice else { return Ok(()) };
        let lowered = rustix::process::nice(nice);
        lowered.map(drop).map_err(|cause| eddy::Error::usage(format!("--nice {nice}: {cause}")))
    }

    /// These options as arguments of a program that this one starts, which inherits --nice.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                arguments.extend([name.into(), value]);
            }
        };
        if let DeviceChoice::Named(device) = self.device {
            add("--device", Some(device.to_string().into()));
        }
        add("--runtime", self.runtime.clone().map(PathBuf::into_os_string));
        add("--ep-library", self.ep_library.clone().map(PathBuf::into_os_string));
        add("--threads", Some(self.threads.to_string().into()));
        add("--timeout", self.timeout.map(|limit| limit.as_secs_f64().to_string().into()));
        arguments.extend(self.require_device.then(|| "--require-device".into()));
        arguments
    }

    /// The number of threads; 0 is automatic.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }
}

fn threads(text: &str) -> Result<usize, String> {
    let most = max_threads();
    let expected =
        || format!("expected 0 to {most}, {THREADS_PER_CORE} for each core that there is here");
    text.parse().ok().filter(|threads| *threads <= most).ok_or_else(expected)
}

/// An open library and the chosen device.
pub(crate) struct Opened {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) placement: Placement,
    threads: usize,
    disable_cpu_fallback: bool,
    /// Whether threads sleep between evaluations.
    pub(crate) sleep_when_idle: bool,
    timeout: Option<Duration>,
}

impl Opened {
    /// Loads a network called `model` with `load`. A malicious graph may load forever, so the first
    /// signal ends the process at once, and so does --timeout.
    pub(crate) fn load<T>(
        &self,
        model: &str,
        load: impl FnOnce(&Arc<Runtime>, SessionOptions) -> eddy::Result<T>,
    ) -> eddy::Result<T> {
        let _opening = self.guard_loading(model);
        load(&self.runtime, self.session())
    }

    /// Loads the network of a package like [`load`](Self::load).
    pub(crate) fn network(
        &self,
        package: &Package,
        precision: Precision,
    ) -> eddy::Result<OnnxNetwork> {
        self.load(&package.manifest.name, |runtime, options| {
            package.load(runtime, precision, options)
        })
    }

    /// Loads the network of a package with its f32 file as a fallback.
    pub(crate) fn network_with_fallback<'p>(
        &self,
        package: &'p Package,
        precision: Precision,
    ) -> eddy::Result<NetworkWithFallback<'p>> {
        self.load(&package.manifest.name, |runtime, options| {
            package.load_with_fallback(runtime, precision, options)
        })
    }

    /// The decoder of a package that has one.
    pub(crate) fn decoder(&self, package: &Package) -> eddy::Result<Option<OnnxNetwork>> {
        self.load(&package.manifest.name, |runtime, options| package.load_decoder(runtime, options))
    }

    pub(crate) fn device(&self) -> Device {
        self.placement.device
    }

    /// How networks run.
    pub(crate) fn session(&self) -> SessionOptions {
        let Self { threads, disable_cpu_fallback, sleep_when_idle, .. } = *self;
        SessionOptions { threads, device: self.device(), disable_cpu_fallback, sleep_when_idle }
    }

    /// Marks that networks are being loaded, like [`load`](Self::load).
    pub(crate) fn guard_loading(&self, model: &str) -> interrupt::OpeningGuard {
        interrupt::guard_opening(self.timeout.map(|limit| (limit, too_long(model, limit))))
    }
}

/// The precision of the network.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct PrecisionOption {
    /// The numeric precision in which the network runs; `auto` is f32 on a CPU, where f16 is
    /// slower, and f16 on a GPU
    #[arg(long, default_value = "auto", value_name = "auto|f32|f16|int8")]
    precision: PrecisionChoice,
}

impl PrecisionOption {
    /// The requested precision, or the one of the package that suits the device.
    pub(crate) fn on(&self, device: Device, package: &Package) -> Precision {
        self.requested().unwrap_or_else(|| package.default_precision(device))
    }

    pub(crate) fn requested(&self) -> Option<Precision> {
        self.precision.0
    }
}

/// Which files of a package to process, for commands that process all of them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct FilesOption {
    /// Inspect this precision of a package only; `auto` inspects all
    #[arg(long, default_value = "auto", value_name = "auto|f32|f16|int8")]
    precision: PrecisionChoice,
}

impl FilesOption {
    pub(crate) fn of(&self, package: &Package) -> eddy::Result<Vec<Precision>> {
        package.precisions(self.precision.0)
    }

    pub(crate) fn wants_any(&self, manifest: &Manifest) -> bool {
        self.precision.0.is_none_or(|precision| manifest.files.contains_key(&precision))
    }

    /// Whether files of this precision are wanted.
    pub(crate) fn wants(&self, precision: Precision) -> bool {
        self.precision.0.is_none_or(|wanted| wanted == precision)
    }
}

/// A precision, or automatic.
#[derive(Clone, Copy, Debug)]
struct PrecisionChoice(Option<Precision>);

impl FromStr for PrecisionChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "auto" => Ok(Self(None)),
            _ => text
                .parse()
                .map(|precision| Self(Some(precision)))
                .map_err(|_| "expected auto, f32, f16 or int8"),
        }
    }
}

/// The steps and the noise of a sampler.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingOptions {
    /// Sampler steps: 1 has the highest PSNR, a few trade PSNR for texture
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: Option<u16>,

    /// Stochasticity of each step: 0 is DDIM, 1 is DDPM
    #[arg(long, value_name = "ETA", default_value_t = 0.0)]
    pub(crate) eta: f64,

    /// Random seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
}

impl SamplingOptions {
    pub(crate) fn steps(&self) -> Option<usize> {
        self.steps.map(usize::from)
    }
}

/// Noise that another program generated, in place of the random seed's.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct NoiseOptions {
    /// The initial noise, in place of the seed's: a .npy file of floats with a standard deviation
    /// of 1, [images, C, H, W], in the network's channels and size (`latents` in diffusers)
    #[arg(long, value_name = "X.npy")]
    initial_noise: Option<PathBuf>,

    /// Noise of the steps, in place of the seed's: a .npy file of floats, [steps, images, C, H, W]
    #[arg(long, value_name = "Z.npy")]
    noise: Option<PathBuf>,
}

impl NoiseOptions {
    pub(crate) fn is_given(&self) -> bool {
        self.initial_noise.is_some() || self.noise.is_some()
    }

    /// The files that the noise comes from.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.initial_noise.iter().chain(&self.noise).cloned().collect()
    }

    /// The files, by the options that name them.
    pub(crate) fn named_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [("initial_noise", &self.initial_noise), ("noise", &self.noise)];
        files.into_iter().filter_map(|(key, path)| Some((key, path.as_deref()?)))
    }

    /// All values in order, for pipelines that draw noise of several shapes; `None` if no file is
    /// given.
    pub(crate) fn values(&self) -> eddy::Result<Option<Vec<f32>>> {
        let mut values = Vec::new();
        for file in self.files() {
            values.extend(array::read::<IxDyn>(&file)?);
        }
        Ok(self.is_given().then_some(values))
    }

    pub(crate) fn read(&self) -> eddy::Result<GivenNoise> {
        Ok(GivenNoise {
            initial: self.initial_noise.as_deref().map(array::read).transpose()?,
            fresh: self.noise.as_deref().map(array::read).transpose()?,
        })
    }
}

/// Noise generated by another program.
pub(crate) struct GivenNoise {
    initial: Option<Array4<f32>>,
    fresh: Option<Array5<f32>>,
}

impl GivenNoise {
    /// The initial noise and the noise of the steps for `many` images from `first` on.
    pub(crate) fn of(
        &self,
        first: usize,
        many: usize,
    ) -> eddy::Result<(Option<Array4<f32>>, Option<Recorded>)> {
        let there = |images: usize, what: &str| {
            if first + many <= images {
                return Ok(Slice::from(first..first + many));
            }
            Err(eddy::Error::usage(format!(
                "the {what} noise is of {images} images, {} or more are generated; give noise for \
                 each",
                first + many
            )))
        };
        let initial = match &self.initial {
            None => None,
            Some(noise) => {
                Some(noise.slice_axis(Axis(0), there(noise.len_of(Axis(0)), "initial")?).to_owned())
            }
        };
        let fresh = match &self.fresh {
            None => None,
            Some(noise) => {
                let own = noise.slice_axis(Axis(1), there(noise.len_of(Axis(1)), "fresh")?);
                Some(recorded(own.as_standard_layout().into_owned())?)
            }
        };
        Ok((initial, fresh))
    }
}

/// Noise of `[steps, images, channels, height, width]` as a source for samplers.
pub(crate) fn recorded(noise: Array5<f32>) -> eddy::Result<Recorded> {
    let (steps, batch, channels, height, width) = noise.dim();
    Recorded::new(steps, [batch, channels, height, width], noise.into_raw_vec_and_offset().0)
}

/// Tiles and memory.
#[derive(Debug, Args)]
#[command(next_help_heading = "Memory")]
pub(crate) struct MemoryOptions {
    /// Longest side of a tile in pixels; 0 chooses the fastest that fits --max-memory
    #[arg(short = 't', long, value_name = "PX", default_value_t = 0)]
    tile: usize,

    /// Overlap of neighboring tiles in pixels; by default twice the receptive field
    #[arg(long, value_name = "PX")]
    tile_overlap: Option<usize>,

    /// Memory limit of the process, such as 512M or 2G. Tiles are chosen to fit it, and the run
    /// fails if a network allocates more. It also decides how many networks of a pipeline stay
    /// loaded. By default tiles fit a quarter of the machine's memory, and allocations are not
    /// limited
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<Budget>,
}

impl MemoryOptions {
    pub(crate) fn tile(&self) -> TileChoice {
        TileChoice { limit: (self.tile > 0).then_some(self.tile), overlap: self.tile_overlap }
    }

    /// The limits for reading images. A limit too small for any network fails later, with the
    /// amount that is needed.
    pub(crate) fn limits(&self) -> Limits {
        const SMALL_IMAGE: u64 = 64 << 20;
        Limits::within(self.budget().max_memory.max(machine::resident_memory() + SMALL_IMAGE))
    }

    /// The memory limit, if one is given.
    pub(crate) fn requested(&self) -> Option<u64> {
        self.max_memory.map(|budget| budget.max_memory)
    }

    /// These options as arguments of a program that this one starts.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let options = [
            ("--tile", Some(self.tile as u64)),
            ("--tile-overlap", self.tile_overlap.map(|overlap| overlap as u64)),
            ("--max-memory", self.requested()),
        ];
        let given = options.into_iter().filter_map(|(name, value)| Some((name, value?)));
        given.flat_map(|(name, value)| [name.into(), value.to_string().into()]).collect()
    }

    /// Adds the given options to a record, since the seams of tiles depend on it.
    pub(crate) fn record(&self, add: &mut dyn FnMut(&str, Value)) {
        add("tile", json!((self.tile > 0).then_some(self.tile)));
        add("tile_overlap", json!(self.tile_overlap));
        add("max_memory", json!(self.requested()));
    }

    pub(crate) fn budget(&self) -> Budget {
        self.max_memory.unwrap_or_default()
    }
}

/// A number of bytes, written like a memory budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteSize(pub(crate) u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(|Budget { max_memory }| Self(max_memory))
    }
}

/// Width and height, as `640x480`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('x')
            .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
        match parsed {
            Some((width, height))
                if (1..=65_535).contains(&width) && (1..=65_535).contains(&height) =>
            {
                Ok(Self { width, height })
            }
            _ => Err("expected WIDTHxHEIGHT in pixels, such as 640x480".into()),
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// Two numbers, as `0,1`.
pub(crate) fn pair(text: &str) -> Result<[f64; 2], &'static str> {
    let parsed = text
        .split_once(',')
        .and_then(|(one, other)| Some([one.parse().ok()?, other.parse().ok()?]));
    parsed.ok_or("expected two numbers, such as 0,1")
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn parses_sizes_of_frames() {
        assert_eq!("640x480".parse(), Ok(Size { width: 640, height: 480 }));
        assert!("640".parse::<Size>().is_err() && "0x5".parse::<Size>().is_err());
    }
}
