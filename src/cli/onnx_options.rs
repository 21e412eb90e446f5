//! The options that describe a bare .onnx file, for every command that takes a model.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use eddy::array;
use eddy::compile::{CompiledFile, describe};
use eddy::model::{Constant, Description, DetectedProperty, Package, Role, Task};
use eddy::network::{Axes, Colors, NoiseScale};

use ndarray::ArrayD;
use serde_json::{Value, json};

use super::console::{Console, plain_line};
use super::options::{DeviceOptions, Opened, pair};

/// Describes a bare .onnx file. Every option may be left out: the property is read from the graph
/// or detected by running the network.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Description of an .onnx file")]
pub(crate) struct OnnxOptions {
    /// The value of a constant input of the network: one number for all elements, a number for
    /// each, or @FILE.npy; once for each input
    ///
    /// It names an input of the ONNX graph, never an image: images are positional arguments. Only
    /// `eddy sample --input X.npy` names the state before the first step.
    #[arg(
        id = "constant",
        long = "input",
        value_name = "NAME=VALUE[,VALUE...]",
        value_parser = constant,
        allow_hyphen_values = true
    )]
    constants: Vec<(String, Constant)>,

    /// Roles and names of inputs: sample, sigma, timestep, condition, class, mask (1 where pixels
    /// are missing) or known (1 where they are not)
    #[arg(
        long,
        value_name = "ROLE=NAME,...",
        value_delimiter = ',',
        value_parser = role,
        hide_short_help = true
    )]
    inputs: Vec<(Role, String)>,

    /// Number of frames of a video in one evaluation, odd
    #[arg(long, value_name = "N", hide_short_help = true)]
    frames: Option<usize>,

    /// Recurrent states: an input, and the output of one frame that is its value at the next
    #[arg(long, value_name = "INPUT=OUTPUT,...", value_delimiter = ',', value_parser = state, hide_short_help = true)]
    states: Vec<(String, String)>,

    /// Name of the output that holds the image
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    output_name: Option<String>,

    /// The values of black and white in the input
    #[arg(
        long,
        value_name = "BLACK,WHITE",
        value_parser = pair,
        allow_hyphen_values = true,
        hide_short_help = true
    )]
    value_range: Option<[f64; 2]>,

    /// The values of black and white in the output
    #[arg(
        long,
        value_name = "BLACK,WHITE",
        value_parser = pair,
        allow_hyphen_values = true,
        hide_short_help = true
    )]
    output_range: Option<[f64; 2]>,

    /// Mean to subtract from values in that range, one for all channels or R,G,B
    #[arg(
        long,
        value_name = "MEAN",
        value_delimiter = ',',
        allow_hyphen_values = true,
        hide_short_help = true
    )]
    mean: Vec<f32>,

    /// Standard deviation to divide by after that, one for all channels or R,G,B
    #[arg(long, value_name = "STD", value_delimiter = ',', hide_short_help = true)]
    std: Vec<f32>,

    /// Color channels: rgb, bgr, or luma (one channel, the luma of a color image)
    #[arg(long, value_name = "COLORS", hide_short_help = true)]
    colors: Option<Colors>,

    /// Order of the axes: nchw or nhwc
    #[arg(long, value_name = "AXES", hide_short_help = true)]
    axes: Option<Axes>,

    /// Whether the output is a residual to subtract from the input, and not the clean image
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_short_help = true
    )]
    residual: Option<bool>,

    /// Range of sigma that it was trained on, in the units of --value-range
    #[arg(long, value_name = "LOW,HIGH", value_parser = pair, hide_short_help = true)]
    sigma_range: Option<[f64; 2]>,

    /// Factor of the sigma input, such as 255 for a network on 0 to 1 with sigma in 8-bit
    /// units
    #[arg(long, value_name = "F", hide_short_help = true)]
    sigma_factor: Option<f64>,

    /// Scale of the sigma input: linear, log, or quarter-log for ln(sigma) / 4
    #[arg(long, value_name = "SCALE", hide_short_help = true)]
    sigma_encoding: Option<NoiseScale>,

    /// Width and height must be multiples of this
    #[arg(long, value_name = "PX", hide_short_help = true)]
    multiple_of: Option<usize>,

    /// Receptive field, in pixels to each side
    #[arg(long, value_name = "PX", hide_short_help = true)]
    receptive_field: Option<usize>,
}

fn role(text: &str) -> Result<(Role, String), String> {
    let (role, name) = text
        .split_once('=')
        .ok_or_else(|| format!("{text} has no role; expected ROLE=NAME, such as sample=x"))?;
    Ok((role.parse()?, name.to_owned()))
}

fn state(text: &str) -> Result<(String, String), String> {
    let (input, output) = text
        .split_once('=')
        .ok_or_else(|| format!("{text} has no output; expected such as h_in=h_out"))?;
    Ok((input.to_owned(), output.to_owned()))
}

pub(super) fn constant(text: &str) -> Result<(String, Constant), String> {
    let expected = || format!("{text} is not a name with numbers; expected such as strength=0.5");
    // Names may contain a `=`, numbers do not.
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

/// Detected properties as JSON.
pub(crate) fn detected_json(detected: &[DetectedProperty]) -> Vec<Value> {
    detected.iter().map(|property| json!({"key": property.key, "text": property.text})).collect()
}

/// Whether a model is a bare .onnx file.
fn is_onnx(model: &str) -> bool {
    let path = Path::new(model);
    path.extension().is_some_and(|extension| extension == "onnx") && path.is_file()
}

/// Refuses a bare .onnx file, since sampling needs more than a run of the network shows.
pub(crate) fn refuse_onnx(model: &str) -> eddy::Result<()> {
    if !is_onnx(model) {
        return Ok(());
    }
    refuse_compiled(model)?;
    Err(eddy::Error::usage(format!(
        "{model} is a bare .onnx, which declares neither its prediction nor its schedule; convert it \
         to a package with `eddy import {model} -o FOLDER --task generate --prediction epsilon \
         --schedule scheduler_config.json` (or with --prediction denoised, flow, score or \
         edm=SIGMA_DATA and --sigma-range LOW,HIGH)"
    )))
}

/// Refuses a trajectory that `eddy compile` wrote.
pub(crate) fn refuse_compiled(model: &str) -> eddy::Result<()> {
    compiled(model)?.map_or(Ok(()), |file| Err(is_compiled(model, &file)))
}

/// Refuses a trajectory of a sampler that `eddy compile` wrote. Without a sampler, it takes an image
/// like any other network.
pub(crate) fn refuse_sampling(model: &str) -> eddy::Result<()> {
    let samples = compiled(model)?.filter(|file| file.properties.contains_key("sampler"));
    samples.map_or(Ok(()), |file| Err(is_compiled(model, &file)))
}

fn is_compiled(model: &str, file: &CompiledFile) -> eddy::Error {
    let source = file.properties.get("model").map_or("its model", String::as_str);
    eddy::Error::usage(format!(
        "{model} is a trajectory that `eddy compile` wrote, which any runtime for ONNX runs in one \
         call (`eddy info {model}` shows its inputs); for this command, give the model that it was \
         compiled from, {}",
        plain_line(source)
    ))
}

/// What an .onnx says of itself that `eddy compile` wrote; none for other models.
pub(crate) fn compiled(model: &str) -> eddy::Result<Option<CompiledFile>> {
    if is_onnx(model) { describe(Path::new(model)) } else { Ok(None) }
}

impl OnnxOptions {
    /// Refuses a description where no .onnx is taken.
    pub(crate) fn refuse(&self) -> eddy::Result<()> {
        if self.description() == Description::default() {
            return Ok(());
        }
        Err(eddy::Error::usage("leave out the options that describe an .onnx; none is named"))
    }

    /// The description of the network.
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
            states: self.states.clone(),
            frames: self.frames,
            output: self.output_name.clone(),
            ..Description::default()
        }
    }

    /// The bundled model of that name, the package at that path, or the bare .onnx file there,
    /// which is run some dozens of times to detect what the options do not state.
    pub(crate) fn find(
        &self,
        model: &str,
        device: &DeviceOptions,
        console: Console,
    ) -> eddy::Result<Package> {
        self.find_for(None, model, device, console)
    }

    /// The same for a task, which is that of a bare .onnx file.
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
        let (package, detected) = self.explore(task, model, &device.open(console)?)?;
        for guess in detected.iter().filter(|property| property.is_guess) {
            console.note(format!("warning: {model}: {}: {}", guess.key, guess.text));
        }
        console.note(format!(
            "{model} is used to {}; `eddy info {model}` shows its detected properties, and \
             `eddy import {model} -o FOLDER` saves them",
            package.manifest.task
        ));
        Ok(package)
    }

    /// Like [`find`](Self::find), with the detected properties of a bare .onnx file.
    pub(crate) fn open(
        &self,
        model: &str,
        opened: &Opened,
    ) -> eddy::Result<(Package, Vec<DetectedProperty>)> {
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
    ) -> eddy::Result<(Package, Vec<DetectedProperty>)> {
        refuse_sampling(model)?;
        let description = Description { task, ..self.description() };
        opened.load(model, |runtime, options| {
            Package::of_onnx(runtime, Path::new(model), &description, options)
        })
    }

    fn find_package(&self, model: &str) -> eddy::Result<Package> {
        let description = self.description();
        let mut package = Package::find(model)?;
        let constants = description.constants.clone();
        if description != (Description { constants: constants.clone(), ..Description::default() }) {
            let problem = format!(
                "{model} has a manifest; leave out the options that describe an .onnx, except \
                 --input"
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
