//! Whether a file is shorter than it declares, by how its container is built: what ffmpeg does not say of it.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Whether a file ends inside something of which it says how long it is: a RIFF (AVI), a packet of MPEG's transport stream, a frame of
/// raw DV, a tag of FLV, a page of Ogg, a block of GIF or before its last.
pub(super) fn is_cut(name: &Path) -> bool {
    // A pipe is not opened a second time: nobody writes to it any more.
    if !fs::metadata(name).is_ok_and(|found| found.is_file()) {
        return false;
    }
    let Ok(mut walk) = Walk::begin(name) else { return false };
    // The first three packets of 192 bytes.
    let mut head = Vec::new();
    if walk.file.by_ref().take(2 * 192 + 5).read_to_end(&mut head).is_err() || walk.file.rewind().is_err() {
        return false;
    }
    let is_partial = |size: u64| !walk.length.is_multiple_of(size);
    match head[..] {
        [b'R', b'I', b'F', b'F', a, b, c, d, ..] => {
            let size = u64::from(u32::from_le_bytes([a, b, c, d]));
            // What is written through a pipe, or is longer than that can be said, declares none.
            size != 0 && size < 0xffff_ff00 && size + 8 > walk.length
        }
        [0x1f, 0x07, 0x00, system, ..] => is_partial(if system & 0x80 == 0 { 120_000 } else { 144_000 }),
        [b'F', b'L', b'V', ..] => walk.flv().is_none(),
        [b'O', b'g', b'g', b'S', ..] => walk.ogg().is_none(),
        [b'G', b'I', b'F', b'8', ..] => walk.gif().is_none(),
        _ => {
            // Each packet begins with 0x47, in M2TS after four bytes of time.
            let has_packets = |first: usize, size: usize| (0..3).all(|i| head.get(first + i * size) == Some(&0x47));
            (has_packets(0, 188) && is_partial(188)) || (has_packets(4, 192) && is_partial(192))
        }
    }
}

/// A walk through a file from one part to the next. A step is none where the file ends before it does.
struct Walk {
    file: BufReader<File>,
    at: u64,
    length: u64,
}

impl Walk {
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

    /// To the end, or to what is no tag.
    fn flv(&mut self) -> Option<()> {
        let [_, _, _, _, _, a, b, c, d] = self.take()?;
        self.skip(u64::from(u32::from_be_bytes([a, b, c, d])).saturating_sub(9))?;
        // Behind each tag stands its length once more, which nobody misses behind the last.
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

    /// To the end, or to what is no page (RFC 3533, section 6).
    fn ogg(&mut self) -> Option<()> {
        while self.left() > 0 {
            let head: [u8; 27] = self.take()?;
            if !head.starts_with(b"OggS") {
                break;
            }
            let mut body = 0;
            for _ in 0..head[26] {
                let [segment] = self.take()?;
                body += u64::from(segment);
            }
            self.skip(body)?;
        }
        Some(())
    }

    /// To the trailer, or to what is no block.
    fn gif(&mut self) -> Option<()> {
        let colours = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << (1 + (flags & 7)) };
        let screen: [u8; 13] = self.take()?;
        self.skip(colours(screen[10]))?;
        loop {
            match self.take()? {
                [b'!'] => self.skip(1)?,
                [b','] => {
                    let picture: [u8; 9] = self.take()?;
                    self.skip(colours(picture[8]) + 1)?;
                }
                // The trailer, or nothing that is known.
                _ => return Some(()),
            }
            while let [length @ 1..=u8::MAX] = self.take()? {
                self.skip(length.into())?;
            }
        }
    }
}
