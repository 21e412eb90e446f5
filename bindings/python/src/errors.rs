//! Errors of the library as Python's exceptions, which `_errors.py` defines.

use eddy::Error;
use eddy::error::with_causes;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

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
    let text = with_causes(error);
    let made = py
        .import("eddy._errors")
        .and_then(|module| module.getattr(class))
        .and_then(|class| class.call1((text.clone(),)));
    match made {
        Ok(made) => PyErr::from_value(made),
        Err(_) => PyRuntimeError::new_err(text),
    }
}

/// A usage error.
pub(crate) fn usage(py: Python<'_>, problem: impl Into<String>) -> PyErr {
    exception(py, &Error::usage(problem))
}
