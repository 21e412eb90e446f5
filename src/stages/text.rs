//! From prompts to the conditions of a network.

use std::path::Path;

use ndarray::{Array2, Array3, Axis, Ix2, Ix3, concatenate, s};

use super::TextToImageRequest;
use super::network_pool::NetworkPool;
use super::prompt::fragments;
use super::spec::{EmbeddingSpec, TextSpec};
use super::tokenizer::{PromptTokenizer, Tokens};
use crate::error::{Error, Result};
use crate::model::{Config, ModelFolder};
use crate::network::TensorGraph;

/// What the text encoders make of a prompt.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// `[1, tokens, features]`.
    pub sequence: Array3<f32>,
    /// `[1, features]`.
    pub pooled: Option<Array2<f32>>,
    /// `[1, tokens]`, 1 for tokens of the prompt.
    pub mask: Option<Array2<f32>>,
}

impl Embedding {
    /// The same with zeros throughout.
    fn zeros(&self) -> Self {
        Self {
            sequence: Array3::zeros(self.sequence.dim()),
            pooled: self.pooled.as_ref().map(|pooled| Array2::zeros(pooled.dim())),
            mask: self.mask.clone(),
        }
    }
}

/// The embeddings of a prompt and of a negative prompt, and what of them did not fit.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// Of the prompt.
    pub positive: Embedding,
    /// Of the negative prompt.
    pub negative: Embedding,
    /// The ends of prompts that were too long, with the number of tokens that there is room for.
    pub truncated: Vec<(String, usize)>,
    /// The words that no text encoder knows.
    pub unknown: Vec<String>,
}

/// What one encoder gives.
struct Encoded {
    hidden: Array3<f32>,
    pooled: Option<Array2<f32>>,
    mask: Array2<f32>,
}

/// A text encoder: its tokenizer and its network.
struct TextEncoder {
    tokenizer: PromptTokenizer,
    graph: TensorGraph,
    /// The outputs that are the embedding of a prompt, and of a negative one.
    hidden: [String; 2],
    pooled: Option<String>,
    limits: Limits,
}

/// What a text encoder takes, as far as its configuration says.
struct Limits {
    file: String,
    tokens: Option<usize>,
    vocabulary: Option<usize>,
}

impl Limits {
    /// Of the encoder whose network is this file.
    fn read(folder: &ModelFolder, network: &str) -> Result<Self> {
        const MOST: usize = 1 << 24;
        let file = Path::new(network).with_file_name("config.json").display().to_string();
        if !folder.contains(&file) {
            return Ok(Self { file, tokens: None, vocabulary: None });
        }
        let config = Config::read(folder, &file, "it describes a text encoder")?;
        let tokens = config.count("max_position_embeddings", 1..=MOST)?;
        let vocabulary = config.count("vocab_size", 1..=MOST)?;
        Ok(Self { file, tokens, vocabulary })
    }

    /// What of a prompt's tokens the encoder has no embedding for.
    fn problem(&self, ids: &[u32]) -> Option<String> {
        let largest = ids.iter().max().map_or(0, |id| *id as usize);
        let (found, known) = match (self.tokens, self.vocabulary) {
            (Some(most), _) if ids.len() > most => {
                (format!("a prompt of {} tokens", ids.len()), format!("takes {most}"))
            }
            (_, Some(known)) if largest >= known => (
                format!("a token of the id {largest}"),
                format!("has a vocabulary of {known} tokens"),
            ),
            _ => return None,
        };
        Some(format!(
            "its tokenizer gives {found}, and by {} it {known}; take the tokenizer that belongs to \
             it",
            self.file
        ))
    }
}

/// Embeds the prompt and the negative prompt of a request. `None` for the negative prompt means
/// that none was given. Each encoder is given back before the next is loaded.
///
/// # Errors
/// [`Error::Model`] when a tokenizer or a network is missing or does not fit,
/// [`Error::Evaluation`] when it fails.
pub(super) fn embed(
    pool: &mut NetworkPool,
    folder: &ModelFolder,
    (texts, spec): (&[TextSpec], &EmbeddingSpec),
    request: &TextToImageRequest<'_>,
) -> Result<Embeddings> {
    let (prompt, negative) = (&request.prompt, request.negative_prompt.as_deref());
    let (mut positives, mut negatives, mut truncated) = (Vec::new(), Vec::new(), Vec::new());
    let mut unknown: Option<Vec<String>> = None;
    for text in texts {
        let mut encoder = TextEncoder::open(pool, folder, text, request.clip_skip)?;
        let plain = |prompt: Option<&str>| {
            let prompt = prompt.unwrap_or_default();
            if text.is_lowercase {
                prompt.to_lowercase().trim().to_owned()
            } else {
                prompt.to_owned()
            }
        };
        let mut unread = Vec::new();
        let mut of = |prompt: &str, instruction: Option<&str>, layer: usize| -> Result<Encoded> {
            let tokens = encoder.tokens(prompt, instruction)?;
            if let Some(end) = &tokens.truncated {
                truncated.push((end.clone(), encoder.tokenizer.length()));
            }
            unread.extend(tokens.unknown.iter().cloned());
            encoder.encode(&tokens, layer)
        };
        let instruction = text.instruction.as_deref().filter(|_| !request.without_instruction);
        positives.push(of(&plain(Some(prompt)), instruction, 0)?);
        // Layers are skipped for the prompt alone.
        negatives.push(of(&plain(negative), None, 1)?);
        pool.give_back_encoder(&text.network, encoder.graph);
        match &mut unknown {
            None => unknown = Some(unread),
            Some(unknown) => unknown.retain(|word| unread.contains(word)),
        }
    }
    let joined = |encoded: &[Encoded]| {
        join(encoded, spec).map_err(|cause| {
            let problem = "its text encoders give embeddings of different kinds; check that \
                           each is in its own folder";
            Error::model_from(folder.to_string(), problem, cause)
        })
    };
    let positive = joined(&positives)?;
    let negative = match negative {
        None if spec.absent_is_zero => positive.zeros(),
        _ => joined(&negatives)?,
    };
    truncated.dedup();
    let mut unknown = unknown.unwrap_or_default();
    unknown.dedup();
    Ok(Embeddings { positive, negative, truncated, unknown })
}

fn join(encoded: &[Encoded], spec: &EmbeddingSpec) -> Result<Embedding, ndarray::ShapeError> {
    let mut rows = Vec::new();
    for row in &spec.sequence {
        let parts: Vec<_> =
            row.iter().filter_map(|i| encoded.get(*i)).map(|it| it.hidden.view()).collect();
        rows.push(concatenate(Axis(2), &parts)?);
    }
    let absent = spec.absent.map(|[tokens, features]| Array3::zeros([1, tokens, features]));
    rows.extend(absent);
    let widest = rows.iter().map(|row| row.len_of(Axis(2))).max().unwrap_or(0);
    let filled: Vec<Array3<f32>> = rows
        .into_iter()
        .map(|row| {
            let (batch, tokens, features) = row.dim();
            let mut wide = Array3::zeros([batch, tokens, widest]);
            wide.slice_mut(s![.., .., ..features]).assign(&row);
            wide
        })
        .collect();
    let views: Vec<_> = filled.iter().map(|row| row.view()).collect();
    let sequence =
        if views.is_empty() { Array3::zeros([1, 0, 0]) } else { concatenate(Axis(1), &views)? };
    let pooled: Vec<_> = spec
        .pooled
        .iter()
        .filter_map(|i| encoded.get(*i)?.pooled.as_ref())
        .map(|pooled| pooled.view())
        .collect();
    let pooled = if pooled.is_empty() { None } else { Some(concatenate(Axis(1), &pooled)?) };
    let mask = spec.mask.and_then(|i| encoded.get(i)).map(|it| it.mask.clone());
    Ok(Embedding { sequence, pooled, mask })
}

impl TextEncoder {
    fn open(
        pool: &mut NetworkPool,
        folder: &ModelFolder,
        spec: &TextSpec,
        skip: usize,
    ) -> Result<Self> {
        let tokenizer = PromptTokenizer::open(folder, &spec.tokenizer, spec.length)?;
        let graph = pool.graph(&spec.network)?;
        if spec.layer == 0 && skip > 0 {
            let problem = "its text encoder's last layer is normalized within the graph, so no \
                           layer can be skipped; leave clip skip out";
            return Err(Error::model(graph.model(), problem));
        }
        let outputs: Vec<(&str, usize)> =
            graph.outputs().iter().map(|port| (port.name.as_str(), port.shape.len())).collect();
        let missing = |layer: usize| {
            let present: Vec<&str> =
                graph.outputs().iter().map(|port| port.name.as_str()).collect();
            let wanted = if layer == 0 {
                "last_hidden_state".to_owned()
            } else {
                format!("hidden_states.N, of which layer {layer} from the end is taken")
            };
            let problem = format!(
                "its text encoder gives {}; expected {wanted}. Export it again with its hidden \
                 states, or take another text encoder",
                present.join(", ")
            );
            Error::model(graph.model(), problem)
        };
        let named = |layer: usize| hidden_output(&outputs, layer).ok_or_else(|| missing(layer));
        let hidden = [named(spec.layer + skip)?, named(spec.layer)?];
        let pooled = pooled_output(&outputs, spec.is_projected);
        if spec.is_projected && pooled.is_none() {
            let problem = "its text encoder gives no text_embeds; expected one with a projection. \
                           Check that none is swapped, or export it again";
            return Err(Error::model(graph.model(), problem));
        }
        let limits = Limits::read(folder, &spec.network)?;
        Ok(Self { tokenizer, graph, hidden, pooled, limits })
    }

    /// The tokens of a prompt, after those of an instruction.
    fn tokens(&self, prompt: &str, instruction: Option<&str>) -> Result<Tokens> {
        match instruction {
            None => self.tokenizer.tokens(&fragments(prompt)),
            Some(instruction) => self.tokenizer.tokens_after(instruction, &fragments(prompt)),
        }
    }

    fn encode(&mut self, tokens: &Tokens, layer: usize) -> Result<Encoded> {
        let row = |values: Vec<f32>| Array2::from_shape_fn([1, values.len()], |(_, i)| values[i]);
        let ids = row(tokens.ids.iter().map(|id| *id as f32).collect());
        let mask = row(tokens.mask.clone());
        let Self { graph, hidden, pooled, tokenizer, limits } = self;
        if let Some(problem) = limits.problem(&tokens.ids) {
            return Err(Error::model(graph.model(), problem));
        }
        let hidden = &hidden[layer];
        let mut inputs = Vec::new();
        for port in graph.inputs() {
            let value = match port.name.as_str() {
                "input_ids" => ids.view(),
                "attention_mask" => mask.view(),
                other => {
                    let problem = format!(
                        "its input `{other}` is not one of a text encoder; expected input_ids and \
                         attention_mask"
                    );
                    return Err(Error::model(graph.model(), problem));
                }
            };
            inputs.push((port.name.clone(), value.into_dyn()));
        }
        let inputs: Vec<_> =
            inputs.iter().map(|(name, value)| (name.as_str(), value.view())).collect();
        let wanted: Vec<&str> = std::iter::once(hidden.as_str()).chain(pooled.as_deref()).collect();
        let mut results = graph.run(&inputs, &wanted)?.into_iter();
        let unexpected = |name: &str| {
            Error::model(graph.model(), format!("its output `{name}` is not a text embedding"))
        };
        let sequence = results.next().and_then(|it| it.into_dimensionality::<Ix3>().ok());
        let mut sequence = sequence
            .filter(|it| it.len_of(Axis(1)) == tokens.ids.len())
            .ok_or_else(|| unexpected(hidden))?;
        let pooled = match pooled {
            None => None,
            Some(name) => {
                let pooled = results.next().and_then(|it| it.into_dimensionality::<Ix2>().ok());
                Some(pooled.ok_or_else(|| unexpected(name))?)
            }
        };
        weigh(&mut sequence, &tokens.weights);
        let mut mask = mask;
        let length = tokenizer.length();
        if tokens.ids.len() > length {
            // Of a prompt after an instruction, the first token and the last ones.
            let kept: Vec<usize> = std::iter::once(0)
                .chain(tokens.ids.len() - (length - 1)..tokens.ids.len())
                .collect();
            sequence = sequence.select(Axis(1), &kept);
            mask = mask.select(Axis(1), &kept);
        }
        Ok(Encoded { hidden: sequence, pooled, mask })
    }
}

/// The output, of these names and ranks of a text encoder, that is the embedding of a layer, which
/// is counted as [`TextSpec::layer`] is.
pub(crate) fn hidden_output(outputs: &[(&str, usize)], layer: usize) -> Option<String> {
    if layer == 0 {
        let last = outputs.iter().find(|(name, _)| *name == "last_hidden_state");
        let last = last.or_else(|| outputs.iter().find(|(_, rank)| *rank == 3));
        return last.map(|(name, _)| (*name).to_owned());
    }
    let layers = outputs.iter().filter_map(|(name, _)| name.strip_prefix("hidden_states."));
    let last: Option<usize> = layers.filter_map(|layer| layer.parse().ok()).max();
    last?.checked_sub(layer).map(|wanted| format!("hidden_states.{wanted}"))
}

/// The output, of these names and ranks of a text encoder, that is its pooled embedding.
pub(crate) fn pooled_output(outputs: &[(&str, usize)], is_projected: bool) -> Option<String> {
    let candidates: &[&str] =
        if is_projected { &["text_embeds"] } else { &["text_embeds", "pooler_output"] };
    let found = candidates.iter().find(|wanted| outputs.iter().any(|(name, _)| name == *wanted));
    found.map(|name| (*name).to_owned())
}

/// Multiplies the embeddings by the weights of their tokens, and restores their mean, so that
/// weights do not change the embedding as a whole.
fn weigh(sequence: &mut Array3<f32>, weights: &[f32]) {
    if weights.iter().all(|weight| *weight == 1.0) {
        return;
    }
    let mean = |sequence: &Array3<f32>| {
        sequence.iter().map(|value| f64::from(*value)).sum::<f64>() / sequence.len() as f64
    };
    let before = mean(sequence);
    for (mut token, weight) in sequence.axis_iter_mut(Axis(1)).zip(weights) {
        token.mapv_inplace(|value| value * weight);
    }
    let ratio = before / mean(sequence);
    if ratio.is_finite() {
        sequence.mapv_inplace(|value| value * ratio as f32);
    }
}
