//! Networks that were distilled to a few steps.

use super::{Definition, Sampler, Walk, rows};

impl Sampler {
    /// `lcm`: multistep sampling of latent consistency models: to the clean picture, and noise up to the next level.
    pub const LCM: Self = Self(&Definition {
        name: "lcm",
        class: Some("LCMScheduler"),
        paper: "Luo et al. 2023, algorithm 3; Song et al. 2023, algorithm 1",
        walk: Walk::Consistency,
        eta: None,
        rows: |descent, _| descent.each_but_last(rows::consistency),
    });

    /// `tcd`: trajectory consistency distillation: along the flow to below the next level, and noise up to it; eta is the
    /// paper's gamma.
    pub const TCD: Self = Self(&Definition {
        name: "tcd",
        class: Some("TCDScheduler"),
        paper: "Zheng et al. 2024, algorithm 4",
        walk: Walk::Trajectory,
        eta: Some(0.3),
        rows: |descent, _| descent.each_but_last(rows::trajectory),
    });
}
