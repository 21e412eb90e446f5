//! One border of Eddy under libFuzzer: that which the environment variable `BORDER` names.
//!
//! An input must not panic, and not take more memory than the border's limit and 64 MiB. libFuzzer
//! ends one that takes more than ten seconds.

#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;

use clap::Parser;
use eddy::fuzzing::{BORDERS, Border, MAX_MEMORY};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "commands are parsed and not run")]
#[path = "../../src/cli/mod.rs"]
mod cli;
mod memory;

/// What may be over the limit, in bytes.
const MARGIN: usize = 64 << 20;

/// The border of the binary.
const ARGUMENTS: Border = ("arguments", arguments);

/// A command line, with a line for each argument.
fn arguments(bytes: &[u8]) {
    let words = bytes.split(|byte| *byte == b'\n').map(OsStr::from_bytes);
    let words = std::iter::once(OsStr::new("eddy")).chain(words);
    if let Err(error) = cli::Arguments::try_parse_from(words) {
        assert!(!error.to_string().is_empty());
    }
}

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("BORDER").unwrap_or_default();
    let mut borders = BORDERS.iter().chain([&ARGUMENTS]);
    let found = borders.find(|(border, _)| *border == name);
    found.unwrap_or_else(|| panic!("BORDER is {name:?}, which is none; see fuzz/run")).1
});

fuzz_target!(|bytes: &[u8]| {
    let run = *RUN;
    memory::limit(MAX_MEMORY as usize + MARGIN);
    run(bytes);
});
