//! The buffers of a network's inputs and outputs for one shape.

use ort::memory::Allocator;
use ort::session::IoBinding;

use super::OnnxNetwork;
use crate::network::Shape;
use crate::network::buffer::{Buffer, Conversion, Labels, NoiseLevel, Scalar};
use crate::network::encoding::{Axes, Mix};
use crate::network::interface::{Interface, SigmaForm};

/// The buffers for one shape, bound to the session.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) shape: Shape,
    pub(super) binding: IoBinding,
    pub(super) sample: Option<Buffer>,
    /// The sample for post-processing the output, where the graph has no such input.
    pub(super) beside: Vec<f32>,
    /// How many values belong to the sample, and how many to sigma; those of the condition follow.
    pub(super) own: [usize; 2],
    pub(super) sigma: Option<Sigma>,
    pub(super) timestep: Option<Scalar>,
    pub(super) condition: Option<Buffer>,
    pub(super) class: Option<Labels>,
    pub(super) constants: Vec<(String, Scalar)>,
    /// The neighboring frames of a video, as planes and as separate tensors.
    pub(super) around: Vec<f32>,
    pub(super) neighbors: Vec<Buffer>,
    /// Recurrent states: inputs from the previous frame, and outputs for the next.
    pub(super) states: Vec<[Buffer; 2]>,
    pub(super) output: Buffer,
}

/// Sigma in a separate tensor.
#[derive(Debug)]
pub(super) enum Sigma {
    Map(Buffer),
    Number(NoiseLevel),
}

impl Sigma {
    /// The tensor for a batch of frames, `[batch, height, width]`.
    fn new(
        allocator: &Allocator,
        interface: &Interface,
        form: &SigmaForm,
        [batch, height, width]: [usize; 3],
    ) -> ort::Result<Self> {
        let (planes, noise_encoding) = (interface.sigma_planes, interface.noise_encoding);
        let (tensor, copies) = match form {
            SigmaForm::Map(tensor, copies) => (*tensor, *copies),
            SigmaForm::Number(element, declared) => {
                let (shape, area) = (number_shape(declared, batch), planes * height * width);
                let level = NoiseLevel::new(*element, shape, (batch, area), noise_encoding)?;
                return Ok(Self::Number(level));
            }
        };
        let is_plain = noise_encoding.is_plain()
            && interface.encoding.axes == Axes::Nchw
            && interface.border == 0
            && copies == 1;
        let conversion = (!is_plain).then(|| Conversion {
            mixes: (0..planes * copies)
                .map(|plane| Mix::scaled(plane / copies, noise_encoding.factor as f32))
                .collect(),
            axes: interface.encoding.axes,
            channels: planes * copies,
            groups: None,
            border: interface.border,
        });
        Buffer::new(allocator, tensor, [batch, planes, height, width], conversion).map(Self::Map)
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Map(buffer) => buffer.values_mut(),
            Self::Number(level) => level.map_mut(),
        }
    }

    pub(super) fn commit(&mut self) {
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

impl Bound {
    /// Binds all inputs. A GPU gets the values that an input holds when it is bound.
    pub(super) fn bind_inputs(&mut self, interface: &Interface) -> ort::Result<()> {
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

    fn bind_outputs(&mut self, interface: &Interface) -> ort::Result<()> {
        for ([_, output], state) in self.states.iter_mut().zip(&interface.states) {
            output.bind_output(&mut self.binding, &state.output)?;
        }
        self.output.bind_output(&mut self.binding, &interface.output)
    }
}

impl OnnxNetwork {
    /// Allocates the buffers for `shape` and binds them.
    pub(super) fn allocate(&self, shape: Shape) -> ort::Result<Bound> {
        let [batch, channels, height, width] = shape;
        let Self { interface, types, .. } = self;
        // Plain memory, also for a GPU: ONNX Runtime 1.28 fails to copy an output into pinned
        // memory that it is given, and inputs in pinned memory gained nothing on an H200.
        let allocator = Allocator::default();
        // An image's buffer, with `further` planes after those of the image.
        let image = |tensor, [batch, channels, height, width]: Shape, further| {
            let conversion = self.input_conversion(channels, further);
            Buffer::new(&allocator, tensor, [batch, channels + further, height, width], conversion)
        };
        let mut sample = None;
        if let (Some(_), Some(tensor)) = (&interface.sample, types.sample) {
            sample = Some(image(tensor, shape, interface.concat_channels(channels))?);
        }
        let mut condition = None;
        if let (Some(_), Some(tensor)) = (interface.own_condition(), types.condition) {
            let (scale, channels) = (interface.scale, interface.condition_channels(channels));
            condition = Some(image(tensor, [batch, channels, height / scale, width / scale], 0)?);
        }
        let mut neighbors = Vec::new();
        for _ in &interface.neighbors {
            neighbors.push(image(types.sample.unwrap_or(types.output), shape, 0)?);
        }
        let mut sigma = None;
        if let (Some(_), Some(form)) = (interface.own_sigma(), &types.sigma) {
            sigma = Some(Sigma::new(&allocator, interface, form, [batch, height, width])?);
        }
        let mut timestep = None;
        if let (Some(_), Some((element, declared))) = (&interface.timestep, &types.timestep) {
            timestep = Some(Scalar::new(*element, number_shape(declared, batch))?);
        }
        let class = interface.class.as_ref().map(|_| Labels::new(batch)).transpose()?;
        let mut constants = Vec::new();
        for (name, element, declared) in &types.constants {
            let values = interface.constants.get(name).map_or(&[][..], Vec::as_slice);
            let mut constant = Scalar::new(*element, constant_shape(declared, values, batch))?;
            constant.set_each(values.iter().copied().cycle());
            constants.push((name.clone(), constant));
        }
        let mut states = Vec::new();
        for (state, (element, declared)) in interface.states.iter().zip(&types.states) {
            let divisor = interface.scale * state.divisor;
            let shape = state_shape(declared, divisor, [batch, height, width]);
            let state = || Buffer::of_shape(&allocator, *element, &shape);
            states.push([state()?, state()?]);
        }
        let output =
            Buffer::new(&allocator, types.output, shape, self.output_conversion(channels))?;
        let of_sample = batch * channels * height * width;
        let of_sigma = batch * interface.sigma_planes * height * width;
        let is_beside = sample.is_none() && interface.needs_sample();
        let mut bound = Bound {
            shape,
            binding: self.session.create_binding()?,
            beside: vec![0.0; if is_beside { of_sample } else { 0 }],
            own: [of_sample, if interface.has_concatenated_sigma() { of_sigma } else { 0 }],
            around: vec![0.0; neighbors.len() * of_sample],
            sample,
            sigma,
            timestep,
            condition,
            class,
            constants,
            neighbors,
            states,
            output,
        };
        bound.bind_inputs(interface)?;
        bound.bind_outputs(interface)?;
        Ok(bound)
    }
}

/// The shape of a recurrent state, whose free sides are those of the frame divided by `divisor`.
fn state_shape(declared: &[i64], divisor: usize, [batch, height, width]: [usize; 3]) -> Vec<i64> {
    let mut shape = number_shape(declared, batch);
    if let [_, _, rows, columns] = shape.as_mut_slice() {
        for (side, (axis, size)) in [rows, columns].into_iter().zip([(2, height), (3, width)]) {
            if declared[axis] < 0 {
                *side = i64::try_from(size.div_ceil(divisor)).unwrap_or(1);
            }
        }
    }
    shape
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
