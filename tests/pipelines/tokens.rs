//! What transformers' fast tokenizers make of the same texts.

use eddy::model::ModelFolder;
use eddy::stages::{Fragment, PromptTokenizer, Tokens, fragments};
use serde_json::Value;

use crate::common::place::Place;
use crate::exported::json;

fn tokenizer(place: &Place, length: Option<usize>) -> PromptTokenizer {
    PromptTokenizer::open(&ModelFolder::find(place.path("pipeline")), "tokenizer", length).unwrap()
}

fn plain(text: &str) -> [Fragment; 1] {
    [Fragment { text: text.to_owned(), weight: 1.0 }]
}

fn agree(pipeline: &str) {
    let place = Place::with_pipeline(pipeline);
    let goldens = &json("tokens.json")[format!("{pipeline}/tokenizer")];
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let length = number(&goldens["length"]);
    let tokenizer = tokenizer(&place, Some(length));
    let texts = goldens["texts"].as_array().unwrap();
    assert!(texts.len() > 50, "{} texts", texts.len());
    let mut has_cut = false;
    for golden in texts {
        let text = golden["text"].as_str().unwrap();
        let expected: Vec<u32> =
            golden["ids"].as_array().unwrap().iter().map(|id| number(id) as u32).collect();
        let Tokens { ids, mask, weights, truncated, .. } = tokenizer.tokens(&plain(text)).unwrap();
        assert_eq!(ids, expected, "{text:?}");
        let count = number(&golden["count"]);
        let is_text = |i: usize| if i < count { 1.0 } else { 0.0 };
        assert_eq!(mask, (0..length).map(is_text).collect::<Vec<f32>>(), "{text:?}");
        assert!(weights.iter().all(|weight| *weight == 1.0) && weights.len() == length);
        // What has no effect is an end of the text.
        if let Some(end) = truncated {
            has_cut = true;
            assert!(count == length && text.ends_with(&end) && !end.is_empty(), "{text:?} {end:?}");
        }
    }
    assert!(has_cut);
}

#[test]
fn byte_pairs_are_as_clips() {
    agree("sd15");
}

#[test]
fn unigrams_are_as_t5s() {
    agree("pixart-sigma");
}

#[test]
fn a_weight_is_its_words_alone() {
    let place = Place::with_pipeline("sd15");
    let tokenizer = tokenizer(&place, None);
    assert_eq!(tokenizer.length(), 77);
    let weighted = tokenizer.tokens(&fragments("a (red cat:1.5) (on a) mat")).unwrap();
    let bare = tokenizer.tokens(&plain("a red cat (on a) mat")).unwrap();
    assert_eq!(weighted.ids, bare.ids);
    let words = |text: &str| {
        let mask = tokenizer.tokens(&plain(text)).unwrap().mask;
        mask.iter().filter(|value| **value > 0.0).count() - 2
    };
    let (before, heavy) = (1 + words("a"), words("red cat"));
    for (i, weight) in weighted.weights.iter().enumerate() {
        let expected = if (before..before + heavy).contains(&i) { 1.5 } else { 1.0 };
        assert_eq!(*weight, expected, "token {i}");
    }
}
