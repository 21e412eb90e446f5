//! Maps of sigma from a noise profile, for an image or a frame of video.

use super::profile::{ColorModel, NoiseLine, NoiseProfile};
use crate::error::{Error, Result};
use crate::media::Image;
use crate::media::stream::Matrix;
use crate::setting::MODEL;
use crate::tensor::{BINOMIAL, Range, Rect, mirror, read_region, sigmas_of_rgb};

/// The noise variance as a linear function of a pixel's channels: `offset` plus the sum of
/// `slopes` times signals, all as parts of the full range.
#[derive(Clone, Debug)]
pub(super) struct Variance {
    slopes: Vec<f32>,
    offset: f32,
}

impl Variance {
    /// The mean variance of a pixel's channels.
    ///
    /// # Errors
    /// [`Error::Usage`] when the profile has other channels than the pixel.
    fn of_colors(profile: &NoiseProfile, channels: usize) -> Result<Self> {
        if profile.color_model == ColorModel::Yuv {
            return Err(Error::usage(format!(
                "the noise profile is of luma and chroma, as frames of video have, and the model \
                 works on red, green and blue; leave out {MODEL}, or measure a profile on images",
            )));
        }
        fits(profile, channels)?;
        Ok(Self::mean(&profile.channels))
    }

    fn mean(lines: &[NoiseLine]) -> Self {
        let part = 1.0 / lines.len() as f64;
        let offset = lines.iter().map(|line| part * line.b).sum::<f64>() as f32;
        Self { slopes: lines.iter().map(|line| (part * line.a) as f32).collect(), offset }
    }

    /// The variances of luma, and of chroma at half the width and height, from a pixel's
    /// `channels`: gray, or red, green and blue, which `matrix` converts to luma.
    ///
    /// # Errors
    /// [`Error::Usage`] when an RGB profile has other channels than the pixel.
    pub(super) fn of_planes(
        profile: &NoiseProfile,
        channels: usize,
        matrix: Matrix,
    ) -> Result<[Self; 2]> {
        let is_gray = channels == 1;
        if profile.color_model == ColorModel::Rgb {
            let mean = Self::of_colors(profile, channels)?;
            let parts = if is_gray { [1.0, 0.0] } else { sigmas_of_rgb(matrix) };
            return Ok(parts.map(|part| mean.times((part * part) as f32)));
        }
        let [red, blue] = matrix.weights();
        let weights: &[f32] = if is_gray { &[1.0] } else { &[red, 1.0 - red - blue, blue] };
        let by_luma = |lines: &[NoiseLine]| {
            let mean = Self::mean(lines);
            let slope: f32 = mean.slopes.iter().sum();
            Self {
                slopes: weights.iter().map(|weight| slope * weight).collect(),
                offset: mean.offset,
            }
        };
        let (luma, chroma) = profile.channels.split_at(1);
        Ok([by_luma(luma), by_luma(chroma).times(if is_gray { 0.0 } else { 1.0 })])
    }

    fn times(&self, factor: f32) -> Self {
        Self {
            slopes: self.slopes.iter().map(|slope| factor * slope).collect(),
            offset: factor * self.offset,
        }
    }

    /// The variance at a pixel; negative signals count as black.
    fn at(&self, signals: [f32; 3]) -> f32 {
        self.slopes
            .iter()
            .zip(signals)
            .fold(self.offset, |sum, (slope, signal)| sum + slope * signal.max(0.0))
    }
}

/// The standard deviation of the noise at each pixel as a part of the full range, `height * width`
/// values: the root mean variance of the channels, at the signal after a binomial filter of 5x5
/// pixels, mirrored at the borders.
///
/// # Errors
/// [`Error::Usage`] when the profile has other channels than the image.
pub(super) fn noise_map(profile: &NoiseProfile, frame: &Image) -> Result<Vec<f32>> {
    sigmas(&Variance::of_colors(profile, frame.color_channels())?, frame)
}

/// As [`noise_map`], for any variance function.
pub(super) fn sigmas(variance: &Variance, frame: &Image) -> Result<Vec<f32>> {
    let (width, height) = (frame.width, frame.height);
    let mut map = vec![0.0; width * height];
    fill(variance, width, &mut map, |y, samples| {
        let rect = Rect { x0: -2, y0: y.cast_signed(), width: width + 4, height: 1 };
        read_region(frame, Range::UNIT, rect, samples)
    })?;
    Ok(map)
}

/// Writes the result of [`noise_map`] for `[channels, height, width]` values in `range` into
/// `map`.
///
/// # Errors
/// As [`noise_map`]. The profile may also be gray, with three equal planes.
pub(crate) fn noise_map_of_planes(
    profile: &NoiseProfile,
    planes: &[f32],
    width: usize,
    range: Range,
    map: &mut [f32],
) -> Result<()> {
    let (area, channels) = (map.len(), profile.channels.len());
    let variance =
        Variance::of_colors(profile, if channels == 1 { 1 } else { planes.len() / area })?;
    let (lo, scale) = (range.lo(), 1.0 / range.span());
    fill(&variance, width, map, |y, samples| {
        for (plane, out) in planes.chunks_exact(area).zip(samples.chunks_exact_mut(width + 4)) {
            let row = &plane[y * width..][..width];
            for (x, out) in (-2..).zip(out) {
                *out = (row[mirror(x, width)] - lo) * scale;
            }
        }
        Ok(())
    })
}

/// Writes the standard deviations of the noise of luma `[2 H, 2 W]` and of chroma `[H, W]`, as
/// parts of the full range, into `maps`, for planes from
/// [`YuvFrameConverter`](crate::tensor::YuvFrameConverter) on a grid of `[W, H]`. They are
/// constant in each block of 8x8 pixels, by its mean.
///
/// # Errors
/// [`Error::Usage`] when an RGB profile has other channels than the frame.
pub(crate) fn noise_maps_of_yuv(
    profile: &NoiseProfile,
    planes: &[f32],
    [width, height]: [usize; 2],
    is_gray: bool,
    matrix: Matrix,
    maps: &mut [Vec<f32>],
) -> Result<()> {
    const SIDE: usize = 4;
    let variances = Variance::of_planes(profile, if is_gray { 1 } else { 3 }, matrix)?;
    let [luma_map, chroma_map] = maps else { return Ok(()) };
    let area = width * height;
    let (luma, chroma) = planes[..6 * area].split_at(4 * area);
    let (cb, cr) = chroma.split_at(area);
    let [red, blue] = matrix.weights();
    let green = 1.0 - red - blue;
    for top in (0..height).step_by(SIDE) {
        for left in (0..width).step_by(SIDE) {
            let (bottom, right) = ((top + SIDE).min(height), (left + SIDE).min(width));
            let mean = |plane: &[f32], scale: usize| {
                let rows = plane.chunks(scale * width).take(scale * bottom).skip(scale * top);
                let sum: f32 =
                    rows.map(|row| row[scale * left..scale * right].iter().sum::<f32>()).sum();
                sum / (scale * scale * (bottom - top) * (right - left)) as f32
            };
            let y = mean(luma, 2);
            let signals = if is_gray {
                [y; 3]
            } else {
                let (cb, cr) = (mean(cb, 1) - 0.5, mean(cr, 1) - 0.5);
                let (r, b) = (y + 2.0 * (1.0 - red) * cr, y + 2.0 * (1.0 - blue) * cb);
                [r, (y - red * r - blue * b) / green, b]
            };
            let [luma, chroma] =
                [&variances[0], &variances[1]].map(|variance| variance.at(signals).sqrt());
            for (map, scale, sigma) in [(&mut *luma_map, 2, luma), (&mut *chroma_map, 1, chroma)] {
                let rows = map.chunks_mut(scale * width).take(scale * bottom).skip(scale * top);
                rows.for_each(|row| row[scale * left..scale * right].fill(sigma));
            }
        }
    }
    Ok(())
}

fn fits(profile: &NoiseProfile, channels: usize) -> Result<()> {
    if profile.channels.len() == channels {
        return Ok(());
    }
    let name = |count: usize| if count == 1 { "gray" } else { "in color" };
    Err(Error::usage(format!(
        "the noise profile was measured {}, the image is {}; measure a profile on images of this \
         kind",
        name(profile.channels.len()),
        name(channels)
    )))
}

/// Fills the map; `read` returns a row of each channel in [0, 1], with two more samples on each
/// side.
fn fill(
    variance: &Variance,
    width: usize,
    map: &mut [f32],
    mut read: impl FnMut(usize, &mut [f32]) -> Result<()>,
) -> Result<()> {
    let (channels, height) = (variance.slopes.len(), map.len() / width);
    let mut samples = vec![0.0; channels * (width + 4)];
    // The variances of five rows, each smoothed along the row; row y is stored at y % 5.
    let mut rows = vec![0.0; 5 * width];
    let mut ready = 0;
    for (y, out) in map.chunks_exact_mut(width).enumerate() {
        while ready < height.min(y + 3) {
            read(ready, &mut samples)?;
            let row = &mut rows[ready % 5 * width..][..width];
            row.fill(variance.offset);
            for (slope, samples) in variance.slopes.iter().zip(samples.chunks_exact(width + 4)) {
                for (variance, signal) in row.iter_mut().zip(samples.windows(5)) {
                    *variance += slope
                        * signal
                            .iter()
                            .zip(BINOMIAL)
                            .map(|(signal, tap)| tap * signal)
                            .sum::<f32>();
                }
            }
            ready += 1;
        }
        let around: [&[f32]; 5] = std::array::from_fn(|i| {
            let row = mirror((y + i).cast_signed() - 2, height);
            &rows[row % 5 * width..][..width]
        });
        for (x, out) in out.iter_mut().enumerate() {
            *out = around.iter().zip(BINOMIAL).map(|(row, tap)| tap * row[x]).sum::<f32>().sqrt();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::noise_map;
    use crate::media::{Image, Metadata, Samples};
    use crate::task::profile::{Method, NoiseLine, NoiseProfile};
    use crate::tensor::{BINOMIAL, mirror};

    #[test]
    fn equals_the_root_mean_variance_at_the_smoothed_signal() {
        let lines = [(0.02, 1e-4), (0.0, 3e-3), (0.004, 0.0)].map(|(a, b)| NoiseLine {
            a,
            b,
            signal: [0.1, 0.9],
        });
        for (width, height, channels) in
            [(1, 1, 1), (2, 1, 2), (1, 3, 3), (9, 2, 4), (7, 11, 3), (3, 4, 1)]
        {
            let samples =
                (0..width * height * channels).map(|i| (i * 7919 % 65521) as u16).collect();
            let samples = Samples::U16(samples);
            let frame = Image { width, height, channels, samples, metadata: Metadata::default() };
            let lines = &lines[..frame.color_channels()];
            let profile = NoiseProfile::new(Method::Frames, 2, [9, 9], lines).unwrap();
            let map = noise_map(&profile, &frame).unwrap();
            let Samples::U16(samples) = &frame.samples else { unreachable!() };
            let signal = |x: usize, y: usize, c: usize| {
                let mut sum = 0.0;
                for (i, vertical) in BINOMIAL.iter().enumerate() {
                    for (j, horizontal) in BINOMIAL.iter().enumerate() {
                        let row = mirror((y + i).cast_signed() - 2, height);
                        let column = mirror((x + j).cast_signed() - 2, width);
                        let sample =
                            f64::from(samples[(row * width + column) * channels + c]) / 65535.0;
                        sum += f64::from(vertical * horizontal) * sample;
                    }
                }
                sum
            };
            for (i, sigma) in map.iter().enumerate() {
                let variances = lines
                    .iter()
                    .enumerate()
                    .map(|(c, line)| line.variance(signal(i % width, i / width, c)));
                let expected = (variances.sum::<f64>() / lines.len() as f64).sqrt();
                assert!(
                    (f64::from(*sigma) - expected).abs() < 1e-6,
                    "{i} of {width}x{height}: {sigma} for {expected}"
                );
            }
            assert_eq!(map.len(), width * height);
        }
    }
}
