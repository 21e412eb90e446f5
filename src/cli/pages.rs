//! `eddy completions` and `eddy man`: files to install beside the binary.

use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
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
        clap_complete::generate(self.shell, &mut super::Arguments::command(), "eddy", &mut text);
        match io::Write::write_all(&mut io::stdout(), &text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
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
