//! The formats of image files, their names and what each can hold.
//!
//! A format is a variant and its row of the table here, an arm that decodes in `read.rs`, and one
//! that encodes in `encode.rs`.

use crate::error::{Error, Result};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The format of an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Lossless; everything an image can be.
    Png,
    /// Lossy; 8 bits, no alpha.
    Jpeg,
    /// Written losslessly; 8 bits.
    WebP,
    /// Written without compression; everything an image can be.
    Tiff,
    /// Uncompressed; 8 bits, no metadata.
    Bmp,
    /// Lossless and fast; 8 bits, color, no metadata.
    Qoi,
}

/// What a format is called, is recognized by, and can hold.
struct Capabilities {
    /// For people.
    name: &'static str,
    /// Extensions in lower case, the usual one first.
    extensions: &'static [&'static str],
    /// The media type, as HTTP names it.
    media_type: &'static str,
    /// Whether a file begins so; 12 bytes are enough.
    begins: fn(&[u8]) -> bool,
    alpha: bool,
    bits_16: bool,
    /// Whether gray is written as gray, and not as three equal colors.
    gray: bool,
    icc: bool,
    /// Bytes of the longest EXIF block.
    exif: usize,
    /// The longest side, in pixels.
    side: usize,
}

/// All capabilities but EXIF, for images of any size.
const ALL_BUT_EXIF: Capabilities = Capabilities {
    name: "",
    extensions: &[],
    media_type: "",
    begins: |_| false,
    alpha: true,
    bits_16: true,
    gray: true,
    icc: true,
    exif: 0,
    side: i32::MAX as usize,
};

/// Colors and alpha of 8 bits, and nothing beside them.
const PLAIN: Capabilities = Capabilities {
    bits_16: false,
    gray: false,
    icc: false,
    side: u16::MAX as usize,
    ..ALL_BUT_EXIF
};

static PNG: Capabilities = Capabilities {
    name: "PNG",
    extensions: &["png"],
    media_type: "image/png",
    begins: |head| head.starts_with(b"\x89PNG\r\n\x1a\n"),
    exif: usize::MAX,
    ..ALL_BUT_EXIF
};

static JPEG: Capabilities = Capabilities {
    name: "JPEG",
    extensions: &["jpg", "jpeg", "jpe", "jfif"],
    media_type: "image/jpeg",
    begins: |head| head.starts_with(b"\xff\xd8\xff"),
    alpha: false,
    gray: true,
    icc: true,
    // One segment: a length of 16 bits that counts itself, and the six letters that mark the block.
    exif: u16::MAX as usize - 2 - 6,
    ..PLAIN
};

static WEBP: Capabilities = Capabilities {
    name: "WebP",
    extensions: &["webp"],
    media_type: "image/webp",
    begins: |head| head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP"),
    icc: true,
    exif: usize::MAX,
    side: (1 << 14) - 1,
    ..PLAIN
};

static TIFF: Capabilities = Capabilities {
    name: "TIFF",
    extensions: &["tiff", "tif"],
    media_type: "image/tiff",
    begins: |head| {
        [&b"II*\0"[..], b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|magic| head.starts_with(magic))
    },
    ..ALL_BUT_EXIF
};

static BMP: Capabilities = Capabilities {
    name: "BMP",
    extensions: &["bmp"],
    media_type: "image/bmp",
    begins: |head| head.starts_with(b"BM"),
    ..PLAIN
};

static QOI: Capabilities = Capabilities {
    name: "QOI",
    extensions: &["qoi"],
    media_type: "image/qoi",
    begins: |head| head.starts_with(b"qoif"),
    ..PLAIN
};

impl Format {
    /// Every format.
    pub const ALL: [Self; 6] =
        [Self::Png, Self::Jpeg, Self::WebP, Self::Tiff, Self::Bmp, Self::Qoi];

    fn capabilities(self) -> &'static Capabilities {
        match self {
            Self::Png => &PNG,
            Self::Jpeg => &JPEG,
            Self::WebP => &WEBP,
            Self::Tiff => &TIFF,
            Self::Bmp => &BMP,
            Self::Qoi => &QOI,
        }
    }

    /// Every extension that names a format, in lower case.
    pub fn extensions() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().flat_map(|format| format.capabilities().extensions).copied()
    }

    /// All formats as a person lists them, such as `PNG, JPEG and BMP`: each as `name` has it, and
    /// `word` before the last.
    pub(crate) fn listed(name: impl Fn(Self) -> String, word: &str) -> String {
        let names = Self::ALL.map(name);
        let (last, others) =
            names.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
        format!("{} {word} {last}", others.join(", "))
    }

    /// Extensions of images of other formats, in lower case: those in a folder are reported as
    /// failures.
    const FOREIGN: [&str; 32] = [
        "heic", "heif", "hif", "avif", "gif", "jp2", "j2k", "jpx", "jxl", "jxr", "psd", "tga",
        "ico", "exr", "hdr", "pnm", "ppm", "pgm", "pbm", "pfm", "dng", "cr2", "cr3", "nef", "nrw",
        "arw", "orf", "rw2", "raf", "pef", "srw", "3fr",
    ];

    /// Whether a file has the extension of an unsupported image format.
    pub(in crate::media) fn is_foreign(path: &Path) -> bool {
        let extension =
            path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        extension.is_some_and(|extension| Self::FOREIGN.contains(&extension.as_str()))
    }

    /// The format by file extension, in any case.
    pub fn from_path(path: &Path) -> Option<Self> {
        path.extension()?.to_str()?.parse().ok()
    }

    /// The format by the first bytes of a file; 12 bytes are enough.
    pub fn from_content(head: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|format| (format.capabilities().begins)(head))
    }

    /// The usual extension, without a dot.
    pub fn extension(self) -> &'static str {
        self.capabilities().extensions.first().copied().unwrap_or_default()
    }

    /// The media type, such as `image/png`.
    pub fn media_type(self) -> &'static str {
        self.capabilities().media_type
    }

    /// Whether alpha can be written.
    pub fn holds_alpha(self) -> bool {
        self.capabilities().alpha
    }

    /// Whether 16 bits per sample can be written.
    pub fn holds_16_bits(self) -> bool {
        self.capabilities().bits_16
    }

    /// Whether gray is written as one channel, and not as three equal ones.
    pub(super) fn holds_gray(self) -> bool {
        self.capabilities().gray
    }

    /// Whether an ICC profile can be written.
    pub(super) fn holds_icc(self) -> bool {
        self.capabilities().icc
    }

    /// Whether an EXIF block of `len` bytes can be written.
    pub(super) fn holds_exif(self, len: usize) -> bool {
        len <= self.capabilities().exif
    }

    /// The maximum side length.
    pub(super) fn max_side(self) -> usize {
        self.capabilities().side
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Parses a name or an extension, in any case.
    fn from_str(name: &str) -> Result<Self> {
        let lower = name.to_ascii_lowercase();
        let found = Self::ALL
            .into_iter()
            .find(|format| format.capabilities().extensions.contains(&lower.as_str()));
        found.ok_or_else(|| {
            let names = Self::listed(|format| format.extension().to_owned(), "or");
            Error::usage(format!("the format {name:?} is not known; choose {names}"))
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.capabilities().name)
    }
}
