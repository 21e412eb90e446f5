//! The size of tiles: as requested, or as memory allows.

use crate::error::{Error, Result};
use crate::machine;
use crate::network::Network;
use crate::setting::MAX_MEMORY;
use crate::tile::{Locality, TilePlan};

/// Assumed working memory of ONNX Runtime per input pixel if the manifest does not give it: about
/// 512 float channels at full resolution.
pub(crate) const UNKNOWN_BYTES_PER_PIXEL: usize = 2048;

/// Working memory of a tile, in bytes, beyond which a larger one saves no time: the kernel has to
/// clear each of its pages first. Measured with images of 24 megapixels: one tile of 4 GB takes
/// twice the time of 15 tiles of 0.4 GB.
const EFFICIENT_BYTES: u64 = 384 << 20;

/// Side of a tile, in receptive fields, from which on overlaps add less than a fifth to its area.
const EFFICIENT_FIELDS: usize = 24;

/// How tiles are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TileChoice {
    /// Maximum side of a tile, in pixels. Default: the fastest that fits the budget: on a GPU the
    /// largest, on a CPU up to 384 MiB of working memory, or 24 receptive fields if that is more.
    pub limit: Option<usize>,
    /// Overlap of neighboring tiles, in pixels. Default: the least that the network needs, twice
    /// its receptive field.
    pub overlap: Option<usize>,
}

impl TileChoice {
    /// The same tiles on a grid that is coarser by `scale`.
    pub(super) fn on_coarser_grid(self, scale: usize) -> Self {
        Self {
            limit: self.limit.map(|limit| limit.div_ceil(scale)),
            overlap: self.overlap.map(|overlap| overlap.div_ceil(scale)),
        }
    }

    /// The same tiles on a grid that is finer by `scale`.
    pub(super) fn on_finer_grid(self, scale: usize) -> Self {
        Self {
            limit: self.limit.map(|limit| limit * scale),
            overlap: self.overlap.map(|overlap| overlap * scale),
        }
    }
}

/// The memory budget. Default: a quarter of the machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Maximum memory of the whole process, in bytes.
    pub max_memory: u64,
}

impl Default for Budget {
    /// A quarter of the machine's memory.
    fn default() -> Self {
        Self { max_memory: machine::total_memory() / 4 }
    }
}

impl std::str::FromStr for Budget {
    type Err = String;

    /// Bytes with an optional unit: `1048576`, `512M`, `2GiB`.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || "expected bytes with an optional K, M or G (of 1024), such as 512M".to_owned();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            _ => return Err(expected()),
        };
        let count: u64 = digits.parse().map_err(|_| expected())?;
        let max_memory = count.checked_mul(factor).filter(|bytes| *bytes > 0);
        max_memory.map(|max_memory| Self { max_memory }).ok_or_else(expected)
    }
}

impl Budget {
    /// The memory left for tiles beside what the process holds already and `reserve` bytes that it
    /// will still allocate.
    pub fn room(self, reserve: u64) -> MemoryHeadroom {
        MemoryHeadroom {
            max_memory: self.max_memory,
            held: machine::resident_memory() + reserve,
            gains_from_large_tiles: false,
        }
    }
}

/// The rest of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryHeadroom {
    max_memory: u64,
    held: u64,
    gains_from_large_tiles: bool,
}

impl MemoryHeadroom {
    /// The headroom after `bytes` more are held.
    pub fn minus(self, bytes: u64) -> Self {
        Self { held: self.held + bytes, ..self }
    }

    /// The headroom for tiles of that network.
    pub(super) fn of(self, network: &dyn Network) -> Self {
        Self { gains_from_large_tiles: network.gains_from_large_tiles(), ..self }
    }

    /// The number of lanes, up to `most`, that can work on these tiles beside the network that works
    /// on them already, when each lane also holds `bytes`.
    pub(crate) fn lanes(
        self,
        tiles: &TilePlan,
        bytes: u64,
        bytes_per_pixel: Option<usize>,
        most: usize,
    ) -> usize {
        let (width, height) = tiles.tile_size();
        let working = width * height * bytes_per_pixel.unwrap_or(UNKNOWN_BYTES_PER_PIXEL);
        let lane = bytes + working as u64;
        let left = self.max_memory.saturating_sub(self.held + working as u64);
        usize::try_from(left / lane.max(1)).unwrap_or(most).min(most)
    }

    /// Divides an image of `width` by `height` pixels and `planes` planes into the fastest tiles
    /// that fit.
    ///
    /// # Errors
    /// [`Error::Usage`] when not even the smallest tile fits, or the requested tile is invalid.
    pub fn tiles(
        self,
        [width, height, planes]: [usize; 3],
        choice: TileChoice,
        locality: Locality,
        bytes_per_pixel: Option<usize>,
    ) -> Result<TilePlan> {
        if locality.size.is_some() {
            return TilePlan::cut(width, height, 0, choice.overlap, locality);
        }
        if let Some(limit) = choice.limit {
            return TilePlan::cut(width, height, limit, choice.overlap, locality);
        }
        let per_pixel = bytes_per_pixel.unwrap_or(UNKNOWN_BYTES_PER_PIXEL);
        let working = |plan: &TilePlan| {
            let (tile_width, tile_height) = plan.tile_size();
            (tile_width * tile_height * per_pixel) as u64
        };
        let cost = |plan: &TilePlan| {
            let (_, tile_height) = plan.tile_size();
            // A band of joined rows, which a single tile does not need.
            let band =
                if plan.is_whole() { 0 } else { width * tile_height * planes * size_of::<f32>() };
            working(plan) + band as u64
        };
        // Where it is not known what a tile costs, nothing is gained for certain. On a GPU there are
        // no pages to clear.
        let efficient_side = match (locality.receptive_field, bytes_per_pixel) {
            (Some(field), Some(_)) if !self.gains_from_large_tiles => EFFICIENT_FIELDS * field,
            _ => usize::MAX,
        };
        let is_efficient = |plan: &TilePlan| {
            let (tile_width, tile_height) = plan.tile_size();
            working(plan) <= EFFICIENT_BYTES || tile_width.max(tile_height) <= efficient_side
        };
        let left = self.max_memory.saturating_sub(self.held);
        let whole = TilePlan::whole(width, height, locality.multiple_of);
        if cost(&whole) <= left && is_efficient(&whole) {
            return Ok(whole);
        }
        // The limit applies to the longest side; tiles of a narrow image are not square.
        let smallest =
            TilePlan::smallest(locality).max(choice.overlap.map_or(0, |overlap| 2 * overlap));
        let fits = |limit: usize| {
            let plan = TilePlan::cut(width, height, limit, choice.overlap, locality)?;
            Ok((cost(&plan) <= left).then_some(plan))
        };
        let mut best = None;
        let mut limit = smallest;
        while limit < width.max(height).next_multiple_of(locality.multiple_of) {
            match fits(limit)? {
                Some(plan) if best.is_none() || is_efficient(&plan) => best = Some(plan),
                _ => break,
            }
            limit += (limit / 8).next_multiple_of(locality.grid);
        }
        if let Some(best) = best {
            return Ok(best);
        }
        let least =
            self.held + cost(&TilePlan::cut(width, height, smallest, choice.overlap, locality)?);
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        Err(Error::usage(format!(
            "{} MiB are too little for an image of {width}x{height}: with the smallest tile it \
             takes about {} MiB; raise {MAX_MEMORY}",
            mebibytes(self.max_memory),
            mebibytes(least)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, MAX_MEMORY, MemoryHeadroom, TileChoice};
    use crate::machine;
    use crate::tile::Locality;

    const LOCAL: Locality =
        Locality { multiple_of: 8, grid: 8, receptive_field: Some(20), size: None };

    fn room(beside: u64) -> MemoryHeadroom {
        let room = Budget { max_memory: machine::resident_memory() + (1 << 30) }.room(0);
        room.minus((1 << 30) - beside)
    }

    #[test]
    fn parses_sizes() {
        for (text, bytes) in
            [("512M", 512 << 20), ("2g", 2 << 30), ("1048576", 1 << 20), ("7KiB", 7 << 10)]
        {
            assert_eq!(text.parse(), Ok(Budget { max_memory: bytes }));
        }
        for text in ["", "M", "0", "-1M", "1.5G", "5T", "99999999999G"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
    }

    #[test]
    fn chooses_larger_tiles_with_more_memory() {
        let tile = |mebibytes: u64| {
            let plan = room(mebibytes << 20).tiles(
                [4000, 3000, 3],
                TileChoice::default(),
                LOCAL,
                Some(20),
            );
            plan.unwrap().tile_size().0
        };
        assert!(
            tile(40) < tile(80) && tile(80) < tile(900),
            "{} {} {}",
            tile(40),
            tile(80),
            tile(900)
        );
        assert_eq!(tile(900), 4000);
    }

    #[test]
    fn larger_tiles_that_save_no_time_are_not_chosen() {
        let tile = |[width, height]: [usize; 2], field, bytes_per_pixel| {
            let locality = Locality { receptive_field: field, ..LOCAL };
            let (room, choice) = (room(900 << 20), TileChoice::default());
            room.tiles([width, height, 3], choice, locality, bytes_per_pixel).unwrap().tile_size()
        };
        assert_eq!(tile([1920, 1080], Some(20), Some(180)), (1920, 1080));
        let (width, height) = tile([3000, 1600], Some(20), Some(180));
        assert!(width * height * 180 <= 384 << 20 && width * height * 180 > 128 << 20);
        assert_eq!(tile([3000, 1600], Some(125), Some(180)), (3000, 1600), "overlaps cost more");
        assert_eq!(tile([3000, 1600], None, Some(180)), (3000, 1600), "tiles are not exact");
        assert_eq!(tile([400, 300], Some(20), None), (400, 304), "their cost is not known");
        let room = MemoryHeadroom { gains_from_large_tiles: true, ..room(900 << 20) };
        let plan = room.tiles([3000, 1600, 3], TileChoice::default(), LOCAL, Some(180)).unwrap();
        assert!(plan.is_whole(), "a GPU has no pages to clear");
    }

    #[test]
    fn reports_the_memory_that_would_suffice() {
        let error =
            room(0).tiles([4000, 3000, 3], TileChoice::default(), LOCAL, Some(100)).unwrap_err();
        assert!(error.to_string().contains(&format!("raise {MAX_MEMORY}")), "{error}");
    }

    #[test]
    fn uses_the_requested_tile() {
        let choice = TileChoice { limit: Some(128), overlap: None };
        let plan = room(0).tiles([400, 300, 3], choice, LOCAL, None).unwrap();
        assert!(plan.tile_size().0 <= 128);
    }
}
