//! Decodes latents to images with the decoder of an autoencoder.

use std::ops::ControlFlow;

use ndarray::Array4;

use super::budget::{Budget, TileChoice};
use crate::diffusion::{
    Canvas, Clip, HISTORY_SLOTS, Level, Plan, Progress, SigmaMap, Step, Update, Window, execute,
    read_plane,
};
use crate::error::Result;
use crate::model::DecoderSpec;
use crate::network::{Network, Shape};
use crate::tile::Locality;

/// Coefficients of a single evaluation: its output is the result.
const SINGLE_STEP: Step = Step {
    t: 0.0,
    level: Level::CLEAN,
    c_in: 0.0,
    c_skip: 0.0,
    c_out: 1.0,
    a: 0.0,
    b: 1.0,
    past: [0.0; HISTORY_SLOTS],
    d: 0.0,
    e: 0.0,
    store: None,
};

/// Decodes `latents`, `[images, C, height, width]`, to images, `[images, channels, scale * height,
/// scale * width]`, one after the other and in tiles as memory allows. Tiles of a decoder with
/// global operations are blended over their seams.
///
/// # Errors
/// [`Error::Usage`](crate::Error::Usage) when it does not fit the memory budget;
/// [`Error::Evaluation`](crate::Error::Evaluation) when the network fails;
/// [`Error::Interrupted`](crate::Error::Interrupted).
pub(crate) fn decode(
    decoder: &DecoderSpec,
    network: &mut dyn Network,
    latents: &Array4<f32>,
    (choice, budget): (TileChoice, Budget),
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Array4<f32>> {
    let (count, _, height, width) = latents.dim();
    let DecoderSpec { channels, scale, receptive_field, bytes_per_pixel, .. } = *decoder;
    let size = [scale * width, scale * height];
    let mut images = Array4::zeros([count, channels, size[1], size[0]]);
    let choice = choice.on_finer_grid(scale);
    let locality = Locality { multiple_of: scale, grid: scale, receptive_field, size: None };
    let room = budget.room(0).of(network);
    let tiles = room.tiles([size[0], size[1], channels], choice, locality, bytes_per_pixel)?;
    let plan = Plan { steps: vec![SINGLE_STEP], clip: Clip::None };
    let whole =
        latents.as_slice().unwrap_or_default().chunks_exact((latents.len() / count.max(1)).max(1));
    let area = channels * size[0] * size[1];
    let results = images.as_slice_mut().unwrap_or_default().chunks_exact_mut(area.max(1));
    for (latent, image) in whole.zip(results) {
        let mut canvas = Decoded { decoder, latent, width, image, size };
        execute(&plan, network, &mut canvas, &tiles, &SigmaMap::ABSOLUTE, watch)?;
    }
    Ok(images)
}

/// A latent, `[C, height, width]`, and its decoded image.
struct Decoded<'a> {
    decoder: &'a DecoderSpec,
    latent: &'a [f32],
    width: usize,
    image: &'a mut [f32],
    size: [usize; 2],
}

impl Canvas for Decoded<'_> {
    fn shape(&self) -> Shape {
        [1, self.decoder.channels, self.size[1], self.size[0]]
    }

    /// A decoder has no sample.
    fn read(&self, _window: Window, _scale: f32, _out: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn condition(&self, window: Window, out: &mut [f32]) -> Result<()> {
        let scale = self.decoder.scale;
        let [x, y, width, height] =
            [window.x, window.y, window.width, window.height].map(|length| length / scale);
        let planes = self.latent.chunks_exact(self.width * (self.size[1] / scale));
        for (plane, out) in planes.zip(out.chunks_exact_mut(width * height)) {
            read_plane(
                plane,
                self.width,
                Window { x, y, width, height },
                1.0 / self.decoder.scaling_factor,
                out,
            );
        }
        Ok(())
    }

    fn update(&mut self, update: &Update<'_>) -> Result<()> {
        let [width, height] = self.size;
        for channel in 0..self.decoder.channels {
            for y in update.rows.clone() {
                let row = &mut self.image[(channel * height + y) * width..][..width];
                row.copy_from_slice(update.output.row(channel, y, width));
            }
        }
        Ok(())
    }
}
