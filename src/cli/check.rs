//! `eddy check`.

use clap::Args;
use eddy::model::{Package, bundled_names, verify};
use serde_json::json;

use super::console::Console;
use super::onnx_options::refuse_compiled;
use super::options::{DeviceOptions, FilesOption};

/// Verify that models reproduce their recorded output on this machine
///
/// Every file of a package is checked against its SHA-256, loaded, and run on the recorded input.
/// The largest difference from the recorded output is compared with the tolerance in the manifest.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Bundled models or folders of model packages; all bundled models when left out
    #[arg(value_name = "MODEL")]
    models: Vec<String>,

    #[command(flatten)]
    files: FilesOption,

    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    console: Console,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let bundled = || bundled_names().into_iter().map(str::to_owned).collect();
        let models: Vec<String> = if self.models.is_empty() { bundled() } else { self.models };
        let opened = self.device.open(self.console)?;
        let mut wrong = None;
        for model in &models {
            refuse_compiled(model)?;
            let package = Package::find(model)?;
            for precision in self.files.of(&package)? {
                let verdict =
                    verify(&package, precision, &mut opened.network(&package, precision)?)?;
                let (found, allowed) = (verdict.largest_difference, verdict.tolerance);
                let name = &package.manifest.name;
                let outcome = if verdict.passes() { "ok" } else { "WRONG" };
                let line = format!(
                    "{name} {precision}: {outcome}, largest difference {found:.2e} of {allowed:.2e} \
                     allowed"
                );
                let record = json!({
                    "model": name, "precision": precision.name(),
                    "device": opened.device().to_string(), "passes": verdict.passes(),
                    "largest_difference": found, "tolerance": allowed,
                });
                self.console.result(line, &record)?;
                if !verdict.passes() {
                    wrong.get_or_insert_with(|| (name.clone(), precision));
                }
            }
        }
        match wrong {
            None => Ok(()),
            Some((name, precision)) => {
                let problem = format!(
                    "its {precision} file gives other values than were recorded; the file, the \
                     runtime or this CPU is at fault"
                );
                Err(eddy::Error::model(name, problem).into())
            }
        }
    }
}
