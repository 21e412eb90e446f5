//! The inputs and outputs that a network's graph must have, their names, and the check that it has
//! them.

use std::collections::BTreeMap;

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

use super::Shape;
use super::buffer::Scalar;
use crate::error::{Error, Result};

/// The names of the inputs and outputs in a network's graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The noisy sample, float `[B, C, H, W]`. A decoder has none: its only input is the condition.
    pub sample: Option<String>,
    /// The sigma map, float `[B, sigma_planes, H, W]`, if the network takes one.
    pub sigma: Option<String>,
    /// Planes of the sigma map: 1, or 2 for luma and chroma.
    pub sigma_planes: usize,
    /// The scalar noise level, if the network takes one: integer or float, a scalar, `[1]` or `[B]`.
    pub timestep: Option<String>,
    /// The condition, float `[B, C', H / scale, W / scale]`, if the network takes one. If it has the
    /// name of the sample, its channels follow the sample's in one tensor, `[1, C + C', H, W]`.
    pub condition: Option<String>,
    /// Channels of the condition; by default as many as the sample's.
    pub condition_channels: Option<usize>,
    /// The class of each sample, int64 `[B]`, if the network takes one.
    pub class: Option<String>,
    /// How many times larger the sample is than the condition along each axis; 1 without a condition.
    pub scale: usize,
    /// The output, float `[B, C, H, W]`.
    pub output: String,
    /// Channels of the sample, if the model declares them.
    pub channels: Option<usize>,
    /// Whether sample, map and output are float16 rather than float32, if the model declares it.
    pub half: Option<bool>,
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
            output: String::new(),
            channels: None,
            half: None,
        }
    }
}

impl Interface {
    /// The number of channels of the condition for a sample of `channels`.
    pub(super) fn condition_channels(&self, channels: usize) -> usize {
        self.condition_channels.unwrap_or(channels)
    }

    /// How many of the sample's channels belong to the condition; they come last.
    pub(super) fn concat_channels(&self, channels: usize) -> usize {
        if self.is_concatenated() { self.condition_channels(channels) } else { 0 }
    }

    /// Whether sample and condition are one tensor.
    pub(super) fn is_concatenated(&self) -> bool {
        self.condition.is_some() && self.condition == self.sample
    }

    /// The condition, if it is a separate tensor.
    pub(super) fn own_condition(&self) -> Option<&String> {
        self.condition.as_ref().filter(|_| !self.is_concatenated())
    }
}

/// Element types and ranks, as the graph declares them.
#[derive(Clone, Debug)]
pub(super) struct Types {
    pub(super) sample: Option<TensorElementType>,
    pub(super) sigma: Option<TensorElementType>,
    pub(super) timestep: Option<(TensorElementType, Vec<i64>)>,
    /// The element type of the condition, if it is a separate tensor.
    pub(super) condition: Option<TensorElementType>,
    pub(super) output: TensorElementType,
    /// The declared shape of the sample, -1 for a free axis.
    pub(super) declared: Vec<i64>,
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
        let shapes = [
            [batch, channels + interface.concat_channels(channels), height, width],
            [batch, interface.sigma_planes, height, width],
            [batch, interface.condition_channels(channels), height / scale, width / scale],
        ];
        let mut sizes = BTreeMap::new();
        for (names, shape) in self.axes.iter().zip(shapes) {
            for (name, size) in names.iter().zip(shape).filter(|(name, _)| !name.is_empty()) {
                sizes
                    .entry(name.clone())
                    .or_insert_with(|| i64::try_from(size).unwrap_or(i64::MAX));
            }
        }
        sizes
    }

    pub(super) fn read(session: &Session, interface: &Interface, model: &str) -> Result<Self> {
        let inputs = session.inputs();
        let Interface { sample, sigma, timestep, class, .. } = interface;
        let condition = interface.own_condition();
        let known = [sample.as_ref(), sigma.as_ref(), timestep.as_ref(), condition, class.as_ref()];
        for outlet in inputs {
            if !known.iter().flatten().any(|name| *name == outlet.name()) {
                let expected: Vec<&str> =
                    known.iter().flatten().map(|name| name.as_str()).collect();
                let problem = format!(
                    "it has an input `{}` ({}) that nothing would fill; expected {}",
                    outlet.name(),
                    outlet.dtype(),
                    expected.join(", ")
                );
                return Err(Error::model(model, problem));
            }
        }
        let half = interface.half;
        let tensor = |name: &String| image(find(inputs, name, "input", model)?, half, model);
        let (sample, declared) = sample.as_ref().map(tensor).transpose()?.unzip();
        let declared = declared.unwrap_or_else(|| vec![-1; 4]);
        if let (Some(channels), Some(name)) = (interface.channels, &interface.sample)
            && let whole = channels + interface.concat_channels(channels)
            && declared[1] >= 0
            && usize::try_from(declared[1]) != Ok(whole)
        {
            let problem = format!(
                "its manifest says {whole} channels, its input `{name}` has {}",
                declared[1]
            );
            return Err(Error::model(model, problem));
        }
        let element = |name: &String| Ok(tensor(name)?.0);
        let (sigma, condition) =
            (sigma.as_ref().map(element).transpose()?, condition.map(element).transpose()?);
        let timestep = timestep
            .as_ref()
            .map(|name| scalar(find(inputs, name, "input", model)?, model))
            .transpose()?;
        if let Some(name) = class {
            labels(find(inputs, name, "input", model)?, model)?;
        }
        let (output, given) =
            image(find(session.outputs(), &interface.output, "output", model)?, half, model)?;
        let behind =
            usize::try_from(declared[1]).map_or(0, |whole| interface.concat_channels(whole / 2));
        let own = declared[1] - i64::try_from(behind).unwrap_or(0);
        if own >= 0 && given[1] >= 0 && own != given[1] {
            let problem = format!(
                "its output `{}` has {} channels and its sample {own}; one that is told something beside the sample needs a package \
                 that says what, which `eddy import` makes",
                interface.output, given[1]
            );
            return Err(Error::model(model, problem));
        }
        let named =
            [interface.sample.as_ref(), interface.sigma.as_ref(), interface.own_condition()];
        let axes = named.map(|name| {
            axes(inputs.iter().find(|outlet| Some(outlet.name()) == name.map(String::as_str)))
        });
        Ok(Self { sample, sigma, timestep, condition, output, declared, axes })
    }
}

/// The names of an input's axes.
fn axes(outlet: Option<&Outlet>) -> Vec<String> {
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

/// The element type and declared shape of an image input or output, checked against `half`.
fn image(
    outlet: &Outlet,
    half: Option<bool>,
    model: &str,
) -> Result<(TensorElementType, Vec<i64>)> {
    let expected = match half {
        None => "float32 or float16",
        Some(true) => "float16",
        Some(false) => "float32",
    };
    match outlet.dtype() {
        ValueType::Tensor {
            ty: ty @ (TensorElementType::Float32 | TensorElementType::Float16),
            shape,
            ..
        } if shape.len() == 4
            && half.is_none_or(|half| half == (*ty == TensorElementType::Float16)) =>
        {
            Ok((*ty, shape.to_vec()))
        }
        other => {
            let problem = format!(
                "`{}` is {other}; expected a {expected} tensor of rank 4 (NCHW)",
                outlet.name()
            );
            Err(Error::model(model, problem))
        }
    }
}

/// The element type and declared shape of the noise level input.
fn scalar(outlet: &Outlet, model: &str) -> Result<(TensorElementType, Vec<i64>)> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } if Scalar::supports(*ty) && shape.len() <= 1 => {
            Ok((*ty, shape.to_vec()))
        }
        other => {
            let problem = format!(
                "`{}` is {other}; expected a scalar or a vector of int64, int32, float32, float16 or float64",
                outlet.name()
            );
            Err(Error::model(model, problem))
        }
    }
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
