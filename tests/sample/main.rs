//! `eddy sample` through the real binary: against diffusers' schedulers on real networks, and what
//! it refuses.

// Helpers beside the tests panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod goldens;
mod parameterizations;
mod pipelines;
mod published;
mod refused;
mod runs;
