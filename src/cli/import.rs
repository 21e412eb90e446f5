//! `eddy import`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use eddy::array;
use eddy::diffusion::{NoiseAt, NoiseSource, Philox};
use eddy::durable::PartFolder;
use eddy::model::{
    LARGEST_CONFIG, LARGEST_GRAPH, Links, Package, PackageSpec, Precision, facts_of_diffusers, find_weights,
    read_regular, schedule_of_diffusers,
};
use eddy::network::Network;
use ndarray::Array4;
use serde_json::json;

use super::console::Console;
use super::options::{DeviceOptions, Size, SyncOption, pair};

/// Convert a network to a model package
///
/// A folder in the diffusers layout (`unet/`, `scheduler/`) says all that is needed; for a bare .onnx options say it. The
/// network is run once, on noise, and its output is kept for `eddy check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: eddy import net.onnx -o my-denoiser/ --task denoise --prediction denoised --sigma-range 0,0.2 --inputs sample=x,sigma=s --output-name y"
)]
pub(crate) struct Arguments {
    /// A folder in the layout of diffusers, or an .onnx file
    #[arg(value_name = "SOURCE")]
    source: PathBuf,

    /// The folder to make; it must not be there yet
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,

    /// The task: denoise, upscale, generate or classifier
    #[arg(long, value_name = "TASK", help_heading = "What is known of an .onnx")]
    task: Option<String>,

    /// Prediction type: denoised, epsilon, v_prediction, sample, score or flow
    #[arg(long, value_name = "KIND", help_heading = "What is known of an .onnx")]
    prediction: Option<String>,

    /// Colour channels
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "What is known of an .onnx")]
    channels: usize,

    /// The values that stand for black and white
    #[arg(long, value_name = "BLACK,WHITE", default_value = "0,1", value_parser = pair, allow_hyphen_values = true, help_heading = "What is known of an .onnx")]
    value_range: [f64; 2],

    /// The range of sigma that it was trained on, in its own units
    #[arg(long, value_name = "LOW,HIGH", value_parser = pair, help_heading = "What is known of an .onnx")]
    sigma_range: Option<[f64; 2]>,

    /// The training schedule of a network that is conditioned on a timestep: a scheduler_config.json of diffusers
    #[arg(long, value_name = "FILE", conflicts_with = "sigma_range", help_heading = "What is known of an .onnx")]
    schedule: Option<PathBuf>,

    /// The factor by which its output is larger than its condition
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "What is known of an .onnx")]
    scale: usize,

    /// Width and height have to be multiples of this
    #[arg(long, value_name = "PX", default_value_t = 1, help_heading = "What is known of an .onnx")]
    multiple_of: usize,

    /// The only width and height that it accepts
    #[arg(long, value_name = "WxH", help_heading = "What is known of an .onnx")]
    size: Option<Size>,

    /// Receptive field, in pixels to each side; without it, images are not cut into tiles
    #[arg(long, value_name = "PX", help_heading = "What is known of an .onnx")]
    receptive_field: Option<usize>,

    /// Number of classes
    #[arg(long, value_name = "N", help_heading = "What is known of an .onnx")]
    classes: Option<usize>,

    /// The class that means unconditional
    #[arg(long, value_name = "K", requires = "classes", help_heading = "What is known of an .onnx")]
    null_class: Option<usize>,

    /// Names of its inputs: sample, and sigma (a map), timestep, condition and class where it has them
    #[arg(long, value_name = "ROLE=NAME", value_delimiter = ',', help_heading = "What is known of an .onnx")]
    inputs: Vec<String>,

    /// Name of its output
    #[arg(long, value_name = "NAME", help_heading = "What is known of an .onnx")]
    output_name: Option<String>,

    /// Numeric precision: f32, f16 or int8
    #[arg(long, value_name = "NUMBERS", default_value = "f32", help_heading = "What is known of an .onnx")]
    dtype: Precision,

    /// Licence
    #[arg(long, value_name = "TEXT", default_value = "as its maker says")]
    licence: String,

    /// Default number of steps
    #[arg(long, value_name = "N")]
    steps: Option<usize>,

    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    sync: SyncOption,

    #[command(flatten)]
    console: Console,
}

/// The file name of the network in a package, and the folder of its decoder.
const NETWORK: &str = "network.onnx";
const DECODER: &str = "decoder";

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.sync.apply();
        if self.output.exists() {
            let problem = format!("{} is there already; name a folder that is not", self.output.display());
            return Err(eddy::Error::usage(problem).into());
        }
        let (mut facts, network, links) = if self.source.is_dir() {
            (facts_of_diffusers(&self.source)?, self.source.join("unet/model.onnx"), Links::Cache)
        } else {
            (self.facts()?, self.source.clone(), Links::Inside)
        };
        facts.licence.clone_from(&self.licence);
        facts.name =
            self.output.file_name().map_or_else(|| "imported".into(), |name| name.to_string_lossy().into_owned());
        facts.file = NETWORK.into();
        facts.steps = self.steps.unwrap_or(facts.steps);
        // Under a temporary name until it is complete.
        let parent = self.output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let cannot = |problem: &'static str| move |cause| eddy::Error::output_from(parent, problem, cause);
        let folder = PartFolder::beside(&self.output).map_err(cannot("no folder can be made there"))?;
        copy(&network, links, folder.path(), &facts.file)?;
        if let Some(decoder) = &mut facts.decoder {
            // In a separate folder, because external weight files of the two networks may have equal
            // names.
            let place = folder.path().join(DECODER);
            fs::create_dir(&place).map_err(cannot("no folder can be made for the decoder"))?;
            copy(&self.source.join(&decoder.path), links, &place, NETWORK)?;
            decoder.path = format!("{DECODER}/{NETWORK}");
        }
        let bytes = fs::read(folder.path().join(&facts.file)).map_err(cannot("what was copied cannot be read"))?;
        let manifest = facts.manifest(&bytes)?;
        let write = |text: &str| {
            fs::write(folder.path().join("model.toml"), text).map_err(cannot("model.toml cannot be written"))
        };
        write(&manifest)?;
        let check = self.record(folder.path(), &facts)?;
        write(&format!("{manifest}\n{check}"))?;
        let cannot = |cause| eddy::Error::output_from(&self.output, "it cannot be put in its place", cause);
        folder.complete().map_err(cannot)?;
        let (source, output) = (self.source.display(), self.output.display());
        let line = format!(
            "{source} -> {output}: a model to {}, which `eddy check {output}` compares with what it gave now",
            facts.task
        );
        self.console.report(line, &json!({"source": self.source, "output": self.output, "task": facts.task}))
    }

    /// The description of a bare .onnx file by the options.
    fn facts(&self) -> eddy::Result<PackageSpec> {
        let missing = |what: &str, example: &str| {
            eddy::Error::usage(format!("of an .onnx file {what} has to be said, such as {example}"))
        };
        let mut inputs = BTreeMap::new();
        for input in &self.inputs {
            let Some((role, name)) = input.split_once('=') else {
                return Err(eddy::Error::usage(format!("--inputs {input} has no role; expected such as sample=x")));
            };
            inputs.insert(role.to_owned(), name.to_owned());
        }
        let schedule = match &self.schedule {
            None => None,
            Some(path) => {
                let text = read_regular(path, LARGEST_CONFIG)
                    .map_err(|cause| eddy::Error::input_from(path, "the schedule cannot be read", cause))?;
                let table = schedule_of_diffusers(&String::from_utf8_lossy(&text))
                    .map_err(|cause| eddy::Error::input_from(path, "it is not as diffusers writes schedules", cause))?;
                Some(table)
            }
        };
        if inputs.is_empty() {
            return Err(missing("--inputs", "--inputs sample=x,sigma=s"));
        }
        Ok(PackageSpec {
            name: String::new(),
            task: self.task.clone().ok_or_else(|| missing("--task", "--task denoise"))?,
            prediction: self.prediction.clone().ok_or_else(|| missing("--prediction", "--prediction denoised"))?,
            channels: self.channels,
            range: self.value_range.map(|value| value as f32),
            scale: self.scale,
            multiple_of: self.multiple_of,
            size: self.size.map(|size| [size.width, size.height]),
            receptive_field: self.receptive_field,
            classes: self.classes,
            null_class: self.null_class,
            sigma: self.sigma_range,
            schedule,
            decoder: None,
            inputs,
            output: self.output_name.clone().ok_or_else(|| missing("--output-name", "--output-name y"))?,
            sampler: None,
            steps: self.steps.unwrap_or(1),
            licence: String::new(),
            file: String::new(),
            precision: self.dtype.name().into(),
        })
    }

    /// Runs the network on noise, saves input and output beside it, and returns their entry in the
    /// manifest.
    fn record(&self, folder: &Path, facts: &PackageSpec) -> eddy::Result<String> {
        let package = Package::find(&folder.to_string_lossy())?;
        let opened = self.device.open(self.console)?;
        let mut network = opened.network(&package, self.dtype)?;
        let manifest = &package.manifest;
        let side = 32_usize.next_multiple_of(manifest.multiple_of * manifest.sample_scale());
        let pixels = manifest.decoded_scale();
        let [width, height] = manifest.size.map_or([side, side], |size| size.map(|length| length / pixels));
        let shape = [1, manifest.channels, height, width];
        network.bind(shape)?;
        let mut check = vec!["[check]".to_owned(), "tolerance = 1e-3".to_owned()];
        let mut keep = |role: &str, values: &[f32], shape: [usize; 4]| {
            let name = format!("check-{role}.npy");
            let values = Array4::from_shape_vec(shape, values.to_vec()).unwrap_or_else(|_| Array4::zeros(shape));
            check.push(format!("{role} = \"{name}\""));
            array::write(&values, &folder.join(name))
        };
        let noise = Philox::new(0);
        let draw = |channel: u32, values: &mut [f32]| {
            noise.fill(NoiseAt { step: 0, batch: 0, channel, y: 0 }, 0, values);
        };
        let inputs = network.inputs();
        draw(0, inputs.sample);
        keep("sample", inputs.sample, shape)?;
        if let Some(sigma) = inputs.sigma {
            sigma.fill(manifest.sigma.map_or(0.1, |range| range.max) as f32);
            keep("sigma", sigma, [1, 1, height, width])?;
        }
        if let Some(condition) = inputs.condition {
            draw(1, condition);
            let scale = if manifest.is_concatenated() { 1 } else { manifest.sample_scale() };
            keep("condition", condition, [1, manifest.image_channels(), height / scale, width / scale])?;
        }
        if let Some(class) = inputs.class {
            class.fill(0);
        }
        let t = manifest.schedule.as_ref().map_or_else(|| manifest.sigma.map_or(1.0, |range| range.max), |_| 10.0);
        let output = network.evaluate(t)?.to_vec();
        if output.iter().any(|value| !value.is_finite()) {
            return Err(eddy::Error::model(&facts.name, "it gives no numbers for noise; check what was said of it"));
        }
        keep("prediction", &output, shape)?;
        if manifest.inputs.timestep.is_some() {
            check.push(format!("timestep = {t:?}"));
        }
        if manifest.inputs.class.is_some() {
            check.push("class = 0".to_owned());
        }
        Ok(check.join("\n") + "\n")
    }
}

/// Copies a network under the given name, and its external weight files under their own names.
fn copy(network: &Path, links: Links, folder: &Path, name: &str) -> eddy::Result<()> {
    let unreadable = |from: &Path, cause| eddy::Error::input_from(from, "it cannot be copied", cause);
    let bytes = read_regular(network, LARGEST_GRAPH).map_err(|cause| unreadable(network, cause))?;
    fs::write(folder.join(name), &bytes)
        .map_err(|cause| eddy::Error::output_from(folder, "the network cannot be copied there", cause))?;
    let beside = network.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let model = network.display().to_string();
    for (file, found) in find_weights(&bytes, beside, links, &model)? {
        let to = folder.join(&file);
        if to.exists() || Path::new(&file) == Path::new("model.toml") {
            let problem = "is where it keeps weights, and what a package calls its own; give it another name";
            return Err(eddy::Error::model(model, format!("{file:?} {problem}")));
        }
        let made = to.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::copy(&found, &to)).map_err(|cause| unreadable(&found, cause))?;
    }
    Ok(())
}
