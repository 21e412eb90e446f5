//! Images between rows of C and [`Image`].

use eddy::media::{Image, Samples};
use eddy::{Error, Result};

/// Width, height, channels, bits and stride of an image in C's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) size: [usize; 2],
    pub(crate) channels: usize,
    pub(crate) bits: u32,
    /// Bytes from a row to the next; 0 for rows without padding.
    pub(crate) stride: usize,
}

impl Layout {
    /// Checks it.
    ///
    /// # Errors
    /// [`Error::Usage`] for a size, a depth or a stride that no image has.
    pub(crate) fn check(self) -> Result<Self> {
        const SIDES: std::ops::RangeInclusive<usize> = 1..=65_535;
        let Self { size: [width, height], channels, bits, stride } = self;
        let is_known = SIDES.contains(&width)
            && SIDES.contains(&height)
            && (1..=4).contains(&channels)
            && matches!(bits, 8 | 16);
        if is_known && (stride == 0 || stride >= self.row()) {
            return Ok(self);
        }
        Err(Error::usage(format!(
            "an image of {width}x{height}, {channels} channels of {bits} bits, {stride} bytes a \
             row; expected sides from 1 to 65535, 1 to 4 channels of 8 or 16 bits, and rows of at \
             least width * channels * bits / 8 bytes, or 0 for no padding"
        )))
    }

    /// The bytes of a row's samples.
    pub(crate) fn row(self) -> usize {
        self.size[0] * self.channels * self.bits as usize / 8
    }

    /// Bytes from a row to the next.
    pub(crate) fn stride(self) -> usize {
        if self.stride == 0 { self.row() } else { self.stride }
    }

    /// The bytes from the first sample to the end of the last row.
    pub(crate) fn bytes(self) -> usize {
        self.stride() * (self.size[1] - 1) + self.row()
    }

    /// The image in these rows.
    ///
    /// # Errors
    /// As for [`Image::new`].
    pub(crate) fn read(self, rows: &[u8]) -> Result<Image> {
        let rows = rows.chunks(self.stride()).flat_map(|row| &row[..self.row()]).copied();
        let samples = match self.bits {
            8 => Samples::U8(rows.collect()),
            _ => {
                let bytes: Vec<u8> = rows.collect();
                let pairs = bytes.chunks_exact(2);
                Samples::U16(pairs.map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect())
            }
        };
        Image::new(self.size[0], self.size[1], self.channels, samples)
    }

    /// Writes an image of this layout into rows, whose padding is left alone.
    pub(crate) fn write(self, image: &Image, rows: &mut [u8]) {
        let targets = rows.chunks_mut(self.stride());
        match &image.samples {
            Samples::U8(samples) => {
                for (target, row) in targets.zip(samples.chunks(self.row())) {
                    target[..row.len()].copy_from_slice(row);
                }
            }
            Samples::U16(samples) => {
                for (target, row) in targets.zip(samples.chunks(self.row() / 2)) {
                    for (pair, sample) in target.chunks_exact_mut(2).zip(row) {
                        pair.copy_from_slice(&sample.to_ne_bytes());
                    }
                }
            }
        }
    }

    /// Checks that this layout is for `image` enlarged by `scale`.
    ///
    /// # Errors
    /// [`Error::Usage`] with both sizes.
    pub(crate) fn expect_enlarged(self, image: &Image, scale: usize) -> Result<()> {
        let size = [image.width, image.height].map(|side| side.saturating_mul(scale));
        let expected = (size, image.channels, image.samples.bits());
        if expected == (self.size, self.channels, self.bits) {
            return Ok(());
        }
        let ([width, height], channels, bits) = expected;
        Err(Error::usage(format!(
            "the enlarged image is {width}x{height} with {channels} channels of {bits} bits, and \
             the output is {}x{} with {} of {}",
            self.size[0], self.size[1], self.channels, self.bits
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::Layout;

    #[test]
    fn padding_is_skipped_and_left_alone() {
        for bits in [8, 16] {
            let layout = Layout { size: [3, 2], channels: 2, bits, stride: 16 };
            let rows: Vec<u8> = (0..layout.bytes()).map(|at| at as u8).collect();
            let image = layout.check().and_then(|it| it.read(&rows)).unwrap();
            let mut written = vec![200; rows.len()];
            layout.write(&image, &mut written);
            let row = layout.row();
            assert_eq!((&written[..row], &written[16..]), (&rows[..row], &rows[16..]));
            assert!(written[row..16].iter().all(|&byte| byte == 200));
        }
    }

    #[test]
    fn sizes_that_no_image_has_are_refused() {
        let good = Layout { size: [4, 4], channels: 3, bits: 8, stride: 0 };
        assert!(good.check().is_ok());
        for bad in [
            Layout { size: [0, 4], ..good },
            Layout { size: [4, usize::MAX], ..good },
            Layout { channels: 5, ..good },
            Layout { bits: 10, ..good },
            Layout { stride: 11, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
