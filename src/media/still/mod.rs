//! Image files: PNG, JPEG, WebP, TIFF, BMP and QOI.
//!
//! Reading detects the format from the content. It accepts 8 and 16 bits of gray or RGB with or
//! without alpha, expands palettes and lower depths, and keeps the EXIF block, the ICC profile and
//! the color chunks of a PNG. A file that is truncated, damaged, animated or too large is an
//! error, never a partial image.
//!
//! Writing keeps what the format can hold, returns a [`Warning`] for what it cannot, and refuses
//! to lose alpha. A file appears only when it is complete.
//!
//! | format | alpha | 16 bits | EXIF | ICC | gAMA, cHRM, cICP | density |
//! |---|---|---|---|---|---|---|
//! | PNG | yes | yes | yes | yes | yes | yes |
//! | JPEG | no | no | up to 64 KiB | yes | no | yes |
//! | WebP (lossless) | yes | no | yes | yes | no | no |
//! | TIFF | yes | yes | the orientation | yes | no | no |
//! | BMP | yes | no | no: the pixels are rotated | no | no | no |
//!
//! AVIF, HEIF and JPEG 2000 are read, not written, if ffmpeg is installed and can decode them.
//!
//! The size tags of an EXIF block are set to the size of the image that is written.

mod adapt;
mod codec_error;
mod encode;
mod exif;
mod ffmpeg_format;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod integrity;
mod limits;
pub(super) mod orientation;
mod read;
mod save;
#[cfg(test)]
mod tests;
mod tiff;
mod warning;

pub(super) use codec_error::TOO_LARGE;
pub use encode::Options;
pub use format::Format;
pub use limits::Limits;
pub use read::{decode, read};
pub(crate) use save::{begin, check_place, save};
pub use save::{check, encode_bytes, write};
#[cfg(feature = "cli")]
pub(crate) use save::{check_format, encoded};
pub(super) use save::{check_links, resolve_dangling_link, write_part};
pub use warning::Warning;
