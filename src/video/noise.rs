//! The noise level of a frame of a stream.

use super::planes::{Group, Planes};
use super::temporal::BLOCK;
use crate::diffusion::SigmaMap;
use crate::model::Layout;
use crate::task::NoiseLine;

/// Standard deviation of a frame's noise in the network's units, for each group of planes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Noise {
    /// One level for the whole frame.
    Uniform(Vec<f32>),
    /// A level for each sample.
    PerSample(Vec<Vec<f32>>),
}

impl Noise {
    /// Zero noise, for frames with such planes.
    pub(super) fn none(planes: &Planes, per_sample: bool) -> Self {
        match per_sample {
            true => Self::PerSample(
                planes.groups().iter().map(|group| vec![0.0; group.area()]).collect(),
            ),
            false => Self::Uniform(vec![0.0; planes.groups().len()]),
        }
    }

    pub(super) fn is_per_sample(&self) -> bool {
        matches!(self, Self::PerSample(_))
    }

    /// The level in a group at column `x` of row `y`.
    pub(super) fn at(&self, (index, group): (usize, Group), x: usize, y: usize) -> f32 {
        match self {
            Self::Uniform(values) => values[index],
            Self::PerSample(maps) => maps[index][y * group.width + x],
        }
    }

    /// Sets the level of a group to `sigma` everywhere.
    pub(super) fn fill(&mut self, index: usize, sigma: f32) {
        match self {
            Self::Uniform(values) => values[index] = sigma,
            Self::PerSample(maps) => maps[index].fill(sigma),
        }
    }

    /// Sets the level of a group from a line over the signal, which is the mean of each block of
    /// `BLOCK` samples a side in its first plane. Levels stay within a factor of two of the mean.
    /// A uniform level is set to the mean, `sigma`.
    pub(super) fn fill_by(
        &mut self,
        (index, group): (usize, Group),
        planes: &[f32],
        sigma: f32,
        line: NoiseLine,
    ) {
        let Self::PerSample(maps) = self else { return self.fill(index, sigma) };
        if line.a == 0.0 {
            maps[index].fill(sigma);
            return;
        }
        let width = group.width;
        let (a, b) = (line.a as f32, line.b as f32);
        let bounds = [0.25 * sigma * sigma, 4.0 * sigma * sigma];
        let luma = planes[..group.area()].chunks(BLOCK * width);
        for (map, luma) in maps[index].chunks_mut(BLOCK * width).zip(luma) {
            for left in (0..width).step_by(BLOCK) {
                let right = (left + BLOCK).min(width);
                let rows = luma.len() / width;
                let sum: f32 =
                    luma.chunks(width).map(|row| row[left..right].iter().sum::<f32>()).sum();
                let mean = sum / (rows * (right - left)) as f32;
                let value = (a * mean + b).clamp(bounds[0], bounds[1]).sqrt();
                map.chunks_mut(width).for_each(|row| row[left..right].fill(value));
            }
        }
    }

    /// Writes the levels to `map` as a network of that layout expects them. The memory of `map` is
    /// reused.
    pub(super) fn write_map(&mut self, layout: Layout, planes: &Planes, map: &mut SigmaMap) {
        let width = planes.first().width;
        match (layout, self) {
            (Layout::Full, Self::Uniform(values)) => *map = SigmaMap::Uniform(values[0]),
            (Layout::Full, Self::PerSample(maps)) => {
                // `return_buffer` returns the buffer.
                *map = SigmaMap::PerPixel { width, values: std::mem::take(&mut maps[0]) };
            }
            (Layout::Yuv420, Self::Uniform(values)) => {
                *map = SigmaMap::Yuv([values[0], values.get(1).copied().unwrap_or_default()]);
            }
            (Layout::Yuv420, Self::PerSample(maps)) => {
                if !matches!(map, SigmaMap::YuvPerPixel { .. }) {
                    *map = SigmaMap::YuvPerPixel {
                        width: width / 2,
                        values: [Vec::new(), Vec::new()],
                    };
                }
                let SigmaMap::YuvPerPixel { values: [luma, chroma], .. } = map else { return };
                luma.resize(maps[0].len() / 4, 0.0);
                for (out, rows) in
                    luma.chunks_exact_mut(width / 2).zip(maps[0].chunks_exact(2 * width))
                {
                    let (upper, lower) = rows.split_at(width);
                    let pairs = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
                    for (out, ([a, b], [c, d])) in out.iter_mut().zip(pairs) {
                        *out = (0.25 * (a * a + b * b + c * c + d * d)).sqrt();
                    }
                }
                chroma.resize(maps[0].len() / 4, 0.0);
                match maps.get(1) {
                    Some(map) => chroma.copy_from_slice(map),
                    None => chroma.fill(0.0),
                }
            }
        }
    }

    /// Takes back the buffer that [`write_map`](Self::write_map) lent.
    pub(super) fn return_buffer(&mut self, map: &mut SigmaMap) {
        if let (Self::PerSample(maps), SigmaMap::PerPixel { values, .. }) = (self, map) {
            std::mem::swap(&mut maps[0], values);
        }
    }
}
