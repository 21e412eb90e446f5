//! What runs of a network show: its factor of enlargement, the sizes that it takes, what its values
//! stand for, how far it looks, and how much memory it needs.

mod manifest;
mod reach;
mod run;
mod values;

use super::picture::Picture;
use super::roles::{Roles, channels_of};
use super::{Described, Description, Finding, TrialImages};
use crate::diffusion::Prediction;
use crate::error::{Error, Result};
use crate::model::manifest::Task;
use crate::model::precision::Precision;
use crate::network::{Axes, Element, Port, Trial};
use crate::setting::OUTPUT;

/// The side of the first image, and of others if a network does not take that.
const SIDES: [usize; 4] = [64, 128, 256, 512];
/// The noise that is added to the photograph for networks that denoise.
const SIGMA: f32 = 25.0 / 255.0;

/// What values of a tensor stand for: factor and offset for each of red, green and blue.
type Scaling = [[f32; 2]; 3];

/// A reading of an image's values.
#[derive(Clone, Debug, PartialEq)]
struct Reading {
    range: [f32; 2],
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Reading {
    fn of(range: [f32; 2]) -> Self {
        Self { range, mean: Vec::new(), std: Vec::new() }
    }

    /// Of 0 to 1.
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

/// A network and what is known of it so far.
pub(super) struct Probe<'a> {
    trial: Trial,
    said: &'a Description,
    model: &'a str,
    roles: Roles,
    image: Port,
    output: Port,
    axes: Axes,
    /// Channels of the image in the tensor.
    channels: usize,
    /// Whether a map of sigma follows them.
    has_sigma_behind: bool,
    /// Whether a small image follows them, enlarged.
    is_concatenated: bool,
    size: Option<[usize; 2]>,
    /// Frames of a video that it sees at once.
    frames: usize,
    /// How many times smaller than the image its states are.
    divisor: usize,
    /// The values of the output's black and white, if it is clipped to them.
    bounds: Option<[f32; 2]>,
    trial_images: Option<TrialImages>,
    findings: Vec<Finding>,
}

impl<'a> Probe<'a> {
    pub(super) fn new(trial: Trial, said: &'a Description, model: &'a str) -> Result<Self> {
        let mut findings = Vec::new();
        let output = output_of(&trial, said, model, &mut findings)?;
        let roles = Roles::of(&trial, said, &output, model)?;
        let Some(image) = roles.image().cloned() else {
            return Err(Error::model(model, "none of its inputs is an image"));
        };
        let (axes, declared) = channels_of(&image, said.axes);
        let given = channels_of(&output, Some(axes)).1;
        let (frames, declared) =
            frames_of(&image, declared, given, roles.neighbours.len() + 1, said.frames);
        if let Some(wrong) = said.frames.filter(|said| *said != frames) {
            return Err(Error::usage(format!(
                "{wrong} frames were said, and the graph takes {frames} at once"
            )));
        }
        let is_told = roles.sigma.is_some() || roles.timestep.is_some();
        let behind = said
            .inputs
            .iter()
            .any(|(role, name)| *role == super::Role::Sigma && *name == image.name);
        let is_concatenated = roles.condition.as_ref().is_some_and(|it| it.name == image.name)
            && roles.sample.is_some();
        let (channels, has_sigma_behind) = match (declared, given) {
            (Some(whole), given) if is_concatenated => (given.unwrap_or(whole / 2), false),
            (Some(whole), Some(given)) if !is_told && matches!((whole, given), (4, 3) | (2, 1)) => {
                (given, true)
            }
            (Some(whole), _) if behind => (whole - 1, true),
            (Some(channels), _) => (channels, false),
            (None, given) => (said.channels.or(given).unwrap_or(3), false),
        };
        if let Some(wrong) =
            said.channels.filter(|said| *said != channels && (channels, *said) != (1, 3))
        {
            return Err(Error::usage(format!(
                "{wrong} channels were said, and the graph takes {channels}"
            )));
        }
        let is_unaware = roles.sigma.is_none() && roles.timestep.is_none() && !has_sigma_behind;
        if is_unaware && (said.sigma_factor.is_some() || said.sigma_scale.is_some()) {
            return Err(Error::usage(
                "how it is told sigma was said, and the graph has no input for sigma",
            ));
        }
        if !matches!(channels, 1 | 3) {
            let problem = format!(
                "its input `{}` has {channels} channels; expected 1, 3, or with sigma behind the image 2 or 4",
                image.name
            );
            return Err(Error::model(model, problem));
        }
        let side = |from_end: usize| {
            let rank = image.shape.len();
            let axis = if axes == Axes::Nchw { rank - from_end } else { 3 - from_end };
            image.shape.get(axis).and_then(|side| usize::try_from(*side).ok())
        };
        let size = said.size.or(match (side(1), side(2)) {
            (Some(width), Some(height)) => Some([width, height]),
            _ => None,
        });
        let mut probe = Self {
            trial,
            said,
            model,
            roles,
            image,
            output,
            axes,
            channels,
            has_sigma_behind,
            is_concatenated,
            size,
            frames,
            divisor: 1,
            bounds: None,
            trial_images: None,
            findings,
        };
        probe.say_inputs();
        Ok(probe)
    }

    fn find(&mut self, key: &'static str, text: impl Into<String>) {
        self.findings.push(Finding { key, text: text.into(), is_guess: false });
    }

    fn say_inputs(&mut self) {
        let is_said = |port: &Port| self.said.inputs.iter().any(|(_, name)| *name == port.name);
        let mut texts = Vec::new();
        if !is_said(&self.image) {
            let kind = if self.axes == Axes::Nhwc { " in NHWC" } else { "" };
            texts.push(format!("`{}` is taken for the image{kind}", self.image.name));
        }
        let named = [
            (&self.roles.sigma, "sigma"),
            (&self.roles.timestep, "the timestep"),
            (&self.roles.class, "the class"),
            (&self.roles.mask, "the mask, 1 where pixels are missing"),
            (&self.roles.known, "the mask, 1 where pixels are known"),
        ];
        for (port, what) in named {
            if let Some(port) = port.as_ref().filter(|port| !is_said(port)) {
                texts.push(format!("`{}` for {what}", port.name));
            }
        }
        if self.has_sigma_behind {
            texts.push("its last channel for sigma".into());
        }
        if self.frames > 1 && self.said.frames.is_none() {
            texts.push(format!("the middle one of {} frames of a video", self.frames));
        }
        for [taken, given] in &self.roles.states {
            texts.push(format!(
                "`{}` for what `{}` keeps from frame to frame",
                taken.name, given.name
            ));
        }
        if !texts.is_empty() {
            let text = texts.join(", ");
            self.find("inputs", text);
        }
    }

    pub(super) fn describe(mut self) -> Result<Described> {
        let is_sampled = self.is_sampled();
        let (side, scale) = self.first_run()?;
        let task = self.task(scale, is_sampled)?;
        let is_restored = !is_sampled && !matches!(task, Task::Generate | Task::Classifier);
        let multiple_of = match (self.said.multiple_of, self.size) {
            (Some(multiple), _) => multiple,
            (None, Some(_)) => 1,
            (None, None) => self.multiple(side, scale)?,
        };
        let mut manifest = self.manifest(task, scale, multiple_of);
        self.bounds = self.measure_bounds(side)?;
        if is_restored {
            self.read_values(&mut manifest, side)?;
            self.locate(&mut manifest, side)?;
        } else if self.said.range.is_none() && manifest.range == [0.0, 1.0] {
            let (range, how) =
                match self.bounds.filter(|_| manifest.prediction == Prediction::Denoised) {
                    Some(range) => (range, "where its output is clipped"),
                    None => ([-1.0, 1.0], "as usual for samplers; not measured"),
                };
            manifest.range = range;
            let [black, white] = range;
            self.find("range", format!("black {black} and white {white}, {how}"));
        }
        let precision =
            if self.image.element == Element::F16 { Precision::F16 } else { Precision::F32 };
        let (findings, trial) = (self.findings, self.trial_images);
        Ok(Described { manifest, precision, findings, trial })
    }

    /// Whether the network is for a sampler, which nothing but its noise levels shows.
    fn is_sampled(&self) -> bool {
        let Description { task, prediction, schedule, sigma_range, .. } = self.said;
        match task {
            Some(Task::Generate | Task::Classifier) => true,
            Some(Task::Deblur | Task::Inpaint) => false,
            Some(_) if prediction.is_none_or(|it| it == Prediction::Denoised) => false,
            _ => {
                schedule.is_some()
                    || prediction.is_some_and(|it| it != Prediction::Denoised)
                    || self.roles.timestep.is_some()
                    // Noise that hides every image.
                    || sigma_range.is_some_and(|[_, most]| most > 4.0)
                        && self.said.range.is_none_or(|[black, white]| white - black <= 2.0)
            }
        }
    }

    fn task(&mut self, scale: usize, is_sampled: bool) -> Result<Task> {
        if let Some(task) = self.said.task {
            return Ok(task);
        }
        if is_sampled && self.said.prediction.is_none() && self.roles.timestep.is_some() {
            let name = self.roles.timestep.as_ref().map_or("", |port| &port.name);
            let problem = format!(
                "its input `{name}` is a timestep, and nothing says what its output is; say its prediction and its \
                 schedule, or that `{name}` is sigma"
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
        self.find("task", format!("it is taken for a network to {task}"));
        Ok(task)
    }

    /// Runs the network on images of several sizes until one is taken. Returns its side and the
    /// factor of enlargement.
    fn first_run(&mut self) -> Result<(usize, usize)> {
        let sides = match self.size {
            Some([width, height]) => vec![[width, height]],
            None => SIDES.map(|side| [side; 2]).to_vec(),
        };
        for [width, height] in sides {
            let picture = Picture::photograph([width, height], [0, 0]);
            let divisors: &[usize] =
                if self.roles.states.is_empty() { &[1] } else { &[1, 2, 4, 8, 16] };
            let mut first = None;
            for divisor in divisors {
                self.divisor = *divisor;
                first = self.run(&picture, &Reading::of(self.usual()), 0.0)?;
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
                    "its output `{}` is {out_width}x{out_height} for {width}x{height}; expected a whole multiple, the \
                     same along both axes; {OUTPUT} names another of {}",
                    self.output.name,
                    self.outputs_listed()
                );
                return Err(Error::model(self.model, problem));
            }
            // What samples beside a small image is as large as its sample.
            let is_other = |said: &usize| *said != scale && self.roles.condition.is_none();
            if let Some(said) = self.said.scale.filter(is_other) {
                let problem = format!("it enlarges {scale} times, and {said} was said");
                return Err(Error::model(self.model, problem));
            }
            if scale > 1 && self.said.scale.is_none() {
                self.find(
                    "scale",
                    format!("it makes {out_width}x{out_height} of {width}x{height}"),
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

    /// Checks that the output has the channels of an image. Samplers leave a learned variance unused.
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
            "its output `{}` has {given} channels for an image of {channels}; expected as many; {OUTPUT} names another \
             of {}",
            self.output.name,
            self.outputs_listed()
        );
        Err(Error::model(self.model, problem))
    }

    fn outputs_listed(&self) -> String {
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

    /// The values of black and white before anything is found out.
    fn usual(&self) -> [f32; 2] {
        let bytes = self.image.element == Element::U8;
        self.said.range.unwrap_or(if bytes { [0.0, 255.0] } else { [0.0, 1.0] })
    }

    /// The smallest number that has to divide a side, by trying.
    fn multiple(&mut self, side: usize, scale: usize) -> Result<usize> {
        let reading = Reading::of(self.usual());
        let mut multiple = 1;
        while multiple < side {
            // An odd multiple, and different sides.
            let size = [side + multiple, side + 2 * side.min(3 * multiple)];
            let picture = Picture::photograph(size, [0, 0]);
            if let Some((shape, _)) = self.run(&picture, &reading, 0.0)?
                && self.sides_of(&shape)? == (scale * size[0], scale * size[1])
            {
                break;
            }
            multiple *= 2;
        }
        if multiple > 1 {
            self.find("multiple_of", format!("it takes no sides that {multiple} does not divide"));
        }
        Ok(multiple)
    }
}

/// How many frames of a video an image holds, and the channels of each.
fn frames_of(
    image: &Port,
    channels: Option<usize>,
    given: Option<usize>,
    named: usize,
    said: Option<usize>,
) -> (usize, Option<usize>) {
    if named > 1 {
        return (named, channels);
    }
    if let &[_, frames, ..] = image.shape.as_slice()
        && image.shape.len() == 5
    {
        return (said.or(usize::try_from(frames).ok()).unwrap_or(3), channels);
    }
    match (channels, said, given) {
        (Some(whole), Some(frames), _) if frames > 0 && whole.is_multiple_of(frames) => {
            (frames, Some(whole / frames))
        }
        (Some(whole @ (9 | 15 | 21)), None, Some(3)) => (whole / 3, Some(3)),
        (channels, ..) => (1, channels),
    }
}

/// The output that is the image.
fn output_of(
    trial: &Trial,
    said: &Description,
    model: &str,
    findings: &mut Vec<Finding>,
) -> Result<Port> {
    let outputs = trial.outputs();
    let listed = || {
        let all: Vec<String> =
            outputs.iter().map(|port| format!("`{}` ({})", port.name, port.text)).collect();
        all.join(", ")
    };
    if let Some(name) = &said.output {
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
        findings.push(Finding { key: "outputs", text, is_guess: false });
    }
    Ok(image.clone())
}
