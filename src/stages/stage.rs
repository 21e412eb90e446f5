//! One stage of a pipeline: what it takes of a request and of the stage before, and its run.

use std::ops::ControlFlow;

use ndarray::{Array4, Axis};

use super::bound_graph::{Conditions, stacked};
use super::conditioning_images;
use super::denoiser::{Branches, ConditionedNetwork, Networks};
use super::filled::Filled;
use super::learned_variance::LearnedVariance;
use super::network_pool::NetworkPool;
use super::noise_sequence::{NoiseSequence, RowNoise};
use super::observed::{Observed, StepObserver};
use super::spec::{
    ConcatCondition, GuidanceSpec, MicroConditions, PipelineSpec, PriorConditioning, StageSpec,
    StateSpec, StrengthSpec,
};
use super::stage_images::Given;
use super::stage_schedule::{PlanRequest, StagePlan, StageSchedule};
use super::text::Embeddings;
use super::{StageRequest, TextToImageReport, TextToImageRequest};
use crate::diffusion::{
    Canvas, Level, NoiseSource, Plan, Progress, SigmaMap, State, Step, execute,
};
use crate::error::{Error, Result};
use crate::model::ModelFolder;
use crate::network::{Device, Shape};
use crate::setting::CLASS;
use crate::tensor::Range;
use crate::tile::TilePlan;

/// The scale of the image in InstructPix2Pix.
const IMAGE_GUIDANCE_SCALE: f64 = 1.5;

/// A stage, and what it runs on.
pub(super) struct StageRun<'a> {
    /// The folder of the pipeline.
    pub(super) folder: &'a ModelFolder,
    pub(super) spec: &'a PipelineSpec,
    pub(super) stage: &'a StageSpec,
    pub(super) request: &'a TextToImageRequest<'a>,
    /// What is requested of this stage alone.
    pub(super) requested: StageRequest,
    /// The position of the stage.
    pub(super) index: usize,
    pub(super) embedded: &'a Embeddings,
    /// What the stage before sampled.
    pub(super) before: Option<&'a Array4<f32>>,
}

impl StageRun<'_> {
    /// Whether the request's steps and guidance scale are this stage's.
    fn is_main(&self) -> bool {
        self.index == self.spec.main
    }

    /// Whether no stage follows, but a decoder if there is one.
    pub(super) fn is_last(&self) -> bool {
        self.index + 1 == self.spec.stages.len()
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> Error {
        Error::model(self.folder.to_string(), problem)
    }

    /// Samples the stage by networks of the pool.
    pub(super) fn sample(
        &self,
        pool: &mut NetworkPool,
        draws: &mut NoiseSequence,
        observer: Option<&mut dyn StepObserver>,
        report: &mut TextToImageReport,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Array4<f32>> {
        let Self { stage, request, .. } = *self;
        let defaults = &stage.defaults;
        let own = |requested: Option<f64>| requested.filter(|_| self.is_main());
        let guidance_scale = self.requested.guidance_scale.or(own(request.guidance_scale));
        let guidance_scale = guidance_scale.unwrap_or(defaults.guidance_scale);
        let steps = self.requested.steps.or(request.steps.filter(|_| self.is_main()));
        let steps = steps.unwrap_or(defaults.steps);
        let size = self.size()?;
        let [width, height] = size.map(|side| side / self.scale());
        let shape: Shape = match stage.state {
            StateSpec::Vector(features) => [1, features, 1, 1],
            _ => [1, stage.channels, height, width],
        };
        let [_, _, height, width] = shape;
        self.check_state([height, width])?;
        let training = StageSchedule::read(self.folder, &stage.scheduler)?;
        let starts_at_image = request.start.is_some()
            && stage.state == StateSpec::Image
            && matches!(stage.concat, ConcatCondition::Nothing | ConcatCondition::MaskedImage);
        let strength = self.strength(starts_at_image)?;
        let (skipped, part) = match stage.strength {
            StrengthSpec::Steps => (training.skipped(steps, strength), 1.0),
            StrengthSpec::Timesteps => (0, strength),
        };
        let start = training.plan(PlanRequest {
            steps,
            skipped,
            sampler: request.sampler,
            eta: request.eta,
            tokens: (height / 2) * (width / 2),
            has_even_sigmas: stage.has_even_sigmas,
            part,
        })?;
        let rows = if self.samples_negative() { 2 } else { 1 };
        let drawn = [rows, shape[1], height, width];
        let mut given = self.images(pool, (size, drawn), strength, draws)?;
        if let Some(start) = given.start.as_ref().filter(|start| start.dim() != shape.into()) {
            return Err(self.error(format!(
                "its vae_encoder gives latents of {:?} for a state of {shape:?}; expected the same",
                start.shape()
            )));
        }
        let first = start.plan.steps.first().map_or(Level::CLEAN, |step| step.level);
        let x = match &given.start {
            Some(image) if strength < 1.0 || !given.is_filled => {
                first.signal as f32 * image + first.noise as f32 * &given.noise
            }
            _ => start.noise as f32 * &given.noise,
        };
        let (branches, unguided) = self.branches(guidance_scale, &start.plan);
        report.uses_negative_prompt |= branches != Branches::Single;
        let control = request.control.map(|image| -> Result<_> {
            let image = conditioning_images::color_planes(image, size, Range::new(0.0, 1.0)?)?;
            Ok((image, request.control_scale.unwrap_or(stage.defaults.control_scale)))
        });
        let control = control.transpose()?;
        report.control_scale = report.control_scale.or(control.as_ref().map(|(_, scale)| *scale));
        let conditions = Conditions {
            text: Some(self.embedded),
            named: self.named(pool)?,
            concat: given.concat.take(),
            image_is_guided: stage.guidance == GuidanceSpec::TextAndImage,
            time_ids: time_ids(stage.micro, size),
            size,
            control,
            label: self.classes()?.or(given.label.map(|level| [level, level])),
            guidance: (stage.guidance == GuidanceSpec::Embedded).then_some(guidance_scale),
            positions: stage.packed.then_some([height, width]),
        };
        let mut open = |file: &String| pool.graph(file);
        let networks = Networks {
            main: open(&stage.network)?,
            control: stage.control.as_ref().map(&mut open).transpose()?,
            last: stage.last_network.as_ref().map(&mut open).transpose()?,
        };
        let evaluations = start.plan.steps.len();
        let run = (evaluations, saves_memory(pool.options().session.device, shape));
        let mut network =
            ConditionedNetwork::new(networks, (branches, unguided), &conditions, run)?
                .rescaled(request.guidance_rescale)
                .with_timestep_factor(stage.timestep_factor)
                .packed(stage.packed);
        let noise = draws.steps(&start.plan, drawn)?;
        let row = |row: usize| RowNoise { noise: noise.as_ref(), row, rows };
        let of_row = |i: usize| x.slice_axis(Axis(0), (i..i + 1).into()).to_owned();
        let mut sampled =
            self.execute(&mut network, (of_row(0), &start, &row(0)), &given, observer, watch)?;
        let mut networks = network.into_networks();
        if rows > 1 {
            let start = (of_row(1), &start, &row(1) as &dyn NoiseSource);
            let (negative, used) = self.negative(networks, conditions, start, &given, watch)?;
            sampled = stacked(&[sampled.view(), negative.view()])?;
            networks = used;
        }
        self.give_back(pool, networks);
        report.evaluations += evaluations;
        if self.is_main() {
            report.sampler = start.sampler;
            report.steps = steps;
            report.guidance_scale = guidance_scale;
        }
        report.strength = report.strength.or(starts_at_image.then_some(strength));
        report.noise_level = report.noise_level.or(given.level);
        if stage.guidance == GuidanceSpec::TextAndImage {
            report.image_guidance_scale = Some(self.image_guidance_scale());
        }
        report.size = size;
        let sampled = match &stage.normalization {
            Some(files) => self.denormalized(sampled, files)?,
            // The image of a stage goes on within its range.
            None if !self.is_last() => sampled.mapv(|value| value.clamp(-1.0, 1.0)),
            None => sampled,
        };
        Ok(sampled)
    }

    /// The part of the schedule that a start image goes through; all without one.
    fn strength(&self, starts_at_image: bool) -> Result<f64> {
        match self.request.strength {
            Some(strength) if !(0.0..=1.0).contains(&strength) => {
                Err(Error::usage(format!("strength is {strength}, but must lie between 0 and 1")))
            }
            Some(strength) if starts_at_image => Ok(strength),
            None if starts_at_image => {
                let defaults = &self.stage.defaults;
                let of_mask = defaults.inpaint_strength.filter(|_| self.request.mask.is_some());
                Ok(of_mask.unwrap_or(defaults.strength))
            }
            _ => Ok(1.0),
        }
    }

    fn image_guidance_scale(&self) -> f64 {
        self.request.image_guidance_scale.unwrap_or(IMAGE_GUIDANCE_SCALE)
    }

    /// The branches of guidance, and the timesteps of the plan without it.
    fn branches(&self, scale: f64, plan: &Plan) -> (Branches, Vec<f64>) {
        let interval = self.request.guidance_interval;
        let is_guided = |step: &&Step| {
            interval.is_none_or(|[low, high]| (low..=high).contains(&step.level.sigma()))
        };
        let (guided, unguided): (Vec<&Step>, Vec<&Step>) = plan.steps.iter().partition(is_guided);
        let branches = match self.stage.guidance {
            _ if guided.is_empty() || scale <= 1.0 => Branches::Single,
            GuidanceSpec::ClassifierFree => Branches::ClassifierFree { scale },
            GuidanceSpec::TextAndImage => {
                Branches::TextAndImage { scale, image: self.image_guidance_scale() }
            }
            GuidanceSpec::Embedded | GuidanceSpec::Unguided => Branches::Single,
        };
        (branches, unguided.into_iter().map(|step| step.t).collect())
    }

    fn give_back(&self, pool: &mut NetworkPool, Networks { main, control, last }: Networks) {
        let stage = self.stage;
        pool.give_back(&stage.network, main);
        for (file, graph) in [(&stage.control, control), (&stage.last_network, last)] {
            if let (Some(file), Some(graph)) = (file, graph) {
                pool.give_back(file, graph);
            }
        }
    }

    /// Samples the embedding of the negative prompt. It would be guided away from itself, so it is
    /// not guided.
    fn negative(
        &self,
        networks: Networks,
        conditions: Conditions<'_>,
        start: (Array4<f32>, &StagePlan, &dyn NoiseSource),
        given: &Given,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(Array4<f32>, Networks)> {
        let positive = self.embedded.negative.clone();
        let embedded = Embeddings { positive, ..self.embedded.clone() };
        let conditions = Conditions { text: Some(&embedded), ..conditions };
        let (branches, run) = ((Branches::Single, Vec::new()), (start.1.plan.steps.len(), false));
        let mut network = ConditionedNetwork::new(networks, branches, &conditions, run)?
            .with_timestep_factor(self.stage.timestep_factor);
        let negative = self.execute(&mut network, start, given, None, watch)?;
        Ok((negative, network.into_networks()))
    }

    /// The class and the one to guide away from, of a network that is conditioned on one.
    fn classes(&self) -> Result<Option<[f32; 2]>> {
        let Self { stage, request, .. } = *self;
        let (count, Some(class)) = (stage.classes, request.class) else { return Ok(None) };
        let negative = request.negative_class.unwrap_or(count);
        match [class, negative].into_iter().find(|class| *class > count) {
            Some(class) => Err(Error::usage(format!(
                "{} has the classes 0 to {}, and {class} was requested; change {CLASS}",
                self.spec.name,
                count.saturating_sub(1)
            ))),
            None => Ok((count > 0).then_some([class as f32, negative as f32])),
        }
    }

    /// Whether the stage samples an embedding of the negative prompt, too, for the next stage to be
    /// guided by (Kandinsky 2.2).
    fn samples_negative(&self) -> bool {
        let next = self.spec.stages.get(self.index + 1).map(|stage| &stage.prior);
        matches!(next, Some(PriorConditioning::ImageEmbedding { .. }))
            && self.request.negative_prompt.is_some()
    }

    /// Runs the plan on the state `x`.
    fn execute(
        &self,
        network: &mut ConditionedNetwork,
        (x, start, noise): (Array4<f32>, &StagePlan, &dyn NoiseSource),
        given: &Given,
        observer: Option<&mut dyn StepObserver>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Array4<f32>> {
        let stage = self.stage;
        let shape: Shape = x.dim().into();
        let learned;
        let noise: &dyn NoiseSource = if start.has_learned_variance {
            learned = LearnedVariance::new(noise, network.variance(), shape, &start.plan);
            &learned
        } else {
            noise
        };
        let mut state = State::new(x, &start.plan, noise, &SigmaMap::ABSOLUTE)?;
        let mut filled;
        let canvas: &mut dyn Canvas = match (&given.mask, &given.start) {
            (Some(mask), Some(image)) if stage.concat == ConcatCondition::Nothing => {
                let (state, plan) = (&mut state, &start.plan);
                filled = Filled { state, plan, mask, image, noise: &given.noise };
                &mut filled
            }
            _ => &mut state,
        };
        let mut observed;
        let canvas: &mut dyn Canvas = match observer {
            Some(observer) if !matches!(stage.state, StateSpec::Vector(_)) => {
                let is_latent = self.is_last() && self.spec.decoder.is_some();
                let (plan, stage) = (&start.plan, self.index);
                observed = Observed { canvas, observer, plan, stage, is_latent };
                &mut observed
            }
            _ => canvas,
        };
        let tiles = TilePlan::whole(shape[3], shape[2], 1);
        execute(&start.plan, network, canvas, &tiles, &SigmaMap::ABSOLUTE, watch)?;
        Ok(state.into_inner())
    }

    /// Checks that the stage has a state that its parts can take.
    fn check_state(&self, [height, width]: [usize; 2]) -> Result<()> {
        let stage = self.stage;
        let is_vector = matches!(stage.state, StateSpec::Vector(_));
        let decoder = self.spec.decoder.as_ref().filter(|_| self.is_last());
        let problem = if height == 0 || width == 0 {
            "an image is smaller than a value of its latent".to_owned()
        } else if stage.packed && (height % 2 != 0 || width % 2 != 0) {
            format!("its network takes patches of 2x2, and the state is {width}x{height}")
        } else if stage.control.is_some() && (stage.packed || is_vector) {
            "Eddy runs no ControlNet of this kind of network; remove its folder".to_owned()
        } else if let Some(decoder) = decoder.filter(|it| it.channels != stage.channels) {
            format!(
                "its network samples {} channels, and its decoder takes {}",
                stage.channels, decoder.channels
            )
        } else {
            return Ok(());
        };
        Err(self.error(problem))
    }

    /// Pixels to a value of the state.
    pub(super) fn scale(&self) -> usize {
        if self.is_last() { self.spec.decoder_scale() } else { 1 }
    }
}

/// Whether branches are evaluated one after the other. On a CPU that takes as long from some 48x48
/// values of the state on (384x384 pixels of Stable Diffusion), and a smaller state takes little
/// memory beside the weights.
fn saves_memory(device: Device, [_, _, height, width]: Shape) -> bool {
    const SMALLEST: usize = 48 * 48;
    device == Device::Cpu && height * width >= SMALLEST
}

/// The sizes and scores of the prompt and of the negative prompt.
fn time_ids(micro: MicroConditions, [width, height]: [usize; 2]) -> Option<[Vec<f32>; 2]> {
    let (width, height) = (width as f32, height as f32);
    match micro {
        MicroConditions::None => None,
        MicroConditions::Sizes => {
            let ids = vec![height, width, 0.0, 0.0, height, width];
            Some([ids.clone(), ids])
        }
        MicroConditions::Aesthetic { score, negative } => {
            Some([score, negative].map(|score| vec![height, width, 0.0, 0.0, score]))
        }
    }
}
