//! The colors of fully transparent pixels, which are invisible and must not influence visible
//! ones.

use std::borrow::Cow;

use super::{Image, Samples};

/// The colors of fully transparent pixels, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HiddenColors(Samples);

impl Image {
    /// Whether some pixels are fully transparent and others are not.
    fn hides_colors(&self) -> bool {
        fn hides<T: Copy + PartialEq + Default>(samples: &[T], channels: usize) -> bool {
            let alpha = || samples.iter().skip(channels - 1).step_by(channels);
            alpha().any(|alpha| *alpha == T::default())
                && alpha().any(|alpha| *alpha != T::default())
        }
        self.has_alpha()
            && match &self.samples {
                Samples::U8(samples) => hides(samples, self.channels),
                Samples::U16(samples) => hides(samples, self.channels),
            }
    }

    /// The image with fully transparent pixels filled from the visible pixels around them; the
    /// image itself if no pixel is fully transparent, or all are.
    pub(crate) fn visible(&self) -> Cow<'_, Self> {
        if !self.hides_colors() {
            return Cow::Borrowed(self);
        }
        let mut visible = self.clone();
        visible.fill_transparent();
        Cow::Owned(visible)
    }

    /// Fills fully transparent pixels from visible ones around them: means of visible pixels
    /// weighted by alpha, from coarser grids the further away those are (pull-push, Gortler et al.
    /// 1996). Returns the original colors; `None` if there was nothing to fill. Temporarily takes
    /// 4/3 of the memory of an 8-bit image.
    pub(crate) fn fill_transparent(&mut self) -> Option<HiddenColors> {
        if !self.hides_colors() {
            return None;
        }
        let size = [self.width, self.height];
        Some(HiddenColors(match &mut self.samples {
            Samples::U8(samples) => {
                Samples::U8(fill(samples, size, self.channels, u8::MAX, f32::from, |value| {
                    value as u8
                }))
            }
            Samples::U16(samples) => {
                Samples::U16(fill(samples, size, self.channels, u16::MAX, f32::from, |value| {
                    value as u16
                }))
            }
        }))
    }

    /// Restores what [`fill_transparent`](Self::fill_transparent) returned for an image with the
    /// same alpha.
    pub(crate) fn restore_transparent(&mut self, hidden: &HiddenColors) {
        fn restore<T: Copy + PartialEq + Default>(
            samples: &mut [T],
            channels: usize,
            hidden: &[T],
        ) {
            let pixels = samples
                .chunks_exact_mut(channels)
                .filter(|pixel| pixel[channels - 1] == T::default());
            for (pixel, hidden) in pixels.zip(hidden.chunks_exact(channels - 1)) {
                pixel[..channels - 1].copy_from_slice(hidden);
            }
        }
        match (&mut self.samples, &hidden.0) {
            (Samples::U8(samples), Samples::U8(hidden)) => restore(samples, self.channels, hidden),
            (Samples::U16(samples), Samples::U16(hidden)) => {
                restore(samples, self.channels, hidden)
            }
            _ => {}
        }
    }
}

/// A value and its weight: 0 where it is unknown, up to 1.
type Weighted = ([f32; 3], f32);

/// Values on a coarser grid than the image.
struct Grid {
    width: usize,
    height: usize,
    values: Vec<Weighted>,
}

impl Grid {
    /// Means of 2x2 values of `fine`.
    fn half([width, height]: [usize; 2], fine: impl Fn(usize, usize) -> Weighted) -> Self {
        let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
        let mut values = Vec::with_capacity(half_width * half_height);
        for y in 0..half_height {
            for x in 0..half_width {
                let (mut sum, mut weight) = ([0.0; 3], 0.0);
                for (i, j) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let (x, y) = (2 * x + i, 2 * y + j);
                    if x < width && y < height {
                        let (value, part) = fine(x, y);
                        sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += part * value);
                        weight += part;
                    }
                }
                let mean = if weight > 0.0 { sum.map(|sum| sum / weight) } else { sum };
                values.push((mean, weight.min(1.0)));
            }
        }
        Self { width: half_width, height: half_height, values }
    }

    /// The value of this grid at a position of the grid with twice its resolution, interpolated
    /// from its four nearest values.
    fn at(&self, x: usize, y: usize) -> [f32; 3] {
        let [x, y] = [(x, self.width), (y, self.height)].map(|(at, length)| {
            let (near, last) = (at / 2, length - 1);
            // Interpolates by a quarter toward the neighbor on the finer position's side.
            (near.min(last), if at % 2 == 0 { near.saturating_sub(1) } else { near + 1 }.min(last))
        });
        let corners =
            [(x.0, y.0, 0.5625), (x.1, y.0, 0.1875), (x.0, y.1, 0.1875), (x.1, y.1, 0.0625)];
        let mut sum = [0.0; 3];
        for (x, y, part) in corners {
            let (value, _) = self.values[y * self.width + x];
            sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += part * value);
        }
        sum
    }
}

fn fill<T: Copy + PartialEq + Default>(
    samples: &mut [T],
    [width, height]: [usize; 2],
    channels: usize,
    opaque: T,
    to_number: fn(T) -> f32,
    to_sample: fn(f32) -> T,
) -> Vec<T> {
    let colors = channels - 1;
    let finest = Grid::half([width, height], |x, y| {
        let pixel = &samples[(y * width + x) * channels..][..channels];
        let value = std::array::from_fn(|c| if c < colors { to_number(pixel[c]) } else { 0.0 });
        (value, to_number(pixel[colors]) / to_number(opaque))
    });
    let mut grids = vec![finest];
    while let Some(last) = grids.last().filter(|last| last.width * last.height > 1) {
        grids.push(Grid::half([last.width, last.height], |x, y| last.values[y * last.width + x]));
    }
    // From the coarsest grid down, fills values of low weight from the coarser one.
    let Some(mut coarse) = grids.pop() else { return Vec::new() };
    while let Some(mut grid) = grids.pop() {
        for (i, (value, weight)) in
            grid.values.iter_mut().enumerate().filter(|(_, (_, weight))| *weight < 1.0)
        {
            let around = coarse.at(i % grid.width, i / grid.width);
            value
                .iter_mut()
                .zip(around)
                .for_each(|(value, around)| *value = around + *weight * (*value - around));
        }
        coarse = grid;
    }
    let mut hidden = Vec::new();
    for (i, pixel) in samples.chunks_exact_mut(channels).enumerate() {
        if pixel[colors] == T::default() {
            hidden.extend_from_slice(&pixel[..colors]);
            let around = coarse.at(i % width, i / width);
            pixel[..colors]
                .iter_mut()
                .zip(around)
                .for_each(|(to, value)| *to = to_sample(value.round()));
        }
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::super::{Image, Metadata, Samples};

    /// Red that increases slightly to the right where it is opaque, and green elsewhere.
    fn cutout(width: usize, height: usize, opaque: impl Fn(usize, usize) -> bool) -> Image {
        let pixel = |i: usize| {
            if opaque(i % width, i / width) {
                [100 + (i % width) as u8, 20, 7, 255]
            } else {
                [0, 250, 0, 0]
            }
        };
        let samples = Samples::U8((0..width * height).flat_map(pixel).collect());
        Image { width, height, channels: 4, samples, metadata: Metadata::default() }
    }

    fn pixels(image: &Image) -> Vec<[u8; 4]> {
        let Samples::U8(samples) = &image.samples else { panic!("8 bits") };
        samples.as_chunks::<4>().0.to_vec()
    }

    #[test]
    fn fills_transparent_pixels_and_restores_them() {
        for (width, height) in [(1, 2), (2, 1), (7, 5), (33, 40), (64, 3)] {
            let image = cutout(width, height, |x, y| (x + y) % 5 == 1);
            let mut filled = image.clone();
            let hidden = filled.fill_transparent().unwrap();
            for (before, after) in pixels(&image).iter().zip(pixels(&filled)) {
                assert_eq!(before[3], after[3]);
                assert_eq!(after[1..3], [20, 7], "{width}x{height}");
                assert!(before[3] == 0 || *before == after);
            }
            assert_eq!(*image.visible(), filled);
            filled.restore_transparent(&hidden);
            assert_eq!(filled, image);
        }
    }

    #[test]
    fn fills_from_the_nearest_colors() {
        let filled = cutout(100, 20, |x, _| !(30..70).contains(&x)).visible().into_owned();
        let row = &pixels(&filled)[10 * 100..][..100];
        assert!((126..=130).contains(&row[31][0]) && (168..=172).contains(&row[68][0]), "{row:?}");
        assert!(row.windows(2).all(|pair| pair[0][0].abs_diff(pair[1][0]) < 8), "{row:?}");
    }

    #[test]
    fn does_nothing_without_transparent_or_visible_pixels() {
        for opaque in [true, false] {
            let image = cutout(5, 4, |_, _| opaque);
            assert!(matches!(image.visible(), std::borrow::Cow::Borrowed(_)));
            assert_eq!(image.clone().fill_transparent(), None);
        }
    }
}
