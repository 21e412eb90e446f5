//! Temporal fusion of static areas: a precision-weighted average over frames, and the residual
//! variance of the noise.
//!
//! Each frame is compared with the fusion of the previous frames. Where the difference matches
//! noise of the known level, the two are averaged by their precision, as a Kalman filter does for
//! a static scene. Where it is larger, the excess is added to the variance of the fusion, so that
//! motion resets it. Differences are judged in blocks of 4x4 pixels at two scales: small areas of
//! few blocks with a large excess, and neighborhoods with a small excess throughout.

mod blocks;
mod exposure;
mod flicker;
mod global_motion;
mod levels;
mod tile_cache;

pub(super) use self::flicker::Flicker;
pub(super) use self::tile_cache::{RefreshPolicy, TileCache, TilesToUpdate};

use std::iter;

use self::blocks::{largest, mean};
use self::exposure::line;
use self::global_motion::{GlobalMotion, Pyramid, move_plane};
use self::levels::Levels;
use super::{Group, Planes};
use crate::tensor::mirror;

/// Pixels along a side of a block.
pub(super) const BLOCK: usize = 4;

/// At most this many frames are averaged, so that slow changes that are not motion are followed.
const MAX_FRAMES: f32 = 32.0;

/// Ratio of the measured to the expected energy up to which a small area or a neighborhood counts
/// as static. Noise alone exceeds it by chance in few areas.
const AREA_OUTLIER_RATIO: f32 = 1.8;
const PIXEL_OUTLIER_RATIO: f32 = 1.4;
const NEIGHBORHOOD_OUTLIER_RATIO: f32 = 1.15;

/// Samples of a block for which the first two of these limits hold; with fewer samples, chance
/// deviations are larger.
const REFERENCE_SAMPLES: f32 = 48.0;

/// Weights of the excess of a small area and of a neighborhood, where it is spread thinly.
const FINE_WEIGHT: f32 = 3.0;
const COARSE_WEIGHT: f32 = 12.0;

/// Sides in blocks of a small area, of a neighborhood, and of the area that one outlier block
/// marks.
const AREA: usize = 3;
const NEIGHBORHOOD: usize = 17;
const REACH: usize = 7;

/// Part of a neighborhood's excess that is carried over to the next frame: what moves tends to
/// keep moving.
const CARRIED_PART: f32 = 0.5;

/// Upper limit of the excess that is carried over.
const MAX_CARRIED_EXCESS: f32 = 0.35;

/// Upper limit of an area's contribution to its neighborhood.
const MAX_AREA_EXCESS: f32 = 3.0;

/// A block moves when this part of it is new; when this part of all blocks moves, the whole scene
/// does, and fusion is reset.
const MOVING_PART: f32 = 0.6;
const SCENE_CUT_PART: f32 = 0.4;

/// A block is not static when its new part exceeds that of a static scene by this much.
const MOVING_EXCESS: f32 = 0.2;

/// A block must also exceed the noise by this much itself or in its neighborhood: noise reaches
/// the limits in a few blocks now and then, and those need not be computed again.
const MIN_BLOCK_EXCESS: f32 = 1.0;
const MIN_NEIGHBORHOOD_EXCESS: f32 = 0.15;

/// The same limits for compressed video, where a few blocks now and then differ far more than
/// others.
const MIN_BLOCK_EXCESS_CODED: f32 = 5.0;
const MIN_NEIGHBORHOOD_EXCESS_CODED: f32 = 0.5;

/// Side in pixels of the patches whose means measure exposure changes.
const PATCH: usize = 32;

/// Sums that are accumulated in parallel (SIMD).
const LANES: usize = 8;

/// The fusion of the frames of a stream.
pub struct Temporal {
    planes: Planes,
    /// Size of the largest planes.
    width: usize,
    height: usize,
    /// Normal values of smoothed differences, of unfiltered differences, and of neighborhoods.
    smooth_levels: Levels,
    rough_levels: Levels,
    neighborhood_levels: Levels,
    /// The class of each block.
    classes: Vec<u8>,
    /// Blocks in a row and in a column.
    across: usize,
    down: usize,
    fused: Vec<f32>,
    /// Residual variance of the noise in each block, relative to a single frame's.
    residual: Vec<f32>,
    /// Energy of the difference after a 3x3 mean, and unfiltered, relative to the expected energy.
    smooth: Vec<f32>,
    rough: Vec<f32>,
    coarse: Vec<f32>,
    /// Excess of the neighborhoods in the frame before.
    before: Vec<f32>,
    /// Whether a block moves.
    moving: Vec<bool>,
    work: [Vec<f32>; 2],
    plane: Vec<f32>,
    /// Sums of three rows of differences, with one more sample on each side; energies; and those
    /// three rows.
    column: Vec<f32>,
    line: Vec<f32>,
    rows: [Vec<f32>; 3],
    patches: Vec<(f32, f32)>,
    previous_pyramid: Pyramid,
    pyramid: Pyramid,
    /// Global motion from the frame before to the frame that was tracked last.
    motion: GlobalMotion,
    has_history: bool,
    /// See [`unshared`](Self::unshared).
    unshared: f32,
    is_coded: bool,
    is_still: bool,
    resets: u64,
}

impl Temporal {
    /// A fusion for frames with such planes.
    pub fn new(planes: Planes) -> Self {
        let Group { width, height, .. } = planes.first();
        let (across, down) = (width.div_ceil(BLOCK), height.div_ceil(BLOCK));
        let blocks = || vec![0.0; across * down];
        let samples = samples_of_block(&planes);
        let spread = (REFERENCE_SAMPLES / samples as f32).sqrt();
        Self {
            fused: vec![0.0; planes.samples()],
            planes,
            width,
            height,
            smooth_levels: Levels::new(1.0 + spread * (AREA_OUTLIER_RATIO - 1.0)),
            rough_levels: Levels::new(1.0 + spread * (PIXEL_OUTLIER_RATIO - 1.0)),
            neighborhood_levels: Levels::new(NEIGHBORHOOD_OUTLIER_RATIO),
            classes: vec![0; across * down],
            across,
            down,
            residual: blocks(),
            smooth: blocks(),
            rough: blocks(),
            coarse: blocks(),
            before: blocks(),
            moving: vec![true; across * down],
            work: [blocks(), blocks()],
            plane: vec![0.0; width * height],
            column: vec![0.0; width + 2],
            line: vec![0.0; width],
            rows: std::array::from_fn(|_| vec![0.0; width]),
            patches: Vec::with_capacity(width.div_ceil(PATCH) * height.div_ceil(PATCH)),
            previous_pyramid: Pyramid::default(),
            pyramid: Pyramid::default(),
            motion: GlobalMotion::default(),
            has_history: false,
            unshared: 1.0,
            is_coded: false,
            is_still: false,
            resets: 0,
        }
    }

    /// Number of resets: scene cuts, and camera motion that is not a translation.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Sets whether the noise came through a codec or a camera's image processor.
    pub(super) fn set_coded(&mut self, is_coded: bool) {
        self.is_coded = is_coded;
    }

    /// Sets whether most of the scene is known to be static, apart from global motion.
    pub(super) fn set_still(&mut self, is_still: bool) {
        self.is_still = is_still;
    }

    /// Resets the fusion with the next frame.
    pub(super) fn reset_state(&mut self) {
        self.has_history = false;
    }

    /// The planes that are fused.
    pub(super) fn planes(&self) -> &Planes {
        &self.planes
    }

    /// Blocks in a row. Blocks have 4x4 pixels, fewer at the right and lower borders.
    pub(super) fn across(&self) -> usize {
        self.across
    }

    /// Residual variance of the noise in each block, relative to a single frame's.
    pub(super) fn residual(&self) -> &[f32] {
        &self.residual
    }

    /// Part of the given noise variance that is independent between frames.
    pub(super) fn unshared(&self) -> f32 {
        self.unshared
    }

    /// Which blocks move.
    pub(super) fn moving(&self) -> &[bool] {
        &self.moving
    }

    /// Estimates the global motion from the frame before to this one, whose first planes have
    /// noise of about that variance. Call it for each frame before [`fuse`](Self::fuse).
    pub fn track(&mut self, frame: &[f32], variance: f64) {
        let first = self.planes.first();
        self.pyramid.fill(&frame[..first.samples()], self.width, self.height);
        self.motion = match self.has_history {
            true => self.previous_pyramid.shift_to(
                &mut self.pyramid,
                2.0 * first.planes as f64 * variance,
                self.is_coded,
            ),
            false => GlobalMotion::default(),
        };
        std::mem::swap(&mut self.previous_pyramid, &mut self.pyramid);
    }

    /// Moves planes of the frame before, in the same groups, by the global motion that was tracked
    /// last. Returns whether there was any.
    pub(super) fn move_along(&mut self, planes: &mut [f32]) -> bool {
        move_groups(&self.planes, planes, self.motion, &mut self.plane);
        !self.motion.is_none()
    }

    /// Replaces a frame's planes by their fusion with the previous frames. `sigma` holds, for each
    /// group of planes, the standard deviation of the noise at each sample, in the units of the
    /// samples; it is replaced by the residual standard deviation.
    ///
    /// # Panics
    /// If the lengths do not match the planes.
    pub fn fuse(&mut self, frame: &mut [f32], sigma: &mut [Vec<f32>]) {
        if !self.has_history {
            self.start(frame);
            return;
        }
        let motion = self.motion;
        self.follow(motion);
        self.follow_exposure(frame);
        self.compare(frame, sigma);
        let scene_moves = self.judge();
        if scene_moves {
            self.resets += 1;
            self.residual.fill(1.0);
            self.moving.fill(true);
            // The excess from before a cut does not apply to the new scene.
            self.before.fill(0.0);
            self.smooth_levels.clear();
            self.rough_levels.clear();
            self.neighborhood_levels.clear();
        }
        if !motion.is_none() {
            // Tiles that were computed before are at other positions now.
            self.moving.fill(true);
        }
        self.average(frame, sigma, !motion.is_whole() && !scene_moves);
    }

    fn start(&mut self, frame: &[f32]) {
        self.fused.copy_from_slice(frame);
        self.residual.fill(1.0);
        self.before.fill(0.0);
        self.moving.fill(true);
        self.has_history = true;
    }

    /// Moves the fusion along with the camera.
    fn follow(&mut self, motion: GlobalMotion) {
        if motion.is_none() {
            return;
        }
        move_groups(&self.planes, &mut self.fused, motion, &mut self.plane);
        // A block takes the largest variance of the blocks that it overlaps before the motion;
        // what enters the frame is unknown.
        let from = |at: usize, motion: f32, length: usize| {
            let first = (at * BLOCK) as f32 - motion;
            let range = (first / BLOCK as f32).floor() as isize
                ..=((first + BLOCK as f32 - 1.0) / BLOCK as f32).floor() as isize;
            (range.clone(), *range.start() >= 0 && *range.end() < length.cast_signed())
        };
        let old = &mut self.work[0];
        old.copy_from_slice(&self.residual);
        for y in 0..self.down {
            let (rows, rows_inside) = from(y, motion.dy, self.down);
            for x in 0..self.across {
                let (columns, columns_inside) = from(x, motion.dx, self.across);
                let most = |most: f32, (x, y): (isize, isize)| {
                    most.max(old[y.unsigned_abs() * self.across + x.unsigned_abs()])
                };
                self.residual[y * self.across + x] = if rows_inside && columns_inside {
                    rows.clone().flat_map(|y| columns.clone().map(move |x| (x, y))).fold(0.0, most)
                } else {
                    1e3
                };
            }
        }
    }

    /// Adapts the fusion to the brightness of the frame: a line through the means of patches for
    /// each channel, without outliers.
    fn follow_exposure(&mut self, frame: &[f32]) {
        let groups = self.planes.split_mut(&mut self.fused).zip(self.planes.split(frame));
        let planes = groups.flat_map(|((group, known), (_, new))| {
            let planes = known.chunks_exact_mut(group.area()).zip(new.chunks_exact(group.area()));
            planes.map(move |planes| (group, planes))
        });
        for (Group { width, height, .. }, (known, new)) in planes {
            self.patches.clear();
            for top in (0..height).step_by(PATCH) {
                for left in (0..width).step_by(PATCH) {
                    let columns = left..(left + PATCH).min(width);
                    let (mut levels, mut changes, mut count) = ([0.0; LANES], [0.0; LANES], 0);
                    for y in (top..(top + PATCH).min(height)).step_by(2) {
                        let row = y * width + columns.start..y * width + columns.end;
                        for (known, new) in
                            known[row.clone()].chunks(LANES).zip(new[row].chunks(LANES))
                        {
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

    /// Computes the energy of the difference of each block, relative to that of noise alone.
    fn compare(&mut self, frame: &[f32], sigma: &[Vec<f32>]) {
        self.smooth.fill(0.0);
        self.rough.fill(0.0);
        self.classify(&sigma[0]);
        let Self {
            planes, column, line, rows, smooth, rough, residual, across, work, coarse, ..
        } = self;
        let samples = samples_of_block(planes);
        let groups = planes.split(frame).zip(planes.split(&self.fused)).zip(sigma);
        for (((group, new), (_, known)), sigma) in groups {
            let Group { width, height, .. } = group;
            let size = block_of(group, self.width);
            let [smooth_energy, rough_energy] = &mut *work;
            smooth_energy.fill(0.0);
            rough_energy.fill(0.0);
            for (new, known) in new.chunks_exact(group.area()).zip(known.chunks_exact(group.area()))
            {
                let difference = |y: isize, out: &mut [f32]| {
                    let row = mirror(y, height) * width;
                    let row = row..row + width;
                    let pairs = out.iter_mut().zip(&new[row.clone()]).zip(&known[row]);
                    pairs.for_each(|((out, new), known)| *out = new - known);
                };
                difference(-1, &mut rows[1]);
                difference(0, &mut rows[2]);
                for y in 0..height {
                    rows.rotate_left(1);
                    let [above, here, below] = &mut *rows;
                    difference(y.cast_signed() + 1, below);
                    for (((sum, a), b), c) in
                        column[1..=width].iter_mut().zip(above).zip(&*here).zip(below)
                    {
                        *sum = *a + b + *c;
                    }
                    let (left, right) = (mirror(-1, width), mirror(width.cast_signed(), width));
                    (column[0], column[width + 1]) = (column[1 + left], column[1 + right]);
                    for (energy, three) in
                        line[..width].iter_mut().zip(column[..width + 2].windows(3))
                    {
                        let sum = three[0] + three[1] + three[2];
                        *energy = sum * sum;
                    }
                    let blocks = y / size * *across..;
                    add_blocks(
                        &line[..width],
                        size,
                        &mut smooth_energy[blocks.clone()],
                        |energy| energy,
                    );
                    add_blocks(&here[..width], size, &mut rough_energy[blocks], |difference| {
                        difference * difference
                    });
                }
            }
            // The noise energy that is expected in a block, from its map of sigma.
            coarse.fill(0.0);
            for (y, row) in sigma.chunks_exact(width).enumerate() {
                add_blocks(row, size, &mut coarse[y / size * *across..], |sigma| sigma * sigma);
            }
            // Weights each group by its number of samples, whatever its noise.
            let part = (group.planes * size * size) as f32 / samples as f32;
            for (block, expected) in coarse.iter().enumerate() {
                let scale =
                    part / (group.planes as f32 * expected * (1.0 + residual[block])).max(1e-12);
                // The sum of nine differences has nine times their variance.
                smooth[block] += scale / 9.0 * smooth_energy[block];
                rough[block] += scale * rough_energy[block];
            }
        }
    }

    /// Classifies each block by the fusion of its first plane.
    fn classify(&mut self, sigma: &[f32]) {
        let Group { width, height, .. } = self.planes.first();
        let Self { fused, across, work, coarse, classes, .. } = self;
        let [brightness, gradient] = work;
        let known = &fused[..width * height];
        brightness.fill(0.0);
        gradient.fill(0.0);
        coarse.fill(0.0);
        for (y, (row, sigma)) in
            known.chunks_exact(width).zip(sigma.chunks_exact(width)).enumerate()
        {
            let blocks = y / BLOCK * *across..;
            add_blocks(row, BLOCK, &mut brightness[blocks.clone()], |value| value);
            add_blocks(sigma, BLOCK, &mut coarse[blocks.clone()], |sigma| sigma * sigma);
            for (values, sum) in row.chunks(BLOCK).zip(&mut gradient[blocks]) {
                *sum += values.windows(3).map(|three| (three[2] - three[0]).powi(2)).sum::<f32>();
            }
        }
        for (i, class) in classes.iter_mut().enumerate() {
            let (x, y) = (i % *across * BLOCK, i / *across * BLOCK);
            let count = ((width - x).min(BLOCK) * (height - y).min(BLOCK)) as f32;
            // In a row of four samples, noise alone gives two differences with twice its variance
            // each.
            *class = levels::class(brightness[i] / count, gradient[i] / coarse[i].max(1e-12));
        }
    }

    /// Computes the new part of each block into `residual`. Returns whether the whole scene moves.
    fn judge(&mut self) -> bool {
        let size = [self.across, self.down];
        let [work, area] = &mut self.work;
        mean(&self.rough, size, AREA, work, area);
        self.rough.copy_from_slice(area);
        mean(&self.smooth, size, AREA, work, area);
        self.smooth.copy_from_slice(area);
        self.smooth_levels.learn(&self.smooth, self.classes.iter().copied(), self.is_still);
        self.rough_levels.learn(&self.rough, self.classes.iter().copied(), self.is_still);
        let blocks =
            self.smooth.iter_mut().zip(&self.rough).zip(area.iter_mut()).zip(&self.classes);
        let (mut unshared, mut count) = (0.0, 0.0);
        for (((smooth, rough), area), class) in blocks {
            let [mean_limits, pixel_limits] =
                [self.smooth_levels.of(*class), self.rough_levels.of(*class)];
            if *rough < pixel_limits.limit {
                unshared += *rough;
                count += 1.0;
            }
            // An outlier block implies that its surroundings move, but hardly that the whole
            // neighborhood does.
            *area = (*smooth / mean_limits.level).min(MAX_AREA_EXCESS);
            let over = (*smooth - mean_limits.limit) / mean_limits.level.max(1.0);
            *smooth =
                over.max((*rough - pixel_limits.limit) / pixel_limits.level.max(1.0)).max(0.0);
        }
        if count > 0.5 * self.residual.len() as f32 {
            self.unshared += 0.2 * ((unshared / count).min(1.0) - self.unshared);
        }
        mean(area, size, NEIGHBORHOOD, work, &mut self.coarse);
        // Learns how much neighborhoods differ where nothing moves.
        self.neighborhood_levels.learn(&self.coarse, iter::repeat(0), self.is_still);
        let limits = self.neighborhood_levels.of(0);
        self.coarse.iter_mut().for_each(|coarse| *coarse /= limits.level);
        let limit = (limits.limit / limits.level).clamp(NEIGHBORHOOD_OUTLIER_RATIO, 2.0);
        largest(&mut self.coarse, size, REACH, work);
        largest(&mut self.smooth, size, REACH, work);
        let (min_block_excess, min_neighborhood_excess) = match self.is_coded {
            true => (MIN_BLOCK_EXCESS_CODED, MIN_NEIGHBORHOOD_EXCESS_CODED),
            false => (MIN_BLOCK_EXCESS, MIN_NEIGHBORHOOD_EXCESS),
        };
        let mut moving = 0;
        for block in 0..self.residual.len() {
            // Excess over a static neighborhood.
            let coarse = (self.coarse[block] - limit).max(CARRIED_PART * self.before[block]);
            self.before[block] = coarse.min(MAX_CARRIED_EXCESS);
            let excess = (FINE_WEIGHT * self.smooth[block]).max(COARSE_WEIGHT * coarse).max(0.0);
            let residual = self.residual[block];
            let uncertain = residual + (1.0 + residual) * excess;
            let new = (uncertain / (uncertain + 1.0)).max(1.0 / MAX_FRAMES);
            let is_significant =
                self.smooth[block] > min_block_excess || coarse > min_neighborhood_excess;
            self.moving[block] =
                is_significant && new > residual / (residual + 1.0) + MOVING_EXCESS;
            self.residual[block] = new;
            moving += usize::from(new > MOVING_PART);
        }
        moving as f32 > SCENE_CUT_PART * self.residual.len() as f32
    }

    /// Averages by precision. `once` makes the next frame start from this one alone: after motion
    /// by fractions of a pixel, noise is correlated between neighbors and must not accumulate.
    fn average(&mut self, frame: &mut [f32], sigma: &mut [Vec<f32>], once: bool) {
        let whole = self.width;
        let Self { planes, residual, fused, line, across, .. } = self;
        let groups = planes.split_mut(frame).zip(planes.split_mut(fused)).zip(sigma);
        for (((group, frame), (_, fused)), sigma) in groups {
            let (width, area, size) = (group.width, group.area(), block_of(group, whole));
            let line = &mut line[..width];
            for (top, parts) in (0..group.height).step_by(size).zip(residual.chunks_exact(*across))
            {
                let rows = top * width..((top + size) * width).min(area);
                spread(parts, size, line, |part| part);
                for (new, known) in frame.chunks_exact_mut(area).zip(fused.chunks_exact_mut(area)) {
                    let new = new[rows.clone()].chunks_exact_mut(width);
                    for (new, known) in new.zip(known[rows.clone()].chunks_exact_mut(width)) {
                        for ((new, known), part) in new.iter_mut().zip(known).zip(&*line) {
                            // A part of 1 reproduces the new frame exactly.
                            let fused = *new + (1.0 - part) * (*known - *new);
                            *known = if once { *new } else { fused };
                            *new = fused;
                        }
                    }
                }
                spread(parts, size, line, f32::sqrt);
                for sigma in sigma[rows].chunks_exact_mut(width) {
                    sigma.iter_mut().zip(&*line).for_each(|(sigma, factor)| *sigma *= factor);
                }
            }
        }
        if once {
            self.residual.fill(1.0);
        }
    }
}

/// Moves planes by the motion of the first; `work` is as long as the largest plane.
fn move_groups(planes: &Planes, samples: &mut [f32], motion: GlobalMotion, work: &mut [f32]) {
    if motion.is_none() {
        return;
    }
    let whole = planes.first().width;
    for (group, samples) in planes.split_mut(samples) {
        // Scales the motion to the smaller size of chroma.
        let part = group.width as f32 / whole as f32;
        let motion = GlobalMotion { dx: part * motion.dx, dy: part * motion.dy };
        for plane in samples.chunks_exact_mut(group.area()) {
            move_plane(plane, group.width, motion, &mut work[..group.area()]);
        }
    }
}

/// Samples of a block in all planes.
fn samples_of_block(planes: &Planes) -> usize {
    let whole = planes.first().width;
    planes.groups().iter().map(|group| group.planes * block_of(*group, whole).pow(2)).sum()
}

/// Side in samples of a block in planes of that group, where the largest planes are `whole`
/// samples wide.
fn block_of(group: Group, whole: usize) -> usize {
    (BLOCK * group.width).div_ceil(whole.max(1))
}

/// Adds `of(value)` for each value of a row to its block, where blocks are `size` samples wide.
fn add_blocks(row: &[f32], size: usize, blocks: &mut [f32], of: impl Fn(f32) -> f32) {
    match size {
        BLOCK => add_blocks_of::<BLOCK>(row, blocks, of),
        2 => add_blocks_of::<2>(row, blocks, of),
        _ => {
            for (block, values) in blocks.iter_mut().zip(row.chunks(size)) {
                *block += values.iter().map(|value| of(*value)).sum::<f32>();
            }
        }
    }
}

fn add_blocks_of<const N: usize>(row: &[f32], blocks: &mut [f32], of: impl Fn(f32) -> f32) {
    let (whole, residual) = row.as_chunks::<N>();
    for (block, values) in blocks.iter_mut().zip(whole) {
        *block += values.map(&of).iter().sum::<f32>();
    }
    if let (false, Some(block)) = (residual.is_empty(), blocks.get_mut(whole.len())) {
        *block += residual.iter().map(|value| of(*value)).sum::<f32>();
    }
}

/// Expands a row of blocks to a row of samples.
fn spread(blocks: &[f32], size: usize, row: &mut [f32], of: impl Fn(f32) -> f32) {
    row.chunks_mut(size).zip(blocks).for_each(|(row, block)| row.fill(of(*block)));
}

#[cfg(test)]
mod tests;
