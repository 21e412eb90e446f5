//! Eddy: an inference runtime for diffusion networks on edge boards.

pub mod diffusion;
pub mod error;
pub mod frame;
pub mod machine;
pub mod model;
pub mod network;
pub mod task;
pub mod tensor;
pub mod tile;

pub use error::{Error, Result};
