//! Which training timesteps are visited (Lin et al. 2024, table 2), as in diffusers' schedulers.

use serde::{Deserialize, Serialize};

/// How the visited timesteps are spaced over the training schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Multiples of an integer stride from zero, plus `steps_offset`. The last training timestep is
    /// not visited.
    Leading,
    /// Evenly spaced from the first to the last training timestep.
    Linspace,
    /// Down from the last training timestep by a stride that may be fractional.
    ///
    /// There are always as many timesteps as steps. Where the stride rounds down (61 steps of
    /// 1000), diffusers visits one more, -1, which its tables read as the last training timestep.
    /// Eddy does not.
    Trailing,
}

/// The timesteps of DDIM and DDPM, descending.
pub fn markov_timesteps(
    spacing: Spacing,
    train_steps: usize,
    steps: usize,
    offset: usize,
) -> Vec<usize> {
    let whole = |t: f64| t.round_ties_even() as usize;
    match spacing {
        Spacing::Leading => leading(train_steps / steps, steps, offset),
        Spacing::Linspace => even(train_steps - 1, steps).into_iter().rev().map(whole).collect(),
        Spacing::Trailing => trailing(train_steps, train_steps, steps),
    }
}

/// The timesteps of Euler's method, descending. `Linspace` does not round them.
pub fn euler_timesteps(
    spacing: Spacing,
    train_steps: usize,
    steps: usize,
    offset: usize,
) -> Vec<f64> {
    match spacing {
        Spacing::Linspace => even(train_steps - 1, steps).into_iter().rev().collect(),
        _ => markov_timesteps(spacing, train_steps, steps, offset)
            .into_iter()
            .map(|t| t as f64)
            .collect(),
    }
}

/// The timesteps of DPM-Solver++, descending. `Leading` and `Linspace` compute one more point and
/// drop the lowest, because the solver's last step ends at the clean image. `last` is one more than
/// the highest timestep used.
///
/// `Trailing` may give fewer than `steps` when `last` is below `train_steps`.
pub fn solver_timesteps(
    spacing: Spacing,
    train_steps: usize,
    last: usize,
    steps: usize,
    offset: usize,
) -> Vec<usize> {
    let mut timesteps = match spacing {
        Spacing::Leading => leading(last / (steps + 1), steps + 1, offset),
        Spacing::Linspace => even(last - 1, steps + 1)
            .into_iter()
            .rev()
            .map(|t| t.round_ties_even() as usize)
            .collect(),
        Spacing::Trailing => return trailing(train_steps, last, steps),
    };
    timesteps.pop();
    timesteps
}

/// The timesteps of consistency models, descending. Of `distilled` timesteps, evenly spaced up to
/// the last training timestep, the lowest `used` are taken, and of these `steps`, evenly from the
/// highest down (as in diffusers).
pub fn consistency_timesteps(
    train_steps: usize,
    distilled: usize,
    used: usize,
    steps: usize,
) -> Vec<usize> {
    let stride = train_steps / distilled;
    let part = used as f64 / steps as f64;
    (0..steps).map(|i| (used - (i as f64 * part) as usize) * stride - 1).collect()
}

fn leading(stride: usize, count: usize, offset: usize) -> Vec<usize> {
    (0..count).rev().map(|i| i * stride + offset).collect()
}

/// `count` evenly spaced points from 0 to `last`, both included. A single point is 0.
fn even(last: usize, count: usize) -> Vec<f64> {
    let stride = last as f64 / (count.max(2) - 1) as f64;
    (0..count)
        .map(|i| if i > 0 && i == count - 1 { last as f64 } else { i as f64 * stride })
        .collect()
}

fn trailing(train_steps: usize, last: usize, steps: usize) -> Vec<usize> {
    let (start, stride) = (last as f64, train_steps as f64 / steps as f64);
    // The stride after rounding at the magnitude of `start`, which decides how halves are rounded.
    let stride = start - (start - stride);
    let points = (0..steps).map(|i| (start - i as f64 * stride).round_ties_even());
    points.filter(|&t| t >= 1.0).map(|t| t as usize - 1).collect()
}

#[cfg(test)]
mod tests {
    use super::{Spacing, euler_timesteps, markov_timesteps, solver_timesteps};

    #[test]
    fn markov() {
        let of = |spacing, steps, offset| markov_timesteps(spacing, 1000, steps, offset);
        assert_eq!(of(Spacing::Leading, 5, 1), [801, 601, 401, 201, 1]);
        assert_eq!(of(Spacing::Leading, 3, 0), [666, 333, 0]);
        assert_eq!(of(Spacing::Linspace, 5, 1), [999, 749, 500, 250, 0]);
        assert_eq!(of(Spacing::Linspace, 1, 0), [0]);
        assert_eq!(of(Spacing::Trailing, 3, 1), [999, 666, 332]);
        assert_eq!(of(Spacing::Trailing, 1, 0), [999]);
    }

    #[test]
    fn euler() {
        let of = |spacing, steps| euler_timesteps(spacing, 1000, steps, 1);
        assert_eq!(of(Spacing::Linspace, 5), [999.0, 749.25, 499.5, 249.75, 0.0]);
        assert_eq!(of(Spacing::Leading, 2), [501.0, 1.0]);
        assert_eq!(of(Spacing::Trailing, 2), [999.0, 499.0]);
    }

    #[test]
    fn solver() {
        let of = |spacing, steps, offset| solver_timesteps(spacing, 1000, 1000, steps, offset);
        assert_eq!(of(Spacing::Linspace, 1, 0), [999]);
        assert_eq!(of(Spacing::Linspace, 4, 0), [999, 749, 500, 250]);
        assert_eq!(of(Spacing::Leading, 3, 1), [751, 501, 251]);
        assert_eq!(of(Spacing::Trailing, 3, 1), [999, 666, 332]);
    }

    #[test]
    fn timesteps_descend_for_every_number_of_steps() {
        for spacing in [Spacing::Leading, Spacing::Linspace, Spacing::Trailing] {
            for steps in 1..=1000 {
                let timesteps = markov_timesteps(spacing, 1000, steps, 0);
                assert_eq!(timesteps.len(), steps, "{spacing:?}");
                assert!(
                    timesteps.is_sorted_by(|a, b| a > b) && timesteps[0] < 1000,
                    "{spacing:?} {steps}"
                );
            }
        }
    }
}
