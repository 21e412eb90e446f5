//! A graph with named tensors of any rank, for networks that are no image to image: text encoders,
//! networks with several conditions, autoencoders.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD, IxDyn};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynTensor, DynValue};

use super::optimized::OptimizedGraph;
use super::runtime::Runtime;
use super::session::{ModelSource, SessionOptions, build_graph, refused};
use super::trial::{Element, Port, tensor_of, values_of};
use super::watch::{Ended, Watched, took_too_long};
use crate::error::{Error, Result};
use crate::setting::{MAX_MEMORY, SIZE};

/// Values of inputs that are equal in all runs, by name.
#[derive(Debug, Default)]
pub struct ConstantInputs(BTreeMap<String, DynTensor>);

/// A session whose inputs and outputs are bound by name.
///
/// Tensors are `f32` on this side. Inputs are converted to the element type of the graph, any that
/// [`Element`] names; outputs must be `f32` or `f16`.
#[derive(Debug)]
pub struct TensorGraph {
    session: Session,
    model: String,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Inputs that are equal in all runs.
    constant: BTreeMap<String, DynTensor>,
    watched: Arc<Watched>,
    // The environment has to outlive the session.
    _runtime: Arc<Runtime>,
}

impl TensorGraph {
    /// Loads the graph in a file, whose weights may be in other files beside it. `model` is its
    /// name in errors.
    ///
    /// # Errors
    /// [`Error::Model`] when ONNX Runtime does not accept it.
    pub fn open(
        runtime: &Arc<Runtime>,
        model: &str,
        source: ModelSource<'_>,
        options: SessionOptions,
    ) -> Result<Self> {
        let session = build_graph(runtime, source, options, false)
            .map_err(|cause| refused(model, options, cause))?;
        Self::of(runtime, model, session)
    }

    /// Loads a graph that was saved after optimization. Its results are those of the original.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_optimized(
        runtime: &Arc<Runtime>,
        model: &str,
        optimized: &OptimizedGraph,
        options: SessionOptions,
    ) -> Result<Self> {
        let file = optimized.file();
        let session = build_graph(runtime, ModelSource::File(&file), options, true)
            .map_err(|cause| refused(model, options, cause))?;
        Self::of(runtime, model, session)
    }

    fn of(runtime: &Arc<Runtime>, model: &str, session: Session) -> Result<Self> {
        let inputs = session.inputs().iter().map(Port::of).collect();
        let outputs = session.outputs().iter().map(Port::of).collect();
        let watched = Watched::new().map_err(|cause| {
            Error::model_from(model, "ONNX Runtime has no options for its runs", cause)
        })?;
        Ok(Self {
            session,
            model: model.to_owned(),
            inputs,
            outputs,
            constant: BTreeMap::new(),
            watched,
            _runtime: Arc::clone(runtime),
        })
    }

    /// The name of the graph in errors.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The inputs that the graph declares.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The input of this name, if there is one.
    pub fn input(&self, name: &str) -> Option<&Port> {
        self.inputs.iter().find(|port| port.name == name)
    }

    /// The outputs that the graph declares.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Sets an input for all runs from now on.
    ///
    /// # Errors
    /// [`Error::Model`] when the graph has no such input, or one of another rank.
    pub fn set(&mut self, name: &str, value: ArrayViewD<'_, f32>) -> Result<()> {
        let port = self.port(name)?;
        let tensor = tensor(port, value).map_err(|cause| self.rejected(name, cause))?;
        self.constant.insert(name.to_owned(), tensor);
        Ok(())
    }

    /// Takes what was [`set`](Self::set), after which nothing is.
    pub fn take_constants(&mut self) -> ConstantInputs {
        ConstantInputs(std::mem::take(&mut self.constant))
    }

    /// Exchanges what was [`set`](Self::set) for `other`, which gets what was.
    pub fn swap_constants(&mut self, other: &mut ConstantInputs) {
        std::mem::swap(&mut self.constant, &mut other.0);
    }

    /// Evaluates the graph with these inputs, beside those that were [`set`](Self::set), and gives
    /// the values of `outputs` in that order.
    ///
    /// # Errors
    /// [`Error::Model`] when an input or output is missing, [`Error::Evaluation`] when the
    /// evaluation fails or takes too long, [`Error::Interrupted`] when it was stopped.
    pub fn run(
        &mut self,
        inputs: &[(&str, ArrayViewD<'_, f32>)],
        outputs: &[&str],
    ) -> Result<Vec<ArrayD<f32>>> {
        let mut feeds: Vec<(String, SessionInputValue<'_>)> = Vec::new();
        for (name, value) in inputs {
            let tensor = tensor(self.port(name)?, value.view())
                .map_err(|cause| self.rejected(name, cause))?;
            feeds.push(((*name).to_owned(), tensor.into()));
        }
        let Self { session, watched, model, constant, .. } = self;
        for (name, tensor) in constant.iter() {
            feeds.push((name.clone(), SessionInputValue::from(tensor)));
        }
        let run = watched.begin().and_then(|()| session.run_with_options(feeds, &watched.options));
        let found = run.and_then(|results| {
            let found = outputs.iter().map(|name| {
                let value = results
                    .get(*name)
                    .ok_or_else(|| ort::Error::new(format!("the graph has no output `{name}`")))?;
                array(value)
            });
            found.collect::<ort::Result<Vec<_>>>()
        });
        let cause = match (watched.end(), found) {
            (_, Ok(found)) => return Ok(found),
            (Some(Ended::Stopped), Err(_)) => return Err(Error::Interrupted),
            (Some(Ended::Late(limit)), Err(cause)) => {
                return Err(took_too_long(model, limit, cause));
            }
            (None, Err(cause)) => cause,
        };
        let problem = if super::session::is_out_of_memory(&cause) {
            format!("an evaluation ran out of memory; raise {MAX_MEMORY}, or lower {SIZE}")
        } else {
            "an evaluation failed; check size and conditions against those that it was exported \
             for"
            .to_owned()
        };
        Err(Error::Evaluation {
            problem: format!("model {model}: {problem}"),
            source: Some(Box::new(cause)),
        })
    }

    fn port(&self, name: &str) -> Result<&Port> {
        self.input(name).ok_or_else(|| {
            let present: Vec<&str> = self.inputs.iter().map(|port| port.name.as_str()).collect();
            let problem = format!("it has no input `{name}`; it has {}", present.join(", "));
            Error::model(&self.model, problem)
        })
    }

    fn rejected(&self, name: &str, cause: ort::Error) -> Error {
        Error::model_from(&self.model, format!("its input `{name}` cannot be filled"), cause)
    }
}

/// The tensor of these values that an input takes. A scalar input takes the first value.
fn tensor(port: &Port, value: ArrayViewD<'_, f32>) -> ort::Result<DynTensor> {
    let shape = if port.is_scalar() { Vec::new() } else { value.shape().to_vec() };
    if shape.len() != port.shape.len() || !fits(&port.shape, &shape) {
        let problem = format!("it is {}, and a tensor of {shape:?} was made for it", port.text);
        return Err(ort::Error::new(problem));
    }
    if port.element == Element::Other {
        let problem = format!("it is {}, which Eddy has no values for", port.text);
        return Err(ort::Error::new(problem));
    }
    let count = shape.iter().product();
    tensor_of(port.element, shape, value.iter().copied().take(count))
}

/// Whether a shape is possible for an input that declares `declared`, -1 for a free axis.
fn fits(declared: &[i64], shape: &[usize]) -> bool {
    declared
        .iter()
        .zip(shape)
        .all(|(&declared, &length)| declared < 0 || usize::try_from(declared) == Ok(length))
}

/// The values of an output.
fn array(value: &DynValue) -> ort::Result<ArrayD<f32>> {
    let (shape, values) = values_of(value)?;
    ArrayD::from_shape_vec(IxDyn(&shape), values)
        .map_err(|cause| ort::Error::new(cause.to_string()))
}
