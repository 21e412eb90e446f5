//! Inpainting by a network that is not conditioned on a mask.

use ndarray::{Array4, Axis};

use crate::diffusion::{Canvas, Level, Plan, State, Update, Window};
use crate::error::Result;
use crate::network::Shape;

/// A state whose known part is restored after each step, with the noise of the next level.
pub(super) struct Filled<'a, 's> {
    pub(super) state: &'a mut State<'s>,
    pub(super) plan: &'a Plan,
    pub(super) mask: &'a Array4<f32>,
    pub(super) image: &'a Array4<f32>,
    pub(super) noise: &'a Array4<f32>,
}

impl Canvas for Filled<'_, '_> {
    fn shape(&self) -> Shape {
        self.state.shape()
    }

    fn read(&self, window: Window, scale: f32, out: &mut [f32]) -> Result<()> {
        self.state.read(window, scale, out)
    }

    fn update(&mut self, update: &Update<'_>) -> Result<()> {
        self.state.update(update)?;
        let level = self.plan.steps.get(update.index + 1).map_or(Level::CLEAN, |step| step.level);
        let (signal, noise) = (level.signal as f32, level.noise as f32);
        let known = signal * self.image + noise * self.noise;
        let channels = self.state.shape()[1];
        let x = self.state.tensor_mut();
        for channel in 0..channels {
            let mut plane = x.index_axis_mut(Axis(1), channel);
            let known = known.index_axis(Axis(1), channel);
            let mask = self.mask.index_axis(Axis(1), 0);
            ndarray::Zip::from(&mut plane)
                .and(&known)
                .and(&mask)
                .for_each(|x, known, mask| *x = (1.0 - mask) * known + mask * *x);
        }
        Ok(())
    }
}
