//! Where engines that TensorRT built are kept, so that they are built once.
//!
//! An engine is good for one network, in one precision and shape, on one kind of GPU, with one version of everything that made
//! it. All of that is hashed into the name of a folder. TensorRT writes into a folder that is renamed when the engine has run
//! once, with a list of what is in it: a folder without one, or with something else in it, is built anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::durable::{self, Owner};

/// What an engine depends on, each with its name; the names are part of the hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Key(BTreeMap<&'static str, String>);

impl Key {
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    /// A folder's name: the first half of a SHA-256.
    fn name(&self) -> String {
        let mut hash = Sha256::new();
        for (name, value) in &self.0 {
            // Lengths keep two fields from being read as two others.
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

/// What stands in a finished folder beside the engines.
#[derive(Debug, Serialize, Deserialize)]
struct CacheManifest {
    /// SHA-256 of every file.
    files: BTreeMap<String, String>,
    /// What the engine depends on, for people.
    key: BTreeMap<String, String>,
    /// How long it took to build.
    seconds: f64,
}

const SEAL: &str = "seal.json";

/// The folder in which engines are kept: `eddy` in the user's cache, or what systemd gives a service (`CacheDirectory=`). None
/// where there is neither, as in a bare container; then every start builds anew.
pub fn folder() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || named("HOME").map(|home| home.join(".cache"));
    let eddy =
        |base: PathBuf| if base.file_name().is_some_and(|name| name == "eddy") { base } else { base.join("eddy") };
    named("CACHE_DIRECTORY").or_else(|| named("XDG_CACHE_HOME")).or_else(home).map(|base| eddy(base).join("tensorrt"))
}

/// The place of the engine for one key.
#[derive(Debug)]
pub(super) struct CacheEntry {
    root: PathBuf,
    name: String,
    key: Key,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// There, whole.
    Kept,
    /// To be built, in a folder of this process.
    Building(std::time::Instant),
}

impl CacheEntry {
    /// Looks for the engine of `key` below `root`, and makes room for a new one where there is none or it is not whole.
    ///
    /// # Errors
    /// When no folder can be made.
    pub(super) fn open(root: &Path, key: Key) -> std::io::Result<Self> {
        let name = key.name();
        let kept = root.join(&name);
        fs::create_dir_all(root.join("timings"))?;
        sweep(root);
        if kept.exists() {
            if is_whole(&kept) {
                return Ok(Self { root: root.into(), name, key, state: State::Kept });
            }
            fs::remove_dir_all(&kept)?;
        }
        let place = Self { root: root.into(), name, key, state: State::Building(std::time::Instant::now()) };
        // What a process of the same number left.
        let _ = fs::remove_dir_all(place.engines());
        fs::create_dir_all(place.engines())?;
        Ok(place)
    }

    /// Whether TensorRT has to build.
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

    /// The folder in which TensorRT keeps what it measured, for all engines: the next is built sooner.
    pub(super) fn timings(&self) -> PathBuf {
        self.root.join("timings")
    }

    /// Keeps what was built, now that it has run.
    ///
    /// # Errors
    /// When it cannot be listed or moved: a full disk.
    pub(super) fn seal(&mut self) -> std::io::Result<()> {
        let State::Building(begun) = self.state else { return Ok(()) };
        let part = self.engines();
        let files = hashes(&part)?;
        let key = self.key.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let seal = CacheManifest { files, key, seconds: begun.elapsed().as_secs_f64() };
        fs::write(part.join(SEAL), serde_json::to_string_pretty(&seal)?)?;
        let kept = self.root.join(&self.name);
        if let Err(error) = durable::rename_folder(&part, &kept) {
            // Another process was sooner, and its engine is as good.
            if !is_whole(&kept) {
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
            // Half an engine is none.
            let _ = fs::remove_dir_all(self.engines());
        }
    }
}

/// How long the engines below `root` took to build, the longest first: what the next may take.
pub fn durations(root: &Path) -> Vec<f64> {
    let entries = fs::read_dir(root).into_iter().flatten().filter_map(std::result::Result::ok);
    let mut seconds: Vec<f64> = entries.filter_map(|entry| Some(read_seal(&entry.path())?.seconds)).collect();
    seconds.sort_by(|a, b| b.total_cmp(a));
    seconds
}

fn read_seal(folder: &Path) -> Option<CacheManifest> {
    serde_json::from_slice(&fs::read(folder.join(SEAL)).ok()?).ok()
}

/// Whether a folder holds what its seal lists, to the byte.
fn is_whole(folder: &Path) -> bool {
    let Some(seal) = read_seal(folder) else { return false };
    hashes(folder).is_ok_and(|files| files == seal.files)
}

/// The SHA-256 of every file in a folder, but of its seal.
fn hashes(folder: &Path) -> std::io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name != SEAL {
            files.insert(name.to_owned(), sha256(&fs::read(&path)?));
        }
    }
    Ok(files)
}

/// Takes away what processes left that are no more.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().filter_map(std::result::Result::ok) {
        let path = entry.path();
        let left = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".part")?.rsplit_once('.'));
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
        place.seal().unwrap();
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
    fn whatever_it_depends_on_makes_it_another() {
        let root = tempfile::tempdir().unwrap();
        drop(build(root.path(), key()));
        for other in
            [key().with("shape", "1x3x8x9"), key().with("precision", "f16"), Key::default().with("network", "abc")]
        {
            assert!(CacheEntry::open(root.path(), other).unwrap().is_to_be_built());
        }
        let (one, two) = (Key::default().with("a", "1;b=1:2"), Key::default().with("a", "1").with("b", "2"));
        assert_ne!(one.name(), two.name());
    }

    #[test]
    fn a_torn_engine_is_built_anew() {
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
    fn nothing_is_left_of_a_build_that_failed() {
        let root = tempfile::tempdir().unwrap();
        let place = CacheEntry::open(root.path(), key()).unwrap();
        let part = place.engines();
        assert!(part.is_dir());
        drop(place);
        assert!(!part.exists());
        // Of a process that was killed: no process has so large a number.
        let left = root.path().join("abc.4194999-1.part");
        fs::create_dir(&left).unwrap();
        drop(CacheEntry::open(root.path(), key()).unwrap());
        assert!(!left.exists());
    }
}
