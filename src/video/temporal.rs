//! What held still is known from many pictures: their fusion, by precision, and the noise that remains.
//!
//! Each picture is compared with the fusion of those before. Where the difference is what noise of the known level makes of
//! nothing, both are averaged by their precision, as a Kalman filter does for a scene that stands still; where it is more, the
//! excess counts as uncertainty of what was known (so that motion resets a place). What differs is judged in blocks of 4x4
//! pixels, finely (a place, by what is strange there) and coarsely (a neighbourhood, by what is a little strange all over it).

use super::blocks::{largest, mean};
use super::light::line;
use super::shift::{Pyramid, Shift, move_plane};
use crate::tensor::mirror;

/// Pixels along a side of a block.
pub(super) const BLOCK: usize = 4;

/// No more pictures than this are averaged, so that what is not motion but changes all the same is followed.
const MOST: f32 = 32.0;

/// What is nothing strange for a place and for a neighbourhood: so many times the expected energy. Noise alone exceeds it by
/// chance in few places.
const STRANGE_PLACE: f32 = 1.8;
const STRANGE_PIXELS: f32 = 1.4;
const STRANGE_NEIGHBOURHOOD: f32 = 1.15;

/// How much the excess of a place counts, and that of a neighbourhood, where it is spread thin.
const FINE_WEIGHT: f32 = 3.0;
const COARSE_WEIGHT: f32 = 12.0;

/// Blocks along a side of a place, of a neighbourhood, and of what a strange one takes along.
const PLACE: usize = 3;
const NEIGHBOURHOOD: usize = 17;
const REACH: usize = 7;

/// How much of a neighbourhood's strangeness is remembered to the next picture: what moves goes on moving.
const MEMORY: f32 = 0.5;

/// No more of it is.
const REMEMBERED: f32 = 1.5;

/// A place counts at most so much for its neighbourhood.
const VERY_STRANGE: f32 = 3.0;

/// A block of which so much is new moves; when so many do, the scene does, and everything is new.
const MOVES: f32 = 0.6;
const SCENE_MOVES: f32 = 0.4;

/// A block of which more is new than a scene at rest explains, by this much, is not at rest.
const RESTLESS: f32 = 0.2;

/// Pixels along a side of a patch of which the mean tells the light.
const PATCH: usize = 32;

/// Sums that are added to at once.
const LANES: usize = 8;

/// The fusion of a stream's pictures.
pub struct Temporal {
    width: usize,
    height: usize,
    /// Blocks of a row and of a column.
    across: usize,
    down: usize,
    fused: Vec<f32>,
    /// What remains of the noise's variance, as a part of a single picture's, block by block.
    rest: Vec<f32>,
    /// Energy of the difference after a 3x3 mean, and as it is, over what is expected.
    smooth: Vec<f32>,
    rough: Vec<f32>,
    coarse: Vec<f32>,
    /// How strange neighbourhoods were for the picture before.
    before: Vec<f32>,
    /// Whether something moves in a block.
    restless: Vec<bool>,
    work: [Vec<f32>; 2],
    plane: Vec<f32>,
    /// Sums of three rows of differences, with one more on each side; energies; and those three rows.
    column: Vec<f32>,
    line: Vec<f32>,
    rows: [Vec<f32>; 3],
    patches: Vec<(f32, f32)>,
    then: Pyramid,
    now: Pyramid,
    seen: bool,
    resets: u64,
}

impl Temporal {
    /// For pictures of so many channels and that size.
    pub fn new(channels: usize, width: usize, height: usize) -> Self {
        let (across, down) = (width.div_ceil(BLOCK), height.div_ceil(BLOCK));
        let blocks = || vec![0.0; across * down];
        Self {
            width,
            height,
            across,
            down,
            fused: vec![0.0; channels * width * height],
            rest: blocks(),
            smooth: blocks(),
            rough: blocks(),
            coarse: blocks(),
            before: blocks(),
            restless: vec![true; across * down],
            work: [blocks(), blocks()],
            plane: vec![0.0; width * height],
            column: vec![0.0; width + 2],
            line: vec![0.0; width],
            rows: std::array::from_fn(|_| vec![0.0; width]),
            patches: Vec::with_capacity(width.div_ceil(PATCH) * height.div_ceil(PATCH)),
            then: Pyramid::default(),
            now: Pyramid::default(),
            seen: false,
            resets: 0,
        }
    }

    /// How often everything was new: scene cuts, and a camera that moves otherwise than as a whole.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Makes everything new with the next picture.
    pub(super) fn forget(&mut self) {
        self.seen = false;
    }

    /// Blocks of a row; blocks are 4x4 pixels, at the right and lower border what there is.
    pub(super) fn across(&self) -> usize {
        self.across
    }

    /// What remains of the variance of the noise in each block, as a part of a single picture's.
    pub(super) fn rest(&self) -> &[f32] {
        &self.rest
    }

    /// Where something moves.
    pub(super) fn restless(&self) -> &[bool] {
        &self.restless
    }

    /// Replaces a picture, `[channels, height, width]`, by its fusion with those before, and `sigma`, the standard deviation of
    /// its noise at each pixel in the same units, by what remains.
    ///
    /// # Panics
    /// If lengths are not those of the pictures that this is for.
    pub fn fuse(&mut self, picture: &mut [f32], sigma: &mut [f32]) {
        if !self.seen {
            self.begin(picture);
            return;
        }
        let mean = sigma.iter().map(|sigma| f64::from(sigma * sigma)).sum::<f64>() / sigma.len() as f64;
        let shift = self.follow(picture, mean);
        self.follow_light(picture);
        self.compare(picture, sigma);
        let scene_moves = self.weigh();
        if scene_moves {
            self.resets += 1;
            self.rest.fill(1.0);
            self.restless.fill(true);
            // After a cut there is nothing to be remembered.
            self.before.fill(0.0);
        }
        if !shift.is_none() {
            // What was computed before lies elsewhere now.
            self.restless.fill(true);
        }
        self.mix(picture, sigma, !shift.is_whole() && !scene_moves);
        std::mem::swap(&mut self.then, &mut self.now);
    }

    fn begin(&mut self, picture: &[f32]) {
        self.fused.copy_from_slice(picture);
        self.rest.fill(1.0);
        self.before.fill(0.0);
        self.restless.fill(true);
        self.then.fill(picture, self.width, self.height);
        self.seen = true;
    }

    /// Moves what is known along with the camera.
    fn follow(&mut self, picture: &[f32], variance: f64) -> Shift {
        self.now.fill(picture, self.width, self.height);
        let channels = (picture.len() / self.plane.len()) as f64;
        let shift = self.then.shift_to(&mut self.now, 2.0 * channels * variance);
        if shift.is_none() {
            return shift;
        }
        for plane in self.fused.chunks_exact_mut(self.width * self.height) {
            move_plane(plane, self.width, shift, &mut self.plane);
        }
        // Blocks move by pixels: one takes the most of those that it comes from, and what comes in is not known.
        let from = |at: usize, shift: f32, length: usize| {
            let first = (at * BLOCK) as f32 - shift;
            let range = (first / BLOCK as f32).floor() as isize
                ..=((first + BLOCK as f32 - 1.0) / BLOCK as f32).floor() as isize;
            (range.clone(), *range.start() >= 0 && *range.end() < length.cast_signed())
        };
        let old = &mut self.work[0];
        old.copy_from_slice(&self.rest);
        for y in 0..self.down {
            let (rows, rows_inside) = from(y, shift.dy, self.down);
            for x in 0..self.across {
                let (columns, columns_inside) = from(x, shift.dx, self.across);
                let most = |most: f32, (x, y): (isize, isize)| {
                    most.max(old[y.unsigned_abs() * self.across + x.unsigned_abs()])
                };
                self.rest[y * self.across + x] = if rows_inside && columns_inside {
                    rows.clone().flat_map(|y| columns.clone().map(move |x| (x, y))).fold(0.0, most)
                } else {
                    1e3
                };
            }
        }
        shift
    }

    /// Lets what is known become as bright as the picture: a line through the means of patches, channel by channel, of which
    /// those that lie far off do not count.
    fn follow_light(&mut self, picture: &[f32]) {
        let (width, height) = (self.width, self.height);
        let area = width * height;
        for (known, new) in self.fused.chunks_exact_mut(area).zip(picture.chunks_exact(area)) {
            self.patches.clear();
            for top in (0..height).step_by(PATCH) {
                for left in (0..width).step_by(PATCH) {
                    let columns = left..(left + PATCH).min(width);
                    let (mut levels, mut changes, mut count) = ([0.0; LANES], [0.0; LANES], 0);
                    for y in (top..(top + PATCH).min(height)).step_by(2) {
                        let row = y * width + columns.start..y * width + columns.end;
                        for (known, new) in known[row.clone()].chunks(LANES).zip(new[row].chunks(LANES)) {
                            let sums = levels.iter_mut().zip(&mut changes);
                            for ((level, change), (known, new)) in sums.zip(known.iter().zip(new)) {
                                *level += known;
                                *change += new - known;
                            }
                        }
                        count += columns.len();
                    }
                    let mean = |sums: [f32; LANES]| sums.iter().sum::<f32>() / count as f32;
                    self.patches.push((mean(levels), mean(changes)));
                }
            }
            if let Some((offset, gain)) = line(&mut self.patches) {
                known.iter_mut().for_each(|known| *known += offset + gain * *known);
            }
        }
    }

    /// What differs, over what noise makes of nothing, block by block.
    fn compare(&mut self, picture: &[f32], sigma: &[f32]) {
        let (width, height) = (self.width, self.height);
        let area = width * height;
        self.smooth.fill(0.0);
        self.rough.fill(0.0);
        let Self { column, line, rows, smooth, rough, across, .. } = self;
        for (new, known) in picture.chunks_exact(area).zip(self.fused.chunks_exact(area)) {
            let difference = |y: isize, out: &mut [f32]| {
                let row = mirror(y, height) * width;
                let row = row..row + width;
                out.iter_mut()
                    .zip(&new[row.clone()])
                    .zip(&known[row])
                    .for_each(|((out, new), known)| *out = new - known);
            };
            difference(-1, &mut rows[1]);
            difference(0, &mut rows[2]);
            for y in 0..height {
                rows.rotate_left(1);
                let [above, here, below] = &mut *rows;
                difference(y.cast_signed() + 1, below);
                for (((sum, a), b), c) in column[1..=width].iter_mut().zip(above).zip(&*here).zip(below) {
                    *sum = *a + b + *c;
                }
                let (left, right) = (mirror(-1, width), mirror(width.cast_signed(), width));
                (column[0], column[width + 1]) = (column[1 + left], column[1 + right]);
                for (energy, three) in line.iter_mut().zip(column.windows(3)) {
                    let sum = three[0] + three[1] + three[2];
                    *energy = sum * sum;
                }
                let blocks = y / BLOCK * *across..;
                add_blocks(line, &mut smooth[blocks.clone()], |energy| energy);
                add_blocks(here, &mut rough[blocks], |difference| difference * difference);
            }
        }
        // The sum of nine differences has nine times their variance.
        let channels = (picture.len() / area) as f32;
        for by in 0..self.down {
            for bx in 0..self.across {
                let block = by * self.across + bx;
                let mut expected = 0.0;
                for y in by * BLOCK..((by + 1) * BLOCK).min(height) {
                    let row = &sigma[y * width + bx * BLOCK..y * width + ((bx + 1) * BLOCK).min(width)];
                    expected += row.iter().map(|sigma| sigma * sigma).sum::<f32>();
                }
                let scale = 1.0 / (channels * expected * (1.0 + self.rest[block])).max(1e-12);
                self.smooth[block] *= scale / 9.0;
                self.rough[block] *= scale;
            }
        }
    }

    /// How much of each block is new, into `rest`; and whether the scene as a whole moves.
    fn weigh(&mut self) -> bool {
        let size = [self.across, self.down];
        let [work, place] = &mut self.work;
        mean(&self.rough, size, PLACE, work, place);
        self.rough.copy_from_slice(place);
        mean(&self.smooth, size, PLACE, work, place);
        self.smooth.copy_from_slice(place);
        // Around what is strange by itself things move, too; of a neighbourhood it says little more.
        place.iter_mut().for_each(|place| *place = place.min(VERY_STRANGE));
        mean(place, size, NEIGHBOURHOOD, work, &mut self.coarse);
        largest(&mut self.coarse, size, REACH, work);
        for (smooth, rough) in self.smooth.iter_mut().zip(&self.rough) {
            *smooth = (*smooth - STRANGE_PLACE).max(*rough - STRANGE_PIXELS).max(0.0);
        }
        largest(&mut self.smooth, size, REACH, work);
        let mut moving = 0;
        for block in 0..self.rest.len() {
            let kept = STRANGE_NEIGHBOURHOOD + MEMORY * (self.before[block] - STRANGE_NEIGHBOURHOOD);
            let coarse = self.coarse[block].max(kept);
            self.before[block] = coarse.min(REMEMBERED);
            let excess =
                (FINE_WEIGHT * self.smooth[block]).max(COARSE_WEIGHT * (coarse - STRANGE_NEIGHBOURHOOD)).max(0.0);
            let rest = self.rest[block];
            let uncertain = rest + (1.0 + rest) * excess;
            let new = (uncertain / (uncertain + 1.0)).max(1.0 / MOST);
            self.restless[block] = new > rest / (rest + 1.0) + RESTLESS;
            self.rest[block] = new;
            moving += usize::from(new > MOVES);
        }
        moving as f32 > SCENE_MOVES * self.rest.len() as f32
    }

    /// Averages by precision. `once` makes the next picture begin from this one: what has been moved by parts of a pixel has
    /// noise that neighbours share, which must not add up.
    fn mix(&mut self, picture: &mut [f32], sigma: &mut [f32], once: bool) {
        let (width, area) = (self.width, self.width * self.height);
        let Self { rest, fused, line, across, .. } = self;
        for (top, parts) in (0..self.height).step_by(BLOCK).zip(rest.chunks_exact(*across)) {
            let rows = top * width..((top + BLOCK) * width).min(area);
            spread(parts, line, |part| part);
            for (new, known) in picture.chunks_exact_mut(area).zip(fused.chunks_exact_mut(area)) {
                let new = new[rows.clone()].chunks_exact_mut(width);
                for (new, known) in new.zip(known[rows.clone()].chunks_exact_mut(width)) {
                    for ((new, known), part) in new.iter_mut().zip(known).zip(&*line) {
                        // A part of 1 gives the new picture to the last bit.
                        let fused = *new + (1.0 - part) * (*known - *new);
                        *known = if once { *new } else { fused };
                        *new = fused;
                    }
                }
            }
            spread(parts, line, f32::sqrt);
            for sigma in sigma[rows].chunks_exact_mut(width) {
                sigma.iter_mut().zip(&*line).for_each(|(sigma, factor)| *sigma *= factor);
            }
        }
        if once {
            self.rest.fill(1.0);
        }
    }
}

/// Adds what `of` makes of a row's values to the blocks that they are in.
fn add_blocks(row: &[f32], blocks: &mut [f32], of: impl Fn(f32) -> f32) {
    let (whole, rest) = row.as_chunks::<BLOCK>();
    for (block, values) in blocks.iter_mut().zip(whole) {
        let [a, b, c, d] = values.map(&of);
        *block += (a + b) + (c + d);
    }
    if let (false, Some(block)) = (rest.is_empty(), blocks.get_mut(whole.len())) {
        *block += rest.iter().map(|value| of(*value)).sum::<f32>();
    }
}

/// Makes a row of pixels of a row of blocks.
fn spread(blocks: &[f32], row: &mut [f32], of: impl Fn(f32) -> f32) {
    row.chunks_mut(BLOCK).zip(blocks).for_each(|(row, block)| row.fill(of(*block)));
}

#[cfg(test)]
mod tests;
