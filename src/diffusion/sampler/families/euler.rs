//! Euler's and Heun's methods in sigma.

use super::{Definition, LevelPath, Sampler, rows};

impl Sampler {
    /// `euler`: Euler's method for the probability flow in sigma.
    pub const EULER: Self = Self(&Definition {
        name: "euler",
        class: Some("EulerDiscreteScheduler"),
        paper: "Karras et al. 2022, algorithm 1 without its correction",
        path: LevelPath::VarianceExploding,
        eta: None,
        rows: |path_levels, _| path_levels.each(|transition| rows::ddim(transition, 0.0, false)),
    });

    /// `euler-a`: Euler's method to below the next level, then noise up to that level. Eta 1 gives
    /// the noise of DDPM.
    pub const EULER_A: Self = Self(&Definition {
        name: "euler-a",
        class: Some("EulerAncestralDiscreteScheduler"),
        paper: "Song et al. 2021 (score SDE), appendix F; as in k-diffusion",
        path: LevelPath::VarianceExploding,
        eta: Some(1.0),
        rows: |path_levels, eta| path_levels.each(|transition| rows::ddim(transition, eta, false)),
    });

    /// `heun`: Heun's method, of second order. Two evaluations per step, one in the last.
    pub const HEUN: Self = Self(&Definition {
        name: "heun",
        class: Some("HeunDiscreteScheduler"),
        paper: "Karras et al. 2022, algorithm 1",
        path: LevelPath::VarianceExplodingClipped,
        eta: None,
        rows: |path_levels, _| {
            let pairs = path_levels.transitions.iter().enumerate().flat_map(|(i, transition)| {
                let next = path_levels.transitions.get(i + 1);
                let corrected = next.map(|next| rows::heun(transition, next));
                std::iter::once(rows::ddim(transition, 0.0, false)).chain(corrected)
            });
            pairs.collect()
        },
    });
}
