//! The manifest of a bare ONNX file, from the declarations of its graph, from probe runs, and from
//! the user's description.

mod probe;
mod roles;
mod test_image;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::files::{Links, MAX_GRAPH_BYTES, find_weights, read_regular};
use super::import::Scheduler;
use super::manifest::{Constant, Manifest, Task};
use super::precision::Precision;
use crate::diffusion::{Prediction, Sampler};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::media::Image;
use crate::network::{
    Axes, Colors, ModelSource, NoiseScale, ProbeSession, Runtime, SessionOptions,
};
use probe::Probe;
pub use roles::Role;

/// What the user states about a bare ONNX file. Every other property is detected, or has its
/// default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// The task.
    pub task: Option<Task>,
    /// The meaning of the output.
    pub prediction: Option<Prediction>,
    /// Channels of the image.
    pub channels: Option<usize>,
    /// The values of black and white in the input.
    pub range: Option<[f32; 2]>,
    /// The values of black and white in the output.
    pub output_range: Option<[f32; 2]>,
    /// The mean that is subtracted, one per channel or one for all.
    pub mean: Vec<f32>,
    /// The standard deviation to divide by, one per channel or one for all.
    pub std: Vec<f32>,
    /// The order of axes.
    pub axes: Option<Axes>,
    /// The color channels.
    pub colors: Option<Colors>,
    /// Whether the output is a residual, to be subtracted from the input.
    pub residual: Option<bool>,
    /// Output pixels per input pixel, along each axis.
    pub scale: Option<usize>,
    /// Width and height must be multiples of this.
    pub multiple_of: Option<usize>,
    /// The fixed width and height.
    pub size: Option<[usize; 2]>,
    /// The receptive field in pixels.
    pub receptive_field: Option<usize>,
    /// The range of sigma that the network was trained on.
    pub sigma_range: Option<[f64; 2]>,
    /// The factor of the sigma input.
    pub sigma_factor: Option<f64>,
    /// The scale of the sigma input.
    pub sigma_scale: Option<NoiseScale>,
    /// The training schedule.
    pub schedule: Option<Scheduler>,
    /// The number of classes.
    pub classes: Option<usize>,
    /// The class index that means unconditional.
    pub null_class: Option<usize>,
    /// The roles and names of inputs.
    pub inputs: Vec<(Role, String)>,
    /// The values of constant inputs.
    pub constants: BTreeMap<String, Constant>,
    /// Recurrent states: an input, and the output that it becomes at the next frame.
    pub states: Vec<(String, String)>,
    /// The number of frames of a video in one evaluation.
    pub frames: Option<usize>,
    /// The name of the output.
    pub output: Option<String>,
    /// The default number of steps.
    pub steps: Option<usize>,
    /// The default sampler.
    pub sampler: Option<Sampler>,
}

impl Description {
    /// Checks the ranges of numbers.
    fn check(&self) -> Result<()> {
        let wrong = |what: &str, found: String, expected: &str| {
            Err(Error::usage(format!("{what} is {found}; expected {expected}")))
        };
        if let Some(multiple) = self.multiple_of.filter(|it| !(1..=1024).contains(it)) {
            return wrong("multiple_of", multiple.to_string(), "1 to 1024");
        }
        if let Some(frames) = self.frames.filter(|it| it.is_multiple_of(2) || *it > 31) {
            return wrong("the number of frames", frames.to_string(), "an odd one up to 31");
        }
        if let Some(std) = self.std.iter().find(|it| !(1e-6..=1e6).contains(*it)) {
            return wrong("std", std.to_string(), "0.000001 to 1000000");
        }
        let ranges = [("range", self.range), ("output_range", self.output_range)];
        for (what, range) in ranges {
            if let Some([black, white]) =
                range.filter(|[black, white]| black >= white || !(white - black).is_finite())
            {
                return wrong(what, format!("{black},{white}"), "black's value below white's");
            }
        }
        let constants = self.constants.values().flat_map(Constant::values);
        let mut numbers = constants.copied().chain(self.mean.iter().map(|mean| f64::from(*mean)));
        if let Some(number) = numbers.find(|number| number.is_nan() || number.abs() > 1e6) {
            return wrong("a value", number.to_string(), "-1000000 to 1000000");
        }
        if let Some(factor) = self.sigma_factor.filter(|it| !(1e-6..=1e6).contains(it)) {
            return wrong("the factor of sigma", factor.to_string(), "0.000001 to 1000000");
        }
        Ok(())
    }
}

/// A property of a network that was detected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectedProperty {
    /// Its key in the manifest, without the name of its table.
    pub key: &'static str,
    /// Its value and how it was detected, in a sentence.
    pub text: String,
    /// Whether no measurement supports it.
    pub is_guess: bool,
}

/// The manifest of a bare ONNX file, and how it was derived.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbedModel {
    /// The manifest, with the file under its own name.
    pub manifest: Manifest,
    /// The precision of the file.
    pub precision: Precision,
    /// The detected properties.
    pub detected: Vec<DetectedProperty>,
    /// The result for a test photograph, if the network restores images.
    pub trial: Option<TrialImages>,
}

/// A photograph before and after a network.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialImages {
    /// The degraded photograph, the input of the network.
    pub before: Image,
    /// The output of the network.
    pub after: Image,
}

impl ProbedModel {
    /// Reads the network in a file and detects the properties that the description lacks. It is run
    /// on the CPU, some dozens of times on small images.
    ///
    /// # Errors
    /// [`Error::Model`] when it is not an ONNX file, has an input of unknown role, or does not run.
    pub fn open(
        runtime: &Arc<Runtime>,
        path: &Path,
        description: &Description,
        options: SessionOptions,
    ) -> Result<Self> {
        let model = path.display().to_string();
        description.check()?;
        let bytes = read_regular(path, MAX_GRAPH_BYTES)
            .map_err(|cause| Error::model_from(&model, "it cannot be read", cause))?;
        if bytes.starts_with(b"version https://git-lfs") {
            let problem =
                "it is a pointer of Git LFS and not the file itself; fetch that by `git lfs pull`";
            return Err(Error::model(&model, problem));
        }
        let beside =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // ONNX Runtime opens external weights on its own, so they are checked first.
        find_weights(&bytes, beside, Links::Inside, &model)?;
        let session = ProbeSession::open(runtime, &model, ModelSource::File(path), options)?;
        let mut probed = Probe::new(session, description, &model)?.detect()?;
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let file = file.unwrap_or_default();
        let stem = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        let manifest = &mut probed.manifest;
        manifest.name = stem.unwrap_or_else(|| file.clone());
        manifest.files.insert(
            probed.precision,
            super::ModelFile { path: file, sha256: sha256(&bytes), tolerance: None },
        );
        if let Some(problem) = manifest.problem() {
            let problem =
                format!("its stated and detected properties are inconsistent: it has {problem}");
            return Err(Error::model(&model, problem));
        }
        Ok(probed)
    }

    /// The text of the `model.toml`, with the detected properties as comments.
    ///
    /// # Errors
    /// As for [`Manifest::to_toml`].
    pub fn to_toml(&self) -> Result<String> {
        let text = self.manifest.to_toml()?;
        let mut commented = String::with_capacity(2 * text.len());
        for line in text.lines() {
            let key = line.split_once(" = ").map_or(line, |(key, _)| key);
            let key = key.trim_matches(['[', ']']);
            for property in self.detected.iter().filter(|property| property.key == key) {
                commented += &format!("# {}\n", property.text.replace(char::is_control, " "));
            }
            commented += line;
            commented.push('\n');
        }
        Ok(commented)
    }
}
