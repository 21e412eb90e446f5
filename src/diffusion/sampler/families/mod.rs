//! Every sampler there is, in families: what it is called, where it comes from, how it goes down the levels, and its rows.
//!
//! Another one is a file here: its constant, and a short function from a descent to rows. Beside that it has one line in
//! [`Sampler::ALL`]. Golden numbers for it come from `tests/golden/make_samplers.py`, or `make_papers.py` where diffusers has it
//! not.

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
    /// Every sampler there is.
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
