//! Evaluations of a graph at any shape, from its declarations alone, for detecting its properties.

use std::fmt::Debug;
use std::sync::Arc;

use half::f16;
use ort::session::{Session, SessionInputValue};
use ort::value::{
    DynTensor, Outlet, PrimitiveTensorElementType, Tensor, TensorElementType, ValueType,
};

use super::runtime::Runtime;
use super::session::{ModelSource, SessionOptions, build_plain, refused};
use super::watch::{Ended, Watched, took_too_long};
use crate::error::{Error, Result};

/// The element type of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// 64-bit floating point.
    F64,
    /// Bytes.
    U8,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// True or false.
    Bool,
    /// Any other type.
    Other,
}

impl Element {
    fn of(element: TensorElementType) -> Self {
        match element {
            TensorElementType::Float32 => Self::F32,
            TensorElementType::Float16 => Self::F16,
            TensorElementType::Float64 => Self::F64,
            TensorElementType::Uint8 => Self::U8,
            TensorElementType::Int32 => Self::I32,
            TensorElementType::Int64 => Self::I64,
            TensorElementType::Bool => Self::Bool,
            _ => Self::Other,
        }
    }

    /// Whether image tensors may have this type.
    pub fn is_of_images(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::U8)
    }

    /// Whether timesteps and classes may have this type, as integers.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::I32 | Self::I64)
    }
}

/// An input or output of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name.
    pub name: String,
    /// The element type.
    pub element: Element,
    /// The declared shape, -1 for a free axis; empty for a scalar and for a value that is not a
    /// tensor.
    pub shape: Vec<i64>,
    /// Type and shape as ONNX Runtime writes them.
    pub text: String,
}

impl Port {
    pub(super) fn of(outlet: &Outlet) -> Self {
        let (element, shape) = match outlet.dtype() {
            ValueType::Tensor { ty, shape, .. } => (Element::of(*ty), shape.to_vec()),
            _ => (Element::Other, Vec::new()),
        };
        let text = outlet.dtype().to_string();
        Self { name: outlet.name().to_owned(), element, shape, text }
    }

    /// Whether it is a single number without axes.
    pub fn is_scalar(&self) -> bool {
        self.shape.is_empty() && self.element != Element::Other
    }

    /// The declared shape with the axes of batch and channels that an image may lack; none for
    /// other ranks than 2 to 4.
    pub fn rank_4(&self) -> Option<[i64; 4]> {
        super::interface::rank_4(&self.shape)
    }

    /// Whether it holds one number for each image of a batch.
    pub fn is_number(&self) -> bool {
        super::interface::is_number(&self.shape)
    }
}

/// The values of an input.
#[derive(Clone, Debug)]
pub struct Feed<'a> {
    /// The input.
    pub port: &'a Port,
    /// The shape of the tensor.
    pub shape: Vec<usize>,
    /// Its values in order, or one for all elements.
    pub values: &'a [f32],
}

/// A session of a graph whose inputs accept any shape.
#[derive(Debug)]
pub struct ProbeSession {
    session: Session,
    model: String,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Why the last evaluation failed.
    problem: Option<String>,
    watched: Arc<Watched>,
    // The environment has to outlive the session.
    _runtime: Arc<Runtime>,
}

impl ProbeSession {
    /// Loads a graph. `model` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Model`] when ONNX Runtime does not accept it.
    pub fn open(
        runtime: &Arc<Runtime>,
        model: &str,
        source: ModelSource<'_>,
        options: SessionOptions,
    ) -> Result<Self> {
        let session = build_plain(runtime, source, options)
            .map_err(|cause| refused(model, options, cause))?;
        let (inputs, outputs) = (
            session.inputs().iter().map(Port::of).collect(),
            session.outputs().iter().map(Port::of).collect(),
        );
        let watched = Watched::new().map_err(|cause| {
            Error::model_from(model, "ONNX Runtime has no options for its runs", cause)
        })?;
        let (model, runtime) = (model.to_owned(), Arc::clone(runtime));
        Ok(Self { session, model, inputs, outputs, problem: None, watched, _runtime: runtime })
    }

    /// The inputs that the graph declares.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The outputs that the graph declares.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Why the last evaluation failed, if one did.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Evaluates the graph and returns the shape and the values of `output`. `None` if it rejects
    /// inputs of these shapes.
    ///
    /// # Errors
    /// [`Error::Evaluation`] when the evaluation takes longer than its time limit,
    /// [`Error::Interrupted`] when it was stopped.
    pub fn run(
        &mut self,
        feeds: &[Feed<'_>],
        output: &str,
    ) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let Self { session, watched, model, problem, .. } = self;
        let inputs: ort::Result<Vec<(String, SessionInputValue<'_>)>> = feeds
            .iter()
            .map(|feed| Ok((feed.port.name.clone(), SessionInputValue::from(feed.tensor()?))))
            .collect();
        let run = watched
            .begin()
            .and(inputs)
            .and_then(|inputs| session.run_with_options(inputs, &watched.options));
        let found = run.and_then(|outputs| {
            let value = outputs
                .get(output)
                .ok_or_else(|| ort::Error::new("the graph has no such output"))?;
            values_of(value)
        });
        match (watched.end(), found) {
            (_, Ok(found)) => Ok(Some(found)),
            (Some(Ended::Stopped), _) => Err(Error::Interrupted),
            (Some(Ended::Late(limit)), Err(cause)) => Err(took_too_long(model, limit, cause)),
            (None, Err(cause)) => {
                *problem = Some(cause.message().to_owned());
                Ok(None)
            }
        }
    }
}

impl Feed<'_> {
    fn tensor(&self) -> ort::Result<DynTensor> {
        // A port may lack the axes of batch and channels.
        let spare = match self.port.shape.len() {
            rank @ (2 | 3) => self.shape.len().saturating_sub(rank),
            _ => 0,
        };
        let shape = self.shape[spare..].to_vec();
        let element = match self.port.element {
            Element::Bool | Element::Other => Element::F32,
            known => known,
        };
        let count = shape.iter().product();
        tensor_of(element, shape, self.values.iter().copied().cycle().take(count))
    }
}

/// A tensor of these values in order, converted to this type.
pub(super) fn tensor_of(
    element: Element,
    shape: Vec<usize>,
    values: impl Iterator<Item = f32>,
) -> ort::Result<DynTensor> {
    fn made<T: PrimitiveTensorElementType + Debug + Clone + 'static>(
        shape: Vec<usize>,
        values: impl Iterator<Item = T>,
    ) -> ort::Result<DynTensor> {
        Ok(Tensor::from_array((shape, values.collect::<Vec<T>>()))?.upcast())
    }
    match element {
        Element::F32 => made(shape, values),
        Element::F16 => made(shape, values.map(f16::from_f32)),
        Element::F64 => made(shape, values.map(f64::from)),
        Element::U8 => made(shape, values.map(|value| value.round() as u8)),
        Element::I32 => made(shape, values.map(|value| value as i32)),
        Element::I64 => made(shape, values.map(|value| value as i64)),
        Element::Bool => made(shape, values.map(|value| value != 0.0)),
        Element::Other => Err(ort::Error::new("Eddy cannot fill an input of its type")),
    }
}

/// The shape and the values of an output.
pub(super) fn values_of(value: &ort::value::DynValue) -> ort::Result<(Vec<usize>, Vec<f32>)> {
    let sides = |shape: &[i64]| {
        shape.iter().map(|&length| usize::try_from(length).unwrap_or_default()).collect()
    };
    if let Ok((shape, values)) = value.try_extract_tensor::<f16>() {
        return Ok((sides(shape), values.iter().map(|value| value.to_f32()).collect()));
    }
    if let Ok((shape, values)) = value.try_extract_tensor::<u8>() {
        return Ok((sides(shape), values.iter().map(|value| f32::from(*value)).collect()));
    }
    let (shape, values) = value.try_extract_tensor::<f32>()?;
    Ok((sides(shape), values.to_vec()))
}
