//! `eddy prepare`.

use std::time::{Duration, Instant};

use clap::Args;
use eddy::model::{ModelFolder, Package};
use eddy::network::{Device, Engine, engine_durations, engine_folder};
use eddy::stages::{Retention, is_pipeline};
use indicatif::ProgressStyle;
use serde_json::json;

use super::dry_run::{DryRun, noisy_frame};
use super::options::{Opened, Size};
use super::prompt_options::open_pipeline;
use super::run_args::RunArgs;

/// Save optimized networks or build a TensorRT engine ahead of time
///
/// The networks of a text-to-image pipeline in the diffusers layout are saved as they are after
/// optimization for the CPU, in about the size of the networks. For other models a TensorRT engine
/// is built. An engine is for one tile size, which follows from the size of the images, --tile and
/// --max-memory: give the same options as to the command that will use it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples: eddy prepare sd15/\n          eddy prepare denoise-fast --device tensorrt \
                  --size 1280x720 --runtime /opt/onnxruntime/lib"
)]
pub(crate) struct Arguments {
    /// A bundled model, the folder of a model package, or that of a text-to-image pipeline
    #[arg(value_name = "MODEL")]
    model: String,

    /// Size of the images that the TensorRT engine is for
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,

    #[command(flatten)]
    run: RunArgs,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if is_pipeline(&ModelFolder::find(&self.model)) {
            return self.save_optimized();
        }
        let package = Package::find(&self.model)?;
        let size = self.size.ok_or_else(|| {
            eddy::Error::usage("an engine is built for one image size; give it with --size WxH")
        })?;
        let opened = self.run.open()?;
        only_tensorrt(&opened)?;
        let precision = self.run.precision.on(opened.device(), &package);
        let mut network = opened.network(&package, precision)?;
        let (name, Size { width, height }) = (&package.manifest.name, size);
        let what = format!("{name} {precision} for {width}x{height}");
        self.run.console.note_unless_json(format!("building {what}; {}", expectation()));
        let spinner = self.run.console.spinner();
        spinner.enable_steady_tick(Duration::from_secs(1));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            spinner.set_style(style);
        }
        spinner.set_message(what.clone());
        let started = Instant::now();
        let dry_run =
            DryRun { steps: 1, tile: self.run.memory.tile(), budget: self.run.memory.budget() };
        dry_run.run(&package.manifest, &mut network, noisy_frame(size))?;
        spinner.finish_and_clear();
        let seconds = started.elapsed().as_secs_f64();
        let outcome = match network.engine() {
            Some(Engine::Found) => "already there".to_owned(),
            Some(Engine::NotCached(problem)) => {
                let folder = engine_folder().unwrap_or_default();
                return Err(eddy::Error::output_from(
                    folder,
                    "the engine was built, but could not be cached",
                    problem.clone(),
                )
                .into());
            }
            _ => format!("built in {seconds:.0} s"),
        };
        let folder = engine_folder().map(|folder| folder.display().to_string());
        let line = format!("{what}: {outcome}, in {}", folder.as_deref().unwrap_or_default());
        let record = json!({
            "model": name, "precision": precision.name(), "width": width, "height": height,
            "device": opened.device().to_string(),
            "built": network.engine() == Some(&Engine::Built), "seconds": seconds, "folder": folder,
        });
        self.run.console.report(line, &record)
    }
}

impl Arguments {
    /// Saves the optimized graphs of a pipeline.
    fn save_optimized(&self) -> anyhow::Result<()> {
        if self.size.is_some() {
            let problem = "the networks of a pipeline are saved for all sizes; leave --size out";
            return Err(eddy::Error::usage(problem).into());
        }
        let (console, started) = (self.run.console, Instant::now());
        let opened = self.run.open()?;
        let mut pipeline = open_pipeline(&opened, &self.model, &self.run, Retention::None)?;
        let mut networks = Vec::new();
        pipeline.save_optimized(&mut |saved| {
            let file = &saved.file;
            console.note_unless_json(match saved.bytes {
                Some(bytes) => format!("{file}: saved, {} MiB", bytes.div_ceil(1 << 20)),
                None => format!("{file}: already there"),
            });
            networks.push(json!({"file": file, "bytes": saved.bytes}));
        })?;
        let seconds = started.elapsed().as_secs_f64();
        let line = format!(
            "{}: {} networks are in the cache ({seconds:.0} s)",
            self.model,
            networks.len()
        );
        let record = json!({"model": self.model, "networks": networks, "seconds": seconds});
        self.run.console.report(line, &record)
    }
}

/// Only TensorRT builds engines.
fn only_tensorrt(opened: &Opened) -> eddy::Result<()> {
    if matches!(opened.device(), Device::TensorRt(_)) {
        return Ok(());
    }
    match opened.placement.rejected.first() {
        Some((device, problem)) => {
            Err(eddy::Error::Device { device: device.to_string(), problem: problem.clone() })
        }
        None => Err(eddy::Error::usage(format!(
            "on {} networks run as they are, there is nothing to prepare; engines are built for \
             --device tensorrt",
            opened.device()
        ))),
    }
}

/// An estimate of the duration, from the engines in the cache.
fn expectation() -> String {
    let durations = engine_folder().map(|folder| engine_durations(&folder)).unwrap_or_default();
    match durations.as_slice() {
        [] => "the first takes some seconds on a large GPU and up to ten minutes on a Jetson"
            .to_owned(),
        [longest, ..] => format!("the cached ones took {longest:.0} s at most"),
    }
}
