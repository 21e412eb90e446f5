//! `--sandbox`: confines the process to the files of its command line.

use std::path::Path;

use clap::Args;
use eddy::Error;
use eddy::machine::Sandbox;
use eddy::network::cache_folder;

/// Whether to confine the process.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct SandboxOption {
    /// For models of strangers: read only the inputs, the folder of the model and system files,
    /// write only to the folder of the result, and start no program, open no connection and use no
    /// device but the CPU. Needs Landlock (Linux 5.13)
    #[arg(long)]
    sandbox: bool,
}

impl SandboxOption {
    /// The sandbox to add the files of a run to, if one is requested.
    pub(crate) fn start(&self) -> Option<Sandbox> {
        let cache = |sandbox: Sandbox| match cache_folder() {
            Some(folder) => sandbox.read(&folder),
            None => sandbox,
        };
        self.sandbox.then(Sandbox::default).map(cache)
    }
}

/// An option, or something that it names, that a confined process cannot use.
pub(crate) fn refused(what: &str, why: &str) -> Error {
    Error::usage(format!("--sandbox does not go with {what}, {why}; leave one of them out"))
}

/// Adds the sources of a run to a sandbox, and its sink.
///
/// # Errors
/// [`Error::Usage`] for cameras, servers and pipelines, which need devices, connections or
/// programs.
pub(crate) fn confine_files<'a>(
    mut sandbox: Sandbox,
    sources: impl IntoIterator<Item = &'a Path>,
    sink: &Path,
) -> eddy::Result<Sandbox> {
    for source in sources.into_iter().filter(|source| !is_standard(source)) {
        check(source)?;
        sandbox = sandbox.read(source);
    }
    if is_standard(sink) {
        return Ok(sandbox);
    }
    check(sink)?;
    Ok(sandbox.write(sink))
}

/// Whether a name stands for standard input or output.
fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

fn check(path: &Path) -> eddy::Result<()> {
    let name = path.to_string_lossy();
    if name.starts_with("gst:") || name.contains("://") {
        return Err(refused(&name, "which takes a connection or another program"));
    }
    if path.starts_with("/dev") {
        return Err(refused(&name, "which is a device"));
    }
    Ok(())
}
