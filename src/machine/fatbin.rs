//! The GPUs that a library with CUDA code was built for, read from its file:
//! `libonnxruntime_providers_cuda.so` without code for a GPU fails with "no kernel image" at the
//! first operator.
//!
//! Compilers of CUDA put code into the section `.nv_fatbin`: containers of entries, each of which
//! is machine code or PTX for one architecture. The layout is that of LLVM's
//! `clang-offload-bundler` and of NVIDIA's `fatbinary_section.h`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

const CONTAINER: u32 = 0xba55_ed50;
const PTX: u16 = 1;
const MACHINE_CODE: u16 = 2;

/// The architectures of a library's CUDA code, as compute capabilities times ten: 87 for 8.7.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CudaCode {
    /// The architectures with machine code.
    pub machine_code: BTreeSet<u32>,
    /// The architectures with PTX, from which the driver compiles for any later one.
    pub ptx: BTreeSet<u32>,
}

impl CudaCode {
    /// Reads the architectures of a library; none if it is not a library with CUDA code.
    pub fn of(library: &Path) -> Option<Self> {
        let mut file = BufReader::new(File::open(library).ok()?);
        let (start, length) = section(&mut file, ".nv_fatbin").ok()??;
        let mut found = Self::default();
        found.read(&mut file, start, start.saturating_add(length)).ok()?;
        (!found.machine_code.is_empty() || !found.ptx.is_empty()).then_some(found)
    }

    /// Whether a GPU of that compute capability runs the code. Machine code is for its own major
    /// version from its minor version on, on a Tegra for its own version alone (NVIDIA, "CUDA C++
    /// Programming Guide", binary compatibility).
    pub fn runs_on(&self, gpu: ComputeCapability) -> bool {
        let ComputeCapability { number, is_tegra } = gpu;
        let fits = |code: &u32| match is_tegra {
            true => *code == number,
            false => code / 10 == number / 10 && *code <= number,
        };
        self.machine_code.iter().any(fits) || self.ptx.iter().any(|code| *code <= number)
    }

    fn read(&mut self, file: &mut (impl Read + Seek), start: u64, end: u64) -> io::Result<()> {
        let mut at = start;
        while at < end && end - at >= 16 {
            file.seek(SeekFrom::Start(at))?;
            let head: [u8; 16] = bytes(file)?;
            if u32_in(&head, 0) != CONTAINER {
                at += 8;
                continue;
            }
            let (head_size, size) = (u16_in(&head, 6), u64_in(&head, 8));
            let first = at + u64::from(head_size);
            let last = first.saturating_add(size).min(end);
            let mut entry = first;
            while entry < last && last - entry >= 32 {
                file.seek(SeekFrom::Start(entry))?;
                let head: [u8; 32] = bytes(file)?;
                let architecture = u32_in(&head, 28);
                match u16_in(&head, 0) {
                    MACHINE_CODE => drop(self.machine_code.insert(architecture)),
                    PTX => drop(self.ptx.insert(architecture)),
                    _ => {}
                }
                let length = u64::from(u32_in(&head, 4)).saturating_add(u64_in(&head, 8));
                entry = entry.saturating_add(length.max(32));
            }
            at = last.max(at + 16).next_multiple_of(8);
        }
        Ok(())
    }
}

/// The architecture of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComputeCapability {
    /// Ten times the compute capability: 87 for 8.7.
    pub number: u32,
    /// Whether the GPU is part of a Tegra, as in a Jetson.
    pub is_tegra: bool,
}

/// The position and the length of a section of a 64-bit little-endian ELF file.
fn section(file: &mut (impl Read + Seek), name: &str) -> io::Result<Option<(u64, u64)>> {
    let head: [u8; 64] = bytes(file)?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let (table, size) = (u64_in(&head, 40), u64::from(u16_in(&head, 58)));
    let (count, names) = (u64::from(u16_in(&head, 60)), u64::from(u16_in(&head, 62)));
    let mut entry = |i: u64| -> io::Result<[u8; 64]> {
        file.seek(SeekFrom::Start(table.saturating_add(i * size)))?;
        bytes(file)
    };
    let names = u64_in(&entry(names)?, 24);
    let entries = (0..count).map(entry).collect::<io::Result<Vec<_>>>()?;
    for entry in entries {
        file.seek(SeekFrom::Start(names.saturating_add(u64::from(u32_in(&entry, 0)))))?;
        let mut text = Vec::new();
        file.by_ref().take(name.len() as u64 + 1).read_to_end(&mut text)?;
        if text.strip_suffix(&[0]) == Some(name.as_bytes()) {
            return Ok(Some((u64_in(&entry, 24), u64_in(&entry, 32))));
        }
    }
    Ok(None)
}

fn bytes<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes).map(|()| bytes)
}

fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes.iter().skip(at).take(size).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn u16_in(bytes: &[u8], at: usize) -> u16 {
    number(bytes, at, 2) as u16
}

fn u32_in(bytes: &[u8], at: usize) -> u32 {
    number(bytes, at, 4) as u32
}

fn u64_in(bytes: &[u8], at: usize) -> u64 {
    number(bytes, at, 8)
}

#[cfg(test)]
mod tests {
    use super::{ComputeCapability, CudaCode, MACHINE_CODE, PTX, section};
    use std::io::Cursor;

    fn entry(kind: u16, architecture: u32, body: usize) -> Vec<u8> {
        let mut entry = kind.to_le_bytes().to_vec();
        entry.extend([0; 2]);
        entry.extend(64_u32.to_le_bytes());
        entry.extend((body as u64).to_le_bytes());
        entry.extend([0; 12]);
        entry.extend(architecture.to_le_bytes());
        entry.resize(64 + body, 7);
        entry
    }

    fn container(entries: &[Vec<u8>]) -> Vec<u8> {
        let body = entries.concat();
        let mut container = super::CONTAINER.to_le_bytes().to_vec();
        container.extend([1, 0, 16, 0]);
        container.extend((body.len() as u64).to_le_bytes());
        container.extend(body);
        container
    }

    fn code(bytes: Vec<u8>) -> CudaCode {
        let (mut found, end) = (CudaCode::default(), bytes.len() as u64);
        found.read(&mut Cursor::new(bytes), 0, end).unwrap();
        found
    }

    fn gpu(number: u32) -> ComputeCapability {
        ComputeCapability { number, is_tegra: false }
    }

    #[test]
    fn finds_the_architectures_of_all_containers() {
        let mut bytes = container(&[entry(MACHINE_CODE, 80, 24), entry(PTX, 90, 8)]);
        bytes.extend([0; 24]);
        bytes.extend(container(&[entry(MACHINE_CODE, 86, 0)]));
        let found = code(bytes);
        assert_eq!(found.machine_code.into_iter().collect::<Vec<_>>(), [80, 86]);
        assert_eq!(found.ptx.into_iter().collect::<Vec<_>>(), [90]);
    }

    #[test]
    fn reading_damaged_containers_terminates() {
        let mut bytes = container(&[entry(MACHINE_CODE, 80, 24)]);
        bytes[8..16].fill(0xff);
        bytes[16 + 8..16 + 16].fill(0xff);
        assert_eq!(code(bytes).machine_code.into_iter().collect::<Vec<_>>(), [80]);
        assert_eq!(section(&mut Cursor::new([0; 64]), ".nv_fatbin").unwrap(), None);
    }

    #[test]
    fn machine_code_is_for_its_major_version_and_ptx_for_later_ones() {
        let found = code(container(&[entry(MACHINE_CODE, 80, 8), entry(MACHINE_CODE, 89, 8)]));
        assert!(found.runs_on(gpu(80)) && found.runs_on(gpu(86)) && found.runs_on(gpu(89)));
        assert!(!found.runs_on(gpu(75)) && !found.runs_on(gpu(90)));
        assert!(!found.runs_on(ComputeCapability { number: 87, is_tegra: true }));
        assert!(
            code(container(&[entry(PTX, 80, 8)]))
                .runs_on(ComputeCapability { number: 87, is_tegra: true })
        );
    }
}
