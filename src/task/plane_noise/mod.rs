//! How strong the noise of a plane is (luma, Cb, Cr, or one of R, G, B), of one image and of a stream.
//!
//! Levels are parts of the full range everywhere outside: 25 of 255 are 0.098. A deviation is that of all of the noise, of
//! whatever frequency, with what an encoder has lost: the root mean square of what differs from the scene.

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

/// Below this deviation, in levels of 255, the regressions cannot tell noise from rounding; they give its square root
/// of squares with the noise.
const TARGET_FLOOR: f64 = 0.5;

/// Signals with a smaller standard deviation do not tell how noise depends on them.
const FLAT_SIGNAL: f64 = 0.04;

/// What a plane holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlaneRole {
    /// Brightness: luma, grey, or one of R, G, B.
    Luma,
    /// Colour: Cb or Cr, 0.5 where there is none.
    Chroma,
}

/// A plane as it lies in memory: `height` rows of `width` samples, as parts of the full range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plane<'a> {
    samples: &'a [f32],
    width: usize,
    height: usize,
    role: PlaneRole,
}

impl<'a> Plane<'a> {
    /// A plane of as many rows as `samples` fills; what is left over is not looked at.
    pub(crate) fn new(samples: &'a [f32], width: usize, role: PlaneRole) -> Self {
        Self { samples, width, height: samples.len().checked_div(width).unwrap_or(0), role }
    }
}

/// The noise of a plane, of an image or as it is in a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PlaneNoise {
    /// What the plane holds.
    pub(crate) role: PlaneRole,
    /// The standard deviation of all noise.
    pub(crate) sigma: f64,
    /// That of the finest diagonal band: the same where noise is white.
    pub(crate) fine: f64,
    /// That of the second octave: the same where noise is white, more where it is correlated.
    pub(crate) coarse: f64,
    /// How sure it is that there is none, as the logarithm of the odds.
    pub(crate) clean: f64,
    /// What part of the image has no variance at all, as screenshots do.
    pub(crate) flat: f64,
    /// How the variance depends on the signal.
    pub(crate) line: NoiseLine,
}

/// What is to be done about noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoiseKind {
    /// There is none that could be told from texture: leave the image alone.
    Clean,
    /// Alike at all frequencies, as of a sensor without a camera's processing, or added.
    White,
    /// Of a camera: demosaicked, scaled, sharpened or coded.
    Correlated,
}

/// Noise whose deviation is less is nobody's gain to remove.
const LEAST_SIGMA: f64 = 1.5 / 255.0;

/// Log odds of no noise below which there is noise.
const NOISY: f64 = -1.0;

/// The second octave's deviation over the finest band's, or the inverse, up to which noise counts as white.
const WHITE: f64 = 1.2;

/// The kind of an image's or a stream's noise, from all planes in which something could be seen: `Y`, `Cb`, `Cr`, or
/// `R`, `G`, `B`. Luma (R, G, B) and chroma are judged apart, each by its planes together.
pub(crate) fn kind(planes: &[PlaneNoise]) -> NoiseKind {
    let mean = |role: PlaneRole, value: &dyn Fn(&PlaneNoise) -> f64| {
        let values = || planes.iter().filter(|plane| plane.role == role).map(value);
        values().sum::<f64>() / values().count().max(1) as f64
    };
    let is_noisy = |role| {
        mean(role, &|plane| plane.clean) < NOISY && mean(role, &|plane| plane.sigma.powi(2)).sqrt() > LEAST_SIGMA
    };
    let noisy = [PlaneRole::Luma, PlaneRole::Chroma].into_iter().filter(|role| is_noisy(*role));
    let is_white = |role| {
        let (fine, coarse) = (mean(role, &|plane| plane.fine.powi(2)), mean(role, &|plane| plane.coarse.powi(2)));
        (coarse / fine).sqrt() < WHITE && (fine / coarse).sqrt() < WHITE
    };
    match noisy.map(is_white).next() {
        None => NoiseKind::Clean,
        Some(true) => NoiseKind::White,
        Some(false) => NoiseKind::Correlated,
    }
}

/// Estimates the noise of images. Keeps its memory from one plane to the next.
#[derive(Debug, Default)]
pub(crate) struct SpatialEstimator {
    work: Work,
}

impl SpatialEstimator {
    /// `None` where there is nothing to see noise in: a plane of fewer than 16 samples a side, or one that is flat or
    /// at the end of its range almost everywhere.
    pub(crate) fn estimate(&mut self, plane: Plane<'_>) -> Option<PlaneNoise> {
        let seen = features::of_image(plane, &mut self.work);
        let [sigma, fine, coarse, clean] = regression::of_image(&seen.features?);
        let sigma = deviation(sigma);
        Some(PlaneNoise {
            role: plane.role,
            sigma,
            fine: deviation(fine),
            coarse: deviation(coarse),
            clean: f64::from(clean),
            flat: seen.flat,
            line: line(&seen.parts, sigma, plane.role),
        })
    }
}

/// What a regression's output says, as a part of the full range.
fn deviation(output: f32) -> f64 {
    ((2.0 * f64::from(output)).exp2() - TARGET_FLOOR * TARGET_FLOOR).max(0.0).sqrt() / 255.0
}

/// The output that says a deviation.
fn output(deviation: f64) -> f32 {
    (255.0 * deviation).hypot(TARGET_FLOOR).log2() as f32
}

/// The variance over the signal, of parts of the image by brightness: their brightness and variance in levels of 255,
/// of which the variances need only be right in proportion. Their mean becomes the square of `sigma`. How the noise of
/// colour depends on colour is not looked at.
fn line(parts: &[(f64, f64); PARTS], sigma: f64, role: PlaneRole) -> NoiseLine {
    let count = PARTS as f64;
    let points = parts.map(|(brightness, variance)| (brightness / 255.0, variance));
    let mean = points.iter().map(|(signal, _)| signal).sum::<f64>() / count;
    let variance = points.iter().map(|(_, variance)| variance).sum::<f64>() / count;
    let spread = points.iter().map(|(signal, _)| (signal - mean).powi(2)).sum::<f64>() / count;
    let together = points.iter().map(|(signal, own)| (signal - mean) * (own - variance)).sum::<f64>() / count;
    if role == PlaneRole::Chroma || spread.sqrt() < FLAT_SIGNAL || variance <= 0.0 || together <= 0.0 {
        return NoiseLine { a: 0.0, b: sigma * sigma, signal: [mean, mean] };
    }
    let slope = (together / spread).min(variance / mean);
    let scale = sigma * sigma / variance;
    let signal = [points[0].0, points[PARTS - 1].0];
    NoiseLine { a: scale * slope, b: scale * (variance - slope * mean), signal }
}
