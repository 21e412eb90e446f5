//! Converts frames of a stream from bytes in their own format to 4:2:0 planes of luma and chroma,
//! and back.
//!
//! Frames in 4:2:0 are copied without a matrix or a change of size. For chroma at higher
//! resolution (4:2:2, 4:4:4, RGB), the planes hold the mean of the samples that one 4:2:0 sample
//! covers (Haar low-pass filter), and the differences from it, the detail, are stored here. On
//! writing, the part of the detail that noise explains is removed (Wiener filter with local
//! energy, as in Lee 1980, "Digital image enhancement and noise filtering by use of local
//! statistics", equation 10), and replaced by a smooth interpolation of the denoised mean. So a
//! frame that no network changes is reproduced bit-exactly.

#[cfg(test)]
mod tests;

use super::stream::{FrameConverter, Scale, load, store};
use super::{Range, mirror};
use crate::error::Result;
use crate::media::stream::{Chroma, Matrix, Plane, VideoFormat};

/// Side in samples of a block of chroma, within which detail is scaled uniformly.
const BLOCK: usize = 4;

/// Width and height of the grid of a network on 4:2:0 planes for a frame of that size: half of it,
/// rounded up.
pub fn grid_of([width, height]: [usize; 2]) -> [usize; 2] {
    [width.div_ceil(2), height.div_ceil(2)]
}

/// Standard deviations of luma and of chroma (averaged over 2x2) for white noise of 1 in red,
/// green and blue.
pub fn sigmas_of_rgb(matrix: Matrix) -> [f64; 2] {
    let [red, blue] = matrix.weights().map(f64::from);
    let green = 1.0 - red - blue;
    let norm = |weights: [f64; 3]| weights.iter().map(|weight| weight * weight).sum::<f64>().sqrt();
    let chroma_blue = norm([red, green, 1.0 - blue]) * 0.5 / (1.0 - blue);
    let chroma_red = norm([1.0 - red, green, blue]) * 0.5 / (1.0 - red);
    let chroma = (0.5 * (chroma_blue * chroma_blue + chroma_red * chroma_red)).sqrt();
    [norm([red, green, blue]), 0.5 * chroma]
}

/// Packs planes, luma `[2 H, 2 W]` and two of chroma `[H, W]`, into six channels `[6, H, W]`: luma
/// of each 2x2 row by row, then chroma. `grid` is `[W, H]`.
///
/// # Panics
/// If there are fewer than `6 H W` values in either.
pub fn pack(planes: &[f32], [width, height]: [usize; 2], channels: &mut [f32]) {
    let area = width * height;
    let (luma, chroma) = planes[..6 * area].split_at(4 * area);
    let (packed, rest) = channels[..6 * area].split_at_mut(4 * area);
    rest.copy_from_slice(chroma);
    let (upper, lower) = packed.split_at_mut(2 * area);
    for (parts, odd) in [(upper, 0), (lower, 1)] {
        let (even_columns, odd_columns) = parts.split_at_mut(area);
        let rows = even_columns.chunks_exact_mut(width).zip(odd_columns.chunks_exact_mut(width));
        for ((a, b), row) in rows.zip(luma.chunks_exact(2 * width).skip(odd).step_by(2)) {
            for ((a, b), [x, y]) in a.iter_mut().zip(b).zip(row.as_chunks::<2>().0) {
                (*a, *b) = (*x, *y);
            }
        }
    }
}

/// The inverse of [`pack`].
///
/// # Panics
/// If there are fewer than `6 H W` values in either.
pub fn unpack(channels: &[f32], [width, height]: [usize; 2], planes: &mut [f32]) {
    let area = width * height;
    let (luma, chroma) = planes[..6 * area].split_at_mut(4 * area);
    chroma.copy_from_slice(&channels[4 * area..6 * area]);
    for (odd, parts) in channels[..4 * area].chunks_exact(2 * area).enumerate() {
        let (even_columns, odd_columns) = parts.split_at(area);
        let rows = even_columns.chunks_exact(width).zip(odd_columns.chunks_exact(width));
        for ((a, b), row) in rows.zip(luma.chunks_exact_mut(2 * width).skip(odd).step_by(2)) {
            for ((a, b), pair) in a.iter().zip(b).zip(row.as_chunks_mut::<2>().0) {
                *pair = [*a, *b];
            }
        }
    }
}

/// Converts the frames of one stream to planes and back. Buffers between rows and between
/// [`read`](Self::read) and [`write`](Self::write) are kept, so that nothing is allocated per
/// frame.
pub struct YuvFrameConverter {
    video: VideoFormat,
    result: VideoFormat,
    /// `[width, height]` of the chroma planes.
    grid: [usize; 2],
    /// For chroma at higher resolution than the grid: its size, and the detail of both planes.
    larger: Option<([usize; 2], [Vec<f32>; 2])>,
    /// Three rows at full width, and the interpolated chroma beside them.
    lines: [Vec<f32>; 4],
    /// For each block of a row of blocks: the energy of its detail, then the factor on it.
    kept: Vec<f32>,
    /// The conversion by way of RGB, where results have another format than the source.
    conversion: Option<Conversion>,
}

struct Conversion {
    reader: FrameConverter,
    writer: FrameConverter,
    bytes: Vec<u8>,
    planes: Vec<f32>,
}

impl YuvFrameConverter {
    /// A converter for frames of format `video`. Results have format `result`, which has the same
    /// size.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when the formats do not match.
    pub fn new(video: &VideoFormat, result: &VideoFormat) -> Result<Self> {
        let [width, height] = [video.width, video.height];
        let grid = grid_of([width, height]);
        let chroma = video.format.chroma();
        let [_, plane, _] = video.format.planes(width, height);
        let size = [plane.width, plane.height];
        let has_larger = size != grid && chroma != Some(Chroma::Mono);
        let held = size[0] * size[1];
        let is_direct = chroma == result.format.chroma()
            && (chroma.is_none()
                || video.color.matrix == result.color.matrix
                || chroma == Some(Chroma::Mono));
        let conversion = match is_direct {
            true => None,
            false => Some(Conversion {
                reader: FrameConverter::new(video, 3, Range::UNIT)?,
                writer: FrameConverter::new(result, 3, Range::UNIT)?,
                bytes: Vec::new(),
                planes: vec![0.0; 3 * width * height],
            }),
        };
        Ok(Self {
            video: video.clone(),
            result: result.clone(),
            grid,
            larger: has_larger.then(|| (size, [vec![0.0; held], vec![0.0; held]])),
            lines: std::array::from_fn(|_| vec![0.0; 2 * grid[0]]),
            kept: vec![0.0; size[0].div_ceil(BLOCK)],
            conversion,
        })
    }

    /// The format of the frames.
    pub fn video(&self) -> &VideoFormat {
        &self.video
    }

    /// Whether [`write`](Self::write) needs what the last [`read`](Self::read) left here.
    pub(crate) fn holds_detail(&self) -> bool {
        self.larger.is_some()
    }

    /// Bytes held between frames.
    pub fn bytes(&self) -> usize {
        let conversion = self.conversion.as_ref().map_or(0, |conversion| {
            let Conversion { reader, writer, planes, .. } = conversion;
            reader.bytes() + writer.bytes() + planes.len() * size_of::<f32>() + self.video.bytes()
        });
        let detail =
            self.larger.as_ref().map_or(0, |(_, detail)| 2 * detail[0].len() * size_of::<f32>());
        conversion + detail + 4 * self.lines[0].len() * size_of::<f32>()
    }

    /// Fills `planes`, luma `[2 H, 2 W]` and two of chroma `[H, W]` for a grid of `[W, H]`, from a
    /// frame. Luma is 0 to 1, chroma is centered on 0.5. For odd sizes the last row and column are
    /// repeated.
    ///
    /// # Panics
    /// If there are fewer bytes or values than a frame has.
    pub fn read(&mut self, bytes: &[u8], planes: &mut [f32]) {
        let VideoFormat { width, height, format, color, .. } = self.video;
        let places = format.planes(width, height);
        let scale = Scale::luma(&self.video);
        let deep = format.bytes_per_sample() == 2;
        let [grid_width, grid_height] = self.grid;
        let area = grid_width * grid_height;
        let stride = 2 * grid_width;
        let (luma, chroma) = planes[..6 * area].split_at_mut(4 * area);
        match (format.chroma(), &mut self.larger) {
            (None, larger) => {
                let [red, blue] = color.matrix.weights();
                let (to_blue, to_red) = (0.5 / (1.0 - blue), 0.5 / (1.0 - red));
                for (y, row) in luma.chunks_exact_mut(stride).enumerate().take(height) {
                    let [r, g, b, _] = &mut self.lines;
                    for (line, place) in [&mut *r, &mut *g, &mut *b].into_iter().zip(places) {
                        load(bytes, deep, place, y, scale, line);
                    }
                    for (((out, r), g), b) in row.iter_mut().zip(&*r).zip(&*g).zip(&*b).take(width)
                    {
                        *out = red * r + (1.0 - red - blue) * g + blue * b;
                    }
                    let differences = [(&*b, to_blue), (&*r, to_red)];
                    let to = match larger {
                        Some((_, [first, second])) => {
                            [&mut first[y * width..][..width], &mut second[y * width..][..width]]
                        }
                        // A single pixel.
                        None => chroma.split_at_mut(area).into(),
                    };
                    for (to, (line, factor)) in to.into_iter().zip(differences) {
                        let values = to.iter_mut().zip(line).zip(&*row);
                        values.for_each(|((to, value), luma)| *to = (value - luma) * factor + 0.5);
                    }
                }
            }
            (Some(kind), larger) => {
                for (y, row) in luma.chunks_exact_mut(stride).enumerate().take(height) {
                    load(bytes, deep, places[0], y, scale, row);
                }
                let scale = Scale::chroma(&self.video);
                match larger {
                    _ if kind == Chroma::Mono => chroma.fill(0.5),
                    None => {
                        for (place, chroma) in places[1..].iter().zip(chroma.chunks_exact_mut(area))
                        {
                            for (y, row) in chroma.chunks_exact_mut(grid_width).enumerate() {
                                load(bytes, deep, *place, y, scale, row);
                            }
                        }
                    }
                    Some((size, detail)) => {
                        for (place, detail) in places[1..].iter().zip(detail) {
                            for (y, row) in detail.chunks_exact_mut(size[0]).enumerate() {
                                load(bytes, deep, *place, y, scale, row);
                            }
                        }
                    }
                }
            }
        }
        if width % 2 == 1 {
            luma.chunks_exact_mut(stride).for_each(|row| row[width] = row[width - 1]);
        }
        if height % 2 == 1 {
            luma.copy_within((height - 1) * stride..height * stride, height * stride);
        }
        if let Some((size, detail)) = &mut self.larger {
            for (detail, mean) in detail.iter_mut().zip(chroma.chunks_exact_mut(area)) {
                take_mean(detail, *size, mean, self.grid);
            }
        }
    }

    /// Writes the last frame that was read to `bytes`, with these planes in place of its own. The
    /// memory of `bytes` is reused. `sigma` is the standard deviation of the chroma noise in the
    /// frame that was read; detail within that noise is removed. Values are rounded to the nearest
    /// sample, halves to even; NaN becomes the smallest.
    ///
    /// # Panics
    /// If there are fewer values than a frame has.
    pub fn write(&mut self, planes: &[f32], sigma: f32, bytes: &mut Vec<u8>) {
        let Some(mut conversion) = self.conversion.take() else {
            let result = std::mem::replace(&mut self.result, self.video.clone());
            self.write_as(&result, planes, sigma, bytes);
            self.result = result;
            return;
        };
        let video = self.video.clone();
        self.write_as(&video, planes, sigma, &mut conversion.bytes);
        conversion.reader.read(&conversion.bytes, &mut conversion.planes);
        conversion.writer.write(&conversion.planes, bytes);
        self.conversion = Some(conversion);
    }

    /// As [`write`](Self::write), with samples in the format `video`.
    fn write_as(&mut self, video: &VideoFormat, planes: &[f32], sigma: f32, bytes: &mut Vec<u8>) {
        bytes.resize(video.bytes(), 0);
        let VideoFormat { width, height, format, color, .. } = *video;
        let places = format.planes(width, height);
        let scale = Scale::luma(video);
        let deep = format.bytes_per_sample() == 2;
        let [grid_width, grid_height] = self.grid;
        let area = grid_width * grid_height;
        let (luma, chroma) = planes[..6 * area].split_at(4 * area);
        if let Some((size, detail)) = &mut self.larger {
            let [line, other, ..] = &mut self.lines;
            for (detail, mean) in detail.iter_mut().zip(chroma.chunks_exact(area)) {
                put_mean(
                    detail,
                    *size,
                    mean,
                    self.grid,
                    sigma,
                    [&mut *line, &mut *other],
                    &mut self.kept,
                );
            }
        }
        let rows = luma.chunks_exact(2 * grid_width).enumerate().take(height);
        let Some(kind) = format.chroma() else {
            let [red, blue] = color.matrix.weights();
            let green = 1.0 - red - blue;
            for (y, row) in rows {
                let [r, g, b, _] = &mut self.lines;
                let (blues, reds) = match &self.larger {
                    Some((_, [first, second])) => (&first[y * width..], &second[y * width..]),
                    None => chroma.split_at(area),
                };
                for x in 0..width {
                    let luma = row[x];
                    r[x] = luma + (reds[x] - 0.5) * (2.0 - 2.0 * red);
                    b[x] = luma + (blues[x] - 0.5) * (2.0 - 2.0 * blue);
                    g[x] = (luma - red * r[x] - blue * b[x]) / green;
                }
                for (line, place) in [r, g, b].into_iter().zip(places) {
                    store(bytes, deep, place, y, scale, line);
                }
            }
            return;
        };
        for (y, row) in rows {
            store(bytes, deep, places[0], y, scale, row);
        }
        if kind == Chroma::Mono {
            return;
        }
        let scale = Scale::chroma(video);
        let own = chroma.split_at(area);
        let [first, second]: [&[f32]; 2] = match &self.larger {
            Some((_, [first, second])) => [first, second],
            None => [own.0, own.1],
        };
        for (place, values) in places[1..].iter().zip([first, second]) {
            store_plane(bytes, deep, *place, scale, values);
        }
    }
}

fn store_plane(bytes: &mut [u8], deep: bool, place: Plane, scale: Scale, values: &[f32]) {
    for (y, row) in values.chunks_exact(place.width).enumerate() {
        store(bytes, deep, place, y, scale, row);
    }
}

/// Writes the means of `samples`, a plane of that size, over the area of each sample of the grid
/// to `mean`, and leaves the differences from them in `samples`.
fn take_mean(
    samples: &mut [f32],
    [width, height]: [usize; 2],
    mean: &mut [f32],
    [across, down]: [usize; 2],
) {
    let [by_x, by_y] = [width.div_ceil(across), height.div_ceil(down)];
    for (j, mean) in mean.chunks_exact_mut(across).enumerate() {
        let rows = j * by_y..((j + 1) * by_y).min(height);
        for (i, mean) in mean.iter_mut().enumerate() {
            let columns = i * by_x..((i + 1) * by_x).min(width);
            let mut sum = 0.0;
            for y in rows.clone() {
                sum += samples[y * width..][columns.clone()].iter().sum::<f32>();
            }
            *mean = sum / (rows.len() * columns.len()) as f32;
            for y in rows.clone() {
                samples[y * width..][columns.clone()]
                    .iter_mut()
                    .for_each(|sample| *sample -= *mean);
            }
        }
    }
}

/// Reconstructs the plane from the detail in `samples` and new means. The detail beyond the
/// interpolation of the means is scaled by the part that exceeds noise, which has the standard
/// deviation `sigma` in the means and equal density in the detail.
fn put_mean(
    samples: &mut [f32],
    [width, height]: [usize; 2],
    mean: &[f32],
    [across, down]: [usize; 2],
    sigma: f32,
    [line, other]: [&mut [f32]; 2],
    kept: &mut [f32],
) {
    let [by_x, by_y] = [width.div_ceil(across), height.div_ceil(down)];
    // Variance in the detail of white noise with variance 1 in the means.
    let noise = sigma * sigma * (by_x * by_y - 1) as f32;
    for rows in (0..height).step_by(BLOCK) {
        let rows = rows..(rows + BLOCK).min(height);
        kept.fill(0.0);
        for y in rows.clone() {
            interpolate(mean, [across, down], y, [by_x, by_y], width, line, other);
            let row = &mut samples[y * width..][..width];
            for ((row, line), kept) in row.chunks_mut(BLOCK).zip(line.chunks(BLOCK)).zip(&mut *kept)
            {
                // Detail beyond the interpolation of the means.
                for (sample, explained) in row.iter_mut().zip(line) {
                    *sample -= explained;
                    *kept += *sample * *sample;
                }
            }
        }
        for (block, kept) in kept.iter_mut().enumerate() {
            let expected = noise * (rows.len() * BLOCK.min(width - block * BLOCK)) as f32;
            *kept = kept_of(*kept, expected);
        }
        for y in rows {
            interpolate(mean, [across, down], y, [by_x, by_y], width, line, other);
            let row = &mut samples[y * width..][..width];
            let means = &mean[y / by_y * across..][..across];
            for (x, (sample, explained)) in row.iter_mut().zip(&*line).enumerate() {
                *sample = means[x / by_x] + explained + kept[x / BLOCK] * *sample;
            }
        }
    }
}

/// The factor on detail of that energy, for the energy that is expected of noise (Lee 1980,
/// equation 10).
pub(crate) fn kept_of(energy: f32, expected: f32) -> f32 {
    if energy > expected { 1.0 - expected / energy } else { f32::from(expected == 0.0) }
}

/// Offset of the second of two samples from their mean, and negative offset of the first, from the
/// means of the previous and next pairs: a quarter of the distance between the centers of pairs.
pub(crate) fn rise(before: f32, after: f32) -> f32 {
    0.125 * (after - before)
}

/// Offsets of a smooth interpolation of `mean` from the mean itself in row `y`, into `line`: a
/// quarter of the difference toward neighbors, so that the mean stays unchanged.
fn interpolate(
    mean: &[f32],
    [across, down]: [usize; 2],
    y: usize,
    [by_x, by_y]: [usize; 2],
    width: usize,
    line: &mut [f32],
    other: &mut [f32],
) {
    let slope = |before: f32, after: f32, is_second: bool| {
        let rise = rise(before, after);
        if is_second { rise } else { -rise }
    };
    let row = |j: isize| &mean[mirror(j, down) * across..][..across];
    let j = (y / by_y).cast_signed();
    let middle = &mut other[..across];
    if by_y == 2 {
        let values = middle.iter_mut().zip(row(j - 1)).zip(row(j + 1));
        values.for_each(|((out, before), after)| *out = slope(*before, *after, y % 2 == 1));
    } else {
        middle.fill(0.0);
    }
    if by_x == 1 {
        line[..across].copy_from_slice(middle);
        return;
    }
    let here = row(j);
    let at = |i: isize| {
        let i = mirror(i, across);
        here[i] + middle[i]
    };
    for (i, pair) in line[..width].chunks_mut(2).enumerate() {
        let at_both = [at(i.cast_signed() - 1), at(i.cast_signed() + 1)];
        for (k, out) in pair.iter_mut().enumerate() {
            *out = middle[i] + slope(at_both[0], at_both[1], k == 1);
        }
    }
}
