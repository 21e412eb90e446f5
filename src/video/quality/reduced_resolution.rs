//! Processes a frame at reduced resolution and recombines the result with the full-resolution
//! detail.
//!
//! The small frame holds the coarse part of the frame, with less noise. The rest is the fine part.
//! In each block it is scaled by the share of its energy that exceeds the known noise (Wiener
//! filter with local energy, as in Lee 1980, "Digital image enhancement and noise filtering by use
//! of local statistics", equation 10).

use crate::task::keys;
use crate::video::noise::Noise;
use crate::video::{Group, Planes};

/// Side in pixels of a block, within which the fine part is scaled uniformly.
const BLOCK: usize = 4;

/// Weights of a linear resampling along one axis.
#[derive(Clone, Debug)]
struct Axis {
    from: usize,
    taps: usize,
    /// Index of the first tap of each output.
    first: Vec<usize>,
    weights: Vec<f32>,
}

impl Axis {
    /// Uses `weight(distance in inputs)` within `reach`, clamped to the ends of the line and
    /// normalized to a sum of 1.
    fn new(from: usize, to: usize, reach: f64, weight: impl Fn(f64) -> f64) -> Self {
        let ratio = from as f64 / to as f64;
        let taps = ((2.0 * reach).ceil() as usize + 1).min(from);
        let (mut first, mut weights) = (Vec::with_capacity(to), Vec::with_capacity(to * taps));
        for i in 0..to {
            let center = (i as f64 + 0.5) * ratio - 0.5;
            let begin = ((center - reach).ceil().max(0.0) as usize).min(from - taps);
            let mut of = vec![0.0; taps];
            let mut sum = 0.0;
            // Taps beyond an end are added to the last sample.
            for at in (center - reach).ceil() as i64..=(center + reach).floor() as i64 {
                let weight = weight(at as f64 - center);
                let inside = at.clamp(0, from as i64 - 1) as usize;
                of[inside - begin] += weight;
                sum += weight;
            }
            first.push(begin);
            weights.extend(of.iter().map(|weight| (weight / sum) as f32));
        }
        Self { from, taps, first, weights }
    }

    /// Means over the area of each output.
    fn area(from: usize, to: usize) -> Self {
        let half = from as f64 / to as f64 / 2.0;
        // Part of an input within `half` of the output's center.
        Self::new(from, to, half + 0.5, |d| ((d + 0.5).min(half) - (d - 0.5).max(-half)).max(0.0))
    }

    /// Keys' cubic (1981, equation 15, a = -1/2).
    fn cubic(from: usize, to: usize) -> Self {
        Self::new(from, to, 2.0, keys)
    }

    fn to(&self) -> usize {
        self.first.len()
    }

    /// The composition of this resampling and then `next`.
    fn then(&self, next: &Self) -> Self {
        let spans = next
            .first
            .iter()
            .map(|first| (self.first[*first], self.first[first + next.taps - 1] + self.taps));
        let taps = spans.clone().map(|(begin, end)| end - begin).max().unwrap_or(0);
        let first: Vec<_> = spans.map(|(begin, _)| begin.min(self.from - taps)).collect();
        let mut weights = vec![0.0; first.len() * taps];
        for (i, row) in weights.chunks_exact_mut(taps).enumerate() {
            for (k, outer) in (next.first[i]..).zip(&next.weights[i * next.taps..][..next.taps]) {
                let inner = &self.weights[k * self.taps..][..self.taps];
                let row = &mut row[self.first[k] - first[i]..];
                row.iter_mut().zip(inner).for_each(|(sum, inner)| *sum += outer * inner);
            }
        }
        Self { from: self.from, taps, first, weights }
    }

    /// The sum of the squares of the weights.
    fn energy(&self) -> f64 {
        self.weights.iter().map(|weight| f64::from(weight * weight)).sum()
    }

    /// The sum of the diagonal weights, where inputs and outputs are equally many.
    fn trace(&self) -> f64 {
        let rows = self.first.iter().zip(self.weights.chunks_exact(self.taps)).enumerate();
        rows.filter_map(|(i, (first, row))| row.get(i.checked_sub(*first)?))
            .map(|weight| f64::from(*weight))
            .sum()
    }

    /// Resamples a row of `from` values to one of `to`.
    fn row(&self, from: &[f32], to: &mut [f32]) {
        for ((to, first), weights) in
            to.iter_mut().zip(&self.first).zip(self.weights.chunks_exact(self.taps))
        {
            *to = from[*first..][..self.taps]
                .iter()
                .zip(weights)
                .map(|(value, weight)| value * weight)
                .sum();
        }
    }

    /// Computes row `y` of the result from rows of `width` values.
    fn mix(&self, rows: &[f32], width: usize, y: usize, to: &mut [f32]) {
        to.fill(0.0);
        for (row, weight) in (self.first[y]..).zip(&self.weights[y * self.taps..][..self.taps]) {
            if *weight != 0.0 {
                to.iter_mut()
                    .zip(&rows[row * width..][..width])
                    .for_each(|(to, from)| *to += weight * from);
            }
        }
    }
}

/// Resamples planes from one size to another.
#[derive(Clone, Debug)]
struct Resizer {
    across: Axis,
    down: Axis,
    /// Rows with the width of the result and the height of the input, or the reverse.
    middle: Vec<f32>,
    line: Vec<f32>,
}

impl Resizer {
    fn new(across: Axis, down: Axis) -> Self {
        let middle = vec![0.0; across.to() * down.from];
        let line = vec![0.0; across.from.max(across.to())];
        Self { across, down, middle, line }
    }

    /// Reduces a plane, first along columns, which leaves few rows.
    fn shrink(&mut self, from: &[f32], to: &mut [f32]) {
        let width = self.across.from;
        for (y, to) in to.chunks_exact_mut(self.across.to()).enumerate() {
            self.down.mix(from, width, y, &mut self.line[..width]);
            self.across.row(&self.line[..width], to);
        }
    }

    /// Resamples the rows of a plane for enlargement.
    fn widen(&mut self, from: &[f32]) {
        let rows =
            from.chunks_exact(self.across.from).zip(self.middle.chunks_exact_mut(self.across.to()));
        rows.for_each(|(from, to)| self.across.row(from, to));
    }

    /// Row `y` of the plane that [`widen`](Self::widen) prepared.
    fn enlarged(&mut self, y: usize) -> &[f32] {
        let width = self.across.to();
        self.down.mix(&self.middle, width, y, &mut self.line[..width]);
        &self.line[..width]
    }
}

/// Planes of one size and their reduced versions.
struct Part {
    group: Group,
    small: Group,
    smaller: Resizer,
    larger: Resizer,
    /// Standard deviation of the noise in the small planes and in the fine part, for white noise
    /// of 1.
    coarse: f32,
    fine: f32,
    /// For each block, the factor on its fine part; before that is computed, its energy.
    kept: Vec<f32>,
}

impl Part {
    fn new(group: Group, small: Group) -> Self {
        let blocks = group.width.div_ceil(BLOCK) * group.height.div_ceil(BLOCK);
        let mut part = Self {
            group,
            small,
            smaller: Resizer::new(
                Axis::area(group.width, small.width),
                Axis::area(group.height, small.height),
            ),
            larger: Resizer::new(
                Axis::cubic(small.width, group.width),
                Axis::cubic(small.height, group.height),
            ),
            coarse: 1.0,
            fine: 1.0,
            kept: vec![0.0; blocks],
        };
        part.measure();
        part
    }

    /// Computes the gain on white noise. Reduction and enlargement are matrices along each axis,
    /// `S` and `U`. The variance in the small frame is the mean square of `S`'s rows. The fine
    /// part, `1 - U S`, has the variance `1 - 2 tr(US)/n + |US|^2/n`.
    fn measure(&mut self) {
        let axes =
            [(&self.smaller.across, &self.larger.across), (&self.smaller.down, &self.larger.down)];
        let coarse: f64 =
            axes.iter().map(|(smaller, _)| smaller.energy() / smaller.to() as f64).product();
        let [across, down] = axes.map(|(smaller, larger)| smaller.then(larger));
        let area = self.group.area() as f64;
        let fine = 1.0 - 2.0 * across.trace() * down.trace() / area
            + across.energy() * down.energy() / area;
        (self.coarse, self.fine) = (coarse.sqrt() as f32, fine.max(0.0).sqrt() as f32);
    }

    /// Reduces planes and leaves their fine part in `x`. `sigma` is the noise at a position.
    fn take(&mut self, x: &mut [f32], small: &mut [f32], sigma: impl Fn(usize, usize) -> f32) {
        let Group { planes, width, height } = self.group;
        let across = width.div_ceil(BLOCK);
        self.kept.fill(0.0);
        let small = small.chunks_exact_mut(self.small.area());
        for (x, small) in x.chunks_exact_mut(self.group.area()).zip(small) {
            self.smaller.shrink(x, small);
            self.larger.widen(small);
            for (y, row) in x.chunks_exact_mut(width).enumerate() {
                let energies = &mut self.kept[y / BLOCK * across..][..across];
                let coarse = self.larger.enlarged(y).chunks(BLOCK);
                for ((pixels, coarse), energy) in row.chunks_mut(BLOCK).zip(coarse).zip(energies) {
                    for (pixel, coarse) in pixels.iter_mut().zip(coarse) {
                        *pixel -= coarse;
                        *energy += *pixel * *pixel;
                    }
                }
            }
        }
        for (i, kept) in self.kept.iter_mut().enumerate() {
            let (left, top) = (i % across * BLOCK, i / across * BLOCK);
            let count = planes * BLOCK.min(width - left) * BLOCK.min(height - top);
            let noise = self.fine
                * sigma(left + (width - left).min(BLOCK) / 2, top + (height - top).min(BLOCK) / 2);
            let expected = count as f32 * noise * noise;
            *kept = if *kept > expected { 1.0 - expected / *kept } else { 0.0 };
        }
    }

    /// Adds the enlarged output of the network to the scaled fine part in `x`.
    fn recombine(&mut self, x: &mut [f32], small: &[f32]) {
        let width = self.group.width;
        let across = width.div_ceil(BLOCK);
        let small = small.chunks_exact(self.small.area());
        for (x, small) in x.chunks_exact_mut(self.group.area()).zip(small) {
            self.larger.widen(small);
            for (y, row) in x.chunks_exact_mut(width).enumerate() {
                let kept = &self.kept[y / BLOCK * across..][..across];
                let coarse = self.larger.enlarged(y).chunks(BLOCK);
                for ((pixels, coarse), kept) in row.chunks_mut(BLOCK).zip(coarse).zip(kept) {
                    pixels
                        .iter_mut()
                        .zip(coarse)
                        .for_each(|(pixel, coarse)| *pixel = coarse + kept * *pixel);
                }
            }
        }
    }
}

/// Frames of one size and their reduced versions.
pub(in crate::video) struct ReducedResolution {
    large: Planes,
    /// The planes of the small frame.
    pub(in crate::video) planes: Planes,
    parts: Vec<Part>,
    /// The small frame: input and output of the network.
    pub(in crate::video) x: Vec<f32>,
    /// Its noise.
    pub(in crate::video) noise: Noise,
}

impl ReducedResolution {
    /// For frames with planes `large` and small frames with planes `planes`; `per_sample` says
    /// whether noise is known per sample.
    pub(in crate::video) fn new(large: Planes, planes: Planes, per_sample: bool) -> Self {
        let parts = large
            .groups()
            .iter()
            .zip(planes.groups())
            .map(|(large, small)| Part::new(*large, *small));
        let parts = parts.collect();
        let (x, noise) = (vec![0.0; planes.samples()], Noise::none(&planes, per_sample));
        Self { large, planes, parts, x, noise }
    }

    /// Reduces `x` and leaves its fine part in it. `least` is the lowest sigma of the network.
    pub(in crate::video) fn downsample(&mut self, x: &mut [f32], noise: &Noise, least: f32) {
        let Self { large, planes, parts, x: small, noise: small_noise } = self;
        let groups = large.split_mut(x).zip(planes.split_mut(small));
        for (i, (part, ((group, x), (_, small)))) in parts.iter_mut().zip(groups).enumerate() {
            part.take(x, small, |x, y| noise.at((i, group), x, y));
            match (noise, &mut *small_noise) {
                (Noise::Uniform(from), Noise::Uniform(to)) => {
                    to[i] = (from[i] * part.coarse).max(least)
                }
                (Noise::PerSample(from), Noise::PerSample(to)) => {
                    part.smaller.shrink(&from[i], &mut to[i]);
                    to[i].iter_mut().for_each(|sigma| *sigma = (*sigma * part.coarse).max(least));
                }
                _ => {}
            }
        }
    }

    /// Recombines the fine part in `x` with the output of the network for the small frame.
    pub(in crate::video) fn recombine(&mut self, x: &mut [f32]) {
        let Self { large, planes, parts, x: small, .. } = self;
        let groups = large.split_mut(x).zip(planes.split(small));
        for (part, ((_, x), (_, small))) in parts.iter_mut().zip(groups) {
            part.recombine(x, small);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Noise, Planes, ReducedResolution};
    use crate::diffusion::{NoiseAt, NoiseSource, Philox};
    use crate::video::Scale;

    fn of(width: usize, height: usize, scale: Scale, per_sample: bool) -> ReducedResolution {
        let small = Planes::full(1, scale.of_side(width), scale.of_side(height));
        ReducedResolution::new(Planes::full(1, width, height), small, per_sample)
    }

    fn noise(width: usize, height: usize, sigma: f32) -> Vec<f32> {
        let mut values = vec![0.0; width * height];
        for (y, row) in values.chunks_exact_mut(width).enumerate() {
            Philox::new(7).fill(NoiseAt { step: 0, batch: 0, channel: 0, y: y as u32 }, 0, row);
        }
        values.iter_mut().for_each(|value| *value = 0.5 + *value * sigma);
        values
    }

    fn deviation(values: &[f32], from: impl Fn(usize) -> f32) -> f32 {
        let squares =
            values.iter().enumerate().map(|(i, value)| (value - from(i)).powi(2)).sum::<f32>();
        (squares / values.len() as f32).sqrt()
    }

    /// Simulates a network that returns only the mean of a flat frame.
    #[test]
    fn removes_noise_at_every_scale() {
        for scale in Scale::SMALLER {
            let (width, height, sigma) = (203, 101, 0.1);
            let mut x = noise(width, height, sigma);
            let mut reduced = of(width, height, scale, false);
            reduced.downsample(&mut x, &Noise::Uniform(vec![sigma]), 0.0);
            let Noise::Uniform(stated) = reduced.noise.clone() else {
                panic!("the noise is uniform")
            };
            let stated = stated[0];
            let small = deviation(&reduced.x, |_| 0.5);
            assert!(
                (small / stated - 1.0).abs() < 0.05,
                "{scale}: {small} was stated to be {stated}"
            );
            reduced.x.fill(0.5);
            reduced.recombine(&mut x);
            let rest = deviation(&x, |_| 0.5);
            assert!(rest < 0.25 * sigma, "{scale}: {rest}");
        }
    }

    #[test]
    fn keeps_edges_sharp() {
        for scale in Scale::SMALLER {
            let (width, height, sigma) = (120, 60, 0.02);
            let edge = |i: usize| if i % width < 61 { 0.2 } else { 0.8 };
            let mut x = noise(width, height, sigma);
            x.iter_mut().enumerate().for_each(|(i, x)| *x += edge(i) - 0.5);
            let mut reduced = of(width, height, scale, false);
            reduced.downsample(&mut x, &Noise::Uniform(vec![sigma]), 0.0);
            reduced.recombine(&mut x);
            let error = deviation(&x, edge);
            assert!(error < 1.1 * sigma, "{scale}: {error}");
        }
    }

    #[test]
    fn reconstructs_the_frame_when_nothing_changed() {
        let mut x: Vec<f32> = noise(65, 47, 0.3);
        let before = x.clone();
        let mut reduced = of(65, 47, Scale::SMALLER[1], true);
        let sigma = Noise::PerSample(vec![vec![1e-4; 65 * 47]]);
        reduced.downsample(&mut x, &sigma, 0.0);
        reduced.recombine(&mut x);
        assert!(x.iter().zip(&before).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
