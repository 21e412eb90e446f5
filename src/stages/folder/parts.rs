//! What every pipeline is made of: text encoders, a stage, an autoencoder, with their configurations.

use std::path::Path;

use serde_json::Value;

use super::Folder;
use crate::error::{Error, Result};
use crate::model::Config;
use crate::stages::spec::{
    AutoencoderSpec, ConcatCondition, GuidanceSpec, MicroConditions, PipelineSpec,
    PriorConditioning, StageDefaults, StageSpec, StateSpec, StrengthSpec, TextSpec, noise_level,
};

/// The scale of pixels to latents of Stable Diffusion's autoencoder, where its configuration is
/// missing.
const DEFAULT_FACTOR: f64 = 0.18215;
const DEFAULT_SCALE: usize = 8;

/// How many times smaller the coarsest level of a network is, whose blocks are listed by this key.
/// Each but the last halves the resolution.
fn halved(config: &Config, key: &str) -> Option<usize> {
    let blocks = config.get(key)?.as_array()?;
    Some(1 << (blocks.len().clamp(1, 8) - 1))
}

/// A file of a part, or of the folder itself.
fn within(part: &str, file: &str) -> String {
    if part.is_empty() { file.to_owned() } else { format!("{part}/{file}") }
}

impl Folder<'_> {
    pub(super) fn error(&self, problem: impl Into<String>) -> Error {
        Error::model(self.files.to_string(), problem)
    }

    pub(super) fn has(&self, part: &str) -> bool {
        self.files.path().is_some_and(|path| path.join(part).is_dir())
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        self.index.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    /// The configuration of a part; empty where there is none.
    pub(super) fn config(&self, part: &str) -> Result<Config> {
        let file = within(part, "config.json");
        if !self.files.contains(&file) {
            return Ok(Config::empty(self.files, &file));
        }
        Config::read(self.files, &file, "it describes a part of the pipeline")
    }

    /// The file of a part's network.
    pub(super) fn network(&self, part: &str) -> Result<String> {
        let file = within(part, "model.onnx");
        if self.files.contains(&file) {
            return Ok(file);
        }
        Err(self.error(format!("it has no {file}; export the pipeline again")))
    }

    pub(super) fn text(
        &self,
        number: usize,
        length: Option<usize>,
        layer: usize,
    ) -> Result<TextSpec> {
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
    pub(super) fn projected(&self, number: usize, layer: usize) -> Result<TextSpec> {
        Ok(TextSpec { is_projected: true, ..self.text(number, None, layer)? })
    }

    /// A pipeline of latents without text encoders and stages: the decoder and, where there is one,
    /// the encoder.
    pub(super) fn latent(&self) -> Result<PipelineSpec> {
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
    pub(super) fn autoencoder(&self, part: &str) -> Result<AutoencoderSpec> {
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

    pub(super) fn named(&self) -> String {
        let name = self.files.path().and_then(Path::file_name);
        name.map_or_else(|| self.class.clone(), |name| name.to_string_lossy().into_owned())
    }

    /// What sides of a state are multiples of: a U-Net halves them between its blocks, a
    /// transformer divides them into patches.
    pub(super) fn multiple_of(&self, config: &Config) -> Result<usize> {
        if let Some(patch) = config.count("patch_size", 1..=64)? {
            return Ok(patch);
        }
        Ok(halved(config, "block_out_channels").unwrap_or(1))
    }

    /// The stage of a latent U-Net or transformer in the folder `part`.
    pub(super) fn stage(
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
                noise_level: noise_level(),
                size: [scale * sides[1], scale * sides[0]],
            },
        })
    }
}
