//! Detects truncated files by the structure of their container, where ffmpeg does not report it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// The missing part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It ends inside an element of declared length: a RIFF (AVI), a packet of an MPEG transport
    /// stream, a frame of raw DV, a tag of FLV, a page of Ogg, a block of GIF, a box of fragmented
    /// MP4, a whole ASF; or before the last element, where that is marked.
    End,
    /// A part before the end is missing: a gap in the page numbers of Ogg.
    Part,
}

/// The missing part of a file, if that can be detected; `None` for a pipe.
pub(super) fn missing(name: &Path) -> Option<Missing> {
    // A pipe is not opened a second time: its writer has disconnected.
    if !fs::metadata(name).is_ok_and(|found| found.is_file()) {
        return None;
    }
    let mut walk = LevelPath::begin(name).ok()?;
    // The first three packets of 192 bytes.
    let mut head = Vec::new();
    walk.file.by_ref().take(2 * 192 + 5).read_to_end(&mut head).ok()?;
    walk.file.rewind().ok()?;
    let is_partial = |size: u64| !walk.length.is_multiple_of(size);
    let is_cut = match head[..] {
        [b'R', b'I', b'F', b'F', a, b, c, d, ..] => {
            let size = u64::from(u32::from_le_bytes([a, b, c, d]));
            // Files written to a pipe, or larger than the field can hold, declare no size.
            size != 0 && size < 0xffff_ff00 && size + 8 > walk.length
        }
        [0x1f, 0x07, 0x00, system, ..] => is_partial(if system & 0x80 == 0 { 120_000 } else { 144_000 }),
        [b'F', b'L', b'V', ..] => walk.flv().is_none(),
        [b'O', b'g', b'g', b'S', ..] => match walk.ogg() {
            Some(true) => return Some(Missing::Part),
            whole => whole.is_none(),
        },
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => walk.fragments().is_none(),
        [0x30, 0x26, 0xb2, 0x75, ..] => walk.asf().is_none(),
        [b'G', b'I', b'F', b'8', ..] => walk.gif().is_none(),
        _ => {
            // Each packet begins with 0x47, in M2TS after a timestamp of four bytes.
            let has_packets = |first: usize, size: usize| (0..3).all(|i| head.get(first + i * size) == Some(&0x47));
            (has_packets(0, 188) && is_partial(188)) || (has_packets(4, 192) && is_partial(192))
        }
    };
    is_cut.then_some(Missing::End)
}

/// Walks through a file element by element. A step returns `None` where the file ends before the
/// element does.
struct LevelPath {
    file: BufReader<File>,
    at: u64,
    length: u64,
}

impl LevelPath {
    fn begin(name: &Path) -> std::io::Result<Self> {
        let mut file = File::open(name)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        Ok(Self { file: BufReader::new(file), at: 0, length })
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
            if pages.insert(serial, number).is_some_and(|before| !is_first && number != before.wrapping_add(1)) {
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

    /// Walks to the end of the boxes of a fragmented MP4 (ISO/IEC 14496-12, section 4.2). For
    /// other MP4s ffmpeg detects truncation.
    fn fragments(&mut self) -> Option<()> {
        let mut has_fragments = false;
        while self.left() >= 8 {
            let [a, b, c, d, kind @ ..] = self.take::<8>()?;
            let body = match u32::from_be_bytes([a, b, c, d]) {
                0 => break,
                1 => u64::from_be_bytes(self.take()?).saturating_sub(16),
                size => u64::from(size).saturating_sub(8),
            };
            has_fragments |= kind == *b"moof";
            if body > self.left() && !has_fragments {
                break;
            }
            self.skip(body)?;
        }
        Some(())
    }

    /// `None` for an ASF that is shorter than its file properties say, unless it was broadcast
    /// live.
    fn asf(&mut self) -> Option<()> {
        const FILE_PROPERTIES: [u8; 16] =
            [0xa1, 0xdc, 0xab, 0x8c, 0x47, 0xa9, 0xcf, 0x11, 0x8e, 0xe4, 0x00, 0xc0, 0x0c, 0x20, 0x53, 0x65];
        let mut header = Vec::new();
        self.file.by_ref().take(1 << 16).read_to_end(&mut header).ok()?;
        let at = header.windows(FILE_PROPERTIES.len()).position(|bytes| bytes == FILE_PROPERTIES);
        let properties = at.and_then(|at| header.get(at + 40..at + 92));
        let Some(([size, ..], flags)) = properties.map(|found| (found.as_chunks::<8>().0, found[48])) else {
            return Some(());
        };
        (flags & 1 != 0 || u64::from_le_bytes(*size) <= self.length).then_some(())
    }

    /// Walks to the trailer, or to the first invalid block.
    fn gif(&mut self) -> Option<()> {
        let colours = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << (1 + (flags & 7)) };
        let screen: [u8; 13] = self.take()?;
        self.skip(colours(screen[10]))?;
        loop {
            match self.take()? {
                [b'!'] => self.skip(1)?,
                [b','] => {
                    let frame: [u8; 9] = self.take()?;
                    self.skip(colours(frame[8]) + 1)?;
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
