//! How the tensors of a graph encode images and noise levels. Eddy itself works on RGB or gray
//! planes in NCHW, and on sigma in the units of these planes. Networks may differ: NHWC, BGR, luma
//! only, integers, other units of sigma.

use serde::{Deserialize, Serialize};

use crate::names::named;

/// The order of a tensor's axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Axes {
    /// Batch, channels, height, width, as in PyTorch.
    #[default]
    Nchw,
    /// Batch, height, width, channels, as in TensorFlow.
    Nhwc,
}

/// The color channels of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Colors {
    /// Red, green, blue; or gray, for one channel.
    #[default]
    Rgb,
    /// Blue, green, red, the order of OpenCV.
    Bgr,
    /// Luma only, `0.299 R + 0.587 G + 0.114 B` (BT.601, full range); chroma is kept, or enlarged
    /// bicubically.
    Luma,
}

/// The scale of a noise level that a network is conditioned on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseScale {
    /// Sigma itself.
    #[default]
    Linear,
    /// `ln(sigma)`.
    Log,
    /// `ln(sigma) / 4`, the `c_noise` of Karras et al. 2022, table 1.
    QuarterLog,
}

/// The encoding of a noise level: a factor, then a scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseEncoding {
    /// The factor of sigma, such as 255 for a network on 0 to 1 with sigma in 8-bit units. Default:
    /// 1.
    pub factor: f64,
    /// The scale of the value that the caller passes. Default: [`NoiseScale::Linear`].
    pub source: NoiseScale,
    /// The scale of the value that the graph receives. Default: [`NoiseScale::Linear`].
    pub scale: NoiseScale,
}

impl Default for NoiseEncoding {
    /// Sigma itself.
    fn default() -> Self {
        Self { factor: 1.0, source: NoiseScale::Linear, scale: NoiseScale::Linear }
    }
}

impl NoiseEncoding {
    /// A factor of sigma.
    pub fn new(factor: f64, scale: NoiseScale) -> Self {
        Self { factor, scale, ..Self::default() }
    }

    /// Encodes a noise level, in the units of the network's range.
    pub fn value(self, level: f64) -> f64 {
        /// Networks are not trained on the logarithm of zero.
        const MIN: f64 = 1e-6;
        if self.is_plain() {
            return level;
        }
        let sigma = match self.source {
            NoiseScale::Linear => level,
            NoiseScale::Log => level.exp(),
            NoiseScale::QuarterLog => (4.0 * level).exp(),
        };
        let sigma = self.factor * sigma;
        match self.scale {
            NoiseScale::Linear => sigma,
            NoiseScale::Log => sigma.max(MIN).ln(),
            NoiseScale::QuarterLog => sigma.max(MIN).ln() / 4.0,
        }
    }

    /// Whether the encoded value is the noise level itself.
    pub fn is_plain(self) -> bool {
        self.factor == 1.0 && self.source == self.scale
    }
}

/// How a tensor encodes an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoding {
    /// The order of the axes. Default: NCHW.
    pub axes: Axes,
    /// The color channels. Default: RGB.
    pub colors: Colors,
    /// The affine map to a value in the tensor, factor and offset, for each channel in the order of
    /// RGB. One entry applies to all channels. Default: none, which is the identity.
    pub scaling: Vec<[f32; 2]>,
}

impl Encoding {
    /// Factor and offset of a channel.
    fn scaling_of(&self, channel: usize) -> [f32; 2] {
        self.scaling.get(channel).or(self.scaling.first()).copied().unwrap_or([1.0, 0.0])
    }

    /// Channels of the tensor for an image of `channels`.
    pub(super) fn tensor_channels(&self, channels: usize) -> usize {
        if self.colors == Colors::Luma { 1 } else { channels }
    }

    /// The channel of the image at `channel` of the tensor, and vice versa.
    fn swapped(&self, channel: usize) -> usize {
        if self.colors == Colors::Bgr && channel < 3 { 2 - channel } else { channel }
    }

    /// Each channel of an input tensor as a weighted sum of the image's planes.
    pub(super) fn channels_of_tensor(&self, channels: usize) -> Vec<Mix> {
        if self.colors == Colors::Luma {
            let [factor, offset] = self.scaling_of(0);
            let terms = luma_of(channels).into_iter().map(|(plane, part)| (plane, factor * part));
            return vec![Mix { terms: terms.collect(), offset }];
        }
        let mix = |channel| {
            let from = self.swapped(channel);
            let [factor, offset] = self.scaling_of(from);
            Mix { terms: vec![(from, factor)], offset }
        };
        (0..channels).map(mix).collect()
    }

    /// Each plane of an image as a weighted sum of the output tensor's channels, followed by those
    /// of the sample. `residual` means that the tensor holds the sample minus the image.
    pub(super) fn planes_of_tensor(&self, channels: usize, residual: bool) -> Vec<Mix> {
        let sample = self.tensor_channels(channels);
        let is_luma = self.colors == Colors::Luma;
        let mix = |channel| {
            let [factor, offset] = self.scaling_of(channel);
            let from = if is_luma { 0 } else { self.swapped(channel) };
            let mut terms = vec![(from, if residual { -1.0 } else { 1.0 } / factor)];
            let mut at = |(plane, part)| terms.push((sample + plane, part));
            match (residual, is_luma) {
                (true, _) => at((channel, 1.0)),
                (false, true) => {
                    at((channel, 1.0));
                    luma_of(channels).into_iter().for_each(|(plane, part)| at((plane, -part)));
                }
                (false, false) => {}
            }
            Mix { terms, offset: if residual { 0.0 } else { -offset / factor } }
        };
        (0..channels).map(mix).collect()
    }

    /// Whether a tensor of float32 holds the image's planes unchanged.
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// The weights of luma.
fn luma_of(channels: usize) -> Vec<(usize, f32)> {
    if channels < 3 { vec![(0, 1.0)] } else { vec![(0, 0.299), (1, 0.587), (2, 0.114)] }
}

/// A plane as a weighted sum of others.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mix {
    /// Planes and their weights.
    pub(super) terms: Vec<(usize, f32)>,
    /// The offset that is added.
    pub(super) offset: f32,
}

impl Mix {
    /// The same sum of planes that begin at `first`.
    pub(super) fn shifted(&self, first: usize) -> Self {
        let terms = self.terms.iter().map(|(plane, part)| (first + plane, *part)).collect();
        Self { terms, offset: self.offset }
    }

    /// A plane multiplied by a factor.
    pub(super) fn scaled(plane: usize, factor: f32) -> Self {
        Self { terms: vec![(plane, factor)], offset: 0.0 }
    }
}

named!(Axes, "an order of axes", Nchw = "nchw", Nhwc = "nhwc");
named!(Colors, "a kind of color channels", Rgb = "rgb", Bgr = "bgr", Luma = "luma");
named!(
    NoiseScale,
    "the scale of a noise level",
    Linear = "linear",
    Log = "log",
    QuarterLog = "quarter-log"
);

#[cfg(test)]
mod tests {
    use super::{Colors, Encoding, Mix, NoiseEncoding, NoiseScale};

    /// The planes of one pixel after a mix.
    fn apply(mixes: &[Mix], planes: &[f32]) -> Vec<f32> {
        let value = |mix: &Mix| {
            mix.offset + mix.terms.iter().map(|(plane, part)| part * planes[*plane]).sum::<f32>()
        };
        mixes.iter().map(value).collect()
    }

    fn assert_near(found: &[f32], expected: &[f32]) {
        let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near && found.len() == expected.len(), "{found:?} is not {expected:?}");
    }

    #[test]
    fn an_encoded_image_comes_back() {
        let imagenet = [[0.229, 0.485], [0.224, 0.456], [0.225, 0.406]];
        let scaling = imagenet.map(|[std, mean]: [f32; 2]| [1.0 / std, -mean / std]).to_vec();
        let image = [0.2, 0.5, 0.9];
        for colors in [Colors::Rgb, Colors::Bgr] {
            let encoding = Encoding { colors, scaling: scaling.clone(), ..Encoding::default() };
            let tensor = apply(&encoding.channels_of_tensor(3), &image);
            let blue = if colors == Colors::Bgr { 0 } else { 2 };
            assert_near(&[tensor[blue]], &[(0.9 - 0.406) / 0.225]);
            assert_near(&apply(&encoding.planes_of_tensor(3, false), &tensor), &image);
        }
    }

    #[test]
    fn a_residual_is_subtracted() {
        let encoding = Encoding { scaling: vec![[255.0, 0.0]], ..Encoding::default() };
        // The tensor's channels, then the sample's.
        let planes = [25.5, 0.0, -51.0, 0.5, 0.5, 0.5];
        assert_near(&apply(&encoding.planes_of_tensor(3, true), &planes), &[0.4, 0.5, 0.7]);
    }

    #[test]
    fn a_change_of_luma_keeps_chroma() {
        let encoding = Encoding { colors: Colors::Luma, ..Encoding::default() };
        let image = [0.2, 0.5, 0.9];
        let luma = apply(&encoding.channels_of_tensor(3), &image);
        assert_near(&luma, &[0.299 * 0.2 + 0.587 * 0.5 + 0.114 * 0.9]);
        let planes = [luma[0] + 0.1, 0.2, 0.5, 0.9];
        assert_near(&apply(&encoding.planes_of_tensor(3, false), &planes), &[0.3, 0.6, 1.0]);
        assert_near(&apply(&encoding.planes_of_tensor(1, false), &[0.7, 0.4]), &[0.7]);
    }

    #[test]
    fn encodes_noise_levels_in_the_networks_units() {
        let encoded = |factor, scale| NoiseEncoding::new(factor, scale).value(0.1);
        assert!((encoded(255.0, NoiseScale::Linear) - 25.5).abs() < 1e-12);
        assert!((encoded(1.0, NoiseScale::Log) - 0.1_f64.ln()).abs() < 1e-12);
        assert!((encoded(1.0, NoiseScale::QuarterLog) - 0.1_f64.ln() / 4.0).abs() < 1e-12);
        assert!(NoiseEncoding::new(1.0, NoiseScale::Log).value(0.0).is_finite());
    }
}
