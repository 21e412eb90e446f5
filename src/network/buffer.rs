//! Tensors that are bound once and filled in place.

use half::f16;
use half::slice::HalfFloatSliceExt;
use ort::memory::Allocator;
use ort::session::IoBinding;
use ort::value::Tensor;
use ort::value::TensorElementType;

/// An image tensor that the executor reads and writes as f32, whatever its element type.
#[derive(Debug)]
pub(super) enum Buffer {
    /// The tensor's memory is read and written directly.
    F32(Tensor<f32>),
    /// The tensor is converted to and from `staging`.
    F16 { tensor: Tensor<f16>, staging: Vec<f32> },
}

impl Buffer {
    /// A tensor of `shape`, in memory of `allocator` that the processor can access.
    pub(super) fn new(
        allocator: &Allocator,
        element: TensorElementType,
        shape: [usize; 4],
    ) -> ort::Result<Self> {
        Ok(if element == TensorElementType::Float16 {
            let tensor = Tensor::new(allocator, shape)?;
            Self::F16 { tensor, staging: vec![0.0; shape.iter().product()] }
        } else {
            let mut tensor: Tensor<f32> = Tensor::new(allocator, shape)?;
            tensor.extract_tensor_mut().1.fill(0.0);
            Self::F32(tensor)
        })
    }

    pub(super) fn bind_input(&self, binding: &mut IoBinding, name: &str) -> ort::Result<()> {
        match self {
            Self::F32(tensor) => binding.bind_input(name, tensor),
            Self::F16 { tensor, .. } => binding.bind_input(name, tensor),
        }
    }

    pub(super) fn bind_output(&mut self, binding: &mut IoBinding, name: &str) -> ort::Result<()> {
        match self {
            Self::F32(tensor) => binding.bind_output(name, tensor),
            Self::F16 { tensor, .. } => binding.bind_output(name, tensor),
        }
    }

    /// The values to fill. [`commit`](Self::commit) copies them to the tensor.
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        match self {
            Self::F32(tensor) => tensor.extract_tensor_mut().1,
            Self::F16 { staging, .. } => staging,
        }
    }

    pub(super) fn commit(&mut self) {
        if let Self::F16 { tensor, staging } = self {
            tensor.extract_tensor_mut().1.convert_from_f32_slice(staging);
        }
    }

    /// The network's output values.
    pub(super) fn fetch(&mut self) -> &[f32] {
        match self {
            Self::F32(tensor) => tensor.extract_tensor().1,
            Self::F16 { tensor, staging } => {
                tensor.extract_tensor().1.convert_to_f32_slice(staging);
                staging
            }
        }
    }
}

/// The noise level tensor: a scalar, or a vector of equal values.
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

    /// A tensor of rank 0, or a vector of `length`.
    pub(super) fn new(element: TensorElementType, length: Option<usize>) -> ort::Result<Self> {
        let allocator = Allocator::default();
        let shape: Vec<i64> =
            length.iter().map(|&length| i64::try_from(length).unwrap_or(i64::MAX)).collect();
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

    /// Sets all values to `t`. For an integer tensor `t` is truncated, as in the pipelines of such
    /// networks.
    pub(super) fn set(&mut self, t: f64) {
        match self {
            Self::I64(tensor) => tensor.extract_tensor_mut().1.fill(t as i64),
            Self::I32(tensor) => tensor.extract_tensor_mut().1.fill(t as i32),
            Self::F64(tensor) => tensor.extract_tensor_mut().1.fill(t),
            Self::F32(tensor) => tensor.extract_tensor_mut().1.fill(t as f32),
            Self::F16(tensor) => tensor.extract_tensor_mut().1.fill(f16::from_f64(t)),
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
