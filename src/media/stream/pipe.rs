//! Streams into a pipe: standard output, or a named pipe, whose readers may disconnect and
//! reconnect.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;

use super::sink::{Framing, PlainSink};
use super::video::VideoFormat;
use super::{Sink, VideoFrame, reader_is_gone};
use crate::error::{Error, Result};
use crate::media::still;

/// A stream into a pipe. Live frames into a named pipe go to the current reader; the stream starts
/// again for each reader.
pub struct PipeSink {
    name: PathBuf,
    framing: Framing,
    video: VideoFormat,
    /// Whether another reader may connect.
    again: bool,
    /// Whether the other end is a program and not a file.
    has_reader: bool,
    reader: Option<PlainSink<File>>,
}

impl PipeSink {
    /// A stream into the pipe or character device at `path`, which is opened when a reader
    /// connects. `live` says that frames arrive as they are captured.
    ///
    /// # Errors
    /// [`Error::Usage`] for a format that y4m does not support, [`Error::Output`] for a link that
    /// another user may have created.
    pub fn named(path: &Path, framing: Framing, video: &VideoFormat, live: bool) -> Result<Self> {
        framing.check(video)?;
        still::check_links(path)?;
        Ok(Self {
            name: path.into(),
            framing,
            video: video.clone(),
            again: live,
            has_reader: true,
            reader: None,
        })
    }

    /// A stream into an open pipe or file. `name` identifies it in messages.
    ///
    /// # Errors
    /// As for [`PlainSink::create`].
    pub fn open(name: &Path, file: File, framing: Framing, video: &VideoFormat) -> Result<Self> {
        let has_reader = !file.metadata().is_ok_and(|found| found.is_file());
        let reader = Some(PlainSink::create(name, file, framing, video)?);
        Ok(Self {
            name: name.into(),
            framing,
            video: video.clone(),
            again: false,
            has_reader,
            reader,
        })
    }

    /// Checks whether a reader has connected.
    fn find_reader(&mut self) -> Result<()> {
        let cannot = |error: Errno| Error::output_from(&self.name, "it cannot be opened", error);
        // Opens without blocking, since only a reader could end the wait.
        let file = match open(
            &self.name,
            OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(file) => file,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(cannot(error)),
        };
        // Frames are written completely, however long that takes.
        fcntl_setfl(&file, OFlags::empty()).map_err(cannot)?;
        match PlainSink::create(&self.name, File::from(file), self.framing, &self.video) {
            Ok(reader) => self.reader = Some(reader),
            Err(error) if self.again && reader_is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Sink for PipeSink {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn has_reader(&mut self) -> Result<bool> {
        if self.reader.is_none() {
            self.find_reader()?;
        }
        Ok(self.reader.is_some())
    }

    fn waits_for_reader(&self) -> bool {
        self.has_reader
    }

    fn write(&mut self, frame: &VideoFrame) -> Result<()> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        match reader.write(frame) {
            Err(error) if self.again && reader_is_gone(&error) => {
                self.reader = None;
                Ok(())
            }
            done => done,
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.reader.as_mut().map_or(Ok(()), Sink::finish)
    }
}
