//! Runs the network of a model on one image.

use serde_json::Value;

use super::queue::Ticket;
use super::settings::Settings;
use crate::error::Result;
use crate::media::Image;
use crate::model::Manifest;
use crate::network::Network;
use crate::task::{
    Assessment, Budget, DenoiseOptions, Denoiser, SigmaChoice, TileChoice, UpscaleOptions, Upscaler,
};

/// A loaded network, and how it is run.
pub(super) struct Engine<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) network: &'a mut dyn Network,
    pub(super) enlarges: bool,
    pub(super) tile: TileChoice,
    pub(super) budget: Budget,
}

impl Engine<'_> {
    /// Whether the noise of an image is to be assessed for these settings.
    pub(super) fn assesses(&self, settings: &Settings) -> bool {
        !self.enlarges && settings.sigma == SigmaChoice::Auto && !self.manifest.is_blind()
    }

    /// Whether the model takes these settings.
    pub(super) fn check(&mut self, settings: &Settings) -> Result<()> {
        if self.enlarges {
            self.upscaler(settings).map(drop)
        } else {
            self.denoiser(settings).map(drop)
        }
    }

    fn denoiser(&mut self, settings: &Settings) -> Result<Denoiser<'_>> {
        let options = DenoiseOptions {
            sigma: settings.sigma.clone(),
            steps: settings.steps,
            eta: settings.eta,
            seed: settings.seed,
            strength: settings.strength,
            tile: self.tile,
            budget: self.budget,
        };
        Denoiser::new(self.manifest, self.network, options)
    }

    fn upscaler(&mut self, settings: &Settings) -> Result<Upscaler<'_>> {
        let options = UpscaleOptions {
            steps: settings.steps,
            eta: settings.eta,
            seed: settings.seed,
            tile: self.tile,
            budget: self.budget,
        };
        Upscaler::new(self.manifest, self.network, options)
    }

    /// A black image with the shape of the result.
    pub(super) fn outline(&mut self, image: &Image, settings: &Settings) -> Result<Option<Image>> {
        if !self.enlarges {
            return Ok(None);
        }
        self.upscaler(settings)?.outline(image).map(Some)
    }

    /// Makes the network free the memory of a large image, which would be missing for other models.
    pub(super) fn trim_memory(&mut self) {
        let side = self.manifest.locality().multiple_of;
        // The result is there, whether the network frees its memory or not.
        let _ = self.network.trim_memory([1, self.manifest.channels, side, side]);
    }

    /// Denoises or enlarges an image, and reports how.
    pub(super) fn run(
        &mut self,
        mut image: Image,
        assessment: Option<&Assessment>,
        settings: &Settings,
        ticket: &Ticket,
    ) -> Result<(Image, Value)> {
        let assesses = self.assesses(settings);
        if self.enlarges {
            let (large, report) =
                self.upscaler(settings)?.upscale(&image, &mut |_| ticket.poll())?;
            return Ok((large, report.fields()));
        }
        let mut denoiser = self.denoiser(settings)?;
        if let Some(assessment) = assessment.filter(|_| assesses) {
            denoiser.set_assessment(assessment);
        }
        let report = denoiser.denoise(&mut image, &mut |_| ticket.poll())?;
        Ok((image, report.fields(assessment.map(|assessment| assessment.kind))))
    }
}
