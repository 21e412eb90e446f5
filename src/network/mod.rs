//! Networks: what the executor asks of one, and the ONNX Runtime session that answers.

mod buffer;
mod device;
mod elf;
mod engines;
mod interface;
mod nodes;
mod provider;
mod runtime;
mod session;
mod watch;

pub use device::{Device, DeviceChoice, Placement, ProbeDepth};
pub(crate) use engines::sha256;
pub use engines::{durations as engine_durations, folder as engine_folder};
pub use interface::Interface;
pub use provider::OpenVinoTarget;
pub use runtime::{EMBEDDED_VERSION, Library, OLDEST_MINOR_VERSION, Runtime};
pub use session::{Engine, ModelSource, OnnxNetwork, SessionOptions, default_threads};
pub(crate) use watch::load;
pub use watch::{has_given_up, limit_evaluations, stop_evaluations, too_long};

use crate::error::Result;

/// The shape of a batch of inputs: `[batch, channels, height, width]`.
pub type Shape = [usize; 4];

/// A network seen by the executor: buffers to fill, one evaluation, an output to read.
///
/// All buffers are NCHW, dense, in the network's own coordinates. They are allocated by [`bind`](Network::bind) and
/// stay where they are until the next `bind` with another shape, so that an evaluation allocates nothing.
///
/// This is the one seam at which a test may put something else than ONNX Runtime: a network with a closed form.
pub trait Network {
    /// Makes the buffers fit inputs of `shape`; cheap when the shape is the bound one already.
    ///
    /// # Errors
    /// When the network cannot take this shape.
    fn bind(&mut self, shape: Shape) -> Result<()>;

    /// The inputs to fill before an evaluation; their contents persist between evaluations.
    fn inputs(&mut self) -> Inputs<'_>;

    /// Evaluates the network on what the inputs hold and returns its output, of the shape of the sample.
    ///
    /// `t` is the scalar by which the network is told the noise level (a timestep, a sigma, or `c_noise`); a network
    /// that takes a map of sigma ignores it.
    ///
    /// # Errors
    /// When the runtime reports a failure.
    fn evaluate(&mut self, t: f64) -> Result<&[f32]>;

    /// Gives back the memory that evaluations took, until the next; by default nothing is given back. `small` is a small shape that
    /// the network takes; another than that has to be bound afterwards.
    ///
    /// # Errors
    /// When the runtime reports a failure.
    fn release(&mut self, _small: Shape) -> Result<()> {
        Ok(())
    }

    /// The network to ask again where this one gave invalid output: the same in f32, which may be itself. By
    /// default there is none.
    ///
    /// # Errors
    /// When there is one that cannot be loaded.
    fn again(&mut self) -> Result<Option<&mut dyn Network>> {
        Ok(None)
    }
}

/// The input buffers of a [`Network`].
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The noisy sample, `[batch, channels, height, width]`; empty for networks that take none.
    pub sample: &'a mut [f32],
    /// The map of sigma, `[batch, planes, height, width]` with one plane, or two where luma and chroma have one each, for
    /// networks that take one.
    pub sigma: Option<&'a mut [f32]>,
    /// What is to be enlarged or decoded, `[batch, channels, height / scale, width / scale]`, for networks that take such.
    pub condition: Option<&'a mut [f32]>,
    /// The class of each sample, `[batch]`, for networks that take one. What is filled in stays until the next
    /// [`bind`](Network::bind) with another shape.
    pub class: Option<&'a mut [i64]>,
}
