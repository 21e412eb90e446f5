//! How large a tile may be: as the caller says, or as memory allows.

use crate::error::{Error, Result};
use crate::machine;
use crate::tile::{Locality, TilePlan};

/// Working memory that ONNX Runtime is taken to need per input pixel where a manifest does not say: bytes of about 512
/// float channels at full resolution.
const UNKNOWN_BYTES_PER_PIXEL: usize = 2048;

/// How tiles are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TileChoice {
    /// The longest side of a tile; `None` for the largest that fits the budget.
    pub limit: Option<usize>,
    /// How much neighbours share; `None` for what the network needs.
    pub overlap: Option<usize>,
}

impl TileChoice {
    /// The same tiles on a grid that is so many times coarser.
    pub(super) fn on_coarser_grid(self, scale: usize) -> Self {
        Self {
            limit: self.limit.map(|limit| limit.div_ceil(scale)),
            overlap: self.overlap.map(|overlap| overlap.div_ceil(scale)),
        }
    }

    /// The same tiles on a grid that is so many times finer.
    pub(super) fn on_finer_grid(self, scale: usize) -> Self {
        Self { limit: self.limit.map(|limit| limit * scale), overlap: self.overlap.map(|overlap| overlap * scale) }
    }
}

/// What may be used of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes that the whole process may hold.
    pub max_memory: u64,
}

impl Default for Budget {
    /// A quarter of the machine's memory.
    fn default() -> Self {
        Self { max_memory: machine::total_memory() / 4 }
    }
}

impl Budget {
    /// What is left for tiles beside what the process holds already and `reserve` bytes that it will still ask for.
    pub fn room(self, reserve: u64) -> MemoryHeadroom {
        MemoryHeadroom { max_memory: self.max_memory, held: machine::resident_memory() + reserve }
    }
}

/// What is left of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryHeadroom {
    max_memory: u64,
    held: u64,
}

impl MemoryHeadroom {
    /// Where so many bytes more are held.
    pub fn minus(self, bytes: u64) -> Self {
        Self { held: self.held + bytes, ..self }
    }

    /// Cuts an image of `width` by `height` pixels and `planes` planes into the largest tiles that fit.
    ///
    /// # Errors
    /// [`Error::Usage`] when not even the smallest tile fits, or the tile that was asked for is no tile.
    pub fn tiles(
        self,
        [width, height, planes]: [usize; 3],
        choice: TileChoice,
        locality: Locality,
        bytes_per_pixel: Option<usize>,
    ) -> Result<TilePlan> {
        if let Some(limit) = choice.limit {
            return TilePlan::cut(width, height, limit, choice.overlap, locality);
        }
        let per_pixel = bytes_per_pixel.unwrap_or(UNKNOWN_BYTES_PER_PIXEL);
        let cost = |plan: &TilePlan| {
            let (tile_width, tile_height) = plan.tile_size();
            // A band of joined rows, which a whole image does without.
            let band = if plan.is_whole() { 0 } else { width * tile_height * planes * size_of::<f32>() };
            (tile_width * tile_height * per_pixel + band) as u64
        };
        let left = self.max_memory.saturating_sub(self.held);
        let whole = TilePlan::whole(width, height, locality.multiple_of);
        if cost(&whole) <= left {
            return Ok(whole);
        }
        // Not square where the image is not: a limit is the longest side, and a narrow image has short tiles.
        let smallest = TilePlan::smallest(locality).max(choice.overlap.map_or(0, |overlap| 2 * overlap));
        let fits = |limit: usize| {
            let plan = TilePlan::cut(width, height, limit, choice.overlap, locality)?;
            Ok((cost(&plan) <= left).then_some(plan))
        };
        let mut best = None;
        let mut limit = smallest;
        while limit < width.max(height).next_multiple_of(locality.multiple_of) {
            match fits(limit)? {
                Some(plan) => best = Some(plan),
                None => break,
            }
            limit += (limit / 8).next_multiple_of(locality.multiple_of);
        }
        if let Some(best) = best {
            return Ok(best);
        }
        let least = self.held + cost(&TilePlan::cut(width, height, smallest, choice.overlap, locality)?);
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        Err(Error::usage(format!(
            "{} MiB are too little for an image of {width}x{height}: with the smallest tile it takes about {} MiB; raise \
             --max-memory",
            mebibytes(self.max_memory),
            mebibytes(least)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, MemoryHeadroom, TileChoice};
    use crate::machine;
    use crate::tile::Locality;

    const LOCAL: Locality = Locality { multiple_of: 8, receptive_field: Some(20) };

    fn room(beside: u64) -> MemoryHeadroom {
        let room = Budget { max_memory: machine::resident_memory() + (1 << 30) }.room(0);
        room.minus((1 << 30) - beside)
    }

    #[test]
    fn more_memory_means_larger_tiles() {
        let tile = |mebibytes: u64| {
            let plan = room(mebibytes << 20).tiles([4000, 3000, 3], TileChoice::default(), LOCAL, Some(20));
            plan.unwrap().tile_size().0
        };
        assert!(tile(40) < tile(80) && tile(80) < tile(900), "{} {} {}", tile(40), tile(80), tile(900));
        assert_eq!(tile(900), 4000);
    }

    #[test]
    fn too_little_memory_names_what_would_do() {
        let error = room(0).tiles([4000, 3000, 3], TileChoice::default(), LOCAL, Some(100)).unwrap_err();
        assert!(error.to_string().contains("raise --max-memory"), "{error}");
    }

    #[test]
    fn an_asked_for_tile_is_taken() {
        let choice = TileChoice { limit: Some(128), overlap: None };
        let plan = room(0).tiles([400, 300, 3], choice, LOCAL, None).unwrap();
        assert!(plan.tile_size().0 <= 128);
    }
}
