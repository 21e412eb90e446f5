//! Detects properties of a network by running it: upscale factor, accepted sizes, normalization,
//! receptive field and memory.

mod manifest;
mod receptive_field;
mod run;
mod values;

use super::roles::{Role, Roles, channels_of, image_outputs};
use super::test_image::TestImage;
use super::{Description, DetectedProperty, ProbedModel, TrialImages};
use crate::diffusion::Prediction;
use crate::error::{Error, Result};
use crate::model::manifest::Task;
use crate::model::precision::Precision;
use crate::network::{Axes, Element, Port, ProbeSession};
use crate::setting::OUTPUT;

/// The largest fixed side on which a network is tried.
const MAX_SIZE: usize = 8192;
/// The side of the first image, and of others if the network rejects that. Others than powers of
/// two are multiples of more.
const SIDES: [usize; 6] = [64, 96, 128, 240, 256, 512];
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
    session: ProbeSession,
    description: &'a Description,
    model: &'a str,
    roles: Roles,
    image: Port,
    output: Port,
    /// The outputs that may be the image.
    outputs: Vec<Port>,
    axes: Axes,
    /// Channels of the image in the tensor.
    channels: usize,
    /// Whether a map of sigma follows the image's channels in the same tensor.
    has_sigma_channel: bool,
    /// Whether a mask does.
    has_mask_channel: bool,
    /// Whether the enlarged low-resolution image follows them.
    is_concatenated: bool,
    size: Option<[usize; 2]>,
    /// Frames of a video in one evaluation.
    frames: usize,
    /// The factor by which each recurrent state is smaller than the image.
    divisors: Vec<usize>,
    /// Pixels that convolutions without padding take off each side of the input.
    border: usize,
    /// The range to which the output is clipped, if it is.
    clip_range: Option<[f32; 2]>,
    trial_images: Option<TrialImages>,
    detected: Vec<DetectedProperty>,
}

impl<'a> Probe<'a> {
    pub(super) fn new(
        session: ProbeSession,
        description: &'a Description,
        model: &'a str,
    ) -> Result<Self> {
        let roles = Roles::of(&session, description, model)?;
        let Some(image) = roles.image().cloned() else {
            return Err(Error::model(model, "none of its inputs is an image"));
        };
        let outputs = image_outputs(session.outputs(), &image, description, &roles.states);
        let Some(output) = outputs.first().cloned() else {
            return Err(Error::model(model, no_image(session.outputs(), description)));
        };
        if session.inputs().iter().any(|port| port.name == output.name) {
            let problem = format!(
                "its output `{}` is one of its inputs, so there is nothing to evaluate",
                output.name
            );
            return Err(Error::model(model, problem));
        }
        let (axes, declared) = channels_of(&image, description.axes);
        let given = channels_of(&output, Some(axes)).1;
        let (frames, declared) =
            frames_of(&image, declared, given, roles.neighbors.len() + 1, description.frames);
        if let Some(wrong) = description.frames.filter(|given| *given != frames) {
            return Err(Error::usage(format!(
                "the graph takes {frames} frames at once; {wrong} were given"
            )));
        }
        let has_level = roles.sigma.is_some() || roles.timestep.is_some();
        let is_last = |roles: &[Role]| {
            let mut given = description.inputs.iter();
            given.any(|(role, name)| roles.contains(role) && *name == image.name)
        };
        let has_mask_channel = is_last(&[Role::Mask, Role::Known]);
        let has_extra_channel = is_last(&[Role::Sigma]) || has_mask_channel;
        let is_concatenated = roles.condition.as_ref().is_some_and(|it| it.name == image.name)
            && roles.sample.is_some();
        let (channels, has_sigma_channel) = match (declared, given) {
            (Some(whole), given) if is_concatenated => (given.unwrap_or(whole / 2), false),
            (Some(whole), Some(given))
                if !has_level && matches!((whole, given), (4, 3) | (2, 1)) =>
            {
                (given, true)
            }
            (Some(6), _) if has_extra_channel => (3, true),
            (Some(whole), _) if has_extra_channel => (whole - 1, true),
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
        let has_sigma_channel = has_sigma_channel && !has_mask_channel;
        let is_blind = roles.sigma.is_none() && roles.timestep.is_none() && !has_sigma_channel;
        if is_blind && (description.sigma_factor.is_some() || description.sigma_scale.is_some()) {
            return Err(Error::usage(
                "the graph has no input for sigma; leave out the factor and the scale of sigma",
            ));
        }
        if !matches!(channels, 1 | 3) {
            let problem = format!(
                "its input `{}` has {channels} channels; expected 1 or 3, or 2 or 4 with sigma as \
                 the last channel",
                image.name
            );
            return Err(Error::model(model, problem));
        }
        let side = |from_end: usize| {
            let rank = image.shape.len();
            let axis = if axes == Axes::Nchw { rank - from_end } else { rank - 1 - from_end };
            image.shape.get(axis).and_then(|side| usize::try_from(*side).ok())
        };
        let size = description.size.or(match (side(1), side(2)) {
            (Some(width), Some(height)) => Some([width, height]),
            _ => None,
        });
        if let Some([width, height]) = size.filter(|size| size.iter().any(|side| *side > MAX_SIZE))
        {
            let problem = format!(
                "its input `{}` is {width}x{height}; expected at most {MAX_SIZE} a side",
                image.name
            );
            return Err(Error::model(model, problem));
        }
        if let Some(batch) =
            image.shape.first().filter(|batch| image.shape.len() > 3 && **batch > 1)
        {
            let problem = format!(
                "its input `{}` takes {batch} images at once; export it with a batch of 1, or a free one",
                image.name
            );
            return Err(Error::model(model, problem));
        }
        let divisors = vec![1; roles.states.len()];
        let mut probe = Self {
            session,
            description,
            model,
            roles,
            image,
            output,
            outputs,
            axes,
            channels,
            has_sigma_channel,
            has_mask_channel,
            is_concatenated,
            size,
            frames,
            divisors,
            border: 0,
            clip_range: None,
            trial_images: None,
            detected: Vec::new(),
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
        let (side, scale) = self.detect_output()?;
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
                "its input `{name}` is a timestep, and the file declares neither its prediction nor \
                 its schedule; give both, as in `eddy import {} --task generate --prediction epsilon \
                 --schedule scheduler_config.json`, or give `{name}` the role of sigma",
                self.model
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

    /// Chooses the output: of those with the largest image the one that restores a photograph best.
    /// Returns what [`detect_scale`](Self::detect_scale) does.
    fn detect_output(&mut self) -> Result<(usize, usize)> {
        let outputs = self.outputs.clone();
        if outputs.len() < 2 || self.is_sampled() {
            return self.detect_scale();
        }
        let before = (self.detected.len(), self.size);
        let (mut problem, mut accepted) = (None, Vec::new());
        for output in outputs {
            self.output = output;
            (self.size, self.border) = (before.1, 0);
            match self.detect_scale() {
                Ok((side, scale)) => accepted.push((self.output.clone(), side, scale)),
                Err(error @ Error::Model { .. }) => _ = problem.get_or_insert(error),
                Err(error) => return Err(error),
            }
            self.detected.truncate(before.0);
        }
        let largest = accepted.iter().map(|(.., scale)| *scale).max().unwrap_or_default();
        accepted.retain(|(.., scale)| *scale == largest);
        let mut best: Option<(Port, f64)> = None;
        let mut texts = Vec::new();
        let compared = if accepted.len() > 1 { accepted.as_slice() } else { &[] };
        for (output, side, scale) in compared {
            let (side, scale) = (*side, *scale);
            self.output = output.clone();
            (self.size, self.border) = (before.1, 0);
            self.detect_scale()?;
            let task = self.task(scale, false)?;
            let mut manifest = self.manifest(task, scale, 1);
            self.clip_range = self.detect_output_range(side)?;
            let psnr = self.detect_normalization(&mut manifest, side)?.unwrap_or_default();
            self.detected.truncate(before.0);
            self.trial_images = None;
            texts.push(format!("`{}` {psnr:.1} dB", self.output.name));
            // The first of about equal ones.
            if best.as_ref().is_none_or(|(_, most)| psnr > most + 0.1) {
                best = Some((self.output.clone(), psnr));
            }
        }
        let first = accepted.first().map(|(output, ..)| output.clone());
        let Some(output) = best.map(|(output, _)| output).or(first) else {
            return match problem {
                Some(problem) => Err(problem),
                None => self.detect_scale(),
            };
        };
        let text = match texts.as_slice() {
            [] => format!(
                "`{}`, the one of {} that has the size of an image",
                output.name,
                self.output_names()
            ),
            texts => format!("`{}` restores a photograph best: {}", output.name, texts.join(", ")),
        };
        self.record("outputs", text);
        (self.output, self.size, self.border) = (output, before.1, 0);
        self.detect_scale()
    }

    /// Runs the network on an image of that size, with recurrent states of several sizes. Returns
    /// the shape of its output if it accepts one of them.
    fn accepted(&mut self, size: [usize; 2]) -> Result<Option<Vec<usize>>> {
        const DIVISORS: [usize; 5] = [1, 2, 4, 8, 16];
        /// More states have all the same size.
        const MOST: usize = 3;
        let states = self.divisors.len();
        let image = TestImage::photograph(size, [0, 0]);
        let normalization = Normalization::of(self.default_range());
        let uniform = DIVISORS.map(|divisor| vec![divisor; states]).to_vec();
        let count =
            if (2..=MOST).contains(&states) { DIVISORS.len().pow(states as u32) } else { 0 };
        let mixed = (0..count).map(|i| {
            (0..states as u32).map(|state| DIVISORS[i / 5_usize.pow(state) % 5]).collect::<Vec<_>>()
        });
        let all = uniform.into_iter().chain(mixed).take(if states == 0 { 1 } else { usize::MAX });
        for divisors in all {
            self.divisors = divisors;
            if let Some((shape, _)) = self.run(&image, &normalization, 0.0)? {
                return Ok(Some(shape));
            }
        }
        Ok(None)
    }

    /// The upscale factor, and the pixels that convolutions without padding take off each side of
    /// the input, if the output is smaller than a multiple of it by the same number along both
    /// axes.
    fn detect_border(
        &mut self,
        [width, height]: [usize; 2],
        [out_width, out_height]: [usize; 2],
    ) -> Result<Option<(usize, usize)>> {
        const MAX_SCALE: usize = 8;
        let border_of = |scale: usize| {
            let lack = (scale * width).checked_sub(out_width)?;
            let is_same = (scale * height).checked_sub(out_height) == Some(lack);
            (is_same
                && lack > 0
                && lack.is_multiple_of(2 * scale)
                && lack < scale * width.min(height))
            .then_some((scale, lack / (2 * scale)))
        };
        if self.size.is_some() {
            return Ok((1..=MAX_SCALE).find_map(border_of));
        }
        // Two sizes show the factor.
        for side in SIDES.into_iter().filter(|side| *side != width) {
            let Some(shape) = self.accepted([side, side])? else { continue };
            let (other, _) = self.sides_of(&shape)?;
            let scale = other.abs_diff(out_width) / side.abs_diff(width);
            return Ok(border_of(scale).filter(|(_, border)| scale * (side - 2 * border) == other));
        }
        Ok(None)
    }

    /// Runs the network on images of several sizes until it accepts one. Returns the side and the
    /// upscale factor.
    fn detect_scale(&mut self) -> Result<(usize, usize)> {
        let sides = match self.size {
            Some([width, height]) => vec![[width, height]],
            None => SIDES.map(|side| [side; 2]).to_vec(),
        };
        for [width, height] in sides {
            let Some(shape) = self.accepted([width, height])? else { continue };
            let (out_width, out_height) = self.sides_of(&shape)?;
            self.check_channels(&shape)?;
            let mut scale = out_width / width;
            let mut size = [width, height];
            if scale == 0 || [out_width, out_height] != [scale * width, scale * height] {
                let cropped = self.detect_border(size, [out_width, out_height])?;
                if let Some((factor, border)) = cropped {
                    (scale, self.border) = (factor, border);
                    size = size.map(|side| side - 2 * border);
                    self.size = self.size.map(|_| size);
                }
            }
            if self.border == 0 && [out_width, out_height] != [scale * width, scale * height]
                || scale == 0
            {
                let problem = format!(
                    "its output `{}` is {out_width}x{out_height} for an input of {width}x{height}; \
                     expected a whole multiple, the same along both axes; {OUTPUT} names another \
                     of {}",
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
            if self.border > 0 {
                let text = format!(
                    "its output lacks {} pixels of the input on each side, which is mirrored beyond its edges",
                    self.border
                );
                self.record("border", text);
            }
            return Ok((size[0].min(size[1]), scale));
        }
        let tried = self.size.map_or_else(
            || format!("{} pixels a side", SIDES.map(|side| side.to_string()).join(", ")),
            |[w, h]| format!("{w}x{h} pixels"),
        );
        let why = self.session.problem().unwrap_or("no reason was given").to_owned();
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
            "its output `{}` has {given} channels; expected {channels}, as its input has; {OUTPUT} \
             names another of {}",
            self.output.name,
            self.output_names()
        );
        Err(Error::model(self.model, problem))
    }

    fn output_names(&self) -> String {
        let names: Vec<&str> =
            self.session.outputs().iter().map(|port| port.name.as_str()).collect();
        names.join(", ")
    }

    fn sides_of(&self, shape: &[usize]) -> Result<(usize, usize)> {
        match (shape, self.axes) {
            (&[_, _, height, width], Axes::Nchw) | (&[_, height, width, _], Axes::Nhwc) => {
                Ok((width, height))
            }
            _ => {
                let problem = format!(
                    "its output `{}` has the shape {shape:?}; expected an image, of rank 4; \
                     {OUTPUT} names another",
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

    /// The smallest divisor of an accepted side that has to divide both sides, by trying.
    fn detect_multiple(&mut self, side: usize, scale: usize) -> Result<usize> {
        let normalization = Normalization::of(self.default_range());
        let divisors = (1..side).filter(|multiple| side.is_multiple_of(*multiple));
        let mut found = side;
        for multiple in divisors {
            // Odd multiples, and different sides.
            let size = [side + multiple, side + 2 * side.min(3 * multiple)];
            let image = TestImage::photograph(size, [0, 0]);
            if let Some((shape, _)) = self.run(&image, &normalization, 0.0)?
                && self.sides_of(&shape)? == (scale * size[0], scale * size[1])
            {
                found = multiple;
                break;
            }
        }
        let multiple = found;
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

/// The error for a graph whose outputs are not images.
fn no_image(outputs: &[Port], description: &Description) -> String {
    let all: Vec<String> =
        outputs.iter().map(|port| format!("`{}` ({})", port.name, port.text)).collect();
    let all = all.join(", ");
    match &description.output {
        Some(name) => format!("it has no output named `{name}`; it has {all}"),
        None => format!(
            "none of its outputs is an image, a tensor [batch, channels, height, width] of float32, float16 or \
             uint8, perhaps without batch; it has {all}"
        ),
    }
}
