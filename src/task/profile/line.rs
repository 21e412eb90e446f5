//! From samples of noise to a line: robust variances, and the lower envelope of points.

use crate::task::estimate::MEDIAN_OF_NORMAL;

/// What lies further from the mean, in standard deviations, is not taken for noise: something has moved, or is an edge.
const CUT: f64 = 4.0;

/// The variance of a standard normal number that is known to lie within [`CUT`].
const VARIANCE_WITHIN_CUT: f64 = 0.998_929;

/// How far above the line, as a part of it, a point loses half its weight.
const TOLERANCE: f64 = 0.1;

/// Signals with a smaller standard deviation do not tell how noise depends on them.
const FLAT: f64 = 0.02;

/// The noise at one signal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Point {
    pub(super) signal: f64,
    pub(super) variance: f64,
    /// From how many samples.
    pub(super) count: f64,
}

/// The variance of normal numbers among which there are some others, which are cut off: that of those within four
/// standard deviations, put right for what normal numbers lose by that, until it stays. `quantum` is the step between
/// the numbers that there can be; nothing so near is cut.
pub(super) fn clipped_variance(values: &mut [f32], quantum: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let mut mean = f64::from(median(values));
    let mut deviations: Vec<f32> = values.iter().map(|value| (f64::from(*value) - mean).abs() as f32).collect();
    let spread = f64::from(median(&mut deviations)) / MEDIAN_OF_NORMAL;
    let mut variance = spread.max(quantum).powi(2);
    for _ in 0..20 {
        let reach = (CUT * variance.sqrt()).max(1.5 * quantum);
        let within = || values.iter().map(|value| f64::from(*value)).filter(|value| (value - mean).abs() <= reach);
        let (count, sum) = within().fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
        if count < 2.0 {
            return variance;
        }
        let center = sum / count;
        let squares: f64 = within().map(|value| (value - center).powi(2)).sum();
        let next = squares / (count - 1.0) / VARIANCE_WITHIN_CUT;
        let settled = (next - variance).abs() <= 1e-4 * variance;
        (mean, variance) = (center, next);
        if settled {
            break;
        }
    }
    variance
}

fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// Whether the signals differ by too little, beside the noise that is in them (as a part of the noise's variance), to
/// tell how noise depends on them; and their mean.
pub(super) fn flat_at(points: &[Point], noise_in_signal: f64) -> Option<f64> {
    let count: f64 = points.iter().map(|point| point.count).sum();
    let mean = |value: &dyn Fn(&Point) -> f64| points.iter().map(|p| p.count * value(p)).sum::<f64>() / count;
    let signal = mean(&|point| point.signal);
    let spread = mean(&|point| (point.signal - signal).powi(2));
    let noise = noise_in_signal * mean(&|point| point.variance);
    (spread < 2.0 * noise || spread - noise < FLAT * FLAT).then_some(signal)
}

/// `a` and `b` of `variance = a * signal + b`, neither below 0: least squares in which a point weighs as many samples as
/// it has over the square of its variance, which is how uncertain it is, and little if it is far above the others. What is
/// no noise adds to a variance and never takes from it, so that noise is the lower envelope (Liu, Freeman, Szeliski and
/// Kang 2006, "Noise estimation from a single image", section 3).
pub(super) fn lower_line(points: &[Point]) -> (f64, f64) {
    let most = points.iter().map(|point| point.variance).fold(0.0, f64::max);
    let floor = 1e-2 * most;
    if floor == 0.0 {
        return (0.0, 0.0);
    }
    let mut weights: Vec<f64> = points.iter().map(|p| p.count / p.variance.max(floor).powi(2)).collect();
    let (mut a, mut b) = (0.0, 0.0);
    for _ in 0..50 {
        (a, b) = line(points, &weights);
        for (point, weight) in points.iter().zip(&mut weights) {
            let expected = (a * point.signal + b).max(floor);
            let above = (point.variance / expected - 1.0).max(0.0);
            let tolerance = TOLERANCE.max(3.0 * (2.0 / point.count).sqrt());
            *weight = point.count / expected.powi(2) / (1.0 + (above / tolerance).powi(2));
        }
    }
    (a, b)
}

/// The weighted least squares line whose slope and offset are not below 0.
fn line(points: &[Point], weights: &[f64]) -> (f64, f64) {
    let sum = |value: &dyn Fn(&Point) -> f64| points.iter().zip(weights).map(|(p, w)| w * value(p)).sum::<f64>();
    let weight = sum(&|_| 1.0);
    let (signal, variance) = (sum(&|p| p.signal) / weight, sum(&|p| p.variance) / weight);
    let spread = sum(&|p| (p.signal - signal).powi(2));
    let a = if spread > 0.0 { sum(&|p| (p.signal - signal) * (p.variance - variance)) / spread } else { 0.0 };
    let b = variance - a * signal;
    if a < 0.0 {
        (0.0, variance)
    } else if b < 0.0 {
        (sum(&|p| p.signal * p.variance) / sum(&|p| p.signal * p.signal), 0.0)
    } else {
        (a, b)
    }
}
