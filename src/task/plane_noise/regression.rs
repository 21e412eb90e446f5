//! Small networks, fitted by `models/train/noise_estimate.py` to simulated images with known
//! noise.

use super::features::{OF_IMAGE, OF_PAIR};
use super::weights::{image, stream};

/// Number of inputs of the regression for streams: the features of a pair, the output for an
/// image, and the role.
const OF_STREAM: usize = OF_PAIR + 5;

/// An affine layer.
pub(super) struct Layer<const I: usize, const O: usize> {
    pub(super) weight: [[f32; I]; O],
    pub(super) bias: [f32; O],
}

impl<const I: usize, const O: usize> Layer<I, O> {
    fn run(&self, x: &[f32; I]) -> [f32; O] {
        std::array::from_fn(|o| {
            self.bias[o] + self.weight[o].iter().zip(x).map(|(w, x)| w * x).sum::<f32>()
        })
    }

    fn run_positive(&self, x: &[f32; I]) -> [f32; O] {
        self.run(x).map(|y| y.max(0.0))
    }
}

/// Logarithms of the standard deviations of all noise, the finest band and the second octave; and
/// the log odds of no noise.
pub(super) fn of_image(features: &[f32; OF_IMAGE]) -> [f32; 4] {
    image::OUT.run(&image::SECOND.run_positive(&image::FIRST.run_positive(features)))
}

/// Part of the textured blocks below which the whole scene counts as moving.
const MOVING_PART: f64 = 0.3;

/// Part above which the differences between frames are trusted.
const STATIC_PART: f64 = 0.6;

/// Logarithm of the standard deviation and log odds of no noise, from the features of a pair of
/// frames and the output of [`of_image`]. `still` is the static part of the textured blocks. Where
/// everything moves, the differences may lower the standard deviation but not raise it.
pub(super) fn of_stream(
    pair: &[f32; OF_PAIR],
    frame: [f32; 4],
    is_chroma: bool,
    still: f64,
) -> [f32; 2] {
    let [sigma, fine, coarse, clean] = frame;
    let mut numbers = [0.0; OF_STREAM];
    let rest = [sigma, fine, coarse, clean / 4.0, if is_chroma { 1.0 } else { 0.0 }];
    numbers[..OF_PAIR].copy_from_slice(pair);
    numbers[OF_PAIR..].copy_from_slice(&rest);
    let [change, odds] = stream::OUT.run(&stream::FIRST.run_positive(&numbers));
    let trust = ((still - MOVING_PART) / (STATIC_PART - MOVING_PART)).clamp(0.0, 1.0) as f32;
    let change = if change > 0.0 { trust * change } else { change };
    [sigma + change, clean + trust * (odds - clean)]
}
