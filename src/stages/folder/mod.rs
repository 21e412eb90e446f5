//! diffusers' folders as pipelines: what `model_index.json` and the configurations of its parts
//! say, translated to a [`PipelineSpec`].

mod cascades;
mod parts;
mod stable_diffusion;
mod transformers;

use std::path::Path;

use serde_json::Value;

use super::spec::{AutoencoderSpec, PipelineSpec};
use crate::error::{Error, Result};
use crate::model::{Config, ModelFolder, TEXT_ENCODERS, has_text_encoder, text_of};

const INDEX: &str = "model_index.json";
/// A description in Eddy's own terms.
const SPEC: &str = "pipeline.toml";
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
