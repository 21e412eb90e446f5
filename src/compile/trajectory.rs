//! The graph of a whole trajectory: what comes before the steps, the loop, and its inputs and
//! outputs.

use std::collections::BTreeMap;

use super::builder::{Builder, STEP, When};
use super::decoder::{Decoder, unscaled};
use super::describe::PREFIX;
use super::inputs::{Fixed, prepare};
use super::onnx::{Attribute, Element, Length, Port, node};
use super::part::{Part, joined_fields};
use super::source::Source;
use super::step::emit_step;
use crate::diffusion::Plan;
use crate::error::Result;
use crate::model::DecoderSpec;
use crate::model::protobuf::Message;
use crate::network::Interface;

/// The names of inputs.
pub(super) mod name {
    /// The state before the first step.
    pub(crate) const SAMPLE: &str = "sample";
    /// The class of each sample.
    pub(crate) const CLASS: &str = "class";
    /// The class that guidance leads away from.
    pub(crate) const NEGATIVE: &str = "negative_class";
    /// The scale of classifier-free guidance.
    pub(crate) const GUIDANCE: &str = "guidance_scale";
    /// The noise level of the image.
    pub(crate) const SIGMA: &str = "sigma";
    /// The image to enlarge.
    pub(crate) const LOW: &str = "low_resolution";
    /// Normal noise, of which an upscaler makes the state before the first step.
    pub(crate) const START_NOISE: &str = "initial_noise";
    /// Normal noise of the steps.
    pub(crate) const NOISE: &str = "noise";
    /// All of them.
    pub(crate) const ALL: [&str; 8] =
        [SAMPLE, CLASS, NEGATIVE, GUIDANCE, SIGMA, LOW, START_NOISE, NOISE];
}

/// The output of a graph that decodes.
const IMAGE: &str = "image";

/// Where the state of the first step comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start {
    /// It is an input.
    Sample,
    /// The enlarged low-resolution image, with noise of that sigma if there are several steps.
    Enlarged(f32),
}

/// Where the map of sigma comes from, which the levels multiply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SigmaSource {
    /// The same in all pixels.
    Uniform(f32),
    /// It is an input.
    Input,
}

/// Classifier-free guidance, with its defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FreeGuidance {
    pub(super) scale: f64,
    /// Whether both predictions are weighed and added, as `stages/denoiser` does it, rather than
    /// their difference added to one. A strong guidance shows how either is rounded.
    pub(super) is_sum: bool,
    /// The negative class, of a network that takes one.
    pub(super) negative: Option<i64>,
}

/// What is compiled.
pub(super) struct Trajectory<'a> {
    /// The model's name, for errors.
    pub(super) model: &'a str,
    pub(super) interface: &'a Interface,
    pub(super) channels: usize,
    /// Height and width of the network's sample are multiples of this.
    pub(super) multiple_of: usize,
    pub(super) plan: &'a Plan,
    pub(super) start: Start,
    pub(super) sigma: SigmaSource,
    pub(super) guidance: Option<FreeGuidance>,
    /// The name of the value that is the state after the last step.
    pub(super) output: &'a str,
    /// Height and width of the state, where they are not the network's to say.
    pub(super) sides: Option<[i64; 2]>,
    /// What the names of its inputs end with, where a graph has several trajectories.
    pub(super) suffix: &'a str,
    /// The factor between the sampler's timestep and the network's input.
    pub(super) timestep_factor: f64,
    /// Values for further inputs of the network, by the names that these have now.
    pub(super) given: &'a [(String, String)],
    /// A value to concatenate with the sample, of the size of the network's sample.
    pub(super) concat: Option<&'a str>,
    /// Logarithms of ratios of standard deviations, by step, of a network that predicts the
    /// variance of the noise (Nichol and Dhariwal 2021, equation 15).
    pub(super) variance: Option<&'a [f32]>,
}

/// The names of values that steps carry to the next.
pub(super) const X: &str = "eddy/x";
const NEXT: &str = "eddy/next";

pub(super) fn kept(slot: usize) -> String {
    format!("eddy/kept_{slot}")
}

impl Trajectory<'_> {
    /// Whether the steps are the body of a loop.
    pub(super) fn is_loop(&self) -> bool {
        self.plan.steps.len() > 1
    }

    /// The name of an input.
    pub(super) fn named(&self, name: &str) -> String {
        format!("{name}{}", self.suffix)
    }

    /// The graph, as an ONNX file with these properties.
    ///
    /// # Errors
    /// As for [`compile`](super::compile).
    pub(super) fn build(
        &self,
        network: &[u8],
        decoder: Option<(&DecoderSpec, &[u8])>,
        properties: &[(String, String)],
    ) -> Result<Vec<u8>> {
        let mut source = Source::read(network, self.model)?;
        let reserved = [&name::ALL[..], &[self.output, IMAGE]].concat();
        let renamed = source.rename(&reserved);
        let mut builder = Builder::default();
        let Emitted { inputs, shape } = self.emit(&source, &renamed, &mut builder)?;
        let Some((spec, bytes)) = decoder else {
            let output = Port::new(self.output, Element::F32, shape);
            let outputs = [(output, "The state after the last step".to_owned())];
            let fields = source.model_fields.iter().chain(&source.metadata).copied();
            let graph = graph(builder, &inputs, &outputs);
            return Ok(model(source.ir_version, fields, properties, graph));
        };
        let name = format!("{} ({})", self.model, spec.path);
        let part = Part::read(name, "eddy/decoder/".into(), bytes)?;
        let decoder = Decoder {
            part: &part,
            names: [&spec.input, &spec.output],
            latent_channels: self.channels,
            channels: spec.channels,
            scale: spec.scale,
        };
        let latent = unscaled(spec, self.output, &mut builder);
        let shape = decoder.emit((&latent, &shape), IMAGE, &mut builder)?;
        let outputs = [(Port::new(IMAGE, Element::F32, shape), "The decoded image".to_owned())];
        let (ir_version, fields) = joined_fields(self.model, &[&source, &part.source])?;
        let fields = fields.into_iter().chain(source.metadata.iter().copied());
        let graph = graph(builder, &inputs, &outputs);
        Ok(model(ir_version, fields, properties, graph))
    }

    /// Emits the steps into a graph, in which the state after the last one has the name `output`.
    ///
    /// # Errors
    /// As for [`compile`](super::compile).
    pub(super) fn emit(
        &self,
        source: &Source<'_>,
        renamed: &BTreeMap<String, String>,
        builder: &mut Builder,
    ) -> Result<Emitted> {
        let fixed = prepare(self, source, renamed, builder)?;
        let next = emit_step(self, source, renamed, &fixed, builder)?;
        if self.is_loop() {
            self.emit_loop(source, &fixed, &next, builder);
        } else {
            builder.alias(When::Step, &next.x, self.output);
            let steps = std::mem::take(&mut builder.step).into_bytes();
            builder.once = std::mem::take(&mut builder.once).encoded(&steps);
            builder.add_weights(source);
        }
        Ok(Emitted { inputs: fixed.inputs, shape: fixed.shape })
    }

    /// Appends the loop over the steps that the builder has. Its body has the weights, where ONNX
    /// Runtime optimizes them together with the nodes that use them.
    fn emit_loop(&self, source: &Source<'_>, fixed: &Fixed, next: &Next, builder: &mut Builder) {
        const GO_ON: &str = "eddy/go_on";
        const GOES_ON: &str = "eddy/goes_on";
        builder.alias(When::Step, GO_ON, GOES_ON);
        builder.alias(When::Step, &next.x, NEXT);
        let mut body = source.with_weights(std::mem::take(&mut builder.step).bytes(2, "step"));
        let state = |name: &str| Port::new(name, Element::F32, fixed.shape.clone()).write("");
        let flag = |name| Port::new(name, Element::Bool, Vec::new()).write("");
        body = body.message(11, Port::new(STEP, Element::I64, Vec::new()).write(""));
        body = body.message(11, flag(GO_ON)).message(11, state(X));
        body = (0..next.kept.len()).fold(body, |body, slot| body.message(11, state(&kept(slot))));
        body = body.message(12, flag(GOES_ON)).message(12, state(NEXT));
        body = next.kept.iter().fold(body, |body, name| body.message(12, state(name)));
        let steps = builder.scalar(Element::I64, self.plan.steps.len() as f64);
        let mut inputs = vec![steps.as_str(), "", &fixed.x];
        let mut outputs = vec![self.output.to_owned()];
        let zeros = (!next.kept.is_empty()).then(|| {
            let shape = builder.node(When::Once, "Shape", &[&fixed.x]);
            builder.node(When::Once, "ConstantOfShape", &[&shape])
        });
        for (slot, zeros) in zeros.iter().cycle().take(next.kept.len()).enumerate() {
            inputs.push(zeros);
            outputs.push(format!("{}_end", kept(slot)));
        }
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let body = [Attribute::Graph("body", body)];
        builder.push(When::Once, node("Loop", &inputs, &outputs, body).into_bytes());
    }
}

/// What a trajectory in a graph takes, and the shape of what it gives.
pub(super) struct Emitted {
    /// Its inputs, and what they are.
    pub(super) inputs: Vec<(Port, String)>,
    pub(super) shape: Vec<Length>,
}

/// The graph of what the builder has.
pub(super) fn graph(
    builder: Builder,
    inputs: &[(Port, String)],
    outputs: &[(Port, String)],
) -> Message {
    let graph = builder.once.bytes(2, "trajectory").encoded(&builder.constants.into_bytes());
    let with = |graph: Message, field: u64, ports: &[(Port, String)]| {
        ports.iter().fold(graph, |graph, (port, doc)| graph.message(field, port.write(doc)))
    };
    with(with(graph, 11, inputs), 12, outputs)
}

/// The ONNX file of a graph. `fields` are those of the networks' models that their nodes need.
pub(super) fn model<'a>(
    ir_version: i64,
    fields: impl Iterator<Item = &'a [u8]>,
    properties: &[(String, String)],
    graph: Message,
) -> Vec<u8> {
    /// The first version in which a constant may be the default of an input.
    const DEFAULTS: i64 = 4;
    let model = Message::default().number(1, ir_version.max(DEFAULTS));
    let model = model.bytes(2, "eddy").bytes(3, env!("CARGO_PKG_VERSION"));
    let model = fields.fold(model, Message::encoded);
    let model = properties.iter().fold(model, |model, (key, value)| {
        model.message(14, Message::default().bytes(1, format!("{PREFIX}{key}")).bytes(2, value))
    });
    model.message(7, graph).into_bytes()
}

/// The values that a step gives.
pub(super) struct Next {
    /// The state.
    pub(super) x: String,
    /// The kept values, by slot.
    pub(super) kept: Vec<String>,
}

/// A free axis of the state.
pub(super) fn free(name: &str) -> Length {
    Length::named(name)
}
