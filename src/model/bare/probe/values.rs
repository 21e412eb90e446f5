//! Detects normalization and noise encoding: those with which a photograph is restored best.

use super::run::mask_value;
use super::{Normalization, Probe, SIGMA, Scaling};
use crate::error::Result;
use crate::model::bare::test_image::{TestImage, as_image, psnr};
use crate::model::bare::{DetectedProperty, TrialImages};
use crate::model::manifest::{Manifest, NoiseLevel, SigmaRange, Task};
use crate::network::{Element, NoiseEncoding, NoiseScale, Port};

/// An unusual normalization has to be better than a more usual one by this much, in dB. Halving the
/// contrast, as with 0 to 1 in place of -1 to 1, changes the result of many networks by less.
const MARGIN: f64 = 2.0;
/// The same where only the noise encoding differs.
const ENCODING_MARGIN: f64 = 0.1;
/// The same for networks that are conditioned on sigma, whose results depend on the contrast more.
const SIGMA_MARGIN: f64 = 0.5;
/// Other normalizations within this difference of the chosen one are reported, in dB.
const REPORTED_DIFFERENCE: f64 = 1.0;
/// An output counts as a residual if subtracting it improves the image by this much, in dB:
/// subtracting values near zero leaves the image as it is.
const MIN_RESIDUAL_GAIN: f64 = 1.0;
/// The PSNR that a wrong normalization does not reach, in dB.
const MIN_PSNR: f64 = 14.0;
/// By how many dB a network may worsen the test photograph: a blind one may be made for less noise.
const MAX_PSNR_LOSS: f64 = 1.0;

/// The mean and standard deviation of ImageNet's colors, in 0 to 1, which many networks use.
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// A candidate for the network's encodings, and its result for a photograph.
struct Candidate {
    /// The PSNR of the result, in dB.
    score: f64,
    normalization: Normalization,
    output_range: Option<[f32; 2]>,
    residual: bool,
    noise_encoding: NoiseEncoding,
    /// The result, as planes of 0 to 1.
    result: TestImage,
}

impl Probe<'_> {
    /// The range to which the output is clipped, detected with an image of excessive contrast, if
    /// it is a usual one.
    pub(super) fn detect_output_range(&mut self, side: usize) -> Result<Option<[f32; 2]>> {
        const TOLERANCE: f32 = 1e-3;
        if self.image.element == Element::U8 {
            return Ok(None);
        }
        let size = self.size.unwrap_or([side; 2]);
        for contrast in [10.0, 2000.0] {
            let mut image = TestImage::noise(size);
            image.planes.iter_mut().for_each(|value| *value = (*value - 0.5) * contrast);
            let normalization = Normalization::of([0.0, 1.0]);
            let Some(output) = self.run(&image, &normalization, f64::from(contrast))? else {
                continue;
            };
            let (planes, _) = self.planes(output)?;
            let least = planes.iter().copied().fold(f32::INFINITY, f32::min);
            let most = planes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let is_near = |[black, white]: &[f32; 2]| {
                let near = TOLERANCE * (white - black);
                (least - black).abs() < near && (most - white).abs() < near
            };
            if let Some(range) = [[0.0, 1.0], [-1.0, 1.0], [0.0, 255.0]].into_iter().find(is_near) {
                return Ok(Some(range));
            }
        }
        Ok(None)
    }

    /// Detects the normalization of input and output and the noise encoding: those with which a
    /// photograph is restored best.
    pub(super) fn detect_normalization(
        &mut self,
        manifest: &mut Manifest,
        side: usize,
    ) -> Result<Option<f64>> {
        let scale = manifest.scale;
        let size = self.size.unwrap_or([side.max(96).next_multiple_of(manifest.multiple_of); 2]);
        let truth = TestImage::photograph(size.map(|side| scale * side), [0, 0]);
        let mut input = truth.downsampled(scale);
        match manifest.task {
            Task::Deblur => input.blur(),
            Task::Inpaint => {
                let mask = self.mask(input.width, input.height);
                for plane in input.planes.chunks_exact_mut(mask.len()) {
                    plane
                        .iter_mut()
                        .zip(&mask)
                        .for_each(|(value, missing)| *value *= 1.0 - missing);
                }
            }
            _ if scale == 1 => input.add_noise(SIGMA),
            _ => {}
        }
        let own = self.to_channels(&input.upsampled(scale));
        let goal = self.to_channels(&truth);
        let before = psnr(&own, &goal);
        let bytes = self.image.element == Element::U8;
        let normalizations: Vec<Normalization> =
            match (self.description.range, self.description.mean.is_empty(), bytes) {
                (Some(range), true, _) => vec![Normalization::of(range)],
                (range, false, _) => vec![Normalization {
                    range: range.unwrap_or([0.0, 1.0]),
                    mean: self.description.mean.clone(),
                    std: self.description.std.clone(),
                }],
                (None, true, true) => vec![Normalization::of([0.0, 255.0])],
                (None, true, false) => {
                    let ranges = [[0.0, 1.0], [-1.0, 1.0], [0.0, 255.0]].map(Normalization::of);
                    let [mean, std] = IMAGENET.map(|of| of.to_vec());
                    let mut normalizations = ranges.to_vec();
                    // A network usually has the same range for its input and its clipped output.
                    normalizations.sort_by_key(|normalization| {
                        self.clip_range.is_some_and(|range| range != normalization.range)
                    });
                    if self.channels == 3 {
                        normalizations.push(Normalization { range: [0.0, 1.0], mean, std });
                    }
                    normalizations
                }
            };
        let is_given = self.description.residual == Some(true);
        let mut candidates: Vec<Candidate> = Vec::new();
        let takes_sigma = self.roles.sigma.is_some() || self.has_sigma_channel;
        let margin = if takes_sigma { SIGMA_MARGIN } else { MARGIN };
        for normalization in normalizations {
            for noise_encoding in self.noise_encodings(&normalization) {
                let span = f64::from(normalization.range[1] - normalization.range[0]);
                let level = noise_encoding.value(f64::from(SIGMA) * span);
                let Some(output) = self.run(&input, &normalization, level)? else { continue };
                let (planes, [width, height]) = self.planes(output)?;
                for (output_range, residual) in self.output_encodings(&normalization) {
                    let scaling = output_range.map_or(normalization.scaling(), |range| {
                        Normalization::of(range).scaling()
                    });
                    let planes = self.decoded(&planes, scaling, residual.then_some(&own));
                    let score = psnr(&planes, &goal);
                    if !residual || is_given || score > before + MIN_RESIDUAL_GAIN {
                        let (normalization, result) =
                            (normalization.clone(), TestImage { width, height, planes });
                        candidates.push(Candidate {
                            score,
                            normalization,
                            output_range,
                            residual,
                            noise_encoding,
                            result,
                        });
                    }
                }
            }
        }
        // The most usual candidate that is about as good as the best.
        let best = candidates.iter().max_by(|a, b| a.score.total_cmp(&b.score)).map(|best| {
            let sign = (best.normalization.clone(), best.output_range, best.residual);
            (best.score, sign)
        });
        let Some((most, (normalization, output_range, residual))) = best else { return Ok(None) };
        let mut others: Vec<([f32; 2], f64)> = Vec::new();
        for Candidate { normalization, score, .. } in &candidates {
            match others.iter_mut().find(|(range, _)| *range == normalization.range) {
                Some((_, best)) => *best = best.max(*score),
                None => others.push((normalization.range, *score)),
            }
        }
        let chosen = candidates.into_iter().find(|candidate| {
            let is_same = (&candidate.normalization, candidate.output_range, candidate.residual)
                == (&normalization, output_range, residual);
            candidate.score >= most - if is_same { ENCODING_MARGIN } else { margin }
        });
        let Some(Candidate {
            score,
            normalization,
            output_range,
            residual,
            noise_encoding,
            result,
        }) = chosen
        else {
            return Ok(None);
        };
        // A network that makes the photograph worse is not understood.
        let is_supported = score > MIN_PSNR && score > before - MAX_PSNR_LOSS;
        self.trial_images = Some(TrialImages {
            before: as_image(&self.to_channels(&input), input.width, input.height)?,
            after: as_image(&result.planes, result.width, result.height)?,
        });
        let near: Vec<String> = (others.iter())
            .filter(|(range, other)| {
                *range != normalization.range && *other > score - REPORTED_DIFFERENCE
            })
            .map(|([black, white], other)| format!("{other:.1} dB with {black} to {white}"))
            .collect();
        let near = if near.is_empty() { String::new() } else { format!("; {}", near.join(", ")) };
        let evidence = if is_supported {
            format!(
                "it restores a test photograph to {score:.1} dB PSNR, from {before:.1} dB{near}"
            )
        } else {
            format!(
                "no normalization restores a test photograph (at best to {score:.1} dB PSNR, from \
                 {before:.1} dB){near}, so this is a guess"
            )
        };
        let Normalization { range, mean, std } = normalization;
        if self.description.range.is_none() {
            let [black, white] = range;
            let text = format!("black {black} and white {white}: {evidence}");
            self.detected.push(DetectedProperty { key: "range", text, is_guess: !is_supported });
        }
        if !mean.is_empty() && self.description.mean.is_empty() {
            self.record("mean", "the mean and standard deviation of ImageNet");
        }
        if let Some([black, white]) =
            output_range.filter(|_| self.description.output_range.is_none())
        {
            self.record("output_range", format!("black {black} and white {white} in the output"));
        }
        if residual && self.description.residual.is_none() {
            self.record("residual", "its output is subtracted from the image");
        }
        (manifest.range, manifest.mean, manifest.std) = (range, mean, std);
        (manifest.output_range, manifest.residual) = (output_range, residual);
        manifest.noise_level = NoiseLevel {
            factor: noise_encoding.factor,
            scale: Some(noise_encoding.scale).filter(|scale| *scale != NoiseScale::Linear),
        };
        if !manifest.is_blind()
            && !noise_encoding.is_plain()
            && self.description.sigma_factor.is_none()
        {
            let times = format!("{} times sigma", noise_encoding.factor);
            let times = if noise_encoding.factor == 1.0 { "sigma" } else { &times };
            let text = match noise_encoding.scale {
                NoiseScale::Linear => format!("it is conditioned on {times}: {evidence}"),
                NoiseScale::Log => {
                    format!("it is conditioned on the logarithm of {times}: {evidence}")
                }
                NoiseScale::QuarterLog => {
                    format!(
                        "it is conditioned on a quarter of the logarithm of {times}: {evidence}"
                    )
                }
            };
            self.record("noise_level", text);
        }
        if let Some(port) = self.roles.mask.as_ref().or(self.roles.known.as_ref()) {
            manifest.noise_level.factor = f64::from(mask_value(port));
        }
        if let Some([least, most]) = self.description.sigma_range {
            manifest.sigma = Some(SigmaRange { min: least, max: most, mixed: false });
        }
        Ok(Some(score))
    }

    /// The candidates for the noise encoding, the most usual first.
    fn noise_encodings(&self, normalization: &Normalization) -> Vec<NoiseEncoding> {
        if self.roles.sigma.is_none() && !self.has_sigma_channel {
            return vec![NoiseEncoding::default()];
        }
        let span = f64::from(normalization.range[1] - normalization.range[0]);
        let of = NoiseEncoding::new;
        let mut all = match (self.description.sigma_factor, self.description.sigma_scale) {
            (Some(factor), scale) => vec![of(factor, scale.unwrap_or_default())],
            (None, Some(scale)) => vec![of(1.0, scale)],
            (None, None) => {
                let factors = [1.0, 255.0 / span, 1.0 / span];
                let mut all = factors.map(|factor| of(factor, NoiseScale::Linear)).to_vec();
                // Only scalars are logarithms.
                if self.roles.sigma.as_ref().is_some_and(Port::is_number) {
                    all.extend([
                        of(1.0, NoiseScale::Log),
                        of(1.0, NoiseScale::QuarterLog),
                        of(255.0 / span, NoiseScale::Log),
                    ]);
                }
                all
            }
        };
        // A name such as `log_sigma` comes first.
        if self.roles.sigma.as_ref().is_some_and(|port| port.name.to_lowercase().contains("log")) {
            all.sort_by_key(|noise_encoding| noise_encoding.scale == NoiseScale::Linear);
        }
        let mut kept: Vec<NoiseEncoding> = Vec::new();
        all.retain(|noise_encoding| {
            let is_new = !kept.contains(noise_encoding);
            kept.push(*noise_encoding);
            is_new
        });
        all
    }

    /// The candidates for the range of the output and for whether it is a residual.
    fn output_encodings(&self, normalization: &Normalization) -> Vec<(Option<[f32; 2]>, bool)> {
        let bytes = self.output.element == Element::U8;
        let residuals: &[bool] = match self.description.residual {
            Some(true) => &[true],
            Some(false) => &[false],
            None if bytes => &[false],
            None => &[false, true],
        };
        let own = bytes && normalization.range != [0.0, 255.0];
        let ranges = match self.description.output_range {
            Some(range) => vec![Some(range)],
            None if own => vec![Some([0.0, 255.0])],
            None if self.clip_range.is_some() && self.description.residual != Some(true) => {
                let is_own =
                    self.clip_range == Some(normalization.range) && normalization.mean.is_empty();
                vec![self.clip_range.filter(|_| !is_own)]
            }
            None => vec![None, Some([0.0, 1.0]), Some([-1.0, 1.0]), Some([0.0, 255.0])],
        };
        let is_new = |range: &Option<[f32; 2]>| {
            *range != Some(normalization.range) || !normalization.mean.is_empty()
        };
        let ranges = ranges.into_iter().filter(is_new);
        ranges.flat_map(|range| residuals.iter().map(move |residual| (range, *residual))).collect()
    }

    /// The image's planes in the channels of the network: RGB, or luma.
    pub(super) fn to_channels(&self, image: &TestImage) -> Vec<f32> {
        if self.channels != 1 {
            return image.planes.clone();
        }
        let area = image.width * image.height;
        let [r, g, b] = [0, 1, 2].map(|plane| &image.planes[plane * area..][..area]);
        (0..area).map(|i| 0.299 * r[i] + 0.587 * g[i] + 0.114 * b[i]).collect()
    }

    /// The output as planes of 0 to 1. A residual is subtracted from the input's planes.
    fn decoded(
        &self,
        planes: &[f32],
        scaling: Scaling,
        residual_of: Option<&Vec<f32>>,
    ) -> Vec<f32> {
        let area = (planes.len() / self.channels).max(1);
        let value = |(i, value): (usize, &f32)| {
            let [factor, offset] = scaling[(i / area) % 3];
            match residual_of {
                Some(own) => own.get(i).copied().unwrap_or_default() - value / factor,
                None => (value - offset) / factor,
            }
        };
        planes.iter().enumerate().map(value).collect()
    }
}
