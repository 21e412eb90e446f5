//! Plans for networks that were trained on straight paths between image and noise (Liu et al. 2022;
//! Esser et al. 2024), as diffusers' `FlowMatchEulerDiscreteScheduler` walks them.

use std::f64::consts::E;

use super::rows::ddim_between;
use crate::diffusion::config::Keys;
use crate::diffusion::parameterization::Prediction;
use crate::diffusion::plan::{Clip, Level, Plan};
use crate::error::{Error, Result};

/// The schedule of such a network: the state is `(1 - sigma) * x0 + sigma * n`.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSchedule {
    /// The number of training timesteps. The network takes sigma times this number. In an empty
    /// file: 1000.
    pub train_steps: usize,
    /// The shift of levels toward noise (Esser et al. 2024, equation 23). In an empty file: 1, no
    /// shift.
    pub shift: f64,
    /// A shift that depends on the size of the image, in place of `shift`. In an empty file: none.
    pub dynamic_shift: Option<DynamicShift>,
    /// The last sigma before 0, to which the others are stretched (`shift_terminal`). In an empty
    /// file: none.
    pub shift_terminal: Option<f64>,
}

/// A shift of levels that grows with the size of the image, as Flux has it
/// (`use_dynamic_shifting`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DynamicShift {
    /// Two sequence lengths, in tokens (`base_image_seq_len` and `max_image_seq_len`; 256 and 4096
    /// where the file has none).
    pub image_seq_len: [f64; 2],
    /// `mu` at these lengths, linear between and beyond them (`base_shift` and `max_shift`; 0.5 and
    /// 1.15 where the file has none).
    pub mu: [f64; 2],
    /// How `mu` gives the shift.
    pub time_shift: TimeShift,
}

/// The shift that follows from `mu` (`time_shift_type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeShift {
    /// `exp(mu)`.
    #[default]
    Exponential,
    /// `mu` itself.
    Linear,
}

impl FlowSchedule {
    /// Reads a `scheduler_config.json`. None for other classes.
    ///
    /// # Errors
    /// [`Error::Model`] when it has a setting that is not supported.
    pub fn parse(name: &str, text: &str) -> Result<Option<Self>> {
        let mut keys = Keys::new(name, "scheduler_config.json", text)?;
        match keys.text("_class_name")?.as_deref() {
            Some("FlowMatchEulerDiscreteScheduler") => {}
            _ => return Ok(None),
        }
        let train_steps = keys.count("num_train_timesteps", 2..=100_000)?.unwrap_or(1000);
        let mut above = |key: &str, default: f64| -> Result<f64> {
            let value = keys.number(key)?.unwrap_or(default);
            keys.checked(key, value, value > 0.0 && value < 1e6, "a number above 0, below 1000000")
        };
        let shift = above("shift", 1.0)?;
        let image_seq_len =
            [above("base_image_seq_len", 256.0)?, above("max_image_seq_len", 4096.0)?];
        let mu = [above("base_shift", 0.5)?, above("max_shift", 1.15)?];
        let is_dynamic = keys.flag("use_dynamic_shifting")?.unwrap_or(false);
        let kinds = [("exponential", TimeShift::Exponential), ("linear", TimeShift::Linear)];
        let time_shift = keys.choice("time_shift_type", &kinds)?.unwrap_or_default();
        let shift_terminal = keys.number("shift_terminal")?;
        for key in [
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "invert_sigmas",
            "stochastic_sampling",
        ] {
            if keys.flag(key)? == Some(true) {
                return Err(keys.refusal(key, "true", "false"));
            }
        }
        let dynamic_shift = is_dynamic.then_some(DynamicShift { image_seq_len, mu, time_shift });
        Ok(Some(Self { train_steps, shift, dynamic_shift, shift_terminal }))
    }

    /// The sigmas of a plan, from noise to image, without the last, 0. `tokens` is the
    /// sequence length of the network. Before the shift, sigmas go evenly from 1 to 1 / steps
    /// if `is_even`, or else to the last timestep of training.
    pub fn sigmas(&self, steps: usize, tokens: usize, is_even: bool) -> Vec<f64> {
        let shifted = |sigma: f64| self.shift * sigma / (1.0 + (self.shift - 1.0) * sigma);
        let count = steps as f64;
        let least = 1.0 / if is_even { count } else { self.train_steps as f64 };
        let line = |from: f64, to: f64| -> Vec<f64> {
            let between = (count - 1.0).max(1.0);
            (0..steps).map(|i| from + (to - from) * i as f64 / between).collect()
        };
        let mut sigmas = match self.dynamic_shift {
            Some(DynamicShift { image_seq_len: [low, high], mu: [first, last], time_shift }) => {
                let mu = first + (last - first) / (high - low) * (tokens as f64 - low);
                let factor = match time_shift {
                    TimeShift::Exponential => E.powf(mu),
                    TimeShift::Linear => mu,
                };
                let line = line(1.0, least);
                line.into_iter().map(|sigma| factor / (factor + 1.0 / sigma - 1.0)).collect()
            }
            None if is_even => line(1.0, least).into_iter().map(shifted).collect(),
            // The ends of training are shifted, and what lies between them once more.
            None => line(1.0, shifted(least)).into_iter().map(shifted).collect::<Vec<f64>>(),
        };
        if let (Some(terminal), Some(last)) = (self.shift_terminal, sigmas.last().copied()) {
            let factor = (1.0 - last) / (1.0 - terminal);
            sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / factor);
        }
        sigmas
    }
}

/// Euler's plan on a flow: `x' = x + (sigma' - sigma) * F`. `Step::t` is the training timestep,
/// `sigma` times the number of timesteps.
///
/// # Errors
/// [`Error::Usage`] for no steps.
pub fn flow_plan(
    schedule: &FlowSchedule,
    steps: usize,
    tokens: usize,
    is_even: bool,
) -> Result<Plan> {
    if steps == 0 {
        return Err(Error::usage("a sampler needs at least one step"));
    }
    let level = |sigma: f64| Level { signal: 1.0 - sigma, noise: sigma };
    let sigmas = schedule.sigmas(steps, tokens, is_even);
    let ends = sigmas.iter().skip(1).copied().chain([0.0]);
    let rows = sigmas.iter().zip(ends).map(|(&from, to)| {
        let scaling = Prediction::Flow.scaling(level(from), f64::NAN);
        let mut row = ddim_between(level(from), scaling, level(to), 0.0, false);
        row.t = from * schedule.train_steps as f64;
        row
    });
    Ok(Plan { steps: rows.collect(), clip: Clip::None })
}
