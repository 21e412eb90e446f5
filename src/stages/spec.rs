//! The description of a pipeline, as data: text encoders, stages of sampling, an autoencoder.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A pipeline of several networks. Paths are relative to its folder.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSpec {
    /// Its name in messages.
    pub name: String,
    /// What it is, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The text encoders.
    #[serde(default)]
    pub text: Vec<TextSpec>,
    /// How their outputs become conditions.
    #[serde(default)]
    pub embedding: EmbeddingSpec,
    /// The stages of sampling, in order.
    pub stages: Vec<StageSpec>,
    /// The position of the stage that a request's steps and guidance scale are for.
    #[serde(default)]
    pub main: usize,
    /// The decoder of latents; none for a pipeline that generates pixels.
    pub decoder: Option<AutoencoderSpec>,
    /// The encoder of images.
    pub encoder: Option<AutoencoderSpec>,
}

impl PipelineSpec {
    /// The text of a `pipeline.toml` that describes this pipeline.
    ///
    /// # Errors
    /// When a value has no form in TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|cause| Error::model_from(&self.name, "it cannot be described as TOML", cause))
    }

    /// How many times larger than the start image each side of the result is, for a pipeline that
    /// enlarges.
    pub fn upscale_factor(&self) -> Option<usize> {
        let enlarges = |stage: &StageSpec| stage.concat == ConcatCondition::LowRes;
        self.stages.iter().any(enlarges).then(|| self.decoder_scale())
    }

    /// The files of all its networks, as far as every image needs them: the encoder of images is
    /// left out.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &str> {
        let text = self.text.iter().map(|text| &text.network);
        let stages = self.stages.iter().flat_map(|stage| {
            let more = [&stage.last_network, &stage.control].into_iter().flatten();
            let prior = match &stage.prior {
                PriorConditioning::Nothing => None,
                PriorConditioning::ImageEmbedding { encoder, .. } => Some(encoder),
                PriorConditioning::Projection { network } => Some(network),
            };
            [&stage.network].into_iter().chain(more).chain(prior)
        });
        let decoder = self.decoder.iter().map(|decoder| &decoder.network);
        text.chain(stages).chain(decoder).map(String::as_str)
    }

    /// Pixels of the image per latent pixel, along each axis; 1 without a decoder.
    pub fn decoder_scale(&self) -> usize {
        self.decoder.as_ref().map_or(1, |decoder| decoder.scale)
    }

    /// The first value that is out of range, with what was expected.
    pub(super) fn problem(&self) -> Option<String> {
        const CHANNELS: std::ops::RangeInclusive<usize> = 1..=65_536;
        const SIDE: std::ops::RangeInclusive<usize> = 1..=65_535;
        const STEPS: std::ops::RangeInclusive<usize> = 1..=1000;
        let within = |name: &str, value: usize, range: &std::ops::RangeInclusive<usize>| {
            let expected =
                || format!("{name} = {value}; expected {} to {}", range.start(), range.end());
            (!range.contains(&value)).then(expected)
        };
        if self.stages.is_empty() || self.main >= self.stages.len() {
            let count = self.stages.len();
            return Some(format!("{count} stages and main = {}; expected one of them", self.main));
        }
        let known = |i: &usize| *i < self.text.len();
        let joined = self.embedding.sequence.iter().flatten().chain(&self.embedding.pooled);
        if !joined.chain(&self.embedding.mask).all(known) {
            let count = self.text.len();
            return Some(format!(
                "{count} text encoders, and an embedding that refers to another one"
            ));
        }
        let text = self.text.iter().find_map(|text| {
            within("length", text.length.unwrap_or(1), &(1..=4096))
                .or_else(|| within("layer", text.layer, &(0..=1000)))
        });
        let absent = self.embedding.absent.and_then(|[tokens, features]| {
            within("absent tokens", tokens, &(1..=4096))
                .or_else(|| within("absent features", features, &CHANNELS))
        });
        if let Some(problem) = text.or(absent) {
            return Some(problem);
        }
        let stages = self.stages.iter().find_map(|stage| {
            let StageDefaults { steps, strength, size: [width, height], .. } = stage.defaults;
            let StageDefaults { guidance_scale, inpaint_strength, control_scale, .. } =
                stage.defaults;
            let is_number = (0.0..=1.0).contains(&strength)
                && (0.0..=1.0).contains(&inpaint_strength.unwrap_or(1.0))
                && guidance_scale.is_finite()
                && control_scale.is_finite()
                && stage.timestep_factor.is_finite();
            within("channels", stage.channels, &CHANNELS)
                .or_else(|| within("classes", stage.classes, &(0..=1_000_000)))
                .or_else(|| within("multiple_of", stage.multiple_of, &(1..=1024)))
                .or_else(|| within("steps", steps, &STEPS))
                .or_else(|| within("width", width, &SIDE))
                .or_else(|| within("height", height, &SIDE))
                .or_else(|| match stage.prior {
                    PriorConditioning::ImageEmbedding { size, .. } => {
                        within("size", size, &(1..=4096))
                    }
                    _ => None,
                })
                .or_else(|| match stage.state {
                    StateSpec::Vector(features) => within("vector", features, &CHANNELS),
                    StateSpec::FixedImage([width, height]) => {
                        within("width", width, &SIDE).or_else(|| within("height", height, &SIDE))
                    }
                    StateSpec::Image => None,
                })
                .or_else(|| {
                    let problem = "a default strength that is not from 0 to 1, or a guidance \
                                   scale, control scale or timestep factor that is not finite";
                    (!is_number).then(|| problem.to_owned())
                })
        });
        let mut coders = self.decoder.iter().chain(&self.encoder);
        stages.or_else(|| {
            coders.find_map(|coder| {
                let is_factor =
                    coder.factor.is_finite() && coder.factor > 0.0 && coder.shift.is_finite();
                within("channels", coder.channels, &CHANNELS)
                    .or_else(|| within("scale", coder.scale, &(1..=1024)))
                    .or_else(|| {
                        let problem = format!("factor = {}; expected more than 0", coder.factor);
                        (!is_factor).then_some(problem)
                    })
            })
        })
    }
}

/// A text encoder.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// The folder of its tokenizer.
    pub tokenizer: String,
    /// The file of its network.
    pub network: String,
    /// The number of tokens, where the tokenizer's own does not decide.
    #[serde(default)]
    pub length: Option<usize>,
    /// What is put before a prompt, but not before a negative one. Of its embeddings, the last
    /// `length` are used, and the first in place of the first of them (Sana, Xie et al. 2024).
    #[serde(default)]
    pub instruction: Option<String>,
    /// Whether prompts are put into lower case, and spaces around them are removed.
    #[serde(default)]
    pub is_lowercase: bool,
    /// Which layer's output is the embedding, counted from the last: 0 is the last, after its
    /// normalization; 1 is the one before it, which a graph gives as `hidden_states.N`.
    #[serde(default)]
    pub layer: usize,
    /// Whether its pooled embedding must be `text_embeds`, which CLIP projects to the space in
    /// which images are embedded, too.
    #[serde(default)]
    pub is_projected: bool,
}

/// How the outputs of text encoders, by their position in [`PipelineSpec::text`], are joined.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingSpec {
    /// Sequences of embeddings: the encoders of each row are joined along the features, which are
    /// filled with zeros to the widest row, and the rows along the sequence.
    pub sequence: Vec<Vec<usize>>,
    /// The pooled embeddings that are joined along the features.
    pub pooled: Vec<usize>,
    /// Embeddings of this many tokens and features, all zero, after the sequence, for a text
    /// encoder that was left out.
    pub absent: Option<[usize; 2]>,
    /// Whether a prompt that was not given has embeddings of zeros, rather than an empty text's.
    pub absent_is_zero: bool,
    /// The position of the encoder whose mask of tokens the network takes.
    pub mask: Option<usize>,
}

/// A stage of sampling.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StageSpec {
    /// The file of its network.
    pub network: String,
    /// Another network for the last step (unCLIP's upsamplers).
    #[serde(default)]
    pub last_network: Option<String>,
    /// The shape of its state.
    #[serde(default)]
    pub state: StateSpec,
    /// How it is conditioned on the stage before.
    #[serde(default)]
    pub prior: PriorConditioning,
    /// Files with the mean and the standard deviation of what it samples, whose network works on
    /// normalized values.
    #[serde(default)]
    pub normalization: Option<[String; 2]>,
    /// A ControlNet whose residuals go into the network.
    #[serde(default)]
    pub control: Option<String>,
    /// The diffusers `scheduler_config.json` that describes its training schedule.
    pub scheduler: String,
    /// The state's channels.
    pub channels: usize,
    /// What is concatenated to the state.
    #[serde(default)]
    pub concat: ConcatCondition,
    /// The number of classes that it is conditioned on, 0 for none. The index after them is the
    /// unconditional class.
    #[serde(default)]
    pub classes: usize,
    /// The schedule of the noise on a small image that is enlarged.
    #[serde(default)]
    pub low_res_scheduler: Option<String>,
    /// Height and width of the state are multiples of this, as the network halves or divides them.
    #[serde(default = "one_value")]
    pub multiple_of: usize,
    /// Whether the network takes patches of 2x2 values in a row, rather than an image (Flux).
    #[serde(default)]
    pub packed: bool,
    /// How it is guided.
    pub guidance: GuidanceSpec,
    /// What the strength of a start image determines.
    #[serde(default)]
    pub strength: StrengthSpec,
    /// Whether sigmas of a flow are even before they are shifted, rather than those of training.
    #[serde(default)]
    pub has_even_sigmas: bool,
    /// The factor between the sampler's timestep and the network's input.
    #[serde(default = "one")]
    pub timestep_factor: f64,
    /// What further inputs it takes.
    #[serde(default)]
    pub micro: MicroConditions,
    /// What its pipeline takes where a request leaves it open.
    pub defaults: StageDefaults,
}

/// What the strength of a start image determines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrengthSpec {
    /// How many of the steps are taken.
    #[default]
    Steps,
    /// How many of the timesteps of distillation are visited, in the same number of steps.
    Timesteps,
}

fn one_value() -> usize {
    1
}

fn one() -> f64 {
    1.0
}

/// The level of DeepFloyd IF's pipelines.
pub(super) fn noise_level() -> usize {
    250
}

/// What is concatenated to the state along the channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConcatCondition {
    /// Nothing.
    #[default]
    Nothing,
    /// A mask, 1 where the image is to be filled, and the latent of the image without what is
    /// masked (Stable Diffusion's inpainting networks of 9 channels).
    MaskedImage,
    /// The latent of the image that is edited (InstructPix2Pix, Brooks et al. 2023).
    Image,
    /// The pixels of a small image with noise of a given level (Stable Diffusion's upscaler).
    LowRes,
    /// An image of the stage before, or the start image, enlarged to the state's size, with noise
    /// of a given level if there is a schedule for it (cascades; Ho et al. 2022).
    Enlarged(Enlargement),
}

/// How a cascade enlarges the image of the stage before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enlargement {
    /// Linear, from corner to corner (DeepFloyd IF).
    Bilinear,
    /// Linear, by the centers of pixels (GLIDE, Nichol et al. 2022).
    BilinearCenters,
    /// Cubic, as Pillow does it (unCLIP).
    Bicubic,
}

/// The shape of a stage's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateSpec {
    /// An image or a latent, of the size that is requested.
    #[default]
    Image,
    /// An image of one width and height in pixels.
    FixedImage([usize; 2]),
    /// A vector of this many features, such as the embedding of an image (Ramesh et al. 2022).
    Vector(usize),
}

/// How a stage is conditioned on the one before.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PriorConditioning {
    /// Only by what is concatenated with its state.
    #[default]
    Nothing,
    /// The embedding of an image, by the input `image_embeds`. Without guidance the embedding is
    /// that of a black image, by this encoder (Kandinsky 2.2).
    ImageEmbedding {
        /// The file of the image encoder's network.
        encoder: String,
        /// Width and height that it takes.
        size: usize,
    },
    /// Tokens and an embedding of time that this network makes of the embeddings of an image and of
    /// a text, for the prompt and for the negative prompt (unCLIP).
    Projection {
        /// The file of the network.
        network: String,
    },
}

/// How a network is guided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuidanceSpec {
    /// Classifier-free guidance (Ho and Salimans 2022) with the negative prompt, for scales above
    /// 1.
    ClassifierFree,
    /// Classifier-free guidance by text and by the image (Brooks et al. 2023, equation 3).
    TextAndImage,
    /// The network was distilled with guidance, and takes its scale as an input.
    Embedded,
    /// It is not guided.
    Unguided,
}

/// Sizes and scores that networks were conditioned on in training (SDXL, Podell et al. 2024,
/// section 2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MicroConditions {
    /// None.
    #[default]
    None,
    /// The original size, the crop's corner and the target size.
    Sizes,
    /// The original size, the crop's corner and an aesthetic score.
    Aesthetic {
        /// The score of what is wanted.
        score: f32,
        /// The score of the negative prompt.
        negative: f32,
    },
}

/// What a pipeline takes where a request leaves it open, as diffusers' own does.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StageDefaults {
    /// Sampler steps.
    pub steps: usize,
    /// The guidance scale.
    pub guidance_scale: f64,
    /// The part of the schedule that an image given as a start goes through.
    pub strength: f64,
    /// The same where a mask is given, too; by default `strength`.
    #[serde(default)]
    pub inpaint_strength: Option<f64>,
    /// The timestep whose noise is put on the image that is enlarged.
    #[serde(default = "noise_level")]
    pub noise_level: usize,
    /// The factor of a ControlNet's residuals.
    #[serde(default = "one")]
    pub control_scale: f64,
    /// Width and height of the image.
    pub size: [usize; 2],
}

/// An encoder or decoder between images and latents.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderSpec {
    /// The file of its network.
    pub network: String,
    /// Pixels to a value of the latent, in each direction.
    pub scale: usize,
    /// Channels of a latent.
    pub channels: usize,
    /// A latent of the sampler is `(latent - shift) * factor`.
    pub factor: f64,
    /// See [`factor`](Self::factor).
    #[serde(default)]
    pub shift: f64,
    /// The mean of each channel, in place of [`shift`](Self::shift), and its standard deviation.
    #[serde(default)]
    pub normalization: Option<[Vec<f32>; 2]>,
}
