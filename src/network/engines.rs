//! The cache of TensorRT engines, so that each is built once.
//!
//! An engine is valid for one network, precision and shape, one kind of GPU, and one version of all
//! software involved. The hash of all of these is the name of its folder. TensorRT writes to a
//! temporary folder, which is renamed after the engine has run once, with a list of its files. A
//! folder without that list, or with other content, is built again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::durable::{self, Owner};

/// Everything that an engine depends on, by name. The names are part of the hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Key(BTreeMap<&'static str, String>);

impl Key {
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    /// The folder's name: the first half of a SHA-256.
    pub(super) fn name(&self) -> String {
        let mut hash = Sha256::new();
        for (name, value) in &self.0 {
            // The lengths keep the boundaries of fields unambiguous.
            hash.update(format!("{name}={}:{value};", value.len()));
        }
        hex(&hash.finalize()[..16])
    }
}

/// The SHA-256 of `bytes`, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The manifest of a finished folder, stored beside its engines.
#[derive(Debug, Serialize, Deserialize)]
struct CacheManifest {
    /// The SHA-256 of every file.
    files: BTreeMap<String, String>,
    /// What the engine depends on, for people to read.
    key: BTreeMap<String, String>,
    /// How long the engine took to build.
    seconds: f64,
}

const MANIFEST_FILE: &str = "seal.json";

/// The folder of the cache: `eddy` in the user's cache, or the one that systemd gives to a service
/// (`CacheDirectory=`). Without either, as in a bare container, every start builds its engines
/// again.
pub fn folder() -> Option<PathBuf> {
    cache_folder().map(|folder| folder.join("tensorrt"))
}

/// The folder of all caches.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let named =
        |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || named("HOME").map(|home| home.join(".cache"));
    let eddy = |base: PathBuf| {
        if base.file_name().is_some_and(|name| name == "eddy") { base } else { base.join("eddy") }
    };
    named("CACHE_DIRECTORY").or_else(|| named("XDG_CACHE_HOME")).or_else(home).map(eddy)
}

/// The cache entry of the engine for one key.
#[derive(Debug)]
pub(super) struct CacheEntry {
    root: PathBuf,
    name: String,
    key: Key,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The engine is cached and intact.
    Kept,
    /// The engine is to be built, in a temporary folder of this process.
    Building(std::time::Instant),
}

impl CacheEntry {
    /// Looks up the engine of `key` below `root`. If there is none, or it is damaged, creates a
    /// folder for a new one.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub(super) fn open(root: &Path, key: Key) -> std::io::Result<Self> {
        let name = key.name();
        let kept = root.join(&name);
        fs::create_dir_all(root.join("timings"))?;
        delete_old(root);
        if kept.exists() {
            if is_intact(&kept) {
                return Ok(Self { root: root.into(), name, key, state: State::Kept });
            }
            fs::remove_dir_all(&kept)?;
        }
        let place = Self {
            root: root.into(),
            name,
            key,
            state: State::Building(std::time::Instant::now()),
        };
        // Left by an earlier process with an equal process ID.
        let _ = fs::remove_dir_all(place.engines());
        fs::create_dir_all(place.engines())?;
        Ok(place)
    }

    /// Whether TensorRT has to build the engine.
    pub(super) fn is_to_be_built(&self) -> bool {
        self.state != State::Kept
    }

    /// The folder that TensorRT reads and writes.
    pub(super) fn engines(&self) -> PathBuf {
        match self.state {
            State::Kept => self.root.join(&self.name),
            State::Building(_) => self.root.join(format!("{}.{}.part", self.name, Owner::own())),
        }
    }

    /// The folder of TensorRT's timing cache, shared by all engines, which makes later builds
    /// faster.
    pub(super) fn timings(&self) -> PathBuf {
        self.root.join("timings")
    }

    /// Adds the new engine to the cache, after it has run.
    ///
    /// # Errors
    /// When the folder cannot be listed or renamed, for instance on a full disk.
    pub(super) fn write_manifest(&mut self) -> std::io::Result<()> {
        let State::Building(started) = self.state else { return Ok(()) };
        let part = self.engines();
        let files = hashes(&part)?;
        let key =
            self.key.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let seal = CacheManifest { files, key, seconds: started.elapsed().as_secs_f64() };
        fs::write(part.join(MANIFEST_FILE), serde_json::to_string_pretty(&seal)?)?;
        let kept = self.root.join(&self.name);
        if let Err(error) = durable::rename_folder(&part, &kept) {
            // Another process finished first, and its engine is equivalent.
            if !is_intact(&kept) {
                return Err(error);
            }
            fs::remove_dir_all(&part)?;
        }
        self.state = State::Kept;
        Ok(())
    }
}

impl Drop for CacheEntry {
    fn drop(&mut self) {
        if self.is_to_be_built() {
            // A partial engine is unusable.
            let _ = fs::remove_dir_all(self.engines());
        }
    }
}

/// How long the engines below `root` took to build, longest first, as an estimate for the next.
pub fn durations(root: &Path) -> Vec<f64> {
    let entries = fs::read_dir(root).into_iter().flatten().filter_map(std::result::Result::ok);
    let mut seconds: Vec<f64> =
        entries.filter_map(|entry| Some(read_manifest(&entry.path())?.seconds)).collect();
    seconds.sort_by(|a, b| b.total_cmp(a));
    seconds
}

fn read_manifest(folder: &Path) -> Option<CacheManifest> {
    serde_json::from_slice(&fs::read(folder.join(MANIFEST_FILE)).ok()?).ok()
}

/// Whether the files of a folder match its manifest.
fn is_intact(folder: &Path) -> bool {
    let Some(seal) = read_manifest(folder) else { return false };
    hashes(folder).is_ok_and(|files| files == seal.files)
}

/// The SHA-256 of every file in a folder but its manifest.
fn hashes(folder: &Path) -> std::io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name != MANIFEST_FILE {
            files.insert(name.to_owned(), sha256(&fs::read(&path)?));
        }
    }
    Ok(files)
}

/// Deletes the temporary folders of processes that have ended.
pub(super) fn delete_old(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().filter_map(std::result::Result::ok) {
        let path = entry.path();
        let left = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".part")?.rsplit_once('.'));
        if left.and_then(|(_, owner)| Owner::parse(owner)).is_some_and(Owner::is_gone) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CacheEntry, Key, durations};
    use std::fs;

    fn key() -> Key {
        Key::default().with("network", "abc").with("shape", "1x3x8x8")
    }

    fn build(root: &std::path::Path, key: Key) -> CacheEntry {
        let mut place = CacheEntry::open(root, key).unwrap();
        assert!(place.is_to_be_built());
        fs::write(place.engines().join("a.engine"), "an engine").unwrap();
        place.write_manifest().unwrap();
        place
    }

    #[test]
    fn an_engine_is_built_once() {
        let root = tempfile::tempdir().unwrap();
        let engines = build(root.path(), key()).engines();
        assert_eq!(fs::read_to_string(engines.join("a.engine")).unwrap(), "an engine");
        assert!(!CacheEntry::open(root.path(), key()).unwrap().is_to_be_built());
        assert_eq!(durations(root.path()).len(), 1);
    }

    #[test]
    fn every_dependency_changes_the_key() {
        let root = tempfile::tempdir().unwrap();
        drop(build(root.path(), key()));
        for other in [
            key().with("shape", "1x3x8x9"),
            key().with("precision", "f16"),
            Key::default().with("network", "abc"),
        ] {
            assert!(CacheEntry::open(root.path(), other).unwrap().is_to_be_built());
        }
        let (one, two) =
            (Key::default().with("a", "1;b=1:2"), Key::default().with("a", "1").with("b", "2"));
        assert_ne!(one.name(), two.name());
    }

    #[test]
    fn a_damaged_engine_is_rebuilt() {
        let root = tempfile::tempdir().unwrap();
        for damage in ["cut", "gone", "one more", "no seal", "half a seal"] {
            let folder = build(root.path(), key()).engines();
            match damage {
                "cut" => fs::write(folder.join("a.engine"), "an eng").unwrap(),
                "gone" => fs::remove_file(folder.join("a.engine")).unwrap(),
                "one more" => fs::write(folder.join("b.engine"), "another").unwrap(),
                "no seal" => fs::remove_file(folder.join("seal.json")).unwrap(),
                _ => fs::write(folder.join("seal.json"), "{\"files\"").unwrap(),
            }
            assert!(CacheEntry::open(root.path(), key()).unwrap().is_to_be_built(), "{damage}");
            assert!(!folder.exists(), "{damage}");
        }
    }

    #[test]
    fn a_failed_build_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let place = CacheEntry::open(root.path(), key()).unwrap();
        let part = place.engines();
        assert!(part.is_dir());
        drop(place);
        assert!(!part.exists());
        // From a killed process: no process ID is so large.
        let left = root.path().join("abc.4194999-1.part");
        fs::create_dir(&left).unwrap();
        drop(CacheEntry::open(root.path(), key()).unwrap());
        assert!(!left.exists());
    }
}
