//! Detects truncated files by the structure of their container, where ffmpeg does not report it.

mod asf;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::media::Uninterrupted;

/// The missing part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It ends inside an element of declared length: a RIFF (AVI), a packet of an MPEG transport or
    /// program stream, a frame of raw DV or IVF, a tag of FLV, a page of Ogg, a block of GIF, a box
    /// of fragmented MP4 or the index of another, a whole ASF; or before the last element, where
    /// that is marked.
    End,
    /// A part before the end is missing: a gap in the page numbers of Ogg or in the objects of ASF,
    /// something else where a chunk of AVI, a frame of IVF or a pack of an MPEG program stream
    /// should begin, zeros among the frames of H.264 or H.265.
    Part,
}

/// What an MP4 or MOV begins with.
const FIRST_BOXES: [&[u8; 4]; 6] = [b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"];

/// This many zeros in a row do not occur in a bare stream of H.264 or H.265.
const ZEROS: usize = 256;

/// How many zeros may stand between two packs of an MPEG program stream, or after the last: two of
/// its sectors.
const MAX_STUFFING: u64 = 4096;

/// The missing part of a file, if that can be detected; `None` for a pipe.
pub(super) fn missing(name: &Path) -> Option<Missing> {
    // A pipe is not opened a second time: its writer has disconnected.
    if !fs::metadata(name).is_ok_and(|found| found.is_file()) {
        return None;
    }
    let mut walk = ElementReader::begin(name).ok()?;
    // The first three packets of 192 bytes.
    let mut head = Vec::new();
    walk.file.by_ref().take(2 * 192 + 5).read_to_end(&mut head).ok()?;
    walk.file.rewind().ok()?;
    let length = walk.length;
    let is_partial = |size: u64| !length.is_multiple_of(size);
    let whole_or_part = |is_whole: Option<bool>| match is_whole {
        Some(true) => None,
        Some(false) => Some(Missing::Part),
        None => Some(Missing::End),
    };
    let is_truncated = match head[..] {
        [b'R', b'I', b'F', b'F', a, b, c, d, ..] => {
            let size = u64::from(u32::from_le_bytes([a, b, c, d]));
            // Files written to a pipe, or larger than the field can hold, declare no size.
            if size != 0 && size < 0xffff_ff00 && size + 8 > walk.length {
                return Some(Missing::End);
            }
            return whole_or_part(walk.avi());
        }
        [b'D', b'K', b'I', b'F', ..] => return whole_or_part(walk.ivf()),
        // The first unit is a delimiter, or describes the sequence.
        [0, 0, 1, unit, ..] | [0, 0, 0, 1, unit, ..]
            if [0x09, 0x27, 0x40, 0x46, 0x47, 0x67].contains(&unit) =>
        {
            return walk.has_zeros().then_some(Missing::Part);
        }
        [0x1f, 0x07, 0x00, system, ..] => {
            is_partial(if system & 0x80 == 0 { 120_000 } else { 144_000 })
        }
        [0, 0, 1, 0xba, ..] => return whole_or_part(walk.program_stream()),
        [b'F', b'L', b'V', ..] => walk.flv().is_none(),
        [b'O', b'g', b'g', b'S', ..] => match walk.ogg() {
            Some(true) => return Some(Missing::Part),
            whole => whole.is_none(),
        },
        [_, _, _, _, a, b, c, d, ..] if FIRST_BOXES.contains(&&[a, b, c, d]) => {
            walk.boxes().is_none()
        }
        [0x30, 0x26, 0xb2, 0x75, ..] => return whole_or_part(walk.asf()),
        [b'G', b'I', b'F', b'8', ..] => walk.gif().is_none(),
        _ => {
            // Each packet begins with 0x47, in M2TS after a timestamp of four bytes.
            let has_packets = |first: usize, size: usize| {
                (0..3).all(|i| head.get(first + i * size) == Some(&0x47))
            };
            let mut is_truncated = |first: usize, size: usize| {
                is_partial(size as u64) || walk.has_unfilled_last_packet(first, size, 0x47)
            };
            (has_packets(0, 188) && is_truncated(0, 188))
                || (has_packets(4, 192) && is_truncated(4, 192))
        }
    };
    is_truncated.then_some(Missing::End)
}

/// Walks through a file element by element. A step returns `None` where the file ends before the
/// element does.
struct ElementReader {
    file: BufReader<Uninterrupted<File>>,
    at: u64,
    length: u64,
}

impl ElementReader {
    fn begin(name: &Path) -> std::io::Result<Self> {
        let mut file = File::open(name)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        Ok(Self { file: BufReader::new(Uninterrupted(file)), at: 0, length })
    }

    fn left(&self) -> u64 {
        self.length.saturating_sub(self.at)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).ok()?;
        self.at += N as u64;
        Some(bytes)
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        let within = bytes <= self.left();
        self.file.seek_relative(i64::try_from(bytes).ok().filter(|_| within)?).ok()?;
        self.at += bytes;
        Some(())
    }

    /// Whether the last packet of `size` bytes does not have `mark` at `first`, as where a file was
    /// allocated and not filled.
    fn has_unfilled_last_packet(&mut self, first: usize, size: usize, mark: u8) -> bool {
        let mut last = vec![0; size];
        let is_read = self
            .file
            .seek(SeekFrom::End(-(size as i64)))
            .and_then(|_| self.file.read_exact(&mut last));
        is_read.is_ok() && last.get(first) != Some(&mark)
    }

    /// Walks over zeros; returns how many.
    fn zeros(&mut self) -> std::io::Result<u64> {
        let started = self.at;
        loop {
            let bytes = self.file.fill_buf()?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let is_over = zeros < bytes.len() || bytes.is_empty();
            self.file.consume(zeros);
            self.at += zeros as u64;
            if is_over {
                return Ok(self.at - started);
            }
        }
    }

    /// Whether the file has many zeros in a row.
    fn has_zeros(&mut self) -> bool {
        let mut zeros = 0;
        while let Ok(bytes @ [_, ..]) = self.file.fill_buf() {
            for byte in bytes {
                zeros = if *byte == 0 { zeros + 1 } else { 0 };
                if zeros == ZEROS {
                    return true;
                }
            }
            let read = bytes.len();
            self.file.consume(read);
        }
        false
    }

    /// Walks through all chunks; returns whether they are those of an AVI.
    fn avi(&mut self) -> Option<bool> {
        self.skip(12)?;
        while self.left() >= 8 {
            let [a, b, c, d, size @ ..] = self.take::<8>()?;
            let size = u64::from(u32::from_le_bytes(size));
            let size = (size + (size & 1)).min(self.left());
            match [a, b, c, d] {
                // The next RIFF of a large file.
                [b'R', b'I', b'F', b'F'] => self.skip(4)?,
                [b'L', b'I', b'S', b'T'] => {
                    let name: [u8; 4] = self.take()?;
                    // These hold chunks, too.
                    if name != *b"movi" && name != *b"rec " {
                        self.skip(size.saturating_sub(4).min(self.left()))?;
                    }
                }
                [b'i', b'x', ..] | [b'J', b'U', b'N', b'K'] | [b'i', b'd', b'x', b'1'] => {
                    self.skip(size)?
                }
                [a, b, ..] if a.is_ascii_digit() && b.is_ascii_digit() => self.skip(size)?,
                _ => return Some(false),
            }
        }
        Some(true)
    }

    /// Walks through all frames; returns whether each has a size.
    fn ivf(&mut self) -> Option<bool> {
        self.skip(32)?;
        while self.left() > 0 {
            let [a, b, c, d, ..]: [u8; 12] = self.take()?;
            let size = u32::from_le_bytes([a, b, c, d]);
            if size == 0 {
                return Some(false);
            }
            self.skip(size.into())?;
        }
        Some(true)
    }

    /// Walks through the packs and packets of an MPEG program stream (ISO/IEC 13818-1, section
    /// 2.5); returns whether there is nothing else between them. One that ends between two packs is
    /// whole as far as it says.
    fn program_stream(&mut self) -> Option<bool> {
        while self.left() > 0 {
            // A start code is two zeros, a one and a code.
            let zeros = self.zeros().ok()?;
            match (zeros > MAX_STUFFING, self.left()) {
                (true, 0) => return None,
                (true, _) => return Some(false),
                (false, 0) => return Some(true),
                (false, _) => {}
            }
            let [one, code] = self.take()?;
            match code {
                _ if zeros < 2 || one != 1 => return Some(false),
                // The end.
                0xb9 => return Some(true),
                0xba => {
                    let [version] = self.take()?;
                    if version & 0xc0 == 0x40 {
                        self.skip(8)?;
                        let [stuffing] = self.take()?;
                        self.skip((stuffing & 7).into())?;
                    } else {
                        self.skip(7)?;
                    }
                }
                0xbb.. => {
                    let length = u16::from_be_bytes(self.take()?);
                    self.skip(length.into())?;
                }
                _ => return Some(false),
            }
        }
        Some(true)
    }

    /// Walks to the end, or to the first invalid tag.
    fn flv(&mut self) -> Option<()> {
        let [_, _, _, _, _, a, b, c, d] = self.take()?;
        self.skip(u64::from(u32::from_be_bytes([a, b, c, d])).saturating_sub(9))?;
        // The length is repeated after each tag; it is not required after the last.
        while self.left() > 4 {
            self.skip(4)?;
            let [kind, a, b, c] = self.take()?;
            if !matches!(kind & 0x1f, 8 | 9 | 18) {
                break;
            }
            self.skip(7 + u64::from(u32::from_be_bytes([0, a, b, c])))?;
        }
        Some(())
    }

    /// Walks to the last page, which is marked as its stream's last (RFC 3533, section 6); returns
    /// whether a page is missing before.
    fn ogg(&mut self) -> Option<bool> {
        let mut pages: HashMap<[u8; 4], u32> = HashMap::new();
        let mut is_last = false;
        while self.left() > 0 {
            let head: [u8; 27] = self.take()?;
            if !head.starts_with(b"OggS") {
                return Some(true);
            }
            let [a, b, c, d] = [head[18], head[19], head[20], head[21]];
            let number = u32::from_le_bytes([a, b, c, d]);
            let serial = [head[14], head[15], head[16], head[17]];
            let is_first = head[5] & 2 != 0;
            if pages
                .insert(serial, number)
                .is_some_and(|before| !is_first && number != before.wrapping_add(1))
            {
                return Some(true);
            }
            is_last = head[5] & 4 != 0;
            let mut body = 0;
            for _ in 0..head[26] {
                let [segment] = self.take()?;
                body += u64::from(segment);
            }
            self.skip(body)?;
        }
        is_last.then_some(false)
    }

    /// Walks to the end of the boxes of an MP4 (ISO/IEC 14496-12, section 4.2). Of a cut `mdat`
    /// without fragments ffmpeg says which frames it takes along; what follows the boxes may be
    /// none.
    fn boxes(&mut self) -> Option<()> {
        let mut has_fragments = false;
        while self.left() >= 8 {
            let [a, b, c, d, kind @ ..] = self.take::<8>()?;
            let body = match u32::from_be_bytes([a, b, c, d]) {
                0 => break,
                1 => u64::from_be_bytes(self.take()?).saturating_sub(16),
                size => u64::from(size).saturating_sub(8),
            };
            has_fragments |= kind == *b"moof";
            if body > self.left() && !has_fragments && kind != *b"moov" {
                break;
            }
            self.skip(body)?;
        }
        Some(())
    }

    /// Walks to the trailer, or to the first invalid block.
    fn gif(&mut self) -> Option<()> {
        let colors = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << (1 + (flags & 7)) };
        let screen: [u8; 13] = self.take()?;
        self.skip(colors(screen[10]))?;
        loop {
            match self.take()? {
                [b'!'] => self.skip(1)?,
                [b','] => {
                    let frame: [u8; 9] = self.take()?;
                    self.skip(colors(frame[8]) + 1)?;
                }
                // The trailer, or an unknown block.
                _ => return Some(()),
            }
            while let [length @ 1..=u8::MAX] = self.take()? {
                self.skip(length.into())?;
            }
        }
    }
}
