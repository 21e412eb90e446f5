//! Converts frames of a stream from bytes in their own format to planes of red, green and blue,
//! and back.
//!
//! Nothing is clipped on input: chroma outside the RGB gamut, such as at edges in 4:2:0, becomes
//! values beyond the range, and is reproduced on output. Chroma is upsampled and downsampled by
//! filter pairs that are inverse to each other: repetition and mean where it is sited between two
//! pixels (Haar), and, where it is sited on one, linear interpolation and the five taps (-1, 2, 6,
//! 2, -1) / 8 of LeGall and Tabatabai's 5/3 wavelet (1988, "Sub-band coding of digital images
//! using symmetric short kernel filters"). So a frame that no network changes is reproduced
//! bit-exactly.

#[cfg(test)]
pub(super) mod tests;

use super::convert::rounded;
use super::{Range, mirror};
use crate::error::{Error, Result};
use crate::media::stream::{Plane, Siting, VideoFormat};

/// Converts the frames of one stream to planes or back. Buffers between rows are kept, so that
/// nothing is allocated per frame.
pub struct FrameConverter {
    video: VideoFormat,
    /// Number of planes for the network: 1 or 3.
    channels: usize,
    range: Range,
    /// Two intermediate planes of chroma. On reading they have the width of the frame and the
    /// height of its chroma; on writing, the reverse.
    chroma: [Vec<f32>; 2],
    /// Three rows at full width.
    lines: [Vec<f32>; 3],
}

/// Maps samples to values: `value = (sample - zero) * step`.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    zero: f32,
    step: f32,
    white: f32,
}

impl Scale {
    /// For luma, or for red, green and blue: 0 is black, 1 is white.
    pub(super) fn luma(video: &VideoFormat) -> Self {
        let unit = (1_u32 << (video.format.bits() - 8)) as f32;
        let white = (1_u32 << video.format.bits()) as f32 - 1.0;
        if video.color.full_range {
            Self { zero: 0.0, step: 1.0 / white, white }
        } else {
            Self { zero: 16.0 * unit, step: 1.0 / (219.0 * unit), white }
        }
    }

    /// For color differences, from -0.5 to 0.5.
    fn difference(video: &VideoFormat) -> Self {
        let unit = (1_u32 << (video.format.bits() - 8)) as f32;
        let luma = Self::luma(video);
        let step = if video.color.full_range { luma.step } else { 1.0 / (224.0 * unit) };
        Self { zero: 128.0 * unit, step, ..luma }
    }

    /// For color differences centered on 0.5.
    pub(super) fn chroma(video: &VideoFormat) -> Self {
        let scale = Self::difference(video);
        Self { zero: scale.zero - 0.5 / scale.step, ..scale }
    }
}

impl FrameConverter {
    /// A converter for frames of format `video`, and `channels` planes with range `range`.
    ///
    /// # Errors
    /// [`Error::Usage`] for color frames and one plane.
    pub fn new(video: &VideoFormat, channels: usize, range: Range) -> Result<Self> {
        if channels == 1 && !video.format.is_gray() {
            return Err(Error::usage(
                "the stream is in color and the model takes one channel; convert the stream to \
                 gray (`gray`) or choose a model for color",
            ));
        }
        let is_yuv = video.format.chroma().is_some() && !video.format.is_gray();
        let [_, chroma, _] = video.format.planes(video.width, video.height);
        let held =
            if is_yuv { (video.width * chroma.height).max(chroma.width * video.height) } else { 0 };
        let line = || vec![0.0; video.width];
        Ok(Self {
            video: video.clone(),
            channels,
            range,
            chroma: [vec![0.0; held], vec![0.0; held]],
            lines: [line(), line(), line()],
        })
    }

    /// Bytes held between frames.
    pub fn bytes(&self) -> usize {
        self.chroma.iter().chain(&self.lines).map(|values| values.len() * size_of::<f32>()).sum()
    }

    /// The format of the frames.
    pub fn video(&self) -> &VideoFormat {
        &self.video
    }

    /// Fills `planes`, `[channels, height, width]`, from a frame.
    ///
    /// # Panics
    /// If there are fewer bytes or values than a frame has.
    pub fn read(&mut self, bytes: &[u8], planes: &mut [f32]) {
        let VideoFormat { width, height, format, .. } = self.video;
        let [first, second, third] = format.planes(width, height);
        let area = width * height;
        if format.is_gray() {
            let scale = Scale::luma(&self.video);
            for y in 0..height {
                load(bytes, self.has_two_bytes(), first, y, scale, &mut self.lines[0]);
                for plane in planes.chunks_exact_mut(area) {
                    to_range(self.range, &self.lines[0], &mut plane[y * width..][..width]);
                }
            }
            return;
        }
        if format.chroma().is_none() {
            let scale = Scale::luma(&self.video);
            for (plane, out) in
                [first, second, third].into_iter().zip(planes.chunks_exact_mut(area))
            {
                for (y, out) in out.chunks_exact_mut(width).enumerate() {
                    load(bytes, self.has_two_bytes(), plane, y, scale, &mut self.lines[0]);
                    to_range(self.range, &self.lines[0], out);
                }
            }
            return;
        }
        let (luma, chroma, two_bytes) =
            (Scale::luma(&self.video), Scale::difference(&self.video), self.has_two_bytes());
        for (plane, held) in [second, third].into_iter().zip(&mut self.chroma) {
            for (y, row) in held.chunks_exact_mut(width).take(plane.height).enumerate() {
                let line = &mut self.lines[0][..plane.width];
                load(bytes, two_bytes, plane, y, chroma, line);
                widen(line, self.video.color.siting, row);
            }
        }
        let [red, blue] = self.video.color.matrix.weights();
        let green = 1.0 - red - blue;
        let (of_red, of_blue) = (2.0 - 2.0 * red, 2.0 - 2.0 * blue);
        let (red_in_green, blue_in_green) = (of_red * red / green, of_blue * blue / green);
        let (lo, span) = (self.range.lo(), self.range.span());
        let (r, rest) = planes.split_at_mut(area);
        let (g, b) = rest.split_at_mut(area);
        for y in 0..height {
            let [line, blues, reds] = &mut self.lines;
            load(bytes, two_bytes, first, y, luma, line);
            upsample_row(
                &self.chroma[0],
                width,
                second.height,
                height,
                self.video.color.siting,
                y,
                blues,
            );
            upsample_row(
                &self.chroma[1],
                width,
                third.height,
                height,
                self.video.color.siting,
                y,
                reds,
            );
            let row = y * width..(y + 1) * width;
            let out = r[row.clone()].iter_mut().zip(&mut g[row.clone()]).zip(&mut b[row]);
            for (((y, u), v), ((r, g), b)) in
                line.iter().zip(blues.iter()).zip(reds.iter()).zip(out)
            {
                *r = (y + of_red * v) * span + lo;
                *g = (y - blue_in_green * u - red_in_green * v) * span + lo;
                *b = (y + of_blue * u) * span + lo;
            }
        }
    }

    /// Writes a frame from `planes`, `[channels, height, width]`, to `bytes`, whose memory is
    /// reused. Values are rounded to the nearest sample, halves to even; NaN becomes the smallest.
    /// A gray frame takes the mean of three planes.
    ///
    /// # Panics
    /// If there are fewer values than a frame has.
    pub fn write(&mut self, planes: &[f32], bytes: &mut Vec<u8>) {
        bytes.resize(self.video.bytes(), 0);
        let VideoFormat { width, height, format, .. } = self.video;
        let [first, second, third] = format.planes(width, height);
        let (area, two_bytes, luma) =
            (width * height, self.has_two_bytes(), Scale::luma(&self.video));
        let plane = |i: usize| &planes[(i % self.channels) * area..][..area];
        if format.is_gray() {
            for y in 0..height {
                let [line, other, _] = &mut self.lines;
                from_range(self.range, &plane(0)[y * width..][..width], line);
                if self.channels == 3 {
                    for i in [1, 2] {
                        from_range(self.range, &plane(i)[y * width..][..width], other);
                        line.iter_mut().zip(other.iter()).for_each(|(sum, value)| *sum += value);
                    }
                    line.iter_mut().for_each(|value| *value *= 1.0 / 3.0);
                }
                store(bytes, two_bytes, first, y, luma, line);
            }
            return;
        }
        if format.chroma().is_none() {
            for (i, place) in [first, second, third].into_iter().enumerate() {
                for y in 0..height {
                    from_range(self.range, &plane(i)[y * width..][..width], &mut self.lines[0]);
                    store(bytes, two_bytes, place, y, luma, &self.lines[0]);
                }
            }
            return;
        }
        let [red, blue] = self.video.color.matrix.weights();
        let green = 1.0 - red - blue;
        let (to_red, to_blue) = (0.5 / (1.0 - red), 0.5 / (1.0 - blue));
        let (lo, scale) = (self.range.lo(), 1.0 / self.range.span());
        let siting = self.video.color.siting;
        for y in 0..height {
            let row = |i: usize| &plane(i)[y * width..][..width];
            let [line, blues, reds] = &mut self.lines;
            let out = line.iter_mut().zip(blues.iter_mut()).zip(reds.iter_mut());
            for (((r, g), b), ((y, u), v)) in row(0).iter().zip(row(1)).zip(row(2)).zip(out) {
                let [r, g, b] = [r, g, b].map(|value| (value - lo) * scale);
                *y = red * r + green * g + blue * b;
                *u = (b - *y) * to_blue;
                *v = (r - *y) * to_red;
            }
            store(bytes, two_bytes, first, y, luma, line);
            narrow(blues, siting, &mut self.chroma[0][y * second.width..][..second.width]);
            narrow(reds, siting, &mut self.chroma[1][y * third.width..][..third.width]);
        }
        let difference = Scale::difference(&self.video);
        for (place, held) in [second, third].into_iter().zip(&self.chroma) {
            let line = &mut self.lines[0][..place.width];
            for y in 0..place.height {
                downsample_row(held, place, height, siting, y, line);
                store(bytes, two_bytes, place, y, difference, line);
            }
        }
    }

    fn has_two_bytes(&self) -> bool {
        self.video.format.bytes_per_sample() == 2
    }
}

fn to_range(range: Range, from: &[f32], to: &mut [f32]) {
    let (lo, span) = (range.lo(), range.span());
    to.iter_mut().zip(from).for_each(|(to, from)| *to = from * span + lo);
}

fn from_range(range: Range, from: &[f32], to: &mut [f32]) {
    let (lo, scale) = (range.lo(), 1.0 / range.span());
    to.iter_mut().zip(from).for_each(|(to, from)| *to = (from - lo) * scale);
}

/// Reads row `y` of a plane.
pub(super) fn load(
    bytes: &[u8],
    two_bytes: bool,
    plane: Plane,
    y: usize,
    scale: Scale,
    out: &mut [f32],
) {
    let start = plane.start + y * plane.stride;
    let value = |sample: f32| (sample - scale.zero) * scale.step;
    let out = &mut out[..plane.width];
    if two_bytes {
        let (samples, _) = bytes[2 * start..].as_chunks::<2>();
        let samples = samples.iter().step_by(plane.step);
        out.iter_mut()
            .zip(samples)
            .for_each(|(out, sample)| *out = value(f32::from(u16::from_le_bytes(*sample))));
    } else if plane.step == 1 {
        out.iter_mut()
            .zip(&bytes[start..])
            .for_each(|(out, sample)| *out = value(f32::from(*sample)));
    } else {
        let samples = bytes[start..].iter().step_by(plane.step);
        out.iter_mut().zip(samples).for_each(|(out, sample)| *out = value(f32::from(*sample)));
    }
}

/// Writes row `y` of a plane.
pub(super) fn store(
    bytes: &mut [u8],
    two_bytes: bool,
    plane: Plane,
    y: usize,
    scale: Scale,
    values: &[f32],
) {
    let start = plane.start + y * plane.stride;
    let inverse = 1.0 / scale.step;
    let sample = |value: f32| rounded(value * inverse + scale.zero, scale.white);
    let values = &values[..plane.width];
    if two_bytes {
        let (samples, _) = bytes[2 * start..].as_chunks_mut::<2>();
        let samples = samples.iter_mut().step_by(plane.step);
        samples.zip(values).for_each(|(out, value)| *out = (sample(*value) as u16).to_le_bytes());
    } else if plane.step == 1 {
        bytes[start..].iter_mut().zip(values).for_each(|(out, value)| *out = sample(*value) as u8);
    } else {
        let samples = bytes[start..].iter_mut().step_by(plane.step);
        samples.zip(values).for_each(|(out, value)| *out = sample(*value) as u8);
    }
}

/// Upsamples a row of chroma to full width; a row of full width is copied.
fn widen(from: &[f32], siting: Siting, to: &mut [f32]) {
    if from.len() == to.len() {
        to.copy_from_slice(from);
        return;
    }
    if siting == Siting::Center {
        let (pairs, rest) = to.as_chunks_mut::<2>();
        pairs.iter_mut().zip(from).for_each(|(to, from)| to.fill(*from));
        if let ([to], Some(from)) = (rest, from.last()) {
            *to = *from;
        }
        return;
    }
    for (i, to) in to.chunks_mut(2).enumerate() {
        to[0] = from[i];
        if let Some(between) = to.get_mut(1) {
            *between = 0.5 * (from[i] + from[(i + 1).min(from.len() - 1)]);
        }
    }
}

/// The inverse of [`widen`].
fn narrow(from: &[f32], siting: Siting, to: &mut [f32]) {
    if from.len() == to.len() {
        to.copy_from_slice(from);
        return;
    }
    let (pairs, rest) = from.as_chunks::<2>();
    if siting == Siting::Center {
        to.iter_mut().zip(pairs).for_each(|(to, [a, b])| *to = 0.5 * (a + b));
        if let (Some(to), [last]) = (to.last_mut(), rest) {
            *to = *last;
        }
        return;
    }
    let at = |x: isize| from[mirror(x, from.len())];
    let near = |x: usize| {
        let x = 2 * x.cast_signed();
        legall(at(x - 2), at(x - 1), at(x), at(x + 1), at(x + 2))
    };
    // The first and last pair need samples beyond the border; the others do not.
    let inner = pairs.len().saturating_sub(2);
    let last = inner + 1;
    to.iter_mut().take(1).for_each(|to| *to = near(0));
    to.iter_mut().enumerate().skip(last).for_each(|(x, to)| *to = near(x));
    let threes = pairs.iter().zip(pairs.iter().skip(1)).zip(pairs.iter().skip(2));
    for (to, (([a, b], [c, d]), [e, _])) in to.iter_mut().skip(1).take(inner).zip(threes) {
        *to = legall(*a, *b, *c, *d, *e);
    }
}

/// The analysis low-pass filter of the 5/3 wavelet.
fn legall(a: f32, b: f32, c: f32, d: f32, e: f32) -> f32 {
    0.125 * (2.0 * (b + d) - (a + e)) + 0.75 * c
}

/// Upsamples row `y` of the frame from chroma rows of full width.
fn upsample_row(
    held: &[f32],
    width: usize,
    rows: usize,
    height: usize,
    siting: Siting,
    y: usize,
    out: &mut [f32],
) {
    let row = |y: usize| &held[y * width..][..width];
    if rows == height {
        out.copy_from_slice(row(y));
    } else if siting == Siting::TopLeft && y % 2 == 1 {
        let next = (y / 2 + 1).min(rows - 1);
        out.iter_mut()
            .zip(row(y / 2))
            .zip(row(next))
            .for_each(|((out, a), b)| *out = 0.5 * (a + b));
    } else {
        out.copy_from_slice(row(y / 2));
    }
}

/// Downsamples row `y` of a chroma plane from rows at the height of the frame.
fn downsample_row(
    held: &[f32],
    plane: Plane,
    height: usize,
    siting: Siting,
    y: usize,
    out: &mut [f32],
) {
    let row = |y: isize| &held[mirror(y, height) * plane.width..][..plane.width];
    let middle = 2 * y.cast_signed();
    if plane.height == height {
        out.copy_from_slice(row(y.cast_signed()));
    } else if siting == Siting::TopLeft {
        let [a, b, c, d, e] = [-2, -1, 0, 1, 2].map(|offset| row(middle + offset));
        for (x, out) in out.iter_mut().enumerate() {
            *out = legall(a[x], b[x], c[x], d[x], e[x]);
        }
    } else if 2 * y + 1 == height {
        out.copy_from_slice(row(middle));
    } else {
        out.iter_mut()
            .zip(row(middle))
            .zip(row(middle + 1))
            .for_each(|((out, a), b)| *out = 0.5 * (a + b));
    }
}
