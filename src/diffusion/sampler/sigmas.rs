//! Samplers on a range of sigma: EDM, score, flow and denoising networks.

use crate::diffusion::parameterization::Prediction;
use crate::diffusion::plan::{Clip, Level, Plan};
use crate::diffusion::sampler::Sampler;
use crate::diffusion::sampler::dpmpp::{Order, multistep};
use crate::diffusion::sampler::rows::{self, SolverType, Variance};
use crate::diffusion::schedule::sigmas::{KARRAS_RHO, karras};
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
    /// The exponent of Karras spacing; 7 in the paper.
    pub rho: f64,
}

impl SigmaSchedule {
    /// The paper's spacing over a range.
    pub fn new(prediction: Prediction, sigma_min: f64, sigma_max: f64) -> Self {
        Self { prediction, sigma_min, sigma_max, rho: KARRAS_RHO }
    }

    /// The sigmas of `steps` evaluations and the 0 after them (Karras et al. 2022, equation 5).
    fn sigmas(&self, steps: usize) -> Vec<f64> {
        let mut sigmas = karras(self.sigma_min, self.sigma_max, steps, self.rho);
        sigmas.push(0.0);
        sigmas
    }

    fn check(&self) -> Result<()> {
        let problem = if self.prediction.is_told_timestep() {
            format!("prediction {:?} is told a timestep, so it needs a training schedule, not a range", self.prediction)
        } else if !(self.sigma_min > 0.0 && self.sigma_min <= self.sigma_max && self.sigma_max.is_finite()) {
            format!("sigma must rise from above 0, but min is {} and max {}", self.sigma_min, self.sigma_max)
        } else if !(self.rho > 0.0 && self.rho.is_finite()) {
            format!("rho must be above 0, but is {}", self.rho)
        } else {
            return Ok(());
        };
        Err(Error::model("of this schedule", problem))
    }
}

/// The table of a sampler over Karras sigmas, in variance-exploding coordinates, ending at the clean picture.
///
/// # Errors
/// When the range is none, or the prediction needs a training schedule.
pub fn plan(schedule: &SigmaSchedule, sampler: Sampler, steps: usize, eta: f64) -> Result<Plan> {
    schedule.check()?;
    let levels: Vec<Level> = schedule.sigmas(steps).into_iter().map(Level::exploding).collect();
    let scaling = |level: Level| schedule.prediction.scaling(level, f64::NAN);
    let pairs = levels.windows(2).map(|pair| (pair[0], pair[1]));
    let rows = match sampler {
        Sampler::Ddim | Sampler::Euler => {
            pairs.map(|(from, to)| rows::ddim(from, scaling(from), to, eta, false)).collect()
        }
        Sampler::Ddpm => pairs.map(|(from, to)| rows::ddpm(from, scaling(from), to, Variance::FixedSmall)).collect(),
        Sampler::Dpmpp2m => {
            let order = Order { second: true, ends_low: true, solver: SolverType::Midpoint };
            multistep(&levels[..steps], Level::CLEAN, order, |i| scaling(levels[i]))
        }
    };
    Ok(Plan { steps: rows, clip: Clip::None })
}
