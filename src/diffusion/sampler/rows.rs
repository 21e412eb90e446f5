//! The building blocks of samplers: single steps between two levels.
//!
//! They are written for `x = signal * x0 + noise * n`, so the formulas of variance-preserving
//! papers also hold for variance-exploding states and stay finite at pure noise.

use super::levels::Transition;
use super::multistep::second_order;
use crate::diffusion::discrete::{SolverType, Variance};
use crate::diffusion::parameterization::Scaling;
use crate::diffusion::plan::{HISTORY_SLOTS, HistoryEntry, HistoryValue, Level, Step};

/// A DDIM step (Song et al. 2021, equations 12 and 16). With `eta = 0` it is also Euler's step on
/// the probability flow and the first-order step of DPM-Solver++. In variance-exploding coordinates
/// with `eta = 1` it is ancestral Euler's step.
///
/// `unclipped` means that predictions are clipped but the direction of the step is taken from the
/// unclipped one.
pub(crate) fn ddim_between(
    from: Level,
    scaling: Scaling,
    to: Level,
    eta: f64,
    unclipped: bool,
) -> Step {
    let d = eta * to.noise / from.noise * from.variance_from(to).sqrt();
    let direction = (to.noise * to.noise - d * d).max(0.0).sqrt() / from.noise;
    let (b, e) = (to.signal, -direction * from.signal);
    let (b, e) = if unclipped { (b, e) } else { (b + e, 0.0) };
    row(from, scaling, Update { a: direction, b, c: 0.0, d, e })
}

pub(super) fn ddim(transition: &Transition, eta: f64, unclipped: bool) -> Step {
    ddim_between(transition.from, transition.scaling, transition.to, eta, unclipped)
}

/// DDPM's ancestral step (Ho et al. 2020, equation 7 and section 3.2).
pub(super) fn ddpm(transition: &Transition, variance: Variance) -> Step {
    let Transition { from, to, .. } = *transition;
    let forward = from.variance_from(to);
    let total = from.noise * from.noise;
    let kept = to.noise * to.noise / total;
    let d = match variance {
        Variance::FixedSmall => (kept * forward).sqrt(),
        Variance::FixedLarge => forward.sqrt(),
    };
    let update = Update {
        a: from.signal / to.signal * kept,
        b: to.signal * forward / total,
        c: 0.0,
        d,
        e: 0.0,
    };
    row(from, transition.scaling, update)
}

/// The second evaluation of Heun's step (Karras et al. 2022, algorithm 1), at the end level of the
/// preceding Euler step: `x' = x + (sigma / sigma' - 1) / 2 * (D - D_prev)`, in variance-exploding
/// coordinates.
pub(super) fn heun(transition: &Transition, next: &Transition) -> Step {
    let half = 0.5 * (transition.from.noise / next.from.noise - 1.0);
    row(next.from, next.scaling, Update { a: 1.0, b: half, c: -half, d: 0.0, e: 0.0 })
}

/// The second-order step of DPM-Solver++(2M) (Lu et al. 2022, algorithm 2). `before` is the level
/// of the previous step.
pub(super) fn dpmpp_2m(before: Level, transition: &Transition, solver: SolverType) -> Step {
    let Transition { from, to, .. } = *transition;
    let [b, c] = second_order(before, from, to, solver);
    row(from, transition.scaling, Update { a: to.noise / from.noise, b, c, d: 0.0, e: 0.0 })
}

/// A step of SDE-DPM-Solver++(2M) (Lu et al. 2022, appendix D), of first order without a level
/// `before`.
pub(super) fn dpmpp_2m_sde(
    before: Option<Level>,
    transition: &Transition,
    solver: SolverType,
) -> Step {
    let Transition { from, to, .. } = *transition;
    let ratio = to.sigma() / from.sigma();
    let h = -ratio.ln();
    // `alpha_t * (1 - exp(-2 h))`.
    let first = to.signal * (1.0 - ratio * ratio);
    let second_order = match solver {
        SolverType::Midpoint => 0.5 * first,
        SolverType::Heun if h == 0.0 => 0.0,
        SolverType::Heun => to.signal - first / (2.0 * h),
    };
    let second = before.map_or(0.0, |before| second_order * slope(before, from, h));
    let d = to.noise * (1.0 - ratio * ratio).max(0.0).sqrt();
    row(
        from,
        transition.scaling,
        Update { a: to.noise / from.noise * ratio, b: first + second, c: -second, d, e: 0.0 },
    )
}

/// The weight of a difference of two predictions over a step of `h` in `-ln(sigma)`; zero for two
/// steps at equal levels.
fn slope(before: Level, from: Level, h: f64) -> f64 {
    let h_before = (before.sigma() / from.sigma()).ln();
    if h_before == 0.0 { 0.0 } else { h / h_before }
}

/// A step of multistep consistency sampling (Song et al. 2023, algorithm 1): predict the clean
/// image, blend it with `x` near the boundary (Luo et al. 2023, equation 9), and add the noise of
/// the next level. The last step adds none.
pub(super) fn consistency(transition: &Transition, is_last: bool) -> Step {
    let norm = transition.boundary.hypot(1.0);
    // The factors of `x` and of `D`: 0 and 1 without a boundary.
    let (c_skip, c_out) =
        (1.0 / (norm * norm), if norm.is_finite() { transition.boundary / norm } else { 1.0 });
    let Level { signal, noise } = if is_last { Level::CLEAN } else { transition.to };
    row(
        transition.from,
        transition.scaling,
        Update { a: signal * c_skip, b: signal * c_out, c: 0.0, d: noise, e: 0.0 },
    )
}

/// A step along the flow to below the next level, then noise up to that level (Zheng et al. 2024,
/// algorithm 4). The last step adds no noise.
pub(super) fn trajectory(transition: &Transition, is_last: bool) -> Step {
    let Transition { intermediate, to, .. } = *transition;
    let row = ddim_between(transition.from, transition.scaling, intermediate, 0.0, false);
    if is_last {
        return row;
    }
    let ratio = to.signal / intermediate.signal;
    Step { a: ratio * row.a, b: ratio * row.b, d: to.variance_from(intermediate).sqrt(), ..row }
}

/// A step of Langevin dynamics within a level (Song and Ermon 2019, algorithm 1): `x' = x + step *
/// score + sqrt(2 step) z`, where `step` is `size` times the level's variance.
pub(super) fn langevin(transition: &Transition, size: f64) -> Step {
    let Level { signal, noise } = transition.from;
    let update =
        Update { a: 1.0 - size, b: size * signal, c: 0.0, d: (2.0 * size).sqrt() * noise, e: 0.0 };
    row(transition.from, transition.scaling, update)
}

/// The step size of `count` Langevin steps that turn the noise of the level above, `ratio` times as
/// strong, into that of the level (Song and Ermon 2020, technique 4). The size minimizes the
/// difference to the level's variance.
pub(super) fn langevin_step_size(ratio: f64, count: usize) -> f64 {
    let off = |size: f64| {
        let kept = (1.0 - size).powi(2 * count as i32);
        // The stationary variance of the dynamics.
        let rest = 2.0 / (2.0 - size);
        (kept * (ratio * ratio - rest) + rest - 1.0).abs()
    };
    let sizes = (1..=1000).map(|i| f64::from(i) / 1000.0);
    sizes.min_by(|one, other| off(*one).total_cmp(&off(*other))).unwrap_or(0.5)
}

/// A reverse diffusion step (Song et al. 2021, score SDE, equation 46): the reverse SDE with the
/// discretization of the forward SDE.
pub(super) fn reverse_diffusion(transition: &Transition) -> Step {
    reverse(transition, 1.0, transition.from.variance_from(transition.to).sqrt())
}

/// A step of the probability flow with the discretization of the forward SDE (equations 47 and 48
/// of that paper).
pub(super) fn probability_flow(transition: &Transition) -> Step {
    reverse(transition, 0.5, 0.0)
}

/// `x' = (2 - sqrt(1 - beta)) x + part * beta * score + d z`. In variance-exploding coordinates the
/// drift is 0 and beta is the difference of the variances.
fn reverse(transition: &Transition, part: f64, d: f64) -> Step {
    let Transition { from, to, .. } = *transition;
    let toward = part * from.variance_from(to) / (from.noise * from.noise);
    let a = 2.0 - from.signal / to.signal - toward;
    row(from, transition.scaling, Update { a, b: toward * from.signal, c: 0.0, d, e: 0.0 })
}

/// The posterior mean: removes all remaining noise in one step.
pub(super) fn denoise(transition: &Transition) -> Step {
    row(transition.from, transition.scaling, Update { a: 0.0, b: 1.0, c: 0.0, d: 0.0, e: 0.0 })
}

struct Update {
    a: f64,
    b: f64,
    c: f64,
    d: f64,
    e: f64,
}

/// Keeps the prediction for the next step. `Plan::pruned` drops
/// values that nothing reads.
fn row(level: Level, scaling: Scaling, Update { a, b, c, d, e }: Update) -> Step {
    let Scaling { c_in, c_skip, c_out, t } = scaling;
    let mut past = [0.0; HISTORY_SLOTS];
    past[0] = c;
    let store = Some(HistoryEntry { slot: 0, value: HistoryValue::Prediction });
    Step { t, level, c_in, c_skip, c_out, a, b, past, d, e, store }
}

#[cfg(test)]
mod tests {
    use super::{
        Level, Scaling, SolverType, Step, Transition, Variance, consistency, ddim, ddpm, dpmpp_2m,
        dpmpp_2m_sde, langevin, langevin_step_size, trajectory,
    };

    const SCALING: Scaling = Scaling { c_in: 1.0, c_skip: 0.0, c_out: 1.0, t: 0.0 };

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    fn between(from: Level, to: Level) -> Transition {
        Transition {
            from,
            scaling: SCALING,
            to,
            intermediate: to,
            is_first: false,
            boundary: f64::INFINITY,
        }
    }

    fn transitions() -> [Transition; 2] {
        let of = |f: &dyn Fn(f64) -> Level| between(f(3.0), f(0.4));
        [of(&Level::ve), of(&Level::vp_from_sigma)]
    }

    #[test]
    fn a_step_ends_with_the_marginals_of_the_next_level() {
        // With a perfect D = x0, signal and noise after the step are those of the next level.
        for transition in transitions() {
            let Transition { from, to, .. } = transition;
            let check = |row: Step| {
                near(row.a * from.signal + row.b + row.past[0] + row.e, to.signal);
                near((row.a * from.noise).hypot(row.d), to.noise);
            };
            for eta in [0.0, 0.3, 1.0] {
                check(ddim(&transition, eta, false));
                check(ddim(&transition, eta, true));
            }
            check(ddpm(&transition, Variance::FixedSmall));
            check(consistency(&transition, false));
            let intermediate = Level { signal: to.signal.hypot(0.0), noise: 0.3 * to.noise };
            check(trajectory(&Transition { intermediate, ..transition }, false));
            for solver in [SolverType::Midpoint, SolverType::Heun] {
                let before = Level { noise: from.noise * 2.0, ..from };
                check(dpmpp_2m(before, &transition, solver));
                check(dpmpp_2m_sde(Some(before), &transition, solver));
                check(dpmpp_2m_sde(None, &transition, solver));
            }
        }
    }

    #[test]
    fn ddim_with_eta_one_is_ddpm() {
        for transition in transitions() {
            let (full, ancestral) =
                (ddim(&transition, 1.0, false), ddpm(&transition, Variance::FixedSmall));
            near(full.a, ancestral.a);
            near(full.b, ancestral.b);
            near(full.d, ancestral.d);
        }
    }

    #[test]
    fn fixed_large_is_the_forward_variance() {
        let transition = between(Level::vp(0.5), Level::vp(0.55));
        near(ddpm(&transition, Variance::FixedLarge).d, (1.0_f64 - 0.5 / 0.55).sqrt());
    }

    #[test]
    fn a_step_between_equal_levels_is_the_identity() {
        let level = Level::vp_from_sigma(0.7);
        let before = Level::vp_from_sigma(1.7);
        for solver in [SolverType::Midpoint, SolverType::Heun] {
            for row in [
                dpmpp_2m(before, &between(level, level), solver),
                dpmpp_2m_sde(Some(before), &between(level, level), solver),
            ] {
                near(row.a, 1.0);
                near(row.b, 0.0);
                near(row.past[0], 0.0);
                near(row.d, 0.0);
            }
            assert_eq!(dpmpp_2m(level, &between(level, before), solver).past[0], 0.0);
        }
    }

    #[test]
    fn langevin_steps_reach_the_variance_of_the_next_level() {
        for (ratio, count) in [(1.05, 5), (1.3, 5), (1.3, 100)] {
            let size = langevin_step_size(ratio, count);
            let transition = between(Level::ve(2.0), Level::CLEAN);
            let row = langevin(&transition, size);
            // For data at a single point, D is that point.
            let variance =
                (0..count).fold((2.0 * ratio).powi(2), |v, _| row.a * row.a * v + row.d * row.d);
            assert!((variance / 4.0 - 1.0).abs() < 0.2, "{ratio} in {count}: {variance}");
        }
    }
}
