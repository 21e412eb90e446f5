//! Frames: pixels as a file or a camera delivers them, and where they come from and go to.

pub mod source;
pub mod still;
pub mod stream;
mod transparent;

pub use still::Format;

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};

/// Opens a file to be read, or says why it cannot be.
fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| {
        let problem = match error.kind() {
            ErrorKind::NotFound => "there is no such file; check its name",
            ErrorKind::PermissionDenied => "reading it is not allowed; check its permissions",
            _ => "it cannot be opened",
        };
        Error::input_from(path, problem, error)
    })
}

/// Interleaved samples, row by row from the top, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    /// 8 bits a sample, full range.
    U8(Vec<u8>),
    /// 16 bits a sample, full range.
    U16(Vec<u16>),
}

impl Samples {
    /// How many samples there are, over all pixels and channels.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(samples) => samples.len(),
            Self::U16(samples) => samples.len(),
        }
    }

    /// Whether there is no sample at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bits a sample: 8 or 16.
    pub fn bits(&self) -> u32 {
        match self {
            Self::U8(_) => u8::BITS,
            Self::U16(_) => u16::BITS,
        }
    }
}

/// An image in memory.
///
/// `channels` is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha). Alpha is carried along and never touched. Colours are
/// not multiplied by it; what is fully transparent has some, too, which is kept and has no say in what is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Samples a pixel, 1 to 4.
    pub channels: usize,
    /// The samples: `width * height * channels` of them.
    pub samples: Samples,
    /// What travels with the image untouched.
    pub metadata: Metadata,
}

/// What an image file carries beside its pixels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The raw EXIF block, from its byte order mark on. It holds the orientation: the samples are as the file stores
    /// them, and are to be turned for display.
    pub exif: Option<Vec<u8>>,
    /// The ICC colour profile.
    pub icc: Option<Vec<u8>>,
    /// What a PNG says of its colours and of its pixels' size in chunks of their own, by name: `gAMA`, `cHRM`, `sRGB`, `cICP`,
    /// `mDCV`, `cLLI` and `pHYs`, which also stands for a JPEG's density.
    pub chunks: Vec<([u8; 4], Vec<u8>)>,
    /// Whether the colours were computed from printing colours (CMYK), and are thus only about what they were meant to be.
    pub from_print: bool,
    /// Whether its file has an EXIF block or an ICC profile that were not read.
    pub is_partial: bool,
    /// How the image came about, in words: what a PNG keeps under `parameters`. Written, not read.
    pub note: Option<String>,
}

impl Image {
    /// An image of `samples`, interleaved, row by row from the top, without metadata.
    ///
    /// # Errors
    /// [`Error::Usage`] for a side of 0 pixels, channels other than 1 to 4, or another number of samples than
    /// `width * height * channels`.
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
            "an image of {width}x{height} with {channels} channels has {} samples; expected 1 to 4 channels and \
             width * height * channels samples, at least one",
            samples.len()
        )))
    }

    /// How many of a pixel's samples are colour: 1 or 3.
    pub fn color_channels(&self) -> usize {
        if self.channels >= 3 { 3 } else { 1 }
    }

    /// Whether the last sample of a pixel is alpha.
    pub fn has_alpha(&self) -> bool {
        self.channels.is_multiple_of(2)
    }

    /// A black frame of another size, and otherwise like this one: its channels (alpha is 0), its depth, its metadata.
    pub(crate) fn black(&self, width: usize, height: usize) -> Self {
        let count = width * height * self.channels;
        // Zeroed memory is not there before it is touched.
        let samples = match self.samples {
            Samples::U8(_) => Samples::U8(vec![0; count]),
            Samples::U16(_) => Samples::U16(vec![0; count]),
        };
        Self { width, height, channels: self.channels, samples, metadata: self.metadata.clone() }
    }

    /// The image the way it is displayed: its samples turned as its EXIF block says, and a block that says so no more. To be
    /// taken wherever an image is related to another, or passed on without its block. Takes another frame's memory where it has
    /// to be turned, and none otherwise.
    #[must_use]
    pub fn upright(self) -> Self {
        if still::orientation::of(&self.metadata) == image::metadata::Orientation::NoTransforms {
            return self;
        }
        still::orientation::upright(&self)
    }

    /// The alpha samples as a grey frame, without metadata; none without alpha.
    pub fn alpha(&self) -> Option<Self> {
        fn alpha<T: Copy>(samples: &[T], channels: usize) -> Vec<T> {
            samples.iter().skip(channels - 1).step_by(channels).copied().collect()
        }
        let samples = match &self.samples {
            _ if !self.has_alpha() => return None,
            Samples::U8(samples) => Samples::U8(alpha(samples, self.channels)),
            Samples::U16(samples) => Samples::U16(alpha(samples, self.channels)),
        };
        Some(Self { width: self.width, height: self.height, channels: 1, samples, metadata: Metadata::default() })
    }

    /// Replaces the alpha samples by those of a grey frame of the same size and depth; without alpha, or for a frame
    /// of another depth, nothing changes.
    pub fn set_alpha(&mut self, alpha: &Self) {
        fn set<T: Copy>(samples: &mut [T], channels: usize, alpha: &[T]) {
            samples.iter_mut().skip(channels - 1).step_by(channels).zip(alpha).for_each(|(to, from)| *to = *from);
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
            Samples::U16(samples) => {
                samples.iter().skip(self.channels - 1).step_by(self.channels).all(|a| *a == u16::MAX)
            }
        }
    }
}
