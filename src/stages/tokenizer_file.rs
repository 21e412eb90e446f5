//! What a `tokenizer.json` must not have, because the crate `tokenizers` would end the process.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::charsmap;

/// The parts of a file that are checked. The vocabulary is passed over.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    continuing_subword_prefix: Option<String>,
    merges: Option<IgnoredAny>,
}

/// What is wrong with a file, if anything.
///
/// # Errors
/// When it is not JSON, or has no model.
pub(super) fn defect(file: &[u8]) -> serde_json::Result<Option<&'static str>> {
    let File { normalizer, pre_tokenizer, post_processor, model } = serde_json::from_slice(file)?;
    // Merged pieces are cut by the length of the prefix, whether they have it or not.
    if model.merges.is_some() && model.continuing_subword_prefix.is_some_and(|it| !it.is_empty()) {
        return Ok(Some("has merges with a prefix of subwords, which Eddy does not read"));
    }
    Ok([normalizer, pre_tokenizer, post_processor].iter().find_map(defect_within))
}

/// What is wrong with a step of a tokenizer, or with one of those in it.
fn defect_within(value: &Value) -> Option<&'static str> {
    match value {
        Value::Array(values) => values.iter().find_map(defect_within),
        Value::Object(step) => defect_of(step).or_else(|| step.values().find_map(defect_within)),
        _ => None,
    }
}

fn defect_of(step: &Map<String, Value>) -> Option<&'static str> {
    let text = |key: &str| step.get(key).and_then(Value::as_str);
    if let Some(table) = text("precompiled_charsmap")
        && !base64::decode(table).is_ok_and(|table| charsmap::is_valid(&table))
    {
        return Some("has a damaged table of characters");
    }
    if step.get("length").and_then(Value::as_u64) == Some(0) {
        return Some("splits texts into parts of no characters");
    }
    let template = step.get("single").and_then(Value::as_array)?;
    let known = step.get("special_tokens");
    let is_whole = template.iter().all(|piece| {
        let id = |kind: &str| piece.get(kind)?.get("id")?.as_str();
        match (id("Sequence"), id("SpecialToken")) {
            (Some(sequence), None) => sequence == "A",
            (None, Some(token)) => known.is_some_and(|known| known.get(token).is_some()),
            _ => false,
        }
    });
    (!is_whole).then_some("has a template for texts with a part that it does not define")
}

#[cfg(test)]
mod tests {
    use super::defect;

    #[test]
    fn finds_what_would_end_the_process() {
        let file = |step: &str, model: &str| {
            defect(format!(r#"{{"post_processor":{step},"model":{model}}}"#).as_bytes()).unwrap()
        };
        let template = |piece: &str| {
            let tokens = r#"{"</s>":{"id":"</s>","ids":[1],"tokens":["</s>"]}}"#;
            format!(r#"[{{"single":[{{{piece}}}],"special_tokens":{tokens}}}]"#)
        };
        for (step, model, problem) in [
            (template(r#""Sequence":{"id":"A"}"#), "{}", None),
            (template(r#""SpecialToken":{"id":"</s>"}"#), "{}", None),
            (template(r#""Sequence":{"id":"B"}"#), "{}", Some("does not define")),
            (template(r#""SpecialToken":{"id":"<s>"}"#), "{}", Some("does not define")),
            (r#"{"length":0}"#.into(), "{}", Some("no characters")),
            (r#"{"precompiled_charsmap":"AAAA"}"#.into(), "{}", Some("damaged")),
            ("1".into(), r###"{"merges":[],"continuing_subword_prefix":"##"}"###, Some("prefix")),
            ("1".into(), r###"{"continuing_subword_prefix":"##"}"###, None),
            ("1".into(), r#"{"merges":[],"continuing_subword_prefix":""}"#, None),
        ] {
            let found = file(&step, model);
            assert_eq!(found.is_some(), problem.is_some(), "{step}");
            assert!(found.unwrap_or_default().contains(problem.unwrap_or_default()), "{found:?}");
        }
        assert!(defect(b"{}").is_err() && defect(b"").is_err());
    }
}
