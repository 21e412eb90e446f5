//! DPM-Solver-2 in sigma, as in k-diffusion: a step uses the slope at the midpoint of `ln(sigma)`.

use super::multistep::row_of;
use super::{Definition, LevelPath, Levels, Sampler, rows};
use crate::diffusion::plan::{HistoryValue, Level, Step};

impl Sampler {
    /// `kdpm2`: DPM-Solver-2, of second order. Two evaluations per step, one in the last.
    pub const KDPM2: Self = Self(&Definition {
        name: "kdpm2",
        class: Some("KDPM2DiscreteScheduler"),
        paper: "Lu et al. 2022, DPM-Solver, algorithm 1; Karras et al. 2022, algorithm 2; as in \
                k-diffusion",
        path: LevelPath::VarianceExplodingMidpoint,
        eta: None,
        rows: |path_levels, _| pairs(path_levels, 0.0),
    });

    /// `kdpm2-a`: DPM-Solver-2 to below the next level, then noise up to that level.
    pub const KDPM2_A: Self = Self(&Definition {
        name: "kdpm2-a",
        class: Some("KDPM2AncestralDiscreteScheduler"),
        paper: "as kdpm2; Song et al. 2021 (score SDE), appendix F, for its noise; as in \
                k-diffusion",
        path: LevelPath::VarianceExplodingMidpoint,
        eta: Some(1.0),
        rows: pairs,
    });
}

fn pairs(path_levels: &Levels, eta: f64) -> Vec<Step> {
    let mut table = Vec::new();
    for transition in &path_levels.transitions {
        let (from, to) = (transition.from, transition.to);
        let d = eta * to.noise / from.noise * from.variance_from(to).sqrt();
        let below = (to.noise * to.noise - d * d).max(0.0).sqrt();
        if below == 0.0 {
            table.push(rows::ddim(transition, eta, false));
            continue;
        }
        let middle = Level { noise: (from.noise * below).sqrt(), ..from };
        table.push(rows::ddim_between(from, transition.scaling, middle, 0.0, false));
        // From the start of the step, which is `(x - (1 - ratio) * D_prev) / ratio`.
        let ratio = middle.noise / from.noise;
        let of = [below / middle.noise, (from.noise - below) / middle.noise];
        let mut row = row_of(middle, path_levels.scaling(middle), HistoryValue::Prediction, of);
        row.past[0] = 1.0 - 1.0 / ratio;
        table.push(Step { d, ..row });
    }
    table
}
