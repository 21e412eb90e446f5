//! Schedules in sigma, the noise-to-signal ratio, and conversion between sigma and timestep.

/// Karras spacing (Karras et al. 2022, EDM, equation 5): uniform in `sigma^(1 / rho)` from `max` to
/// `min`, both included. A single value is `max`.
pub fn karras(min: f64, max: f64, steps: usize, rho: f64) -> Vec<f64> {
    let (low, high) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
    ramp(steps).map(|r| (high + r * (low - high)).powf(rho)).collect()
}

/// The exponent of [`karras`] in the paper.
pub const KARRAS_RHO: f64 = 7.0;

/// Uniform in `ln(sigma)` from `max` to `min`, both included. A single value is `max`.
pub fn exponential(min: f64, max: f64, steps: usize) -> Vec<f64> {
    let (low, high) = (min.ln(), max.ln());
    ramp(steps).map(|r| (high + r * (low - high)).exp()).collect()
}

/// `steps` evenly spaced points from 0 to 1, both included. A single point is 0.
fn ramp(steps: usize) -> impl Iterator<Item = f64> {
    (0..steps).map(move |i| i as f64 / (steps.max(2) - 1) as f64)
}

/// The sigma of a fractional timestep, interpolated linearly and clamped at the ends.
///
/// `sigmas` is by timestep and not empty.
pub fn sigma_at(sigmas: &[f64], t: f64) -> f64 {
    let last = sigmas.len() - 1;
    let t = t.clamp(0.0, last as f64);
    let below = t.floor() as usize;
    let (low, high) = (sigmas[below], sigmas[(below + 1).min(last)]);
    low + (high - low) * (t - below as f64)
}

/// Converts sigma to timesteps: linear interpolation in `ln(sigma)`, clamped at the ends.
#[derive(Clone, Debug)]
pub struct TimestepOf {
    /// In f32, as in diffusers. The last bit matters where a table ends in a sigma below its
    /// neighbor (zero terminal SNR), and where a timestep is truncated to an integer.
    log_sigmas: Vec<f64>,
}

impl TimestepOf {
    /// A converter for `sigmas` by timestep, at least two.
    pub fn new(sigmas: &[f64]) -> Self {
        Self { log_sigmas: sigmas.iter().map(|sigma| f64::from(sigma.ln() as f32)).collect() }
    }

    /// The timestep of `sigma`, in `0..=len - 1`.
    pub fn sigma(&self, sigma: f64) -> f64 {
        let log_sigma = sigma.max(1e-10).ln();
        let below = self.log_sigmas.iter().rposition(|&log| log <= log_sigma).unwrap_or(0);
        let below = below.min(self.log_sigmas.len() - 2);
        let (low, high) = (self.log_sigmas[below], self.log_sigmas[below + 1]);
        below as f64 + ((low - log_sigma) / (low - high)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{KARRAS_RHO, TimestepOf, exponential, karras, sigma_at};

    #[test]
    fn spacings_include_both_ends() {
        for sigmas in [karras(0.002, 80.0, 18, KARRAS_RHO), exponential(0.002, 80.0, 18)] {
            assert_eq!(sigmas.len(), 18);
            assert!((sigmas[0] - 80.0).abs() < 1e-10 && (sigmas[17] - 0.002).abs() < 1e-12);
            assert!(sigmas.is_sorted_by(|a, b| a > b));
        }
        assert!((karras(0.002, 80.0, 1, KARRAS_RHO)[0] - 80.0).abs() < 1e-10);
        // The third of 18 sigmas of EDM, from equation 5.
        assert!((karras(0.002, 80.0, 18, KARRAS_RHO)[2] - 40.785_573_8).abs() < 1e-5);
    }

    #[test]
    fn sigma_and_timestep_are_inverse() {
        let sigmas: Vec<f64> = (0..10).map(|t| 0.01 * 2.0_f64.powi(t)).collect();
        let timestep = TimestepOf::new(&sigmas);
        for t in 0..10 {
            assert!((timestep.sigma(sigmas[t]) - t as f64).abs() < 1e-5);
            assert_eq!(sigma_at(&sigmas, t as f64), sigmas[t]);
        }
        assert_eq!((timestep.sigma(0.0), timestep.sigma(1e9)), (0.0, 9.0));
        assert_eq!((sigma_at(&sigmas, -1.0), sigma_at(&sigmas, 99.0)), (sigmas[0], sigmas[9]));
        assert!((sigma_at(&sigmas, 0.5) - 0.015).abs() < 1e-12);
    }
}
