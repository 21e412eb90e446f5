//! The formats of image files, their names and capabilities.

use crate::error::{Error, Result};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The format of an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Lossless; holds every image.
    Png,
    /// Lossy; 8 bits, no alpha.
    Jpeg,
    /// Written losslessly; 8 bits.
    WebP,
    /// Written without compression; holds every image.
    Tiff,
    /// Uncompressed; 8 bits, no metadata.
    Bmp,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 5] = [Self::Png, Self::Jpeg, Self::WebP, Self::Tiff, Self::Bmp];

    /// All extensions of these formats, in lower case.
    pub const EXTENSIONS: [&str; 9] = ["png", "jpg", "jpeg", "jpe", "jfif", "webp", "tif", "tiff", "bmp"];

    /// Extensions of other image formats, in lower case: such files in a folder are reported as
    /// failures.
    const FOREIGN: [&str; 33] = [
        "heic", "heif", "hif", "avif", "gif", "jp2", "j2k", "jpx", "jxl", "jxr", "psd", "tga", "ico", "exr", "hdr",
        "pnm", "ppm", "pgm", "pbm", "pfm", "qoi", "dng", "cr2", "cr3", "nef", "nrw", "arw", "orf", "rw2", "raf", "pef",
        "srw", "3fr",
    ];

    /// Whether a file has the extension of an unsupported image format.
    pub(in crate::media) fn is_foreign(path: &Path) -> bool {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        extension.is_some_and(|extension| Self::FOREIGN.contains(&extension.as_str()))
    }

    /// The format by file extension, in any case.
    pub fn from_path(path: &Path) -> Option<Self> {
        path.extension()?.to_str()?.parse().ok()
    }

    /// The format by the first bytes of a file; 12 bytes are enough.
    pub fn from_content(head: &[u8]) -> Option<Self> {
        if head.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if head.starts_with(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else if [&b"II*\0"[..], b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|magic| head.starts_with(magic)) {
            Some(Self::Tiff)
        } else if head.starts_with(b"BM") {
            Some(Self::Bmp)
        } else {
            None
        }
    }

    /// The usual extension, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
            Self::Tiff => "tiff",
            Self::Bmp => "bmp",
        }
    }

    /// Whether alpha can be written.
    pub fn holds_alpha(self) -> bool {
        self != Self::Jpeg
    }

    /// Whether 16 bits per sample can be written.
    pub fn holds_16_bits(self) -> bool {
        matches!(self, Self::Png | Self::Tiff)
    }

    /// Whether grey is written as one channel, and not as three equal ones.
    pub(super) fn holds_grey(self) -> bool {
        !matches!(self, Self::WebP | Self::Bmp)
    }

    /// Whether an ICC profile can be written.
    pub(super) fn holds_icc(self) -> bool {
        self != Self::Bmp
    }

    /// Whether an EXIF block of `len` bytes can be written.
    pub(super) fn holds_exif(self, len: usize) -> bool {
        match self {
            Self::Png | Self::WebP => true,
            // One segment: its 16-bit length includes itself and the six bytes that mark the
            // block.
            Self::Jpeg => len <= usize::from(u16::MAX) - 2 - 6,
            Self::Tiff | Self::Bmp => false,
        }
    }

    /// The maximum side length.
    pub(super) fn max_side(self) -> usize {
        match self {
            Self::WebP => (1 << 14) - 1,
            Self::Jpeg | Self::Bmp => u16::MAX.into(),
            Self::Png | Self::Tiff => i32::MAX.unsigned_abs() as usize,
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Parses a name or an extension, in any case.
    fn from_str(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "png" => Ok(Self::Png),
            "jpg" | "jpeg" | "jpe" | "jfif" => Ok(Self::Jpeg),
            "webp" => Ok(Self::WebP),
            "tif" | "tiff" => Ok(Self::Tiff),
            "bmp" => Ok(Self::Bmp),
            _ => Err(Error::usage(format!("the format {name:?} is not known; choose png, jpg, webp, tiff or bmp"))),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
            Self::Bmp => "BMP",
        })
    }
}
