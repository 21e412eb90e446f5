//! The rows that samplers are made of: one step between two levels, for states of either kind.
//!
//! Written with `x = signal * x0 + noise * n`, the formulas of variance-preserving papers hold for
//! variance-exploding states too, and stay finite at pure noise.

use crate::diffusion::parameterization::Scaling;
use crate::diffusion::plan::{Level, Step};

/// How much noise DDPM's reverse step adds (Ho et al. 2020, section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variance {
    /// The posterior's, right for data that is a point.
    #[default]
    FixedSmall,
    /// The forward step's, right for data that is standard normal.
    FixedLarge,
}

/// How DPM-Solver++ extrapolates (Lu et al. 2022, appendix B).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SolverType {
    /// With the exponential's integral halved, equation 14.
    #[default]
    Midpoint,
    /// With the exponential's first moment.
    Heun,
}

/// A DDIM step (Song et al. 2021, equations 12 and 16). With `eta = 0` it is also Euler's step on the probability flow
/// and the first-order step of DPM-Solver++.
///
/// `is_clipped` says whether predictions are clipped; the direction towards `x` is then taken from the unclipped one.
pub fn ddim(from: Level, scaling: Scaling, to: Level, eta: f64, is_clipped: bool) -> Step {
    let d = eta * to.noise / from.noise * forward_variance(from, to).sqrt();
    let direction = (to.noise * to.noise - d * d).max(0.0).sqrt() / from.noise;
    let (b, e) = (to.signal, -direction * from.signal);
    let (b, e) = if is_clipped { (b, e) } else { (b + e, 0.0) };
    row(from, scaling, Update { a: direction, b, c: 0.0, d, e })
}

/// DDPM's ancestral step (Ho et al. 2020, equation 7 and section 3.2).
pub fn ddpm(from: Level, scaling: Scaling, to: Level, variance: Variance) -> Step {
    let forward = forward_variance(from, to);
    let total = from.noise * from.noise;
    let kept = to.noise * to.noise / total;
    let d = match variance {
        Variance::FixedSmall => (kept * forward).sqrt(),
        Variance::FixedLarge => forward.sqrt(),
    };
    let update = Update { a: from.signal / to.signal * kept, b: to.signal * forward / total, c: 0.0, d, e: 0.0 };
    row(from, scaling, update)
}

/// The second-order step of DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), where `before` is the level of the row before.
pub fn dpmpp_2m(before: Level, from: Level, scaling: Scaling, to: Level, solver: SolverType) -> Step {
    let a = to.noise / from.noise;
    // `alpha_t * (1 - exp(-h))`, with `exp(-h)` the ratio of the two sigmas.
    let first = to.signal - a * from.signal;
    let h = (from.sigma() / to.sigma()).ln();
    let h_before = (before.sigma() / from.sigma()).ln();
    let moment = match solver {
        SolverType::Midpoint => 0.5 * first,
        // A step that goes nowhere has nothing to extrapolate.
        SolverType::Heun if h == 0.0 => 0.0,
        SolverType::Heun => to.signal - first / h,
    };
    // Two rows at one level say nothing about the slope.
    let second = if h_before == 0.0 { 0.0 } else { moment * h / h_before };
    row(from, scaling, Update { a, b: first + second, c: -second, d: 0.0, e: 0.0 })
}

/// The variance that the forward process adds between two levels, in units of the noisier one: `beta` when they are
/// variance-preserving neighbours.
fn forward_variance(from: Level, to: Level) -> f64 {
    let ratio = from.signal / to.signal;
    (from.noise * from.noise - ratio * ratio * to.noise * to.noise).max(0.0)
}

struct Update {
    a: f64,
    b: f64,
    c: f64,
    d: f64,
    e: f64,
}

fn row(level: Level, scaling: Scaling, Update { a, b, c, d, e }: Update) -> Step {
    let Scaling { c_in, c_skip, c_out, t } = scaling;
    Step { t, level, c_in, c_skip, c_out, a, b, c, d, e }
}

#[cfg(test)]
mod tests {
    use super::{Level, Scaling, SolverType, Step, Variance, ddim, ddpm, dpmpp_2m};

    const SCALING: Scaling = Scaling { c_in: 1.0, c_skip: 0.0, c_out: 1.0, t: 0.0 };

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    fn levels() -> [(Level, Level); 2] {
        let of = |f: &dyn Fn(f64) -> Level| (f(3.0), f(0.4));
        [of(&Level::exploding), of(&Level::preserving_from_sigma)]
    }

    #[test]
    fn a_row_keeps_the_marginal_of_the_next_level() {
        // With a perfect D = x0, signal and noise after the step are those of the next level.
        for (from, to) in levels() {
            let check = |row: Step| {
                near(row.a * from.signal + row.b + row.c + row.e, to.signal);
                near((row.a * from.noise).hypot(row.d), to.noise);
            };
            for eta in [0.0, 0.3, 1.0] {
                check(ddim(from, SCALING, to, eta, false));
                check(ddim(from, SCALING, to, eta, true));
            }
            check(ddpm(from, SCALING, to, Variance::FixedSmall));
            for solver in [SolverType::Midpoint, SolverType::Heun] {
                let before = Level { noise: from.noise * 2.0, ..from };
                check(dpmpp_2m(before, from, SCALING, to, solver));
            }
        }
    }

    #[test]
    fn ddim_with_eta_one_is_ddpm() {
        for (from, to) in levels() {
            let (full, ancestral) =
                (ddim(from, SCALING, to, 1.0, false), ddpm(from, SCALING, to, Variance::FixedSmall));
            near(full.a, ancestral.a);
            near(full.b, ancestral.b);
            near(full.d, ancestral.d);
        }
    }

    #[test]
    fn the_large_variance_is_the_forward_one() {
        let (from, to) = (Level::preserving(0.5), Level::preserving(0.55));
        near(ddpm(from, SCALING, to, Variance::FixedLarge).d, (1.0_f64 - 0.5 / 0.55).sqrt());
    }

    #[test]
    fn no_step_at_all_is_the_identity() {
        let level = Level::preserving_from_sigma(0.7);
        let before = Level::preserving_from_sigma(1.7);
        for solver in [SolverType::Midpoint, SolverType::Heun] {
            let row = dpmpp_2m(before, level, SCALING, level, solver);
            assert_eq!(dpmpp_2m(level, level, SCALING, before, solver).c, 0.0);
            near(row.a, 1.0);
            near(row.b, 0.0);
            near(row.c, 0.0);
        }
    }
}
