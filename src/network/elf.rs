//! Checks that a file is a complete shared library for this machine. The system's loader reports
//! less, and maps what the headers declare without checking the file's length: a truncated library
//! kills the process.

use std::env::consts::ARCH;
use std::fs;
use std::io::Read;
use std::path::Path;

/// The first bytes of a 64-bit little-endian ELF file.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";

/// What is wrong with a shared library, according to its headers.
pub(super) fn problem(path: &Path) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    // Linkers write the headers at the start of a library.
    let mut head = Vec::new();
    file.by_ref().take(1 << 12).read_to_end(&mut head).ok()?;
    if !head.starts_with(MAGIC) {
        return Some(match head.is_empty() {
            true => "the file is empty; copy it again".into(),
            false => {
                "the file is not a 64-bit Linux library; copy it again, or name another".into()
            }
        });
    }
    let machine = u16::from_le_bytes([*head.get(18)?, *head.get(19)?]);
    let architecture = match machine {
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        other => format!("a CPU of ELF's number {other}"),
    };
    if architecture != ARCH {
        return Some(format!(
            "the library is for {architecture}, and this machine is {ARCH}; bring a build for this \
             machine"
        ));
    }
    let end = promised_length(&head)?;
    (length < end).then(|| {
        format!("the file is cut off: it has {length} bytes of at least {end}; copy it again")
    })
}

/// The end of the last segment according to the headers of a little-endian 64-bit ELF file.
fn promised_length(head: &[u8]) -> Option<u64> {
    let number = |at: usize, size: usize| {
        let bytes = head.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    let segment_end = |i: u64| {
        let header = usize::try_from(table.checked_add(i * size)?).ok()?;
        number(header.checked_add(0x08)?, 8)?.checked_add(number(header.checked_add(0x20)?, 8)?)
    };
    (0..count).filter_map(segment_end).max()
}

#[cfg(test)]
mod tests {
    use super::{problem, promised_length};
    use std::fs;

    #[test]
    fn detects_a_truncated_library() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, cut) = (std::env::current_exe().unwrap(), folder.path().join("cut"));
        assert_eq!(problem(&whole), None);
        let bytes = fs::read(&whole).unwrap();
        fs::write(&cut, &bytes[..5000]).unwrap();
        assert!(problem(&cut).unwrap().contains("it has 5000 bytes of at least"));
        fs::write(&cut, "a text").unwrap();
        assert!(problem(&cut).unwrap().contains("not a 64-bit Linux library"));
        for length in 0..200 {
            assert!(promised_length(&bytes[..length]).is_none_or(|end| end <= bytes.len() as u64));
        }
    }
}
