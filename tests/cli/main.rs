//! End-to-end tests of the binary: arguments, exit codes, files and messages.

// Test helpers may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod atomic_output;
mod bare_networks;
mod bench_suite;
mod camera;
mod commands;
mod compile;
mod denoise;
mod devices;
mod folders;
mod generate;
mod import;
mod inputs;
mod interrupt;
mod invalid_output;
mod listing;
mod models;
mod options;
mod orientation_and_alpha;
mod outputs;
mod parallel;
mod precisions;
mod preview;
mod preview_attacks;
mod profile;
mod runtimes;
mod sandbox;
mod serve;
mod serve_limits;
mod served;
mod streams;
mod target_rates;
mod temporal;
mod untrusted_models;
mod upscale;
