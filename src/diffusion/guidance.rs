//! Guidance: what moves a run from where the network alone would take it.
//!
//! A [`Guidance`] changes the prediction of the clean image at every evaluation: the gradient of a classifier
//! ([`ClassifierGuidance`]), any energy of an application's own, or what is known of the image. [`ClassifierFree`] is a network
//! made of one that knows classes.

use ndarray::Array4;

use crate::diffusion::plan::{Level, Plan};
use crate::error::{Error, Result};
use crate::network::{Inputs, Network, Shape};

/// One evaluation, as a [`Guidance`] sees it.
#[derive(Debug)]
pub struct StepContext<'a> {
    /// Which evaluation it is, from 0 on.
    pub index: usize,
    /// How many there are.
    pub count: usize,
    /// The level of the state.
    pub level: Level,
    /// The state, `[batch, channels, height, width]`.
    pub x: &'a Array4<f32>,
}

/// Sees every prediction of the clean image before it is used, and may change it.
///
/// By Tweedie's formula a gradient `g` of a log-likelihood with regard to `x0 + sigma * n` moves the prediction by `sigma^2 * g`
/// (Dhariwal and Nichol 2021, algorithm 2, in these coordinates). A guide that changes nothing watches a run;
/// [`Error::Interrupted`] ends it.
pub trait Guidance {
    /// Changes `d`, the prediction, of the state's shape, before it is clipped.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn guide(&mut self, moment: &StepContext<'_>, d: &mut Array4<f32>) -> Result<()>;
}

impl<F: FnMut(&StepContext<'_>, &mut Array4<f32>) -> Result<()>> Guidance for F {
    fn guide(&mut self, moment: &StepContext<'_>, d: &mut Array4<f32>) -> Result<()> {
        self(moment, d)
    }
}

/// Leads towards classes by a classifier that knows noise (Dhariwal and Nichol 2021): a network whose output is the gradient of
/// `log p(class | y)` with regard to `y = x0 + sigma * n`, given `y`, sigma and the class.
pub struct ClassifierGuidance<'a> {
    classifier: &'a mut dyn Network,
    classes: Vec<i64>,
    scale: f64,
    /// The most noise of which the classifier knows; beyond it, it is not asked.
    sigma_max: f64,
}

impl<'a> ClassifierGuidance<'a> {
    /// Towards `classes`, one for each sample. `scale` is the inverse of the temperature of the classifier's distribution.
    pub fn new(classifier: &'a mut dyn Network, classes: Vec<i64>, scale: f64, sigma_max: f64) -> Self {
        Self { classifier, classes, scale, sigma_max }
    }
}

impl Guidance for ClassifierGuidance<'_> {
    fn guide(&mut self, moment: &StepContext<'_>, d: &mut Array4<f32>) -> Result<()> {
        let sigma = moment.level.sigma();
        if sigma > self.sigma_max {
            return Ok(());
        }
        self.classifier.bind(d.dim().into())?;
        let inputs = self.classifier.inputs();
        let scale = (1.0 / moment.level.signal) as f32;
        inputs.sample.iter_mut().zip(moment.x).for_each(|(y, x)| *y = scale * x);
        label(inputs.class, &self.classes)?;
        let gradient = self.classifier.evaluate(sigma)?;
        let step = (self.scale * sigma * sigma) as f32;
        d.iter_mut().zip(gradient).for_each(|(d, gradient)| *d += step * gradient);
        Ok(())
    }
}

/// Sets the classes of a network's samples.
///
/// # Errors
/// [`Error::Usage`] when the network knows none.
pub fn label(labels: Option<&mut [i64]>, classes: &[i64]) -> Result<()> {
    match labels {
        Some(labels) if labels.len() == classes.len() => {
            labels.copy_from_slice(classes);
            Ok(())
        }
        Some(labels) => Err(Error::usage(format!(
            "there are {} classes for {} samples; give one for each",
            classes.len(),
            labels.len()
        ))),
        None => Err(Error::usage("this network knows no classes; leave the class out, or take one that does")),
    }
}

/// How classifier-free guidance goes about (Ho and Salimans 2022).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifierFreeOptions {
    /// `w` in `F = F_without + w * (F_with - F_without)`: 1 is the class alone.
    pub scale: f64,
    /// How much of the deviation that guidance adds is taken back, from 0 to 1 (Lin et al. 2024, section 3.4).
    pub rescale: f64,
    /// The noise-to-signal ratios between which it is used (Kynkaanniemi et al. 2024); elsewhere the class alone counts.
    pub interval: [f64; 2],
}

impl Default for ClassifierFreeOptions {
    fn default() -> Self {
        Self { scale: 1.0, rescale: 0.0, interval: [0.0, f64::INFINITY] }
    }
}

/// A network that answers with and without a class, in one batch, and goes beyond the first in the direction away from the
/// second.
pub struct ClassifierFree<'a> {
    network: &'a mut dyn Network,
    /// Of each sample, and what it is led away from.
    classes: [Vec<i64>; 2],
    options: ClassifierFreeOptions,
    /// The noise levels, as the network is told them, at which it is used.
    active: Vec<f64>,
    shape: Shape,
    output: Vec<f32>,
}

impl<'a> ClassifierFree<'a> {
    /// Towards `classes`, one for each sample, and away from `without`, on the levels of `plan`.
    pub fn new(
        network: &'a mut dyn Network,
        [classes, without]: [Vec<i64>; 2],
        options: ClassifierFreeOptions,
        plan: &Plan,
    ) -> Self {
        let [low, high] = options.interval;
        let steps = plan.steps.iter().filter(|step| (low..=high).contains(&step.level.sigma()));
        let active = steps.map(|step| step.t).collect();
        Self { network, classes: [classes, without], options, active, shape: [0; 4], output: Vec::new() }
    }
}

impl Network for ClassifierFree<'_> {
    fn bind(&mut self, shape: Shape) -> Result<()> {
        let [batch, channels, height, width] = shape;
        self.network.bind([2 * batch, channels, height, width])?;
        label(self.network.inputs().class, &self.classes.concat())?;
        self.shape = shape;
        self.output = vec![0.0; shape.iter().product()];
        Ok(())
    }

    /// Of the half with a class; the other is filled from it.
    fn inputs(&mut self) -> Inputs<'_> {
        let Inputs { sample, sigma, condition, .. } = self.network.inputs();
        Inputs { sample: half(sample), sigma: sigma.map(half), condition: condition.map(half), class: None }
    }

    fn evaluate(&mut self, t: f64) -> Result<&[f32]> {
        let Inputs { sample, sigma, condition, .. } = self.network.inputs();
        for values in [Some(sample), sigma, condition].into_iter().flatten() {
            let (with, without) = values.split_at_mut(values.len() / 2);
            without.copy_from_slice(with);
        }
        let is_active = self.active.contains(&t);
        let (with, without) = self.network.evaluate(t)?.split_at(self.output.len());
        if !is_active {
            self.output.copy_from_slice(with);
            return Ok(&self.output);
        }
        let scale = self.options.scale as f32;
        let pairs = self.output.iter_mut().zip(with).zip(without);
        pairs.for_each(|((output, with), without)| *output = without + scale * (with - without));
        if self.options.rescale > 0.0 {
            let size = self.output.len() / self.shape[0].max(1);
            for (output, with) in self.output.chunks_exact_mut(size).zip(with.chunks_exact(size)) {
                let ratio = deviation(with) / deviation(output).max(f64::MIN_POSITIVE);
                let factor = (self.options.rescale * ratio + 1.0 - self.options.rescale) as f32;
                output.iter_mut().for_each(|value| *value *= factor);
            }
        }
        Ok(&self.output)
    }

    fn release(&mut self, small: Shape) -> Result<()> {
        self.network.release(small)
    }
}

fn half(values: &mut [f32]) -> &mut [f32] {
    let middle = values.len() / 2;
    &mut values[..middle]
}

fn deviation(values: &[f32]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    (values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count).sqrt()
}
