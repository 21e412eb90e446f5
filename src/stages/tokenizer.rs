//! From a prompt to token ids, as a text encoder takes them.
//!
//! The crate `tokenizers` does the work. What folders of older exports have instead of its
//! `tokenizer.json` is translated into that format here: CLIP's `vocab.json` and `merges.txt`
//! (byte-pair encoding, Radford et al. 2021), and T5's `spiece.model` (SentencePiece unigrams, Kudo
//! 2018).

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::prompt::Fragment;
use super::tokenizer_file;
use crate::error::{Error, Result};
use crate::model::protobuf::{self, Fields, messages};
use crate::model::{MAX_CONFIG_BYTES, ModelFolder};

/// The size limit of a vocabulary, in bytes. Gemma's is the largest in use, of 34 MB.
const LARGEST_VOCABULARY: u64 = 128 << 20;
/// The length of CLIP's prompts, if the folder does not say.
const CLIP_LENGTH: usize = 77;
/// T5's tokens for masked spans, if the folder does not say.
const T5_SENTINELS: u64 = 100;
/// The most tokens of any prompt.
const MOST_TOKENS: u64 = 4096;

/// The tokens of a prompt, padded to the length that the encoder takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// The ids.
    pub ids: Vec<u32>,
    /// 1 for a token of the prompt or a special one, 0 for padding.
    pub mask: Vec<f32>,
    /// The weight of each token's embedding; 1 unless the prompt says otherwise.
    pub weights: Vec<f32>,
    /// The end of a prompt that was too long.
    pub truncated: Option<String>,
    /// Words that are not in the vocabulary.
    pub unknown: Vec<String>,
}

/// A tokenizer with its special tokens and its length.
#[derive(Debug)]
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
    length: usize,
    /// The special tokens before and after those of the prompt.
    special_tokens: [Vec<u32>; 2],
    padding: u32,
    /// The token of words that are not in the vocabulary, if it has no other meaning.
    unknown: Option<u32>,
}

/// What `tokenizer_config.json` and `special_tokens_map.json` say.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Settings {
    model_max_length: Option<f64>,
    pad_token: Option<Special>,
    bos_token: Option<Special>,
    eos_token: Option<Special>,
    unk_token: Option<Special>,
    /// T5's tokens for masked spans.
    extra_ids: Option<u64>,
}

/// A special token, as text or with its properties.
#[derive(Deserialize)]
#[serde(untagged)]
enum Special {
    Text(String),
    Token { content: String },
}

impl Special {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Token { content: text } => text,
        }
    }
}

impl PromptTokenizer {
    /// Reads the tokenizer in `folder/part`. `length` is the length of prompts where the pipeline
    /// decides it.
    ///
    /// # Errors
    /// [`Error::Model`] when its files are missing or invalid.
    pub fn open(folder: &ModelFolder, part: &str, length: Option<usize>) -> Result<Self> {
        let files = Files { folder, part };
        let config: Settings = files.settings("tokenizer_config.json")?;
        let map: Settings = files.settings("special_tokens_map.json")?;
        let special = |of: fn(&Settings) -> &Option<Special>| {
            of(&config).as_ref().or(of(&map).as_ref()).map(|token| token.text().to_owned())
        };
        let [start, end] =
            [special(|settings| &settings.bos_token), special(|settings| &settings.eos_token)];
        let mut tokenizer = if let Some(bytes) = files.bytes("tokenizer.json")? {
            files.parsed(bytes, "tokenizer.json")?
        } else if let Some(bytes) = files.bytes("spiece.model")? {
            let sentinels = config.extra_ids.filter(|count| *count <= MOST_TOKENS);
            let json = t5(&bytes, sentinels.unwrap_or(T5_SENTINELS))
                .ok_or_else(|| files.unexpected("spiece.model"))?;
            files.parsed(json.into_bytes(), "spiece.model")?
        } else {
            let [start, end] =
                [start.as_deref().unwrap_or(CLIP_START), end.as_deref().unwrap_or(CLIP_END)];
            files.parsed(clip(&files, start, end)?.into_bytes(), "vocab.json or merges.txt")?
        };
        // Prompts are truncated and padded here, with their weights.
        tokenizer
            .with_padding(None)
            .with_truncation(None)
            .map_err(|cause| files.failed("tokenizer.json", cause))?;
        let special_tokens = special_tokens(&tokenizer).ok_or_else(|| {
            files.error(
                "its special tokens cannot be distinguished from ordinary text; export it again",
            )
        })?;
        let stated = config.model_max_length.filter(|length| *length <= MOST_TOKENS as f64);
        let length = length.or(stated.map(|length| length as usize)).unwrap_or(CLIP_LENGTH);
        if length <= special_tokens.iter().map(Vec::len).sum() {
            return Err(files.error(&format!(
                "its tokenizer_config.json says that prompts have {length} tokens, which leaves no \
                 room for a word"
            )));
        }
        let named = special(|settings| &settings.pad_token);
        let padding = match &named {
            Some(token) => tokenizer.token_to_id(token).ok_or_else(|| {
                files.error(&format!("its padding is {token:?}, which is not in its vocabulary"))
            })?,
            None => special_tokens[1].first().copied().unwrap_or(0),
        };
        let unknown = special(|settings| &settings.unk_token)
            .and_then(|token| tokenizer.token_to_id(&token))
            .filter(|id| !special_tokens.iter().flatten().any(|special| special == id));
        Ok(Self { tokenizer, length, special_tokens, padding, unknown })
    }

    /// The number of tokens that a prompt is truncated or padded to.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The largest id that a prompt can have.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// [`Error::Usage`] when the tokenizer rejects the text.
    pub fn tokens(&self, prompt: &[Fragment]) -> Result<Tokens> {
        self.padded(prompt, self.length)
    }

    /// The tokens of a prompt after an instruction, with room for the instruction beside the
    /// prompt's own.
    ///
    /// # Errors
    /// As for [`tokens`](Self::tokens).
    pub fn tokens_after(&self, instruction: &str, prompt: &[Fragment]) -> Result<Tokens> {
        let own = self.tokenizer.encode_fast(instruction, true).map_err(|cause| {
            Error::usage(format!("the instruction before prompts cannot be tokenized: {cause}"))
        })?;
        // As in diffusers: two tokens less than both lengths.
        let length = (own.get_ids().len() + self.length).saturating_sub(2);
        let mut fragments = prompt.to_vec();
        match fragments.first_mut() {
            Some(first) if first.weight == 1.0 => first.text.insert_str(0, instruction),
            _ => fragments.insert(0, Fragment { text: instruction.to_owned(), weight: 1.0 }),
        }
        self.padded(&fragments, length)
    }

    fn padded(&self, prompt: &[Fragment], length: usize) -> Result<Tokens> {
        let room =
            length.saturating_sub(self.special_tokens[0].len() + self.special_tokens[1].len());
        let mut ids = Vec::new();
        let mut weights = Vec::new();
        let mut truncated: Option<String> = None;
        let mut unknown: Vec<String> = Vec::new();
        for Fragment { text, weight } in prompt {
            let encoding = self.tokenizer.encode(text.as_str(), false).map_err(|cause| {
                Error::usage(format!("the prompt {text:?} cannot be tokenized: {cause}"))
            })?;
            let own = encoding.get_ids();
            let (taken, rest) = own.split_at(own.len().min(room - ids.len()));
            if let Some(end) = &mut truncated {
                end.push_str(text);
            } else if !rest.is_empty() {
                // A token may be a part of a character, which is then without effect as a whole.
                let (start, _) = encoding.get_offsets()[taken.len()];
                truncated = (0..=start.min(text.len()))
                    .rev()
                    .find_map(|at| text.get(at..))
                    .map(str::to_owned);
            }
            for (_, (start, end)) in taken
                .iter()
                .zip(encoding.get_offsets())
                .filter(|(id, _)| Some(**id) == self.unknown)
            {
                unknown.extend(text.get(*start..*end).map(str::to_owned));
            }
            ids.extend_from_slice(taken);
            weights.resize(ids.len(), *weight);
        }
        let [before, after] = &self.special_tokens;
        let ids = [before.as_slice(), &ids, after.as_slice()].concat();
        let mut mask = vec![1.0; ids.len()];
        let mut weights = [vec![1.0; before.len()], weights].concat();
        let mut ids = ids;
        ids.resize(length, self.padding);
        mask.resize(length, 0.0);
        weights.resize(length, 1.0);
        Ok(Tokens { ids, mask, weights, truncated, unknown })
    }
}

/// The special tokens that a tokenizer puts before and after a text.
fn special_tokens(tokenizer: &Tokenizer) -> Option<[Vec<u32>; 2]> {
    let [all, own] = [true, false].map(|special| {
        tokenizer.encode_fast("a", special).map(|encoding| encoding.get_ids().to_vec())
    });
    let (all, own) = (all.ok()?, own.ok()?);
    let start = all.windows(own.len().max(1)).position(|window| window == own)?;
    Some([all[..start].to_vec(), all[start + own.len()..].to_vec()])
}

/// The files of a tokenizer.
struct Files<'a> {
    folder: &'a ModelFolder,
    part: &'a str,
}

impl Files<'_> {
    /// The bytes of a file; none if there is no such file.
    fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let name = format!("{}/{name}", self.part);
        if !self.folder.contains(&name) {
            return Ok(None);
        }
        self.folder.read(&name, LARGEST_VOCABULARY).map(Some).map_err(|cause| {
            let problem = format!("its {name} cannot be read");
            Error::model_from(self.folder.to_string(), problem, cause)
        })
    }

    fn required(&self, name: &str) -> Result<Vec<u8>> {
        self.bytes(name)?.ok_or_else(|| {
            self.error(&format!(
                "it has no {name}; expected tokenizer.json, spiece.model, or vocab.json and \
                 merges.txt"
            ))
        })
    }

    fn settings(&self, name: &str) -> Result<Settings> {
        match self.bytes(name)? {
            None => Ok(Settings::default()),
            Some(bytes) if bytes.len() as u64 > MAX_CONFIG_BYTES => {
                Err(self.error(&format!("its {name} has more than {MAX_CONFIG_BYTES} bytes")))
            }
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|cause| self.failed(name, cause.into()))
            }
        }
    }

    fn parsed(&self, bytes: Vec<u8>, name: &str) -> Result<Tokenizer> {
        let defect = tokenizer_file::defect(&bytes);
        if let Some(defect) = defect.map_err(|cause| self.failed(name, cause.into()))? {
            return Err(self.error(&format!("its {name} {defect}; export it again")));
        }
        Tokenizer::from_bytes(bytes).map_err(|cause| self.failed(name, cause))
    }

    fn place(&self) -> String {
        format!("{}/{}", self.folder, self.part)
    }

    fn error(&self, problem: &str) -> Error {
        Error::model(self.place(), problem)
    }

    fn unexpected(&self, name: &str) -> Error {
        self.error(&format!("its {name} is not as SentencePiece writes it; copy it again"))
    }

    fn failed(&self, name: &str, cause: crate::error::Cause) -> Error {
        Error::Model {
            model: self.place(),
            problem: format!("its {name} is not a valid tokenizer file; copy it again"),
            source: Some(cause),
        }
    }
}

const CLIP_START: &str = "<|startoftext|>";
const CLIP_END: &str = "<|endoftext|>";

fn added(id: u64, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    })
}

/// The `tokenizer.json` of CLIP's vocabulary and merges, as transformers' `CLIPTokenizerFast`
/// makes it.
fn clip(files: &Files<'_>, start: &str, end: &str) -> Result<String> {
    let vocabulary: Value = serde_json::from_slice(&files.required("vocab.json")?)
        .map_err(|cause| files.failed("vocab.json", cause.into()))?;
    let merges = String::from_utf8(files.required("merges.txt")?)
        .map_err(|cause| files.failed("merges.txt", cause.into()))?;
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    let id = |token: &str| {
        vocabulary.get(token).and_then(Value::as_u64).ok_or_else(|| {
            files.error(&format!("its vocab.json has no {token}; copy the tokenizer again"))
        })
    };
    let [start_id, end_id] = [id(start)?, id(end)?];
    let words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let json = json!({
        "version": "1.0",
        "added_tokens": [added(start_id, start), added(end_id, end)],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" },
            { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
            { "type": "Lowercase" },
        ]},
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": words }, "behavior": "Removed", "invert": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        ]},
        "post_processor": {
            "type": "RobertaProcessing", "sep": [end, end_id], "cls": [start, start_id],
            "trim_offsets": false, "add_prefix_space": false,
        },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "unk_token": end, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "vocab": vocabulary, "merges": merges,
        },
    });
    Ok(json.to_string())
}

/// The `tokenizer.json` of T5's SentencePiece model, as transformers' `T5Converter` makes it, with
/// this many tokens for masked spans after the vocabulary. `None` if it is another kind of model.
fn t5(model: &[u8], sentinels: u64) -> Option<String> {
    /// Fields of `ModelProto`, and of its pieces and its normalizer.
    const PIECE: u64 = 1;
    const NORMALIZER: u64 = 3;
    const CHARACTERS: u64 = 2;
    const UNKNOWN: u64 = 2;
    const END: &str = "</s>";
    let mut vocabulary = Vec::new();
    let mut ids = HashMap::new();
    let mut unknown = None;
    let mut characters = None;
    let mut is_complete = false;
    let mut fields = Fields(model);
    for (field, value) in fields.by_ref() {
        let protobuf::Value::Bytes(body) = value else { continue };
        match field {
            PIECE => {
                let piece = Piece::read(body)?;
                if piece.kind == UNKNOWN {
                    unknown = Some(vocabulary.len());
                }
                let id = vocabulary.len() as u64;
                vocabulary.push(json!([piece.text, piece.score]));
                ids.entry(piece.text).or_insert(id);
            }
            NORMALIZER => {
                is_complete = true;
                let map = messages(body).find(|(field, _)| *field == CHARACTERS);
                characters = map.map(|(_, map)| base64::encode(map));
            }
            _ => {}
        }
    }
    // A file that was cut short lacks its last fields.
    if !fields.0.is_empty() || !is_complete {
        return None;
    }
    let (unknown, end) = (unknown?, *ids.get(END)?);
    let special = ["<pad>", END, "<unk>"].into_iter();
    let mut tokens: Vec<Value> =
        special.filter_map(|text| ids.get(text).map(|id| added(*id, text))).collect();
    for i in (0..sentinels).rev() {
        let text = format!("<extra_id_{i}>");
        if !ids.contains_key(&text) {
            tokens.push(added(vocabulary.len() as u64, &text));
            vocabulary.push(json!([text, 0.0]));
        }
    }
    let mut normalizers: Vec<Value> = characters
        .filter(|map| !map.is_empty())
        .map(|map| json!({ "type": "Precompiled", "precompiled_charsmap": map }))
        .into_iter()
        .collect();
    normalizers.push(json!({ "type": "Strip", "strip_left": false, "strip_right": true }));
    normalizers
        .push(json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": "\u{2581}" }));
    let space = json!({
        "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true,
    });
    let json = json!({
        "version": "1.0",
        "added_tokens": tokens,
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": space,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": END, "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": END, "type_id": 0 } }],
            "special_tokens": { END: { "id": END, "ids": [end], "tokens": [END] } },
        },
        "decoder": space,
        "model": { "type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": false },
    });
    Some(json.to_string())
}

/// A piece of a SentencePiece vocabulary.
struct Piece {
    text: String,
    /// The logarithm of its probability.
    score: f32,
    /// 1 for an ordinary piece, 2 for the unknown one, 3 for a control character.
    kind: u64,
}

impl Piece {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: 1 };
        for field in Fields(bytes) {
            match field {
                (1, protobuf::Value::Bytes(text)) => {
                    piece.text = String::from_utf8(text.to_vec()).ok()?;
                }
                (2, protobuf::Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
                (3, protobuf::Value::Number(kind)) => piece.kind = kind,
                _ => {}
            }
        }
        Some(piece)
    }
}
