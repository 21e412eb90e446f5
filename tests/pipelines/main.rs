//! Pipelines of text encoders, a denoiser and an autoencoder through the real binary: against what
//! diffusers makes with the same networks and the same noise, and what is refused.

// Helpers beside the tests panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod again;
mod compiled;
mod exported;
mod images;
mod prepared;
mod references;
mod refused;
mod steps;
mod tokens;
mod upscale;
