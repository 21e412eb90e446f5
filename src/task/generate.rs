//! Generation: samples images from noise with an unconditional, class-conditional or guided
//! network.

use std::ops::ControlFlow;

use ndarray::Array4;

use super::budget::{Budget, TileChoice};
use super::decode::decode;
use super::low_res::{Conditioned, LowRes};
use super::upscale::enlarged;
use crate::diffusion::guidance::label;
use crate::diffusion::{
    Canvas, ClassifierFree, ClassifierFreeOptions, ClassifierGuidance, Guidance, NoiseAt,
    NoiseSource, Philox, Plan, Progress, Sampler, Schedule, SigmaMap, State, execute, plan,
};
use crate::error::{Error, Result};
use crate::media::{Image, Metadata, Samples};
use crate::model::{ClassIndices, Manifest, Task};
use crate::network::Network;
use crate::setting::SIZE;
use crate::tensor;
use crate::tile::TilePlan;

/// Options for generation.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// The sampler. Default: the model's, or else `ddim` on a training schedule and `dpmpp-2m` on a
    /// range of sigma.
    pub sampler: Option<Sampler>,
    /// Sampler steps. Default: the model's.
    pub steps: Option<usize>,
    /// Stochasticity (eta) of samplers that have it, from 0 to 1. Default: the sampler's.
    pub eta: Option<f64>,
    /// How often each step is taken, with noise added in between (RePaint). Default: 0, which is
    /// the same as 1, once.
    pub resample: usize,
    /// Part of the schedule that is sampled when there is a start image, above 0 to 1; 1 starts
    /// from noise. Default: 1.
    pub strength: Option<f64>,
    /// How images are divided into tiles. Default: the fastest that fit the budget.
    pub tile: TileChoice,
    /// The memory budget. Default: a quarter of the machine's memory.
    pub budget: Budget,
}

impl GenerateOptions {
    /// Options that work well for [`Generator::inpaint`] with the network of `manifest`.
    pub fn for_inpainting(manifest: &Manifest) -> Self {
        Self {
            sampler: Some(Sampler::DDPM),
            // More were hardly better on held-out photographs.
            steps: Some(10),
            // A network that is not conditioned on the mask fits the known pixels only gradually,
            // through noise.
            resample: if manifest.takes_mixed_noise() { 1 } else { 4 },
            strength: Some(1.0),
            ..Self::default()
        }
    }
}

/// Class conditioning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classes {
    /// The class of each image; none for a network that is guided by other conditions.
    pub labels: Vec<usize>,
    /// The negative class of guidance. Default: the unconditional class.
    pub negative: Option<usize>,
    /// Options of classifier-free guidance.
    pub options: ClassifierFreeOptions,
}

/// A classifier for guidance.
pub struct Classifier<'a> {
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Its network.
    pub network: &'a mut dyn Network,
    /// Guidance scale (inverse temperature).
    pub scale: f64,
}

/// A generative network with its options.
pub struct Generator<'a> {
    manifest: &'a Manifest,
    network: &'a mut dyn Network,
    options: GenerateOptions,
    sampler: Sampler,
    plan: Plan,
    range: tensor::Range,
    decoder: Option<&'a mut dyn Network>,
    classifier: Option<Classifier<'a>>,
}

/// The inputs of one run.
#[derive(Default)]
pub struct GenerateRequest<'g> {
    /// The random seed of each image, on which it depends independently of the other images.
    pub seeds: Vec<u64>,
    /// Class conditioning. Default: unconditional.
    pub classes: Option<Classes>,
    /// Start images in the network's range, `[images, channels, height, width]`; `None` to start
    /// from noise.
    pub start: Option<Array4<f32>>,
    /// The factor of each level's noise at each pixel, for networks that take a map of sigma.
    /// Default: 1 everywhere.
    pub sigma: Option<SigmaMap>,
    /// Initial noise of standard deviation 1, in place of the seeds': `[images, channels, height,
    /// width]` of the sample, which is a latent if there is a decoder. Diffusers' pipelines call
    /// it `latents`.
    pub initial: Option<Array4<f32>>,
    /// The source of each step's noise, in place of the seeds.
    pub fresh: Option<&'g dyn NoiseSource>,
    /// Additional guidance.
    pub guides: Vec<&'g mut dyn Guidance>,
}

impl<'a> Generator<'a> {
    /// A generator that runs `network`, which `manifest` describes, for generation or generative
    /// upscaling.
    ///
    /// # Errors
    /// [`Error::Model`] when the model is for another task or has no schedule, [`Error::Usage`]
    /// for options out of range.
    pub fn new(
        manifest: &'a Manifest,
        network: &'a mut dyn Network,
        options: GenerateOptions,
    ) -> Result<Self> {
        if manifest.task != Task::Generate && !manifest.is_generative_upscaler() {
            let problem =
                format!("its task is {}; expected generate, as that of prior", manifest.task);
            return Err(Error::model(&manifest.name, problem));
        }
        let schedule = manifest.schedule_of()?;
        let usual = match schedule {
            Schedule::Discrete(_) => Sampler::DDIM,
            Schedule::Sigmas(_) => Sampler::DPMPP_2M,
        };
        let sampler = options.sampler.or(manifest.defaults.sampler).unwrap_or(usual);
        let whole = plan(
            &schedule,
            sampler,
            options.steps.unwrap_or(manifest.defaults.steps),
            options.eta,
        )?;
        let plan = match options.strength {
            Some(strength) if !(strength > 0.0 && strength <= 1.0) => {
                return Err(Error::usage(format!(
                    "strength is {strength}, but must lie above 0 and not above 1"
                )));
            }
            Some(strength) => {
                whole.from_row(((1.0 - strength) * whole.steps.len() as f64).round() as usize)
            }
            None => whole,
        };
        if plan.steps.is_empty() {
            return Err(Error::usage(
                "the strength is so low that no step is left; raise it, or take more steps",
            ));
        }
        let plan = plan.resampled(options.resample)?;
        let [low, high] = manifest.range;
        let range = tensor::Range::new(low, high)?;
        Ok(Self {
            manifest,
            network,
            options,
            sampler,
            plan,
            range,
            decoder: None,
            classifier: None,
        })
    }

    /// Adds the decoder of latents, which is required if the manifest has one.
    #[must_use]
    pub fn decoded_by(mut self, decoder: Option<&'a mut impl Network>) -> Self {
        self.decoder = decoder.map(|decoder| decoder as &mut dyn Network);
        self
    }

    /// Adds classifier guidance.
    ///
    /// # Errors
    /// [`Error::Model`] when the model is not a classifier, or one of other images.
    pub fn with_classifier(mut self, classifier: Classifier<'a>) -> Result<Self> {
        let (own, its) = (self.manifest, classifier.manifest);
        if its.task != Task::Classifier || its.channels != own.channels || its.range != own.range {
            let problem = format!(
                "its task is {}, with {} channels in {:?}; expected a classifier of {} channels \
                 in {:?}, as {} has",
                its.task, its.channels, its.range, own.channels, own.range, own.name
            );
            return Err(Error::model(&its.name, problem));
        }
        self.classifier = Some(classifier);
        Ok(self)
    }

    /// The sampler.
    pub fn sampler(&self) -> Sampler {
        self.sampler
    }

    /// Network evaluations.
    pub fn evaluations(&self) -> usize {
        self.plan.steps.len()
    }

    /// The range of the network's values.
    pub fn range(&self) -> tensor::Range {
        self.range
    }

    /// Whether the network accepts different noise for known and missing pixels.
    pub(crate) fn takes_mixed_noise(&self) -> bool {
        self.manifest.takes_mixed_noise()
    }

    /// Whether it generates in one evaluation, at the largest sigma.
    pub(crate) fn draws_at_once(&self) -> bool {
        let largest = self.manifest.sigma.map_or(f64::INFINITY, |sigma| sigma.max);
        matches!(self.plan.steps.as_slice(), [step] if step.level.noise > 0.999 * largest)
    }

    /// Whether it generates latents, which a decoder converts to images.
    pub fn generates_latents(&self) -> bool {
        self.manifest.decoder.is_some()
    }

    /// Channels of an image, for methods that need pixels.
    ///
    /// # Errors
    /// [`Error::Usage`] when the network works on latents, into which images cannot be encoded
    /// here.
    pub(crate) fn pixel_channels(&self) -> Result<usize> {
        if self.generates_latents() {
            return Err(Error::usage(format!(
                "{} works on latents, and Eddy runs decoders alone, not what encodes images; it \
                 generates images from noise, or upscales them",
                self.manifest.name
            )));
        }
        Ok(self.manifest.channels)
    }

    /// Repeats an image `count` times as a batch of start images.
    ///
    /// # Errors
    /// [`Error::Usage`] when it has color that the network does not support.
    pub fn planes(&self, image: &Image, count: usize) -> Result<Array4<f32>> {
        let channels = self.pixel_channels()?;
        let mut planes = Array4::zeros([count, channels, image.height, image.width]);
        let size = channels * image.height * image.width;
        let image = &image.visible();
        for start in planes.as_slice_mut().unwrap_or_default().chunks_exact_mut(size.max(1)) {
            tensor::read_planes(image, self.range, start)?;
        }
        Ok(planes)
    }

    /// The size at which an image is generated, for a requested size.
    ///
    /// # Errors
    /// [`Error::Usage`] when the network supports only another size.
    pub fn size(&self, requested: Option<[usize; 2]>) -> Result<[usize; 2]> {
        let multiple_of = self.manifest.decoded_scale();
        if let Some([width, height]) = requested
            && !(width.is_multiple_of(multiple_of) && height.is_multiple_of(multiple_of))
        {
            return Err(Error::usage(format!(
                "{} generates latents, each value of which is {multiple_of}x{multiple_of} pixels, \
                 and {width}x{height} was requested; take multiples of {multiple_of}",
                self.manifest.name
            )));
        }
        match (self.manifest.size, requested) {
            (Some(size), None) => Ok(size),
            (Some(size), Some(requested)) if size == requested => Ok(size),
            (Some([width, height]), Some(requested)) => Err(Error::usage(format!(
                "{} generates images of {width}x{height} only; {}x{} was requested; leave {SIZE} \
                 out",
                self.manifest.name, requested[0], requested[1]
            ))),
            (None, requested) => Ok(requested.unwrap_or([256, 256])),
        }
    }

    /// Generates images of that size, `[width, height]`, one for each seed: `[images, channels,
    /// height, width]` in the network's range. `watch` is called for every evaluation and can stop
    /// the run.
    ///
    /// # Errors
    /// [`Error::Usage`] for unknown classes and images that do not fit the memory budget;
    /// [`Error::Evaluation`] when the network fails; [`Error::Interrupted`].
    pub fn generate(
        &mut self,
        [width, height]: [usize; 2],
        request: GenerateRequest<'_>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Array4<f32>> {
        if self.manifest.task != Task::Generate {
            return Err(Error::usage(format!(
                "{} enlarges a small image; use `eddy upscale`",
                self.manifest.name
            )));
        }
        let scale = self.manifest.decoded_scale();
        self.run([width / scale, height / scale], None, request, watch)
    }

    /// Enlarges `image` by sampling one of its possible originals; alpha is enlarged bicubically.
    /// `watch` is called for every evaluation and can stop the run.
    ///
    /// # Errors
    /// [`Error::Usage`] when the image has color that the network does not support, the network is
    /// not an upscaler, or the image does not fit the memory budget; [`Error::Evaluation`] when the
    /// network fails; [`Error::Interrupted`].
    pub fn enlarge(
        &mut self,
        image: &Image,
        request: GenerateRequest<'_>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Image> {
        let (manifest, sample) = (self.manifest, self.manifest.sample_scale());
        if manifest.task != Task::Upscale {
            return Err(Error::usage(format!(
                "{} does not upscale; its task is {}",
                manifest.name, manifest.task
            )));
        }
        let small = LowRes::new(&image.visible(), self.range, manifest.image_channels(), sample)?;
        let generated =
            self.run([sample * image.width, sample * image.height], Some(&small), request, watch)?;
        let mut large = image.black(manifest.scale * image.width, manifest.scale * image.height);
        if let Some(alpha) = image.alpha() {
            large.set_alpha(&enlarged(&alpha, manifest.scale)?);
        }
        tensor::write_planes(generated.as_slice().unwrap_or_default(), self.range, &mut large)?;
        Ok(large)
    }

    /// Generates samples of that size, with or without a small image as condition, and decodes
    /// them.
    fn run(
        &mut self,
        [width, height]: [usize; 2],
        small: Option<&LowRes>,
        request: GenerateRequest<'_>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Array4<f32>> {
        let GenerateRequest { seeds, classes, start, sigma, initial, fresh, guides } = request;
        let sigma = sigma.unwrap_or(SigmaMap::ABSOLUTE);
        let (count, channels) = (seeds.len(), self.manifest.channels);
        let labels = self.labels(classes.as_ref(), count)?;
        let own = Seeds(seeds.into_iter().map(Philox::new).collect());
        let x = self.start(start, initial, &sigma, [count, channels, height, width], &own)?;
        let noise = fresh.unwrap_or(&own);
        let tiles = self.tiles([width, height], count)?;
        let mut leading;
        // Reborrows the guides for this run.
        let mut guides: Vec<&mut dyn Guidance> =
            guides.into_iter().map(|guide| guide as &mut dyn Guidance).collect();
        if let Some(Classifier { manifest, network, scale }) = &mut self.classifier {
            let wanted = classes
                .as_ref()
                .map(|classes| classes.labels.iter().map(|class| *class as i64).collect());
            let wanted: Vec<i64> = wanted.ok_or_else(|| {
                Error::usage(
                    "guidance by a classifier needs a class, and none was given; choose one",
                )
            })?;
            let sigma_max = manifest.sigma.map_or(f64::INFINITY, |range| range.max);
            leading = ClassifierGuidance::new(*network, wanted, *scale, sigma_max);
            guides.push(&mut leading);
        }
        let mut state = State::new(x, &self.plan, noise, &sigma)?.guided(guides);
        let mut conditioned;
        let canvas: &mut dyn Canvas = match small {
            None => &mut state,
            Some(small) => {
                conditioned = Conditioned {
                    small,
                    enlarged: self.manifest.is_concatenated(),
                    state: &mut state,
                };
                &mut conditioned
            }
        };
        let mut last = None;
        let mut seen = |progress: Progress| {
            last = Some(progress);
            watch(progress)
        };
        let options = classes.as_ref().map(|classes| classes.options).unwrap_or_default();
        let is_guided = options.scale != 1.0;
        match labels {
            None if is_guided && !self.manifest.unconditional.is_empty() => {
                let mut free = ClassifierFree::new(self.network, None, options, &self.plan);
                execute(&self.plan, &mut free, canvas, &tiles, &sigma, &mut seen)?;
            }
            Some([wanted, without]) if options.scale != 1.0 && wanted != without => {
                let mut free =
                    ClassifierFree::new(self.network, Some([wanted, without]), options, &self.plan);
                execute(&self.plan, &mut free, canvas, &tiles, &sigma, &mut seen)?;
            }
            labels => {
                if let Some([wanted, _]) = labels {
                    let (tile_width, tile_height) = tiles.tile_size();
                    self.network.bind([count, channels, tile_height, tile_width])?;
                    label(self.network.inputs().class, &wanted)?;
                }
                execute(&self.plan, self.network, canvas, &tiles, &sigma, &mut seen)?;
            }
        }
        let generated = state.into_inner();
        let Some(decoding) = &self.manifest.decoder else { return Ok(generated) };
        let Some(decoder) = &mut self.decoder else {
            return Err(Error::usage(format!(
                "{} generates latents, and its decoder was not loaded",
                self.manifest.name
            )));
        };
        let memory = (self.options.tile, self.options.budget);
        // Progress counts sampler steps, all of which are done.
        decode(decoding, *decoder, &generated, memory, &mut |progress| {
            watch(last.unwrap_or(progress))
        })
    }

    /// The wanted and negative class labels for the network; `None` for a network without classes.
    fn labels(&self, classes: Option<&Classes>, count: usize) -> Result<Option<[Vec<i64>; 2]>> {
        // Without classes there may be options of guidance by other conditions.
        let classes = classes.filter(|classes| !classes.labels.is_empty());
        let Some(indices) = self.manifest.class_indices() else {
            return match classes {
                // The classifier has classes.
                Some(_) if self.classifier.is_none() => {
                    Err(ClassIndices::refusal(&self.manifest.name))
                }
                _ => Ok(None),
            };
        };
        // With classifier guidance, the network itself runs unconditionally.
        let (Some(classes), None) = (classes, &self.classifier) else {
            let none = indices.index(None)?;
            return Ok(Some([vec![none; count], vec![none; count]]));
        };
        let index = |class: usize| indices.index(Some(class));
        let wanted = classes.labels.iter().copied().map(index).collect::<Result<Vec<_>>>()?;
        let negative = classes.negative.map(index).transpose()?.or(indices.unconditional());
        let without = match negative {
            Some(negative) => vec![negative; count],
            None if classes.options.scale == 1.0 => wanted.clone(),
            None => {
                return Err(Error::usage(format!(
                    "{} was trained without an unconditional class, which classifier-free guidance \
                     needs; take a guidance scale of 1, or a negative class",
                    self.manifest.name
                )));
            }
        };
        Ok(Some([wanted, without]))
    }

    /// The state before the first step.
    fn start(
        &self,
        start: Option<Array4<f32>>,
        initial: Option<Array4<f32>>,
        sigma: &SigmaMap,
        shape: [usize; 4],
        noise: &dyn NoiseSource,
    ) -> Result<Array4<f32>> {
        let level = self.plan.steps[0].level;
        let (mut x, factor) = match start {
            Some(mut image) => {
                if image.dim() != shape.into() {
                    return Err(Error::usage("the initial state and the request differ in size"));
                }
                image.mapv_inplace(|value| value * level.signal as f32);
                (image, level.noise)
            }
            // For a variance-preserving state, the rest of the image is replaced by noise, too.
            None if (level.signal.hypot(level.noise) - 1.0).abs() < 1e-6 => {
                (Array4::zeros(shape), 1.0)
            }
            None => (Array4::zeros(shape), level.noise),
        };
        if let Some(initial) = initial {
            if initial.dim() != shape.into() {
                let found = initial.shape();
                return Err(Error::usage(format!(
                    "the initial noise has shape {found:?}; expected {shape:?}"
                )));
            }
            x.zip_mut_with(&initial, |x, z| *x += factor as f32 * z);
            return Ok(x);
        }
        let [_, channels, height, width] = shape;
        let mut row = vec![0.0; width];
        for (i, values) in
            x.as_slice_mut().unwrap_or_default().chunks_exact_mut(width.max(1)).enumerate()
        {
            let (plane, y) = (i / height, i % height);
            let (batch, channel) = ((plane / channels) as u32, (plane % channels) as u32);
            noise.fill(
                NoiseAt { step: NoiseAt::INITIAL, batch, channel, y: y as u32 },
                0,
                &mut row,
            );
            values
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x += factor as f32 * sigma.at(plane % channels, i, y) * row[i]);
        }
        Ok(x)
    }

    fn tiles(&self, [width, height]: [usize; 2], count: usize) -> Result<TilePlan> {
        let Manifest { channels, bytes_per_pixel, .. } = *self.manifest;
        // Memory for the state, the prediction, and the history of the sampler.
        let state = 3 * count * channels * width * height * size_of::<f32>();
        let room = self.options.budget.room(state as u64).of(self.network);
        let per_pixel = bytes_per_pixel.map(|bytes| bytes * count);
        room.tiles(
            [width, height, channels],
            self.options.tile,
            self.manifest.locality(),
            per_pixel,
        )
    }
}

/// Converts samples, `[images, channels, height, width]` in `range`, to 8-bit images.
///
/// # Errors
/// [`Error::Usage`] for a number of channels that no image has.
pub fn as_images(generated: &Array4<f32>, range: tensor::Range) -> Result<Vec<Image>> {
    let (_, channels, height, width) = generated.dim();
    let size = channels * height * width;
    let images = generated.as_slice().unwrap_or_default().chunks_exact(size.max(1)).map(|planes| {
        let samples = Samples::U8(vec![0; size]);
        let mut image = Image { width, height, channels, samples, metadata: Metadata::default() };
        tensor::write_planes(planes, range, &mut image)?;
        Ok(image)
    });
    images.collect()
}

/// Noise with a separate random seed for each image.
struct Seeds(Vec<Philox>);

impl NoiseSource for Seeds {
    fn fill(&self, at: NoiseAt, x: usize, out: &mut [f32]) {
        match self.0.get(at.batch as usize) {
            Some(own) => own.fill(NoiseAt { batch: 0, ..at }, x, out),
            None => out.fill(0.0),
        }
    }
}
