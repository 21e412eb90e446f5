//! End-to-end tests of the binary: arguments, exit codes, files and messages.

// Test helpers may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod attack;
mod bare;
mod camera;
mod commands;
mod denoise;
mod devices;
mod folders;
mod generate;
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
