//! A request to a pipeline, and the check that the pipeline can meet it.

use super::{ConcatCondition, GuidanceSpec, PipelineSpec, StageSpec, StateSpec};
use crate::diffusion::Sampler;
use crate::error::{Error, Result};
use crate::media::Image;
use crate::setting::CLASS;

/// What is requested of a pipeline. Where a field is `None` or empty, the pipeline's own default
/// applies, unless the field says another.
#[derive(Clone, Debug, Default)]
pub struct TextToImageRequest<'a> {
    /// The text prompt. `(word:1.3)` gives a word more weight.
    pub prompt: String,
    /// The negative prompt. Default: an empty prompt, or zeros where the pipeline was made for
    /// them.
    pub negative_prompt: Option<String>,
    /// The class of the image, for a pipeline that is conditioned on one. Default: none.
    pub class: Option<usize>,
    /// The negative class. Default: the unconditional class.
    pub negative_class: Option<usize>,
    /// Width and height of the image, in pixels.
    pub size: Option<[usize; 2]>,
    /// Sampler steps, 1 to 1000.
    pub steps: Option<usize>,
    /// A sampler in place of the scheduler's.
    pub sampler: Option<Sampler>,
    /// Stochasticity of samplers that have it, from 0 to 1. Default: the sampler's.
    pub eta: Option<f64>,
    /// The guidance scale; 1 or less is no guidance, except for networks that take it as an input.
    pub guidance_scale: Option<f64>,
    /// How far guidance is rescaled, from 0 to 1 (Lin et al. 2024, section 3.4). Default: 0.
    pub guidance_rescale: f64,
    /// The range of sigma, noise to signal, in which guidance is active (Kynkaanniemi et al. 2024).
    /// Outside it, only the prompt is evaluated. Default: everywhere.
    pub guidance_interval: Option<[f64; 2]>,
    /// The guidance scale of the image that is edited (Brooks et al. 2023).
    pub image_guidance_scale: Option<f64>,
    /// How many of the text encoder's last layers are skipped. Default: 0.
    pub clip_skip: usize,
    /// Whether the instruction that a pipeline puts before prompts is left out (Sana). Default:
    /// false.
    pub without_instruction: bool,
    /// The image to start from, edit, inpaint or enlarge. Default: none.
    pub start: Option<&'a Image>,
    /// The part of the schedule that is sampled for a start image, from 0 to 1.
    pub strength: Option<f64>,
    /// The mask of the start image, white where it is to be inpainted. Default: none.
    pub mask: Option<&'a Image>,
    /// The noise that is added to an image before it is enlarged, as a timestep of its schedule.
    pub noise_level: Option<usize>,
    /// The conditioning image of a ControlNet. Default: none.
    pub control: Option<&'a Image>,
    /// The factor of the ControlNet's residuals. Default: the pipeline's, usually 1.
    pub control_scale: Option<f64>,
    /// Requests for the single stages of a cascade, in order. Default: none.
    pub stages: Vec<StageRequest>,
}

impl TextToImageRequest<'_> {
    /// A request for an image with this prompt and the pipeline's defaults.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), ..Self::default() }
    }
}

/// What is requested of one stage of a cascade; by default the stage's own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageRequest {
    /// Sampler steps.
    pub steps: Option<usize>,
    /// The guidance scale.
    pub guidance_scale: Option<f64>,
}

/// A reason to refuse a request, and whether it applies.
type Refusal = (bool, &'static str);

impl TextToImageRequest<'_> {
    /// Checks that the pipeline has a use for everything that is requested, and gets what it needs.
    ///
    /// # Errors
    /// [`Error::Usage`] with what is missing or superfluous.
    pub(super) fn check(&self, spec: &PipelineSpec) -> Result<()> {
        let PipelineSpec { name, stages, .. } = spec;
        let (given, count) = (self.stages.len(), stages.len());
        if given > count {
            let plural = if count == 1 { "" } else { "s" };
            return Err(Error::usage(format!(
                "{name} has {count} stage{plural}, and values for {given} were given"
            )));
        }
        if self.class.is_none() && stages.iter().any(|stage| stage.classes > 0) {
            return Err(Error::usage(format!("{name} needs a class; choose one with {CLASS}")));
        }
        let superfluous = self.superfluous(spec);
        let missing = stages.iter().flat_map(|stage| self.missing(stage, count));
        match superfluous.into_iter().chain(missing).find(|(applies, _)| *applies) {
            Some((_, problem)) => Err(Error::usage(format!("{name} {problem}"))),
            None => Ok(()),
        }
    }

    /// What all stages would ignore.
    fn superfluous(&self, spec: &PipelineSpec) -> [Refusal; 6] {
        let none = |holds: fn(&StageSpec) -> bool| !spec.stages.iter().any(holds);
        let is_image = |stage: &StageSpec| stage.state == StateSpec::Image;
        let has_prompt = !self.prompt.is_empty() || self.negative_prompt.is_some();
        [
            (
                self.noise_level.is_some() && none(|stage| stage.low_res_scheduler.is_some()),
                "adds no noise to an image that it enlarges; leave the noise level out",
            ),
            (
                self.image_guidance_scale.is_some()
                    && none(|stage| stage.guidance == GuidanceSpec::TextAndImage),
                "is not guided by an image; leave the image guidance scale out",
            ),
            (self.start.is_some() && none(is_image), "does not start from an image; leave it out"),
            (
                self.size.is_some()
                    && none(|stage| {
                        stage.state == StateSpec::Image && stage.concat != ConcatCondition::LowRes
                    }),
                "generates images of one size; leave the size out",
            ),
            (
                self.class.is_some() && none(|stage| stage.classes > 0),
                "is not conditioned on a class; leave the class out",
            ),
            (has_prompt && spec.text.is_empty(), "has no text encoder; leave the prompts out"),
        ]
    }

    /// What a stage of `count` is conditioned on and does not get, or gets and ignores.
    fn missing(&self, stage: &StageSpec, count: usize) -> [Refusal; 6] {
        let (has_image, has_mask) = (self.start.is_some(), self.mask.is_some());
        let is_enlarger = matches!(stage.concat, ConcatCondition::Enlarged(_));
        let is_low_res = stage.concat == ConcatCondition::LowRes;
        let takes_mask = !(stage.concat == ConcatCondition::Image || is_low_res || is_enlarger);
        [
            (
                stage.concat == ConcatCondition::MaskedImage && !(has_image && has_mask),
                "fills masked areas of an image; give an image and a mask",
            ),
            (
                stage.concat == ConcatCondition::Image && !has_image,
                "edits an image, and none was given",
            ),
            (
                (is_low_res || is_enlarger && count == 1) && !has_image,
                "enlarges an image, and none was given",
            ),
            (has_mask && !takes_mask, "takes no mask; leave it out"),
            (has_mask && !has_image, "was given a mask, but no image to inpaint"),
            (
                stage.control.is_some() && self.control.is_none(),
                "follows a control image, and none was given",
            ),
        ]
    }
}
