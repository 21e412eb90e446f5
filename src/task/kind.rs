//! Classifies the noise of an image, which determines the network for it.

use std::path::Path;

use super::denoise::SigmaChoice;
use super::estimate::estimate_sigma;
use super::plane_noise::{self, Plane, PlaneNoise, PlaneRole, SpatialEstimator};
use super::plane_pixels::read_yuv;
use crate::error::Result;
use crate::media::stream::Matrix;
use crate::media::{Format, Image, Samples};
use crate::model::Layout;
use crate::tensor::{Range, Rect, read_region, sigmas_of_rgb};

/// Pixels above which only parts of an image are examined: this many along each side, with this
/// side in pixels.
const LARGE: usize = 2_000_000;
const PARTS: usize = 4;
const SIDE: usize = 256;

/// Side in pixels of the fully opaque squares that are examined in an image with transparency, and
/// their maximum number. If there are too few, the whole image is examined.
const VISIBLE: usize = 32;
const MAX_VISIBLE: usize = 1024;
const MIN_VISIBLE: usize = 4;

/// Sigma in 8-bit units below which noise counts as none, in images too small for an estimate by
/// blocks.
const MIN_SIGMA_OF_FEW: f64 = 1.5;

/// Ratio of the standard deviation of red, green and blue to that of luma, from which noise of the
/// three counts as independent. The ratio is 1.5 for white noise in RGB, 1 for noise in luma alone.
const MIN_RATIO_TO_LUMA: f64 = 1.25;

/// Sigma in 8-bit units from which white noise of a gray image from a codec counts as white: the
/// codec keeps its spectrum.
const MIN_WHITE_SIGMA_OF_GRAY: f64 = 6.0;

/// Images of more pixels than this are not too small.
const FEW: usize = 64 * 64;

/// A kind of noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseKind {
    /// No noise worth removing.
    Clean,
    /// White noise in red, green and blue.
    White,
    /// Noise after a camera's processing or a codec: correlated, and different in luma and chroma.
    Camera,
}

/// The noise of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assessment {
    /// The kind of noise.
    pub kind: NoiseKind,
    /// Standard deviation of the noise in 8-bit units: root mean variance of red, green and blue,
    /// or that of gray.
    pub sigma: f64,
    /// Standard deviations of luma and of chroma averaged over 2x2.
    pub planes: [f64; 2],
}

impl Assessment {
    /// Assesses an image.
    ///
    /// # Errors
    /// Only those of unsupported kinds of images.
    pub fn of(image: &Image) -> Result<Self> {
        let is_gray = image.color_channels() == 1;
        let count = if is_gray { 1 } else { 3 };
        let (width, rects) = rects(image);
        let area: usize = rects.iter().map(|rect| rect.width * rect.height).sum();
        let mut colors = vec![Vec::with_capacity(area); count];
        let (mut luma, mut chroma) = (Vec::with_capacity(area), [const { Vec::new() }; 2]);
        for rect in rects {
            let area = rect.width * rect.height;
            let mut part = vec![0.0; count * area];
            read_region(image, Range::UNIT, rect, &mut part)?;
            colors
                .iter_mut()
                .zip(part.chunks_exact(area))
                .for_each(|(all, part)| all.extend_from_slice(part));
            if !is_gray {
                let (mut own, mut blues, mut reds) =
                    (vec![0.0; area], vec![0.0; area / 4], vec![0.0; area / 4]);
                read_yuv(image, rect, &mut own, [&mut blues, &mut reds])?;
                luma.extend(own);
                chroma[0].extend(blues);
                chroma[1].extend(reds);
            }
        }
        let mut estimator = SpatialEstimator::default();
        let mut estimate =
            |samples: &[f32], width, role| estimator.estimate(Plane::new(samples, width, role));
        let color_planes: Vec<_> =
            colors.iter().filter_map(|plane| estimate(plane, width, PlaneRole::Luma)).collect();
        if color_planes.is_empty() {
            if image.width * image.height > FEW {
                // Nearly everything is flat or clipped, as in text and drawings.
                return Ok(Self { kind: NoiseKind::Clean, sigma: 0.0, planes: [0.0; 2] });
            }
            // There are too few blocks for more than the finest band.
            let sigma = 255.0 * estimate_sigma(image);
            let [luma, chroma] = if is_gray { [1.0, 0.0] } else { sigmas_of_rgb(Matrix::Bt601) };
            let kind = if sigma < MIN_SIGMA_OF_FEW { NoiseKind::Clean } else { NoiseKind::White };
            return Ok(Self { kind, sigma, planes: [luma * sigma, chroma * sigma] });
        }
        let mut planes: Vec<_> = estimate(&luma, width, PlaneRole::Luma).into_iter().collect();
        planes.extend(
            chroma.iter().filter_map(|plane| estimate(plane, width / 2, PlaneRole::Chroma)),
        );
        let kind = match (plane_noise::kind(&color_planes), plane_noise::kind(&planes)) {
            (plane_noise::NoiseKind::White, _) => NoiseKind::White,
            (plane_noise::NoiseKind::Correlated, _) | (_, plane_noise::NoiseKind::Correlated) => {
                NoiseKind::Camera
            }
            // Noise in only luma or only chroma is not white noise of RGB.
            (_, plane_noise::NoiseKind::White) => NoiseKind::Camera,
            _ => NoiseKind::Clean,
        };
        let sigma = 255.0 * deviation(&color_planes);
        let (of_luma, of_chroma): (Vec<_>, Vec<_>) =
            planes.into_iter().partition(|plane| plane.role == PlaneRole::Luma);
        let [luma, chroma] =
            [deviation(&of_luma), deviation(&of_chroma)].map(|sigma| 255.0 * sigma);
        // Averaging chroma of 4:2:0 or smoothing it removes noise that independent red, green and
        // blue would have.
        let lacks_chroma = !of_chroma.is_empty() && sigma < MIN_RATIO_TO_LUMA * luma;
        let kind = if kind == NoiseKind::White && lacks_chroma { NoiseKind::Camera } else { kind };
        let planes = if is_gray { [sigma, 0.0] } else { [luma, chroma] };
        Ok(Self { kind, sigma, planes })
    }

    /// Assesses the image of a file, whose name tells whether it comes from a codec.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn of_file(path: &Path, image: &Image) -> Result<Self> {
        let assessment = Self::of(image)?;
        Ok(match Format::from_path(path) {
            Some(Format::Jpeg) => assessment.through_codec(),
            _ => assessment,
        })
    }

    /// Adapts the assessment to an image from a codec, which changes the spectrum of weak noise.
    pub fn through_codec(self) -> Self {
        let is_weak_gray = self.planes[1] == 0.0 && self.sigma < MIN_WHITE_SIGMA_OF_GRAY;
        let kind = if self.kind == NoiseKind::White && is_weak_gray {
            NoiseKind::Camera
        } else {
            self.kind
        };
        Self { kind, ..self }
    }

    /// The noise level that a network of that layout is to remove.
    pub(crate) fn sigma_for(&self, layout: Layout) -> SigmaChoice {
        match (self.kind, layout) {
            (NoiseKind::Clean, _) => SigmaChoice::Known(0.0),
            (_, Layout::Full) => SigmaChoice::Known(self.sigma),
            (_, Layout::Yuv420) => SigmaChoice::Planes(self.planes),
        }
    }
}

impl NoiseKind {
    /// A description for users.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::White => "white noise",
            Self::Camera => "camera noise",
        }
    }
}

/// Root mean variance of some planes.
fn deviation(planes: &[PlaneNoise]) -> f64 {
    let squares: f64 = planes.iter().map(|plane| plane.sigma * plane.sigma).sum();
    (squares / planes.len().max(1) as f64).sqrt()
}

/// The examined rectangles of an image, and their width: the whole image without an odd row and
/// column, or parts spread over it.
fn rects(image: &Image) -> (usize, Vec<Rect>) {
    let (width, height) = (image.width, image.height);
    if !image.is_opaque() {
        // Transparent areas are not examined.
        let places = (0..height / VISIBLE)
            .flat_map(|j| (0..width / VISIBLE).map(move |i| [i * VISIBLE, j * VISIBLE]));
        let visible: Vec<_> = places.filter(|place| is_visible(image, *place)).collect();
        let step = visible.len().div_ceil(MAX_VISIBLE).max(1);
        if visible.len() >= MIN_VISIBLE {
            let rect = |[x, y]: [usize; 2]| Rect {
                x0: x.cast_signed(),
                y0: y.cast_signed(),
                width: VISIBLE,
                height: VISIBLE,
            };
            return (VISIBLE, visible.into_iter().step_by(step).map(rect).collect());
        }
    }
    if width * height <= LARGE || width.min(height) < 2 * SIDE {
        let [width, height] = [width, height].map(|side| if side < 2 { 2 } else { side / 2 * 2 });
        return (width, vec![Rect { x0: 0, y0: 0, width, height }]);
    }
    let at = |i: usize, length: usize| ((length - SIDE) * i / (PARTS - 1) / 8 * 8).cast_signed();
    let places = (0..PARTS * PARTS).map(|i| Rect {
        x0: at(i % PARTS, width),
        y0: at(i / PARTS, height),
        width: SIDE,
        height: SIDE,
    });
    (SIDE, places.collect())
}

/// Whether all pixels of the square at that position are fully opaque.
fn is_visible(image: &Image, [x, y]: [usize; 2]) -> bool {
    let channels = image.channels;
    (y..y + VISIBLE).all(|y| {
        let first = (y * image.width + x) * channels;
        let mut alphas = (first..first + VISIBLE * channels).skip(channels - 1).step_by(channels);
        match &image.samples {
            Samples::U8(samples) => alphas.all(|at| samples[at] == u8::MAX),
            Samples::U16(samples) => alphas.all(|at| samples[at] == u16::MAX),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{Assessment, NoiseKind};
    use crate::diffusion::{NoiseAt, NoiseSource, Philox};
    use crate::media::{Image, Metadata, Samples};

    const SIDE: usize = 256;

    /// A shaded image whose noise at a pixel is `noise(values)`, of three independent standard
    /// normal values.
    fn image(channels: usize, noise: impl Fn([f32; 3]) -> [f32; 3]) -> Image {
        let mut values = vec![0.0; 3 * SIDE * SIDE];
        for (i, row) in values.chunks_exact_mut(SIDE).enumerate() {
            Philox::new(11).fill(
                NoiseAt { step: 0, batch: 0, channel: (i / SIDE) as u32, y: (i % SIDE) as u32 },
                0,
                row,
            );
        }
        let at = |i: usize| {
            let [r, g, b] = [0, 1, 2].map(|channel| values[channel * SIDE * SIDE + i]);
            let shade = 90.0 + 0.3 * (i % SIDE) as f32;
            noise([r, g, b]).map(|n| (shade + n).round() as u8)
        };
        let samples = (0..SIDE * SIDE).flat_map(|i| at(i).into_iter().take(channels)).collect();
        let (width, height, samples) = (SIDE, SIDE, Samples::U8(samples));
        Image { width, height, channels, samples, metadata: Metadata::default() }
    }

    fn kind(image: &Image) -> [NoiseKind; 2] {
        let assessment = Assessment::of(image).unwrap();
        [assessment.kind, assessment.through_codec().kind]
    }

    #[test]
    fn noise_of_independent_colors_is_white_also_from_a_codec() {
        assert_eq!(kind(&image(3, |n| n.map(|n| 15.0 * n))), [NoiseKind::White; 2]);
    }

    #[test]
    fn noise_of_luma_on_a_color_image_is_a_cameras() {
        let noise =
            |[luma, r, b]: [f32; 3]| [15.0 * luma + 2.0 * r, 15.0 * luma, 15.0 * luma + 2.0 * b];
        assert_eq!(kind(&image(3, noise)), [NoiseKind::Camera; 2]);
    }

    #[test]
    fn strong_noise_of_gray_is_white_and_weak_noise_from_a_codec_is_not() {
        assert_eq!(kind(&image(1, |n| n.map(|n| 15.0 * n))), [NoiseKind::White; 2]);
        assert_eq!(kind(&image(3, |[n, ..]| [15.0 * n; 3])), [NoiseKind::White; 2]);
        assert_eq!(kind(&image(1, |n| n.map(|n| 4.0 * n))), [NoiseKind::White, NoiseKind::Camera]);
    }
}
