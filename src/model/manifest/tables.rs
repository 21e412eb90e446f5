//! The tables of a manifest, and the values of its keys.

use serde::{Deserialize, Serialize};

use crate::diffusion::Sampler;
use crate::names::named;
use crate::network::{NoiseScale, RecurrentState};

/// How the channels of a network's sample represent an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One channel per color at full resolution: gray, or red, green and blue.
    #[default]
    Full,
    /// Six channels at half the width and height, like the planes of 4:2:0 video: luma of the four
    /// pixels of each 2x2 block (row by row), then blue-difference and red-difference chroma. Luma
    /// is 0 to 1, and chroma is centered on 0.5. The sigma map has one plane for luma and one for
    /// chroma.
    Yuv420,
}

impl Layout {
    /// Planes of the sigma map.
    pub fn sigma_planes(self) -> usize {
        match self {
            Self::Full => 1,
            Self::Yuv420 => 2,
        }
    }

    /// Image pixels per sample pixel, along each axis.
    pub fn pixels(self) -> usize {
        match self {
            Self::Full => 1,
            Self::Yuv420 => 2,
        }
    }
}

/// The task of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Removes noise of a known level.
    Denoise,
    /// Enlarges images.
    Upscale,
    /// Generates images, or fills masked areas.
    Generate,
    /// Guides a generating network by the gradient of a class's log-probability.
    Classifier,
    /// Sharpens images.
    Deblur,
    /// Fills masked areas in one evaluation.
    Inpaint,
}

named!(
    Task,
    "a task",
    Denoise = "denoise",
    Upscale = "upscale",
    Generate = "generate",
    Classifier = "classifier",
    Deblur = "deblur",
    Inpaint = "inpaint",
);

/// A range of noise levels, as standard deviations in the network's units.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SigmaRange {
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Whether sigma may differ between pixels: the smallest for known pixels, any of the range for
    /// the others, as in inpainting. One evaluation at the largest sigma then gives the mean of the
    /// masked area.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mixed: bool,
}

/// The names of the graph's inputs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InputNames {
    /// The noisy sample, `[B, C, H, W]`; absent for a network that enlarges its condition by
    /// itself.
    pub sample: Option<String>,
    /// Sigma: a map `[B, planes, H, W]`, with the [planes](Layout::sigma_planes) of the layout, or
    /// one number for an image. If it has the name of the sample, the map follows the sample's
    /// channels in one tensor.
    pub sigma: Option<String>,
    /// The scalar noise level.
    pub timestep: Option<String>,
    /// The low-resolution image, float `[B, C, H / scale, W / scale]`. If it has the name of the
    /// sample, both are one tensor `[1, 2 C, H, W]`: the sample's channels, then the image,
    /// enlarged bicubically if it is smaller (Saharia et al. 2021, SR3; Rombach et al. 2022).
    pub condition: Option<String>,
    /// The class of each sample, int64 `[B]`.
    pub class: Option<String>,
    /// The frames of a video before and after the sample, in order, where each has an input of its
    /// own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbors: Vec<String>,
    /// The mask of an image to inpaint, `[B, 1, H, W]`: 1 where pixels are missing.
    pub mask: Option<String>,
    /// The same mask the other way round: 1 where pixels are known.
    pub known: Option<String>,
}

/// What a recurrent network gives with a frame, and takes with the next one; zeros before the
/// first.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The name of the input.
    pub input: String,
    /// The name of the output.
    pub output: String,
    /// How many times smaller than the frame it is along each axis.
    #[serde(default = "undivided")]
    pub divisor: usize,
}

fn undivided() -> usize {
    1
}

impl State {
    pub(in crate::model) fn as_interface(&self) -> RecurrentState {
        let Self { input, output, divisor } = self.clone();
        RecurrentState { input, output, divisor }
    }
}

/// How the noise level is encoded for a network.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoiseLevel {
    /// The factor of sigma, such as 255 for a network of the range 0 to 1 that counts it in 8-bit
    /// units.
    pub factor: f64,
    /// The scale, after the factor; by default that of the prediction, which for `edm` is
    /// `quarter-log`, and for others linear.
    pub scale: Option<NoiseScale>,
}

impl Default for NoiseLevel {
    /// Sigma itself.
    fn default() -> Self {
        Self { factor: 1.0, scale: None }
    }
}

/// What an input of the graph always holds.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Constant {
    /// One number for all its values.
    One(f64),
    /// Each value.
    Each(Vec<f64>),
}

impl Constant {
    /// The values.
    pub fn values(&self) -> &[f64] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Each(values) => values,
        }
    }
}

/// The decoder of an autoencoder: a second network that turns a latent into an image (Rombach et
/// al. 2022, section 3.1).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderSpec {
    /// The ONNX file inside the package.
    pub path: String,
    /// The file's SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// Color channels of the image.
    pub channels: usize,
    /// Image pixels per latent pixel, along each axis.
    pub scale: usize,
    /// The divisor of latents before decoding (diffusers' name).
    #[serde(default = "unchanged")]
    pub scaling_factor: f32,
    /// The name of the latent input, float `[B, C, H / scale, W / scale]`.
    pub input: String,
    /// The name of the image output, float `[B, channels, H, W]`.
    pub output: String,
    /// No pixel depends on a latent value further away than this many pixels of the image. Absent
    /// when the decoder is not local.
    pub receptive_field: Option<usize>,
    /// ONNX Runtime's working memory per pixel of the image, in bytes, measured.
    pub bytes_per_pixel: Option<usize>,
}

fn unchanged() -> f32 {
    1.0
}

/// The names of the graph's outputs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OutputNames {
    /// The network's prediction, float `[B, C, H, W]`. Also read as `denoised`, `epsilon`,
    /// `v_prediction`, `score` or `gradient`.
    #[serde(alias = "denoised", alias = "epsilon", alias = "v_prediction")]
    #[serde(alias = "score", alias = "gradient")]
    pub prediction: String,
    /// The log-probability of a class, which classifiers may have; not used.
    #[serde(default)]
    pub log_probability: Option<String>,
}

/// The defaults of commands.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// The number of steps. Default: 1.
    pub steps: usize,
    /// The sampler. Default: the task's.
    pub sampler: Option<Sampler>,
    /// The guidance scale. Default: 1, without guidance.
    pub guidance_scale: Option<f64>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { steps: 1, sampler: None, guidance_scale: None }
    }
}

/// An ONNX file of a package.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// The path inside the package.
    pub path: String,
    /// The file's SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// The largest difference that passes `eddy check`, in the network's units; by default that of
    /// `[check]`.
    pub tolerance: Option<f32>,
}

/// A recorded input and output, as `.npy` files inside the package.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The sample, `[B, C, H, W]`, if the network takes one.
    pub sample: Option<String>,
    /// The sigma map, `[B, planes, H, W]`.
    pub sigma: Option<String>,
    /// The scalar noise level.
    pub timestep: Option<f64>,
    /// The class of all samples.
    pub class: Option<i64>,
    /// The low-resolution image, `[B, C, H / scale, W / scale]`.
    pub condition: Option<String>,
    /// The recorded output. Also read under the same names as in `[outputs]`.
    #[serde(alias = "denoised", alias = "epsilon", alias = "v_prediction")]
    #[serde(alias = "score", alias = "gradient")]
    pub prediction: String,
    /// The largest difference that passes, in the network's units, for files without their own
    /// tolerance.
    pub tolerance: f32,
}
