//! Networks of closed form, whose exact results are known.

use eddy::Result;
use eddy::network::{Inputs, Network, Shape};

/// `f(sample, sigma, shape, evaluation, out)`: the output of a [`Closed`] network; evaluations count
/// from 0.
pub type Form<'a> = dyn FnMut(&[f32], &[f32], Shape, usize, &mut [f32]) + 'a;

/// A network that takes a map of sigma and is computed by a function.
pub struct Closed<'a> {
    form: Box<Form<'a>>,
    shape: Shape,
    sample: Vec<f32>,
    sigma: Vec<f32>,
    output: Vec<f32>,
    pub evaluations: usize,
}

impl<'a> Closed<'a> {
    pub fn new(form: impl FnMut(&[f32], &[f32], Shape, usize, &mut [f32]) + 'a) -> Self {
        Self {
            form: Box::new(form),
            shape: [0; 4],
            sample: Vec::new(),
            sigma: Vec::new(),
            output: Vec::new(),
            evaluations: 0,
        }
    }
}

impl Network for Closed<'_> {
    fn bind(&mut self, shape: Shape) -> Result<()> {
        if self.shape != shape {
            let [batch, channels, height, width] = shape;
            self.sample = vec![f32::NAN; batch * channels * height * width];
            self.sigma = vec![f32::NAN; batch * height * width];
            self.output = self.sample.clone();
            self.shape = shape;
        }
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
        (self.form)(&self.sample, &self.sigma, self.shape, self.evaluations, &mut self.output);
        self.evaluations += 1;
        Ok(&self.output)
    }
}

/// The mean of each sample and its eight neighbors, with zeros beyond the border, times sigma: it
/// has a receptive field of one pixel.
pub fn blur(sample: &[f32], sigma: &[f32], shape: Shape, out: &mut [f32]) {
    let [_, _, height, width] = shape;
    for (plane, out) in
        sample.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width))
    {
        for y in 0..height {
            for x in 0..width {
                let mut sum = 0.0;
                for j in y.saturating_sub(1)..(y + 2).min(height) {
                    for i in x.saturating_sub(1)..(x + 2).min(width) {
                        sum += plane[j * width + i];
                    }
                }
                out[y * width + x] = sum / 9.0 * sigma[y * width + x];
            }
        }
    }
}
