//! `eddy completions` and `eddy man`: files to install beside the binary.

use std::io;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Args, Command, CommandFactory};
use clap_complete::Shell;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Example: eddy completions bash > ~/.local/share/bash-completion/completions/eddy"
)]
pub(crate) struct Completions {
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        // Into memory first, because the generator panics on a closed pipe.
        let mut text = Vec::new();
        let mut command = with_words(super::Arguments::command());
        clap_complete::generate(self.shell, &mut command, "eddy", &mut text);
        match io::Write::write_all(&mut io::stdout(), &text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// The command with the words of options whose value is named `auto|cpu|cuda[:N]`, for completion:
/// their parsers take more than that list.
fn with_words(command: Command) -> Command {
    command.mut_subcommands(with_words).mut_args(|option| {
        let words = words(&option);
        if words.is_empty() {
            option
        } else {
            option.value_parser(PossibleValuesParser::new(words))
        }
    })
}

/// The lowercase words of a value's name, without `[suffix]`; none if it has no alternatives. They
/// stay until the process ends, which is soon.
fn words(option: &Arg) -> Vec<&'static str> {
    let alternatives = option.get_value_names().into_iter().flatten();
    let alternatives =
        alternatives.flat_map(|name| name.split('|').skip_while(|_| !name.contains('|')));
    let words = alternatives.map(|word| word.split('[').next().unwrap_or(word));
    words
        .filter(|word| !word.contains(|c: char| c.is_ascii_uppercase()))
        .map(|word| &*word.to_owned().leak())
        .collect()
}

/// Write the manual's pages into a folder
#[derive(Debug, Args)]
pub(crate) struct ManPages {
    folder: PathBuf,
}

impl ManPages {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let written = clap_mangen::generate_to(super::Arguments::command(), &self.folder);
        written.map_err(|error| {
            eddy::Error::output_from(&self.folder, "the pages cannot be written into it", error)
                .into()
        })
    }
}
