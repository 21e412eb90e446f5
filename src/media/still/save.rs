//! Writes image files that appear only when complete.

use super::adapt;
use super::codec_error::{self, CodecError};
use super::encode::{Options, encode};
use super::format::Format;
use super::warning::Warning;
use crate::durable::{self, Part, folder_of};
use crate::error::{Error, Result};
use crate::media::Image;
use std::fs::File;
use std::io::{BufWriter, Cursor, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Checks whether [`write()`] would accept an image of that size, depth and alpha, and whether its
/// folder exists. Call it before long computations.
///
/// # Errors
/// [`Error::Output`] for an image that is transparent or too large for the format, and for an
/// invalid path.
pub fn check(image: &Image, path: &Path, format: Format) -> Result<()> {
    adapt::check(image, format).map_err(|refusal| refused(path, refusal))?;
    check_place(path)
}

/// Checks whether a format can hold an image. Call it before long computations.
///
/// # Errors
/// [`Error::Output`] for an image that is transparent or too large for the format.
#[cfg(feature = "cli")]
pub(crate) fn check_format(image: &Image, format: Format) -> Result<()> {
    adapt::check(image, format).map_err(|refusal| refused(Path::new(format.extension()), refusal))
}

/// Checks whether `path` can be a file and its folder exists.
pub(crate) fn check_place(path: &Path) -> Result<()> {
    let target = target(path)?;
    folder_of(&target)
        .metadata()
        .map(drop)
        .map_err(|error| refused(path, folder_error(folder_of(&target), error)))
}

/// Writes an image file, and returns what the format could not hold.
///
/// The file is written under another name in the same folder, and renamed when it is complete and
/// synced to disk. So no reader sees a partial file, even after a power failure, and an existing
/// file of that name is kept until then. It gets the permissions of an ordinary new file, or those
/// of the file that it replaces. A symbolic link is followed, whether its target exists or not,
/// except one that another user put into a folder that others may write to. PNG and TIFF take
/// little memory besides the image; a format that holds less takes a converted copy.
///
/// # Errors
/// [`Error::Output`] if the folder is missing or not writable, if the path is something else than
/// a writable file, if the disk is full, and as [`check`]. Nothing is left behind.
pub fn write(
    image: &Image,
    path: &Path,
    format: Format,
    options: &Options,
) -> Result<Vec<Warning>> {
    save(path, |file| encode(image, format, options, file))
}

/// The bytes of an image file.
///
/// # Errors
/// [`Error::Output`] when the format cannot hold the image.
#[cfg(feature = "cli")]
pub(crate) fn encoded(image: &Image, format: Format, options: &Options) -> Result<Vec<u8>> {
    encode_bytes(image, format, options).map(|(bytes, _)| bytes)
}

/// The bytes of an image file, and what its format could not hold.
///
/// # Errors
/// [`Error::Output`] when the format cannot hold the image.
pub fn encode_bytes(
    image: &Image,
    format: Format,
    options: &Options,
) -> Result<(Vec<u8>, Vec<Warning>)> {
    let mut bytes = Cursor::new(Vec::new());
    match encode(image, format, options, &mut bytes) {
        Ok(warnings) => Ok((bytes.into_inner(), warnings)),
        Err(refusal) => Err(refused(Path::new(format.extension()), refusal)),
    }
}

/// Writes an image file that does not have its final name yet.
pub(in crate::media) fn write_part(
    image: &Image,
    path: &Path,
    format: Format,
    options: &Options,
) -> Result<Part> {
    fill(path, |file| encode(image, format, options, file)).map(|(part, _)| part)
}

/// A temporary file in the same folder as `path`.
pub(crate) fn begin(path: &Path) -> Result<Part> {
    let target = target(path)?;
    let folder = folder_of(&target).to_owned();
    Part::beside(target).map_err(|error| refused(path, folder_error(&folder, error)))
}

/// Calls `write` for a file that appears under `path` only on success.
pub(crate) fn save<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> codec_error::Result<T>,
) -> Result<T> {
    let (part, value) = fill(path, write)?;
    part.complete().map_err(|error| refused(path, error.into()))?;
    Ok(value)
}

fn fill<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> codec_error::Result<T>,
) -> Result<(Part, T)> {
    let mut part = begin(path)?;
    let filled = {
        let mut writer = BufWriter::with_capacity(1 << 16, part.file.as_file_mut());
        write(&mut writer).and_then(|value| {
            writer.flush()?;
            Ok(value)
        })
    };
    let value = filled.map_err(|refusal| refused(path, refusal))?;
    Ok((part, value))
}

/// The file that is written: the target of symbolic links, unless it must not be replaced.
fn target(path: &Path) -> Result<PathBuf> {
    check_links(path)?;
    let refuse = |problem: &str| Err(refused(path, CodecError::new(problem)));
    match path.metadata() {
        Ok(found) if found.is_dir() => refuse("it is a folder; give a file's name"),
        Ok(found) if !found.is_file() => {
            refuse("it is a device or a pipe, not a file; give a file's name")
        }
        Ok(found) if found.permissions().readonly() => {
            refuse("the file is there and write-protected; choose another name or allow writing")
        }
        Ok(_) => path.canonicalize().map_err(|error| refused(path, error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(resolve_dangling_link(path)),
        Err(error) => Err(refused(path, error.into())),
    }
}

/// Rejects a path through a link that another user may have planted.
///
/// # Errors
/// [`Error::Output`] with the link.
pub(in crate::media) fn check_links(path: &Path) -> Result<()> {
    durable::check_links(path).map_err(|error| refused(path, CodecError::new(error.to_string())))
}

/// Maximum number of links that the kernel follows.
const LINKS: usize = 40;

/// The target of a symbolic link that does not exist yet; any other path unchanged.
pub(in crate::media) fn resolve_dangling_link(path: &Path) -> PathBuf {
    let mut end = path.to_owned();
    for _ in 0..LINKS {
        let Ok(next) = end.read_link() else { break };
        end = folder_of(&end).join(next);
    }
    end
}

/// The reason why no file can be created in a folder.
fn folder_error(folder: &Path, error: std::io::Error) -> CodecError {
    let folder = folder.display();
    let problem = match error.kind() {
        ErrorKind::NotFound => format!("the folder {folder} does not exist; create it first"),
        ErrorKind::NotADirectory => format!("{folder} is not a folder"),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!("the folder {folder} cannot be written to; choose another or allow writing")
        }
        _ => return CodecError::from(error),
    };
    CodecError { problem, source: Some(error.into()) }
}

fn refused(path: &Path, CodecError { problem, source }: CodecError) -> Error {
    Error::Output { path: path.into(), problem, source }
}
