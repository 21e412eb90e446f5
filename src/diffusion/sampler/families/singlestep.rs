//! Single-step DPM-Solver++: each step takes one to three evaluations and uses nothing of the step
//! before.

use super::multistep::{LAGS, Lagged, lambda, moment, moments};
use super::{Definition, LevelPath, Levels, Sampler};
use crate::diffusion::discrete::{FinalSigma, SolverType};
use crate::diffusion::plan::{HistoryValue, Level};

impl Sampler {
    /// `dpmpp-single`: single-step DPM-Solver++ of `solver_order` 1 to 3. One evaluation counts as
    /// one step.
    pub const DPMPP_SINGLE: Self = Self(&Definition {
        name: "dpmpp-single",
        class: Some("DPMSolverSinglestepScheduler"),
        paper: "Lu et al. 2022, algorithm 1 and appendix B; as in diffusers",
        path: LevelPath::DpmSolverSinglestep,
        eta: None,
        rows: |path_levels, _| {
            // The sum of the predictions' contributions since the start of the solver step, this
            // row's first. The rest of a state is the state at the start times the ratio of noise,
            // so the start can be computed from the previous row's end.
            let mut added = [0.0; LAGS + 1];
            let rows = path_levels.transitions.iter().enumerate().zip(orders(path_levels)).map(
                |((i, transition), order)| {
                    let of = factors(path_levels, i, order);
                    let ratio = transition.to.noise / transition.from.noise;
                    if order == 1 {
                        added = [0.0; LAGS + 1];
                    }
                    let from_here = std::array::from_fn(|j| {
                        of[j] - if j > 0 { ratio * added[j - 1] } else { 0.0 }
                    });
                    added = of;
                    Lagged {
                        transition: *transition,
                        value: HistoryValue::Prediction,
                        x: ratio,
                        of: from_here,
                        d: 0.0,
                    }
                },
            );
            Lagged::table(&rows.collect::<Vec<_>>())
        },
    });
}

/// Factors of the predictions in a solver step that ends with row `i` and started `order - 1` rows
/// earlier.
fn factors(path_levels: &Levels, i: usize, order: usize) -> [f64; LAGS + 1] {
    let (here, to) = (path_levels.transitions[i].from, path_levels.transitions[i].to);
    let before = |lag: usize| path_levels.transitions[i - lag].from;
    let solver = path_levels.settings.solver_type;
    let from_start = |start: Level, level: Level| lambda(level) - lambda(start);
    let start = before(order - 1);
    let [first, second, third] = moments(start, to);
    let h = from_start(start, to);
    match order {
        1 => [first, 0.0, 0.0, 0.0],
        2 => {
            let slope = moment(start, to, solver) * h / from_start(start, here);
            [slope, first - slope, 0.0, 0.0]
        }
        _ => {
            let (r0, r1) = (from_start(start, here) / h, from_start(start, before(1)) / h);
            // Factors of the divided differences: from the start to the previous row, and from the
            // start to this row.
            let (of_middle, of_here) = match solver {
                SolverType::Midpoint => (0.0, second),
                SolverType::Heun => {
                    let (slope, curvature) = (second / (r0 - r1), 2.0 * third / (r0 - r1));
                    (slope * r0 - curvature, curvature - slope * r1)
                }
            };
            let (middle, here) = (of_middle / r1, of_here / r0);
            [here, middle, first - here - middle, 0.0]
        }
    }
}

/// For each row, its position within its solver step, from 1: the order of its formula.
fn orders(path_levels: &Levels) -> Vec<usize> {
    let (count, order) = (path_levels.transitions.len(), path_levels.settings.solver_order);
    let ends_clean = path_levels.settings.final_sigma == FinalSigma::Zero;
    let ends_low = path_levels.settings.lower_order_final.unwrap_or(false)
        || !count.is_multiple_of(order)
        || ends_clean;
    let mut orders: Vec<usize> = (0..count).map(|i| i % order + 1).collect();
    // The last solver step is of lower order, in the remaining rows.
    if ends_low && count.is_multiple_of(order) {
        orders[count - 1] = 1;
    }
    if ends_clean {
        orders[count - 1] = 1;
    }
    orders
}
