//! Caches tiles of static areas until their residual variance has fallen enough to compute them
//! again.

use super::{BLOCK, Temporal};
use crate::diffusion::{CachedTiles, Window, read_plane};
use crate::tile::{Locality, TilePlan};

/// When a static tile is computed again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::video) struct RefreshPolicy {
    /// Once the residual variance is at most this part of what it was when the tile was computed.
    less: f32,
    /// Once the tile is this many frames old, because the light may have changed slightly.
    oldest: u32,
}

impl RefreshPolicy {
    pub(in crate::video) const DEFAULT: Self = Self { less: 0.5, oldest: 60 };
    pub(in crate::video) const LONG_REUSE: Self = Self { less: 0.2, oldest: 240 };
}

/// Active tiles are run alone when that costs less than this part of the whole frame.
const MAX_ACTIVE_PART: f64 = 0.8;

/// The tiles of a stream's frames and their age.
pub(in crate::video) struct TileCache {
    plan: TilePlan,
    /// Ratio of the size of the frames that `Temporal` processes to this size, along each axis.
    ratio: [f64; 2],
    policy: RefreshPolicy,
    tiles: Vec<Tile>,
    active: Vec<bool>,
    /// The previous result, `[channels, height, width]`.
    result: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Tile {
    /// Residual variance when the tile was computed.
    residual: f32,
    residual_now: f32,
    age: u32,
}

impl Tile {
    fn computed(&mut self) {
        (self.residual, self.age) = (self.residual_now, 0);
    }
}

/// The part of a frame that must be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::video) enum TilesToUpdate {
    Nothing,
    /// The active tiles.
    Tiles,
    Everything,
}

impl TileCache {
    /// For frames of `channels` and that size, which `Temporal` processes `ratio` times larger
    /// along each axis; `whole` is the plan for whole frames.
    pub(in crate::video) fn new(
        [channels, width, height]: [usize; 3],
        ratio: [f64; 2],
        policy: RefreshPolicy,
        whole: &TilePlan,
        locality: Locality,
    ) -> Self {
        let cut = TilePlan::cut(width, height, TilePlan::smallest(locality), None, locality);
        let plan = cut.unwrap_or_else(|_| whole.clone());
        let count = plan.count();
        Self {
            plan,
            ratio,
            policy,
            tiles: vec![
                Tile { residual: f32::INFINITY, residual_now: f32::INFINITY, age: 0 };
                count
            ],
            active: vec![true; count],
            result: vec![0.0; channels * width * height],
        }
    }

    /// The plan by which active tiles are run.
    pub(in crate::video) fn plan(&self) -> &TilePlan {
        &self.plan
    }

    /// Determines what must be computed of a frame that `temporal` has fused; `whole` gives the
    /// cost of the whole frame.
    pub(in crate::video) fn due(&mut self, temporal: &Temporal, whole: &TilePlan) -> TilesToUpdate {
        let columns = self.plan.horizontal.spans.len();
        for (i, (tile, active)) in self.tiles.iter_mut().zip(&mut self.active).enumerate() {
            let (x, y) = (
                self.plan.horizontal.spans[i % columns].start,
                self.plan.vertical.spans[i / columns].start,
            );
            let (width, height) = self.plan.tile_size();
            let [across, down] = self.ratio;
            let scaled = |length: usize, ratio: f64| (length as f64 * ratio) as usize;
            let place = (scaled(x, across), scaled(y, down));
            let (moving, residual) =
                temporal.window_state(place, (scaled(width, across), scaled(height, down)));
            tile.age += 1;
            // Staggers the age limit, so that not all tiles of a static scene are computed in one
            // frame.
            let oldest = self.policy.oldest + 7 * (i as u32 % 5);
            *active = moving || residual <= self.policy.less * tile.residual || tile.age >= oldest;
            tile.residual_now = residual;
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
        } else if cost(&self.plan, count) < MAX_ACTIVE_PART * cost(whole, whole.count()) {
            TilesToUpdate::Tiles
        } else {
            self.tiles.iter_mut().for_each(Tile::computed);
            TilesToUpdate::Everything
        }
    }

    /// Part of the tiles that must be computed.
    pub(in crate::video) fn active_part(&self) -> f64 {
        self.active.iter().filter(|active| **active).count() as f64 / self.active.len() as f64
    }

    /// The previous result.
    pub(in crate::video) fn result(&self) -> &[f32] {
        &self.result
    }

    /// Keeps a result for the next frame.
    pub(in crate::video) fn store(&mut self, result: &[f32]) {
        self.result.copy_from_slice(result);
    }
}

impl Temporal {
    /// Whether any block moves in a window, and its mean residual variance.
    fn window_state(&self, (x, y): (usize, usize), (width, height): (usize, usize)) -> (bool, f32) {
        let (across, down) = (self.across(), self.residual().len() / self.across());
        let rows = y / BLOCK..(y + height).div_ceil(BLOCK).min(down);
        let columns = x / BLOCK..(x + width).div_ceil(BLOCK).min(across);
        let (mut moving, mut sum) = (false, 0.0);
        let count = (rows.len() * columns.len()) as f32;
        for row in rows {
            let blocks = row * across + columns.start..row * across + columns.end;
            moving |= self.moving()[blocks.clone()].iter().any(|moving| *moving);
            sum += self.residual()[blocks].iter().sum::<f32>();
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
