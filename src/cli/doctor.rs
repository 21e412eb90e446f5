//! `eddy doctor`.

use std::time::Instant;

use clap::Args;
use eddy::frame::stream;
use eddy::machine;
use eddy::model::{Package, bundled_names, verify};
use eddy::network::{Library, default_threads};
use serde_json::json;

use super::console::Console;
use super::options::DeviceOptions;

/// Tell what this machine has, and try everything once
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    console: Console,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mebibytes = |bytes: u64| bytes >> 20;
        let (processor, features) = (machine::processor(), machine::processor_features());
        let (threads, memory) = (default_threads(), machine::total_memory());
        let mut lines = vec![
            format!("eddy        {} for {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH),
            format!("processor   {processor}"),
            format!("features    {}", features.join(" ")),
            format!("threads     {threads} by default"),
            format!(
                "memory      {} MiB, of which {} MiB by default",
                mebibytes(memory),
                mebibytes(eddy::task::Budget::default().max_memory)
            ),
        ];
        let mut cameras = Vec::new();
        for path in stream::cameras() {
            let (name, words) = match stream::describe(&path) {
                Ok((name, gives)) => {
                    let words = format!("{name}, gives {gives}");
                    (Some((name, gives)), words)
                }
                Err(error) => (None, error.to_string()),
            };
            lines.push(format!("camera      {}: {words}", path.display()));
            let (name, gives) = name.unzip();
            cameras.push(json!({"path": path.to_string_lossy(), "name": name, "gives": gives}));
        }
        if cameras.is_empty() {
            lines.push("cameras     none".to_owned());
        }
        let library = match self.device.library() {
            Library::Embedded => "the embedded one".to_owned(),
            Library::File(path) => path.display().to_string(),
        };
        let mut record = json!({
            "version": env!("CARGO_PKG_VERSION"), "arch": std::env::consts::ARCH, "processor": processor,
            "features": features, "threads": threads,
            "memory_bytes": memory, "cameras": cameras, "library": library,
        });
        let outcome = self.try_models(&mut lines, &library, &mut record);
        if let Err(error) = &outcome {
            record["problem"] = format!("{error:#}").into();
        }
        self.console.result(lines.join("\n"), &record)?;
        outcome
    }

    fn try_models(&self, lines: &mut Vec<String>, library: &str, record: &mut serde_json::Value) -> anyhow::Result<()> {
        let begun = Instant::now();
        let runtime = self.device.open().inspect_err(|_| {
            lines.push(format!("runtime     {library}: DOES NOT OPEN (see below)"));
            lines.push("            leave out --runtime and unset ORT_DYLIB_PATH for the embedded one".into());
        })?;
        let opened = begun.elapsed().as_secs_f64() * 1e3;
        lines.push(format!("runtime     {library}: ONNX Runtime {}, opened in {opened:.0} ms", runtime.version()));
        lines.push("device      cpu, in f32 unless --precision says otherwise".into());
        record["onnxruntime"] = runtime.version().into();
        record["open_ms"] = opened.into();
        let mut models = Vec::new();
        for name in bundled_names() {
            let package = Package::find(name)?;
            for precision in package.precisions(None)? {
                let begun = Instant::now();
                let verdict = verify(&package, &runtime, precision, self.device.session())?;
                let took = begun.elapsed().as_secs_f64() * 1e3;
                let word =
                    if verdict.passes() { "gives what it should" } else { "GIVES OTHER VALUES than were recorded" };
                lines.push(format!("model       {name} {precision}: {word} (loaded and run in {took:.0} ms)"));
                models.push(json!({
                    "name": name, "precision": precision.name(), "passes": verdict.passes(), "ms": took,
                }));
                if !verdict.passes() {
                    let problem = format!(
                        "its {precision} file gives other values than were recorded; run `eddy check` with another --runtime"
                    );
                    return Err(eddy::Error::model(name, problem).into());
                }
            }
        }
        record["models"] = models.into();
        Ok(())
    }
}
