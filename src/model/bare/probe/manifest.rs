//! The manifest of a network before its normalization and receptive field are known.

use super::Probe;
use crate::diffusion::Prediction;
use crate::model::manifest::{
    Defaults, InputNames, Layout, Manifest, NoiseLevel, OutputNames, SigmaRange, State, Task,
};
use crate::network::{Colors, Element, Port};

/// The default number of steps of a network with a schedule, as in diffusers.
const STEPS_OF_SCHEDULE: usize = 50;

impl Probe<'_> {
    /// The manifest before the normalization and the receptive field are known.
    pub(super) fn manifest(&mut self, task: Task, scale: usize, multiple_of: usize) -> Manifest {
        let description = self.description;
        let is_sampled = matches!(task, Task::Generate | Task::Classifier) || self.is_sampled();
        // A network of one channel restores the luma of a color image.
        let is_luma = self.channels == 1
            && !is_sampled
            && description.colors.is_none_or(|colors| colors == Colors::Luma)
            && description.channels.is_none_or(|channels| channels == 3);
        if is_luma && description.colors.is_none() {
            self.record("colors", "one channel: it restores luma, and chroma is kept");
        }
        let name = |port: &Option<Port>| port.as_ref().map(|port| port.name.clone());
        let (mut sample, mut condition) = (name(&self.roles.sample), name(&self.roles.condition));
        // The only image of a feed-forward upscaler is its condition.
        if task == Task::Upscale && scale > 1 && condition.is_none() {
            (condition, sample) = (sample, None);
        }
        let (mut sigma, mut timestep) = (name(&self.roles.sigma), name(&self.roles.timestep));
        if self.has_sigma_channel {
            sigma.clone_from(&sample);
        }
        let is_number = self.roles.sigma.as_ref().is_some_and(Port::is_number);
        if is_sampled && timestep.is_none() && is_number {
            timestep = sigma.take();
        }
        let is_byte = self.image.element == Element::U8;
        let range = description.range.unwrap_or(if is_byte { [0.0, 255.0] } else { [0.0, 1.0] });
        Manifest {
            name: String::new(),
            version: "1".into(),
            task,
            prediction: description.prediction.unwrap_or(Prediction::Denoised),
            channels: if is_luma { 3 } else { self.channels },
            layout: Layout::Full,
            range,
            output_range: description.output_range,
            mean: description.mean.clone(),
            std: description.std.clone(),
            axes: self.axes,
            colors: if is_luma { Colors::Luma } else { description.colors.unwrap_or_default() },
            residual: description.residual.unwrap_or_default(),
            scale: if task == Task::Upscale { description.scale.unwrap_or(scale) } else { 1 },
            multiple_of,
            receptive_field: description.receptive_field,
            border: self.border,
            grid: None,
            bytes_per_pixel: None,
            parameters: None,
            license: crate::model::UNKNOWN_LICENSE.into(),
            description: format!("Imported network to {task}"),
            training: String::new(),
            size: self.size,
            frames: self.frames,
            states: self
                .roles
                .states
                .iter()
                .zip(&self.divisors)
                .map(|([input, output], divisor)| State {
                    input: input.name.clone(),
                    output: output.name.clone(),
                    divisor: *divisor,
                })
                .collect(),
            classes: description.classes,
            null_class: description.null_class,
            sigma: description.sigma_range.map(|[min, max]| SigmaRange { min, max, mixed: false }),
            noise_level: NoiseLevel {
                factor: description.sigma_factor.unwrap_or(1.0),
                scale: description.sigma_scale,
            },
            schedule: description.schedule.as_ref().map(|schedule| schedule.keys.clone()),
            decoder: None,
            inputs: InputNames {
                sample,
                sigma,
                timestep,
                condition,
                class: name(&self.roles.class),
                neighbors: self.roles.neighbors.iter().map(|port| port.name.clone()).collect(),
                mask: name(&self.roles.mask),
                known: name(&self.roles.known),
            },
            constants: description.constants.clone(),
            unconditional: std::collections::BTreeMap::new(),
            outputs: OutputNames { prediction: self.output.name.clone(), log_probability: None },
            defaults: Defaults {
                steps: description.steps.unwrap_or(if description.schedule.is_some() {
                    STEPS_OF_SCHEDULE
                } else {
                    1
                }),
                sampler: description
                    .sampler
                    .or(description.schedule.as_ref().and_then(|it| it.sampler)),
                guidance_scale: None,
            },
            files: std::collections::BTreeMap::new(),
            check: None,
        }
    }
}
