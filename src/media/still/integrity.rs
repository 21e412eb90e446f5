//! Whether a file goes on to its end.
//!
//! Some decoders return what they have when a file is cut off: an image whose lower part is grey. So the file's own
//! structure is walked first, without decoding. The walk also finds what the decoders do not tell.
//!
//! Bytes that are missing or changed amid compressed data are found only where the format has checksums (PNG) or the
//! decoder stumbles: a JPEG may pass with a part that any program shows spoilt.

use super::codec_error::{CodecError, Result};
use super::format::Format;
use std::io::{self, BufRead, Read, Seek, SeekFrom};

/// What the walk found beside the end.
#[derive(Default)]
pub(super) struct Found {
    /// An EXIF block, which in a PNG may stand after the pixels.
    pub(super) exif: Option<Vec<u8>>,
    /// Whether it is of printing colours (CMYK).
    pub(super) from_print: bool,
    /// Whether a PNG has an ICC profile.
    pub(super) has_profile: bool,
    /// Whether a JPEG's pixels are known when all of it is read.
    pub(super) is_progressive: bool,
    /// Chunks as [`Metadata::chunks`](crate::media::Metadata::chunks) has them.
    pub(super) chunks: Vec<([u8; 4], Vec<u8>)>,
}

/// The first 12 bytes, or all of a shorter file. The reader stays at the start.
pub(super) fn head(reader: &mut (impl BufRead + Seek)) -> Result<Vec<u8>> {
    let mut head = Vec::with_capacity(12);
    reader.by_ref().take(12).read_to_end(&mut head)?;
    reader.seek(SeekFrom::Start(0))?;
    Ok(head)
}

/// Walks the file from its start to its end.
pub(super) fn check(format: Format, reader: &mut (impl BufRead + Seek)) -> Result<Found> {
    match format {
        Format::Png => walk_png(reader),
        Format::Jpeg => walk_jpeg(reader),
        Format::WebP => measure_riff(reader).map(|()| Found::default()),
        // Their decoders notice by themselves.
        Format::Tiff | Format::Bmp => Ok(Found::default()),
        Format::Qoi => find_end(reader).map(|()| Found::default()),
    }
}

/// The eight bytes that end a QOI.
fn find_end(reader: &mut (impl BufRead + Seek)) -> Result<()> {
    reader.seek(SeekFrom::End(-8))?;
    let end: [u8; 8] = array(reader)?;
    if end == [0, 0, 0, 0, 0, 0, 0, 1] { Ok(()) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) }
}

/// Chunk by chunk until `IEND`.
fn walk_png(reader: &mut (impl BufRead + Seek)) -> Result<Found> {
    /// An EXIF block larger than this is none.
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
                // A damaged one says nothing.
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
                // The checksum follows.
                reader.seek_relative(i64::from(length) + 4)?;
            }
        }
    }
}

/// Whether a chunk is one of those that are kept, and as long as such a chunk is.
fn density_or_color(kind: &[u8; 4], length: u32) -> bool {
    matches!(
        (kind, length),
        (b"gAMA" | b"cICP", 4) | (b"cHRM", 32) | (b"sRGB", 1) | (b"mDCV", 24) | (b"cLLI", 8) | (b"pHYs", 9)
    )
}

/// The checksum of a PNG's chunk.
fn crc32<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

/// Marker by marker until the end of the image. Compressed data lies between markers and is passed over: there, a
/// byte of 255 is followed by 0 or by a restart marker.
fn walk_jpeg(reader: &mut (impl BufRead + Seek)) -> Result<Found> {
    let mut found = Found::default();
    let mut is_adobe = false;
    // Of 8 by 8 pixels, in the first component.
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
                    "it is made of printing colours (CMYK), and does not say how they are stored; convert it to RGB first",
                ));
            }
            0xD9 => {
                // A block takes two codes of a bit or more; of the scans of a progressive one, the first takes one.
                let bits = 8 * reader.stream_position()?;
                let fewest = if found.is_progressive { blocks } else { 2 * blocks };
                if bits < fewest {
                    return Err(CodecError::new(
                        "it ends before its end: it is shorter than so many pixels can be; fetch the file again",
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
                let start_of_frame = matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
                if start_of_frame && length >= 6 {
                    let [_, a, b, c, d, components] = array::<6>(reader)?;
                    found.from_print = components == 4;
                    found.is_progressive = marker == 0xC2;
                    let [high, wide] = [[a, b], [c, d]].map(|side| u64::from(u16::from_be_bytes(side)));
                    blocks = high * wide / 64;
                    reader.seek_relative(i64::from(length) - 6)?;
                } else {
                    reader.seek_relative(i64::from(length))?;
                }
            }
        }
    }
}

/// The density that a JFIF segment gives, as a PNG's chunk; none where it says nothing.
fn density(segment: &[u8; 12]) -> Option<([u8; 4], Vec<u8>)> {
    let [b'J', b'F', b'I', b'F', 0, _, _, unit, x @ .., y_high, y_low] = segment else { return None };
    let [x, y] = [*x, [*y_high, *y_low]].map(|length| u32::from(u16::from_be_bytes(length)));
    let per_metre = |density: u32| match unit {
        1 => (density * 10_000 + 127) / 254,
        _ => density * 100,
    };
    let body = match unit {
        _ if x == 0 || y == 0 => return None,
        1 | 2 => [&per_metre(x).to_be_bytes()[..], &per_metre(y).to_be_bytes(), &[1]].concat(),
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

/// The file is as long as its header says.
fn measure_riff(reader: &mut (impl BufRead + Seek)) -> Result<()> {
    reader.seek(SeekFrom::Start(4))?;
    let length = u64::from(u32::from_le_bytes(array(reader)?)) + 8;
    if reader.seek(SeekFrom::End(0))? < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
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

    /// A frame of that size and kind, and a scan of so many bytes.
    fn jpeg(kind: u8, side: u16, bytes: usize) -> Vec<u8> {
        let [high, low] = side.to_be_bytes();
        let start = [0xff, 0xd8, 0xff, kind, 0, 11, 8, high, low, high, low, 1, 1, 0x11, 0, 0xff, 0xda, 0, 2];
        [&start[..], &vec![0; bytes], &[0xff, 0xd9]].concat()
    }

    #[test]
    fn a_jpeg_with_fewer_bits_than_its_blocks_take_is_cut_off() {
        // 256 blocks a side: 8192 bytes of a bit for each.
        for (kind, bytes, is_whole) in
            [(0xc0, 2 * 8192, true), (0xc0, 2 * 8192 - 64, false), (0xc2, 8192, true), (0xc2, 8192 - 64, false)]
        {
            let walked = walk_jpeg(&mut Cursor::new(jpeg(kind, 2048, bytes)));
            assert_eq!(walked.is_ok(), is_whole, "{kind:x} {bytes}");
        }
    }
}
