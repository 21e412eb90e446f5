//! `eddy info`.

use std::path::Path;

use clap::Args;
use eddy::compile::{CompiledFile, CompiledPort};
use eddy::machine::Sandbox;
use eddy::model::{
    Manifest, ModelFolder, NoiseLevel, Package, Precision, bundled_names, bundled_pipelines,
};
use eddy::network::{Axes, Colors, EMBEDDED_VERSION};
use eddy::stages::{is_pipeline, pipeline_of};
use serde_json::json;

use super::console::{Console, plain_line};
use super::onnx_options::{OnnxOptions, compiled, detected_json};
use super::options::{DeviceOptions, FilesOption};
use super::prompt_options::shortened;
use super::sandbox::SandboxOption;

/// Describe a model, or list the bundled ones
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A bundled model, the folder of a model package, an .onnx file, whose properties are detected
    /// by running it, or a folder in the diffusers layout with text encoders. By default lists the
    /// bundled models
    #[arg(value_name = "MODEL")]
    model: Option<String>,

    /// Run the model once, and count the graph's nodes on each execution provider
    #[arg(long, requires = "model")]
    nodes: bool,

    #[command(flatten)]
    files: FilesOption,

    #[command(flatten)]
    onnx: OnnxOptions,

    #[command(flatten)]
    sandbox: SandboxOption,

    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    console: Console,
}

impl Arguments {
    /// The files of the run, if it is to be confined.
    pub(crate) fn sandbox(&self) -> eddy::Result<Option<Sandbox>> {
        let Some(sandbox) = self.sandbox.start() else { return Ok(None) };
        let sandbox = self.device.confine(sandbox)?;
        Ok(Some(self.model.iter().fold(sandbox, |it, model| it.model(Path::new(model)))))
    }

    pub(crate) fn run(self) -> anyhow::Result<()> {
        match &self.model {
            Some(model) if is_pipeline(&ModelFolder::find(model)) => {
                let spec = pipeline_of(&ModelFolder::find(model))?;
                self.console.result(spec.to_toml()?, &json!(spec))
            }
            Some(model) => match compiled(model)? {
                Some(file) => self.describe_compiled(model, &file),
                None => self.describe(model),
            },
            None => self.list(),
        }
    }

    fn list(&self) -> anyhow::Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        let mut text = format!(
            "eddy {version}, with ONNX Runtime {EMBEDDED_VERSION} embedded\n\nBundled models:\n"
        );
        let mut models = Vec::new();
        for name in bundled_names() {
            let manifest = Package::find(name)?.manifest;
            if !self.files.wants_any(&manifest) {
                continue;
            }
            let precisions: Vec<&str> =
                manifest.files.keys().map(|precision| precision.name()).collect();
            let (task, description) = (manifest.task.to_string(), &manifest.description);
            text +=
                &format!("  {name:<17} {task:<10} {:<12} {description}\n", precisions.join(" "));
            models.push(json!({
                "name": name, "task": task, "precisions": precisions, "description": description,
            }));
        }
        // Their networks are of f32 alone.
        for name in bundled_pipelines().into_iter().filter(|_| self.files.wants(Precision::F32)) {
            let description = pipeline_of(&ModelFolder::find(name))?.description;
            let task = "generate";
            text += &format!("  {name:<17} {task:<10} {:<12} {description}\n", "f32");
            models.push(json!({
                "name": name, "task": task, "precisions": ["f32"], "description": description,
            }));
        }
        if models.is_empty() {
            text += "  none has such a file\n";
        }
        let record =
            json!({ "version": version, "onnxruntime": EMBEDDED_VERSION, "models": models });
        self.console.result(text, &record)
    }

    /// Describes a trajectory that `eddy compile` wrote.
    fn describe_compiled(&self, model: &str, file: &CompiledFile) -> anyhow::Result<()> {
        let mut text = format!("{model}, a trajectory compiled to one graph\n");
        for (name, value) in &file.properties {
            let name = if name == "version" { "compiled by" } else { name.as_str() };
            text += &format!("  {:<17} {}\n", plain_line(name), shortened(&plain_line(value)));
        }
        let ports = [("input", &file.inputs), ("output", &file.outputs)];
        let described = |port: &CompiledPort| {
            let CompiledPort { name, dtype, shape, description } = port;
            plain_line(&format!("{name}: {dtype}({}). {description}", shape.join(", ")))
        };
        for (what, port) in
            ports.iter().flat_map(|(what, all)| all.iter().map(move |it| (what, it)))
        {
            text += &format!("  {what:<17} {}\n", described(port));
        }
        text += &format!("  {:<17} {} KiB", "file", file.bytes.div_ceil(1024));
        let json_of = |port: &CompiledPort| {
            json!({
                "name": port.name, "dtype": port.dtype, "shape": port.shape,
                "description": port.description,
            })
        };
        let [inputs, outputs] = [&file.inputs, &file.outputs]
            .map(|ports| ports.iter().map(json_of).collect::<Vec<_>>());
        let record = json!({
            "name": model, "compiled": file.properties, "inputs": inputs, "outputs": outputs,
            "bytes": file.bytes,
        });
        self.console.result(text, &record)
    }

    fn describe(&self, model: &str) -> anyhow::Result<()> {
        let opened = self.device.open(self.console)?;
        let (package, detected) = self.onnx.open(model, &opened)?;
        let manifest = &package.manifest;
        let mut rows = vec![
            ("task", manifest.task.to_string()),
            ("description", manifest.description.clone()),
            ("prediction", manifest.prediction.to_string()),
            (
                "channels",
                format!(
                    "{}, black {} to white {}",
                    manifest.channels, manifest.range[0], manifest.range[1]
                ),
            ),
        ];
        if let Some(sigma) = manifest.sigma {
            let span = f64::from(manifest.range[1] - manifest.range[0]);
            let eight_bit = |sigma: f64| 255.0 * sigma / span;
            rows.push((
                "sigma",
                format!("{:.1} to {:.1} (8-bit units)", eight_bit(sigma.min), eight_bit(sigma.max)),
            ));
        }
        if let Some(schedule) = &manifest.schedule {
            let keys = schedule.iter().map(|(key, value)| format!("{key} = {value}"));
            rows.push(("schedule", keys.collect::<Vec<_>>().join(", ")));
        }
        if let Some(sampler) = manifest.defaults.sampler {
            rows.push(("sampler", format!("{sampler} by default")));
        }
        if let Some(decoder) = &manifest.decoder {
            let about = format!(
                "{}, {} times larger, to {} channels",
                decoder.path, decoder.scale, decoder.channels
            );
            rows.push(("decoder", about));
        }
        rows.extend(values_of(manifest));
        let receptive_field = manifest
            .receptive_field
            .map_or("the whole image".to_owned(), |field| format!("{field} px each way"));
        rows.push(("receptive field", receptive_field));
        rows.push(("size multiples", format!("{} px (Eddy pads)", manifest.multiple_of)));
        if let Some(parameters) = manifest.parameters {
            rows.push(("parameters", parameters.to_string()));
        }
        rows.push(("steps", format!("{} by default", manifest.defaults.steps)));
        rows.push(("license", manifest.license.clone()));
        rows.push(("training", manifest.training.clone()));
        let place = package
            .folder()
            .map_or("inside this binary".to_owned(), |folder| folder.display().to_string());
        rows.push(("source", place));
        rows.extend(detected.iter().map(|property| ("detected", property.text.clone())));
        let mut files = Vec::new();
        for precision in self.files.of(&package)? {
            let file = package.file(precision)?;
            let bytes = package.read(&file.path)?.len();
            let name = &manifest.name;
            let network = opened.network(&package, precision)?;
            let default =
                if precision == Precision::default() { ", the default precision" } else { "" };
            let count = || {
                opened
                    .load(name, |runtime, options| package.count_nodes(runtime, precision, options))
            };
            let nodes = self.nodes.then(count).transpose()?;
            rows.push((
                "file",
                format!("{precision}: {}, {} KiB{default}", file.path, bytes.div_ceil(1024)),
            ));
            rows.extend(network.signature().into_iter().map(|line| ("", line)));
            rows.extend(
                nodes
                    .iter()
                    .flatten()
                    .map(|(provider, count)| ("", format!("nodes {provider}: {count}"))),
            );
            files.push(json!({
                "precision": precision.name(), "path": file.path, "bytes": bytes,
                "sha256": file.sha256,
                "signature": network.signature(), "nodes": nodes,
            }));
        }
        let lines: Vec<String> = rows
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("  {name:<15} {}", plain_line(value)))
            .collect();
        let (name, version) = (plain_line(&manifest.name), plain_line(&manifest.version));
        let text = format!("{name} {version}\n{}", lines.join("\n"));
        let record = json!({
            "name": manifest.name, "version": manifest.version, "task": manifest.task.to_string(),
            "description": manifest.description, "prediction": manifest.prediction,
            "channels": manifest.channels,
            "range": manifest.range, "sigma": manifest.sigma.map(|sigma| [sigma.min, sigma.max]),
            "receptive_field": manifest.receptive_field, "multiple_of": manifest.multiple_of,
            "parameters": manifest.parameters, "steps": manifest.defaults.steps,
            "license": manifest.license,
            "training": manifest.training, "files": files, "detected": detected_json(&detected),
            "device": opened.device().to_string(),
        });
        self.console.result(text, &record)
    }
}

/// The encoding of a network's tensors, and its inputs beside the image.
fn values_of(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some([black, white]) = manifest.output_range {
        rows.push(("output range", format!("black {black} to white {white}")));
    }
    if !(manifest.mean.is_empty() && manifest.std.is_empty()) {
        let (mean, std) = (&manifest.mean, &manifest.std);
        rows.push(("normalization", format!("mean {mean:?}, standard deviation {std:?}")));
    }
    if manifest.axes != Axes::Nchw || manifest.colors != Colors::Rgb {
        rows.push(("tensor layout", format!("{}, {}", manifest.axes, manifest.colors)));
    }
    if manifest.residual {
        rows.push(("residual", "its output is subtracted from the image".into()));
    }
    let level = manifest.noise_level;
    if level != NoiseLevel::default() {
        let scale = level.scale.map_or(String::new(), |scale| format!(", {scale}"));
        rows.push(("noise level", format!("sigma times {}{scale}", level.factor)));
    }
    if let Some([width, height]) = manifest.size {
        rows.push(("fixed size", format!("{width}x{height}")));
    }
    if manifest.frames > 1 {
        rows.push(("frames", format!("{} per evaluation", manifest.frames)));
    }
    for state in &manifest.states {
        rows.push(("state", format!("{} becomes {} at the next frame", state.output, state.input)));
    }
    for (name, constant) in &manifest.constants {
        let value = match constant.values() {
            [value] => value.to_string(),
            values => format!("{} values", values.len()),
        };
        rows.push(("constant", format!("{name} = {value}, which --input {name}=VALUE replaces")));
    }
    rows
}
