//! UniPC: a predictor and a corrector of arbitrary order that together take one evaluation per
//! step.

use super::multistep::{LAGS, Lagged, lambda};
use super::{Definition, LevelPath, Levels, Sampler};
use crate::diffusion::discrete::UniPcVariant;
use crate::diffusion::plan::HistoryValue;

impl Sampler {
    /// `unipc`: the unified predictor-corrector of `solver_order` 1 to 3, with B(h) given by
    /// `solver_type`.
    ///
    /// The corrector of a step uses the next evaluation. The network sees the predicted state, and
    /// the next step starts from the corrected state. Their difference is a sum of predictions, so
    /// both are one row.
    pub const UNIPC: Self = Self(&Definition {
        name: "unipc",
        class: Some("UniPCMultistepScheduler"),
        paper: "Zhao et al. 2023, algorithms 1 and 2; as in diffusers",
        path: LevelPath::UniPc,
        eta: None,
        rows: |path_levels, _| {
            let settings = &path_levels.settings;
            let value = if settings.predicts_noise {
                HistoryValue::Noise
            } else {
                HistoryValue::Prediction
            };
            let orders = path_levels
                .orders(settings.solver_order, settings.lower_order_final.unwrap_or(true));
            let rows = path_levels.transitions.iter().enumerate().map(|(i, transition)| {
                let ratio = if settings.predicts_noise {
                    transition.to.signal / transition.from.signal
                } else {
                    transition.to.noise / transition.from.noise
                };
                let mut of = Step::new(path_levels, i, orders[i]).predicted();
                if i > 0 && !settings.disable_corrector.contains(&(i - 1)) {
                    let correction = Step::new(path_levels, i - 1, orders[i - 1]).correction();
                    of.iter_mut()
                        .zip(correction)
                        .for_each(|(of, correction)| *of += ratio * correction);
                }
                Lagged { transition: *transition, value, x: ratio, of, d: 0.0 }
            });
            Lagged::table(&rows.collect::<Vec<_>>())
        },
    });
}

/// The terms of a step's formulas.
struct Step {
    order: usize,
    /// `h` with the sign of the exponential: `-h` for predictions of the clean image.
    hh: f64,
    /// The positions of the earlier steps in units of `h`, then 1.
    r: Vec<f64>,
    /// Factors of the exponential's first integral, and of the terms scaled by B(h).
    first: f64,
    scale: f64,
    /// The right-hand side of equation 8, divided by B(h).
    right: Vec<f64>,
}

impl Step {
    fn new(path_levels: &Levels, i: usize, order: usize) -> Self {
        let transition = &path_levels.transitions[i];
        let h = lambda(transition.to) - lambda(transition.from);
        let earlier = (1..order)
            .map(|k| (lambda(path_levels.transitions[i - k].from) - lambda(transition.from)) / h);
        let r = earlier.chain([1.0]).collect();
        let (hh, of_first) = if path_levels.settings.predicts_noise {
            (h, transition.to.noise)
        } else {
            (-h, transition.to.signal)
        };
        // `sigma_t * (exp(h) - 1)` stays finite at the clean image.
        let first = if path_levels.settings.predicts_noise {
            transition.to.signal * transition.from.sigma() - transition.to.noise
        } else {
            of_first * hh.exp_m1()
        };
        let b = match path_levels.settings.unipc_variant {
            UniPcVariant::Bh1 => hh,
            UniPcVariant::Bh2 => hh.exp_m1(),
        };
        let mut phi = hh.exp_m1() / hh - 1.0;
        let mut factorial = 1.0;
        let right = (1..=order).map(|k| {
            let right = phi * factorial / b;
            factorial *= (k + 1) as f64;
            phi = phi / hh - 1.0 / factorial;
            right
        });
        let right = right.collect();
        Self { order, hh, r, first, scale: of_first * b, right }
    }

    /// Factors of the predictions in the predicted state, this step's first.
    fn predicted(&self) -> [f64; LAGS + 1] {
        let mut of = self.differences(&self.predictor());
        of[0] -= self.first;
        of
    }

    /// Factors of the predictions in the corrected state minus the predicted state, the next step's
    /// first.
    fn correction(&self) -> [f64; LAGS + 1] {
        if self.hh == 0.0 {
            return [0.0; LAGS + 1];
        }
        let corrector = if self.order == 1 { vec![0.5] } else { solve(&self.r, &self.right) };
        let earlier: Vec<f64> = corrector
            .iter()
            .zip(self.predictor().into_iter().chain([0.0]))
            .map(|(c, p)| c - p)
            .collect();
        let newest = -self.scale * corrector[self.order - 1];
        let mut of = [newest, -newest, 0.0, 0.0];
        let [start @ .., _] = self.differences(&earlier[..self.order - 1]);
        of[1..].iter_mut().zip(start).for_each(|(of, start)| *of += start);
        of
    }

    fn predictor(&self) -> Vec<f64> {
        match self.order {
            1 => Vec::new(),
            // As in the authors' code.
            2 => vec![0.5],
            order => solve(&self.r[..order - 1], &self.right[..order - 1]),
        }
    }

    /// Factors of the predictions, that at the start of the step first, in the sum of their
    /// differences from it, each divided by its position.
    fn differences(&self, rho: &[f64]) -> [f64; LAGS + 1] {
        let mut of = [0.0; LAGS + 1];
        if self.hh == 0.0 {
            return of;
        }
        for (k, (rho, r)) in rho.iter().zip(&self.r).enumerate() {
            let factor = -self.scale * rho / r;
            of[k + 1] = factor;
            of[0] -= factor;
        }
        of
    }
}

/// Solves `sum_k r[k]^i * x[k] = right[i]`, at most three equations, by elimination.
fn solve(r: &[f64], right: &[f64]) -> Vec<f64> {
    let count = r.len();
    let mut rows: Vec<Vec<f64>> = (0..count)
        .map(|i| r.iter().map(|r| r.powi(i as i32)).chain([right[i]]).collect())
        .collect();
    for i in 0..count {
        // The first equation has ones, and the points differ, so no pivot is zero.
        for j in (0..count).filter(|j| *j != i) {
            let factor = rows[j][i] / rows[i][i];
            let pivot = rows[i].clone();
            rows[j].iter_mut().zip(pivot).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    (0..count).map(|i| rows[i][count] / rows[i][i]).collect()
}
