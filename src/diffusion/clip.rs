//! Limits on the predicted clean image before it is used: clamping to a range, or dynamic
//! thresholding.

use crate::diffusion::plan::Clip;

impl Clip {
    /// Applies the limit to `prediction`, a dense batch of `batch` samples of equal size.
    ///
    /// `scratch` holds the magnitudes of one sample while its quantile is computed. It is kept
    /// between calls, so only the first call allocates.
    ///
    /// # Panics
    /// When the length of `prediction` is not a multiple of `batch`.
    pub fn apply(self, prediction: &mut [f32], batch: usize, scratch: &mut Vec<f32>) {
        match self {
            Self::None => {}
            Self::Range(range) => {
                let hold = Clamp::range(range);
                prediction.iter_mut().for_each(|d| *d = hold.apply(*d));
            }
            Self::Threshold { ratio, max } => {
                if prediction.is_empty() {
                    return;
                }
                assert!(
                    batch > 0 && prediction.len().is_multiple_of(batch),
                    "a batch consists of samples of equal size"
                );
                for sample in prediction.chunks_exact_mut(prediction.len() / batch) {
                    scratch.clear();
                    scratch.extend(sample.iter().map(|d| d.abs()));
                    let hold = Clamp::threshold(scratch, ratio, max);
                    sample.iter_mut().for_each(|d| *d = hold.apply(*d));
                }
            }
        }
    }
}

/// How the values of one sample are limited: clamped to `-bound..=bound`, then divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Clamp {
    bound: f32,
    divisor: f32,
}

impl Clamp {
    /// Clamps to `-range..=range`.
    pub(super) fn range(range: f64) -> Self {
        Self { bound: range as f32, divisor: 1.0 }
    }

    /// Dynamic thresholding (Saharia et al. 2022, section 2.3). The bound is the `ratio` quantile
    /// of `magnitudes`, clamped to `1..=max` (or `max`, when that is below 1). Values are clamped
    /// to the bound and divided by it.
    ///
    /// Reorders `magnitudes`, which must not be empty.
    pub(super) fn threshold(magnitudes: &mut [f32], ratio: f64, max: f64) -> Self {
        let bound = quantile(magnitudes, ratio).max(1.0).min(max as f32);
        Self { bound, divisor: bound }
    }

    pub(super) fn apply(self, d: f32) -> f32 {
        d.clamp(-self.bound, self.bound) / self.divisor
    }
}

/// The quantile, interpolated linearly between order statistics, in linear time.
fn quantile(values: &mut [f32], ratio: f64) -> f32 {
    let position = ratio * (values.len() - 1) as f64;
    let below = position.floor() as usize;
    let weight = (position - below as f64) as f32;
    let (_, &mut low, above) = values.select_nth_unstable_by(below, f32::total_cmp);
    match above.iter().copied().min_by(f32::total_cmp) {
        Some(high) if weight > 0.0 => low + weight * (high - low),
        _ => low,
    }
}

#[cfg(test)]
mod tests {
    use super::{Clip, quantile};

    #[test]
    fn quantile_interpolates_between_order_statistics() {
        let mut values = [4.0, 1.0, 3.0, 2.0, 5.0];
        for (ratio, expected) in [(0.0, 1.0), (0.5, 3.0), (0.9, 4.6), (1.0, 5.0)] {
            assert!((quantile(&mut values, ratio) - expected).abs() < 1e-6);
        }
        assert_eq!(quantile(&mut [7.0], 0.3), 7.0);
    }

    #[test]
    fn range_clamps_values() {
        let mut d = [-3.0, -0.5, 0.5, 3.0];
        Clip::Range(1.0).apply(&mut d, 1, &mut Vec::new());
        assert_eq!(d, [-1.0, -0.5, 0.5, 1.0]);
    }

    #[test]
    fn thresholds_each_sample_of_a_batch_separately() {
        let mut d = [0.2, -0.4, 0.5, 0.1, 1.0, -2.0, 3.0, 4.0];
        Clip::Threshold { ratio: 1.0, max: 10.0 }.apply(&mut d, 2, &mut Vec::new());
        assert_eq!(d, [0.2, -0.4, 0.5, 0.1, 0.25, -0.5, 0.75, 1.0]);
    }

    #[test]
    fn max_below_one_is_the_bound() {
        let mut d = [0.25, -2.0];
        Clip::Threshold { ratio: 0.9, max: 0.5 }.apply(&mut d, 1, &mut Vec::new());
        assert_eq!(d, [0.5, -1.0]);
    }
}
