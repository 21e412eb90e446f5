//! One axis of a tile plan. It uses only integers, except for the blending weights.

use std::ops::Range;

/// How one axis of an image is divided into tiles.
///
/// ```text
/// tile 0   |<---------- tile ---------->|
/// tile 1                 |<---------- tile ---------->|
///                        |<- overlap -->|
///                        | margin |ramp | margin |    ramp: centered, `2 * feather` wide
/// owned    |<-------- 0 --------->|<-------- 1 ------>|
/// ```
///
/// All tiles have equal length, and every start is a multiple of the network's grid, as is the
/// difference between a tile and the whole. A network with strided layers thus sees the same grid
/// everywhere, pads every tile alike if it does, and gives equal numbers in every tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Pixels of the image along this axis.
    pub length: usize,
    /// `length`, rounded up to the alignment; beyond the image it is mirrored.
    pub padded: usize,
    /// Pixels of a tile.
    pub tile: usize,
    /// Half the width of the ramp over which two neighbors are blended; 0 means no blending.
    pub feather: usize,
    /// The tiles in order.
    pub spans: Vec<Span>,
}

/// One tile along an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Start of the tile.
    pub start: usize,
    /// The pixels owned by this tile, up to the seams; the spans' `owned` partition `0..length`.
    pub owned: Range<usize>,
}

impl Axis {
    /// A single tile.
    pub fn whole(length: usize, alignment: usize) -> Self {
        let padded = length.next_multiple_of(alignment);
        let spans = vec![Span { start: 0, owned: 0..length }];
        Self { length, padded, tile: padded, feather: 0, spans }
    }

    /// The fewest tiles of at most `limit` pixels that overlap by `margin + feather` on both sides
    /// of every seam, all as short as that number allows; `None` when `limit` leaves nothing
    /// between two overlaps. `grid` is a multiple of `alignment`.
    pub fn cut(
        length: usize,
        limit: usize,
        alignment: usize,
        grid: usize,
        margin: usize,
        feather: usize,
    ) -> Option<Self> {
        let padded = length.next_multiple_of(alignment);
        if padded <= limit {
            return Some(Self::whole(length, alignment));
        }
        // Tiles differ from the whole by multiples of the grid.
        let longest = padded - (padded - limit).next_multiple_of(grid).min(padded);
        let step = |tile: usize| tile.saturating_sub(2 * (margin + feather)) / grid * grid;
        if step(longest) == 0 {
            return None;
        }
        let steps = (padded - longest).div_ceil(step(longest));
        let mut tile = longest;
        while tile > grid && steps * step(tile - grid) >= padded - (tile - grid) {
            tile -= grid;
        }
        Some(Self::spread(length, padded, tile, steps + 1, grid, feather))
    }

    /// The fewest tiles of exactly `tile` pixels, a multiple of `alignment`, that overlap by
    /// `margin + feather` on both sides of every seam; `None` when `tile` leaves nothing between
    /// two overlaps. A shorter image is mirrored beyond its end.
    pub fn of_size(
        length: usize,
        tile: usize,
        alignment: usize,
        margin: usize,
        feather: usize,
    ) -> Option<Self> {
        let padded = length.next_multiple_of(alignment);
        if padded <= tile {
            let spans = vec![Span { start: 0, owned: 0..length }];
            return Some(Self { length, padded: tile, tile, feather: 0, spans });
        }
        let overlap = (2 * (margin + feather)).next_multiple_of(alignment);
        if tile <= overlap {
            return None;
        }
        let count = 1 + (padded - tile).div_ceil(tile - overlap);
        Some(Self::spread(length, padded, tile, count, alignment, feather))
    }

    /// `count` tiles, two or more, at even distances.
    fn spread(
        length: usize,
        padded: usize,
        tile: usize,
        count: usize,
        alignment: usize,
        feather: usize,
    ) -> Self {
        let starts: Vec<usize> =
            (0..count).map(|i| i * (padded - tile) / (count - 1) / alignment * alignment).collect();
        // A seam is in the middle of the overlap of two neighbors.
        let seam = |i: usize| (starts[i] + starts[i - 1] + tile) / 2;
        let spans = (0..count)
            .map(|i| {
                let from = if i == 0 { 0 } else { seam(i).min(length) };
                let to = if i + 1 == count { length } else { seam(i + 1).min(length) };
                Span { start: starts[i], owned: from..to }
            })
            .collect();
        Self { length, padded, tile, feather, spans }
    }

    /// The pixels to which tile `i` contributes: those it owns and its halves of the ramps.
    pub fn contributes(&self, i: usize) -> Range<usize> {
        let owned = &self.spans[i].owned;
        let from = if i == 0 { owned.start } else { owned.start - self.feather };
        let to = if i + 1 == self.spans.len() {
            owned.end
        } else {
            (owned.end + self.feather).min(self.length)
        };
        from..to
    }

    /// The blending weight of tile `i` at `position`, one of the pixels to which it contributes.
    /// The weights of all tiles sum to one at every pixel.
    pub fn weight(&self, i: usize, position: usize) -> f32 {
        if self.feather == 0 {
            return 1.0;
        }
        // Blending weight of the tile after `seam`; the differences telescope, so that they sum to
        // one.
        let ramp = |seam: usize| {
            let into = (position + self.feather) as f32 - seam as f32 + 0.5;
            (into / (2 * self.feather) as f32).clamp(0.0, 1.0)
        };
        let owned = &self.spans[i].owned;
        let started = if i == 0 { 1.0 } else { ramp(owned.start) };
        let over = if i + 1 == self.spans.len() { 0.0 } else { ramp(owned.end) };
        started - over
    }
}

#[cfg(test)]
mod tests {
    use super::Axis;

    /// Draws an axis with one line per tile: `-` for context only, `#` for owned pixels, `+` for
    /// blended ones.
    fn draw(axis: &Axis) -> String {
        let mut lines = String::new();
        for (i, span) in axis.spans.iter().enumerate() {
            let shares = axis.contributes(i);
            lines.push('\n');
            for position in 0..axis.padded {
                lines.push(match position {
                    p if span.owned.contains(&p) => '#',
                    p if shares.contains(&p) => '+',
                    p if (span.start..span.start + axis.tile).contains(&p) => '-',
                    _ => '.',
                });
            }
        }
        lines
    }

    #[test]
    fn uses_one_tile_when_it_fits() {
        let axis = Axis::cut(13, 16, 4, 4, 4, 0).unwrap();
        assert_eq!(draw(&axis), "\n#############---");
    }

    #[test]
    fn divides_a_length_unevenly() {
        let axis = Axis::cut(30, 16, 4, 4, 3, 0).unwrap();
        assert_eq!(
            draw(&axis),
            "
############----................
........----########----........
................----##########--"
        );
    }

    #[test]
    fn blends_over_a_ramp_on_both_sides() {
        let axis = Axis::cut(24, 16, 4, 4, 2, 2).unwrap();
        assert_eq!(
            draw(&axis),
            "
############++--........
........--++############"
        );
    }

    #[test]
    fn rejects_a_limit_below_the_overlap() {
        assert_eq!(Axis::cut(100, 16, 8, 8, 8, 0), None);
    }

    /// Invariants of every cut, on sizes that do not divide evenly.
    #[test]
    fn covers_aligns_and_overlaps_in_every_cut() {
        for length in 1..90 {
            for (limit, alignment, grid, margin, feather) in [
                (16, 1, 1, 2, 0),
                (16, 1, 1, 2, 3),
                (24, 8, 8, 5, 0),
                (32, 8, 8, 8, 3),
                (40, 4, 4, 9, 10),
                (17, 2, 2, 1, 1),
                (30, 1, 8, 5, 0),
                (29, 2, 4, 3, 2),
            ] {
                let Some(axis) = Axis::cut(length, limit, alignment, grid, margin, feather) else {
                    continue;
                };
                let case = format!("{length} by {limit}: {axis:?}");
                assert!(axis.tile <= limit || axis.spans.len() == 1, "{case}");
                assert_eq!((axis.padded - axis.tile) % grid, 0, "{case}");
                let end = axis.spans.last().unwrap().start + axis.tile;
                assert_eq!(end, axis.padded, "{case}");
                let mut covered = 0;
                for (i, span) in axis.spans.iter().enumerate() {
                    assert_eq!(span.start % grid, 0, "{case}");
                    assert_eq!(span.owned.start, covered, "{case}");
                    covered = span.owned.end;
                    let shares = axis.contributes(i);
                    assert!(i == 0 || shares.start >= span.start + margin, "{case}");
                    let last = i + 1 == axis.spans.len();
                    assert!(last || shares.end + margin <= span.start + axis.tile, "{case}");
                    assert!(shares.end <= span.start + axis.tile, "{case}");
                }
                assert_eq!(covered, length, "{case}");
                for position in 0..length {
                    let sum: f32 = (0..axis.spans.len())
                        .filter(|&i| axis.contributes(i).contains(&position))
                        .map(|i| axis.weight(i, position))
                        .sum();
                    assert!((sum - 1.0).abs() < 1e-6, "{case}: weights sum to {sum} at {position}");
                }
            }
        }
    }
}
