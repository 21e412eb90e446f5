//! Where the files of a pipeline are: in a folder, or in this binary.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};

use super::bundled::{self, BundledPipeline};
use super::files::{Links, find_inside, read_regular};

/// Where the files of a pipeline are.
#[derive(Clone, Debug)]
pub enum ModelFolder {
    /// In a folder.
    Disk(PathBuf),
    /// In this binary.
    Bundled(&'static BundledPipeline),
}

impl ModelFolder {
    /// The bundled pipeline of that name, or else the folder of that path, which may not exist.
    pub fn find(model: impl AsRef<Path>) -> Self {
        let path = model.as_ref();
        let bundled = path.to_str().and_then(bundled::find_pipeline);
        bundled.map_or_else(|| Self::from(path), Self::Bundled)
    }

    /// The folder's path; `None` for files of this binary.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Disk(path) => Some(path),
            Self::Bundled(_) => None,
        }
    }

    /// The name of the folder itself, without those above it.
    pub fn name(&self) -> String {
        let own = self.path().and_then(Path::file_name);
        own.map_or_else(|| self.to_string(), |name| name.to_string_lossy().into_owned())
    }

    /// Whether there is something of this name, which [`read`](Self::read) refuses unless it is a
    /// regular file.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Disk(path) => path.join(name).exists(),
            Self::Bundled(pipeline) => pipeline.contains(name),
        }
    }

    /// The bytes of a file. Links may lead where [`Links::Cache`] allows.
    ///
    /// # Errors
    /// When there is no such regular file inside the folder, or it has more than `most` bytes.
    pub fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        match self {
            Self::Disk(path) => {
                find_inside(path, name, Links::Cache).and_then(|file| read_regular(&file, most))
            }
            Self::Bundled(pipeline) => pipeline.file(name).ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "this binary does not contain it")
            }),
        }
    }
}

impl From<&Path> for ModelFolder {
    fn from(path: &Path) -> Self {
        Self::Disk(path.to_owned())
    }
}

impl Display for ModelFolder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(path) => path.display().fmt(f),
            Self::Bundled(pipeline) => f.write_str(pipeline.name),
        }
    }
}
