//! What the values of a network stand for: the reading by which a photograph is restored best.

use super::{Probe, Reading, SIGMA, Scaling};
use crate::error::Result;
use crate::model::bare::picture::{Picture, as_image, psnr};
use crate::model::bare::{Finding, TrialImages};
use crate::model::manifest::{Manifest, NoiseLevel, SigmaRange, Task};
use crate::network::{Element, NoiseEncoding, NoiseScale, Port};

/// By how much one reading of a network's values has to be better than a more usual one, in dB.
/// Half the contrast, as of -1 to 1 read as 0 to 1, changes what many networks restore by less.
const CLEARLY: f64 = 2.0;
/// The same where only what the network is told as sigma differs.
const BETTER: f64 = 0.1;
/// The same of networks that are told sigma: contrast and noise go together there.
const TOLD: f64 = 0.5;
/// Readings that are so near to the best are named, in dB.
const NEAR: f64 = 1.0;
/// By how much a residual has to improve an image to be one, in dB: next to nothing, subtracted,
/// leaves the image.
const IMPROVED: f64 = 1.0;
/// No image of a network is better than this, if its values are read wrongly.
const PLAUSIBLE: f64 = 14.0;

/// Means and standard deviations of ImageNet's colours, of 0 to 1, on which many networks were
/// trained.
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// A reading of a network's values, and what it makes of a photograph.
struct Guess {
    /// The PSNR of the result, in dB.
    score: f64,
    reading: Reading,
    output_range: Option<[f32; 2]>,
    residual: bool,
    told: NoiseEncoding,
    /// The result, as planes of 0 to 1.
    result: Picture,
}

impl Probe<'_> {
    /// The usual range to which the output is clipped, if an image of far too much contrast shows
    /// that it is.
    pub(super) fn measure_bounds(&mut self, side: usize) -> Result<Option<[f32; 2]>> {
        const NEAR: f32 = 1e-3;
        if self.image.element == Element::U8 {
            return Ok(None);
        }
        let size = self.size.unwrap_or([side; 2]);
        for contrast in [10.0, 2000.0] {
            let mut picture = Picture::noise(size);
            picture.planes.iter_mut().for_each(|value| *value = (*value - 0.5) * contrast);
            let reading = Reading::of([0.0, 1.0]);
            let Some(output) = self.run(&picture, &reading, f64::from(contrast))? else { continue };
            let (planes, _) = self.planes(output)?;
            let least = planes.iter().copied().fold(f32::INFINITY, f32::min);
            let most = planes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let is_near = |[black, white]: &[f32; 2]| {
                let near = NEAR * (white - black);
                (least - black).abs() < near && (most - white).abs() < near
            };
            if let Some(range) = [[0.0, 1.0], [-1.0, 1.0], [0.0, 255.0]].into_iter().find(is_near) {
                return Ok(Some(range));
            }
        }
        Ok(None)
    }

    /// Finds out what the values of the input and of the output stand for: the reading by which a
    /// photograph is restored best.
    pub(super) fn read_values(&mut self, manifest: &mut Manifest, side: usize) -> Result<()> {
        let scale = manifest.scale;
        let size = self.size.unwrap_or([side.max(96).next_multiple_of(manifest.multiple_of); 2]);
        let truth = Picture::photograph(size.map(|side| scale * side), [0, 0]);
        let mut input = truth.reduced(scale);
        match manifest.task {
            Task::Deblur => input.soften(),
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
        let own = self.in_channels(&input.repeated(scale));
        let goal = self.in_channels(&truth);
        let before = psnr(&own, &goal);
        let bytes = self.image.element == Element::U8;
        let readings: Vec<Reading> = match (self.said.range, self.said.mean.is_empty(), bytes) {
            (Some(range), true, _) => vec![Reading::of(range)],
            (range, false, _) => vec![Reading {
                range: range.unwrap_or([0.0, 1.0]),
                mean: self.said.mean.clone(),
                std: self.said.std.clone(),
            }],
            (None, true, true) => vec![Reading::of([0.0, 255.0])],
            (None, true, false) => {
                let ranges = [[0.0, 1.0], [-1.0, 1.0], [0.0, 255.0]].map(Reading::of);
                let [mean, std] = IMAGENET.map(|of| of.to_vec());
                let mut readings = ranges.to_vec();
                // What is clipped to a range is made of it, too, as a rule.
                readings
                    .sort_by_key(|reading| self.bounds.is_some_and(|range| range != reading.range));
                if self.channels == 3 {
                    readings.push(Reading { range: [0.0, 1.0], mean, std });
                }
                readings
            }
        };
        let is_said = self.said.residual == Some(true);
        let mut guesses: Vec<Guess> = Vec::new();
        let is_told = self.roles.sigma.is_some() || self.has_sigma_behind;
        let clearly = if is_told { TOLD } else { CLEARLY };
        for reading in readings {
            for told in self.noise_encodings(&reading) {
                let span = f64::from(reading.range[1] - reading.range[0]);
                let level = told.value(f64::from(SIGMA) * span);
                let Some(output) = self.run(&input, &reading, level)? else { continue };
                let (planes, [width, height]) = self.planes(output)?;
                for (output_range, residual) in self.outputs(&reading) {
                    let scaling = output_range
                        .map_or(reading.scaling(), |range| Reading::of(range).scaling());
                    let planes = self.decoded(&planes, scaling, residual.then_some(&own));
                    let score = psnr(&planes, &goal);
                    if !residual || is_said || score > before + IMPROVED {
                        let (reading, result) =
                            (reading.clone(), Picture { width, height, planes });
                        guesses.push(Guess {
                            score,
                            reading,
                            output_range,
                            residual,
                            told,
                            result,
                        });
                    }
                }
            }
        }
        // The most usual reading that is hardly worse than the best.
        let best = guesses.iter().max_by(|a, b| a.score.total_cmp(&b.score)).map(|best| {
            let sign = (best.reading.clone(), best.output_range, best.residual);
            (best.score, sign)
        });
        let Some((most, (reading, output_range, residual))) = best else { return Ok(()) };
        let mut others: Vec<([f32; 2], f64)> = Vec::new();
        for Guess { reading, score, .. } in &guesses {
            match others.iter_mut().find(|(range, _)| *range == reading.range) {
                Some((_, best)) => *best = best.max(*score),
                None => others.push((reading.range, *score)),
            }
        }
        let chosen = guesses.into_iter().find(|guess| {
            let is_same = (&guess.reading, guess.output_range, guess.residual)
                == (&reading, output_range, residual);
            guess.score >= most - if is_same { BETTER } else { clearly }
        });
        let Some(Guess { score, reading, output_range, residual, told, result }) = chosen else {
            return Ok(());
        };
        let is_sure = score > PLAUSIBLE;
        self.trial_images = Some(TrialImages {
            before: as_image(&self.in_channels(&input), input.width, input.height)?,
            after: as_image(&result.planes, result.width, result.height)?,
        });
        let near: Vec<String> = (others.iter())
            .filter(|(range, other)| *range != reading.range && *other > score - NEAR)
            .map(|([black, white], other)| format!("{black} to {white} would give {other:.1} dB"))
            .collect();
        let near = if near.is_empty() { String::new() } else { format!("; {}", near.join(", ")) };
        let shown = if is_sure {
            format!("a photograph comes out with {score:.1} dB, of {before:.1} dB before{near}")
        } else {
            format!(
                "no reading of its values restores a photograph (the best has {score:.1} dB, of {before:.1} dB before), \
                 so this is a guess"
            )
        };
        let Reading { range, mean, std } = reading;
        if self.said.range.is_none() {
            let [black, white] = range;
            let text = format!("black {black} and white {white}: {shown}");
            self.findings.push(Finding { key: "range", text, is_guess: !is_sure });
        }
        if !mean.is_empty() && self.said.mean.is_empty() {
            self.find("mean", "ImageNet's mean and standard deviation");
        }
        if let Some([black, white]) = output_range.filter(|_| self.said.output_range.is_none()) {
            self.find("output_range", format!("black {black} and white {white} of the output"));
        }
        if residual && self.said.residual.is_none() {
            self.find("residual", "its output is what is to be subtracted");
        }
        (manifest.range, manifest.mean, manifest.std) = (range, mean, std);
        (manifest.output_range, manifest.residual) = (output_range, residual);
        manifest.noise_level = NoiseLevel {
            factor: told.factor,
            scale: Some(told.scale).filter(|scale| *scale != NoiseScale::Linear),
        };
        if !manifest.is_blind() && !told.is_plain() && self.said.sigma_factor.is_none() {
            let times = format!("{} times sigma", told.factor);
            let times = if told.factor == 1.0 { "sigma" } else { &times };
            let text = match told.scale {
                NoiseScale::Linear => format!("it is told {times}: {shown}"),
                NoiseScale::Log => format!("it is told the logarithm of {times}: {shown}"),
                NoiseScale::QuarterLog => {
                    format!("it is told a quarter of the logarithm of {times}: {shown}")
                }
            };
            self.find("noise_level", text);
        }
        if let Some([least, most]) = self.said.sigma_range {
            manifest.sigma = Some(SigmaRange { min: least, max: most, mixed: false });
        }
        Ok(())
    }

    /// The ways in which sigma may be told.
    fn noise_encodings(&self, reading: &Reading) -> Vec<NoiseEncoding> {
        if self.roles.sigma.is_none() && !self.has_sigma_behind {
            return vec![NoiseEncoding::default()];
        }
        let span = f64::from(reading.range[1] - reading.range[0]);
        let of = NoiseEncoding::new;
        let mut all = match (self.said.sigma_factor, self.said.sigma_scale) {
            (Some(factor), scale) => vec![of(factor, scale.unwrap_or_default())],
            (None, Some(scale)) => vec![of(1.0, scale)],
            (None, None) => {
                let factors = [1.0, 255.0 / span, 1.0 / span];
                let mut all = factors.map(|factor| of(factor, NoiseScale::Linear)).to_vec();
                // A map is told sigma itself.
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
        // A name may tell it.
        if self.roles.sigma.as_ref().is_some_and(|port| port.name.to_lowercase().contains("log")) {
            all.sort_by_key(|told| told.scale == NoiseScale::Linear);
        }
        let mut kept: Vec<NoiseEncoding> = Vec::new();
        all.retain(|told| {
            let is_new = !kept.contains(told);
            kept.push(*told);
            is_new
        });
        all
    }

    /// The ways in which the output may stand for an image.
    fn outputs(&self, reading: &Reading) -> Vec<(Option<[f32; 2]>, bool)> {
        let bytes = self.output.element == Element::U8;
        let residuals: &[bool] = match self.said.residual {
            Some(true) => &[true],
            Some(false) => &[false],
            None if bytes => &[false],
            None => &[false, true],
        };
        let own = bytes && reading.range != [0.0, 255.0];
        let ranges = match self.said.output_range {
            Some(range) => vec![Some(range)],
            None if own => vec![Some([0.0, 255.0])],
            None if self.bounds.is_some() && self.said.residual != Some(true) => {
                let is_own = self.bounds == Some(reading.range) && reading.mean.is_empty();
                vec![self.bounds.filter(|_| !is_own)]
            }
            None => vec![None, Some([0.0, 1.0]), Some([-1.0, 1.0]), Some([0.0, 255.0])],
        };
        let is_new =
            |range: &Option<[f32; 2]>| *range != Some(reading.range) || !reading.mean.is_empty();
        let ranges = ranges.into_iter().filter(is_new);
        ranges.flat_map(|range| residuals.iter().map(move |residual| (range, *residual))).collect()
    }

    /// Planes of 0 to 1 in the channels of the network.
    pub(super) fn in_channels(&self, picture: &Picture) -> Vec<f32> {
        if self.channels != 1 {
            return picture.planes.clone();
        }
        let area = picture.width * picture.height;
        let [r, g, b] = [0, 1, 2].map(|plane| &picture.planes[plane * area..][..area]);
        (0..area).map(|i| 0.299 * r[i] + 0.587 * g[i] + 0.114 * b[i]).collect()
    }

    /// An output in planes of 0 to 1; a residual is subtracted from those of the input.
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
