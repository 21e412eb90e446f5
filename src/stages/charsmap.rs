//! The table by which SentencePiece normalizes characters, checked before a tokenizer searches it.
//!
//! A table is the length of a trie in bytes, the trie, and the texts that replace others, each with
//! a zero after it (`Normalizer::DecodePrecompiledCharsMap` of google/sentencepiece). The trie is
//! a double array (Darts-clone): a unit of 32 bits holds the character that leads to it, whether a
//! text ends there, and the place of the units that follow. The tokenizer trusts these places.

use std::collections::HashSet;

/// Whether every search of a table ends within it.
pub(super) fn is_valid(table: &[u8]) -> bool {
    let Some((length, rest)) = table.split_first_chunk::<4>() else { return false };
    let units = u32::from_le_bytes(*length) as usize / 4;
    let Some((trie, texts)) = rest.split_at_checked(4 * units) else { return false };
    let Ok(texts) = std::str::from_utf8(texts) else { return false };
    let trie: Vec<u32> =
        trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    let Some(root) = trie.first() else { return false };
    let mut seen = HashSet::new();
    let mut left = vec![offset(*root)];
    while let Some(place) = left.pop() {
        if !seen.insert(place) {
            continue;
        }
        for character in 1..=u8::MAX {
            let at = place ^ usize::from(character);
            let Some(unit) = trie.get(at) else { return false };
            if label(*unit) != u32::from(character) {
                continue;
            }
            let next = at ^ offset(*unit);
            if has_text(*unit)
                && !trie.get(next).is_some_and(|leaf| texts.is_char_boundary(value(*leaf)))
            {
                return false;
            }
            left.push(next);
        }
    }
    true
}

/// The character that leads to a unit; of a unit that ends a text, no character.
fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xff)
}

/// Whether a text ends at a unit.
fn has_text(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

/// Where the units that follow one are, from its own place.
fn offset(unit: u32) -> usize {
    (unit >> 10 << ((unit & 1 << 9) >> 6)) as usize
}

/// Where the text of a unit is.
fn value(unit: u32) -> usize {
    (unit & !(1 << 31)) as usize
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    /// A table whose trie has the root and 255 units, some of which are given.
    fn table(root: u32, units: &[(usize, u32)], texts: &str) -> Vec<u8> {
        let mut trie = vec![0_u32; 256];
        trie[0] = root;
        units.iter().for_each(|(at, unit)| trie[*at] = *unit);
        let trie: Vec<u8> = trie.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        [&(trie.len() as u32).to_le_bytes()[..], &trie, texts.as_bytes()].concat()
    }

    #[test]
    fn searches_stay_within_a_table() {
        // The letter a leads to place 97, where a text ends; its unit is at place 97 ^ 96.
        let a = (97, 96 << 10 | 1 << 8 | 97);
        let of = |value: u32| table(0, &[a, (1, 1 << 31 | value)], "\u{e9}\0");
        assert!(is_valid(&of(0)) && is_valid(&of(3)));
        assert!(!is_valid(&of(4)), "a text beyond the end");
        assert!(!is_valid(&of(1)), "within a character");
        assert!(!is_valid(&table(1 << 10 << 8, &[], "")), "units beyond the end");
        assert!(!is_valid(&table(0, &[(97, 1 << 20 | 97)], "")), "units beyond the end");
        // A search takes a character for each step, so that a circle ends.
        assert!(is_valid(&table(0, &[(97, 97 << 10 | 97)], "")));
        for cut in 0..1028 {
            assert!(!is_valid(&of(0)[..cut]), "{cut}");
        }
    }
}
