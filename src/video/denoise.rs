//! Denoising the pictures of a stream, in memory that is taken once.

use std::ops::ControlFlow;

use ndarray::Array4;

use super::Restore;
use crate::diffusion::SigmaMap;
use crate::error::Result;
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
    /// Of the pictures so far, as a part of the full range; 0 before the first.
    level: f64,
    limited: bool,
    work: Vec<f64>,
}

impl<'a> Denoiser<'a> {
    /// For the pictures of a stream that are as `video` describes them. Results are of the same kind, with samples as `format`
    /// has them.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when they do not fit the memory that may be used, or have colour that the network
    /// does not.
    pub fn on_stream(self, video: &Video, result: &Video) -> Result<StreamDenoiser<'a>> {
        let channels = self.manifest.channels;
        let (width, height) = (video.width, video.height);
        let reader = Pictures::new(video, channels, self.range)?;
        let writer = Pictures::new(result, channels, self.range)?;
        let tiles = self.tiles([width, height], true)?;
        let x = Array4::zeros([1, channels, height, width]);
        let sigma = match &self.options.sigma {
            SigmaChoice::Profile(_) => SigmaMap::PerPixel { width, values: vec![0.0; width * height] },
            SigmaChoice::Auto | SigmaChoice::Known(_) => SigmaMap::Uniform(0.0),
        };
        Ok(StreamDenoiser {
            denoiser: self,
            reader,
            writer,
            tiles,
            x,
            sigma,
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
                let mut squares = 0.0;
                for value in values.iter_mut() {
                    let (sigma, limited) = self.denoiser.limit(f64::from(*value));
                    squares += sigma * sigma;
                    self.limited |= limited;
                    *value = (sigma * span) as f32;
                }
                self.level = (squares / values.len().max(1) as f64).sqrt();
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
        self.sigma = SigmaMap::Uniform((level * span) as f32);
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
            self.denoiser.run(&mut self.x, &self.sigma, &self.tiles, &mut |_| watch())?;
        }
        output.bytes.resize(self.writer.video().bytes(), 0);
        self.writer.write(self.x.as_slice().unwrap_or_default(), &mut output.bytes);
        Ok(())
    }
}
