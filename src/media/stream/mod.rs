//! Video: y4m, raw frames, image sequences, cameras, and all formats that ffmpeg reads and writes.
//!
//! Frames stay bytes in their own [`PixelFormat`] until [`tensor`](crate::tensor) converts them:
//! nothing is converted, rounded or clipped before the network.

mod camera;
pub(crate) mod ffmpeg;
mod file;
mod format;
pub(crate) mod gstreamer;
mod live;
mod matroska;
mod open;
mod pipe;
mod raw;
mod sequence;
mod sink;
mod video;
mod y4m;

use std::io;
use std::path::Path;
use std::time::Duration;

pub use camera::{CameraFormat, CameraRequest, CameraSource, cameras, describe};
pub use ffmpeg::{Encoder, FfmpegSink, FfmpegSource, ServerSink, part_of};
pub use file::{Output, PartFile};
pub(crate) use format::Plane;
pub use format::{Chroma, Order, PixelFormat};
pub use gstreamer::{GSTREAMER_FORMATS, GstreamerSource, is_gstreamer};
pub use live::LiveSource;
pub use open::{
    CLOSED, SinkFormat, is_sink, is_source, open, read_standard_input, standard_input_format,
    standard_input_is_image,
};
pub use pipe::PipeSink;
pub use raw::RawSource;
pub use sequence::{SequenceSink, SequenceSource};
pub use sink::{Framing, PlainSink};
pub use video::{CodePoint, Color, Matrix, Rate, Scan, Siting, TagSource, VideoFormat};
pub use y4m::{Y4mSource, nearest};

use super::still::{Limits, TOO_LARGE};
use crate::error::{Error, Result};

/// A frame of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VideoFrame {
    /// The samples, in the stream's [`VideoFormat`].
    pub bytes: Vec<u8>,
    /// Index in the stream, from 0; indices of lost frames are skipped.
    pub index: u64,
    /// Capture or presentation time, from the beginning of the stream.
    pub time: Duration,
    /// The y4m parameters of this frame, each with a leading space: how it is interlaced.
    pub tags: String,
}

/// The result of waiting for a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// A frame.
    Frame,
    /// The stream has ended.
    End,
    /// The frame is corrupt, for this reason. The next one may be valid.
    Corrupt(String),
    /// No frame yet; try again.
    Waiting,
    /// The source is disconnected, for this reason. It may reconnect; try again.
    Disconnected(String),
}

/// A source of frames.
pub trait Source: Send {
    /// The format of all frames.
    fn video(&self) -> &VideoFormat;

    /// Waits for the next frame, whose `bytes` have the length [`VideoFormat::bytes`]. `frame`
    /// keeps its memory between calls. A source that may wait for long returns
    /// [`ReadOutcome::Waiting`] from time to time, so that a run can be stopped.
    ///
    /// # Errors
    /// [`Error::Input`] when no further frame can be read although the stream has not ended.
    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome>;

    /// Whether frames arrive as they are captured, and are lost when not read in time.
    fn is_live(&self) -> bool {
        false
    }

    /// Whether [`next`](Self::next) after the end starts the source again, as a stream from a camera
    /// that was restarted.
    fn restarts(&self) -> bool {
        false
    }

    /// Whether the frame rate is variable, with a presentation time for each frame.
    fn is_uneven(&self) -> bool {
        false
    }

    /// The file that holds the frames, where it may also hold sound.
    fn container(&self) -> Option<&Path> {
        None
    }
}

/// What a sink must know about the source of its frames.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Origin<'a> {
    /// Whether frames arrive as they are captured, so that their arrival time is their
    /// presentation time.
    pub live: bool,
    /// Whether the frame rate is variable, with a presentation time for each frame.
    pub uneven: bool,
    /// A file whose sound is copied along with the frames.
    pub sound: Option<&'a Path>,
    /// Encoder settings, where the frames are encoded.
    pub encoder: Option<&'a Encoder>,
    /// How long a server that takes the frames is waited for when it is gone. Default: not at all.
    pub reconnect: Option<Duration>,
}

impl<'a> Origin<'a> {
    /// The origin of frames from `source`.
    pub fn of(source: &'a dyn Source) -> Self {
        Self {
            live: source.is_live(),
            uneven: source.is_uneven(),
            sound: source.container(),
            encoder: None,
            reconnect: None,
        }
    }
}

/// A destination for frames.
pub trait Sink: Send {
    /// The format of all frames.
    fn video(&self) -> &VideoFormat;

    /// Whether anybody reads frames at present. If not, frames of a live source are dropped, and
    /// other sources wait.
    ///
    /// # Errors
    /// [`Error::Output`] when no reader can ever connect.
    fn has_reader(&mut self) -> Result<bool> {
        Ok(true)
    }

    /// Whether [`write`](Self::write) may wait for another program without limit, and loses
    /// nothing when it is abandoned.
    fn waits_for_reader(&self) -> bool {
        false
    }

    /// The temporary file until the output is complete, where it can be played by itself.
    fn part(&self) -> Option<&Path> {
        None
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// [`Error::Output`] when it cannot be written. Call [`finish`](Self::finish) even then; it
    /// keeps what was written before readable.
    fn write(&mut self, frame: &VideoFrame) -> Result<()>;

    /// Notes that the frames end before those of the source, because the run was stopped or the
    /// source cannot be read further.
    fn stopped(&mut self) {}

    /// Finishes the stream with the frames that were written completely.
    ///
    /// # Errors
    /// [`Error::Output`] when it cannot be finished.
    fn finish(&mut self) -> Result<()>;
}

/// Properties of a stream's format that the caller overrides. Default: as the source declares them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FormatOverrides {
    /// Frames per second. Default: the source's, or 25 where it declares none.
    pub rate: Option<Rate>,
    /// The matrix between RGB and luma and chroma. Default: the source's, or BT.601 or BT.709 by
    /// the height.
    pub matrix: Option<Matrix>,
    /// Whether samples have full range. Default: the source's.
    pub full_range: Option<bool>,
}

impl FormatOverrides {
    pub(crate) fn apply(self, video: &mut VideoFormat) {
        video.rate = self.rate.unwrap_or(video.rate);
        if let Some(matrix) = self.matrix.filter(|matrix| *matrix != video.color.matrix) {
            (video.color.matrix, video.color.matrix_source) = (matrix, TagSource::Caller);
        }
        video.color.full_range = self.full_range.unwrap_or(video.color.full_range);
    }
}

/// Rejects frames above the size limits, before memory is allocated.
fn check_size(name: &Path, video: &VideoFormat) -> Result<()> {
    let (limits, &VideoFormat { width, height, .. }) = (Limits::default(), video);
    // The number of bytes would overflow for longer sides.
    if width.max(height) <= limits.max_side && video.bytes() as u64 <= limits.max_bytes {
        return Ok(());
    }
    Err(Error::input(
        name,
        format!(
            "its frames have {width}x{height} pixels; at most {} a side and {} MiB are read; scale \
             them down",
            limits.max_side,
            limits.max_bytes >> 20
        ),
    ))
}

/// Rejects frames of another format than those before.
fn check_same_format(name: &Path, [before, after]: [&VideoFormat; 2], advice: &str) -> Result<()> {
    let of = |video: &VideoFormat| (video.width, video.height, video.format, video.scan);
    if of(before) == of(after) {
        return Ok(());
    }
    let text = |video: &VideoFormat| format!("{}x{} {}", video.width, video.height, video.format);
    Err(Error::input(
        name,
        format!(
            "its frames were {}, and are {} now; a run takes one format: {advice}",
            text(before),
            text(after)
        ),
    ))
}

/// Why a stream cannot be written. [`io::ErrorKind::BrokenPipe`] as its source means that the
/// reader has disconnected.
fn cannot_write(name: &Path, error: io::Error) -> Error {
    let problem = match error.kind() {
        io::ErrorKind::BrokenPipe => "its reader has closed it",
        io::ErrorKind::StorageFull => {
            "the disk is full; what was finished is kept; free some space and try again"
        }
        io::ErrorKind::FileTooLarge => TOO_LARGE,
        io::ErrorKind::QuotaExceeded => {
            "the quota of this user is used up; what was finished is kept"
        }
        _ => "the system reports an error",
    };
    Error::output_from(name, problem, error)
}

/// Whether an error means that the reader of our output has disconnected.
pub fn reader_is_gone(error: &Error) -> bool {
    let Error::Output { source: Some(cause), .. } = error else { return false };
    cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
