//! Detects properties of a network by running it: upscale factor, accepted sizes, normalization,
//! receptive field and memory.

mod manifest;
mod reach;
mod run;
mod values;

use super::roles::{Roles, channels_of};
use super::test_image::TestImage;
use super::{Description, DetectedProperty, ProbedModel, TrialImages};
use crate::diffusion::Prediction;
use crate::error::{Error, Result};
use crate::model::manifest::Task;
use crate::model::precision::Precision;
use crate::network::{Axes, Element, Port, Trial};
use crate::setting::OUTPUT;

/// The sides of images to try, in this order, until the network accepts one.
const SIDES: [usize; 4] = [64, 128, 256, 512];
/// The standard deviation of the noise that is added to the photograph for denoisers.
const SIGMA: f32 = 25.0 / 255.0;

/// The affine map from an image's value to the tensor's: factor and offset for red, green and blue.
type Scaling = [[f32; 2]; 3];

/// How image values are normalized: to `range`, then by mean and standard deviation.
#[derive(Clone, Debug, PartialEq)]
struct Normalization {
    range: [f32; 2],
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Normalization {
    fn of(range: [f32; 2]) -> Self {
        Self { range, mean: Vec::new(), std: Vec::new() }
    }

    /// The map from values of 0 to 1.
    fn scaling(&self) -> Scaling {
        let [black, white] = self.range;
        std::array::from_fn(|channel| {
            let of = |values: &[f32], other| {
                values.get(channel).or(values.first()).copied().unwrap_or(other)
            };
            let (mean, std) = (of(&self.mean, 0.0), of(&self.std, 1.0));
            [(white - black) / std, (black - mean) / std]
        })
    }
}

/// A network and its properties, as far as they are known.
pub(super) struct Probe<'a> {
    trial: Trial,
    description: &'a Description,
    model: &'a str,
    roles: Roles,
    image: Port,
    output: Port,
    axes: Axes,
    /// Channels of the image in the tensor.
    channels: usize,
    /// Whether a map of sigma follows the image's channels in the same tensor.
    has_sigma_channel: bool,
    /// Whether the enlarged low-resolution image follows them.
    is_concatenated: bool,
    size: Option<[usize; 2]>,
    /// Frames of a video in one evaluation.
    frames: usize,
    /// The recurrent states are smaller than the image by this factor.
    divisor: usize,
    /// The range to which the output is clipped, if it is.
    clip_range: Option<[f32; 2]>,
    trial_images: Option<TrialImages>,
    detected: Vec<DetectedProperty>,
}

impl<'a> Probe<'a> {
    pub(super) fn new(trial: Trial, description: &'a Description, model: &'a str) -> Result<Self> {
        let mut detected = Vec::new();
        let output = output_of(&trial, description, model, &mut detected)?;
        let roles = Roles::of(&trial, description, &output, model)?;
        let Some(image) = roles.image().cloned() else {
            return Err(Error::model(model, "none of its inputs is an image"));
        };
        let (axes, declared) = channels_of(&image, description.axes);
        let given = channels_of(&output, Some(axes)).1;
        let (frames, declared) =
            frames_of(&image, declared, given, roles.neighbours.len() + 1, description.frames);
        if let Some(wrong) = description.frames.filter(|given| *given != frames) {
            return Err(Error::usage(format!(
                "the graph takes {frames} frames at once; {wrong} were given"
            )));
        }
        let has_level = roles.sigma.is_some() || roles.timestep.is_some();
        let behind = description
            .inputs
            .iter()
            .any(|(role, name)| *role == super::Role::Sigma && *name == image.name);
        let is_concatenated = roles.condition.as_ref().is_some_and(|it| it.name == image.name)
            && roles.sample.is_some();
        let (channels, has_sigma_channel) = match (declared, given) {
            (Some(whole), given) if is_concatenated => (given.unwrap_or(whole / 2), false),
            (Some(whole), Some(given))
                if !has_level && matches!((whole, given), (4, 3) | (2, 1)) =>
            {
                (given, true)
            }
            (Some(whole), _) if behind => (whole - 1, true),
            (Some(channels), _) => (channels, false),
            (None, given) => (description.channels.or(given).unwrap_or(3), false),
        };
        if let Some(wrong) =
            description.channels.filter(|given| *given != channels && (channels, *given) != (1, 3))
        {
            return Err(Error::usage(format!(
                "the graph takes {channels} channels; {wrong} were given"
            )));
        }
        let is_blind = roles.sigma.is_none() && roles.timestep.is_none() && !has_sigma_channel;
        if is_blind && (description.sigma_factor.is_some() || description.sigma_scale.is_some()) {
            return Err(Error::usage(
                "the graph has no input for sigma; leave out the factor and the scale of sigma",
            ));
        }
        if !matches!(channels, 1 | 3) {
            let problem = format!(
                "its input `{}` has {channels} channels; expected 1 or 3, or 2 or 4 with sigma as the last channel",
                image.name
            );
            return Err(Error::model(model, problem));
        }
        let side = |from_end: usize| {
            let rank = image.shape.len();
            let axis = if axes == Axes::Nchw { rank - from_end } else { 3 - from_end };
            image.shape.get(axis).and_then(|side| usize::try_from(*side).ok())
        };
        let size = description.size.or(match (side(1), side(2)) {
            (Some(width), Some(height)) => Some([width, height]),
            _ => None,
        });
        let mut probe = Self {
            trial,
            description,
            model,
            roles,
            image,
            output,
            axes,
            channels,
            has_sigma_channel,
            is_concatenated,
            size,
            frames,
            divisor: 1,
            clip_range: None,
            trial_images: None,
            detected,
        };
        probe.record_inputs();
        Ok(probe)
    }

    fn record(&mut self, key: &'static str, text: impl Into<String>) {
        self.detected.push(DetectedProperty { key, text: text.into(), is_guess: false });
    }

    fn record_inputs(&mut self) {
        let is_given =
            |port: &Port| self.description.inputs.iter().any(|(_, name)| *name == port.name);
        let mut texts = Vec::new();
        if !is_given(&self.image) {
            let kind = if self.axes == Axes::Nhwc { " in NHWC" } else { "" };
            texts.push(format!("`{}` is the image{kind}", self.image.name));
        }
        let named = [
            (&self.roles.sigma, "sigma"),
            (&self.roles.timestep, "the timestep"),
            (&self.roles.class, "the class"),
            (&self.roles.mask, "the mask, 1 where pixels are missing"),
            (&self.roles.known, "the mask, 1 where pixels are known"),
        ];
        for (port, what) in named {
            if let Some(port) = port.as_ref().filter(|port| !is_given(port)) {
                texts.push(format!("`{}` is {what}", port.name));
            }
        }
        if self.has_sigma_channel {
            texts.push("its last channel is sigma".into());
        }
        if self.frames > 1 && self.description.frames.is_none() {
            texts.push(format!(
                "it has {} frames of a video, and the middle one is restored",
                self.frames
            ));
        }
        for [input, output] in &self.roles.states {
            texts.push(format!(
                "`{}` is a recurrent state, `{}` of the previous frame",
                input.name, output.name
            ));
        }
        if !texts.is_empty() {
            let text = texts.join(", ");
            self.record("inputs", text);
        }
    }

    pub(super) fn detect(mut self) -> Result<ProbedModel> {
        let is_sampled = self.is_sampled();
        let (side, scale) = self.detect_scale()?;
        let task = self.task(scale, is_sampled)?;
        let is_restored = !is_sampled && !matches!(task, Task::Generate | Task::Classifier);
        let multiple_of = match (self.description.multiple_of, self.size) {
            (Some(multiple), _) => multiple,
            (None, Some(_)) => 1,
            (None, None) => self.detect_multiple(side, scale)?,
        };
        let mut manifest = self.manifest(task, scale, multiple_of);
        self.clip_range = self.detect_output_range(side)?;
        if is_restored {
            self.detect_normalization(&mut manifest, side)?;
            self.detect_receptive_field(&mut manifest, side)?;
        } else if self.description.range.is_none() && manifest.range == [0.0, 1.0] {
            let (range, source) =
                match self.clip_range.filter(|_| manifest.prediction == Prediction::Denoised) {
                    Some(range) => (range, "the range to which its output is clipped"),
                    None => ([-1.0, 1.0], "the usual range for samplers; not measured"),
                };
            manifest.range = range;
            let [black, white] = range;
            self.record("range", format!("black {black} and white {white}, {source}"));
        }
        let precision =
            if self.image.element == Element::F16 { Precision::F16 } else { Precision::F32 };
        let (detected, trial) = (self.detected, self.trial_images);
        Ok(ProbedModel { manifest, precision, detected, trial })
    }

    /// Whether a sampler runs the network, which follows from its prediction and noise levels.
    fn is_sampled(&self) -> bool {
        let Description { task, prediction, schedule, sigma_range, .. } = self.description;
        match task {
            Some(Task::Generate | Task::Classifier) => true,
            Some(Task::Deblur | Task::Inpaint) => false,
            Some(_) if prediction.is_none_or(|it| it == Prediction::Denoised) => false,
            _ => {
                schedule.is_some()
                    || prediction.is_some_and(|it| it != Prediction::Denoised)
                    || self.roles.timestep.is_some()
                    // Noise that covers any image.
                    || sigma_range.is_some_and(|[_, most]| most > 4.0)
                        && self.description.range.is_none_or(|[black, white]| white - black <= 2.0)
            }
        }
    }

    fn task(&mut self, scale: usize, is_sampled: bool) -> Result<Task> {
        if let Some(task) = self.description.task {
            return Ok(task);
        }
        if is_sampled && self.description.prediction.is_none() && self.roles.timestep.is_some() {
            let name = self.roles.timestep.as_ref().map_or("", |port| &port.name);
            let problem = format!(
                "its input `{name}` is a timestep, and the meaning of its output is unknown; give its prediction and \
                 its schedule, or give `{name}` the role of sigma"
            );
            return Err(Error::model(self.model, problem));
        }
        let has_mask = self.roles.mask.is_some() || self.roles.known.is_some();
        let task = match (is_sampled, scale) {
            _ if has_mask => Task::Inpaint,
            (true, _) => Task::Generate,
            (false, 1) => Task::Denoise,
            (false, _) => Task::Upscale,
        };
        self.record("task", format!("{task}, by its inputs and the size of its output"));
        Ok(task)
    }

    /// Runs the network on images of several sizes until it accepts one. Returns the side and the
    /// upscale factor.
    fn detect_scale(&mut self) -> Result<(usize, usize)> {
        let sides = match self.size {
            Some([width, height]) => vec![[width, height]],
            None => SIDES.map(|side| [side; 2]).to_vec(),
        };
        for [width, height] in sides {
            let image = TestImage::photograph([width, height], [0, 0]);
            let divisors: &[usize] =
                if self.roles.states.is_empty() { &[1] } else { &[1, 2, 4, 8, 16] };
            let mut first = None;
            for divisor in divisors {
                self.divisor = *divisor;
                first = self.run(&image, &Normalization::of(self.default_range()), 0.0)?;
                if first.is_some() {
                    break;
                }
            }
            let Some((shape, _)) = first else { continue };
            let (out_width, out_height) = self.sides_of(&shape)?;
            self.check_channels(&shape)?;
            let scale = out_width / width;
            if scale == 0 || [out_width, out_height] != [scale * width, scale * height] {
                let problem = format!(
                    "its output `{}` is {out_width}x{out_height} for an input of {width}x{height}; expected a whole \
                     multiple, the same along both axes; {OUTPUT} names another of {}",
                    self.output.name,
                    self.output_names()
                );
                return Err(Error::model(self.model, problem));
            }
            // The output of a sampled upscaler is as large as its sample.
            let is_other =
                |description: &usize| *description != scale && self.roles.condition.is_none();
            if let Some(given) = self.description.scale.filter(is_other) {
                let problem = format!("it enlarges {scale} times; a scale of {given} was given");
                return Err(Error::model(self.model, problem));
            }
            if scale > 1 && self.description.scale.is_none() {
                self.record(
                    "scale",
                    format!(
                        "its output is {out_width}x{out_height} for an input of {width}x{height}"
                    ),
                );
            }
            return Ok((width.min(height), scale));
        }
        let tried = self.size.map_or("64, 128, 256 and 512 pixels a side".to_owned(), |[w, h]| {
            format!("{w}x{h} pixels")
        });
        let why = self.trial.problem().unwrap_or("no reason was given").to_owned();
        let problem = format!("ONNX Runtime does not evaluate it on an image of {tried}: {why}");
        Err(Error::model(self.model, problem))
    }

    /// Checks the number of output channels. A sampler ignores the channels of a learned variance.
    fn check_channels(&self, shape: &[usize]) -> Result<()> {
        let given = match (shape, self.axes) {
            (&[_, given, _, _], Axes::Nchw) | (&[_, _, _, given], Axes::Nhwc) => given,
            _ => return Ok(()),
        };
        let channels = self.channels;
        let is_spare = self.is_sampled() && given > channels;
        if given == channels || is_spare {
            return Ok(());
        }
        let problem = format!(
            "its output `{}` has {given} channels; expected {channels}, as its input has; {OUTPUT} names another of {}",
            self.output.name,
            self.output_names()
        );
        Err(Error::model(self.model, problem))
    }

    fn output_names(&self) -> String {
        let names: Vec<&str> = self.trial.outputs().iter().map(|port| port.name.as_str()).collect();
        names.join(", ")
    }

    fn sides_of(&self, shape: &[usize]) -> Result<(usize, usize)> {
        match (shape, self.axes) {
            (&[_, _, height, width], Axes::Nchw) | (&[_, height, width, _], Axes::Nhwc) => {
                Ok((width, height))
            }
            _ => {
                let problem = format!(
                    "its output `{}` has the shape {shape:?}; expected an image, of rank 4; {OUTPUT} names another",
                    self.output.name
                );
                Err(Error::model(self.model, problem))
            }
        }
    }

    /// The values of black and white before the normalization is detected.
    fn default_range(&self) -> [f32; 2] {
        let bytes = self.image.element == Element::U8;
        self.description.range.unwrap_or(if bytes { [0.0, 255.0] } else { [0.0, 1.0] })
    }

    /// The smallest power of two that has to divide both sides, by trying.
    fn detect_multiple(&mut self, side: usize, scale: usize) -> Result<usize> {
        let normalization = Normalization::of(self.default_range());
        let mut multiple = 1;
        while multiple < side {
            // Odd multiples, and different sides.
            let size = [side + multiple, side + 2 * side.min(3 * multiple)];
            let image = TestImage::photograph(size, [0, 0]);
            if let Some((shape, _)) = self.run(&image, &normalization, 0.0)?
                && self.sides_of(&shape)? == (scale * size[0], scale * size[1])
            {
                break;
            }
            multiple *= 2;
        }
        if multiple > 1 {
            self.record(
                "multiple_of",
                format!("it rejects sides that are not multiples of {multiple}"),
            );
        }
        Ok(multiple)
    }
}

/// The number of frames in an image tensor, and the channels of each.
fn frames_of(
    image: &Port,
    channels: Option<usize>,
    given: Option<usize>,
    named: usize,
    description: Option<usize>,
) -> (usize, Option<usize>) {
    if named > 1 {
        return (named, channels);
    }
    if let &[_, frames, ..] = image.shape.as_slice()
        && image.shape.len() == 5
    {
        return (description.or(usize::try_from(frames).ok()).unwrap_or(3), channels);
    }
    match (channels, description, given) {
        (Some(whole), Some(frames), _) if frames > 0 && whole.is_multiple_of(frames) => {
            (frames, Some(whole / frames))
        }
        (Some(whole @ (9 | 15 | 21)), None, Some(3)) => (whole / 3, Some(3)),
        (channels, ..) => (1, channels),
    }
}

/// The output that holds the image.
fn output_of(
    trial: &Trial,
    description: &Description,
    model: &str,
    detected: &mut Vec<DetectedProperty>,
) -> Result<Port> {
    let outputs = trial.outputs();
    let listed = || {
        let all: Vec<String> =
            outputs.iter().map(|port| format!("`{}` ({})", port.name, port.text)).collect();
        all.join(", ")
    };
    if let Some(name) = &description.output {
        let found = outputs.iter().find(|port| port.name == *name);
        return found.cloned().ok_or_else(|| {
            Error::model(model, format!("it has no output named `{name}`; it has {}", listed()))
        });
    }
    let mut images = outputs
        .iter()
        .filter(|port| matches!(port.shape.len(), 0 | 4) && port.element.is_of_images());
    let Some(image) = images.next() else {
        let problem = format!(
            "none of its outputs is an image, a tensor of rank 4 of float32, float16 or uint8; it has {}",
            listed()
        );
        return Err(Error::model(model, problem));
    };
    if images.next().is_some() {
        let text = format!("the first of its outputs {}", listed());
        detected.push(DetectedProperty { key: "outputs", text, is_guess: false });
    }
    Ok(image.clone())
}
