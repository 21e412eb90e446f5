//! The Adams-Bashforth linear multistep method in sigma.

use super::multistep::{LAGS, Lagged};
use super::{Definition, LevelPath, Levels, Sampler};
use crate::diffusion::plan::HistoryValue;

impl Sampler {
    /// `lms`: the fourth-order linear multistep method for the probability flow in sigma.
    pub const LMS: Self = Self(&Definition {
        name: "lms",
        class: Some("LMSDiscreteScheduler"),
        paper: "Adams and Bashforth 1883; as in k-diffusion",
        path: LevelPath::VarianceExploding,
        eta: None,
        rows: |path_levels, _| {
            let rows = path_levels.transitions.iter().enumerate().map(|(i, transition)| {
                let order = (i + 1).min(LAGS + 1);
                let of = std::array::from_fn(|j| {
                    if j < order { factor(path_levels, i, j, order) } else { 0.0 }
                });
                Lagged { transition: *transition, value: HistoryValue::Noise, x: 1.0, of, d: 0.0 }
            });
            Lagged::table(&rows.collect::<Vec<_>>())
        },
    });
}

/// The integral over step `i` of the Lagrange polynomial of degree `order - 1` that is 1 at the
/// level of step `i - j`.
fn factor(path_levels: &Levels, i: usize, j: usize, order: usize) -> f64 {
    let sigma = |lag: usize| path_levels.transitions[i - lag].from.noise;
    let polynomial = |at: f64| {
        let others = (0..order).filter(|k| *k != j);
        others.map(|k| (at - sigma(k)) / (sigma(j) - sigma(k))).product::<f64>()
    };
    // The two-point Gauss-Legendre rule, exact up to third degree.
    let (from, to) = (sigma(0), path_levels.transitions[i].to.noise);
    let (middle, half) = (0.5 * (from + to), 0.5 * (to - from));
    let offset = half / 3.0_f64.sqrt();
    half * (polynomial(middle - offset) + polynomial(middle + offset))
}
