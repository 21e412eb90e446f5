//! Reading the files of an untrusted model. Names must stay inside its folder, only regular files
//! are opened, and reads are limited in size.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::external::external_files;
use crate::error::{Error, Result};

/// The size limit of a configuration, a manifest or a JSON file, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// The size limit of a graph without its external weights, in bytes; it is protobuf's own.
pub const MAX_GRAPH_BYTES: u64 = (1 << 31) - 1;
/// The size limit of a recorded input or output, in bytes.
pub(super) const LARGEST_RECORD: u64 = 1 << 30;

/// Where links in a model's folder may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Only to files inside the folder.
    Inside,
    /// Also from a snapshot of the Hugging Face cache, `snapshots/REVISION`, to the `blobs` beside
    /// `snapshots`.
    Cache,
}

/// The path of the regular file `name` inside `folder`, with all links resolved.
///
/// # Errors
/// When the name is absolute or contains `..`, a link leads out of the folder, or there is no such
/// regular file.
pub fn find_inside(folder: &Path, name: &str, links: Links) -> io::Result<PathBuf> {
    let refused = |problem: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    let relative = Path::new(name);
    let stays =
        relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if name.is_empty() || !stays {
        return refused("it lies outside of its folder; expected a relative name without `..`");
    }
    let root = folder.canonicalize()?;
    let found = folder.join(relative).canonicalize()?;
    let blobs = || {
        let snapshots = root
            .ancestors()
            .find(|folder| folder.file_name().is_some_and(|name| name == "snapshots"))?;
        Some(snapshots.parent()?.join("blobs"))
    };
    let is_cached =
        || links == Links::Cache && blobs().is_some_and(|blobs| found.starts_with(blobs));
    if !found.starts_with(&root) && !is_cached() {
        return refused("it is a link out of its folder; put the file itself there");
    }
    open(&found)?;
    Ok(found)
}

/// Opens a regular file. Never blocks on other kinds of files.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "it is a folder, a device or a pipe; expected a regular file",
    ))
}

/// The bytes of a regular file of at most `most` bytes.
///
/// # Errors
/// When it cannot be opened, is not a regular file, or is larger.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let refused = |length: u64| {
        let problem = format!("it has {length} bytes or more; expected at most {most}");
        io::Error::new(io::ErrorKind::FileTooLarge, problem)
    };
    let length = file.metadata()?.len();
    if length > most {
        return Err(refused(length));
    }
    let mut bytes = Vec::new();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    crate::machine::try_to_allocate(|| bytes.try_reserve_exact(length))?;
    // A file may grow while it is read, and files in /proc have no length.
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(refused(most + 1)) } else { Ok(bytes) }
}

/// The paths of the external weights of the graph `network`, whose file is in `folder`, by the
/// names in the graph.
///
/// # Errors
/// [`Error::Model`] for the network `model`, when one of them is not a regular file inside the
/// folder.
pub fn find_weights(
    network: &[u8],
    folder: &Path,
    links: Links,
    model: &str,
) -> Result<Vec<(String, PathBuf)>> {
    let find = |name: String| {
        let found = find_inside(folder, &name, links).map_err(|cause| {
            let problem = format!(
                "its graph keeps weights in {name:?}, which cannot be read; put \
                                   the file itself beside the network or below it"
            );
            Error::model_from(model, problem, cause)
        })?;
        Ok((name, found))
    };
    external_files(network).into_iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::{Links, find_inside, read_regular};

    #[test]
    fn links_may_lead_inside_the_folder_or_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("snapshots/0123");
        fs::create_dir_all(folder.join("unet")).unwrap();
        fs::create_dir(cache.path().join("blobs")).unwrap();
        for name in ["blobs/a", "other", "snapshots/0123/inside"] {
            fs::write(cache.path().join(name), name).unwrap();
        }
        for (link, to) in
            [("unet/a", "../../../blobs/a"), ("unet/b", "../../../other"), ("unet/c", "../inside")]
        {
            symlink(to, folder.join(link)).unwrap();
        }
        let found = |name: &str, links| find_inside(&folder, name, links).is_ok();
        assert_eq!(
            [Links::Inside, Links::Cache].map(|links| found("unet/a", links)),
            [false, true]
        );
        assert_eq!(
            [Links::Inside, Links::Cache].map(|links| found("unet/b", links)),
            [false, false]
        );
        assert_eq!([Links::Inside, Links::Cache].map(|links| found("unet/c", links)), [true, true]);
        for name in ["", "..", "unet/../inside", "/etc/hostname", "unet", "gone"] {
            assert!(!found(name, Links::Cache), "{name}");
        }
        assert!(found("./inside", Links::Inside));
        assert_eq!(read_regular(&folder.join("inside"), 21).unwrap(), b"snapshots/0123/inside");
        assert!(read_regular(&folder.join("inside"), 20).is_err());
        assert!(read_regular("/dev/zero".as_ref(), 20).is_err());
    }
}
