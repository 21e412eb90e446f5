//! How large an image may be, and how much memory its reading may take.

use super::codec_error::{CodecError, Result};
use crate::machine;
use crate::setting::MAX_MEMORY;

/// Limits on images. A small file can claim a huge image; it is rejected before memory is
/// allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum side length, in pixels. Default: 65535.
    pub max_side: usize,
    /// Maximum size of the samples, in bytes. Default: 1 GiB.
    pub max_bytes: u64,
    /// Maximum memory of the whole process during reading, in bytes. Default: all memory of the
    /// machine.
    pub max_memory: u64,
}

impl Default for Limits {
    /// 65535 pixels per side, 1 GiB of samples (about 18000x18000 in 8-bit RGB), and all memory of
    /// the machine.
    fn default() -> Self {
        Self { max_side: 65_535, max_bytes: 1 << 30, max_memory: machine::total_memory() }
    }
}

impl Limits {
    /// The default limits, in a process that may hold `max_memory` bytes.
    pub fn within(max_memory: u64) -> Self {
        Self { max_memory, ..Self::default() }
    }

    /// Rejects an image that exceeds the limits. `working` bytes are held besides its samples
    /// during reading.
    pub(super) fn check(
        &self,
        width: u32,
        height: u32,
        bytes_per_pixel: u32,
        working: u64,
    ) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(CodecError::new(format!(
                "the image is empty: it has {width} x {height} pixels"
            )));
        }
        let bytes = u128::from(width) * u128::from(height) * u128::from(bytes_per_pixel);
        let longest = width.max(height) as usize;
        if longest > self.max_side || bytes > u128::from(self.max_bytes) {
            return Err(CodecError::new(format!(
                "the image has {width} x {height} pixels and takes {} MiB; at most {} pixels a \
                 side and {} MiB are read; scale it down or cut it into parts",
                bytes.div_ceil(1 << 20),
                self.max_side,
                self.max_bytes >> 20,
            )));
        }
        let taken = u128::from(machine::resident_memory()) + u128::from(working) + bytes;
        if taken > u128::from(self.max_memory) {
            return Err(CodecError::new(format!(
                "the image has {width} x {height} pixels, and to read it takes the process to \
                 about {} MiB, of {} that it may hold; raise {MAX_MEMORY}, scale the image down or \
                 cut it into parts",
                taken.div_ceil(1 << 20),
                self.max_memory >> 20,
            )));
        }
        let mut probe = Vec::<u8>::new();
        let is_there = usize::try_from(bytes + u128::from(working))
            .is_ok_and(|size| machine::try_to_allocate(|| probe.try_reserve_exact(size)).is_ok());
        if !is_there {
            let mebibytes = taken.div_ceil(1 << 20);
            return Err(CodecError::new(format!(
                "the image has {width} x {height} pixels, and the system does not give the \
                 {mebibytes} MiB that the process would hold while it is read; scale it down or \
                 cut it into parts, or raise the limit (ulimit -v)"
            )));
        }
        Ok(())
    }
}
