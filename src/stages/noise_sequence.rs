//! The noise of a run, in the order in which diffusers' pipelines draw it.

use ndarray::{ArrayD, Dimension, IntoDimension};

use crate::diffusion::{NoiseAt, NoiseSource, Philox, Plan, Recorded};
use crate::error::{Error, Result};
use crate::network::Shape;

/// A source of draws: recorded values, or a random seed's.
#[derive(Clone, Debug)]
pub struct NoiseSequence {
    /// The values that another program drew, in order, and how many have been used.
    recorded: Option<(Vec<f32>, usize)>,
    seed: u64,
    count: u32,
    /// The number of stages whose steps were given their noise.
    stages: u64,
}

impl NoiseSequence {
    /// Draws from a random seed.
    pub fn from_seed(seed: u64) -> Self {
        Self { recorded: None, seed, count: 0, stages: 0 }
    }

    /// Values that another program drew, one draw after the other.
    pub fn recorded(values: Vec<f32>) -> Self {
        Self { recorded: Some((values, 0)), seed: 0, count: 0, stages: 0 }
    }

    /// The next draw: standard normal values of this shape.
    ///
    /// # Errors
    /// [`Error::Usage`] when not enough values were recorded.
    pub fn next<D: Dimension>(
        &mut self,
        shape: impl IntoDimension<Dim = D>,
    ) -> Result<ndarray::Array<f32, D>> {
        let shape = shape.into_dimension();
        let mut drawn = ndarray::Array::zeros(shape.clone());
        if let Some((values, used)) = &mut self.recorded {
            let count = drawn.len();
            let Some(values) = values.get(*used..*used + count) else {
                return Err(Error::usage(format!(
                    "the noise has {} values, and draw {} takes {count} more after {used}; give \
                     the noise of all draws in order",
                    values.len(),
                    self.count + 1
                )));
            };
            drawn.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
            *used += count;
            self.count += 1;
            return Ok(drawn);
        }
        // The last axis is a row, and the one before it counts rows, as in a state.
        let sides = shape.slice();
        let width = sides.last().copied().unwrap_or(1).max(1);
        let height = sides.iter().rev().nth(1).copied().unwrap_or(1).max(1);
        let source = Philox::new(self.seed);
        let values = drawn.as_slice_mut().unwrap_or_default();
        for (i, row) in values.chunks_exact_mut(width).enumerate() {
            let (channel, y) = ((i / height) as u32, (i % height) as u32);
            // Initial noise is the first draw, as in a network of one stage.
            let step = NoiseAt::INITIAL - self.count;
            source.fill(NoiseAt { step, batch: 0, channel, y }, 0, row);
        }
        self.count += 1;
        Ok(drawn)
    }

    /// The noise of a plan's steps for a state of this shape.
    ///
    /// # Errors
    /// As for [`next`](Self::next).
    pub fn steps(&mut self, plan: &Plan, shape: Shape) -> Result<Box<dyn NoiseSource>> {
        if self.recorded.is_none() {
            // Each stage of a cascade has noise of its own.
            const NEXT: u64 = 0x9E37_79B9_7F4A_7C15;
            let source = Philox::new(self.seed ^ self.stages.wrapping_mul(NEXT));
            self.stages += 1;
            return Ok(Box::new(source));
        }
        let mut values = Vec::new();
        for step in &plan.steps[..plan.noise_rows()] {
            if step.d == 0.0 {
                values.resize(values.len() + shape.iter().product::<usize>(), 0.0);
            } else {
                let drawn: ArrayD<f32> = self.next(&shape[..])?;
                values.extend_from_slice(drawn.as_slice().unwrap_or_default());
            }
        }
        Ok(Box::new(Recorded::new(plan.noise_rows(), shape, values)?))
    }
}

/// The noise of one row of a batch.
pub(super) struct RowNoise<'a> {
    pub(super) noise: &'a dyn NoiseSource,
    pub(super) row: usize,
    /// Rows of the batch.
    pub(super) rows: usize,
}

impl NoiseSource for RowNoise<'_> {
    fn fill(&self, at: NoiseAt, x: usize, out: &mut [f32]) {
        self.noise.fill(NoiseAt { batch: self.row as u32, ..at }, x, out);
    }

    fn covers(&self, steps: usize, [_, channels, height, width]: Shape) -> Result<()> {
        self.noise.covers(steps, [self.rows, channels, height, width])
    }
}
