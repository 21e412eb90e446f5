//! Inpainting: fills masked areas by generation and keeps all other pixels bit-exactly.

use std::ops::ControlFlow;

use ndarray::{Array4, Axis};

use super::generate::{GenerateRequest, Generator};
use crate::diffusion::{Guidance, Progress, SigmaMap, StepContext};
use crate::error::{Error, Result};
use crate::media::{Image, Samples};
use crate::tensor::{self, Rect};

/// The mask of missing pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    width: usize,
    height: usize,
    /// The missing part of each pixel: 0 is known, 1 is missing.
    missing: Vec<f32>,
}

impl Mask {
    /// From an image in which missing areas are painted white: brighter than half after
    /// multiplication by alpha. If a layer has transparent parts and nothing white, all that is
    /// painted on it is missing, in any color. At smooth edges, pixels next to missing ones count
    /// from an eighth on, so that no fringe is left.
    pub fn of(image: &Image) -> Self {
        const HALF: f32 = 0.5;
        const TRACE: f32 = 0.125;
        let (width, height, channels) = (image.width, image.height, image.channels);
        let sample = |at: usize| match &image.samples {
            Samples::U8(samples) => f32::from(samples[at]) / f32::from(u8::MAX),
            Samples::U16(samples) => f32::from(samples[at]) / f32::from(u16::MAX),
        };
        let alpha = |i: usize| if image.has_alpha() { sample((i + 1) * channels - 1) } else { 1.0 };
        let bright = |i: usize| {
            let colors = image.color_channels();
            (0..colors).map(|c| sample(i * channels + c)).sum::<f32>() / colors as f32
        };
        let mut painted: Vec<f32> = (0..width * height).map(|i| bright(i) * alpha(i)).collect();
        let is_layer = (0..width * height).any(|i| alpha(i) == 0.0);
        if is_layer && painted.iter().all(|painted| *painted <= HALF) {
            painted = (0..width * height).map(alpha).collect();
        }
        let near = |at: usize, length: usize| at.saturating_sub(1)..(at + 2).min(length);
        let is_missing = |i: usize| {
            let (x, y) = (i % width, i / width);
            let beside =
                || near(y, height).any(|y| near(x, width).any(|x| painted[y * width + x] > HALF));
            painted[i] > HALF || (painted[i] > TRACE && beside())
        };
        let missing = (0..width * height).map(|i| f32::from(u8::from(is_missing(i)))).collect();
        Self { width, height, missing }
    }

    /// Grows the mask by this distance in pixels.
    #[must_use]
    pub fn grown(mut self, pixels: usize) -> Self {
        let before = self.missing.clone();
        let (width, height) = (self.width, self.height);
        for i in (0..before.len()).filter(|i| before[*i] > 0.0) {
            let (x, y) = (i % width, i / width);
            for row in y.saturating_sub(pixels)..(y + pixels + 1).min(height) {
                let rest = pixels * pixels - row.abs_diff(y) * row.abs_diff(y);
                let reach = rest.isqrt();
                self.missing[row * width..][x.saturating_sub(reach)..(x + reach + 1).min(width)]
                    .fill(1.0);
            }
        }
        self
    }

    /// Feathers the edge of the mask over this many pixels inwards, to blend known with generated
    /// pixels.
    #[must_use]
    pub fn feathered(mut self, pixels: usize) -> Self {
        let hard = self.missing.clone();
        let reach = pixels.cast_signed();
        let (width, height) = (self.width.cast_signed(), self.height.cast_signed());
        for y in 0..height {
            for x in 0..width {
                let at = (y * width + x) as usize;
                if hard[at] == 0.0 {
                    continue;
                }
                let mut nearest = f32::INFINITY;
                for dy in -reach..=reach {
                    for dx in -reach..=reach {
                        let (x, y) = (x + dx, y + dy);
                        let inside = (0..width).contains(&x) && (0..height).contains(&y);
                        if inside && hard[(y * width + x) as usize] == 0.0 {
                            nearest = nearest.min(((dx * dx + dy * dy) as f32).sqrt());
                        }
                    }
                }
                self.missing[at] = (nearest / (pixels as f32 + 1.0)).min(1.0);
            }
        }
        self
    }

    /// Whether no pixel is missing.
    pub fn is_empty(&self) -> bool {
        self.missing.iter().all(|missing| *missing == 0.0)
    }

    /// The missing part of each pixel.
    pub(super) fn missing(&self) -> &[f32] {
        &self.missing
    }

    /// How many pixels are wholly or partly missing.
    pub(super) fn missing_pixels(&self) -> usize {
        self.missing.iter().filter(|missing| **missing > 0.0).count()
    }

    /// Checks that the mask has the size of the image.
    pub(super) fn check(&self, image: &Image) -> Result<()> {
        if (self.width, self.height) == (image.width, image.height) {
            return Ok(());
        }
        Err(Error::usage(format!(
            "the mask has {}x{} pixels and the image {}x{}; make them equal",
            self.width, self.height, image.width, image.height
        )))
    }

    /// Sets missing pixels to black.
    pub(super) fn blacken(&self, image: &mut Image) {
        let black = image.black(self.width, self.height);
        place_missing(&black, image, [0, 0], &self.missing);
    }

    /// Copies missing pixels from `filled`, and blends partly missing ones.
    pub(super) fn place(&self, filled: &Image, image: &mut Image) {
        let mut part = filled.clone();
        blend_missing(&mut part, image, &self.missing);
        place_missing(&part, image, [0, 0], &self.missing);
    }

    /// Left, top, right and bottom of the missing area, the last two exclusive; `None` if it is
    /// empty.
    fn bounds(&self) -> Option<[usize; 4]> {
        let mut bounds: Option<[usize; 4]> = None;
        for (i, _) in self.missing.iter().enumerate().filter(|(_, missing)| **missing > 0.0) {
            let (x, y) = (i % self.width, i / self.width);
            let [left, top, right, bottom] = bounds.unwrap_or([x, y, x + 1, y + 1]);
            bounds = Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)]);
        }
        bounds
    }
}

/// The report of an inpainted image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InpaintReport {
    /// Left, top, width and height of the processed part; `None` where nothing was missing.
    pub part: Option<[usize; 4]>,
    /// Number of wholly or partly missing pixels.
    pub pixels: usize,
}

/// Guides sampling by the known pixels: replaces them in every prediction of the clean image (Wang
/// et al. 2023, DDNM, with a mask as the operator).
struct MaskConsistency {
    image: Array4<f32>,
    /// The missing part of each pixel.
    missing: Vec<f32>,
}

impl Guidance for MaskConsistency {
    fn guide(&mut self, _moment: &StepContext<'_>, d: &mut Array4<f32>) -> Result<()> {
        let size = self.missing.len();
        let planes = d.as_slice_mut().unwrap_or_default().chunks_exact_mut(size);
        // All images of the batch have the same known pixels.
        for (d, known) in
            planes.zip(self.image.as_slice().unwrap_or_default().chunks_exact(size).cycle())
        {
            for ((d, known), missing) in d.iter_mut().zip(known).zip(&self.missing) {
                *d = if *missing == 0.0 { *known } else { known + missing * (*d - known) };
            }
        }
        Ok(())
    }
}

/// Minimum context in pixels around the missing area. The context is at least as wide as the
/// area's larger side, so that the result fits its surroundings.
const CONTEXT: usize = 64;

impl Generator<'_> {
    /// Fills the area of `image` that is missing by `mask`, once for each seed, and takes the
    /// mean. All other pixels and alpha are kept bit-exactly. `guides` see the processed part.
    /// `watch` is called for every evaluation and can stop the run.
    ///
    /// # Errors
    /// [`Error::Usage`] when the mask has another size than the image, or the image has color
    /// that the network does not support or does not fit the memory budget; [`Error::Evaluation`]
    /// when the network fails; [`Error::Interrupted`]. The image is unchanged then.
    pub fn inpaint(
        &mut self,
        image: &mut Image,
        mask: &Mask,
        seeds: &[u64],
        guides: Vec<&mut dyn Guidance>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<InpaintReport> {
        let (width, height) = (image.width, image.height);
        mask.check(image)?;
        let pixels = mask.missing_pixels();
        let Some([left, top, right, bottom]) = mask.bounds() else {
            return Ok(InpaintReport { part: None, pixels });
        };
        let context = CONTEXT.max(right - left).max(bottom - top);
        let (x, y) = (left.saturating_sub(context), top.saturating_sub(context));
        let (wide, high) = ((right + context).min(width) - x, (bottom + context).min(height) - y);

        let (channels, range) = (self.pixel_channels()?, self.range());
        let mut known = Array4::zeros([1, channels, high, wide]);
        let rect = Rect { x0: x.cast_signed(), y0: y.cast_signed(), width: wide, height: high };
        tensor::read_region(
            &image.visible(),
            range,
            rect,
            known.as_slice_mut().unwrap_or_default(),
        )?;
        let rows = (y..y + high).flat_map(|row| &mask.missing[row * width + x..][..wide]);
        let missing: Vec<f32> = rows.copied().collect();
        // The start must not depend on the masked pixels, only on those around them.
        let mut start = known.clone();
        let mixed = self.takes_mixed_noise();
        let at_once = mixed && self.draws_at_once();
        if at_once {
            fill_with_middle(&mut start, &missing, f32::midpoint(range.lo(), range.hi()));
        } else {
            fill_smoothly(&mut start, &missing);
        }
        // Known pixels have no noise, where the network accepts a map of sigma.
        let sigma = mixed.then(|| SigmaMap::PerPixel { width: wide, values: missing.clone() });
        let mut known = MaskConsistency { image: known, missing };
        let mut leading: Vec<&mut dyn Guidance> = vec![&mut known];
        leading.extend(guides.into_iter().map(|guide| guide as &mut dyn Guidance));
        // Without noise, all samples are equal.
        let seeds = if at_once { &seeds[..seeds.len().min(1)] } else { seeds };
        let start = repeated(&start, seeds.len());
        let (seeds, initial) = (seeds.to_vec(), at_once.then(|| Array4::zeros(start.dim())));
        let request = GenerateRequest {
            seeds,
            start: Some(start),
            initial,
            sigma,
            guides: leading,
            ..GenerateRequest::default()
        };
        let generated = self.generate([wide, high], request, watch)?;
        let Some(generated) = generated.mean_axis(Axis(0)) else {
            return Err(Error::usage("the list of seeds is empty; give one or more"));
        };

        let mut part = image.black(wide, high);
        tensor::write_planes(generated.as_slice().unwrap_or_default(), range, &mut part)?;
        place_missing(&part, image, [x, y], &known.missing);
        Ok(InpaintReport { part: Some([x, y, wide, high]), pixels })
    }
}

/// Repeats an image as a batch.
fn repeated(image: &Array4<f32>, times: usize) -> Array4<f32> {
    let (_, channels, height, width) = image.dim();
    Array4::from_shape_fn([times, channels, height, width], |(_, c, y, x)| image[[0, c, y, x]])
}

/// Fills missing pixels with the mean of the noisy state at the largest sigma, from which a single
/// evaluation gives the posterior mean; noise would only add error.
fn fill_with_middle(image: &mut Array4<f32>, missing: &[f32], middle: f32) {
    for plane in image.as_slice_mut().unwrap_or_default().chunks_exact_mut(missing.len().max(1)) {
        plane
            .iter_mut()
            .zip(missing)
            .for_each(|(value, missing)| *value += missing * (middle - *value));
    }
}

/// Fills missing pixels smoothly from those around them: means of known pixels, coarser the
/// further away they are, relaxed at each size toward the harmonic interpolation of the border
/// (as in pull-push, Gortler et al. 1996).
fn fill_smoothly(image: &mut Array4<f32>, missing: &[f32]) {
    let (_, _, height, width) = image.dim();
    let known: Vec<bool> = missing.iter().map(|missing| *missing == 0.0).collect();
    for plane in image.as_slice_mut().unwrap_or_default().chunks_exact_mut((width * height).max(1))
    {
        fill_plane(plane, &known, width);
    }
}

fn fill_plane(plane: &mut [f32], known: &[bool], width: usize) {
    /// Relaxation iterations at each size.
    const ROUNDS: usize = 16;
    if known.iter().all(|known| *known) || known.len() < 2 {
        return;
    }
    let height = plane.len() / width;
    let (small_width, small_height) = (width.div_ceil(2), height.div_ceil(2));
    let (mut sums, mut counts) =
        (vec![0.0; small_width * small_height], vec![0.0_f32; small_width * small_height]);
    for (i, value) in plane.iter().enumerate().filter(|(i, _)| known[*i]) {
        let at = i / width / 2 * small_width + i % width / 2;
        sums[at] += value;
        counts[at] += 1.0;
    }
    let mut small: Vec<f32> =
        sums.iter().zip(&counts).map(|(sum, count)| sum / count.max(1.0)).collect();
    let small_known: Vec<bool> = counts.iter().map(|count| *count > 0.0).collect();
    // Recursion ends at a single pixel if nothing is known.
    if small.len() < plane.len() {
        fill_plane(&mut small, &small_known, small_width);
    }
    let holes: Vec<usize> = (0..plane.len()).filter(|i| !known[*i]).collect();
    holes.iter().for_each(|i| plane[*i] = small[i / width / 2 * small_width + i % width / 2]);
    for _ in 0..ROUNDS {
        for &i in &holes {
            let (x, y) = (i % width, i / width);
            let (left, right) =
                (if x > 0 { i - 1 } else { i }, if x + 1 < width { i + 1 } else { i });
            let (above, below) =
                (if y > 0 { i - width } else { i }, if y + 1 < height { i + width } else { i });
            plane[i] = 0.25 * (plane[left] + plane[right] + plane[above] + plane[below]);
        }
    }
}

/// Blends the colors of partly missing pixels with those of `image`, which has the same size.
fn blend_missing(part: &mut Image, image: &Image, missing: &[f32]) {
    fn blend<T: Copy + Into<f32>>(
        part: &mut [T],
        image: &[T],
        (channels, colors): (usize, usize),
        missing: &[f32],
        round: impl Fn(f32) -> T,
    ) {
        let pixels = part.chunks_exact_mut(channels).zip(image.chunks_exact(channels));
        for ((part, image), missing) in pixels.zip(missing).filter(|(_, part)| **part < 1.0) {
            for (part, known) in part[..colors].iter_mut().zip(image) {
                let (generated, known): (f32, f32) = ((*part).into(), (*known).into());
                *part = round((known + missing * (generated - known)).round());
            }
        }
    }
    let kind = (image.channels, image.color_channels());
    match (&mut part.samples, &image.samples) {
        (Samples::U8(part), Samples::U8(image)) => {
            blend(part, image, kind, missing, |value| value as u8);
        }
        (Samples::U16(part), Samples::U16(image)) => {
            blend(part, image, kind, missing, |value| value as u16);
        }
        _ => {}
    }
}

/// Copies the colors of missing pixels from a part, at `x` and `y` of the whole image, into it.
fn place_missing(part: &Image, whole: &mut Image, [x, y]: [usize; 2], missing: &[f32]) {
    fn place<T: Copy>(
        part: &[T],
        whole: &mut [T],
        channels: usize,
        colors: usize,
        at: impl Iterator<Item = [usize; 2]>,
    ) {
        for [from, to] in at {
            whole[to * channels..][..colors].copy_from_slice(&part[from * channels..][..colors]);
        }
    }
    let (wide, width) = (part.width, whole.width);
    let (channels, colors) = (whole.channels, whole.color_channels());
    let at = (0..missing.len())
        .filter(|i| missing[*i] > 0.0)
        .map(|i| [i, (y + i / wide) * width + x + i % wide]);
    match (&part.samples, &mut whole.samples) {
        (Samples::U8(part), Samples::U8(whole)) => place(part, whole, channels, colors, at),
        (Samples::U16(part), Samples::U16(whole)) => place(part, whole, channels, colors, at),
        _ => {}
    }
}
