//! All other formats, through an `ffmpeg` process if it is installed.

mod container;
mod encoder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod probe;
pub(in crate::media) mod program;
mod server;
mod sink;
mod sound;
mod source;
mod truncation;

use std::path::{Path, PathBuf};

pub(in crate::media) use container::is_container;
pub use encoder::Encoder;
pub use server::ServerSink;
pub(in crate::media) use server::{is_server, protocols};
pub use sink::{FfmpegSink, part_of};
pub use source::FfmpegSource;

fn not_started(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            "it takes ffmpeg, which is not installed (apt install ffmpeg); or use y4m"
        }
        _ => "ffmpeg cannot be started",
    }
}

pub(in crate::media) fn is_url(name: &Path) -> bool {
    name.to_str().is_some_and(|name| name.contains("://"))
}

/// Whether the source can be read only once.
fn is_pipe(name: &Path) -> bool {
    !is_url(name) && name.metadata().is_ok_and(|found| !found.is_file())
}

/// The name of a file in a form that ffmpeg reads as neither URL nor option.
pub(in crate::media) fn input(name: &Path) -> PathBuf {
    if is_url(name) || name.is_absolute() { name.into() } else { Path::new(".").join(name) }
}

/// The family of containers by extension; those of one family support the same sound codecs.
pub(in crate::media) fn kind(path: &Path) -> Option<String> {
    let extension = path.extension()?.to_str()?.to_lowercase();
    Some(if ["m4v", "mov"].contains(&extension.as_str()) { "mp4".to_owned() } else { extension })
}
