//! Pipelines of several networks as one graph: text encoders, the stages of sampling, the decoder.

use super::builder::{Builder, When};
use super::decoder::{Decoder, restored};
use super::inputs::unsupported;
use super::onnx::{Element, Port};
use super::part::{Part, joined_fields};
use super::properties::Properties;
use super::stage::StageCompiler;
use super::text::emit_text;
use super::trajectory::{graph, model};
use super::{CompileOptions, Compiled};
use crate::error::{Error, Result};
use crate::model::{Links, MAX_GRAPH_BYTES, ModelFolder, Precision, with_weights};
use crate::setting::PRECISION;
use crate::stages::{
    ConcatCondition, GuidanceSpec, MicroConditions, PipelineSpec, PriorConditioning, StageSpec,
    StateSpec, pipeline_of, variant,
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
pub fn compile_pipeline(folder: &ModelFolder, options: &CompileOptions) -> Result<Compiled> {
    let spec = pipeline_of(folder)?;
    let place = folder.to_string();
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
    let parts = parts.map(|(index, (file, bytes))| {
        // A short prefix, since it is stored with each name.
        Part::read(format!("{folder}/{file}"), format!("{index}/"), bytes)
    });
    let parts: Vec<Part<'_>> = parts.collect::<Result<_>>()?;
    let (text, rest) = parts.split_at(spec.text.len());
    let (stages, decoder) = rest.split_at(spec.stages.len());

    let mut builder = Builder::default();
    let (mut inputs, mut all) = (Vec::new(), Properties::new());
    let name = folder.name();
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
        (Some(spec), [part, ..]) => {
            let latent = restored(spec, &value, &mut builder);
            let decoder = Decoder {
                part,
                names: ["latent_sample", "sample"],
                latent_channels: spec.channels,
                channels: 3,
                scale: spec.scale,
            };
            decoder.emit((&latent, &shape), OUTPUT, &mut builder)?
        }
        _ => {
            builder.alias(ONCE, &value, OUTPUT);
            shape
        }
    };
    let output = Port::new(OUTPUT, Element::F32, shape);
    let outputs = [(output, "The image, black -1 to white 1".to_owned())];
    let (ir_version, fields) =
        joined_fields(&place, &parts.iter().map(|part| &part.source).collect::<Vec<_>>())?;
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
fn read_networks(folder: &ModelFolder, files: &[String]) -> Result<Vec<Vec<u8>>> {
    let mut left = MAX_GRAPH_BYTES;
    let mut networks = Vec::new();
    for file in files {
        let name = format!("{folder}/{file}");
        let mut bytes = folder.read(file, MAX_GRAPH_BYTES).map_err(|cause| {
            Error::model_from(&name, "it is a network of the pipeline, and cannot be read", cause)
        })?;
        if let Some(folder) = folder.path() {
            let beside = folder.join(file);
            let beside = beside.parent().unwrap_or(folder);
            bytes = with_weights(bytes, beside, Links::Cache, &name)?;
        }
        left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            let problem = format!(
                "its networks cannot be put into one file, which holds {} MiB at most; export them \
                 in half precision, or compile a smaller pipeline",
                MAX_GRAPH_BYTES >> 20
            );
            Error::model(folder.to_string(), problem)
        })?;
        networks.push(bytes);
    }
    Ok(networks)
}
