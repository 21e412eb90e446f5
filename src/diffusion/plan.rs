//! A sampler is a table: a list of [`Step`]s, built once in f64, that one executor runs without knowing its name.

use crate::error::{Error, Result};

/// How the state stands at one point of the diffusion: `x = signal * x0 + noise * n` with `n ~ N(0, I)`.
///
/// Variance-exploding states (Song et al. 2021, EDM) have `signal = 1`; variance-preserving ones (DDPM) have
/// `signal^2 + noise^2 = 1`. Written as a pair, a schedule that ends in pure noise (`signal = 0`) stays finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// The factor of the clean image, alpha in DPM-Solver's notation.
    pub signal: f64,
    /// The standard deviation of the noise, in the state's own units.
    pub noise: f64,
}

impl Level {
    /// The clean image itself: where every plan ends.
    pub const CLEAN: Self = Self { signal: 1.0, noise: 0.0 };

    /// A variance-exploding level, `x = x0 + sigma * n` (Song et al. 2021, EDM).
    pub fn ve(sigma: f64) -> Self {
        Self { signal: 1.0, noise: sigma }
    }

    /// A variance-preserving level from DDPM's cumulative product `abar` (Ho et al. 2020, equation 4):
    /// `x = sqrt(abar) * x0 + sqrt(1 - abar) * n`.
    pub fn vp(alpha_cumprod: f64) -> Self {
        Self { signal: alpha_cumprod.sqrt(), noise: (1.0 - alpha_cumprod).sqrt() }
    }

    /// The variance-preserving level whose noise-to-signal ratio is `sigma`.
    pub fn vp_from_sigma(sigma: f64) -> Self {
        let signal = 1.0 / sigma.hypot(1.0);
        Self { signal, noise: sigma * signal }
    }

    /// The variance that the forward process adds on the way here from a cleaner level, in this one's units: `beta` when they are
    /// variance-preserving neighbours.
    pub fn variance_from(self, cleaner: Self) -> f64 {
        let ratio = self.signal / cleaner.signal;
        (self.noise * self.noise - ratio * ratio * cleaner.noise * cleaner.noise).max(0.0)
    }

    /// The noise-to-signal ratio, EDM's sigma; infinite for pure noise.
    pub fn sigma(self) -> f64 {
        self.noise / self.signal
    }
}

/// How many values per pixel the rows of a plan may keep for later rows.
pub const SLOTS: usize = 5;

/// One row of a sampler's table: one evaluation of the network and one linear update.
///
/// With `F` the network's output,
///
/// ```text
/// D_raw = c_skip * x + c_out * F(c_in * x, t)
/// D     = D_raw, clipped or thresholded as the plan says
/// x'    = a * x + b * D + sum_j past[j] * H_j + d * z + e * D_raw          z ~ N(0, I)
/// ```
///
/// where `H_j` is what the last row before that keeps slot `j` put there ([`Keep`]): linear multistep methods draw on earlier
/// predictions, and where such a method goes back to an earlier state, that state is a sum of `x` and what was kept. `d = 0` draws
/// no noise. `e` is zero except where a sampler takes the direction of its step from the unclipped prediction (DDIM with
/// `clip_sample`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The scalar by which the network is told the noise level.
    pub t: f64,
    /// The level of `x` before the step. A network that takes a map of sigma is given `noise` times the task's map.
    pub level: Level,
    /// Factor of `x` at the network's input.
    pub c_in: f64,
    /// Factor of `x` in `D_raw`.
    pub c_skip: f64,
    /// Factor of the network's output in `D_raw`.
    pub c_out: f64,
    /// Factor of `x` in the update.
    pub a: f64,
    /// Factor of `D` in the update.
    pub b: f64,
    /// Factors of what earlier rows kept, by slot.
    pub past: [f64; SLOTS],
    /// Factor of fresh noise in the update; multiplied by the task's map of sigma, pixel by pixel.
    pub d: f64,
    /// Factor of `D_raw` in the update.
    pub e: f64,
    /// What is kept for later rows, after the update has read the slots.
    pub keep: Option<Keep>,
}

/// What a row keeps, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The slot, below [`SLOTS`].
    pub slot: usize,
    /// The value.
    pub value: Kept,
}

/// A value that a row can keep for later rows: a sum of its `x` and its `D`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// `D`, the prediction of the clean image.
    Prediction,
    /// The noise that `D` implies, `(x - signal * D) / noise`.
    Noise,
    /// The network's output that `D` implies, `(D - c_skip * x) / c_out`.
    Output,
}

impl Step {
    /// The factors of `x` and of `D` in a value that this row could keep.
    pub fn factors(&self, value: Kept) -> [f64; 2] {
        match value {
            Kept::Prediction => [0.0, 1.0],
            Kept::Noise => [1.0 / self.level.noise, -self.level.signal / self.level.noise],
            Kept::Output => [-self.c_skip / self.c_out, 1.0 / self.c_out],
        }
    }

    /// Whether the update reads what an earlier row kept.
    pub fn looks_back(&self) -> bool {
        self.past != [0.0; SLOTS]
    }
}

/// What is done to a prediction of the clean image before it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Clip {
    /// Nothing.
    #[default]
    None,
    /// Clamped to `-range..=range`.
    Range(f64),
    /// Dynamic thresholding (Saharia et al. 2022, section 2.3): per sample, the `ratio` quantile of `|D|`, held to
    /// `1..=max`, bounds the values and then divides them.
    Threshold {
        /// The quantile, in `0..=1`.
        ratio: f64,
        /// The largest bound.
        max: f64,
    },
}

/// A whole sampling run: rows, and what is done to each prediction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The rows in order.
    pub steps: Vec<Step>,
    /// What is done to each prediction of the clean image.
    pub clip: Clip,
}

impl Plan {
    /// The rows from `first` on, for a state that is at their level already: of them the first knows no row before.
    ///
    /// What a row before would have kept is taken to be what the first of these rows keeps, as if predictions had not changed
    /// until then. For every method that is exact where they do not change, that is one of lower order at the start.
    #[must_use]
    pub fn from_row(&self, first: usize) -> Self {
        let (before, rows) = self.steps.split_at(first.min(self.steps.len()));
        let mut steps = rows.to_vec();
        let mut lost: [Option<Kept>; SLOTS] = [None; SLOTS];
        before.iter().filter_map(|step| step.keep).for_each(|keep| lost[keep.slot] = Some(keep.value));
        // The earliest value since then that is still there.
        let mut earliest = None;
        for step in &mut steps {
            for (slot, value) in lost.iter().enumerate() {
                let Some(value) = *value else { continue };
                let factor = std::mem::take(&mut step.past[slot]);
                match earliest {
                    Some(earliest) => step.past[earliest] += factor,
                    None => {
                        let [of_x, of_d] = step.factors(value);
                        step.a += factor * of_x;
                        step.b += factor * of_d;
                    }
                }
            }
            if let Some(keep) = step.keep {
                lost[keep.slot] = None;
                earliest = earliest.filter(|slot| *slot != keep.slot).or(Some(keep.slot));
            }
        }
        Self { steps, clip: self.clip }
    }

    /// How many slots a run of this plan needs.
    pub fn slots(&self) -> usize {
        let used = |step: &Step| {
            let read = step.past.iter().rposition(|factor| *factor != 0.0);
            read.max(step.keep.map(|keep| keep.slot)).map_or(0, |last| last + 1)
        };
        self.steps.iter().map(used).max().unwrap_or(0)
    }

    /// The same without what is kept and not read.
    pub(crate) fn pruned(mut self) -> Self {
        let mut is_read = [false; SLOTS];
        for step in self.steps.iter_mut().rev() {
            step.keep = step.keep.filter(|keep| std::mem::take(&mut is_read[keep.slot]));
            is_read.iter_mut().zip(&step.past).for_each(|(is_read, factor)| *is_read |= *factor != 0.0);
        }
        self
    }

    /// The same with each step taken `times` times, and the noise between added again before each but the last (Lugmayr et al. 2022,
    /// RePaint, algorithm 1, with jumps of one step). A way down and up again is one row: the noise of both is one noise.
    ///
    /// # Errors
    /// [`Error::Usage`] for plans whose rows look back.
    pub fn resampled(&self, times: usize) -> Result<Self> {
        if times > 1 && self.steps.iter().any(Step::looks_back) {
            return Err(Error::usage(
                "a sampler that draws on earlier predictions cannot resample; take ddim, ddpm or euler-a",
            ));
        }
        let levels = self.steps.iter().skip(1).map(|step| step.level).chain([Level::CLEAN]);
        let rows = self.steps.iter().zip(levels).flat_map(|(step, to)| {
            let ratio = step.level.signal / to.signal;
            let again = Step {
                a: ratio * step.a,
                b: ratio * step.b,
                e: ratio * step.e,
                d: (ratio * ratio * step.d * step.d + step.level.variance_from(to)).sqrt(),
                ..*step
            };
            std::iter::repeat_n(again, times.max(1) - 1).chain([*step])
        });
        Ok(Self { steps: rows.collect(), clip: self.clip })
    }

    /// How many steps of recorded noise a run of this plan reads: one more than the last row that draws.
    pub fn noise_rows(&self) -> usize {
        self.steps.iter().rposition(|step| step.d != 0.0).map_or(0, |last| last + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::{Kept, Plan, SLOTS, Step};
    use crate::diffusion::sampler::{Sampler, Schedule, SigmaSchedule, plan};
    use crate::diffusion::{DiscreteSchedule, Prediction};

    fn table(sampler: Sampler) -> Plan {
        let schedule = DiscreteSchedule { clip_sample: Some(false), ..DiscreteSchedule::default() };
        plan(&Schedule::Discrete(Box::new(schedule)), sampler, 8, None).unwrap()
    }

    /// With predictions that never change, signal and noise follow the levels from wherever a run begins.
    #[test]
    fn a_run_may_begin_at_any_row() {
        let samplers = Sampler::ALL.into_iter().filter(|it| table(*it).steps.iter().any(Step::looks_back));
        for sampler in samplers {
            let whole = table(sampler);
            for first in 0..whole.steps.len() {
                let rest = whole.from_row(first);
                let (level, mut kept) = (rest.steps[0].level, [0.0; SLOTS]);
                // Of an image of value 1, seen through noise of 0.
                let end = rest.steps.iter().fold(level.signal, |x, row| {
                    let past: f64 = row.past.iter().zip(&kept).map(|(factor, kept)| factor * kept).sum();
                    if let Some(keep) = row.keep {
                        let [of_x, of_d] = row.factors(keep.value);
                        kept[keep.slot] = of_x * x + of_d;
                    }
                    row.a * x + row.b + past + row.e
                });
                // Some end at timestep 0, and where the strides are not whole, PNDM asks beside where it stands.
                assert!((end - 1.0).abs() < 1e-2, "{sampler} from {first}: {end}");
            }
        }
    }

    #[test]
    fn only_what_is_read_is_kept() {
        for (sampler, slots) in [
            (Sampler::DDIM, 0),
            (Sampler::EULER, 0),
            (Sampler::DPMPP_2M, 1),
            (Sampler::HEUN, 1),
            (Sampler::KDPM2, 1),
            (Sampler::UNIPC, 2),
            (Sampler::DPMPP_3M, 2),
            (Sampler::LMS, 3),
            (Sampler::PNDM, 5),
        ] {
            assert_eq!(table(sampler).slots(), slots, "{sampler}");
        }
        let range = Schedule::Sigmas(SigmaSchedule::new(Prediction::Denoised, 0.01, 10.0));
        let deis = plan(&range, Sampler::DEIS, 5, None).unwrap();
        assert_eq!(deis.slots(), 1);
        assert_eq!(deis.steps[0].keep.map(|keep| keep.value), Some(Kept::Noise));
        assert_eq!(deis.steps[4].keep, None);
    }
}
