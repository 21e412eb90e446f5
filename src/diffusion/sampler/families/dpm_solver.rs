//! DPM-Solver++ (Lu et al. 2022).

use super::multistep::{LAGS, Lagged, lambda, moments, ratio, second_order};
use super::{Definition, LevelPath, Sampler, rows};
use crate::diffusion::plan::{HistoryValue, Level};

impl Sampler {
    /// `dpmpp-2m`: second-order multistep DPM-Solver++.
    pub const DPMPP_2M: Self = Self(&Definition {
        name: "dpmpp-2m",
        class: Some("DPMSolverMultistepScheduler"),
        paper: "Lu et al. 2022, algorithm 2",
        path: LevelPath::DpmSolver,
        eta: None,
        rows: |path_levels, _| {
            path_levels.each_after(|before, transition| match before {
                Some(before) => {
                    rows::dpmpp_2m(before.from, transition, path_levels.settings.solver_type)
                }
                None => rows::ddim(transition, 0.0, false),
            })
        },
    });

    /// `dpmpp-2m-sde`: second-order multistep DPM-Solver++ for the reverse SDE. Stochastic.
    pub const DPMPP_2M_SDE: Self = Self(&Definition {
        name: "dpmpp-2m-sde",
        class: Some("DPMSolverMultistepScheduler"),
        paper: "Lu et al. 2022, appendix D; SDE-DPM-Solver++(2M)",
        path: LevelPath::DpmSolver,
        eta: None,
        rows: |path_levels, _| {
            let solver = path_levels.settings.solver_type;
            path_levels.each_after(|before, transition| {
                rows::dpmpp_2m_sde(before.map(|before| before.from), transition, solver)
            })
        },
    });

    /// `dpmpp-3m`: third-order multistep DPM-Solver++.
    pub const DPMPP_3M: Self = Self(&Definition {
        name: "dpmpp-3m",
        class: Some("DPMSolverMultistepScheduler"),
        paper: "Lu et al. 2022, appendix B; as in diffusers",
        path: LevelPath::DpmSolver,
        eta: None,
        rows: |path_levels, _| {
            let rows = path_levels
                .transitions
                .iter()
                .zip(path_levels.solver_orders(3))
                .enumerate()
                .map(|(i, (transition, order))| {
                    let before = |lag: usize| path_levels.transitions[i - lag].from;
                    let of = match order {
                        1 => [moments(transition.from, transition.to)[0], 0.0, 0.0, 0.0],
                        2 => {
                            let solver = path_levels.settings.solver_type;
                            let [now, then] =
                                second_order(before(1), transition.from, transition.to, solver);
                            [now, then, 0.0, 0.0]
                        }
                        _ => third_order([before(2), before(1)], transition.from, transition.to),
                    };
                    Lagged {
                        transition: *transition,
                        value: HistoryValue::Prediction,
                        x: transition.to.noise / transition.from.noise,
                        of,
                        d: 0.0,
                    }
                });
            Lagged::table(&rows.collect::<Vec<_>>())
        },
    });
}

/// Factors of the predictions in a third-order step, from the levels of the two previous steps.
fn third_order([s2, s1]: [Level; 2], from: Level, to: Level) -> [f64; LAGS + 1] {
    let [first, second, third] = moments(from, to);
    let h = lambda(to) - lambda(from);
    let (h0, h1) = (lambda(from) - lambda(s1), lambda(s1) - lambda(s2));
    // Factors of the two divided differences in the slope and in the curvature.
    let (d1, d2) = (ratio(h, h0), ratio(h, h1));
    let (weight, curvature) = (ratio(h0, h0 + h1), ratio(h, h0 + h1));
    let newer = second * (1.0 + weight) + third * curvature;
    let older = -second * weight - third * curvature;
    [first + newer * d1, older * d2 - newer * d1, -older * d2, 0.0]
}
