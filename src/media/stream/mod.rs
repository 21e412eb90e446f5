//! Moving frames: y4m, raw frames, sequences of frame files, cameras, and whatever ffmpeg reads and writes.
//!
//! A stream's frames stay bytes in their own [`PixelFormat`] until [`tensor`](crate::tensor) takes them apart: nothing
//! is converted, rounded or clipped on the way to the network.

mod camera;
mod cut;
mod ffmpeg;
mod file;
mod format;
mod live;
mod matroska;
mod open;
mod pipe;
mod probe;
pub(super) mod program;
mod raw;
mod sequence;
mod sink;
mod video;
mod y4m;

use std::io;
use std::path::Path;
use std::time::Duration;

pub use camera::{CameraFormat, CameraRequest, CameraSource, cameras, describe};
pub use ffmpeg::{Encoder, FfmpegSink, FfmpegSource, part_of};
pub use file::{Output, PartFile};
pub(crate) use format::Plane;
pub use format::{Chroma, Order, PixelFormat};
pub use live::LiveSource;
pub use open::{
    SinkFormat, is_sink, is_source, open, standard_input_format, standard_input_is_image, whole_standard_input,
};
pub use pipe::PipeSink;
pub use raw::RawSource;
pub use sequence::{SequenceSink, SequenceSource};
pub use sink::{Framing, PlainSink};
pub use video::{CodePoint, Color, Matrix, Rate, SaidBy, Scan, Siting, VideoFormat};
pub use y4m::{Y4mSource, nearest};

use super::still::{Limits, TOO_LARGE};
use crate::error::{Error, Result};

/// One frame of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VideoFrame {
    /// Its samples, as the stream's [`VideoFormat`] has them.
    pub bytes: Vec<u8>,
    /// Its number in the stream, from 0 on; numbers of lost frames are missing.
    pub index: u64,
    /// When it was taken or is to be shown, from the beginning of the stream on.
    pub time: Duration,
    /// What y4m says of this one alone, with a space before each: how it is interlaced.
    pub tags: String,
}

/// What came of waiting for a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// A frame.
    Frame,
    /// The stream is over.
    End,
    /// What came is no whole frame, and why. The next one may be.
    Corrupt(String),
    /// Nothing yet; it may come: ask again.
    Waiting,
    /// The camera is gone, and why. It may come back: ask again.
    Disconnected(String),
}

/// Where frames come from.
pub trait Source: Send {
    /// What all frames have in common.
    fn video(&self) -> &VideoFormat;

    /// Waits for the next frame. `frame` keeps its memory from one call to the next.
    ///
    /// # Errors
    /// [`Error::Input`] when there can be no further frame although the stream is not over.
    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome>;

    /// Whether frames come when they are taken, and are lost when nobody takes them.
    fn is_live(&self) -> bool {
        false
    }

    /// Whether frames come at no even pace, and each has the time at which it is shown.
    fn is_uneven(&self) -> bool {
        false
    }

    /// The file that the frames are in, where it may hold sound beside them.
    fn container(&self) -> Option<&Path> {
        None
    }
}

/// Where the frames of a sink come from, as far as it has to know.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Origin<'a> {
    /// Whether they come when they are taken, so that the time at which they come is theirs.
    pub live: bool,
    /// Whether each has the time at which it is shown, at no even pace.
    pub uneven: bool,
    /// A file whose sound goes with them.
    pub sound: Option<&'a Path>,
    /// How they are to be encoded, where they are.
    pub encoder: Option<&'a Encoder>,
}

impl<'a> Origin<'a> {
    /// Of what comes from `source`.
    pub fn of(source: &'a dyn Source) -> Self {
        Self { live: source.is_live(), uneven: source.is_uneven(), sound: source.container(), encoder: None }
    }
}

/// Where frames go.
pub trait Sink: Send {
    /// What all frames have in common.
    fn video(&self) -> &VideoFormat;

    /// Whether somebody takes frames now. While nobody does, what comes live is dropped, and anything else waits.
    ///
    /// # Errors
    /// [`Error::Output`] when nobody ever can.
    fn is_wanted(&mut self) -> Result<bool> {
        Ok(true)
    }

    /// Whether [`write`](Self::write) may wait for another program, for as long as that likes, and nothing is lost when it is
    /// left alone.
    fn waits_for_reader(&self) -> bool {
        false
    }

    /// What is written until it is complete, where that can be played by itself.
    fn part(&self) -> Option<&Path> {
        None
    }

    /// Takes one frame.
    ///
    /// # Errors
    /// [`Error::Output`] when it cannot be written. What was written before stays readable once
    /// [`finish`](Self::finish) is called, which it is to be.
    fn write(&mut self, frame: &VideoFrame) -> Result<()>;

    /// Hears that the run was stopped before the source ended.
    fn stopped(&mut self) {}

    /// Completes the stream with what has been written whole.
    ///
    /// # Errors
    /// [`Error::Output`] when that fails.
    fn finish(&mut self) -> Result<()>;
}

/// What the caller knows better than the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FormatOverrides {
    /// Frames per second.
    pub rate: Option<Rate>,
    /// How luma and chroma come about.
    pub matrix: Option<Matrix>,
    /// Whether samples have the full range.
    pub full_range: Option<bool>,
}

impl FormatOverrides {
    fn apply(self, video: &mut VideoFormat) {
        video.rate = self.rate.unwrap_or(video.rate);
        if let Some(matrix) = self.matrix.filter(|matrix| *matrix != video.color.matrix) {
            (video.color.matrix, video.color.said_by) = (matrix, SaidBy::Caller);
        }
        video.color.full_range = self.full_range.unwrap_or(video.color.full_range);
    }
}

/// Refuses frames that are larger than any that is read, before memory is taken.
fn check_size(name: &Path, video: &VideoFormat) -> Result<()> {
    let (limits, &VideoFormat { width, height, .. }) = (Limits::default(), video);
    // Of longer sides there is no number of bytes.
    if width.max(height) <= limits.max_side && video.bytes() as u64 <= limits.max_bytes {
        return Ok(());
    }
    Err(Error::input(
        name,
        format!(
            "its frames have {width}x{height} pixels; at most {} a side and {} MiB are read; scale them down",
            limits.max_side,
            limits.max_bytes >> 20
        ),
    ))
}

/// Why a stream cannot be written. [`io::ErrorKind::BrokenPipe`] in its source says that nobody reads any more.
fn cannot_write(name: &Path, error: io::Error) -> Error {
    let problem = match error.kind() {
        io::ErrorKind::BrokenPipe => "its reader has closed it",
        io::ErrorKind::StorageFull => "the disk is full; what was finished is kept; free some space and try again",
        io::ErrorKind::FileTooLarge => TOO_LARGE,
        io::ErrorKind::QuotaExceeded => "the quota of this user is used up; what was finished is kept",
        _ => "the system reports an error",
    };
    Error::output_from(name, problem, error)
}

/// Whether an error says that whoever read our output has had enough.
pub fn reader_is_gone(error: &Error) -> bool {
    let Error::Output { source: Some(cause), .. } = error else { return false };
    cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
