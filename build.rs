//! Finds ONNX Runtime for the target and hands it to the crate to embed.
//!
//! In this order: the file that `EDDY_ONNXRUNTIME` names; `.cache/onnxruntime/` in this repository;
//! the wheel that `python3 -m pip download` brings, from which the plain C library is taken. All
//! but the first are checked against a pinned SHA-256. It is packed in parts
//! that are unpacked side by side: the binary becomes 16 MB smaller, and a start on a PC no longer.
//!
//! The bundled networks are packed, too, and their f16 files as what they have beside the f32
//! files, which is next to nothing: the weights are the same.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sha2::{Digest, Sha256};

const VERSION: &str = "1.28.0";

/// How hard zstd tries with the runtime. Unpacking takes about as long at any level; packing takes 1
/// second at level 9, and at level 19 takes 12 seconds for 0.9 MB less.
const RUNTIME_LEVEL: i32 = 9;
const RUNTIME_LEVEL_OF_RELEASE: i32 = 19;
/// The logarithm of the memory, in bytes, that each part takes while it is unpacked.
const RUNTIME_WINDOW: u32 = 19;
/// The runtime is packed in so many parts, which are unpacked side by side: a start waits for it.
const RUNTIME_PARTS: usize = 4;
const MODEL_LEVEL: i32 = 3;
/// Of networks and what was recorded of them: more than this gains nothing.
const FILE_LEVEL: i32 = 9;

/// What is known of the library for one target.
struct Library {
    target: &'static str,
    /// The wheel's platform tags, both of which its file name carries.
    platforms: [&'static str; 2],
    /// Of `onnxruntime/capi/libonnxruntime.so.1.28.0` inside the wheel.
    sha256: &'static str,
    /// `e_machine` of the ELF header.
    machine: u16,
}

const LIBRARIES: [Library; 2] = [
    Library {
        target: "x86_64-unknown-linux-gnu",
        platforms: ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"],
        sha256: "aa4079d18f4ea7a5f3a94d80cd4bbe0f2740436626622d64d793803a20381083",
        machine: 62,
    },
    Library {
        target: "aarch64-unknown-linux-gnu",
        platforms: ["manylinux_2_28_aarch64", "manylinux_2_27_aarch64"],
        sha256: "23a37c2994bc273e1d59a4f49af6cba5bf1cfbc29f04907ec27df375aba50a7d",
        machine: 183,
    },
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=EDDY_ONNXRUNTIME");
    // Where models are added.
    println!("cargo::rerun-if-changed=src/model/bundled.rs");
    match find().and_then(|path| pack(&path).map(|()| path)) {
        Ok(path) => {
            println!("cargo::rerun-if-changed={}", path.display());
            // For tests that bring their own runtime.
            println!("cargo::rustc-env=EDDY_EMBEDDED_ONNXRUNTIME={}", path.display());
            println!("cargo::rustc-env=EDDY_ONNXRUNTIME_VERSION={VERSION}");
        }
        Err(problem) => {
            for line in problem.to_string().lines() {
                println!("cargo::error={line}");
            }
        }
    }
}

/// Packs each file of a bundled model.
fn pack_files(folder: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(out)?;
    for file in fs::read_dir(folder)?.filter_map(Result::ok) {
        let name = file.file_name().to_string_lossy().into_owned();
        if file.path().is_dir() {
            pack_files(&file.path(), &out.join(&name))?;
            continue;
        }
        let is_half = name.ends_with("-f16.onnx");
        if is_half || ![".onnx", ".npy", ".toml", ".json"].iter().any(|end| name.ends_with(end)) {
            continue;
        }
        println!("cargo::rerun-if-changed={}", file.path().display());
        let packed = zstd::encode_all(fs::read(file.path())?.as_slice(), FILE_LEVEL)?;
        fs::write(out.join(format!("{name}.zst")), packed)?;
    }
    Ok(())
}

/// Packs what the crate embeds into the folder for build products.
fn pack(runtime: &Path) -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // What the crate includes: where each part begins, and its bytes.
    let mut parts = String::from("[\n");
    let runtime = fs::read(runtime)?;
    println!("cargo::rustc-env=EDDY_ONNXRUNTIME_SHA256={}", sha256(&runtime));
    println!("cargo::rustc-env=EDDY_TARGET={}", env::var("TARGET")?);
    let is_release = env::var("PROFILE")? == "release";
    let level = if is_release { RUNTIME_LEVEL_OF_RELEASE } else { RUNTIME_LEVEL };
    let length = runtime.len().div_ceil(RUNTIME_PARTS);
    for (i, part) in runtime.chunks(length).enumerate() {
        let name = format!("onnxruntime-{i}.zst");
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
        encoder.window_log(RUNTIME_WINDOW)?;
        encoder.write_all(part)?;
        fs::write(out.join(&name), encoder.finish()?)?;
        let begin = i * length;
        parts += &format!(
            "({begin}, include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}\")).as_slice()),\n"
        );
    }
    fs::write(out.join("onnxruntime.rs"), parts + "]\n")?;
    let models = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("models");
    for folder in fs::read_dir(models)?.filter_map(Result::ok) {
        let name = folder.file_name().to_string_lossy().into_owned();
        if ["model.toml", "pipeline.toml"].iter().any(|name| folder.path().join(name).exists()) {
            pack_files(&folder.path(), &out.join(&name))?;
        }
        let half = folder.path().join(format!("{name}-f16.onnx"));
        if !half.exists() {
            continue;
        }
        let whole = folder.path().join(format!("{name}.onnx"));
        println!("cargo::rerun-if-changed={}", whole.display());
        println!("cargo::rerun-if-changed={}", half.display());
        let (whole, half) = (fs::read(whole)?, fs::read(half)?);
        let mut encoder =
            zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), MODEL_LEVEL, &whole)?;
        // It has to see all of the prefix from everywhere.
        encoder.long_distance_matching(true)?;
        encoder.window_log((whole.len() + half.len()).next_power_of_two().ilog2())?;
        encoder.write_all(&half)?;
        fs::write(out.join(format!("{name}-f16.onnx.zst")), encoder.finish()?)?;
    }
    Ok(())
}

fn find() -> Result<PathBuf, Box<dyn Error>> {
    let target = env::var("TARGET")?;
    let Some(library) = LIBRARIES.iter().find(|library| library.target == target) else {
        let known = LIBRARIES.map(|library| library.target).join(", ");
        return Err(
            format!("no ONNX Runtime is known for the target {target}; known are {known}").into()
        );
    };
    if let Some(given) = env::var_os("EDDY_ONNXRUNTIME") {
        let given = fs::canonicalize(&given).map_err(|error| {
            format!("EDDY_ONNXRUNTIME names {}, which cannot be read: {error}", given.display())
        })?;
        check_machine(&given, library)?;
        return Ok(given);
    }
    let folder =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join(".cache/onnxruntime").join(&target);
    let cached = folder.join(format!("libonnxruntime.so.{VERSION}"));
    if cached.exists() {
        check_hash(&cached, library)?;
        return Ok(cached);
    }
    fs::create_dir_all(&folder)?;
    // Downloaded beside its final place and renamed, so that a build stopped half-way leaves
    // nothing that looks whole.
    let work = folder.join(format!("download-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let fetched = fetch(&work, library).and_then(|path| {
        check_hash(&path, library)?;
        Ok(fs::rename(path, &cached)?)
    });
    fs::remove_dir_all(&work)?;
    fetched.map_err(|problem| {
        format!(
            "ONNX Runtime {VERSION} for {target} could not be fetched: {problem}\n\
             Either let `python3 -m pip download onnxruntime=={VERSION}` reach its package index,\n\
             or put the library of that version at {}\n\
             (it is onnxruntime/capi/libonnxruntime.so.{VERSION} inside the wheel, SHA-256 {}),\n\
             or set EDDY_ONNXRUNTIME=/path/to/libonnxruntime.so to embed another build.",
            cached.display(),
            library.sha256
        )
    })?;
    Ok(cached)
}

fn fetch(work: &Path, library: &Library) -> Result<PathBuf, Box<dyn Error>> {
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version",
        "3.11",
    ]);
    for platform in library.platforms {
        pip.args(["--platform", platform]);
    }
    run(pip.arg("--dest").arg(work).arg(format!("onnxruntime=={VERSION}")))?;
    let wheel = fs::read_dir(work)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip brought no wheel")?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(work))?;
    Ok(work.join(format!("onnxruntime/capi/libonnxruntime.so.{VERSION}")))
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|error| format!("{shown} did not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    Err(format!("{shown} failed: {last}").into())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_hash(path: &Path, library: &Library) -> Result<(), Box<dyn Error>> {
    let found = sha256(&fs::read(path)?);
    if found == library.sha256 {
        return Ok(());
    }
    Err(format!(
        "{} has SHA-256 {found}, expected {} (ONNX Runtime {VERSION} for {}); delete it and build again",
        path.display(),
        library.sha256,
        library.target
    )
    .into())
}

fn check_machine(path: &Path, library: &Library) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(path)?;
    let machine = bytes.get(18..20).map(|field| u16::from(field[0]) | (u16::from(field[1]) << 8));
    if bytes.starts_with(b"\x7fELF") && machine == Some(library.machine) {
        return Ok(());
    }
    Err(format!(
        "EDDY_ONNXRUNTIME names {}, which is no shared library for {}",
        path.display(),
        library.target
    )
    .into())
}
