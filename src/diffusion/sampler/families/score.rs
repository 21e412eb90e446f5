//! Score networks' own samplers.

use super::{Definition, Sampler, Walk, rows};
use crate::diffusion::plan::Level;

impl Sampler {
    /// `langevin`: annealed Langevin dynamics of NCSN: five evaluations a level, whose step size follows from the ratio of the
    /// levels, and one more, which takes out the noise that is left.
    pub const LANGEVIN: Self = Self(&Definition {
        name: "langevin",
        class: None,
        paper: "Song and Ermon 2019, algorithm 1; 2020, technique 4 (the step size); Jolicoeur-Martineau et al. 2021 (the last step)",
        walk: Walk::Geometric,
        eta: None,
        rows: |descent, _| {
            const EVALUATIONS: usize = 5;
            let levels = descent.spans.iter().enumerate().flat_map(|(i, span)| {
                // From the level above; the first has none, and is as far from the second.
                let above = descent.spans[i.max(1) - 1].from;
                let below = descent.spans.get(i.max(1)).map_or(span.from, |span| span.from);
                let size = rows::langevin_size(above.sigma() / below.sigma(), EVALUATIONS);
                std::iter::repeat_n(rows::langevin(span, size), EVALUATIONS)
            });
            levels.chain(descent.spans.last().map(rows::denoise)).collect()
        },
    });

    /// `pc`: predictor and corrector for the SDE that the levels are of: reverse diffusion, and before each of its steps one of
    /// Langevin dynamics; the last takes out the noise that is left. Two evaluations a step.
    ///
    /// The corrector's size is `2 alpha (r |z| / |score|)^2` with `alpha = 1 - beta`, 1 for variance-exploding levels; `|z| / |score|` is taken
    /// to be the level's noise, which it is in expectation where the network is right.
    pub const PC: Self = Self(&Definition {
        name: "pc",
        class: None,
        paper: "Song et al. 2021 (score SDE), algorithms 2 to 5, equation 46",
        walk: Walk::Ancestral,
        eta: None,
        rows: |descent, _| {
            /// The paper's signal-to-noise ratio r.
            const RATIO: f64 = 0.16;
            let pairs = descent.spans.iter().flat_map(|span| {
                let predicted =
                    if span.to == Level::CLEAN { rows::denoise(span) } else { rows::reverse_diffusion(span) };
                let alpha = (span.from.signal / span.to.signal).powi(2);
                [rows::langevin(span, 2.0 * alpha * RATIO * RATIO), predicted]
            });
            pairs.collect()
        },
    });

    /// `ode`: the probability flow in the paper's own discretisation; the last step takes out the noise that is left. The
    /// likelihood that it also gives is not computed.
    pub const ODE: Self = Self(&Definition {
        name: "ode",
        class: None,
        paper: "Song et al. 2021 (score SDE), equations 47 and 48",
        walk: Walk::Markov,
        eta: None,
        rows: |descent, _| {
            descent.each(
                |span| {
                    if span.to == Level::CLEAN { rows::denoise(span) } else { rows::probability_flow(span) }
                },
            )
        },
    });
}
