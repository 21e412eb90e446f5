//! Prompt weights: `a (red:1.3) house`, as most tools for diffusion write them.

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
    split(prompt, 1.0, MOST_NESTED, &mut found);
    if found.is_empty() {
        found.push(Fragment { text: String::new(), weight: 1.0 });
    }
    found
}

/// The most levels of nested weights.
const MOST_NESTED: usize = 32;

fn split(text: &str, weight: f32, levels: usize, found: &mut Vec<Fragment>) {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if let Some(escaped) = rest.strip_prefix('\\').and_then(|rest| rest.chars().next())
            && matches!(escaped, '(' | ')')
        {
            plain.push(escaped);
            rest = &rest[2..];
        } else if levels > 0
            && let Some((inner, own, after)) = weighted(rest)
        {
            push(&mut plain, weight, found);
            split(inner, weight * own, levels - 1, found);
            rest = after;
        } else {
            plain.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    push(&mut plain, weight, found);
}

fn push(plain: &mut String, weight: f32, found: &mut Vec<Fragment>) {
    if !plain.is_empty() {
        found.push(Fragment { text: std::mem::take(plain), weight });
    }
}

/// The text and the weight of a `(text:weight)` at the start of `text`, and what follows.
fn weighted(text: &str) -> Option<(&str, f32, &str)> {
    let inside = text.strip_prefix('(')?;
    let mut depth = 1;
    let mut is_escaped = false;
    for (at, character) in inside.char_indices() {
        match character {
            _ if is_escaped => {}
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        is_escaped = character == '\\' && !is_escaped;
        if depth == 0 {
            let (inner, weight) = inside[..at].rsplit_once(':')?;
            let weight: f32 = weight.trim().parse().ok()?;
            let is_possible = weight.is_finite() && (0.0..=10.0).contains(&weight);
            return is_possible.then_some((inner, weight, &inside[at + 1..]));
        }
    }
    None
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
    }
}
