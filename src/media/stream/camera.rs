//! Cameras: Video4Linux 2 devices.

use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::time::Instant;

use linuxvideo::format::{FrameSizes, PixFormat, PixelFormat as FourCc};
use linuxvideo::stream::ReadStream;
use linuxvideo::{BufType, CapabilityFlags, Device, Fract};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::format::{Chroma, Order, PixelFormat};
use super::video::{Rate, Siting, VideoFormat};
use super::{FormatOverrides, ReadOutcome, Source, VideoFrame};
use crate::error::{Error, Result};
use crate::media::still::{self, Limits};
use crate::media::{Image, Samples};

/// Settings that are requested by default.
const DEFAULT_SIZE: [usize; 2] = [640, 480];
const DEFAULT_RATE: Rate = Rate::of(30);

/// How long to wait for a frame before the connection is checked.
const POLL_TIMEOUT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// The format of a camera's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CameraFormat {
    /// Uncompressed samples.
    Plain(PixelFormat),
    /// A JPEG per frame, decoded to RGB.
    Mjpeg,
}

/// Supported formats, best first: uncompressed ones with color.
const KNOWN: [(&[u8; 4], CameraFormat); 11] = [
    (b"YUYV", CameraFormat::Plain(PixelFormat::Yuyv)),
    (b"NV12", CameraFormat::Plain(PixelFormat::Nv12)),
    (b"YU12", CameraFormat::Plain(PixelFormat::planar(Chroma::C420, 8))),
    (b"422P", CameraFormat::Plain(PixelFormat::planar(Chroma::C422, 8))),
    (b"RGB3", CameraFormat::Plain(PixelFormat::RGB24)),
    (b"BGR3", CameraFormat::Plain(PixelFormat::Packed { order: Order::Bgr, bits: 8 })),
    (b"MJPG", CameraFormat::Mjpeg),
    (b"JPEG", CameraFormat::Mjpeg),
    (b"GRAY", CameraFormat::Plain(PixelFormat::planar(Chroma::Mono, 8))),
    (b"Y10 ", CameraFormat::Plain(PixelFormat::planar(Chroma::Mono, 10))),
    (b"Y16 ", CameraFormat::Plain(PixelFormat::planar(Chroma::Mono, 16))),
];

impl std::fmt::Display for CameraFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(format) => format.fmt(f),
            Self::Mjpeg => f.write_str("mjpeg"),
        }
    }
}

impl std::str::FromStr for CameraFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mjpeg" | "mjpg" => Ok(Self::Mjpeg),
            _ => text.parse().map(Self::Plain).map_err(|error| format!("{error}, or mjpeg")),
        }
    }
}

/// The requested settings of a camera, or the format of raw frames.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CameraRequest {
    /// Width and height in pixels. Default: the camera's choice near 640x480.
    pub size: Option<[usize; 2]>,
    /// The pixel format. Default: the camera's choice.
    pub format: Option<CameraFormat>,
}

/// A camera. If it is disconnected, each request for a frame tries to reconnect.
pub struct CameraSource {
    path: PathBuf,
    request: CameraRequest,
    interpretation: FormatOverrides,
    video: VideoFormat,
    open: Option<Open>,
    started: Instant,
    index: u64,
}

/// A running camera.
struct Open {
    stream: ReadStream,
    format: CameraFormat,
    video: VideoFormat,
    /// Bytes between the starts of rows.
    stride: usize,
}

impl CameraSource {
    /// Starts a camera.
    ///
    /// # Errors
    /// [`Error::Input`] when it is not a camera, is busy, or does not offer the request; the
    /// message lists what it offers.
    pub fn open(
        path: &Path,
        request: CameraRequest,
        interpretation: FormatOverrides,
    ) -> Result<Self> {
        let open = start(path, request, interpretation)?;
        let video = open.video.clone();
        let started = Instant::now();
        Ok(Self {
            path: path.into(),
            request,
            interpretation,
            video,
            open: Some(open),
            started,
            index: 0,
        })
    }

    /// Tries to reconnect the camera.
    fn find_again(&mut self) -> std::result::Result<(), String> {
        let open = start(&self.path, self.request, self.interpretation)
            .map_err(|error| error.to_string())?;
        if (open.video.width, open.video.height, open.video.format)
            != (self.video.width, self.video.height, self.video.format)
        {
            return Err(format!("another camera is now at {}", self.path.display()));
        }
        self.open = Some(open);
        Ok(())
    }
}

impl Source for CameraSource {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome> {
        if self.open.is_none()
            && let Err(why) = self.find_again()
        {
            return Ok(ReadOutcome::Disconnected(why));
        }
        let Some(open) = &mut self.open else { return Ok(ReadOutcome::End) };
        match open.take(&self.path, &mut frame.bytes) {
            Ok(Dequeued::Frame) => {}
            Ok(Dequeued::Corrupt(why)) => return Ok(ReadOutcome::Corrupt(why)),
            Ok(Dequeued::Nothing) => return Ok(ReadOutcome::Waiting),
            Err(error) => {
                self.open = None;
                return Ok(ReadOutcome::Disconnected(format!(
                    "the camera {} was disconnected ({error})",
                    self.path.display()
                )));
            }
        }
        (frame.index, frame.time) = (self.index, self.started.elapsed());
        self.index += 1;
        Ok(ReadOutcome::Frame)
    }

    fn is_live(&self) -> bool {
        true
    }
}

enum Dequeued {
    Frame,
    Corrupt(String),
    Nothing,
}

impl Open {
    /// Waits briefly for a frame.
    fn take(&mut self, path: &Path, bytes: &mut Vec<u8>) -> io::Result<Dequeued> {
        let mut ready = [PollFd::new(&self.stream, PollFlags::IN)];
        match poll(&mut ready, Some(&POLL_TIMEOUT)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Dequeued::Nothing),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        if ready[0].revents().contains(PollFlags::HUP) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (video, stride, format) = (&self.video, self.stride, self.format);
        self.stream.dequeue(|view| {
            if view.is_error() {
                return Ok(Dequeued::Corrupt("the camera marked the frame as damaged".into()));
            }
            Ok(match format {
                CameraFormat::Plain(_) => copy(&view, video, stride, bytes),
                CameraFormat::Mjpeg => decode(path, &view, video, bytes),
            })
        })
    }
}

/// Copies a frame without the padding of its rows.
fn copy(view: &[u8], video: &VideoFormat, stride: usize, bytes: &mut Vec<u8>) -> Dequeued {
    bytes.clear();
    let (width, height) = (video.width, video.height);
    let row = video.format.bytes(width, 1);
    let is_padded = stride > row
        && matches!(video.format.chroma(), None | Some(Chroma::Mono) | Some(Chroma::C422));
    if is_padded && !matches!(video.format, PixelFormat::Planar { chroma: Chroma::C422, .. }) {
        view.chunks(stride)
            .take(height)
            .for_each(|line| bytes.extend_from_slice(&line[..row.min(line.len())]));
    } else {
        bytes.extend_from_slice(&view[..view.len().min(video.bytes())]);
    }
    if bytes.len() == video.bytes() {
        return Dequeued::Frame;
    }
    Dequeued::Corrupt(format!(
        "the camera gave {} bytes of a frame that has {}",
        bytes.len(),
        video.bytes()
    ))
}

fn decode(path: &Path, view: &[u8], video: &VideoFormat, bytes: &mut Vec<u8>) -> Dequeued {
    let frame = match still::decode(path, Cursor::new(view), &Limits::default()) {
        Ok(frame) => frame,
        Err(error) => return Dequeued::Corrupt(error.to_string()),
    };
    let Image { width, height, channels, samples: Samples::U8(samples), .. } = frame else {
        return Dequeued::Corrupt("the camera gave a JPEG of more than 8 bits".into());
    };
    if (width, height) != (video.width, video.height) {
        return Dequeued::Corrupt(format!("the camera gave a JPEG of {width}x{height}"));
    }
    bytes.clear();
    if channels == 1 {
        samples.iter().for_each(|gray| bytes.extend([*gray; 3]));
    } else {
        bytes.extend_from_slice(&samples);
    }
    Dequeued::Frame
}

/// A capture device, its name, and the formats that it offers.
fn device(path: &Path) -> Result<(Device, String, Vec<FourCc>)> {
    let device = Device::open(path).map_err(|error| {
        let problem = match error.kind() {
            io::ErrorKind::NotFound => {
                "there is no such device; check that the camera is plugged in"
            }
            io::ErrorKind::PermissionDenied => {
                "it may not be used; add yourself to the group `video`"
            }
            _ => return Error::input_from(path, "it cannot be used as a camera", error),
        };
        Error::input(path, problem)
    })?;
    let has = device
        .capabilities()
        .map_err(|error| Error::input_from(path, "it is not a camera", error))?;
    if !has.device_capabilities().contains(CapabilityFlags::VIDEO_CAPTURE) {
        return Err(Error::input(
            path,
            format!("{} is not a capture device; choose another one", has.card()),
        ));
    }
    let offered: Vec<FourCc> = device
        .formats(BufType::VIDEO_CAPTURE)
        .filter_map(|format| Some(format.ok()?.pixel_format()))
        .collect();
    Ok((device, has.card().to_owned(), offered))
}

/// A camera's name and a description of what it offers.
///
/// # Errors
/// [`Error::Input`] when it is not a camera, or access is denied.
pub fn describe(path: &Path) -> Result<(String, String)> {
    let (device, name, offered) = device(path)?;
    Ok((name, offer(&device, &offered)))
}

fn start(path: &Path, request: CameraRequest, interpretation: FormatOverrides) -> Result<Open> {
    let (device, _, offered) = device(path)?;
    let failed = |problem: &str, error: io::Error| Error::input_from(path, problem, error);
    let offers = offer(&device, &offered);
    let known = KNOWN.iter().find(|(code, format)| {
        offered.contains(&FourCc::from_fourcc(**code))
            && request.format.is_none_or(|requested| requested == *format)
    });
    let Some((code, format)) = known else {
        let requested = request
            .format
            .map_or("any format that Eddy reads".to_owned(), |format| format.to_string());
        return Err(Error::input(
            path,
            format!("it does not offer {requested}; it offers {offers}"),
        ));
    };
    let [width, height] = request.size.unwrap_or(DEFAULT_SIZE);
    let (Ok(w), Ok(h)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(Error::usage(format!("{width}x{height} is not a valid frame size")));
    };
    let code = FourCc::from_fourcc(**code);
    let capture = device
        .video_capture(PixFormat::new(w, h, code))
        .map_err(|error| failed("it cannot be set up; another program may be using it", error))?;
    let (got_width, got_height) =
        (capture.format().width() as usize, capture.format().height() as usize);
    let got = capture.format().pixel_format();
    if got != code || request.size.is_some_and(|size| size != [got_width, got_height]) {
        let problem = format!(
            "it does not give {width}x{height} in {format} but {got_width}x{got_height} in {got}; \
             it gives {offers}"
        );
        return Err(Error::input(path, problem));
    }
    let rate = interpretation.rate.unwrap_or(DEFAULT_RATE);
    // Cameras with a single rate do not allow setting it.
    let interval = capture.set_frame_interval(Fract::new(rate.seconds, rate.frames)).ok();
    let rate = interval.map_or(rate, |interval| Rate {
        frames: interval.denominator().max(1),
        seconds: interval.numerator().max(1),
    });
    let plain = match format {
        CameraFormat::Plain(plain) => *plain,
        CameraFormat::Mjpeg => PixelFormat::RGB24,
    };
    let mut video = VideoFormat::new(got_width, got_height, rate, plain);
    video.color.siting = Siting::Left;
    FormatOverrides { rate: None, ..interpretation }.apply(&mut video);
    let stride = capture.format().bytes_per_line() as usize;
    let stream = capture.into_stream().map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::BUSY.raw_os_error() => {
            failed("another program is using it; end that first", error)
        }
        _ => failed("it cannot be started", error),
    })?;
    Ok(Open { stream, format: *format, video, stride })
}

/// Describes what a camera offers.
fn offer(device: &Device, formats: &[FourCc]) -> String {
    let words = formats.iter().map(|code| {
        let known = KNOWN.iter().find(|(known, _)| FourCc::from_fourcc(**known) == *code);
        let name = known.map_or_else(
            || format!("{code} (which Eddy does not read)"),
            |(_, format)| format.to_string(),
        );
        let sizes = match device.frame_sizes(*code) {
            Ok(FrameSizes::Discrete(sizes)) => {
                let sizes: Vec<String> = sizes
                    .iter()
                    .map(|size| format!("{}x{}", size.width(), size.height()))
                    .collect();
                sizes.join(" ")
            }
            Ok(sizes) => {
                let [a, b, c, d] =
                    [sizes.min_width(), sizes.min_height(), sizes.max_width(), sizes.max_height()];
                format!("{a}x{b} to {c}x{d}")
            }
            Err(_) => String::new(),
        };
        format!("{name} {sizes}").trim_end().to_owned()
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// The cameras of this machine: `/dev/video*` in order.
pub fn cameras() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        glob::glob("/dev/video*").map(|paths| paths.flatten().collect()).unwrap_or_default();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::{CameraFormat, Dequeued, copy};
    use crate::media::stream::{PixelFormat, Rate, VideoFormat};

    #[test]
    fn removes_row_padding_and_detects_short_frames() {
        let video = VideoFormat::new(2, 2, Rate::of(30), PixelFormat::RGB24);
        let mut bytes = Vec::new();
        let view: Vec<u8> = (0..16).collect();
        assert!(matches!(copy(&view, &video, 8, &mut bytes), Dequeued::Frame));
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
        assert!(matches!(copy(&view[..9], &video, 8, &mut bytes), Dequeued::Corrupt(_)));
        assert!(matches!(copy(&view, &video, 6, &mut bytes), Dequeued::Frame));
    }

    #[test]
    fn parses_format_names() {
        assert_eq!("mjpeg".parse(), Ok(CameraFormat::Mjpeg));
        assert_eq!("nv12".parse(), Ok(CameraFormat::Plain(PixelFormat::Nv12)));
        assert!("h264".parse::<CameraFormat>().is_err());
    }
}
