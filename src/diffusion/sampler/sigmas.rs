//! Ranges of sigma, for EDM, score, flow and denoising networks.

use crate::diffusion::parameterization::Prediction;
use crate::diffusion::schedule::sigmas::KARRAS_RHO;
use crate::error::{Error, Result};

/// The range of sigma that a network was trained on, and what it predicts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SigmaSchedule {
    /// What the network predicts: `Edm`, `Score`, `Flow` or `Denoised`.
    pub prediction: Prediction,
    /// The sigma of the last evaluation, above 0.
    pub sigma_min: f64,
    /// The sigma of the first evaluation: the state starts as `sigma_max * n`.
    pub sigma_max: f64,
    /// The exponent of Karras spacing (Karras et al. 2022, equation 5). Default, by
    /// [`new`](Self::new): 7, as in the paper.
    pub rho: f64,
}

impl SigmaSchedule {
    /// A range with the paper's exponent.
    pub fn new(prediction: Prediction, sigma_min: f64, sigma_max: f64) -> Self {
        Self { prediction, sigma_min, sigma_max, rho: KARRAS_RHO }
    }

    pub(super) fn check(&self) -> Result<()> {
        let problem = if self.prediction.takes_timestep() {
            format!(
                "prediction {} takes a timestep, so it needs a training schedule, not a range",
                self.prediction
            )
        } else if !(self.sigma_min > 0.0
            && self.sigma_min <= self.sigma_max
            && self.sigma_max.is_finite())
        {
            format!(
                "sigma must rise from above 0, but min is {} and max {}",
                self.sigma_min, self.sigma_max
            )
        } else if !(self.rho > 0.0 && self.rho.is_finite()) {
            format!("rho must be above 0, but is {}", self.rho)
        } else {
            return Ok(());
        };
        Err(Error::model("with this schedule", problem))
    }
}
