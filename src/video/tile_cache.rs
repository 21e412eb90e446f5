//! What need not be computed anew: tiles of a scene in which nothing moves, and of which hardly more is known than when they
//! were last computed.

use super::temporal::{BLOCK, Temporal};
use crate::diffusion::{CachedTiles, Window, read_plane};
use crate::tile::{Locality, TilePlan};

/// When a tile at rest is computed again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RefreshPolicy {
    /// When so much less noise is left than when it last was, as a part of the variance.
    less: f32,
    /// After so many frames, whatever is known: a little light may have changed.
    oldest: u32,
}

impl RefreshPolicy {
    pub(super) const USUAL: Self = Self { less: 0.5, oldest: 60 };
    pub(super) const THRIFTY: Self = Self { less: 0.2, oldest: 240 };
}

/// Tiles are run alone where that takes less than this part of what the whole frame takes.
const WORTH: f64 = 0.8;

/// The tiles of a stream's frames, and when they were computed.
pub(super) struct TileCache {
    plan: TilePlan,
    /// How much larger, along each axis, the frames are that `Temporal` sees.
    ratio: [f64; 2],
    renewal: RefreshPolicy,
    tiles: Vec<Tile>,
    active: Vec<bool>,
    /// The result before, `[channels, height, width]`.
    result: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Tile {
    /// What was left of the variance when it was computed.
    rest: f32,
    rest_now: f32,
    age: u32,
}

impl Tile {
    fn computed(&mut self) {
        (self.rest, self.age) = (self.rest_now, 0);
    }
}

/// What there is to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TilesToUpdate {
    Nothing,
    /// The tiles that are active.
    Tiles,
    Everything,
}

impl TileCache {
    /// For frames of so many channels and that size, which are made of larger ones, `ratio` times along each axis; `whole` is how
    /// they are cut otherwise.
    pub(super) fn new(
        [channels, width, height]: [usize; 3],
        ratio: [f64; 2],
        renewal: RefreshPolicy,
        whole: &TilePlan,
        locality: Locality,
    ) -> Self {
        let cut = TilePlan::cut(width, height, TilePlan::smallest(locality), None, locality);
        let plan = cut.unwrap_or_else(|_| whole.clone());
        let count = plan.count();
        Self {
            plan,
            ratio,
            renewal,
            tiles: vec![Tile { rest: f32::INFINITY, rest_now: f32::INFINITY, age: 0 }; count],
            active: vec![true; count],
            result: vec![0.0; channels * width * height],
        }
    }

    /// The cut by which active tiles are run.
    pub(super) fn plan(&self) -> &TilePlan {
        &self.plan
    }

    /// What there is to compute of a frame that `temporal` has fused, beside what `whole` takes.
    pub(super) fn due(&mut self, temporal: &Temporal, whole: &TilePlan) -> TilesToUpdate {
        let columns = self.plan.horizontal.spans.len();
        for (i, (tile, active)) in self.tiles.iter_mut().zip(&mut self.active).enumerate() {
            let (x, y) = (self.plan.horizontal.spans[i % columns].start, self.plan.vertical.spans[i / columns].start);
            let (width, height) = self.plan.tile_size();
            let [across, down] = self.ratio;
            let scaled = |length: usize, ratio: f64| (length as f64 * ratio) as usize;
            let place = (scaled(x, across), scaled(y, down));
            let (moving, rest) = temporal.look_at(place, (scaled(width, across), scaled(height, down)));
            tile.age += 1;
            // Not all tiles of a still scene in one frame.
            let oldest = self.renewal.oldest + 7 * (i as u32 % 5);
            *active = moving || rest <= self.renewal.less * tile.rest || tile.age >= oldest;
            tile.rest_now = rest;
            if *active {
                tile.computed();
            }
        }
        let count = self.active.iter().filter(|active| **active).count();
        let cost = |plan: &TilePlan, count: usize| {
            let (width, height) = plan.tile_size();
            (width * height * count) as f64
        };
        if count == 0 {
            TilesToUpdate::Nothing
        } else if cost(&self.plan, count) < WORTH * cost(whole, whole.count()) {
            TilesToUpdate::Tiles
        } else {
            self.tiles.iter_mut().for_each(Tile::computed);
            TilesToUpdate::Everything
        }
    }

    /// Part of the tiles that are computed.
    pub(super) fn active_part(&self) -> f64 {
        self.active.iter().filter(|active| **active).count() as f64 / self.active.len() as f64
    }

    /// The result before.
    pub(super) fn result(&self) -> &[f32] {
        &self.result
    }

    /// Keeps a result for the next frame.
    pub(super) fn keep(&mut self, result: &[f32]) {
        self.result.copy_from_slice(result);
    }
}

impl Temporal {
    /// Whether anything moves in a window, and what is left of the variance there on average.
    fn look_at(&self, (x, y): (usize, usize), (width, height): (usize, usize)) -> (bool, f32) {
        let (across, down) = (self.across(), self.rest().len() / self.across());
        let rows = y / BLOCK..(y + height).div_ceil(BLOCK).min(down);
        let columns = x / BLOCK..(x + width).div_ceil(BLOCK).min(across);
        let (mut moving, mut sum) = (false, 0.0);
        let count = (rows.len() * columns.len()) as f32;
        for row in rows {
            let blocks = row * across + columns.start..row * across + columns.end;
            moving |= self.moving()[blocks.clone()].iter().any(|moving| *moving);
            sum += self.rest()[blocks].iter().sum::<f32>();
        }
        (moving, sum / count.max(1.0))
    }
}

impl CachedTiles for TileCache {
    fn recall(&self, window: Window, out: &mut Vec<f32>) -> bool {
        let (horizontal, vertical) = (&self.plan.horizontal, &self.plan.vertical);
        let column = horizontal.spans.iter().position(|span| span.start == window.x);
        let row = vertical.spans.iter().position(|span| span.start == window.y);
        let Some((row, column)) = row.zip(column) else { return false };
        if self.active[row * horizontal.spans.len() + column] {
            return false;
        }
        let (area, plane) = (window.width * window.height, horizontal.length * vertical.length);
        let channels = self.result.len() / plane;
        out.resize(channels * area, 0.0);
        for (plane, out) in self.result.chunks_exact(plane).zip(out.chunks_exact_mut(area)) {
            read_plane(plane, horizontal.length, window, 1.0, out);
        }
        true
    }
}
