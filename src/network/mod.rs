//! Networks: the trait that the executor uses, and its implementation with ONNX Runtime.

mod buffer;
mod cache;
mod device;
mod elf;
mod encoding;
mod engines;
mod graph;
mod interface;
mod nodes;
mod optimized;
mod provider;
mod runtime;
mod session;
mod trial;
mod watch;

pub use cache::root as cache_folder;
pub use device::{Device, DeviceChoice, Placement, ProbeDepth};
pub use encoding::{Axes, Colors, Encoding, NoiseEncoding, NoiseScale};
pub use engines::{durations as engine_durations, folder as engine_folder};
pub use graph::{ConstantInputs, TensorGraph};
pub use interface::{Interface, RecurrentState};
pub use optimized::OptimizedGraph;
pub use provider::OpenVinoTarget;
pub use runtime::{EMBEDDED_SHA256, EMBEDDED_VERSION, Library, OLDEST_MINOR_VERSION, Runtime};
pub use session::{
    Engine, ModelSource, OnnxNetwork, SessionOptions, THREADS_PER_CORE, default_threads,
    max_threads,
};
pub use trial::{Element, Feed, Port, ProbeSession};
pub(crate) use watch::load;
pub use watch::{is_load_abandoned, limit_evaluations, stop_evaluations, too_long};

use crate::error::{Error, Result};

/// The shape of a batch of inputs: `[batch, channels, height, width]`.
pub type Shape = [usize; 4];

/// A network as the executor sees it: input buffers, one evaluation, an output.
///
/// All buffers are NCHW, dense, in the network's own coordinates. [`bind`](Network::bind) allocates
/// them, and they stay in place until the next `bind` with another shape, so an evaluation
/// allocates nothing.
///
/// Tests may implement this trait with a closed-form network; they replace nothing else of ONNX
/// Runtime.
pub trait Network {
    /// Allocates buffers for inputs of `shape`. Does little when that shape is already bound.
    ///
    /// # Errors
    /// When the network cannot take this shape.
    fn bind(&mut self, shape: Shape) -> Result<()>;

    /// The inputs to fill before an evaluation. Their contents persist between evaluations.
    fn inputs(&mut self) -> Inputs<'_>;

    /// Evaluates the network on its inputs and returns its output, of the shape of the sample.
    ///
    /// `t` is the scalar noise level that the network is conditioned on: a timestep, a sigma, or
    /// `c_noise`. A network that takes a sigma map ignores it.
    ///
    /// # Errors
    /// When the runtime reports a failure.
    fn evaluate(&mut self, t: f64) -> Result<&[f32]>;

    /// Gives the samples of the bound batch from `from` on the constants that mean no condition.
    /// Lasts until the next [`bind`](Network::bind) with another shape. By default there are none.
    ///
    /// # Errors
    /// When an input has no value of its own for each sample.
    fn drop_conditions(&mut self, _from: usize) -> Result<()> {
        Ok(())
    }

    /// Whether larger tiles always take less time. By default no: on a CPU they do up to a size.
    fn gains_from_large_tiles(&self) -> bool {
        false
    }

    /// Forgets what a recurrent network keeps from one evaluation to the next. By default there is
    /// nothing.
    fn reset_state(&mut self) {}

    /// Frees the memory of evaluations until the next one; by default does nothing. `small` is a
    /// small shape that the network takes. Any other shape must be bound again afterward.
    ///
    /// # Errors
    /// When the runtime reports a failure.
    fn trim_memory(&mut self, _small: Shape) -> Result<()> {
        Ok(())
    }

    /// The number of copies of this network, at most `most`, that are useful for several evaluations
    /// at the same time. By default there are none, as where a single evaluation uses the device
    /// better.
    fn most_copies(&self, _most: usize) -> usize {
        0
    }

    /// That many copies of this network, as allowed by [`most_copies`](Self::most_copies). Its
    /// threads are divided among them. Each copy is independent and has its own fallback.
    ///
    /// # Errors
    /// When a copy cannot be loaded.
    fn copies(&self, _count: usize) -> Result<Vec<Box<dyn Network + Send>>> {
        Err(Error::evaluation("this network has no copies"))
    }

    /// The fallback network to evaluate when this one gives invalid output: the f32 network, which
    /// may be this one. By default there is none.
    ///
    /// # Errors
    /// When the fallback cannot be loaded.
    fn fallback(&mut self) -> Result<Option<&mut dyn Network>> {
        Ok(None)
    }
}

/// The input buffers of a [`Network`].
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The noisy sample, `[batch, channels, height, width]`. Empty for networks without one.
    pub sample: &'a mut [f32],
    /// The sigma map, `[batch, planes, height, width]`, for networks that take one. There is one
    /// plane, or one for luma and one for chroma.
    pub sigma: Option<&'a mut [f32]>,
    /// The condition to enlarge or decode, `[batch, channels, height / scale, width / scale]`, for
    /// networks that take one.
    pub condition: Option<&'a mut [f32]>,
    /// The class of each sample, `[batch]`, for networks that take one. Values persist until the
    /// next [`bind`](Network::bind) with another shape.
    pub class: Option<&'a mut [i64]>,
}
