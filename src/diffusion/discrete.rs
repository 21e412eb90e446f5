//! The noise schedule of a variance-preserving network as its configuration files describe it,
//! shared by all samplers.

use crate::diffusion::level_path::LevelPath;
use crate::diffusion::parameterization::Prediction;
use crate::diffusion::plan::{Clip, Level};
use crate::diffusion::schedule::{BetaSchedule, NoiseTable, Spacing};
use crate::error::{Error, Result};

/// How the sigmas of `euler` and `dpmpp-2m` are spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SigmaSpacing {
    /// The sigmas of the visited timesteps.
    #[default]
    Timesteps,
    /// Karras spacing (Karras et al. 2022, equation 5) with rho 7.
    Karras,
    /// Uniform in `ln(sigma)`.
    Exponential,
    /// Those of straight paths between image and noise, shifted by
    /// [`flow_shift`](DiscreteSchedule::flow_shift), in place of the betas' (for `dpmpp-2m` and
    /// others of DPM-Solver++'s multistep family).
    Flow,
}

/// The sigma at which the last step of `euler` and `dpmpp-2m` ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FinalSigma {
    /// Zero, the clean image.
    #[default]
    Zero,
    /// The lowest sigma of the training schedule.
    SigmaMin,
}

/// The variance of the noise in DDPM's reverse step (Ho et al. 2020, section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variance {
    /// The posterior's variance, optimal for data at a single point.
    #[default]
    FixedSmall,
    /// The forward step's variance, optimal for standard normal data.
    FixedLarge,
}

/// How DPM-Solver++ extrapolates (Lu et al. 2022, appendix B).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SolverType {
    /// Midpoint: half of the exponential's integral, equation 14.
    #[default]
    Midpoint,
    /// The first moment of the exponential.
    Heun,
}

/// Dynamic thresholding (Saharia et al. 2022, section 2.3); see [`Clip::Threshold`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// The quantile, in `0..=1`.
    pub ratio: f64,
    /// The upper limit of the bound.
    pub max: f64,
}

/// A setting in a model's files that some samplers do not support.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsupported {
    /// The setting, its value and the possible values.
    pub problem: String,
    /// The level paths whose samplers would give different numbers with this setting.
    pub level_paths: &'static [LevelPath],
}

/// The variant of UniPC, by its function `B(h)` (Zhao et al. 2023, section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UniPcVariant {
    /// `B(h) = h`.
    Bh1,
    /// `B(h) = exp(h) - 1`.
    #[default]
    Bh2,
}

/// A training schedule and how samplers use it. The default is what diffusers assumes for an empty
/// file: 1000 timesteps of DDPM's linear betas, and a network that predicts the noise.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscreteSchedule {
    /// The model's name or path, for messages. Default: `with this schedule`.
    pub name: String,
    /// The number of training timesteps, at least 2. Default: 1000.
    pub train_steps: usize,
    /// The variances of the forward steps. Default: linear from 0.0001 to 0.02.
    pub betas: BetaSchedule,
    /// Whether the schedule is rescaled so that the last timestep is pure noise (zero terminal
    /// SNR). Default: false.
    pub zero_terminal_snr: bool,
    /// What the network predicts: `Epsilon`, `VPrediction` or `Sample`. Default: `Epsilon`.
    pub prediction: Prediction,
    /// Which timesteps are visited. Default: `Leading` for `ddim` and `ddpm`, `Linspace` for the
    /// others.
    pub spacing: Option<Spacing>,
    /// The offset added to `Leading` timesteps. Default: 0.
    pub steps_offset: usize,
    /// Whether predictions are clipped to `clip_sample_range`. Default: true for `ddim`, `ddpm`,
    /// `pc` and `ode`, false for `heun` and `lcm`. Without effect on other samplers, such as
    /// `euler` and `dpmpp-2m`: none of these clips to a range, as in diffusers.
    pub clip_sample: Option<bool>,
    /// The largest magnitude of a clipped prediction. Default: 1.
    pub clip_sample_range: f64,
    /// Whether a `ddim` step also takes its direction from the clipped prediction
    /// (`use_clipped_model_output` in diffusers' pipelines). Strong guidance needs it. Default:
    /// false.
    pub clips_direction: bool,
    /// Dynamic thresholding in place of clipping, also by the DPM-Solver++ family, `unipc` and
    /// `deis`. Without effect on samplers in sigma, such as `euler`; a file that asks these for it
    /// is refused. Default: none.
    pub threshold: Option<Threshold>,
    /// Whether `ddim` and `pndm` end at the clean image rather than at timestep 0
    /// (`set_alpha_to_one`). Default: true for `ddim`, false for `pndm`.
    pub set_alpha_to_one: Option<bool>,
    /// The variance of the noise that `ddpm` adds. Default: [`Variance::FixedSmall`].
    pub variance: Variance,
    /// The order of `unipc`, `deis` and `dpmpp-single` (1 to 3) and of `dpmpp-2m` (1 or 2).
    /// Default: 2.
    pub solver_order: usize,
    /// How DPM-Solver++ extrapolates. Default: [`SolverType::Midpoint`].
    pub solver_type: SolverType,
    /// Whether solvers lower their order in the last steps; most do so only below 15 steps.
    /// Default: true, but false for `dpmpp-single`.
    pub lower_order_final: Option<bool>,
    /// The variant of `unipc` (`solver_type`). Default: [`UniPcVariant::Bh2`].
    pub unipc_variant: UniPcVariant,
    /// Whether `unipc` extrapolates predictions of the noise rather than of the clean image
    /// (`predict_x0` is false). Default: false.
    pub predicts_noise: bool,
    /// The steps of `unipc` without a corrector. Default: none.
    pub disable_corrector: Vec<usize>,
    /// Whether `pndm` begins with one step of two evaluations rather than with three steps of four.
    /// Default: false.
    pub skip_prk_steps: bool,
    /// Whether the last step of `dpmpp-2m` is always of first order. Default: false.
    pub euler_at_final: bool,
    /// The sigma at which the last step of `euler` and `dpmpp-2m` ends. Default:
    /// [`FinalSigma::Zero`].
    pub final_sigma: FinalSigma,
    /// How the sigmas of `euler` and `dpmpp-2m` are spaced. Default: [`SigmaSpacing::Timesteps`].
    pub sigma_spacing: SigmaSpacing,
    /// The shift of flow sigmas toward noise (Esser et al. 2024, equation 23). Default: 1, no
    /// shift.
    pub flow_shift: f64,
    /// The lowest Karras or exponential sigma. Default: that of the schedule.
    pub sigma_min: Option<f64>,
    /// The highest Karras or exponential sigma. Default: that of the schedule.
    pub sigma_max: Option<f64>,
    /// The lowest `ln(signal / noise)` at which `dpmpp-2m` evaluates the network. Default: minus
    /// infinity.
    pub lambda_min_clipped: f64,
    /// The number of timesteps at which a consistency model was distilled; for `lcm` and `tcd`.
    /// Default: 50.
    pub original_inference_steps: usize,
    /// How many of these timesteps, counted from the lowest, are used when sampling starts from an
    /// image. Default: all.
    pub original_steps_limit: Option<usize>,
    /// The factor applied to timesteps in the boundary condition of `lcm`. Default: 10.
    pub timestep_scaling: f64,
    /// Settings that some samplers do not support. Default: none.
    pub unsupported: Vec<Unsupported>,
}

impl Default for DiscreteSchedule {
    fn default() -> Self {
        Self {
            name: "with this schedule".into(),
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
            set_alpha_to_one: None,
            variance: Variance::FixedSmall,
            solver_order: 2,
            solver_type: SolverType::Midpoint,
            lower_order_final: None,
            unipc_variant: UniPcVariant::Bh2,
            predicts_noise: false,
            disable_corrector: Vec::new(),
            skip_prk_steps: false,
            euler_at_final: false,
            final_sigma: FinalSigma::Zero,
            sigma_spacing: SigmaSpacing::Timesteps,
            flow_shift: 1.0,
            sigma_min: None,
            sigma_max: None,
            lambda_min_clipped: f64::NEG_INFINITY,
            original_inference_steps: 50,
            original_steps_limit: None,
            timestep_scaling: 10.0,
            unsupported: Vec::new(),
        }
    }
}

impl DiscreteSchedule {
    /// Whether samplers that count in sigma start at the largest sigma itself, rather than at
    /// `sqrt(sigma^2 + 1)`, as they do where timesteps lead.
    pub(crate) fn starts_at_sigma(&self) -> bool {
        self.spacing != Some(Spacing::Leading)
    }

    /// Whether it goes along straight paths.
    pub(crate) fn is_flow(&self) -> bool {
        self.sigma_spacing == SigmaSpacing::Flow
    }

    /// The limit on predictions of samplers that clip.
    pub fn clip(&self) -> Clip {
        self.clip_or(true)
    }

    /// The limit on predictions of samplers that clip only where the file asks for it.
    pub(super) fn clip_where_asked(&self) -> Clip {
        self.clip_or(false)
    }

    fn clip_or(&self, default: bool) -> Clip {
        match self.threshold {
            Some(Threshold { ratio, max }) => Clip::Threshold { ratio, max },
            None if self.clip_sample.unwrap_or(default) => Clip::Range(self.clip_sample_range),
            None => Clip::None,
        }
    }

    /// The levels of the training schedule.
    ///
    /// # Errors
    /// When there is not one entry per timestep, or they do not fall from image to noise.
    pub fn table(&self) -> Result<NoiseTable> {
        let table = NoiseTable::new(&self.betas, self.train_steps, self.zero_terminal_snr);
        if table.len() != self.train_steps || self.train_steps < 2 {
            return Err(self.error(format!(
                "there are {} betas for {} timesteps of training; there must be one for each, and \
                 at least 2",
                table.len(),
                self.train_steps
            )));
        }
        let is_possible = |beta: &f32| (0.0..=1.0).contains(beta);
        let products: Vec<f64> = (0..table.len()).filter_map(|t| table.alpha_cumprod(t)).collect();
        let is_falling =
            products.is_sorted_by(|before, after| before >= after) && products[0] < 1.0;
        if !self.betas.betas(self.train_steps).iter().all(is_possible) || !is_falling {
            return Err(self.error(
                "the betas are not valid variances of forward steps: each must lie between 0 and 1",
            ));
        }
        Ok(table)
    }

    /// The level of a visited timestep.
    pub(super) fn level(&self, table: &NoiseTable, t: usize) -> Result<Level> {
        table.level(t).ok_or_else(|| {
            Error::usage(format!(
                "timestep {t} lies beyond the {} of training: steps_offset is {}, so take fewer \
                 steps",
                self.train_steps, self.steps_offset
            ))
        })
    }

    /// The lowest and highest sigma of Karras or exponential spacing. `min` and `max` are those of
    /// the schedule.
    pub(super) fn sigma_range(&self, min: f64, max: f64) -> (f64, f64) {
        (self.sigma_min.unwrap_or(min), self.sigma_max.unwrap_or(max))
    }

    /// The sigma at which the last step ends. `sigmas` are the schedule's, by timestep.
    pub(super) fn final_sigma(&self, sigmas: &[f64]) -> f64 {
        match self.final_sigma {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => sigmas[0],
        }
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> Error {
        Error::model(&self.name, problem)
    }
}
