//! The state of a sampling run as a tensor, and the linear update of its rows.

use ndarray::Array4;

use crate::diffusion::clip::Clamp;
use crate::diffusion::executor::{Canvas, SigmaMap, Update, Window, read_plane};
use crate::diffusion::guidance::{Guidance, StepContext};
use crate::diffusion::noise::{NoiseAt, NoiseSource};
use crate::diffusion::plan::{Clip, HISTORY_SLOTS, Plan, Step};
use crate::error::Result;
use crate::network::Shape;

/// The network's output for windows that need not be evaluated.
pub trait CachedTiles {
    /// See [`Canvas::recall`].
    fn recall(&self, window: Window, out: &mut Vec<f32>) -> bool;
}

/// The state `x`, `[batch, channels, height, width]`, with the buffers that its updates read.
pub struct State<'a> {
    x: Array4<f32>,
    /// The values that steps keep for later steps, slot by slot, each of the shape of `x`.
    kept: Vec<f32>,
    /// One row of pixels of a kept value, before it is written to its slot.
    keeping: Vec<f32>,
    noise: &'a dyn NoiseSource,
    sigma: &'a SigmaMap,
    known: Option<&'a dyn CachedTiles>,
    /// The guidance, and the prediction of the whole image that it changes.
    guides: Vec<&'a mut dyn Guidance>,
    predicted: Option<Array4<f32>>,
    /// The number of steps of the plan.
    count: usize,
    /// One row of fresh noise.
    fresh: Vec<f32>,
    /// Magnitudes of a sample's `D`, for dynamic thresholding.
    magnitudes: Vec<f32>,
}

impl<'a> State<'a> {
    /// A state at the level at which `plan` starts. `sigma` is the map that the plan is run with;
    /// it scales the noise.
    ///
    /// # Errors
    /// When `noise` does not cover this plan and shape.
    pub fn new(
        x: Array4<f32>,
        plan: &Plan,
        noise: &'a dyn NoiseSource,
        sigma: &'a SigmaMap,
    ) -> Result<Self> {
        let noise_rows = plan.noise_rows();
        if noise_rows > 0 {
            noise.covers(noise_rows, x.dim().into())?;
        }
        // The slices below need the standard layout.
        let x = if x.is_standard_layout() { x } else { x.as_standard_layout().into_owned() };
        let slots = plan.slots();
        let kept = vec![0.0; slots * x.len()];
        let keeping = vec![0.0; if slots > 0 { x.dim().3 } else { 0 }];
        let fresh = vec![0.0; if noise_rows > 0 { x.dim().3 } else { 0 }];
        let thresholds = matches!(plan.clip, Clip::Threshold { .. });
        let magnitudes =
            Vec::with_capacity(if thresholds { x.len() / x.dim().0.max(1) } else { 0 });
        let (guides, predicted, count) = (Vec::new(), None, plan.steps.len());
        Ok(Self {
            x,
            kept,
            keeping,
            noise,
            sigma,
            known: None,
            guides,
            predicted,
            count,
            fresh,
            magnitudes,
        })
    }

    /// This state with cached output for some windows.
    pub fn with_cached(self, known: Option<&'a dyn CachedTiles>) -> Self {
        Self { known, ..self }
    }

    /// This state with `guides`, applied in order.
    pub fn guided(mut self, guides: Vec<&'a mut dyn Guidance>) -> Self {
        self.predicted = (!guides.is_empty()).then(|| Array4::zeros(self.x.dim()));
        self.guides = guides;
        self
    }

    /// The tensor, to change it between steps.
    pub(crate) fn tensor_mut(&mut self) -> &mut Array4<f32> {
        &mut self.x
    }

    /// The tensor after the last step.
    pub fn into_inner(self) -> Array4<f32> {
        self.x
    }
}

impl Canvas for State<'_> {
    fn shape(&self) -> Shape {
        self.x.dim().into()
    }

    fn read(&self, window: Window, scale: f32, out: &mut [f32]) -> Result<()> {
        let [_, _, height, width] = self.shape();
        let planes = self.x.as_slice().unwrap_or_default().chunks_exact(height * width);
        for (plane, out) in planes.zip(out.chunks_exact_mut(window.width * window.height)) {
            read_plane(plane, width, window, scale, out);
        }
        Ok(())
    }

    fn recall(&self, window: Window, out: &mut Vec<f32>) -> bool {
        self.known.is_some_and(|known| known.recall(window, out))
    }

    fn update(&mut self, update: &Update<'_>) -> Result<()> {
        let [batch, channels, height, width] = self.shape();
        let linear = Linear::new(update.step);
        let mut rows = update.rows.clone();
        if self.predicted.is_some() {
            self.predict(update, &linear);
            if rows.end < height {
                return Ok(());
            }
            // All rows have been predicted.
            self.guide(update)?;
            rows = 0..height;
        }
        let Some(x) = self.x.as_slice_mut() else { return Ok(()) };
        let predicted = self.predicted.as_ref().and_then(|array| array.as_slice());
        let reads_history = !self.kept.is_empty();
        let size = x.len();
        for sample in 0..batch {
            let hold = match update.clip {
                Clip::None => None,
                Clip::Range(range) => Some(Clamp::range(range)),
                Clip::Threshold { ratio, max } => {
                    // The executor passes whole images here.
                    self.magnitudes.clear();
                    for plane in sample * channels..(sample + 1) * channels {
                        for y in rows.clone() {
                            let start = (plane * height + y) * width;
                            if let Some(predicted) = predicted {
                                self.magnitudes
                                    .extend(predicted[start..][..width].iter().map(|d| d.abs()));
                                continue;
                            }
                            let output = update.output.row(plane, y, width);
                            let pairs = x[start..][..width].iter().zip(output);
                            self.magnitudes
                                .extend(pairs.map(|(x, f)| linear.prediction(*x, *f).abs()));
                        }
                    }
                    Some(Clamp::threshold(&mut self.magnitudes, ratio, max))
                }
            };
            for channel in 0..channels {
                let plane = sample * channels + channel;
                for y in rows.clone() {
                    let start = (plane * height + y) * width;
                    let row = &mut x[start..start + width];
                    if let Some(predicted) = predicted {
                        linear.advance_to(
                            row,
                            &predicted[start..][..width],
                            &mut self.keeping,
                            hold,
                        );
                    } else if reads_history || hold.is_some() {
                        let output = update.output.row(plane, y, width);
                        linear.advance_by_prediction(row, output, &mut self.keeping, hold);
                    } else {
                        linear.advance(row, update.output.row(plane, y, width));
                    }
                    for (slot, factor) in
                        linear.past.iter().enumerate().filter(|(_, factor)| **factor != 0.0)
                    {
                        let kept = &self.kept[slot * size + start..][..width];
                        row.iter_mut().zip(kept).for_each(|(x, kept)| *x += factor * kept);
                    }
                    if let Some((slot, _)) = linear.store {
                        self.kept[slot * size + start..][..width].copy_from_slice(&self.keeping);
                    }
                    if update.step.d != 0.0 {
                        let at = NoiseAt {
                            step: update.index as u32,
                            batch: sample as u32,
                            channel: channel as u32,
                            y: y as u32,
                        };
                        self.noise.fill(at, 0, &mut self.fresh);
                        add_noise(row, &self.fresh, update.step.d as f32, self.sigma, channel, y);
                    }
                }
            }
        }
        Ok(())
    }
}

impl State<'_> {
    /// Stores the prediction for the rows of `update`.
    fn predict(&mut self, update: &Update<'_>, linear: &Linear) {
        let [batch, channels, height, width] = self.shape();
        let x = self.x.as_slice().unwrap_or_default();
        let Some(predicted) = self.predicted.as_mut().and_then(|array| array.as_slice_mut()) else {
            return;
        };
        for plane in 0..batch * channels {
            for y in update.rows.clone() {
                let row = (plane * height + y) * width..(plane * height + y + 1) * width;
                let pairs = x[row.clone()].iter().zip(update.output.row(plane, y, width));
                predicted[row]
                    .iter_mut()
                    .zip(pairs)
                    .for_each(|(d, (x, f))| *d = linear.prediction(*x, *f));
            }
        }
    }

    fn guide(&mut self, update: &Update<'_>) -> Result<()> {
        let Some(predicted) = &mut self.predicted else { return Ok(()) };
        let context = StepContext {
            index: update.index,
            count: self.count,
            level: update.step.level,
            x: &self.x,
        };
        self.guides.iter_mut().try_for_each(|guide| guide.guide(&context, predicted))
    }
}

fn add_noise(row: &mut [f32], fresh: &[f32], d: f32, sigma: &SigmaMap, channel: usize, y: usize) {
    match sigma {
        SigmaMap::Uniform(sigma) => {
            row.iter_mut().zip(fresh).for_each(|(x, z)| *x += d * sigma * z)
        }
        _ => {
            row.iter_mut()
                .zip(fresh)
                .enumerate()
                .for_each(|(i, (x, z))| *x += d * sigma.at(channel, i, y) * z);
        }
    }
}

/// The factors of a step as the loop uses them: combined in f64, then rounded to f32 once.
pub(crate) struct Linear {
    /// Factors of `x` and of the network's output, when `D` itself is not needed.
    pub(crate) direct: (f32, f32),
    /// Factors of `x` and of the network's output in `D_raw`.
    pub(crate) raw: (f32, f32),
    pub(crate) a: f32,
    pub(crate) b: f32,
    pub(crate) e: f32,
    pub(crate) past: [f32; HISTORY_SLOTS],
    /// The slot that is written, and the factors of `x` and of `D` in the kept value.
    pub(crate) store: Option<(usize, [f32; 2])>,
}

impl Linear {
    pub(crate) fn new(step: &Step) -> Self {
        let of_prediction = step.b + step.e;
        Self {
            direct: (
                (step.a + of_prediction * step.c_skip) as f32,
                (of_prediction * step.c_out) as f32,
            ),
            raw: (step.c_skip as f32, step.c_out as f32),
            a: step.a as f32,
            b: step.b as f32,
            e: step.e as f32,
            past: step.past.map(|factor| factor as f32),
            store: step
                .store
                .map(|entry| (entry.slot, step.factors(entry.value).map(|factor| factor as f32))),
        }
    }

    fn prediction(&self, x: f32, output: f32) -> f32 {
        self.raw.0 * x + self.raw.1 * output
    }

    /// `x' = a x + (b + e) D_raw`, for steps that need `D` for nothing else.
    fn advance(&self, row: &mut [f32], output: &[f32]) {
        let (of_x, of_output) = self.direct;
        if of_x == 0.0 && of_output == 1.0 {
            row.copy_from_slice(output);
        } else {
            row.iter_mut().zip(output).for_each(|(x, f)| *x = of_x * *x + of_output * f);
        }
    }

    /// [`advance_by_prediction`](Self::advance_by_prediction), with the prediction as input.
    fn advance_to(&self, row: &mut [f32], raw: &[f32], keeping: &mut [f32], hold: Option<Clamp>) {
        self.advance_each(row, raw, keeping, hold, |_, raw| raw);
    }

    /// The step's update without noise and kept values, with `D` limited by `hold`. The kept value
    /// of this step, if any, is written to `keeping`.
    fn advance_by_prediction(
        &self,
        row: &mut [f32],
        output: &[f32],
        keeping: &mut [f32],
        hold: Option<Clamp>,
    ) {
        self.advance_each(row, output, keeping, hold, |x, f| self.prediction(x, f));
    }

    fn advance_each(
        &self,
        row: &mut [f32],
        values: &[f32],
        keeping: &mut [f32],
        hold: Option<Clamp>,
        raw: impl Fn(f32, f32) -> f32,
    ) {
        let step = |x: f32, value: f32| {
            let raw = raw(x, value);
            let d = hold.map_or(raw, |hold| hold.apply(raw));
            (self.a * x + self.b * d + self.e * raw, d)
        };
        match self.store {
            Some((_, [of_x, of_d])) => {
                for ((x, value), kept) in row.iter_mut().zip(values).zip(keeping) {
                    let (next, d) = step(*x, *value);
                    *kept = if of_x == 0.0 { of_d * d } else { of_x * *x + of_d * d };
                    *x = next;
                }
            }
            None => row.iter_mut().zip(values).for_each(|(x, value)| *x = step(*x, *value).0),
        }
    }
}
