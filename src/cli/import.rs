//! `eddy import`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use eddy::array;
use eddy::diffusion::{Level, NoiseAt, NoiseSource, Philox, Prediction, Sampler};
use eddy::durable::PartFolder;
use eddy::media::still;
use eddy::model::{
    Check, Constant, Description, Links, MAX_CONFIG_BYTES, MAX_GRAPH_BYTES, Package, Precision,
    ProbedModel, Scheduler, Task, UNKNOWN_LICENSE, find_weights, manifest_of_diffusers,
    read_regular,
};
use eddy::network::Network;
use ndarray::Array4;
use serde_json::json;

use super::console::Console;
use super::onnx_options::{OnnxOptions, constant, detected_json, refuse_sampling};
use super::options::{DeviceOptions, Opened, Size, SyncOption};

/// Convert a network to a model package
///
/// A folder in the diffusers layout (`unet/`, `scheduler/`) describes its network. The properties
/// of a bare .onnx are given by options, read from its graph, or detected by running it. Its
/// output for noise is recorded for `eddy check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: eddy import net.onnx -o my-denoiser/ --task denoise --prediction \
                  denoised --sigma-range 0,0.2 --inputs sample=x,sigma=s --output-name y"
)]
pub(crate) struct Arguments {
    /// A folder in the layout of diffusers, or an .onnx file
    #[arg(value_name = "SOURCE")]
    source: PathBuf,

    /// The folder to create; it must not exist yet
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,

    /// License
    #[arg(long, value_name = "TEXT", default_value = UNKNOWN_LICENSE)]
    license: String,

    /// Default number of steps
    #[arg(long, value_name = "N")]
    steps: Option<usize>,

    /// Default sampler, of those of `eddy sample`
    #[arg(long, value_name = "NAME")]
    sampler: Option<Sampler>,

    #[command(flatten)]
    network: Option<NetworkArgs>,

    #[command(flatten)]
    values: Option<OnnxOptions>,

    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    sync: SyncOption,

    #[command(flatten)]
    console: Console,
}

/// Properties of a bare .onnx file that other commands imply or have as their own options.
#[derive(Debug, Args)]
#[command(next_help_heading = "Description of an .onnx file")]
struct NetworkArgs {
    /// The task: denoise, deblur, upscale, inpaint, generate or classifier; by default detected
    #[arg(long, value_name = "TASK")]
    task: Option<Task>,

    /// Prediction type: denoised, epsilon, v_prediction, sample, score, flow, or edm=SIGMA_DATA;
    /// by default denoised
    #[arg(long, value_name = "KIND")]
    prediction: Option<Prediction>,

    /// Channels of the image; by default read from the graph
    #[arg(long, value_name = "N")]
    channels: Option<usize>,

    /// The training schedule of a network that is conditioned on a timestep, and its sampler: a
    /// scheduler_config.json of diffusers
    #[arg(long, value_name = "FILE", conflicts_with = "sigma_range")]
    schedule: Option<PathBuf>,

    /// Upscale factor; by default detected
    #[arg(long, value_name = "N")]
    scale: Option<usize>,

    /// Fixed width and height; by default read from the graph
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,

    /// Number of classes
    #[arg(long, value_name = "N")]
    classes: Option<usize>,

    /// The class that means unconditional
    #[arg(long, value_name = "K", requires = "classes")]
    null_class: Option<usize>,

    /// The value of a constant input (--input) that means no condition, for classifier-free
    /// guidance; once for each input
    #[arg(
        long,
        value_name = "NAME=VALUE[,VALUE...]",
        value_parser = constant,
        allow_hyphen_values = true
    )]
    unconditional: Vec<(String, Constant)>,

    /// Numeric precision: f32, f16 or int8; by default f32 or f16, read from the graph
    #[arg(long, value_name = "PRECISION")]
    dtype: Option<Precision>,
}

/// The file name of the network in a package, and the folder of its decoder.
const NETWORK: &str = "network.onnx";
const DECODER: &str = "decoder";

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.sync.apply();
        if self.output.exists() {
            let problem = format!("{} already exists; name a new folder", self.output.display());
            return Err(eddy::Error::usage(problem).into());
        }
        let is_described = self.network.is_some() || self.values.is_some();
        let opened = self.device.open(self.console)?;
        let (mut probed, network, links) = match (is_described, self.source.is_dir()) {
            (true, true) => {
                let problem = "a folder in the diffusers layout describes its network; leave out \
                               the options that describe an .onnx";
                return Err(eddy::Error::usage(problem).into());
            }
            (false, true) => {
                let network = self.source.join("unet/model.onnx");
                let manifest = manifest_of_diffusers(&self.source)?;
                let precision = Precision::F32;
                (
                    ProbedModel { manifest, precision, detected: Vec::new(), trial: None },
                    network,
                    Links::Cache,
                )
            }
            (_, false) => {
                refuse_sampling(&self.source.display().to_string())?;
                let probed = self.probe(&opened)?;
                (probed, self.source.clone(), Links::Inside)
            }
        };
        let dtype = self.network.as_ref().and_then(|network| network.dtype);
        let dtype = dtype.unwrap_or(probed.precision);
        let manifest = &mut probed.manifest;
        manifest.files.clear();
        manifest.license.clone_from(&self.license);
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
            PartFolder::beside(&self.output).map_err(cannot("no folder can be created there"))?;
        copy(&network, links, folder.path(), NETWORK)?;
        if let Some(decoder) = &mut manifest.decoder {
            // In a separate folder, because external weight files of the two networks may have
            // equal names.
            let place = folder.path().join(DECODER);
            fs::create_dir(&place).map_err(cannot("no folder can be created for the decoder"))?;
            copy(&self.source.join(&decoder.path), links, &place, NETWORK)?;
            decoder.path = format!("{DECODER}/{NETWORK}");
        }
        let bytes = fs::read(folder.path().join(NETWORK))
            .map_err(cannot("the copy of the network cannot be read"))?;
        manifest.set_file(dtype, NETWORK, &bytes);
        let write = |probed: &ProbedModel| {
            fs::write(folder.path().join("model.toml"), probed.to_toml()?)
                .map_err(cannot("model.toml cannot be written"))
        };
        write(&probed)?;
        probed.manifest.check = Some(self.record(folder.path(), dtype, &opened)?);
        write(&probed)?;
        let mut shown = String::new();
        if let Some(trial) = &probed.trial {
            for (name, image) in [("before.png", &trial.before), ("after.png", &trial.after)] {
                let (bytes, _) =
                    still::encode_bytes(image, still::Format::Png, &still::Options::default())?;
                fs::write(folder.path().join(name), bytes)
                    .map_err(cannot("an image cannot be written"))?;
            }
            shown = "; before.png and after.png there show its result".into();
        }
        let cannot = |cause| {
            eddy::Error::output_from(&self.output, "it cannot be moved to its final place", cause)
        };
        folder.complete().map_err(cannot)?;
        let (source, output, task) =
            (self.source.display(), self.output.display(), probed.manifest.task);
        let found: String = probed
            .detected
            .iter()
            .map(|property| format!("\n  {}: {}", property.key, property.text))
            .collect();
        let line = format!(
            "{source} -> {output}: a model to {task}; `eddy check {output}` compares it with its \
             recorded output{shown}{found}"
        );
        let record = json!({
            "source": self.source, "output": self.output, "task": task,
            "detected": detected_json(&probed.detected),
        });
        self.console.report(line, &record)
    }

    /// Derives the manifest of a bare .onnx file from the options, its graph and probe runs.
    fn probe(&self, opened: &Opened) -> eddy::Result<ProbedModel> {
        let mut description = match &self.values {
            Some(values) => values.description(),
            None => Description::default(),
        };
        description.steps = self.steps;
        description.sampler = self.sampler;
        if let Some(network) = &self.network {
            (description.task, description.prediction) = (network.task, network.prediction);
            (description.channels, description.scale) = (network.channels, network.scale);
            description.size = network.size.map(|size| [size.width, size.height]);
            (description.classes, description.null_class) = (network.classes, network.null_class);
            description.schedule = network.schedule.as_deref().map(read_schedule).transpose()?;
        }
        if !self.source.is_file() {
            let problem =
                "there is no such file; expected an .onnx, or a folder in the diffusers layout";
            return Err(eddy::Error::input(&self.source, problem));
        }
        let model = self.source.display().to_string();
        let mut probed = opened.load(&model, |runtime, options| {
            ProbedModel::open(runtime, &self.source, &description, options)
        })?;
        if let Some(network) = &self.network {
            probed.manifest.unconditional = network.unconditional.iter().cloned().collect();
            probed.manifest.validate(&model)?;
        }
        let manifest = &probed.manifest;
        let has_noise = manifest.sigma.is_some() || manifest.schedule.is_some();
        if manifest.task == Task::Generate && !has_noise {
            return Err(eddy::Error::usage(format!(
                "{model} is a network to generate, and nothing says which noise it was trained on; \
                 give --sigma-range MIN,MAX, or --schedule FILE for one that takes timesteps"
            )));
        }
        Ok(probed)
    }

    /// Runs the network on noise, saves input and output beside it, and returns their entry in the
    /// manifest.
    fn record(&self, folder: &Path, dtype: Precision, opened: &Opened) -> eddy::Result<Check> {
        let package = Package::find(&folder.to_string_lossy())?;
        let mut network = opened.network(&package, dtype)?;
        let manifest = &package.manifest;
        let scale = manifest.sample_scale();
        let side = 64_usize.next_multiple_of(manifest.multiple_of * scale);
        let pixels = manifest.decoded_scale();
        let is_small = manifest.task == Task::Upscale && pixels == 1;
        let large = if is_small { scale } else { 1 };
        let [width, height] =
            manifest.size.map_or([side, side], |size| size.map(|length| large * length / pixels));
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
        let mut sample = None;
        if manifest.inputs.sample.is_some() {
            draw(0, inputs.sample);
            sample = Some(keep("sample", inputs.sample, shape)?);
        } else {
            // The output depends on its condition only.
            inputs.sample.fill(0.0);
        }
        let (mut sigma, mut condition) = (None, None);
        if let Some(map) = inputs.sigma {
            map.fill(manifest.sigma.map_or(0.1, |range| range.max) as f32);
            sigma = Some(keep("sigma", map, [1, 1, height, width])?);
        }
        if let Some(small) = inputs.condition {
            draw(1, small);
            let scale = if manifest.is_concatenated() { 1 } else { manifest.sample_scale() };
            let channels = match manifest.frames {
                1 => manifest.image_channels(),
                frames => (frames - 1) * manifest.channels,
            };
            let shape = [1, channels, height / scale, width / scale];
            condition = Some(keep("condition", small, shape)?);
        }
        if let Some(class) = inputs.class {
            class.fill(0);
        }
        let highest = manifest.sigma.map_or(1.0, |range| range.max);
        // What the network is conditioned on there; on a schedule, a timestep.
        let t = match manifest.schedule {
            Some(_) => 10.0,
            None => manifest.prediction.scaling(Level::ve(highest), highest).t,
        };
        let output = network.evaluate(t)?;
        if output.iter().any(|value| !value.is_finite()) {
            let problem = "its output for noise is not finite; check the options that describe it";
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

/// The schedule in a scheduler_config.json.
fn read_schedule(path: &Path) -> eddy::Result<Scheduler> {
    let text = read_regular(path, MAX_CONFIG_BYTES)
        .map_err(|cause| eddy::Error::input_from(path, "the schedule cannot be read", cause))?;
    Scheduler::parse(&path.display().to_string(), &String::from_utf8_lossy(&text))
}

/// Copies a network under the given name, and its external weight files under their own names.
fn copy(network: &Path, links: Links, folder: &Path, name: &str) -> eddy::Result<()> {
    let unreadable =
        |from: &Path, cause| eddy::Error::input_from(from, "it cannot be copied", cause);
    let bytes =
        read_regular(network, MAX_GRAPH_BYTES).map_err(|cause| unreadable(network, cause))?;
    fs::write(folder.join(name), &bytes).map_err(|cause| {
        eddy::Error::output_from(folder, "the network cannot be copied there", cause)
    })?;
    let beside =
        network.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let model = network.display().to_string();
    for (file, found) in find_weights(&bytes, beside, links, &model)? {
        let to = folder.join(&file);
        if to.exists() || Path::new(&file) == Path::new("model.toml") {
            let problem = "holds its weights, but has the name of a file of the package; rename it";
            return Err(eddy::Error::model(model, format!("{file:?} {problem}")));
        }
        let made = to.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::copy(&found, &to)).map_err(|cause| unreadable(&found, cause))?;
    }
    Ok(())
}
