//! Two ways to run a table on a network with a closed form: the library's executor, and a reference
//! loop in f64 that says what a table means in the fewest words.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::ops::ControlFlow;

use eddy::Result;
use eddy::diffusion::{Clip, HISTORY_SLOTS, NoiseAt, NoiseSource, Plan, SigmaMap, State, execute};
use eddy::network::{Inputs, Network, Shape};
use eddy::tile::TilePlan;
use ndarray::Array4;

/// Runs `plan` on a state of `shape` and a network that is one function of each value and `t`.
pub fn run(
    plan: &Plan,
    shape: [usize; 4],
    start: Vec<f64>,
    noise: &dyn NoiseSource,
    network: impl Fn(f64, f64) -> f64,
) -> Vec<f64> {
    let mut x = start;
    let mut kept = vec![[0.0; HISTORY_SLOTS]; x.len()];
    for (step, row) in plan.steps.iter().enumerate() {
        let raw: Vec<f64> =
            x.iter().map(|&x| row.c_skip * x + row.c_out * network(row.c_in * x, row.t)).collect();
        let mut clipped: Vec<f32> = raw.iter().map(|&d| d as f32).collect();
        plan.clip.apply(&mut clipped, shape[0], &mut Vec::new());
        let d: Vec<f64> = match plan.clip {
            Clip::None => raw.clone(),
            _ => clipped.into_iter().map(f64::from).collect(),
        };
        let z = if row.d == 0.0 { vec![0.0; x.len()] } else { draw(noise, step as u32, shape) };
        for i in 0..x.len() {
            let past: f64 = row.past.iter().zip(&kept[i]).map(|(factor, kept)| factor * kept).sum();
            if let Some(entry) = row.store {
                let [of_x, of_d] = row.factors(entry.value);
                kept[i][entry.slot] = of_x * x[i] + of_d * d[i];
            }
            x[i] = row.a * x[i] + row.b * d[i] + past + row.d * f64::from(z[i]) + row.e * raw[i];
        }
    }
    x
}

/// The noise of one step for a whole state.
pub fn draw(
    noise: &dyn NoiseSource,
    step: u32,
    [batches, channels, height, width]: [usize; 4],
) -> Vec<f32> {
    let mut z = vec![0.0; batches * channels * height * width];
    for (i, row) in z.chunks_mut(width).enumerate() {
        let (batch, channel, y) = (i / height / channels, i / height % channels, i % height);
        noise.fill(
            NoiseAt { step, batch: batch as u32, channel: channel as u32, y: y as u32 },
            0,
            row,
        );
    }
    z
}

/// The largest difference over the largest expected value.
pub fn difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    found.iter().zip(expected).fold(0.0_f64, |worst, (a, b)| {
        let difference = (a - b).abs() / largest;
        if difference.is_nan() { f64::NAN } else { worst.max(difference) }
    })
}

/// A network that is one function of each value and `t`.
struct Pointwise<F> {
    function: F,
    sample: Vec<f32>,
    output: Vec<f32>,
}

impl<F: Fn(f64, f64) -> f64> Network for Pointwise<F> {
    fn bind(&mut self, shape: Shape) -> Result<()> {
        self.sample.resize(shape.iter().product(), 0.0);
        Ok(())
    }

    fn inputs(&mut self) -> Inputs<'_> {
        Inputs { sample: &mut self.sample, sigma: None, condition: None, class: None }
    }

    fn evaluate(&mut self, t: f64) -> Result<&[f32]> {
        self.output =
            self.sample.iter().map(|&x| (self.function)(f64::from(x), t) as f32).collect();
        Ok(&self.output)
    }
}

/// Runs `plan` as [`run`] does, but through the library's executor.
pub fn run_executor(
    plan: &Plan,
    shape: Shape,
    start: &[f64],
    noise: &dyn NoiseSource,
    function: impl Fn(f64, f64) -> f64,
) -> Vec<f64> {
    let x = Array4::from_shape_vec(shape, start.iter().map(|&x| x as f32).collect()).unwrap();
    let mut state = State::new(x, plan, noise, &SigmaMap::ABSOLUTE).unwrap();
    let mut network = Pointwise { function, sample: Vec::new(), output: Vec::new() };
    let tiles = TilePlan::whole(shape[3], shape[2], 1);
    let mut watch = |_| ControlFlow::Continue(());
    execute(plan, &mut network, &mut state, &tiles, &SigmaMap::ABSOLUTE, &mut watch).unwrap();
    state.into_inner().iter().map(|&x| f64::from(x)).collect()
}
