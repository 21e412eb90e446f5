//! The NVIDIA software of this machine, found by its files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ComputeCapability;

/// The GPUs that the driver reports, by name. A Jetson has no separate GPU: its GPU is the board.
pub fn gpus() -> Vec<String> {
    let entries = fs::read_dir("/proc/driver/nvidia/gpus")
        .into_iter()
        .flatten()
        .filter_map(std::result::Result::ok);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path().join("information")).collect();
    // By bus address, in the driver's order.
    paths.sort();
    let names = paths.iter().filter_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        Some(text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_owned())
    });
    let mut names: Vec<String> = names.collect();
    if names.is_empty() && jetpack().is_some() {
        names.extend(super::board());
    }
    names
}

/// The architecture of the first GPU; none where neither the board nor `nvidia-smi` says it.
pub fn compute_capability() -> Option<ComputeCapability> {
    let board = fs::read_to_string("/proc/device-tree/compatible").unwrap_or_default();
    tegra(&board).or_else(|| {
        let mut command = Command::new("nvidia-smi");
        command
            .args(["--query-gpu=compute_cap", "--format=csv,noheader"])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let output = command.output().ok()?.stdout;
        let number = capability(String::from_utf8_lossy(&output).lines().next()?)?;
        Some(ComputeCapability { number, is_tegra: false })
    })
}

/// The GPU of a Tegra, by the chip in the device tree's names of the board.
fn tegra(board: &str) -> Option<ComputeCapability> {
    let chips =
        [("tegra264", 110), ("tegra234", 87), ("tegra194", 72), ("tegra186", 62), ("tegra210", 53)];
    let (_, number) = chips.into_iter().find(|(chip, _)| board.contains(chip))?;
    Some(ComputeCapability { number, is_tegra: true })
}

/// `8.6` as 86.
fn capability(text: &str) -> Option<u32> {
    let (major, minor) = text.trim().split_once('.')?;
    Some(
        10 * major.parse::<u32>().ok().filter(|major| *major < 1000)?
            + minor.parse::<u32>().ok().filter(|minor| *minor < 10)?,
    )
}

/// The driver's version.
pub fn driver() -> Option<String> {
    let text = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    version_in(text.lines().next()?).map(str::to_owned)
}

/// The first word that is a version: `580.65.06`.
fn version_in(line: &str) -> Option<&str> {
    line.split_whitespace()
        .find(|word| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// The Linux for Tegra release of a Jetson and the JetPack that contains it.
pub fn jetpack() -> Option<String> {
    tegra_release(&fs::read_to_string("/etc/nv_tegra_release").ok()?)
}

/// `# R36 (release), REVISION: 4.3, ...`.
fn tegra_release(text: &str) -> Option<String> {
    let major: u32 = text.split_once('R')?.1.split_whitespace().next()?.parse().ok()?;
    let revision = text.split_once("REVISION:")?.1.split(',').next()?.trim();
    let jetpack = match major {
        38.. => " (JetPack 7)",
        36..38 => " (JetPack 6)",
        34..36 => " (JetPack 5)",
        32..34 => " (JetPack 4)",
        _ => "",
    };
    Some(format!("Linux for Tegra {major}.{revision}{jetpack}"))
}

/// An NVIDIA library on this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Library {
    /// The software that it belongs to: CUDA, cuDNN, TensorRT, or the driver.
    pub part: &'static str,
    /// The version in the file's name.
    pub version: String,
    /// The path of the file.
    pub path: PathBuf,
}

/// One library for each software.
const PARTS: [(&str, &str); 4] = [
    ("driver", "libcuda.so."),
    ("CUDA", "libcudart.so."),
    ("cuDNN", "libcudnn.so."),
    ("TensorRT", "libnvinfer.so."),
];

/// The libraries in the standard folders and in those of `LD_LIBRARY_PATH`.
pub fn libraries() -> Vec<Library> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let mut folders: Vec<PathBuf> = std::env::var_os("LD_LIBRARY_PATH")
        .map(|paths| std::env::split_paths(&paths).collect())
        .unwrap_or_default();
    let fixed = [
        format!("/usr/lib/{triple}"),
        format!("/lib/{triple}"),
        "/usr/lib64".into(),
        "/usr/lib".into(),
    ];
    folders.extend(fixed.iter().map(PathBuf::from));
    folders
        .extend(["nvidia", "tegra"].map(|below| Path::new("/usr/lib").join(&triple).join(below)));
    for installed in
        fs::read_dir("/usr/local").into_iter().flatten().filter_map(std::result::Result::ok)
    {
        if installed.file_name().to_string_lossy().starts_with("cuda") {
            folders.push(installed.path().join("lib64"));
        }
    }
    libraries_in(&folders)
}

fn libraries_in(folders: &[PathBuf]) -> Vec<Library> {
    let mut found = BTreeSet::new();
    for entry in folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .filter_map(std::result::Result::ok)
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((part, prefix)) = PARTS.into_iter().find(|(_, prefix)| name.starts_with(prefix))
        else {
            continue;
        };
        // The loader opens a link to a file whose name has the full version. A dangling link is not
        // a library.
        let Ok(path) = fs::canonicalize(entry.path()) else { continue };
        let whole = path.file_name().map_or(name.as_str().into(), |name| name.to_string_lossy());
        let version = whole
            .strip_prefix(prefix)
            .or_else(|| name.strip_prefix(prefix))
            .unwrap_or_default()
            .to_owned();
        found.insert(Library { part, version, path });
    }
    found.into_iter().collect()
}

/// The NVIDIA libraries that this process has loaded, by file name, which contains the version.
pub fn loaded() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let names = maps.lines().filter_map(|line| line.rsplit_once('/').map(|(_, name)| name));
    let libraries = names.filter(|name| PARTS.iter().any(|(_, prefix)| name.starts_with(prefix)));
    libraries.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::{ComputeCapability, capability, libraries_in, tegra, tegra_release, version_in};
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn finds_the_architecture_of_a_gpu() {
        let orin = "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0";
        assert_eq!(tegra(orin), Some(ComputeCapability { number: 87, is_tegra: true }));
        assert_eq!(tegra("raspberrypi,5-model-b\0brcm,bcm2712\0"), None);
        assert_eq!(
            (capability("9.0"), capability(" 12.1\n"), capability("[N/A]")),
            (Some(90), Some(121), None)
        );
    }

    #[test]
    fn parses_versions() {
        let line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:30:50 \
                    UTC 2025";
        assert_eq!(version_in(line), Some("580.65.06"));
        assert_eq!(version_in("nothing"), None);
        let release = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: \
                       aarch64, DATE: Wed Jan  8 2025";
        assert_eq!(tegra_release(release).as_deref(), Some("Linux for Tegra 36.4.3 (JetPack 6)"));
        let release =
            "# R35 (release), REVISION: 5.0, GCID: 35550185, BOARD: t186ref, EABI: aarch64";
        assert_eq!(tegra_release(release).as_deref(), Some("Linux for Tegra 35.5.0 (JetPack 5)"));
        assert_eq!(tegra_release("something else"), None);
    }

    #[test]
    fn finds_libraries_and_links_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("libcudnn.so.9.5.1"), "").unwrap();
        symlink("libcudnn.so.9.5.1", at("libcudnn.so.9")).unwrap();
        symlink("libnvinfer.so.10.3.0", at("libnvinfer.so.10")).unwrap();
        fs::write(at("libcudnn_ops.so.9"), "").unwrap();
        let found = libraries_in(&[folder.path().into(), folder.path().join("nowhere")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].part, found[0].version.as_str()), ("cuDNN", "9.5.1"));
    }
}
