//! Runs a network of one's own with DDIM: anything that implements `Network`, or an ONNX file.
//!
//!     cargo run --release --example custom_network
//!     cargo run --release --example custom_network -- net.onnx
//!
//! The ONNX file takes `sample`, `[batch, channels, height, width]`, and `timestep`, and gives the
//! noise, `out_sample`, of the DDPM schedule of `BetaSchedule::Linear`.

#![allow(clippy::print_stdout)]

use std::ops::ControlFlow;

use eddy::diffusion::{
    Philox, Prediction, Sampler, Schedule, SigmaMap, SigmaSchedule, State, execute, plan,
};
use eddy::ndarray::Array4;
use eddy::network::{Inputs, Interface, Network, Shape};
use eddy::tile::TilePlan;
use eddy::{Eddy, Result};

/// The perfect denoiser of data that is one number, `mean`, everywhere.
struct Constant {
    mean: f32,
    sample: Vec<f32>,
    output: Vec<f32>,
}

impl Network for Constant {
    fn bind(&mut self, shape: Shape) -> Result<()> {
        let length = shape.iter().product();
        self.sample.resize(length, 0.0);
        self.output.resize(length, self.mean);
        Ok(())
    }

    fn inputs(&mut self) -> Inputs<'_> {
        Inputs { sample: &mut self.sample, sigma: None, condition: None, class: None }
    }

    /// Whatever the noise, the clean image is the mean.
    fn evaluate(&mut self, _noise_level: f64) -> Result<&[f32]> {
        Ok(&self.output)
    }
}

fn noise(channels: usize, size: usize) -> Array4<f32> {
    let mut state = 7_u32;
    Array4::from_shape_simple_fn([1, channels, size, size], || {
        // The sum of four uniform numbers, of variance 1.
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (uniform() + uniform() + uniform() + uniform()) * 3.0_f32.sqrt()
    })
}

fn main() -> Result<()> {
    if let Some(path) = std::env::args().nth(1) {
        let interface = Interface {
            sample: Some("sample".into()),
            timestep: Some("timestep".into()),
            output: "out_sample".into(),
            scale: 1,
            ..Interface::default()
        };
        let schedule = Schedule::Discrete(Box::default());
        let mut pipeline =
            Eddy::new()?.onnx(path, interface, schedule)?.sampler(Sampler::DDIM).steps(20);
        let sample = pipeline.sample(noise(3, 32))?;
        println!("mean of the sample: {:?}", sample.mean());
        return Ok(());
    }
    let schedule = Schedule::Sigmas(SigmaSchedule::new(Prediction::Denoised, 0.01, 10.0));
    let plan = plan(&schedule, Sampler::DDIM, 20, None)?;
    let mut network = Constant { mean: 0.25, sample: Vec::new(), output: Vec::new() };
    let (seed, sigma) = (Philox::new(0), SigmaMap::ABSOLUTE);
    let mut state = State::new(noise(1, 16) * 10.0, &plan, &seed, &sigma)?;
    let tiles = TilePlan::whole(16, 16, 1);
    execute(&plan, &mut network, &mut state, &tiles, &sigma, &mut |_| ControlFlow::Continue(()))?;
    let sample = state.into_inner();
    println!("{} steps of DDIM led from noise to {:?}", plan.steps.len(), sample.mean());
    assert!(sample.iter().all(|value| (value - 0.25).abs() < 1e-4));
    Ok(())
}
