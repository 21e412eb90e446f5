//! The loop around a network that costs nothing: all that is measured is Eddy's own.

// The macros of criterion make a public function without documentation.
#![allow(missing_docs)]

use std::ops::ControlFlow;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use eddy::Result;
use eddy::diffusion::{Philox, SigmaMap, State, denoise_plan, execute};
use eddy::network::{Inputs, Network, Shape};
use eddy::tile::{Locality, TilePlan};
use ndarray::Array4;

const WIDTH: usize = 640;
const HEIGHT: usize = 480;

/// Its output is what its sample is.
#[derive(Default)]
struct Free {
    sample: Vec<f32>,
    sigma: Vec<f32>,
}

impl Network for Free {
    fn bind(&mut self, [batch, channels, height, width]: Shape) -> Result<()> {
        self.sample.resize(batch * channels * height * width, 0.0);
        self.sigma.resize(batch * height * width, 0.0);
        Ok(())
    }

    fn inputs(&mut self) -> Inputs<'_> {
        Inputs {
            sample: &mut self.sample,
            sigma: Some(&mut self.sigma),
            condition: None,
            class: None,
        }
    }

    fn evaluate(&mut self, _t: f64) -> Result<&[f32]> {
        Ok(&self.sample)
    }
}

fn executor(criterion: &mut Criterion) {
    let local = Locality { multiple_of: 8, grid: 8, receptive_field: Some(63), size: None };
    let whole = TilePlan::whole(WIDTH, HEIGHT, local.multiple_of);
    let cut = TilePlan::cut(WIDTH, HEIGHT, 256, None, local);
    let per_pixel = SigmaMap::PerPixel { width: WIDTH, values: vec![0.1; WIDTH * HEIGHT] };
    let uniform = SigmaMap::Uniform(0.1);
    let cases = [
        ("1_step", 1, 0.0, Some(&whole), &uniform),
        ("4_steps", 4, 0.0, Some(&whole), &uniform),
        ("4_steps_fresh_noise", 4, 1.0, Some(&whole), &uniform),
        ("4_steps_sigma_map", 4, 0.0, Some(&whole), &per_pixel),
        ("4_steps_tiled", 4, 0.0, cut.as_ref().ok(), &uniform),
    ];
    let noise = Philox::new(0);
    for (name, steps, eta, tiles, sigma) in cases {
        let (Ok(plan), Some(tiles)) = (denoise_plan(steps, eta), tiles) else { continue };
        let mut network = Free::default();
        criterion.bench_function(&format!("executor/{name}_640x480"), |bencher| {
            bencher.iter_batched(
                || State::new(Array4::from_elem([1, 3, HEIGHT, WIDTH], 0.5), &plan, &noise, sigma),
                |state| -> Result<_> {
                    let mut state = state?;
                    execute(&plan, &mut network, &mut state, tiles, sigma, &mut |_| {
                        ControlFlow::Continue(())
                    })?;
                    // Handed back, so that its memory is freed outside the measurement.
                    Ok(state)
                },
                BatchSize::LargeInput,
            );
        });
    }
}

criterion_group!(benches, executor);
criterion_main!(benches);
