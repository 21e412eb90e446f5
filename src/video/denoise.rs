//! Denoising the pictures of a stream, in memory that is taken once.

use std::ops::ControlFlow;

use ndarray::Array4;

use super::flicker::Flicker;
use super::stills::{Due, Stills};
use super::{Restore, Temporal};
use crate::diffusion::SigmaMap;
use crate::error::{Error, Result};
use crate::frame::stream::{Picture, Video};
use crate::task::{Denoiser, SigmaChoice, estimate_sigma_of_planes, noise_map_of_planes};
use crate::tensor::Pictures;
use crate::tile::TilePlan;

/// How much of an estimate is new with each picture.
const FRESH: f64 = 0.2;

/// Denoises the pictures of a stream.
pub struct StreamDenoiser<'a> {
    denoiser: Denoiser<'a>,
    reader: Pictures,
    writer: Pictures,
    tiles: TilePlan,
    x: Array4<f32>,
    sigma: SigmaMap,
    /// What is known from the pictures before, where they are to count.
    temporal: Option<Past>,
    /// Of the pictures so far, as a part of the full range; 0 before the first.
    level: f64,
    limited: bool,
    work: Vec<f64>,
}

/// What is known from the pictures before.
struct Past {
    temporal: Temporal,
    stills: Stills,
    flicker: Flicker,
    /// Sum over the pictures of the part of their tiles that was computed.
    active: f64,
    pictures: u64,
}

impl Past {
    /// Denoises `x`, which is fused already, as far as that is due.
    fn denoise(
        &mut self,
        denoiser: &mut Denoiser<'_>,
        x: &mut Array4<f32>,
        sigma: &SigmaMap,
        tiles: &TilePlan,
        size: [usize; 2],
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        let due = self.stills.due(&self.temporal, tiles);
        self.pictures += 1;
        match due {
            Due::Nothing => {
                if watch().is_break() {
                    return Err(Error::Interrupted);
                }
                x.as_slice_mut().unwrap_or_default().copy_from_slice(self.stills.result());
            }
            Due::Tiles => {
                self.active += self.stills.active_part();
                denoiser.run(x, sigma, self.stills.plan(), Some(&self.stills), &mut |_| watch())?;
            }
            Due::Everything => {
                self.active += 1.0;
                denoiser.run(x, sigma, tiles, None, &mut |_| watch())?;
            }
        }
        let result = x.as_slice().unwrap_or_default();
        if due != Due::Nothing {
            self.stills.keep(result);
        }
        self.flicker.add(&self.temporal, result, size);
        Ok(())
    }
}

/// What came of making use of the pictures before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Persistence {
    /// The standard deviation over time of the result where nothing moves, in 8-bit units, averaged over all such pixels; none
    /// where nothing was at rest for 8 pictures.
    pub flicker: Option<f64>,
    /// Part of all tiles that were computed, and not kept from the picture before.
    pub computed: f64,
    /// How often everything was new: scene cuts, and a camera that moves otherwise than as a whole.
    pub resets: u64,
}

impl<'a> Denoiser<'a> {
    /// For the pictures of a stream that are as `video` describes them; results are as `result` does, which has the same size.
    /// `temporal` makes use of the pictures before each.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when they do not fit the memory that may be used, or have colour that the network
    /// does not.
    pub fn on_stream(self, video: &Video, result: &Video, temporal: bool) -> Result<StreamDenoiser<'a>> {
        let channels = self.manifest.channels;
        let (width, height) = (video.width, video.height);
        let reader = Pictures::new(video, channels, self.range)?;
        let writer = Pictures::new(result, channels, self.range)?;
        let tiles = self.tiles([width, height], true)?;
        let x = Array4::zeros([1, channels, height, width]);
        let sigma = match &self.options.sigma {
            SigmaChoice::Auto | SigmaChoice::Known(_) if !temporal => SigmaMap::Uniform(0.0),
            _ => SigmaMap::PerPixel { width, values: vec![0.0; width * height] },
        };
        let size = [channels, width, height];
        let temporal = temporal.then(|| Past {
            temporal: Temporal::new(channels, width, height),
            stills: Stills::new(size, &tiles, self.manifest.locality()),
            flicker: Flicker::default(),
            active: 0.0,
            pictures: 0,
        });
        Ok(StreamDenoiser {
            denoiser: self,
            reader,
            writer,
            tiles,
            x,
            sigma,
            temporal,
            level: 0.0,
            limited: false,
            work: Vec::new(),
        })
    }
}

impl StreamDenoiser<'_> {
    /// The standard deviation of the noise of the last picture in 8-bit units, as estimated over the last few; the root of the
    /// mean variance where it differs.
    pub fn sigma(&self) -> f64 {
        255.0 * self.level
    }

    /// Whether it was ever more than the model was trained for.
    pub fn sigma_limited(&self) -> bool {
        self.limited
    }

    /// Evaluations of the network for each picture.
    pub fn steps(&self) -> usize {
        self.denoiser.steps()
    }

    /// What came of making use of the pictures before, where that was asked for.
    pub fn persistence(&self) -> Option<Persistence> {
        let past = self.temporal.as_ref()?;
        Some(Persistence {
            flicker: past.flicker.mean().map(|mean| 255.0 * mean / f64::from(self.denoiser.range.span())),
            computed: past.active / past.pictures.max(1) as f64,
            resets: past.temporal.resets(),
        })
    }

    /// How pictures are cut.
    pub fn tiles(&self) -> &TilePlan {
        &self.tiles
    }

    /// How noisy the picture in `x` is.
    fn measure(&mut self) -> Result<()> {
        let span = f64::from(self.denoiser.range.span());
        let planes = self.x.as_slice().unwrap_or_default();
        let Video { width, height, .. } = *self.reader.video();
        let level = match (&self.denoiser.options.sigma, &mut self.sigma) {
            (SigmaChoice::Profile(profile), SigmaMap::PerPixel { values, .. }) => {
                noise_map_of_planes(profile, planes, width, self.denoiser.range, values)?;
                let (level, limited) = self.denoiser.limit_map(values);
                self.level = level;
                self.limited |= limited;
                return Ok(());
            }
            (SigmaChoice::Known(sigma), _) => sigma / 255.0,
            _ => {
                let range = [self.denoiser.range.lo(), self.denoiser.range.span()];
                let now = estimate_sigma_of_planes(planes, [width, height], range, &mut self.work);
                // The light changes and textures come and go; the sensor stays.
                if self.level == 0.0 { now } else { self.level + FRESH * (now - self.level) }
            }
        };
        let (level, limited) = self.denoiser.limit(level);
        self.limited |= limited;
        self.level = level;
        match &mut self.sigma {
            SigmaMap::Uniform(sigma) => *sigma = (level * span) as f32,
            SigmaMap::PerPixel { values, .. } => values.fill((level * span) as f32),
        }
        Ok(())
    }
}

impl Restore for StreamDenoiser<'_> {
    fn restore(
        &mut self,
        input: &Picture,
        output: &mut Picture,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        self.reader.read(&input.bytes, self.x.as_slice_mut().unwrap_or_default());
        self.measure()?;
        if self.level > 0.0 {
            match (&mut self.temporal, &mut self.sigma) {
                (Some(past), SigmaMap::PerPixel { width, values }) => {
                    let least = self.denoiser.manifest.sigma.map_or(0.0, |range| range.min) as f32;
                    past.temporal.fuse(self.x.as_slice_mut().unwrap_or_default(), values);
                    values.iter_mut().for_each(|sigma| *sigma = sigma.max(least));
                    let size = [*width, values.len() / *width];
                    past.denoise(&mut self.denoiser, &mut self.x, &self.sigma, &self.tiles, size, watch)?;
                }
                _ => self.denoiser.run(&mut self.x, &self.sigma, &self.tiles, None, &mut |_| watch())?,
            }
        }
        self.writer.write(self.x.as_slice().unwrap_or_default(), &mut output.bytes);
        Ok(())
    }
}
