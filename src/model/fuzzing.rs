//! Graphs with weights in other files.

use std::fs;

use tempfile::TempDir;

use super::diffusers::channels_of;
use super::external::{external_files, with_weights};
use super::files::Links;

thread_local! {
    static FOLDER: Option<TempDir> = folder().ok();
}

/// A folder with a file of weights.
fn folder() -> std::io::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("w"), [7; 64])?;
    Ok(folder)
}

/// A graph, whose weights are put inside where the file `w` has them.
pub(crate) fn graph(bytes: &[u8]) {
    let _ = channels_of(bytes, "sample");
    FOLDER.with(|folder| {
        let Some(folder) = folder else { return };
        if let Ok(whole) = with_weights(bytes.to_vec(), folder.path(), Links::Inside, "model") {
            assert!(external_files(&whole).is_empty(), "weights are still in files");
        }
    });
}
