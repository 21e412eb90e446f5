//! The tiles of an image.

use super::axis::Axis;
use crate::error::{Error, Result};
use crate::setting::TILE_OVERLAP;

/// The geometric requirements of a network on tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locality {
    /// Width and height of an input must be multiples of this.
    pub multiple_of: usize,
    /// Tiles begin at multiples of this, itself a multiple of `multiple_of`: larger for a network
    /// that pads an image to its grid by itself.
    pub grid: usize,
    /// Receptive field: no output depends on an input further away than this many pixels; `None`
    /// for a network with global operations (attention, normalization over the image).
    pub receptive_field: Option<usize>,
    /// The only width and height of an input, if there is only one size.
    pub size: Option<[usize; 2]>,
}

/// Pixels of context on each side of a seam for a network without a known receptive field, and of
/// the ramp over which its tiles are blended.
const GLOBAL_MARGIN: usize = 32;
const GLOBAL_FEATHER: usize = 32;

/// How an image is divided into tiles: the product of two axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TilePlan {
    /// Rows of tiles.
    pub vertical: Axis,
    /// Columns of tiles.
    pub horizontal: Axis,
}

impl TilePlan {
    /// The whole image as one tile.
    pub fn whole(width: usize, height: usize, multiple_of: usize) -> Self {
        Self {
            vertical: Axis::whole(height, multiple_of),
            horizontal: Axis::whole(width, multiple_of),
        }
    }

    /// Tiles of at most `limit` pixels per side.
    ///
    /// A local network gets its receptive field as context on both sides of each seam, without
    /// blending, which gives the same result as the whole image. If `overlap` is more than two
    /// receptive fields, neighbors are blended over the rest.
    ///
    /// # Errors
    /// [`Error::Usage`] when a tile of `limit` would consist only of overlap, or `overlap` is less
    /// than two receptive fields.
    pub fn cut(
        width: usize,
        height: usize,
        limit: usize,
        overlap: Option<usize>,
        locality: Locality,
    ) -> Result<Self> {
        let (margin, feather) = match (locality.receptive_field, overlap) {
            (Some(field), None) => (field, 0),
            (Some(field), Some(overlap)) if overlap < 2 * field => {
                let problem = format!(
                    "an overlap of {overlap} px leaves seams: this network looks {field} px far, \
                     so neighboring tiles have to share at least {} px; leave {TILE_OVERLAP} out \
                     or raise it",
                    2 * field
                );
                return Err(Error::usage(problem));
            }
            (Some(field), Some(overlap)) => (field, overlap / 2 - field),
            (None, None) => (GLOBAL_MARGIN, GLOBAL_FEATHER),
            (None, Some(overlap)) => (overlap / 4, overlap / 4),
        };
        let multiple = locality.multiple_of;
        if let Some([tile_width, tile_height]) = locality.size {
            let cut = |length, tile| Axis::of_size(length, tile, multiple, margin, feather);
            return match (cut(height, tile_height), cut(width, tile_width)) {
                (Some(vertical), Some(horizontal)) => Ok(Self { vertical, horizontal }),
                _ => Err(Error::usage(format!(
                    "this network takes images of {tile_width}x{tile_height} alone, and looks \
                     {margin} px far, so tiles of that size cannot overlap by {} px; take an image \
                     of at most that size",
                    2 * (margin + feather)
                ))),
            };
        }
        let grid = locality.grid;
        let cut = |length| Axis::cut(length, limit, multiple, grid, margin, feather);
        match (cut(height), cut(width)) {
            (Some(vertical), Some(horizontal)) => Ok(Self { vertical, horizontal }),
            _ => Err(Error::usage(format!(
                "a tile of {limit} px is too small for this network, whose tiles overlap by {} px; \
                 use at least {}",
                2 * (margin + feather),
                Self::smallest(locality)
            ))),
        }
    }

    /// The minimum side of a tile that is not mostly overlap, four margins, and that cuts an image
    /// of any size: tiles differ from the whole by multiples of the grid, so they may be shorter
    /// than their limit by almost as much, and neighbors have to start on different ones.
    pub fn smallest(locality: Locality) -> usize {
        let Locality { multiple_of, grid, receptive_field, .. } = locality;
        let margin = receptive_field.unwrap_or(GLOBAL_MARGIN + GLOBAL_FEATHER);
        (4 * margin).max(2 * margin + 2 * grid - multiple_of).next_multiple_of(grid)
    }

    /// Number of evaluations per sampler step.
    pub fn count(&self) -> usize {
        self.vertical.spans.len() * self.horizontal.spans.len()
    }

    /// Whether the whole image is one tile.
    pub fn is_whole(&self) -> bool {
        self.count() == 1
    }

    /// Width and height of the tiles, in pixels.
    pub fn tile_size(&self) -> (usize, usize) {
        (self.horizontal.tile, self.vertical.tile)
    }
}

#[cfg(test)]
mod tests {
    use super::{Locality, TilePlan};

    const LOCAL: Locality =
        Locality { multiple_of: 8, grid: 8, receptive_field: Some(20), size: None };

    #[test]
    fn reports_a_sufficient_tile_size() {
        let message = TilePlan::cut(640, 480, 40, None, LOCAL).unwrap_err().to_string();
        assert!(message.contains("use at least 80"), "{message}");
        assert!(TilePlan::cut(640, 480, TilePlan::smallest(LOCAL), None, LOCAL).is_ok());
    }

    #[test]
    fn a_sufficient_tile_cuts_any_image_on_any_grid() {
        for (multiple_of, grid) in [(1, 1), (1, 8), (2, 6), (8, 8), (8, 16), (8, 24)] {
            for field in 0..9 {
                let locality =
                    Locality { multiple_of, grid, receptive_field: Some(field), size: None };
                let smallest = TilePlan::smallest(locality);
                for (length, limit) in (1..120).flat_map(|n| [(n, smallest), (n, smallest + 5)]) {
                    let cut = TilePlan::cut(length, 7, limit, None, locality);
                    assert!(cut.is_ok(), "{length} by {limit}: {locality:?}: {cut:?}");
                }
            }
        }
    }

    #[test]
    fn rejects_too_little_overlap() {
        assert!(TilePlan::cut(640, 480, 128, Some(39), LOCAL).is_err());
        let exact = TilePlan::cut(640, 480, 128, Some(40), LOCAL).unwrap();
        assert_eq!(exact, TilePlan::cut(640, 480, 128, None, LOCAL).unwrap());
    }

    #[test]
    fn uses_one_tile_for_a_small_image() {
        assert!(TilePlan::cut(100, 60, 104, None, LOCAL).unwrap().is_whole());
    }
}
