//! `eddy compile`.

use std::path::{Path, PathBuf};

use clap::Args;
use eddy::compile::{CompileOptions, compile, compile_pipeline, save};
use eddy::diffusion::Sampler;
use eddy::model::{ModelFolder, Package, SampledModel};
use eddy::stages::is_pipeline;
use serde_json::json;

use super::console::Console;
use super::onnx_options::refuse_onnx;
use super::options::{PrecisionOption, SyncOption};

/// Write a whole trajectory as one ONNX graph
///
/// The graph holds the network, the sampler's table and guidance, with the weights stored once; of a
/// text-to-image pipeline also text encoders and decoder. Any runtime for ONNX runs it in one call
/// and gives the numbers of `eddy sample` or `eddy generate`. Its input `sample` is the state before
/// the first step; `class`, `tokens`, `noise` (of samplers that draw it), `sigma` (of a denoiser)
/// and `low_resolution` (of an upscaler) are there where the model needs them. `eddy info` shows the
/// inputs of such a file.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples: eddy compile digits-ddpm --sampler ddim --steps 4 -o whole.onnx\n          \
                  eddy compile denoise-fast -o denoise.onnx"
)]
pub(crate) struct Arguments {
    /// A bundled model, the folder of a model package, or a folder in the diffusers layout, with
    /// text encoders or without
    #[arg(value_name = "MODEL")]
    model: String,

    /// The file to write, NAME.onnx
    #[arg(short, long, value_name = "WHOLE.onnx", help_heading = "Input and output")]
    output: PathBuf,

    /// The sampler, of those of `eddy sample`; by default the model's. Without it, a denoiser is
    /// compiled as `eddy denoise` runs it, from the noise level of the image
    #[arg(long, value_name = "NAME", help_heading = "Sampling")]
    sampler: Option<Sampler>,

    /// Steps of the sampler; by default the model's
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1000),
        help_heading = "Sampling"
    )]
    steps: Option<u16>,

    /// Stochasticity, from 0 to 1, of samplers that have an eta
    #[arg(long, value_name = "ETA", help_heading = "Sampling")]
    eta: Option<f64>,

    /// The default of the input `guidance_scale`; 1 compiles the conditional prediction alone, in
    /// half the time. By default the model's
    #[arg(long, value_name = "SCALE", allow_hyphen_values = true, help_heading = "Guidance")]
    guidance_scale: Option<f64>,

    #[command(flatten)]
    precision: PrecisionOption,

    #[command(flatten)]
    sync: SyncOption,

    #[command(flatten)]
    console: Console,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.sync.apply();
        refuse_onnx(&self.model)?;
        let path = Path::new(&self.model);
        self.check_output(path)?;
        let options = CompileOptions {
            sampler: self.sampler,
            steps: self.steps.map(usize::from),
            eta: self.eta,
            guidance_scale: self.guidance_scale,
            precision: self.precision.requested(),
        };
        let folder = ModelFolder::find(path);
        let compiled = if is_pipeline(&folder) {
            compile_pipeline(&folder, &options)?
        } else {
            // A folder of diffusers that does not describe its images is still one for raw tensors.
            let model = match Package::find(&self.model) {
                Ok(package) => SampledModel::Package(Box::new(package)),
                Err(_) => SampledModel::find(&self.model)?,
            };
            compile(&model, &options)?
        };
        save(&compiled.file, &self.output)?;
        let (model, output) = (&self.model, self.output.display());
        let (steps, evaluations) = (compiled.steps, compiled.evaluations);
        let sampler = compiled.sampler.map(Sampler::name);
        let what = match (sampler, steps) {
            (Some(sampler), 1) => format!("{sampler} in 1 step"),
            (Some(sampler), _) => format!("{sampler} in {steps} steps"),
            (None, 1) => "1 step".to_owned(),
            (None, _) => format!("{steps} steps"),
        };
        let guided = compiled.guidance_scale.map_or_else(String::new, |scale| {
            format!(", with guidance of scale {scale} by default")
        });
        let line = format!(
            "{model} -> {output}: {what}{guided}, {} KiB (the network has {})",
            compiled.file.len().div_ceil(1024),
            compiled.network_bytes.div_ceil(1024)
        );
        let record = json!({
            "model": model, "output": self.output, "sampler": sampler, "steps": steps,
            "evaluations": evaluations, "guidance_scale": compiled.guidance_scale,
            "bytes": compiled.file.len(), "network_bytes": compiled.network_bytes,
        });
        self.console.report(line, &record)
    }

    /// Refuses an output that is no ONNX file by its name, or that lies among the files of the
    /// model, which it could replace.
    fn check_output(&self, model: &Path) -> eddy::Result<()> {
        if self.output.extension().is_none_or(|extension| extension != "onnx") {
            let problem = format!(
                "the graph is an ONNX file, and {} is not named like one; expected NAME.onnx",
                self.output.display()
            );
            return Err(eddy::Error::usage(problem));
        }
        eddy::array::check(&self.output)?;
        let parent = self.output.parent().filter(|parent| !parent.as_os_str().is_empty());
        // A link is written through.
        let place = self.output.canonicalize();
        let place = place.or_else(|_| parent.unwrap_or(Path::new(".")).canonicalize());
        match [place, model.canonicalize()] {
            [Ok(place), Ok(model)] if place.starts_with(&model) => {
                let problem = format!(
                    "{} would lie in the folder of the model; name a file outside of it",
                    self.output.display()
                );
                Err(eddy::Error::usage(problem))
            }
            _ => Ok(()),
        }
    }
}
