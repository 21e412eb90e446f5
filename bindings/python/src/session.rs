//! The settings that all pipelines share, and ONNX Runtime, which a process loads once.

use std::path::PathBuf;

use eddy::Eddy;
use eddy::media::still::Limits;
use eddy::network::Library;
use pyo3::prelude::*;

use crate::errors::{exception, usage};

/// The settings of a pipeline's constructor.
#[derive(Clone, Debug, Default, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Settings {
    device: Option<String>,
    threads: Option<usize>,
    max_memory: Option<u64>,
    precision: Option<String>,
    runtime: Option<PathBuf>,
}

impl Settings {
    /// The limits of the images that are read.
    pub(crate) fn limits(&self) -> Limits {
        self.max_memory.map_or_else(Limits::default, Limits::within)
    }

    /// Loads ONNX Runtime and makes a pipeline by `make`, with the interpreter's lock released.
    pub(crate) fn open<T: Send>(
        self,
        py: Python<'_>,
        make: impl FnOnce(&Eddy) -> eddy::Result<T> + Send,
    ) -> PyResult<T> {
        let (mut builder, mut library) = (Eddy::builder(), Library::Embedded);
        if let Some(device) = self.device {
            let wrong = |problem| usage(py, format!("device {device:?}: {problem}"));
            builder = builder.choose_device(device.parse().map_err(wrong)?);
        }
        if let Some(threads) = self.threads {
            builder = builder.threads(threads);
        }
        if let Some(bytes) = self.max_memory {
            builder = builder.max_memory(bytes);
        }
        if let Some(precision) = self.precision {
            let wrong = |problem| usage(py, format!("precision {precision:?}: {problem}"));
            builder = builder.precision(precision.parse().map_err(wrong)?);
        }
        if let Some(file) = self.runtime {
            library = Library::File(file);
        }
        let opened = py.detach(|| make(&builder.library(library).build()?));
        opened.map_err(|error| exception(py, &error))
    }
}
