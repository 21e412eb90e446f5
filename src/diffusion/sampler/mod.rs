//! Samplers: pure functions from a schedule, a number of steps and eta to a table.
//!
//! To add one: a variant of [`Sampler`], a file with one short function that builds its rows (see [`euler`] for the
//! smallest), its arm in [`plan`], and golden numbers.

pub mod ddim;
pub mod ddpm;
pub mod denoise;
pub mod dpmpp;
pub mod euler;
pub mod rows;
pub mod sigmas;

use std::fmt;
use std::str::FromStr;

use crate::diffusion::discrete::DiscreteSchedule;
use crate::diffusion::plan::Plan;
use crate::error::{Error, Result};

pub use denoise::denoise_plan;
pub use sigmas::SigmaSchedule;

/// A sampler by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sampler {
    /// `ddim`: Song, Meng and Ermon 2021; deterministic with eta 0, DDPM-like with eta 1.
    Ddim,
    /// `ddpm`: Ho, Jain and Abbeel 2020; draws noise.
    Ddpm,
    /// `euler`: Euler's method on the probability flow in sigma (Karras et al. 2022, algorithm 1 without its correction).
    Euler,
    /// `dpmpp-2m`: DPM-Solver++(2M), Lu et al. 2022.
    Dpmpp2m,
}

impl Sampler {
    /// Every sampler there is.
    pub const ALL: [Self; 4] = [Self::Ddim, Self::Ddpm, Self::Euler, Self::Dpmpp2m];

    /// Its name on the command line and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Ddpm => "ddpm",
            Self::Euler => "euler",
            Self::Dpmpp2m => "dpmpp-2m",
        }
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Sampler {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|sampler| sampler.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::usage(format!("there is no sampler named '{name}'; there are {names}"))
        })
    }
}

/// How a network's noise levels are laid out, and so where a plan's levels come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// Timesteps of a variance-preserving training schedule (DDPM and its descendants).
    Discrete(Box<DiscreteSchedule>),
    /// A range of sigma (EDM, score, flow and denoising networks).
    Sigmas(SigmaSchedule),
}

/// The table of `sampler` in `steps` evaluations on `schedule`.
///
/// `eta` in `0..=1` scales the noise of `ddim`, and is 0 for every other sampler. The state's coordinates are those of
/// the plan's first level: variance-exploding for `euler` and for every plan on [`Schedule::Sigmas`],
/// variance-preserving otherwise.
///
/// # Errors
/// [`Error::Usage`] for a number of steps or an eta that cannot be, [`Error::Model`] for a schedule that asks for
/// something unsupported, or on which this sampler has no finite table.
pub fn plan(schedule: &Schedule, sampler: Sampler, steps: usize, eta: f64) -> Result<Plan> {
    check_request(sampler, steps, eta)?;
    let (plan, name) = match schedule {
        Schedule::Discrete(schedule) => {
            schedule.check(sampler, steps)?;
            let plan = match sampler {
                Sampler::Ddim => ddim::plan(schedule, steps, eta),
                Sampler::Ddpm => ddpm::plan(schedule, steps),
                Sampler::Euler => euler::plan(schedule, steps),
                Sampler::Dpmpp2m => dpmpp::plan(schedule, steps),
            };
            (plan?, schedule.name.as_str())
        }
        Schedule::Sigmas(schedule) => (sigmas::plan(schedule, sampler, steps, eta)?, "of this schedule"),
    };
    check_finite(&plan, sampler, name)?;
    Ok(plan)
}

fn check_request(sampler: Sampler, steps: usize, eta: f64) -> Result<()> {
    if steps == 0 {
        return Err(Error::usage("a sampler needs at least one step"));
    }
    if !(0.0..=1.0).contains(&eta) {
        return Err(Error::usage(format!("eta is {eta}, but must lie between 0 and 1")));
    }
    if eta > 0.0 && sampler != Sampler::Ddim {
        return Err(Error::usage(format!("eta is {eta}, but only ddim has an eta; leave it out for {sampler}")));
    }
    Ok(())
}

fn check_finite(plan: &Plan, sampler: Sampler, name: &str) -> Result<()> {
    let is_finite = |row: &crate::diffusion::plan::Step| {
        [row.t, row.c_in, row.c_skip, row.c_out, row.a, row.b, row.c, row.d, row.e].iter().all(|v| v.is_finite())
    };
    match plan.steps.iter().find(|row| !is_finite(row)) {
        None => Ok(()),
        Some(row) => Err(Error::model(
            name,
            format!(
                "the table of {sampler} is not finite where signal is {} and noise {}: this prediction says nothing \
                 about the picture there (pure noise, with rescale_betas_zero_snr, needs v_prediction or sample); \
                 choose euler or dpmpp-2m, or a timestep_spacing that leaves out the last timestep",
                row.level.signal, row.level.noise
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{DiscreteSchedule, Sampler, Schedule, plan};
    use crate::diffusion::schedule::Spacing;
    use crate::error::Error;

    #[test]
    fn names_are_read_back() {
        for sampler in Sampler::ALL {
            assert_eq!(sampler.to_string().parse::<Sampler>().unwrap(), sampler);
        }
        let message = "heun".parse::<Sampler>().unwrap_err().to_string();
        assert!(message.contains("dpmpp-2m"), "{message}");
    }

    #[test]
    fn impossible_requests_are_refused() {
        let schedule = Schedule::Discrete(Box::default());
        for (sampler, steps, eta) in [
            (Sampler::Ddim, 0, 0.0),
            (Sampler::Ddim, 1001, 0.0),
            (Sampler::Ddim, 10, 1.5),
            (Sampler::Ddim, 10, f64::NAN),
            (Sampler::Euler, 10, 0.5),
        ] {
            assert!(
                matches!(plan(&schedule, sampler, steps, eta), Err(Error::Usage { .. })),
                "{sampler} {steps} {eta}"
            );
        }
    }

    #[test]
    fn epsilon_cannot_start_at_zero_terminal_snr() {
        let schedule = DiscreteSchedule {
            zero_terminal_snr: true,
            spacing: Some(Spacing::Trailing),
            ..DiscreteSchedule::default()
        };
        let schedule = Schedule::Discrete(Box::new(schedule));
        let message = plan(&schedule, Sampler::Ddim, 10, 0.0).unwrap_err().to_string();
        assert!(message.contains("v_prediction"), "{message}");
        assert!(plan(&schedule, Sampler::Euler, 10, 0.0).is_ok());
    }

    #[test]
    fn every_plan_ends_at_the_clean_picture() {
        // With D = x0 throughout, a noiseless state must follow its level's signal down to x0 itself.
        for sampler in Sampler::ALL {
            for steps in [1, 2, 7, 50] {
                let schedule = Schedule::Discrete(Box::new(DiscreteSchedule {
                    clip_sample: false,
                    ..DiscreteSchedule::default()
                }));
                let plan = plan(&schedule, sampler, steps, 0.0).unwrap();
                assert_eq!(plan.steps.len(), steps);
                let end =
                    plan.steps.iter().fold(plan.steps[0].level.signal, |x, row| row.a * x + row.b + row.c + row.e);
                // DDIM's levels do not meet where the stride of training does not divide; see its own file.
                assert!((end - 1.0).abs() < 1e-9, "{sampler} in {steps}: {end}");
            }
        }
    }
}
