//! Denoising diffusion as a Markov chain (DDPM), and its implicit form (DDIM).

use super::{Definition, LevelPath, Sampler, rows};
use crate::diffusion::plan::Step;

impl Sampler {
    /// `ddim`: denoising diffusion implicit models. Deterministic with eta 0; with eta 1, the noise
    /// is DDPM's.
    pub const DDIM: Self = Self(&Definition {
        name: "ddim",
        class: Some("DDIMScheduler"),
        paper: "Song, Meng and Ermon 2021, equation 12",
        path: LevelPath::DdimStride,
        eta: Some(0.0),
        rows: |path_levels, eta| {
            path_levels
                .each(|transition| rows::ddim(transition, eta, path_levels.unclipped_direction))
        },
    });

    /// `ddpm`: denoising diffusion probabilistic models, from each visited timestep to the next.
    /// Stochastic.
    ///
    /// The last step adds no noise if it starts at timestep 0, as in algorithm 2 of the paper. If
    /// it starts above and the variance is `FixedLarge`, it adds noise, as in diffusers.
    pub const DDPM: Self = Self(&Definition {
        name: "ddpm",
        class: Some("DDPMScheduler"),
        paper: "Ho, Jain and Abbeel 2020, equation 7",
        path: LevelPath::Ancestral,
        eta: None,
        rows: |path_levels, _| {
            path_levels.each(|transition| {
                let row = rows::ddpm(transition, path_levels.settings.variance);
                Step { d: if transition.is_first { 0.0 } else { row.d }, ..row }
            })
        },
    });
}
