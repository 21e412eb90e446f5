//! Natural sort order.

use std::cmp::Ordering;

/// Compares two names, with runs of digits compared as numbers: `frame2` comes before `frame10`.
pub(super) fn by_number(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (number_a, number_b) = (leading_digits(a), leading_digits(b));
        if !number_a.is_empty() && !number_b.is_empty() {
            let order = compare_numbers(number_a, number_b);
            if order.is_ne() {
                return order;
            }
            a = &a[number_a.len()..];
            b = &b[number_b.len()..];
            continue;
        }
        let (mut rest_a, mut rest_b) = (a.chars(), b.chars());
        match (rest_a.next(), rest_b.next()) {
            (Some(char_a), Some(char_b)) if char_a == char_b => {
                (a, b) = (rest_a.as_str(), rest_b.as_str())
            }
            (char_a, char_b) => return char_a.cmp(&char_b),
        }
    }
}

fn leading_digits(text: &str) -> &str {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

/// Compares by value, for numbers of any length.
fn compare_numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}
