//! PNDM: linear multistep and Runge-Kutta methods along the manifold of DDIM's step.

use super::super::levels::Transition;
use super::multistep::row_of;
use super::{Definition, LevelPath, Levels, Sampler};
use crate::diffusion::parameterization::Prediction;
use crate::diffusion::plan::{HistoryEntry, HistoryValue, Level, Step};

/// The coefficients of the Adams-Bashforth methods, by order.
const ADAMS: [&[f64]; 4] = [
    &[1.0],
    &[1.5, -0.5],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

impl Sampler {
    /// `pndm`: pseudo numerical methods of fourth order. It starts with three Runge-Kutta steps of
    /// four evaluations each, or with one step of two (PLMS) if `skip_prk_steps` is set and on a
    /// range of sigma. After that, each step takes one evaluation.
    pub const PNDM: Self = Self(&Definition {
        name: "pndm",
        class: Some("PNDMScheduler"),
        paper: "Liu et al. 2022, equations 11 to 13; as in diffusers",
        path: LevelPath::Pndm,
        eta: None,
        rows: |path_levels, _| Rows::of(path_levels).table(),
    });
}

struct Rows<'a> {
    path_levels: &'a Levels,
    /// The values that are averaged. As in diffusers, these are velocities if the network predicts
    /// velocities.
    value: HistoryValue,
    table: Vec<Step>,
}

impl<'a> Rows<'a> {
    fn of(path_levels: &'a Levels) -> Self {
        let is_velocity = path_levels.settings.prediction == Prediction::VPrediction;
        let value = if is_velocity { HistoryValue::Output } else { HistoryValue::Noise };
        Self { path_levels, value, table: Vec::new() }
    }

    fn table(mut self) -> Vec<Step> {
        let all = &self.path_levels.transitions;
        if self.path_levels.runs_kutta() {
            let starts = self.runge_kutta();
            self.multistep(all, starts);
            return self.table.split_off(self.path_levels.skipped.min(self.table.len()));
        }
        // As diffusers counts them, the second timestep is visited twice.
        let visited = all.iter().take(2).chain(all.iter().skip(1));
        let visited: Vec<Transition> = visited.skip(self.path_levels.skipped).copied().collect();
        match visited[..] {
            [only] => self.multistep(&[only], 0),
            [first, second, ..] => {
                self.plain(&first, &second);
                self.multistep(&visited[1..], 1);
            }
            [] => {}
        }
        self.table
    }

    /// Adams-Bashforth steps of `transitions` from the one at `starts` on.
    fn multistep(&mut self, transitions: &[Transition], starts: usize) {
        for (i, transition) in transitions.iter().enumerate().skip(starts) {
            let adams = ADAMS[i.min(3)];
            let [of_x, of_value] = self.transfer(transition.from, transition.to);
            let mut row = row_of(
                transition.from,
                transition.scaling,
                self.value,
                [of_x, of_value * adams[0]],
            );
            adams
                .iter()
                .enumerate()
                .skip(1)
                .for_each(|(j, factor)| row.past[(i - j) % 3] = of_value * factor);
            self.push(row, Some(i % 3));
        }
    }

    /// One step whose end is evaluated again with the average of both values.
    fn plain(&mut self, first: &Transition, second: &Transition) {
        let [a, b] = self.transfer(first.from, first.to);
        self.push(row_of(first.from, first.scaling, self.value, [a, b]), Some(0));
        let [again, slope] = self.transfer(self.path_levels.above(second, first), second.from);
        // From the start of the step, which is `(x - b * H) / a`.
        let mut row = row_of(second.from, second.scaling, self.value, [again / a, slope / 2.0]);
        row.past[0] = slope / 2.0 - again * b / a;
        self.push(row, None);
    }

    /// Three Runge-Kutta steps of four evaluations each.
    fn runge_kutta(&mut self) -> usize {
        const MIDDLE: [usize; 2] = [3, 4];
        for k in 0..3 {
            let (from, to) = (self.path_levels.transitions[k], self.path_levels.transitions[k + 1]);
            let (half, scaling) = self.path_levels.half_above(&to);
            let [a1, b1] = self.transfer(from.from, self.path_levels.half_below(&from));
            let [a2, b2] = self.transfer(from.from, half);
            let [a3, b3] = self.transfer(from.from, to.from);
            self.push(row_of(from.from, from.scaling, self.value, [a1, b1]), Some(k));
            // Each evaluation starts from the start of the step, computed from the state and its
            // last update.
            let mut row = row_of(half, scaling, self.value, [a2 / a1, b2]);
            row.past[k] = -a2 * b1 / a1;
            self.push(row, Some(MIDDLE[0]));
            let mut row = row_of(half, scaling, self.value, [a3 / a2, b3]);
            row.past[MIDDLE[0]] = -a3 * b2 / a2;
            self.push(row, Some(MIDDLE[1]));
            let mut row = row_of(to.from, to.scaling, self.value, [1.0, b3 / 6.0]);
            row.past[k] = b3 / 6.0;
            row.past[MIDDLE[0]] = b3 / 3.0;
            row.past[MIDDLE[1]] = b3 / 3.0 - b3;
            self.push(row, None);
        }
        3
    }

    fn push(&mut self, row: Step, slot: Option<usize>) {
        let store = slot.map(|slot| HistoryEntry { slot, value: self.value });
        self.table.push(Step { store, ..row });
    }

    /// The transfer of equation 11, DDIM's step: the factors of the state and of the value.
    fn transfer(&self, from: Level, to: Level) -> [f64; 2] {
        let ratio = to.signal / from.signal;
        let of_noise = to.noise - ratio * from.noise;
        match self.value {
            // The noise that a velocity implies is `signal * F + noise * x`.
            HistoryValue::Output => [ratio + of_noise * from.noise, of_noise * from.signal],
            _ => [ratio, of_noise],
        }
    }
}
