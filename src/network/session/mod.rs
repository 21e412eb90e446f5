//! A network in ONNX Runtime: a session whose inputs and outputs are checked at load and bound
//! once.

mod bound;
mod build;
mod conversions;
mod per_shape;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ort::session::{RunOptions, Session};

use super::buffer::{Buffer, Labels};
use super::device::Device;
use super::interface::{Interface, Types};
use super::runtime::Runtime;
use super::watch::{Ended, Watched};
use super::{Inputs, Network, Shape, nodes};
use crate::error::{Error, Result};
use crate::setting::{MAX_MEMORY, TILE, TIMEOUT};
use bound::{Bound, Sigma};
use build::{SessionOverrides, build};
pub use build::{THREADS_PER_CORE, default_threads, max_threads};
pub(super) use build::{
    build_graph, build_plain, is_not_saved, is_out_of_memory, refused, save_optimized,
};
pub use per_shape::Engine;
use per_shape::{Graph, PerShapeSession};

/// Where an ONNX graph comes from.
#[derive(Clone, Copy, Debug)]
pub enum ModelSource<'a> {
    /// The bytes of a file that contains the weights.
    Bytes(&'a [u8]),
    /// A file, whose weights may be in other files beside it.
    File(&'a Path),
}

/// How a session runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Threads within an operator. 0 means one per physical core that this process may use, or one
    /// per fast core if cores differ in speed. Default: 0.
    pub threads: usize,
    /// The device that the network runs on. Default: the CPU.
    pub device: Device,
    /// Whether all nodes must run on the device. Otherwise unsupported nodes run on the CPU.
    /// Default: false.
    pub disable_cpu_fallback: bool,
    /// Whether idle threads sleep. They then start more slowly, but save battery and leave the CPU
    /// to other programs between evaluations. Default: false.
    pub sleep_when_idle: bool,
}

/// A network that ONNX Runtime evaluates.
#[derive(Debug)]
pub struct OnnxNetwork {
    session: Session,
    interface: Interface,
    types: Types,
    bound: Option<Bound>,
    model: String,
    device: Device,
    /// What per-shape sessions are built from, on devices that need one session per shape.
    per_shape: Option<PerShapeSession>,
    watched: Arc<Watched>,
    // The environment has to outlive the session.
    runtime: Arc<Runtime>,
}

impl OnnxNetwork {
    /// Builds a session from an ONNX graph and checks it against `interface`.
    ///
    /// `model` is the network's name in errors.
    ///
    /// # Errors
    /// [`Error::Model`] when it is not an ONNX graph, a named input or output is missing, the graph
    /// has an unnamed one, or its rank or element type is not supported.
    pub fn load(
        runtime: &Arc<Runtime>,
        model: &str,
        source: ModelSource<'_>,
        interface: Interface,
        options: SessionOptions,
    ) -> Result<Self> {
        let is_per_shape = options.device.has_fixed_shapes();
        let special =
            SessionOverrides { inspect_only: is_per_shape, ..SessionOverrides::default() };
        let session = build(runtime, source, options, &special)
            .map_err(|cause| refused(model, options, cause))?;
        let types = Types::read(&session, &interface, model)?;
        let per_shape = is_per_shape.then(|| {
            let graph = match source {
                ModelSource::Bytes(bytes) => Graph::Bytes(bytes.to_vec()),
                ModelSource::File(path) => Graph::File(path.to_owned()),
            };
            PerShapeSession {
                graph: Arc::new(graph),
                options,
                shape: None,
                place: None,
                engine: Engine::Built,
            }
        });
        Self::from_session(session, runtime, model, interface, types, options.device, per_shape)
    }

    /// How many nodes of the graph each provider of ONNX Runtime runs, measured by a run at
    /// `shape`.
    ///
    /// # Errors
    /// As for [`load`](Self::load), and when the graph does not run at that shape.
    pub fn count_nodes(
        runtime: &Arc<Runtime>,
        model: &str,
        source: ModelSource<'_>,
        interface: Interface,
        options: SessionOptions,
        shape: Shape,
    ) -> Result<BTreeMap<String, usize>> {
        let fail = |problem: &str, cause: crate::error::Cause| Error::Evaluation {
            problem: format!("model {model}: {problem}"),
            source: Some(cause),
        };
        let folder = tempfile::tempdir().map_err(|cause| {
            fail("no temporary folder could be created for the profile", cause.into())
        })?;
        let special = SessionOverrides {
            profile: Some(folder.path().join("profile")),
            ..SessionOverrides::default()
        };
        let session = build(runtime, source, options, &special)
            .map_err(|cause| refused(model, options, cause))?;
        let types = Types::read(&session, &interface, model)?;
        let mut network =
            Self::from_session(session, runtime, model, interface, types, options.device, None)?;
        network.bind(shape)?;
        network.evaluate(1.0)?;
        let profile = network
            .session
            .end_profiling()
            .map_err(|cause| fail("its profile was not written", cause.into()))?;
        let profile =
            fs::read(profile).map_err(|cause| fail("its profile cannot be read", cause.into()))?;
        nodes::counted(&profile)
            .map_err(|cause| fail("its profile is not as expected", cause.into()))
    }

    fn from_session(
        session: Session,
        runtime: &Arc<Runtime>,
        model: &str,
        interface: Interface,
        types: Types,
        device: Device,
        per_shape: Option<PerShapeSession>,
    ) -> Result<Self> {
        let watched = Watched::new().map_err(|cause| {
            Error::model_from(model, "ONNX Runtime has no options for its runs", cause)
        })?;
        let (model, runtime) = (model.to_owned(), Arc::clone(runtime));
        Ok(Self {
            session,
            interface,
            types,
            bound: None,
            model,
            device,
            per_shape,
            watched,
            runtime,
        })
    }

    /// The engine for the last bound shape, on devices that use engines.
    pub fn engine(&self) -> Option<&Engine> {
        self.per_shape.as_ref().map(|per_shape| &per_shape.engine)
    }

    /// The inputs and outputs that the graph declares, one per line, for people to read.
    pub fn signature(&self) -> Vec<String> {
        let inputs = self.session.inputs().iter().map(|outlet| ("input", outlet));
        let outputs = self.session.outputs().iter().map(|outlet| ("output", outlet));
        inputs
            .chain(outputs)
            .map(|(way, outlet)| format!("{way} {}: {}", outlet.name(), outlet.dtype()))
            .collect()
    }

    fn fail(&self, problem: &str, cause: ort::Error) -> Error {
        Error::Evaluation {
            problem: format!("model {}: {problem}", self.model),
            source: Some(Box::new(cause)),
        }
    }
}

impl Network for OnnxNetwork {
    fn gains_from_large_tiles(&self) -> bool {
        self.device.is_gpu()
    }

    fn bind(&mut self, shape: Shape) -> Result<()> {
        if self.bound.as_ref().is_some_and(|bound| bound.shape == shape) {
            return Ok(());
        }
        let [batch, channels, height, width] = shape;
        let condition_channel_count = self.interface.concat_channels(channels);
        if condition_channel_count > 0 && batch > 1 {
            let problem = format!(
                "its sample is concatenated with its condition or sigma, which works for a batch \
                 of one; {batch} images were requested"
            );
            return Err(Error::model(&self.model, problem));
        }
        let own = self.interface.encoding.tensor_channels(channels);
        let whole =
            [batch, own + self.types.sigma_channels(&self.interface, channels), height, width];
        for (axis, (wanted, &declared)) in whole.into_iter().zip(&self.types.declared).enumerate() {
            if declared >= 0 && usize::try_from(declared) != Ok(wanted) {
                let axis = ["batch", "number of channels", "height", "width"][axis];
                let problem = format!(
                    "its {axis} is fixed at {declared}; {wanted} was requested. Use an input that \
                     fits, or export the network with a dynamic axis"
                );
                return Err(Error::model(&self.model, problem));
            }
        }
        // The old buffers are freed first, so that two sets never exist at once.
        self.bound = None;
        self.build_for_shape(shape)?;
        let bound =
            self.allocate(shape).map_err(|cause| self.fail("no buffers could be bound", cause))?;
        self.bound = Some(bound);
        Ok(())
    }

    fn inputs(&mut self) -> Inputs<'_> {
        match &mut self.bound {
            Some(bound) => {
                let whole = bound.sample.as_mut().map_or(&mut *bound.beside, Buffer::values_mut);
                let (sample, rest) = whole.split_at_mut(bound.own[0].min(whole.len()));
                let (sigma, condition) = rest.split_at_mut(bound.own[1].min(rest.len()));
                let around = bound.around.as_mut_slice();
                let [sigma, condition, around] =
                    [sigma, condition, around].map(|values| (!values.is_empty()).then_some(values));
                Inputs {
                    sample,
                    sigma: bound.sigma.as_mut().map(Sigma::values_mut).or(sigma),
                    condition: bound
                        .condition
                        .as_mut()
                        .map(Buffer::values_mut)
                        .or(condition)
                        .or(around),
                    class: bound.class.as_mut().map(Labels::values_mut),
                }
            }
            None => Inputs { sample: &mut [], sigma: None, condition: None, class: None },
        }
    }

    fn evaluate(&mut self, t: f64) -> Result<&[f32]> {
        let Some(bound) = &mut self.bound else {
            return Err(Error::evaluation(
                "a network was evaluated before it was bound to a shape",
            ));
        };
        for buffer in [&mut bound.sample, &mut bound.condition].into_iter().flatten() {
            buffer.commit();
        }
        if let Some(sigma) = &mut bound.sigma {
            sigma.commit();
        }
        let frame = bound.around.len() / bound.neighbors.len().max(1);
        for (buffer, values) in bound.neighbors.iter_mut().zip(bound.around.chunks(frame.max(1))) {
            buffer.values_mut().copy_from_slice(values);
            buffer.commit();
        }
        if let Some(timestep) = &mut bound.timestep {
            timestep.set(self.interface.noise_encoding.value(t));
        }
        if self.device.is_gpu() {
            // A GPU gets the values that an input holds when it is bound.
            bound.bind_inputs(&self.interface).map_err(|cause| Error::Evaluation {
                problem: format!(
                    "model {}: its inputs could not be sent to {}",
                    self.model, self.device
                ),
                source: Some(Box::new(cause)),
            })?;
        }
        let session = &mut self.session;
        let run = self.watched.begin().and_then(|()| {
            session.run_binding_with_options(&bound.binding, &self.watched.options).map(drop)
        });
        let ended = self.watched.end();
        run.map_err(|cause| failed_run(&self.model, bound.shape, ended, cause))?;
        if let Some(PerShapeSession { place: Some(place), engine, .. }) = &mut self.per_shape
            && let Err(error) = place.write_manifest()
        {
            *engine = Engine::NotCached(error.to_string());
        }
        for [input, output] in &mut bound.states {
            input.copy_from(output);
        }
        let Bound { sample, beside, output, .. } = bound;
        Ok(output.fetch(sample.as_ref().map_or(beside, Buffer::values)))
    }

    fn reset_state(&mut self) {
        let states = self.bound.iter_mut().flat_map(|bound| &mut bound.states);
        states.for_each(|[input, _]| input.clear());
    }

    fn drop_conditions(&mut self, from: usize) -> Result<()> {
        let Self { bound, interface, model, .. } = self;
        let Some(Bound { shape: [batch, ..], constants, .. }) = bound else { return Ok(()) };
        for (name, constant) in constants {
            let Some(unconditional) = interface.unconditional.get(name) else { continue };
            let conditional = interface.constants.get(name).map_or(&[][..], Vec::as_slice);
            if !constant.len().is_multiple_of(*batch) {
                let problem = format!(
                    "its input `{name}` has one value for all samples, so it cannot be without a \
                     condition for some; export it with a batch axis"
                );
                return Err(Error::model(model.as_str(), problem));
            }
            let each = constant.len() / *batch;
            let values =
                |values: &'_ [f64]| values.iter().copied().cycle().take(each).collect::<Vec<f64>>();
            let (conditional, unconditional) = (values(conditional), values(unconditional));
            let samples =
                (0..*batch).flat_map(|i| if i < from { &conditional } else { &unconditional });
            constant.set_each(samples.copied());
        }
        Ok(())
    }

    fn trim_memory(&mut self, small: Shape) -> Result<()> {
        let fits = small
            .iter()
            .zip(&self.types.declared)
            .all(|(&size, &declared)| declared < 0 || usize::try_from(declared) == Ok(size));
        if self.bound.is_none() || self.device.is_gpu() || !fits {
            return Ok(());
        }
        self.bind(small)?;
        let mut run = || -> ort::Result<()> {
            let mut options = RunOptions::new()?;
            // An arena never shrinks without this option.
            options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
            let Some(bound) = &self.bound else { return Ok(()) };
            self.session.run_binding_with_options(&bound.binding, &options).map(drop)
        };
        let released = run();
        self.bound = None;
        released.map_err(|cause| self.fail("its memory could not be freed", cause))
    }
}

/// The error for an evaluation of `model` that failed, or was ended.
fn failed_run(model: &str, shape: Shape, ended: Option<Ended>, cause: ort::Error) -> Error {
    let problem = match ended {
        Some(Ended::Stopped) => return Error::Interrupted,
        Some(Ended::Late(limit)) => format!(
            "model {model}: an evaluation at shape {shape:?} took longer than {} s and was ended; \
             raise {TIMEOUT}, take smaller tiles ({TILE}), or another model",
            limit.as_secs_f64()
        ),
        None if is_out_of_memory(&cause) => format!(
            "model {model}: the evaluation at shape {shape:?} failed for lack of memory; take \
             smaller tiles ({TILE}) or a smaller image, or raise {MAX_MEMORY}"
        ),
        None => format!("model {model}: the evaluation at shape {shape:?} failed"),
    };
    Error::Evaluation { problem, source: Some(Box::new(cause)) }
}
