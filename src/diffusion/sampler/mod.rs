//! Samplers: pure functions from a schedule, a number of steps and eta to a table.
//!
//! To add one, see `families/mod.rs`.

pub mod denoise;
mod families;
mod flow;
mod levels;
mod multistep;
pub mod rows;
mod sigmas;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::diffusion::discrete::DiscreteSchedule;
use crate::diffusion::plan::{Plan, Step};
use crate::error::{Error, Result};
use levels::Levels;

pub use crate::diffusion::level_path::LevelPath;
pub use denoise::denoise_plan;
pub use flow::{DynamicShift, FlowSchedule, TimeShift, flow_plan};
pub use sigmas::SigmaSchedule;

/// A sampler by name.
#[derive(Clone, Copy)]
pub struct Sampler(&'static Definition);

/// The definition of a sampler.
struct Definition {
    /// The name on the command line and in manifests.
    name: &'static str,
    /// The equivalent scheduler class of diffusers.
    class: Option<&'static str>,
    /// The paper and equation.
    paper: &'static str,
    path: LevelPath,
    /// The default eta; none for samplers without one.
    eta: Option<f64>,
    /// The steps, given eta.
    rows: fn(&Levels, f64) -> Vec<Step>,
}

impl Sampler {
    /// The name on the command line and in manifests.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The paper and equation that describe the sampler.
    pub fn paper(self) -> &'static str {
        self.0.paper
    }

    /// The equivalent scheduler class of diffusers, if there is one.
    pub fn class(self) -> Option<&'static str> {
        self.0.class
    }

    /// The path through the levels.
    pub fn path(self) -> LevelPath {
        self.0.path
    }
}

impl PartialEq for Sampler {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Sampler {}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Sampler {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|sampler| sampler.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::usage(format!("unknown sampler '{name}'; expected one of {names}"))
        })
    }
}

impl Serialize for Sampler {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Sampler {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The noise levels of a network, from which the levels of a plan come.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// Timesteps of a variance-preserving training schedule (DDPM and its descendants).
    Discrete(Box<DiscreteSchedule>),
    /// A range of sigma (EDM, score, flow and denoising networks).
    Sigmas(SigmaSchedule),
}

/// The plan of `sampler` in `steps` steps on `schedule`. A step is one evaluation, but two for
/// `heun`, `kdpm2`, `kdpm2-a` and `pc`, and five for `langevin`; `pndm` starts with a few more.
///
/// `eta` in `0..=1` scales the noise of stochastic samplers; the default is the sampler's own. The
/// coordinates of the state are those of the plan's first level: variance-exploding for samplers
/// that count in sigma and on every [`Schedule::Sigmas`], variance-preserving otherwise.
///
/// # Errors
/// [`Error::Usage`] for an impossible number of steps or eta, [`Error::Model`] for a schedule with
/// an unsupported setting, or on which this sampler has no finite table.
pub fn plan(schedule: &Schedule, sampler: Sampler, steps: usize, eta: Option<f64>) -> Result<Plan> {
    plan_from(schedule, sampler, steps, eta, 0)
}

/// The plan without its first `skipped` steps, as diffusers' image-to-image pipelines begin.
///
/// Multistep methods start at first order there. `pndm` starts with its two evaluations of the
/// first step, of which diffusers counts both as visited timesteps; so does this.
///
/// # Errors
/// As for [`plan`].
pub fn plan_from(
    schedule: &Schedule,
    sampler: Sampler,
    steps: usize,
    eta: Option<f64>,
    skipped: usize,
) -> Result<Plan> {
    let eta = check_request(sampler, steps, eta)?;
    let path = sampler.path();
    let (mut path_levels, name) = match schedule {
        Schedule::Discrete(schedule) => {
            check_schedule(schedule, sampler, steps)?;
            (Levels::discrete(schedule, path, steps, eta)?, schedule.name.as_str())
        }
        Schedule::Sigmas(schedule) => {
            schedule.check()?;
            (Levels::ve(schedule, path, steps, eta), "with this schedule")
        }
    };
    path_levels.skipped = skipped;
    let plan = Plan { steps: (sampler.0.rows)(&path_levels, eta), clip: path_levels.clip };
    let plan = match path {
        LevelPath::Pndm => plan,
        // Some take two evaluations a step.
        _ => plan.from_row(skipped * plan.steps.len().div_ceil(steps)),
    };
    let plan = plan.pruned();
    check_finite(&plan, sampler, name)?;
    Ok(plan)
}

fn check_request(sampler: Sampler, steps: usize, eta: Option<f64>) -> Result<f64> {
    if steps == 0 {
        return Err(Error::usage("a sampler needs at least one step"));
    }
    match (eta, sampler.0.eta) {
        (Some(eta), _) if !(0.0..=1.0).contains(&eta) => {
            Err(Error::usage(format!("eta is {eta}, but must lie between 0 and 1")))
        }
        (Some(eta), None) if eta > 0.0 => {
            let with: Vec<_> = Sampler::ALL
                .into_iter()
                .filter(|it| it.0.eta.is_some())
                .map(Sampler::name)
                .collect();
            let with = with.join(", ");
            Err(Error::usage(format!(
                "eta is {eta}, but only {with} have an eta; leave it out for {sampler}"
            )))
        }
        (eta, own) => Ok(eta.or(own).unwrap_or(0.0)),
    }
}

/// Checks that `sampler` supports every setting of the schedule, in `steps` steps.
fn check_schedule(schedule: &DiscreteSchedule, sampler: Sampler, steps: usize) -> Result<()> {
    if schedule.is_flow() {
        if sampler.path() != LevelPath::DpmSolver {
            return Err(schedule.error(format!(
                "its flow sigmas are for dpmpp-2m, dpmpp-2m-sde and dpmpp-3m, and the sampler is \
                 {sampler}"
            )));
        }
    } else if !schedule.prediction.takes_timestep() {
        return Err(schedule.error(format!(
            "its prediction is {}, but a training schedule needs epsilon, v_prediction or sample",
            schedule.prediction
        )));
    }
    if let Some(unsupported) =
        schedule.unsupported.iter().find(|it| it.level_paths.contains(&sampler.path()))
    {
        return Err(schedule.error(format!("{} (with sampler {sampler})", unsupported.problem)));
    }
    if schedule.solver_order > 2 && [Sampler::DPMPP_2M, Sampler::DPMPP_2M_SDE].contains(&sampler) {
        return Err(schedule.error(format!(
            "solver_order is {}, which is not supported by {sampler}; possible: 1, 2, or the \
             sampler dpmpp-3m",
            schedule.solver_order
        )));
    }
    if steps > schedule.train_steps {
        return Err(Error::usage(format!(
            "{steps} steps were requested, but the network was trained on {} timesteps; take at \
             most as many",
            schedule.train_steps
        )));
    }
    Ok(())
}

fn check_finite(plan: &Plan, sampler: Sampler, name: &str) -> Result<()> {
    let is_finite = |row: &crate::diffusion::plan::Step| {
        [row.t, row.c_in, row.c_skip, row.c_out, row.a, row.b, row.d, row.e]
            .iter()
            .chain(&row.past)
            .all(|v| v.is_finite())
    };
    match plan.steps.iter().find(|row| !is_finite(row)) {
        None => Ok(()),
        Some(row) => Err(Error::model(
            name,
            format!(
                "the table of {sampler} is not finite where signal is {} and noise {}: this \
                 prediction says nothing about the image there (pure noise, with \
                 rescale_betas_zero_snr, needs v_prediction or sample); choose euler or dpmpp-2m, \
                 or a timestep_spacing that leaves out the last timestep",
                row.level.signal, row.level.noise
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{DiscreteSchedule, Sampler, Schedule, plan};
    use crate::diffusion::plan::HISTORY_SLOTS;
    use crate::diffusion::schedule::Spacing;
    use crate::error::Error;

    #[test]
    fn names_parse_back() {
        for sampler in Sampler::ALL {
            assert_eq!(sampler.to_string().parse::<Sampler>().unwrap(), sampler);
        }
        let message = "dpm".parse::<Sampler>().unwrap_err().to_string();
        assert!(message.contains("dpmpp-2m"), "{message}");
    }

    #[test]
    fn rejects_impossible_steps_and_eta() {
        let schedule = Schedule::Discrete(Box::default());
        for (sampler, steps, eta) in [
            (Sampler::DDIM, 0, 0.0),
            (Sampler::DDIM, 1001, 0.0),
            (Sampler::DDIM, 10, 1.5),
            (Sampler::DDIM, 10, f64::NAN),
            (Sampler::EULER, 10, 0.5),
        ] {
            assert!(
                matches!(plan(&schedule, sampler, steps, Some(eta)), Err(Error::Usage { .. })),
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
        let message = plan(&schedule, Sampler::DDIM, 10, None).unwrap_err().to_string();
        assert!(message.contains("v_prediction"), "{message}");
        assert!(plan(&schedule, Sampler::EULER, 10, None).is_ok());
    }

    #[test]
    fn every_plan_ends_at_the_clean_image() {
        // With D = x0 throughout, a state without noise must follow the signal of each level down
        // to x0 itself.
        for sampler in Sampler::ALL {
            for steps in [1, 2, 7, 50] {
                let schedule = Schedule::Discrete(Box::new(DiscreteSchedule {
                    clip_sample: Some(false),
                    skip_prk_steps: steps < 4,
                    ..DiscreteSchedule::default()
                }));
                let plan = plan(&schedule, sampler, steps, None).unwrap();
                let evaluations = match sampler.name() {
                    "heun" | "kdpm2" | "kdpm2-a" => 2 * steps - 1,
                    "pndm" if steps < 4 => steps + usize::from(steps > 1),
                    "pndm" => steps + 9,
                    "pc" => 2 * steps,
                    "langevin" => 5 * steps + 1,
                    _ => steps,
                };
                assert_eq!(plan.steps.len(), evaluations, "{sampler}");
                let mut kept = [0.0; HISTORY_SLOTS];
                let end = plan.steps.iter().fold(plan.steps[0].level.signal, |x, row| {
                    let past: f64 =
                        row.past.iter().zip(&kept).map(|(factor, kept)| factor * kept).sum();
                    if let Some(entry) = row.store {
                        let [of_x, of_d] = row.factors(entry.value);
                        kept[entry.slot] = of_x * x + of_d;
                    }
                    row.a * x + row.b + past + row.e
                });
                // LCM keeps part of x near the boundary, more than the first levels' signal; the
                // others end at timestep 0.
                let is_near =
                    [Sampler::LCM, Sampler::TCD, Sampler::DEIS, Sampler::PNDM].contains(&sampler);
                assert!(
                    (end - 1.0).abs() < if is_near { 0.01 } else { 1e-9 },
                    "{sampler} in {steps}: {end}"
                );
            }
        }
    }
}
