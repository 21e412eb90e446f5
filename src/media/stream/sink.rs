//! Streams into any writer.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::file::Output;
use super::format::PixelFormat;
use super::video::VideoFormat;
use super::{Sink, VideoFrame, cannot_write, matroska, y4m};
use crate::error::{Error, Result};

/// The framing of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A header, and a line before each frame.
    Y4m,
    /// No framing.
    Raw,
    /// Matroska with the time of writing as presentation time, for live frames. Times come from a
    /// monotonic clock.
    Live,
    /// Matroska with the presentation time of each frame.
    Timed,
}

impl Framing {
    /// Checks whether the framing supports the format.
    ///
    /// # Errors
    /// [`Error::Usage`] for a format that y4m does not support.
    pub(super) fn check(self, video: &VideoFormat) -> Result<()> {
        match video.format {
            PixelFormat::Planar { .. } => Ok(()),
            _ if self == Self::Raw => Ok(()),
            format => Err(Error::usage(format!(
                "y4m and Matroska hold planar frames, these are {format}"
            ))),
        }
    }
}

/// A stream into an [`Output`].
pub struct PlainSink<W> {
    output: W,
    framing: Framing,
    video: VideoFormat,
    name: PathBuf,
    /// When the first frame was written, and the presentation time of the last in milliseconds
    /// since then.
    clock: Option<(Instant, u64)>,
}

impl<W: Output> PlainSink<W> {
    /// Writes the header, if there is one. `name` identifies the stream in messages.
    ///
    /// # Errors
    /// [`Error::Output`] when it cannot be written, [`Error::Usage`] for a format that y4m does
    /// not support.
    pub fn create(
        name: &Path,
        mut output: W,
        framing: Framing,
        video: &VideoFormat,
    ) -> Result<Self> {
        framing.check(video)?;
        let header = match framing {
            Framing::Y4m => y4m::header(video).into_bytes(),
            Framing::Raw => Vec::new(),
            Framing::Live | Framing::Timed => matroska::header(video).unwrap_or_default(),
        };
        output.write_all(&header).map_err(|error| cannot_write(name, error))?;
        Ok(Self { output, framing, video: video.clone(), name: name.into(), clock: None })
    }
}

impl<W: Output> Sink for PlainSink<W> {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn write(&mut self, frame: &VideoFrame) -> Result<()> {
        let line = match self.framing {
            Framing::Y4m if frame.tags.is_empty() => self.output.write_all(b"FRAME\n"),
            Framing::Y4m => self.output.write_all(format!("FRAME{}\n", frame.tags).as_bytes()),
            Framing::Raw => Ok(()),
            Framing::Live | Framing::Timed => {
                let now = Instant::now();
                let (started, last) =
                    self.clock.map_or((now, None), |(started, last)| (started, Some(last)));
                let time = if self.framing == Framing::Live {
                    now.duration_since(started)
                } else {
                    frame.time
                };
                let time = (time.as_millis() as u64).max(last.map_or(0, |last| last + 1));
                self.clock = Some((started, time));
                self.output.write_all(&matroska::frame(time, frame.bytes.len()))
            }
        };
        let written = line.and_then(|()| self.output.write_all(&frame.bytes));
        written.map_err(|error| cannot_write(&self.name, error))?;
        self.output.mark();
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.output.complete().map_err(|error| match error.kind() {
            // The error occurred only when the file was completed.
            std::io::ErrorKind::StorageFull => {
                let problem =
                    "the disk is full, and nothing is kept; free some space and try again";
                Error::output_from(&self.name, problem, error)
            }
            _ => cannot_write(&self.name, error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Framing, PlainSink};
    use crate::media::stream::{
        Chroma, PartFile, PixelFormat, Rate, Sink, VideoFormat, VideoFrame,
    };

    #[test]
    fn creates_the_file_when_complete_with_whole_frames_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.y4m");
        let video = VideoFormat::new(2, 2, Rate::of(25), PixelFormat::planar(Chroma::Mono, 8));
        let names = || {
            folder
                .path()
                .read_dir()
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect::<Vec<_>>()
        };

        let mut sink =
            PlainSink::create(&path, PartFile::create(&path).unwrap(), Framing::Y4m, &video)
                .unwrap();
        sink.finish().unwrap();
        assert!(names().is_empty(), "a stream without a frame leaves nothing");

        let mut sink =
            PlainSink::create(&path, PartFile::create(&path).unwrap(), Framing::Y4m, &video)
                .unwrap();
        sink.write(&VideoFrame { bytes: b"abcd".to_vec(), ..VideoFrame::default() }).unwrap();
        assert!(!path.exists());
        std::io::Write::write_all(&mut sink.output, b"FRAME\nab").unwrap();
        sink.finish().unwrap();
        assert!(std::fs::read(&path).unwrap().ends_with(b"LIMITED\nFRAME\nabcd"));
        assert_eq!(names(), ["a.y4m"]);
    }
}
