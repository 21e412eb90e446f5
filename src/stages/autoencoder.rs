//! Autoencoders: images to latents, and latents to images.

use std::ops::ControlFlow;

use ndarray::{Array4, Axis, Ix4, Slice};

use super::network_pool::NetworkPool;
use super::noise_sequence::NoiseSequence;
use super::spec::AutoencoderSpec;
use crate::diffusion::Progress;
use crate::error::{Error, Result};
use crate::model::DecoderSpec;
use crate::network::{Interface, Port, TensorGraph};
use crate::task::{UNKNOWN_BYTES_PER_PIXEL, decode};

impl AutoencoderSpec {
    /// The latent in the sampler's units: `(latent - shift) * factor`.
    pub fn normalized(&self, latent: Array4<f32>) -> Array4<f32> {
        self.each(latent, |value, mean, deviation| (value - mean) / deviation * self.factor as f32)
    }

    /// The latent in the decoder's units.
    pub fn restored(&self, latent: Array4<f32>) -> Array4<f32> {
        self.each(latent, |value, mean, deviation| value / self.factor as f32 * deviation + mean)
    }

    fn each(&self, mut latent: Array4<f32>, value: impl Fn(f32, f32, f32) -> f32) -> Array4<f32> {
        let shift = self.shift as f32;
        for (channel, mut plane) in latent.axis_iter_mut(Axis(1)).enumerate() {
            let moment = |i: usize, default: f32| {
                let normalization = self.normalization.as_ref();
                normalization
                    .and_then(|normalization| normalization[i].get(channel))
                    .copied()
                    .unwrap_or(default)
            };
            let (mean, deviation) = (moment(0, shift), moment(1, 1.0));
            plane.mapv_inplace(|x| value(x, mean, deviation));
        }
        latent
    }

    /// Encodes an image, `[1, 3, H, W]` from -1 to 1, by the encoder's network. The latent is drawn
    /// from its distribution by the next draw, or is the mean if `draws` is `None`.
    ///
    /// # Errors
    /// [`Error::Model`] when the encoder does not give latents, [`Error::Evaluation`]
    /// when it fails.
    pub(super) fn encode(
        &self,
        graph: &mut TensorGraph,
        image: &Array4<f32>,
        draws: Option<&mut NoiseSequence>,
    ) -> Result<Array4<f32>> {
        let first = |ports: &[Port]| ports.first().map(|port| port.name.clone());
        let ports = first(graph.inputs()).zip(first(graph.outputs()));
        let (input, output) = ports.ok_or_else(|| {
            Error::model(graph.model(), "it has no input or no output; export it again")
        })?;
        let given = graph.run(&[(&input, image.view().into_dyn())], &[&output])?;
        let given = given.into_iter().next().and_then(|it| it.into_dimensionality::<Ix4>().ok());
        let given = given.filter(|it| [self.channels, 2 * self.channels].contains(&it.dim().1));
        let mut given = given.ok_or_else(|| {
            let problem = format!(
                "its output `{output}` is not a latent of {} channels, with its logarithm of variance \
                 or without",
                self.channels
            );
            Error::model(graph.model(), problem)
        })?;
        if given.dim().1 == self.channels {
            return Ok(given);
        }
        let log_variance = given.slice_axis(Axis(1), Slice::from(self.channels..)).to_owned();
        given.slice_axis_inplace(Axis(1), Slice::from(..self.channels));
        if let Some(draws) = draws {
            let noise = draws.next(given.dim())?;
            ndarray::Zip::from(&mut given)
                .and(&noise)
                .and(&log_variance)
                .for_each(|mean, noise, log| *mean += (0.5 * log.clamp(-30.0, 20.0)).exp() * noise);
        }
        Ok(given.as_standard_layout().into_owned())
    }

    /// Decodes latents in the sampler's units, `[1, C, h, w]`, to images from -1 to 1.
    ///
    /// # Errors
    /// [`Error::Model`] when the decoder is missing, [`Error::Usage`] when it does not fit the
    /// memory budget, [`Error::Evaluation`] when it fails, [`Error::Interrupted`].
    pub(super) fn decode(
        &self,
        pool: &mut NetworkPool,
        latents: Array4<f32>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Array4<f32>> {
        const CHANNELS: usize = 3;
        let interface = Interface {
            condition: Some("latent_sample".into()),
            condition_channels: Some(self.channels),
            scale: self.scale,
            output: "sample".into(),
            channels: Some(CHANNELS),
            ..Interface::default()
        };
        let mut network = pool.decoder(&self.network, interface)?;
        let spec = DecoderSpec {
            path: self.network.clone(),
            sha256: String::new(),
            channels: CHANNELS,
            scale: self.scale,
            scaling_factor: 1.0,
            input: "latent_sample".into(),
            output: "sample".into(),
            receptive_field: None,
            bytes_per_pixel: None,
        };
        let (choice, budget) = (pool.options().tile, pool.options().budget());
        // Tiles, and so the image, do not depend on which networks are loaded.
        let (_, _, height, width) = latents.dim();
        let pixels = self.scale * height * self.scale * width;
        pool.make_room((pixels * UNKNOWN_BYTES_PER_PIXEL) as u64, budget.max_memory);
        let image = decode(&spec, &mut network, &self.restored(latents), (choice, budget), watch)?;
        pool.give_back_decoder(&self.network, network);
        Ok(image)
    }
}
