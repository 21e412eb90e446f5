//! At what size and in what tiles the pictures of a stream are worked on, and what is known from those before.

use std::ops::ControlFlow;

use ndarray::Array4;

use super::flicker::Flicker;
use super::governor::Rung;
use super::reduced::Reduced;
use super::stills::{Due, Renewal, Stills};
use super::{Scale, Temporal, memory};
use crate::diffusion::{Progress, SigmaMap};
use crate::error::Result;
use crate::task::{Denoiser, Room};
use crate::tile::TilePlan;

/// What is known from the pictures before.
pub(super) struct Past {
    pub(super) temporal: Temporal,
    pub(super) flicker: Flicker,
    /// Sum over the pictures of the part of their tiles that was computed.
    pub(super) active: f64,
    pub(super) pictures: u64,
}

impl Past {
    pub(super) fn new([channels, width, height]: [usize; 3]) -> Self {
        let temporal = Temporal::new(channels, width, height);
        Self { temporal, flicker: Flicker::default(), active: 0.0, pictures: 0 }
    }
}

/// At what size, and in what tiles, pictures are worked on.
pub(super) struct Grid {
    pub(super) tiles: TilePlan,
    pub(super) reduced: Option<Reduced>,
    /// Where the pictures before count.
    pub(super) stills: Option<Stills>,
}

impl Grid {
    /// For pictures of that size, `[width, height]`.
    pub(super) fn new(
        denoiser: &Denoiser<'_>,
        size: [usize; 2],
        rung: Rung,
        temporal: bool,
        per_pixel: bool,
        room: Room,
    ) -> Result<Self> {
        let (channels, locality) = (denoiser.manifest.channels, denoiser.manifest.locality());
        let [width, height] = size;
        let tiles = Self::tiles(denoiser, size, rung.scale, temporal, room)?;
        let reduced =
            (rung.scale != Scale::FULL).then(|| Reduced::new([channels, height, width], rung.scale, per_pixel));
        let inner = reduced.as_ref().map_or(size, Reduced::size);
        let stills = temporal.then(|| {
            let ratio = [0, 1].map(|axis| size[axis] as f64 / inner[axis] as f64);
            let renewal = if rung.thrifty { Renewal::THRIFTY } else { Renewal::USUAL };
            Stills::new([channels, inner[0], inner[1]], ratio, renewal, &tiles, locality)
        });
        Ok(Self { tiles, reduced, stills })
    }

    /// How pictures of that size are cut when they are worked on at `scale`.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when there is no room for them.
    pub(super) fn tiles(
        denoiser: &Denoiser<'_>,
        size: [usize; 2],
        scale: Scale,
        temporal: bool,
        room: Room,
    ) -> Result<TilePlan> {
        let (channels, inner) = (denoiser.manifest.channels, size.map(|side| scale.of_side(side)));
        let smaller = if scale == Scale::FULL { 0 } else { memory::of_work(channels, inner) };
        let last = if temporal { memory::of_last(channels, inner) } else { 0 };
        denoiser.tiles(inner, room.without((smaller + last) as u64))
    }

    /// Denoises `x` as far as that is due, and returns how many tiles were computed again.
    pub(super) fn denoise(
        &mut self,
        denoiser: &mut Denoiser<'_>,
        past: Option<&mut Past>,
        x: &mut Array4<f32>,
        sigma: &SigmaMap,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<usize> {
        let mut repeated = 0;
        let mut watch = |progress: Progress| {
            repeated = progress.repeated;
            watch()
        };
        let (Some(stills), Some(past)) = (&mut self.stills, past) else {
            denoiser.run(x, sigma, &self.tiles, None, &mut watch)?;
            return Ok(repeated);
        };
        let due = stills.due(&past.temporal, &self.tiles);
        past.pictures += 1;
        match due {
            Due::Nothing => x.as_slice_mut().unwrap_or_default().copy_from_slice(stills.result()),
            Due::Tiles => {
                past.active += stills.active_part();
                denoiser.run(x, sigma, stills.plan(), Some(&*stills), &mut watch)?;
            }
            Due::Everything => {
                past.active += 1.0;
                denoiser.run(x, sigma, &self.tiles, None, &mut watch)?;
            }
        }
        if due != Due::Nothing {
            stills.keep(x.as_slice().unwrap_or_default());
        }
        Ok(repeated)
    }
}
