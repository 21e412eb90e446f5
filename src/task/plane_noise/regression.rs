//! Small networks, fitted by `models/train/noise_estimate.py` to simulated pictures whose noise is known.

use super::features::{OF_PAIR, OF_PICTURE};
use super::weights::{picture, stream};

/// How many numbers the regression for streams takes: a pair's, what the one for pictures says, and the role.
pub(super) const OF_STREAM: usize = OF_PAIR + 5;

/// An affine layer.
pub(super) struct Layer<const I: usize, const O: usize> {
    pub(super) weight: [[f32; I]; O],
    pub(super) bias: [f32; O],
}

impl<const I: usize, const O: usize> Layer<I, O> {
    fn run(&self, x: &[f32; I]) -> [f32; O] {
        std::array::from_fn(|o| self.bias[o] + self.weight[o].iter().zip(x).map(|(w, x)| w * x).sum::<f32>())
    }

    fn run_positive(&self, x: &[f32; I]) -> [f32; O] {
        self.run(x).map(|y| y.max(0.0))
    }
}

/// The logarithms of the deviation and of those of the finest band and the second octave, and of the odds of no noise.
pub(super) fn of_picture(features: &[f32; OF_PICTURE]) -> [f32; 4] {
    picture::OUT.run(&picture::SECOND.run_positive(&picture::FIRST.run_positive(features)))
}

/// The logarithm of the deviation, less what the regression for pictures says, and that of the odds of no noise.
pub(super) fn of_stream(features: &[f32; OF_STREAM]) -> [f32; 2] {
    stream::OUT.run(&stream::FIRST.run_positive(features))
}
