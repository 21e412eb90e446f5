//! Blends tiles: `sum(w * tile) / sum(w)`, a band of rows at a time.

use std::ops::Range;

use super::plan::TilePlan;

/// Rows of a network's output over the whole width of an image, plane by plane.
#[derive(Clone, Copy, Debug)]
pub struct Band<'a> {
    values: &'a [f32],
    /// Values between the starts of rows.
    stride: usize,
    /// Rows per plane.
    height: usize,
    /// The row of the image at which the band starts.
    first_row: usize,
}

impl<'a> Band<'a> {
    /// The output of an evaluation of the whole image: planes of `height` rows of `stride` values.
    pub fn whole(values: &'a [f32], stride: usize, height: usize) -> Self {
        Self { values, stride, height, first_row: 0 }
    }

    /// The first `width` values of row `y` of the image in a plane (`batch * channels + channel`).
    pub fn row(&self, plane: usize, y: usize, width: usize) -> &'a [f32] {
        let start = (plane * self.height + y - self.first_row) * self.stride;
        &self.values[start..start + width]
    }
}

/// Accumulates the tiles of an image.
///
/// It holds at most one row of tiles: rows to which no later tile contributes are removed before
/// the next row of tiles is added.
#[derive(Debug)]
pub struct Seam {
    sums: Vec<f32>,
    /// The weights of the columns of the current tile, where neighbors are blended.
    across: Vec<f32>,
    planes: usize,
    width: usize,
    height: usize,
    first_row: usize,
}

impl Seam {
    /// Space for one row of tiles of `planes` planes.
    pub fn new(tiles: &TilePlan, planes: usize) -> Self {
        let (width, height) = (tiles.horizontal.length, tiles.vertical.tile);
        let across = Vec::with_capacity(if is_cut_hard(tiles) { 0 } else { tiles.horizontal.tile });
        Self {
            sums: vec![0.0; planes * width * height],
            across,
            planes,
            width,
            height,
            first_row: 0,
        }
    }

    /// Adds the output of the tile in `row` and `column`: `planes` dense planes of the plan's tile
    /// size.
    pub fn add(&mut self, tiles: &TilePlan, row: usize, column: usize, output: &[f32]) {
        let (vertical, horizontal) = (&tiles.vertical, &tiles.horizontal);
        let (top, left) = (vertical.spans[row].start, horizontal.spans[column].start);
        let xs = horizontal.contributes(column);
        let hard = is_cut_hard(tiles);
        if !hard {
            self.across.clear();
            self.across.extend(xs.clone().map(|x| horizontal.weight(column, x)));
        }
        for plane in 0..self.planes {
            for y in vertical.contributes(row) {
                let from = (plane * vertical.tile + y - top) * horizontal.tile + xs.start - left;
                let from = &output[from..from + xs.len()];
                let to = (plane * self.height + y - self.first_row) * self.width + xs.start;
                let to = &mut self.sums[to..to + xs.len()];
                if hard {
                    to.copy_from_slice(from);
                    continue;
                }
                let weight = vertical.weight(row, y);
                for ((to, from), across) in to.iter_mut().zip(from).zip(&self.across) {
                    *to += weight * across * from;
                }
            }
        }
    }

    /// The rows that are complete once all tiles of `row` were added, and that no later tile
    /// reads.
    pub fn complete(&self, tiles: &TilePlan, row: usize) -> Range<usize> {
        let vertical = &tiles.vertical;
        let until = vertical
            .spans
            .get(row + 1)
            .map_or(vertical.length, |next| next.start.min(vertical.length));
        self.first_row..until
    }

    /// The rows that were joined so far.
    pub fn band(&self) -> Band<'_> {
        Band {
            values: &self.sums,
            stride: self.width,
            height: self.height,
            first_row: self.first_row,
        }
    }

    /// Drops the rows before `first_row`, and makes space for as many after the others.
    pub fn advance(&mut self, first_row: usize) {
        let dropped = (first_row - self.first_row).min(self.height) * self.width;
        for plane in self.sums.chunks_exact_mut(self.height * self.width) {
            plane.copy_within(dropped.., 0);
            let kept = plane.len() - dropped;
            plane[kept..].fill(0.0);
        }
        self.first_row = first_row;
    }

    /// Resets for the next sampler step.
    pub fn restart(&mut self) {
        self.first_row = 0;
        self.sums.fill(0.0);
    }
}

/// Whether each pixel comes from a single tile.
fn is_cut_hard(tiles: &TilePlan) -> bool {
    tiles.vertical.feather == 0 && tiles.horizontal.feather == 0
}
