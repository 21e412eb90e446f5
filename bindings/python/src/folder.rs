//! What a program needs that processes the files of a folder by itself.

use std::ffi::OsString;
use std::path::PathBuf;

use eddy::{durable, media::source};
use pyo3::prelude::*;

/// See `__init__.pyi`.
#[pyfunction]
pub(crate) fn result_name(path: PathBuf) -> Option<OsString> {
    source::result_name(&path)
}

/// See `__init__.pyi`.
#[pyfunction]
pub(crate) fn delete_leftovers(py: Python<'_>, folder: PathBuf) {
    py.detach(|| durable::delete_leftovers(&folder));
}
