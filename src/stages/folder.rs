//! diffusers' folders as pipelines: what `model_index.json` and the configurations of its parts
//! say, translated to a [`PipelineSpec`].

use std::path::Path;

use serde_json::Value;

use super::spec::{
    AutoencoderSpec, ConcatCondition, EmbeddingSpec, Enlargement, GuidanceSpec, MicroConditions,
    PipelineSpec, PriorConditioning, StageDefaults, StageSpec, StateSpec, StrengthSpec, TextSpec,
};
use crate::error::{Error, Result};
use crate::model::{Config, ModelFolder, TEXT_ENCODERS, has_text_encoder, text_of};

const INDEX: &str = "model_index.json";
/// A description in Eddy's own terms.
const SPEC: &str = "pipeline.toml";
/// The scale of pixels to latents of Stable Diffusion's autoencoder, where its configuration is
/// missing.
const DEFAULT_FACTOR: f64 = 0.18215;
const DEFAULT_SCALE: usize = 8;

/// The class of pipelines that are conditioned on a class.
const DIT: &str = "DiTPipeline";

/// Whether it is a pipeline of diffusers that is conditioned on text, or made of stages.
pub fn is_pipeline(folder: &ModelFolder) -> bool {
    folder.contains(SPEC)
        || folder.path().is_some_and(has_text_encoder)
        || (folder.contains(INDEX)
            && read_index(folder).is_ok_and(|index| {
                index.get("_class_name").and_then(Value::as_str) == Some(DIT)
                    || TEXT_ENCODERS.iter().any(|part| names(&index, part))
            }))
}

fn read_index(folder: &ModelFolder) -> Result<Config> {
    Config::read(folder, INDEX, "it says which pipeline the folder is of")
}

/// Whether the index names a part, rather than `[null, null]` for one that was left out.
fn names(index: &Config, part: &str) -> bool {
    index.get(part).and_then(|part| part.get(1)).is_some_and(Value::is_string)
}

/// What is read of a diffusers folder.
struct Folder<'a> {
    files: &'a ModelFolder,
    index: Config,
    class: String,
}

/// Translates the folder.
///
/// # Errors
/// [`Error::Model`] when a part is missing, or the pipeline is of a class that Eddy does not run.
pub fn pipeline_of(files: &ModelFolder) -> Result<PipelineSpec> {
    if files.contains(SPEC) {
        return described(files);
    }
    let index = read_index(files)?;
    let class = index.get("_class_name").and_then(Value::as_str).unwrap_or_default();
    // optimum saves its own class, which has the name of diffusers' after this.
    let class = class.strip_prefix("ORT").unwrap_or(class).to_owned();
    let folder = Folder { files, index, class };
    let class = folder.class.as_str();
    type Translation = fn(&Folder<'_>) -> Result<PipelineSpec>;
    // Of the first ones: the guidance scale, and the strength without and with a mask.
    const CLASSES: [(&str, Translation); 35] = [
        ("StableDiffusionPipeline", |it| it.stable_diffusion(7.5, [0.8, 1.0])),
        ("StableDiffusionImg2ImgPipeline", |it| it.stable_diffusion(7.5, [0.8, 1.0])),
        ("StableDiffusionInpaintPipeline", |it| it.stable_diffusion(7.5, [1.0, 1.0])),
        ("StableDiffusionInpaintPipelineLegacy", |it| it.stable_diffusion(7.5, [0.8, 0.8])),
        ("OnnxStableDiffusionPipeline", |it| it.stable_diffusion(7.5, [0.8, 1.0])),
        ("OnnxStableDiffusionImg2ImgPipeline", |it| it.stable_diffusion(7.5, [0.8, 1.0])),
        ("OnnxStableDiffusionInpaintPipeline", |it| it.stable_diffusion(7.5, [1.0, 1.0])),
        ("StableDiffusionControlNetPipeline", |it| it.stable_diffusion(7.5, [0.8, 1.0])),
        ("StableDiffusionControlNetImg2ImgPipeline", |it| {
            it.stable_diffusion(7.5, [0.8, 1.0]).map(|spec| controlled(spec, 0.8))
        }),
        ("StableDiffusionControlNetInpaintPipeline", |it| {
            it.stable_diffusion(7.5, [1.0, 1.0]).map(|spec| controlled(spec, 0.5))
        }),
        ("StableDiffusionInstructPix2PixPipeline", |it| it.instruct_pix2pix()),
        ("StableDiffusionUpscalePipeline", |it| it.upscale()),
        ("OnnxStableDiffusionUpscalePipeline", |it| it.upscale()),
        ("LatentConsistencyModelPipeline", |it| it.latent_consistency()),
        ("LatentConsistencyModelImg2ImgPipeline", |it| it.latent_consistency()),
        ("StableDiffusionXLPipeline", |it| it.stable_diffusion_xl(5.0, [0.3, 0.9999])),
        ("StableDiffusionXLImg2ImgPipeline", |it| it.stable_diffusion_xl(5.0, [0.3, 0.9999])),
        ("StableDiffusionXLInpaintPipeline", |it| it.stable_diffusion_xl(7.5, [0.9999, 0.9999])),
        ("StableDiffusionXLControlNetPipeline", |it| it.stable_diffusion_xl(5.0, [0.3, 0.9999])),
        ("StableDiffusionXLControlNetImg2ImgPipeline", |it| {
            it.stable_diffusion_xl(5.0, [0.8, 0.9999]).map(|spec| controlled(spec, 0.8))
        }),
        ("StableDiffusionXLControlNetInpaintPipeline", |it| {
            it.stable_diffusion_xl(5.0, [0.9999, 0.9999])
        }),
        ("StableDiffusionXLInstructPix2PixPipeline", |it| it.instruct_pix2pix_xl()),
        ("StableDiffusion3Pipeline", |it| it.stable_diffusion_3(28)),
        ("StableDiffusion3Img2ImgPipeline", |it| it.stable_diffusion_3(50)),
        ("FluxPipeline", |it| it.flux(3.5)),
        ("FluxImg2ImgPipeline", |it| it.flux(7.0)),
        ("FluxInpaintPipeline", |it| it.flux(7.0)),
        ("PixArtAlphaPipeline", |it| it.pixart(120)),
        ("PixArtSigmaPipeline", |it| it.pixart(300)),
        ("SanaPipeline", |it| it.sana()),
        ("IFPipeline", |it| it.deepfloyd_if()),
        ("IFSuperResolutionPipeline", |it| it.deepfloyd_if()),
        ("UnCLIPPipeline", |it| it.unclip()),
        ("KandinskyV22CombinedPipeline", |it| it.kandinsky()),
        (DIT, |it| it.dit()),
    ];
    match CLASSES.iter().find(|(name, _)| *name == class) {
        Some((_, translate)) => translate(&folder),
        None => {
            let names: Vec<&str> = CLASSES.iter().map(|(name, _)| *name).collect();
            Err(folder.error(format!(
                "its model_index.json is of {}; Eddy runs {}",
                if class.is_empty() { "no class" } else { class },
                names.join(", ")
            )))
        }
    }
}

/// The pipeline with this default factor of a ControlNet's residuals.
fn controlled(mut spec: PipelineSpec, control_scale: f64) -> PipelineSpec {
    spec.stages.iter_mut().for_each(|stage| stage.defaults.control_scale = control_scale);
    spec
}

/// The pipeline that a `pipeline.toml` describes.
fn described(files: &ModelFolder) -> Result<PipelineSpec> {
    parsed(&text_of(files, SPEC, "it describes the pipeline")?, &files.to_string())
}

/// The pipeline that the text of a `pipeline.toml` describes; `model` is its name in errors.
pub(super) fn parsed(text: &str, model: &str) -> Result<PipelineSpec> {
    let spec: PipelineSpec = toml::from_str(text).map_err(|cause| {
        Error::model_from(model, format!("its {SPEC} is not as expected"), cause)
    })?;
    match spec.problem() {
        None => Ok(spec),
        Some(problem) => Err(Error::model(model, format!("its {SPEC} has {problem}"))),
    }
}

/// How many times smaller the coarsest level of a network is, whose blocks are listed by this key.
/// Each but the last halves the resolution.
fn halved(config: &Config, key: &str) -> Option<usize> {
    let blocks = config.get(key)?.as_array()?;
    Some(1 << (blocks.len().clamp(1, 8) - 1))
}

/// The tiny decoder in a folder of its own, whose latents are in the sampler's units unless its
/// configuration has a scale.
///
/// # Errors
/// [`Error::Model`] when its network or its configuration cannot be read.
pub(super) fn tiny_decoder(path: &Path) -> Result<AutoencoderSpec> {
    let files = &ModelFolder::from(path);
    let parent = Folder { files, index: Config::empty(files, INDEX), class: String::new() };
    let config = parent.config("")?;
    let is_scaled = config.get("scaling_factor").is_some();
    let spec = parent.autoencoder("")?;
    Ok(AutoencoderSpec { factor: if is_scaled { spec.factor } else { 1.0 }, ..spec })
}

/// A file of a part, or of the folder itself.
fn within(part: &str, file: &str) -> String {
    if part.is_empty() { file.to_owned() } else { format!("{part}/{file}") }
}

impl Folder<'_> {
    fn error(&self, problem: impl Into<String>) -> Error {
        Error::model(self.files.to_string(), problem)
    }

    fn has(&self, part: &str) -> bool {
        self.files.path().is_some_and(|path| path.join(part).is_dir())
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.index.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    /// The configuration of a part; empty where there is none.
    fn config(&self, part: &str) -> Result<Config> {
        let file = within(part, "config.json");
        if !self.files.contains(&file) {
            return Ok(Config::empty(self.files, &file));
        }
        Config::read(self.files, &file, "it describes a part of the pipeline")
    }

    /// The file of a part's network.
    fn network(&self, part: &str) -> Result<String> {
        let file = within(part, "model.onnx");
        if self.files.contains(&file) {
            return Ok(file);
        }
        Err(self.error(format!("it has no {file}; export the pipeline again")))
    }

    fn text(&self, number: usize, length: Option<usize>, layer: usize) -> Result<TextSpec> {
        let suffix = if number == 1 { String::new() } else { format!("_{number}") };
        let tokenizer = format!("tokenizer{suffix}");
        if !self.has(&tokenizer) {
            return Err(self.error(format!(
                "it has no folder {tokenizer}, which turns prompts into tokens; export it again"
            )));
        }
        let network = self.network(&format!("text_encoder{suffix}"))?;
        Ok(TextSpec {
            tokenizer,
            network,
            length,
            instruction: None,
            is_lowercase: false,
            layer,
            is_projected: false,
        })
    }

    /// A text encoder of CLIP with a projection.
    fn projected(&self, number: usize, layer: usize) -> Result<TextSpec> {
        Ok(TextSpec { is_projected: true, ..self.text(number, None, layer)? })
    }

    /// A pipeline of latents without text encoders and stages: the decoder and, where there is one,
    /// the encoder.
    fn latent(&self) -> Result<PipelineSpec> {
        let encoder =
            self.has("vae_encoder").then(|| self.autoencoder("vae_encoder")).transpose()?;
        Ok(PipelineSpec {
            name: self.named(),
            decoder: Some(self.autoencoder("vae_decoder")?),
            encoder,
            ..PipelineSpec::default()
        })
    }

    /// An encoder or decoder of latents.
    fn autoencoder(&self, part: &str) -> Result<AutoencoderSpec> {
        let config = self.config(part)?;
        let number = |key: &str| config.get(key).and_then(Value::as_f64);
        let numbers = |key: &str| -> Option<Vec<f32>> {
            let list = config.get(key)?.as_array()?;
            list.iter().map(|value| value.as_f64().map(|it| it as f32)).collect()
        };
        let keys = ["block_out_channels", "encoder_block_out_channels"];
        let scale = keys.into_iter().find_map(|key| halved(&config, key));
        let factor = number("scaling_factor").unwrap_or(DEFAULT_FACTOR);
        if !(factor.is_finite() && factor > 0.0) {
            let expected = "a number above 0";
            return Err(config.refusal("scaling_factor", &factor.into(), expected));
        }
        Ok(AutoencoderSpec {
            network: self.network(part)?,
            scale: scale.unwrap_or(DEFAULT_SCALE),
            channels: config.count("latent_channels", 1..=1024)?.unwrap_or(4),
            factor,
            shift: number("shift_factor").unwrap_or(0.0),
            normalization: numbers("latents_mean")
                .zip(numbers("latents_std"))
                .map(|(mean, deviation)| [mean, deviation]),
        })
    }

    fn named(&self) -> String {
        let name = self.files.path().and_then(Path::file_name);
        name.map_or_else(|| self.class.clone(), |name| name.to_string_lossy().into_owned())
    }

    /// What sides of a state are multiples of: a U-Net halves them between its blocks, a
    /// transformer divides them into patches.
    fn multiple_of(&self, config: &Config) -> Result<usize> {
        if let Some(patch) = config.count("patch_size", 1..=64)? {
            return Ok(patch);
        }
        Ok(halved(config, "block_out_channels").unwrap_or(1))
    }

    /// The stage of a latent U-Net or transformer in the folder `part`.
    fn stage(
        &self,
        part: &str,
        scale: usize,
        (steps, strength): (usize, f64),
        guidance_scale: f64,
    ) -> Result<StageSpec> {
        let config = self.config(part)?;
        let network = self.network(part)?;
        let sides = config.sides("sample_size")?.unwrap_or([64, 64]);
        let control = self.has("controlnet").then(|| self.network("controlnet")).transpose()?;
        Ok(StageSpec {
            network,
            last_network: None,
            state: StateSpec::Image,
            prior: PriorConditioning::Nothing,
            normalization: None,
            control,
            scheduler: "scheduler/scheduler_config.json".into(),
            channels: config.count("out_channels", 1..=1024)?.unwrap_or(4),
            concat: ConcatCondition::Nothing,
            classes: 0,
            low_res_scheduler: None,
            multiple_of: self.multiple_of(&config)?,
            packed: false,
            guidance: GuidanceSpec::ClassifierFree,
            strength: StrengthSpec::Steps,
            has_even_sigmas: false,
            timestep_factor: 1.0,
            micro: MicroConditions::None,
            defaults: StageDefaults {
                steps,
                guidance_scale,
                strength,
                inpaint_strength: None,
                control_scale: 1.0,
                size: [scale * sides[1], scale * sides[0]],
            },
        })
    }

    /// Stable Diffusion 1 and 2 (Rombach et al. 2022).
    fn stable_diffusion(
        &self,
        guidance_scale: f64,
        [strength, inpaint_strength]: [f64; 2],
    ) -> Result<PipelineSpec> {
        let pipeline = self.latent()?;
        let scale = pipeline.decoder_scale();
        let mut stage = self.stage("unet", scale, (50, strength), guidance_scale)?;
        let unet = self.config("unet")?;
        let taken = unet.count("in_channels", 1..=1024)?.unwrap_or(stage.channels);
        stage.concat = match taken.checked_sub(stage.channels) {
            Some(0) => ConcatCondition::Nothing,
            Some(extra) if extra == stage.channels + 1 => ConcatCondition::MaskedImage,
            _ => {
                return Err(self.error(format!(
                    "its U-Net takes {taken} channels and gives {}; expected as many, or {} with \
                     a mask and a masked image",
                    stage.channels,
                    2 * stage.channels + 1
                )));
            }
        };
        if unet.get("time_cond_proj_dim").is_some() {
            stage.guidance = GuidanceSpec::Embedded;
        }
        stage.defaults.inpaint_strength = Some(inpaint_strength);
        Ok(PipelineSpec {
            text: vec![self.text(1, None, 0)?],
            embedding: EmbeddingSpec { sequence: vec![vec![0]], ..EmbeddingSpec::default() },
            stages: vec![stage],
            ..pipeline
        })
    }

    /// Latent consistency models (Luo et al. 2023).
    fn latent_consistency(&self) -> Result<PipelineSpec> {
        let mut pipeline = self.stable_diffusion(8.5, [0.8, 1.0])?;
        for stage in &mut pipeline.stages {
            stage.guidance = GuidanceSpec::Embedded;
            stage.defaults.steps = 4;
            stage.strength = StrengthSpec::Timesteps;
        }
        Ok(pipeline)
    }

    /// InstructPix2Pix (Brooks et al. 2023).
    fn instruct_pix2pix(&self) -> Result<PipelineSpec> {
        let pipeline = self.latent()?;
        let scale = pipeline.decoder_scale();
        let mut stage = self.stage("unet", scale, (100, 1.0), 7.5)?;
        stage.concat = ConcatCondition::Image;
        stage.guidance = GuidanceSpec::TextAndImage;
        Ok(PipelineSpec {
            text: vec![self.text(1, None, 0)?],
            embedding: EmbeddingSpec { sequence: vec![vec![0]], ..EmbeddingSpec::default() },
            stages: vec![stage],
            ..pipeline
        })
    }

    /// InstructPix2Pix with Stable Diffusion XL.
    fn instruct_pix2pix_xl(&self) -> Result<PipelineSpec> {
        if self.flag("is_cosxl_edit", false) {
            return Err(self.error(
                "its model_index.json has is_cosxl_edit = true; Eddy edits with networks that \
                 take the image's latent unscaled, which have false",
            ));
        }
        let mut pipeline = self.stable_diffusion_xl(5.0, [0.3, 0.9999])?;
        for stage in &mut pipeline.stages {
            stage.concat = ConcatCondition::Image;
            stage.guidance = GuidanceSpec::TextAndImage;
            stage.defaults.steps = 100;
        }
        Ok(pipeline)
    }

    /// Stable Diffusion's upscaler by 4.
    fn upscale(&self) -> Result<PipelineSpec> {
        let pipeline = self.latent()?;
        let mut stage = self.stage("unet", 1, (75, 1.0), 9.0)?;
        stage.concat = ConcatCondition::LowRes;
        stage.low_res_scheduler = Some("low_res_scheduler/scheduler_config.json".into());
        Ok(PipelineSpec {
            text: vec![self.text(1, None, 0)?],
            embedding: EmbeddingSpec { sequence: vec![vec![0]], ..EmbeddingSpec::default() },
            stages: vec![stage],
            ..pipeline
        })
    }

    /// Stable Diffusion XL and its refiner (Podell et al. 2024).
    fn stable_diffusion_xl(
        &self,
        guidance_scale: f64,
        [strength, inpaint_strength]: [f64; 2],
    ) -> Result<PipelineSpec> {
        let pipeline = self.latent()?;
        let scale = pipeline.decoder_scale();
        let mut stage = self.stage("unet", scale, (50, strength), guidance_scale)?;
        stage.defaults.inpaint_strength = Some(inpaint_strength);
        let unet = self.config("unet")?;
        let taken = unet.count("in_channels", 1..=1024)?.unwrap_or(stage.channels);
        if taken == 2 * stage.channels + 1 {
            stage.concat = ConcatCondition::MaskedImage;
        }
        stage.micro = if self.flag("requires_aesthetics_score", false) {
            MicroConditions::Aesthetic { score: 6.0, negative: 2.5 }
        } else {
            MicroConditions::Sizes
        };
        if unet.get("time_cond_proj_dim").is_some() {
            stage.guidance = GuidanceSpec::Embedded;
        }
        // A refiner has the second encoder alone.
        let text = if self.has("text_encoder") || names(&self.index, "text_encoder") {
            vec![self.text(1, None, 1)?, self.projected(2, 1)?]
        } else {
            vec![self.projected(2, 1)?]
        };
        let all: Vec<usize> = (0..text.len()).collect();
        Ok(PipelineSpec {
            embedding: EmbeddingSpec {
                pooled: vec![all.len() - 1],
                sequence: vec![all],
                absent_is_zero: self.flag("force_zeros_for_empty_prompt", true),
                ..EmbeddingSpec::default()
            },
            text,
            stages: vec![stage],
            ..pipeline
        })
    }

    /// Stable Diffusion 3 (Esser et al. 2024).
    fn stable_diffusion_3(&self, steps: usize) -> Result<PipelineSpec> {
        const T5_LENGTH: usize = 256;
        let pipeline = self.latent()?;
        let scale = pipeline.decoder_scale();
        let mut stage = self.stage("transformer", scale, (steps, 0.6), 7.0)?;
        let transformer = self.config("transformer")?;
        stage.channels = transformer.count("in_channels", 1..=1024)?.unwrap_or(16);
        let mut text = vec![self.projected(1, 1)?, self.projected(2, 1)?];
        let mut embedding = EmbeddingSpec {
            sequence: vec![vec![0, 1]],
            pooled: vec![0, 1],
            ..EmbeddingSpec::default()
        };
        if self.has("text_encoder_3") {
            text.push(self.text(3, Some(T5_LENGTH), 0)?);
            embedding.sequence.push(vec![2]);
        } else {
            let features = transformer.count("joint_attention_dim", 1..=65_536)?.unwrap_or(4096);
            embedding.absent = Some([T5_LENGTH, features]);
        }
        Ok(PipelineSpec { text, embedding, stages: vec![stage], ..pipeline })
    }

    /// Flux.1 (Black Forest Labs 2024).
    fn flux(&self, guidance_scale: f64) -> Result<PipelineSpec> {
        const T5_LENGTH: usize = 512;
        let pipeline = self.latent()?;
        let scale = pipeline.decoder_scale();
        let mut stage = self.stage("transformer", scale, (28, 0.6), guidance_scale)?;
        let transformer = self.config("transformer")?;
        stage.channels = transformer.count("in_channels", 4..=4096)?.unwrap_or(64) / 4;
        stage.packed = true;
        stage.has_even_sigmas = true;
        stage.timestep_factor = 0.001;
        stage.guidance = GuidanceSpec::Embedded;
        stage.defaults.size = [128 * scale, 128 * scale];
        Ok(PipelineSpec {
            text: vec![self.text(1, None, 0)?, self.text(2, Some(T5_LENGTH), 0)?],
            embedding: EmbeddingSpec {
                sequence: vec![vec![1]],
                pooled: vec![0],
                ..EmbeddingSpec::default()
            },
            stages: vec![stage],
            ..pipeline
        })
    }

    /// A diffusion transformer conditioned on a class (Peebles and Xie 2023).
    fn dit(&self) -> Result<PipelineSpec> {
        const IMAGENET: usize = 1000;
        let pipeline = self.latent()?;
        let mut stage = self.stage("transformer", pipeline.decoder_scale(), (50, 1.0), 4.0)?;
        let config = self.config("transformer")?;
        // Behind the noise, its network gives a learned variance.
        stage.channels = config.count("in_channels", 1..=1024)?.unwrap_or(stage.channels);
        stage.classes = config.count("num_embeds_ada_norm", 1..=1_000_000)?.unwrap_or(IMAGENET);
        Ok(PipelineSpec { stages: vec![stage], ..pipeline })
    }

    /// PixArt-alpha and -sigma (Chen et al. 2024).
    fn pixart(&self, length: usize) -> Result<PipelineSpec> {
        let mut pipeline = self.one_encoder("transformer", length, (20, 1.0), 4.5)?;
        // Each is trained on captions in lower case.
        pipeline.text.iter_mut().for_each(|text| text.is_lowercase = true);
        Ok(pipeline)
    }

    /// Sana (Xie et al. 2024).
    fn sana(&self) -> Result<PipelineSpec> {
        const LENGTH: usize = 300;
        let mut pipeline = self.one_encoder("transformer", LENGTH, (20, 1.0), 4.5)?;
        for text in &mut pipeline.text {
            text.is_lowercase = true;
            text.instruction = Some(SANA_INSTRUCTION.into());
        }
        Ok(pipeline)
    }

    /// Imagen's form (Saharia et al. 2022): DeepFloyd IF, its base or one of its upsamplers.
    fn deepfloyd_if(&self) -> Result<PipelineSpec> {
        const LENGTH: usize = 77;
        let is_base = self.class == "IFPipeline";
        let defaults = if is_base { ((100, 1.0), 7.0) } else { ((50, 1.0), 4.0) };
        let mut stage = self.stage("unet", 1, defaults.0, defaults.1)?;
        // Behind the image its network gives a learned variance.
        stage.channels = 3;
        if !is_base {
            stage.concat = ConcatCondition::Enlarged(Enlargement::Bilinear);
            stage.low_res_scheduler = Some("image_noising_scheduler/scheduler_config.json".into());
        }
        let text = TextSpec { is_lowercase: true, ..self.text(1, Some(LENGTH), 0)? };
        Ok(PipelineSpec {
            name: self.named(),
            text: vec![text],
            embedding: EmbeddingSpec { sequence: vec![vec![0]], ..EmbeddingSpec::default() },
            stages: vec![stage],
            ..PipelineSpec::default()
        })
    }

    /// A prior over the embeddings of images (Ramesh et al. 2022, section 2.2).
    fn prior(&self, part: &str, scheduler: &str) -> Result<StageSpec> {
        let config = self.config(part)?;
        let features = config.count("embedding_dim", 1..=65_536)?.unwrap_or(768);
        let stage = self.stage(part, 1, (25, 1.0), 4.0)?;
        let moment = |name: &str| format!("{part}/{name}.npy");
        Ok(StageSpec {
            scheduler: format!("{scheduler}/scheduler_config.json"),
            state: StateSpec::Vector(features),
            normalization: Some([moment("clip_mean"), moment("clip_std")]),
            ..stage
        })
    }

    /// DALL-E 2's form (Ramesh et al. 2022): unCLIP as Karlo has it.
    fn unclip(&self) -> Result<PipelineSpec> {
        let fixed = |part: &str| -> Result<StateSpec> {
            let sides = self.config(part)?.sides("sample_size")?.unwrap_or([64, 64]);
            Ok(StateSpec::FixedImage([sides[1], sides[0]]))
        };
        let decoder = StageSpec {
            scheduler: "decoder_scheduler/scheduler_config.json".into(),
            channels: 3,
            state: fixed("decoder")?,
            prior: PriorConditioning::Projection { network: self.network("text_proj")? },
            ..self.stage("decoder", 1, (25, 1.0), 8.0)?
        };
        let upsampler = StageSpec {
            scheduler: "super_res_scheduler/scheduler_config.json".into(),
            channels: 3,
            state: fixed("super_res_first")?,
            last_network: Some(self.network("super_res_last")?),
            concat: ConcatCondition::Enlarged(Enlargement::Bicubic),
            guidance: GuidanceSpec::Unguided,
            ..self.stage("super_res_first", 1, (7, 1.0), 1.0)?
        };
        Ok(PipelineSpec {
            name: self.named(),
            text: vec![self.projected(1, 0)?],
            embedding: EmbeddingSpec {
                sequence: vec![vec![0]],
                pooled: vec![0],
                mask: Some(0),
                ..EmbeddingSpec::default()
            },
            stages: vec![self.prior("prior", "prior_scheduler")?, decoder, upsampler],
            main: 1,
            ..PipelineSpec::default()
        })
    }

    /// Kandinsky 2.2 (Razzhigaev et al. 2023): a prior, and a latent decoder of its embeddings.
    fn kandinsky(&self) -> Result<PipelineSpec> {
        const IMAGE_ENCODER: &str = "prior_image_encoder";
        let config = self.config(IMAGE_ENCODER)?;
        let side = config.count("image_size", 1..=4096)?.unwrap_or(224);
        // Its pipeline does not scale latents, whatever the configuration says.
        let decoder = AutoencoderSpec { factor: 1.0, ..self.autoencoder("movq")? };
        let mut stage = self.stage("unet", decoder.scale, (100, 1.0), 4.0)?;
        stage.channels =
            self.config("unet")?.count("in_channels", 1..=1024)?.unwrap_or(stage.channels);
        stage.prior =
            PriorConditioning::ImageEmbedding { encoder: self.network(IMAGE_ENCODER)?, size: side };
        stage.defaults.size = [512, 512];
        let text = TextSpec {
            tokenizer: "prior_tokenizer".into(),
            network: self.network("prior_text_encoder")?,
            length: None,
            instruction: None,
            is_lowercase: false,
            layer: 0,
            is_projected: true,
        };
        Ok(PipelineSpec {
            name: self.named(),
            text: vec![text],
            embedding: EmbeddingSpec {
                sequence: vec![vec![0]],
                pooled: vec![0],
                mask: Some(0),
                ..EmbeddingSpec::default()
            },
            stages: vec![self.prior("prior_prior", "prior_scheduler")?, stage],
            main: 1,
            decoder: Some(decoder),
            ..PipelineSpec::default()
        })
    }

    /// A transformer over latents, conditioned on the tokens of one text encoder with their mask.
    fn one_encoder(
        &self,
        part: &str,
        length: usize,
        defaults: (usize, f64),
        guidance_scale: f64,
    ) -> Result<PipelineSpec> {
        let pipeline = self.latent()?;
        let scale = pipeline.decoder_scale();
        let mut stage = self.stage(part, scale, defaults, guidance_scale)?;
        let config = self.config(part)?;
        // Its output may have a learned variance after it.
        stage.channels = config.count("in_channels", 1..=1024)?.unwrap_or(stage.channels);
        Ok(PipelineSpec {
            text: vec![self.text(1, Some(length), 0)?],
            embedding: EmbeddingSpec {
                sequence: vec![vec![0]],
                mask: Some(0),
                ..EmbeddingSpec::default()
            },
            stages: vec![stage],
            ..pipeline
        })
    }
}

/// The instruction that precedes a prompt of Sana by default, as in its diffusers pipeline.
const SANA_INSTRUCTION: &str = "\
Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions suitable for image generation. Evaluate the level of detail in the user prompt:
- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial relationships to create vivid and concrete scenes.
- If the prompt is already detailed, refine and enhance the existing details slightly without overcomplicating.
Here are examples of how to transform or refine prompts:
- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping peacefully on a warm sunny windowsill, surrounded by pots of blooming red flowers.
- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing street lamps, a diverse crowd of people in colorful clothing, and a double-decker bus passing by towering glass skyscrapers.
Please generate only the enhanced description for the prompt below and avoid including any additional commentary or evaluations:
User Prompt: ";
