//! Pipelines of several networks as one graph: text encoders, the stages of sampling, the decoder.

use std::collections::BTreeMap;
use std::path::Path;

use super::builder::{Builder, When};
use super::inputs::unsupported;
use super::onnx::{Element, Length, Port};
use super::properties::Properties;
use super::source::Source;
use super::stage::StageCompiler;
use super::text::emit_text;
use super::trajectory::{graph, model};
use super::{CompileOptions, Compiled};
use crate::error::{Error, Result};
use crate::model::{Links, MAX_GRAPH_BYTES, Precision, find_inside, read_regular, with_weights};
use crate::setting::PRECISION;
use crate::stages::{
    AutoencoderSpec, ConcatCondition, GuidanceSpec, MicroConditions, PipelineSpec,
    PriorConditioning, StageSpec, StateSpec, pipeline_of, variant,
};

const ONCE: When = When::Once;
const OUTPUT: &str = "image";

/// Compiles a pipeline of several networks: text encoders, one stage of sampling or a cascade, and
/// a decoder.
///
/// The result takes `tokens` of each text encoder, `sample`, the normal noise from which the first
/// stage starts times `eddy.init_noise_sigma`, and `noise` of samplers that draw it. With guidance,
/// `negative_tokens` may be left out, as an empty prompt, and so may `guidance_scale`. It gives
/// `image`, from -1 to 1. Names of further text encoders and stages end with their number: `_2`.
/// Steps and guidance scale of `options` are the main stage's.
///
/// # Errors
/// [`Error::Usage`] for options out of range; [`Error::Model`] for a folder that is not a pipeline,
/// or of a kind that cannot be compiled, and for networks that one file of ONNX cannot hold.
pub fn compile_pipeline(folder: &Path, options: &CompileOptions) -> Result<Compiled> {
    let spec = pipeline_of(folder)?;
    let place = folder.display().to_string();
    if let Some(what) = unsupported_part(&spec) {
        return Err(unsupported(&place, what));
    }
    let precision = options.precision.unwrap_or_default();
    let files: Vec<String> = spec.networks().map(|file| variant(folder, file, precision)).collect();
    if precision != Precision::F32 && spec.networks().eq(files.iter().map(String::as_str)) {
        let problem =
            format!("none of its networks is there in {precision}; leave {PRECISION} out");
        return Err(Error::model(place, problem));
    }
    let networks = read_networks(folder, &files)?;
    let parts = files.iter().zip(&networks).enumerate();
    let parts = parts.map(|(index, (file, bytes))| Part::read(folder, (index, file), bytes));
    let parts: Vec<Part<'_>> = parts.collect::<Result<_>>()?;
    let (text, rest) = parts.split_at(spec.text.len());
    let (stages, decoder) = rest.split_at(spec.stages.len());

    let mut builder = Builder::default();
    let (mut inputs, mut all) = (Vec::new(), Properties::new());
    let name = folder.file_name().map_or(place.clone(), |name| name.to_string_lossy().into_owned());
    all.push("model", name);
    all.push("task", "text-to-image");
    all.push("precision", precision);
    all.push("range", "-1 1");
    let compilers: Vec<StageCompiler<'_>> = spec
        .stages
        .iter()
        .enumerate()
        .map(|(index, stage)| StageCompiler::new((folder, &spec), (index, stage), options))
        .collect::<Result<_>>()?;
    let is_guided = compilers.iter().any(|stage| stage.guidance.is_some());
    let embedded = emit_text((folder, &spec), text, is_guided, &mut builder, &mut inputs)?;
    let mut sampled = None;
    for (compiler, part) in compilers.iter().zip(stages) {
        let given = (&embedded, is_guided, sampled.as_ref());
        let emitted = compiler.emit(part, given, &mut builder)?;
        compiler.describe(&mut all);
        inputs.extend(emitted.inputs);
        sampled = Some((compiler.output.clone(), emitted.shape));
    }
    let Some((value, shape)) = sampled else {
        return Err(Error::model(place, "it has no stages"));
    };
    let shape = match (&spec.decoder, decoder) {
        (Some(spec), [part, ..]) => emit_decoder(spec, part, (&value, &shape), &mut builder)?,
        _ => {
            builder.alias(ONCE, &value, OUTPUT);
            shape
        }
    };
    let output = Port::new(OUTPUT, Element::F32, shape);
    let outputs = [(output, "The image, black -1 to white 1".to_owned())];
    let (ir_version, fields) = joined_fields(&place, &parts)?;
    let graph = graph(builder, &inputs, &outputs);
    let file = model(ir_version, fields.into_iter(), &all.0, graph);
    let main = compilers.get(spec.main).or(compilers.first());
    Ok(Compiled {
        file,
        network_bytes: networks.iter().map(Vec::len).sum(),
        sampler: main.and_then(|stage| stage.sampler),
        steps: main.map_or(0, |stage| stage.steps),
        evaluations: compilers.iter().map(|stage| stage.plan.steps.len()).sum(),
        guidance_scale: main.and_then(|stage| stage.guidance).map(|guidance| guidance.scale),
    })
}

/// What of a pipeline cannot be compiled.
fn unsupported_part(spec: &PipelineSpec) -> Option<&'static str> {
    let of_stage = |(index, stage): (usize, &StageSpec)| {
        let is_enlarged = matches!(stage.concat, ConcatCondition::Enlarged(_));
        let reasons = [
            (stage.control.is_some(), "it has a ControlNet"),
            (stage.last_network.is_some(), "a stage has another network for its last step"),
            (stage.prior != PriorConditioning::Nothing, "a stage is conditioned on an embedding"),
            (matches!(stage.state, StateSpec::Vector(_)), "a stage samples an embedding"),
            (stage.normalization.is_some(), "a stage samples normalized values"),
            (stage.packed, "its network takes patches in a row"),
            (
                !(is_enlarged && index > 0 || stage.concat == ConcatCondition::Nothing),
                "it works on an image that is given",
            ),
            (stage.guidance == GuidanceSpec::TextAndImage, "it is guided by an image"),
            (
                matches!(stage.micro, MicroConditions::Aesthetic { .. }),
                "it is conditioned on an aesthetic score",
            ),
        ];
        reasons.into_iter().find(|(applies, _)| *applies).map(|(_, what)| what)
    };
    let instruction = spec.text.iter().any(|text| text.instruction.is_some());
    let instruction = instruction.then_some("it puts an instruction before prompts");
    spec.stages.iter().enumerate().find_map(of_stage).or(instruction)
}

/// The networks with their weights, all of which have to fit into one file.
fn read_networks(folder: &Path, files: &[String]) -> Result<Vec<Vec<u8>>> {
    let mut left = MAX_GRAPH_BYTES;
    let mut networks = Vec::new();
    for file in files {
        let name = folder.join(file).display().to_string();
        let path = find_inside(folder, file, Links::Cache);
        let bytes =
            path.and_then(|path| read_regular(&path, MAX_GRAPH_BYTES)).map_err(|cause| {
                Error::model_from(
                    &name,
                    "it is a network of the pipeline, and cannot be read",
                    cause,
                )
            })?;
        let beside = folder.join(file);
        let beside = beside.parent().unwrap_or(folder);
        let bytes = with_weights(bytes, beside, Links::Cache, &name)?;
        left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            let problem = format!(
                "its networks cannot be put into one file, which holds {} MiB at most; export them \
                 in half precision, or compile a smaller pipeline",
                MAX_GRAPH_BYTES >> 20
            );
            Error::model(folder.display().to_string(), problem)
        })?;
        networks.push(bytes);
    }
    Ok(networks)
}

/// A network of the pipeline, with names that no other has.
pub(super) struct Part<'a> {
    /// Its file, for errors.
    pub(super) name: String,
    /// What all its names begin with.
    pub(super) prefix: String,
    pub(super) source: Source<'a>,
}

impl<'a> Part<'a> {
    fn read(folder: &Path, (index, file): (usize, &str), bytes: &'a [u8]) -> Result<Self> {
        let name = folder.join(file).display().to_string();
        let mut source = Source::read(bytes, &name)?;
        // Short, since it is stored with each name.
        let prefix = format!("{index}/");
        source.prefix(&prefix);
        Ok(Self { name, prefix, source })
    }

    /// The name that its own graph has for a value.
    pub(super) fn own_name<'n>(&self, name: &'n str) -> &'n str {
        name.strip_prefix(&self.prefix).unwrap_or(name)
    }

    /// The names and ranks of its outputs.
    pub(super) fn outputs(&self) -> impl Iterator<Item = (&str, usize)> {
        self.source.outputs.iter().map(|port| (self.own_name(&port.name), port.shape.len()))
    }

    /// Gives an input a value that is of `element`.
    pub(super) fn give(
        &self,
        builder: &mut Builder,
        port: &Port,
        value: &str,
        element: Element,
    ) -> Result<()> {
        let wanted = port.element.ok_or_else(|| {
            let what = format!("its input `{}` is not of numbers", self.own_name(&port.name));
            unsupported(&self.name, what)
        })?;
        if wanted == element {
            builder.alias(ONCE, value, &port.name);
        } else {
            let value = builder.cast(ONCE, value, wanted);
            builder.alias(ONCE, &value, &port.name);
        }
        Ok(())
    }

    /// Emits its nodes and weights once.
    pub(super) fn emit(&self, builder: &mut Builder) {
        self.source.nodes.iter().for_each(|node| builder.push(ONCE, node));
        builder.add_weights(&self.source);
    }

    /// An output in float32, by the name that the network's own graph has for it.
    pub(super) fn output(&self, builder: &mut Builder, name: &str) -> Result<(&Port, String)> {
        let name = format!("{}{name}", self.prefix);
        let port = Source::find(&self.source.outputs, &name, &self.name)?;
        let value = match port.element {
            Some(Element::F32) => name,
            _ => builder.cast(ONCE, &name, Element::F32),
        };
        Ok((port, value))
    }
}

/// Emits the decoder of latents, and gives the shape of the image.
fn emit_decoder(
    spec: &AutoencoderSpec,
    part: &Part<'_>,
    (latent, shape): (&str, &[Length]),
    builder: &mut Builder,
) -> Result<Vec<Length>> {
    let (input, output) = ("latent_sample", "sample");
    let channels = i64::try_from(spec.channels).unwrap_or(1);
    if shape.get(1).and_then(Length::fixed) != Some(channels) {
        let problem = format!("it takes latents of {channels} channels; the network gives others");
        return Err(Error::model(&part.name, problem));
    }
    let moments = |i: usize, default: f64| -> Vec<f64> {
        let given = spec.normalization.as_ref().map_or(&[][..], |moments| &moments[i]);
        let moment = |channel| given.get(channel).copied().map_or(default, f64::from);
        (0..spec.channels).map(moment).collect()
    };
    let each = [1, channels, 1, 1];
    let [mean, deviation] = [moments(0, spec.shift), moments(1, 1.0)];
    let factor = builder.scalar(Element::F32, spec.factor);
    let mut value = builder.node(ONCE, "Div", &[latent, &factor]);
    for (operator, neutral, moments) in [("Mul", 1.0, deviation), ("Add", 0.0, mean)] {
        if moments.iter().any(|moment| *moment != neutral) {
            let moments = builder.tensor(Element::F32, &each, &moments);
            value = builder.node(ONCE, operator, &[&value, &moments]);
        }
    }
    let wanted = format!("{}{input}", part.prefix);
    let port = Source::find(&part.source.inputs, &wanted, &part.name)?;
    if let Some(other) = part.source.inputs.iter().find(|port| port.name != wanted) {
        let what = format!("its decoder has an input `{}`", part.own_name(&other.name));
        return Err(unsupported(&part.name, what));
    }
    part.give(builder, port, &value, Element::F32)?;
    part.emit(builder);
    let (_, decoded) = part.output(builder, output)?;
    builder.alias(ONCE, &decoded, OUTPUT);
    let scale = i64::try_from(spec.scale).unwrap_or(1);
    let side = |length: &Length, name: &str| match length {
        Length::Fixed(length) => Length::Fixed(length.saturating_mul(scale)),
        Length::Named(_) => Length::named(&format!("image_{name}")),
    };
    let [batch, _, height, width] = shape else { return Ok(shape.to_vec()) };
    Ok(vec![batch.clone(), Length::Fixed(3), side(height, "height"), side(width, "width")])
}

/// The fields that the nodes of all networks need, and the newest version of the format.
fn joined_fields<'a>(place: &str, parts: &[Part<'a>]) -> Result<(i64, Vec<&'a [u8]>)> {
    let mut fields: Vec<&[u8]> = Vec::new();
    let mut opsets: BTreeMap<&str, i64> = BTreeMap::new();
    for part in parts {
        for (domain, version) in &part.source.opsets {
            let known = *opsets.entry(domain).or_insert(*version);
            if known != *version {
                let problem = format!(
                    "its networks are of the opsets {known} and {version}, and one graph has one; \
                     export the pipeline again with the same opset for all"
                );
                return Err(Error::model(place, problem));
            }
        }
        if parts.len() > 1 && part.source.has_functions {
            let what = "its networks have functions of their own";
            return Err(unsupported(&part.name, what));
        }
        for field in &part.source.model_fields {
            if !fields.contains(field) {
                fields.push(field);
            }
        }
    }
    let ir_version = parts.iter().map(|part| part.source.ir_version).max().unwrap_or_default();
    Ok((ir_version, fields))
}
