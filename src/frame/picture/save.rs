//! A picture file that appears whole or not at all.

use super::adapt;
use super::encode::{Options, encode};
use super::format::Format;
use super::refusal::{self, Refusal};
use super::warning::Warning;
use crate::error::{Error, Result};
use crate::frame::Frame;
use std::fs::File;
use std::io::{BufWriter, Cursor, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Whether [`write()`] would take a frame of that size, depth and alpha, and whether there is a folder for it: to be asked
/// before hours of work.
///
/// # Errors
/// [`Error::Output`] for a picture that is transparent or too large for the format, and for a place that cannot be.
pub fn check(frame: &Frame, path: &Path, format: Format) -> Result<()> {
    adapt::check(frame, format).map_err(|refusal| refused(path, refusal))?;
    check_place(path)
}

/// Whether a file may be at `path` and there is a folder for it.
pub(crate) fn check_place(path: &Path) -> Result<()> {
    let target = target(path)?;
    folder_of(&target).metadata().map(drop).map_err(|error| refused(path, no_place(folder_of(&target), error)))
}

/// Writes a picture file, and returns what the format could not hold.
///
/// The file is written under another name in the same folder and renamed when it is complete, so that a reader never
/// sees half of it and an earlier file of that name stays until then. It gets the permissions of an ordinary new
/// file, or those of the file that it replaces. A symbolic link is followed, whether its end is
/// there or not. PNG and TIFF take little memory beside
/// the frame's; a format that holds less than the frame takes a reduced copy.
///
/// # Errors
/// [`Error::Output`] if the folder is missing or cannot be written to, if the name stands for something else than a
/// file that may be written, if the disk is full, and as [`check`]. Nothing is left behind.
pub fn write(frame: &Frame, path: &Path, format: Format, options: &Options) -> Result<Vec<Warning>> {
    save(path, |file| encode(frame, format, options, file))
}

/// The bytes of a picture file.
///
/// # Errors
/// [`Error::Output`] when the format cannot hold the frame.
pub(crate) fn encoded(frame: &Frame, format: Format, options: &Options) -> Result<Vec<u8>> {
    encode_bytes(frame, format, options).map(|(bytes, _)| bytes)
}

/// The bytes of a picture file, and what its format could not hold.
///
/// # Errors
/// [`Error::Output`] when the format cannot hold the frame.
pub fn encode_bytes(frame: &Frame, format: Format, options: &Options) -> Result<(Vec<u8>, Vec<Warning>)> {
    let mut bytes = Cursor::new(Vec::new());
    match encode(frame, format, options, &mut bytes) {
        Ok(warnings) => Ok((bytes.into_inner(), warnings)),
        Err(refusal) => Err(refused(Path::new(format.extension()), refusal)),
    }
}

/// A file beside `path` under another name, and the name that it is to have once it is complete.
pub(crate) fn begin(path: &Path) -> Result<(NamedTempFile, PathBuf)> {
    let target = target(path)?;
    let file = create_beside(&target).map_err(|refusal| refused(path, refusal))?;
    Ok((file, target))
}

/// Lets `fill` write a file that appears under `path` only if it succeeds.
pub(crate) fn save<T>(path: &Path, fill: impl FnOnce(&mut BufWriter<&mut File>) -> refusal::Result<T>) -> Result<T> {
    let (mut file, target) = begin(path)?;
    let filled = {
        let mut writer = BufWriter::with_capacity(1 << 16, file.as_file_mut());
        fill(&mut writer).and_then(|value| {
            writer.flush()?;
            Ok(value)
        })
    };
    let value = filled.map_err(|refusal| refused(path, refusal))?;
    file.persist(&target).map_err(|failed| refused(path, failed.error.into()))?;
    Ok(value)
}

/// The file that is written: at the end of symbolic links, and not something that must not be replaced.
fn target(path: &Path) -> Result<PathBuf> {
    let refuse = |problem: &str| Err(refused(path, Refusal::new(problem)));
    match path.metadata() {
        Ok(found) if found.is_dir() => refuse("it is a folder; give a file's name"),
        Ok(found) if !found.is_file() => refuse("it is a device or a pipe and not a file; give a file's name"),
        Ok(found) if found.permissions().readonly() => {
            refuse("the file is there and write-protected; choose another name or allow writing")
        }
        Ok(_) => path.canonicalize().map_err(|error| refused(path, error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(end_of_link(path)),
        Err(error) => Err(refused(path, error.into())),
    }
}

/// Where a symbolic link leads whose end is not there yet; any other path as it is.
pub(in crate::frame) fn end_of_link(path: &Path) -> PathBuf {
    /// As many as the system follows.
    const LINKS: usize = 40;
    let mut end = path.to_owned();
    for _ in 0..LINKS {
        let Ok(next) = end.read_link() else { break };
        end = folder_of(&end).join(next);
    }
    end
}

fn create_beside(target: &Path) -> refusal::Result<NamedTempFile> {
    let folder = folder_of(target);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".eddy-").suffix(".part");
    #[cfg(unix)]
    {
        // What a program asks for when it creates any file; the user's umask takes its part from it.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(folder).map_err(|error| no_place(folder, error))?;
    if let Ok(replaced) = target.metadata() {
        file.as_file().set_permissions(replaced.permissions())?;
    }
    Ok(file)
}

fn folder_of(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Why no file can be created in a folder.
fn no_place(folder: &Path, error: std::io::Error) -> Refusal {
    let folder = folder.display();
    let problem = match error.kind() {
        ErrorKind::NotFound => format!("the folder {folder} does not exist; create it first"),
        ErrorKind::NotADirectory => format!("{folder} is not a folder"),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!("the folder {folder} cannot be written to; choose another or allow writing")
        }
        _ => return Refusal::from(error),
    };
    Refusal { problem, source: Some(error.into()) }
}

fn refused(path: &Path, Refusal { problem, source }: Refusal) -> Error {
    Error::Output { path: path.into(), problem, source }
}
