//! Pipelines of pixels or of a prior over embeddings: Imagen's form and DALL-E 2's.

use super::Folder;
use crate::error::Result;
use crate::stages::spec::{
    AutoencoderSpec, ConcatCondition, EmbeddingSpec, Enlargement, GuidanceSpec, PipelineSpec,
    PriorConditioning, StageSpec, StateSpec, TextSpec,
};

impl Folder<'_> {
    /// Imagen's form (Saharia et al. 2022): DeepFloyd IF, its base or one of its upsamplers.
    pub(super) fn deepfloyd_if(&self) -> Result<PipelineSpec> {
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
    pub(super) fn prior(&self, part: &str, scheduler: &str) -> Result<StageSpec> {
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
    pub(super) fn unclip(&self) -> Result<PipelineSpec> {
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
    pub(super) fn kandinsky(&self) -> Result<PipelineSpec> {
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
}
