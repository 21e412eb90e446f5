//! Euler's and Heun's methods in sigma.

use super::{Definition, Sampler, Walk, rows};

impl Sampler {
    /// `euler`: Euler's method on the probability flow in sigma.
    pub const EULER: Self = Self(&Definition {
        name: "euler",
        class: Some("EulerDiscreteScheduler"),
        paper: "Karras et al. 2022, algorithm 1 without its correction",
        walk: Walk::Sigmas,
        eta: None,
        rows: |descent, _| descent.each(|span| rows::ddim(span, 0.0, false)),
    });

    /// `euler-a`: Euler's method to below the next level, and noise up to it; all of DDPM's with eta 1.
    pub const EULER_A: Self = Self(&Definition {
        name: "euler-a",
        class: Some("EulerAncestralDiscreteScheduler"),
        paper: "Song et al. 2021 (score SDE), appendix F; as in k-diffusion",
        walk: Walk::Sigmas,
        eta: Some(1.0),
        rows: |descent, eta| descent.each(|span| rows::ddim(span, eta, false)),
    });

    /// `heun`: Heun's method, of second order; two evaluations a step, and one in the last.
    pub const HEUN: Self = Self(&Definition {
        name: "heun",
        class: Some("HeunDiscreteScheduler"),
        paper: "Karras et al. 2022, algorithm 1",
        walk: Walk::Corrected,
        eta: None,
        rows: |descent, _| {
            let pairs = descent.spans.iter().enumerate().flat_map(|(i, span)| {
                let next = descent.spans.get(i + 1);
                let corrected = next.map(|next| rows::heun(span, next));
                std::iter::once(rows::ddim(span, 0.0, false)).chain(corrected)
            });
            pairs.collect()
        },
    });
}
