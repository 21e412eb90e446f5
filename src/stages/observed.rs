//! Observation of a run: the predicted clean latent or image of each evaluation.

use ndarray::Array4;

use crate::diffusion::{Canvas, Level, Plan, Update, Window};
use crate::error::Result;
use crate::network::Shape;

/// One evaluation of a stage.
#[derive(Debug)]
pub struct PredictedStep<'a> {
    /// The position of the stage, from 0.
    pub stage: usize,
    /// Whether the decoder follows on this stage's result; otherwise it is pixels.
    pub is_latent: bool,
    /// The index of the evaluation, from 0.
    pub index: usize,
    /// The number of evaluations.
    pub count: usize,
    /// The level of the state.
    pub level: Level,
    /// The predicted clean latent in the sampler's units or image from -1 to 1, `[1, C, h, w]`,
    /// before it is clipped.
    pub predicted: &'a Array4<f32>,
}

/// Observes what each evaluation of a stage with an image predicts.
pub trait StepObserver {
    /// Called after each evaluation.
    ///
    /// # Errors
    /// Any error ends the run.
    fn observe(&mut self, step: &PredictedStep<'_>) -> Result<()>;
}

/// A canvas whose predictions are shown to an observer.
pub(super) struct Observed<'a> {
    pub(super) canvas: &'a mut dyn Canvas,
    pub(super) observer: &'a mut dyn StepObserver,
    pub(super) plan: &'a Plan,
    pub(super) stage: usize,
    pub(super) is_latent: bool,
}

impl Canvas for Observed<'_> {
    fn shape(&self) -> Shape {
        self.canvas.shape()
    }

    fn read(&self, window: Window, scale: f32, out: &mut [f32]) -> Result<()> {
        self.canvas.read(window, scale, out)
    }

    /// Stages run whole, so an update has all rows.
    fn update(&mut self, update: &Update<'_>) -> Result<()> {
        let [batch, channels, height, width] = self.canvas.shape();
        let mut predicted = Array4::zeros([batch, channels, height, width]);
        let values = predicted.as_slice_mut().unwrap_or_default();
        self.canvas.read(Window { x: 0, y: 0, width, height }, 1.0, values)?;
        let (c_skip, c_out) = (update.step.c_skip as f32, update.step.c_out as f32);
        for (i, row) in values.chunks_exact_mut(width).enumerate() {
            let output = update.output.row(i / height, i % height, width);
            row.iter_mut().zip(output).for_each(|(x, output)| *x = c_skip * *x + c_out * output);
        }
        self.observer.observe(&PredictedStep {
            stage: self.stage,
            is_latent: self.is_latent,
            index: update.index,
            count: self.plan.steps.len(),
            level: update.step.level,
            predicted: &predicted,
        })?;
        self.canvas.update(update)
    }
}
