//! One stage of a pipeline: what it takes of a request and of the stage before, and its run.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use ndarray::{Array2, Array4, ArrayD, Axis, concatenate};

use super::bound_graph::{Conditions, stacked};
use super::conditioning_images;
use super::denoiser::{Branches, ConditionedNetwork, Networks};
use super::learned_variance::LearnedVariance;
use super::network_pool::NetworkPool;
use super::noise_draws::NoiseDraws;
use super::observed::{Observed, StepObserver};
use super::spec::{
    ConcatCondition, Enlargement, GuidanceSpec, MicroConditions, PipelineSpec, PriorConditioning,
    StageSpec, StateSpec, StrengthSpec,
};
use super::stage_schedule::{PlanRequest, StagePlan, StageSchedule};
use super::text::Embeddings;
use super::{StageRequest, TextToImageReport, TextToImageRequest};
use crate::diffusion::{
    Canvas, Level, NoiseAt, NoiseSource, Plan, Progress, SigmaMap, State, Step, Update, Window,
    execute,
};
use crate::error::{Error, Result};
use crate::media::Image;
use crate::model::{Links, find_inside};
use crate::network::{Shape, TensorGraph};
use crate::setting::SIZE;
use crate::tensor::Range;
use crate::tile::TilePlan;

/// The scale of the image in InstructPix2Pix.
const IMAGE_GUIDANCE_SCALE: f64 = 1.5;

/// A stage, and what it runs on.
pub(super) struct StageRun<'a> {
    /// The folder of the pipeline.
    pub(super) folder: &'a Path,
    pub(super) spec: &'a PipelineSpec,
    pub(super) stage: &'a StageSpec,
    pub(super) request: &'a TextToImageRequest<'a>,
    /// What is asked of this stage alone.
    pub(super) asked: StageRequest,
    /// The position of the stage.
    pub(super) index: usize,
    pub(super) embedded: &'a Embeddings,
    /// What the stage before sampled.
    pub(super) before: Option<&'a Array4<f32>>,
}

/// Inputs by name, for the prompt and for the negative prompt.
type Named = BTreeMap<String, [ArrayD<f32>; 2]>;

impl StageRun<'_> {
    /// Whether the request's steps and guidance scale are this stage's.
    fn is_main(&self) -> bool {
        self.index == self.spec.main
    }

    /// Whether no stage follows, but a decoder if there is one.
    fn is_last(&self) -> bool {
        self.index + 1 == self.spec.stages.len()
    }

    fn error(&self, problem: impl Into<String>) -> Error {
        Error::model(self.folder.display().to_string(), problem)
    }

    /// Samples the stage by networks of the pool.
    pub(super) fn sample(
        &self,
        pool: &mut NetworkPool,
        draws: &mut NoiseDraws,
        observer: Option<&mut dyn StepObserver>,
        report: &mut TextToImageReport,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Array4<f32>> {
        let Self { stage, request, .. } = *self;
        let defaults = &stage.defaults;
        let own = |asked: Option<f64>| asked.filter(|_| self.is_main());
        let guidance_scale = self.asked.guidance_scale.or(own(request.guidance_scale));
        let guidance_scale = guidance_scale.unwrap_or(defaults.guidance_scale);
        let steps = self.asked.steps.or(request.steps.filter(|_| self.is_main()));
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
        let strength = match request.strength {
            Some(strength) if !(0.0..=1.0).contains(&strength) => {
                let problem = format!("strength is {strength}, but must lie between 0 and 1");
                return Err(Error::usage(problem));
            }
            strength if starts_at_image => strength.unwrap_or(defaults.strength),
            _ => 1.0,
        };
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
        let image_scale = request.image_guidance_scale.unwrap_or(IMAGE_GUIDANCE_SCALE);
        let branches = match stage.guidance {
            GuidanceSpec::ClassifierFree if guidance_scale > 1.0 => {
                Branches::ClassifierFree { scale: guidance_scale }
            }
            GuidanceSpec::TextAndImage if guidance_scale > 1.0 => {
                Branches::TextAndImage { scale: guidance_scale, image: image_scale }
            }
            _ => Branches::Single,
        };
        let is_guided_at = |sigma: f64| {
            request.guidance_interval.is_none_or(|[low, high]| (low..=high).contains(&sigma))
        };
        let (guided, unguided): (Vec<&Step>, Vec<&Step>) =
            start.plan.steps.iter().partition(|step| is_guided_at(step.level.sigma()));
        let branches = if guided.is_empty() { Branches::Single } else { branches };
        report.uses_negative_prompt |= branches != Branches::Single;
        let control = request.control.map(|image| -> Result<_> {
            let image = conditioning_images::color_planes(image, size, Range::new(0.0, 1.0)?)?;
            Ok((image, request.control_scale.unwrap_or(1.0)))
        });
        let conditions = Conditions {
            text: Some(self.embedded),
            named: self.named(pool)?,
            concat: given.concat.take(),
            image_is_guided: stage.guidance == GuidanceSpec::TextAndImage,
            time_ids: time_ids(stage.micro, size),
            size,
            control: control.transpose()?,
            label: given.label,
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
        let unguided = unguided.into_iter().map(|step| step.t).collect();
        let mut network =
            ConditionedNetwork::new(networks, (branches, unguided), &conditions, evaluations)?
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
            // The embedding of the negative prompt is guided away from itself, so it is not guided.
            let negative = self.embedded.negative.clone();
            let embedded = Embeddings { positive: negative, ..self.embedded.clone() };
            let conditions = Conditions { text: Some(&embedded), ..conditions };
            let branches = (Branches::Single, Vec::new());
            let mut network =
                ConditionedNetwork::new(networks, branches, &conditions, evaluations)?
                    .with_timestep_factor(stage.timestep_factor);
            let start = (of_row(1), &start, &row(1) as &dyn NoiseSource);
            let negative = self.execute(&mut network, start, &given, None, watch)?;
            sampled = stacked(&[sampled.view(), negative.view()])?;
            networks = network.into_networks();
        }
        let Networks { main, control, last } = networks;
        pool.give_back(&stage.network, main);
        for (file, graph) in [(&stage.control, control), (&stage.last_network, last)] {
            if let (Some(file), Some(graph)) = (file, graph) {
                pool.give_back(file, graph);
            }
        }
        report.evaluations += evaluations;
        if self.is_main() {
            report.sampler = start.sampler;
            report.steps = steps;
            report.guidance_scale = guidance_scale;
        }
        report.strength = report.strength.or(starts_at_image.then_some(strength));
        report.noise_level = report.noise_level.or(given.level);
        if stage.guidance == GuidanceSpec::TextAndImage {
            report.image_guidance_scale = Some(image_scale);
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
    fn scale(&self) -> usize {
        if self.is_last() { self.spec.decoder_scale() } else { 1 }
    }

    /// What a network was trained on normalized values of, in its own units.
    fn denormalized(&self, mut sampled: Array4<f32>, files: &[String; 2]) -> Result<Array4<f32>> {
        let channels = sampled.dim().1;
        let read = |file: &String| self.vector(file, channels);
        let (mean, deviation) = (read(&files[0])?, read(&files[1])?);
        for (channel, mut values) in sampled.axis_iter_mut(Axis(1)).enumerate() {
            values.mapv_inplace(|value| value * deviation[channel] + mean[channel]);
        }
        Ok(sampled)
    }

    /// The vector in a `.npy` file of the folder.
    fn vector(&self, file: &str, length: usize) -> Result<Vec<f32>> {
        let path = find_inside(self.folder, file, Links::Cache).map_err(|cause| {
            let problem = format!("its {file} cannot be read; it scales what a stage samples");
            Error::model_from(self.folder.display().to_string(), problem, cause)
        })?;
        let values: Vec<f32> = crate::array::read::<ndarray::IxDyn>(&path)?.into_iter().collect();
        if values.len() != length {
            let found = values.len();
            return Err(self.error(format!("its {file} has {found} values; expected {length}")));
        }
        Ok(values)
    }

    /// What the stage takes of the embedding that the one before sampled.
    fn named(&self, pool: &mut NetworkPool) -> Result<Named> {
        let embedding = |row: usize| -> Result<Array2<f32>> {
            let before = self.before.filter(|it| it.dim().2 == 1 && it.dim().3 == 1);
            let before = before.ok_or_else(|| {
                self.error("a stage takes the embedding of an image, and none comes before it")
            })?;
            Ok(Array2::from_shape_fn([1, before.dim().1], |(_, i)| before[[row, i, 0, 0]]))
        };
        match &self.stage.prior {
            PriorConditioning::Nothing => Ok(Named::new()),
            // The second row is that of the negative prompt.
            PriorConditioning::ImageEmbedding { .. }
                if self.before.is_some_and(|before| before.dim().0 == 2) =>
            {
                let embeddings = [embedding(0)?.into_dyn(), embedding(1)?.into_dyn()];
                Ok(Named::from([("image_embeds".to_owned(), embeddings)]))
            }
            PriorConditioning::ImageEmbedding { encoder, size } => {
                let mut graph = pool.graph(encoder)?;
                let black = Array4::<f32>::zeros([1, 3, *size, *size]);
                let (input, output) = (
                    graph.inputs().first().map(|port| port.name.clone()).unwrap_or_default(),
                    graph.outputs().first().map(|port| port.name.clone()).unwrap_or_default(),
                );
                let given = graph.run(&[(&input, black.view().into_dyn())], &[&output])?;
                pool.give_back(encoder, graph);
                let unguided = given.into_iter().next().unwrap_or_default();
                let embeddings = [embedding(0)?.into_dyn(), unguided];
                Ok(Named::from([("image_embeds".to_owned(), embeddings)]))
            }
            PriorConditioning::Projection { network } => {
                let mut graph = pool.graph(network)?;
                let named = self.projected(&mut graph, embedding(0)?)?;
                pool.give_back(network, graph);
                Ok(named)
            }
        }
    }

    /// Tokens and an embedding of time of the embeddings of an image and of both prompts. The graph
    /// doubles the image's for the negative prompt.
    fn projected(&self, graph: &mut TensorGraph, embedding: Array2<f32>) -> Result<Named> {
        let text = self.embedded;
        let pooled = |it: &super::Embedding| it.pooled.clone().map(Array2::into_dyn);
        let pooled = [pooled(&text.negative), pooled(&text.positive)];
        let [Some(negative), Some(positive)] = pooled else {
            return Err(Error::model(graph.model(), "the text encoder gives no pooled embedding"));
        };
        let both = |rows: [ndarray::ArrayViewD<'_, f32>; 2]| {
            concatenate(Axis(0), &rows).map_err(|cause| {
                Error::model_from(graph.model(), "the prompts' embeddings differ in size", cause)
            })
        };
        let pooled = both([negative.view(), positive.view()])?;
        let sequences = [&text.negative.sequence, &text.positive.sequence];
        let sequence = both(sequences.map(|sequence| sequence.view().into_dyn()))?;
        let inputs = [
            ("image_embeddings", embedding.view().into_dyn()),
            ("prompt_embeds", pooled.view()),
            ("text_encoder_hidden_states", sequence.view()),
        ];
        let names = ["encoder_hidden_states", "additive_clip_time_embeddings"];
        let given = graph.run(&inputs, &names)?;
        let split = |array: &ArrayD<f32>| -> Result<[ArrayD<f32>; 2]> {
            if array.shape().first() != Some(&2) || array.ndim() < 2 {
                let problem = "it gives no embeddings for both prompts; export it with guidance";
                return Err(Error::model(graph.model(), problem));
            }
            let row = |i: usize| array.slice_axis(Axis(0), (i..i + 1).into()).to_owned();
            Ok([row(1), row(0)])
        };
        let [tokens, time] = given.as_slice() else {
            return Err(Error::model(graph.model(), "it gives too few outputs"));
        };
        let tokens = split(tokens)?;
        if tokens[0].ndim() != 3 {
            let problem = "its encoder_hidden_states are no sequence of embeddings";
            return Err(Error::model(graph.model(), problem));
        }
        // What is put in front of the text's tokens is no padding.
        let mask = |it: &super::Embedding, tokens: &ArrayD<f32>| {
            let own = it.mask.clone().unwrap_or_default();
            let more = tokens.shape()[1].saturating_sub(own.dim().1);
            let shape = [1, more + own.dim().1];
            let value = |(_, i): (usize, usize)| if i < more { 1.0 } else { own[[0, i - more]] };
            Array2::from_shape_fn(shape, value).into_dyn()
        };
        let masks = [mask(&text.positive, &tokens[0]), mask(&text.negative, &tokens[1])];
        Ok(Named::from([
            ("encoder_hidden_states".to_owned(), tokens),
            ("class_labels".to_owned(), split(time)?),
            ("attention_mask".to_owned(), masks),
        ]))
    }

    /// Factors of image and noise at a timestep of the schedule in a file.
    fn noise_at(&self, file: &str, timestep: usize) -> Result<[f64; 2]> {
        let factors = StageSchedule::read(self.folder, file)?.level(timestep);
        factors.ok_or_else(|| {
            Error::usage(format!("the noise level {timestep} lies beyond the schedule in {file}"))
        })
    }

    /// The image of the stage before, or the start image, at the size of the state.
    fn enlarged(&self, how: Enlargement, shape: Shape, draws: &mut NoiseDraws) -> Result<Given> {
        const DEFAULT_LEVEL: usize = 250;
        let small = match (self.before, self.request.start) {
            (Some(before), _) => before.clone(),
            (None, Some(image)) => {
                let size = [image.width, image.height];
                conditioning_images::color_planes(image, size, Range::new(-1.0, 1.0)?)?
            }
            (None, None) => return Err(self.error("there is no image to enlarge")),
        };
        let [_, _, height, width] = shape;
        let large = match how {
            Enlargement::Bilinear => conditioning_images::bilinear(&small, [width, height]),
            Enlargement::Bicubic => conditioning_images::bicubic(&small, [width, height]),
        };
        let noise = draws.next(shape)?;
        let mut given = Given { noise, ..Given::default() };
        given.concat = Some(match &self.stage.low_res_scheduler {
            None => large,
            Some(file) => {
                let level = self.request.noise_level.unwrap_or(DEFAULT_LEVEL);
                let [signal, sigma] = self.noise_at(file, level)?;
                given.label = Some(level as f32);
                given.level = Some(level);
                let noise: Array4<f32> = draws.next(large.dim())?;
                signal as f32 * &large + sigma as f32 * &noise
            }
        });
        Ok(given)
    }

    /// Width and height of what the stage samples, in pixels.
    fn size(&self) -> Result<[usize; 2]> {
        let Self { stage, request, .. } = *self;
        match stage.state {
            StateSpec::FixedImage(size) => return Ok(size),
            StateSpec::Vector(_) => return Ok([1, 1]),
            StateSpec::Image => {}
        }
        let scale = self.scale();
        let packed = if stage.packed { 2 } else { 1 };
        let is_even = stage.multiple_of.is_multiple_of(packed);
        let multiple = scale * stage.multiple_of * if is_even { 1 } else { packed };
        if let (ConcatCondition::LowRes, Some(small)) = (stage.concat, request.start) {
            let size = [small.width, small.height];
            if size.iter().any(|side| side % stage.multiple_of != 0) {
                return Err(Error::usage(format!(
                    "{} enlarges images whose sides are multiples of {}, and this one is {}x{}; \
                     crop or resize it",
                    self.spec.name, stage.multiple_of, small.width, small.height
                )));
            }
            return Ok(size.map(|side| scale * side));
        }
        let of_image = request.start.or(request.control).map(|image| {
            let whole = |side: usize| (side / multiple * multiple).max(multiple);
            [whole(image.width), whole(image.height)]
        });
        let of_image = of_image.filter(|_| !matches!(stage.concat, ConcatCondition::Enlarged(_)));
        let size = request.size.or(of_image).unwrap_or(stage.defaults.size);
        if size.iter().any(|side| *side == 0 || side % multiple != 0) {
            let [width, height] = size;
            return Err(Error::usage(format!(
                "{} generates images of multiples of {multiple} pixels, and {width}x{height} was \
                 asked for; change {SIZE}",
                self.spec.name
            )));
        }
        Ok(size)
    }

    /// The images of a request as the stage takes them, and the initial noise, drawn in diffusers'
    /// order.
    fn images(
        &self,
        pool: &mut NetworkPool,
        (size, shape): ([usize; 2], Shape),
        strength: f64,
        draws: &mut NoiseDraws,
    ) -> Result<Given> {
        let Self { stage, request, .. } = *self;
        let scale = self.scale();
        let range = Range::new(-1.0, 1.0)?;
        let nothing =
            |noise| Given { noise, is_filled: request.mask.is_some(), ..Given::default() };
        if let ConcatCondition::Enlarged(how) = stage.concat {
            return self.enlarged(how, shape, draws);
        }
        let Some(image) = request.start.filter(|_| stage.state == StateSpec::Image) else {
            return Ok(nothing(draws.next(shape)?));
        };
        if stage.concat == ConcatCondition::LowRes {
            return self.low_res(image, shape, draws);
        }
        let encoder = self.spec.encoder.as_ref().ok_or_else(|| {
            self.error("it has no vae_encoder, which an image to start from goes through")
        })?;
        let pixels = conditioning_images::color_planes(image, size, range)?;
        let mask = match request.mask {
            Some(mask) if [mask.width, mask.height] != [image.width, image.height] => {
                return Err(Error::usage(format!(
                    "the mask is {}x{} and the image {}x{}; expected the same size",
                    mask.width, mask.height, image.width, image.height
                )));
            }
            Some(mask) => Some(conditioning_images::mask_planes(mask, size)?),
            None => None,
        };
        let mut graph = pool.graph(&encoder.network)?;
        if stage.concat == ConcatCondition::Image {
            let noise = draws.next(shape)?;
            // This pipeline leaves the scale of latents out.
            let mean = encoder.encode(&mut graph, &pixels, None)?;
            pool.give_back(&encoder.network, graph);
            return Ok(Given { concat: Some(mean), ..nothing(noise) });
        }
        let is_needed = stage.concat == ConcatCondition::Nothing || strength < 1.0;
        let mut of = |pixels: &Array4<f32>, draws: &mut NoiseDraws| -> Result<Array4<f32>> {
            Ok(encoder.normalized(encoder.encode(&mut graph, pixels, Some(draws))?))
        };
        let start = if is_needed { Some(of(&pixels, draws)?) } else { None };
        let noise = draws.next(shape)?;
        let masked = match &mask {
            None => None,
            Some(mask) => Some(of(&(&pixels * &mask.mapv(|masked| 1.0 - masked)), draws)?),
        };
        pool.give_back(&encoder.network, graph);
        let Some((mask, masked)) = mask.zip(masked) else {
            return Ok(Given { start, ..nothing(noise) });
        };
        let mask = conditioning_images::subsampled(mask.view(), scale);
        let concat = match stage.concat {
            ConcatCondition::MaskedImage => {
                let joined = concatenate(Axis(1), &[mask.view(), masked.view()]);
                Some(joined.map_err(|cause| {
                    Error::model_from(&self.spec.name, "its encoder gives another size", cause)
                })?)
            }
            _ => None,
        };
        Ok(Given { start, concat, mask: Some(mask), ..nothing(noise) })
    }

    /// A small image with the noise that the upscaler was trained with.
    fn low_res(&self, image: &Image, shape: Shape, draws: &mut NoiseDraws) -> Result<Given> {
        const DEFAULT_LEVEL: usize = 20;
        let level = self.request.noise_level.unwrap_or(DEFAULT_LEVEL);
        let file = self.stage.low_res_scheduler.as_deref().unwrap_or_default();
        let [signal, sigma] = self.noise_at(file, level)?;
        let range = Range::new(-1.0, 1.0)?;
        let pixels = conditioning_images::color_planes(image, [image.width, image.height], range)?;
        let noise: Array4<f32> = draws.next(pixels.dim())?;
        let noised = signal as f32 * &pixels + sigma as f32 * &noise;
        Ok(Given {
            noise: draws.next(shape)?,
            concat: Some(noised),
            label: Some(level as f32),
            level: Some(level),
            ..Given::default()
        })
    }
}

/// The noise of one row of a batch.
struct RowNoise<'a> {
    noise: &'a dyn NoiseSource,
    row: usize,
    /// Rows of the batch.
    rows: usize,
}

impl NoiseSource for RowNoise<'_> {
    fn fill(&self, at: NoiseAt, x: usize, out: &mut [f32]) {
        self.noise.fill(NoiseAt { batch: self.row as u32, ..at }, x, out);
    }

    fn covers(&self, steps: usize, [_, channels, height, width]: Shape) -> Result<()> {
        self.noise.covers(steps, [self.rows, channels, height, width])
    }
}

/// The images of a request, as a stage takes them.
#[derive(Default)]
struct Given {
    /// The initial noise.
    noise: Array4<f32>,
    /// The latent of the start image.
    start: Option<Array4<f32>>,
    /// The mask at the size of the latent.
    mask: Option<Array4<f32>>,
    /// What is concatenated to the state.
    concat: Option<Array4<f32>>,
    /// The class that says how noisy it is.
    label: Option<f32>,
    /// That level, as a timestep.
    level: Option<usize>,
    /// Whether masked areas are filled.
    is_filled: bool,
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

/// A state whose known part is put back after each step, with the noise of the next level.
struct Filled<'a, 's> {
    state: &'a mut State<'s>,
    plan: &'a Plan,
    mask: &'a Array4<f32>,
    image: &'a Array4<f32>,
    noise: &'a Array4<f32>,
}

impl Canvas for Filled<'_, '_> {
    fn shape(&self) -> Shape {
        self.state.shape()
    }

    fn read(&self, window: Window, scale: f32, out: &mut [f32]) -> Result<()> {
        self.state.read(window, scale, out)
    }

    fn update(&mut self, update: &Update<'_>) -> Result<()> {
        self.state.update(update)?;
        let level = self.plan.steps.get(update.index + 1).map_or(Level::CLEAN, |step| step.level);
        let (signal, noise) = (level.signal as f32, level.noise as f32);
        let known = signal * self.image + noise * self.noise;
        let channels = self.state.shape()[1];
        let x = self.state.tensor_mut();
        for channel in 0..channels {
            let mut plane = x.index_axis_mut(Axis(1), channel);
            let known = known.index_axis(Axis(1), channel);
            let mask = self.mask.index_axis(Axis(1), 0);
            ndarray::Zip::from(&mut plane)
                .and(&known)
                .and(&mask)
                .for_each(|x, known, mask| *x = (1.0 - mask) * known + mask * *x);
        }
        Ok(())
    }
}
