//! What a person says of a bare .onnx file, for every command that takes a model.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use eddy::array;
use eddy::model::{Constant, Description, Finding, Package, Role, Task};
use eddy::network::{Axes, Colors, NoiseScale};

use ndarray::ArrayD;
use serde_json::{Value, json};

use super::console::Console;
use super::options::{DeviceOptions, Opened, pair};

/// What is known of a bare .onnx file. All of it may be left out: the graph says it, or it is found
/// out by running the network.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What is known of an .onnx")]
pub(crate) struct OnnxOptions {
    /// The value of a further input: a number, or each of its numbers, or @FILE.npy; may be
    /// repeated
    #[arg(id = "constant", long = "input", value_name = "NAME=VALUE,...", value_parser = constant, allow_hyphen_values = true)]
    constants: Vec<(String, Constant)>,

    /// Names of inputs: sample, and sigma, timestep, condition, class, mask (1 where pixels are
    /// missing) or known (1 where they are not) where it has them
    #[arg(long, value_name = "ROLE=NAME,...", value_delimiter = ',', value_parser = role, hide_short_help = true)]
    inputs: Vec<(Role, String)>,

    /// How many frames of a video it sees at once, an odd number
    #[arg(long, value_name = "N", hide_short_help = true)]
    frames: Option<usize>,

    /// Name of the output that is the image
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    output_name: Option<String>,

    /// The values that stand for black and white
    #[arg(long, value_name = "BLACK,WHITE", value_parser = pair, allow_hyphen_values = true, hide_short_help = true)]
    value_range: Option<[f64; 2]>,

    /// The values that stand for black and white in its output
    #[arg(long, value_name = "BLACK,WHITE", value_parser = pair, allow_hyphen_values = true, hide_short_help = true)]
    output_range: Option<[f64; 2]>,

    /// The mean that is subtracted from values in that range, for all channels or R,G,B
    #[arg(
        long,
        value_name = "MEAN",
        value_delimiter = ',',
        allow_hyphen_values = true,
        hide_short_help = true
    )]
    mean: Vec<f32>,

    /// The standard deviation that they are divided by then
    #[arg(long, value_name = "STD", value_delimiter = ',', hide_short_help = true)]
    std: Vec<f32>,

    /// Colour channels: rgb, bgr, or luma for one channel that is the luma of a colour image
    #[arg(long, value_name = "COLORS", hide_short_help = true)]
    colors: Option<Colors>,

    /// Order of the axes: nchw or nhwc
    #[arg(long, value_name = "AXES", hide_short_help = true)]
    axes: Option<Axes>,

    /// Whether the output is the noise, to be subtracted, and not the clean image
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_short_help = true)]
    residual: Option<bool>,

    /// The range of sigma that it was trained on, in its own units
    #[arg(long, value_name = "LOW,HIGH", value_parser = pair, hide_short_help = true)]
    sigma_range: Option<[f64; 2]>,

    /// Factor of its sigma input: 255 for one of the range 0 to 1 that counts sigma in
    /// 8-bit units
    #[arg(long, value_name = "F", hide_short_help = true)]
    sigma_factor: Option<f64>,

    /// Scale of its sigma input: linear, log or quarter-log, ln(sigma) / 4
    #[arg(long, value_name = "SCALE", hide_short_help = true)]
    sigma_encoding: Option<NoiseScale>,

    /// Width and height have to be multiples of this
    #[arg(long, value_name = "PX", hide_short_help = true)]
    multiple_of: Option<usize>,

    /// Receptive field, in pixels to each side
    #[arg(long, value_name = "PX", hide_short_help = true)]
    receptive_field: Option<usize>,
}

fn role(text: &str) -> Result<(Role, String), String> {
    let (role, name) = text
        .split_once('=')
        .ok_or_else(|| format!("{text} has no role; expected such as sample=x"))?;
    Ok((role.parse()?, name.to_owned()))
}

fn constant(text: &str) -> Result<(String, Constant), String> {
    let expected = || format!("expected a name and numbers, such as strength=0.5, not {text}");
    // Names may have a `=`, numbers do not.
    let (name, values) = text.rsplit_once('=').ok_or_else(expected)?;
    if let Some(path) = values.strip_prefix('@') {
        let values: ArrayD<f32> =
            array::read(Path::new(path)).map_err(|cause| format!("{path}: {cause}"))?;
        let values = values.iter().map(|value| f64::from(*value)).collect();
        return Ok((name.to_owned(), Constant::Each(values)));
    }
    let values: Result<Vec<f64>, _> = values.split(',').map(str::parse).collect();
    match values.map_err(|_| expected())?.as_slice() {
        _ if name.is_empty() => Err(expected()),
        [value] => Ok((name.to_owned(), Constant::One(*value))),
        values => Ok((name.to_owned(), Constant::Each(values.to_vec()))),
    }
}

/// Findings as JSON.
pub(crate) fn findings_of(findings: &[Finding]) -> Vec<Value> {
    findings.iter().map(|finding| json!({"key": finding.key, "text": finding.text})).collect()
}

/// Whether a model is a bare .onnx file.
fn is_onnx(model: &str) -> bool {
    let path = Path::new(model);
    path.extension().is_some_and(|extension| extension == "onnx") && path.is_file()
}

impl OnnxOptions {
    /// What is said.
    pub(crate) fn description(&self) -> Description {
        let single = |range: [f64; 2]| range.map(|value| value as f32);
        Description {
            range: self.value_range.map(single),
            output_range: self.output_range.map(single),
            mean: self.mean.clone(),
            std: self.std.clone(),
            axes: self.axes,
            colors: self.colors,
            residual: self.residual,
            multiple_of: self.multiple_of,
            receptive_field: self.receptive_field,
            sigma_range: self.sigma_range,
            sigma_factor: self.sigma_factor,
            sigma_scale: self.sigma_encoding,
            inputs: self.inputs.clone(),
            constants: self.constants.iter().cloned().collect::<BTreeMap<_, _>>(),
            frames: self.frames,
            output: self.output_name.clone(),
            ..Description::default()
        }
    }

    /// The bundled model of that name, the package at that path, or the bare .onnx file there,
    /// which is run some dozens of times to find out what nobody says.
    pub(crate) fn find(
        &self,
        model: &str,
        device: &DeviceOptions,
        console: Console,
    ) -> eddy::Result<Package> {
        self.find_for(None, model, device, console)
    }

    /// The same for a task, which a bare .onnx file is tried at.
    pub(crate) fn find_for(
        &self,
        task: Option<Task>,
        model: &str,
        device: &DeviceOptions,
        console: Console,
    ) -> eddy::Result<Package> {
        if !is_onnx(model) {
            return self.find_package(model);
        }
        let (package, findings) = self.explore(task, model, &device.open(console)?)?;
        for guess in findings.iter().filter(|finding| finding.is_guess) {
            console.note(format!("warning: {model}: {}: {}", guess.key, guess.text));
        }
        console.note(format!(
            "{model} is taken for a network to {}; `eddy info {model}` says what was found out, and \
             `eddy import {model} -o FOLDER` keeps it",
            package.manifest.task
        ));
        Ok(package)
    }

    /// Like [`find`](Self::find), with what was found out of a bare .onnx file.
    pub(crate) fn open(
        &self,
        model: &str,
        opened: &Opened,
    ) -> eddy::Result<(Package, Vec<Finding>)> {
        if is_onnx(model) {
            return self.explore(None, model, opened);
        }
        self.find_package(model).map(|package| (package, Vec::new()))
    }

    fn explore(
        &self,
        task: Option<Task>,
        model: &str,
        opened: &Opened,
    ) -> eddy::Result<(Package, Vec<Finding>)> {
        let said = Description { task, ..self.description() };
        opened.load(model, |runtime, options| {
            Package::of_onnx(runtime, Path::new(model), &said, options)
        })
    }

    fn find_package(&self, model: &str) -> eddy::Result<Package> {
        let said = self.description();
        let mut package = Package::find(model)?;
        let constants = said.constants.clone();
        if said != (Description { constants: constants.clone(), ..Description::default() }) {
            let problem = format!(
                "{model} says itself what its network is; leave out the options that describe an .onnx, but for --input"
            );
            return Err(eddy::Error::usage(problem));
        }
        let manifest = &mut package.manifest;
        if let Some(name) = constants.keys().find(|name| !manifest.constants.contains_key(*name)) {
            let known: Vec<&str> = manifest.constants.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            let problem = format!(
                "--input {name}: {model} has no constant input of that name; it has {known}"
            );
            return Err(eddy::Error::usage(problem));
        }
        manifest.constants.extend(constants);
        Ok(package)
    }
}
