//! `eddy sample` through the binary: compared with diffusers' schedulers on exported networks, and what
//! it rejects.

// Test helpers may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod goldens;
mod parameterizations;
mod pipelines;
mod published;
mod refused;
mod runs;
