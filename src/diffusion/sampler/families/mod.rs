//! All samplers, by family: the name, the source, the path through the levels and the steps of
//! each.
//!
//! A new sampler is a file here with a constant and a short function from levels to steps, and one
//! line in [`Sampler::ALL`]. Its golden numbers come from `tests/golden/make_samplers.py`, or from
//! `make_papers.py` if diffusers does not have the sampler.

mod consistency;
mod deis;
mod dpm_solver;
mod euler;
mod kdpm2;
mod lms;
mod markov;
mod pndm;
mod score;
mod singlestep;
mod unipc;

use super::{Definition, LevelPath, Levels, Sampler, multistep, rows};

impl Sampler {
    /// All samplers.
    pub const ALL: [Self; 20] = [
        Self::DDIM,
        Self::DDPM,
        Self::EULER,
        Self::EULER_A,
        Self::HEUN,
        Self::KDPM2,
        Self::KDPM2_A,
        Self::LMS,
        Self::PNDM,
        Self::DEIS,
        Self::DPMPP_2M,
        Self::DPMPP_2M_SDE,
        Self::DPMPP_3M,
        Self::DPMPP_SINGLE,
        Self::UNIPC,
        Self::LCM,
        Self::TCD,
        Self::LANGEVIN,
        Self::PC,
        Self::ODE,
    ];
}
