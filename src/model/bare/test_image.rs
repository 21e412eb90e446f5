//! The images for probe runs: a photograph (NASA's portrait of Eileen Collins, in the public
//! domain, from scikit-image), extended by mirroring, and noise.

use crate::diffusion::{NoiseAt, NoiseSource, Philox};
use crate::error::Result;
use crate::media::{Image, Samples};
use crate::tensor::mirror;

/// 96x96 pixels of red, green and blue.
const PHOTOGRAPH: &[u8; 3 * SIDE * SIDE] = include_bytes!("astronaut.rgb");
const SIDE: usize = 96;

/// An RGB image as planes with values of 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TestImage {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) planes: Vec<f32>,
}

impl TestImage {
    /// The photograph, with (`x`, `y`) as its top left corner.
    pub(super) fn photograph([width, height]: [usize; 2], [x, y]: [usize; 2]) -> Self {
        let at = |i: usize| mirror(i.cast_signed(), SIDE);
        let mut planes = Vec::with_capacity(3 * width * height);
        for channel in 0..3 {
            for row in 0..height {
                planes.extend((0..width).map(|column| {
                    let pixel = at(y + row) * SIDE + at(x + column);
                    f32::from(PHOTOGRAPH[3 * pixel + channel]) / 255.0
                }));
            }
        }
        Self { width, height, planes }
    }

    /// Noise on gray, which activates every unit of a network.
    pub(super) fn noise(size: [usize; 2]) -> Self {
        let mut image = Self::photograph(size, [0, 0]);
        image.planes.fill(0.5);
        image.add_noise(0.25);
        image
    }

    /// Adds white Gaussian noise of standard deviation `sigma`.
    pub(super) fn add_noise(&mut self, sigma: f32) {
        let source = Philox::new(0);
        let mut noise = vec![0.0; self.width];
        for (i, row) in self.planes.chunks_exact_mut(self.width).enumerate() {
            let (channel, y) = ((i / self.height) as u32, (i % self.height) as u32);
            source.fill(NoiseAt { step: 0, batch: 0, channel, y }, 0, &mut noise);
            row.iter_mut().zip(&noise).for_each(|(value, noise)| *value += sigma * noise);
        }
    }

    /// Blurs it by a box filter of 3x3 pixels.
    pub(super) fn blur(&mut self) {
        let (width, height) = (self.width, self.height);
        for plane in self.planes.chunks_exact_mut(width * height) {
            let sharp = plane.to_vec();
            for (i, value) in plane.iter_mut().enumerate() {
                let at = |dx: isize, dy: isize| {
                    let x = mirror((i % width).cast_signed() + dx, width);
                    let y = mirror((i / width).cast_signed() + dy, height);
                    sharp[y * width + x]
                };
                let around = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy)));
                *value = around.map(|(dx, dy)| at(dx, dy)).sum::<f32>() / 9.0;
            }
        }
    }

    /// Downsamples by the mean of blocks of `scale` x `scale` pixels.
    pub(super) fn downsampled(&self, scale: usize) -> Self {
        let (width, height) = (self.width / scale, self.height / scale);
        let mut planes = Vec::with_capacity(3 * width * height);
        for plane in self.planes.chunks_exact(self.width * self.height) {
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let rows = (scale * y..scale * (y + 1)).map(|y| &plane[y * self.width..]);
                let sum: f32 = rows.flat_map(|row| &row[scale * x..scale * (x + 1)]).sum();
                planes.push(sum / (scale * scale) as f32);
            }
        }
        Self { width, height, planes }
    }

    /// Upsamples by nearest neighbor.
    pub(super) fn upsampled(&self, scale: usize) -> Self {
        let mut planes = Vec::with_capacity(self.planes.len() * scale * scale);
        for row in self.planes.chunks_exact(self.width) {
            for _ in 0..scale {
                planes.extend(row.iter().flat_map(|value| std::iter::repeat_n(*value, scale)));
            }
        }
        Self { width: scale * self.width, height: scale * self.height, planes }
    }
}

/// The image with one or three planes of 0 to 1.
pub(super) fn as_image(planes: &[f32], width: usize, height: usize) -> Result<Image> {
    let area = width * height;
    let channels = (planes.len() / area.max(1)).max(1);
    let sample = |i: usize| (255.0 * planes[(i % channels) * area + i / channels]).round() as u8;
    Image::new(width, height, channels, Samples::U8((0..channels * area).map(sample).collect()))
}

/// The peak signal-to-noise ratio of planes of 0 to 1, in dB.
pub(super) fn psnr(planes: &[f32], truth: &[f32]) -> f64 {
    let squares = planes.iter().zip(truth).map(|(value, truth)| {
        // NaN counts as wrong.
        let value = if value.is_finite() { value.clamp(0.0, 1.0) } else { 2.0 };
        f64::from(value - truth).powi(2)
    });
    -10.0 * (squares.sum::<f64>() / truth.len() as f64).max(1e-12).log10()
}
