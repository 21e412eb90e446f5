//! Checks whether an image file is complete.
//!
//! Some decoders return a partial image for a truncated file: its lower part is gray. So the
//! file's structure is parsed first, without decoding. This also finds what the decoders do not
//! report.
//!
//! Missing or changed bytes within compressed data are detected only if the format has checksums
//! (PNG) or the decoder fails: a JPEG may pass with a visibly damaged part.

use super::codec_error::{CodecError, Result};
use super::format::Format;
use std::io::{self, BufRead, Read, Seek, SeekFrom};

/// What was found besides the end.
#[derive(Default)]
pub(super) struct Found {
    /// An EXIF block, which in a PNG may follow the pixels.
    pub(super) exif: Option<Vec<u8>>,
    /// Whether the colors are CMYK.
    pub(super) from_print: bool,
    /// Whether a PNG has an ICC profile.
    pub(super) has_profile: bool,
    /// Whether a JPEG is progressive, so that its pixels are known only when all of it has been
    /// read.
    pub(super) is_progressive: bool,
    /// Chunks as [`Metadata::chunks`](crate::media::Metadata::chunks) has them.
    pub(super) chunks: Vec<([u8; 4], Vec<u8>)>,
}

/// The first 12 bytes, or all of a shorter file. The reader is returned to the start.
pub(super) fn head(reader: &mut (impl BufRead + Seek)) -> Result<Vec<u8>> {
    let mut head = Vec::with_capacity(12);
    reader.by_ref().take(12).read_to_end(&mut head)?;
    reader.seek(SeekFrom::Start(0))?;
    Ok(head)
}

/// Parses the file from start to end.
pub(super) fn check(format: Format, reader: &mut (impl BufRead + Seek)) -> Result<Found> {
    match format {
        Format::Png => walk_png(reader),
        Format::Jpeg => walk_jpeg(reader),
        Format::WebP => measure_riff(reader).map(|()| Found::default()),
        // Their decoders detect truncation.
        Format::Tiff => count_values(reader).map(|()| Found::default()),
        Format::Bmp => Ok(Found::default()),
        Format::Qoi => find_end(reader).map(|()| Found::default()),
    }
}

/// The eight bytes that end a QOI.
fn find_end(reader: &mut (impl BufRead + Seek)) -> Result<()> {
    reader.seek(SeekFrom::End(-8))?;
    let end: [u8; 8] = array(reader)?;
    if end == [0, 0, 0, 0, 0, 0, 0, 1] {
        return Ok(());
    }
    // Something may follow. No encoder writes seven zeros and a one before the end.
    reader.rewind()?;
    let mut zeros = 0;
    for byte in reader.bytes() {
        match byte? {
            0 => zeros += 1,
            1 if zeros >= 7 => return Ok(()),
            _ => zeros = 0,
        }
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
}

/// Chunk by chunk until `IEND`.
fn walk_png(reader: &mut (impl BufRead + Seek)) -> Result<Found> {
    /// Larger EXIF blocks are invalid.
    const MAX_EXIF: u32 = 1 << 24;
    let mut found = Found::default();
    let mut before_pixels = true;
    reader.seek(SeekFrom::Start(8))?;
    loop {
        let length = u32::from_be_bytes(array(reader)?);
        let kind: [u8; 4] = array(reader)?;
        match &kind {
            b"IEND" => {
                let _checksum: [u8; 4] = array(reader)?;
                return Ok(found);
            }
            b"eXIf" if length <= MAX_EXIF => {
                let mut block = vec![0; length as usize];
                reader.read_exact(&mut block)?;
                found.exif = Some(block);
                reader.seek_relative(4)?;
            }
            kind if before_pixels && density_or_color(kind, length) => {
                let mut body = vec![0; length as usize];
                reader.read_exact(&mut body)?;
                // A damaged chunk is ignored.
                if u32::from_be_bytes(array(reader)?) == crc32(kind.iter().chain(&body)) {
                    found.chunks.push((*kind, body));
                }
            }
            b"IDAT" => {
                before_pixels = false;
                reader.seek_relative(i64::from(length) + 4)?;
            }
            kind => {
                found.has_profile |= kind == b"iCCP";
                // Skips the checksum as well.
                reader.seek_relative(i64::from(length) + 4)?;
            }
        }
    }
}

/// Whether a chunk is kept, and has the length of its type.
fn density_or_color(kind: &[u8; 4], length: u32) -> bool {
    matches!(
        (kind, length),
        (b"gAMA" | b"cICP", 4)
            | (b"cHRM", 32)
            | (b"sRGB", 1)
            | (b"mDCV", 24)
            | (b"cLLI", 8)
            | (b"pHYs", 9)
    )
}

/// The checksum of a PNG chunk.
fn crc32<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 }
        })
    })
}

/// Parses markers until the end of the image. Compressed data between markers is skipped: there, a
/// byte of 255 is followed by 0 or by a restart marker.
fn walk_jpeg(reader: &mut (impl BufRead + Seek)) -> Result<Found> {
    let mut found = Found::default();
    let mut is_adobe = false;
    // Blocks of 8x8 pixels in the first component.
    let mut blocks = 0;
    reader.seek(SeekFrom::Start(2))?;
    loop {
        skip_past_ff(reader)?;
        let marker = loop {
            let [byte] = array(reader)?;
            if byte != 0xFF {
                break byte;
            }
        };
        match marker {
            0xD9 if found.from_print && !is_adobe => {
                return Err(CodecError::new(
                    "its colors are CMYK, and it does not declare how they are stored; convert it \
                     to RGB first",
                ));
            }
            0xD9 => {
                // A block takes at least two codes of one bit; in the first scan of a progressive
                // JPEG, one.
                let bits = 8 * reader.stream_position()?;
                let fewest = if found.is_progressive { blocks } else { 2 * blocks };
                if bits < fewest {
                    return Err(CodecError::new(
                        "it is truncated: it is shorter than so many pixels can be; fetch \
                         the file again",
                    ));
                }
                return Ok(found);
            }
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            _ => {
                let length = u16::from_be_bytes(array(reader)?).saturating_sub(2);
                if marker == 0xE0 && length >= 12 {
                    found.chunks.extend(density(&array(reader)?));
                    reader.seek_relative(i64::from(length) - 12)?;
                    continue;
                }
                if marker == 0xEE && length >= 12 {
                    is_adobe |= array::<12>(reader)?.starts_with(b"Adobe");
                    reader.seek_relative(i64::from(length) - 12)?;
                    continue;
                }
                let start_of_frame =
                    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
                if start_of_frame && length >= 6 {
                    let [_, a, b, c, d, components] = array::<6>(reader)?;
                    found.from_print = components == 4;
                    found.is_progressive = marker == 0xC2;
                    let [high, wide] =
                        [[a, b], [c, d]].map(|side| u64::from(u16::from_be_bytes(side)));
                    blocks = high * wide / 64;
                    reader.seek_relative(i64::from(length) - 6)?;
                } else {
                    reader.seek_relative(i64::from(length))?;
                }
            }
        }
    }
}

/// The density of a JFIF segment as a PNG chunk; `None` if it has none.
fn density(segment: &[u8; 12]) -> Option<([u8; 4], Vec<u8>)> {
    let [b'J', b'F', b'I', b'F', 0, _, _, unit, x @ .., y_high, y_low] = segment else {
        return None;
    };
    let [x, y] = [*x, [*y_high, *y_low]].map(|length| u32::from(u16::from_be_bytes(length)));
    let per_meter = |density: u32| match unit {
        1 => (density * 10_000 + 127) / 254,
        _ => density * 100,
    };
    let body = match unit {
        _ if x == 0 || y == 0 => return None,
        1 | 2 => [&per_meter(x).to_be_bytes()[..], &per_meter(y).to_be_bytes(), &[1]].concat(),
        0 if x != y => [&x.to_be_bytes()[..], &y.to_be_bytes(), &[0]].concat(),
        _ => return None,
    };
    Some((*b"pHYs", body))
}

fn skip_past_ff(reader: &mut impl BufRead) -> Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let (skip, done) = match buffer.iter().position(|byte| *byte == 0xFF) {
            Some(at) => (at + 1, true),
            None => (buffer.len(), false),
        };
        reader.consume(skip);
        if done {
            return Ok(());
        }
    }
}

/// Checks that the file is as long as its header and its chunks say. The decoder takes memory by
/// the length that a chunk claims.
fn measure_riff(reader: &mut (impl BufRead + Seek)) -> Result<()> {
    let end = reader.seek(SeekFrom::End(0))?;
    reader.seek(SeekFrom::Start(4))?;
    let length = u64::from(u32::from_le_bytes(array(reader)?)) + 8;
    let mut at = 12;
    while at <= end && length <= end {
        if at + 8 > length {
            return Ok(());
        }
        reader.seek(SeekFrom::Start(at + 4))?;
        let size = u64::from(u32::from_le_bytes(array(reader)?));
        // A chunk of odd length has a byte after it, which may be missing at the end.
        at += 8 + size;
        if at < end {
            at += size & 1;
        }
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
}

/// Checks that no tag of the first directory of a TIFF claims too many values. The decoder takes 32
/// bytes for each before it reads them, and before a limit can be set. What is cut off is left to
/// it.
fn count_values(reader: &mut (impl BufRead + Seek)) -> Result<()> {
    const MAX_VALUES: u64 = 1 << 20;
    reader.seek(SeekFrom::Start(0))?;
    let is_little = array::<2>(reader)? == *b"II";
    let mut number = |at: u64, length: usize| {
        reader.seek(SeekFrom::Start(at)).ok()?;
        let mut bytes = [0; 8];
        reader.read_exact(&mut bytes[..length]).ok()?;
        if !is_little {
            bytes[..length].reverse();
        }
        Some(u64::from_le_bytes(bytes))
    };
    // BigTIFF has offsets and counts of 8 bytes.
    let is_big = number(2, 2) == Some(43);
    let (first, counted, entry, wide) = if is_big { (8, 8, 20, 8) } else { (4, 2, 12, 4) };
    let Some(directory) = number(first, wide) else { return Ok(()) };
    let entries = number(directory, counted).unwrap_or_default();
    let mut at = directory.saturating_add(counted as u64);
    for _ in 0..entries {
        let Some(values) = number(at.saturating_add(4), wide) else { break };
        if values > MAX_VALUES {
            return Err(CodecError::new(format!(
                "one of its tags claims {values} values; expected at most {MAX_VALUES}: it is \
                 damaged, or made to take memory"
            )));
        }
        at = at.saturating_add(entry);
    }
    Ok(())
}

fn array<const N: usize>(reader: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::walk_jpeg;
    use std::io::Cursor;

    /// A frame header of that size and kind, and a scan of `bytes` bytes.
    fn jpeg(kind: u8, side: u16, bytes: usize) -> Vec<u8> {
        let [high, low] = side.to_be_bytes();
        let start = [
            0xff, 0xd8, 0xff, kind, 0, 11, 8, high, low, high, low, 1, 1, 0x11, 0, 0xff, 0xda, 0, 2,
        ];
        [&start[..], &vec![0; bytes], &[0xff, 0xd9]].concat()
    }

    #[test]
    fn rejects_a_jpeg_with_too_few_bits_for_its_blocks() {
        // 256 blocks per side, one bit each: 8192 bytes.
        for (kind, bytes, is_whole) in [
            (0xc0, 2 * 8192, true),
            (0xc0, 2 * 8192 - 64, false),
            (0xc2, 8192, true),
            (0xc2, 8192 - 64, false),
        ] {
            let walked = walk_jpeg(&mut Cursor::new(jpeg(kind, 2048, bytes)));
            assert_eq!(walked.is_ok(), is_whole, "{kind:x} {bytes}");
        }
    }
}
