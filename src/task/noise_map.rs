//! The map of sigma that a noise profile means for a picture.

use super::profile::NoiseProfile;
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::tensor::{BINOMIAL, Range, Rect, mirror, read_region};

/// The standard deviation of the noise at each pixel as a part of the full range, `height * width` of them: the root of
/// the channels' mean variance, at the signal that the picture has after a binomial filter of 5x5 pixels, mirrored at the
/// borders.
///
/// # Errors
/// [`Error::Usage`] when the profile has other channels than the picture.
pub(super) fn noise_map(profile: &NoiseProfile, frame: &Frame) -> Result<Vec<f32>> {
    fits(profile, frame.color_channels())?;
    let (width, height) = (frame.width, frame.height);
    let mut map = vec![0.0; width * height];
    fill(profile, width, &mut map, |y, samples| {
        let rect = Rect { x0: -2, y0: y.cast_signed(), width: width + 4, height: 1 };
        read_region(frame, Range::UNIT, rect, samples)
    })?;
    Ok(map)
}

/// What [`noise_map`] gives, for `[channels, height, width]` values in `range`, into `map`.
///
/// # Errors
/// As [`noise_map`]; the profile may also be of grey pictures and the planes three that are alike.
pub(crate) fn noise_map_of_planes(
    profile: &NoiseProfile,
    planes: &[f32],
    width: usize,
    range: Range,
    map: &mut [f32],
) -> Result<()> {
    let (area, channels) = (map.len(), profile.channels.len());
    if channels != 1 {
        fits(profile, planes.len() / area)?;
    }
    let (lo, scale) = (range.lo(), 1.0 / range.span());
    fill(profile, width, map, |y, samples| {
        for (plane, out) in planes.chunks_exact(area).zip(samples.chunks_exact_mut(width + 4)) {
            let row = &plane[y * width..][..width];
            for (x, out) in (-2..).zip(out) {
                *out = (row[mirror(x, width)] - lo) * scale;
            }
        }
        Ok(())
    })
}

fn fits(profile: &NoiseProfile, channels: usize) -> Result<()> {
    if profile.channels.len() == channels {
        return Ok(());
    }
    let name = |count: usize| if count == 1 { "grey" } else { "in colour" };
    Err(Error::usage(format!(
        "the noise profile was measured {}, the picture is {}; measure a profile on pictures of this kind",
        name(profile.channels.len()),
        name(channels)
    )))
}

/// Fills the map; `read` gives a row of each channel in [0, 1], with two samples more on each side.
fn fill(
    profile: &NoiseProfile,
    width: usize,
    map: &mut [f32],
    mut read: impl FnMut(usize, &mut [f32]) -> Result<()>,
) -> Result<()> {
    let (channels, height) = (profile.channels.len(), map.len() / width);
    let mut samples = vec![0.0; channels * (width + 4)];
    // The variances of five rows, each smoothed along itself; row y is kept at y % 5.
    let mut rows = vec![0.0; 5 * width];
    let mut ready = 0;
    for (y, out) in map.chunks_exact_mut(width).enumerate() {
        while ready < height.min(y + 3) {
            read(ready, &mut samples)?;
            let row = &mut rows[ready % 5 * width..][..width];
            row.fill((profile.channels.iter().map(|line| line.b).sum::<f64>() / channels as f64) as f32);
            for (line, samples) in profile.channels.iter().zip(samples.chunks_exact(width + 4)) {
                let a = (line.a / channels as f64) as f32;
                for (variance, signal) in row.iter_mut().zip(samples.windows(5)) {
                    *variance += a * signal.iter().zip(BINOMIAL).map(|(signal, tap)| tap * signal).sum::<f32>();
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
    use crate::frame::{Frame, Metadata, Samples};
    use crate::task::profile::{Method, NoiseLine, NoiseProfile};
    use crate::tensor::{BINOMIAL, mirror};

    #[test]
    fn is_the_root_of_the_mean_variance_at_the_smoothed_signal() {
        let lines = [(0.02, 1e-4), (0.0, 3e-3), (0.004, 0.0)].map(|(a, b)| NoiseLine { a, b, signal: [0.1, 0.9] });
        for (width, height, channels) in [(1, 1, 1), (2, 1, 2), (1, 3, 3), (9, 2, 4), (7, 11, 3), (3, 4, 1)] {
            let samples = (0..width * height * channels).map(|i| (i * 7919 % 65521) as u16).collect();
            let samples = Samples::U16(samples);
            let frame = Frame { width, height, channels, samples, metadata: Metadata::default() };
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
                        let sample = f64::from(samples[(row * width + column) * channels + c]) / 65535.0;
                        sum += f64::from(vertical * horizontal) * sample;
                    }
                }
                sum
            };
            for (i, sigma) in map.iter().enumerate() {
                let variances =
                    lines.iter().enumerate().map(|(c, line)| line.variance(signal(i % width, i / width, c)));
                let expected = (variances.sum::<f64>() / lines.len() as f64).sqrt();
                assert!((f64::from(*sigma) - expected).abs() < 1e-6, "{i} of {width}x{height}: {sigma} for {expected}");
            }
            assert_eq!(map.len(), width * height);
        }
    }
}
