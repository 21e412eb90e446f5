//! Blocks of 8x8 samples, on the grid of JPEG and H.264, and the energies of their Haar transform.

use super::Plane;

/// Samples per side of a block.
pub(super) const BLOCK: usize = 8;

/// Approximate number of blocks that are examined in a plane of an image.
pub(super) const OF_IMAGE: usize = 1024;

/// Approximate number for a pair of frames; streams have many pairs.
pub(super) const OF_PAIR: usize = 640;

/// Minimum number of usable blocks.
pub(super) const MIN_BLOCKS: usize = 8;

/// Maximum number of clipped samples in a usable block.
const MAX_CLIPPED: usize = 6;

/// A block whose samples differ by less, in levels of 255, is flat; one whose samples all change
/// by less is repeated.
const FLAT: f32 = 0.25;

/// The samples of a block, in levels of 255.
pub(super) type Samples = [[f32; BLOCK]; BLOCK];

/// Whether a block is usable.
pub(super) enum Content {
    Clipped,
    Flat,
    Usable,
}

/// The band energies of a usable block. For white noise, each equals its variance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Energies {
    /// The finest diagonal band, the finest horizontal and vertical ones, the two of the second
    /// octave, the diagonal one of the third, and the step across the block's border.
    pub(super) bands: [f32; 6],
    /// The weighted mean of the first five.
    pub(super) total: f32,
    /// Mean in levels of 255.
    pub(super) mean: f32,
}

/// Weights of the first five bands in the total: their numbers of coefficients.
const WEIGHTS: [f32; 5] = [16.0, 32.0, 4.0, 8.0, 1.0];

/// The top left corners of the examined blocks, `(x, y)`, at a regular step in columns and rows,
/// with rows staggered.
pub(super) fn grid(
    width: usize,
    height: usize,
    most: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let (columns, rows) = (width / BLOCK, height / BLOCK);
    let step = ((rows * columns) as f64 / most as f64).sqrt().ceil().max(1.0) as usize;
    (0..rows).step_by(step).enumerate().flat_map(move |(j, row)| {
        (j % step..columns).step_by(step).map(move |column| (column * BLOCK, row * BLOCK))
    })
}

/// The block at `x`, `y` in levels of 255. It must lie within the plane.
pub(super) fn block(plane: Plane<'_>, x: usize, y: usize) -> Samples {
    let mut samples = [[0.0; BLOCK]; BLOCK];
    for (row, line) in samples.iter_mut().enumerate() {
        let start = (y + row) * plane.width + x;
        for (sample, value) in line.iter_mut().zip(&plane.samples[start..start + BLOCK]) {
            *sample = 255.0 * value;
        }
    }
    samples
}

/// The lowest and the highest sample of two blocks, and the number of positions that are clipped
/// in either.
fn ends(one: &Samples, other: &Samples) -> (f32, f32, usize) {
    let (mut low, mut high, mut clipped) = ([f32::MAX; BLOCK], [f32::MIN; BLOCK], [0_u32; BLOCK]);
    for (one, other) in one.iter().zip(other) {
        for j in 0..BLOCK {
            let (least, most) = (one[j].min(other[j]), one[j].max(other[j]));
            low[j] = low[j].min(least);
            high[j] = high[j].max(most);
            clipped[j] += u32::from(least <= 0.0 || most >= 255.0);
        }
    }
    let low = low.into_iter().fold(f32::MAX, f32::min);
    (low, high.into_iter().fold(f32::MIN, f32::max), clipped.iter().sum::<u32>() as usize)
}

/// Whether noise can be measured in a block.
pub(super) fn content(samples: &Samples) -> Content {
    let (low, high, clipped) = ends(samples, samples);
    if clipped > MAX_CLIPPED {
        Content::Clipped
    } else if high - low < FLAT {
        Content::Flat
    } else {
        Content::Usable
    }
}

/// Whether noise can be measured in the change from one block to the next; flat means a repeated
/// block.
pub(super) fn pair_content(before: &Samples, after: &Samples) -> Content {
    let (_, _, clipped) = ends(before, after);
    let changes = before.iter().flatten().zip(after.iter().flatten()).map(|(a, b)| (b - a).abs());
    if clipped > MAX_CLIPPED {
        Content::Clipped
    } else if changes.fold(0.0, f32::max) < FLAT {
        Content::Flat
    } else {
        Content::Usable
    }
}

/// The first octave of the Haar transform: the image at half size, and the energies of the
/// diagonal details (mean square) and of the others (variance, to which ramps do not contribute).
struct Octave<const N: usize> {
    low: [[f32; N]; N],
    diagonal: f32,
    edges: f32,
}

fn octave<const M: usize, const N: usize>(x: &[[f32; M]; M]) -> Octave<N> {
    let mut low = [[0.0; N]; N];
    let (mut diagonal, mut sums, mut squares) = (0.0, [0.0; 2], [0.0; 2]);
    for (i, line) in low.iter_mut().enumerate() {
        for (j, mean) in line.iter_mut().enumerate() {
            let [[a, b], [c, d]] = [
                [x[2 * i][2 * j], x[2 * i][2 * j + 1]],
                [x[2 * i + 1][2 * j], x[2 * i + 1][2 * j + 1]],
            ];
            *mean = (a + b + c + d) / 2.0;
            let details = [(a - b + c - d) / 2.0, (a + b - c - d) / 2.0];
            diagonal += ((a - b - c + d) / 2.0).powi(2);
            for k in 0..2 {
                sums[k] += details[k];
                squares[k] += details[k] * details[k];
            }
        }
    }
    let count = (N * N) as f32;
    let spread = |k: usize| ((squares[k] - sums[k] * sums[k] / count) / (count - 1.0)).max(0.0);
    let edges = if N > 1 { f32::midpoint(spread(0), spread(1)) } else { 0.0 };
    Octave { low, diagonal: diagonal / count, edges }
}

/// The energies of a usable block at `x`, `y`; the plane must be at least twice as wide as a
/// block.
pub(super) fn energies(plane: Plane<'_>, x: usize, y: usize, samples: &Samples) -> Energies {
    let first: Octave<4> = octave(samples);
    let second: Octave<2> = octave(&first.low);
    let third: Octave<1> = octave(&second.low);
    let right = if x + BLOCK + 2 <= plane.width { x + BLOCK - 2 } else { x - 2 };
    let border: f32 = (y..y + BLOCK)
        .map(|row| {
            let [a, b, c, d] =
                std::array::from_fn(|i| 255.0 * plane.samples[row * plane.width + right + i]);
            (0.5 * (a - d) + 1.5 * (c - b)).powi(2)
        })
        .sum();
    let bands = [
        first.diagonal,
        first.edges,
        second.diagonal,
        second.edges,
        third.diagonal,
        border / (BLOCK as f32 * 5.0),
    ];
    let total = bands.iter().zip(WEIGHTS).map(|(band, weight)| band * weight).sum::<f32>()
        / WEIGHTS.iter().sum::<f32>();
    Energies { bands, total, mean: third.low[0][0] / BLOCK as f32 }
}

/// Statistics of a block in two frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pair {
    /// Mean of both in levels of 255.
    pub(super) mean: f32,
    /// Variance within their mean block.
    pub(super) texture: f32,
    /// Half the variance of their difference, which is the noise variance of one frame where
    /// nothing moves.
    pub(super) variance: f32,
    /// This variance in the finest diagonal band alone.
    pub(super) fine: f32,
    /// This variance in the second octave alone.
    pub(super) second: f32,
    /// Part of the difference that motion along the gradient explains, from 0 to 1.
    pub(super) explained: f32,
    /// The square of the mean difference.
    pub(super) offset: f32,
}

pub(super) fn pair(before: &Samples, after: &Samples) -> Pair {
    let (mut mean, mut difference) = ([[0.0; BLOCK]; BLOCK], [[0.0; BLOCK]; BLOCK]);
    for i in 0..BLOCK {
        for j in 0..BLOCK {
            mean[i][j] = f32::midpoint(before[i][j], after[i][j]);
            difference[i][j] = after[i][j] - before[i][j];
        }
    }
    let (level, texture) = moments(&mean);
    let (offset, variance) = moments(&difference);
    let first: Octave<4> = octave(&difference);
    let second: Octave<2> = octave(&first.low);
    Pair {
        mean: level,
        texture,
        variance: variance / 2.0,
        fine: first.diagonal / 2.0,
        second: (second.diagonal + 2.0 * second.edges) / 6.0,
        explained: explained_by_motion(&mean, &difference),
        offset: offset * offset,
    }
}

/// The sum of a block, over columns first, which the compiler vectorizes.
fn sum(block: &Samples) -> f32 {
    let mut columns = [0.0; BLOCK];
    for row in block {
        for (column, value) in columns.iter_mut().zip(row) {
            *column += value;
        }
    }
    columns.iter().sum()
}

/// The dot product of two blocks.
fn dot(one: &Samples, other: &Samples) -> f32 {
    let mut columns = [0.0; BLOCK];
    for (one, other) in one.iter().zip(other) {
        for (column, (a, b)) in columns.iter_mut().zip(one.iter().zip(other)) {
            *column += a * b;
        }
    }
    columns.iter().sum()
}

/// Mean and variance of a block.
fn moments(block: &Samples) -> (f32, f32) {
    let count = (BLOCK * BLOCK) as f32;
    let mean = sum(block) / count;
    let centered = block.map(|row| row.map(|value| value - mean));
    (mean, dot(&centered, &centered) / (count - 1.0))
}

/// The part of a difference that is a combination of the two gradients (Lucas and Kanade 1981),
/// inside the block's border.
fn explained_by_motion(mean: &Samples, difference: &Samples) -> f32 {
    const LAST: usize = BLOCK - 1;
    let count = ((BLOCK - 2) * (BLOCK - 2)) as f32;
    let [mut across, mut down, mut change] = [[[0.0; BLOCK]; BLOCK]; 3];
    for i in 1..LAST {
        for j in 1..LAST {
            across[i][j] = mean[i][j + 1] - mean[i][j - 1];
            down[i][j] = mean[i + 1][j] - mean[i - 1][j];
            change[i][j] = difference[i][j];
        }
    }
    let [x, y, d] = [sum(&across), sum(&down), sum(&change)];
    let xx = dot(&across, &across) - x * x / count;
    let yy = dot(&down, &down) - y * y / count;
    let xy = dot(&across, &down) - x * y / count;
    let xd = dot(&across, &change) - x * d / count;
    let yd = dot(&down, &change) - y * d / count;
    let dd = dot(&change, &change) - d * d / count;
    let explained = yy * xd * xd - 2.0 * xy * xd * yd + xx * yd * yd;
    explained / ((xx * yy - xy * xy + 1e-3) * (dd + 1e-3))
}
