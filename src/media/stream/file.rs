//! Where a stream's bytes go, and what of them is kept when the writing fails.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use crate::durable::Part;
use crate::error::Result;
use crate::media::still;

/// Bytes that are written once, from the beginning on.
pub trait Output: Write + Send {
    /// What has been written so far is whole.
    fn mark(&mut self) {}

    /// Nothing follows; what was not whole at the last [`mark`](Self::mark) goes, where that is possible.
    ///
    /// # Errors
    /// What the system reports.
    fn complete(&mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Output for File {}
impl Output for Vec<u8> {}

/// A file that appears under its name when it is complete, with what was whole by then. Before, it is `.eddy-*.part` in the
/// same folder, which is also what is left if the process is killed; that file can be read, too.
pub struct PartFile {
    /// None once it is complete.
    part: Option<Part>,
    whole: u64,
}

impl PartFile {
    /// # Errors
    /// As [`still::write`](crate::media::still::write).
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self { part: Some(still::begin(path)?), whole: 0 })
    }

    fn file(&mut self) -> io::Result<&mut File> {
        match &mut self.part {
            Some(part) => Ok(part.file.as_file_mut()),
            None => Err(io::Error::other("the file is complete already")),
        }
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for PartFile {
    fn mark(&mut self) {
        self.whole = self.file().and_then(|file| file.stream_position()).unwrap_or(self.whole);
    }

    fn complete(&mut self) -> io::Result<()> {
        let Some(mut part) = self.part.take() else { return Ok(()) };
        if self.whole == 0 {
            // Nothing to keep: the file goes, and one that was there before stays.
            return part.file.close();
        }
        let file = part.file.as_file_mut();
        if file.seek(SeekFrom::End(0))? > self.whole {
            file.set_len(self.whole)?;
        }
        part.complete()
    }
}
