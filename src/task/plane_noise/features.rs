//! The features of the regressions: logarithms of quantiles of the block energies of a plane.

use super::blocks::{self, Content, Energies, MIN_BLOCKS, Pair};
use super::{Plane, PlaneRole};

/// Number of features of an image.
pub(super) const OF_IMAGE: usize = 79;

/// Number of features of a pair of frames.
pub(super) const OF_PAIR: usize = 18;

const QUANTILES: [f64; 6] = [0.05, 0.1, 0.2, 0.35, 0.5, 0.75];

/// Added to a variance, in squared levels of 255, before the logarithm.
const FLOOR: f64 = 0.1;

/// Maximum part of the difference that motion explains in a static block.
const STILL: f32 = 0.12;

/// Number of brightness groups of blocks.
pub(super) const PARTS: usize = 4;

/// Buffers that are reused between planes.
#[derive(Debug, Default)]
pub(super) struct Work {
    energies: Vec<Energies>,
    pairs: Vec<Pair>,
    values: Vec<f32>,
}

/// The features of a plane of an image.
pub(super) struct OfImage {
    /// `None` where too few blocks are usable.
    pub(super) features: Option<[f32; OF_IMAGE]>,
    /// Part of the blocks that are flat.
    pub(super) flat: f64,
    /// Mean and a low quantile of the variance, in levels of 255, of each brightness group.
    pub(super) parts: [(f64, f64); PARTS],
}

/// The features of a plane of a pair of frames.
pub(super) struct OfPair {
    /// `None` where too few blocks are usable.
    pub(super) features: Option<[f32; OF_PAIR]>,
    /// Part of the blocks that are repeated.
    pub(super) repeated: f64,
    /// Mean and median variance, in levels of 255, of the static blocks in each brightness group.
    pub(super) parts: [(f64, f64); PARTS],
    /// Part of the more textured half of the blocks that is static.
    pub(super) still: f64,
    /// Median, over those blocks, of the part of the difference that motion explains.
    pub(super) explained: f64,
}

/// The feature of a variance: the base-2 logarithm of the standard deviation.
fn level(variance: f64) -> f32 {
    (0.5 * (variance + FLOOR).log2()) as f32
}

fn rank(count: usize, quantile: f64) -> usize {
    (quantile * (count as f64 - 1.0)) as usize
}

/// The values at increasing quantiles, rounded down to a rank.
fn quantiles<const N: usize>(values: &mut [f32], quantiles: [f64; N]) -> [f64; N] {
    let count = values.len();
    let (mut start, mut last) = (0, 0.0);
    quantiles.map(|quantile| {
        let at = rank(count, quantile);
        if at >= start {
            last = *values[start..].select_nth_unstable_by(at - start, f32::total_cmp).1;
            start = at + 1;
        }
        f64::from(last)
    })
}

/// A quantile of the values of some items.
fn quantile_of<T>(
    items: &[T],
    value: impl Fn(&T) -> f32,
    quantile: f64,
    values: &mut Vec<f32>,
) -> f64 {
    if items.is_empty() {
        return 0.0;
    }
    values.clear();
    values.extend(items.iter().map(value));
    quantiles(values, [quantile])[0]
}

/// Moves the `count` items with the smallest keys to the front of the slice.
fn partition<T>(items: &mut [T], count: usize, key: impl Fn(&T) -> f32) {
    if count < items.len() {
        items.select_nth_unstable_by(count, |a, b| key(a).total_cmp(&key(b)));
    }
}

/// Divides items into groups of about equal size by increasing keys.
fn in_parts<T>(items: &mut [T], key: impl Fn(&T) -> f32) -> [std::ops::Range<usize>; PARTS] {
    let bounds: [usize; PARTS + 1] = std::array::from_fn(|part| part * items.len() / PARTS);
    for part in 1..PARTS {
        partition(&mut items[bounds[part - 1]..], bounds[part] - bounds[part - 1], &key);
    }
    std::array::from_fn(|part| bounds[part]..bounds[part + 1])
}

fn mean<T>(items: &[T], value: impl Fn(&T) -> f32) -> f64 {
    items.iter().map(|item| f64::from(value(item))).sum::<f64>() / items.len().max(1) as f64
}

fn share<T>(items: &[T], is: impl Fn(&T) -> bool) -> f64 {
    items.iter().filter(|item| is(item)).count() as f64 / items.len().max(1) as f64
}

/// Collects numbers one after the other.
struct Row<const N: usize> {
    numbers: [f32; N],
    filled: usize,
}

impl<const N: usize> Row<N> {
    fn new() -> Self {
        Self { numbers: [0.0; N], filled: 0 }
    }

    fn push(&mut self, number: f32) {
        self.numbers[self.filled] = number;
        self.filled += 1;
    }
}

pub(super) fn of_image(plane: Plane<'_>, Work { energies, values, .. }: &mut Work) -> OfImage {
    energies.clear();
    let (mut flat, mut clipped, mut total) = (0, 0, 0);
    if plane.width >= 2 * blocks::BLOCK && plane.height >= 2 * blocks::BLOCK {
        for (x, y) in blocks::grid(plane.width, plane.height, blocks::OF_IMAGE) {
            let samples = blocks::block(plane, x, y);
            total += 1;
            match blocks::content(&samples) {
                Content::Clipped => clipped += 1,
                Content::Flat => flat += 1,
                Content::Usable => energies.push(blocks::energies(plane, x, y, &samples)),
            }
        }
    }
    let part_of = |count: usize| count as f64 / total.max(1) as f64;
    let mut parts = [(0.0, 0.0); PARTS];
    if energies.len() < MIN_BLOCKS {
        return OfImage { features: None, flat: part_of(flat), parts };
    }
    let count = energies.len();
    let mut row = Row::new();
    let ranked: [[f64; 6]; 7] = std::array::from_fn(|band| {
        values.clear();
        values.extend(
            energies.iter().map(|block| block.bands.get(band).copied().unwrap_or(block.total)),
        );
        quantiles(values, QUANTILES)
    });
    for quantile in 0..QUANTILES.len() {
        for band in &ranked {
            row.push(level(band[quantile]));
        }
    }
    let lowest = [0.1, 0.3].map(|share| ((share * count as f64) as usize).max(4).min(count));
    partition(energies, lowest[1], |block| block.total);
    partition(&mut energies[..lowest[1]], lowest[0], |block| block.total);
    for lowest in lowest {
        for band in 0..6 {
            row.push(level(mean(&energies[..lowest], |block| block.bands[band])));
        }
    }
    for (part, range) in in_parts(energies, |block| block.mean).into_iter().enumerate() {
        let part_blocks = &energies[range];
        let total = quantile_of(part_blocks, |block| block.total, 0.25, values);
        let brightness = mean(part_blocks, |block| block.mean);
        row.push(level(total));
        row.push(level(quantile_of(part_blocks, |block| block.total, 0.5, values)));
        row.push(level(quantile_of(part_blocks, |block| block.bands[0], 0.25, values)));
        row.push(level(quantile_of(part_blocks, |block| block.bands[2], 0.25, values)));
        row.push((brightness / 64.0 - 2.0) as f32);
        parts[part] = (brightness, total);
    }
    row.push(4.0 * part_of(flat) as f32);
    row.push(4.0 * part_of(clipped) as f32);
    row.push(4.0 * share(energies, |block| block.bands[0] < 0.05) as f32);
    row.push(4.0 * share(energies, |block| block.bands[0] < 0.3) as f32);
    row.push(if plane.role == PlaneRole::Chroma { 1.0 } else { 0.0 });
    OfImage { features: Some(row.numbers), flat: part_of(flat), parts }
}

pub(super) fn of_pair(
    before: Plane<'_>,
    after: Plane<'_>,
    Work { pairs, values, .. }: &mut Work,
) -> OfPair {
    pairs.clear();
    let (mut repeated, mut total) = (0, 0);
    for (x, y) in blocks::grid(after.width, after.height, blocks::OF_PAIR) {
        let (before, after) = (blocks::block(before, x, y), blocks::block(after, x, y));
        total += 1;
        match blocks::pair_content(&before, &after) {
            Content::Clipped => total -= 1,
            Content::Flat => repeated += 1,
            Content::Usable => pairs.push(blocks::pair(&before, &after)),
        }
    }
    let repeated = f64::from(repeated) / f64::from(total.max(1));
    let mut parts = [(0.0, 0.0); PARTS];
    if pairs.len() < MIN_BLOCKS {
        return OfPair { features: None, repeated, parts, still: 0.0, explained: 1.0 };
    }
    let count = pairs.len();
    let mut row = Row::new();
    values.clear();
    values.extend(pairs.iter().map(|pair| pair.variance));
    let ranked = quantiles(values, [0.05, 0.1, 0.25, 0.5, 0.75]);
    let median = ranked[3];
    for variance in ranked {
        row.push(level(variance));
    }
    for band in [|pair: &Pair| pair.fine, |pair: &Pair| pair.second] {
        for quantile in [0.25, 0.5] {
            row.push(level(quantile_of(pairs, band, quantile, values)));
        }
    }
    let ranges = in_parts(pairs, |pair| pair.mean);
    let medians =
        ranges.clone().map(|range| quantile_of(&pairs[range], |pair| pair.variance, 0.5, values));
    row.push(level(medians.iter().sum::<f64>() / PARTS as f64));
    let within = |pair: &Pair| f64::from(pair.variance) <= 4.0 * median;
    let kept = pairs.iter().filter(|pair| within(pair)).map(|pair| f64::from(pair.variance));
    row.push(level(kept.sum::<f64>() / share(pairs, within) / count as f64));
    for (part, range) in ranges.into_iter().enumerate() {
        let brightness = mean(&pairs[range.clone()], |pair| pair.mean);
        values.clear();
        values.extend(
            pairs[range].iter().filter(|pair| pair.explained < STILL).map(|pair| pair.variance),
        );
        parts[part] =
            (brightness, if values.is_empty() { 0.0 } else { quantiles(values, [0.5])[0] });
    }
    partition(pairs, count / 2, |pair| pair.texture);
    let mut still = 0.0;
    for half in [&pairs[..count / 2], &pairs[count / 2..]] {
        still = share(half, |pair| pair.explained < STILL);
        row.push(level(quantile_of(half, |pair| pair.variance, 0.5, values)));
        row.push(4.0 * still as f32);
    }
    let explained = quantile_of(&pairs[count / 2..], |pair| pair.explained, 0.5, values);
    row.push(4.0 * repeated as f32);
    row.push(4.0 * share(pairs, |pair| pair.variance < 0.1) as f32);
    row.push(level(quantile_of(pairs, |pair| pair.offset, 0.5, values)));
    OfPair { features: Some(row.numbers), repeated, parts, still, explained }
}
