//! Prompt weights: `a (red:1.3) house`, as most tools for diffusion write them.

use std::collections::HashMap;
use std::ops::Range;

/// A part of a prompt, and the weight of its tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Fragment {
    /// The text.
    pub text: String,
    /// The factor of its embeddings; 1 changes nothing.
    pub weight: f32,
}

/// The parts of a prompt. `(text:1.3)` has a weight of 1.3, and nested weights are multiplied.
/// Other parentheses are text, and so are `\(` and what is nested deeper than 32 levels. A prompt
/// without weights is one part.
pub fn fragments(prompt: &str) -> Vec<Fragment> {
    let mut found = Vec::new();
    let splitter = Splitter { prompt, weighted: weighted(prompt) };
    splitter.split(0..prompt.len(), 1.0, MOST_NESTED, &mut found);
    if found.is_empty() {
        found.push(Fragment { text: String::new(), weight: 1.0 });
    }
    found
}

/// The most levels of nested weights.
const MOST_NESTED: usize = 32;

struct Splitter<'a> {
    prompt: &'a str,
    /// What is weighted, by the position of its opening parenthesis.
    weighted: HashMap<usize, Weighted>,
}

/// The end of a `(text:weight)`.
struct Weighted {
    colon: usize,
    close: usize,
    weight: f32,
}

impl Splitter<'_> {
    /// Adds the parts of a range of the prompt.
    fn split(&self, range: Range<usize>, weight: f32, levels: usize, found: &mut Vec<Fragment>) {
        let mut plain = String::new();
        let mut at = range.start;
        while let Some(character) = self.prompt[at..range.end].chars().next() {
            let following = self.prompt[at + character.len_utf8()..range.end].chars().next();
            if let ('\\', Some(escaped @ ('(' | ')'))) = (character, following) {
                plain.push(escaped);
                at += 2;
            } else if levels > 0
                && let Some(part) = self.weighted.get(&at)
            {
                push(&mut plain, weight, found);
                self.split(at + 1..part.colon, weight * part.weight, levels - 1, found);
                at = part.close + 1;
            } else {
                plain.push(character);
                at += character.len_utf8();
            }
        }
        push(&mut plain, weight, found);
    }
}

fn push(plain: &mut String, weight: f32, found: &mut Vec<Fragment>) {
    if !plain.is_empty() {
        found.push(Fragment { text: std::mem::take(plain), weight });
    }
}

/// Finds what is weighted, in one pass, since prompts of strangers may have any length.
fn weighted(prompt: &str) -> HashMap<usize, Weighted> {
    let mut found = HashMap::new();
    let mut opened = Vec::new();
    // The last colon after the last parenthesis: a weight has neither.
    let mut colon = None;
    let mut is_escaped = false;
    for (at, character) in prompt.char_indices() {
        match character {
            '(' | ')' if is_escaped => {}
            '(' => {
                opened.push(at);
                colon = None;
            }
            ')' => {
                if let (Some(open), Some(colon)) = (opened.pop(), colon.take())
                    && let Some(weight) = parse(&prompt[colon + 1..at])
                {
                    found.insert(open, Weighted { colon, close: at, weight });
                }
            }
            ':' => colon = Some(at),
            _ => {}
        }
        is_escaped = character == '\\';
    }
    found
}

fn parse(weight: &str) -> Option<f32> {
    let weight = weight.trim().parse().ok()?;
    (0.0..=10.0).contains(&weight).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::fragments;

    fn parts(prompt: &str) -> Vec<(String, f32)> {
        fragments(prompt).into_iter().map(|part| (part.text, part.weight)).collect()
    }

    #[test]
    fn weights_are_split_off() {
        let of = |parts: &[(&str, f32)]| -> Vec<(String, f32)> {
            parts.iter().map(|(text, weight)| ((*text).to_owned(), *weight)).collect()
        };
        assert_eq!(parts(""), of(&[("", 1.0)]));
        assert_eq!(parts("a cat (tabby)"), of(&[("a cat (tabby)", 1.0)]));
        assert_eq!(parts("a (red:1.3) cat"), of(&[("a ", 1.0), ("red", 1.3), (" cat", 1.0)]));
        assert_eq!(parts("((a:2) b:0.5)"), of(&[("a", 1.0), (" b", 0.5)]));
        assert_eq!(parts(r"\(a:2\)"), of(&[("(a:2)", 1.0)]));
        assert_eq!(parts("(a:much) (b"), of(&[("(a:much) (b", 1.0)]));
        assert_eq!(parts("at 10:30 (é:1.1)"), of(&[("at 10:30 ", 1.0), ("é", 1.1)]));
        assert_eq!(parts("(a:nan)(b:-1)"), of(&[("(a:nan)(b:-1)", 1.0)]));
        let deep = format!("{}a{}", "(".repeat(9000), ":1)".repeat(9000));
        assert_eq!(parts(&deep).len(), 1);
        // Each takes minutes if parentheses are looked for anew from each of them.
        for (before, after) in [("(", ""), ("(", ")"), ("(", ":0)"), ("(a:1", ""), ("((:1)", ")")] {
            let long = before.repeat(200_000) + &after.repeat(200_000);
            assert!(!parts(&long).is_empty());
        }
    }
}
