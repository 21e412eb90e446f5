//! Turns command-line paths into a list of images to read and to write.

mod natural;
#[cfg(test)]
mod tests;

use super::Format;
use super::still::resolve_dangling_link;
use crate::durable::create_folder;
use crate::error::{Error, Result};
use crate::setting::IMAGE_FORMAT;
use natural::by_number;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};

/// An image to read and the file for its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The file to read.
    pub input: PathBuf,
    /// The file to write.
    pub output: PathBuf,
    /// The format to write.
    pub format: Format,
}

/// Lists the jobs for the inputs, which are files and folders, and one output.
///
/// A folder stands for the images in it, recognized by extension, in natural order (`2.png` before
/// `10.png`), without sub-folders and hidden files. Images of unsupported formats are included, so
/// that they are reported. The output is a folder if it already is one, if it ends in a slash, or
/// if there are several inputs or a folder among them; it is created last. A result in a folder
/// has the name of its input, with the extension of `format` if given. A single result has the
/// format `format`, or that of its extension.
///
/// # Errors
/// - [`Error::Usage`] if an output would replace an input, if two outputs would be the same file,
///   if the format is unknown, or for `-`, which stands for a stream.
/// - [`Error::Input`] for a missing input or a folder without images.
/// - [`Error::Output`] if the output folder cannot be created.
pub fn jobs(inputs: &[PathBuf], output: &Path, format: Option<Format>) -> Result<Vec<Job>> {
    refuse_streams(inputs, output)?;
    let Some(first) = inputs.first() else {
        return Err(Error::usage("no input is given; name a file or a folder"));
    };
    let into_folder =
        inputs.len() > 1 || first.is_dir() || output.is_dir() || ends_in_slash(output);
    let looks_like_file =
        output.exists() || (Format::from_path(output).is_some() && !ends_in_slash(output));
    if into_folder && looks_like_file && !output.is_dir() {
        return Err(one_file(output));
    }
    let mut jobs = Vec::new();
    for input in images(inputs)? {
        jobs.push(if into_folder {
            job_in_folder(input, output, format)?
        } else {
            single_job(input, output, format)?
        });
    }
    refuse_overlap(&jobs)?;
    if into_folder {
        create_folder(output).map_err(|error| no_folder(output, error))?;
    }
    Ok(jobs)
}

/// As [`jobs`], with the images in sub-folders, whose results go into folders of the same names.
/// Hidden folders, links to folders and the output itself are left out.
///
/// # Errors
/// As [`jobs`].
pub fn jobs_below(inputs: &[PathBuf], output: &Path, format: Option<Format>) -> Result<Vec<Job>> {
    let mut all = Vec::new();
    let mut files = Vec::new();
    for input in inputs {
        if !input.is_dir() {
            files.push(input.clone());
            continue;
        }
        let mut folders = vec![input.clone()];
        folders.extend(folders_below(input, output)?);
        let before = all.len();
        for folder in folders {
            let place = output.join(folder.strip_prefix(input).unwrap_or(Path::new("")));
            for image in listed(&folder)? {
                all.push(job_in_folder(image, &place, format)?);
            }
        }
        if all.len() == before {
            return Err(no_image(input));
        }
    }
    if all.is_empty() {
        return jobs(&files, output, format);
    }
    if output.exists() && !output.is_dir() {
        return Err(one_file(output));
    }
    for file in if files.is_empty() { Vec::new() } else { images(&files)? } {
        all.push(job_in_folder(file, output, format)?);
    }
    refuse_streams(inputs, output)?;
    refuse_overlap(&all)?;
    for folder in all.iter().filter_map(|job| job.output.parent()) {
        create_folder(folder).map_err(|error| no_folder(folder, error))?;
    }
    Ok(all)
}

/// The folders directly below the inputs, which [`jobs`] skips and [`jobs_below`] includes.
///
/// # Errors
/// [`Error::Input`] for a folder that cannot be listed.
pub fn folders_left_out(inputs: &[PathBuf], output: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for input in inputs.iter().filter(|input| input.is_dir()) {
        found.extend(folders_in(input, output)?);
    }
    Ok(found)
}

fn folders_below(folder: &Path, output: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in folders_in(folder, output)? {
        let below = folders_below(&folder, output)?;
        found.push(folder);
        found.extend(below);
    }
    Ok(found)
}

fn folders_in(folder: &Path, output: &Path) -> Result<Vec<PathBuf>> {
    let output = place(output);
    let mut found = entries(folder)?;
    // A link may lead back to a parent folder.
    found.retain(|path| path.is_dir() && !path.is_symlink() && place(path) != output);
    Ok(found)
}

fn one_file(output: &Path) -> Error {
    Error::usage(format!(
        "several results cannot go into the one file {}; name a folder, or end the name in \
         {MAIN_SEPARATOR}",
        output.display()
    ))
}

fn no_folder(folder: &Path, error: std::io::Error) -> Error {
    Error::output_from(folder, "the folder cannot be created; choose another place", error)
}

/// Lists the images of the inputs as [`jobs`] does, for tasks that make a single result of all of
/// them. The result is excluded.
///
/// # Errors
/// As [`jobs`].
pub fn together(inputs: &[PathBuf], output: &Path) -> Result<Vec<PathBuf>> {
    refuse_streams(inputs, output)?;
    let images = images(inputs)?;
    let result = place(output);
    match images.iter().find(|image| place(image) == result) {
        Some(input) => Err(would_replace(output, input)),
        None => Ok(images),
    }
}

/// Refuses an output that would replace one of its inputs: a source, mask, kernel, profile or
/// similar. `-` is standard input. Of sources that name other files, see [`refuse_lists`].
///
/// # Errors
/// [`Error::Usage`] when `output` is one of the inputs, or a folder that is one.
pub fn refuse_replacing<P: AsRef<Path>>(inputs: &[P], output: &Path) -> Result<()> {
    let Ok(replaced) = output.metadata() else { return Ok(()) };
    // Writing to a device or a pipe replaces nothing.
    if !replaced.is_file() && !replaced.is_dir() {
        return Ok(());
    }
    let result = place(output);
    let is_read = |input: &Path| match input == Path::new("-") {
        true => rustix::fs::fstat(std::io::stdin().as_fd())
            .is_ok_and(|stdin| (stdin.st_dev, stdin.st_ino) == (replaced.dev(), replaced.ino())),
        false => input.exists() && place(input) == result,
    };
    match inputs.iter().map(AsRef::as_ref).find(|input| is_read(input)) {
        Some(input) => Err(would_replace(output, input)),
        None => Ok(()),
    }
}

/// Refuses to write images numbered from 1 into a folder from which images with such names are
/// read.
///
/// # Errors
/// [`Error::Usage`] when an input has the name of a possible result.
pub fn refuse_numbering_over(inputs: &[PathBuf], folder: &Path, format: Format) -> Result<()> {
    let folder = place(folder);
    let is_numbered = |path: &Path| {
        let number = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| stem.len() >= 6);
        number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
            && path.extension().is_some_and(|extension| extension == format.extension())
            && path.parent().is_some_and(|parent| place(parent) == folder)
    };
    match images(inputs)?.iter().map(|input| place(input)).find(|input| is_numbered(input)) {
        Some(input) => Err(would_replace(&input, &input)),
        None => Ok(()),
    }
}

/// Protocols of networks, whose servers name no files of this machine, and of cameras.
const REMOTE: [&str; 13] = [
    "csi",
    "http",
    "https",
    "libcamera",
    "mms",
    "rtmp",
    "rtmps",
    "rtp",
    "rtsp",
    "rtsps",
    "srt",
    "tcp",
    "udp",
];

/// The part of a file by which text is recognized, in bytes.
const TEXT_DETECTION_BYTES: u64 = 4096;

/// Refuses an output that exists where a video source may name other files, so that nothing that is
/// read is replaced: a playlist or another text, or a name with a protocol (`concat:file://...`).
///
/// # Errors
/// [`Error::Usage`] when `output` is a file, or a folder that is not empty.
pub fn refuse_lists<P: AsRef<Path>>(sources: &[P], output: &Path) -> Result<()> {
    let is_there =
        output.is_file() || output.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    match sources.iter().map(AsRef::as_ref).find(|source| is_there && names_others(source)) {
        Some(source) => Err(Error::usage(format!(
            "{} may name {} as one of its files, and that already exists; choose a new name for \
             the result",
            source.display(),
            output.display()
        ))),
        None => Ok(()),
    }
}

/// Whether ffmpeg or a pipeline may read other files for this name than the file itself.
fn names_others(source: &Path) -> bool {
    if source.to_str().is_some_and(|name| name.starts_with("gst:")) {
        return true;
    }
    if let Some((protocol, _)) = source.to_str().and_then(|name| name.split_once("://")) {
        return !REMOTE.contains(&protocol.to_lowercase().as_str());
    }
    let mut head = Vec::new();
    let is_read = source.is_file()
        && std::fs::File::open(source)
            .is_ok_and(|file| file.take(TEXT_DETECTION_BYTES).read_to_end(&mut head).is_ok());
    let is_text =
        || !head.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace());
    // ffmpeg passes over an ID3 tag.
    let is_list =
        [&b"ffconcat"[..], b"#EXTM3U", b"ID3"].iter().any(|start| head.starts_with(start));
    is_read && !head.starts_with(b"YUV4MPEG2 ") && (is_list || is_text())
}

fn refuse_streams(inputs: &[PathBuf], output: &Path) -> Result<()> {
    if inputs.iter().map(PathBuf::as_path).chain([output]).any(|path| path == Path::new("-")) {
        return Err(Error::usage(
            "`-` is a stream, and this command takes image files; name a file, or `./-` for one so named",
        ));
    }
    Ok(())
}

/// The images of the inputs, in order.
pub(super) fn images(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for input in inputs {
        if let Some(found) = matches(input)? {
            images.extend(found);
            continue;
        }
        let metadata = input.metadata().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let what = if input.starts_with("/dev") { "device" } else { "file or folder" };
                Error::input(input, format!("there is no such {what}; check its name"))
            }
            _ => Error::input_from(input, "it cannot be inspected; check its permissions", error),
        })?;
        if metadata.is_dir() {
            images.extend(images_in(input)?);
        } else {
            images.push(input.clone());
        }
    }
    Ok(images)
}

/// The files that match a pattern with `*`, `?` or `[...]`, in natural order; `None` for other
/// names and for existing files.
fn matches(input: &Path) -> Result<Option<Vec<PathBuf>>> {
    let Some(pattern) =
        input.to_str().filter(|text| text.contains(['*', '?', '[']) && !input.exists())
    else {
        return Ok(None);
    };
    let paths = glob::glob(pattern)
        .map_err(|error| Error::input_from(input, "the pattern is not valid", error))?;
    let mut found: Vec<PathBuf> =
        paths.filter_map(std::result::Result::ok).filter(|path| path.is_file()).collect();
    if found.is_empty() {
        return Err(Error::input(input, "no file matches it; check the pattern"));
    }
    sort(&mut found);
    Ok(Some(found))
}

pub(crate) fn sort(files: &mut [PathBuf]) {
    files.sort_by(|a, b| {
        by_number(&a.to_string_lossy(), &b.to_string_lossy()).then_with(|| a.cmp(b))
    });
}

fn images_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let found = listed(folder)?;
    if found.is_empty() { Err(no_image(folder)) } else { Ok(found) }
}

fn no_image(folder: &Path) -> Error {
    let extensions = Format::extensions().collect::<Vec<_>>().join(", ");
    Error::input(folder, format!("the folder holds no image; looked for {extensions}"))
}

/// The images in a folder, including unsupported formats and broken links, so that they are
/// reported.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = entries(folder)?;
    found.retain(|path| {
        (Format::from_path(path).is_some() || Format::is_foreign(path))
            && (path.is_file() || !path.exists())
    });
    Ok(found)
}

/// The entries of a folder that are not hidden, in natural order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| {
        Error::input_from(folder, "the folder cannot be listed; check its permissions", error)
    };
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.file_name().is_some_and(|name| !is_hidden(name)) {
            found.push(path);
        }
    }
    sort(&mut found);
    Ok(found)
}

/// The file name of the result for an image in a folder, in the format of the image, or PNG for a
/// format that is not written. `None` for a file that a folder does not stand for: one that is
/// hidden or has no extension of an image.
pub fn result_name(input: &Path) -> Option<OsString> {
    let name = input.file_name().filter(|name| !is_hidden(name))?;
    if Format::from_path(input).is_some() {
        return Some(name.to_owned());
    }
    Format::is_foreign(input).then(|| named(input, Format::Png))
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn job_in_folder(input: PathBuf, folder: &Path, format: Option<Format>) -> Result<Job> {
    let Some(name) = input.file_name() else {
        return Err(Error::input(
            input,
            "its path has no file name, and so the result would have none",
        ));
    };
    let (name, format) = match (format, Format::from_path(&input)) {
        (Some(format), _) => (named(&input, format), format),
        (None, Some(format)) => (name.to_owned(), format),
        // It cannot be read; that is reported when the job runs.
        (None, None) if Format::is_foreign(&input) => (named(&input, Format::Png), Format::Png),
        (None, None) => {
            let input = input.display();
            return Err(Error::usage(format!(
                "the name {input} has an unknown extension for its result; give one with \
                 {IMAGE_FORMAT}"
            )));
        }
    };
    Ok(Job { output: folder.join(name), input, format })
}

/// The file name of an image, with the extension of that format.
fn named(input: &Path, format: Format) -> OsString {
    let mut name = OsString::from(input.file_stem().unwrap_or_default());
    name.push(".");
    name.push(format.extension());
    name
}

fn single_job(input: PathBuf, output: &Path, format: Option<Format>) -> Result<Job> {
    let Some(format) = format.or_else(|| Format::from_path(output)) else {
        if Format::is_foreign(output) {
            let formats = Format::listed(|format| format.to_string(), "or");
            let problem = format!(
                "{}: Eddy does not write this image format; choose {formats}",
                output.display()
            );
            return Err(Error::usage(problem));
        }
        return Err(Error::usage(format!(
            "the name {} has an unknown extension; end it in .png, .jpg, .webp, .tiff, .bmp or \
             .qoi, give one with {IMAGE_FORMAT}, or end it in {MAIN_SEPARATOR} for a folder",
            output.display()
        )));
    };
    Ok(Job { input, output: output.into(), format })
}

/// Refuses to replace an input, and to write the same file twice.
fn refuse_overlap(jobs: &[Job]) -> Result<()> {
    let mut inputs = HashMap::new();
    for job in jobs {
        inputs.insert(place(&job.input), &job.input);
    }
    let mut outputs: HashMap<PathBuf, &Path> = HashMap::new();
    for job in jobs {
        let place = place(&job.output);
        if let Some(input) = inputs.get(&place) {
            return Err(would_replace(&job.output, input));
        }
        if let Some(other) = outputs.insert(place, &job.input) {
            return Err(Error::usage(format!(
                "{} and {} would both be written to {}; give them other names or other folders",
                other.display(),
                job.input.display(),
                job.output.display()
            )));
        }
    }
    Ok(())
}

fn would_replace(output: &Path, input: &Path) -> Error {
    Error::usage(format!(
        "the result {} would replace the input {}; choose another name or folder",
        output.display(),
        input.display()
    ))
}

/// The canonical path of a file that may not exist yet: links and relative parts are resolved in
/// existing folders.
fn place(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let path = resolve_dangling_link(path);
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) if folder.as_os_str().is_empty() => {
            place(Path::new(".")).join(name)
        }
        (Some(folder), Some(name)) => place(folder).join(name),
        _ => path,
    }
}

/// Whether a path ends in a slash, and thus names a folder.
pub fn ends_in_slash(path: &Path) -> bool {
    path.as_os_str()
        .as_encoded_bytes()
        .last()
        .is_some_and(|last| std::path::is_separator(char::from(*last)))
}
