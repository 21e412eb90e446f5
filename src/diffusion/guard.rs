//! Detection of invalid network output: values that are not finite, and a blank tile where there
//! was an image.

/// Statistics read the first `SAMPLED` of every `STRIDE` values.
const STRIDE: usize = 4096;
const SAMPLED: usize = 64;

/// Output with at most this fraction of the input's variance counts as flat: a hundredth of the
/// contrast, or half a gray level of most images.
const FLAT: f64 = 1e-4;

/// Tiles of fewer values are not checked for blanks: small details may be flat.
const MIN_VALUES: usize = 8192;

/// Flat output is blank if its squared distance to the input exceeds twice the noise variance by
/// this much. Images span 1 or 2 units.
const MIN_DISTANCE: f64 = 0.02 * 0.02;

/// Mean and variance of some of the values of a tile.
#[derive(Clone, Copy, Debug)]
struct SampleStats {
    mean: f64,
    variance: f64,
}

/// Mean and mean square of some of the values.
fn moments(values: &[f32]) -> (f64, f64) {
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0);
    for part in values.chunks(STRIDE) {
        let part = &part[..part.len().min(SAMPLED)];
        for value in part {
            let value = f64::from(*value);
            sum += value;
            squares += value * value;
        }
        count += part.len();
    }
    let count = count.max(1) as f64;
    (sum / count, squares / count)
}

impl SampleStats {
    fn at(values: &[f32]) -> Self {
        let (mean, square) = moments(values);
        Self { mean, variance: (square - mean * mean).max(0.0) }
    }
}

/// What the output of an evaluation is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// The statistics of the input, where the output is that image without its noise.
    image: Option<SampleStats>,
    /// The variance of the noise in the input.
    noise: f64,
}

impl Expected {
    /// Expects finite values and nothing else.
    pub(super) const NUMBERS: Self = Self { image: None, noise: 0.0 };

    /// Expects the denoised `sample`. `sigma` is the standard deviation of its noise per value.
    pub(super) fn denoised(sample: &[f32], sigma: &[f32]) -> Self {
        Self { image: Some(SampleStats::at(sample)), noise: moments(sigma).1 }
    }

    /// Expects an enlargement of `condition`.
    pub(super) fn enlarged(condition: &[f32]) -> Self {
        Self { image: Some(SampleStats::at(condition)), noise: 0.0 }
    }

    /// Describes what is wrong with `output`, if anything.
    pub(super) fn defect(&self, output: &[f32]) -> Option<String> {
        const EXPONENT: u32 = 0x7f80_0000;
        // All exponent bits set means infinity or NaN. There is no branch, so this is one pass at
        // memory speed.
        let bad = output
            .iter()
            .fold(0, |bad, value| bad | u32::from(value.to_bits() & EXPONENT == EXPONENT));
        if bad != 0 {
            let count = output.iter().filter(|value| !value.is_finite()).count();
            let values = if count == 1 { "value" } else { "values" };
            return Some(format!("an output with {count} non-finite {values} (NaN or infinity)"));
        }
        let input = self.image.filter(|_| output.len() >= MIN_VALUES)?;
        let output = SampleStats::at(output);
        // The output is flat, and removing noise of the known level does not explain the
        // difference.
        let taken = input.variance + (input.mean - output.mean).powi(2);
        let blank =
            output.variance <= FLAT * input.variance && taken > 2.0 * self.noise + MIN_DISTANCE;
        blank.then(|| {
            format!("{:.3} all over, for an image whose mean is {:.3}", output.mean, input.mean)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Expected;
    use crate::diffusion::{NoiseAt, NoiseSource, Philox};

    /// A ramp from `low` to `high` with noise, clamped to `0..=1` as by a camera.
    fn noisy(low: f32, high: f32, sigma: f32) -> Vec<f32> {
        let mut noise = vec![0.0; 1 << 16];
        Philox::new(0).fill(NoiseAt { step: 0, batch: 0, channel: 0, y: 0 }, 0, &mut noise);
        let ramp = |i: usize| low + (high - low) * (i % 256) as f32 / 255.0;
        noise.iter().enumerate().map(|(i, z)| (ramp(i) + sigma * z).clamp(0.0, 1.0)).collect()
    }

    #[test]
    fn rejects_black_output_for_an_image() {
        for (low, high, sigma) in
            [(0.2, 0.9, 0.05), (0.05, 0.3, 0.02), (0.0, 1.0, 0.1), (0.5, 0.5, 0.01)]
        {
            let sample = noisy(low, high, sigma);
            let expected = Expected::denoised(&sample, &[sigma]);
            let defect = expected.defect(&vec![0.0; sample.len()]);
            assert!(
                defect.as_ref().is_some_and(|defect| defect.contains("all over")),
                "{low} to {high}: {defect:?}"
            );
            assert_eq!(expected.defect(&noisy(low, high, 0.0)), None);
        }
    }

    #[test]
    fn flat_output_for_a_flat_scene_is_accepted() {
        for (level, sigma) in [(0.0, 0.2), (0.0, 0.01), (0.5, 0.2), (1.0, 0.1), (0.3, 0.0)] {
            let sample = noisy(level, level, sigma);
            assert_eq!(
                Expected::denoised(&sample, &[sigma]).defect(&vec![level; sample.len()]),
                None,
                "{level}"
            );
        }
        let small = noisy(0.4, 0.4, 0.0);
        assert_eq!(Expected::enlarged(&small).defect(&[0.4; 1 << 14]), None);
        assert!(Expected::enlarged(&small).defect(&[0.0; 1 << 14]).is_some());
    }

    #[test]
    fn non_finite_output_is_a_defect_anywhere() {
        let mut output = noisy(0.0, 1.0, 0.0);
        output[1000] = f32::NAN;
        output[2000] = f32::NEG_INFINITY;
        assert_eq!(
            Expected::NUMBERS.defect(&output),
            Some("an output with 2 non-finite values (NaN or infinity)".to_owned())
        );
    }
}
