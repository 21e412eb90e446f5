//! The training schedule of a variance-preserving network: betas and their cumulative product.
//!
//! Training code stores betas, alphas and the cumulative product as f32, so they are rounded to f32
//! here too, and f64 is used from there on. Without the rounding, the levels of `squaredcos_cap_v2`
//! are off by 1e-5, and those of a schedule with zero terminal SNR by 2e-4, because the rescaling
//! subtracts nearly equal numbers.

use crate::diffusion::plan::Level;

/// How the variances `beta` of DDPM's forward steps grow (Ho et al. 2020, section 2).
#[derive(Clone, Debug, PartialEq)]
pub enum BetaSchedule {
    /// Linearly from `start` to `end` (Ho et al. 2020).
    Linear {
        /// The first beta.
        start: f64,
        /// The last beta.
        end: f64,
    },
    /// The squares of values that grow linearly from `sqrt(start)` to `sqrt(end)` (Rombach et al.
    /// 2022, latent diffusion).
    ScaledLinear {
        /// The first beta.
        start: f64,
        /// The last beta.
        end: f64,
    },
    /// From a squared cosine of time, each beta at most 0.999 (Nichol and Dhariwal 2021, equation
    /// 17).
    SquaredCosCapV2,
    /// Explicit betas, one per timestep.
    Trained(Vec<f64>),
}

impl BetaSchedule {
    /// The betas of `train_steps` timesteps. `Trained` betas are returned unchanged, whatever their
    /// number.
    pub fn betas(&self, train_steps: usize) -> Vec<f32> {
        match self {
            Self::Linear { start, end } => linspace(*start, *end, train_steps),
            Self::ScaledLinear { start, end } => linspace(start.sqrt(), end.sqrt(), train_steps)
                .into_iter()
                .map(|root| root * root)
                .collect(),
            Self::SquaredCosCapV2 => {
                // Times are floating point: integer division here would make every beta but one
                // zero.
                let alpha_bar = |step: usize| {
                    let time = step as f64 / train_steps as f64;
                    ((time + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
                };
                (0..train_steps)
                    .map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999) as f32)
                    .collect()
            }
            Self::Trained(betas) => betas.iter().map(|&beta| beta as f32).collect(),
        }
    }
}

/// `count` evenly spaced numbers, both ends included, computed from the nearer end as in
/// `torch.linspace`.
fn linspace(first: f64, last: f64, count: usize) -> Vec<f32> {
    let (first, last) = (first as f32, last as f32);
    let step = (last - first) / (count.max(2) - 1) as f32;
    let value = |i: usize| {
        if i < count / 2 {
            step.mul_add(i as f32, first)
        } else {
            (-step).mul_add((count - 1 - i) as f32, last)
        }
    };
    (0..count).map(value).collect()
}

/// The cumulative product `abar_t` of `1 - beta`, one per training timestep (Ho et al. 2020,
/// equation 4).
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseTable {
    alphas_cumprod: Vec<f64>,
    has_zero_terminal_snr: bool,
}

impl NoiseTable {
    /// The cumulative product of a beta schedule. `zero_terminal_snr` shifts and scales it so that
    /// the last timestep is pure noise and the first is unchanged (Lin et al. 2024, algorithm 1).
    pub fn new(schedule: &BetaSchedule, train_steps: usize, zero_terminal_snr: bool) -> Self {
        let mut betas = schedule.betas(train_steps);
        if zero_terminal_snr {
            betas = rescale_to_zero_terminal_snr(&betas);
        }
        let alphas_cumprod = cumulative_product(&betas).into_iter().map(f64::from).collect();
        Self { alphas_cumprod, has_zero_terminal_snr: zero_terminal_snr }
    }

    /// The number of training timesteps.
    pub fn len(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// Whether there are no timesteps.
    pub fn is_empty(&self) -> bool {
        self.alphas_cumprod.is_empty()
    }

    /// `abar_t` of training timestep `t`.
    pub fn alpha_cumprod(&self, t: usize) -> Option<f64> {
        self.alphas_cumprod.get(t).copied()
    }

    /// The variance-preserving level of a training timestep.
    pub fn level(&self, t: usize) -> Option<Level> {
        self.alpha_cumprod(t).map(Level::vp)
    }

    /// The noise-to-signal ratios `sqrt((1 - abar) / abar)` by timestep, in f32 as in solvers that
    /// count in sigma. These use `abar = 2^-24` for a last timestep of pure noise, so its sigma is
    /// 4096 (to f32).
    pub fn sigmas(&self) -> Vec<f64> {
        let mut sigmas: Vec<f64> =
            self.alphas_cumprod.iter().map(|&abar| sigma(abar as f32)).collect();
        if let (true, Some(last)) = (self.has_zero_terminal_snr, sigmas.last_mut()) {
            *last = sigma(1.0 / 16_777_216.0);
        }
        sigmas
    }
}

fn sigma(alpha_cumprod: f32) -> f64 {
    f64::from(((1.0 - alpha_cumprod) / alpha_cumprod).sqrt())
}

fn cumulative_product(betas: &[f32]) -> Vec<f32> {
    let product = betas.iter().scan(1.0_f64, |product, &beta| {
        *product *= f64::from(1.0 - beta);
        Some(*product as f32)
    });
    product.collect()
}

fn rescale_to_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let mut roots: Vec<f32> = cumulative_product(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return Vec::new() };
    let scale = first / (first - last);
    roots.iter_mut().for_each(|root| *root = (*root - last) * scale);
    let mut before = 1.0;
    let betas = roots.iter().map(|root| {
        let abar = root * root;
        let beta = 1.0 - abar / before;
        before = abar;
        beta
    });
    betas.collect()
}

#[cfg(test)]
mod tests {
    use super::{BetaSchedule, NoiseTable};

    const DDPM: BetaSchedule = BetaSchedule::Linear { start: 1e-4, end: 0.02 };

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() <= 2e-6 * b.abs(), "{a} is not {b}");
    }

    /// Compares with f64 products of the papers' formulas.
    #[test]
    fn products_match_the_papers() {
        let stable_diffusion = BetaSchedule::ScaledLinear { start: 0.00085, end: 0.012 };
        for (schedule, first, middle, last) in [
            (DDPM, 0.9999, 0.077_796_658_365, 4.035_829_765e-5),
            (stable_diffusion, 0.99915, 0.276_332_683_823, 4.660_098_513e-3),
        ] {
            let table = NoiseTable::new(&schedule, 1000, false);
            near(table.alpha_cumprod(0).unwrap(), first);
            near(table.alpha_cumprod(500).unwrap(), middle);
            near(table.alpha_cumprod(999).unwrap(), last);
        }
    }

    #[test]
    fn the_cosine_schedule_falls_at_every_step() {
        let table = NoiseTable::new(&BetaSchedule::SquaredCosCapV2, 1000, false);
        for t in 1..1000 {
            assert!(table.alpha_cumprod(t) < table.alpha_cumprod(t - 1), "at {t}");
            let time = (t + 1) as f64 / 1000.0;
            let cosine =
                |time: f64| ((time + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
            if t < 998 {
                // The products telescope to the cosine until a beta reaches 0.999.
                let expected = cosine(time) / cosine(0.0);
                assert!((table.alpha_cumprod(t).unwrap() / expected - 1.0).abs() < 3e-4, "at {t}");
            }
        }
    }

    #[test]
    fn zero_terminal_snr_keeps_the_first_and_zeroes_the_last() {
        let table = NoiseTable::new(&DDPM, 1000, true);
        near(table.alpha_cumprod(0).unwrap(), 0.9999);
        assert_eq!(table.alpha_cumprod(999), Some(0.0));
        assert_eq!(table.level(999).unwrap().noise, 1.0);
        near(table.sigmas()[999], 4096.0);
        assert!(table.sigmas().iter().all(|sigma| sigma.is_finite()));
    }

    #[test]
    fn trained_betas_are_unchanged() {
        let table = NoiseTable::new(&BetaSchedule::Trained(vec![0.5, 0.25]), 1000, false);
        assert_eq!(table.len(), 2);
        assert_eq!((table.alpha_cumprod(1), table.alpha_cumprod(2)), (Some(0.375), None));
    }
}
