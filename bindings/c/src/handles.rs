//! What the handles of C hold.

use std::sync::{Mutex, MutexGuard, PoisonError};

use eddy::network::Library;
use eddy::{Eddy, Error, Result};

/// A value that one thread at a time uses.
#[derive(Debug)]
pub(crate) struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        // A panic of another call leaves nothing half done that the next one would see.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The settings of a context.
#[derive(Debug, Default)]
pub(crate) struct Settings<'a> {
    pub(crate) device: Option<&'a str>,
    pub(crate) threads: usize,
    pub(crate) max_memory: u64,
    pub(crate) precision: Option<&'a str>,
    pub(crate) runtime: Option<&'a str>,
}

impl Settings<'_> {
    /// Loads ONNX Runtime.
    pub(crate) fn open(self) -> Result<Eddy> {
        let wrong = |name: &str, found: &str, problem: String| {
            Error::usage(format!("{name} {found:?}: {problem}"))
        };
        let library = self.runtime.map_or(Library::Embedded, |file| Library::File(file.into()));
        let mut builder = Eddy::builder();
        if let Some(device) = self.device {
            let choice = device.parse().map_err(|it| wrong("device", device, it))?;
            builder = builder.choose_device(choice);
        }
        if let Some(precision) = self.precision {
            let parsed = precision.parse().map_err(|it| wrong("precision", precision, it));
            builder = builder.precision(parsed?);
        }
        if self.max_memory > 0 {
            builder = builder.max_memory(self.max_memory);
        }
        builder.threads(self.threads).library(library).build()
    }
}
