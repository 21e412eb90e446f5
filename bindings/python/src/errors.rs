//! Errors of the library as Python's exceptions, which `_errors.py` defines.

use eddy::Error;
use eddy::error::with_causes;
use eddy::machine;
use eddy::setting::{self, Setting};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// The arguments by which users know the settings that messages of the library name.
const ARGUMENTS: [(Setting, &str); 8] = [
    (setting::CLASS, "class_labels"),
    (setting::DEVICE, "device="),
    (setting::MAX_MEMORY, "max_memory="),
    (setting::MODEL, "model="),
    (setting::PIXEL_FORMAT, "pixel_format="),
    (setting::PRECISION, "precision="),
    (setting::RUNTIME, "runtime="),
    (setting::SIZE, "size="),
];

/// The exception of an error: its class by the error's stage, its text with all causes.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error {
        Error::Usage { .. } => "UsageError",
        Error::Input { .. } => "InputError",
        Error::Output { .. } => "OutputError",
        Error::Model { .. } => "ModelError",
        Error::Runtime { .. } | Error::Device { .. } => "DeviceError",
        Error::Evaluation { .. } => "EvaluationError",
        Error::Interrupted => "Interrupted",
        _ => "Error",
    };
    let text = setting::named(&with_causes(error), &ARGUMENTS);
    let made = py
        .import("eddy._errors")
        .and_then(|module| module.getattr(class))
        .and_then(|class| class.call1((text.clone(),)));
    match made {
        Ok(made) => PyErr::from_value(made),
        Err(_) => PyRuntimeError::new_err(text),
    }
}

/// Refuses what needs more memory than the machine has left: allocations that fail would end the
/// interpreter, and so would the system. `bytes` is `None` for more than can be counted.
pub(crate) fn check_memory(py: Python<'_>, what: &str, bytes: Option<usize>) -> PyResult<()> {
    let available = machine::available_memory();
    if bytes.is_some_and(|bytes| bytes as u64 <= available) {
        return Ok(());
    }
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let needed = bytes.map_or_else(
        || "more memory than there can be".to_owned(),
        |bytes| format!("at least {} MiB", mebibytes(bytes as u64)),
    );
    let left = mebibytes(available);
    Err(usage(py, format!("{what} needs {needed}, and {left} MiB are available")))
}

/// A usage error.
pub(crate) fn usage(py: Python<'_>, problem: impl Into<String>) -> PyErr {
    exception(py, &Error::usage(problem))
}
