//! Pipelines of several networks: text encoders, a denoiser with conditions, an autoencoder.
//!
//! A pipeline is data ([`PipelineSpec`]): which networks there are, how texts become conditions,
//! what each stage is conditioned on and how it is guided. diffusers' folders are translated to it
//! (`folder.rs`). What it says is put around the networks (`denoiser.rs`), so that the executor
//! runs them like any other: the samplers, their tables and their state are those of
//! [`diffusion`](crate::diffusion).
//!
//! Networks are loaded when they are needed, and stay loaded for other images where the memory
//! limit allows (`network_pool.rs`). Noise is drawn in the order of diffusers' pipelines
//! (`noise_sequence.rs`), so that with the same noise the images are the same.

mod autoencoder;
mod bound_graph;
mod charsmap;
mod conditioning_images;
mod denoiser;
mod enlarge;
mod filled;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod learned_variance;
mod network_pool;
mod noise_sequence;
mod observed;
mod preview;
mod prompt;
mod request;
mod spec;
mod stage;
mod stage_images;
mod stage_prior;
mod stage_schedule;
mod text;
mod tokenizer;
mod tokenizer_file;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use ndarray::Array4;

use crate::diffusion::Progress;
use crate::error::{Error, Result};
use crate::media::Image;
use crate::model::ModelFolder;
use crate::network::Runtime;
use crate::task::as_images;
use crate::tensor::Range;
pub(crate) use bound_graph::{OUTPUTS, SAMPLES, TIMESTEPS, guidance_embedding};
pub use folder::{is_pipeline, pipeline_of};
pub(crate) use learned_variance::variance_ratios;
use network_pool::NetworkPool;
pub(crate) use network_pool::variant;
pub use network_pool::{Retention, SavedGraph, TextToImageOptions};
pub use noise_sequence::NoiseSequence;
pub use observed::{PredictedStep, StepObserver};
pub use preview::{Preview, TinyDecoder};
pub use prompt::{Fragment, fragments};
pub use request::{StageRequest, TextToImageRequest};
pub use spec::{
    AutoencoderSpec, ConcatCondition, EmbeddingSpec, Enlargement, GuidanceSpec, MicroConditions,
    PipelineSpec, PriorConditioning, StageDefaults, StageSpec, StateSpec, StrengthSpec, TextSpec,
};
use stage::StageRun;
pub(crate) use stage_schedule::{PlanRequest, StageSchedule};
pub use text::{Embedding, Embeddings};
pub(crate) use text::{hidden_output, pooled_output};
pub use tokenizer::{PromptTokenizer, Tokens};

/// A pipeline in a folder, or a bundled one, ready to run.
#[derive(Debug)]
pub struct TextToImage {
    folder: ModelFolder,
    spec: PipelineSpec,
    pool: NetworkPool,
    /// The embeddings of the last prompts, which several images share.
    embedded: Option<(PromptKey, Embeddings)>,
}

/// What embeddings depend on: the prompt, the negative prompt, skipped layers, and whether the
/// instruction is left out.
type PromptKey = (String, Option<String>, usize, bool);

/// How a request is run, for reports.
#[derive(Clone, Debug, PartialEq)]
pub struct TextToImageReport {
    /// The sampler.
    pub sampler: &'static str,
    /// Evaluations of the denoiser, each for all branches of guidance.
    pub evaluations: usize,
    /// The guidance scale.
    pub guidance_scale: f64,
    /// Steps of the main stage, before a start image's strength leaves some out.
    pub steps: usize,
    /// The part of the schedule that a start image went through.
    pub strength: Option<f64>,
    /// The factor of the ControlNet's residuals.
    pub control_scale: Option<f64>,
    /// The scale of the image that was edited.
    pub image_guidance_scale: Option<f64>,
    /// The timestep of the noise on an image that was enlarged.
    pub noise_level: Option<usize>,
    /// Width and height of the image.
    pub size: [usize; 2],
    /// How many networks were loaded for it.
    pub loads: usize,
    /// The part of the time for loading them that [`TextToImage::save_optimized`] makes shorter
    /// from the next time on.
    pub unprepared: Duration,
    /// The ends of prompts that were too long, with the number of tokens that there is room for.
    pub truncated: Vec<(String, usize)>,
    /// The words of the prompts that no text encoder knows.
    pub unknown: Vec<String>,
    /// Whether the negative prompt had an effect.
    pub uses_negative_prompt: bool,
}

impl TextToImage {
    /// Reads what the folder says about its pipeline. Networks are loaded later.
    ///
    /// # Errors
    /// [`Error::Model`] when a part is missing, the pipeline is not supported, or none of its
    /// networks is there in the precision that is requested.
    pub fn open(
        runtime: &Arc<Runtime>,
        folder: &ModelFolder,
        options: TextToImageOptions,
    ) -> Result<Self> {
        let spec = folder::pipeline_of(folder)?;
        let pool = NetworkPool::new(runtime, folder, options);
        let pipeline = Self { folder: folder.clone(), spec, pool, embedded: None };
        if !pipeline.pool.has_precision(pipeline.spec.networks()) {
            let precision = options.precision;
            return Err(pipeline.error(format!(
                "none of its networks is there in {precision}, such as unet/model_fp16.onnx for \
                 f16 or unet/model_int8.onnx for int8; leave the precision out"
            )));
        }
        Ok(pipeline)
    }

    /// Saves the optimized graphs of the text encoders and of the stages' networks in the user's
    /// cache, from where they load in a fraction of the time, with their weights mapped. `observe`
    /// is called for each network when it is saved.
    ///
    /// # Errors
    /// [`Error::Model`] when a network is missing or ONNX Runtime does not accept it,
    /// [`Error::Output`] when a graph cannot be saved, [`Error::Usage`] without a cache.
    pub fn save_optimized(&mut self, observe: &mut dyn FnMut(&SavedGraph)) -> Result<()> {
        let is_decoder =
            |file: &str| self.spec.decoder.as_ref().is_some_and(|decoder| decoder.network == file);
        for file in self.spec.networks().filter(|file| !is_decoder(file)) {
            observe(&self.pool.save_optimized(file)?);
        }
        Ok(())
    }

    /// What the pipeline is made of.
    pub fn spec(&self) -> &PipelineSpec {
        &self.spec
    }

    /// Whether the networks that all images need fit into memory together. Where they do not,
    /// sampling several images before the first is decoded saves loads.
    pub fn fits_memory(&self) -> bool {
        let text = self.spec.text.iter().map(|text| text.network.as_str());
        let text: Vec<&str> = text.collect();
        self.pool.fit_together(self.spec.networks().filter(|file| !text.contains(file)))
    }

    /// Samples a latent, or pixels where the pipeline has no decoder, by all stages. `watch` is
    /// called for every evaluation and can stop the run.
    ///
    /// # Errors
    /// [`Error::Usage`] for a request that the pipeline cannot meet, or a network that is larger
    /// than the memory limit; [`Error::Model`] when a part does not fit, [`Error::Evaluation`] when
    /// a network fails, [`Error::Interrupted`].
    pub fn sample(
        &mut self,
        request: &TextToImageRequest<'_>,
        draws: &mut NoiseSequence,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(Array4<f32>, TextToImageReport)> {
        self.sample_observed(request, draws, None, watch)
    }

    /// Like [`sample`](Self::sample), and shows `observer` what each evaluation predicts.
    ///
    /// # Errors
    /// As for [`sample`](Self::sample), and those of `observer`.
    pub fn sample_observed(
        &mut self,
        request: &TextToImageRequest<'_>,
        draws: &mut NoiseSequence,
        mut observer: Option<&mut dyn StepObserver>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(Array4<f32>, TextToImageReport)> {
        let main = self.spec.stages.get(self.spec.main);
        let main = main.ok_or_else(|| self.error("it has no stages"))?;
        let mut report = TextToImageReport {
            sampler: "",
            evaluations: 0,
            guidance_scale: request.guidance_scale.unwrap_or(main.defaults.guidance_scale),
            steps: 0,
            strength: None,
            control_scale: None,
            image_guidance_scale: None,
            noise_level: None,
            size: [0; 2],
            loads: 0,
            unprepared: Duration::ZERO,
            truncated: Vec::new(),
            unknown: Vec::new(),
            uses_negative_prompt: false,
        };
        request.check(&self.spec)?;
        self.pool.check(self.spec.networks())?;
        let (loads, unprepared) = (self.pool.loads(), self.pool.unprepared());
        let embedded = self.embeddings(request)?;
        report.truncated = embedded.truncated.clone();
        report.unknown = embedded.unknown.clone();
        let Self { folder, spec, pool, .. } = self;
        let mut sampled = None;
        for (index, stage) in spec.stages.iter().enumerate() {
            let run = StageRun {
                folder,
                spec,
                stage,
                request,
                requested: request.stages.get(index).copied().unwrap_or_default(),
                index,
                embedded: &embedded,
                before: sampled.as_ref(),
            };
            // Borrowed for as long as this stage.
            let observer = observer.as_mut().map(|it| &mut **it as &mut dyn StepObserver);
            sampled = Some(run.sample(pool, draws, observer, &mut report, watch)?);
        }
        report.loads = self.pool.loads() - loads;
        report.unprepared = self.pool.unprepared() - unprepared;
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
        let image = match &self.spec.decoder {
            Some(decoder) => decoder.decode(&mut self.pool, sample, watch)?,
            None => sample,
        };
        Ok(image.mapv(|value| (value / 2.0 + 0.5).clamp(0.0, 1.0)))
    }

    /// Generates an image. The same seed gives the same image.
    ///
    /// # Errors
    /// As for [`sample`](Self::sample) and [`decode`](Self::decode).
    pub fn run(&mut self, request: &TextToImageRequest<'_>, seed: u64) -> Result<Image> {
        self.run_observed(request, seed, |_| ControlFlow::Continue(())).map(|(image, _)| image)
    }

    /// Like [`run`](Self::run), with a callback: `observe` is called after every evaluation, and
    /// can stop the run.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and [`Error::Interrupted`] when `observe` stops it.
    pub fn run_observed(
        &mut self,
        request: &TextToImageRequest<'_>,
        seed: u64,
        mut observe: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(Image, TextToImageReport)> {
        let mut draws = NoiseSequence::from_seed(seed);
        let (sample, report) = self.sample(request, &mut draws, &mut observe)?;
        Ok((self.decode_image(sample, &mut observe)?, report))
    }

    /// Decodes what [`sample`](Self::sample) gave to an image of 8 bits.
    fn decode_image(
        &mut self,
        sample: Array4<f32>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Image> {
        let decoded = self.decode(sample, watch)?;
        let image = as_images(&decoded, Range::UNIT)?.into_iter().next();
        image.ok_or_else(|| Error::evaluation("the pipeline made no image"))
    }

    /// How many networks have been loaded since the pipeline was opened.
    pub fn loads(&self) -> usize {
        self.pool.loads()
    }

    fn error(&self, problem: impl Into<String>) -> Error {
        Error::model(self.folder.to_string(), problem)
    }

    fn embeddings(&mut self, request: &TextToImageRequest<'_>) -> Result<Embeddings> {
        let TextToImageRequest { prompt, negative_prompt, clip_skip, .. } = request;
        let key =
            (prompt.clone(), negative_prompt.clone(), *clip_skip, request.without_instruction);
        if let Some((known, embeddings)) = &self.embedded
            && *known == key
        {
            return Ok(embeddings.clone());
        }
        let embeddings = text::embed(
            &mut self.pool,
            &self.folder,
            (&self.spec.text, &self.spec.embedding),
            request,
        )?;
        self.embedded = Some((key, embeddings.clone()));
        Ok(embeddings)
    }
}
