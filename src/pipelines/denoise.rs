//! Denoising as a pipeline that owns its network.

use std::ops::ControlFlow;
use std::path::Path;

use super::{FrameDenoiser, FrameStream};
use crate::diffusion::Progress;
use crate::error::{Error, Result};
use crate::media::Image;
use crate::media::stream::{ReadOutcome, Scan, Source, VideoFormat, VideoFrame};
use crate::model::Package;
use crate::network::OnnxNetwork;
use crate::task::{Assessment, Budget, DenoiseOptions, DenoiseReport, Denoiser};
use crate::video::FrameProcessor;

/// Denoises images, or the frames of a stream.
#[derive(Debug)]
pub struct DenoisePipeline {
    package: Package,
    network: OnnxNetwork,
    options: DenoiseOptions,
}

impl DenoisePipeline {
    pub(super) fn new(package: Package, mut network: OnnxNetwork, budget: Budget) -> Result<Self> {
        let options = DenoiseOptions { budget, ..Default::default() };
        // Whether the network is for this is found out now, and not with the first image.
        Denoiser::new(&package.manifest, &mut network, options.clone())?;
        Ok(Self { package, network, options })
    }

    /// The options: noise level, steps, strength, tiles, memory.
    pub fn options(&mut self) -> &mut DenoiseOptions {
        &mut self.options
    }

    /// Whether the network is not conditioned on a noise level.
    pub(crate) fn is_blind(&self) -> bool {
        self.package.manifest.is_blind()
    }

    /// Sets the noise level of the options from an assessment, as [`Denoiser::set_assessment`].
    pub(crate) fn set_assessment(&mut self, assessment: &Assessment) {
        if !self.is_blind() {
            self.options.sigma = assessment.sigma_for(self.package.manifest.layout);
        }
    }

    /// Denoises `image` in place. The noise is estimated unless [`options`](Self::options) give it.
    /// Alpha is unchanged.
    ///
    /// # Errors
    /// [`Error::Usage`] for an image that exceeds the memory limit, or options out of range;
    /// [`Error::Evaluation`] when the network fails.
    pub fn run(&mut self, image: &mut Image) -> Result<DenoiseReport> {
        self.run_observed(image, |_| ControlFlow::Continue(()))
    }

    /// Like [`run`](Self::run), with a callback: `observe` is called after every evaluation, and
    /// can stop the run.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and [`Error::Interrupted`] when `observe` stops it, which leaves
    /// `image` partly denoised.
    pub fn run_observed(
        &mut self,
        image: &mut Image,
        mut observe: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<DenoiseReport> {
        image.check()?;
        let mut denoiser =
            Denoiser::new(&self.package.manifest, &mut self.network, self.options.clone())?;
        denoiser.denoise(image, &mut observe)
    }

    /// Denoises frames that the caller gives one by one, using previous frames.
    ///
    /// # Errors
    /// As for [`stream`](Self::stream).
    pub fn frame_by_frame(self, format: VideoFormat) -> Result<FrameDenoiser> {
        FrameDenoiser::new(self, format)
    }

    /// Denoises the frames of `source` on a separate thread, using previous frames. A damaged frame
    /// or a source that is disconnected ends the stream with an error.
    ///
    /// Every frame that the source gives is denoised, in order: none is dropped, and there is no
    /// target rate. [`video::run`](crate::video::run) drops frames of live sources and lowers
    /// quality to keep a rate. Interlaced video is refused.
    ///
    /// # Errors
    /// [`Error::Usage`] for interlaced video, and as for [`run`](Self::run).
    pub fn stream(self, mut source: Box<dyn Source>) -> Result<FrameStream> {
        let format = source.video().clone();
        if format.scan != Scan::Progressive {
            return Err(Error::usage(
                "frames are interlaced, and a stream takes whole ones; deinterlace them first",
            ));
        }
        let Self { package, mut network, options } = self;
        FrameStream::start(format.clone(), move |frames, shared| {
            let denoiser = Denoiser::new(&package.manifest, &mut network, options)?;
            let mut denoiser = denoiser.on_stream(&format, &format, true)?;
            let mut watch = || match shared.is_stopped() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            let mut input = VideoFrame::default();
            while watch().is_continue() {
                match source.next(&mut input)? {
                    ReadOutcome::Frame => {}
                    ReadOutcome::Waiting => continue,
                    ReadOutcome::End => break,
                    ReadOutcome::Corrupt(problem) | ReadOutcome::Disconnected(problem) => {
                        return Err(Error::input(Path::new("the stream"), problem));
                    }
                }
                format.check(&input)?;
                if let Some(settings) = shared.take_settings() {
                    denoiser.apply_settings(&settings)?;
                }
                let mut output = VideoFrame { bytes: Vec::new(), ..input.clone() };
                denoiser.process(&input, &mut output, &mut watch)?;
                if frames.send(Ok((output, denoiser.stream_status().sigma))).is_err() {
                    break;
                }
            }
            Ok(())
        })
    }
}
