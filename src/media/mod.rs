//! Images and frames as files and cameras deliver them, and the sources and sinks of both.

pub mod source;
pub mod still;
pub mod stream;
mod transparent;

pub use still::Format;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};

/// Opens a file for reading; the error says why it cannot be opened.
pub(crate) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::input(path, "there is no such file; check its name"),
        ErrorKind::PermissionDenied => {
            Error::input(path, "it may not be read; check its permissions")
        }
        _ => Error::input_from(path, "it cannot be opened", error),
    })
}

/// A reader that reads again where a signal interrupted it, which decoders that use
/// [`BufRead::fill_buf`](std::io::BufRead::fill_buf) do not do themselves.
pub(crate) struct Uninterrupted<R>(pub(crate) R);

impl<R: Read> Read for Uninterrupted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl<R: Seek> Seek for Uninterrupted<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Interleaved samples, row by row from the top, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    /// 8 bits per sample, full range.
    U8(Vec<u8>),
    /// 16 bits per sample, full range.
    U16(Vec<u16>),
}

impl Samples {
    /// Number of samples, over all pixels and channels.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(samples) => samples.len(),
            Self::U16(samples) => samples.len(),
        }
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bits per sample: 8 or 16.
    pub fn bits(&self) -> u32 {
        match self {
            Self::U8(_) => u8::BITS,
            Self::U16(_) => u16::BITS,
        }
    }
}

/// An image in memory.
///
/// `channels` is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha). Alpha is passed through and
/// never processed. It is straight (not premultiplied): fully transparent pixels have colors,
/// too, which are kept but do not influence visible ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Samples per pixel, 1 to 4.
    pub channels: usize,
    /// The samples: `width * height * channels` of them.
    pub samples: Samples,
    /// Metadata that is passed through.
    pub metadata: Metadata,
}

/// Metadata of an image file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The raw EXIF block, starting at its byte order mark. It holds the orientation: samples are
    /// in the order of the file, and must be rotated for display.
    pub exif: Option<Vec<u8>>,
    /// The ICC color profile.
    pub icc: Option<Vec<u8>>,
    /// The chunks of a PNG for color and pixel size, by name: `gAMA`, `cHRM`, `sRGB`, `cICP`,
    /// `mDCV`, `cLLI` and `pHYs`. The last also holds the density of a JPEG.
    pub chunks: Vec<([u8; 4], Vec<u8>)>,
    /// Whether the colors were converted from CMYK, and are thus only approximate.
    pub from_print: bool,
    /// Whether the file has an EXIF block or an ICC profile that was not read.
    pub is_partial: bool,
    /// A description of how the image was made, which a PNG stores under `parameters`. It is
    /// written, not read.
    pub note: Option<String>,
}

impl Image {
    /// An image of `samples`, interleaved, row by row from the top, without metadata.
    ///
    /// # Errors
    /// [`Error::Usage`] for a side of 0 pixels, channels other than 1 to 4, or another number of
    /// samples than `width * height * channels`.
    pub fn new(width: usize, height: usize, channels: usize, samples: Samples) -> Result<Self> {
        let image = Self { width, height, channels, samples, metadata: Metadata::default() };
        image.check()?;
        Ok(image)
    }

    /// Whether it has as many samples as its size and channels say.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn check(&self) -> Result<()> {
        let Self { width, height, channels, samples, .. } = self;
        let expected = width.checked_mul(*height).and_then(|pixels| pixels.checked_mul(*channels));
        if (1..=4).contains(channels) && !samples.is_empty() && expected == Some(samples.len()) {
            return Ok(());
        }
        Err(Error::usage(format!(
            "an image of {width}x{height} with {channels} channels has {} samples; expected 1 to 4 \
             channels and width * height * channels samples, at least one",
            samples.len()
        )))
    }

    /// How many of a pixel's samples are color: 1 or 3.
    pub fn color_channels(&self) -> usize {
        if self.channels >= 3 { 3 } else { 1 }
    }

    /// Whether the last channel is alpha.
    pub fn has_alpha(&self) -> bool {
        self.channels.is_multiple_of(2)
    }

    /// A black image of another size with the same channels (alpha is 0), depth and metadata.
    pub(crate) fn black(&self, width: usize, height: usize) -> Self {
        let count = width * height * self.channels;
        // Zeroed memory is not committed before it is touched.
        let samples = match self.samples {
            Samples::U8(_) => Samples::U8(vec![0; count]),
            Samples::U16(_) => Samples::U16(vec![0; count]),
        };
        Self { width, height, channels: self.channels, samples, metadata: self.metadata.clone() }
    }

    /// The image as displayed: rotated as its EXIF block says, with the block changed to upright.
    /// Use it wherever an image is compared with another or passed on without its block. Allocates
    /// another image only if it must be rotated.
    #[must_use]
    pub fn upright(self) -> Self {
        if still::orientation::of(&self.metadata) == image::metadata::Orientation::NoTransforms {
            return self;
        }
        still::orientation::upright(&self)
    }

    /// The alpha channel as a gray image without metadata; `None` without alpha.
    pub fn alpha(&self) -> Option<Self> {
        fn alpha<T: Copy>(samples: &[T], channels: usize) -> Vec<T> {
            samples.iter().skip(channels - 1).step_by(channels).copied().collect()
        }
        let samples = match &self.samples {
            _ if !self.has_alpha() => return None,
            Samples::U8(samples) => Samples::U8(alpha(samples, self.channels)),
            Samples::U16(samples) => Samples::U16(alpha(samples, self.channels)),
        };
        Some(Self {
            width: self.width,
            height: self.height,
            channels: 1,
            samples,
            metadata: Metadata::default(),
        })
    }

    /// Replaces the alpha channel by a gray image of the same size and depth. Does nothing without
    /// alpha or for another depth.
    pub fn set_alpha(&mut self, alpha: &Self) {
        fn set<T: Copy>(samples: &mut [T], channels: usize, alpha: &[T]) {
            samples
                .iter_mut()
                .skip(channels - 1)
                .step_by(channels)
                .zip(alpha)
                .for_each(|(to, from)| *to = *from);
        }
        if !self.has_alpha() {
            return;
        }
        match (&mut self.samples, &alpha.samples) {
            (Samples::U8(samples), Samples::U8(alpha)) => set(samples, self.channels, alpha),
            (Samples::U16(samples), Samples::U16(alpha)) => set(samples, self.channels, alpha),
            _ => {}
        }
    }

    /// Whether every pixel is opaque; true without alpha.
    pub fn is_opaque(&self) -> bool {
        if !self.has_alpha() {
            return true;
        }
        match &self.samples {
            Samples::U8(samples) => {
                samples.iter().skip(self.channels - 1).step_by(self.channels).all(|a| *a == u8::MAX)
            }
            Samples::U16(samples) => samples
                .iter()
                .skip(self.channels - 1)
                .step_by(self.channels)
                .all(|a| *a == u16::MAX),
        }
    }
}
