//! Estimates the noise of a plane (luma, Cb, Cr, or one of R, G, B) of an image or a stream.
//!
//! Levels are parts of the full range in the interface: 25 of 255 are 0.098. The standard
//! deviation covers noise of all frequencies, including what an encoder has removed: it is the RMS
//! difference from the clean scene.

mod blocks;
mod features;
mod regression;
mod stream;
#[cfg(test)]
mod tests;
#[allow(clippy::approx_constant)] // a weight may be near any number
mod weights;

pub(crate) use stream::TemporalNoise;

use features::{PARTS, Work};

use crate::task::NoiseLine;

/// Standard deviation, in levels of 255, below which the regressions cannot tell noise from
/// rounding; it is added to their target in quadrature.
const TARGET_FLOOR: f64 = 0.5;

/// Signals with a smaller standard deviation do not determine how noise depends on them.
const FLAT_SIGNAL: f64 = 0.04;

/// The content of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlaneRole {
    /// Brightness: luma, gray, or one of R, G, B.
    Luma,
    /// Color: Cb or Cr, with 0.5 for gray.
    Chroma,
}

/// A plane in memory: `height` rows of `width` samples, as parts of the full range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plane<'a> {
    samples: &'a [f32],
    width: usize,
    height: usize,
    role: PlaneRole,
}

impl<'a> Plane<'a> {
    /// A plane with as many rows as `samples` fills; the remainder is ignored.
    pub(crate) fn new(samples: &'a [f32], width: usize, role: PlaneRole) -> Self {
        Self { samples, width, height: samples.len().checked_div(width).unwrap_or(0), role }
    }
}

/// The noise of a plane of an image or a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PlaneNoise {
    /// The content of the plane.
    pub(crate) role: PlaneRole,
    /// Standard deviation of all noise.
    pub(crate) sigma: f64,
    /// Standard deviation of the finest diagonal band; equals `sigma` for white noise.
    pub(crate) fine: f64,
    /// Standard deviation of the second octave; equals `sigma` for white noise, and is larger for
    /// correlated noise.
    pub(crate) coarse: f64,
    /// Log odds that there is no noise.
    pub(crate) clean: f64,
    /// Part of the image that has no variance at all, as in screenshots.
    pub(crate) flat: f64,
    /// The variance as a function of the signal.
    pub(crate) line: NoiseLine,
}

/// The kind of noise, which determines how to remove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoiseKind {
    /// No noise that can be distinguished from texture: the image should be left unchanged.
    Clean,
    /// White noise, as of a sensor without camera processing, or added synthetically.
    White,
    /// Camera noise after demosaicking, scaling, sharpening or coding.
    Correlated,
}

/// Standard deviation below which removing noise gains nothing.
const MIN_SIGMA: f64 = 1.5 / 255.0;

/// Log odds of no noise below which noise is assumed.
const NOISY: f64 = -1.0;

/// Ratio of the second octave's to the finest band's standard deviation, or its inverse, up to
/// which noise counts as white.
const WHITE: f64 = 1.2;

/// The kind of noise of an image or a stream, from all usable planes: `Y`, `Cb`, `Cr`, or `R`,
/// `G`, `B`. Luma (R, G, B) and chroma are judged separately, each by the mean of its planes.
pub(crate) fn kind(planes: &[PlaneNoise]) -> NoiseKind {
    let mean = |role: PlaneRole, value: &dyn Fn(&PlaneNoise) -> f64| {
        let values = || planes.iter().filter(|plane| plane.role == role).map(value);
        values().sum::<f64>() / values().count().max(1) as f64
    };
    let is_noisy = |role| {
        mean(role, &|plane| plane.clean) < NOISY
            && mean(role, &|plane| plane.sigma.powi(2)).sqrt() > MIN_SIGMA
    };
    let noisy = [PlaneRole::Luma, PlaneRole::Chroma].into_iter().filter(|role| is_noisy(*role));
    let is_white = |role| {
        let (fine, coarse) =
            (mean(role, &|plane| plane.fine.powi(2)), mean(role, &|plane| plane.coarse.powi(2)));
        (coarse / fine).sqrt() < WHITE && (fine / coarse).sqrt() < WHITE
    };
    match noisy.map(is_white).next() {
        None => NoiseKind::Clean,
        Some(true) => NoiseKind::White,
        Some(false) => NoiseKind::Correlated,
    }
}

/// Estimates the noise of images. Memory is reused between planes.
#[derive(Debug, Default)]
pub(crate) struct SpatialEstimator {
    work: Work,
}

impl SpatialEstimator {
    /// `None` if noise cannot be measured: the plane has fewer than 16 samples per side, or is
    /// flat or clipped almost everywhere.
    pub(crate) fn estimate(&mut self, plane: Plane<'_>) -> Option<PlaneNoise> {
        let found = features::of_image(plane, &mut self.work);
        let [sigma, fine, coarse, clean] = regression::of_image(&found.features?);
        let sigma = deviation(sigma);
        Some(PlaneNoise {
            role: plane.role,
            sigma,
            fine: deviation(fine),
            coarse: deviation(coarse),
            clean: f64::from(clean),
            flat: found.flat,
            line: line(&found.parts, sigma, plane.role),
        })
    }
}

/// Converts the output of a regression to a standard deviation, as a part of the full range.
fn deviation(output: f32) -> f64 {
    ((2.0 * f64::from(output)).exp2() - TARGET_FLOOR * TARGET_FLOOR).max(0.0).sqrt() / 255.0
}

/// The inverse of [`deviation`].
fn output(deviation: f64) -> f32 {
    (255.0 * deviation).hypot(TARGET_FLOOR).log2() as f32
}

/// The variance as a function of the signal, from the brightness and variance of brightness
/// groups, in levels of 255. Only the proportions of the variances matter: their mean is set to
/// the square of `sigma`. The line of chroma is constant.
fn line(parts: &[(f64, f64); PARTS], sigma: f64, role: PlaneRole) -> NoiseLine {
    let count = PARTS as f64;
    let points = parts.map(|(brightness, variance)| (brightness / 255.0, variance));
    let mean = points.iter().map(|(signal, _)| signal).sum::<f64>() / count;
    let variance = points.iter().map(|(_, variance)| variance).sum::<f64>() / count;
    let spread = points.iter().map(|(signal, _)| (signal - mean).powi(2)).sum::<f64>() / count;
    let together =
        points.iter().map(|(signal, own)| (signal - mean) * (own - variance)).sum::<f64>() / count;
    if role == PlaneRole::Chroma
        || spread.sqrt() < FLAT_SIGNAL
        || variance <= 0.0
        || together <= 0.0
    {
        return NoiseLine { a: 0.0, b: sigma * sigma, signal: [mean, mean] };
    }
    let slope = (together / spread).min(variance / mean);
    let scale = sigma * sigma / variance;
    let signal = [points[0].0, points[PARTS - 1].0];
    NoiseLine { a: scale * slope, b: scale * (variance - slope * mean), signal }
}
