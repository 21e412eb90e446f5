//! What can go wrong, one variant per stage.
//!
//! A message says what was found, what was expected and what to do; the cause is kept as the source. Nothing in
//! the library prints: an error is returned, and the binary alone writes it and turns it into an exit code.

use std::path::PathBuf;

/// The cause beneath an [`Error`].
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by the stage that found it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request itself cannot be carried out: options that contradict each other, or a value out of range.
    #[error("{problem}")]
    Usage {
        /// What was asked, and what may be asked.
        problem: String,
    },
    /// An image, tensor or folder could not be read.
    #[error("cannot read {}: {problem}", path.display())]
    Input {
        /// What was read.
        path: PathBuf,
        /// What was found, what was expected and what to do.
        problem: String,
        /// The cause, where another library reported one.
        source: Option<Cause>,
    },
    /// A result could not be written. Nothing of it is left under its final name.
    #[error("cannot write {}: {problem}", path.display())]
    Output {
        /// What was being written.
        path: PathBuf,
        /// What was found, what was expected and what to do.
        problem: String,
        /// The cause, where another library reported one.
        source: Option<Cause>,
    },
    /// A model is missing, malformed or not what its manifest says.
    #[error("cannot use model {model}: {problem}")]
    Model {
        /// The model's name or path.
        model: String,
        /// What was found, what was expected and what to do.
        problem: String,
        /// The cause, where another library reported one.
        source: Option<Cause>,
    },
    /// ONNX Runtime, or a device beneath it, could not be used.
    #[error("cannot use ONNX Runtime from {library}: {problem}")]
    Runtime {
        /// The library's path, or what stands for the embedded one.
        library: String,
        /// What was found, what was expected and what to do.
        problem: String,
        /// The cause, where another library reported one.
        source: Option<Cause>,
    },
    /// The device that was asked for does not work, and no other was to take its place.
    #[error("cannot use {device}: {problem}")]
    Device {
        /// The device, as `--device` names it.
        device: String,
        /// What was found and what to do.
        problem: String,
    },
    /// An evaluation of the network failed, or gave invalid output.
    #[error("{problem}")]
    Evaluation {
        /// At which step, what was found and what to do.
        problem: String,
        /// The cause, where another library reported one.
        source: Option<Cause>,
    },
    /// The caller asked to stop; what was finished before is kept.
    #[error("interrupted; what was finished is kept")]
    Interrupted,
}

impl Error {
    /// A request that cannot be carried out.
    pub fn usage(problem: impl Into<String>) -> Self {
        Self::Usage { problem: problem.into() }
    }

    /// Something that could not be read, without a deeper cause.
    pub fn input(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Input { path: path.into(), problem: problem.into(), source: None }
    }

    /// Something that could not be read, and why.
    pub fn input_from(path: impl Into<PathBuf>, problem: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Input { path: path.into(), problem: problem.into(), source: Some(source.into()) }
    }

    /// A result that could not be written, and why.
    pub fn output_from(path: impl Into<PathBuf>, problem: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Output { path: path.into(), problem: problem.into(), source: Some(source.into()) }
    }

    /// A model that cannot be used, without a deeper cause.
    pub fn model(model: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Model { model: model.into(), problem: problem.into(), source: None }
    }

    /// A model that cannot be used, and why.
    pub fn model_from(model: impl Into<String>, problem: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Model { model: model.into(), problem: problem.into(), source: Some(source.into()) }
    }

    /// An evaluation that failed, without a deeper cause.
    pub fn evaluation(problem: impl Into<String>) -> Self {
        Self::Evaluation { problem: problem.into(), source: None }
    }

    /// The exit code by which the binary reports this error (documented in the README).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Output { .. } | Self::Evaluation { .. } => 1,
            Self::Usage { .. } => 2,
            Self::Input { .. } => 3,
            Self::Model { .. } => 4,
            Self::Runtime { .. } => 5,
            Self::Device { .. } => 6,
            Self::Interrupted => 130,
        }
    }
}
