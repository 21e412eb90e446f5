//! Text encoders in a graph: from tokens to the conditions of the stages.

use super::builder::{Builder, When};
use super::inputs::unsupported;
use super::onnx::{Element, Length, Port};
use super::part::Part;
use super::trajectory::free;
use crate::error::{Error, Result};
use crate::model::ModelFolder;
use crate::stages::{
    EmbeddingSpec, PipelineSpec, PromptTokenizer, TextSpec, fragments, hidden_output, pooled_output,
};

const ONCE: When = When::Once;

/// Names of the inputs.
const TOKENS: &str = "tokens";
const MASK: &str = "attention_mask";
const NEGATIVE: &str = "negative_";
/// In place of the first negative token: there is no negative prompt.
const ABSENT: i64 = -1;

/// The conditions that prompts give: names of values, with the negative prompts, if there are any,
/// after the prompts.
#[derive(Default)]
pub(super) struct Embedded {
    /// `[B, tokens, features]`.
    pub(super) sequence: Option<String>,
    /// `[B, features]`.
    pub(super) pooled: Option<String>,
    /// `[B, tokens]`, of int64.
    pub(super) mask: Option<String>,
}

/// What one encoder gives.
struct Encoded {
    hidden: String,
    /// The length of its last axis.
    features: Option<i64>,
    pooled: Option<String>,
    mask: Option<String>,
}

/// Emits text encoders, whose networks are `parts`, and adds their inputs to `inputs`. With
/// `is_guided`, negative prompts are embedded, too.
pub(super) fn emit_text(
    (folder, spec): (&ModelFolder, &PipelineSpec),
    parts: &[Part<'_>],
    is_guided: bool,
    builder: &mut Builder,
    inputs: &mut Vec<(Port, String)>,
) -> Result<Embedded> {
    let mut encoded = Vec::new();
    for (index, (text, part)) in spec.text.iter().zip(parts).enumerate() {
        let tokenizer = PromptTokenizer::open(folder, &text.tokenizer, text.length)?;
        let suffix = if index == 0 { String::new() } else { format!("_{}", index + 1) };
        let mut encoder = Encoder { text, part, tokenizer, suffix, is_guided, builder, inputs };
        encoded.push(encoder.emit(&spec.embedding)?);
    }
    if encoded.is_empty() {
        return Ok(Embedded::default());
    }
    join(&encoded, &spec.embedding, builder).ok_or_else(|| {
        let what = "its text encoders give embeddings whose sizes their graphs do not declare";
        unsupported(&spec.name, what)
    })
}

struct Encoder<'a> {
    text: &'a TextSpec,
    part: &'a Part<'a>,
    tokenizer: PromptTokenizer,
    /// What the names of its inputs end with.
    suffix: String,
    is_guided: bool,
    builder: &'a mut Builder,
    inputs: &'a mut Vec<(Port, String)>,
}

impl Encoder<'_> {
    fn emit(&mut self, spec: &EmbeddingSpec) -> Result<Encoded> {
        let Self { part, text, .. } = *self;
        let outputs: Vec<(&str, usize)> = part.outputs().collect();
        let missing = || {
            let problem = "its text encoder does not give the hidden states that are needed; \
                           export it again with them";
            Error::model(&part.name, problem)
        };
        let hidden = hidden_output(&outputs, text.layer).ok_or_else(missing)?;
        let pooled = pooled_output(&outputs, text.is_projected);
        let empty = self.tokenizer.tokens(&fragments(""))?;
        let mut ids: Vec<f64> = empty.ids.iter().map(|id| f64::from(*id)).collect();
        let mask: Vec<f64> = empty.mask.iter().copied().map(f64::from).collect();
        if spec.absent_is_zero
            && let Some(first) = ids.first_mut()
        {
            *first = ABSENT as f64;
        }
        let length = self.tokenizer.length();
        let doc = format!("The {length} tokens of each prompt, filled up as the tokenizer does it");
        let mut tokens = self.input(TOKENS, &doc, &ids);
        let is_there = (spec.absent_is_zero && self.is_guided).then(|| {
            let zero = self.builder.scalar(Element::I64, 0.0);
            let there = self.builder.node(ONCE, "Less", &[&tokens, &zero]);
            let there = self.builder.node(ONCE, "Not", &[&there]);
            tokens = self.builder.node(ONCE, "Max", &[&tokens, &zero]);
            let there = self.builder.cast(ONCE, &there, Element::F32);
            let [start, end] = [0, 1].map(|number| self.builder.integers(&[number]));
            self.builder.slice(ONCE, &there, [&start, &end], &[1])
        });
        let mut given_mask = None;
        for port in &part.source.inputs {
            let value = match port.name.strip_prefix(&part.prefix) {
                Some("input_ids") => tokens.clone(),
                Some("attention_mask") => {
                    let value = self.mask(&mask);
                    given_mask = Some(value.clone());
                    value
                }
                _ => {
                    let name = part.own_name(&port.name);
                    let problem = format!(
                        "its input `{name}` is not one of a text encoder; expected input_ids and \
                         attention_mask"
                    );
                    return Err(Error::model(&part.name, problem));
                }
            };
            part.give(self.builder, port, &value, Element::I64)?;
        }
        if spec.mask.is_some() && given_mask.is_none() {
            given_mask = Some(self.mask(&mask));
        }
        part.emit(self.builder);
        let (port, hidden) = part.output(self.builder, &hidden)?;
        let features = port.shape.last().and_then(Length::fixed);
        let pooled = match pooled {
            Some(name) => Some(part.output(self.builder, &name)?.1),
            None => None,
        };
        let Some(there) = is_there else {
            return Ok(Encoded { hidden, features, pooled, mask: given_mask });
        };
        let shape = self.builder.integers(&[0, 1, 1]);
        let wide = self.builder.node(ONCE, "Reshape", &[&there, &shape]);
        let hidden = self.builder.node(ONCE, "Mul", &[&hidden, &wide]);
        let pooled = pooled.map(|pooled| self.builder.node(ONCE, "Mul", &[&pooled, &there]));
        Ok(Encoded { hidden, features, pooled, mask: given_mask })
    }

    fn mask(&mut self, negative: &[f64]) -> String {
        self.input(MASK, "1 for tokens of the prompt, 0 for those that fill it up", negative)
    }

    /// An input of the graph for each prompt, and with guidance one for negative prompts, whose
    /// default is `negative`. Gives the value for all.
    fn input(&mut self, name: &str, doc: &str, negative: &[f64]) -> String {
        let length = i64::try_from(negative.len()).unwrap_or(i64::MAX);
        let of_prompt = format!("{name}{}", self.suffix);
        let shape = vec![free("batch"), Length::Fixed(length)];
        self.inputs.push((Port::new(&of_prompt, Element::I64, shape), doc.to_owned()));
        if !self.is_guided {
            return of_prompt;
        }
        let of_negative = format!("{NEGATIVE}{name}{}", self.suffix);
        self.builder.constant(&of_negative, Element::I64, &[1, length], negative);
        let shape = vec![free("negative_batch"), Length::Fixed(length)];
        let doc = "The same of the prompt that guidance leads away from, one or as many";
        self.inputs.push((Port::new(&of_negative, Element::I64, shape), doc.into()));
        let shape = self.builder.node(ONCE, "Shape", &[&of_prompt]);
        let spread = self.builder.node(ONCE, "Expand", &[&of_negative, &shape]);
        self.builder.concat(ONCE, &[&of_prompt, &spread], 0)
    }
}

/// Joins what the encoders give; none if a size is not known.
fn join(encoded: &[Encoded], spec: &EmbeddingSpec, builder: &mut Builder) -> Option<Embedded> {
    let mut rows = Vec::new();
    for row in &spec.sequence {
        let of_row: Vec<&Encoded> = row.iter().filter_map(|i| encoded.get(*i)).collect();
        let hidden: Vec<&str> = of_row.iter().map(|it| it.hidden.as_str()).collect();
        let features = of_row.iter().map(|it| it.features).sum::<Option<i64>>();
        rows.push((builder.concat(ONCE, &hidden, 2), features));
    }
    if let Some([tokens, features]) = spec.absent {
        let [tokens, features] = [tokens, features].map(|it| i64::try_from(it).unwrap_or(1));
        let shape = builder.node(ONCE, "Shape", &[&encoded.first()?.hidden]);
        let first = builder.integers(&[0]);
        let batch = builder.gather(ONCE, &shape, &first, 0);
        let rest = builder.integers(&[tokens, features]);
        let shape = builder.concat(ONCE, &[&batch, &rest], 0);
        let zero = builder.scalar(Element::F32, 0.0);
        rows.push((builder.node(ONCE, "Expand", &[&zero, &shape]), Some(features)));
    }
    let widest = rows.iter().map(|(_, features)| *features).max().flatten();
    let mut filled = Vec::new();
    let is_joined = rows.len() > 1;
    for (value, features) in rows {
        let missing = if is_joined { widest? - features? } else { 0 };
        filled.push(if missing == 0 {
            value
        } else {
            let pads = builder.integers(&[0, 0, 0, 0, 0, missing]);
            builder.node(ONCE, "Pad", &[&value, &pads])
        });
    }
    let filled: Vec<&str> = filled.iter().map(String::as_str).collect();
    let pooled = spec.pooled.iter().filter_map(|i| encoded.get(*i)?.pooled.as_deref());
    let pooled: Vec<&str> = pooled.collect();
    Some(Embedded {
        sequence: (!filled.is_empty()).then(|| builder.concat(ONCE, &filled, 1)),
        pooled: (!pooled.is_empty()).then(|| builder.concat(ONCE, &pooled, 1)),
        mask: spec.mask.and_then(|i| encoded.get(i)?.mask.clone()),
    })
}
