//! Stable Diffusion 1 to 3, and what came of it.

use super::{Folder, names};
use crate::error::Result;
use crate::stages::spec::{
    ConcatCondition, EmbeddingSpec, GuidanceSpec, MicroConditions, PipelineSpec, StageSpec,
    StrengthSpec,
};

impl Folder<'_> {
    /// Stable Diffusion 1 and 2 (Rombach et al. 2022).
    pub(super) fn stable_diffusion(
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
        self.by_text(pipeline, stage)
    }

    /// A stage that is conditioned on the tokens of CLIP's text encoder.
    fn by_text(&self, pipeline: PipelineSpec, stage: StageSpec) -> Result<PipelineSpec> {
        Ok(PipelineSpec {
            text: vec![self.text(1, None, 0)?],
            embedding: EmbeddingSpec { sequence: vec![vec![0]], ..EmbeddingSpec::default() },
            stages: vec![stage],
            ..pipeline
        })
    }

    /// Latent consistency models (Luo et al. 2023).
    pub(super) fn latent_consistency(&self) -> Result<PipelineSpec> {
        let mut pipeline = self.stable_diffusion(8.5, [0.8, 1.0])?;
        for stage in &mut pipeline.stages {
            stage.guidance = GuidanceSpec::Embedded;
            stage.defaults.steps = 4;
            stage.strength = StrengthSpec::Timesteps;
        }
        Ok(pipeline)
    }

    /// InstructPix2Pix (Brooks et al. 2023).
    pub(super) fn instruct_pix2pix(&self) -> Result<PipelineSpec> {
        let pipeline = self.latent()?;
        let scale = pipeline.decoder_scale();
        let mut stage = self.stage("unet", scale, (100, 1.0), 7.5)?;
        stage.concat = ConcatCondition::Image;
        stage.guidance = GuidanceSpec::TextAndImage;
        self.by_text(pipeline, stage)
    }

    /// InstructPix2Pix with Stable Diffusion XL.
    pub(super) fn instruct_pix2pix_xl(&self) -> Result<PipelineSpec> {
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
    pub(super) fn upscale(&self) -> Result<PipelineSpec> {
        let pipeline = self.latent()?;
        let mut stage = self.stage("unet", 1, (75, 1.0), 9.0)?;
        stage.concat = ConcatCondition::LowRes;
        stage.low_res_scheduler = Some("low_res_scheduler/scheduler_config.json".into());
        stage.defaults.noise_level = 20;
        self.by_text(pipeline, stage)
    }

    /// Stable Diffusion XL and its refiner (Podell et al. 2024).
    pub(super) fn stable_diffusion_xl(
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
    pub(super) fn stable_diffusion_3(&self, steps: usize) -> Result<PipelineSpec> {
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
}
