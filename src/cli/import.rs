//! `eddy import`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use eddy::array;
use eddy::diffusion::{NoiseAt, NoiseSource, Philox, Prediction, Sampler};
use eddy::durable::PartFolder;
use eddy::model::{
    Check, Defaults, InputNames, LARGEST_CONFIG, LARGEST_GRAPH, Layout, Links, Manifest,
    OutputNames, Package, Precision, Scheduler, SigmaRange, Task, UNKNOWN_LICENCE, find_weights,
    manifest_of_diffusers, read_regular,
};
use eddy::network::Network;
use ndarray::Array4;
use serde_json::json;

use super::console::Console;
use super::options::{DeviceOptions, Size, SyncOption, pair};

/// Convert a network to a model package
///
/// A folder in the diffusers layout (`unet/`, `scheduler/`) says all that is needed; for a bare
/// .onnx options say it. The network is run once, on noise, and its output is kept for
/// `eddy check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: eddy import net.onnx -o my-denoiser/ --task denoise --prediction denoised \
                  --sigma-range 0,0.2 --inputs sample=x,sigma=s --output-name y"
)]
pub(crate) struct Arguments {
    /// A folder in the layout of diffusers, or an .onnx file
    #[arg(value_name = "SOURCE")]
    source: PathBuf,

    /// The folder to make; it must not be there yet
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,

    /// Licence
    #[arg(long, value_name = "TEXT", default_value = UNKNOWN_LICENCE)]
    licence: String,

    /// Default number of steps
    #[arg(long, value_name = "N")]
    steps: Option<usize>,

    /// Default sampler, of those of `eddy sample`
    #[arg(long, value_name = "NAME")]
    sampler: Option<Sampler>,

    #[command(flatten)]
    network: Option<NetworkArgs>,

    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    sync: SyncOption,

    #[command(flatten)]
    console: Console,
}

/// The description of a bare .onnx file, which a diffusers folder has in its own files.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is known of an .onnx")]
struct NetworkArgs {
    /// The task: denoise, upscale, generate or classifier
    #[arg(long, value_name = "TASK")]
    task: Option<Task>,

    /// Prediction type: denoised, epsilon, v_prediction, sample, score, flow, or edm=SIGMA_DATA
    #[arg(long, value_name = "KIND")]
    prediction: Option<Prediction>,

    /// Colour channels
    #[arg(long, value_name = "N", default_value_t = 3)]
    channels: usize,

    /// The values that stand for black and white
    #[arg(
        long,
        value_name = "BLACK,WHITE",
        default_value = "0,1",
        value_parser = pair,
        allow_hyphen_values = true
    )]
    value_range: [f64; 2],

    /// The range of sigma that it was trained on, in its own units
    #[arg(long, value_name = "LOW,HIGH", value_parser = pair)]
    sigma_range: Option<[f64; 2]>,

    /// The training schedule of a network that is conditioned on a timestep, and its sampler: a
    /// scheduler_config.json of diffusers
    #[arg(long, value_name = "FILE", conflicts_with = "sigma_range")]
    schedule: Option<PathBuf>,

    /// The factor by which its output is larger than its condition
    #[arg(long, value_name = "N", default_value_t = 1)]
    scale: usize,

    /// Width and height have to be multiples of this
    #[arg(long, value_name = "PX", default_value_t = 1)]
    multiple_of: usize,

    /// The only width and height that it accepts
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,

    /// Receptive field, in pixels to each side; without it, tiles are blended over their seams, and
    /// are not exact
    #[arg(long, value_name = "PX")]
    receptive_field: Option<usize>,

    /// Number of classes
    #[arg(long, value_name = "N")]
    classes: Option<usize>,

    /// The class that means unconditional
    #[arg(long, value_name = "K", requires = "classes")]
    null_class: Option<usize>,

    /// Names of its inputs: sample, and sigma (a map), timestep, condition and class where it has
    /// them
    #[arg(long, value_name = "ROLE=NAME,...", value_parser = input_names)]
    inputs: Option<InputNames>,

    /// Name of its output
    #[arg(long, value_name = "NAME")]
    output_name: Option<String>,

    /// Numeric precision: f32, f16 or int8
    #[arg(long, value_name = "NUMBERS", default_value = "f32")]
    dtype: Precision,
}

/// The names of inputs, as `sample=x,sigma=s`.
fn input_names(text: &str) -> Result<InputNames, String> {
    let mut names = toml::Table::new();
    for input in text.split(',') {
        let (role, name) = input
            .split_once('=')
            .ok_or_else(|| format!("{input} has no role; expected such as sample=x"))?;
        if names.insert(role.to_owned(), name.into()).is_some() {
            return Err(format!("{role} is named twice"));
        }
    }
    names.try_into().map_err(|cause: toml::de::Error| cause.message().to_owned())
}

/// The file name of the network in a package, and the folder of its decoder.
const NETWORK: &str = "network.onnx";
const DECODER: &str = "decoder";

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.sync.apply();
        if self.output.exists() {
            let problem =
                format!("{} is there already; name a folder that is not", self.output.display());
            return Err(eddy::Error::usage(problem).into());
        }
        let dtype = self.network.as_ref().map_or(Precision::F32, |network| network.dtype);
        let (mut manifest, network, links) = match (&self.network, self.source.is_dir()) {
            (Some(_), true) => {
                let problem = "a folder in the diffusers layout says what its network is; leave out \
                               the options that describe an .onnx";
                return Err(eddy::Error::usage(problem).into());
            }
            (None, true) => {
                let network = self.source.join("unet/model.onnx");
                (manifest_of_diffusers(&self.source)?, network, Links::Cache)
            }
            (Some(args), false) => (args.manifest()?, self.source.clone(), Links::Inside),
            (None, false) => return Err(missing("--task", "--task denoise").into()),
        };
        manifest.licence.clone_from(&self.licence);
        let name = self.output.file_name().map(|name| name.to_string_lossy().into_owned());
        manifest.name = name.unwrap_or_else(|| "imported".into());
        manifest.defaults.steps = self.steps.unwrap_or(manifest.defaults.steps);
        manifest.defaults.sampler = self.sampler.or(manifest.defaults.sampler);
        // Under a temporary name until it is complete.
        let parent = self
            .output
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let cannot =
            |problem: &'static str| move |cause| eddy::Error::output_from(parent, problem, cause);
        let folder =
            PartFolder::beside(&self.output).map_err(cannot("no folder can be made there"))?;
        copy(&network, links, folder.path(), NETWORK)?;
        if let Some(decoder) = &mut manifest.decoder {
            // In a separate folder, because external weight files of the two networks may have
            // equal names.
            let place = folder.path().join(DECODER);
            fs::create_dir(&place).map_err(cannot("no folder can be made for the decoder"))?;
            copy(&self.source.join(&decoder.path), links, &place, NETWORK)?;
            decoder.path = format!("{DECODER}/{NETWORK}");
        }
        let bytes = fs::read(folder.path().join(NETWORK))
            .map_err(cannot("what was copied cannot be read"))?;
        manifest.set_file(dtype, NETWORK, &bytes);
        let write = |manifest: &Manifest| {
            fs::write(folder.path().join("model.toml"), manifest.to_toml()?)
                .map_err(cannot("model.toml cannot be written"))
        };
        write(&manifest)?;
        manifest.check = Some(self.record(folder.path(), dtype)?);
        write(&manifest)?;
        let cannot =
            |cause| eddy::Error::output_from(&self.output, "it cannot be put in its place", cause);
        folder.complete().map_err(cannot)?;
        let (source, output, task) = (self.source.display(), self.output.display(), manifest.task);
        let line = format!(
            "{source} -> {output}: a model to {task}, which `eddy check {output}` compares with \
             what it gave now"
        );
        let record = json!({"source": self.source, "output": self.output, "task": task});
        self.console.report(line, &record)
    }

    /// Runs the network on noise, saves input and output beside it, and returns their entry in the
    /// manifest.
    fn record(&self, folder: &Path, dtype: Precision) -> eddy::Result<Check> {
        let package = Package::find(&folder.to_string_lossy())?;
        let opened = self.device.open(self.console)?;
        let mut network = opened.network(&package, dtype)?;
        let manifest = &package.manifest;
        let side = 32_usize.next_multiple_of(manifest.multiple_of * manifest.sample_scale());
        let pixels = manifest.decoded_scale();
        let [width, height] =
            manifest.size.map_or([side, side], |size| size.map(|length| length / pixels));
        let shape = [1, manifest.channels, height, width];
        network.bind(shape)?;
        let keep = |role: &str, values: &[f32], shape: [usize; 4]| {
            let name = format!("check-{role}.npy");
            let values = Array4::from_shape_vec(shape, values.to_vec())
                .unwrap_or_else(|_| Array4::zeros(shape));
            array::write(&values, &folder.join(&name)).map(|()| name)
        };
        let noise = Philox::new(0);
        let draw = |channel: u32, values: &mut [f32]| {
            noise.fill(NoiseAt { step: 0, batch: 0, channel, y: 0 }, 0, values);
        };
        let inputs = network.inputs();
        draw(0, inputs.sample);
        let sample = keep("sample", inputs.sample, shape)?;
        let (mut sigma, mut condition) = (None, None);
        if let Some(map) = inputs.sigma {
            map.fill(manifest.sigma.map_or(0.1, |range| range.max) as f32);
            sigma = Some(keep("sigma", map, [1, 1, height, width])?);
        }
        if let Some(small) = inputs.condition {
            draw(1, small);
            let scale = if manifest.is_concatenated() { 1 } else { manifest.sample_scale() };
            let shape = [1, manifest.image_channels(), height / scale, width / scale];
            condition = Some(keep("condition", small, shape)?);
        }
        if let Some(class) = inputs.class {
            class.fill(0);
        }
        let highest = manifest.sigma.map_or(1.0, |range| range.max);
        let t = if manifest.schedule.is_some() { 10.0 } else { highest };
        let output = network.evaluate(t)?;
        if output.iter().any(|value| !value.is_finite()) {
            let problem = "it gives no numbers for noise; check what was said of it";
            return Err(eddy::Error::model(&manifest.name, problem));
        }
        Ok(Check {
            sample,
            sigma,
            timestep: manifest.inputs.timestep.is_some().then_some(t),
            class: manifest.inputs.class.is_some().then_some(0),
            condition,
            prediction: keep("prediction", output, shape)?,
            tolerance: 1e-3,
        })
    }
}

impl NetworkArgs {
    /// The manifest of a bare .onnx file, without its file, name and licence.
    fn manifest(&self) -> eddy::Result<Manifest> {
        let task = self.task.ok_or_else(|| missing("--task", "--task denoise"))?;
        let prediction =
            self.prediction.ok_or_else(|| missing("--prediction", "--prediction denoised"))?;
        let inputs =
            self.inputs.clone().ok_or_else(|| missing("--inputs", "--inputs sample=x,sigma=s"))?;
        let output =
            self.output_name.clone().ok_or_else(|| missing("--output-name", "--output-name y"))?;
        let scheduler = match &self.schedule {
            None => None,
            Some(path) => {
                let text = read_regular(path, LARGEST_CONFIG).map_err(|cause| {
                    eddy::Error::input_from(path, "the schedule cannot be read", cause)
                })?;
                Some(Scheduler::parse(
                    &path.display().to_string(),
                    &String::from_utf8_lossy(&text),
                )?)
            }
        };
        let sampler = scheduler.as_ref().and_then(|scheduler| scheduler.sampler);
        Ok(Manifest {
            name: String::new(),
            version: "1".into(),
            task,
            prediction,
            channels: self.channels,
            layout: Layout::Full,
            range: self.value_range.map(|value| value as f32),
            scale: self.scale,
            multiple_of: self.multiple_of,
            receptive_field: self.receptive_field,
            bytes_per_pixel: None,
            parameters: None,
            licence: String::new(),
            description: format!("Imported network to {task}"),
            training: String::new(),
            size: self.size.map(|size| [size.width, size.height]),
            classes: self.classes,
            null_class: self.null_class,
            sigma: self.sigma_range.map(|[min, max]| SigmaRange { min, max, mixed: false }),
            schedule: scheduler.map(|scheduler| scheduler.keys),
            decoder: None,
            inputs,
            outputs: OutputNames { prediction: output, log_probability: None },
            defaults: Defaults { steps: 1, sampler, guidance_scale: None },
            files: BTreeMap::new(),
            check: None,
        })
    }
}

/// The error of a description that lacks an option.
fn missing(what: &str, example: &str) -> eddy::Error {
    eddy::Error::usage(format!("of an .onnx file {what} has to be said, such as {example}"))
}

/// Copies a network under the given name, and its external weight files under their own names.
fn copy(network: &Path, links: Links, folder: &Path, name: &str) -> eddy::Result<()> {
    let unreadable =
        |from: &Path, cause| eddy::Error::input_from(from, "it cannot be copied", cause);
    let bytes = read_regular(network, LARGEST_GRAPH).map_err(|cause| unreadable(network, cause))?;
    fs::write(folder.join(name), &bytes).map_err(|cause| {
        eddy::Error::output_from(folder, "the network cannot be copied there", cause)
    })?;
    let beside =
        network.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let model = network.display().to_string();
    for (file, found) in find_weights(&bytes, beside, links, &model)? {
        let to = folder.join(&file);
        if to.exists() || Path::new(&file) == Path::new("model.toml") {
            let problem =
                "is where it keeps weights, and what a package calls its own; give it another name";
            return Err(eddy::Error::model(model, format!("{file:?} {problem}")));
        }
        let made = to.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::copy(&found, &to)).map_err(|cause| unreadable(&found, cause))?;
    }
    Ok(())
}
