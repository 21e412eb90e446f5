//! Pipelines of several networks: text encoders, a denoiser with conditions, an autoencoder.
//!
//! A pipeline is data ([`PipelineSpec`]): which networks there are, how texts become conditions,
//! what each stage is conditioned on and how it is guided. diffusers' folders are translated to it
//! (`folder.rs`). What it says is put around the networks (`denoiser.rs`), so that the executor
//! runs them like any other: the samplers, their tables and their state are those of
//! [`diffusion`](crate::diffusion).
//!
//! Networks are loaded when they are needed and given back after: the text encoders before the
//! first step, the denoiser before the decoder. Noise is drawn in the order of diffusers' pipelines
//! (`draws.rs`), so that with the same noise the images are the same.

mod autoencoder;
mod denoiser;
mod draws;
mod folder;
mod pictures;
mod prompt;
mod spec;
mod text;
mod tokenizer;
mod training;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::{Array4, Axis, concatenate};

use crate::diffusion::{
    Canvas, Guidance, Level, Plan, Progress, Sampler, SigmaMap, State, Update, Window, execute,
};
use crate::error::{Error, Result};
use crate::media::Image;
use crate::model::{LARGEST_GRAPH, Links, find_inside, find_weights, read_regular};
use crate::network::{Runtime, SessionOptions, Shape, TensorGraph};
use crate::setting::SIZE;
use crate::task::{Budget, TileChoice};
use crate::tensor::Range;
use crate::tile::TilePlan;
use denoiser::{Branches, ConditionedNetwork, Conditions, Control};
pub use draws::Draws;
pub use folder::is_pipeline;
pub use prompt::{Fragment, fragments};
pub use spec::{
    AutoencoderSpec, Beside, EmbeddingSpec, GuidanceSpec, MicroConditions, PipelineSpec,
    StageDefaults, StageSpec, TextSpec,
};
pub use text::{Embedding, Embeddings};
pub use tokenizer::{PromptTokenizer, Tokens};
use training::{PlanRequest, Training};

/// A pipeline in a folder, ready to run.
#[derive(Debug)]
pub struct StagedPipeline {
    runtime: Arc<Runtime>,
    folder: PathBuf,
    spec: PipelineSpec,
    options: SessionOptions,
    tiles: (TileChoice, Budget),
    /// The embeddings of the last prompts, which several images share.
    embedded: Option<(PromptKey, Embeddings)>,
}

/// What embeddings depend on: the prompt, the negative prompt, and skipped layers.
type PromptKey = (String, Option<String>, usize);

/// What is asked of a pipeline. Where it leaves something open, the pipeline's defaults are taken.
#[derive(Clone, Debug, Default)]
pub struct StagedRequest<'a> {
    /// What the image is to show. `(word:1.3)` gives a word more weight.
    pub prompt: String,
    /// What it is not to show.
    pub negative_prompt: Option<String>,
    /// Width and height of the image.
    pub size: Option<[usize; 2]>,
    /// Sampler steps.
    pub steps: Option<usize>,
    /// A sampler in place of the scheduler's.
    pub sampler: Option<Sampler>,
    /// Stochasticity of samplers that have it.
    pub eta: Option<f64>,
    /// The guidance scale; 1 or less is no guidance.
    pub guidance_scale: Option<f64>,
    /// How far guidance is rescaled, from 0 to 1 (Lin et al. 2024, section 3.4).
    pub guidance_rescale: f64,
    /// The scale of the image that is edited (Brooks et al. 2023).
    pub image_guidance_scale: Option<f64>,
    /// How many of the text encoder's last layers are left out.
    pub clip_skip: usize,
    /// The image to start from, to edit, to fill or to enlarge.
    pub start: Option<&'a Image>,
    /// The part of the schedule that the start image goes through, from 0 to 1.
    pub strength: Option<f64>,
    /// White where the start image is to be filled.
    pub mask: Option<&'a Image>,
    /// The noise that is added to an image before it is enlarged, as a timestep of its schedule.
    pub noise_level: Option<usize>,
    /// The image that a ControlNet follows.
    pub control: Option<&'a Image>,
    /// The factor of the ControlNet's residuals.
    pub control_scale: Option<f64>,
}

/// How a request is run, for reports.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedReport {
    /// The sampler.
    pub sampler: &'static str,
    /// Evaluations of the denoiser, each for all branches of guidance.
    pub evaluations: usize,
    /// The guidance scale.
    pub guidance_scale: f64,
    /// Width and height of the image.
    pub size: [usize; 2],
    /// The ends of prompts that were too long, with the number of tokens that there is room for.
    pub cut: Vec<(String, usize)>,
}

impl StagedPipeline {
    /// Reads what the folder says about its pipeline. Networks are loaded later.
    ///
    /// # Errors
    /// [`Error::Model`] when a part is missing or the pipeline is not supported.
    pub fn open(
        runtime: &Arc<Runtime>,
        folder: &Path,
        options: SessionOptions,
        tiles: (TileChoice, Budget),
    ) -> Result<Self> {
        let spec = folder::pipeline_of(folder)?;
        let (runtime, folder) = (Arc::clone(runtime), folder.to_owned());
        Ok(Self { runtime, folder, spec, options, tiles, embedded: None })
    }

    /// What the pipeline is made of.
    pub fn spec(&self) -> &PipelineSpec {
        &self.spec
    }

    /// Samples a latent, or pixels where the pipeline has no decoder. `watch` is called for every
    /// evaluation and can stop the run.
    ///
    /// # Errors
    /// [`Error::Usage`] for a request that the pipeline cannot meet, [`Error::Model`] when a part
    /// does not fit, [`Error::Evaluation`] when a network fails, [`Error::Interrupted`].
    pub fn sample(
        &mut self,
        request: &StagedRequest<'_>,
        draws: &mut Draws,
        guides: Vec<&mut dyn Guidance>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(Array4<f32>, StagedReport)> {
        let [stage] = &self.spec.stages[..] else {
            return Err(self.error("its pipeline has several stages, which is not supported yet"));
        };
        let stage = stage.clone();
        let size = self.size(&stage, request)?;
        let guidance_scale = request.guidance_scale.unwrap_or(stage.defaults.guidance_scale);
        self.check(&stage, request)?;
        let embedded = self.embeddings(request)?;
        let training = Training::read(&self.folder, &stage.scheduler)?;
        let scale = self.spec.decoder.as_ref().map_or(1, |decoder| decoder.scale);
        let [width, height] = size.map(|side| side / scale);
        let shape: Shape = [1, stage.channels, height, width];
        let steps = request.steps.unwrap_or(stage.defaults.steps);
        let is_image_started = request.start.is_some()
            && matches!(stage.beside, Beside::Nothing | Beside::MaskedImage);
        let strength = if is_image_started {
            request.strength.unwrap_or(stage.defaults.strength)
        } else {
            1.0
        };
        let start = training.plan(PlanRequest {
            steps,
            // As diffusers rounds it.
            skipped: steps - ((steps as f64 * strength) as usize).min(steps),
            sampler: request.sampler,
            eta: request.eta,
            tokens: (height / 2) * (width / 2),
        })?;
        let given = self.images(&stage, request, (size, shape), strength, draws)?;
        let noise: Array4<f32> = given.noise;
        let first = start.plan.steps.first().map_or(Level::CLEAN, |step| step.level);
        let x = match &given.start {
            Some(image) if strength < 1.0 || !given.is_filled => {
                first.signal as f32 * image + first.noise as f32 * &noise
            }
            _ => start.noise as f32 * &noise,
        };
        let branches = match stage.guidance {
            GuidanceSpec::ClassifierFree if guidance_scale > 1.0 => {
                Branches::ClassifierFree { scale: guidance_scale }
            }
            GuidanceSpec::TextAndImage if guidance_scale > 1.0 => Branches::TextAndImage {
                scale: guidance_scale,
                image: request.image_guidance_scale.unwrap_or(1.5),
            },
            _ => Branches::Single,
        };
        let conditions = Conditions {
            text: Some(&embedded),
            beside: given.beside,
            beside_is_guided: stage.guidance == GuidanceSpec::TextAndImage,
            time_ids: time_ids(stage.micro, size),
            label: given.label,
            guidance: (stage.guidance == GuidanceSpec::Embedded).then_some(guidance_scale),
            positions: stage.packed.then_some([height, width]),
        };
        let graph = open_graph(&self.runtime, &self.folder, &stage.network, self.options)?;
        let control = self.control(&stage, request, size)?;
        let mut network = ConditionedNetwork::new(graph, control, branches, &conditions)?
            .rescaled(request.guidance_rescale)
            .with_timestep_factor(stage.timestep_factor)
            .packed(stage.packed);
        let fresh = draws.steps(&start.plan, shape)?;
        // Reborrows the guides for this run.
        let guides: Vec<&mut dyn Guidance> =
            guides.into_iter().map(|guide| guide as &mut dyn Guidance).collect();
        let mut state =
            State::new(x, &start.plan, fresh.as_ref(), &SigmaMap::ABSOLUTE)?.guided(guides);
        let mut filled;
        let canvas: &mut dyn Canvas = match (&given.mask, &given.start) {
            (Some(mask), Some(image)) if stage.beside == Beside::Nothing => {
                filled =
                    Filled { state: &mut state, plan: &start.plan, mask, image, noise: &noise };
                &mut filled
            }
            _ => &mut state,
        };
        let tiles = TilePlan::whole(width, height, 1);
        execute(&start.plan, &mut network, canvas, &tiles, &SigmaMap::ABSOLUTE, watch)?;
        let report = StagedReport {
            sampler: start.sampler,
            evaluations: start.plan.steps.len(),
            guidance_scale,
            size,
            cut: embedded.cut.clone(),
        };
        Ok((state.into_inner(), report))
    }

    /// Decodes what [`sample`](Self::sample) gave to an image, `[1, 3, H, W]` from 0 to 1.
    ///
    /// # Errors
    /// [`Error::Model`] when the decoder is missing, [`Error::Usage`] when the image does not fit
    /// the memory budget, [`Error::Evaluation`] when the decoder fails, [`Error::Interrupted`].
    pub fn decode(
        &self,
        sample: Array4<f32>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Array4<f32>> {
        let image = match &self.spec.decoder {
            Some(decoder) => decoder.decode(self.place(), sample, self.tiles, watch)?,
            None => sample,
        };
        Ok(image.mapv(|value| (value / 2.0 + 0.5).clamp(0.0, 1.0)))
    }

    fn place(&self) -> (&Arc<Runtime>, &Path, SessionOptions) {
        (&self.runtime, &self.folder, self.options)
    }

    fn error(&self, problem: impl Into<String>) -> Error {
        Error::model(self.folder.display().to_string(), problem)
    }

    /// Width and height of the image.
    fn size(&self, stage: &StageSpec, request: &StagedRequest<'_>) -> Result<[usize; 2]> {
        let scale = self.spec.decoder.as_ref().map_or(1, |decoder| decoder.scale);
        let multiple = if stage.packed { 2 * scale } else { scale };
        if let (Beside::LowRes, Some(small)) = (stage.beside, request.start) {
            return Ok([scale * small.width, scale * small.height]);
        }
        let of_image = request.start.map(|image| {
            let whole = |side: usize| (side / multiple * multiple).max(multiple);
            [whole(image.width), whole(image.height)]
        });
        let size = request.size.or(of_image).unwrap_or(stage.defaults.size);
        if size.iter().any(|side| *side == 0 || side % multiple != 0) {
            let [width, height] = size;
            return Err(Error::usage(format!(
                "{} generates images of multiples of {multiple} pixels, and {width}x{height} was \
                 asked for; change {SIZE}",
                self.spec.name
            )));
        }
        Ok(size)
    }

    /// Whether the request has what the stage is conditioned on, and nothing that it ignores.
    fn check(&self, stage: &StageSpec, request: &StagedRequest<'_>) -> Result<()> {
        let name = &self.spec.name;
        let problem = match (stage.beside, request.start, request.mask) {
            (Beside::MaskedImage, None, _) | (Beside::MaskedImage, _, None) => {
                "fills masked areas of an image; give an image and a mask"
            }
            (Beside::Image, None, _) => "edits an image, and none was given",
            (Beside::LowRes, None, _) => "enlarges an image, and none was given",
            (Beside::Image | Beside::LowRes, _, Some(_)) => "takes no mask; leave it out",
            (_, None, Some(_)) => "was given a mask and no image that it belongs to",
            _ if stage.control.is_some() && request.control.is_none() => {
                "follows a control image, and none was given"
            }
            _ if stage.control.is_none() && request.control.is_some() => {
                "has no ControlNet that a control image would be for"
            }
            _ => return Ok(()),
        };
        Err(Error::usage(format!("{name} {problem}")))
    }

    fn embeddings(&mut self, request: &StagedRequest<'_>) -> Result<Embeddings> {
        let key: PromptKey =
            (request.prompt.clone(), request.negative_prompt.clone(), request.clip_skip);
        if let Some((known, embeddings)) = &self.embedded
            && *known == key
        {
            return Ok(embeddings.clone());
        }
        let embeddings = text::embed(
            &self.runtime,
            &self.folder,
            (&self.spec.text, &self.spec.embedding, request.clip_skip),
            [Some(&request.prompt), request.negative_prompt.as_deref()],
            self.options,
        )?;
        self.embedded = Some((key, embeddings.clone()));
        Ok(embeddings)
    }

    fn control(
        &self,
        stage: &StageSpec,
        request: &StagedRequest<'_>,
        size: [usize; 2],
    ) -> Result<Option<(Control, Array4<f32>)>> {
        let (Some(file), Some(image)) = (&stage.control, request.control) else { return Ok(None) };
        let graph = open_graph(&self.runtime, &self.folder, file, self.options)?;
        let image = pictures::color_planes(image, size, Range::new(0.0, 1.0)?)?;
        let scale = request.control_scale.unwrap_or(1.0);
        Ok(Some((Control { graph, scale }, image)))
    }

    /// The images of a request as the stage takes them, and the initial noise, drawn in diffusers'
    /// order.
    fn images(
        &self,
        stage: &StageSpec,
        request: &StagedRequest<'_>,
        (size, shape): ([usize; 2], Shape),
        strength: f64,
        draws: &mut Draws,
    ) -> Result<Given> {
        let scale = self.spec.decoder.as_ref().map_or(1, |decoder| decoder.scale);
        let range = Range::new(-1.0, 1.0)?;
        let nothing = |noise| Given {
            noise,
            start: None,
            mask: None,
            beside: None,
            label: None,
            is_filled: request.mask.is_some(),
        };
        let Some(image) = request.start else { return Ok(nothing(draws.next(shape)?)) };
        if stage.beside == Beside::LowRes {
            return self.low_res(stage, image, request.noise_level, shape, draws);
        }
        let encoder = self.spec.encoder.as_ref().ok_or_else(|| {
            self.error("it has no vae_encoder, which an image to start from goes through")
        })?;
        let pixels = pictures::color_planes(image, size, range)?;
        if stage.beside == Beside::Image {
            let noise = draws.next(shape)?;
            let mean = encoder.encode(self.place(), &[&pixels], vec![None])?;
            // This pipeline leaves the scale of latents out.
            return Ok(Given { beside: mean.into_iter().next(), ..nothing(noise) });
        }
        let mask = request.mask.map(|mask| pictures::mask_planes(mask, size)).transpose()?;
        let is_needed = stage.beside == Beside::Nothing || strength < 1.0;
        let of = |pixels: &Array4<f32>, draws: &mut Draws| -> Result<Option<Array4<f32>>> {
            let latents = encoder.encode(self.place(), &[pixels], vec![Some(draws)])?;
            Ok(latents.into_iter().next().map(|latent| encoder.normalized(latent)))
        };
        let start = if is_needed { of(&pixels, draws)? } else { None };
        let noise = draws.next(shape)?;
        let Some(mask) = mask else { return Ok(Given { start, ..nothing(noise) }) };
        let kept = &pixels * &mask.mapv(|masked| 1.0 - masked);
        let masked = of(&kept, draws)?;
        let mask = pictures::subsampled(mask.view(), scale);
        let beside = match (stage.beside, masked) {
            (Beside::MaskedImage, Some(masked)) => {
                let joined = concatenate(Axis(1), &[mask.view(), masked.view()]);
                Some(joined.map_err(|cause| {
                    Error::model_from(&self.spec.name, "its encoder gives another size", cause)
                })?)
            }
            _ => None,
        };
        Ok(Given { start, beside, mask: Some(mask), ..nothing(noise) })
    }

    /// A small image with the noise that the upscaler was trained with.
    fn low_res(
        &self,
        stage: &StageSpec,
        image: &Image,
        level: Option<usize>,
        shape: Shape,
        draws: &mut Draws,
    ) -> Result<Given> {
        const USUAL_LEVEL: usize = 20;
        let level = level.unwrap_or(USUAL_LEVEL);
        let file = stage.low_res_scheduler.as_deref().unwrap_or_default();
        let factors = Training::read(&self.folder, file)?.level(level);
        let [signal, sigma] = factors.ok_or_else(|| {
            Error::usage(format!("the noise level {level} lies beyond the schedule in {file}"))
        })?;
        let range = Range::new(-1.0, 1.0)?;
        let pixels = pictures::color_planes(image, [image.width, image.height], range)?;
        let noise: Array4<f32> = draws.next(pixels.dim())?;
        let noised = signal as f32 * &pixels + sigma as f32 * &noise;
        Ok(Given {
            noise: draws.next(shape)?,
            start: None,
            mask: None,
            beside: Some(noised),
            label: Some(level as f32),
            is_filled: false,
        })
    }
}

/// The images of a request, as a stage takes them.
struct Given {
    /// The initial noise.
    noise: Array4<f32>,
    /// The latent of the start image.
    start: Option<Array4<f32>>,
    /// The mask at the size of the latent.
    mask: Option<Array4<f32>>,
    /// What is concatenated behind the state.
    beside: Option<Array4<f32>>,
    /// The class that says how noisy it is.
    label: Option<f32>,
    /// Whether masked areas are filled.
    is_filled: bool,
}

/// The sizes and scores of the prompt and of the negative prompt.
fn time_ids(micro: MicroConditions, [width, height]: [usize; 2]) -> Option<[Vec<f32>; 2]> {
    let (width, height) = (width as f32, height as f32);
    match micro {
        MicroConditions::None => None,
        MicroConditions::Sizes => {
            let ids = vec![height, width, 0.0, 0.0, height, width];
            Some([ids.clone(), ids])
        }
        MicroConditions::Aesthetic { score, negative } => {
            Some([score, negative].map(|score| vec![height, width, 0.0, 0.0, score]))
        }
    }
}

/// A state whose known part is put back after each step, with the noise of the next level.
struct Filled<'a, 's> {
    state: &'a mut State<'s>,
    plan: &'a Plan,
    mask: &'a Array4<f32>,
    image: &'a Array4<f32>,
    noise: &'a Array4<f32>,
}

impl Canvas for Filled<'_, '_> {
    fn shape(&self) -> Shape {
        self.state.shape()
    }

    fn read(&self, window: Window, scale: f32, out: &mut [f32]) -> Result<()> {
        self.state.read(window, scale, out)
    }

    fn update(&mut self, update: &Update<'_>) -> Result<()> {
        self.state.update(update)?;
        let level = self.plan.steps.get(update.index + 1).map_or(Level::CLEAN, |step| step.level);
        let (signal, noise) = (level.signal as f32, level.noise as f32);
        let known = signal * self.image + noise * self.noise;
        let channels = self.state.shape()[1];
        let x = self.state.tensor_mut();
        for channel in 0..channels {
            let mut plane = x.index_axis_mut(Axis(1), channel);
            let known = known.index_axis(Axis(1), channel);
            let mask = self.mask.index_axis(Axis(1), 0);
            ndarray::Zip::from(&mut plane)
                .and(&known)
                .and(&mask)
                .for_each(|x, known, mask| *x = (1.0 - mask) * known + mask * *x);
        }
        Ok(())
    }
}

/// The path of a network in a folder, with its weights checked.
pub(crate) fn find_graph(folder: &Path, name: &str) -> Result<PathBuf> {
    let model = folder.display().to_string();
    let failed = |cause| {
        Error::model_from(&model, format!("its {name} cannot be read; export it again"), cause)
    };
    let file = find_inside(folder, name, Links::Cache).map_err(failed)?;
    let bytes = read_regular(&file, LARGEST_GRAPH).map_err(failed)?;
    // Weights lie beside the name in the folder, even if that is a link.
    let named = folder.join(name);
    find_weights(&bytes, named.parent().unwrap_or(folder), Links::Cache, &model)?;
    Ok(named)
}

/// Loads a network of a folder.
pub(crate) fn open_graph(
    runtime: &Arc<Runtime>,
    folder: &Path,
    name: &str,
    options: SessionOptions,
) -> Result<TensorGraph> {
    let file = find_graph(folder, name)?;
    TensorGraph::open(runtime, &file.display().to_string(), &file, options)
}
