//! Inpainting in one evaluation, by a network that takes an image and its mask.

use std::ops::ControlFlow;

use super::budget::{Budget, TileChoice};
use super::inpaint::{InpaintReport, Mask};
use super::pixels::Pixels;
use crate::diffusion::{Plan, Progress, SigmaMap, denoise_plan, execute};
use crate::error::{Error, Result};
use crate::media::Image;
use crate::model::{Manifest, Task};
use crate::network::Network;
use crate::tensor;

/// An inpainting network of one evaluation, with its options.
pub struct Inpainter<'a> {
    manifest: &'a Manifest,
    network: &'a mut dyn Network,
    tile: TileChoice,
    budget: Budget,
    plan: Plan,
    range: tensor::Range,
}

impl<'a> Inpainter<'a> {
    /// An inpainter that runs `network`, which `manifest` describes.
    ///
    /// # Errors
    /// [`Error::Model`] when the model is for another task.
    pub fn new(
        manifest: &'a Manifest,
        network: &'a mut dyn Network,
        tile: TileChoice,
        budget: Budget,
    ) -> Result<Self> {
        if manifest.task != Task::Inpaint {
            let problem = format!("its task is {}; expected inpaint", manifest.task);
            return Err(Error::model(&manifest.name, problem));
        }
        let [low, high] = manifest.range;
        let (plan, range) = (denoise_plan(1, 0.0)?, tensor::Range::new(low, high)?);
        Ok(Self { manifest, network, tile, budget, plan, range })
    }

    /// Fills the masked pixels of `image`, which are black in the network's input. All other pixels
    /// and alpha stay bit-exact. `watch` is called after every evaluation and can stop the run.
    ///
    /// # Errors
    /// [`Error::Usage`] when the mask has another size than the image, or the image does not fit
    /// the memory budget; [`Error::Evaluation`] when the network fails; [`Error::Interrupted`]. The
    /// image is unchanged on an error.
    pub fn inpaint(
        &mut self,
        image: &mut Image,
        mask: &Mask,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<InpaintReport> {
        let (width, height) = (image.width, image.height);
        mask.check(image)?;
        let pixels = mask.missing_pixels();
        let mut work = image.visible().into_owned();
        mask.blacken(&mut work);
        let is_known = self.manifest.inputs.known.is_some();
        let values = mask.missing().iter().map(|missing| match (is_known, *missing > 0.0) {
            (false, true) | (true, false) => 1.0,
            _ => 0.0,
        });
        let map = SigmaMap::PerPixel { width, values: values.collect() };
        let Manifest { channels, bytes_per_pixel, .. } = *self.manifest;
        let room = self.budget.room((width * height * size_of::<f32>()) as u64).of(self.network);
        let locality = self.manifest.locality();
        let tiles = room.tiles([width, height, channels], self.tile, locality, bytes_per_pixel)?;
        let mut canvas = Pixels::new(&mut work, self.range, channels);
        execute(&self.plan, self.network, &mut canvas, &tiles, &map, watch)?;
        mask.place(&work, image);
        Ok(InpaintReport { part: Some([0, 0, width, height]), pixels })
    }
}
