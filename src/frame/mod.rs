//! Frames: pixels as a file or a camera delivers them, and where they come from and go to.

/// Interleaved samples, row by row from the top, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    /// 8 bits a sample, full range.
    U8(Vec<u8>),
    /// 16 bits a sample, full range.
    U16(Vec<u16>),
}

/// A picture in memory.
///
/// `channels` is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha). Alpha is carried along and never touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Samples a pixel, 1 to 4.
    pub channels: usize,
    /// The samples: `width * height * channels` of them.
    pub samples: Samples,
    /// What travels with the picture untouched.
    pub metadata: Metadata,
}

/// What a picture file carries beside its pixels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The raw EXIF block, which holds the orientation.
    pub exif: Option<Vec<u8>>,
    /// The ICC colour profile.
    pub icc: Option<Vec<u8>>,
}

impl Frame {
    /// How many of a pixel's samples are colour: 1 or 3.
    pub fn color_channels(&self) -> usize {
        if self.channels >= 3 { 3 } else { 1 }
    }

    /// Whether the last sample of a pixel is alpha.
    pub fn has_alpha(&self) -> bool {
        self.channels % 2 == 0
    }
}
