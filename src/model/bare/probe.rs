//! What runs of a network show: its factor of enlargement, the sizes that it takes, what its values
//! stand for, how far it looks, and how much memory it needs.

use std::time::{Duration, Instant};

use super::picture::{Picture, as_image, psnr};
use super::roles::{Roles, channels_of};
use super::{Described, Description, Finding, TrialImages};
use crate::diffusion::Prediction;
use crate::error::{Error, Result};
use crate::machine;
use crate::model::manifest::{
    Defaults, InputNames, Layout, Manifest, NoiseLevel, OutputNames, SigmaRange, State, Task,
};
use crate::model::precision::Precision;
use crate::network::{Axes, Colors, Element, Feed, NoiseEncoding, NoiseScale, Port, Trial};
use crate::setting::OUTPUT;

/// The side of the first image, and of others if a network does not take that.
const SIDES: [usize; 4] = [64, 128, 256, 512];
/// The noise that is added to the photograph for networks that denoise.
const SIGMA: f32 = 25.0 / 255.0;
/// By how much one reading of a network's values has to be better than a more usual one, in dB. Half the
/// contrast, as of -1 to 1 read as 0 to 1, changes what many networks restore by less.
const CLEARLY: f64 = 2.0;
/// The same where only what the network is told as sigma differs.
const BETTER: f64 = 0.3;
/// By how much a residual has to improve an image to be one, in dB: next to nothing, subtracted, leaves
/// the image.
const IMPROVED: f64 = 1.0;
/// No image of a network is better than this, if its values are read wrongly.
const PLAUSIBLE: f64 = 14.0;
/// The largest image on which the receptive field is looked for.
const LARGEST: usize = 512;
/// The time after which no larger image is tried.
const LONG: Duration = Duration::from_secs(2);

/// Means and standard deviations of ImageNet's colours, of 0 to 1, on which many networks were trained.
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

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
        let is_told = roles.sigma.is_some() || roles.timestep.is_some();
        let behind = said
            .inputs
            .iter()
            .any(|(role, name)| *role == super::Role::Sigma && *name == image.name);
        let (channels, has_sigma_behind) = match (declared, given) {
            (Some(whole), Some(given)) if !is_told && matches!((whole, given), (4, 3) | (2, 1)) => {
                (given, true)
            }
            (Some(whole), _) if behind => (whole - 1, true),
            (Some(channels), _) => (channels, false),
            (None, given) => (said.channels.or(given).unwrap_or(3), false),
        };
        let is_concatenated = roles.condition.as_ref().is_some_and(|it| it.name == image.name)
            && roles.sample.is_some();
        if !matches!(channels, 1 | 3) && !is_concatenated {
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
        self.findings.push(Finding { key, text: text.into() });
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
            let text = format!("{}", texts.join(", "));
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

    /// Runs the network on images of several sizes until one is taken. Returns its side and the factor of
    /// enlargement.
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
            let scale = out_width / width;
            if scale == 0 || [out_width, out_height] != [scale * width, scale * height] {
                let problem = format!(
                    "it makes {out_width}x{out_height} of {width}x{height}; expected a whole multiple, the same along \
                     both axes"
                );
                return Err(Error::model(self.model, problem));
            }
            if let Some(said) = self.said.scale.filter(|said| *said != scale) {
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

    /// Evaluates the network on planes of 0 to 1, and gives its output as it is. `level` is what the
    /// network is told as sigma.
    fn run(
        &mut self,
        picture: &Picture,
        reading: &Reading,
        level: f64,
    ) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let Picture { width, height, planes } = picture;
        let (area, scaling) = (width * height, reading.scaling());
        let channels = self.channels;
        let mut values = Vec::with_capacity((channels + 1) * area);
        for channel in 0..channels {
            let [factor, offset] = scaling[channel % 3];
            if channels == 1 {
                let at = |i: usize| {
                    0.299 * planes[i] + 0.587 * planes[area + i] + 0.114 * planes[2 * area + i]
                };
                values.extend((0..area).map(|i| factor * at(i) + offset));
            } else {
                let plane = &planes[(channel % 3) * area..][..area];
                values.extend(plane.iter().map(|value| factor * value + offset));
            }
        }
        if self.has_sigma_behind {
            values.extend(std::iter::repeat_n(level as f32, area));
        }
        // All frames are alike.
        let stacked = if self.roles.neighbours.is_empty() { self.frames } else { 1 };
        let values = values.repeat(stacked);
        let mut values = values;
        let whole = values.len() / area;
        let shape = |channels: usize, width: usize, height: usize, axes| match axes {
            Axes::Nchw => vec![1, channels, height, width],
            Axes::Nhwc => vec![1, height, width, channels],
        };
        if self.axes == Axes::Nhwc {
            let planar = values.clone();
            for (i, value) in values.iter_mut().enumerate() {
                *value = planar[(i % whole) * area + i / whole];
            }
        }
        let levels = [level as f32];
        let constants: Vec<Vec<f32>> = (self.roles.constants.iter())
            .map(|port| {
                let constant = self.said.constants.get(&port.name);
                let values = constant.map_or(&[0.0][..], |constant| constant.values());
                values.iter().map(|value| *value as f32).collect()
            })
            .collect();
        let number = |port: &Port| -> Vec<usize> {
            port.shape.iter().map(|length| usize::try_from(*length).unwrap_or(1).max(1)).collect()
        };
        let image = match self.image.shape.len() {
            5 => vec![1, stacked, channels, *height, *width],
            _ => shape(whole, *width, *height, self.axes),
        };
        let mut feeds = vec![Feed { port: &self.image, shape: image.clone(), values: &values }];
        for port in [&self.roles.sigma, &self.roles.timestep].into_iter().flatten() {
            if port.name == self.image.name {
                continue;
            }
            let shape =
                if port.is_number() { number(port) } else { shape(1, *width, *height, self.axes) };
            feeds.push(Feed { port, shape, values: &levels });
        }
        // Nothing is missing.
        for (port, value) in [(&self.roles.mask, &[0.0]), (&self.roles.known, &[1.0])] {
            if let Some(port) = port {
                feeds.push(Feed {
                    port,
                    shape: shape(1, *width, *height, self.axes),
                    values: value,
                });
            }
        }
        feeds.extend(self.roles.neighbours.iter().map(|port| Feed {
            port,
            shape: image.clone(),
            values: &values,
        }));
        for [port, _] in &self.roles.states {
            let mut shape = number(port);
            if let ([_, _, rows, columns], [_, _, -1, -1]) =
                (shape.as_mut_slice(), port.shape.as_slice())
            {
                (*rows, *columns) = (height.div_ceil(self.divisor), width.div_ceil(self.divisor));
            }
            feeds.push(Feed { port, shape, values: &[0.0] });
        }
        if let Some(port) = &self.roles.class {
            feeds.push(Feed { port, shape: number(port), values: &[0.0] });
        }
        let small;
        if let (Some(port), Some(_)) = (&self.roles.condition, &self.roles.sample)
            && port.name != self.image.name
        {
            let scale = self.said.scale.unwrap_or(1);
            small = picture.reduced(scale);
            let shape = shape(channels, small.width, small.height, self.axes);
            feeds.push(Feed { port, shape, values: &small.planes });
        }
        for (port, values) in self.roles.constants.iter().zip(&constants) {
            let mut shape = number(port);
            // A free vector is as long as its values.
            if let ([length], [-1]) = (shape.as_mut_slice(), port.shape.as_slice()) {
                *length = values.len();
            }
            feeds.push(Feed { port, shape, values });
        }
        self.trial.run(&feeds, &self.output.name)
    }

    /// The output of an evaluation as planes, and its width and height.
    fn planes(&self, (shape, values): (Vec<usize>, Vec<f32>)) -> Result<(Vec<f32>, [usize; 2])> {
        let (width, height) = self.sides_of(&shape)?;
        let area = width * height;
        let whole = values.len() / area.max(1);
        let kept = whole.min(self.channels);
        let planes = match self.axes {
            Axes::Nchw => values[..kept * area].to_vec(),
            Axes::Nhwc => (0..kept * area).map(|i| values[(i % area) * whole + i / area]).collect(),
        };
        Ok((planes, [width, height]))
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

    /// The usual range to which the output is clipped, if an image of far too much contrast shows that it
    /// is.
    fn measure_bounds(&mut self, side: usize) -> Result<Option<[f32; 2]>> {
        const NEAR: f32 = 1e-3;
        if self.image.element == Element::U8 {
            return Ok(None);
        }
        let size = self.size.unwrap_or([side; 2]);
        for contrast in [10.0, 2000.0] {
            let mut picture = Picture::noise(size);
            picture.planes.iter_mut().for_each(|value| *value = (*value - 0.5) * contrast);
            let reading = Reading::of([0.0, 1.0]);
            let Some(output) = self.run(&picture, &reading, f64::from(contrast))? else { continue };
            let (planes, _) = self.planes(output)?;
            let least = planes.iter().copied().fold(f32::INFINITY, f32::min);
            let most = planes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let is_near = |[black, white]: &[f32; 2]| {
                let near = NEAR * (white - black);
                (least - black).abs() < near && (most - white).abs() < near
            };
            if let Some(range) = [[0.0, 1.0], [-1.0, 1.0], [0.0, 255.0]].into_iter().find(is_near) {
                return Ok(Some(range));
            }
        }
        Ok(None)
    }

    /// Finds out what the values of the input and of the output stand for: the reading by which a
    /// photograph is restored best.
    fn read_values(&mut self, manifest: &mut Manifest, side: usize) -> Result<()> {
        let scale = manifest.scale;
        let size = self.size.unwrap_or([side.max(96).next_multiple_of(manifest.multiple_of); 2]);
        let truth = Picture::photograph(size.map(|side| scale * side), [0, 0]);
        let mut input = truth.reduced(scale);
        match manifest.task {
            Task::Deblur => input.soften(),
            _ if scale == 1 => input.add_noise(SIGMA),
            _ => {}
        }
        let before = psnr(&self.in_channels(&input.repeated(scale)), &self.in_channels(&truth));
        let bytes = self.image.element == Element::U8;
        let readings: Vec<Reading> = match (self.said.range, self.said.mean.is_empty(), bytes) {
            (Some(range), true, _) => vec![Reading::of(range)],
            (range, false, _) => vec![Reading {
                range: range.unwrap_or([0.0, 1.0]),
                mean: self.said.mean.clone(),
                std: self.said.std.clone(),
            }],
            (None, true, true) => vec![Reading::of([0.0, 255.0])],
            (None, true, false) => {
                let ranges = [[0.0, 1.0], [0.0, 255.0], [-1.0, 1.0]].map(Reading::of);
                let [mean, std] = IMAGENET.map(|of| of.to_vec());
                let mut readings = ranges.to_vec();
                // What is clipped to a range is made of it, too, as a rule.
                readings
                    .sort_by_key(|reading| self.bounds.is_some_and(|range| range != reading.range));
                if self.channels == 3 {
                    readings.push(Reading { range: [0.0, 1.0], mean, std });
                }
                readings
            }
        };
        let is_said = self.said.residual == Some(true);
        let mut after = None;
        let mut best: Option<(f64, Reading, Option<[f32; 2]>, bool, NoiseEncoding)> = None;
        for reading in readings {
            for told in self.noise_encodings(&reading) {
                let span = f64::from(reading.range[1] - reading.range[0]);
                let level = told.value(f64::from(SIGMA) * span);
                let Some(output) = self.run(&input, &reading, level)? else { continue };
                let (planes, [width, height]) = self.planes(output)?;
                for (range, residual) in self.outputs(&reading) {
                    let scaling =
                        range.map_or(reading.scaling(), |range| Reading::of(range).scaling());
                    let found = self.decoded(&planes, scaling, residual, &input, scale);
                    let truth = Picture { width, height, planes: truth.planes.clone() };
                    let score = psnr(&found, &self.in_channels(&truth));
                    let is_best = best.as_ref().is_none_or(|(least, other, by, sign, _)| {
                        let is_same = (other, by, *sign) == (&reading, &range, residual);
                        score > least + if is_same { BETTER } else { CLEARLY }
                    });
                    if is_best && (!residual || is_said || score > before + IMPROVED) {
                        best = Some((score, reading.clone(), range, residual, told));
                        after = Some((found, width, height));
                    }
                }
            }
        }
        let Some((score, reading, output_range, residual, told)) = best else { return Ok(()) };
        let is_sure = score > PLAUSIBLE;
        if let Some((planes, width, height)) = after {
            let before = self.in_channels(&input);
            self.trial_images = Some(TrialImages {
                before: as_image(&before, input.width, input.height)?,
                after: as_image(&planes, width, height)?,
            });
        }
        let shown = if is_sure {
            format!("a photograph comes out with {score:.1} dB, of {before:.1} dB before")
        } else {
            format!(
                "no reading of its values restores a photograph (the best has {score:.1} dB, of {before:.1} dB before), \
                 so this is a guess"
            )
        };
        let Reading { range, mean, std } = reading;
        if self.said.range.is_none() {
            let [black, white] = range;
            self.find("range", format!("black {black} and white {white}: {shown}"));
        }
        if !mean.is_empty() && self.said.mean.is_empty() {
            self.find("mean", "ImageNet's mean and standard deviation");
        }
        if let Some([black, white]) = output_range.filter(|_| self.said.output_range.is_none()) {
            self.find("output_range", format!("black {black} and white {white} of the output"));
        }
        if residual && self.said.residual.is_none() {
            self.find("residual", "its output is what is to be subtracted");
        }
        (manifest.range, manifest.mean, manifest.std) = (range, mean, std);
        (manifest.output_range, manifest.residual) = (output_range, residual);
        manifest.noise_level = NoiseLevel {
            factor: told.factor,
            scale: Some(told.scale).filter(|scale| *scale != NoiseScale::Linear),
        };
        if !manifest.is_blind() && !told.is_plain() && self.said.sigma_factor.is_none() {
            let scale = if told.scale == NoiseScale::Linear { "" } else { "the logarithm of " };
            let text = format!("sigma is told as {scale}{} times it: {shown}", told.factor);
            self.find("noise_level", text);
        }
        if let Some([least, most]) = self.said.sigma_range {
            manifest.sigma = Some(SigmaRange { min: least, max: most, mixed: false });
        }
        Ok(())
    }

    /// The ways in which sigma may be told.
    fn noise_encodings(&self, reading: &Reading) -> Vec<NoiseEncoding> {
        if self.roles.sigma.is_none() && !self.has_sigma_behind {
            return vec![NoiseEncoding::default()];
        }
        let span = f64::from(reading.range[1] - reading.range[0]);
        let of = NoiseEncoding::new;
        let mut all = match (self.said.sigma_factor, self.said.sigma_scale) {
            (Some(factor), scale) => vec![of(factor, scale.unwrap_or_default())],
            (None, Some(scale)) => vec![of(1.0, scale)],
            (None, None) => {
                let factors = [1.0, 255.0 / span, 1.0 / span];
                let mut all = factors.map(|factor| of(factor, NoiseScale::Linear)).to_vec();
                // A map is told sigma itself.
                if self.roles.sigma.as_ref().is_some_and(Port::is_number) {
                    all.extend([
                        of(1.0, NoiseScale::Log),
                        of(1.0, NoiseScale::QuarterLog),
                        of(255.0 / span, NoiseScale::Log),
                    ]);
                }
                all
            }
        };
        // A name may tell it.
        if self.roles.sigma.as_ref().is_some_and(|port| port.name.to_lowercase().contains("log")) {
            all.sort_by_key(|told| told.scale == NoiseScale::Linear);
        }
        let mut kept: Vec<NoiseEncoding> = Vec::new();
        all.retain(|told| {
            let is_new = !kept.contains(told);
            kept.push(*told);
            is_new
        });
        all
    }

    /// The ways in which the output may stand for an image.
    fn outputs(&self, reading: &Reading) -> Vec<(Option<[f32; 2]>, bool)> {
        let bytes = self.output.element == Element::U8;
        let residuals: &[bool] = match self.said.residual {
            Some(true) => &[true],
            Some(false) => &[false],
            None if bytes => &[false],
            None => &[false, true],
        };
        let own = bytes && reading.range != [0.0, 255.0];
        let ranges = match self.said.output_range {
            Some(range) => vec![Some(range)],
            None if own => vec![Some([0.0, 255.0])],
            None if self.bounds.is_some() && self.said.residual != Some(true) => {
                let is_own = self.bounds == Some(reading.range) && reading.mean.is_empty();
                vec![self.bounds.filter(|_| !is_own)]
            }
            None => vec![None, Some([0.0, 1.0]), Some([-1.0, 1.0]), Some([0.0, 255.0])],
        };
        let is_new =
            |range: &Option<[f32; 2]>| *range != Some(reading.range) || !reading.mean.is_empty();
        let ranges = ranges.into_iter().filter(is_new);
        ranges.flat_map(|range| residuals.iter().map(move |residual| (range, *residual))).collect()
    }

    /// Planes of 0 to 1 in the channels of the network.
    fn in_channels(&self, picture: &Picture) -> Vec<f32> {
        if self.channels != 1 {
            return picture.planes.clone();
        }
        let area = picture.width * picture.height;
        let [r, g, b] = [0, 1, 2].map(|plane| &picture.planes[plane * area..][..area]);
        (0..area).map(|i| 0.299 * r[i] + 0.587 * g[i] + 0.114 * b[i]).collect()
    }

    /// An output in planes of 0 to 1.
    fn decoded(
        &self,
        planes: &[f32],
        scaling: Scaling,
        residual: bool,
        input: &Picture,
        scale: usize,
    ) -> Vec<f32> {
        let area = (planes.len() / self.channels).max(1);
        let own = residual.then(|| self.in_channels(&input.repeated(scale)));
        let value = |(i, value): (usize, &f32)| {
            let [factor, offset] = scaling[(i / area) % 3];
            match &own {
                Some(own) => own.get(i).copied().unwrap_or_default() - value / factor,
                None => (value - offset) / factor,
            }
        };
        planes.iter().enumerate().map(value).collect()
    }

    /// Finds out how far the network looks, by changing single pixels, and on which grid it works, by
    /// shifting an image.
    fn locate(&mut self, manifest: &mut Manifest, side: usize) -> Result<()> {
        if let Some(field) = self.said.receptive_field {
            manifest.receptive_field = Some(field);
        }
        let reading = Reading {
            range: manifest.range,
            mean: manifest.mean.clone(),
            std: manifest.std.clone(),
        };
        let told = manifest.told_as();
        let span = f64::from(manifest.range[1] - manifest.range[0]);
        let level = told.value(f64::from(SIGMA) * span);
        let (multiple, scale) = (manifest.multiple_of, manifest.scale);
        let mut size = self.size.unwrap_or([side; 2]);
        let before = machine::resident_memory();
        let mut field = None;
        loop {
            let begun = Instant::now();
            let Some(found) = self.field(size, multiple, &reading, level, scale)? else { break };
            if found + 1 < size[0].min(size[1]) / 2 - multiple.min(size[0] / 4) {
                field = Some(found);
                break;
            }
            let larger = size.map(|side| 2 * side);
            if self.size.is_some() || larger[0] > LARGEST || begun.elapsed() > LONG {
                break;
            }
            size = larger;
        }
        let used = machine::resident_memory().saturating_sub(before);
        let per_pixel = usize::try_from(used).unwrap_or(usize::MAX) / (size[0] * size[1]);
        if size[0] * size[1] >= 128 * 128 && per_pixel > 0 {
            manifest.bytes_per_pixel = Some((per_pixel + per_pixel / 4).clamp(64, 1 << 24));
        }
        if self.said.receptive_field.is_some() {
            return Ok(());
        }
        let Some(mut field) = field else {
            self.find(
                "name",
                "no receptive field: a change of one pixel reaches the border, so tiles are blended over their seams",
            );
            return Ok(());
        };
        match self.grid(size, field, &reading, level, scale)? {
            Some(grid) => {
                let whole = lcm(grid, multiple);
                if whole > multiple && self.size.is_none_or(|size| size.iter().all(|it| it % whole == 0)) {
                    manifest.multiple_of = whole;
                    self.find("multiple_of", format!("it works on a grid of {whole} pixels"));
                    if let Some(found) = self.field(size, whole, &reading, level, scale)? {
                        field = field.max(found);
                    }
                }
                manifest.receptive_field = Some(field);
                self.find(
                    "receptive_field",
                    format!("a change of one pixel reaches {field} pixels far, measured"),
                );
            }
            None => self.find(
                "name",
                "no receptive field: its output changes with an image's place, so tiles are blended over their seams",
            ),
        }
        Ok(())
    }

    /// How far changes of a pixel reach, in pixels of the input. `None` if the network does not take the
    /// size.
    fn field(
        &mut self,
        size: [usize; 2],
        multiple: usize,
        reading: &Reading,
        level: f64,
        scale: usize,
    ) -> Result<Option<usize>> {
        let [width, height] = size;
        let phases: Vec<usize> = match multiple {
            1 => vec![0],
            2..=8 => (0..multiple).collect(),
            _ => vec![0, 1, multiple / 2, multiple - 1],
        };
        let mut reach = 0;
        for picture in [Picture::noise(size), Picture::photograph(size, [0, 0])] {
            let Some(base) = self.run(&picture, reading, level)? else { return Ok(None) };
            let (base, [out_width, _]) = self.planes(base)?;
            let threshold = unequal(&base);
            for &phase in &phases {
                let (x, y) = (
                    (width / 2) / multiple * multiple + phase,
                    (height / 2) / multiple * multiple + phase,
                );
                let (x, y) = (x.min(width - 1), y.min(height - 1));
                let mut poked = picture.clone();
                for plane in poked.planes.chunks_exact_mut(width * height) {
                    let value = &mut plane[y * width + x];
                    *value = if *value < 0.5 { 1.0 } else { 0.0 };
                }
                let Some(changed) = self.run(&poked, reading, level)? else { return Ok(None) };
                let (changed, _) = self.planes(changed)?;
                let area = (out_width * height * scale).max(1);
                for (i, _) in base
                    .iter()
                    .zip(&changed)
                    .enumerate()
                    // A NaN counts as a change.
                    .filter(|(_, (a, b))| !((*a - *b).abs() <= threshold))
                {
                    let (row, column) = ((i % area) / out_width / scale, i % out_width / scale);
                    reach = reach.max(row.abs_diff(y)).max(column.abs_diff(x));
                }
            }
        }
        Ok(Some(reach))
    }

    /// The smallest shift of an image that only shifts the output, if one of them does.
    fn grid(
        &mut self,
        size: [usize; 2],
        field: usize,
        reading: &Reading,
        level: f64,
        scale: usize,
    ) -> Result<Option<usize>> {
        let [width, height] = size;
        let Some(base) = self.run(&Picture::photograph(size, [0, 0]), reading, level)? else {
            return Ok(None);
        };
        let (base, [out_width, out_height]) = self.planes(base)?;
        let threshold = 100.0 * unequal(&base);
        let mut shift = 1;
        while field + shift + 1 < width.min(height) / 2 {
            let shifted = Picture::photograph(size, [shift, shift]);
            let Some(moved) = self.run(&shifted, reading, level)? else { return Ok(None) };
            let (moved, _) = self.planes(moved)?;
            let inside = |side: usize| scale * (field + 1)..scale * (side - field - shift - 1);
            let by = scale * shift;
            let is_equal = (0..self.channels).all(|plane| {
                let at = |x: usize, y: usize| (plane * out_height + y) * out_width + x;
                inside(height).all(|y| {
                    inside(width)
                        .all(|x| (base[at(x + by, y + by)] - moved[at(x, y)]).abs() <= threshold)
                })
            });
            if is_equal {
                return Ok(Some(shift));
            }
            shift *= 2;
        }
        Ok(None)
    }

    /// The manifest before values and distances are known.
    fn manifest(&mut self, task: Task, scale: usize, multiple_of: usize) -> Manifest {
        let said = self.said;
        let is_sampled = matches!(task, Task::Generate | Task::Classifier) || self.is_sampled();
        // A network of one channel restores the luma of an image with colours.
        let is_luma = self.channels == 1
            && !is_sampled
            && said.colors.is_none_or(|colors| colors == Colors::Luma)
            && said.channels.is_none_or(|channels| channels == 3);
        if is_luma && said.colors.is_none() {
            self.find("colors", "it has one channel, so it restores luma, and chroma is kept");
        }
        let name = |port: &Option<Port>| port.as_ref().map(|port| port.name.clone());
        let (mut sample, mut condition) = (name(&self.roles.sample), name(&self.roles.condition));
        // What enlarges an image by itself has no sample.
        if task == Task::Upscale && scale > 1 && condition.is_none() {
            (condition, sample) = (sample, None);
        }
        let (mut sigma, mut timestep) = (name(&self.roles.sigma), name(&self.roles.timestep));
        if self.has_sigma_behind {
            sigma.clone_from(&sample);
        }
        let is_number = self.roles.sigma.as_ref().is_some_and(Port::is_number);
        if is_sampled && timestep.is_none() && is_number {
            timestep = sigma.take();
        }
        let is_byte = self.image.element == Element::U8;
        let range = said.range.unwrap_or(if is_byte { [0.0, 255.0] } else { [0.0, 1.0] });
        Manifest {
            name: String::new(),
            version: "1".into(),
            task,
            prediction: said.prediction.unwrap_or(Prediction::Denoised),
            channels: if is_luma { 3 } else { self.channels },
            layout: Layout::Full,
            range,
            output_range: said.output_range,
            mean: said.mean.clone(),
            std: said.std.clone(),
            axes: self.axes,
            colors: if is_luma { Colors::Luma } else { said.colors.unwrap_or_default() },
            residual: said.residual.unwrap_or_default(),
            scale: if task == Task::Upscale { said.scale.unwrap_or(scale) } else { 1 },
            multiple_of,
            receptive_field: said.receptive_field,
            bytes_per_pixel: None,
            parameters: None,
            licence: crate::model::UNKNOWN_LICENCE.into(),
            description: format!("Imported network to {task}"),
            training: String::new(),
            size: self.size,
            frames: self.frames,
            states: self
                .roles
                .states
                .iter()
                .map(|[taken, given]| State {
                    input: taken.name.clone(),
                    output: given.name.clone(),
                    divisor: self.divisor,
                })
                .collect(),
            classes: said.classes,
            null_class: said.null_class,
            sigma: said.sigma_range.map(|[min, max]| SigmaRange { min, max, mixed: false }),
            noise_level: NoiseLevel {
                factor: said.sigma_factor.unwrap_or(1.0),
                scale: said.sigma_scale,
            },
            schedule: said.schedule.as_ref().map(|schedule| schedule.keys.clone()),
            decoder: None,
            inputs: InputNames {
                sample,
                sigma,
                timestep,
                condition,
                class: name(&self.roles.class),
                neighbours: self.roles.neighbours.iter().map(|port| port.name.clone()).collect(),
                mask: name(&self.roles.mask),
                known: name(&self.roles.known),
            },
            constants: said.constants.clone(),
            outputs: OutputNames { prediction: self.output.name.clone(), log_probability: None },
            defaults: Defaults {
                steps: said.steps.unwrap_or(1),
                sampler: said.sampler.or(said.schedule.as_ref().and_then(|it| it.sampler)),
                guidance_scale: None,
            },
            files: std::collections::BTreeMap::new(),
            check: None,
        }
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
        findings.push(Finding { key: "outputs", text });
    }
    Ok(image.clone())
}

/// The difference from which values of an output count as unequal.
fn unequal(values: &[f32]) -> f32 {
    let largest = values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    1e-6 * largest.max(1e-3)
}

fn lcm(a: usize, b: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    a / gcd(a, b).max(1) * b
}
