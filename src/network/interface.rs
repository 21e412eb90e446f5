//! The inputs and outputs that a network's graph must have, their names, and the check that it has
//! them.

use std::collections::BTreeMap;

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

use super::Shape;
use super::buffer::{Buffer, Scalar};
use super::encoding::{Axes, Colors, Encoding, NoiseEncoding};
use crate::error::{Error, Result};
use crate::setting::INPUT;

/// The names of the inputs and outputs in a network's graph, and what they stand for. Absent ones
/// are `None` or empty, which is the default of each name; `output` is always required.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// The noisy sample, `[B, C, H, W]`. Decoders and feed-forward upscalers have none: their only
    /// input is the condition.
    pub sample: Option<String>,
    /// Sigma, if the network takes it: a map `[B, sigma_planes, H, W]`, or one number per image in
    /// a tensor of any rank. If it has the name of the sample, the map's planes follow the
    /// sample's channels in one tensor.
    pub sigma: Option<String>,
    /// Planes of the sigma map: 1, or 2 for luma and chroma. Default: 1.
    pub sigma_planes: usize,
    /// The scalar noise level, if the network takes one: integer or float, a scalar, `[1]` or
    /// `[B]`.
    pub timestep: Option<String>,
    /// The condition, float `[B, C', H / scale, W / scale]`, if the network takes one. If it has
    /// the name of the sample, its channels follow the sample's in one tensor, `[1, C + C', H, W]`.
    pub condition: Option<String>,
    /// Channels of the condition. Default: as many as the sample's.
    pub condition_channels: Option<usize>,
    /// The class of each sample, int64 `[B]`, if the network takes one.
    pub class: Option<String>,
    /// How many times larger the sample is than the condition along each axis. Default: 1,
    /// as without a condition.
    pub scale: usize,
    /// Frames of a video in one evaluation, with the sample in the middle. The others are the
    /// condition. They are one tensor, in order, `[B, frames C, H, W]` or `[B,
    /// frames, C, H, W]`, unless they are named. Default: 1, for images.
    pub frames: usize,
    /// The names of the frames before and after the sample, in order, where each has its own
    /// tensor.
    pub neighbors: Vec<String>,
    /// Recurrent states, which are carried from one frame to the next. Default: none.
    pub states: Vec<RecurrentState>,
    /// Pixels that convolutions without padding take off each side of an input image. The input is
    /// mirrored beyond its edges by as many. Default: 0.
    pub border: usize,
    /// The output, `[B, C, H, W]`. Further channels, such as a learned variance, are not used.
    pub output: String,
    /// Channels of the sample, against which the graph is checked. Default: those of the graph.
    pub channels: Option<usize>,
    /// Whether sample, map and output are float16 rather than float32 or uint8, against which the
    /// graph is checked. Default: as in the graph.
    pub half: Option<bool>,
    /// How the sample and the condition represent an image. Default: RGB planes, unscaled.
    pub encoding: Encoding,
    /// How the output represents an image. Default: RGB planes, unscaled.
    pub output_encoding: Encoding,
    /// Whether the output is the noisy image less the clean one (residual learning, Zhang et al.
    /// 2017, DnCNN). Default: false.
    pub residual: bool,
    /// How sigma and the scalar noise level are encoded. Default: as they are.
    pub noise_encoding: NoiseEncoding,
    /// The values of constant inputs: one number for all elements, or each element. Default: none.
    pub constants: BTreeMap<String, Vec<f64>>,
    /// Values of some of these that mean no condition. Default: none.
    pub unconditional: BTreeMap<String, Vec<f64>>,
}

/// An output of a recurrent network that is an input at the next frame; zeros at the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecurrentState {
    /// The name of the input.
    pub input: String,
    /// The name of the output.
    pub output: String,
    /// The state is smaller than the sample by this factor, along each axis.
    pub divisor: usize,
}

impl Default for Interface {
    /// No names; one plane of sigma, and no factor between condition and sample.
    fn default() -> Self {
        Self {
            sample: None,
            sigma: None,
            sigma_planes: 1,
            timestep: None,
            condition: None,
            condition_channels: None,
            class: None,
            scale: 1,
            frames: 1,
            neighbors: Vec::new(),
            states: Vec::new(),
            border: 0,
            output: String::new(),
            channels: None,
            half: None,
            encoding: Encoding::default(),
            output_encoding: Encoding::default(),
            residual: false,
            noise_encoding: NoiseEncoding::default(),
            constants: BTreeMap::new(),
            unconditional: BTreeMap::new(),
        }
    }
}

impl Interface {
    /// The number of channels of the condition for a sample of `channels`.
    pub(super) fn condition_channels(&self, channels: usize) -> usize {
        if self.frames > 1 {
            return (self.frames - 1) * channels;
        }
        self.condition_channels.unwrap_or(channels)
    }

    /// How many of the tensor's channels belong to sigma and to the condition; they come last.
    pub(super) fn concat_channels(&self, channels: usize) -> usize {
        let sigma = if self.has_concatenated_sigma() { self.sigma_planes } else { 0 };
        sigma + if self.is_concatenated() { self.condition_channels(channels) } else { 0 }
    }

    /// Whether sample and condition are one tensor.
    pub(super) fn is_concatenated(&self) -> bool {
        self.has_stacked_frames() || (self.condition.is_some() && self.condition == self.sample)
    }

    /// Whether the frames of a video are one tensor.
    pub(super) fn has_stacked_frames(&self) -> bool {
        self.frames > 1 && self.neighbors.is_empty()
    }

    /// Whether the sigma map follows the sample in one tensor.
    pub(super) fn has_concatenated_sigma(&self) -> bool {
        self.sigma.is_some() && self.sigma == self.sample
    }

    /// The condition, if it is a separate tensor.
    pub(super) fn own_condition(&self) -> Option<&String> {
        self.condition.as_ref().filter(|_| !self.is_concatenated())
    }

    /// Sigma, if it is a separate tensor.
    pub(super) fn own_sigma(&self) -> Option<&String> {
        self.sigma.as_ref().filter(|_| !self.has_concatenated_sigma())
    }

    /// Whether the result also depends on the sample's planes.
    pub(super) fn needs_sample(&self) -> bool {
        self.residual || self.output_encoding.colors == Colors::Luma
    }
}

/// The tensor of an image, as the graph declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ImageTensor {
    /// The element type.
    pub(super) element: TensorElementType,
    /// The number of axes: 4; 5 with one of frames; 3 without that of the batch, and 2 without
    /// that of the channels, too.
    pub(super) rank: usize,
}

/// The form of sigma in a separate tensor.
#[derive(Clone, Debug)]
pub(super) enum SigmaForm {
    /// A map, and how many of its channels hold the same.
    Map(ImageTensor, usize),
    /// One number per image, in a tensor of this element type and declared shape.
    Number(TensorElementType, Vec<i64>),
}

/// Element types and ranks, as the graph declares them.
#[derive(Clone, Debug)]
pub(super) struct Types {
    pub(super) sample: Option<ImageTensor>,
    /// Sigma, if it is a separate tensor.
    pub(super) sigma: Option<SigmaForm>,
    pub(super) timestep: Option<(TensorElementType, Vec<i64>)>,
    /// The condition, if it is a separate tensor.
    pub(super) condition: Option<ImageTensor>,
    pub(super) output: ImageTensor,
    /// How many channels after the sample hold the same plane of sigma.
    pub(super) sigma_copies: usize,
    /// Channels of the output, if the graph declares them.
    pub(super) output_channels: Option<usize>,
    /// The declared shape of the sample in the order of NCHW, -1 for a free axis.
    pub(super) declared: Vec<i64>,
    /// Element types and declared shapes of the constants.
    pub(super) constants: Vec<(String, TensorElementType, Vec<i64>)>,
    /// Whether the frames of a video are a separate axis.
    pub(super) is_split: bool,
    /// Element types and declared shapes of the states.
    pub(super) states: Vec<(TensorElementType, Vec<i64>)>,
    /// The names of the free axes of the sample, the map and the condition.
    axes: [Vec<String>; 3],
}

impl Types {
    /// The sizes of the named free axes for a batch of this shape.
    pub(super) fn sizes(
        &self,
        interface: &Interface,
        [batch, channels, height, width]: Shape,
    ) -> BTreeMap<String, i64> {
        let scale = interface.scale.max(1);
        let padded = |side: usize| side + 2 * interface.border;
        let small = [height, width].map(|side| padded(side / scale));
        let [height, width] = [height, width].map(padded);
        let shapes = [
            [batch, channels + self.sigma_channels(interface, channels), height, width],
            [batch, interface.sigma_planes, height, width],
            [batch, interface.condition_channels(channels), small[0], small[1]],
        ];
        let order = match interface.encoding.axes {
            Axes::Nchw => [0, 1, 2, 3],
            Axes::Nhwc => [0, 2, 3, 1],
        };
        let mut sizes = BTreeMap::new();
        for (names, shape) in self.axes.iter().zip(shapes) {
            let shape = order.map(|axis| shape[axis]);
            for (name, size) in names.iter().zip(shape).filter(|(name, _)| !name.is_empty()) {
                sizes
                    .entry(name.clone())
                    .or_insert_with(|| i64::try_from(size).unwrap_or(i64::MAX));
            }
        }
        sizes
    }

    /// How many of the tensor's channels belong to sigma and to the condition; they come last.
    pub(super) fn sigma_channels(&self, interface: &Interface, channels: usize) -> usize {
        interface.concat_channels(channels) + self.sigma_copies - 1
    }

    pub(super) fn read(session: &Session, interface: &Interface, model: &str) -> Result<Self> {
        let inputs = session.inputs();
        let Interface { sample, timestep, class, .. } = interface;
        let (condition, sigma) = (interface.own_condition(), interface.own_sigma());
        let known = [sample.as_ref(), sigma, timestep.as_ref(), condition, class.as_ref()];
        let is_known = |name: &str| {
            known.iter().flatten().any(|known| *known == name)
                || interface.constants.contains_key(name)
                || interface.neighbors.iter().any(|known| known == name)
                || interface.states.iter().any(|state| state.input == name)
        };
        for outlet in inputs {
            if !is_known(outlet.name()) {
                let named: Vec<&str> = known.iter().flatten().map(|name| name.as_str()).collect();
                let named = if named.is_empty() { "none".into() } else { named.join(", ") };
                let problem = format!(
                    "it has an input `{}` ({}) of unknown role; the inputs with a role are: \
                     {named}. {INPUT} gives it a value",
                    outlet.name(),
                    outlet.dtype(),
                );
                return Err(Error::model(model, problem));
            }
        }
        let (half, axes) = (interface.half, interface.encoding.axes);
        let tensor = |name: &String| image(find(inputs, name, "input", model)?, half, axes, model);
        let frames = interface.frames;
        let (sample, declared) = match sample {
            Some(name) if interface.has_stacked_frames() => {
                stack(find(inputs, name, "input", model)?, half, axes, frames, model).map(Some)?
            }
            _ => sample.as_ref().map(tensor).transpose()?,
        }
        .unzip();
        let is_split = interface.has_stacked_frames()
            && interface.sample.as_ref().is_some_and(|name| {
                inputs.iter().any(|outlet| outlet.name() == name && rank(outlet) == 5)
            });
        let mut states = Vec::new();
        for state in &interface.states {
            find(session.outputs(), &state.output, "output", model)?;
            states.push(state_shape(find(inputs, &state.input, "input", model)?, model)?);
        }
        for name in &interface.neighbors {
            let (element, _) = tensor(name)?;
            if Some(element) != sample {
                let problem =
                    format!("its frames `{name}` and the sample differ in their element types");
                return Err(Error::model(model, problem));
            }
        }
        let mut sigma_copies = 1;
        if let (Some(channels), Some(name), Some(declared)) =
            (interface.channels, &interface.sample, &declared)
            && let own = interface.encoding.tensor_channels(channels)
            && let whole = own + interface.concat_channels(channels)
            && let Ok(found) = usize::try_from(declared[1])
            && found != whole
        {
            if interface.has_concatenated_sigma() && found == 2 * own {
                sigma_copies = own;
            } else {
                let problem = format!(
                    "its manifest declares {whole} channels; its input `{name}` has {}",
                    declared[1]
                );
                return Err(Error::model(model, problem));
            }
        }
        let planes = interface.sigma_planes;
        let sigma = sigma
            .map(|name| sigma_form(find(inputs, name, "input", model)?, half, axes, planes, model))
            .transpose()?;
        let (condition, small) = condition.map(tensor).transpose()?.unzip();
        // Without a sample, the network's sizes are those of its condition, on the output's grid.
        let scale = i64::try_from(interface.scale.max(1)).unwrap_or(i64::MAX);
        let border = 2 * i64::try_from(interface.border).unwrap_or_default();
        let within = |mut declared: Vec<i64>| {
            declared.iter_mut().skip(2).filter(|side| **side > 0).for_each(|side| *side -= border);
            declared
        };
        let enlarged = |small: Vec<i64>| match small.as_slice() {
            &[batch, _, height, width] => {
                let large = |side: i64| if side < 0 { -1 } else { side.saturating_mul(scale) };
                vec![batch, -1, large(height), large(width)]
            }
            _ => vec![-1; 4],
        };
        let declared = declared.map(within).or_else(|| small.map(within).map(enlarged));
        let declared = declared.unwrap_or_else(|| vec![-1; 4]);
        let timestep = timestep
            .as_ref()
            .map(|name| scalar(find(inputs, name, "input", model)?, model))
            .transpose()?;
        if let Some(name) = class {
            labels(find(inputs, name, "input", model)?, model)?;
        }
        let constants = interface
            .constants
            .iter()
            .map(|(name, values)| constant(find(inputs, name, "input", model)?, values, model));
        let constants = constants.collect::<Result<_>>()?;
        for (name, values) in &interface.unconditional {
            constant(find(inputs, name, "input", model)?, values, model)?;
        }
        let outlet = find(session.outputs(), &interface.output, "output", model)?;
        let (output, given) = image(outlet, half, interface.output_encoding.axes, model)?;
        let output_channels = usize::try_from(given[1]).ok();
        let whole = usize::try_from(declared[1]).ok();
        let own = match (interface.channels, whole) {
            (Some(channels), _) => Some(interface.output_encoding.tensor_channels(channels)),
            (None, Some(whole)) => Some(whole - interface.concat_channels(whole / 2).min(whole)),
            (None, None) => None,
        };
        let is_exact = interface.channels.is_none();
        if let (Some(own), Some(given)) = (own, output_channels)
            && (given < own || (is_exact && given != own))
        {
            let problem = format!(
                "its output `{}` has {given} channels and its sample {own}; a network with further \
                 channels in its sample needs a package that names them, which `eddy import` makes",
                interface.output
            );
            return Err(Error::model(model, problem));
        }
        let named = [interface.sample.as_ref(), interface.own_sigma(), interface.own_condition()];
        let axes = named.map(|name| {
            axes_of(inputs.iter().find(|outlet| Some(outlet.name()) == name.map(String::as_str)))
        });
        Ok(Self {
            sample,
            sigma,
            timestep,
            condition,
            output,
            output_channels,
            sigma_copies,
            declared,
            constants,
            is_split,
            states,
            axes,
        })
    }
}

/// The names of an input's axes.
fn axes_of(outlet: Option<&Outlet>) -> Vec<String> {
    match outlet.map(Outlet::dtype) {
        Some(ValueType::Tensor { dimension_symbols, .. }) => dimension_symbols.to_vec(),
        _ => Vec::new(),
    }
}

fn find<'a>(outlets: &'a [Outlet], name: &str, way: &str, model: &str) -> Result<&'a Outlet> {
    outlets.iter().find(|outlet| outlet.name() == name).ok_or_else(|| {
        let present: Vec<&str> = outlets.iter().map(Outlet::name).collect();
        Error::model(
            model,
            format!("it has no {way} named `{name}`; it has {}", present.join(", ")),
        )
    })
}

/// The tensor of an image input or output, checked against `half`, and its declared shape in the
/// order of NCHW.
fn image(
    outlet: &Outlet,
    half: Option<bool>,
    axes: Axes,
    model: &str,
) -> Result<(ImageTensor, Vec<i64>)> {
    let expected = match half {
        None => "float32, float16 or uint8",
        Some(true) => "float16",
        Some(false) => "float32 or uint8",
    };
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. }
            if let Some([batch, a, b, c]) = rank_4(shape)
                && Buffer::supports(*ty)
                && half.is_none_or(|half| half == (*ty == TensorElementType::Float16)) =>
        {
            let shape = match axes {
                Axes::Nchw => vec![batch, a, b, c],
                Axes::Nhwc => vec![batch, c, a, b],
            };
            Ok((ImageTensor { element: *ty, rank: rank(outlet) }, shape))
        }
        other => {
            let problem = format!(
                "`{}` is {other}; expected a {expected} tensor of rank 4 ({}), or less without a batch",
                outlet.name(),
                axes.name().to_uppercase()
            );
            Err(Error::model(model, problem))
        }
    }
}

/// A shape with the axes of batch and channels that it may lack.
pub(super) fn rank_4(shape: &[i64]) -> Option<[i64; 4]> {
    match *shape {
        [batch, a, b, c] => Some([batch, a, b, c]),
        [a, b, c] => Some([1, a, b, c]),
        [height, width] => Some([1, 1, height, width]),
        _ => None,
    }
}

fn rank(outlet: &Outlet) -> usize {
    match outlet.dtype() {
        ValueType::Tensor { shape, .. } => shape.len(),
        _ => 0,
    }
}

/// The element type and declared shape of the frames of a video in one tensor, as if they were
/// channels.
fn stack(
    outlet: &Outlet,
    half: Option<bool>,
    axes: Axes,
    frames: usize,
    model: &str,
) -> Result<(ImageTensor, Vec<i64>)> {
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return image(outlet, half, axes, model);
    };
    let &[batch, count, channels, height, width] = &shape[..] else {
        return image(outlet, half, axes, model);
    };
    if axes != Axes::Nchw || !Buffer::supports(*ty) {
        let problem = format!(
            "`{}` is {}; expected frames as [batch, frames, channels, height, width] of float32, \
             float16 or uint8",
            outlet.name(),
            outlet.dtype()
        );
        return Err(Error::model(model, problem));
    }
    if count >= 0 && usize::try_from(count) != Ok(frames) {
        let problem =
            format!("`{}` takes {count} frames; its manifest declares {frames}", outlet.name());
        return Err(Error::model(model, problem));
    }
    let all = if channels < 0 { -1 } else { channels * i64::try_from(frames).unwrap_or(1) };
    Ok((ImageTensor { element: *ty, rank: 5 }, vec![batch, all, height, width]))
}

/// The element type and declared shape of a recurrent state.
fn state_shape(outlet: &Outlet, model: &str) -> Result<(TensorElementType, Vec<i64>)> {
    match outlet.dtype() {
        ValueType::Tensor {
            ty: ty @ (TensorElementType::Float32 | TensorElementType::Float16),
            shape,
            ..
        } if matches!(&shape[..], [_, channels, _, _] if *channels > 0)
            || shape.iter().skip(1).all(|&length| length > 0) =>
        {
            Ok((*ty, shape.to_vec()))
        }
        other => {
            let problem = format!(
                "its state `{}` is {other}; expected float32 or float16 of known sizes, or as \
                 [batch, channels, height, width] with known channels",
                outlet.name()
            );
            Err(Error::model(model, problem))
        }
    }
}

/// The form of a sigma input.
fn sigma_form(
    outlet: &Outlet,
    half: Option<bool>,
    axes: Axes,
    planes: usize,
    model: &str,
) -> Result<SigmaForm> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } if is_number(shape) && Scalar::supports(*ty) => {
            Ok(SigmaForm::Number(*ty, shape.to_vec()))
        }
        _ => image(outlet, half, axes, model).map(|(tensor, shape)| {
            let channels = usize::try_from(shape[1]).unwrap_or(planes);
            SigmaForm::Map(tensor, if planes == 1 { channels.max(1) } else { 1 })
        }),
    }
}

/// Whether a tensor of this declared shape has one value per image.
pub(super) fn is_number(shape: &[i64]) -> bool {
    match shape {
        [] | [_] => true,
        [_, rest @ ..] => rest.iter().all(|&length| length == 1),
    }
}

/// The element type and declared shape of the noise level input.
fn scalar(outlet: &Outlet, model: &str) -> Result<(TensorElementType, Vec<i64>)> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } if Scalar::supports(*ty) && is_number(shape) => {
            Ok((*ty, shape.to_vec()))
        }
        other => {
            let problem = format!(
                "`{}` is {other}; expected a scalar or a vector of int64, int32, float32, float16 \
                 or float64",
                outlet.name()
            );
            Err(Error::model(model, problem))
        }
    }
}

/// An input with constant values, which have to fit its declared shape.
fn constant(
    outlet: &Outlet,
    values: &[f64],
    model: &str,
) -> Result<(String, TensorElementType, Vec<i64>)> {
    let name = outlet.name();
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(Error::model(
            model,
            format!("`{name}` is {}; expected a tensor", outlet.dtype()),
        ));
    };
    if !Scalar::supports(*ty) {
        let problem = format!(
            "`{name}` is {}; {INPUT} fills int64, int32, float32, float16 and float64",
            outlet.dtype()
        );
        return Err(Error::model(model, problem));
    }
    let is_whole = matches!(*ty, TensorElementType::Int64 | TensorElementType::Int32);
    if let Some(value) = values.iter().find(|value| is_whole && value.fract() != 0.0) {
        let problem = format!(
            "`{name}` is {}, and {value} was given; expected whole numbers",
            outlet.dtype()
        );
        return Err(Error::model(model, problem));
    }
    // A free axis has the length 1, or the batch's if it is the first.
    let own: i64 = shape.iter().skip(1).map(|&length| length.max(1)).product();
    let first = shape.first().copied().unwrap_or(1);
    let fits = |count: i64| match count {
        1 => true,
        _ if first < 0 => count == own || (shape.len() == 1 && count > 0),
        _ => count == own.saturating_mul(first) || count == own,
    };
    if !i64::try_from(values.len()).is_ok_and(fits) {
        let problem = format!(
            "`{name}` is {}, and {} values were given; expected one for all elements, or one for \
             each",
            outlet.dtype(),
            values.len()
        );
        return Err(Error::model(model, problem));
    }
    Ok((name.to_owned(), *ty, shape.to_vec()))
}

/// Checks a class input.
fn labels(outlet: &Outlet, model: &str) -> Result<()> {
    match outlet.dtype() {
        ValueType::Tensor { ty: TensorElementType::Int64, shape, .. } if shape.len() == 1 => Ok(()),
        other => Err(Error::model(
            model,
            format!("`{}` is {other}; expected a vector of int64", outlet.name()),
        )),
    }
}
