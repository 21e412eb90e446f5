//! The real binary, from arguments to exit code, files and words.

// Helpers beside the tests panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod attack;
mod camera;
mod commands;
mod denoise;
mod devices;
mod draw;
mod folders;
mod guards;
mod import;
mod inputs;
mod interrupt;
mod keeping_up;
mod listing;
mod models;
mod options;
mod outputs;
mod precisions;
mod preview;
mod profile;
mod runtimes;
mod shown;
mod strangers;
mod streams;
mod temporal;
mod upscale;
mod whole;
