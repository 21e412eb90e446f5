//! The resolution and tiles with which the frames of a stream are processed, and the state from
//! previous frames.

use std::ops::ControlFlow;

use ndarray::Array4;

use super::noise::Noise;
use super::pipeline::memory;
use super::planes::Planes;
use super::quality::{QualityStep, ReducedResolution};
use super::temporal::{Flicker, RefreshPolicy, TileCache, TilesToUpdate};
use super::{Scale, Temporal};
use crate::diffusion::{RunStats, SigmaMap};
use crate::error::Result;
use crate::model::Layout;
use crate::task::{Denoiser, MemoryHeadroom};
use crate::tensor;
use crate::tile::TilePlan;

/// The state from previous frames.
pub(super) struct TemporalState {
    pub(super) temporal: Temporal,
    pub(super) flicker: Flicker,
    /// Sum over the frames of the part of their tiles that was computed.
    pub(super) active: f64,
    pub(super) frames: u64,
}

impl TemporalState {
    pub(super) fn new(planes: Planes) -> Self {
        Self {
            temporal: Temporal::new(planes),
            flicker: Flicker::default(),
            active: 0.0,
            frames: 0,
        }
    }
}

/// The resolution and tiles with which frames are processed.
pub(super) struct WorkingLayout {
    pub(super) tiles: TilePlan,
    pub(super) reduced: Option<ReducedResolution>,
    /// Present where previous frames are used.
    pub(super) cache: Option<TileCache>,
    input: NetworkInput,
}

impl WorkingLayout {
    /// A layout for frames of that size, `[width, height]`.
    pub(super) fn new(
        denoiser: &Denoiser<'_>,
        size: [usize; 2],
        step: QualityStep,
        temporal: bool,
        per_sample: bool,
        room: MemoryHeadroom,
    ) -> Result<Self> {
        let manifest = denoiser.manifest;
        let (layout, channels, locality) =
            (manifest.layout, manifest.channels, manifest.locality());
        let tiles = Self::tiles(denoiser, size, step.scale, temporal, room)?;
        let planes = Planes::of(layout, channels, size);
        let small = Self::planes(denoiser, size, step.scale);
        let (sample, large) = (grid(layout, &small), planes.first());
        let input = NetworkInput::new(layout, &small);
        let reduced =
            (step.scale != Scale::FULL).then(|| ReducedResolution::new(planes, small, per_sample));
        let cache = temporal.then(|| {
            let ratio =
                [large.width as f64 / sample[0] as f64, large.height as f64 / sample[1] as f64];
            let policy = if step.reuse_tiles_longer {
                RefreshPolicy::LONG_REUSE
            } else {
                RefreshPolicy::DEFAULT
            };
            TileCache::new([channels, sample[0], sample[1]], ratio, policy, &tiles, locality)
        });
        Ok(Self { tiles, reduced, cache, input })
    }

    /// The planes that the network processes, for frames of that size.
    fn planes(denoiser: &Denoiser<'_>, size: [usize; 2], scale: Scale) -> Planes {
        let manifest = denoiser.manifest;
        Planes::of(manifest.layout, manifest.channels, size.map(|side| scale.of_side(side)))
    }

    /// The tiles of frames of that size when they are processed at `scale`.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when they do not fit the memory.
    pub(super) fn tiles(
        denoiser: &Denoiser<'_>,
        size: [usize; 2],
        scale: Scale,
        temporal: bool,
        room: MemoryHeadroom,
    ) -> Result<TilePlan> {
        let planes = Self::planes(denoiser, size, scale);
        let smaller = if scale == Scale::FULL { 0 } else { memory::of_work(&planes) };
        let last = if temporal { memory::of_last(&planes) } else { 0 };
        denoiser.tiles(size.map(|side| scale.of_side(side)), room.minus((smaller + last) as u64))
    }

    /// Denoises the tiles of a frame that need an update.
    pub(super) fn denoise(
        &mut self,
        denoiser: &mut Denoiser<'_>,
        temporal_state: Option<&mut TemporalState>,
        planes: &Planes,
        x: &mut Vec<f32>,
        noise: &mut Noise,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<RunStats> {
        let Self { tiles, cache, input, .. } = self;
        let layout = denoiser.manifest.layout;
        input.pass(layout, planes, (x, noise), |tensor, map| {
            run(denoiser, tiles, (cache.as_mut(), temporal_state), (tensor, map), watch)
        })
    }
}

/// Denoises the tiles of `x` that need an update, where previous frames are used, or else all.
fn run(
    denoiser: &mut Denoiser<'_>,
    tiles: &TilePlan,
    previous: (Option<&mut TileCache>, Option<&mut TemporalState>),
    (x, map): (&mut Array4<f32>, &SigmaMap),
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<RunStats> {
    let mut watch = |_| watch();
    let (Some(cache), Some(temporal_state)) = previous else {
        return denoiser.run(x, map, tiles, None, &mut watch);
    };
    let due = cache.due(&temporal_state.temporal, tiles);
    temporal_state.frames += 1;
    let stats = match due {
        TilesToUpdate::Nothing => {
            x.as_slice_mut().unwrap_or_default().copy_from_slice(cache.result());
            RunStats::default()
        }
        TilesToUpdate::Tiles => {
            temporal_state.active += cache.active_part();
            denoiser.run(x, map, cache.plan(), Some(&*cache), &mut watch)?
        }
        TilesToUpdate::Everything => {
            temporal_state.active += 1.0;
            denoiser.run(x, map, tiles, None, &mut watch)?
        }
    };
    if due != TilesToUpdate::Nothing {
        cache.store(x.as_slice().unwrap_or_default());
    }
    Ok(stats)
}

/// Buffers for the input of a network.
#[derive(Debug)]
pub(super) struct NetworkInput {
    /// The sample, where it differs from the planes.
    packed: Vec<f32>,
    /// The map of sigma on which the network is conditioned.
    map: SigmaMap,
}

impl NetworkInput {
    /// Buffers for frames with such planes.
    pub(super) fn new(layout: Layout, planes: &Planes) -> Self {
        let packed = match layout {
            Layout::Full => Vec::new(),
            Layout::Yuv420 => vec![0.0; 6 * planes.first().area() / 4],
        };
        Self { packed, map: SigmaMap::ABSOLUTE }
    }

    /// Passes the planes `x` with their noise through `run`, as the network expects them.
    pub(super) fn pass(
        &mut self,
        layout: Layout,
        planes: &Planes,
        (x, noise): (&mut Vec<f32>, &mut Noise),
        run: impl FnOnce(&mut Array4<f32>, &SigmaMap) -> Result<RunStats>,
    ) -> Result<RunStats> {
        let [width, height] = grid(layout, planes);
        noise.write_map(layout, planes, &mut self.map);
        if layout == Layout::Yuv420 {
            tensor::pack(x, [width, height], &mut self.packed);
        }
        let sample = if layout == Layout::Full { &mut *x } else { &mut self.packed };
        let channels = sample.len() / (width * height);
        let mut tensor =
            Array4::from_shape_vec([1, channels, height, width], std::mem::take(sample))
                .unwrap_or_else(|_| Array4::zeros([1, channels, height, width]));
        let stats = run(&mut tensor, &self.map);
        let (values, _) = tensor.into_raw_vec_and_offset();
        match layout {
            Layout::Full => *x = values,
            Layout::Yuv420 => {
                tensor::unpack(&values, [width, height], x);
                self.packed = values;
            }
        }
        noise.return_buffer(&mut self.map);
        stats
    }
}

/// Width and height of a network's sample for such planes.
fn grid(layout: Layout, planes: &Planes) -> [usize; 2] {
    let first = planes.first();
    [first.width, first.height].map(|side| side / layout.pixels())
}
