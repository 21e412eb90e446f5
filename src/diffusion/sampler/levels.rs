//! The levels between which a sampler's steps go, on a training schedule or a range of sigma.

use super::SigmaSchedule;
use crate::diffusion::discrete::{DiscreteSchedule, FinalSigma, SigmaSpacing};
use crate::diffusion::level_path::LevelPath;
use crate::diffusion::parameterization::Scaling;
use crate::diffusion::plan::{Clip, Level};
use crate::diffusion::schedule::sigmas::{KARRAS_RHO, TimestepOf, exponential, karras, sigma_at};
use crate::diffusion::schedule::timesteps::{
    consistency_timesteps, euler_timesteps, markov_timesteps, solver_timesteps,
};
use crate::diffusion::schedule::{BetaSchedule, NoiseTable, Spacing};
use crate::error::{Error, Result};

/// The transition of one step between two levels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transition {
    /// The level at which the network is evaluated.
    pub(super) from: Level,
    pub(super) scaling: Scaling,
    /// The level at which the step ends.
    pub(super) to: Level,
    /// The level that the noise-free part of a [`LevelPath::Tcd`] step reaches; `to` on
    /// other paths.
    pub(super) intermediate: Level,
    /// Whether the step starts at the first training timestep.
    pub(super) is_first: bool,
    /// The distance of the timestep from the boundary at which a consistency model is the identity,
    /// in units of the data's standard deviation. Infinite for other models.
    pub(super) boundary: f64,
}

impl Transition {
    fn new(from: Level, scaling: Scaling, to: Level) -> Self {
        Self { from, scaling, to, intermediate: to, is_first: false, boundary: f64::INFINITY }
    }
}

/// All transitions of a plan.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    pub(super) transitions: Vec<Transition>,
    pub(super) clip: Clip,
    /// Whether a DDIM step takes its direction from the unclipped prediction.
    pub(super) unclipped_direction: bool,
    /// The other settings of the model's files. On a range of sigma they are the defaults.
    pub(super) settings: DiscreteSchedule,
    /// The training schedule.
    table: Option<NoiseTable>,
    /// The requested number of steps.
    steps: usize,
    /// How many of them a run leaves out, for samplers whose first steps differ.
    pub(super) skipped: usize,
}

impl Levels {
    /// One row for each transition.
    pub(super) fn each<T>(&self, row: impl Fn(&Transition) -> T) -> Vec<T> {
        self.transitions.iter().map(row).collect()
    }

    /// The order of each step of a multistep solver: at most `most`, with the predictions that
    /// there are by then. A step to the clean image, of infinite length in `ln(sigma)`, is of first
    /// order. If `is_lowered`, no order exceeds the number of steps that are left.
    pub(super) fn orders(&self, most: usize, is_lowered: bool) -> Vec<usize> {
        let count = self.transitions.len();
        let order = |(i, transition): (usize, &Transition)| {
            let left = if is_lowered { count - i } else { most };
            let left = if transition.to.noise == 0.0 { 1 } else { left };
            most.min(i + 1).min(left)
        };
        self.transitions.iter().enumerate().map(order).collect()
    }

    /// Whether the last of few steps are of lower order (`lower_order_final`).
    pub(super) fn lowers_last_of_few(&self) -> bool {
        self.settings.lower_order_final.unwrap_or(true) && self.transitions.len() < 15
    }

    /// The order of each step of DPM-Solver++, at most `most`.
    pub(super) fn solver_orders(&self, most: usize) -> Vec<usize> {
        let mut orders = self.orders(most, self.lowers_last_of_few());
        if let Some(last) = orders.last_mut().filter(|_| self.settings.euler_at_final) {
            *last = 1;
        }
        orders
    }

    /// One row for each transition. `row` also gets the previous transition where the order allows
    /// it.
    pub(super) fn each_after<T>(
        &self,
        row: impl Fn(Option<&Transition>, &Transition) -> T,
    ) -> Vec<T> {
        let orders = self.solver_orders(self.settings.solver_order.min(2));
        let rows = self.transitions.iter().zip(orders).enumerate();
        rows.map(|(i, (transition, order))| {
            row((order > 1).then(|| &self.transitions[i - 1]), transition)
        })
        .collect()
    }

    /// The scaling of the network at a level between two visited levels.
    pub(super) fn scaling(&self, level: Level) -> Scaling {
        let timestep = self
            .table
            .as_ref()
            .map_or(f64::NAN, |table| TimestepOf::new(&table.sigmas()).sigma(level.sigma()));
        self.settings.prediction.scaling(level, timestep)
    }

    /// Whether `pndm` begins with Runge-Kutta steps.
    pub(super) fn runs_kutta(&self) -> bool {
        !self.settings.skip_prk_steps && self.table.is_some()
    }

    /// The level a whole stride above `transition`; on a range of sigma, the level of `before`.
    pub(super) fn above(&self, transition: &Transition, before: &Transition) -> Level {
        self.moved(transition, self.stride()).unwrap_or(before.from)
    }

    /// The level half a stride below `transition`.
    pub(super) fn half_below(&self, transition: &Transition) -> Level {
        self.moved(transition, -(self.stride() / 2)).unwrap_or(transition.to)
    }

    /// The level half a stride above `transition`, and the scaling of the network there.
    pub(super) fn half_above(&self, transition: &Transition) -> (Level, Scaling) {
        let half = self.stride() / 2;
        let level = self.moved(transition, half).unwrap_or(transition.from);
        (level, self.settings.prediction.scaling(level, transition.scaling.t + half as f64))
    }

    fn stride(&self) -> isize {
        (self.settings.train_steps / self.steps).cast_signed()
    }

    /// The level `by` timesteps from `transition`, clamped to the training timesteps.
    fn moved(&self, transition: &Transition, by: isize) -> Option<Level> {
        let table = self.table.as_ref()?;
        let t = (transition.scaling.t as usize).saturating_add_signed(by).min(table.len() - 1);
        table.level(t)
    }

    /// One row for each transition. `row` also gets whether the transition is the last.
    pub(super) fn map_with_last<T>(&self, row: impl Fn(&Transition, bool) -> T) -> Vec<T> {
        let last = self.transitions.len() - 1;
        self.transitions
            .iter()
            .enumerate()
            .map(|(i, transition)| row(transition, i == last))
            .collect()
    }

    /// The levels of a training schedule.
    ///
    /// # Errors
    /// When a timestep lies beyond the schedule, or no timestep is left to visit.
    pub(super) fn discrete(
        schedule: &DiscreteSchedule,
        path: LevelPath,
        steps: usize,
        eta: f64,
    ) -> Result<Self> {
        let table = schedule.table()?;
        let (transitions, clip) = match path {
            LevelPath::DdimStride => (strides(schedule, &table, steps, true)?, schedule.clip()),
            LevelPath::Pndm => {
                if !schedule.skip_prk_steps && steps < 4 {
                    return Err(Error::usage(format!(
                        "pndm starts with three Runge-Kutta steps, so it takes at least 4, not \
                         {steps}; take more, or a schedule with skip_prk_steps"
                    )));
                }
                (strides(schedule, &table, steps, false)?, Clip::None)
            }
            LevelPath::Ancestral | LevelPath::VisitedTimesteps => {
                (markov(schedule, &table, steps)?, schedule.clip())
            }
            LevelPath::VarianceExploding => {
                (sigmas(schedule, &table, steps, schedule.sigma_spacing), Clip::None)
            }
            LevelPath::VarianceExplodingMidpoint => {
                let mut transitions = sigmas(schedule, &table, steps, schedule.sigma_spacing);
                if schedule.sigma_spacing == SigmaSpacing::Karras {
                    transitions.iter_mut().for_each(|transition| {
                        transition.scaling.t = transition.scaling.t.round_ties_even()
                    });
                }
                (transitions, Clip::None)
            }
            LevelPath::VarianceExplodingClipped => {
                let clip = match schedule.clip_where_asked() {
                    clip @ Clip::Range(_) => clip,
                    _ => Clip::None,
                };
                (sigmas(schedule, &table, steps, schedule.sigma_spacing), clip)
            }
            LevelPath::GeometricSigmas => {
                (sigmas(schedule, &table, steps, SigmaSpacing::Exponential), Clip::None)
            }
            LevelPath::DpmSolver
            | LevelPath::UniPc
            | LevelPath::Deis
            | LevelPath::DpmSolverSinglestep => {
                let clip = match schedule.clip() {
                    clip @ Clip::Threshold { .. }
                        if path != LevelPath::UniPc || !schedule.predicts_noise =>
                    {
                        clip
                    }
                    _ => Clip::None,
                };
                (solver(schedule, &table, path, steps)?, clip)
            }
            LevelPath::Lcm => {
                (consistency(schedule, &table, path, steps, eta)?, schedule.clip_where_asked())
            }
            LevelPath::Tcd => (consistency(schedule, &table, path, steps, eta)?, Clip::None),
        };
        let unclipped_direction = clip != Clip::None && !schedule.clips_direction;
        Ok(Self {
            transitions,
            clip,
            unclipped_direction,
            settings: schedule.clone(),
            table: Some(table),
            steps,
            skipped: 0,
        })
    }

    /// The levels of a range of sigma.
    pub(super) fn ve(schedule: &SigmaSchedule, path: LevelPath, steps: usize, eta: f64) -> Self {
        let sigmas = match path {
            LevelPath::GeometricSigmas => {
                exponential(schedule.sigma_min, schedule.sigma_max, steps)
            }
            _ => karras(schedule.sigma_min, schedule.sigma_max, steps, schedule.rho),
        };
        let levels: Vec<Level> = sigmas.into_iter().map(Level::ve).collect();
        let transition = |i: usize| {
            let (from, to) = (levels[i], levels.get(i + 1).copied().unwrap_or(Level::CLEAN));
            let transition = Transition::new(from, schedule.prediction.scaling(from, f64::NAN), to);
            // Eta is the fraction of the noise that is fresh (Kim et al. 2024, CTM, algorithm 3).
            let kept = if path == LevelPath::Tcd { (1.0 - eta * eta).sqrt() } else { 1.0 };
            Transition { intermediate: Level { noise: kept * to.noise, ..to }, ..transition }
        };
        let transitions = (0..levels.len()).map(transition).collect();
        let settings =
            DiscreteSchedule { prediction: schedule.prediction, ..DiscreteSchedule::default() };
        Self {
            transitions,
            clip: Clip::None,
            unclipped_direction: false,
            settings,
            table: None,
            steps,
            skipped: 0,
        }
    }
}

/// `ends_at_clean` is the default for schedules that do not set it.
fn strides(
    schedule: &DiscreteSchedule,
    table: &NoiseTable,
    steps: usize,
    ends_at_clean: bool,
) -> Result<Vec<Transition>> {
    let spacing = schedule.spacing.unwrap_or(Spacing::Leading);
    let stride = schedule.train_steps / steps;
    let ends_at_clean = schedule.set_alpha_to_one.unwrap_or(ends_at_clean);
    let last = if ends_at_clean { Level::CLEAN } else { schedule.level(table, 0)? };
    let timesteps = markov_timesteps(spacing, schedule.train_steps, steps, schedule.steps_offset);
    let transitions = timesteps.into_iter().map(|t| {
        let from = schedule.level(table, t)?;
        let to = if t >= stride { schedule.level(table, t - stride)? } else { last };
        Ok(Transition {
            is_first: t == 0,
            ..Transition::new(from, schedule.prediction.scaling(from, t as f64), to)
        })
    });
    transitions.collect()
}

fn markov(
    schedule: &DiscreteSchedule,
    table: &NoiseTable,
    steps: usize,
) -> Result<Vec<Transition>> {
    let spacing = schedule.spacing.unwrap_or(Spacing::Leading);
    let timesteps = markov_timesteps(spacing, schedule.train_steps, steps, schedule.steps_offset);
    let transitions = timesteps.iter().enumerate().map(|(i, &t)| {
        let from = schedule.level(table, t)?;
        let to =
            timesteps.get(i + 1).map_or(Ok(Level::CLEAN), |&next| schedule.level(table, next))?;
        Ok(Transition {
            is_first: t == 0,
            ..Transition::new(from, schedule.prediction.scaling(from, t as f64), to)
        })
    });
    transitions.collect()
}

fn sigmas(
    schedule: &DiscreteSchedule,
    table: &NoiseTable,
    steps: usize,
    spacing: SigmaSpacing,
) -> Vec<Transition> {
    let table = table.sigmas();
    let timesteps = schedule.spacing.unwrap_or(Spacing::Linspace);
    let timesteps = euler_timesteps(timesteps, schedule.train_steps, steps, schedule.steps_offset);
    let sigmas: Vec<f64> = timesteps.iter().map(|&t| sigma_at(&table, t)).collect();
    let (min, max) = schedule.sigma_range(sigmas[steps - 1], sigmas[0]);
    let points_of = |sigmas: Vec<f64>| {
        let timestep = TimestepOf::new(&table);
        sigmas.into_iter().map(|sigma| (timestep.sigma(sigma), sigma)).collect()
    };
    let points: Vec<(f64, f64)> = match spacing {
        SigmaSpacing::Timesteps => timesteps.into_iter().zip(sigmas).collect(),
        SigmaSpacing::Karras => points_of(karras(min, max, steps, KARRAS_RHO)),
        // Flow sigmas are of another path.
        SigmaSpacing::Flow => Vec::new(),
        SigmaSpacing::Exponential => points_of(exponential(min, max, steps)),
    };
    joined(
        &points,
        schedule.final_sigma(&table),
        |from, t| schedule.prediction.scaling(from, t),
        Level::ve,
    )
}

fn solver(
    schedule: &DiscreteSchedule,
    table: &NoiseTable,
    path: LevelPath,
    steps: usize,
) -> Result<Vec<Transition>> {
    if schedule.is_flow() {
        return Ok(flow(schedule, steps));
    }
    let sigmas = table.sigmas();
    let points = solver_points(schedule, &sigmas, path, steps)?;
    let last = match schedule.sigma_spacing {
        SigmaSpacing::Timesteps => sigmas[0],
        _ => points.last().map_or(sigmas[0], |point| point.1),
    };
    let end = match (path, schedule.final_sigma) {
        (LevelPath::Deis, _) | (LevelPath::UniPc, FinalSigma::SigmaMin) => last,
        _ => schedule.final_sigma(&sigmas),
    };
    Ok(joined(&points, end, |from, t| schedule.prediction.scaling(from, t), Level::vp_from_sigma))
}

/// The transitions on straight paths. Of sigmas that go evenly from the largest of training to 0
/// and are shifted, the last is where the last step ends. Timesteps are truncated, as in diffusers.
fn flow(schedule: &DiscreteSchedule, steps: usize) -> Vec<Transition> {
    let (train_steps, shift) = (schedule.train_steps as f64, schedule.flow_shift);
    let largest = 1.0 - 1.0 / train_steps;
    let point = |i: usize| {
        let sigma = largest * (steps - i) as f64 / steps as f64;
        let sigma = shift * sigma / (1.0 + (shift - 1.0) * sigma);
        // diffusers has sigmas in f32.
        ((sigma * train_steps).trunc(), f64::from(sigma as f32))
    };
    let points: Vec<(f64, f64)> = (0..steps).map(point).collect();
    let scaling = |from: Level, t: f64| Scaling { t, ..schedule.prediction.scaling(from, t) };
    joined(&points, 0.0, scaling, |sigma| Level { signal: 1.0 - sigma, noise: sigma })
}

/// The transitions between timesteps with their sigmas, and from the last one to the sigma `end`.
fn joined(
    points: &[(f64, f64)],
    end: f64,
    scaling: impl Fn(Level, f64) -> Scaling,
    level: fn(f64) -> Level,
) -> Vec<Transition> {
    let transitions = points.iter().enumerate().map(|(i, &(t, sigma))| {
        let from = level(sigma);
        Transition::new(
            from,
            scaling(from, t),
            level(points.get(i + 1).map_or(end, |&(_, next)| next)),
        )
    });
    transitions.collect()
}

/// The visited timesteps and sigmas. Timesteps are integers: as in diffusers, Karras timesteps are
/// rounded, except on the cosine schedule, and all others are truncated.
fn solver_points(
    schedule: &DiscreteSchedule,
    sigmas: &[f64],
    path: LevelPath,
    steps: usize,
) -> Result<Vec<(f64, f64)>> {
    let (min, max) = schedule.sigma_range(sigmas[0], sigmas[sigmas.len() - 1]);
    let points_of = |values: Vec<f64>, whole: fn(f64) -> f64| {
        let timestep = TimestepOf::new(sigmas);
        values.into_iter().map(|sigma| (whole(timestep.sigma(sigma)), sigma)).collect()
    };
    let points: Vec<(f64, f64)> = match schedule.sigma_spacing {
        SigmaSpacing::Karras => {
            let is_cosine =
                path == LevelPath::DpmSolver && schedule.betas == BetaSchedule::SquaredCosCapV2;
            points_of(
                karras(min, max, steps, KARRAS_RHO),
                if is_cosine { f64::trunc } else { f64::round_ties_even },
            )
        }
        SigmaSpacing::Exponential => points_of(exponential(min, max, steps), f64::trunc),
        // See `flow`.
        SigmaSpacing::Flow => Vec::new(),
        SigmaSpacing::Timesteps => {
            // Timesteps with lambda = -ln(sigma) below lambda_min_clipped are not visited.
            let lambda_min = match path {
                LevelPath::DpmSolver | LevelPath::DpmSolverSinglestep => {
                    schedule.lambda_min_clipped
                }
                _ => f64::NEG_INFINITY,
            };
            let noisier = sigmas.iter().filter(|sigma| -sigma.ln() < lambda_min).count();
            let last = schedule.train_steps - noisier;
            if last == 0 {
                return Err(Error::model(
                    &schedule.name,
                    "lambda_min_clipped leaves no timestep; lower it",
                ));
            }
            let spacing = match path {
                LevelPath::DpmSolverSinglestep => Spacing::Linspace,
                _ => schedule.spacing.unwrap_or(Spacing::Linspace),
            };
            if spacing == Spacing::Leading && last <= steps {
                return Err(Error::usage(format!(
                    "a solver with leading timesteps goes down {last} timesteps in at most {} \
                     steps, not {steps}",
                    last - 1
                )));
            }
            let timesteps =
                solver_timesteps(spacing, schedule.train_steps, last, steps, schedule.steps_offset);
            timesteps.into_iter().map(|t| (t as f64, sigma_at(sigmas, t as f64))).collect()
        }
    };
    Ok(points)
}

/// The standard deviation of the data in the boundary condition of consistency models (Luo et al.
/// 2023, appendix C).
const SIGMA_DATA: f64 = 0.5;

fn consistency(
    schedule: &DiscreteSchedule,
    table: &NoiseTable,
    path: LevelPath,
    steps: usize,
    eta: f64,
) -> Result<Vec<Transition>> {
    let distilled = schedule.original_inference_steps;
    let used = schedule.original_steps_limit.unwrap_or(distilled).min(distilled);
    if steps > used {
        return Err(Error::usage(format!(
            "{steps} steps were requested of {used} that were distilled \
             (original_inference_steps); take at most as many"
        )));
    }
    if distilled > schedule.train_steps {
        return Err(schedule.error(format!(
            "its original_inference_steps are {distilled}, of {} timesteps of training \
             (num_train_timesteps); expected at most as many",
            schedule.train_steps
        )));
    }
    let timesteps = consistency_timesteps(schedule.train_steps, distilled, used, steps);
    let transitions = timesteps.iter().enumerate().map(|(i, &t)| {
        let next = timesteps.get(i + 1).copied();
        let from = schedule.level(table, t)?;
        let scaling = schedule.prediction.scaling(from, t as f64);
        if path == LevelPath::Lcm {
            let to = next.map_or(Ok(Level::CLEAN), |next| schedule.level(table, next))?;
            let boundary = t as f64 * schedule.timestep_scaling / SIGMA_DATA;
            return Ok(Transition { boundary, ..Transition::new(from, scaling, to) });
        }
        let next = next.unwrap_or(0);
        // In f32, as in diffusers: the rounding sometimes changes the result.
        let below = ((1.0 - eta) as f32 * next as f32).floor() as usize;
        Ok(Transition {
            intermediate: schedule.level(table, below)?,
            ..Transition::new(from, scaling, schedule.level(table, next)?)
        })
    });
    transitions.collect()
}
