//! Super-resolution as a pipeline that owns its network.

use std::ops::ControlFlow;

use crate::diffusion::Progress;
use crate::error::Result;
use crate::media::Image;
use crate::model::Package;
use crate::network::OnnxNetwork;
use crate::task::{Budget, UpscaleOptions, UpscaleReport, Upscaler};

/// Enlarges images.
#[derive(Debug)]
pub struct UpscalePipeline {
    package: Package,
    network: OnnxNetwork,
    options: UpscaleOptions,
}

impl UpscalePipeline {
    pub(super) fn new(package: Package, mut network: OnnxNetwork, budget: Budget) -> Result<Self> {
        let options = UpscaleOptions { budget, ..Default::default() };
        // Whether the network is for this is found out now, and not with the first image.
        Upscaler::new(&package.manifest, &mut network, options)?;
        Ok(Self { package, network, options })
    }

    /// The options: steps, tiles, memory.
    pub fn options(&mut self) -> &mut UpscaleOptions {
        &mut self.options
    }

    /// The upscaling factor along each axis.
    pub fn scale(&self) -> usize {
        self.package.manifest.scale
    }

    /// Enlarges `image`. Alpha is enlarged bicubically.
    ///
    /// # Errors
    /// As for [`DenoisePipeline::run`](super::DenoisePipeline::run).
    pub fn run(&mut self, image: &Image) -> Result<(Image, UpscaleReport)> {
        self.run_observed(image, |_| ControlFlow::Continue(()))
    }

    /// Like [`run`](Self::run), with a callback: `observe` is called after every evaluation, and
    /// can stop the run.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn run_observed(
        &mut self,
        image: &Image,
        mut observe: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(Image, UpscaleReport)> {
        image.check()?;
        let mut upscaler = Upscaler::new(&self.package.manifest, &mut self.network, self.options)?;
        upscaler.upscale(image, &mut observe)
    }
}
