//! Diffusion transformers over latents.

use super::Folder;
use crate::error::Result;
use crate::stages::spec::{EmbeddingSpec, GuidanceSpec, PipelineSpec};

impl Folder<'_> {
    /// Flux.1 (Black Forest Labs 2024).
    pub(super) fn flux(&self, guidance_scale: f64) -> Result<PipelineSpec> {
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
    pub(super) fn dit(&self) -> Result<PipelineSpec> {
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
    pub(super) fn pixart(&self, length: usize) -> Result<PipelineSpec> {
        let mut pipeline = self.one_encoder("transformer", length, (20, 1.0), 4.5)?;
        // Each is trained on captions in lower case.
        pipeline.text.iter_mut().for_each(|text| text.is_lowercase = true);
        Ok(pipeline)
    }

    /// Sana (Xie et al. 2024).
    pub(super) fn sana(&self) -> Result<PipelineSpec> {
        const LENGTH: usize = 300;
        let mut pipeline = self.one_encoder("transformer", LENGTH, (20, 1.0), 4.5)?;
        for text in &mut pipeline.text {
            text.is_lowercase = true;
            text.instruction = Some(SANA_INSTRUCTION.into());
        }
        Ok(pipeline)
    }

    /// A transformer over latents, conditioned on the tokens of one text encoder with their mask.
    pub(super) fn one_encoder(
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
