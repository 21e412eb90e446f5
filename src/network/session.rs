//! A network in ONNX Runtime: a session whose inputs and outputs are checked at load and bound
//! once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::{AutoDevicePolicy, GraphOptimizationLevel};
use ort::session::{IoBinding, RunOptions, Session};

use super::buffer::{Buffer, Conversion, Labels, NoiseLevel, Scalar};
use super::device::Device;
use super::encoding::{Axes, Mix};
use super::engines::{self, CacheEntry, Key};
use super::interface::{Interface, SigmaForm, Types};
use super::optimized;
use super::runtime::Runtime;
use super::watch::{self, Ended, Watched};
use super::{Inputs, Network, Shape, nodes};
use crate::error::{Error, Result};
use crate::machine::{self, nvidia};
use crate::setting::{ALL_ON_DEVICE, DEVICE, MAX_MEMORY, TILE, TIMEOUT};

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
    /// Whether all nodes must run on the device. Otherwise unsupported nodes run on the CPU. Default:
    /// false.
    pub disable_cpu_fallback: bool,
    /// Whether idle threads sleep. They then start more slowly, but save battery and leave the CPU
    /// to other programs between evaluations. Default: false.
    pub sleep_when_idle: bool,
}

/// The number of threads for [`SessionOptions::threads`] `= 0`.
pub fn default_threads() -> usize {
    if let Some(cores) = machine::fast_cores() {
        return cores.len();
    }
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
    device: Device,
    /// What per-shape sessions are built from, on devices that need one session per shape.
    per_shape: Option<PerShapeSession>,
    watched: Arc<Watched>,
    // The environment has to outlive the session.
    runtime: Arc<Runtime>,
}

/// Builds one session per shape, as TensorRT's engines require.
#[derive(Debug)]
struct PerShapeSession {
    graph: Arc<Graph>,
    options: SessionOptions,
    /// The shape of the current session.
    shape: Option<Shape>,
    /// The cache entry of its engine.
    place: Option<CacheEntry>,
    engine: Engine,
}

/// The TensorRT engine that runs a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Read from the cache.
    Found,
    /// Built in this run, and cached after its first evaluation.
    Built,
    /// Built in this run and not cached, for this reason.
    NotCached(String),
}

/// A graph that is kept in order to build sessions from it.
#[derive(Debug)]
enum Graph {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Graph {
    fn source(&self) -> ModelSource<'_> {
        match self {
            Self::Bytes(bytes) => ModelSource::Bytes(bytes),
            Self::File(path) => ModelSource::File(path),
        }
    }

    /// The SHA-256 of the graph and its weights, which may be in other files.
    fn sha256(&self) -> String {
        let path = match self {
            Self::Bytes(bytes) => return engines::sha256(bytes),
            Self::File(path) => path,
        };
        let beside =
            path.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten();
        let mut files: Vec<PathBuf> = beside
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        let hashes = files
            .iter()
            .map(|file| fs::read(file).map(|bytes| engines::sha256(&bytes)).unwrap_or_default());
        engines::sha256(hashes.collect::<Vec<_>>().join(" ").as_bytes())
    }
}

/// The buffers for one shape, bound to the session.
#[derive(Debug)]
struct Bound {
    shape: Shape,
    binding: IoBinding,
    sample: Option<Buffer>,
    /// The sample for post-processing the output, where the graph has no such input.
    beside: Vec<f32>,
    /// How many values belong to the sample, and how many to sigma; those of the condition follow.
    own: [usize; 2],
    sigma: Option<Sigma>,
    timestep: Option<Scalar>,
    condition: Option<Buffer>,
    class: Option<Labels>,
    constants: Vec<(String, Scalar)>,
    /// The neighboring frames of a video, as planes and as separate tensors.
    around: Vec<f32>,
    neighbors: Vec<Buffer>,
    /// Recurrent states: inputs from the previous frame, and outputs for the next.
    states: Vec<[Buffer; 2]>,
    output: Buffer,
}

/// Sigma in a separate tensor.
#[derive(Debug)]
enum Sigma {
    Map(Buffer),
    Number(NoiseLevel),
}

impl Sigma {
    fn values_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Map(buffer) => buffer.values_mut(),
            Self::Number(level) => level.map_mut(),
        }
    }

    fn commit(&mut self) {
        match self {
            Self::Map(buffer) => buffer.commit(),
            Self::Number(level) => level.commit(),
        }
    }

    fn bind_input(&self, binding: &mut IoBinding, name: &str) -> ort::Result<()> {
        match self {
            Self::Map(buffer) => buffer.bind_input(binding, name),
            Self::Number(level) => level.bind_input(binding, name),
        }
    }
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

    fn allocate(&self, shape: Shape) -> ort::Result<Bound> {
        let [batch, channels, height, width] = shape;
        let Self { interface, types, .. } = self;
        let mut binding = self.session.create_binding()?;
        let allocator = self.allocator();
        let mut sample = None;
        if let (Some(name), Some(tensor)) = (&interface.sample, types.sample) {
            let condition_channel_count = interface.concat_channels(channels);
            let buffer = Buffer::new(
                &allocator,
                tensor,
                [batch, channels + condition_channel_count, height, width],
                self.input_conversion(channels, condition_channel_count),
            )?;
            buffer.bind_input(&mut binding, name)?;
            sample = Some(buffer);
        }
        let area = height * width;
        let own = [channels * area, interface.sigma_planes * area];
        let own = [own[0], if interface.has_concatenated_sigma() { own[1] } else { 0 }]
            .map(|n| batch * n);
        let is_beside = sample.is_none() && interface.needs_sample();
        let beside = vec![0.0; if is_beside { own[0] } else { 0 }];
        let mut sigma = None;
        if let (Some(name), Some(form)) = (interface.own_sigma(), &types.sigma) {
            let (planes, noise_encoding) = (interface.sigma_planes, interface.noise_encoding);
            let form = match form {
                SigmaForm::Map(tensor, copies) => {
                    let is_plain = noise_encoding.is_plain()
                        && interface.encoding.axes == Axes::Nchw
                        && interface.border == 0
                        && *copies == 1;
                    let conversion = (!is_plain).then(|| Conversion {
                        mixes: (0..planes * copies)
                            .map(|plane| Mix::scaled(plane / copies, noise_encoding.factor as f32))
                            .collect(),
                        axes: interface.encoding.axes,
                        channels: planes * copies,
                        groups: None,
                        border: interface.border,
                    });
                    let shape = [batch, planes, height, width];
                    Sigma::Map(Buffer::new(&allocator, *tensor, shape, conversion)?)
                }
                SigmaForm::Number(element, declared) => {
                    let (shape, area) = (number_shape(declared, batch), planes * area);
                    Sigma::Number(NoiseLevel::new(*element, shape, (batch, area), noise_encoding)?)
                }
            };
            form.bind_input(&mut binding, name)?;
            sigma = Some(form);
        }
        let mut timestep = None;
        if let (Some(name), Some((element, declared))) = (&interface.timestep, &types.timestep) {
            let scalar = Scalar::new(*element, number_shape(declared, batch))?;
            scalar.bind_input(&mut binding, name)?;
            timestep = Some(scalar);
        }
        let mut condition = None;
        if let (Some(name), Some(tensor)) = (interface.own_condition(), types.condition) {
            let (scale, channels) = (interface.scale, interface.condition_channels(channels));
            let shape = [batch, channels, height / scale, width / scale];
            let conversion = self.input_conversion(channels, 0);
            let buffer = Buffer::new(&allocator, tensor, shape, conversion)?;
            buffer.bind_input(&mut binding, name)?;
            condition = Some(buffer);
        }
        let mut class = None;
        if let Some(name) = &interface.class {
            let labels = Labels::new(batch)?;
            labels.bind_input(&mut binding, name)?;
            class = Some(labels);
        }
        let mut constants = Vec::new();
        for (name, element, declared) in &types.constants {
            let values = interface.constants.get(name).map_or(&[][..], Vec::as_slice);
            let mut constant = Scalar::new(*element, constant_shape(declared, values, batch))?;
            constant.set_each(values.iter().copied().cycle());
            constant.bind_input(&mut binding, name)?;
            constants.push((name.clone(), constant));
        }
        let mut neighbors = Vec::new();
        for name in &interface.neighbors {
            let shape = [batch, channels, height, width];
            let tensor = types.sample.unwrap_or(types.output);
            let buffer =
                Buffer::new(&allocator, tensor, shape, self.input_conversion(channels, 0))?;
            buffer.bind_input(&mut binding, name)?;
            neighbors.push(buffer);
        }
        let around = vec![0.0; neighbors.len() * own[0]];
        let mut states = Vec::new();
        for (state, (element, declared)) in interface.states.iter().zip(&types.states) {
            let mut shape = number_shape(declared, batch);
            if let [_, _, rows, columns] = shape.as_mut_slice() {
                let divisor = interface.scale * state.divisor;
                let small = |side: usize| i64::try_from(side.div_ceil(divisor)).unwrap_or(1);
                for (side, (own, size)) in
                    [rows, columns].into_iter().zip([(2, height), (3, width)])
                {
                    if declared[own] < 0 {
                        *side = small(size);
                    }
                }
            }
            let input = Buffer::of_shape(&allocator, *element, &shape)?;
            let mut output = Buffer::of_shape(&allocator, *element, &shape)?;
            input.bind_input(&mut binding, &state.input)?;
            output.bind_output(&mut binding, &state.output)?;
            states.push([input, output]);
        }
        let mut output =
            Buffer::new(&allocator, types.output, shape, self.output_conversion(channels))?;
        output.bind_output(&mut binding, &interface.output)?;
        Ok(Bound {
            shape,
            binding,
            sample,
            beside,
            own,
            sigma,
            timestep,
            condition,
            class,
            constants,
            around,
            neighbors,
            states,
            output,
        })
    }

    /// The conversion of an image of `channels` planes, followed by `further` ones (sigma and the
    /// condition), to an input tensor.
    fn input_conversion(&self, channels: usize, further: usize) -> Option<Conversion> {
        let Interface { encoding, noise_encoding, border, .. } = &self.interface;
        let border = *border;
        let has_sigma = self.interface.has_concatenated_sigma();
        let has_frames = further > 0 && self.interface.has_stacked_frames();
        let copies = if further > 0 { self.types.sigma_copies } else { 1 };
        let is_sigma_plain = !has_sigma || (noise_encoding.is_plain() && copies == 1);
        if !has_frames && encoding.is_plain() && is_sigma_plain && border == 0 {
            return None;
        }
        let mut mixes = encoding.channels_of_tensor(channels);
        if further > 0 && self.interface.has_stacked_frames() {
            let frames = self.interface.frames;
            let middle = frames / 2;
            let groups = self.types.is_split.then_some(frames);
            let all: Vec<Mix> = (0..frames)
                .flat_map(|frame| {
                    // The sample is the middle frame, and its planes come first.
                    let first = match frame.cmp(&middle) {
                        std::cmp::Ordering::Less => (frame + 1) * channels,
                        std::cmp::Ordering::Equal => 0,
                        std::cmp::Ordering::Greater => frame * channels,
                    };
                    mixes.iter().map(move |mix| mix.shifted(first))
                })
                .collect();
            let axes = encoding.axes;
            return Some(Conversion { channels: all.len(), mixes: all, axes, groups, border });
        }
        let sigmas = if has_sigma { self.interface.sigma_planes } else { 0 };
        mixes.extend((0..further * copies).map(|plane| {
            let plane = plane / copies;
            let factor = if plane < sigmas { noise_encoding.factor as f32 } else { 1.0 };
            Mix::scaled(channels + plane, factor)
        }));
        Some(Conversion { channels: mixes.len(), mixes, axes: encoding.axes, groups: None, border })
    }

    /// The conversion of the output's tensor and the sample's planes to the planes of an image.
    fn output_conversion(&self, channels: usize) -> Option<Conversion> {
        let Interface { output_encoding: encoding, residual, .. } = &self.interface;
        let used = encoding.tensor_channels(channels);
        let all = self.types.output_channels.unwrap_or(used).max(used);
        if encoding.is_plain() && !residual && all == used {
            return None;
        }
        let mut mixes = encoding.planes_of_tensor(channels, *residual);
        // The sample's planes come after all channels of the tensor.
        let terms = mixes.iter_mut().flat_map(|mix| &mut mix.terms);
        terms.filter(|(plane, _)| *plane >= used).for_each(|(plane, _)| *plane += all - used);
        Some(Conversion { mixes, axes: encoding.axes, channels: all, groups: None, border: 0 })
    }

    /// The allocator of buffers. For a GPU it allocates memory that the GPU accesses directly, if
    /// possible.
    fn allocator(&self) -> Allocator {
        let pinned = |index| {
            let (device, kind) = (AllocationDevice::CUDA_PINNED, MemoryType::CPUOutput);
            let memory = MemoryInfo::new(device, index, AllocatorType::Device, kind).ok()?;
            Allocator::new(&self.session, memory)
                .ok()
                .filter(|allocator| allocator.memory_info().is_cpu_accessible())
        };
        self.device.index().and_then(pinned).unwrap_or_default()
    }

    /// Builds a session for this shape, on devices that need one per shape.
    fn build_for_shape(&mut self, shape: Shape) -> Result<()> {
        let Some(per_shape) = &mut self.per_shape else { return Ok(()) };
        if per_shape.shape == Some(shape) {
            return Ok(());
        }
        per_shape.shape = None;
        let sizes = self.types.sizes(&self.interface, shape);
        let key = Key::default()
            .with("network", per_shape.graph.sha256())
            .with("shape", format!("{shape:?} {sizes:?}"))
            .with("numbers", self.types.output.element.to_string())
            .with("flags", "fp16")
            .with("runtime", self.runtime.build())
            .with("libraries", nvidia::loaded().join(" "))
            .with("driver", nvidia::driver().unwrap_or_default())
            .with("gpu", format!("{} {}", per_shape.options.device, nvidia::gpus().join(" ")));
        // Without a cache folder, the engine is built for this run only.
        let place = engines::folder().map(|root| CacheEntry::open(&root, key)).transpose();
        let (place, engine) = match place {
            Ok(None) => (
                None,
                Engine::NotCached("there is no folder for it; set HOME or XDG_CACHE_HOME".into()),
            ),
            Ok(Some(place)) if place.is_to_be_built() => (Some(place), Engine::Built),
            Ok(place) => (place, Engine::Found),
            Err(error) => (None, Engine::NotCached(error.to_string())),
        };
        per_shape.engine = engine;
        let (runtime, graph, options) =
            (Arc::clone(&self.runtime), Arc::clone(&per_shape.graph), per_shape.options);
        let model = self.model.clone();
        (self.session, per_shape.place) = watch::load(&self.model, move || {
            let special =
                SessionOverrides { sizes, engines: place.as_ref(), ..SessionOverrides::default() };
            let built = build(&runtime, graph.source(), options, &special);
            Ok((built.map_err(|cause| refused(&model, options, cause))?, place))
        })?;
        per_shape.shape = Some(shape);
        Ok(())
    }
}

impl Network for OnnxNetwork {
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
                let axis = ["batch", "channels", "height", "width"][axis];
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
            bound.send(&self.interface).map_err(|cause| Error::Evaluation {
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
        if let Err(cause) = run {
            match ended {
                Some(Ended::Stopped) => return Err(Error::Interrupted),
                Some(Ended::Late(limit)) => {
                    let (model, shape, seconds) = (&self.model, bound.shape, limit.as_secs_f64());
                    let problem = format!(
                        "model {model}: an evaluation at shape {shape:?} took longer than \
                         {seconds} s and was ended; raise {TIMEOUT}, take smaller tiles ({TILE}), \
                         or another model"
                    );
                    return Err(Error::Evaluation { problem, source: Some(Box::new(cause)) });
                }
                None => {}
            }
            let advice = if is_out_of_memory(&cause) {
                format!(
                    " for lack of memory; take smaller tiles ({TILE}) or a smaller image, or raise \
                     {MAX_MEMORY}"
                )
            } else {
                String::new()
            };
            let problem = format!(
                "model {}: the evaluation at shape {:?} failed{advice}",
                self.model, bound.shape
            );
            return Err(Error::Evaluation { problem, source: Some(Box::new(cause)) });
        }
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

impl Bound {
    fn send(&mut self, interface: &Interface) -> ort::Result<()> {
        let named = [&interface.sample, &interface.condition];
        for (buffer, name) in [&self.sample, &self.condition].into_iter().zip(named) {
            if let (Some(buffer), Some(name)) = (buffer, name) {
                buffer.bind_input(&mut self.binding, name)?;
            }
        }
        if let (Some(sigma), Some(name)) = (&self.sigma, &interface.sigma) {
            sigma.bind_input(&mut self.binding, name)?;
        }
        for (name, constant) in &self.constants {
            constant.bind_input(&mut self.binding, name)?;
        }
        for (buffer, name) in self.neighbors.iter().zip(&interface.neighbors) {
            buffer.bind_input(&mut self.binding, name)?;
        }
        for ([input, _], state) in self.states.iter().zip(&interface.states) {
            input.bind_input(&mut self.binding, &state.input)?;
        }
        if let (Some(scalar), Some(name)) = (&self.timestep, &interface.timestep) {
            scalar.bind_input(&mut self.binding, name)?;
        }
        if let (Some(labels), Some(name)) = (&self.class, &interface.class) {
            labels.bind_input(&mut self.binding, name)?;
        }
        Ok(())
    }
}

/// How a session differs from others with equal options.
#[derive(Debug, Default)]
struct SessionOverrides<'a> {
    /// Only the inputs and outputs are inspected; the session never runs.
    inspect_only: bool,
    /// The sizes of the free axes, by name.
    sizes: BTreeMap<String, i64>,
    /// The cache entry of the engine.
    engines: Option<&'a CacheEntry>,
    /// The prefix of profile file names.
    profile: Option<PathBuf>,
    /// The graph has been optimized already.
    is_optimized: bool,
    /// The folder to which the optimized graph is saved.
    save_optimized: Option<&'a Path>,
}

/// The shape of a tensor with one value per image of a batch, where it is dynamic.
fn number_shape(declared: &[i64], batch: usize) -> Vec<i64> {
    let batch = i64::try_from(batch).unwrap_or(i64::MAX);
    let mut shape: Vec<i64> = declared.iter().map(|&length| length.max(1)).collect();
    if let (Some(first), Some(-1)) = (shape.first_mut(), declared.first()) {
        *first = batch;
    }
    shape
}

/// The shape of a constant. A free axis has the length of the batch if it is the first of several,
/// and that of the values if it is the only one and there are several.
fn constant_shape(declared: &[i64], values: &[f64], batch: usize) -> Vec<i64> {
    match declared {
        [length] if *length < 0 && values.len() > 1 => {
            vec![i64::try_from(values.len()).unwrap_or(i64::MAX)]
        }
        _ => number_shape(declared, batch),
    }
}

/// Whether ONNX Runtime failed to allocate memory.
pub(super) fn is_out_of_memory(cause: &ort::Error) -> bool {
    ["Failed to allocate memory", "std::bad_alloc"]
        .iter()
        .any(|words| cause.message().contains(words))
}

/// A session on the CPU for inputs of any shape.
pub(super) fn build_plain(
    runtime: &Runtime,
    source: ModelSource<'_>,
    options: SessionOptions,
) -> ort::Result<Session> {
    let options = SessionOptions { device: Device::Cpu, ..options };
    build(runtime, source, options, &SessionOverrides::default())
}

/// A session for inputs of any shape. `is_optimized` is for graphs that were saved by
/// [`save_optimized`].
pub(super) fn build_graph(
    runtime: &Runtime,
    source: ModelSource<'_>,
    options: SessionOptions,
    is_optimized: bool,
) -> ort::Result<Session> {
    build(runtime, source, options, &SessionOverrides { is_optimized, ..Default::default() })
}

/// Loads the graph in a file and saves it, as it is after optimization, in a folder.
pub(super) fn save_optimized(
    runtime: &Runtime,
    file: &Path,
    folder: &Path,
    options: SessionOptions,
) -> ort::Result<()> {
    let overrides = SessionOverrides { save_optimized: Some(folder), ..Default::default() };
    build(runtime, ModelSource::File(file), options, &overrides).map(drop)
}

/// The error for a session that could not be built.
pub(super) fn refused(model: &str, options: SessionOptions, cause: ort::Error) -> Error {
    if options.device != Device::Cpu {
        let whole = if options.disable_cpu_fallback {
            format!(
                ", or leave out {ALL_ON_DEVICE}, so that the CPU runs the operators that it lacks"
            )
        } else {
            String::new()
        };
        let problem = format!("it does not run {model} ({cause}); try {DEVICE} cpu{whole}");
        return Error::Device { device: options.device.to_string(), problem };
    }
    if is_out_of_memory(&cause) {
        let problem =
            format!("model {model}: loading it failed for lack of memory; raise {MAX_MEMORY}");
        return Error::Evaluation { problem, source: Some(Box::new(cause)) };
    }
    Error::model_from(
        model,
        "ONNX Runtime does not accept it; expected an ONNX file whose operators it has",
        cause,
    )
}

fn build(
    runtime: &Runtime,
    source: ModelSource<'_>,
    options: SessionOptions,
    special: &SessionOverrides<'_>,
) -> ort::Result<Session> {
    let threads = if options.threads == 0 { default_threads() } else { options.threads };
    let level = if special.inspect_only || special.is_optimized {
        GraphOptimizationLevel::Disable
    } else {
        GraphOptimizationLevel::All
    };
    let mut builder = Session::builder(runtime.environment())?
        // Otherwise ONNX Runtime would choose the device.
        .with_auto_device(AutoDevicePolicy::PreferCPU)?
        .with_optimization_level(level)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        // The memory pattern is a second copy of all activations, laid out on the first run, and
        // gives no measurable speed. At 1920x1080 it used 230 of 615 MiB.
        .with_memory_pattern(false)?;
    if options.sleep_when_idle {
        builder = builder.with_intra_op_spinning(false)?;
    }
    if options.threads == 0
        && let Some(cores) = machine::fast_cores()
        && cores.len() > 1
    {
        builder =
            builder.with_config_entry("session.intra_op_thread_affinities", affinities(&cores))?;
    }
    if options.device != Device::Cpu && options.disable_cpu_fallback && !special.inspect_only {
        builder = builder.with_disable_cpu_fallback()?;
    }
    if !special.inspect_only {
        let configure = options.device.provider().configure;
        builder = configure(builder, runtime, options.device, special.engines)?;
    }
    for (name, size) in &special.sizes {
        builder = builder.with_dimension_override(name, *size)?;
    }
    if let Some(path) = &special.profile {
        builder = builder.with_profiling(path)?;
    }
    if let Some(folder) = special.save_optimized {
        let prefix = "session.optimized_model_external_initializers";
        builder = builder
            .with_optimized_model_path(folder.join(optimized::GRAPH))?
            .with_config_entry(format!("{prefix}_file_name"), optimized::WEIGHTS)?
            // Smaller ones stay in the graph.
            .with_config_entry(format!("{prefix}_min_size_in_bytes"), "1024")?
            .with_config_entry("session.save_external_prepacked_constant_initializers", "1")?;
    }
    match source {
        ModelSource::Bytes(bytes) => builder.commit_from_memory(bytes),
        ModelSource::File(path) => builder.commit_from_file(path),
    }
}

/// The cores of a session's threads in ONNX Runtime's format: one list for each thread but the
/// caller's, of cores counted from 1. Each thread may move between all of them.
fn affinities(cores: &[usize]) -> String {
    let list = cores.iter().map(|core| (core + 1).to_string()).collect::<Vec<_>>().join(",");
    vec![list; cores.len().saturating_sub(1)].join(";")
}

#[cfg(test)]
mod tests {
    use super::affinities;

    #[test]
    fn worker_threads_share_the_fast_cores() {
        assert_eq!(affinities(&[4, 5, 6]), "5,6,7;5,6,7");
        assert_eq!(affinities(&[0, 1]), "1,2");
    }
}
