//! Estimates the global motion (translation) between frames, and moves planes by it.

use crate::tensor::BINOMIAL;

/// The pyramid stops at about this many pixels a side.
const MIN_SIDE: usize = 24;

/// Sums that are accumulated in parallel (SIMD).
const LANES: usize = 16;

/// Search radius on the coarsest level, in its pixels.
const REACH: isize = 3;

/// Motion within this distance of whole pixels is rounded to them, in pixels.
const WHOLE_PIXEL_TOLERANCE: f64 = 0.12;

/// Motion is rejected when it leaves more than this part of the difference beyond noise
/// unexplained.
const MAX_UNEXPLAINED: f64 = 0.5;

/// Motion is rejected as chance when it explains less than this part of the whole difference.
const MIN_EXPLAINED: f64 = 0.1;

/// Gain of a binomial filter of 5x5 pixels on the variance of white noise.
const FILTERED_NOISE_GAIN: f64 = (70.0 / 256.0) * (70.0 / 256.0);

/// Factor by which that gain is larger for noise that came through a camera's image processor:
/// about 2 for demosaicked noise in poor light.
const CORRELATED: f64 = 2.0;

/// A gradient counts as an edge when its energy is this many times that of noise, and at least so
/// many edges are needed.
const EDGE: f64 = 12.0;
const MIN_EDGES: f64 = 64.0;

/// Taps of the interpolation (Lanczos, a = 4) along each axis.
const TAPS: usize = 8;

/// A translation in pixels: what was at (x, y) is now at (x + dx, y + dy).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::video) struct GlobalMotion {
    pub(in crate::video) dx: f32,
    pub(in crate::video) dy: f32,
}

impl GlobalMotion {
    /// Whether the motion is zero.
    pub(in crate::video) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Whether the motion is by whole pixels.
    pub(in crate::video) fn is_whole(self) -> bool {
        self.dx.fract() == 0.0 && self.dy.fract() == 0.0
    }
}

/// Brightness at full size and at successive halves of it, down to a size at which noise is
/// averaged out.
#[derive(Debug, Default)]
pub(in crate::video) struct Pyramid {
    levels: Vec<Level>,
    /// The full size after a binomial filter of 5x5 pixels, for gradients.
    soft: Level,
    work: Vec<f32>,
}

#[derive(Debug, Default)]
struct Level {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Level {
    /// Variance of the difference of a frame and a shifted one where they overlap, from a part of
    /// the rows. The mean brightness does not count.
    fn cost(&self, now: &Self, dx: isize, dy: isize) -> f64 {
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        for (then, now) in overlap(self, now, dx, dy, (self.height / 96).max(1)) {
            let (of_row, squares_of_row) = differences(then, now);
            sum += f64::from(of_row);
            squares += f64::from(squares_of_row);
            count += then.len() as f64;
        }
        if count == 0.0 {
            f64::INFINITY
        } else {
            (squares / count - (sum / count) * (sum / count)).max(0.0)
        }
    }
}

impl Pyramid {
    /// Fills the pyramid from `[channels, height, width]` values. Memory is reused between calls.
    pub(in crate::video) fn fill(&mut self, planes: &[f32], width: usize, height: usize) {
        let area = width * height;
        let halves =
            (1..).take_while(|level| (width.min(height) >> (level - 1)) >= 2 * MIN_SIDE).count();
        self.levels.resize_with(halves + 1, Level::default);
        let first = &mut self.levels[0];
        (first.width, first.height) = (width, height);
        first.values.clear();
        first.values.extend_from_slice(&planes[..area]);
        for plane in planes.chunks_exact(area).skip(1) {
            first.values.iter_mut().zip(plane).for_each(|(sum, value)| *sum += value);
        }
        for i in 0..halves {
            let (w, h) = (width >> (i + 1), height >> (i + 1));
            let (above, below) = self.levels.split_at_mut(i + 1);
            let (fine, coarse) = (&above[i], &mut below[0]);
            (coarse.width, coarse.height) = (w, h);
            coarse.values.clear();
            for y in 0..h {
                let upper = &fine.values[2 * y * fine.width..][..fine.width];
                let lower = &fine.values[(2 * y + 1) * fine.width..][..fine.width];
                let pairs = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
                coarse.values.extend(pairs.map(|(a, b)| 0.25 * (a[0] + a[1] + b[0] + b[1])));
            }
        }
    }

    /// Smooths the full-size level.
    fn soften(&mut self) {
        let Self { levels, soft, work } = self;
        let (width, height) = (levels[0].width, levels[0].height);
        (soft.width, soft.height) = (width, height);
        soft.values.resize(width * height, 0.0);
        work.resize(width + 4, 0.0);
        for (y, out) in soft.values.chunks_exact_mut(width).enumerate() {
            // Filters along columns and then along the row; border samples are repeated outwards.
            let row = |offset: usize| {
                &levels[0].values[(y + offset).saturating_sub(2).min(height - 1) * width..][..width]
            };
            let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(row);
            for (x, sum) in work[2..width + 2].iter_mut().enumerate() {
                *sum =
                    BINOMIAL[0] * (a[x] + e[x]) + BINOMIAL[1] * (b[x] + d[x]) + BINOMIAL[2] * c[x];
            }
            let (first, last) = (work[2], work[width + 1]);
            work[..2].fill(first);
            work[width + 2..].fill(last);
            for (out, five) in out.iter_mut().zip(work.windows(5)) {
                *out = five.iter().zip(BINOMIAL).map(|(value, tap)| value * tap).sum();
            }
        }
    }

    /// [`Level::cost`] of one level.
    fn cost(&self, now: &Self, level: usize, dx: isize, dy: isize) -> f64 {
        self.levels[level].cost(&now.levels[level], dx, dy)
    }

    /// Estimates the motion from this frame to `now`: coarse to fine by whole pixels, then by
    /// fractions. The motion is accepted only if it explains most of the difference beyond
    /// `noise`, the variance of the difference of two frames' summed channels. This is judged
    /// after a filter that removes noise and keeps motion, so that errors of `noise` matter
    /// little; they matter more for correlated noise.
    pub(in crate::video) fn shift_to(
        &mut self,
        now: &mut Self,
        noise: f64,
        is_correlated: bool,
    ) -> GlobalMotion {
        let coarsest = self.levels.len() - 1;
        let (mut dx, mut dy) = (0, 0);
        for level in (0..=coarsest).rev() {
            let reach = if level == coarsest { REACH } else { 1 };
            (dx, dy) = (2 * dx, 2 * dy);
            let mut best = (f64::INFINITY, dx, dy);
            // Searches around the coarser level's motion and around zero: the coarser level may
            // miss detail.
            let still = Some((0, 0)).filter(|still| *still != (dx, dy));
            for (x, y) in std::iter::once((dx, dy)).chain(still) {
                for j in -reach..=reach {
                    for i in -reach..=reach {
                        let cost = self.cost(now, level, x + i, y + j);
                        // Prefers the smaller of motions with equal cost, so that flat frames do
                        // not move.
                        let size = |x: isize, y: isize| x.unsigned_abs() + y.unsigned_abs();
                        if cost < best.0
                            || (cost == best.0 && size(x + i, y + j) < size(best.1, best.2))
                        {
                            best = (cost, x + i, y + j);
                        }
                    }
                }
            }
            (_, dx, dy) = best;
        }
        if (dx, dy) == (0, 0) && self.cost(now, 0, 0, 0) <= 1.05 * noise {
            return GlobalMotion::default();
        }
        self.soften();
        now.soften();
        let soft_noise =
            if is_correlated { CORRELATED * FILTERED_NOISE_GAIN } else { FILTERED_NOISE_GAIN }
                * noise;
        let all = self.soft.cost(&now.soft, 0, 0);
        let Some((x, y, explained)) = self.between(now, dx, dy, 0.5 * noise) else {
            return GlobalMotion::default();
        };
        let rest = self.soft.cost(&now.soft, dx, dy) - explained;
        let (still, left) = (all - soft_noise, rest - soft_noise);
        if left > MAX_UNEXPLAINED * still || all - rest < MIN_EXPLAINED * all {
            return GlobalMotion::default();
        }
        let exact = |whole: isize, part: f64| {
            whole as f32 + if part.abs() < WHOLE_PIXEL_TOLERANCE { 0.0 } else { part as f32 }
        };
        GlobalMotion { dx: exact(dx, x), dy: exact(dy, y) }
    }

    /// Estimates the fraction beyond a shift by whole pixels, and how much of the difference it
    /// explains, from gradients (Lucas and Kanade 1981, "An iterative image registration
    /// technique"). `noise`, the variance of one frame's summed channels, is subtracted. The
    /// fraction is zero where too few edges exceed the noise, and the result is `None` where edges
    /// contradict the shift.
    fn between(&self, now: &Self, dx: isize, dy: isize, noise: f64) -> Option<(f64, f64, f64)> {
        let rows = || overlap(&self.soft, &now.soft, dx, dy, 1);
        let length = rows().next().map_or(0, |(then, _)| then.len());
        let step = (self.soft.height / 128).max(1);
        if length < 3 {
            return None;
        }
        // Noise energy in a gradient: that of (1, 4, 5, 0, -5, -4, -1) / 32 times that of (1, 4,
        // 6, 4, 1) / 16.
        let bias = noise * (84.0 / 1024.0) * FILTERED_NOISE_GAIN.sqrt();
        let (mut xx, mut xy, mut yy, mut xd, mut yd) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let (mut x, mut y, mut d, mut count, mut all) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let threes = rows().zip(rows().skip(1)).zip(rows().skip(2)).step_by(step);
        for (((above, _), (then, now)), (below, _)) in threes {
            for i in 1..length - 1 {
                let gx = f64::from(0.5 * (then[i + 1] - then[i - 1]));
                let gy = f64::from(0.5 * (below[i] - above[i]));
                all += 1.0;
                // Noise has such a gradient in one place of 400; the others are edges.
                if gx * gx + gy * gy <= EDGE * bias {
                    continue;
                }
                let change = f64::from(then[i] - now[i]);
                (xx, xy, yy) = (xx + gx * gx, xy + gx * gy, yy + gy * gy);
                (xd, yd) = (xd + gx * change, yd + gy * change);
                (x, y, d, count) = (x + gx, y + gy, d + change, count + 1.0);
            }
        }
        if count < MIN_EDGES {
            return ((dx, dy) != (0, 0)).then_some((0.0, 0.0, 0.0));
        }
        // Removes the change of the mean brightness.
        let (xd, yd) = (xd - x * d / count, yd - y * d / count);
        let (xx, yy) = (xx - count * bias - x * x / count, yy - count * bias - y * y / count);
        let xy = xy - x * y / count;
        let determinant = xx * yy - xy * xy;
        // Edges of a single direction do not determine the motion along them.
        if !(xx > 0.0 && yy > 0.0 && determinant > 0.01 * xx * yy) {
            return None;
        }
        let x = (yy * xd - xy * yd) / determinant;
        let y = (xx * yd - xy * xd) / determinant;
        // The filter affects edges and noise alike; beyond one pixel, the coarse and the fine
        // estimate contradict each other.
        let near = x.abs() <= 1.0 && y.abs() <= 1.0;
        near.then_some((x, y, (x * x * xx + 2.0 * x * y * xy + y * y * yy) / all))
    }
}

/// Sums of the difference `now - then` and of its squares, in as many parts as SIMD adds at once.
fn differences(then: &[f32], now: &[f32]) -> (f32, f32) {
    let (then, then_rest) = then.as_chunks::<LANES>();
    let (now, now_rest) = now.as_chunks::<LANES>();
    let (mut sums, mut squares) = ([0.0; LANES], [0.0; LANES]);
    for (then, now) in then.iter().zip(now) {
        for i in 0..LANES {
            let difference = now[i] - then[i];
            sums[i] += difference;
            squares[i] += difference * difference;
        }
    }
    let (mut sum, mut square) = (sums.iter().sum::<f32>(), squares.iter().sum::<f32>());
    for (then, now) in then_rest.iter().zip(now_rest) {
        sum += now - then;
        square += (now - then) * (now - then);
    }
    (sum, square)
}

/// The rows that a frame shares with the next one, which has moved by (dx, dy) pixels.
fn overlap<'a>(
    then: &'a Level,
    now: &'a Level,
    dx: isize,
    dy: isize,
    step: usize,
) -> impl Iterator<Item = (&'a [f32], &'a [f32])> {
    let (width, height) = (then.width.cast_signed(), then.height.cast_signed());
    let (first, last) = (dx.max(0), width + dx.min(0));
    let length = (last - first).max(0).unsigned_abs();
    let from = (first - dx).clamp(0, width).unsigned_abs();
    let rows = (-dy).max(0)..height - dy.max(0);
    rows.step_by(step).filter(move |_| length > 0).map(move |y| {
        let (a, b) = (y.unsigned_abs() * then.width, (y + dy).unsigned_abs() * then.width);
        (&then.values[a + from..][..length], &now.values[b + first.unsigned_abs()..][..length])
    })
}

/// Moves a plane. Border samples are repeated where nothing is known. `work` is as long as the
/// plane.
pub(in crate::video) fn move_plane(
    plane: &mut [f32],
    width: usize,
    shift: GlobalMotion,
    work: &mut [f32],
) {
    let height = plane.len() / width;
    let (columns, across) = taps(shift.dx);
    let (rows, down) = taps(shift.dy);
    let border = |at: isize, length: usize| at.clamp(0, length.cast_signed() - 1).unsigned_abs();
    for (from, to) in plane.chunks_exact(width).zip(work.chunks_exact_mut(width)) {
        for (x, to) in to.iter_mut().enumerate() {
            let first = x.cast_signed() + columns;
            *to = if first >= 0 && first.unsigned_abs() + TAPS <= width {
                from[first.unsigned_abs()..][..TAPS]
                    .iter()
                    .zip(across)
                    .map(|(value, tap)| value * tap)
                    .sum()
            } else {
                (first..).zip(across).map(|(x, tap)| from[border(x, width)] * tap).sum()
            };
        }
    }
    for (y, to) in plane.chunks_exact_mut(width).enumerate() {
        to.fill(0.0);
        for (row, tap) in (y.cast_signed() + rows..).zip(down) {
            if tap != 0.0 {
                let from = &work[border(row, height) * width..][..width];
                to.iter_mut().zip(from).for_each(|(to, from)| *to += tap * from);
            }
        }
    }
}

/// Offset of the first tap from the position of the result, and the weights of the taps, whose sum
/// is 1.
fn taps(shift: f32) -> (isize, [f32; TAPS]) {
    let source = -shift;
    let first = source.floor() as isize - TAPS.cast_signed() / 2 + 1;
    let mut weights: [f32; TAPS] =
        std::array::from_fn(|i| lanczos(source - (first + i.cast_signed()) as f32));
    let sum: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    (first, weights)
}

fn lanczos(t: f32) -> f32 {
    let sinc = |t: f32| {
        if t == 0.0 { 1.0 } else { (std::f32::consts::PI * t).sin() / (std::f32::consts::PI * t) }
    };
    let half = (TAPS / 2) as f32;
    match t.abs() {
        t if t >= half => 0.0,
        // Shifts by whole pixels copy samples exactly.
        t if t != 0.0 && t.fract() == 0.0 => 0.0,
        t => sinc(t) * sinc(t / half),
    }
}

#[cfg(test)]
mod tests {
    use super::{GlobalMotion, Pyramid, move_plane};
    use crate::diffusion::{NoiseAt, NoiseSource, Philox};

    /// A scene of waves and a disc with noise, viewed from (x0, y0).
    fn scene(width: usize, height: usize, x0: f32, y0: f32, sigma: f32, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; width * height];
        for (y, row) in values.chunks_exact_mut(width).enumerate() {
            Philox::new(seed).fill(NoiseAt { step: 0, batch: 0, channel: 0, y: y as u32 }, 0, row);
            for (x, value) in row.iter_mut().enumerate() {
                let (x, y) = (x as f32 - x0, y as f32 - y0);
                let disc = 1.0 / (1.0 + ((x - 70.0).hypot(y - 50.0) - 25.0).exp());
                let waves = (0.13 * x + 0.05 * y).sin()
                    + (0.31 * y - 0.2 * x).sin()
                    + (0.023 * x * 1.3).cos();
                *value = 0.5 + 0.1 * waves + 0.3 * disc + sigma * *value;
            }
        }
        values
    }

    fn found(dx: f32, dy: f32, sigma: f32) -> GlobalMotion {
        let (width, height) = (160, 120);
        let (mut then, mut now) = (Pyramid::default(), Pyramid::default());
        then.fill(&scene(width, height, 0.0, 0.0, sigma, 1), width, height);
        now.fill(&scene(width, height, dx, dy, sigma, 2), width, height);
        then.shift_to(&mut now, 2.0 * f64::from(sigma * sigma), false)
    }

    #[test]
    fn finds_a_shift_in_noise() {
        for sigma in [0.0, 0.04, 0.1] {
            for (dx, dy) in [(0.0, 0.0), (1.0, -2.0), (5.0, 3.0), (-9.0, 7.0)] {
                let found = found(dx, dy, sigma);
                assert!(
                    found == GlobalMotion { dx, dy } || sigma > 0.05,
                    "{found:?} for {dx},{dy} at {sigma}"
                );
                assert!(
                    (found.dx - dx).abs() < 0.2 && (found.dy - dy).abs() < 0.2,
                    "{found:?} for {dx},{dy}"
                );
            }
            let GlobalMotion { dx, dy } = found(2.6, -1.4, sigma);
            let tolerance = if sigma > 0.05 { 0.2 } else { 0.1 };
            assert!(
                (dx - 2.6).abs() < tolerance && (dy + 1.4).abs() < tolerance,
                "{dx},{dy} at {sigma}"
            );
        }
    }

    #[test]
    fn finds_motion_when_the_assumed_noise_level_is_wrong() {
        let (width, height, sigma) = (160, 120, 0.2);
        let between = |dx: f32, assumed: f64, is_correlated: bool| {
            let (mut then, mut now) = (Pyramid::default(), Pyramid::default());
            then.fill(&scene(width, height, 0.0, 0.0, sigma, 1), width, height);
            now.fill(&scene(width, height, dx, -dx, sigma, 2), width, height);
            then.shift_to(&mut now, 2.0 * assumed * f64::from(sigma * sigma), is_correlated)
        };
        for assumed in [0.3, 0.6, 1.0, 1.5, 2.0] {
            for is_correlated in [false, true] {
                let GlobalMotion { dx, dy } = between(3.0, assumed, is_correlated);
                assert!(
                    (dx - 3.0).abs() < 0.4 && (dy + 3.0).abs() < 0.4,
                    "{dx},{dy} for {assumed} of the variance"
                );
                assert!(
                    between(0.0, assumed, is_correlated).is_none(),
                    "a still scene moves for {assumed} of the variance"
                );
            }
        }
    }

    #[test]
    fn finds_no_motion_in_flat_or_unrelated_frames() {
        let (width, height) = (96, 64);
        let (mut then, mut now) = (Pyramid::default(), Pyramid::default());
        then.fill(&vec![0.3; width * height], width, height);
        now.fill(&vec![0.4; width * height], width, height);
        assert!(then.shift_to(&mut now, 0.0, false).is_none());
        let other: Vec<f32> =
            scene(width, height, 0.0, 0.0, 0.0, 1).iter().rev().map(|v| 1.0 - v * v).collect();
        then.fill(&scene(width, height, 0.0, 0.0, 0.0, 1), width, height);
        now.fill(&other, width, height);
        assert!(then.shift_to(&mut now, 0.0, false).is_none());
    }

    #[test]
    fn moves_planes_by_whole_pixels_exactly_and_by_fractions_closely() {
        let (width, height) = (80, 60);
        let still = scene(width, height, 0.0, 0.0, 0.0, 1);
        for (dx, dy, tolerance) in
            [(3.0, -2.0, 0.0), (0.0, 0.0, 0.0), (0.5, 0.25, 2e-3), (-1.3, 2.6, 2e-3)]
        {
            let mut moved = still.clone();
            move_plane(&mut moved, width, GlobalMotion { dx, dy }, &mut vec![0.0; width * height]);
            let truth = scene(width, height, dx, dy, 0.0, 1);
            for y in 8..height - 8 {
                for x in 8..width - 8 {
                    let (found, true_value) = (moved[y * width + x], truth[y * width + x]);
                    assert!(
                        (found - true_value).abs() <= tolerance + 1e-6,
                        "{x},{y} by {dx},{dy}: {found} {true_value}"
                    );
                }
            }
        }
    }
}
