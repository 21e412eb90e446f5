//! Test images, and the difference of two images.

use std::path::Path;

use eddy::diffusion::{NoiseAt, NoiseSource, Philox};
use eddy::media::still::{self, Limits, Options};
use eddy::media::{Format, Image, Metadata, Samples};

/// A shaded image with noise of 25 of 255 gray levels, and random alpha above 0.
pub fn noisy(width: usize, height: usize, channels: usize, bits: u32) -> Image {
    let white = if bits == 8 { 255.0 } else { 65535.0 };
    let colors = if channels >= 3 { 3 } else { 1 };
    let mut values = Vec::with_capacity(width * height * channels);
    let mut rows = vec![vec![0.0; width]; channels];
    for y in 0..height {
        for (channel, row) in rows.iter_mut().enumerate() {
            Philox::new(5).fill(
                NoiseAt { step: 0, batch: 0, channel: channel as u32, y: y as u32 },
                0,
                row,
            );
        }
        for x in 0..width {
            for (channel, row) in rows.iter().enumerate() {
                let level = if channel < colors {
                    0.3 + 0.4 * (x + y) as f32 / (width + height) as f32 + 25.0 / 255.0 * row[x]
                } else {
                    // Fully transparent pixels have tests of their own.
                    (0.5 + 0.4 * row[x]).max(0.01)
                };
                values.push((white * level).round().clamp(0.0, white));
            }
        }
    }
    let samples = match bits {
        8 => Samples::U8(values.iter().map(|value| *value as u8).collect()),
        _ => Samples::U16(values.iter().map(|value| *value as u16).collect()),
    };
    Image { width, height, channels, samples, metadata: Metadata::default() }
}

/// The bytes of an image file.
pub fn encoded(image: &Image, extension: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    still::write(image, &path, extension.parse::<Format>().unwrap(), &Options::default()).unwrap();
    std::fs::read(path).unwrap()
}

pub fn read(path: &Path) -> Image {
    still::read(path, &Limits::default()).unwrap()
}

/// Samples as parts of the full range.
pub fn values(image: &Image) -> Vec<f64> {
    match &image.samples {
        Samples::U8(samples) => samples.iter().map(|sample| f64::from(*sample) / 255.0).collect(),
        Samples::U16(samples) => {
            samples.iter().map(|sample| f64::from(*sample) / 65535.0).collect()
        }
    }
}

/// The alpha samples, or none.
pub fn alpha(image: &Image) -> Vec<f64> {
    if !image.has_alpha() {
        return Vec::new();
    }
    values(image).into_iter().skip(image.channels - 1).step_by(image.channels).collect()
}

/// The color samples.
pub fn colors(image: &Image) -> Vec<f64> {
    let count = image.color_channels();
    values(image)
        .into_iter()
        .enumerate()
        .filter(|(i, _)| i % image.channels < count)
        .map(|(_, value)| value)
        .collect()
}

/// The root of the mean squared difference of the colors, in 8-bit gray levels.
pub fn distance(one: &Image, other: &Image) -> f64 {
    let (one, other) = (colors(one), colors(other));
    assert_eq!(one.len(), other.len(), "images of unequal size");
    let sum: f64 = one.iter().zip(&other).map(|(a, b)| (a - b).powi(2)).sum();
    255.0 * (sum / one.len() as f64).sqrt()
}

/// The peak signal-to-noise ratio in dB.
pub fn psnr(one: &Image, other: &Image) -> f64 {
    20.0 * (255.0 / distance(one, other)).log10()
}
