//! Folders in the user's cache, each of which is made once: TensorRT's engines and optimized
//! graphs.
//!
//! The hash of everything that a folder depends on is its name. It is filled under a temporary name
//! and renamed when it is complete, with a manifest of its files. A folder without a manifest, or
//! with other files, is made again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::sha256;
use crate::durable::{self, Owner};

const MANIFEST_FILE: &str = "manifest.json";

/// Everything that the content of a folder depends on, by name. The names are part of the hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Key(pub(super) BTreeMap<&'static str, String>);

impl Key {
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    /// The folder's name: the first half of a SHA-256.
    fn name(&self) -> String {
        // The lengths keep the boundaries of fields unambiguous.
        let fields = self.0.iter().map(|(name, value)| format!("{name}={}:{value};", value.len()));
        let mut name = sha256(fields.collect::<String>().as_bytes());
        name.truncate(32);
        name
    }
}

/// The folder of all caches: `eddy` in the user's cache, or the one that systemd gives to a service
/// (`CacheDirectory=`). There is none without either, as in a bare container.
pub fn root() -> Option<PathBuf> {
    let named = |name: &str| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || named("HOME").map(|home| home.join(".cache"));
    let eddy = |base: PathBuf| {
        if base.file_name().is_some_and(|name| name == "eddy") { base } else { base.join("eddy") }
    };
    named("CACHE_DIRECTORY").or_else(|| named("XDG_CACHE_HOME")).or_else(home).map(eddy)
}

/// The place of a folder in the cache.
#[derive(Clone, Debug)]
pub(super) struct CacheFolder {
    root: PathBuf,
    name: String,
}

impl CacheFolder {
    /// The place below `root` for what depends on `key`.
    pub(super) fn new(root: impl Into<PathBuf>, key: &Key) -> Self {
        Self { root: root.into(), name: key.name() }
    }

    /// The folder that holds this and others of its kind.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The complete folder.
    pub(super) fn path(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// The temporary folder of this process.
    pub(super) fn part(&self) -> PathBuf {
        self.root.join(format!("{}.{}.part", self.name, Owner::own()))
    }

    /// Creates the temporary folder, empty, and deletes those of processes that have ended.
    ///
    /// # Errors
    /// When it cannot be created.
    pub(super) fn begin(&self) -> io::Result<()> {
        fs::create_dir_all(&self.root)?;
        delete_abandoned(&self.root);
        // Left by an earlier process with an equal process ID.
        self.abandon();
        fs::create_dir_all(self.part())
    }

    /// Adds the manifest to the temporary folder and gives it its final name.
    ///
    /// # Errors
    /// When it cannot be written or renamed, for instance on a full disk.
    pub(super) fn finish(&self, manifest: &impl Serialize) -> io::Result<()> {
        let part = self.part();
        fs::write(part.join(MANIFEST_FILE), serde_json::to_vec_pretty(manifest)?)?;
        durable::rename_folder(&part, &self.path())
    }

    /// Deletes the temporary folder.
    pub(super) fn abandon(&self) {
        let _ = fs::remove_dir_all(self.part());
    }
}

/// The manifest of a complete folder.
pub(super) fn read_manifest<M: DeserializeOwned>(folder: &Path) -> Option<M> {
    serde_json::from_slice(&fs::read(folder.join(MANIFEST_FILE)).ok()?).ok()
}

/// What `of` gives for each file of a folder but its manifest, by the file's name.
pub(super) fn files<T>(
    folder: &Path,
    of: impl Fn(&Path) -> io::Result<T>,
) -> io::Result<BTreeMap<String, T>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != MANIFEST_FILE {
            files.insert(name, of(&entry.path())?);
        }
    }
    Ok(files)
}

/// Deletes the temporary folders of processes that have ended.
fn delete_abandoned(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        let part = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".part")?.rsplit_once('.'));
        if part.and_then(|(_, owner)| Owner::parse(owner)).is_some_and(Owner::is_gone) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{CacheFolder, Key, files, read_manifest};

    #[test]
    fn every_field_changes_the_name() {
        let key = Key::default().with("a", "1").with("b", "2");
        for other in [
            Key::default().with("a", "1;b=1:2"),
            Key::default().with("a", "1"),
            key.clone().with("b", "3"),
        ] {
            assert_ne!(key.name(), other.name());
        }
        assert_eq!(key.name().len(), 32);
    }

    #[test]
    fn a_folder_gets_its_name_when_it_is_complete() {
        let root = tempfile::tempdir().unwrap();
        let place = CacheFolder::new(root.path(), &Key::default());
        // From a killed process: no process ID is so large.
        let left = root.path().join("abc.4194999-1.part");
        fs::create_dir(&left).unwrap();
        place.begin().unwrap();
        assert!(!left.exists() && place.part().is_dir() && !place.path().exists());
        fs::write(place.part().join("a"), "content").unwrap();
        place.finish(&vec![7]).unwrap();
        assert!(!place.part().exists());
        assert_eq!(read_manifest::<Vec<u32>>(&place.path()), Some(vec![7]));
        let lengths = files(&place.path(), |path| Ok(fs::metadata(path)?.len())).unwrap();
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 7)]);
    }
}
