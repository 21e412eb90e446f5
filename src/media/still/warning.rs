//! Losses in a written file.

use super::format::Format;
use std::fmt;

/// A loss in a written file, because its format cannot hold everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// 16 bits per sample were rounded to 8.
    DepthReduced(Format),
    /// The EXIF block was dropped. The image was rotated, so that it is displayed correctly.
    ExifDropped(Format),
    /// The ICC profile was dropped: colors may look different.
    IccDropped(Format),
    /// The image was converted from CMYK: its colors are only approximate.
    PrintColors,
    /// The source has an EXIF block or an ICC profile that is not read from its format.
    MetadataUnread,
    /// The color chunks of a PNG were dropped, and they specify other colors than sRGB: colors
    /// may look different.
    ColorDropped(Format),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DepthReduced(format) => {
                write!(
                    f,
                    "{format} holds 8 bits a sample: 16 were reduced to 8; write PNG or TIFF \
                           to keep them"
                )
            }
            Self::ExifDropped(format) => {
                write!(
                    f,
                    "{format} cannot hold this EXIF block: it was left out; write PNG or \
                           WebP to keep it"
                )
            }
            Self::IccDropped(format) => {
                write!(
                    f,
                    "{format} cannot hold this ICC profile: it was left out; write PNG or \
                           TIFF to keep it"
                )
            }
            Self::PrintColors => f.write_str(
                "it was made of printing colors (CMYK), which became RGB without their profile: \
                 they are only about right; for exact ones convert it in a program that knows \
                 profiles",
            ),
            Self::MetadataUnread => f.write_str(
                "some of its metadata was not read (EXIF of AVIF, HEIF and TIFF, ICC profiles of \
                 the first two and damaged ones); copy it from the source in another program where \
                 it counts, as `exiftool -TagsFromFile` does",
            ),
            Self::ColorDropped(format) => write!(
                f,
                "{format} cannot hold this PNG's color description (gAMA, cHRM, cICP): it was \
                 left out, and colors may look different; write PNG to keep it"
            ),
        }
    }
}
