//! The cache of TensorRT engines, so that each is built once.
//!
//! An engine is valid for one network, precision and shape, one kind of GPU, and one version of all
//! software involved. TensorRT writes to a temporary folder of the [cache](super::cache), which
//! gets its name after the engine has run once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::cache::{self, CacheFolder, Key, read_manifest};
use crate::digest::sha256;

/// The manifest of a finished folder, stored beside its engines.
#[derive(Debug, Serialize, Deserialize)]
struct EngineManifest {
    /// The SHA-256 of every file.
    files: BTreeMap<String, String>,
    /// What the engine depends on, for people to read.
    key: BTreeMap<String, String>,
    /// How long the engine took to build.
    seconds: f64,
}

/// The folder of the engines in the user's cache. Without one, every start builds its engines
/// again.
pub fn folder() -> Option<PathBuf> {
    cache::root().map(|root| root.join("tensorrt"))
}

/// The cache entry of the engine for one key.
#[derive(Debug)]
pub(super) struct CacheEntry {
    place: CacheFolder,
    key: Key,
    /// When the build of the engine in the temporary folder began; none if it is in the cache.
    building: Option<Instant>,
}

impl CacheEntry {
    /// Looks up the engine of `key` below `root`. If there is none, or it is damaged, creates a
    /// folder for a new one.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub(super) fn open(root: &Path, key: Key) -> io::Result<Self> {
        let place = CacheFolder::new(root, &key);
        fs::create_dir_all(root.join(TIMINGS))?;
        if place.path().exists() {
            if is_intact(&place.path()) {
                return Ok(Self { place, key, building: None });
            }
            fs::remove_dir_all(place.path())?;
        }
        place.begin()?;
        Ok(Self { place, key, building: Some(Instant::now()) })
    }

    /// Whether TensorRT has to build the engine.
    pub(super) fn is_to_be_built(&self) -> bool {
        self.building.is_some()
    }

    /// The folder that TensorRT reads and writes.
    pub(super) fn engines(&self) -> PathBuf {
        if self.is_to_be_built() { self.place.part() } else { self.place.path() }
    }

    /// The folder of TensorRT's timing cache, shared by all engines, which makes later builds
    /// faster.
    pub(super) fn timings(&self) -> PathBuf {
        self.place.root().join(TIMINGS)
    }

    /// Adds the new engine to the cache, after it has run.
    ///
    /// # Errors
    /// When the folder cannot be listed or renamed, for instance on a full disk.
    pub(super) fn write_manifest(&mut self) -> io::Result<()> {
        let Some(started) = self.building else { return Ok(()) };
        let files = hashes(&self.place.part())?;
        let key =
            self.key.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let seconds = started.elapsed().as_secs_f64();
        if let Err(error) = self.place.finish(&EngineManifest { files, key, seconds }) {
            // Another process finished first, and its engine is equivalent.
            if !is_intact(&self.place.path()) {
                return Err(error);
            }
            self.place.abandon();
        }
        self.building = None;
        Ok(())
    }
}

impl Drop for CacheEntry {
    fn drop(&mut self) {
        if self.is_to_be_built() {
            // A partial engine is unusable.
            self.place.abandon();
        }
    }
}

const TIMINGS: &str = "timings";

/// How long the engines below `root` took to build, longest first, as an estimate for the next.
pub fn durations(root: &Path) -> Vec<f64> {
    let entries = fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    let manifests = entries.filter_map(|entry| read_manifest::<EngineManifest>(&entry.path()));
    let mut seconds: Vec<f64> = manifests.map(|manifest| manifest.seconds).collect();
    seconds.sort_by(|a, b| b.total_cmp(a));
    seconds
}

/// Whether the files of a folder match its manifest.
fn is_intact(folder: &Path) -> bool {
    read_manifest::<EngineManifest>(folder)
        .is_some_and(|manifest| hashes(folder).is_ok_and(|files| files == manifest.files))
}

/// The SHA-256 of every file in a folder but its manifest.
fn hashes(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    cache::files(folder, |path| Ok(sha256(&fs::read(path)?)))
}

#[cfg(test)]
mod tests {
    use super::super::cache::Key;
    use super::{CacheEntry, durations};
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
    }

    #[test]
    fn a_damaged_engine_is_rebuilt() {
        let root = tempfile::tempdir().unwrap();
        for damage in ["cut", "gone", "one more", "no manifest", "half a manifest"] {
            let folder = build(root.path(), key()).engines();
            match damage {
                "cut" => fs::write(folder.join("a.engine"), "an eng").unwrap(),
                "gone" => fs::remove_file(folder.join("a.engine")).unwrap(),
                "one more" => fs::write(folder.join("b.engine"), "another").unwrap(),
                "no manifest" => fs::remove_file(folder.join("manifest.json")).unwrap(),
                _ => fs::write(folder.join("manifest.json"), "{\"files\"").unwrap(),
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
    }
}
