//! A network and a sampler, on tensors.

use std::ops::ControlFlow;

use ndarray::Array4;

use crate::diffusion::guidance::label;
use crate::diffusion::{Philox, Progress, Sampler, Schedule, SigmaMap, State, execute, plan};
use crate::error::{Error, Result};
use crate::model::ClassIndices;
use crate::network::{Network, OnnxNetwork};
use crate::tile::TilePlan;

/// A network and a sampler that turn noise into a sample, as tensors.
#[derive(Debug)]
pub struct SamplePipeline {
    network: OnnxNetwork,
    schedule: Schedule,
    multiple_of: usize,
    classes: Option<ClassIndices>,
    class: Option<usize>,
    sampler: Sampler,
    steps: usize,
    eta: Option<f64>,
    seed: u64,
}

impl SamplePipeline {
    pub(super) fn new(
        network: OnnxNetwork,
        schedule: Schedule,
        multiple_of: usize,
        classes: Option<ClassIndices>,
    ) -> Self {
        Self {
            network,
            schedule,
            multiple_of,
            classes,
            class: None,
            sampler: Sampler::DDIM,
            steps: 50,
            eta: None,
            seed: 0,
        }
    }

    /// The sampler; by default DDIM.
    #[must_use]
    pub fn sampler(mut self, sampler: Sampler) -> Self {
        self.sampler = sampler;
        self
    }

    /// The number of steps, 1 to 1000; by default 50.
    #[must_use]
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Eta, the fraction of fresh noise in each step, 0 to 1; by default the sampler's own.
    #[must_use]
    pub fn eta(mut self, eta: f64) -> Self {
        self.eta = Some(eta);
        self
    }

    /// The random seed of fresh noise; by default 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The class of the samples, counted from 0, for a network that takes one. By default they are
    /// unconditional; a network that was trained without an unconditional class needs one.
    #[must_use]
    pub fn class(mut self, class: usize) -> Self {
        self.class = Some(class);
        self
    }

    /// Changes the class of the next samples, of a pipeline that is kept; `None` is unconditional.
    pub fn set_class(&mut self, class: Option<usize>) {
        self.class = class;
    }

    /// Sampler, steps, eta and seed of the next samples, of a pipeline that is kept.
    pub fn configure(&mut self, sampler: Sampler, steps: usize, eta: Option<f64>, seed: u64) {
        (self.sampler, self.steps, self.eta, self.seed) = (sampler, steps, eta, seed);
    }

    /// Samples from `noise`, `[batch, channels, height, width]`, with a standard deviation of 1
    /// like diffusers' `latents`. For variance-exploding states it is scaled to the first level.
    ///
    /// # Errors
    /// [`Error::Usage`] for steps or an eta out of range, for a class that the network does not
    /// have, and for none where it needs one; [`Error::Model`] for a shape that the network does
    /// not take; [`Error::Evaluation`] when the network fails.
    pub fn sample(&mut self, noise: Array4<f32>) -> Result<Array4<f32>> {
        self.sample_observed(noise, |_| ControlFlow::Continue(()))
    }

    /// Like [`sample`](Self::sample), with a callback: `observe` is called after every evaluation,
    /// and can stop the run.
    ///
    /// # Errors
    /// As for [`sample`](Self::sample), and [`Error::Interrupted`].
    pub fn sample_observed(
        &mut self,
        noise: Array4<f32>,
        mut observe: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Array4<f32>> {
        let plan = plan(&self.schedule, self.sampler, self.steps, self.eta)?;
        // Variance-preserving states start with a standard deviation of 1.
        let first = plan.steps.first().map(|step| step.level).filter(|level| level.signal == 1.0);
        let first = first.map_or(1.0, |level| level.noise) as f32;
        let (batch, channels, height, width) = noise.dim();
        if noise.is_empty() {
            return Err(Error::usage(format!(
                "noise of shape {:?} is empty; expected sides of at least 1",
                noise.shape()
            )));
        }
        let tiles = TilePlan::whole(width, height, self.multiple_of);
        if let Some(index) = ClassIndices::choose(self.classes.as_ref(), self.class)? {
            let (tile_width, tile_height) = tiles.tile_size();
            self.network.bind([batch, channels, tile_height, tile_width])?;
            label(self.network.inputs().class, &vec![index; batch])?;
        }
        let fresh = Philox::new(self.seed);
        let mut state = State::new(noise * first, &plan, &fresh, &SigmaMap::ABSOLUTE)?;
        let sigma = &SigmaMap::ABSOLUTE;
        execute(&plan, &mut self.network, &mut state, &tiles, sigma, &mut observe)?;
        Ok(state.into_inner())
    }
}
