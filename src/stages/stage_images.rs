//! The images of a request as a stage takes them, and the size of what it samples.

use ndarray::{Array4, Axis, concatenate};

use super::conditioning_images::{self, Alignment};
use super::network_pool::NetworkPool;
use super::noise_sequence::NoiseSequence;
use super::spec::{ConcatCondition, Enlargement, StateSpec};
use super::stage::StageRun;
use super::stage_schedule::StageSchedule;
use crate::error::{Error, Result};
use crate::media::Image;
use crate::network::Shape;
use crate::setting::SIZE;
use crate::tensor::Range;

/// The images of a request, as a stage takes them.
#[derive(Default)]
pub(super) struct Given {
    /// The initial noise.
    pub(super) noise: Array4<f32>,
    /// The latent of the start image.
    pub(super) start: Option<Array4<f32>>,
    /// The mask at the size of the latent.
    pub(super) mask: Option<Array4<f32>>,
    /// What is concatenated to the state.
    pub(super) concat: Option<Array4<f32>>,
    /// The class that says how noisy it is.
    pub(super) label: Option<f32>,
    /// That level, as a timestep.
    pub(super) level: Option<usize>,
    /// Whether masked areas are filled.
    pub(super) is_filled: bool,
}

impl StageRun<'_> {
    /// Factors of image and noise at a timestep of the schedule in a file.
    fn noise_at(&self, file: &str, timestep: usize) -> Result<[f64; 2]> {
        let factors = StageSchedule::read(self.folder, file)?.level(timestep);
        factors.ok_or_else(|| {
            Error::usage(format!("the noise level {timestep} lies beyond the schedule in {file}"))
        })
    }

    /// The image of the stage before, or the start image, at the size of the state.
    fn enlarged(&self, how: Enlargement, shape: Shape, draws: &mut NoiseSequence) -> Result<Given> {
        let small = match (self.before, self.request.start) {
            (Some(before), _) => before.clone(),
            (None, Some(image)) => {
                let size = [image.width, image.height];
                conditioning_images::color_planes(image, size, Range::new(-1.0, 1.0)?)?
            }
            (None, None) => return Err(self.error("there is no image to enlarge")),
        };
        let [_, _, height, width] = shape;
        let large = match how {
            Enlargement::Bilinear => {
                conditioning_images::bilinear(&small, [width, height], Alignment::Corners)
            }
            Enlargement::BilinearCenters => {
                conditioning_images::bilinear(&small, [width, height], Alignment::Centers)
            }
            Enlargement::Bicubic => conditioning_images::bicubic(&small, [width, height]),
        };
        let noise = draws.next(shape)?;
        let mut given = Given { noise, ..Given::default() };
        given.concat = Some(match &self.stage.low_res_scheduler {
            None => large,
            Some(file) => {
                let level = self.request.noise_level.unwrap_or(self.stage.defaults.noise_level);
                let [signal, sigma] = self.noise_at(file, level)?;
                given.label = Some(level as f32);
                given.level = Some(level);
                let noise: Array4<f32> = draws.next(large.dim())?;
                signal as f32 * &large + sigma as f32 * &noise
            }
        });
        Ok(given)
    }

    /// Width and height of what the stage samples, in pixels.
    pub(super) fn size(&self) -> Result<[usize; 2]> {
        let Self { stage, request, .. } = *self;
        match stage.state {
            StateSpec::FixedImage(size) => return Ok(size),
            StateSpec::Vector(_) => return Ok([1, 1]),
            StateSpec::Image => {}
        }
        let scale = self.scale();
        let packed = if stage.packed { 2 } else { 1 };
        let is_even = stage.multiple_of.is_multiple_of(packed);
        let multiple = scale * stage.multiple_of * if is_even { 1 } else { packed };
        if let (ConcatCondition::LowRes, Some(small)) = (stage.concat, request.start) {
            let size = [small.width, small.height];
            if size.iter().any(|side| side % stage.multiple_of != 0) {
                return Err(Error::usage(format!(
                    "{} enlarges images whose sides are multiples of {}, and this one is {}x{}; \
                     crop or resize it",
                    self.spec.name, stage.multiple_of, small.width, small.height
                )));
            }
            return Ok(size.map(|side| scale * side));
        }
        let of_image = request.start.or(request.control).map(|image| {
            let whole = |side: usize| (side / multiple * multiple).max(multiple);
            [whole(image.width), whole(image.height)]
        });
        let of_image = of_image.filter(|_| !matches!(stage.concat, ConcatCondition::Enlarged(_)));
        let size = request.size.or(of_image).unwrap_or(stage.defaults.size);
        if size.iter().any(|side| *side == 0 || side % multiple != 0) {
            let [width, height] = size;
            return Err(Error::usage(format!(
                "{} generates images of multiples of {multiple} pixels, and {width}x{height} was \
                 requested; change {SIZE}",
                self.spec.name
            )));
        }
        Ok(size)
    }

    /// The images of a request as the stage takes them, and the initial noise, drawn in diffusers'
    /// order.
    pub(super) fn images(
        &self,
        pool: &mut NetworkPool,
        (size, shape): ([usize; 2], Shape),
        strength: f64,
        draws: &mut NoiseSequence,
    ) -> Result<Given> {
        let Self { stage, request, .. } = *self;
        let scale = self.scale();
        let range = Range::new(-1.0, 1.0)?;
        let nothing =
            |noise| Given { noise, is_filled: request.mask.is_some(), ..Given::default() };
        if let ConcatCondition::Enlarged(how) = stage.concat {
            return self.enlarged(how, shape, draws);
        }
        let Some(image) = request.start.filter(|_| stage.state == StateSpec::Image) else {
            return Ok(nothing(draws.next(shape)?));
        };
        if stage.concat == ConcatCondition::LowRes {
            return self.low_res(image, shape, draws);
        }
        let encoder = self.spec.encoder.as_ref().ok_or_else(|| {
            self.error("it has no vae_encoder, which an image to start from goes through")
        })?;
        let pixels = conditioning_images::color_planes(image, size, range)?;
        let mask = match request.mask {
            Some(mask) if [mask.width, mask.height] != [image.width, image.height] => {
                return Err(Error::usage(format!(
                    "the mask is {}x{} and the image {}x{}; expected the same size",
                    mask.width, mask.height, image.width, image.height
                )));
            }
            Some(mask) => Some(conditioning_images::mask_planes(mask, size)?),
            None => None,
        };
        let mut graph = pool.graph(&encoder.network)?;
        if stage.concat == ConcatCondition::Image {
            let noise = draws.next(shape)?;
            // This pipeline leaves the scale of latents out.
            let mean = encoder.encode(&mut graph, &pixels, None)?;
            pool.give_back(&encoder.network, graph);
            return Ok(Given { concat: Some(mean), ..nothing(noise) });
        }
        let is_needed = stage.concat == ConcatCondition::Nothing || strength < 1.0;
        let mut of = |pixels: &Array4<f32>, draws: &mut NoiseSequence| -> Result<Array4<f32>> {
            Ok(encoder.normalized(encoder.encode(&mut graph, pixels, Some(draws))?))
        };
        let start = if is_needed { Some(of(&pixels, draws)?) } else { None };
        let noise = draws.next(shape)?;
        let masked = match &mask {
            None => None,
            Some(mask) => Some(of(&(&pixels * &mask.mapv(|masked| 1.0 - masked)), draws)?),
        };
        pool.give_back(&encoder.network, graph);
        let Some((mask, masked)) = mask.zip(masked) else {
            return Ok(Given { start, ..nothing(noise) });
        };
        let mask = conditioning_images::subsampled(mask.view(), scale);
        let concat = match stage.concat {
            ConcatCondition::MaskedImage => {
                let joined = concatenate(Axis(1), &[mask.view(), masked.view()]);
                Some(joined.map_err(|cause| {
                    Error::model_from(&self.spec.name, "its encoder gives another size", cause)
                })?)
            }
            _ => None,
        };
        Ok(Given { start, concat, mask: Some(mask), ..nothing(noise) })
    }

    /// A small image with the noise that the upscaler was trained with.
    fn low_res(&self, image: &Image, shape: Shape, draws: &mut NoiseSequence) -> Result<Given> {
        let level = self.request.noise_level.unwrap_or(self.stage.defaults.noise_level);
        let file = self.stage.low_res_scheduler.as_deref().unwrap_or_default();
        let [signal, sigma] = self.noise_at(file, level)?;
        let range = Range::new(-1.0, 1.0)?;
        let pixels = conditioning_images::color_planes(image, [image.width, image.height], range)?;
        let noise: Array4<f32> = draws.next(pixels.dim())?;
        let noised = signal as f32 * &pixels + sigma as f32 * &noise;
        Ok(Given {
            noise: draws.next(shape)?,
            concat: Some(noised),
            label: Some(level as f32),
            level: Some(level),
            ..Given::default()
        })
    }
}
