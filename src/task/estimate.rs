//! Estimates the noise level of an image.

use crate::media::{Image, Samples};

/// High-pass filter of Daubechies' wavelet with two vanishing moments. Its response to ramps is
/// zero, so that shading is not mistaken for noise.
pub(super) const HIGH_PASS: [f64; 4] = [
    -0.129_409_522_551_260_4,
    -0.224_143_868_042_013_4,
    0.836_516_303_737_807_9,
    -0.482_962_913_144_534_2,
];

/// The matching low-pass filter: the same taps reversed, with alternating signs.
pub(super) const LOW_PASS: [f64; 4] = [-HIGH_PASS[3], HIGH_PASS[2], -HIGH_PASS[1], HIGH_PASS[0]];

/// The median of `|n|` for a standard normal `n`.
pub(super) const MEDIAN_OF_NORMAL: f64 = 0.674_489_750_196_081_7;

/// Approximate number of coefficients per channel; more would change only the third digit.
const SAMPLES: usize = 1 << 18;

/// The standard deviation of an image's noise, as a part of the full range (25 gray levels of 255
/// give 0.098): the median absolute deviation of the finest diagonal wavelet band (Donoho and
/// Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage", section 4.2), averaged over
/// the color channels.
///
/// Clipped places, where noise is cut off, and transparent ones are left out. An image with a side
/// below 4 pixels, or without any usable place, gives 0. Texture at the scale of a pixel counts as
/// noise.
pub fn estimate_sigma(image: &Image) -> f64 {
    fn of<T: Copy + Into<f64>>(image: &Image, samples: &[T], white: f64) -> f64 {
        let size = [image.width, image.height, image.color_channels()];
        let sample = |c: usize, x: usize, y: usize| {
            let pixel = &samples[(y * image.width + x) * image.channels..][..image.channels];
            // Fully transparent pixels are left out like clipped ones.
            if image.has_alpha() && pixel[image.channels - 1].into() == 0.0 {
                0.0
            } else {
                pixel[c].into() / white
            }
        };
        estimate(size, sample)
    }
    match &image.samples {
        Samples::U8(samples) => of(image, samples, u8::MAX.into()),
        Samples::U16(samples) => of(image, samples, u16::MAX.into()),
    }
}

/// `sample(channel, x, y)` is a part of the full range.
fn estimate(
    [width, height, channels]: [usize; 3],
    sample: impl Fn(usize, usize, usize) -> f64,
) -> f64 {
    if width < 4 || height < 4 {
        return 0.0;
    }
    let (across, down) = (width - 3, height - 3);
    // The step is odd, so that it does not align with the block grid of a compressed image.
    let step = (across * down / SAMPLES).isqrt() | 1;
    let mut magnitudes = Vec::with_capacity(across.div_ceil(step) * down.div_ceil(step));
    let mut sum = 0.0;
    for channel in 0..channels {
        magnitudes.clear();
        for y in (0..down).step_by(step) {
            for x in (0..across).step_by(step) {
                magnitudes.extend(diagonal(|i, j| sample(channel, x + i, y + j)));
            }
        }
        sum += median(&mut magnitudes) / MEDIAN_OF_NORMAL;
    }
    sum / channels as f64
}

/// Magnitude of the diagonal coefficient of 4x4 samples; `None` if one of them is clipped.
fn diagonal(sample: impl Fn(usize, usize) -> f64) -> Option<f64> {
    let mut coefficient = 0.0;
    for (j, vertical) in HIGH_PASS.iter().enumerate() {
        for (i, horizontal) in HIGH_PASS.iter().enumerate() {
            let value = sample(i, j);
            if value <= 0.0 || value >= 1.0 {
                return None;
            }
            coefficient += vertical * horizontal * value;
        }
    }
    Some(coefficient.abs())
}

fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::estimate_sigma;
    use crate::diffusion::{NoiseAt, NoiseSource, Philox};
    use crate::media::{Image, Metadata, Samples};

    /// A shaded image with an edge, and noise of `sigma` gray levels.
    fn noisy(sigma: f32, channels: usize) -> Image {
        let (width, height) = (200, 160);
        let mut samples = vec![0; width * height * channels];
        let mut row = vec![0.0; width];
        for (i, line) in samples.chunks_exact_mut(width * channels).enumerate() {
            for channel in 0..channels {
                let at = NoiseAt { step: 0, batch: 0, channel: channel as u32, y: i as u32 };
                Philox::new(7).fill(at, 0, &mut row);
                for (x, z) in row.iter().enumerate() {
                    let clean =
                        60.0 + 0.3 * x as f32 + if x > 90 { 40.0 } else { 0.0 } + 0.2 * i as f32;
                    line[x * channels + channel] =
                        (clean + sigma * z).round().clamp(0.0, 255.0) as u8;
                }
            }
        }
        Image {
            width,
            height,
            channels,
            samples: Samples::U8(samples),
            metadata: Metadata::default(),
        }
    }

    #[test]
    fn finds_the_noise_that_was_added() {
        for channels in [1, 3] {
            for sigma in [5.0, 15.0, 25.0, 40.0] {
                let found = 255.0 * estimate_sigma(&noisy(sigma, channels));
                assert!(
                    (found - f64::from(sigma)).abs() < 0.05 * f64::from(sigma),
                    "{sigma}: {found}"
                );
            }
        }
    }

    #[test]
    fn ignores_shading() {
        assert!(255.0 * estimate_sigma(&noisy(0.0, 3)) < 0.6);
    }

    #[test]
    fn returns_zero_without_usable_places() {
        let saturated = Image {
            width: 9,
            height: 9,
            channels: 1,
            samples: Samples::U8(vec![255; 81]),
            metadata: Metadata::default(),
        };
        let tiny =
            Image { width: 2, height: 2, samples: Samples::U8(vec![9; 4]), ..saturated.clone() };
        assert_eq!((estimate_sigma(&saturated), estimate_sigma(&tiny)), (0.0, 0.0));
    }
}
