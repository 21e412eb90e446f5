//! A stage of a pipeline as a trajectory: its plan, and the conditions of its network.

use super::CompileOptions;
use super::builder::{Builder, When};
use super::inputs::unsupported;
use super::onnx::{Attribute, Element, Length, Port};
use super::part::Part;
use super::properties::Properties;
use super::source::Source;
use super::text::Embedded;
use super::trajectory::{Emitted, FreeGuidance, SigmaSource, Start, Trajectory, name};
use crate::diffusion::{Plan, Sampler};
use crate::error::{Error, Result};
use crate::model::ModelFolder;
use crate::network::Interface;
use crate::stages::{
    ConcatCondition, Enlargement, GuidanceSpec, MicroConditions, OUTPUTS, PipelineSpec,
    PlanRequest, SAMPLES, StageSchedule, StageSpec, StateSpec, TIMESTEPS, guidance_embedding,
    variance_ratios,
};

const ONCE: When = When::Once;
/// A network does not have a wider embedding of its guidance scale.
const WIDEST_EMBEDDING: usize = 1 << 16;
/// Normal noise for an enlarged image.
const LOW_NOISE: &str = "low_resolution_noise";

/// A stage, and how it is sampled.
pub(super) struct StageCompiler<'a> {
    folder: &'a ModelFolder,
    spec: &'a PipelineSpec,
    stage: &'a StageSpec,
    /// What the names of its inputs end with.
    suffix: String,
    /// The name of the value that it ends with.
    pub(super) output: String,
    pub(super) plan: Plan,
    /// The factor of the initial noise.
    noise: f64,
    /// By step, if the network predicts the variance.
    variance: Option<Vec<f32>>,
    pub(super) sampler: Option<Sampler>,
    pub(super) steps: usize,
    /// The guidance scale, of networks that take it as an input, too.
    scale: f64,
    pub(super) guidance: Option<FreeGuidance>,
    is_last: bool,
}

impl<'a> StageCompiler<'a> {
    /// Plans a stage. Steps, scale, sampler and eta of `options` are taken as by `eddy generate`.
    pub(super) fn new(
        (folder, spec): (&'a ModelFolder, &'a PipelineSpec),
        (index, stage): (usize, &'a StageSpec),
        options: &CompileOptions,
    ) -> Result<Self> {
        let is_main = index == spec.main;
        let is_last = index + 1 == spec.stages.len();
        let steps = options.steps.filter(|_| is_main).unwrap_or(stage.defaults.steps);
        let scale = options.guidance_scale.filter(|_| is_main);
        let scale = scale.unwrap_or(stage.defaults.guidance_scale);
        super::check_guidance_scale(scale)?;
        let schedule = StageSchedule::read(folder, &stage.scheduler)?;
        if let StageSchedule::Flow(flow) = &schedule
            && flow.dynamic_shift.is_some()
        {
            let what = "its schedule depends on the size of the image";
            return Err(unsupported(&folder.to_string(), what));
        }
        let planned = schedule.plan(PlanRequest {
            steps,
            skipped: 0,
            sampler: options.sampler,
            eta: options.eta,
            tokens: 0,
            has_even_sigmas: stage.has_even_sigmas,
            part: 1.0,
        })?;
        let classes = i64::try_from(stage.classes).unwrap_or(i64::MAX);
        let is_guided = stage.guidance == GuidanceSpec::ClassifierFree && scale > 1.0;
        let guidance = is_guided.then_some(FreeGuidance {
            scale,
            negative: (classes > 0).then_some(classes),
            is_sum: true,
        });
        Ok(Self {
            folder,
            spec,
            stage,
            suffix: if index == 0 { String::new() } else { format!("_{}", index + 1) },
            output: format!("eddy/sampled_{}", index + 1),
            variance: planned.has_learned_variance.then(|| variance_ratios(&planned.plan)),
            plan: planned.plan,
            noise: planned.noise,
            sampler: planned.sampler.parse().ok(),
            steps,
            scale,
            guidance,
            is_last,
        })
    }

    /// Says what the stage is.
    pub(super) fn describe(&self, all: &mut Properties) {
        let Self { suffix, .. } = self;
        if let Some(sampler) = self.sampler {
            all.push(format!("sampler{suffix}"), sampler.name());
        }
        all.push(format!("steps{suffix}"), self.steps);
        all.push(format!("evaluations{suffix}"), self.plan.steps.len());
        if let Some(guidance) = self.guidance {
            all.push(format!("guidance_scale{suffix}"), guidance.scale);
        }
        if self.stage.classes > 0 {
            all.push("null_class", self.stage.classes);
        }
        all.push(format!("init_noise_sigma{suffix}"), self.noise as f32);
        all.push_plan(&self.plan, suffix);
    }

    /// Emits the stage, with the conditions of texts (of which the second half is of negative
    /// prompts, if that is `true`), and what the stage before gave, with its shape.
    pub(super) fn emit(
        &self,
        part: &Part<'_>,
        (text, has_negative, before): (&Embedded, bool, Option<&(String, Vec<Length>)>),
        builder: &mut Builder,
    ) -> Result<Emitted> {
        let Self { stage, .. } = *self;
        let names = Names::of(part)?;
        let sample = format!("{}{}", name::SAMPLE, self.suffix);
        let sizes = builder.node(ONCE, "Shape", &[&sample]);
        let [first, last] = [[0].as_slice(), &[2, 3]].map(|axes| builder.integers(axes));
        let batch = builder.gather(ONCE, &sizes, &first, 0);
        let sides = builder.gather(ONCE, &sizes, &last, 0);
        let evaluated = if self.guidance.is_some() {
            let two = builder.integers(&[2]);
            builder.node(ONCE, "Mul", &[&batch, &two])
        } else {
            batch.clone()
        };
        let mut conditions = Conditions {
            stage: self,
            part,
            text,
            has_surplus: has_negative && self.guidance.is_none(),
            batch,
            sides,
            evaluated,
            builder,
        };
        let mut further = Vec::new();
        let concat = conditions.concat(before, &mut further)?;
        let mut given = Vec::new();
        let is_by_class = stage.classes > 0;
        for port in &part.source.inputs {
            let own = part.own_name(&port.name);
            let is_state = [&names.sample, &names.timestep].contains(&&port.name);
            if is_state || is_by_class && own == "class_labels" {
                continue;
            }
            given.push((port.name.clone(), conditions.value(port, own)?));
        }
        let class = is_by_class.then(|| format!("{}class_labels", part.prefix));
        let interface = Interface {
            sample: Some(names.sample),
            timestep: Some(names.timestep),
            class,
            output: names.output,
            ..Interface::default()
        };
        let trajectory = Trajectory {
            model: &part.name,
            interface: &interface,
            channels: stage.channels,
            multiple_of: 1,
            plan: &self.plan,
            start: Start::Sample,
            sigma: SigmaSource::Uniform(1.0),
            guidance: self.guidance,
            output: &self.output,
            sides: match stage.state {
                StateSpec::FixedImage([width, height]) => {
                    Some([height, width].map(|side| i64::try_from(side).unwrap_or(i64::MAX)))
                }
                _ => None,
            },
            suffix: &self.suffix,
            timestep_factor: stage.timestep_factor,
            given: &given,
            concat: concat.as_deref(),
            variance: self.variance.as_deref(),
        };
        // The interface has the names of now.
        let renamed = std::collections::BTreeMap::new();
        let mut emitted = trajectory.emit(&part.source, &renamed, builder)?;
        emitted.inputs.extend(further);
        Ok(emitted)
    }
}

/// The names of what changes from step to step, as they are now.
struct Names {
    sample: String,
    timestep: String,
    output: String,
}

impl Names {
    fn of(part: &Part<'_>) -> Result<Self> {
        let find = |ports: &[Port], wanted: &[&str], what: &str| {
            let names = wanted.iter().map(|name| format!("{}{name}", part.prefix));
            let found = names.into_iter().find(|name| ports.iter().any(|port| port.name == *name));
            found.ok_or_else(|| {
                let problem = format!("it has no {what} named {}", wanted.join(" or "));
                Error::model(&part.name, problem)
            })
        };
        let output = match part.source.outputs.as_slice() {
            [only] => only.name.clone(),
            several => find(several, &OUTPUTS, "output")?,
        };
        Ok(Self {
            sample: find(&part.source.inputs, &SAMPLES, "input")?,
            timestep: find(&part.source.inputs, &TIMESTEPS, "input")?,
            output,
        })
    }
}

/// What the inputs of a stage's network are given. Sizes are names of values.
struct Conditions<'a> {
    stage: &'a StageCompiler<'a>,
    part: &'a Part<'a>,
    text: &'a Embedded,
    /// Whether there are embeddings of negative prompts, which this stage does not take.
    has_surplus: bool,
    batch: String,
    sides: String,
    evaluated: String,
    builder: &'a mut Builder,
}

impl Conditions<'_> {
    /// The value of an input, of which `own` is the name in its own graph.
    fn value(&mut self, port: &Port, own: &str) -> Result<String> {
        let StageCompiler { stage, spec, scale, .. } = *self.stage;
        let text = self.text;
        let of_text = |value: &Option<String>| value.clone();
        let (value, element) = match own {
            "encoder_hidden_states" => (of_text(&text.sequence), Element::F32),
            "encoder_attention_mask" | "attention_mask" => (of_text(&text.mask), Element::I64),
            "text_embeds" | "pooled_projections" => (of_text(&text.pooled), Element::F32),
            "time_ids" if stage.micro == MicroConditions::Sizes => {
                return self.time_ids().and_then(|value| self.cast(port, &value, Element::F32));
            }
            "guidance" | "timestep_cond" if stage.guidance == GuidanceSpec::Embedded => {
                let row = match own {
                    "guidance" => vec![scale as f32],
                    _ => {
                        let width = port.shape.last().and_then(Length::fixed).unwrap_or(256);
                        let width = usize::try_from(width).unwrap_or(256).min(WIDEST_EMBEDDING);
                        guidance_embedding(scale - 1.0, width)
                    }
                };
                let row: Vec<f64> = row.into_iter().map(f64::from).collect();
                let value = self.row(port, &row);
                return self.cast(port, &value, Element::F32);
            }
            "class_labels" if stage.low_res_scheduler.is_some() => {
                let value = self.row(port, &[stage.defaults.noise_level as f64]);
                return self.cast(port, &value, Element::F32);
            }
            _ => (None, Element::F32),
        };
        let Some(value) = value else {
            let what = format!("its input `{own}` has no value in {}", spec.name);
            return Err(unsupported(&self.part.name, what));
        };
        let value = if self.has_surplus { self.first_half(&value) } else { value };
        self.cast(port, &value, element)
    }

    fn cast(&mut self, port: &Port, value: &str, element: Element) -> Result<String> {
        self.part.cast(self.builder, port, value, element)
    }

    /// The rows that belong to prompts.
    fn first_half(&mut self, value: &str) -> String {
        let zero = self.builder.integers(&[0]);
        self.builder.slice(ONCE, value, [&zero, &self.batch], &[0])
    }

    /// The same row for each evaluation, as a vector or a matrix.
    fn row(&mut self, port: &Port, row: &[f64]) -> String {
        let width = i64::try_from(row.len()).unwrap_or(1);
        if port.shape.len() < 2 {
            let value = self.builder.tensor(Element::F32, &[width], row);
            return self.builder.node(ONCE, "Expand", &[&value, &self.evaluated]);
        }
        let value = self.builder.tensor(Element::F32, &[1, width], row);
        let width = self.builder.integers(&[width]);
        let shape = self.builder.concat(ONCE, &[&self.evaluated, &width], 0);
        self.builder.node(ONCE, "Expand", &[&value, &shape])
    }

    /// Height and width in pixels, the corner of a crop, and height and width again.
    fn time_ids(&mut self) -> Result<String> {
        let stage = self.stage;
        let scale = if stage.is_last { stage.spec.decoder_scale() } else { 1 };
        let builder = &mut *self.builder;
        let scale = builder.integers(&[i64::try_from(scale).unwrap_or(1)]);
        let size = builder.node(ONCE, "Mul", &[&self.sides, &scale]);
        let corner = builder.integers(&[0, 0]);
        let row = builder.concat(ONCE, &[&size, &corner, &size], 0);
        let row = builder.cast(ONCE, &row, Element::F32);
        let six = builder.integers(&[6]);
        let shape = builder.concat(ONCE, &[&self.evaluated, &six], 0);
        Ok(builder.node(ONCE, "Expand", &[&row, &shape]))
    }

    /// What is concatenated with the state: the enlarged image of the stage before, with noise if
    /// there is a schedule for it, which is one more of the `inputs`.
    fn concat(
        &mut self,
        before: Option<&(String, Vec<Length>)>,
        inputs: &mut Vec<(Port, String)>,
    ) -> Result<Option<String>> {
        let StageCompiler { stage, folder, suffix, .. } = self.stage;
        let ConcatCondition::Enlarged(how) = stage.concat else { return Ok(None) };
        let Some((small, shape)) = before else {
            let problem = "there is no image to enlarge";
            return Err(Error::model(folder.to_string(), problem));
        };
        let builder = &mut *self.builder;
        // The image of a stage goes on within its range.
        let ends = [-1.0, 1.0].map(|end| builder.scalar(Element::F32, end));
        let small = builder.node(ONCE, "Clip", &[small, &ends[0], &ends[1]]);
        let mut value = resize(builder, how, &small, &self.sides);
        if let Some(file) = &stage.low_res_scheduler {
            let schedule = StageSchedule::read(folder, file)?;
            let level = stage.defaults.noise_level;
            let [signal, sigma] = schedule.level(level).ok_or_else(|| {
                let problem = format!("its {file} has no level of noise for the timestep {level}");
                Error::model(folder.to_string(), problem)
            })?;
            let name = format!("{LOW_NOISE}{suffix}");
            let [batch, channels, _, _] = shape.as_slice() else { return Ok(None) };
            let side = |at: usize| match stage.state {
                StateSpec::FixedImage(size) => Length::Fixed(size[at].try_into().unwrap_or(1)),
                _ => Length::named(&format!("{}{suffix}", ["width", "height"][at])),
            };
            let noise = vec![batch.clone(), channels.clone(), side(1), side(0)];
            let doc = "Normal noise of variance 1 for the enlarged image of the stage before";
            inputs.push((Port::new(&name, Element::F32, noise), doc.to_owned()));
            let [signal, sigma] =
                [signal, sigma].map(|factor| builder.scalar(Element::F32, factor));
            let image = builder.node(ONCE, "Mul", &[&signal, &value]);
            let noise = builder.node(ONCE, "Mul", &[&sigma, &name]);
            value = builder.node(ONCE, "Add", &[&image, &noise]);
        }
        if self.stage.guidance.is_some() {
            value = builder.concat(ONCE, &[&value, &value], 0);
        }
        let names = Names::of(self.part)?;
        let sample = Source::find(&self.part.source.inputs, &names.sample, &self.part.name)?;
        self.cast(sample, &value, Element::F32).map(Some)
    }
}

/// Enlarges an image to these sides.
fn resize(builder: &mut Builder, how: Enlargement, image: &str, sides: &str) -> String {
    let shape = builder.node(ONCE, "Shape", &[image]);
    let first = builder.integers(&[0, 1]);
    let first = builder.gather(ONCE, &shape, &first, 0);
    let sizes = builder.concat(ONCE, &[&first, sides], 0);
    let inputs = [image, "", "", &sizes];
    let positions = |mode| Attribute::Text("coordinate_transformation_mode", mode);
    let linear = Attribute::Text("mode", "linear");
    match how {
        Enlargement::Bilinear => {
            builder.node_with(ONCE, "Resize", &inputs, [linear, positions("align_corners")])
        }
        Enlargement::BilinearCenters => {
            builder.node_with(ONCE, "Resize", &inputs, [linear, positions("half_pixel")])
        }
        // Weights beyond the borders are left out, as Pillow does it.
        Enlargement::Bicubic => {
            let attributes = [
                Attribute::Text("mode", "cubic"),
                Attribute::Float("cubic_coeff_a", -0.5),
                Attribute::Int("exclude_outside", 1),
                positions("half_pixel"),
            ];
            builder.node_with(ONCE, "Resize", &inputs, attributes)
        }
    }
}
