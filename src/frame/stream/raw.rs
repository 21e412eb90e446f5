//! Pictures one after the other, with nothing between them.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::video::Video;
use super::y4m::fill;
use super::{Arrival, Picture, Source, check_size};
use crate::error::{Error, Result};

/// A stream of raw pictures from anything that can be read.
pub struct RawSource<R> {
    name: PathBuf,
    reader: R,
    video: Video,
    index: u64,
    ended: bool,
}

impl<R: Read + Send> RawSource<R> {
    /// Pictures that are as `video` says. `name` stands for the stream in messages.
    ///
    /// # Errors
    /// [`Error::Input`] for pictures that are too large.
    pub fn new(name: &Path, reader: R, video: Video) -> Result<Self> {
        check_size(name, &video)?;
        Ok(Self { name: name.into(), reader, video, index: 0, ended: false })
    }
}

impl<R: Read + Send> Source for RawSource<R> {
    fn video(&self) -> &Video {
        &self.video
    }

    fn next(&mut self, picture: &mut Picture) -> Result<Arrival> {
        if self.ended {
            return Ok(Arrival::End);
        }
        picture.bytes.resize(self.video.bytes(), 0);
        let got = fill(&mut self.reader, &mut picture.bytes)
            .map_err(|error| Error::input_from(&self.name, "the stream broke off", error))?;
        if got == picture.bytes.len() {
            picture.index = self.index;
            picture.time = self.video.rate.time_of(self.index);
            self.index += 1;
            return Ok(Arrival::Picture);
        }
        self.ended = true;
        if got == 0 && self.index > 0 {
            return Ok(Arrival::End);
        }
        let Video { width, height, format, .. } = self.video;
        Ok(Arrival::Corrupt(format!(
            "it ends within picture {}: {got} of {} bytes are there; are its pictures really {width}x{height} in {format}?",
            self.index + 1,
            picture.bytes.len()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::RawSource;
    use crate::frame::stream::{Arrival, Picture, PixelFormat, Rate, Source, Video};
    use std::path::Path;

    #[test]
    fn pictures_follow_each_other_and_a_rest_is_no_picture() {
        let video = Video::new(2, 1, Rate::of(10), PixelFormat::RGB24);
        let mut source = RawSource::new(Path::new("test"), b"abcdefghijklmn".as_slice(), video).unwrap();
        let mut picture = Picture::default();
        for (index, bytes) in [b"abcdef", b"ghijkl"].iter().enumerate() {
            assert_eq!(source.next(&mut picture).unwrap(), Arrival::Picture);
            assert_eq!((picture.bytes.as_slice(), picture.index), (bytes.as_slice(), index as u64));
        }
        assert_eq!(picture.time.as_millis(), 100);
        assert!(matches!(source.next(&mut picture).unwrap(), Arrival::Corrupt(why) if why.contains("2 of 6 bytes")));
        assert_eq!(source.next(&mut picture).unwrap(), Arrival::End);
    }
}
