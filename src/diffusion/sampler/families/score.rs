//! The samplers of score networks.

use super::{Definition, LevelPath, Sampler, rows};
use crate::diffusion::plan::Level;

impl Sampler {
    /// `langevin`: annealed Langevin dynamics (NCSN). Each level takes five evaluations, whose step
    /// size follows from the ratio of adjacent levels. One more evaluation removes the remaining
    /// noise.
    pub const LANGEVIN: Self = Self(&Definition {
        name: "langevin",
        class: None,
        paper: "Song and Ermon 2019, algorithm 1; 2020, technique 4 (the step size); \
                Jolicoeur-Martineau et al. 2021 (the last step)",
        path: LevelPath::GeometricSigmas,
        eta: None,
        rows: |path_levels, _| {
            const EVALUATIONS: usize = 5;
            let levels = path_levels.transitions.iter().enumerate().flat_map(|(i, transition)| {
                // The ratio to the level above; the first level uses its ratio to the second.
                let above = path_levels.transitions[i.max(1) - 1].from;
                let below = path_levels
                    .transitions
                    .get(i.max(1))
                    .map_or(transition.from, |transition| transition.from);
                let size = rows::langevin_step_size(above.sigma() / below.sigma(), EVALUATIONS);
                std::iter::repeat_n(rows::langevin(transition, size), EVALUATIONS)
            });
            levels.chain(path_levels.transitions.last().map(rows::denoise)).collect()
        },
    });

    /// `pc`: predictor-corrector sampling of the SDE. Each reverse diffusion step follows one step
    /// of Langevin dynamics; the last step removes the remaining noise. Two evaluations per step.
    ///
    /// The corrector's step size is `2 alpha (r |z| / |score|)^2` with `alpha = 1 - beta`, 1 for
    /// variance-exploding levels. `|z| / |score|` is replaced by the level's noise, its expected
    /// value for a perfect network.
    pub const PC: Self = Self(&Definition {
        name: "pc",
        class: None,
        paper: "Song et al. 2021 (score SDE), algorithms 2 to 5, equation 46",
        path: LevelPath::Ancestral,
        eta: None,
        rows: |path_levels, _| {
            /// The paper's signal-to-noise ratio r.
            const RATIO: f64 = 0.16;
            let pairs = path_levels.transitions.iter().flat_map(|transition| {
                let predicted = if transition.to == Level::CLEAN {
                    rows::denoise(transition)
                } else {
                    rows::reverse_diffusion(transition)
                };
                let alpha = (transition.from.signal / transition.to.signal).powi(2);
                [rows::langevin(transition, 2.0 * alpha * RATIO * RATIO), predicted]
            });
            pairs.collect()
        },
    });

    /// `ode`: the probability flow in the paper's own discretization. The last step removes the
    /// remaining noise. The likelihood is not computed.
    pub const ODE: Self = Self(&Definition {
        name: "ode",
        class: None,
        paper: "Song et al. 2021 (score SDE), equations 47 and 48",
        path: LevelPath::VisitedTimesteps,
        eta: None,
        rows: |path_levels, _| {
            path_levels.each(|transition| {
                if transition.to == Level::CLEAN {
                    rows::denoise(transition)
                } else {
                    rows::probability_flow(transition)
                }
            })
        },
    });
}
