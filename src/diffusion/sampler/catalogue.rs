//! Every sampler there is: what it is called, where it comes from, how it goes down the levels, and its rows.
//!
//! This is the one file to change for another one: its constant, its place in [`Sampler::ALL`], and a short function from a
//! descent to rows. Golden numbers for it come from `tests/golden/make_samplers.py`, or `make_papers.py` where diffusers has it not.

use super::descent::Walk;
use super::rows;
use super::{Definition, Sampler};
use crate::diffusion::plan::{Level, Step};

impl Sampler {
    /// Every sampler there is.
    pub const ALL: [Self; 12] = [
        Self::DDIM,
        Self::DDPM,
        Self::EULER,
        Self::EULER_A,
        Self::HEUN,
        Self::DPMPP_2M,
        Self::DPMPP_2M_SDE,
        Self::LCM,
        Self::TCD,
        Self::LANGEVIN,
        Self::PC,
        Self::ODE,
    ];

    /// `ddim`: denoising diffusion implicit models; deterministic with eta 0, DDPM's noise with eta 1.
    pub const DDIM: Self = Self(&Definition {
        name: "ddim",
        paper: "Song, Meng and Ermon 2021, equation 12",
        walk: Walk::Strides,
        eta: Some(0.0),
        rows: |descent, eta| descent.each(|span| rows::ddim(span, eta, descent.unclipped_direction)),
    });

    /// `ddpm`: denoising diffusion probabilistic models, from each visited timestep to the next; draws noise.
    ///
    /// The last step draws none where it starts at timestep 0, as in algorithm 2 of the paper. Where it starts above and the
    /// variance is `FixedLarge`, diffusers draws it, and so does this.
    pub const DDPM: Self = Self(&Definition {
        name: "ddpm",
        paper: "Ho, Jain and Abbeel 2020, equation 7",
        walk: Walk::Ancestral,
        eta: None,
        rows: |descent, _| {
            descent.each(|span| {
                let row = rows::ddpm(span, descent.variance);
                Step { d: if span.is_first { 0.0 } else { row.d }, ..row }
            })
        },
    });

    /// `euler`: Euler's method on the probability flow in sigma.
    pub const EULER: Self = Self(&Definition {
        name: "euler",
        paper: "Karras et al. 2022, algorithm 1 without its correction",
        walk: Walk::Sigmas,
        eta: None,
        rows: |descent, _| descent.each(|span| rows::ddim(span, 0.0, false)),
    });

    /// `euler-a`: Euler's method to below the next level, and noise up to it; all of DDPM's with eta 1.
    pub const EULER_A: Self = Self(&Definition {
        name: "euler-a",
        paper: "Song et al. 2021 (score SDE), appendix F; as in k-diffusion",
        walk: Walk::Sigmas,
        eta: Some(1.0),
        rows: |descent, eta| descent.each(|span| rows::ddim(span, eta, false)),
    });

    /// `heun`: Heun's method, of second order; two evaluations a step, and one in the last.
    pub const HEUN: Self = Self(&Definition {
        name: "heun",
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

    /// `dpmpp-2m`: DPM-Solver++ of second order.
    pub const DPMPP_2M: Self = Self(&Definition {
        name: "dpmpp-2m",
        paper: "Lu et al. 2022, algorithm 2",
        walk: Walk::Solver,
        eta: None,
        rows: |descent, _| {
            descent.each_after(|before, span| match before {
                Some(before) => rows::dpmpp_2m(before.from, span, descent.order.solver),
                None => rows::ddim(span, 0.0, false),
            })
        },
    });

    /// `dpmpp-2m-sde`: the same for the reverse diffusion; draws noise.
    pub const DPMPP_2M_SDE: Self = Self(&Definition {
        name: "dpmpp-2m-sde",
        paper: "Lu et al. 2022, appendix D; SDE-DPM-Solver++(2M)",
        walk: Walk::Solver,
        eta: None,
        rows: |descent, _| {
            let solver = descent.order.solver;
            descent.each_after(|before, span| rows::dpmpp_2m_sde(before.map(|before| before.from), span, solver))
        },
    });

    /// `lcm`: multistep sampling of latent consistency models: to the clean picture, and noise up to the next level.
    pub const LCM: Self = Self(&Definition {
        name: "lcm",
        paper: "Luo et al. 2023, algorithm 3; Song et al. 2023, algorithm 1",
        walk: Walk::Consistency,
        eta: None,
        rows: |descent, _| descent.each_but_last(rows::consistency),
    });

    /// `tcd`: trajectory consistency distillation: along the flow to below the next level, and noise up to it; eta is the
    /// paper's gamma.
    pub const TCD: Self = Self(&Definition {
        name: "tcd",
        paper: "Zheng et al. 2024, algorithm 4",
        walk: Walk::Trajectory,
        eta: Some(0.3),
        rows: |descent, _| descent.each_but_last(rows::trajectory),
    });

    /// `langevin`: annealed Langevin dynamics of NCSN: five evaluations a level, whose step size follows from the ratio of the
    /// levels, and one more, which takes out the noise that is left.
    pub const LANGEVIN: Self = Self(&Definition {
        name: "langevin",
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
