//! The command line: one file per command. No other module prints.

use std::ffi::OsString;
use std::time::Instant;

use clap::{Parser, Subcommand};
use eddy::machine::Sandbox;
use eddy::model::{Package, bundled_names};
use eddy::network::{EMBEDDED_SHA256, EMBEDDED_VERSION};

mod bench;
mod bench_suite;
mod bench_video;
mod check;
mod compile;
pub(crate) mod console;
mod deblur;
mod denoise;
mod doctor;
mod dry_run;
mod generate;
mod generate_args;
mod generate_text_to_image;
mod generative;
mod import;
mod info;
mod inpaint;
pub(crate) mod interrupt;
mod io_args;
mod onnx_options;
mod options;
mod pages;
mod prepare;
mod preview_steps;
mod profile;
mod prompt_options;
mod report;
mod run_args;
mod sample;
mod sandbox;
mod serve;
mod stream;
mod upscale;
mod upscale_by_prompt;

const AFTER_HELP: &str = "Exit codes: 0 done, 1 other, 2 usage, 3 input, 4 model, 5 runtime \
                          library, 6 device, 130 interrupted (finished results are kept).\n\n\
                          `eddy --version --verbose` shows what the binary is made of.";

/// What the binary is made of, if that is all that the arguments ask for.
pub(crate) fn long_version(arguments: impl Iterator<Item = OsString>) -> Option<String> {
    let given: Vec<OsString> = arguments.collect();
    let asks = |names: [&str; 2]| given.iter().any(|it| names.iter().any(|name| it == *name));
    (given.len() == 2 && asks(["--version", "-V"]) && asks(["--verbose", "-v"])).then(|| {
        let mut text = format!(
            "eddy {}\ntarget: {}\nONNX Runtime: {EMBEDDED_VERSION}, SHA-256 {EMBEDDED_SHA256}",
            env!("CARGO_PKG_VERSION"),
            env!("EDDY_TARGET"),
        );
        for name in bundled_names() {
            let files = Package::find(name).map(|package| package.manifest.files);
            for (precision, file) in files.into_iter().flatten() {
                text += &format!("\n{name} {precision}: SHA-256 {}", file.sha256);
            }
        }
        text
    })
}

/// Diffusion networks on edge boards: denoising, upscaling and generation from one binary.
#[derive(Debug, Parser)]
#[command(name = "eddy", version, propagate_version = true, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Denoise(denoise::Arguments),
    Upscale(upscale::Arguments),
    Inpaint(inpaint::Arguments),
    Deblur(deblur::Arguments),
    Generate(generate::Arguments),
    Profile(profile::Arguments),
    Sample(sample::Arguments),
    Serve(serve::Arguments),
    Info(info::Arguments),
    Check(check::Arguments),
    Doctor(doctor::Arguments),
    #[command(hide = true)]
    TryDevice(doctor::ProbeDevice),
    Bench(bench::Arguments),
    Prepare(prepare::Arguments),
    Compile(compile::Arguments),
    Import(import::Arguments),
    Completions(pages::Completions),
    #[command(hide = true)]
    Man(pages::ManPages),
}

impl Arguments {
    /// Confines this process to the files of the command, if that is requested. No other thread may
    /// exist.
    pub(crate) fn confine(&self) -> eddy::Result<()> {
        let sandbox = match &self.command {
            Command::Denoise(arguments) => arguments.sandbox()?,
            Command::Upscale(arguments) => arguments.sandbox()?,
            Command::Deblur(arguments) => arguments.sandbox()?,
            Command::Inpaint(arguments) => arguments.sandbox()?,
            Command::Generate(arguments) => arguments.sandbox()?,
            Command::Sample(arguments) => arguments.sandbox()?,
            Command::Info(arguments) => arguments.sandbox()?,
            _ => None,
        };
        sandbox.map_or(Ok(()), Sandbox::enter)
    }

    /// Runs the command. `started` is the start time of the process.
    pub(crate) fn run(self, started: Instant) -> anyhow::Result<()> {
        match self.command {
            Command::Denoise(arguments) => arguments.run(),
            Command::Upscale(arguments) => arguments.run(),
            Command::Deblur(arguments) => arguments.run(),
            Command::Inpaint(arguments) => arguments.run(),
            Command::Generate(arguments) => arguments.run(),
            Command::Profile(arguments) => arguments.run(),
            Command::Sample(arguments) => arguments.run(),
            Command::Serve(arguments) => arguments.run(),
            Command::Info(arguments) => arguments.run(),
            Command::Check(arguments) => arguments.run(),
            Command::Doctor(arguments) => arguments.run(),
            Command::TryDevice(arguments) => arguments.run(),
            Command::Bench(arguments) => arguments.run(started),
            Command::Import(arguments) => arguments.run(),
            Command::Prepare(arguments) => arguments.run(),
            Command::Compile(arguments) => arguments.run(),
            Command::Completions(arguments) => arguments.run(),
            Command::Man(arguments) => arguments.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use clap::Parser;

    use super::Arguments;

    /// The corpus of the fuzzer, which has a line for each argument.
    #[test]
    fn command_lines_are_parsed_without_a_panic() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/arguments");
        let mut parsed = 0;
        for file in corpus.read_dir().unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let words = bytes.split(|byte| *byte == b'\n').map(OsStr::from_bytes);
            let words = std::iter::once(OsStr::new("eddy")).chain(words);
            parsed += usize::from(Arguments::try_parse_from(words).is_ok());
        }
        assert!(parsed > 0, "no command line of the corpus is valid");
    }
}
