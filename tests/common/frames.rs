//! Pictures to test with, and how far apart two of them are.

use std::path::Path;

use eddy::diffusion::{NoiseAt, NoiseSource, Philox};
use eddy::frame::picture::{self, Limits, Options};
use eddy::frame::{Format, Frame, Metadata, Samples};

/// A shaded picture with noise of 25 of 255 grey levels, and random alpha above 0.
pub fn noisy(width: usize, height: usize, channels: usize, bits: u32) -> Frame {
    let white = if bits == 8 { 255.0 } else { 65535.0 };
    let colors = if channels >= 3 { 3 } else { 1 };
    let mut values = Vec::with_capacity(width * height * channels);
    let mut rows = vec![vec![0.0; width]; channels];
    for y in 0..height {
        for (channel, row) in rows.iter_mut().enumerate() {
            Philox::new(5).fill(NoiseAt { step: 0, batch: 0, channel: channel as u32, y: y as u32 }, 0, row);
        }
        for x in 0..width {
            for (channel, row) in rows.iter().enumerate() {
                let level = if channel < colors {
                    0.3 + 0.4 * (x + y) as f32 / (width + height) as f32 + 25.0 / 255.0 * row[x]
                } else {
                    // What is fully transparent is another matter.
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
    Frame { width, height, channels, samples, metadata: Metadata::default() }
}

/// The bytes of a picture file.
pub fn encoded(frame: &Frame, extension: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture");
    picture::write(frame, &path, extension.parse::<Format>().unwrap(), &Options::default()).unwrap();
    std::fs::read(path).unwrap()
}

pub fn read(path: &Path) -> Frame {
    picture::read(path, &Limits::default()).unwrap()
}

/// Samples as parts of the full range.
pub fn values(frame: &Frame) -> Vec<f64> {
    match &frame.samples {
        Samples::U8(samples) => samples.iter().map(|sample| f64::from(*sample) / 255.0).collect(),
        Samples::U16(samples) => samples.iter().map(|sample| f64::from(*sample) / 65535.0).collect(),
    }
}

/// The alpha samples, or none.
pub fn alpha(frame: &Frame) -> Vec<f64> {
    if !frame.has_alpha() {
        return Vec::new();
    }
    values(frame).into_iter().skip(frame.channels - 1).step_by(frame.channels).collect()
}

/// The colour samples.
pub fn colors(frame: &Frame) -> Vec<f64> {
    let count = frame.color_channels();
    values(frame).into_iter().enumerate().filter(|(i, _)| i % frame.channels < count).map(|(_, value)| value).collect()
}

/// The root of the mean squared difference of the colours, in 8-bit grey levels.
pub fn distance(one: &Frame, other: &Frame) -> f64 {
    let (one, other) = (colors(one), colors(other));
    assert_eq!(one.len(), other.len(), "pictures of unequal size");
    let sum: f64 = one.iter().zip(&other).map(|(a, b)| (a - b).powi(2)).sum();
    255.0 * (sum / one.len() as f64).sqrt()
}

/// The peak signal-to-noise ratio in dB.
pub fn psnr(one: &Frame, other: &Frame) -> f64 {
    20.0 * (255.0 / distance(one, other)).log10()
}
