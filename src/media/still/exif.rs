//! Changes numbers of an EXIF block in place.

use std::borrow::Cow;

const IMAGE_WIDTH: u16 = 0x0100;
const IMAGE_LENGTH: u16 = 0x0101;
const ORIENTATION: u16 = 0x0112;
const EXIF_DIRECTORY: u16 = 0x8769;
const PIXEL_X_DIMENSION: u16 = 0xA002;
const PIXEL_Y_DIMENSION: u16 = 0xA003;

const SHORT: u16 = 3;
const LONG: u16 = 4;

/// A block, starting at its byte order mark.
struct Block<'a> {
    bytes: Cow<'a, [u8]>,
    big_endian: bool,
}

impl<'a> Block<'a> {
    /// `None` for bytes that do not begin as an EXIF block.
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = match bytes.get(..4)? {
            b"MM\0*" => true,
            b"II*\0" => false,
            _ => return None,
        };
        Some(Self { bytes: bytes.into(), big_endian })
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes: [u8; 2] = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes: [u8; 4] = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// Writes a number, given in little-endian order, in the block's byte order.
    fn put(&mut self, at: usize, number: &[u8]) {
        let mut number = number.to_vec();
        if self.big_endian {
            number.reverse();
        }
        let end = at.saturating_add(number.len());
        // An unchanged block stays borrowed.
        if self.bytes.get(at..end).is_some_and(|bytes| bytes != number) {
            self.bytes.to_mut()[at..end].copy_from_slice(&number);
        }
    }

    /// Offset of the first directory.
    fn first(&self) -> Option<usize> {
        Some(self.long(4)? as usize)
    }

    /// Offset of the entry of a tag in a directory.
    fn entry(&self, directory: usize, tag: u16) -> Option<usize> {
        let count = usize::from(self.short(directory)?);
        (0..count).map(|i| directory + 2 + 12 * i).find(|at| self.short(*at) == Some(tag))
    }

    /// Changes the number of a tag, if the directory has it.
    fn set(&mut self, directory: usize, tag: u16, value: u32) {
        let Some(at) = self.entry(directory, tag) else { return };
        let (kind, count) = (self.short(at + 2), self.long(at + 4));
        match (kind, u16::try_from(value)) {
            _ if count != Some(1) => {}
            (Some(SHORT), Ok(value)) => self.put(at + 8, &value.to_le_bytes()),
            (Some(SHORT | LONG), _) => {
                self.put(at + 2, &LONG.to_le_bytes());
                self.put(at + 8, &value.to_le_bytes());
            }
            _ => {}
        }
    }
}

/// The block with its size tags set to the size of the image.
pub(super) fn with_size(exif: &[u8], [width, height]: [usize; 2]) -> Cow<'_, [u8]> {
    let Some(mut block) = Block::of(exif) else { return exif.into() };
    let size = [width, height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    if let Some(first) = block.first() {
        block.set(first, IMAGE_WIDTH, size[0]);
        block.set(first, IMAGE_LENGTH, size[1]);
        let further = block.entry(first, EXIF_DIRECTORY).and_then(|at| block.long(at + 8));
        if let Some(further) = further {
            block.set(further as usize, PIXEL_X_DIMENSION, size[0]);
            block.set(further as usize, PIXEL_Y_DIMENSION, size[1]);
        }
    }
    block.bytes
}

/// The block of an image that was rotated for display: upright, and without the thumbnail, which
/// was not rotated.
pub(super) fn upright(exif: &[u8]) -> Cow<'_, [u8]> {
    let Some(mut block) = Block::of(exif) else { return exif.into() };
    if let Some(first) = block.first() {
        block.set(first, ORIENTATION, 1);
        if let Some(count) = block.short(first) {
            block.put(first + 2 + 12 * usize::from(count), &[0; 4]);
        }
    }
    block.bytes
}
