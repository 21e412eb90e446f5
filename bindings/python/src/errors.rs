//! Errors of the library as Python's exceptions, which `_errors.py` defines.

use std::error::Error as _;

use eddy::Error;
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
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
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
