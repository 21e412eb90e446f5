//! A sampler is a table: a list of [`Step`]s, built once in f64, that one executor runs without knowing its name.

use crate::error::{Error, Result};

/// How the state stands at one point of the diffusion: `x = signal * x0 + noise * n` with `n ~ N(0, I)`.
///
/// Variance-exploding states (Song et al. 2021, EDM) have `signal = 1`; variance-preserving ones (DDPM) have
/// `signal^2 + noise^2 = 1`. Written as a pair, a schedule that ends in pure noise (`signal = 0`) stays finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// The factor of the clean picture, alpha in DPM-Solver's notation.
    pub signal: f64,
    /// The standard deviation of the noise, in the state's own units.
    pub noise: f64,
}

impl Level {
    /// The clean picture itself: where every plan ends.
    pub const CLEAN: Self = Self { signal: 1.0, noise: 0.0 };

    /// A variance-exploding level, `x = x0 + sigma * n` (Song et al. 2021, EDM).
    pub fn exploding(sigma: f64) -> Self {
        Self { signal: 1.0, noise: sigma }
    }

    /// A variance-preserving level from DDPM's cumulative product `abar` (Ho et al. 2020, equation 4):
    /// `x = sqrt(abar) * x0 + sqrt(1 - abar) * n`.
    pub fn preserving(alpha_cumprod: f64) -> Self {
        Self { signal: alpha_cumprod.sqrt(), noise: (1.0 - alpha_cumprod).sqrt() }
    }

    /// The variance-preserving level whose noise-to-signal ratio is `sigma`.
    pub fn preserving_from_sigma(sigma: f64) -> Self {
        let signal = 1.0 / sigma.hypot(1.0);
        Self { signal, noise: sigma * signal }
    }

    /// The variance that the forward process adds on the way here from a cleaner level, in this one's units: `beta` when they are
    /// variance-preserving neighbours.
    pub fn variance_from(self, cleaner: Self) -> f64 {
        let ratio = self.signal / cleaner.signal;
        (self.noise * self.noise - ratio * ratio * cleaner.noise * cleaner.noise).max(0.0)
    }

    /// The noise-to-signal ratio, EDM's sigma; infinite for pure noise.
    pub fn sigma(self) -> f64 {
        self.noise / self.signal
    }
}

/// One row of a sampler's table: one evaluation of the network and one linear update.
///
/// With `F` the network's output,
///
/// ```text
/// D_raw = c_skip * x + c_out * F(c_in * x, t)
/// D     = D_raw, clipped or thresholded as the plan says
/// x'    = a * x + b * D + c * D_prev + d * z + e * D_raw          z ~ N(0, I)
/// ```
///
/// where `D_prev` is the `D` of the row before. `d = 0` draws no noise. `e` is zero except where a sampler takes the
/// direction of its step from the unclipped prediction (DDIM with `clip_sample`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The scalar by which the network is told the noise level.
    pub t: f64,
    /// The level of `x` before the step. A network that takes a map of sigma is given `noise` times the task's map.
    pub level: Level,
    /// Factor of `x` at the network's input.
    pub c_in: f64,
    /// Factor of `x` in `D_raw`.
    pub c_skip: f64,
    /// Factor of the network's output in `D_raw`.
    pub c_out: f64,
    /// Factor of `x` in the update.
    pub a: f64,
    /// Factor of `D` in the update.
    pub b: f64,
    /// Factor of the previous row's `D` in the update.
    pub c: f64,
    /// Factor of fresh noise in the update; multiplied by the task's map of sigma, pixel by pixel.
    pub d: f64,
    /// Factor of `D_raw` in the update.
    pub e: f64,
}

/// What is done to a prediction of the clean picture before it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Clip {
    /// Nothing.
    #[default]
    None,
    /// Clamped to `-range..=range`.
    Range(f64),
    /// Dynamic thresholding (Saharia et al. 2022, section 2.3): per sample, the `ratio` quantile of `|D|`, held to
    /// `1..=max`, bounds the values and then divides them.
    Threshold {
        /// The quantile, in `0..=1`.
        ratio: f64,
        /// The largest bound.
        max: f64,
    },
}

/// A whole sampling run: rows, and what is done to each prediction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The rows in order.
    pub steps: Vec<Step>,
    /// What is done to each prediction of the clean picture.
    pub clip: Clip,
}

impl Plan {
    /// The rows from `first` on, for a state that is at their level already: of them the first knows no row before.
    #[must_use]
    pub fn from_row(&self, first: usize) -> Self {
        let mut steps = self.steps[first.min(self.steps.len())..].to_vec();
        if let Some(step) = steps.first_mut() {
            // An extrapolation from two predictions, of which there is one.
            step.b += step.c;
            step.c = 0.0;
        }
        Self { steps, clip: self.clip }
    }

    /// The same with each step taken `times` times, and the noise between added again before each but the last (Lugmayr et al. 2022,
    /// RePaint, algorithm 1, with jumps of one step). A way down and up again is one row: the noise of both is one noise.
    ///
    /// # Errors
    /// [`Error::Usage`] for plans whose rows look back.
    pub fn resampled(&self, times: usize) -> Result<Self> {
        if times > 1 && self.steps.iter().any(|step| step.c != 0.0) {
            return Err(Error::usage(
                "a sampler that draws on earlier predictions cannot resample; take ddim, ddpm or euler-a",
            ));
        }
        let levels = self.steps.iter().skip(1).map(|step| step.level).chain([Level::CLEAN]);
        let rows = self.steps.iter().zip(levels).flat_map(|(step, to)| {
            let ratio = step.level.signal / to.signal;
            let again = Step {
                a: ratio * step.a,
                b: ratio * step.b,
                e: ratio * step.e,
                d: (ratio * ratio * step.d * step.d + step.level.variance_from(to)).sqrt(),
                ..*step
            };
            std::iter::repeat_n(again, times.max(1) - 1).chain([*step])
        });
        Ok(Self { steps: rows.collect(), clip: self.clip })
    }

    /// How many steps of recorded noise a run of this plan reads: one more than the last row that draws.
    pub fn noise_rows(&self) -> usize {
        self.steps.iter().rposition(|step| step.d != 0.0).map_or(0, |last| last + 1)
    }
}
