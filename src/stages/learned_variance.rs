//! Noise whose variance the network predicts (Nichol and Dhariwal 2021, equation 15): between that
//! of the posterior and that of the forward process, interpolated in their logarithms.

use std::sync::{Arc, Mutex, PoisonError};

use crate::diffusion::{Level, NoiseAt, NoiseSource, Plan, Step};
use crate::error::Result;
use crate::network::Shape;

/// Noise of a plan with the smallest variances, scaled to what the last evaluation predicted.
pub(super) struct LearnedVariance<'a> {
    noise: &'a dyn NoiseSource,
    /// What the network gave, from -1 to 1, for each value of the state.
    predicted: Arc<Mutex<Vec<f32>>>,
    shape: Shape,
    /// The logarithm of the ratio of the largest to the smallest standard deviation, by step.
    ratios: Vec<f32>,
}

impl<'a> LearnedVariance<'a> {
    pub(super) fn new(
        noise: &'a dyn NoiseSource,
        predicted: Arc<Mutex<Vec<f32>>>,
        shape: Shape,
        plan: &Plan,
    ) -> Self {
        Self { noise, predicted, shape, ratios: variance_ratios(plan) }
    }
}

/// The logarithm of the ratio of the largest to the smallest standard deviation of the noise, for
/// each step of a plan with the smallest.
pub(crate) fn variance_ratios(plan: &Plan) -> Vec<f32> {
    let ends = plan.steps.iter().skip(1).map(|step| step.level).chain([Level::CLEAN]);
    let ratio = |(step, to): (&Step, Level)| {
        let largest = step.level.variance_from(to).sqrt();
        if step.d > 0.0 { (largest / step.d).ln() as f32 } else { 0.0 }
    };
    plan.steps.iter().zip(ends).map(ratio).collect()
}

impl NoiseSource for LearnedVariance<'_> {
    fn fill(&self, at: NoiseAt, x: usize, out: &mut [f32]) {
        self.noise.fill(at, x, out);
        let [_, channels, height, width] = self.shape;
        let row = (at.batch as usize * channels + at.channel as usize) * height + at.y as usize;
        let predicted = self.predicted.lock().unwrap_or_else(PoisonError::into_inner);
        // A network that gives no variance has the smallest.
        let own = predicted.get(row * width + x..).unwrap_or_default();
        let ratio = self.ratios.get(at.step as usize).copied().unwrap_or(0.0);
        for (value, predicted) in out.iter_mut().zip(own) {
            *value *= (ratio * (predicted + 1.0) / 2.0).exp();
        }
    }

    fn covers(&self, steps: usize, shape: Shape) -> Result<()> {
        self.noise.covers(steps, shape)
    }
}
