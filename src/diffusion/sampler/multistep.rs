//! Linear multistep methods: steps that read the predictions of earlier steps.

use super::levels::Transition;
use crate::diffusion::discrete::SolverType;
use crate::diffusion::parameterization::Scaling;
use crate::diffusion::plan::{HISTORY_SLOTS, HistoryEntry, HistoryValue, Level, Step};

/// The largest number of earlier values that a multistep step reads.
pub(super) const LAGS: usize = 3;

/// A step `x' = x * x + sum of[j] * H_j + d * z`, where `H_j` is the value of the step `j` before,
/// and `H_0` its own.
pub(super) struct Lagged {
    pub(super) transition: Transition,
    /// The kind of the values.
    pub(super) value: HistoryValue,
    /// Factor of the state.
    pub(super) x: f64,
    /// Factors of the values, this step's first.
    pub(super) of: [f64; LAGS + 1],
    /// Factor of noise.
    pub(super) d: f64,
}

impl Lagged {
    /// The table of these steps, with as few slots as possible.
    pub(super) fn table(rows: &[Self]) -> Vec<Step> {
        let lag = |row: &Self| row.of.iter().rposition(|factor| *factor != 0.0).unwrap_or(0);
        let slots = rows.iter().map(lag).max().unwrap_or(0).max(1);
        let table = rows.iter().enumerate().map(|(i, row)| {
            let mut step =
                row_of(row.transition.from, row.transition.scaling, row.value, [row.x, row.of[0]]);
            for (j, factor) in row.of.iter().enumerate().skip(1).take(i.min(slots)) {
                step.past[(i - j) % slots] = *factor;
            }
            step.d = row.d;
            step.store = Some(HistoryEntry { slot: i % slots, value: row.value });
            step
        });
        table.collect()
    }
}

/// The step `x' = x * x + now * H`, where `H` is the step's own `value`. Nothing is kept.
pub(super) fn row_of(
    level: Level,
    scaling: Scaling,
    value: HistoryValue,
    [x, now]: [f64; 2],
) -> Step {
    let Scaling { c_in, c_skip, c_out, t } = scaling;
    let nothing = Step {
        t,
        level,
        c_in,
        c_skip,
        c_out,
        a: x,
        b: 0.0,
        past: [0.0; HISTORY_SLOTS],
        d: 0.0,
        e: 0.0,
        store: None,
    };
    let [of_x, of_d] = nothing.factors(value);
    if now == 0.0 { nothing } else { Step { a: x + now * of_x, b: now * of_d, ..nothing } }
}

/// `-ln(sigma)`, half of the log signal-to-noise ratio. Infinite at the clean image.
pub(super) fn lambda(level: Level) -> f64 {
    -level.sigma().ln()
}

/// The factors of the divided differences of the predicted clean image over a step from `from` to
/// `to`, the prediction itself first (Lu et al. 2022, DPM-Solver++, appendix B): integrals of the
/// exponential.
pub(super) fn moments(from: Level, to: Level) -> [f64; 3] {
    let h = lambda(to) - lambda(from);
    let ratio = to.sigma() / from.sigma();
    if h == 0.0 {
        return [0.0; 3];
    }
    let first = 1.0 - ratio;
    [first, 1.0 - first / h, 0.5 - (h - first) / (h * h)].map(|factor| to.signal * factor)
}

/// The factor of the slope of the predicted clean image in a second-order step (Lu et al. 2022,
/// DPM-Solver++, equation 14 and appendix B).
pub(super) fn moment(from: Level, to: Level, solver: SolverType) -> f64 {
    let [first, second, _] = moments(from, to);
    match solver {
        SolverType::Midpoint => 0.5 * first,
        SolverType::Heun => second,
    }
}

/// The factors of this step's prediction and of the one before, which was at the level `before`, in
/// a second-order step.
pub(super) fn second_order(before: Level, from: Level, to: Level, solver: SolverType) -> [f64; 2] {
    let slope =
        moment(from, to, solver) * ratio(lambda(to) - lambda(from), lambda(from) - lambda(before));
    [moments(from, to)[0] + slope, -slope]
}

/// `a / b`, or zero for two steps at equal levels.
pub(super) fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}
