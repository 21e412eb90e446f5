//! Fits a line to noise samples: robust variances, and the lower envelope of points.

use crate::task::estimate::MEDIAN_OF_NORMAL;

/// Deviations above this many standard deviations are outliers, such as motion or edges.
const CUT: f64 = 4.0;

/// Variance of a standard normal distribution truncated at [`CUT`].
const VARIANCE_WITHIN_CUT: f64 = 0.998_929;

/// Relative distance above the line at which a point has half its weight.
const TOLERANCE: f64 = 0.1;

/// Signals with a smaller standard deviation do not determine how noise depends on them.
const FLAT: f64 = 0.02;

/// The noise at one signal level.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Point {
    pub(super) signal: f64,
    pub(super) variance: f64,
    /// Number of samples.
    pub(super) count: f64,
}

/// Robust variance of normal numbers with outliers: iterates the variance of those within four
/// standard deviations, corrected for the truncation, until it is stable. `quantum` is the step
/// between possible numbers; deviations that small are never cut.
pub(super) fn clipped_variance(values: &mut [f32], quantum: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let mut mean = f64::from(median(values));
    let mut deviations: Vec<f32> =
        values.iter().map(|value| (f64::from(*value) - mean).abs() as f32).collect();
    let spread = f64::from(median(&mut deviations)) / MEDIAN_OF_NORMAL;
    let mut variance = spread.max(quantum).powi(2);
    for _ in 0..20 {
        let reach = (CUT * variance.sqrt()).max(1.5 * quantum);
        let within = || {
            values
                .iter()
                .map(|value| f64::from(*value))
                .filter(|value| (value - mean).abs() <= reach)
        };
        let (count, sum) =
            within().fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
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

/// The mean signal, if the signals differ by too little to determine how noise depends on them.
/// `noise_in_signal` is the variance of the noise in the signals relative to the noise variance.
pub(super) fn flat_at(points: &[Point], noise_in_signal: f64) -> Option<f64> {
    let count: f64 = points.iter().map(|point| point.count).sum();
    let mean = |value: &dyn Fn(&Point) -> f64| {
        points.iter().map(|p| p.count * value(p)).sum::<f64>() / count
    };
    let signal = mean(&|point| point.signal);
    let spread = mean(&|point| (point.signal - signal).powi(2));
    let noise = noise_in_signal * mean(&|point| point.variance);
    (spread < 2.0 * noise || spread - noise < FLAT * FLAT).then_some(signal)
}

/// `a` and `b` of `variance = a * signal + b`, both at least 0, by weighted least squares. The
/// weight of a point is its number of samples over its squared variance, which is proportional to
/// its uncertainty, and small if it is far above the others. Texture and motion add to a variance
/// and never reduce it, so noise is the lower envelope (Liu, Freeman, Szeliski and Kang 2006,
/// "Noise estimation from a single image", section 3).
pub(super) fn lower_line(points: &[Point]) -> (f64, f64) {
    let most = points.iter().map(|point| point.variance).fold(0.0, f64::max);
    let floor = 1e-2 * most;
    if floor == 0.0 {
        return (0.0, 0.0);
    }
    let mut weights: Vec<f64> =
        points.iter().map(|p| p.count / p.variance.max(floor).powi(2)).collect();
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

/// The weighted least-squares line with non-negative slope and offset.
fn line(points: &[Point], weights: &[f64]) -> (f64, f64) {
    let sum = |value: &dyn Fn(&Point) -> f64| {
        points.iter().zip(weights).map(|(p, w)| w * value(p)).sum::<f64>()
    };
    let weight = sum(&|_| 1.0);
    let (signal, variance) = (sum(&|p| p.signal) / weight, sum(&|p| p.variance) / weight);
    let spread = sum(&|p| (p.signal - signal).powi(2));
    let a = if spread > 0.0 {
        sum(&|p| (p.signal - signal) * (p.variance - variance)) / spread
    } else {
        0.0
    };
    let b = variance - a * signal;
    if a < 0.0 {
        (0.0, variance)
    } else if b < 0.0 {
        (sum(&|p| p.signal * p.variance) / sum(&|p| p.signal * p.signal), 0.0)
    } else {
        (a, b)
    }
}
