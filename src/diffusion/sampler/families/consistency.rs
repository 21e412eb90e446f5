//! Samplers of networks that were distilled to a few steps.

use super::{Definition, LevelPath, Sampler, rows};

impl Sampler {
    /// `lcm`: multistep sampling of latent consistency models. Each step predicts the clean image
    /// and adds the noise of the next level.
    pub const LCM: Self = Self(&Definition {
        name: "lcm",
        class: Some("LCMScheduler"),
        paper: "Luo et al. 2023, algorithm 3; Song et al. 2023, algorithm 1",
        path: LevelPath::Lcm,
        eta: None,
        rows: |path_levels, _| path_levels.map_with_last(rows::consistency),
    });

    /// `tcd`: trajectory consistency distillation. Each step follows the flow to below the next
    /// level and adds noise up to it. Eta is the paper's gamma.
    pub const TCD: Self = Self(&Definition {
        name: "tcd",
        class: Some("TCDScheduler"),
        paper: "Zheng et al. 2024, algorithm 4",
        path: LevelPath::Tcd,
        eta: Some(0.3),
        rows: |path_levels, _| path_levels.map_with_last(rows::trajectory),
    });
}
