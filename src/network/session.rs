//! A network in ONNX Runtime: a session whose inputs and outputs are checked at load and bound once.

use std::path::Path;
use std::sync::Arc;

use ort::session::builder::GraphOptimizationLevel;
use ort::session::{IoBinding, Session};
use ort::value::TensorElementType;
use ort::value::{Outlet, ValueType};

use super::buffer::{Buffer, Scalar};
use super::runtime::Runtime;
use super::{Inputs, Network, Shape};
use crate::error::{Error, Result};

/// The names by which a network's graph calls what the executor speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The noisy sample, float `[B, C, H, W]`.
    pub sample: String,
    /// The map of sigma, float `[B, 1, H, W]`, where the network takes one.
    pub sigma: Option<String>,
    /// The scalar that tells the noise level, where the network takes one: integer or float, a scalar, `[1]` or `[B]`.
    pub timestep: Option<String>,
    /// The small picture, float `[B, C, H / scale, W / scale]`, where the network takes one.
    pub condition: Option<String>,
    /// How many times larger than the condition the sample is along each axis; 1 without a condition.
    pub scale: usize,
    /// The output, float `[B, C, H, W]`.
    pub output: String,
    /// Colour channels of the sample, where the model says so.
    pub channels: Option<usize>,
    /// Whether sample, map and output are float16 rather than float32, where the model says so.
    pub half: Option<bool>,
}

/// Where an ONNX graph comes from.
#[derive(Clone, Copy, Debug)]
pub enum ModelSource<'a> {
    /// The bytes of a file that holds everything.
    Bytes(&'a [u8]),
    /// A file, beside which further ones may hold its weights.
    File(&'a Path),
}

/// How a session is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Threads within an operator; 0 means one per physical core that this process may use.
    pub threads: usize,
}

/// How many threads [`SessionOptions::threads`] `= 0` stands for.
pub fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    num_cpus::get_physical().clamp(1, allowed)
}

/// A network that ONNX Runtime evaluates.
#[derive(Debug)]
pub struct OnnxNetwork {
    session: Session,
    interface: Interface,
    types: Types,
    bound: Option<Bound>,
    model: String,
    // The environment has to outlive the session.
    _runtime: Arc<Runtime>,
}

/// Element types and ranks, as the graph declares them.
#[derive(Clone, Debug)]
struct Types {
    sample: TensorElementType,
    sigma: Option<TensorElementType>,
    timestep: Option<(TensorElementType, Vec<i64>)>,
    condition: Option<TensorElementType>,
    output: TensorElementType,
    /// The sample's shape as declared, -1 where it is free.
    declared: Vec<i64>,
}

/// The buffers for one shape, bound to the session.
#[derive(Debug)]
struct Bound {
    shape: Shape,
    binding: IoBinding,
    sample: Buffer,
    sigma: Option<Buffer>,
    timestep: Option<Scalar>,
    condition: Option<Buffer>,
    output: Buffer,
}

impl OnnxNetwork {
    /// Builds a session from an ONNX graph and checks that it has what `interface` names.
    ///
    /// `model` is what errors call the network.
    ///
    /// # Errors
    /// [`Error::Model`] when it is no ONNX graph, an input or output that is named is missing, one that is not
    /// named exists, or its rank or element type is not what the executor can fill.
    pub fn load(
        runtime: &Arc<Runtime>,
        model: &str,
        source: ModelSource<'_>,
        interface: Interface,
        options: SessionOptions,
    ) -> Result<Self> {
        let session = build(runtime, source, options).map_err(|cause| {
            Error::model_from(
                model,
                "ONNX Runtime does not accept it; it wants an ONNX file it has operators for",
                cause,
            )
        })?;
        let types = Types::read(&session, &interface, model)?;
        Ok(Self { session, interface, types, bound: None, model: model.to_owned(), _runtime: Arc::clone(runtime) })
    }

    /// The inputs and outputs that the graph declares, one line each, for people.
    pub fn signature(&self) -> Vec<String> {
        let inputs = self.session.inputs().iter().map(|outlet| ("input", outlet));
        let outputs = self.session.outputs().iter().map(|outlet| ("output", outlet));
        inputs.chain(outputs).map(|(way, outlet)| format!("{way} {}: {}", outlet.name(), outlet.dtype())).collect()
    }

    fn fail(&self, problem: &str, cause: ort::Error) -> Error {
        Error::Evaluation { problem: format!("model {}: {problem}", self.model), source: Some(Box::new(cause)) }
    }

    fn allocate(&self, shape: Shape) -> ort::Result<Bound> {
        let [batch, channels, height, width] = shape;
        let mut binding = self.session.create_binding()?;
        let sample = Buffer::new(self.types.sample, shape)?;
        sample.bind_input(&mut binding, &self.interface.sample)?;
        let mut sigma = None;
        if let (Some(name), Some(element)) = (&self.interface.sigma, self.types.sigma) {
            let buffer = Buffer::new(element, [batch, 1, height, width])?;
            buffer.bind_input(&mut binding, name)?;
            sigma = Some(buffer);
        }
        let mut timestep = None;
        if let (Some(name), Some((element, declared))) = (&self.interface.timestep, &self.types.timestep) {
            // A free length is the batch.
            let length = declared.first().map(|&length| usize::try_from(length).unwrap_or(batch));
            let scalar = Scalar::new(*element, length)?;
            scalar.bind_input(&mut binding, name)?;
            timestep = Some(scalar);
        }
        let mut condition = None;
        if let (Some(name), Some(element)) = (&self.interface.condition, self.types.condition) {
            let scale = self.interface.scale;
            let buffer = Buffer::new(element, [batch, channels, height / scale, width / scale])?;
            buffer.bind_input(&mut binding, name)?;
            condition = Some(buffer);
        }
        let mut output = Buffer::new(self.types.output, shape)?;
        output.bind_output(&mut binding, &self.interface.output)?;
        Ok(Bound { shape, binding, sample, sigma, timestep, condition, output })
    }
}

impl Network for OnnxNetwork {
    fn bind(&mut self, shape: Shape) -> Result<()> {
        if self.bound.as_ref().is_some_and(|bound| bound.shape == shape) {
            return Ok(());
        }
        for (axis, (&wanted, &declared)) in shape.iter().zip(&self.types.declared).enumerate() {
            if declared >= 0 && usize::try_from(declared) != Ok(wanted) {
                let axis = ["batch", "channels", "height", "width"][axis];
                let problem = format!(
                    "its {axis} is fixed at {declared}, {wanted} was asked for; bring an input that fits, or export \
                     the network with that axis free"
                );
                return Err(Error::model(&self.model, problem));
            }
        }
        // The old buffers go first, so that two sets never exist at once.
        self.bound = None;
        let bound = self.allocate(shape).map_err(|cause| self.fail("no buffers could be bound", cause))?;
        self.bound = Some(bound);
        Ok(())
    }

    fn inputs(&mut self) -> Inputs<'_> {
        match &mut self.bound {
            Some(bound) => Inputs {
                sample: bound.sample.values_mut(),
                sigma: bound.sigma.as_mut().map(Buffer::values_mut),
                condition: bound.condition.as_mut().map(Buffer::values_mut),
            },
            None => Inputs { sample: &mut [], sigma: None, condition: None },
        }
    }

    fn evaluate(&mut self, t: f64) -> Result<&[f32]> {
        let Some(bound) = &mut self.bound else {
            return Err(Error::evaluation("a network was evaluated before it was bound to a shape"));
        };
        bound.sample.commit();
        for buffer in [&mut bound.sigma, &mut bound.condition].into_iter().flatten() {
            buffer.commit();
        }
        if let Some(timestep) = &mut bound.timestep {
            timestep.set(t);
        }
        if let Err(cause) = self.session.run_binding(&bound.binding).map(drop) {
            let problem = format!("model {}: the evaluation at shape {:?} failed", self.model, bound.shape);
            return Err(Error::Evaluation { problem, source: Some(Box::new(cause)) });
        }
        Ok(bound.output.fetch())
    }
}

fn build(runtime: &Runtime, source: ModelSource<'_>, options: SessionOptions) -> ort::Result<Session> {
    let threads = if options.threads == 0 { default_threads() } else { options.threads };
    let mut builder = Session::builder(runtime.environment())?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        // The pattern is a second copy of all activations, laid out on the first run, for no measurable speed: at
        // 1920x1080 it cost 230 of 615 MiB.
        .with_memory_pattern(false)?;
    match source {
        ModelSource::Bytes(bytes) => builder.commit_from_memory(bytes),
        ModelSource::File(path) => builder.commit_from_file(path),
    }
}

impl Types {
    fn read(session: &Session, interface: &Interface, model: &str) -> Result<Self> {
        let inputs = session.inputs();
        let [sigma, timestep, condition] = [&interface.sigma, &interface.timestep, &interface.condition];
        let known = [Some(&interface.sample), sigma.as_ref(), timestep.as_ref(), condition.as_ref()];
        for outlet in inputs {
            if !known.iter().flatten().any(|name| *name == outlet.name()) {
                let expected: Vec<&str> = known.iter().flatten().map(|name| name.as_str()).collect();
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
        let (sample, declared) = picture(find(inputs, &interface.sample, "input", model)?, half, model)?;
        if let Some(channels) = interface.channels
            && declared[1] >= 0
            && usize::try_from(declared[1]) != Ok(channels)
        {
            let problem =
                format!("its manifest says {channels} channels, its input `{}` has {}", interface.sample, declared[1]);
            return Err(Error::model(model, problem));
        }
        let map = |name: &String| Ok(picture(find(inputs, name, "input", model)?, half, model)?.0);
        let (sigma, condition) = (sigma.as_ref().map(map).transpose()?, condition.as_ref().map(map).transpose()?);
        let timestep = match timestep {
            Some(name) => Some(scalar(find(inputs, name, "input", model)?, model)?),
            None => None,
        };
        let (output, _) = picture(find(session.outputs(), &interface.output, "output", model)?, half, model)?;
        Ok(Self { sample, sigma, timestep, condition, output, declared })
    }
}

fn find<'a>(outlets: &'a [Outlet], name: &str, way: &str, model: &str) -> Result<&'a Outlet> {
    outlets.iter().find(|outlet| outlet.name() == name).ok_or_else(|| {
        let present: Vec<&str> = outlets.iter().map(Outlet::name).collect();
        Error::model(model, format!("it has no {way} named `{name}`; it has {}", present.join(", ")))
    })
}

/// The element type and declared shape of an input or output that holds pictures, of the type that `half` asks for.
fn picture(outlet: &Outlet, half: Option<bool>, model: &str) -> Result<(TensorElementType, Vec<i64>)> {
    let expected = match half {
        None => "float32 or float16",
        Some(true) => "float16",
        Some(false) => "float32",
    };
    match outlet.dtype() {
        ValueType::Tensor { ty: ty @ (TensorElementType::Float32 | TensorElementType::Float16), shape, .. }
            if shape.len() == 4 && half.is_none_or(|half| half == (*ty == TensorElementType::Float16)) =>
        {
            Ok((*ty, shape.to_vec()))
        }
        other => {
            let problem = format!("`{}` is {other}; expected a {expected} tensor of rank 4 (NCHW)", outlet.name());
            Err(Error::model(model, problem))
        }
    }
}

/// The element type and declared shape of an input that holds the noise level.
fn scalar(outlet: &Outlet, model: &str) -> Result<(TensorElementType, Vec<i64>)> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } if Scalar::supports(*ty) && shape.len() <= 1 => Ok((*ty, shape.to_vec())),
        other => {
            let problem = format!(
                "`{}` is {other}; expected a scalar or a vector of int64, int32, float32, float16 or float64",
                outlet.name()
            );
            Err(Error::model(model, problem))
        }
    }
}
