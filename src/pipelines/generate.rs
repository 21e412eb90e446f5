//! Generation as a pipeline that owns its network.

use std::ops::ControlFlow;

use crate::diffusion::Progress;
use crate::error::Result;
use crate::media::Image;
use crate::model::Package;
use crate::network::OnnxNetwork;
use crate::task::{Budget, GenerateOptions, GenerateRequest, Generator, as_images};

/// Generates images from noise.
#[derive(Debug)]
pub struct GeneratePipeline {
    package: Package,
    network: OnnxNetwork,
    decoder: Option<OnnxNetwork>,
    options: GenerateOptions,
}

impl GeneratePipeline {
    pub(super) fn new(
        package: Package,
        mut network: OnnxNetwork,
        decoder: Option<OnnxNetwork>,
        budget: Budget,
    ) -> Result<Self> {
        let options = GenerateOptions { budget, ..Default::default() };
        // Whether the network is for this is found out now, and not with the first image.
        Generator::new(&package.manifest, &mut network, options.clone())?;
        Ok(Self { package, network, decoder, options })
    }

    /// The options: sampler, steps, eta, tiles, memory.
    pub fn options(&mut self) -> &mut GenerateOptions {
        &mut self.options
    }

    /// The guidance scale of the model; 1, which is no guidance, where it declares none.
    pub fn guidance_scale(&self) -> f64 {
        self.package.manifest.defaults.guidance_scale.unwrap_or(1.0)
    }

    /// Generates one image per random seed of `request`, of `[width, height]` or of the network's
    /// own size. `request` also has the classes, guidance and the initial image.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) for a size or a request that the network does not
    /// support, and as for [`DenoisePipeline::run`](super::DenoisePipeline::run).
    pub fn run(
        &mut self,
        size: Option<[usize; 2]>,
        request: GenerateRequest<'_>,
    ) -> Result<Vec<Image>> {
        self.run_observed(size, request, |_| ControlFlow::Continue(()))
    }

    /// Like [`run`](Self::run), with a callback: `observe` is called after every evaluation, and
    /// can stop the run.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn run_observed(
        &mut self,
        size: Option<[usize; 2]>,
        request: GenerateRequest<'_>,
        mut observe: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Image>> {
        let generator =
            Generator::new(&self.package.manifest, &mut self.network, self.options.clone())?;
        let mut generator = generator.decoded_by(self.decoder.as_mut());
        let size = generator.size(size)?;
        let generated = generator.generate(size, request, &mut observe)?;
        as_images(&generated, generator.range())
    }
}
