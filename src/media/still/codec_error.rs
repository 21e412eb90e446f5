//! Errors of image codecs, before the path is added.

use crate::error::Cause;
use ::tiff::TiffError;
use image::ImageError;
use std::io;

/// What was found, what was expected and what to do; and the cause.
#[derive(Debug)]
pub(crate) struct CodecError {
    pub(super) problem: String,
    pub(super) source: Option<Cause>,
}

/// A result whose error does not include the path yet.
pub(crate) type Result<T> = std::result::Result<T, CodecError>;

const CUT_OFF: &str =
    "the file is cut off: it ends before its image does; copy or download it again";
const DAMAGED: &str =
    "the file is damaged; open it in another program to see whether the image can be saved anew";
const KIND: &str =
    "this kind of pixels or compression is not supported; save it as 8 or 16 bit gray or RGB";

pub(in crate::media) const TOO_LARGE: &str = "it exceeds the largest size of a \
    file here; raise the limit (ulimit -f), or choose another place";

impl CodecError {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), source: None }
    }

    fn from_cause(problem: &str, source: impl Into<Cause>) -> Self {
        Self { problem: problem.into(), source: Some(source.into()) }
    }
}

impl From<io::Error> for CodecError {
    fn from(error: io::Error) -> Self {
        let problem = match error.kind() {
            io::ErrorKind::UnexpectedEof => CUT_OFF,
            io::ErrorKind::StorageFull => "the disk is full; free some space and try again",
            io::ErrorKind::FileTooLarge => TOO_LARGE,
            io::ErrorKind::QuotaExceeded => {
                "the quota of this user is used up; free some space and try again"
            }
            io::ErrorKind::PermissionDenied => {
                "this user lacks the permission; choose another place, or have the permissions changed"
            }
            io::ErrorKind::IsADirectory => "it is a folder, not a file",
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => DAMAGED,
            _ => "the system reports an error",
        };
        Self::from_cause(problem, error)
    }
}

impl From<ImageError> for CodecError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::IoError(error) => error.into(),
            ImageError::Unsupported(_) => Self::from_cause(KIND, error),
            ImageError::Limits(_) => {
                Self::from_cause("the file asks for more memory than an image may take", error)
            }
            _ => Self::from_cause(DAMAGED, error),
        }
    }
}

impl From<TiffError> for CodecError {
    fn from(error: TiffError) -> Self {
        match error {
            TiffError::IoError(error) => error.into(),
            TiffError::UnsupportedError(_) => Self::from_cause(KIND, error),
            TiffError::LimitsExceeded => {
                Self::from_cause("the file asks for more memory than an image may take", error)
            }
            _ => Self::from_cause(DAMAGED, error),
        }
    }
}

impl From<png::EncodingError> for CodecError {
    fn from(error: png::EncodingError) -> Self {
        match error {
            png::EncodingError::IoError(error) => error.into(),
            _ => Self::from_cause("the PNG encoder refuses the image", error),
        }
    }
}
