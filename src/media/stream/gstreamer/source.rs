//! Frames that a GStreamer pipeline gives.

use std::io::{BufRead, BufReader, PipeReader, Read};
use std::path::{Path, PathBuf};

use super::program::{Announced, Program};
use super::request::Request;
use crate::error::{Error, Result};
use crate::media::stream::y4m::fill;
use crate::media::stream::{
    CameraRequest, FormatOverrides, ReadOutcome, Source, VideoFormat, VideoFrame,
    check_same_format, check_size,
};

/// Maximum length of a line of a frame's header.
const MAX_LINE: u64 = 256;

/// The frames of a pipeline, or of a camera that is read by one.
pub struct GstreamerSource {
    name: PathBuf,
    arguments: Vec<String>,
    interpretation: FormatOverrides,
    video: VideoFormat,
    is_live: bool,
    /// `None` after the end.
    running: Option<Running>,
    index: u64,
    is_over: bool,
    /// A frame in the layout of GStreamer.
    padded: Vec<u8>,
}

struct Running {
    program: Program,
    frames: BufReader<PipeReader>,
}

impl GstreamerSource {
    /// Starts `gst-launch-1.0` and waits for the format of the frames. `request` may give their
    /// size. The source is live where the pipeline is.
    ///
    /// # Errors
    /// [`Error::Usage`] for an invalid name of a camera, [`Error::Input`] when GStreamer is missing
    /// or cannot run the pipeline, with its message.
    pub fn open(
        name: &Path,
        request: CameraRequest,
        interpretation: FormatOverrides,
    ) -> Result<Self> {
        let Some(requested) = Request::of(name) else {
            return Err(Error::usage(format!("{} names no GStreamer pipeline", name.display())));
        };
        let arguments = requested.arguments(request.size, interpretation.rate)?;
        let (running, announced) = start(name, &arguments)?;
        let video = video_of(name, &announced, interpretation)?;
        Ok(Self {
            name: name.into(),
            arguments,
            interpretation,
            video,
            is_live: announced.is_live,
            running: Some(running),
            index: 0,
            is_over: false,
            padded: Vec::new(),
        })
    }

    /// Starts a pipeline again that was cut off.
    fn restart(&mut self) -> Result<Option<String>> {
        let (running, announced) = match start(&self.name, &self.arguments) {
            Ok(started) => started,
            Err(error) => return Ok(Some(error.to_string())),
        };
        self.same_format(&announced)?;
        self.running = Some(running);
        Ok(None)
    }

    fn same_format(&self, announced: &Announced) -> Result<()> {
        let video = video_of(&self.name, announced, self.interpretation)?;
        let advice = format!(
            "end the pipeline in the one wanted, such as ! videoscale ! \
             video/x-raw,width={},height={}",
            self.video.width, self.video.height
        );
        check_same_format(&self.name, [&self.video, &video], &advice)
    }

    /// Reads the next frame; false at the end, within a frame too.
    fn read(&mut self, frame: &mut VideoFrame) -> Result<bool> {
        let Self { running: Some(running), padded, video, name, .. } = self else {
            return Ok(false);
        };
        let failed = |error| Error::input_from(&*name, "the stream broke off", error);
        let Some(length) = length_of_next(&mut running.frames).map_err(failed)? else {
            return Ok(false);
        };
        let (planes, whole) = video.gstreamer_planes();
        if length != whole {
            if let Some(announced) = running.program.changed() {
                self.same_format(&announced)?;
            }
            return Err(Error::input(
                &self.name,
                format!(
                    "a frame has {length} bytes; expected {whole}, with rows that begin at \
                     multiples of 4 bytes; let another element write them anew, such as ! \
                     videoconvert ! video/x-raw,format=I420"
                ),
            ));
        }
        frame.bytes.resize(video.bytes(), 0);
        if whole == frame.bytes.len() {
            let got = fill(&mut running.frames, &mut frame.bytes).map_err(failed)?;
            return Ok(got == whole);
        }
        padded.resize(whole, 0);
        if fill(&mut running.frames, padded).map_err(failed)? < whole {
            return Ok(false);
        }
        for ([start, stride], [to, row, rows]) in
            planes.into_iter().zip(video.format.byte_planes(video.width, video.height))
        {
            let to = frame.bytes[to..to + row * rows].chunks_exact_mut(row);
            to.zip(padded[start..].chunks(stride))
                .for_each(|(to, from)| to.copy_from_slice(&from[..row]));
        }
        Ok(true)
    }
}

/// Starts a pipeline, and waits for the format of its frames.
fn start(name: &Path, arguments: &[String]) -> Result<(Running, Announced)> {
    let (mut program, frames) = Program::start(name, arguments)?;
    match program.announced() {
        Some(announced) => {
            Ok((Running { program, frames: BufReader::with_capacity(1 << 16, frames) }, announced))
        }
        None => {
            let problem = program.end().err();
            let problem = problem.unwrap_or_else(|| "the pipeline ended without a frame".into());
            Err(Error::input(name, problem))
        }
    }
}

fn video_of(
    name: &Path,
    announced: &Announced,
    interpretation: FormatOverrides,
) -> Result<VideoFormat> {
    let mut video = VideoFormat::of_gstreamer_caps(&announced.caps)
        .map_err(|problem| Error::input(name, problem))?;
    interpretation.apply(&mut video);
    check_size(name, &video)?;
    Ok(video)
}

/// Reads the header of the next frame: lines up to an empty one, of which one has its length in
/// bytes. `None` at the end.
fn length_of_next(frames: &mut impl BufRead) -> std::io::Result<Option<usize>> {
    let mut length = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        if frames.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let text = line.trim_ascii();
        if let Some(found) = text.strip_prefix(b"Content-Length:") {
            length = std::str::from_utf8(found).ok().and_then(|found| found.trim().parse().ok());
        }
        // An empty line before the header separates it from the frame before.
        if text.is_empty() && length.is_some() {
            return Ok(length);
        }
    }
}

impl Source for GstreamerSource {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome> {
        if self.is_over {
            return Ok(ReadOutcome::End);
        }
        if self.running.is_none()
            && let Some(problem) = self.restart()?
        {
            return Ok(ReadOutcome::Disconnected(problem));
        }
        if self.read(frame)? {
            frame.tags.clear();
            frame.index = self.index;
            frame.time = self.video.rate.time_of(self.index);
            self.index += 1;
            return Ok(ReadOutcome::Frame);
        }
        let ended = self.running.take().map_or(Ok(()), |mut running| running.program.end());
        match ended {
            Ok(()) => {
                self.is_over = !self.restarts();
                Ok(ReadOutcome::End)
            }
            Err(problem) if self.is_live => {
                Ok(ReadOutcome::Disconnected(format!("{}: {problem}", self.name.display())))
            }
            Err(problem) => Err(Error::input(&self.name, problem)),
        }
    }

    fn is_live(&self) -> bool {
        self.is_live
    }

    fn restarts(&self) -> bool {
        self.is_live
    }
}

#[cfg(test)]
mod tests {
    use super::length_of_next;

    #[test]
    fn reads_lengths_between_frames() {
        let head = "--eddy\r\nContent-Type: video/x-raw\r\nContent-Length: 4\r\n\r\n";
        let stream = format!("{head}abcd\r\n{head}efgh\r\n");
        let mut rest = stream.as_bytes();
        for frame in [b"abcd", b"efgh"] {
            assert_eq!(length_of_next(&mut rest).unwrap(), Some(4));
            let (taken, after) = rest.split_at(4);
            assert_eq!(taken, frame);
            rest = after;
        }
        assert_eq!(length_of_next(&mut rest).unwrap(), None);
        assert_eq!(length_of_next(&mut &b"--eddy\r\nContent-Len"[..]).unwrap(), None);
    }
}
