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
//! (`noise_draws.rs`), so that with the same noise the images are the same.

mod autoencoder;
mod conditioning_images;
mod denoiser;
mod folder;
mod learned_variance;
mod noise_draws;
mod prompt;
mod spec;
mod stage;
mod stage_schedule;
mod text;
mod tokenizer;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::Array4;

use crate::diffusion::{Progress, Sampler};
use crate::error::{Error, Result};
use crate::media::Image;
use crate::model::{LARGEST_GRAPH, Links, find_inside, find_weights, read_regular};
use crate::network::{Runtime, SessionOptions, TensorGraph};
use crate::task::{Budget, TileChoice};
pub use folder::{is_pipeline, pipeline_of};
pub use noise_draws::NoiseDraws;
pub use prompt::{Fragment, fragments};
pub use spec::{
    AutoencoderSpec, ConcatCondition, EmbeddingSpec, Enlargement, GuidanceSpec, MicroConditions,
    PipelineSpec, PriorConditioning, StageDefaults, StageSpec, StateSpec, StrengthSpec, TextSpec,
};
use stage::StageRun;
pub use text::{Embedding, Embeddings};
pub use tokenizer::{PromptTokenizer, Tokens};

/// A pipeline in a folder, ready to run.
#[derive(Debug)]
pub struct TextToImage {
    runtime: Arc<Runtime>,
    folder: PathBuf,
    spec: PipelineSpec,
    options: SessionOptions,
    tiles: (TileChoice, Budget),
    /// The embeddings of the last prompts, which several images share.
    embedded: Option<(PromptKey, Embeddings)>,
    /// The network of a single stage, which several images share until one is decoded.
    loaded: Option<TensorGraph>,
}

/// What embeddings depend on: the prompt, the negative prompt, and skipped layers.
type PromptKey = (String, Option<String>, usize);

/// What is asked of a pipeline. Where it leaves something open, the pipeline's defaults are taken.
#[derive(Clone, Debug, Default)]
pub struct TextToImageRequest<'a> {
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
    /// The guidance scale; 1 or less is no guidance, but for networks that take it as an input.
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
    /// What is asked of single stages of a cascade, in order.
    pub stages: Vec<StageRequest>,
}

/// What is asked of one stage of a cascade.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageRequest {
    /// Sampler steps.
    pub steps: Option<usize>,
    /// The guidance scale.
    pub guidance_scale: Option<f64>,
}

/// How a request is run, for reports.
#[derive(Clone, Debug, PartialEq)]
pub struct TextToImageReport {
    /// The sampler.
    pub sampler: &'static str,
    /// Evaluations of the denoiser, each for all branches of guidance.
    pub evaluations: usize,
    /// The guidance scale.
    pub guidance_scale: f64,
    /// Width and height of the image.
    pub size: [usize; 2],
    /// The ends of prompts that were too long, with the number of tokens that there is room for.
    pub truncated: Vec<(String, usize)>,
    /// Whether the negative prompt had an effect.
    pub uses_negative_prompt: bool,
}

impl TextToImage {
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
        Ok(Self { runtime, folder, spec, options, tiles, embedded: None, loaded: None })
    }

    /// What the pipeline is made of.
    pub fn spec(&self) -> &PipelineSpec {
        &self.spec
    }

    /// Samples a latent, or pixels where the pipeline has no decoder, by all stages. `watch` is
    /// called for every evaluation and can stop the run.
    ///
    /// # Errors
    /// [`Error::Usage`] for a request that the pipeline cannot meet, [`Error::Model`] when a part
    /// does not fit, [`Error::Evaluation`] when a network fails, [`Error::Interrupted`].
    pub fn sample(
        &mut self,
        request: &TextToImageRequest<'_>,
        draws: &mut NoiseDraws,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(Array4<f32>, TextToImageReport)> {
        let stages = self.spec.stages.clone();
        let main = stages.get(self.spec.main).ok_or_else(|| self.error("it has no stages"))?;
        let mut report = TextToImageReport {
            sampler: "",
            evaluations: 0,
            guidance_scale: request.guidance_scale.unwrap_or(main.defaults.guidance_scale),
            size: [0; 2],
            truncated: Vec::new(),
            uses_negative_prompt: false,
        };
        self.check_stages(request)?;
        for stage in &stages {
            self.check(stage, request)?;
        }
        let embedded = self.embeddings(request)?;
        report.truncated = embedded.truncated.clone();
        let mut sampled = None;
        for (index, stage) in stages.iter().enumerate() {
            let loaded = self.loaded.take();
            let run = StageRun {
                pipeline: self,
                stage,
                request,
                asked: request.stages.get(index).copied().unwrap_or_default(),
                is_main: index == self.spec.main,
                is_last: index + 1 == stages.len(),
                embedded: &embedded,
                before: sampled.as_ref(),
            };
            let (samples, graph) = run.sample(loaded, draws, &mut report, watch)?;
            sampled = Some(samples);
            // Of a cascade, each network is unloaded before the next is loaded.
            let is_only = stages.len() == 1 && stage.last_network.is_none();
            self.loaded = is_only.then_some(graph);
        }
        let sampled = sampled.ok_or_else(|| self.error("it has no stages"))?;
        Ok((sampled, report))
    }

    /// Decodes what [`sample`](Self::sample) gave to an image, `[1, 3, H, W]` from 0 to 1.
    ///
    /// # Errors
    /// [`Error::Model`] when the decoder is missing, [`Error::Usage`] when the image does not fit
    /// the memory budget, [`Error::Evaluation`] when the decoder fails, [`Error::Interrupted`].
    pub fn decode(
        &mut self,
        sample: Array4<f32>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Array4<f32>> {
        // Only one network is held at a time.
        self.loaded = None;
        let image = match &self.spec.decoder {
            Some(decoder) => decoder.decode(self.place(), sample, self.tiles, watch)?,
            None => sample,
        };
        Ok(image.mapv(|value| (value / 2.0 + 0.5).clamp(0.0, 1.0)))
    }

    /// The vector in a `.npy` file of the folder.
    fn vector(&self, file: &str, length: usize) -> Result<Vec<f32>> {
        let path = find_inside(&self.folder, file, Links::Cache).map_err(|cause| {
            let problem = format!("its {file} cannot be read; it scales what a stage samples");
            Error::model_from(self.folder.display().to_string(), problem, cause)
        })?;
        let values: Vec<f32> = crate::array::read::<ndarray::IxDyn>(&path)?.into_iter().collect();
        if values.len() != length {
            let found = values.len();
            return Err(self.error(format!("its {file} has {found} values; expected {length}")));
        }
        Ok(values)
    }

    fn place(&self) -> (&Arc<Runtime>, &Path, SessionOptions) {
        (&self.runtime, &self.folder, self.options)
    }

    fn error(&self, problem: impl Into<String>) -> Error {
        Error::model(self.folder.display().to_string(), problem)
    }

    /// Whether the request has nothing that all stages ignore.
    fn check_stages(&self, request: &TextToImageRequest<'_>) -> Result<()> {
        let PipelineSpec { name, stages, .. } = &self.spec;
        let any = |holds: fn(&StageSpec) -> bool| stages.iter().any(holds);
        let (given, count) = (request.stages.len(), stages.len());
        let problem = if given > count {
            let plural = if count == 1 { "" } else { "s" };
            format!("{name} has {count} stage{plural}, and values for {given} were given")
        } else if request.noise_level.is_some() && !any(|stage| stage.low_res_scheduler.is_some()) {
            format!("{name} adds no noise to an image that it enlarges; leave the noise level out")
        } else if request.image_guidance_scale.is_some()
            && !any(|stage| stage.guidance == GuidanceSpec::TextAndImage)
        {
            format!("{name} is not guided by an image; leave the image guidance scale out")
        } else if request.start.is_some() && !any(|stage| stage.state == StateSpec::Image) {
            format!("{name} starts from no image; leave it out")
        } else if request.size.is_some()
            && !any(|stage| {
                stage.state == StateSpec::Image && stage.concat != ConcatCondition::LowRes
            })
        {
            format!("{name} generates images of one size; leave the size out")
        } else if request.negative_prompt.is_some()
            && any(|stage| matches!(stage.prior, PriorConditioning::ImageEmbedding { .. }))
        {
            format!("{name} takes no negative prompt; leave it out")
        } else {
            return Ok(());
        };
        Err(Error::usage(problem))
    }

    /// Whether the request has what the stage is conditioned on, and nothing that it ignores.
    fn check(&self, stage: &StageSpec, request: &TextToImageRequest<'_>) -> Result<()> {
        let name = &self.spec.name;
        let problem = match (stage.concat, request.start, request.mask) {
            (ConcatCondition::MaskedImage, None, _) | (ConcatCondition::MaskedImage, _, None) => {
                "fills masked areas of an image; give an image and a mask"
            }
            (ConcatCondition::Image, None, _) => "edits an image, and none was given",
            (ConcatCondition::LowRes, None, _) => "enlarges an image, and none was given",
            (ConcatCondition::Enlarged(_), None, _) if self.spec.stages.len() == 1 => {
                "enlarges an image, and none was given"
            }
            (
                ConcatCondition::Image | ConcatCondition::LowRes | ConcatCondition::Enlarged(_),
                _,
                Some(_),
            ) => "takes no mask; leave it out",
            (_, None, Some(_)) => "was given a mask and no image that it belongs to",
            _ if stage.control.is_some() && request.control.is_none() => {
                "follows a control image, and none was given"
            }
            _ => return Ok(()),
        };
        Err(Error::usage(format!("{name} {problem}")))
    }

    fn embeddings(&mut self, request: &TextToImageRequest<'_>) -> Result<Embeddings> {
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
