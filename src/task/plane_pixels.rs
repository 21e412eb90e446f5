//! An image as the canvas of a single prediction by a network on 4:2:0 planes: from pixels into
//! six channels at half the size and back, without planes of the whole image.
//!
//! Chroma is split into the mean of each 2x2, which the network denoises, and the detail. The part
//! of the detail that noise explains is removed, as in
//! [`YuvFrameConverter`](crate::tensor::YuvFrameConverter), and replaced by a smooth interpolation
//! of the denoised means, which is how a JPEG decoder upsamples chroma.

use crate::diffusion::{Canvas, Update, Window};
use crate::error::{Error, Result};
use crate::media::Image;
use crate::media::stream::Matrix;
use crate::network::Shape;
use crate::tensor::{self, Range, Rect, grid_of, kept_of, mirror, rise};

/// Pixels of a row within which detail is scaled uniformly; both rows of a 2x2 are one block.
const BLOCK: usize = 4;

/// The pixels of an image, which the posterior mean replaces row by row.
pub(super) struct PlanePixels<'a> {
    image: &'a mut Image,
    /// `[width, height]` of chroma.
    grid: [usize; 2],
    /// Expected energy of noise per sample in the detail of chroma.
    noise: f32,
    /// Denoised luma of two rows of the grid, each two rows of pixels; and denoised chroma of
    /// three, Cb before Cr.
    luma: [Vec<f32>; 2],
    chroma: [[Vec<f32>; 2]; 3],
    work: Work,
}

/// Work space for rows of pixels.
struct Work {
    /// Red, green and blue, or gray.
    colors: Vec<f32>,
    /// For both chromas: the detail of two rows of pixels, and the part that the means explain.
    detail: [Vec<f32>; 2],
    explained: [Vec<f32>; 2],
}

/// Converts red, green and blue to luma and chroma around 0.5 (ITU-R BT.601, as in JPEG).
fn to_yuv([r, g, b]: [f32; 3]) -> [f32; 3] {
    let [red, blue] = Matrix::Bt601.weights();
    let luma = red * r + (1.0 - red - blue) * g + blue * b;
    [luma, (b - luma) * (0.5 / (1.0 - blue)) + 0.5, (r - luma) * (0.5 / (1.0 - red)) + 0.5]
}

fn to_rgb([luma, blues, reds]: [f32; 3]) -> [f32; 3] {
    let [red, blue] = Matrix::Bt601.weights();
    let (r, b) =
        (luma + (reds - 0.5) * (2.0 - 2.0 * red), luma + (blues - 0.5) * (2.0 - 2.0 * blue));
    [r, (luma - red * r - blue * b) / (1.0 - red - blue), b]
}

/// Fills luma of `rect`, which has even sides, and the mean chroma of each 2x2, Cb before Cr. Gray
/// images have no chroma.
///
/// # Errors
/// Only those of unsupported kinds of images.
pub(super) fn read_yuv(
    image: &Image,
    rect: Rect,
    luma: &mut [f32],
    [blues, reds]: [&mut [f32]; 2],
) -> Result<()> {
    let (width, half) = (rect.width, rect.width / 2);
    let is_gray = image.color_channels() == 1;
    if is_gray {
        blues.fill(0.5);
        reds.fill(0.5);
        return tensor::read_region(image, Range::UNIT, rect, luma);
    }
    let mut colors = vec![0.0; 6 * width];
    let chroma = blues.chunks_exact_mut(half).zip(reds.chunks_exact_mut(half));
    for (row, (luma, (blues, reds))) in luma.chunks_exact_mut(2 * width).zip(chroma).enumerate() {
        let rows = Rect { y0: rect.y0 + 2 * row.cast_signed(), height: 2, ..rect };
        tensor::read_region(image, Range::UNIT, rows, &mut colors)?;
        let (r, rest) = colors.split_at(2 * width);
        let (g, b) = rest.split_at(2 * width);
        for i in 0..half {
            let mut sums = [0.0; 2];
            for at in [2 * i, 2 * i + 1, width + 2 * i, width + 2 * i + 1] {
                let [y, u, v] = to_yuv([r[at], g[at], b[at]]);
                luma[at] = y;
                sums[0] += u;
                sums[1] += v;
            }
            (blues[i], reds[i]) = (0.25 * sums[0], 0.25 * sums[1]);
        }
    }
    Ok(())
}

impl<'a> PlanePixels<'a> {
    /// The pixels of `image`, whose mean chroma has noise of standard deviation `sigma`, as a part
    /// of the full range.
    pub(super) fn new(image: &'a mut Image, sigma: f32) -> Self {
        let grid = grid_of([image.width, image.height]);
        let row = || vec![0.0; 4 * grid[0]];
        Self {
            image,
            grid,
            // For white noise, each of the three details of a 2x2 has the variance of its mean.
            noise: 3.0 * sigma * sigma,
            luma: [row(), row()],
            chroma: std::array::from_fn(|_| std::array::from_fn(|_| vec![0.0; grid[0]])),
            work: Work {
                colors: vec![0.0; 12 * grid[0]],
                detail: [row(), row()],
                explained: [row(), row()],
            },
        }
    }

    /// Accepts row `j` of the grid; `row` returns each of its six channels. Rows come in order.
    ///
    /// # Errors
    /// Only those of unsupported kinds of images.
    pub(super) fn put<'b>(&mut self, j: usize, row: impl Fn(usize) -> &'b [f32]) -> Result<()> {
        let [half, down] = self.grid;
        for (plane, kept) in self.chroma[j % 3].iter_mut().enumerate() {
            kept.copy_from_slice(row(4 + plane));
        }
        // The row above waited for this row's chroma. It still has its original pixels.
        if j > 0 {
            self.emit(j - 1)?;
        }
        for (part, luma) in self.luma[j % 2].chunks_exact_mut(2 * half).enumerate() {
            let pairs =
                luma.as_chunks_mut::<2>().0.iter_mut().zip(row(2 * part)).zip(row(2 * part + 1));
            pairs.for_each(|((pair, a), b)| *pair = [*a, *b]);
        }
        if j + 1 == down { self.emit(j) } else { Ok(()) }
    }

    /// Writes the pixels of row `j` of the grid, once its denoised planes and the neighbors'
    /// chroma are complete.
    fn emit(&mut self, j: usize) -> Result<()> {
        let [half, down] = self.grid;
        let (width, wide) = (self.image.width, 2 * half);
        let luma = &self.luma[j % 2];
        let rows = 2 * j..(2 * j + 2).min(self.image.height);
        if self.image.color_channels() == 1 {
            for y in rows {
                tensor::write_row(
                    &[&luma[(y % 2) * wide..][..width]],
                    Range::UNIT,
                    self.image,
                    0,
                    y,
                );
            }
            return Ok(());
        }
        let Work { colors, detail, explained } = &mut self.work;
        let rect = Rect { x0: 0, y0: 2 * j.cast_signed(), width: wide, height: 2 };
        tensor::read_region(self.image, Range::UNIT, rect, &mut colors[..6 * wide])?;
        let above = mirror(j.cast_signed() - 1, down) % 3;
        let below = mirror(j.cast_signed() + 1, down) % 3;
        for i in 0..half {
            let at = [2 * i, 2 * i + 1, wide + 2 * i, wide + 2 * i + 1];
            let chroma = at.map(|at| {
                let [_, u, v] = to_yuv([colors[at], colors[2 * wide + at], colors[4 * wide + at]]);
                [u, v]
            });
            for plane in 0..2 {
                let mean = 0.25 * chroma.iter().map(|chroma| chroma[plane]).sum::<f32>();
                at.iter()
                    .zip(chroma)
                    .for_each(|(at, chroma)| detail[plane][*at] = chroma[plane] - mean);
                explain(
                    self.chroma.each_ref().map(|row| row[plane].as_slice()),
                    [above, j % 3, below],
                    i,
                )
                .into_iter()
                .zip(at)
                .for_each(|(value, at)| explained[plane][at] = value);
            }
        }
        for left in (0..wide).step_by(BLOCK) {
            let columns = left..(left + BLOCK).min(wide);
            let places = columns.clone().chain(columns.start + wide..columns.end + wide);
            let energy: f32 = (0..2)
                .flat_map(|plane| places.clone().map(move |at| (plane, at)))
                .map(|(plane, at)| (detail[plane][at] - explained[plane][at]).powi(2))
                .sum();
            let expected = self.noise * (4 * columns.len()) as f32;
            let kept = kept_of(energy, expected);
            for plane in 0..2 {
                for at in places.clone() {
                    let mean = self.chroma[j % 3][plane][(at % wide) / 2];
                    let beside = explained[plane][at];
                    detail[plane][at] = mean + beside + kept * (detail[plane][at] - beside);
                }
            }
        }
        for at in 0..2 * wide {
            let rgb = to_rgb([luma[at], detail[0][at], detail[1][at]]);
            rgb.into_iter().enumerate().for_each(|(i, value)| colors[2 * i * wide + at] = value);
        }
        for y in rows {
            let row: [&[f32]; 3] = [0, 2, 4].map(|i| &colors[i * wide + (y % 2) * wide..][..width]);
            tensor::write_row(&row, Range::UNIT, self.image, 0, y);
        }
        Ok(())
    }
}

/// Offsets from the mean in the four pixels of column `i` by smooth interpolation: a quarter of
/// the difference toward each neighbor, so that their mean stays unchanged.
fn explain(rows: [&[f32]; 3], [above, here, below]: [usize; 3], i: usize) -> [f32; 4] {
    let half = rows[here].len();
    let [before, after] = [i.cast_signed() - 1, i.cast_signed() + 1].map(|i| mirror(i, half));
    let down = |i: usize| rise(rows[above][i], rows[below][i]);
    let line = |sign: f32| {
        let at = |i: usize| rows[here][i] + sign * down(i);
        let across = rise(at(before), at(after));
        [sign * down(i) - across, sign * down(i) + across]
    };
    let [[a, b], [c, d]] = [line(-1.0), line(1.0)];
    [a, b, c, d]
}

impl Canvas for PlanePixels<'_> {
    fn shape(&self) -> Shape {
        [1, 6, self.grid[1], self.grid[0]]
    }

    fn read(&self, window: Window, scale: f32, out: &mut [f32]) -> Result<()> {
        let area = window.width * window.height;
        let rect = Rect {
            x0: 2 * window.x.cast_signed(),
            y0: 2 * window.y.cast_signed(),
            width: 2 * window.width,
            height: 2 * window.height,
        };
        let mut planes = vec![0.0; 6 * area];
        let (luma, chroma) = planes.split_at_mut(4 * area);
        read_yuv(self.image, rect, luma, chroma.split_at_mut(area).into())?;
        tensor::pack(&planes, [window.width, window.height], out);
        if scale != 1.0 {
            out.iter_mut().for_each(|value| *value *= scale);
        }
        Ok(())
    }

    fn update(&mut self, update: &Update<'_>) -> Result<()> {
        let step = update.step;
        if (step.a, step.b + step.e, step.c_skip, step.c_out, step.d) != (0.0, 1.0, 0.0, 1.0, 0.0)
            || step.reads_history()
        {
            return Err(Error::usage(
                "pixels can hold a prediction only, not a state between two steps",
            ));
        }
        let width = self.grid[0];
        update
            .rows
            .clone()
            .try_for_each(|j| self.put(j, |plane| update.output.row(plane, j, width)))
    }
}

#[cfg(test)]
mod tests {
    use super::{PlanePixels, explain};
    use crate::diffusion::{SigmaMap, denoise_plan, execute};
    use crate::error::Result;
    use crate::media::{Image, Metadata, Samples};
    use crate::network::{Inputs, Network, Shape};
    use crate::tile::{Locality, TilePlan};
    use std::ops::ControlFlow;

    /// Returns its input.
    struct Identity {
        x: Vec<f32>,
        sigma: Vec<f32>,
    }

    impl Network for Identity {
        fn bind(&mut self, [_, channels, height, width]: Shape) -> Result<()> {
            (self.x, self.sigma) =
                (vec![0.0; channels * width * height], vec![0.0; 2 * width * height]);
            Ok(())
        }

        fn inputs(&mut self) -> Inputs<'_> {
            Inputs {
                sample: &mut self.x,
                sigma: Some(&mut self.sigma),
                condition: None,
                class: None,
            }
        }

        fn evaluate(&mut self, _: f64) -> Result<&[f32]> {
            Ok(&self.x)
        }
    }

    #[test]
    fn identity_network_keeps_pixels() {
        for (width, height, channels) in
            [(1, 1, 3), (2, 3, 4), (37, 22, 3), (64, 31, 1), (5, 40, 2)]
        {
            let samples = (0..width * height * channels).map(|i| (i * 7919 % 251) as u8).collect();
            let samples = Samples::U8(samples);
            let before = Image { width, height, channels, samples, metadata: Metadata::default() };
            let mut image = before.clone();
            let locality =
                Locality { multiple_of: 2, grid: 2, receptive_field: Some(2), size: None };
            let (across, down) = (width.div_ceil(2), height.div_ceil(2));
            let tiles = TilePlan::cut(across, down, 12, None, locality).unwrap();
            let mut canvas = PlanePixels::new(&mut image, 0.0);
            let mut network = Identity { x: Vec::new(), sigma: Vec::new() };
            let plan = denoise_plan(1, 0.0).unwrap();
            let sigma = SigmaMap::Yuv([0.1, 0.1]);
            execute(&plan, &mut network, &mut canvas, &tiles, &sigma, &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap();
            assert!(image == before, "{width}x{height}, {channels} channels");
        }
    }

    #[test]
    fn interpolation_keeps_the_mean_and_follows_a_ramp() {
        let rows: [Vec<f32>; 3] =
            std::array::from_fn(|j| (0..5).map(|i| 0.1 * i as f32 + 0.3 * j as f32).collect());
        let found = explain(rows.each_ref().map(Vec::as_slice), [0, 1, 2], 2);
        let expected = [-0.1, -0.05, 0.05, 0.1];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
    }
}
