//! The schedule of a variance-preserving network as a model's files describe it, shared by every sampler.

use crate::diffusion::parameterization::Prediction;
use crate::diffusion::plan::{Clip, Level};
use crate::diffusion::sampler::rows::{SolverType, Variance};
use crate::diffusion::sampler::{LevelPath, Sampler};
use crate::diffusion::schedule::{BetaSchedule, NoiseTable, Spacing};
use crate::error::{Error, Result};

/// Where the sigmas of `euler` and `dpmpp-2m` come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SigmaSpacing {
    /// From the visited timesteps.
    #[default]
    Timesteps,
    /// Karras et al. 2022, equation 5 with rho 7.
    Karras,
    /// Evenly in their logarithm.
    Exponential,
}

/// Where the last step of `euler` and `dpmpp-2m` ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FinalSigma {
    /// At the clean image.
    #[default]
    Zero,
    /// At the lowest sigma of the training schedule.
    SigmaMin,
}

/// Dynamic thresholding (Saharia et al. 2022, section 2.3); see [`Clip::Threshold`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// The quantile, in `0..=1`.
    pub ratio: f64,
    /// The largest bound.
    pub max: f64,
}

/// Something that a model's files ask for and some samplers cannot do.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsupported {
    /// What is asked and what is possible.
    pub problem: String,
    /// The walks of samplers whose numbers it would change.
    pub walks: &'static [LevelPath],
}

/// A training schedule and how samplers are to use it. The default is what diffusers assumes where a file says nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscreteSchedule {
    /// The model's name or path, for messages.
    pub name: String,
    /// The number of timesteps of training, at least 2.
    pub train_steps: usize,
    /// The variances of the forward steps.
    pub betas: BetaSchedule,
    /// Whether the schedule is rescaled so that its last timestep is pure noise.
    pub zero_terminal_snr: bool,
    /// What the network predicts: `Epsilon`, `VPrediction` or `Sample`.
    pub prediction: Prediction,
    /// Which timesteps are visited; where absent, `Leading` for `ddim` and `ddpm`, `Linspace` for the others.
    pub spacing: Option<Spacing>,
    /// How far `Leading` timesteps are moved.
    pub steps_offset: usize,
    /// Whether predictions are clipped to `clip_sample_range`, by samplers that do; where absent, all but `lcm` and `tcd` do.
    pub clip_sample: Option<bool>,
    /// The largest magnitude of a clipped prediction.
    pub clip_sample_range: f64,
    /// Whether the direction of a `ddim` step is taken from the clipped prediction, too (`use_clipped_model_output` of diffusers'
    /// pipelines, where it is off). Strong guidance needs it.
    pub clips_direction: bool,
    /// Dynamic thresholding, instead of clipping; not for `euler`.
    pub threshold: Option<Threshold>,
    /// Whether `ddim` and `pndm` end at the clean image rather than at timestep 0 (`set_alpha_to_one`); where absent, `ddim` does.
    pub ends_at_clean: Option<bool>,
    /// The noise of `ddpm`.
    pub variance: Variance,
    /// The order of `unipc`, `deis` and `dpmpp-single`, 1 to 3, and of `dpmpp-2m`, 1 or 2.
    pub solver_order: usize,
    /// How DPM-Solver++ extrapolates.
    pub solver_type: SolverType,
    /// Whether solvers end with steps of lower order, most of them where there are fewer than 15; where absent, all do but
    /// `dpmpp-single`.
    pub lower_order_final: Option<bool>,
    /// Whether B(h) of `unipc` is `h` rather than `exp(h) - 1`.
    pub is_bh1: bool,
    /// Whether `unipc` works on predictions of the noise rather than of the clean image (`predict_x0` is false).
    pub predicts_noise: bool,
    /// The steps of `unipc` that are not corrected.
    pub disable_corrector: Vec<usize>,
    /// Whether `pndm` begins with a step of two evaluations rather than with three of four.
    pub skip_prk_steps: bool,
    /// Whether `dpmpp-2m` always ends with a first-order step.
    pub euler_at_final: bool,
    /// Where the last step of `euler` and `dpmpp-2m` ends.
    pub final_sigma: FinalSigma,
    /// Where the sigmas of `euler` and `dpmpp-2m` come from.
    pub sigma_spacing: SigmaSpacing,
    /// The lowest Karras or exponential sigma, where it is not the schedule's.
    pub sigma_min: Option<f64>,
    /// The highest Karras or exponential sigma, where it is not the schedule's.
    pub sigma_max: Option<f64>,
    /// The lowest `ln(signal / noise)` at which `dpmpp-2m` evaluates.
    pub lambda_min_clipped: f64,
    /// How many timesteps a consistency model was distilled at (`original_inference_steps`); for `lcm` and `tcd`.
    pub distilled_steps: usize,
    /// By how much timesteps are stretched before they are compared with the boundary of `lcm`.
    pub timestep_scaling: f64,
    /// What some samplers cannot do.
    pub unsupported: Vec<Unsupported>,
}

impl Default for DiscreteSchedule {
    fn default() -> Self {
        Self {
            name: "of this schedule".into(),
            train_steps: 1000,
            betas: BetaSchedule::Linear { start: 1e-4, end: 0.02 },
            zero_terminal_snr: false,
            prediction: Prediction::Epsilon,
            spacing: None,
            steps_offset: 0,
            clip_sample: None,
            clip_sample_range: 1.0,
            clips_direction: false,
            threshold: None,
            ends_at_clean: None,
            variance: Variance::FixedSmall,
            solver_order: 2,
            solver_type: SolverType::Midpoint,
            lower_order_final: None,
            is_bh1: false,
            predicts_noise: false,
            disable_corrector: Vec::new(),
            skip_prk_steps: false,
            euler_at_final: false,
            final_sigma: FinalSigma::Zero,
            sigma_spacing: SigmaSpacing::Timesteps,
            sigma_min: None,
            sigma_max: None,
            lambda_min_clipped: f64::NEG_INFINITY,
            distilled_steps: 50,
            timestep_scaling: 10.0,
            unsupported: Vec::new(),
        }
    }
}

impl DiscreteSchedule {
    /// What a sampler that clips does to predictions.
    pub fn clip(&self) -> Clip {
        self.clip_or(true)
    }

    /// What a sampler that clips only where it is asked to does to them.
    pub(super) fn clip_where_asked(&self) -> Clip {
        self.clip_or(false)
    }

    fn clip_or(&self, usual: bool) -> Clip {
        match self.threshold {
            Some(Threshold { ratio, max }) => Clip::Threshold { ratio, max },
            None if self.clip_sample.unwrap_or(usual) => Clip::Range(self.clip_sample_range),
            None => Clip::None,
        }
    }

    /// The table of the training schedule.
    ///
    /// # Errors
    /// When it does not fall from an image to noise, one entry per timestep.
    pub fn table(&self) -> Result<NoiseTable> {
        let table = NoiseTable::new(&self.betas, self.train_steps, self.zero_terminal_snr);
        if table.len() != self.train_steps || self.train_steps < 2 {
            return Err(self.error(format!(
                "there are {} betas for {} timesteps of training; there must be one for each, and at least 2",
                table.len(),
                self.train_steps
            )));
        }
        let is_possible = |beta: &f32| (0.0..=1.0).contains(beta);
        let products: Vec<f64> = (0..table.len()).filter_map(|t| table.alpha_cumprod(t)).collect();
        let is_falling = products.is_sorted_by(|before, after| before >= after) && products[0] < 1.0;
        if !self.betas.betas(self.train_steps).iter().all(is_possible) || !is_falling {
            return Err(self.error("the betas are no variances of steps towards noise: each must lie between 0 and 1"));
        }
        Ok(table)
    }

    /// Whether `sampler` can do all that the schedule asks for, in that many steps.
    pub(super) fn check(&self, sampler: Sampler, steps: usize) -> Result<()> {
        if !self.prediction.takes_timestep() {
            return Err(self.error(format!(
                "prediction {:?} does not go with a training schedule; there are epsilon, v_prediction and sample",
                self.prediction
            )));
        }
        if let Some(unsupported) = self.unsupported.iter().find(|it| it.walks.contains(&sampler.path())) {
            return Err(self.error(format!("{} (with sampler {sampler})", unsupported.problem)));
        }
        if self.solver_order > 2 && [Sampler::DPMPP_2M, Sampler::DPMPP_2M_SDE].contains(&sampler) {
            return Err(self.error(format!(
                "solver_order is {}, which is not supported by {sampler}; possible: 1, 2, or the sampler dpmpp-3m",
                self.solver_order
            )));
        }
        if steps > self.train_steps {
            return Err(Error::usage(format!(
                "{steps} steps were asked for, but the network was trained on {} timesteps; take at most as many",
                self.train_steps
            )));
        }
        Ok(())
    }

    /// The level of a visited timestep.
    pub(super) fn level(&self, table: &NoiseTable, t: usize) -> Result<Level> {
        table.level(t).ok_or_else(|| {
            Error::usage(format!(
                "timestep {t} lies beyond the {} of training: steps_offset is {}, so take fewer steps",
                self.train_steps, self.steps_offset
            ))
        })
    }

    /// The lowest and highest sigma of a Karras or exponential spacing, given those of the schedule.
    pub(super) fn sigma_range(&self, min: f64, max: f64) -> (f64, f64) {
        (self.sigma_min.unwrap_or(min), self.sigma_max.unwrap_or(max))
    }

    /// Where the last step ends, given the schedule's sigmas by timestep.
    pub(super) fn final_sigma(&self, sigmas: &[f64]) -> f64 {
        match self.final_sigma {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => sigmas[0],
        }
    }

    fn error(&self, problem: impl Into<String>) -> Error {
        Error::model(&self.name, problem)
    }
}
