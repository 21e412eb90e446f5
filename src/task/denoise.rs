//! Denoising: an image with noise sigma is `x` at that sigma, so the plan starts there without
//! added noise.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use ndarray::Array4;
use serde_json::{Value, json};

use super::budget::{Budget, MemoryHeadroom, TileChoice};
use super::kind::{Assessment, NoiseKind};
use super::noise_map::{Variance, noise_map, sigmas};
use super::pixels::Pixels;
use super::plane_pixels::PlanePixels;
use super::profile::{ColorModel, NoiseProfile};
use crate::diffusion::{
    CachedTiles, Canvas, Philox, Plan, Prediction, Progress, RunStats, SigmaMap, State, Window,
    denoise_plan, execute,
};
use crate::error::{Error, Result};
use crate::media::stream::Matrix;
use crate::media::{Image, Samples};
use crate::model::{Layout, Manifest, Task};
use crate::network::{Colors, Network, Shape};
use crate::tensor;
use crate::tile::TilePlan;

/// The noise level of an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SigmaChoice {
    /// Estimated from the image.
    #[default]
    Auto,
    /// Standard deviation in 8-bit units, as in the literature: 25 means 25/255 of the full range.
    Known(f64),
    /// Standard deviations of luma and of chroma averaged over 2x2, in 8-bit units, for camera
    /// noise, which differs between planes.
    Planes([f64; 2]),
    /// From a noise profile at each pixel, by the signal of the image after a binomial filter of
    /// 5x5 pixels. The sigma map has one plane, the root of the channels' mean variance.
    Profile(NoiseProfile),
}

impl SigmaChoice {
    /// Whether noise is given for luma and chroma, so that a network for these planes suits it.
    pub fn is_of_planes(&self) -> bool {
        match self {
            Self::Auto | Self::Known(_) => false,
            Self::Planes(_) => true,
            Self::Profile(profile) => profile.color_model == ColorModel::Yuv,
        }
    }

    /// The given standard deviations for the planes of a network, as parts of the full range:
    /// those of luma and chroma if it `has_planes` of both, or else that of red, green and blue,
    /// and 0. Gray images have no chroma. `None` if nothing or a profile is given.
    pub(crate) fn stated(
        &self,
        has_planes: bool,
        is_gray: bool,
        matrix: Matrix,
    ) -> Option<[f64; 2]> {
        match *self {
            Self::Auto | Self::Profile(_) => None,
            Self::Known(sigma) if !has_planes || is_gray => Some([sigma / 255.0, 0.0]),
            Self::Known(sigma) => {
                Some(tensor::sigmas_of_rgb(matrix).map(|part| part * sigma / 255.0))
            }
            Self::Planes([luma, _]) if is_gray => Some([luma / 255.0, 0.0]),
            Self::Planes(sigmas) if has_planes => Some(sigmas.map(|sigma| sigma / 255.0)),
            Self::Planes([luma, _]) => Some([luma / tensor::sigmas_of_rgb(matrix)[0] / 255.0, 0.0]),
        }
    }
}

impl std::str::FromStr for SigmaChoice {
    type Err = String;

    /// Parses `auto`, a number, or one for luma and one for chroma, such as `12,5`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        const EXPECTED: &str = "expected auto, a number from 0 on, such as 25, or one for luma and \
                                one for chroma, such as 12,5";
        let number =
            |text: &str| text.parse().ok().filter(|sigma: &f64| sigma.is_finite() && *sigma >= 0.0);
        let choice = match text.split_once(',') {
            Some((luma, chroma)) => {
                number(luma).zip(number(chroma)).map(|both| Self::Planes(both.into()))
            }
            None => number(text).map(Self::Known),
        };
        choice.ok_or_else(|| EXPECTED.into())
    }
}

/// Options for denoising.
#[derive(Clone, Debug, Default)]
pub struct DenoiseOptions {
    /// The noise level. Default: [`SigmaChoice::Auto`], estimated from each image.
    pub sigma: SigmaChoice,
    /// Sampler steps, each of which evaluates the network once. Default: the model's, usually 1.
    /// One gives the posterior mean, which has the highest PSNR; more trade PSNR for texture.
    pub steps: Option<usize>,
    /// Part of each step's noise that is fresh, 0 (DDIM) to 1. Default: 0.
    pub eta: f64,
    /// The random seed of fresh noise. Default: 0.
    pub seed: u64,
    /// Part of the estimated noise to remove, 0 (none) to 1 (all). Default: 1.
    pub strength: Strength,
    /// How images are divided into tiles. Default: the fastest that fit the budget.
    pub tile: TileChoice,
    /// The memory budget. Default: a quarter of the machine's memory.
    pub budget: Budget,
}

/// A fraction of a change, 0 (none) to 1 (all).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength(f32);

impl Strength {
    /// The whole change.
    pub const FULL: Self = Self(1.0);

    /// A fraction of the change.
    ///
    /// # Errors
    /// [`Error::Usage`] unless it is from 0 to 1.
    pub fn new(part: f64) -> Result<Self> {
        match (0.0..=1.0).contains(&part) {
            true => Ok(Self(part as f32)),
            false => Err(Error::usage(format!(
                "strength {part} is out of range; expected 0 (nothing) to 1 (all)"
            ))),
        }
    }

    /// This fraction of a level.
    pub(crate) fn of(self, level: f64) -> f64 {
        f64::from(self.0) * level
    }

    /// Blends `changed` with `original` by this fraction.
    pub(crate) fn blend(self, original: &[f32], changed: &mut [f32]) {
        changed
            .iter_mut()
            .zip(original)
            .for_each(|(changed, original)| *changed = original + self.0 * (*changed - original));
    }

    fn blend_frames(self, original: &Image, changed: &mut Image) {
        fn blend<T: Copy + Into<f32>>(
            part: f32,
            from: &[T],
            to: &mut [T],
            round: impl Fn(f32) -> T,
        ) {
            let pairs = to.iter_mut().zip(from);
            pairs.for_each(|(to, from)| {
                let (before, after): (f32, f32) = ((*from).into(), (*to).into());
                *to = round((before + part * (after - before)).round());
            });
        }
        match (&original.samples, &mut changed.samples) {
            (Samples::U8(from), Samples::U8(to)) => blend(self.0, from, to, |value| value as u8),
            (Samples::U16(from), Samples::U16(to)) => blend(self.0, from, to, |value| value as u16),
            _ => {}
        }
    }
}

impl std::str::FromStr for Strength {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let part = text.parse().ok().and_then(|part| Self::new(part).ok());
        part.ok_or_else(|| "expected a part from 0 (nothing) to 1 (all), such as 0.7".into())
    }
}

impl Default for Strength {
    fn default() -> Self {
        Self::FULL
    }
}

/// The report of a denoised image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DenoiseReport {
    /// Standard deviation of the removed noise in 8-bit units; the root mean square where it
    /// varies, and 0 for a blind network. It is that of luma where the network works
    /// on luma and chroma, unless sigma was given for RGB.
    pub sigma: f64,
    /// Standard deviation of chroma at half the size, where the network works on luma and chroma
    /// and sigma was not given for RGB.
    pub chroma_sigma: Option<f64>,
    /// Whether sigma exceeds the range for which the model was trained anywhere, so that its limit
    /// was used.
    pub sigma_limited: bool,
    /// Sampler steps.
    pub steps: usize,
    /// Number of tiles.
    pub tiles: usize,
    /// Width and height of a tile.
    pub tile_size: (usize, usize),
    /// Evaluations with invalid output that were repeated.
    pub repeated: usize,
}

impl DenoiseReport {
    /// The fields of a record (`docs/json.md`), with the kind of noise if it was assessed.
    pub fn fields(&self, noise: Option<NoiseKind>) -> Value {
        json!({
            "noise": noise.map(NoiseKind::name), "sigma": self.sigma,
            "sigma_chroma": self.chroma_sigma, "sigma_limited": self.sigma_limited,
            "steps": self.steps, "tiles": self.tiles, "tile_width": self.tile_size.0,
            "tile_height": self.tile_size.1, "tiles_repeated": self.repeated,
        })
    }
}

/// The noise of an image.
struct Noise {
    /// Sigma in the network's units.
    map: SigmaMap,
    /// Sigma as a part of the full range; the root mean square where it varies. It is that of luma
    /// if there is one for chroma.
    sigma: f64,
    chroma: Option<f64>,
    /// Whether sigma was limited to the range of the model at any pixel.
    limited: bool,
}

/// What is done to a tensor, on any thread.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    plan: Plan,
    seed: u64,
}

impl Recipe {
    /// `seed` is that of fresh noise.
    pub(crate) fn new(plan: Plan, seed: u64) -> Self {
        Self { plan, seed }
    }

    /// As [`Denoiser::run`], with this network.
    pub(crate) fn run(
        &self,
        network: &mut dyn Network,
        x: &mut Array4<f32>,
        sigma: &SigmaMap,
        tiles: &TilePlan,
        known: Option<&dyn CachedTiles>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<RunStats> {
        let noise = Philox::new(self.seed);
        let taken = std::mem::replace(x, Array4::zeros([0; 4]));
        let mut state = State::new(taken, &self.plan, &noise, sigma)?.with_cached(known);
        let done = execute(&self.plan, network, &mut state, tiles, sigma, watch);
        *x = state.into_inner();
        done
    }
}

/// A denoising network with its options.
pub struct Denoiser<'a> {
    pub(crate) manifest: &'a Manifest,
    network: &'a mut dyn Network,
    pub(crate) options: DenoiseOptions,
    recipe: Recipe,
    pub(crate) range: tensor::Range,
}

impl<'a> Denoiser<'a> {
    /// A denoiser that runs `network`, which `manifest` describes.
    ///
    /// # Errors
    /// [`Error::Model`] when the model is for another task, [`Error::Usage`] for options out of
    /// range.
    pub fn new(
        manifest: &'a Manifest,
        network: &'a mut dyn Network,
        options: DenoiseOptions,
    ) -> Result<Self> {
        let takes_sigma = manifest.inputs.sigma.is_some();
        let Manifest { task, prediction, .. } = manifest;
        let problem = if !matches!(task, Task::Denoise | Task::Deblur) {
            Some(format!("its task is {task}; expected denoise or deblur"))
        } else if *prediction != Prediction::Denoised {
            Some(format!("it predicts {prediction}; expected `denoised`"))
        } else if !(takes_sigma || manifest.is_blind()) {
            Some("it is conditioned on a timestep; expected sigma, or no noise level".into())
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(Error::model(&manifest.name, problem));
        }
        let steps = options.steps.unwrap_or(manifest.defaults.steps);
        if !takes_sigma && (steps > 1 || options.sigma != SigmaChoice::Auto) {
            return Err(Error::usage(format!(
                "{} is blind: it is not conditioned on sigma, so it takes no sigma and no noise \
                 profile, and denoises in one step; strength sets how much of its change is kept",
                manifest.name
            )));
        }
        if manifest.is_of_video() && steps > 1 {
            return Err(Error::usage(format!(
                "{} takes several frames of a video, and restores them in one step",
                manifest.name
            )));
        }
        let stated = match options.sigma {
            SigmaChoice::Known(sigma) => [sigma; 2],
            SigmaChoice::Planes(sigmas) => sigmas,
            _ => [0.0; 2],
        };
        if let Some(sigma) = stated.into_iter().find(|sigma| !(sigma.is_finite() && *sigma >= 0.0))
        {
            return Err(Error::usage(format!(
                "sigma {sigma} is not a noise level; expected a number from 0 on"
            )));
        }
        let plan = denoise_plan(steps, options.eta)?;
        let [low, high] = manifest.range;
        let range = tensor::Range::new(low, high)?;
        let recipe = Recipe::new(plan, options.seed);
        Ok(Self { manifest, network, options, recipe, range })
    }

    /// Sets the noise level from an assessment, for the planes of the network's layout. A blind
    /// network has none.
    pub fn set_assessment(&mut self, assessment: &Assessment) {
        if !self.is_blind() {
            self.options.sigma = assessment.sigma_for(self.manifest.layout);
        }
    }

    /// Whether the network is not conditioned on a noise level (blind).
    pub fn is_blind(&self) -> bool {
        self.manifest.is_blind()
    }

    /// The name of the model.
    pub fn model(&self) -> &str {
        &self.manifest.name
    }

    /// Sampler steps: network evaluations for an image in one tile.
    pub fn steps(&self) -> usize {
        self.recipe.plan.steps.len()
    }

    /// Sets the number of sampler steps.
    ///
    /// # Errors
    /// [`Error::Usage`] for a number out of range.
    pub fn set_steps(&mut self, steps: usize) -> Result<()> {
        if steps != self.steps() {
            self.recipe.plan = denoise_plan(steps, self.options.eta)?;
        }
        Ok(())
    }

    /// Approximate time of an evaluation per pixel in seconds: the shortest of a few at that size.
    pub(crate) fn seconds_per_pixel(&mut self, [width, height]: [usize; 2]) -> Result<f64> {
        let shape = self.shape_of([width, height]);
        let [_, _, rows, columns] = shape;
        self.network.bind(shape)?;
        // The first evaluation allocates memory.
        self.network.evaluate(1.0)?;
        let mut shortest = f64::INFINITY;
        let all = Instant::now();
        for _ in 0..4 {
            let started = Instant::now();
            self.network.evaluate(1.0)?;
            shortest = shortest.min(started.elapsed().as_secs_f64());
            // A slow machine needs only a few measurements.
            if all.elapsed() > Duration::from_millis(300) {
                break;
            }
        }
        let pixels = self.manifest.layout.pixels();
        Ok(shortest / (rows * columns * pixels * pixels) as f64)
    }

    /// The shape of the network's sample for an image of that size.
    fn shape_of(&self, size: [usize; 2]) -> Shape {
        let (multiple, pixels) =
            (self.manifest.locality().multiple_of, self.manifest.layout.pixels());
        let [width, height] = size.map(|length| length.div_ceil(pixels).next_multiple_of(multiple));
        [1, self.manifest.channels, height, width]
    }

    /// What is done to each image, whatever its noise.
    pub(crate) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The number of useful copies of the network, as by [`Network::most_copies`].
    pub(crate) fn most_copies(&self, most: usize) -> usize {
        self.network.most_copies(most)
    }

    /// Copies of the network, as by [`Network::copies`].
    pub(crate) fn copies(&self, count: usize) -> Result<Vec<Box<dyn Network + Send>>> {
        self.network.copies(count)
    }

    /// Denoises `image` in place; alpha and the colors of fully transparent pixels are kept.
    /// `watch` is called for every evaluation and can stop the run.
    ///
    /// # Errors
    /// [`Error::Usage`] when the image does not fit the memory budget, has color that the network
    /// does not support, or is of another kind than its noise profile; [`Error::Evaluation`] when
    /// the network fails; [`Error::Interrupted`]. The image is invalid then.
    pub fn denoise(
        &mut self,
        image: &mut Image,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<DenoiseReport> {
        let strength = self.options.strength;
        let hidden = image.fill_transparent();
        let original = (strength != Strength::FULL).then(|| image.clone());
        let report = self.denoise_visible(image, watch);
        if let Some(original) = original {
            strength.blend_frames(&original, image);
        }
        hidden.iter().for_each(|hidden| image.restore_transparent(hidden));
        report
    }

    fn denoise_visible(
        &mut self,
        image: &mut Image,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<DenoiseReport> {
        let steps = self.recipe.plan.steps.len();
        // Computed before the tiles, so that the budget includes a map.
        let Noise { map, sigma, chroma, limited } = self.noise(&self.options.sigma, image)?;
        let has_planes = self.manifest.layout == Layout::Yuv420 && image.color_channels() == 3;
        let is_given_for_rgb = has_planes && matches!(self.options.sigma, SigmaChoice::Known(_));
        let [part, _] = tensor::sigmas_of_rgb(Matrix::Bt601);
        let mut report = DenoiseReport {
            sigma: 255.0 * sigma / if is_given_for_rgb { part } else { 1.0 },
            chroma_sigma: chroma
                .filter(|_| has_planes && !is_given_for_rgb)
                .map(|sigma| 255.0 * sigma),
            sigma_limited: limited,
            steps,
            tiles: 0,
            tile_size: (0, 0),
            repeated: 0,
        };
        if !self.is_blind() && sigma == 0.0 && chroma.is_none_or(|sigma| sigma == 0.0) {
            // Without noise the posterior mean is the image itself; a model with a lowest sigma
            // would change it.
            return Ok(report);
        }
        let planes = if steps > 1 { self.manifest.channels } else { 0 };
        let state = planes * image.width * image.height * size_of::<f32>();
        let tiles =
            self.tiles([image.width, image.height], self.options.budget.room(state as u64))?;
        self.manifest.check_state(&tiles, [image.width, image.height])?;
        self.network.reset_state();
        report.tiles = tiles.count();
        report.tile_size = tiles.tile_size();
        if self.manifest.layout == Layout::Yuv420 {
            let mut pixels = PlanePixels::new(image, chroma.unwrap_or_default() as f32);
            if steps == 1 {
                let stats =
                    execute(&self.recipe.plan, self.network, &mut pixels, &tiles, &map, watch)?;
                report.repeated = stats.repeated;
                return Ok(report);
            }
            let [_, channels, height, width] = pixels.shape();
            let mut x = Array4::zeros(pixels.shape());
            let window = Window { x: 0, y: 0, width, height };
            pixels.read(window, 1.0, x.as_slice_mut().unwrap_or_default())?;
            report.repeated = self.run(&mut x, &map, &tiles, None, watch)?.repeated;
            let values = x.as_slice().unwrap_or_default();
            for j in 0..height {
                pixels.put(j, |plane| {
                    &values[((plane % channels) * height + j) * width..][..width]
                })?;
            }
            return Ok(report);
        }
        if steps == 1 {
            let mut pixels = Pixels::new(image, self.range, self.manifest.channels);
            let stats = execute(&self.recipe.plan, self.network, &mut pixels, &tiles, &map, watch)?;
            report.repeated = stats.repeated;
            return Ok(report);
        }
        let mut x = Array4::zeros([1, self.manifest.channels, image.height, image.width]);
        tensor::read_planes(image, self.range, x.as_slice_mut().unwrap_or_default())?;
        report.repeated = self.run(&mut x, &map, &tiles, None, watch)?.repeated;
        tensor::write_planes(x.as_slice().unwrap_or_default(), self.range, image)?;
        Ok(report)
    }

    /// Denoises `x`, `[1, channels, height, width]` in the network's range, in place; `sigma` is
    /// in its units, too. Tiles that are `known` are not computed.
    pub(crate) fn run(
        &mut self,
        x: &mut Array4<f32>,
        sigma: &SigmaMap,
        tiles: &TilePlan,
        known: Option<&dyn CachedTiles>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<RunStats> {
        self.recipe.run(self.network, x, sigma, tiles, known, watch)
    }

    /// The ratio of the network's sigma to that of red, green and blue: luma has less
    /// noise than these.
    pub(crate) fn luma_part(&self, is_gray: bool) -> f64 {
        let is_luma = self.manifest.colors == Colors::Luma && self.manifest.channels == 3;
        if is_luma && !is_gray { tensor::sigmas_of_rgb(Matrix::Bt601)[0] } else { 1.0 }
    }

    /// Evaluates the network once on a canvas that holds pixels or planes.
    pub(crate) fn evaluate_on(
        &mut self,
        canvas: &mut dyn Canvas,
        tiles: &TilePlan,
        sigma: &SigmaMap,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<RunStats> {
        execute(&self.recipe.plan, self.network, canvas, tiles, sigma, watch)
    }

    /// The noise level of an image.
    fn noise(&self, choice: &SigmaChoice, image: &Image) -> Result<Noise> {
        if self.is_blind() {
            let map = SigmaMap::Uniform(0.0);
            return Ok(Noise { map, sigma: 0.0, chroma: None, limited: false });
        }
        let (layout, is_gray) = (self.manifest.layout, image.color_channels() == 1);
        let Some(sigmas) = choice.stated(layout == Layout::Yuv420, is_gray, Matrix::Bt601) else {
            return match (choice, layout) {
                (SigmaChoice::Profile(profile), Layout::Full) => {
                    Ok(self.noise_by(noise_map(profile, image)?, image.width))
                }
                (SigmaChoice::Profile(profile), Layout::Yuv420) => {
                    self.plane_noise_by(profile, image)
                }
                _ => self.noise(&Assessment::of(image)?.sigma_for(layout), image),
            };
        };
        if layout == Layout::Full {
            let (sigma, limited) = self.limit(sigmas[0] * self.luma_part(is_gray));
            let map = SigmaMap::Uniform((sigma * f64::from(self.range.span())) as f32);
            return Ok(Noise { map, sigma, chroma: None, limited });
        }
        let limit = |sigma: f64| if sigma == 0.0 { (0.0, false) } else { self.limit(sigma) };
        let [(luma, limited), (chroma, _)] = sigmas.map(limit);
        Ok(Noise {
            map: SigmaMap::Yuv([luma as f32, chroma as f32]),
            sigma: luma,
            chroma: Some(chroma),
            limited,
        })
    }

    /// The noise of luma and chroma by a profile.
    fn plane_noise_by(&self, profile: &NoiseProfile, image: &Image) -> Result<Noise> {
        let [width, height] = tensor::grid_of([image.width, image.height]);
        let mut values = [Vec::new(), Vec::new()];
        let variances = Variance::of_planes(profile, image.color_channels(), Matrix::Bt601)?;
        for (values, variance) in values.iter_mut().zip(&variances) {
            let map = sigmas(variance, image)?;
            let at = |x: usize, y: usize| {
                map[y.min(image.height - 1) * image.width + x.min(image.width - 1)]
            };
            for (x, y) in (0..height).flat_map(|j| (0..width).map(move |i| (2 * i, 2 * j))) {
                let four = [at(x, y), at(x + 1, y), at(x, y + 1), at(x + 1, y + 1)];
                values.push((0.25 * four.iter().map(|sigma| sigma.powi(2)).sum::<f32>()).sqrt());
            }
        }
        let [(sigma, limited), (chroma, _)] =
            values.each_mut().map(|values| self.limit_map(values));
        Ok(Noise {
            map: SigmaMap::YuvPerPixel { width, values },
            sigma,
            chroma: Some(chroma),
            limited,
        })
    }

    /// The noise with these standard deviations for each pixel, as parts of the full range.
    fn noise_by(&self, mut values: Vec<f32>, width: usize) -> Noise {
        let (sigma, limited) = self.limit_map(&mut values);
        Noise { map: SigmaMap::PerPixel { width, values }, sigma, chroma: None, limited }
    }

    /// Converts standard deviations from parts of the full range to the network's units, each
    /// limited as by [`limit`](Self::limit). Returns their root mean square as a part of the full
    /// range, and whether any exceeds the range of the model.
    pub(crate) fn limit_map(&self, values: &mut [f32]) -> (f64, bool) {
        let (mut squares, mut limited) = (0.0, false);
        for value in values.iter_mut() {
            let (sigma, is_limited) = self.limit(f64::from(*value));
            squares += sigma * sigma;
            limited |= is_limited;
            *value = (sigma * f64::from(self.range.span())) as f32;
        }
        ((squares / values.len() as f64).sqrt(), limited)
    }

    /// Clamps `sigma` to the range of the model, as parts of the full range. Returns whether it
    /// was above.
    pub(crate) fn limit(&self, sigma: f64) -> (f64, bool) {
        let span = f64::from(self.range.span());
        let (least, most) = self
            .manifest
            .sigma
            .map_or((0.0, f64::INFINITY), |range| (range.min / span, range.max / span));
        // Tolerates rounding errors above the limit. Below the minimum, the model behaves as at
        // the minimum.
        (sigma.clamp(least, most), sigma > most * (1.0 + 1e-6))
    }

    /// The tiles of images of that size within the memory headroom, on the grid of the network's
    /// sample.
    pub(crate) fn tiles(
        &self,
        [width, height]: [usize; 2],
        room: MemoryHeadroom,
    ) -> Result<TilePlan> {
        let Manifest { channels, bytes_per_pixel, layout, .. } = *self.manifest;
        let [width, height] = [width, height].map(|side| side.div_ceil(layout.pixels()));
        let choice = self.options.tile.on_coarser_grid(layout.pixels());
        let room = room.of(self.network);
        room.tiles([width, height, channels], choice, self.manifest.locality(), bytes_per_pixel)
    }

    /// Makes the network free its working memory until the next evaluation.
    pub(crate) fn trim_memory(&mut self) -> Result<()> {
        let side = self.manifest.locality().multiple_of;
        self.network.trim_memory([1, self.manifest.channels, side, side])
    }
}
