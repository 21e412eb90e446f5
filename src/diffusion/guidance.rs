//! Guidance: changing the predictions of a sampling run.
//!
//! A [`Guidance`] changes the predicted clean image at every evaluation, for instance by the
//! gradient of a classifier ([`ClassifierGuidance`]), by an application's own energy function, or
//! by known pixels. [`ClassifierFree`] wraps a class-conditional network.

use ndarray::Array4;

use crate::diffusion::plan::{Level, Plan};
use crate::error::{Error, Result};
use crate::network::{Inputs, Network, Shape};

/// One evaluation, as passed to a [`Guidance`].
#[derive(Debug)]
pub struct StepContext<'a> {
    /// The index of the evaluation, from 0.
    pub index: usize,
    /// The number of evaluations.
    pub count: usize,
    /// The level of the state.
    pub level: Level,
    /// The state, `[batch, channels, height, width]`.
    pub x: &'a Array4<f32>,
}

/// Receives every predicted clean image before it is used, and may change it.
///
/// By Tweedie's formula, a gradient `g` of a log-likelihood with respect to `x0 + sigma * n` moves
/// the prediction by `sigma^2 * g` (Dhariwal and Nichol 2021, algorithm 2, in these coordinates).
/// Guidance that changes nothing can observe a run. Returning [`Error::Interrupted`] ends the run.
pub trait Guidance {
    /// Changes `d`, the prediction, of the state's shape, before it is clipped.
    ///
    /// # Errors
    /// Any error ends the run.
    fn guide(&mut self, context: &StepContext<'_>, d: &mut Array4<f32>) -> Result<()>;
}

impl<F: FnMut(&StepContext<'_>, &mut Array4<f32>) -> Result<()>> Guidance for F {
    fn guide(&mut self, context: &StepContext<'_>, d: &mut Array4<f32>) -> Result<()> {
        self(context, d)
    }
}

/// Classifier guidance (Dhariwal and Nichol 2021). The classifier is a network conditioned on sigma
/// and the class. Its output is the gradient of `log p(class | y)` with respect to
/// `y = x0 + sigma * n`.
pub struct ClassifierGuidance<'a> {
    classifier: &'a mut dyn Network,
    classes: Vec<i64>,
    scale: f64,
    /// The largest sigma that the classifier was trained on. It is not evaluated above that.
    sigma_max: f64,
}

impl<'a> ClassifierGuidance<'a> {
    /// Guidance toward `classes`, one per sample. `scale` is the inverse temperature of the
    /// classifier's distribution.
    pub fn new(
        classifier: &'a mut dyn Network,
        classes: Vec<i64>,
        scale: f64,
        sigma_max: f64,
    ) -> Self {
        Self { classifier, classes, scale, sigma_max }
    }
}

impl Guidance for ClassifierGuidance<'_> {
    fn guide(&mut self, context: &StepContext<'_>, d: &mut Array4<f32>) -> Result<()> {
        let sigma = context.level.sigma();
        if sigma > self.sigma_max {
            return Ok(());
        }
        self.classifier.bind(d.dim().into())?;
        let inputs = self.classifier.inputs();
        let scale = (1.0 / context.level.signal) as f32;
        inputs.sample.iter_mut().zip(context.x).for_each(|(y, x)| *y = scale * x);
        label(inputs.class, &self.classes)?;
        let gradient = self.classifier.evaluate(sigma)?;
        let step = (self.scale * sigma * sigma) as f32;
        d.iter_mut().zip(gradient).for_each(|(d, gradient)| *d += step * gradient);
        Ok(())
    }
}

/// Writes the class of each sample to the network's input.
///
/// # Errors
/// [`Error::Usage`] when the network has no classes, or there is not one class per sample.
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
        None => Err(Error::usage(
            "this network is not conditioned on a class; leave the class out, or take one that is",
        )),
    }
}

/// Options of classifier-free guidance (Ho and Salimans 2022).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifierFreeOptions {
    /// `w` in `F = F_without + w * (F_with - F_without)`. With 1, the output is the
    /// class-conditional one. Default: 1.
    pub scale: f64,
    /// How far the standard deviation is rescaled to that of the conditional output, from 0 to 1
    /// (Lin et al. 2024, section 3.4). Default: 0.
    pub rescale: f64,
    /// The range of sigma in which guidance is active (Kynkaanniemi et al. 2024). Outside it, the
    /// conditional output is used. Default: everywhere.
    pub interval: [f64; 2],
}

impl Default for ClassifierFreeOptions {
    fn default() -> Self {
        Self { scale: 1.0, rescale: 0.0, interval: [0.0, f64::INFINITY] }
    }
}

/// A network with classifier-free guidance: it evaluates both classes in one batch and extrapolates
/// from the negative class.
pub struct ClassifierFree<'a> {
    network: &'a mut dyn Network,
    /// The class and the negative class of each sample, of a network that has classes.
    classes: Option<[Vec<i64>; 2]>,
    options: ClassifierFreeOptions,
    /// The noise levels, as passed to the network, at which guidance is active.
    active: Vec<f64>,
    shape: Shape,
    output: Vec<f32>,
}

impl<'a> ClassifierFree<'a> {
    /// Guidance toward classes, one per sample, and away from negative ones, at the levels of
    /// `plan`. `None` is guidance by the other conditions of the network alone
    /// ([`drop_conditions`](Network::drop_conditions)).
    pub fn new(
        network: &'a mut dyn Network,
        classes: Option<[Vec<i64>; 2]>,
        options: ClassifierFreeOptions,
        plan: &Plan,
    ) -> Self {
        let [low, high] = options.interval;
        let steps = plan.steps.iter().filter(|step| (low..=high).contains(&step.level.sigma()));
        let active = steps.map(|step| step.t).collect();
        Self { network, classes, options, active, shape: [0; 4], output: Vec::new() }
    }
}

impl Network for ClassifierFree<'_> {
    fn gains_from_large_tiles(&self) -> bool {
        self.network.gains_from_large_tiles()
    }

    fn bind(&mut self, shape: Shape) -> Result<()> {
        let [batch, channels, height, width] = shape;
        self.network.bind([2 * batch, channels, height, width])?;
        match &self.classes {
            Some(classes) => label(self.network.inputs().class, &classes.concat())?,
            None => self.network.drop_conditions(batch)?,
        }
        self.shape = shape;
        self.output = vec![0.0; shape.iter().product()];
        Ok(())
    }

    /// The inputs of the half with the class. [`evaluate`](Network::evaluate) copies them to the
    /// other half.
    fn inputs(&mut self) -> Inputs<'_> {
        let Inputs { sample, sigma, condition, .. } = self.network.inputs();
        Inputs {
            sample: half(sample),
            sigma: sigma.map(half),
            condition: condition.map(half),
            class: None,
        }
    }

    fn evaluate(&mut self, t: f64) -> Result<&[f32]> {
        let Inputs { sample, sigma, condition, .. } = self.network.inputs();
        for values in [Some(sample), sigma, condition].into_iter().flatten() {
            let (conditional, unconditional) = values.split_at_mut(values.len() / 2);
            unconditional.copy_from_slice(conditional);
        }
        let is_active = self.active.contains(&t);
        let (conditional, unconditional) = self.network.evaluate(t)?.split_at(self.output.len());
        if !is_active {
            self.output.copy_from_slice(conditional);
            return Ok(&self.output);
        }
        let scale = self.options.scale as f32;
        let pairs = self.output.iter_mut().zip(conditional).zip(unconditional);
        pairs.for_each(|((output, with), minus)| *output = minus + scale * (with - minus));
        if self.options.rescale > 0.0 {
            let size = self.output.len() / self.shape[0].max(1);
            for (output, conditional) in
                self.output.chunks_exact_mut(size).zip(conditional.chunks_exact(size))
            {
                rescale(output, conditional, self.options.rescale);
            }
        }
        Ok(&self.output)
    }

    fn trim_memory(&mut self, small: Shape) -> Result<()> {
        self.network.trim_memory(small)
    }
}

fn half(values: &mut [f32]) -> &mut [f32] {
    let middle = values.len() / 2;
    &mut values[..middle]
}

/// Rescales a guided output to the standard deviation of the conditional one, by `amount` from 0 to
/// 1 (Lin et al. 2024, section 3.4).
pub(crate) fn rescale(output: &mut [f32], with: &[f32], amount: f64) {
    let ratio = deviation(with) / deviation(output).max(f64::MIN_POSITIVE);
    let factor = (amount * ratio + 1.0 - amount) as f32;
    output.iter_mut().for_each(|value| *value *= factor);
}

fn deviation(values: &[f32]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    (values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count).sqrt()
}
