//! One axis of a tile plan. Integers only, but for the weights of a seam.

use std::ops::Range;

/// How one axis of an image is cut.
///
/// ```text
/// tile 0   |<---------- tile ---------->|
/// tile 1                 |<---------- tile ---------->|
///                        |<- overlap -->|
///                        | margin |ramp | margin |      ramp: centred on the seam, `2 * feather` wide
/// owned    |<-------- 0 --------->|<-------- 1 ------>|
/// ```
///
/// All tiles have the same length, and every start is a multiple of the network's alignment, so that a network whose
/// strided layers see the same grid everywhere gives the same numbers in every tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Pixels of the image along this axis.
    pub length: usize,
    /// `length`, rounded up to the alignment; what lies beyond the image is its mirror image.
    pub padded: usize,
    /// Pixels of a tile.
    pub tile: usize,
    /// Half the width of the ramp over which two neighbours are mixed; 0 cuts hard.
    pub feather: usize,
    /// The tiles in order.
    pub spans: Vec<Span>,
}

/// One tile along an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where the tile starts.
    pub start: usize,
    /// The pixels that are this tile's, up to the seams; the spans' `owned` partition `0..length`.
    pub owned: Range<usize>,
}

impl Axis {
    /// One tile for all.
    pub fn whole(length: usize, alignment: usize) -> Self {
        let padded = length.next_multiple_of(alignment);
        let spans = vec![Span { start: 0, owned: 0..length }];
        Self { length, padded, tile: padded, feather: 0, spans }
    }

    /// As few tiles of at most `limit` pixels as overlap by `margin + feather` on both sides of every seam, all as
    /// short as that number allows; `None` when `limit` leaves nothing between two overlaps.
    pub fn cut(length: usize, limit: usize, alignment: usize, margin: usize, feather: usize) -> Option<Self> {
        let padded = length.next_multiple_of(alignment);
        if padded <= limit {
            return Some(Self::whole(length, alignment));
        }
        let limit = limit / alignment * alignment;
        let overlap = (2 * (margin + feather)).next_multiple_of(alignment);
        if limit <= overlap {
            return None;
        }
        let count = 1 + (padded - limit).div_ceil(limit - overlap);
        let tile = (padded + (count - 1) * overlap).div_ceil(count).next_multiple_of(alignment);
        let starts: Vec<usize> =
            (0..count).map(|i| i * (padded - tile) / (count - 1) / alignment * alignment).collect();
        // A seam lies in the middle of what two neighbours share.
        let seam = |i: usize| (starts[i] + starts[i - 1] + tile) / 2;
        let spans = (0..count)
            .map(|i| {
                let from = if i == 0 { 0 } else { seam(i).min(length) };
                let to = if i + 1 == count { length } else { seam(i + 1).min(length) };
                Span { start: starts[i], owned: from..to }
            })
            .collect();
        Some(Self { length, padded, tile, feather, spans })
    }

    /// The pixels to which tile `i` contributes: what it owns and its halves of the ramps.
    pub fn contributes(&self, i: usize) -> Range<usize> {
        let owned = &self.spans[i].owned;
        let from = if i == 0 { owned.start } else { owned.start - self.feather };
        let to = if i + 1 == self.spans.len() { owned.end } else { (owned.end + self.feather).min(self.length) };
        from..to
    }

    /// The weight of tile `i` at `position`, one of the pixels to which it contributes. The weights of all tiles sum to
    /// one at every pixel.
    pub fn weight(&self, i: usize, position: usize) -> f32 {
        if self.feather == 0 {
            return 1.0;
        }
        // How far the mix has gone over to the tile after `seam`; the differences telescope, so they sum to one.
        let ramp = |seam: usize| {
            let into = (position + self.feather) as f32 - seam as f32 + 0.5;
            (into / (2 * self.feather) as f32).clamp(0.0, 1.0)
        };
        let owned = &self.spans[i].owned;
        let begun = if i == 0 { 1.0 } else { ramp(owned.start) };
        let over = if i + 1 == self.spans.len() { 0.0 } else { ramp(owned.end) };
        begun - over
    }
}

#[cfg(test)]
mod tests {
    use super::Axis;

    /// Draws an axis: one line a tile, `-` where it only looks, `#` where it owns, `+` where it is mixed in.
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
    fn one_tile_when_it_fits() {
        let axis = Axis::cut(13, 16, 4, 4, 0).unwrap();
        assert_eq!(draw(&axis), "\n#############---");
    }

    #[test]
    fn a_length_that_does_not_divide() {
        let axis = Axis::cut(30, 16, 4, 3, 0).unwrap();
        assert_eq!(
            draw(&axis),
            "
############----................
........----########----........
................----##########--"
        );
    }

    #[test]
    fn a_ramp_is_mixed_from_both_sides() {
        let axis = Axis::cut(24, 16, 4, 2, 2).unwrap();
        assert_eq!(
            draw(&axis),
            "
############++--........
........--++############"
        );
    }

    #[test]
    fn a_limit_below_the_overlap_is_refused() {
        assert_eq!(Axis::cut(100, 16, 8, 8, 0), None);
    }

    /// What has to hold for every cut, on sizes that do not divide.
    #[test]
    fn every_cut_covers_aligns_and_overlaps() {
        for length in 1..90 {
            for (limit, alignment, margin, feather) in
                [(16, 1, 2, 0), (16, 1, 2, 3), (24, 8, 5, 0), (32, 8, 8, 3), (40, 4, 9, 10), (17, 2, 1, 1)]
            {
                let Some(axis) = Axis::cut(length, limit, alignment, margin, feather) else { continue };
                let case = format!("{length} by {limit}: {axis:?}");
                assert!(axis.tile <= limit || axis.spans.len() == 1, "{case}");
                let mut covered = 0;
                for (i, span) in axis.spans.iter().enumerate() {
                    assert_eq!(span.start % alignment, 0, "{case}");
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
