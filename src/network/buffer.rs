//! Tensors that are bound once and filled in place.

use half::f16;
use half::slice::HalfFloatSliceExt;
use ort::memory::Allocator;
use ort::session::IoBinding;
use ort::value::Tensor;
use ort::value::TensorElementType;

use super::Shape;
use super::encoding::{Axes, Mix, NoiseEncoding};
use super::interface::ImageTensor;
use crate::tensor::mirror;

/// An image tensor of any supported element type and order of axes, which the executor reads and
/// writes as planes of f32.
#[derive(Debug)]
pub(super) struct Buffer {
    tensor: Elements,
    /// The planes, unless they are the tensor's own memory.
    staging: Option<Staging>,
}

/// A tensor by its element type.
#[derive(Debug)]
enum Elements {
    F32(Tensor<f32>),
    F16(Tensor<f16>),
    U8(Tensor<u8>),
}

/// The conversion between a tensor and planes of f32.
#[derive(Clone, Debug)]
pub(super) struct Conversion {
    /// For an input, each channel of the tensor as a weighted sum of planes; for an output, each
    /// plane as a weighted sum of the tensor's channels, followed by the sample's planes.
    pub(super) mixes: Vec<Mix>,
    /// The order of the tensor's axes.
    pub(super) axes: Axes,
    /// Channels of the tensor.
    pub(super) channels: usize,
    /// The length of an axis before the channels, by which they are grouped.
    pub(super) groups: Option<usize>,
    /// Pixels by which the tensor of an input goes on beyond each edge of the planes, mirrored.
    pub(super) border: usize,
}

#[derive(Debug)]
struct Staging {
    values: Vec<f32>,
    /// Width and height of a plane.
    size: [usize; 2],
    /// Values of an image.
    image: usize,
    /// None if only the element type differs.
    conversion: Option<Conversion>,
    /// A plane, and the same with its border.
    plane: Vec<f32>,
    padded: Vec<f32>,
}

impl Buffer {
    /// Whether tensors of this element type can be filled.
    pub(super) fn supports(element: TensorElementType) -> bool {
        use TensorElementType::{Float16, Float32, Uint8};
        matches!(element, Float32 | Float16 | Uint8)
    }

    /// A tensor for planes of `shape`, in memory of `allocator` that the CPU can access.
    /// Without a `conversion` it holds these planes.
    pub(super) fn new(
        allocator: &Allocator,
        ImageTensor { element, rank }: ImageTensor,
        shape: Shape,
        conversion: Option<Conversion>,
    ) -> ort::Result<Self> {
        let [batch, planes, height, width] = shape;
        let area = height * width;
        let size = [width, height];
        let border = conversion.as_ref().map_or(0, |conversion| conversion.border);
        let [height, width] = [height, width].map(|side| side + 2 * border);
        let mut own = match &conversion {
            None => vec![batch, planes, height, width],
            Some(Conversion { axes: Axes::Nchw, channels, groups: Some(groups), .. }) => {
                vec![batch, *groups, channels / groups, height, width]
            }
            Some(Conversion { axes: Axes::Nchw, channels, .. }) => {
                vec![batch, *channels, height, width]
            }
            Some(Conversion { axes: Axes::Nhwc, channels, .. }) => {
                vec![batch, height, width, *channels]
            }
        };
        if batch == 1 {
            own.drain(..own.len().saturating_sub(rank));
        }
        let tensor = match element {
            TensorElementType::Float16 => Elements::F16(Tensor::new(allocator, own)?),
            TensorElementType::Uint8 => Elements::U8(Tensor::new(allocator, own)?),
            _ => {
                let mut tensor: Tensor<f32> = Tensor::new(allocator, own)?;
                tensor.extract_tensor_mut().1.fill(0.0);
                Elements::F32(tensor)
            }
        };
        let is_direct = conversion.is_none() && matches!(tensor, Elements::F32(_));
        let staging = (!is_direct).then(|| Staging {
            values: vec![0.0; batch * planes * area],
            size,
            image: planes * area,
            plane: vec![0.0; if conversion.is_some() { area } else { 0 }],
            padded: vec![0.0; if border > 0 { height * width } else { 0 }],
            conversion,
        });
        Ok(Self { tensor, staging })
    }

    /// A tensor of any shape, filled with zeros, without access to its values.
    pub(super) fn of_shape(
        allocator: &Allocator,
        element: TensorElementType,
        shape: &[i64],
    ) -> ort::Result<Self> {
        let tensor = match element {
            TensorElementType::Float16 => {
                let mut tensor: Tensor<f16> = Tensor::new(allocator, shape.to_vec())?;
                tensor.extract_tensor_mut().1.fill(f16::ZERO);
                Elements::F16(tensor)
            }
            _ => {
                let mut tensor: Tensor<f32> = Tensor::new(allocator, shape.to_vec())?;
                tensor.extract_tensor_mut().1.fill(0.0);
                Elements::F32(tensor)
            }
        };
        Ok(Self { tensor, staging: None })
    }

    /// Fills the tensor with zeros.
    pub(super) fn clear(&mut self) {
        match &mut self.tensor {
            Elements::F32(tensor) => tensor.extract_tensor_mut().1.fill(0.0),
            Elements::F16(tensor) => tensor.extract_tensor_mut().1.fill(f16::ZERO),
            Elements::U8(tensor) => tensor.extract_tensor_mut().1.fill(0),
        }
    }

    /// Copies the values of a tensor of the same shape and elements.
    pub(super) fn copy_from(&mut self, other: &Self) {
        match (&mut self.tensor, &other.tensor) {
            (Elements::F32(to), Elements::F32(from)) => {
                to.extract_tensor_mut().1.copy_from_slice(from.extract_tensor().1);
            }
            (Elements::F16(to), Elements::F16(from)) => {
                to.extract_tensor_mut().1.copy_from_slice(from.extract_tensor().1);
            }
            _ => {}
        }
    }

    pub(super) fn bind_input(&self, binding: &mut IoBinding, name: &str) -> ort::Result<()> {
        match &self.tensor {
            Elements::F32(tensor) => binding.bind_input(name, tensor),
            Elements::F16(tensor) => binding.bind_input(name, tensor),
            Elements::U8(tensor) => binding.bind_input(name, tensor),
        }
    }

    pub(super) fn bind_output(&mut self, binding: &mut IoBinding, name: &str) -> ort::Result<()> {
        match &mut self.tensor {
            Elements::F32(tensor) => binding.bind_output(name, tensor),
            Elements::F16(tensor) => binding.bind_output(name, tensor),
            Elements::U8(tensor) => binding.bind_output(name, tensor),
        }
    }

    /// The values to fill. [`commit`](Self::commit) copies them to the tensor.
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        match (&mut self.staging, &mut self.tensor) {
            (Some(staging), _) => &mut staging.values,
            (None, Elements::F32(tensor)) => tensor.extract_tensor_mut().1,
            (None, _) => &mut [],
        }
    }

    /// The values that were filled.
    pub(super) fn values(&self) -> &[f32] {
        match (&self.staging, &self.tensor) {
            (Some(staging), _) => &staging.values,
            (None, Elements::F32(tensor)) => tensor.extract_tensor().1,
            (None, _) => &[],
        }
    }

    pub(super) fn commit(&mut self) {
        let Some(Staging { values, size, image, conversion, plane, padded }) = &mut self.staging
        else {
            return;
        };
        let Some(Conversion { mixes, axes, channels, border, .. }) = conversion else {
            self.tensor.write(values, 0, 1);
            return;
        };
        let area = size[0] * size[1];
        for (b, values) in values.chunks_exact((*image).max(1)).enumerate() {
            for (channel, mix) in mixes.iter().enumerate() {
                plane.fill(mix.offset);
                for &(from, part) in &mix.terms {
                    add(plane, &values[from * area..][..area], part);
                }
                if *border > 0 {
                    extend(plane, *size, *border, padded);
                }
                let plane = if *border > 0 { &*padded } else { &*plane };
                let (start, stride) = place(*axes, *channels, plane.len(), b, channel);
                self.tensor.write(plane, start, stride);
            }
        }
    }

    /// The network's output values. `sample` has the planes of its input.
    pub(super) fn fetch(&mut self, sample: &[f32]) -> &[f32] {
        let Some(Staging { values, size, image, conversion, plane, .. }) = &mut self.staging else {
            return match &self.tensor {
                Elements::F32(tensor) => tensor.extract_tensor().1,
                _ => &[],
            };
        };
        let Some(Conversion { mixes, axes, channels, .. }) = conversion else {
            self.tensor.read(values, 0, 1);
            return values;
        };
        let area = size[0] * size[1];
        let batch = values.len() / (*image).max(1);
        let sample_size = sample.len() / batch.max(1);
        for (b, values) in values.chunks_exact_mut((*image).max(1)).enumerate() {
            for (mix, out) in mixes.iter().zip(values.chunks_exact_mut(area)) {
                out.fill(mix.offset);
                for &(from, part) in &mix.terms {
                    match from.checked_sub(*channels) {
                        None => {
                            let (start, stride) = place(*axes, *channels, area, b, from);
                            self.tensor.read(plane, start, stride);
                            add(out, plane, part);
                        }
                        Some(from) => {
                            add(out, &sample[b * sample_size + from * area..][..area], part)
                        }
                    }
                }
            }
        }
        values
    }
}

impl Elements {
    /// Writes values from `start` on, `stride` apart.
    fn write(&mut self, values: &[f32], start: usize, stride: usize) {
        fn strided<T>(to: &mut [T], values: &[f32], stride: usize, convert: impl Fn(f32) -> T) {
            to.iter_mut().step_by(stride).zip(values).for_each(|(to, from)| *to = convert(*from));
        }
        match self {
            Self::F32(tensor) if stride == 1 => {
                tensor.extract_tensor_mut().1[start..][..values.len()].copy_from_slice(values);
            }
            Self::F32(tensor) => {
                strided(&mut tensor.extract_tensor_mut().1[start..], values, stride, |value| value);
            }
            Self::F16(tensor) if stride == 1 => {
                let to = &mut tensor.extract_tensor_mut().1[start..][..values.len()];
                to.convert_from_f32_slice(values);
            }
            Self::F16(tensor) => {
                let to = &mut tensor.extract_tensor_mut().1[start..];
                strided(to, values, stride, f16::from_f32);
            }
            // The cast saturates.
            Self::U8(tensor) => {
                let to = &mut tensor.extract_tensor_mut().1[start..];
                strided(to, values, stride, |value| value.round() as u8);
            }
        }
    }

    /// Reads values from `start` on, `stride` apart.
    fn read(&self, values: &mut [f32], start: usize, stride: usize) {
        fn strided<T: Copy + Into<f32>>(values: &mut [f32], from: &[T], stride: usize) {
            values.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| {
                *to = (*from).into();
            });
        }
        match self {
            Self::F32(tensor) if stride == 1 => {
                values.copy_from_slice(&tensor.extract_tensor().1[start..][..values.len()]);
            }
            Self::F32(tensor) => strided(values, &tensor.extract_tensor().1[start..], stride),
            Self::F16(tensor) if stride == 1 => {
                tensor.extract_tensor().1[start..][..values.len()].convert_to_f32_slice(values);
            }
            Self::F16(tensor) => strided(values, &tensor.extract_tensor().1[start..], stride),
            Self::U8(tensor) => strided(values, &tensor.extract_tensor().1[start..], stride),
        }
    }
}

/// The start and the stride of a channel in a tensor.
fn place(axes: Axes, channels: usize, area: usize, image: usize, channel: usize) -> (usize, usize) {
    match axes {
        Axes::Nchw => ((image * channels + channel) * area, 1),
        Axes::Nhwc => (image * channels * area + channel, channels),
    }
}

/// A plane that goes on beyond its edges, mirrored.
fn extend(plane: &[f32], [width, height]: [usize; 2], border: usize, padded: &mut [f32]) {
    let at = |i: usize, side: usize| mirror(i.cast_signed() - border.cast_signed(), side);
    for (y, row) in padded.chunks_exact_mut(width + 2 * border).enumerate() {
        let from = &plane[at(y, height) * width..][..width];
        row.iter_mut().enumerate().for_each(|(x, value)| *value = from[at(x, width)]);
    }
}

fn add(to: &mut [f32], from: &[f32], part: f32) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += part * from);
}

/// One noise level per sample of a batch, which the executor fills as a map. If the map is not
/// uniform, the level is its root mean square.
#[derive(Debug)]
pub(super) struct NoiseLevel {
    map: Vec<f32>,
    tensor: Scalar,
    noise_encoding: NoiseEncoding,
}

impl NoiseLevel {
    /// A tensor of `shape`, with one value for all samples of the `batch` or one for each, and a
    /// map of `area` pixels per sample.
    pub(super) fn new(
        element: TensorElementType,
        shape: Vec<i64>,
        (batch, area): (usize, usize),
        noise_encoding: NoiseEncoding,
    ) -> ort::Result<Self> {
        let tensor = Scalar::new(element, shape)?;
        Ok(Self { map: vec![0.0; batch * area], tensor, noise_encoding })
    }

    pub(super) fn bind_input(&self, binding: &mut IoBinding, name: &str) -> ort::Result<()> {
        self.tensor.bind_input(binding, name)
    }

    pub(super) fn map_mut(&mut self) -> &mut [f32] {
        &mut self.map
    }

    pub(super) fn commit(&mut self) {
        let length = self.tensor.len().max(1);
        let Self { map, noise_encoding, .. } = self;
        let levels = map.chunks((map.len() / length).max(1)).map(|map| {
            let first = f64::from(map.first().copied().unwrap_or_default());
            if map.iter().all(|sigma| f64::from(*sigma) == first) {
                return noise_encoding.value(first);
            }
            let squares: f64 = map.iter().map(|sigma| f64::from(*sigma).powi(2)).sum();
            noise_encoding.value((squares / map.len() as f64).sqrt())
        });
        self.tensor.set_each(levels);
    }
}

/// A small tensor of numbers: a noise level, or a constant.
#[derive(Debug)]
pub(super) enum Scalar {
    I64(Tensor<i64>),
    I32(Tensor<i32>),
    F64(Tensor<f64>),
    F32(Tensor<f32>),
    F16(Tensor<f16>),
}

impl Scalar {
    pub(super) fn supports(element: TensorElementType) -> bool {
        use TensorElementType::{Float16, Float32, Float64, Int32, Int64};
        matches!(element, Int64 | Int32 | Float64 | Float32 | Float16)
    }

    /// A tensor of that shape.
    pub(super) fn new(element: TensorElementType, shape: Vec<i64>) -> ort::Result<Self> {
        let allocator = Allocator::default();
        Ok(match element {
            TensorElementType::Int64 => Self::I64(Tensor::new(&allocator, shape)?),
            TensorElementType::Int32 => Self::I32(Tensor::new(&allocator, shape)?),
            TensorElementType::Float64 => Self::F64(Tensor::new(&allocator, shape)?),
            TensorElementType::Float16 => Self::F16(Tensor::new(&allocator, shape)?),
            _ => Self::F32(Tensor::new(&allocator, shape)?),
        })
    }

    pub(super) fn bind_input(&self, binding: &mut IoBinding, name: &str) -> ort::Result<()> {
        match self {
            Self::I64(tensor) => binding.bind_input(name, tensor),
            Self::I32(tensor) => binding.bind_input(name, tensor),
            Self::F64(tensor) => binding.bind_input(name, tensor),
            Self::F32(tensor) => binding.bind_input(name, tensor),
            Self::F16(tensor) => binding.bind_input(name, tensor),
        }
    }

    /// The number of values.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::I64(tensor) => tensor.extract_tensor().1.len(),
            Self::I32(tensor) => tensor.extract_tensor().1.len(),
            Self::F64(tensor) => tensor.extract_tensor().1.len(),
            Self::F32(tensor) => tensor.extract_tensor().1.len(),
            Self::F16(tensor) => tensor.extract_tensor().1.len(),
        }
    }

    /// Sets all values to `t`.
    pub(super) fn set(&mut self, t: f64) {
        self.set_each(std::iter::repeat(t));
    }

    /// Sets the values in order. For an integer tensor they are truncated, as in the pipelines of
    /// such networks.
    pub(super) fn set_each(&mut self, values: impl Iterator<Item = f64>) {
        fn set<T>(to: &mut [T], values: impl Iterator<Item = f64>, convert: impl Fn(f64) -> T) {
            to.iter_mut().zip(values).for_each(|(to, value)| *to = convert(value));
        }
        match self {
            Self::I64(tensor) => set(tensor.extract_tensor_mut().1, values, |value| value as i64),
            Self::I32(tensor) => set(tensor.extract_tensor_mut().1, values, |value| value as i32),
            Self::F64(tensor) => set(tensor.extract_tensor_mut().1, values, |value| value),
            Self::F32(tensor) => set(tensor.extract_tensor_mut().1, values, |value| value as f32),
            Self::F16(tensor) => set(tensor.extract_tensor_mut().1, values, f16::from_f64),
        }
    }
}

/// The class of each sample, `[batch]`.
#[derive(Debug)]
pub(super) struct Labels(Tensor<i64>);

impl Labels {
    pub(super) fn new(batch: usize) -> ort::Result<Self> {
        Tensor::new(&Allocator::default(), [i64::try_from(batch).unwrap_or(i64::MAX)]).map(Self)
    }

    pub(super) fn bind_input(&self, binding: &mut IoBinding, name: &str) -> ort::Result<()> {
        binding.bind_input(name, &self.0)
    }

    pub(super) fn values_mut(&mut self) -> &mut [i64] {
        self.0.extract_tensor_mut().1
    }
}
