//! Errors, one variant per stage.
//!
//! A message says what was found, what was expected and what to do. It leaves out the cause that
//! another library reported, which [`std::error::Error::source`] returns.
//! The library never prints: it returns errors, and only the binary prints them and turns them into
//! exit codes.

use std::path::PathBuf;

/// The cause of an [`Error`].
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error, by the stage that detected it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request is invalid: options contradict each other, or a value is out of range.
    #[error("{problem}")]
    Usage {
        /// What was requested, and what is allowed.
        problem: String,
    },
    /// An image, tensor or folder could not be read.
    #[error("cannot read {}: {problem}", path.display())]
    Input {
        /// The path that was read.
        path: PathBuf,
        /// What was found, what was expected and what to do.
        problem: String,
        /// The cause, where another library reported one.
        source: Option<Cause>,
    },
    /// A result could not be written. Nothing is left under its final name.
    #[error("cannot write {}: {problem}", path.display())]
    Output {
        /// The path that was written.
        path: PathBuf,
        /// What was found, what was expected and what to do.
        problem: String,
        /// The cause, where another library reported one.
        source: Option<Cause>,
    },
    /// A model is missing, malformed or does not match its manifest.
    #[error("cannot use model {model}: {problem}")]
    Model {
        /// The model's name or path.
        model: String,
        /// What was found, what was expected and what to do.
        problem: String,
        /// The cause, where another library reported one.
        source: Option<Cause>,
    },
    /// ONNX Runtime, or a device that it uses, could not be used.
    #[error("cannot use ONNX Runtime from {library}: {problem}")]
    Runtime {
        /// The library's path, or the name of the embedded one.
        library: String,
        /// What was found, what was expected and what to do.
        problem: String,
        /// The cause, where another library reported one.
        source: Option<Cause>,
    },
    /// The requested device does not work, and falling back to another was not allowed.
    #[error("cannot use {device}: {problem}")]
    Device {
        /// The device, as `--device` names it.
        device: String,
        /// What was found and what to do.
        problem: String,
    },
    /// An evaluation of the network failed or gave invalid output. The cause, such as ONNX
    /// Runtime's own message, is not in the text of this error, but in its `source()`.
    #[error("{problem}")]
    Evaluation {
        /// The sampler step, what was found and what to do.
        problem: String,
        /// The cause, where another library reported one.
        source: Option<Cause>,
    },
    /// The process could not be confined to its files.
    #[error("cannot confine this process: {problem}")]
    Sandbox {
        /// What the kernel lacks, or what else is in the way.
        problem: String,
        /// The cause, where another library reported one.
        source: Option<Cause>,
    },
    /// The caller requested a stop. Results that were finished before are kept.
    #[error("interrupted; what was finished is kept")]
    Interrupted,
}

/// The texts of an error and of its causes, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

impl Error {
    /// An invalid request.
    pub fn usage(problem: impl Into<String>) -> Self {
        Self::Usage { problem: problem.into() }
    }

    /// A failed read, without a cause from another library.
    pub fn input(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Input { path: path.into(), problem: problem.into(), source: None }
    }

    /// A failed read, with its cause.
    pub fn input_from(
        path: impl Into<PathBuf>,
        problem: impl Into<String>,
        source: impl Into<Cause>,
    ) -> Self {
        Self::Input { path: path.into(), problem: problem.into(), source: Some(source.into()) }
    }

    /// A failed write, with its cause.
    pub fn output_from(
        path: impl Into<PathBuf>,
        problem: impl Into<String>,
        source: impl Into<Cause>,
    ) -> Self {
        Self::Output { path: path.into(), problem: problem.into(), source: Some(source.into()) }
    }

    /// An unusable model, without a cause from another library.
    pub fn model(model: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Model { model: model.into(), problem: problem.into(), source: None }
    }

    /// An unusable model, with its cause.
    pub fn model_from(
        model: impl Into<String>,
        problem: impl Into<String>,
        source: impl Into<Cause>,
    ) -> Self {
        Self::Model { model: model.into(), problem: problem.into(), source: Some(source.into()) }
    }

    /// A failed evaluation, without a cause from another library.
    pub fn evaluation(problem: impl Into<String>) -> Self {
        Self::Evaluation { problem: problem.into(), source: None }
    }

    /// The exit code of the binary for this error (documented in `docs/cli.md`).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Output { .. } | Self::Evaluation { .. } | Self::Sandbox { .. } => 1,
            Self::Usage { .. } => 2,
            Self::Input { .. } => 3,
            Self::Model { .. } => 4,
            Self::Runtime { .. } => 5,
            Self::Device { .. } => 6,
            Self::Interrupted => 130,
        }
    }
}
