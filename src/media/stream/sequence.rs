//! Image sequences: image files as a stream, and a stream as image files.

use std::path::{Path, PathBuf};

use super::format::{Chroma, Order, PixelFormat};
use super::video::{Rate, VideoFormat};
use super::{ReadOutcome, Sink, Source, VideoFrame, cannot_write};
use crate::durable::{Completer, create_folder};
use crate::error::{Error, Result};
use crate::media::still::{self, Limits, Options};
use crate::media::{Format, Image, Metadata, Samples};

/// A sequence of image files, all of the size and kind of the first; transparency is dropped.
pub struct SequenceSource {
    files: std::vec::IntoIter<PathBuf>,
    /// The first image, which is read when the source is opened.
    first: Option<Image>,
    video: VideoFormat,
    limits: Limits,
    index: u64,
}

impl SequenceSource {
    /// The images in `files`, at this frame rate.
    ///
    /// # Errors
    /// [`Error::Input`] when there are no files or the first cannot be read.
    pub fn open(files: Vec<PathBuf>, rate: Rate, limits: Limits) -> Result<Self> {
        let Some(path) = files.first() else {
            return Err(Error::usage("no frame is given; name a file or a folder"));
        };
        let first = still::read(path, &limits)?.upright();
        let mut video = VideoFormat::new(first.width, first.height, rate, format_of(&first));
        video.alpha = !first.is_opaque();
        Ok(Self {
            files: files.into_iter(),
            first: Some(first),
            video: full_range(video),
            limits,
            index: 0,
        })
    }
}

/// Image files have full range.
fn full_range(mut video: VideoFormat) -> VideoFormat {
    video.color.full_range = true;
    video
}

fn format_of(frame: &Image) -> PixelFormat {
    let bits = frame.samples.bits();
    match frame.color_channels() {
        1 => PixelFormat::planar(Chroma::Mono, bits),
        _ => PixelFormat::Packed { order: Order::Rgb, bits },
    }
}

impl Source for SequenceSource {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome> {
        let Some(path) = self.files.next() else { return Ok(ReadOutcome::End) };
        let read = match self.first.take() {
            Some(still) => Ok(still),
            None => still::read(&path, &self.limits).map(Image::upright),
        };
        (frame.index, frame.time) = (self.index, self.video.rate.time_of(self.index));
        self.index += 1;
        let still = match read {
            Ok(still) => still,
            Err(error) => return Ok(ReadOutcome::Corrupt(message_with_cause(&error))),
        };
        let VideoFormat { width, height, format, .. } = self.video;
        let found = format_of(&still);
        if (still.width, still.height, found) != (width, height, format) {
            return Ok(ReadOutcome::Corrupt(format!(
                "{} has {}x{} pixels in {found}; the first frame has {width}x{height} in {format}",
                path.display(),
                still.width,
                still.height
            )));
        }
        frame.bytes.clear();
        let colors = still.color_channels();
        match &still.samples {
            Samples::U8(samples) => {
                samples
                    .chunks_exact(still.channels)
                    .for_each(|pixel| frame.bytes.extend(&pixel[..colors]));
            }
            Samples::U16(samples) => {
                let pixels = samples.chunks_exact(still.channels);
                pixels
                    .flat_map(|pixel| &pixel[..colors])
                    .for_each(|s| frame.bytes.extend(s.to_le_bytes()));
            }
        }
        Ok(ReadOutcome::Frame)
    }
}

fn message_with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Numbered image files in a folder: `000001.png`, ... Each appears only when complete.
pub struct SequenceSink {
    folder: PathBuf,
    format: Format,
    options: Options,
    video: VideoFormat,
    still: Image,
    completer: Completer,
}

impl SequenceSink {
    /// The frame format that [`create`](Self::create) accepts, as close as possible to `video`.
    pub fn video_for(video: &VideoFormat, format: Format) -> VideoFormat {
        let deep = video.format.bits() > 8 && matches!(format, Format::Png | Format::Tiff);
        let bits = if deep { 16 } else { 8 };
        let format = match video.format.is_gray() {
            true => PixelFormat::planar(Chroma::Mono, bits),
            false => PixelFormat::Packed { order: Order::Rgb, bits },
        };
        full_range(VideoFormat { format, ..video.clone() })
    }

    /// Writes frames into `folder`, which is created if missing.
    ///
    /// # Errors
    /// [`Error::Output`] when the folder cannot be created; [`Error::Usage`] for frames of another
    /// format than [`video_for`](Self::video_for).
    pub fn create(
        folder: &Path,
        format: Format,
        options: Options,
        video: VideoFormat,
    ) -> Result<Self> {
        if video != Self::video_for(&video, format) {
            return Err(Error::usage(format!(
                "frame files hold gray or RGB, these are {}",
                video.format
            )));
        }
        create_folder(folder).map_err(|error| {
            Error::output_from(folder, "the folder cannot be created; choose another place", error)
        })?;
        let channels = if video.format.is_gray() { 1 } else { 3 };
        let samples = if video.format.bits() == 8 {
            Samples::U8(Vec::new())
        } else {
            Samples::U16(Vec::new())
        };
        let (width, height) = (video.width, video.height);
        let still = Image { width, height, channels, samples, metadata: Metadata::default() };
        let completer = Completer::new().map_err(|error| cannot_write(folder, error))?;
        Ok(Self { folder: folder.into(), format, options, video, still, completer })
    }
}

impl Sink for SequenceSink {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn write(&mut self, frame: &VideoFrame) -> Result<()> {
        match &mut self.still.samples {
            Samples::U8(samples) => samples.clone_from(&frame.bytes),
            Samples::U16(samples) => {
                samples.clear();
                samples.extend(
                    frame.bytes.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes)),
                );
            }
        }
        let name = format!("{:06}.{}", frame.index + 1, self.format.extension());
        let part =
            still::write_part(&self.still, &self.folder.join(name), self.format, &self.options)?;
        self.completer.complete(part).map_err(|(path, error)| cannot_write(&path, error))
    }

    fn finish(&mut self) -> Result<()> {
        self.completer.finish().map_err(|(path, error)| cannot_write(&path, error))
    }
}
