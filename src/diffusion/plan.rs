//! A sampler is a table: a list of [`Step`]s, computed once in f64. One executor runs every table.

use crate::error::{Error, Result};

/// A noise level: the state is `x = signal * x0 + noise * n` with `n ~ N(0, I)`.
///
/// Variance-exploding states (Song et al. 2021, EDM) have `signal = 1`; variance-preserving states
/// (DDPM) have `signal^2 + noise^2 = 1`. As a pair, a schedule that ends in pure noise (`signal =
/// 0`) stays finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// The factor of the clean image, alpha in DPM-Solver's notation.
    pub signal: f64,
    /// The standard deviation of the noise, in the state's own units.
    pub noise: f64,
}

impl Level {
    /// The clean image, at which every plan ends.
    pub const CLEAN: Self = Self { signal: 1.0, noise: 0.0 };

    /// A variance-exploding level, `x = x0 + sigma * n` (Song et al. 2021, EDM).
    pub fn ve(sigma: f64) -> Self {
        Self { signal: 1.0, noise: sigma }
    }

    /// A variance-preserving level from DDPM's cumulative product `abar` (Ho et al. 2020, equation
    /// 4): `x = sqrt(abar) * x0 + sqrt(1 - abar) * n`.
    pub fn vp(alpha_cumprod: f64) -> Self {
        Self { signal: alpha_cumprod.sqrt(), noise: (1.0 - alpha_cumprod).sqrt() }
    }

    /// The variance-preserving level whose noise-to-signal ratio is `sigma`.
    pub fn vp_from_sigma(sigma: f64) -> Self {
        let signal = 1.0 / sigma.hypot(1.0);
        Self { signal, noise: sigma * signal }
    }

    /// The variance that the forward process adds from the `cleaner` level to this one, in this
    /// level's units. For adjacent variance-preserving levels it is `beta`.
    pub fn variance_from(self, cleaner: Self) -> f64 {
        let ratio = self.signal / cleaner.signal;
        (self.noise * self.noise - ratio * ratio * cleaner.noise * cleaner.noise).max(0.0)
    }

    /// The noise-to-signal ratio, EDM's sigma. Infinite for pure noise.
    pub fn sigma(self) -> f64 {
        self.noise / self.signal
    }
}

/// How many values per pixel a plan can store for later steps.
pub const HISTORY_SLOTS: usize = 5;

/// One step of a sampler: one evaluation of the network and one linear update.
///
/// With `F` the network's output,
///
/// ```text
/// D_raw = c_skip * x + c_out * F(c_in * x, t)
/// D     = D_raw, clipped or thresholded according to the plan
/// x'    = a * x + b * D + sum_j past[j] * H_j + d * z + e * D_raw          z ~ N(0, I)
/// ```
///
/// `H_j` is the value that an earlier step stored in slot `j` ([`HistoryEntry`]). Linear multistep
/// methods store predictions. Methods that return to an earlier state compute it from `x` and the
/// stored values. With `d = 0` the step adds no noise. `e` is nonzero only where the direction of a
/// step comes from the unclipped prediction (DDIM with `clip_sample`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The scalar noise level that the network is conditioned on.
    pub t: f64,
    /// The level of `x` before the step. A network that takes a sigma map gets `noise` times the
    /// task's map.
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
    /// Factors of the values that earlier steps stored, by slot.
    pub past: [f64; HISTORY_SLOTS],
    /// Factor of fresh noise in the update, which is also multiplied by the task's sigma map.
    pub d: f64,
    /// Factor of `D_raw` in the update.
    pub e: f64,
    /// The value to store for later steps, after the update has read the slots.
    pub store: Option<HistoryEntry>,
}

/// A value that a step stores, and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The slot, below [`HISTORY_SLOTS`].
    pub slot: usize,
    /// The value.
    pub value: HistoryValue,
}

/// A value that a step can store for later steps: a linear combination of its `x` and its `D`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryValue {
    /// `D`, the predicted clean image.
    Prediction,
    /// The noise that `D` implies, `(x - signal * D) / noise`.
    Noise,
    /// The network's output that `D` implies, `(D - c_skip * x) / c_out`.
    Output,
}

impl Step {
    /// The factors of `x` and of `D` in a value that this step stores.
    pub fn factors(&self, value: HistoryValue) -> [f64; 2] {
        match value {
            HistoryValue::Prediction => [0.0, 1.0],
            HistoryValue::Noise => [1.0 / self.level.noise, -self.level.signal / self.level.noise],
            HistoryValue::Output => [-self.c_skip / self.c_out, 1.0 / self.c_out],
        }
    }

    /// Whether the update reads a value that an earlier step stored.
    pub fn reads_history(&self) -> bool {
        self.past != [0.0; HISTORY_SLOTS]
    }
}

/// The limit on a predicted clean image before it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Clip {
    /// No limit.
    #[default]
    None,
    /// Clamped to `-range..=range`.
    Range(f64),
    /// Dynamic thresholding (Saharia et al. 2022, section 2.3), per sample. The bound is the
    /// `ratio` quantile of `|D|`, clamped to `1..=max`. Values are clamped to the bound and divided
    /// by it.
    Threshold {
        /// The quantile, in `0..=1`.
        ratio: f64,
        /// The upper limit of the bound.
        max: f64,
    },
}

/// A sampling run: its steps, and the limit on each prediction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The steps in order.
    pub steps: Vec<Step>,
    /// The limit on each predicted clean image.
    pub clip: Clip,
}

impl Plan {
    /// The plan from step `first` on, for a state that is already at that step's level.
    ///
    /// Values that skipped steps would have stored are replaced by the value that the first
    /// remaining step stores, as if predictions had been constant before it. All methods here are
    /// exact for constant predictions, so this starts at lower order.
    #[must_use]
    pub fn from_row(&self, first: usize) -> Self {
        let (before, rows) = self.steps.split_at(first.min(self.steps.len()));
        let mut steps = rows.to_vec();
        let mut lost: [Option<HistoryValue>; HISTORY_SLOTS] = [None; HISTORY_SLOTS];
        before
            .iter()
            .filter_map(|step| step.store)
            .for_each(|entry| lost[entry.slot] = Some(entry.value));
        // The slot of the earliest value that is still stored.
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
            if let Some(entry) = step.store {
                lost[entry.slot] = None;
                earliest = earliest.filter(|slot| *slot != entry.slot).or(Some(entry.slot));
            }
        }
        Self { steps, clip: self.clip }
    }

    /// The number of slots that a run of this plan needs.
    pub fn slots(&self) -> usize {
        let used = |step: &Step| {
            let read = step.past.iter().rposition(|factor| *factor != 0.0);
            read.max(step.store.map(|entry| entry.slot)).map_or(0, |last| last + 1)
        };
        self.steps.iter().map(used).max().unwrap_or(0)
    }

    /// The plan without values that are stored but never read.
    pub(crate) fn pruned(mut self) -> Self {
        let mut is_read = [false; HISTORY_SLOTS];
        for step in self.steps.iter_mut().rev() {
            step.store = step.store.filter(|entry| std::mem::take(&mut is_read[entry.slot]));
            is_read
                .iter_mut()
                .zip(&step.past)
                .for_each(|(is_read, factor)| *is_read |= *factor != 0.0);
        }
        self
    }

    /// A plan that takes each step `times` times and adds the noise between the levels again before
    /// each repetition (Lugmayr et al. 2022, RePaint, algorithm 1, with jumps of one step). A step
    /// down and the noise added back are one row: their noises are merged.
    ///
    /// # Errors
    /// [`Error::Usage`] for plans whose steps read stored values.
    pub fn resampled(&self, times: usize) -> Result<Self> {
        if times > 1 && self.steps.iter().any(Step::reads_history) {
            return Err(Error::usage(
                "a multistep sampler cannot resample; use ddim, ddpm or \
                 euler-a",
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

    /// The number of steps of recorded noise that a run reads: one more than the last step that
    /// adds noise.
    pub fn noise_rows(&self) -> usize {
        self.steps.iter().rposition(|step| step.d != 0.0).map_or(0, |last| last + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::{HISTORY_SLOTS, HistoryValue, Plan, Step};
    use crate::diffusion::sampler::{Sampler, Schedule, SigmaSchedule, plan};
    use crate::diffusion::{DiscreteSchedule, Prediction};

    fn table(sampler: Sampler) -> Plan {
        let schedule = DiscreteSchedule { clip_sample: Some(false), ..DiscreteSchedule::default() };
        plan(&Schedule::Discrete(Box::new(schedule)), sampler, 8, None).unwrap()
    }

    /// With constant predictions, signal and noise follow the levels from any step at which a run
    /// begins.
    #[test]
    fn a_run_can_start_at_any_step() {
        let samplers =
            Sampler::ALL.into_iter().filter(|it| table(*it).steps.iter().any(Step::reads_history));
        for sampler in samplers {
            let whole = table(sampler);
            for first in 0..whole.steps.len() {
                let rest = whole.from_row(first);
                let (level, mut kept) = (rest.steps[0].level, [0.0; HISTORY_SLOTS]);
                // An image of value 1 with noise 0.
                let end = rest.steps.iter().fold(level.signal, |x, row| {
                    let past: f64 =
                        row.past.iter().zip(&kept).map(|(factor, kept)| factor * kept).sum();
                    if let Some(entry) = row.store {
                        let [of_x, of_d] = row.factors(entry.value);
                        kept[entry.slot] = of_x * x + of_d;
                    }
                    row.a * x + row.b + past + row.e
                });
                // Some plans end at timestep 0, and PNDM with fractional strides evaluates beside
                // the current level.
                assert!((end - 1.0).abs() < 1e-2, "{sampler} from {first}: {end}");
            }
        }
    }

    #[test]
    fn unread_values_are_not_kept() {
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
        assert_eq!(deis.steps[0].store.map(|entry| entry.value), Some(HistoryValue::Noise));
        assert_eq!(deis.steps[4].store, None);
    }
}
