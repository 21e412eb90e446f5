//! DEIS: exponential integrators of the probability flow.

use super::multistep::Lagged;
use super::{Definition, LevelPath, Levels, Sampler};
use crate::diffusion::plan::HistoryValue;

impl Sampler {
    /// `deis`: the diffusion exponential integrator sampler in `ln(rho)`, of `solver_order` 1 to 3.
    pub const DEIS: Self = Self(&Definition {
        name: "deis",
        class: Some("DEISMultistepScheduler"),
        paper: "Zhang and Chen 2023, section 3.3, log-rho; as in diffusers",
        path: LevelPath::Deis,
        eta: None,
        rows: |path_levels, _| {
            let orders = path_levels
                .orders(path_levels.settings.solver_order, path_levels.lowers_last_of_few());
            let rows = path_levels.transitions.iter().zip(orders).enumerate().map(
                |(i, (transition, order))| {
                    let of = std::array::from_fn(|j| {
                        if j < order {
                            transition.to.signal * factor(path_levels, i, j, order)
                        } else {
                            0.0
                        }
                    });
                    Lagged {
                        transition: *transition,
                        value: HistoryValue::Noise,
                        x: transition.to.signal / transition.from.signal,
                        of,
                        d: 0.0,
                    }
                },
            );
            Lagged::table(&rows.collect::<Vec<_>>())
        },
    });
}

/// The integral over step `i`, in sigma, of the Lagrange polynomial in `ln(sigma)` of degree
/// `order - 1` that is 1 at the level of step `i - j`.
fn factor(path_levels: &Levels, i: usize, j: usize, order: usize) -> f64 {
    let sigma = |lag: usize| path_levels.transitions[i - lag].from.sigma();
    let (from, to) = (sigma(0), path_levels.transitions[i].to.sigma());
    // Relative to `from`: the polynomial is `sum p[k] * ln(s / from)^k`.
    let log = |lag: usize| (sigma(lag) / from).ln();
    let mut p = [1.0, 0.0, 0.0];
    for k in (0..order).filter(|k| *k != j) {
        let scale = 1.0 / (log(j) - log(k));
        p = [-log(k) * p[0], p[0] - log(k) * p[1], p[1] - log(k) * p[2]]
            .map(|factor| factor * scale);
    }
    // The integrals of 1, `l` and `l^2` over s from `from` to `to`, by parts.
    let ratio = to / from;
    let l = if order > 1 { ratio.ln() } else { 0.0 };
    let zeroth = ratio - 1.0;
    let first = ratio * l - zeroth;
    let second = ratio * l * l - 2.0 * first;
    from * (p[0] * zeroth + p[1] * first + p[2] * second)
}
