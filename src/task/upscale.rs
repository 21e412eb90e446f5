//! Super-resolution: sampling from the highest sigma down on the large grid, conditioned on the
//! small image.

use std::ops::ControlFlow;

use ndarray::Array4;
use serde_json::{Value, json};

use super::budget::{Budget, TileChoice};
use super::low_res::{Conditioned, LowRes, OneStep};
use crate::diffusion::{
    NoiseAt, NoiseSource, Philox, Plan, Prediction, Progress, RunStats, SigmaMap, State, Window,
    denoise_plan, execute,
};
use crate::error::{Error, Result};
use crate::media::Image;
use crate::model::{Manifest, Task};
use crate::network::Network;
use crate::setting::MAX_MEMORY;
use crate::tensor;
use crate::tile::{Locality, TilePlan};

/// Options for upscaling.
#[derive(Clone, Copy, Debug, Default)]
pub struct UpscaleOptions {
    /// Sampler steps, each of which evaluates the network once. Default: the model's. One gives the
    /// mean of all possible originals, which has the highest PSNR; several sample one of them, with
    /// its texture.
    pub steps: Option<usize>,
    /// Part of each step's noise that is fresh, 0 (DDIM) to 1. Default: 0.
    pub eta: f64,
    /// The random seed; a single step needs no noise. Default: 0.
    pub seed: u64,
    /// How the large image is divided into tiles; sides and overlaps are in pixels of the small
    /// one. Default: the fastest that fit the budget.
    pub tile: TileChoice,
    /// The memory budget. Default: a quarter of the machine's memory.
    pub budget: Budget,
}

/// The report of an upscaled image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpscaleReport {
    /// Upscale factor along each axis.
    pub scale: usize,
    /// Sampler steps.
    pub steps: usize,
    /// Number of tiles.
    pub tiles: usize,
    /// Width and height of a tile, in pixels of the small image.
    pub tile_size: (usize, usize),
    /// Evaluations with invalid output that were repeated.
    pub repeated: usize,
}

impl UpscaleReport {
    /// The fields of a record (`docs/json.md`).
    pub fn fields(&self) -> Value {
        json!({
            "upscale_factor": self.scale, "steps": self.steps, "tiles": self.tiles,
            "tile_width": self.tile_size.0, "tile_height": self.tile_size.1,
            "tiles_repeated": self.repeated,
        })
    }
}

/// A super-resolution network with its options.
pub struct Upscaler<'a> {
    pub(crate) manifest: &'a Manifest,
    network: &'a mut dyn Network,
    options: UpscaleOptions,
    plan: Plan,
    pub(crate) range: tensor::Range,
    /// The sigma at which sampling starts, in the network's units.
    sigma: f32,
}

impl<'a> Upscaler<'a> {
    /// An upscaler that runs `network`, which `manifest` describes.
    ///
    /// # Errors
    /// [`Error::Model`] when the model is for another task, [`Error::Usage`] for options out of
    /// range.
    pub fn new(
        manifest: &'a Manifest,
        network: &'a mut dyn Network,
        options: UpscaleOptions,
    ) -> Result<Self> {
        let starts_at_small = manifest.task == Task::Upscale
            && manifest.prediction == Prediction::Denoised
            && manifest.inputs.sigma.is_some()
            && !manifest.is_generative_upscaler();
        let sigma = match manifest.sigma.filter(|_| starts_at_small) {
            Some(sigma) => sigma.max as f32,
            None if manifest.is_feed_forward_upscaler() => 0.0,
            None => {
                let problem = format!(
                    "its task is {} and it predicts {}; expected one to upscale that predicts \
                     `denoised`, and takes the low-resolution image alone, or also a map of sigma \
                     with a [sigma] range in its manifest",
                    manifest.task, manifest.prediction
                );
                return Err(Error::model(&manifest.name, problem));
            }
        };
        let steps = options.steps.unwrap_or(manifest.defaults.steps);
        if steps > 1 && manifest.is_feed_forward_upscaler() {
            return Err(Error::usage(format!(
                "{} enlarges in one step; {steps} were requested",
                manifest.name
            )));
        }
        let plan = denoise_plan(steps, options.eta)?;
        let [low, high] = manifest.range;
        let range = tensor::Range::new(low, high)?;
        Ok(Self { manifest, network, options, plan, range, sigma })
    }

    /// Sampler steps: network evaluations for an image in one tile.
    pub fn steps(&self) -> usize {
        self.plan.steps.len()
    }

    /// Sets the number of sampler steps.
    ///
    /// # Errors
    /// [`Error::Usage`] for a number out of range.
    pub fn set_steps(&mut self, steps: usize) -> Result<()> {
        if steps != self.steps() {
            self.plan = denoise_plan(steps, self.options.eta)?;
        }
        Ok(())
    }

    /// A black image with the shape of the result of [`upscale`](Self::upscale), to check
    /// beforehand whether it can be written.
    ///
    /// # Errors
    /// [`Error::Usage`] when it would not fit the memory budget.
    pub fn outline(&self, image: &Image) -> Result<Image> {
        let scale = self.manifest.scale;
        let (width, height) = (scale * image.width, scale * image.height);
        let bytes = (width * height * image.channels) as u64 * u64::from(image.samples.bits() / 8);
        let most = self.options.budget.max_memory;
        if bytes > most {
            return Err(Error::usage(format!(
                "the result, {width}x{height}, takes {} MiB, {} MiB are allowed; raise \
                 {MAX_MEMORY} or upscale less",
                bytes.div_ceil(1 << 20),
                most >> 20
            )));
        }
        Ok(image.black(width, height))
    }

    /// Enlarges `image`; alpha is enlarged bicubically. `watch` is called for every evaluation and
    /// can stop the run.
    ///
    /// # Errors
    /// [`Error::Usage`] when the image does not fit the memory budget or has color that the
    /// network does not support; [`Error::Evaluation`] when the network fails;
    /// [`Error::Interrupted`].
    pub fn upscale(
        &mut self,
        image: &Image,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(Image, UpscaleReport)> {
        let (scale, channels, steps) =
            (self.manifest.scale, self.manifest.channels, self.plan.steps.len());
        let mut large = self.outline(image)?;
        let samples = large.samples.len() * (large.samples.bits() / 8) as usize;
        let tiles = self.tiles([image.width, image.height], steps > 1, samples)?;
        self.manifest.check_state(&tiles, [image.width, image.height])?;
        self.network.reset_state();
        let small = LowRes::new(&image.visible(), self.range, channels, scale)?;
        let map = SigmaMap::Uniform(self.sigma);
        let stats = if steps == 1 {
            let mut canvas = OneStep { small: &small, large: &mut large };
            execute(&self.plan, self.network, &mut canvas, &tiles, &map, watch)?
        } else {
            let mut x = Array4::zeros(small.enlarged_shape());
            let stats = self.run(&small, &mut x, &tiles, watch)?;
            tensor::write_planes(x.as_slice().unwrap_or_default(), self.range, &mut large)?;
            stats
        };
        if let Some(alpha) = image.alpha() {
            large.set_alpha(&enlarged(&alpha, scale)?);
        }
        let (width, height) = tiles.tile_size();
        let tile_size = (width / scale, height / scale);
        let (tiles, repeated) = (tiles.count(), stats.repeated);
        Ok((large, UpscaleReport { scale, steps, tiles, tile_size, repeated }))
    }

    /// Fills `x`, `[1, channels, height, width]` on the large grid, with the enlargement of
    /// `small`.
    pub(crate) fn run(
        &mut self,
        small: &LowRes,
        x: &mut Array4<f32>,
        tiles: &TilePlan,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<RunStats> {
        let noise = Philox::new(self.options.seed);
        let map = SigmaMap::Uniform(self.sigma);
        let mut taken = std::mem::replace(x, Array4::zeros([0; 4]));
        self.start(small, &noise, taken.as_slice_mut().unwrap_or_default());
        let mut state = State::new(taken, &self.plan, &noise, &map)?;
        let mut canvas = Conditioned { small, enlarged: false, state: &mut state };
        let done = execute(&self.plan, self.network, &mut canvas, tiles, &map, watch);
        *x = state.into_inner();
        done
    }

    /// Writes the start: the bicubic enlargement and, for several steps, noise of the highest
    /// sigma.
    fn start(&self, small: &LowRes, noise: &dyn NoiseSource, x: &mut [f32]) {
        let [_, _, height, width] = small.enlarged_shape();
        small.enlarge_whole(x);
        if self.plan.steps.len() == 1 {
            return;
        }
        let mut fresh = vec![0.0; width];
        for (i, row) in x.chunks_exact_mut(width).enumerate() {
            let (channel, y) = ((i / height) as u32, (i % height) as u32);
            noise.fill(NoiseAt { step: NoiseAt::INITIAL, batch: 0, channel, y }, 0, &mut fresh);
            row.iter_mut().zip(&fresh).for_each(|(x, z)| *x += self.sigma * z);
        }
    }

    /// The tiles of small images of that size, on the large grid. `holds_state` says whether a
    /// tensor of the whole image is held, and `beside` is the size of further memory in bytes.
    pub(crate) fn tiles(
        &self,
        [width, height]: [usize; 2],
        holds_state: bool,
        beside: usize,
    ) -> Result<TilePlan> {
        let (scale, planes) = (self.manifest.scale, self.manifest.channels);
        let small = self.manifest.locality();
        // A small pixel just beyond the receptive field covers large pixels that are up to one
        // small pixel further away.
        let locality = Locality {
            multiple_of: scale * small.multiple_of,
            grid: scale * small.grid,
            receptive_field: small.receptive_field.map(|field| scale * (field + 1)),
            size: small.size.map(|size| size.map(|length| scale * length)),
        };
        let choice = self.options.tile.on_finer_grid(scale);
        let per_pixel = self.manifest.bytes_per_pixel.map(|bytes| bytes.div_ceil(scale * scale));
        let area = scale * scale * width * height;
        let state = if holds_state { area * planes * size_of::<f32>() } else { 0 };
        let condition = width * height * planes * size_of::<f32>();
        let room = self.options.budget.room((state + beside + condition) as u64);
        room.tiles([scale * width, scale * height, planes], choice, locality, per_pixel)
    }
}

/// Enlarges a gray image bicubically.
pub(crate) fn enlarged(gray: &Image, scale: usize) -> Result<Image> {
    let range = tensor::Range::new(0.0, 1.0)?;
    let small = LowRes::new(gray, range, 1, scale)?;
    let [_, _, height, width] = small.enlarged_shape();
    let mut large = gray.black(width, height);
    let mut row = vec![0.0; width];
    for y in 0..height {
        small.enlarge(Window { x: 0, y, width, height: 1 }, 1.0, &mut row);
        tensor::write_row(&[&row], range, &mut large, 0, y);
    }
    Ok(large)
}
