//! The `eddy` binary: parse, run, exit code.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

mod cli;

fn main() -> ExitCode {
    let started = Instant::now();
    let arguments = cli::Arguments::parse();
    cli::interrupt::listen();
    eddy::machine::ignore_file_size_signal();
    match arguments.run(started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::console::fail(&error),
    }
}
