//! Restoration by a generative network for known linear degradations: enlarging box-downsampled
//! images, and deblurring with a known kernel. It needs no training for the degradation.

use std::ops::ControlFlow;

use ndarray::Array4;

use super::generate::{GenerateRequest, Generator};
use super::upscale::enlarged;
use crate::diffusion::{Guidance, Progress, StepContext};
use crate::error::{Error, Result};
use crate::media::Image;
use crate::tensor::{self, mirror};

/// The degradation from the original to the given image.
#[derive(Clone, Debug, PartialEq)]
pub enum Degradation {
    /// Each pixel is the mean of n x n pixels.
    BoxDownsample(usize),
    /// Each pixel is a weighted mean of its neighborhood.
    Blur(Kernel),
}

/// Weights of a blur kernel, with a sum of 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    radius: usize,
    /// `2 * radius + 1` rows of as many weights.
    weights: Vec<f32>,
}

impl Kernel {
    /// The maximum radius in pixels.
    pub const MOST: usize = 64;

    /// An isotropic Gaussian kernel of this standard deviation, in pixels.
    ///
    /// # Errors
    /// [`Error::Usage`] when sigma is not positive, or too large.
    pub fn gaussian(sigma: f64) -> Result<Self> {
        if !(sigma > 0.0 && 3.0 * sigma <= Self::MOST as f64) {
            return Err(Error::usage(format!(
                "a blur of {sigma} pixels is out of range; expected one above 0 and up to 21"
            )));
        }
        let radius = (3.0 * sigma).ceil() as usize;
        let side = 2 * radius + 1;
        let weight = |i: usize| {
            let (x, y) = ((i % side) as f64 - radius as f64, (i / side) as f64 - radius as f64);
            (-(x * x + y * y) / (2.0 * sigma * sigma)).exp() as f32
        };
        Self::new(radius, (0..side * side).map(weight).collect())
    }

    /// A kernel from an image: brighter pixels have larger weights. The image must be square with
    /// an odd side.
    ///
    /// # Errors
    /// [`Error::Usage`] for an image of another shape, or a black one.
    pub fn of(image: &Image) -> Result<Self> {
        let side = image.width;
        if image.height != side || side.is_multiple_of(2) || side > 2 * Self::MOST + 1 {
            return Err(Error::usage(format!(
                "a kernel of {side}x{} has no middle; expected a square of an odd number of \
                 pixels, up to {}",
                image.height,
                2 * Self::MOST + 1
            )));
        }
        let mut planes = vec![0.0; image.color_channels() * side * side];
        tensor::read_planes(image, tensor::Range::UNIT, &mut planes)?;
        planes.truncate(side * side);
        Self::new(side / 2, planes)
    }

    fn new(radius: usize, mut weights: Vec<f32>) -> Result<Self> {
        let sum: f32 = weights.iter().sum();
        if sum <= 0.0 {
            return Err(Error::usage("a kernel without any weight leaves nothing of an image"));
        }
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Ok(Self { radius, weights })
    }

    /// Width of a plane that is mirrored beyond its borders by the radius.
    fn padded(&self, width: usize) -> usize {
        width + 2 * self.radius
    }

    /// Calls `each` with every weight and, for every row of a plane of that size, the start of the
    /// row and of its source in the padded plane.
    fn each_row(&self, [width, height]: [usize; 2], mut each: impl FnMut(f32, usize, usize)) {
        let side = 2 * self.radius + 1;
        for (i, weight) in self.weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
            for y in 0..height {
                each(*weight, y * width, (y + i / side) * self.padded(width) + i % side);
            }
        }
    }

    /// Calls `each` with every position of the padded plane and the position in the plane that it
    /// mirrors.
    fn each_mirrored(&self, [width, height]: [usize; 2], mut each: impl FnMut(usize, usize)) {
        let (radius, padded) = (self.radius.cast_signed(), self.padded(width));
        for row in 0..height + 2 * self.radius {
            let y = mirror(row.cast_signed() - radius, height);
            for column in 0..padded {
                each(
                    row * padded + column,
                    y * width + mirror(column.cast_signed() - radius, width),
                );
            }
        }
    }

    fn blur(&self, x: &[f32], size: [usize; 2]) -> Vec<f32> {
        let (width, mut y) = (size[0], vec![0.0; x.len()]);
        let mut wide = vec![0.0; self.padded(width) * (size[1] + 2 * self.radius)];
        self.each_mirrored(size, |to, from| wide[to] = x[from]);
        self.each_row(size, |weight, at, from| {
            let row = y[at..][..width].iter_mut().zip(&wide[from..][..width]);
            row.for_each(|(y, x)| *y += weight * x);
        });
        y
    }

    /// The transpose of [`blur`](Self::blur).
    fn adjoint_blur(&self, y: &[f32], size: [usize; 2]) -> Vec<f32> {
        let (width, mut x) = (size[0], vec![0.0; y.len()]);
        let mut wide = vec![0.0; self.padded(width) * (size[1] + 2 * self.radius)];
        self.each_row(size, |weight, at, to| {
            let row = wide[to..][..width].iter_mut().zip(&y[at..][..width]);
            row.for_each(|(x, y)| *x += weight * y);
        });
        self.each_mirrored(size, |from, to| x[to] += wide[from]);
        x
    }
}

impl Degradation {
    /// Width and height of the original, for a given image of that size.
    fn original(&self, [width, height]: [usize; 2]) -> [usize; 2] {
        match self {
            Self::BoxDownsample(scale) => [scale * width, scale * height],
            Self::Blur(_) => [width, height],
        }
    }

    /// Applies the degradation to a plane of the original, of this size.
    fn apply(&self, x: &[f32], [width, height]: [usize; 2]) -> Vec<f32> {
        match self {
            Self::BoxDownsample(scale) => {
                let (small, part) = (width / scale, 1.0 / (scale * scale) as f32);
                let mut y = vec![0.0; small * (height / scale)];
                for (i, value) in x.iter().enumerate() {
                    y[i / width / scale * small + i % width / scale] += part * value;
                }
                y
            }
            Self::Blur(kernel) => kernel.blur(x, [width, height]),
        }
    }

    /// The transpose of [`apply`](Self::apply).
    fn adjoint(&self, y: &[f32], [width, height]: [usize; 2]) -> Vec<f32> {
        match self {
            Self::BoxDownsample(scale) => {
                let (small, part) = (width / scale, 1.0 / (scale * scale) as f32);
                (0..width * height)
                    .map(|i| part * y[i / width / scale * small + i % width / scale])
                    .collect()
            }
            Self::Blur(kernel) => kernel.adjoint_blur(y, [width, height]),
        }
    }
}

/// Guides sampling by data consistency: at each step `D` is replaced by `argmin |y - A D'|^2 + rho
/// |D' - D|^2` with `rho = lambda * (noise / sigma)^2` (Zhu et al. 2023, DiffPIR, equation 13).
/// Without noise, this is the projection of Wang et al. 2023, DDNM.
struct Consistency<'a> {
    degradation: &'a Degradation,
    /// The measurement, `[channels, height, width]`, and the standard deviation of its noise, both
    /// in the network's units.
    y: Vec<f32>,
    noise: f64,
    size: [usize; 2],
}

/// DiffPIR's lambda.
const LAMBDA: f64 = 8.0;

/// Maximum iterations of conjugate gradients, and the relative residual at which they end.
const ITERATIONS: usize = 12;
const TOLERANCE: f64 = 1e-3;

impl Consistency<'_> {
    /// Solves `(A A^T + rho) u = residual` for `u` by conjugate gradients.
    fn solve(&self, residual: &[f32], rho: f64) -> Vec<f32> {
        let dot = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
        };
        let mut u = vec![0.0_f32; residual.len()];
        let mut left = residual.to_vec();
        let mut direction = left.clone();
        let first = dot(&left, &left);
        let mut square = first;
        for _ in 0..ITERATIONS {
            if square <= TOLERANCE * TOLERANCE * first || square == 0.0 {
                break;
            }
            let mut image =
                self.degradation.apply(&self.degradation.adjoint(&direction, self.size), self.size);
            image
                .iter_mut()
                .zip(&direction)
                .for_each(|(image, direction)| *image += rho as f32 * direction);
            let step = (square / dot(&direction, &image)) as f32;
            u.iter_mut().zip(&direction).for_each(|(u, direction)| *u += step * direction);
            left.iter_mut().zip(&image).for_each(|(left, image)| *left -= step * image);
            let next = dot(&left, &left);
            let turn = (next / square) as f32;
            direction
                .iter_mut()
                .zip(&left)
                .for_each(|(direction, left)| *direction = left + turn * *direction);
            square = next;
        }
        u
    }
}

impl Guidance for Consistency<'_> {
    fn guide(&mut self, context: &StepContext<'_>, d: &mut Array4<f32>) -> Result<()> {
        let rho = LAMBDA * (self.noise / context.level.sigma()).powi(2);
        let planes =
            d.as_slice_mut().unwrap_or_default().chunks_exact_mut(self.size[0] * self.size[1]);
        let count = planes.len().max(1);
        for (d, y) in planes.zip(self.y.chunks_exact(self.y.len() / count)) {
            let made = self.degradation.apply(d, self.size);
            let residual: Vec<f32> = y.iter().zip(&made).map(|(y, made)| y - made).collect();
            let change = self.degradation.adjoint(&self.solve(&residual, rho), self.size);
            d.iter_mut().zip(&change).for_each(|(d, change)| *d += change);
        }
        Ok(())
    }
}

impl Generator<'_> {
    /// Restores the original from which `degradation` made `image`, once for each seed, and
    /// returns the mean. `noise` is the standard deviation of noise that was added afterward, in
    /// 8-bit units. Alpha is enlarged bicubically. `guides` see the whole image. `watch` is called
    /// for every evaluation and can stop the run.
    ///
    /// # Errors
    /// [`Error::Usage`] when the image has color that the network does not support, or does not
    /// fit the memory budget; [`Error::Evaluation`] when the network fails;
    /// [`Error::Interrupted`].
    pub fn restore(
        &mut self,
        image: &Image,
        degradation: &Degradation,
        noise: f64,
        seeds: &[u64],
        mut guides: Vec<&mut dyn Guidance>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Image> {
        if !(noise >= 0.0 && noise.is_finite()) {
            return Err(Error::usage(format!(
                "noise {noise} is out of range; expected a number from 0 on"
            )));
        }
        if seeds.is_empty() {
            return Err(Error::usage("the list of seeds is empty; give one or more"));
        }
        let (channels, range) = (self.pixel_channels()?, self.range());
        let small = [image.width, image.height];
        let size = degradation.original(small);
        let mut y = vec![0.0; channels * small[0] * small[1]];
        tensor::read_planes(&image.visible(), range, &mut y)?;
        // Starts from nearest-neighbor enlargement.
        let [across, down] = [size[0] / small[0], size[1] / small[1]];
        let start =
            Array4::from_shape_fn([1, channels, size[1], size[0]], |(_, c, row, column)| {
                y[(c * small[1] + row / down) * small[0] + column / across]
            });
        // Includes the noise of rounding to 8 bits.
        let noise = noise.max(0.3) / 255.0 * f64::from(range.span());
        let mut measured = Consistency { degradation, y, noise, size };
        let mut mean = Array4::zeros(start.dim());
        // One seed at a time, since images may be large.
        for (i, seed) in seeds.iter().enumerate() {
            let mut leading: Vec<&mut dyn Guidance> = vec![&mut measured];
            leading.extend(guides.iter_mut().map(|guide| &mut **guide as &mut dyn Guidance));
            let start = Some(start.clone());
            let request = GenerateRequest {
                seeds: vec![*seed],
                start,
                guides: leading,
                ..GenerateRequest::default()
            };
            let generated = self.generate(size, request, &mut |Progress { done, total }| {
                watch(Progress { done: i * total + done, total: seeds.len() * total })
            })?;
            mean.scaled_add(1.0 / seeds.len() as f32, &generated);
        }
        let mut result = image.black(size[0], size[1]);
        if let Some(alpha) = image.alpha() {
            let alpha = match degradation {
                Degradation::BoxDownsample(scale) => enlarged(&alpha, *scale)?,
                Degradation::Blur(_) => alpha,
            };
            result.set_alpha(&alpha);
        }
        tensor::write_planes(mean.as_slice().unwrap_or_default(), range, &mut result)?;
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::{Degradation, Kernel};

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    /// `<A x, y> = <x, A^T y>`, for an asymmetric kernel larger than a small image, and for box
    /// downsampling.
    #[test]
    fn adjoint_equals_the_transpose() {
        let kernel = Kernel::new(3, (0..49).map(|i| ((i * i) % 11) as f32).collect()).unwrap();
        for (degradation, size) in [
            (Degradation::Blur(kernel.clone()), [9, 6]),
            (Degradation::Blur(kernel), [2, 3]),
            (Degradation::BoxDownsample(3), [9, 6]),
        ] {
            let x: Vec<f32> = (0..size[0] * size[1]).map(|i| ((i * 7) % 13) as f32 - 5.0).collect();
            let ax = degradation.apply(&x, size);
            let y: Vec<f32> = (0..ax.len()).map(|i| ((i * 5) % 7) as f32 - 2.0).collect();
            let (one, other) = (dot(&ax, &y), dot(&x, &degradation.adjoint(&y, size)));
            assert!((one - other).abs() < 1e-4 * one.abs().max(1.0), "{one} {other}");
        }
    }

    #[test]
    fn blur_keeps_constants_and_spreads_a_point_by_the_kernel() {
        let kernel = Kernel::new(1, vec![0.0, 1.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
        let even = kernel.blur(&[2.0; 20], [5, 4]);
        assert!(even.iter().all(|value| (value - 2.0).abs() < 1e-6));
        let mut point = vec![0.0; 20];
        point[2 * 5 + 2] = 1.0;
        let blurred = kernel.blur(&point, [5, 4]);
        // Each pixel takes a quarter from the one above it, and three quarters from the one to its
        // left.
        assert_eq!((blurred[3 * 5 + 2], blurred[2 * 5 + 3], blurred[2 * 5 + 2]), (0.25, 0.75, 0.0));
    }
}
