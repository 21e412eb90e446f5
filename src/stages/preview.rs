//! Images of predicted latents, without the decoder of the pipeline.

use std::path::Path;

use ndarray::{Array4, Axis};

use super::observed::PredictedStep;
use super::spec::AutoencoderSpec;
use super::{TextToImage, folder};
use crate::error::{Error, Result};
use crate::media::{Image, Samples};
use crate::network::{ModelSource, TensorGraph};
use crate::task::as_images;
use crate::tensor::{Range, write_planes};

/// The folder of a tiny decoder within that of a pipeline.
const TINY_DECODER: &str = "vae_tiny_decoder";

/// Red, green and blue, from -1 to 1, of the four channels of a latent of Stable Diffusion 1 and 2,
/// as users of its forum fitted them (discuss.huggingface.co, "Decoding latents to RGB without
/// upscaling", 2022).
const STABLE_DIFFUSION: [[f32; 3]; 4] = [
    [0.298, 0.207, 0.208],
    [0.187, 0.286, 0.173],
    [-0.158, 0.189, 0.264],
    [-0.184, -0.271, -0.473],
];
/// The scale of the latents that those factors are for.
const STABLE_DIFFUSION_FACTOR: f64 = 0.18215;

/// Turns predicted latents into images.
#[derive(Debug)]
pub struct Preview {
    scale: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The pipeline samples pixels.
    Pixels,
    /// A small network.
    Tiny(Box<TinyDecoder>),
    /// Each value of a latent is a color.
    Linear(Vec<[f32; 3]>),
    /// The same, with colors that are known when an image has been decoded.
    Fitted(Vec<Array4<f32>>),
}

/// A decoder of TAESD's form (Bohan 2023): small, and for latents in the sampler's units.
#[derive(Debug)]
pub struct TinyDecoder {
    graph: TensorGraph,
    spec: AutoencoderSpec,
    input: String,
    output: String,
}

impl TextToImage {
    /// The converter of predictions to images: the tiny decoder in `decoder`, a folder with a
    /// `model.onnx` and perhaps a `config.json`, or the one in the pipeline's folder
    /// `vae_tiny_decoder`; else a linear map to colors. That of Stable Diffusion 1 and 2 is known.
    /// Another is fitted to the first decoded image by least squares, so that there is no image of
    /// a step before.
    ///
    /// # Errors
    /// [`Error::Model`] when the decoder is missing or cannot be loaded, [`Error::Usage`] when the
    /// pipeline has no latents that it could be for.
    pub fn preview(&mut self, decoder: Option<&Path>) -> Result<Preview> {
        let own = self.folder.path().map(|folder| folder.join(TINY_DECODER));
        let folder = decoder.map(Path::to_owned).or_else(|| own.filter(|own| own.is_dir()));
        let Some(spec) = &self.spec.decoder else {
            if decoder.is_some() {
                let name = &self.spec.name;
                return Err(Error::usage(format!(
                    "{name} samples pixels, which need no decoder; leave the preview's out"
                )));
            }
            return Ok(Preview { scale: 1, kind: Kind::Pixels });
        };
        let kind = if let Some(folder) = folder {
            Kind::Tiny(Box::new(TinyDecoder::open(self, &folder)?))
        } else if spec.channels == 4 && spec.factor == STABLE_DIFFUSION_FACTOR {
            Kind::Linear(STABLE_DIFFUSION.to_vec())
        } else {
            Kind::Fitted(Vec::new())
        };
        Ok(Preview { scale: spec.scale, kind })
    }
}

impl TinyDecoder {
    fn open(pipeline: &TextToImage, folder: &Path) -> Result<Self> {
        let spec = folder::tiny_decoder(folder)?;
        let file = folder.join(&spec.network);
        let (runtime, options) = (pipeline.pool.runtime(), pipeline.pool.options().session);
        let source = ModelSource::File(&file);
        let graph = TensorGraph::open(runtime, &file.display().to_string(), source, options)?;
        let first = |ports: &[crate::network::Port]| ports.first().map(|port| port.name.clone());
        let (Some(input), Some(output)) = (first(graph.inputs()), first(graph.outputs())) else {
            return Err(Error::model(graph.model(), "it has no input or no output"));
        };
        Ok(Self { graph, spec, input, output })
    }

    /// The image of a latent in the sampler's units.
    fn decode(&mut self, latent: &Array4<f32>) -> Result<Image> {
        let latent = self.spec.restored(latent.clone());
        let inputs = [(self.input.as_str(), latent.view().into_dyn())];
        let given = self.graph.run(&inputs, &[&self.output])?.into_iter().next();
        let given = given.and_then(|it| it.into_dimensionality().ok());
        let image = given.filter(|it: &Array4<f32>| it.dim().1 == 3).ok_or_else(|| {
            let problem = format!("its output `{}` is not an image of 3 channels", self.output);
            Error::model(self.graph.model(), problem)
        })?;
        first_image(&image)
    }
}

impl Preview {
    /// The image of a prediction; none while a linear map is not known yet, for which the
    /// prediction is kept.
    ///
    /// # Errors
    /// Those of the tiny decoder.
    pub fn image(&mut self, step: &PredictedStep<'_>) -> Result<Option<Image>> {
        if !step.is_latent {
            return first_image(step.predicted).map(Some);
        }
        match &mut self.kind {
            Kind::Pixels => first_image(step.predicted).map(Some),
            Kind::Tiny(decoder) => decoder.decode(step.predicted).map(Some),
            Kind::Linear(factors) => {
                colors(step.predicted, factors, [0.0; 3], self.scale).map(Some)
            }
            Kind::Fitted(kept) => {
                kept.push(step.predicted.clone());
                Ok(None)
            }
        }
    }

    /// The images of the first `count` predictions that were kept, by the linear map that turns
    /// `latent`, what was sampled, into `decoded`, `[1, 3, H, W]` from 0 to 1, with the least
    /// squared error.
    ///
    /// # Errors
    /// [`Error::Usage`] when the two differ in size.
    pub fn fitted(
        &mut self,
        latent: &Array4<f32>,
        decoded: &Array4<f32>,
        count: usize,
    ) -> Result<Vec<Image>> {
        let Kind::Fitted(kept) = &mut self.kind else { return Ok(Vec::new()) };
        let (_, _, height, width) = latent.dim();
        if decoded.dim() != (1, 3, self.scale * height, self.scale * width) {
            return Err(Error::usage("the image is not the one of the latent; expected that"));
        }
        let (factors, base) = fit(latent, decoded, self.scale);
        let kept = kept.drain(..count.min(kept.len()));
        kept.map(|latent| colors(&latent, &factors, base, self.scale)).collect()
    }
}

fn first_image(planes: &Array4<f32>) -> Result<Image> {
    let images = as_images(&planes.as_standard_layout().into_owned(), Range::new(-1.0, 1.0)?)?;
    images.into_iter().next().ok_or_else(|| Error::evaluation("a step has no image"))
}

/// The colors of a latent, `[1, C, h, w]`, from -1 to 1, each `scale` pixels wide and high.
fn colors(
    latent: &Array4<f32>,
    factors: &[[f32; 3]],
    base: [f32; 3],
    scale: usize,
) -> Result<Image> {
    let (_, _, height, width) = latent.dim();
    let latent = latent.index_axis(Axis(0), 0);
    let small = ndarray::Array3::from_shape_fn([3, height, width], |(color, y, x)| {
        let channels = factors.iter().enumerate();
        base[color] + channels.map(|(i, of)| of[color] * latent[[i, y, x]]).sum::<f32>()
    });
    let (height, width) = (scale * height, scale * width);
    let planes: Vec<f32> = (0..3 * height * width)
        .map(|i| {
            let (color, y, x) = (i / (height * width), i / width % height, i % width);
            small[[color, y / scale, x / scale]]
        })
        .collect();
    let mut image = Image::new(width, height, 3, Samples::U8(vec![0; planes.len()]))?;
    write_planes(&planes, Range::new(-1.0, 1.0)?, &mut image)?;
    Ok(image)
}

/// The factors of each channel and the base, for colors from -1 to 1, that turn a latent into the
/// means of an image's blocks with the least squared error.
fn fit(latent: &Array4<f32>, decoded: &Array4<f32>, scale: usize) -> (Vec<[f32; 3]>, [f32; 3]) {
    let (_, channels, height, width) = latent.dim();
    let unknowns = channels + 1;
    // A small ridge gives channels without information no weight.
    const RIDGE: f64 = 1e-4;
    // The normal equations, with the three colors on the right.
    let mut rows = vec![vec![0.0_f64; unknowns + 3]; unknowns];
    for (i, row) in rows.iter_mut().enumerate() {
        row[i] = RIDGE * (height * width) as f64;
    }
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        let value = |i: usize| if i < channels { f64::from(latent[[0, i, y, x]]) } else { 1.0 };
        let mean = |color: usize| {
            let block = (0..scale * scale)
                .map(|at| decoded[[0, color, scale * y + at / scale, scale * x + at % scale]]);
            2.0 * block.map(f64::from).sum::<f64>() / (scale * scale) as f64 - 1.0
        };
        let values: Vec<f64> = (0..unknowns).map(value).chain((0..3).map(mean)).collect();
        for (i, row) in rows.iter_mut().enumerate() {
            row.iter_mut().zip(&values).for_each(|(sum, other)| *sum += values[i] * other);
        }
    }
    let solved = solve(rows);
    let row = |i: usize| [0, 1, 2].map(|color| solved[i][color] as f32);
    ((0..channels).map(row).collect(), row(channels))
}

/// Solves positive definite linear equations by elimination; each row has the right sides, three,
/// at its end.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<[f64; 3]> {
    let count = rows.len();
    for pivot in 0..count {
        let divisor = rows[pivot][pivot];
        rows[pivot].iter_mut().for_each(|value| *value /= divisor);
        let own = rows[pivot].clone();
        for (i, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != pivot) {
            debug_assert!(i < count);
            let factor = row[pivot];
            row.iter_mut().zip(&own).for_each(|(value, own)| *value -= factor * own);
        }
    }
    rows.iter().map(|row| [row[count], row[count + 1], row[count + 2]]).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::fit;

    #[test]
    fn a_linear_decoder_is_found() {
        let latent = Array4::from_shape_fn([1, 5, 6, 7], |(_, c, y, x)| {
            (((7 * c + 3 * y + 5 * x) * 37) % 101) as f32 / 50.0 - 1.0
        });
        let factors = [[0.1, 0.0, 0.2], [0.0, -0.2, 0.1], [0.05, 0.1, 0.0], [0.0; 3], [0.1; 3]];
        let base = [0.1, -0.1, 0.0];
        let decoded = Array4::from_shape_fn([1, 3, 12, 14], |(_, color, y, x)| {
            let channels = factors.iter().enumerate();
            let sum: f32 = channels.map(|(i, of)| of[color] * latent[[0, i, y / 2, x / 2]]).sum();
            (sum + base[color]) / 2.0 + 0.5
        });
        let (found, found_base) = fit(&latent, &decoded, 2);
        for (found, expected) in
            found.iter().chain([&found_base]).zip(factors.iter().chain([&base]))
        {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-3, "{found} {expected}");
            }
        }
    }
}
