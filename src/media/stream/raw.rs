//! Raw frames, one after the other without headers.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::video::VideoFormat;
use super::y4m::fill;
use super::{ReadOutcome, Source, VideoFrame, check_size};
use crate::error::{Error, Result};

/// A stream of raw frames from any reader.
pub struct RawSource<R> {
    name: PathBuf,
    reader: R,
    video: VideoFormat,
    index: u64,
    ended: bool,
}

impl<R: Read + Send> RawSource<R> {
    /// Frames of format `video`. `name` identifies the stream in messages.
    ///
    /// # Errors
    /// [`Error::Input`] for frames that are too large.
    pub fn new(name: &Path, reader: R, video: VideoFormat) -> Result<Self> {
        check_size(name, &video)?;
        Ok(Self { name: name.into(), reader, video, index: 0, ended: false })
    }
}

impl<R: Read + Send> Source for RawSource<R> {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome> {
        if self.ended {
            return Ok(ReadOutcome::End);
        }
        frame.bytes.resize(self.video.bytes(), 0);
        let got = fill(&mut self.reader, &mut frame.bytes)
            .map_err(|error| Error::input_from(&self.name, "the stream broke off", error))?;
        if got == frame.bytes.len() {
            frame.index = self.index;
            frame.time = self.video.rate.time_of(self.index);
            self.index += 1;
            return Ok(ReadOutcome::Frame);
        }
        self.ended = true;
        if got == 0 && self.index > 0 {
            return Ok(ReadOutcome::End);
        }
        let VideoFormat { width, height, format, .. } = self.video;
        Ok(ReadOutcome::Corrupt(format!(
            "{} ends within frame {}: {got} of {} bytes are there; are its frames really \
             {width}x{height} in {format}?",
            self.name.display(),
            self.index + 1,
            frame.bytes.len()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::RawSource;
    use crate::media::stream::{PixelFormat, Rate, ReadOutcome, Source, VideoFormat, VideoFrame};
    use std::path::Path;

    #[test]
    fn reads_consecutive_frames_and_rejects_a_partial_one() {
        let video = VideoFormat::new(2, 1, Rate::of(10), PixelFormat::RGB24);
        let mut source =
            RawSource::new(Path::new("test"), b"abcdefghijklmn".as_slice(), video).unwrap();
        let mut frame = VideoFrame::default();
        for (index, bytes) in [b"abcdef", b"ghijkl"].iter().enumerate() {
            assert_eq!(source.next(&mut frame).unwrap(), ReadOutcome::Frame);
            assert_eq!((frame.bytes.as_slice(), frame.index), (bytes.as_slice(), index as u64));
        }
        assert_eq!(frame.time.as_millis(), 100);
        assert!(matches!(
            source.next(&mut frame).unwrap(),
            ReadOutcome::Corrupt(why) if why.contains("2 of 6 bytes")
        ));
        assert_eq!(source.next(&mut frame).unwrap(), ReadOutcome::End);
    }
}
