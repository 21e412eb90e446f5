//! Inpainting as a pipeline that owns its network.

use std::ops::ControlFlow;

use crate::diffusion::Progress;
use crate::error::Result;
use crate::media::Image;
use crate::model::{Package, Task};
use crate::network::OnnxNetwork;
use crate::task::{Budget, GenerateOptions, Generator, InpaintReport, Inpainter, Mask, TileChoice};

/// Fills masked areas of images.
#[derive(Debug)]
pub struct InpaintPipeline {
    package: Package,
    network: OnnxNetwork,
    options: GenerateOptions,
    seeds: Vec<u64>,
}

impl InpaintPipeline {
    pub(super) fn new(package: Package, mut network: OnnxNetwork, budget: Budget) -> Result<Self> {
        let manifest = &package.manifest;
        let options = GenerateOptions { budget, ..GenerateOptions::for_inpainting(manifest) };
        // Whether the network is for this is found out now, and not with the first image.
        if manifest.task == Task::Inpaint {
            Inpainter::new(manifest, &mut network, TileChoice::default(), budget)?;
        } else {
            Generator::new(manifest, &mut network, options.clone())?;
        }
        Ok(Self { package, network, options, seeds: (0..4).collect() })
    }

    /// The options: sampler, steps, repetitions, tiles, memory. A network that takes a mask fills
    /// it in one evaluation, for which tiles and memory alone count.
    pub fn options(&mut self) -> &mut GenerateOptions {
        &mut self.options
    }

    /// The random seeds: one posterior sample for each, of which the mean is taken. By default 0 to
    /// 3; a single one has the most texture.
    pub fn seeds(&mut self) -> &mut Vec<u64> {
        &mut self.seeds
    }

    /// Fills the area of `image` that is missing by `mask`, in place. All other pixels and alpha
    /// stay as they are, bit by bit.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when the mask has another size than the image, or the
    /// image exceeds the memory limit; [`Error::Evaluation`](crate::Error::Evaluation) when the
    /// network fails. The image is unchanged then.
    pub fn run(&mut self, image: &mut Image, mask: &Mask) -> Result<InpaintReport> {
        self.run_observed(image, mask, |_| ControlFlow::Continue(()))
    }

    /// Like [`run`](Self::run), with a callback: `observe` is called after every evaluation, and
    /// can stop the run.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn run_observed(
        &mut self,
        image: &mut Image,
        mask: &Mask,
        mut observe: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<InpaintReport> {
        image.check()?;
        let (manifest, network) = (&self.package.manifest, &mut self.network);
        if manifest.task == Task::Inpaint {
            let GenerateOptions { tile, budget, .. } = self.options.clone();
            let mut inpainter = Inpainter::new(manifest, network, tile, budget)?;
            return inpainter.inpaint(image, mask, &mut observe);
        }
        let mut generator = Generator::new(manifest, network, self.options.clone())?;
        generator.inpaint(image, mask, &self.seeds, Vec::new(), &mut observe)
    }
}
