//! Output files for streams, and what is kept when writing fails.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use crate::durable::Part;
use crate::error::Result;
use crate::media::still;

/// A sequential output.
pub trait Output: Write + Send {
    /// Marks all that was written so far as complete.
    fn mark(&mut self) {}

    /// Ends the output. If possible, removes what was written after the last [`mark`](Self::mark).
    ///
    /// # Errors
    /// I/O errors of the system.
    fn complete(&mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Output for File {}
impl Output for Vec<u8> {}

/// A file that appears under its name when it is complete, with all that was marked by then.
/// Before that, it is `.eddy-*.part` in the same folder. If the process is killed, that file is
/// left, and it can be read.
pub struct PartFile {
    /// `None` once it is complete.
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
            // There is nothing to keep: the file is removed, and an existing file stays.
            return part.file.close();
        }
        let file = part.file.as_file_mut();
        if file.seek(SeekFrom::End(0))? > self.whole {
            file.set_len(self.whole)?;
        }
        part.complete()
    }
}
