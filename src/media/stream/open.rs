//! Opens the streams that are named on the command line.

use std::fs::File;
use std::io::{Read, stdin, stdout};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::camera::{CameraFormat, CameraRequest, CameraSource};
use super::ffmpeg::{
    FfmpegSink, FfmpegSource, ServerSink, is_container, is_server, is_url, protocols,
};
use super::file::PartFile;
use super::gstreamer::{GstreamerSource, is_gstreamer};
use super::pipe::PipeSink;
use super::raw::RawSource;
use super::sequence::{SequenceSink, SequenceSource};
use super::sink::{Framing, PlainSink};
use super::video::{Matrix, Rate, TagSource, VideoFormat};
use super::y4m::{MAGIC, Y4mSource, nearest};
use super::{FormatOverrides, Origin, Sink, Source};
use crate::error::{Error, Result};
use crate::machine::is_stdout_closed;
use crate::media::source::{ends_in_slash, images};
use crate::media::still::Limits;
use crate::media::{self, Format, still};
use crate::setting::{PIXEL_FORMAT, STREAM_SIZE};

/// Default frame rate of a stream that does not specify one.
const USUAL_RATE: Rate = Rate::of(25);

/// Extensions of files with raw frames.
const RAW: [&str; 10] =
    ["raw", "yuv", "i420", "nv12", "yuyv", "rgb", "bgr", "rgb24", "bgr24", "gray"];

fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// Whether a path is a V4L2 device, by the major number of the character device.
fn is_camera(path: &Path) -> bool {
    const VIDEO4LINUX: u32 = 81;
    let found = path.metadata();
    found.is_ok_and(|found| {
        found.file_type().is_char_device() && rustix::fs::major(found.rdev()) == VIDEO4LINUX
    })
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    let extension =
        path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
    extension.is_some_and(|extension| known.contains(&extension.as_str()))
}

fn starts_as_y4m(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    path.is_file()
        && File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok())
        && start == MAGIC
}

/// Whether data are a container for ffmpeg, by their first 12 bytes: Matroska, AVI, MP4, Ogg, FLV,
/// MPEG streams or ASF. Raw frames begin as these only by chance.
fn starts_as_container(head: &[u8]) -> bool {
    match head {
        [0x1a, 0x45, 0xdf, 0xa3, ..]
        | [b'R', b'I', b'F', b'F', ..]
        | [_, _, _, _, b'f', b't', b'y', b'p', ..]
        | [b'O', b'g', b'g', b'S', ..]
        | [b'F', b'L', b'V', 1, ..]
        | [0, 0, 1, 0xba | 0xb3, ..]
        | [0x30, 0x26, 0xb2, 0x75, ..] => true,
        // A packet of a transport stream, with its first table.
        [0x47, 0x40, ..] => true,
        _ => false,
    }
}

/// Whether a source is video: standard input, a URL, a GStreamer pipeline, a device, y4m, or a
/// container for ffmpeg.
pub fn is_source(path: &Path) -> bool {
    let is_pipe = path.metadata().is_ok_and(|found| found.file_type().is_fifo());
    let is_named = is_standard(path) || is_url(path) || is_gstreamer(path) || is_container(path);
    is_named || is_pipe || is_camera(path) || starts_as_y4m(path)
}

/// Whether a sink is video: standard output, y4m, raw frames, a container, or a server.
pub fn is_sink(path: &Path) -> bool {
    is_standard(path)
        || has_extension(path, &["y4m", "yuv", "raw"])
        || is_container(path)
        || is_url(path)
}

/// Opens the one stream that `sources` name: a stream, or image files and folders in sequence,
/// each within `limits`. `request` is for cameras. If it names a format, other sources are read as
/// raw frames, and it must also give the size.
///
/// # Errors
/// [`Error::Input`] for a source that cannot be read, [`Error::Usage`] for several streams.
pub fn open(
    sources: &[PathBuf],
    request: CameraRequest,
    interpretation: FormatOverrides,
    limits: Limits,
) -> Result<Box<dyn Source>> {
    let [source] = sources else {
        if let Some(stream) = sources.iter().find(|source| is_source(source)) {
            let problem = "is a stream, which must be the only source of a run; name it alone";
            return Err(Error::usage(format!("{} {problem}", stream.display())));
        }
        return sequence(sources, interpretation, limits);
    };
    if is_camera(source) {
        return Ok(Box::new(CameraSource::open(source, request, interpretation)?));
    }
    if is_gstreamer(source) {
        if request.format.is_some() {
            return Err(Error::usage(format!(
                "{PIXEL_FORMAT} is of raw frames or of a V4L2 camera; end the pipeline in the \
                 format, such as gst:\"libcamerasrc ! video/x-raw,format=NV12\""
            )));
        }
        return Ok(Box::new(GstreamerSource::open(source, request, interpretation)?));
    }
    if request.size.is_some() && request.format.is_none() {
        return Err(Error::usage(format!(
            "{STREAM_SIZE} is for cameras and raw frames; raw frames also need {PIXEL_FORMAT}",
        )));
    }
    let is_file = source.is_file();
    if let Some(format) = request.format {
        let CameraFormat::Plain(format) = format else {
            return Err(Error::usage(
                "mjpeg is not a format of raw frames; it is for cameras, or read by ffmpeg",
            ));
        };
        let Some([width, height]) = request.size else {
            return Err(Error::usage(format!(
                "raw frames need both {STREAM_SIZE} and {PIXEL_FORMAT}",
            )));
        };
        let mut video = VideoFormat::new(width, height, USUAL_RATE, format);
        interpretation.apply(&mut video);
        return if is_standard(source) {
            Ok(Box::new(RawSource::new(Path::new("standard input"), standard_input()?, video)?))
        } else {
            Ok(Box::new(RawSource::new(source, media::open(source)?, video)?))
        };
    }
    if is_standard(source) {
        let name = Path::new("standard input");
        let is_container = starts_as_container(standard_input_head()?);
        let all = read_standard_input()?;
        return Ok(if is_container {
            Box::new(FfmpegSource::of_pipe(name, all, interpretation)?)
        } else {
            Box::new(Y4mSource::open(name, all, interpretation)?)
        });
    }
    if starts_as_y4m(source) || has_extension(source, &["y4m"]) {
        return Ok(Box::new(Y4mSource::open(source, media::open(source)?, interpretation)?));
    }
    let is_image = is_file && Format::from_path(source).is_some() && !is_container(source);
    if is_image || source.is_dir() || !(is_file || is_source(source)) {
        return sequence(sources, interpretation, limits);
    }
    if has_extension(source, &RAW) && is_file {
        return Err(Error::usage(format!(
            "{} holds raw frames, by its name, without size and format; add both, such as \
             {STREAM_SIZE} 640x480 {PIXEL_FORMAT} nv12",
            source.display()
        )));
    }
    Ok(Box::new(FfmpegSource::open(source, interpretation)?))
}

fn sequence(
    sources: &[PathBuf],
    interpretation: FormatOverrides,
    limits: Limits,
) -> Result<Box<dyn Source>> {
    let rate = interpretation.rate.unwrap_or(USUAL_RATE);
    Ok(Box::new(SequenceSource::open(images(sources)?, rate, limits)?))
}

/// Standard input as a file, without the buffer and lock of the standard library.
fn standard_input() -> Result<File> {
    let owned = stdin().as_fd().try_clone_to_owned();
    owned
        .map(File::from)
        .map_err(|error| Error::input_from("standard input", "it is not open", error))
}

/// The first bytes of standard input, which were read to detect its format.
static HEAD: OnceLock<Vec<u8>> = OnceLock::new();

/// Whether standard input is an image file. Waits for its first bytes, which later readers get,
/// too.
///
/// # Errors
/// [`Error::Input`] when it cannot be read.
pub fn standard_input_is_image() -> Result<bool> {
    Ok(Format::from_content(standard_input_head()?).is_some())
}

fn standard_input_head() -> Result<&'static [u8]> {
    if HEAD.get().is_none() {
        let mut head = Vec::new();
        let read = standard_input()?.take(12).read_to_end(&mut head);
        read.map_err(|error| Error::input_from("standard input", "it cannot be read", error))?;
        if head.is_empty() {
            return Err(Error::input(
                "standard input",
                "it is empty; pipe an image, y4m or raw frames into it",
            ));
        }
        if head.get(4..8) == Some(b"ftyp")
            && [b"avif", b"heic", b"heix", b"mif1"].iter().any(|kind| head.ends_with(*kind))
        {
            let problem = "it is AVIF or HEIF, which is read from a file only; name the file";
            return Err(Error::input("standard input", problem));
        }
        let _ = HEAD.set(head);
    }
    Ok(HEAD.get().map(Vec::as_slice).unwrap_or_default())
}

/// The format of the image on standard input.
///
/// # Errors
/// [`Error::Input`] when it is not an image.
pub fn standard_input_format() -> Result<Format> {
    let format = Format::from_content(standard_input_head()?);
    format.ok_or_else(|| Error::input("standard input", "it does not begin as a frame file"))
}

/// All of standard input, including its first bytes.
///
/// # Errors
/// [`Error::Input`] when it is not open.
pub fn read_standard_input() -> Result<impl Read + Send> {
    Ok(HEAD.get().map(Vec::as_slice).unwrap_or_default().chain(standard_input()?))
}

/// What is wrong with an output that was closed before the start.
pub const CLOSED: &str = "it is closed; name a file, or do not close it";

fn standard_output() -> Result<File> {
    if is_stdout_closed() {
        return Err(Error::Output {
            path: "standard output".into(),
            problem: CLOSED.into(),
            source: None,
        });
    }
    let owned = stdout().as_fd().try_clone_to_owned();
    owned
        .map(File::from)
        .map_err(|error| Error::output_from("standard output", "it is not open", error))
}

/// The format in which a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkFormat {
    /// A y4m stream.
    Y4m,
    /// Raw frames.
    Raw,
    /// Image files in a folder.
    ImageSequence(Format),
    /// A container that ffmpeg writes, by file extension.
    Container,
    /// A server to which ffmpeg sends frames, by the protocol of its URL.
    Server,
}

impl SinkFormat {
    /// The format for `path`, unless `requested` gives one.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown extension.
    pub fn choose(path: &Path, requested: Option<Self>) -> Result<Self> {
        if is_url(path) {
            return match (is_server(path), requested) {
                (true, None) => Ok(Self::Server),
                (true, Some(_)) => Err(Error::usage(format!(
                    "{} takes an encoded stream and no other format; leave the format out",
                    path.display()
                ))),
                (false, _) => Err(Error::usage(format!(
                    "frames cannot be sent to {}; expected {}, or the name of a file",
                    path.display(),
                    protocols()
                ))),
            };
        }
        let folder = path.is_dir() || ends_in_slash(path);
        let one_file = |format: Format| {
            Error::usage(format!(
                "a stream is many frames, {} is one {}; name a folder (end it in /), or a .y4m \
                 file",
                path.display(),
                format.extension()
            ))
        };
        match requested {
            Some(Self::ImageSequence(format)) if !folder => Err(one_file(format)),
            Some(requested) => Ok(requested),
            None if folder => Ok(Self::ImageSequence(Format::Png)),
            None if is_standard(path) || has_extension(path, &["y4m"]) => Ok(Self::Y4m),
            None if has_extension(path, &["yuv", "raw"]) => Ok(Self::Raw),
            None if is_container(path) => Ok(Self::Container),
            None => match Format::from_path(path) {
                Some(format) => Err(one_file(format)),
                None => Err(Error::usage(format!(
                    "the name {} has no extension of a stream; end it in .y4m, in .mp4 or the like \
                     (by ffmpeg), or in / for a folder of frames",
                    path.display()
                ))),
            },
        }
    }

    /// The format of frames that this sink can hold with the least loss from `video`.
    pub fn video_for(self, video: &VideoFormat) -> VideoFormat {
        match self {
            Self::Raw => video.clone(),
            Self::ImageSequence(format) => SequenceSink::video_for(video, format),
            Self::Y4m | Self::Container | Self::Server => {
                let mut result = VideoFormat { format: nearest(video.format), ..video.clone() };
                let color = &mut result.color;
                let default = Matrix::default_for(video.height);
                if video.format.chroma().is_none() {
                    // Converts full-range RGB to YCbCr in the usual limited range.
                    color.full_range = false;
                    if color.matrix_source != TagSource::Caller {
                        (color.matrix, color.matrix_source) = (default, TagSource::Source);
                    }
                } else if self == Self::Y4m
                    && color.matrix_source != TagSource::Caller
                    && matches!(color.matrix, Matrix::Bt601 | Matrix::Bt709)
                {
                    // y4m cannot specify the matrix, and this is its readers' default.
                    color.matrix = default;
                }
                result
            }
        }
    }

    /// What is lost of `source` in a sink with frames of format `result`, one sentence each.
    pub fn losses(self, source: &VideoFormat, result: &VideoFormat) -> Vec<String> {
        let mut losses = Vec::new();
        if source.alpha {
            let words = "the source has transparency, which a stream does not hold: what was \
                         hidden beneath it shows";
            losses.push(words.to_owned());
        }
        if let (Self::ImageSequence(_), Some([width, height])) = (self, result.aspect)
            && width != height
        {
            losses.push(format!(
                "pixels are {width}:{height}, which frame files cannot declare: frames look \
                 squeezed"
            ));
        }
        let has_matrix =
            self == Self::Y4m && result.format.chroma().is_some() && !result.format.is_gray();
        if has_matrix && result.color.matrix != Matrix::default_for(result.height) {
            let matrix = result.color.matrix;
            losses.push(format!(
                "y4m cannot declare that its color is {matrix}: readers need an option for it"
            ));
        } else if has_matrix
            && source.color.matrix_source == TagSource::Source
            && source.color.matrix != result.color.matrix
        {
            losses.push(format!(
                "y4m cannot declare that its color is {}: it was converted to {}, which readers \
                 assume at that height",
                source.color.matrix, result.color.matrix
            ));
        }
        if let (
            Self::Y4m | Self::ImageSequence(_),
            Some(transfer @ ("smpte2084" | "arib-std-b67")),
        ) = (self, source.color.transfer.transfer())
        {
            losses.push(format!(
                "values are those of {transfer}, which the output cannot declare: it will look too dull"
            ));
        }
        losses
    }

    /// Opens the sink. `video` is the result of [`video_for`](Self::video_for), and frames come
    /// from `origin`.
    ///
    /// # Errors
    /// [`Error::Output`] when it cannot be written.
    pub fn create(
        self,
        path: &Path,
        options: still::Options,
        video: &VideoFormat,
        origin: Origin<'_>,
    ) -> Result<Box<dyn Sink>> {
        let framing = if self == Self::Raw { Framing::Raw } else { Framing::Y4m };
        Ok(match self {
            Self::ImageSequence(format) => {
                Box::new(SequenceSink::create(path, format, options, video.clone())?)
            }
            Self::Container => Box::new(FfmpegSink::create(path, video, origin)?),
            Self::Server => Box::new(ServerSink::connect(path, video, origin)?),
            Self::Y4m | Self::Raw if is_standard(path) => Box::new(PipeSink::open(
                Path::new("standard output"),
                standard_output()?,
                framing,
                video,
            )?),
            Self::Y4m | Self::Raw if is_pipe(path) => {
                Box::new(PipeSink::named(path, framing, video, origin.live)?)
            }
            Self::Y4m | Self::Raw => {
                Box::new(PlainSink::create(path, PartFile::create(path)?, framing, video)?)
            }
        })
    }
}

/// Whether the path exists and is not a file: a named pipe or a device such as `/dev/null`.
fn is_pipe(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.file_type().is_fifo() || found.file_type().is_char_device())
}
