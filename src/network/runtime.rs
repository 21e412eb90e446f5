//! Opening the ONNX Runtime library, and the process's only environment.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use ort::logging::{LogLevel, LoggerFunction};
use rustix::fs::{MemfdFlags, memfd_create};

use super::elf;
use crate::error::{Error, Result};
use crate::machine::process;
use crate::setting::{PLUGIN, RUNTIME};

/// The library embedded in the binary, in parts: where each begins in the file, and its packed
/// bytes.
static EMBEDDED: &[(u64, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/onnxruntime.rs"));

/// The version of the embedded ONNX Runtime.
pub const EMBEDDED_VERSION: &str = env!("EDDY_ONNXRUNTIME_VERSION");
/// The SHA-256 of the embedded library, in hexadecimal digits.
pub const EMBEDDED_SHA256: &str = env!("EDDY_ONNXRUNTIME_SHA256");

/// The oldest supported ONNX Runtime, `1.23`: the `api-23` feature of `ort`.
pub const OLDEST_MINOR_VERSION: u32 = 23;

/// Where ONNX Runtime comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Library {
    /// The library embedded in the binary (CPU only).
    #[default]
    Embedded,
    /// A `libonnxruntime.so`, or a folder that contains one.
    File(PathBuf),
}

impl Library {
    /// The requested library, or the one that `ORT_DYLIB_PATH` names, or the embedded one.
    pub fn choose(requested: Option<PathBuf>) -> Self {
        let named = || {
            std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from)
        };
        requested.or_else(named).map_or(Self::Embedded, Self::File)
    }
}

/// An open ONNX Runtime. A process opens one and never closes it.
#[derive(Debug)]
pub struct Runtime {
    environment: ort::environment::Environment,
    library: String,
    /// The library's file; none for the embedded one.
    file: Option<PathBuf>,
    minor_version: Option<u32>,
    logged_errors: LoggedErrors,
    plugin: OnceLock<Plugin>,
}

/// A library with a provider.
#[derive(Debug)]
struct Plugin {
    path: PathBuf,
    /// ONNX Runtime's names of its providers; none if they offer no device here.
    providers: Vec<String>,
}

/// The library's logged errors since they were last cleared. Only the log says why a device does
/// not work.
type LoggedErrors = Arc<Mutex<Vec<String>>>;

/// Enough lines to find the reason.
const MAX_LOGGED_ERRORS: usize = 16;

impl Runtime {
    /// Opens the library, with telemetry off and logging silent, or returns the runtime that is
    /// already open.
    ///
    /// Call this before other threads start: it sets the environment variables that turn telemetry
    /// off.
    ///
    /// # Errors
    /// [`Error::Runtime`] when the library is missing, for another machine, too old or not ONNX
    /// Runtime, or when another library is already open.
    pub fn load(library: &Library) -> Result<Arc<Self>> {
        static OPEN: OnceLock<Arc<Runtime>> = OnceLock::new();
        static LOCK: Mutex<()> = Mutex::new(());
        let _guard = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let requested = match library {
            Library::Embedded => embedded_name(),
            Library::File(path) => path.display().to_string(),
        };
        if let Some(open) = OPEN.get() {
            if open.library == requested {
                return Ok(Arc::clone(open));
            }
            return Err(fail(
                &requested,
                format!("this process already runs {}; one library per process", open.library),
            ));
        }
        process::forbid_telemetry();
        let runtime = Arc::new(match library {
            Library::Embedded => Self::open_embedded(requested)?,
            Library::File(path) => {
                let file = find_in_folder(path, &requested)?;
                Self { file: Some(file.clone()), ..Self::open(&file, requested)? }
            }
        });
        Ok(Arc::clone(OPEN.get_or_init(|| runtime)))
    }

    /// The environment in which sessions are built.
    pub(super) fn environment(&self) -> &ort::environment::Environment {
        &self.environment
    }

    /// The library's file; none for the embedded one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Registers the providers in a library of their own, whose devices are
    /// [`Device::Plugin`](crate::network::Device::Plugin). A process registers one such library.
    ///
    /// # Errors
    /// [`Error::Runtime`] when the library is missing, for another machine, no plugin, or for
    /// another version of ONNX Runtime, and when another one is registered already.
    pub fn register_plugin(&self, path: &Path) -> Result<()> {
        let failed = |problem: String| fail(&path.display().to_string(), problem);
        if let Some(plugin) = self.plugin.get() {
            if plugin.path == path {
                return Ok(());
            }
            return Err(failed(format!(
                "this process already uses the plugin {}; one per process",
                plugin.path.display()
            )));
        }
        if let Some(problem) = elf::problem(path) {
            return Err(failed(problem));
        }
        // ONNX Runtime does not search the working folder.
        let file = fs::canonicalize(path).map_err(|cause| Error::Runtime {
            library: path.display().to_string(),
            problem: "it cannot be opened".into(),
            source: Some(Box::new(cause)),
        })?;
        let before: Vec<String> = self.providers().collect();
        self.environment.register_ep_library("eddy", &file).map_err(|cause| Error::Runtime {
            library: path.display().to_string(),
            problem: format!(
                "ONNX Runtime {} does not register it as a provider plugin",
                self.version()
            ),
            source: Some(Box::new(cause)),
        })?;
        let providers = self.providers().filter(|provider| !before.contains(provider)).collect();
        // The lock of `load` is not held, so another thread may have been faster; both are
        // registered then.
        let _ = self.plugin.set(Plugin { path: path.to_owned(), providers });
        Ok(())
    }

    /// ONNX Runtime's name of the provider of each device.
    fn providers(&self) -> impl Iterator<Item = String> {
        self.environment.devices().filter_map(|device| device.ep().ok().map(str::to_owned))
    }

    /// ONNX Runtime's names of the providers of the registered plugin that offer a device here.
    pub fn plugin_providers(&self) -> &[String] {
        self.plugin.get().map_or(&[], |plugin| &plugin.providers)
    }

    /// The devices of the registered plugin.
    pub(super) fn plugin_devices(&self) -> impl Iterator<Item = ort::device::Device<'_>> {
        self.plugin_providers().iter().flat_map(|provider| self.devices_of(provider))
    }

    /// The devices of the provider that ONNX Runtime calls `name`.
    pub(super) fn devices_of(&self, name: &str) -> impl Iterator<Item = ort::device::Device<'_>> {
        self.environment
            .devices()
            .filter(move |device| device.ep().is_ok_and(|provider| provider == name))
    }

    /// Why the plugin has no device of that number.
    pub(super) fn no_plugin_device(&self, number: u32) -> String {
        let Some(plugin) = self.plugin.get() else {
            return format!("no plugin is registered; name its library by {PLUGIN}");
        };
        let count = self.plugin_devices().count();
        if count == 0 {
            return format!(
                "{} offers no device on this machine with ONNX Runtime {}; it may need a newer one \
                 ({RUNTIME}), or other hardware",
                plugin.path.display(),
                self.version()
            );
        }
        let there = if count == 1 {
            "only device 0".to_owned()
        } else {
            format!("devices 0 to {}", count - 1)
        };
        format!("{} offers {there} on this machine, not device {number}", plugin.path.display())
    }

    /// The library's logged errors since [`clear_logged_errors`](Self::clear_logged_errors).
    pub(super) fn logged_errors(&self) -> Vec<String> {
        self.logged_errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(super) fn clear_logged_errors(&self) {
        self.logged_errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }

    /// The library's path, or a name for the embedded one.
    pub fn library(&self) -> &str {
        &self.library
    }

    /// The library's version, as far as it reports it: `1.28`.
    pub fn version(&self) -> String {
        self.minor_version.map_or_else(|| "unknown".to_owned(), |minor| format!("1.{minor}"))
    }

    /// The library's build information.
    pub fn build(&self) -> &'static str {
        ort::info()
    }

    /// Opens the library from a file in memory, so that one binary suffices and nothing is left
    /// behind. Where `/proc` is not mounted, it uses a temporary file, deleted once the library is
    /// open.
    fn open_embedded(name: String) -> Result<Self> {
        let cannot = |cause: std::io::Error| Error::Runtime {
            library: name.clone(),
            problem: if cause.kind() == std::io::ErrorKind::FileTooLarge {
                "the embedded library is larger than a file may be here; raise the limit (ulimit \
                 -f)"
            } else {
                "the embedded library could not be unpacked; free some memory or disk"
            }
            .into(),
            source: Some(Box::new(cause)),
        };
        if let Ok(descriptor) = memfd_create("libonnxruntime.so", MemfdFlags::CLOEXEC) {
            let file = fs::File::from(descriptor);
            let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            if path.exists() {
                unpack(&file).map_err(cannot)?;
                return Self::open(&path, name);
            }
        }
        let file =
            tempfile::Builder::new().prefix("eddy-").suffix(".so").tempfile().map_err(cannot)?;
        unpack(file.as_file()).map_err(cannot)?;
        Self::open(file.path(), name)
    }

    fn open(path: &Path, library: String) -> Result<Self> {
        if let Some(problem) = elf::problem(path) {
            return Err(fail(&library, problem));
        }
        // `probe` comes first. Where it fails, `init_from` reports why, and a library that is not
        // ONNX Runtime never reaches a call that panics.
        let minor_version = ort::util::probe(path);
        let builder = ort::init_from(path).map_err(|error| explain(&library, &error))?;
        let logged_errors = LoggedErrors::default();
        let environment = builder
            .with_name("eddy")
            .with_telemetry(false)
            .with_logger(listener(&logged_errors))
            .build()
            .map_err(|cause| Error::Runtime {
                library: library.clone(),
                problem: "it was opened, but did not start".into(),
                source: Some(Box::new(cause)),
            })?;
        Ok(Self {
            environment,
            library,
            file: None,
            minor_version,
            logged_errors,
            plugin: OnceLock::new(),
        })
    }
}

/// Keeps the errors of the library's log and drops the rest.
fn listener(logged_errors: &LoggedErrors) -> LoggerFunction {
    let logged_errors = Arc::clone(logged_errors);
    Arc::new(move |level, _, _, _, message| {
        if level >= LogLevel::Error {
            let mut lines = logged_errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if lines.len() < MAX_LOGGED_ERRORS {
                lines.push(message.to_owned());
            }
        }
    })
}

/// Writes the parts of the embedded library side by side, and each in pieces, so that memory never
/// holds it twice.
fn unpack(file: &fs::File) -> std::io::Result<()> {
    std::thread::scope(|scope| {
        let unpack = |&(at, packed): &(u64, &'static [u8])| {
            let mut place = std::io::BufWriter::with_capacity(1 << 17, At { file, at });
            std::io::copy(&mut zstd::Decoder::new(packed)?, &mut place)?;
            std::io::Write::flush(&mut place)?;
            process::release_static(packed);
            Ok(())
        };
        let (first, others) = EMBEDDED.split_first().ok_or(std::io::ErrorKind::UnexpectedEof)?;
        // Without a thread, a part is unpacked here.
        let threads: Vec<_> = others
            .iter()
            .map(|part| {
                let body = move || unpack(part);
                std::thread::Builder::new().spawn_scoped(scope, body).map_err(|_| part)
            })
            .collect();
        unpack(first)?;
        threads.into_iter().try_for_each(|thread| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())),
            Err(part) => unpack(part),
        })
    })
}

/// A position in a file, after which data is written.
struct At<'a> {
    file: &'a fs::File,
    at: u64,
}

impl std::io::Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write_at(bytes, self.at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn embedded_name() -> String {
    format!("this binary (embedded, {EMBEDDED_VERSION})")
}

fn fail(library: &str, problem: String) -> Error {
    Error::Runtime { library: library.to_owned(), problem, source: None }
}

/// `path` itself, or the `libonnxruntime.so*` in the folder `path`.
fn find_in_folder(path: &Path, requested: &str) -> Result<PathBuf> {
    let metadata = fs::metadata(path).map_err(|cause| {
        let name_one = "name a libonnxruntime.so or a folder that holds one";
        if cause.kind() == std::io::ErrorKind::NotFound {
            return fail(requested, format!("there is no such file; {name_one}"));
        }
        let problem = format!("it cannot be inspected; {name_one}");
        Error::Runtime { library: requested.to_owned(), problem, source: Some(Box::new(cause)) }
    })?;
    if metadata.is_file() {
        // `ort` would first look for a relative path beside the binary.
        return fs::canonicalize(path).map_err(|cause| Error::Runtime {
            library: requested.to_owned(),
            problem: "its path cannot be resolved".into(),
            source: Some(Box::new(cause)),
        });
    }
    let mut found: Vec<PathBuf> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"))
        })
        .collect();
    found.sort();
    let file = found.into_iter().next();
    let file = file.ok_or_else(|| {
        fail(requested, "the folder holds no libonnxruntime.so; name the folder that does".into())
    })?;
    find_in_folder(&file, requested)
}

/// Turns a loader's error into a message that says what to do.
fn explain(library: &str, error: &ort::LoadDynamicError) -> Error {
    use ort::LoadDynamicError;
    let problem = match error {
        LoadDynamicError::Dlopen { error, .. } => {
            // The error itself only says "dlopen failed"; its source has the reason.
            let reason = std::error::Error::source(error)
                .map_or_else(|| error.to_string(), ToString::to_string);
            format!(
                "the system's loader refused it ({reason}); install what it misses, or bring a \
                 build for this machine and its glibc"
            )
        }
        LoadDynamicError::MissingApi { .. } => {
            "it is a library, but no ONNX Runtime (it exports no OrtGetApiBase); name a \
             libonnxruntime.so"
                .into()
        }
        LoadDynamicError::BadVersion { version_str, .. } => {
            format!("it is version {version_str}; Eddy needs 1.{OLDEST_MINOR_VERSION} or newer")
        }
        other => format!("it could not be opened ({other})"),
    };
    fail(library, problem)
}
