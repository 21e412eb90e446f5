//! Eddy: an inference runtime for diffusion networks on edge boards.

pub mod diffusion;
pub mod error;
pub mod frame;
pub mod network;
pub mod tensor;

pub use error::{Error, Result};
