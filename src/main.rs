//! The `eddy` binary: parse arguments, run, return the exit code.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

mod cli;

#[global_allocator]
static ALLOCATOR: eddy::machine::ExitOutOfMemory = eddy::machine::ExitOutOfMemory;

fn main() -> ExitCode {
    let started = Instant::now();
    if let Some(text) = cli::long_version(std::env::args_os().skip(1)) {
        let shown = writeln!(std::io::stdout(), "{text}");
        return ExitCode::from(u8::from(shown.is_err()));
    }
    let arguments = cli::Arguments::parse();
    eddy::machine::report_missing_stacks();
    // Before the first thread, which would not be confined.
    if let Err(error) = arguments.confine() {
        return ExitCode::from(cli::console::report_error(&error.into()));
    }
    cli::interrupt::listen();
    eddy::machine::ignore_file_size_signal();
    eddy::machine::report_integer_division();
    let code =
        arguments.run(started).map_or_else(|error| cli::console::report_error(&error), |()| 0);
    if eddy::network::is_load_abandoned() {
        let _ = std::io::stdout().flush();
        eddy::machine::exit_at_once(code.into());
    }
    ExitCode::from(code)
}
