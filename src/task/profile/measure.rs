//! Measuring noise: frame by frame against the frame before, or in the smooth parts of a single picture.

use std::path::{Path, PathBuf};

use super::line::{Point, clipped_variance, flat_at, lower_line};
use super::{Method, NoiseLine, NoiseProfile};
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::task::estimate::{HIGH_PASS, LOW_PASS};
use crate::tensor::{Range, Rect, read_region};

/// Signals are told apart in so many levels.
const LEVELS: usize = 48;

/// About how many pixels of a pair of frames are looked at.
const SAMPLES: usize = 1 << 20;

/// A level with fewer samples is left out.
const FEWEST: usize = 64;

/// A level of which more samples than this part are black or white is left out, since there noise is cut off.
const MOST_CUT: f64 = 0.005;

/// The side of a patch in pixels, and what it covers with the filters' tails.
const PATCH: usize = 8;
const COVERED: usize = PATCH + 2;
/// From one patch to the next.
const PATCH_STEP: usize = PATCH / 2;

/// Of the patches of a level, one in so many is taken to be smooth.
const SMOOTH: usize = 8;

/// Measures a camera's noise.
///
/// **Several frames** of a still scene: the difference of a pixel in one frame and the next is noise, of twice its
/// variance, whatever the scene is. Pixels are sorted into levels by their eight neighbours, whose noise is not theirs, so that the mean
/// of the pixels themselves is the signal of a level without a bias; in each
/// level the mean difference is taken off, which is flicker of the light, and differences beyond four standard
/// deviations are left out, which are things that moved.
///
/// **One picture**: patches of 8x8 pixels are sorted into levels by their mean. In each level the eighth counts that is
/// smoothest by its horizontal and vertical wavelet coefficients (Daubechies, two vanishing moments); its noise is read
/// from the diagonal ones, which in white noise do not depend on the others, so that choosing does not make noise seem
/// less. This is the plan of Foi et al. 2008 (section 3: level sets of a smooth picture without its edges, a robust
/// deviation in each, a line through them). Textures as fine as a pixel count as noise, and noise that neighbouring
/// pixels share, as a JPEG has it, is underestimated.
///
/// Either way, the line is the lower envelope of the levels' variances, and levels where noise is cut off at black or white
/// are left out.
#[derive(Debug, Default)]
pub struct Profiler {
    previous: Option<(PathBuf, Frame)>,
    frames: usize,
    channels: Vec<Vec<Level>>,
}

/// What was found at about one signal.
#[derive(Clone, Debug, Default)]
struct Level {
    /// Noise, scaled to the variance of a single sample.
    noise: Vec<f32>,
    signal: f64,
    /// Samples that are black or white.
    cut: usize,
    /// Samples that were looked at for `cut`.
    seen: usize,
    found: Point,
}

impl Profiler {
    /// A profiler that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at a picture, for which `name` stands in messages. Holds it until the next one.
    ///
    /// # Errors
    /// [`Error::Input`] for a picture that is not of the size, the depth and the channels of the one before.
    pub fn add(&mut self, name: &Path, frame: Frame) -> Result<()> {
        match &self.previous {
            None => self.channels = vec![vec![Level::default(); LEVELS]; frame.color_channels()],
            Some((before, previous)) => {
                let kind = |frame: &Frame| (frame.width, frame.height, frame.color_channels(), frame.samples.bits());
                if kind(previous) != kind(&frame) {
                    let problem = format!(
                        "it is {}, {} is {}; frames of one scene must be alike",
                        describe(&frame),
                        before.display(),
                        describe(previous)
                    );
                    return Err(Error::input(name, problem));
                }
                let quantum = quantum(&frame) / std::f64::consts::SQRT_2;
                compare(previous, &frame, &mut self.channels)?;
                self.channels.iter_mut().flatten().for_each(|level| level.settle(quantum));
            }
        }
        self.previous = Some((name.into(), frame));
        self.frames += 1;
        Ok(())
    }

    /// The profile of all that was seen.
    ///
    /// # Errors
    /// [`Error::Usage`] when nothing was; [`Error::Input`] for pictures that are too small, saturated, or copies of each
    /// other.
    pub fn finish(mut self) -> Result<NoiseProfile> {
        let Some((name, frame)) = self.previous else { return Err(Error::usage("no picture was given to measure")) };
        let method = if self.frames == 1 { Method::Picture } else { Method::Frames };
        let noise_in_signal = match method {
            // Neighbours do not carry the noise of a pixel; the mean of a patch has its own.
            Method::Frames => 0.0,
            Method::Picture => 1.0 / (PATCH * PATCH) as f64,
        };
        if method == Method::Picture {
            look_at(&frame, &mut self.channels)?;
            self.channels.iter_mut().flatten().for_each(|level| level.settle(quantum(&frame)));
        }
        let mut lines = Vec::with_capacity(self.channels.len());
        for levels in &self.channels {
            let enough = levels.iter().filter(|level| level.found.count >= FEWEST as f64);
            let points: Vec<Point> =
                enough.clone().filter(|level| level.is_intact()).map(|level| level.found).collect();
            if points.is_empty() {
                let problem = match enough.count() {
                    0 => format!("it has {} x {} pixels, too few to measure noise in", frame.width, frame.height),
                    _ => "it is black or white wherever there is enough to measure, and noise is cut off there; expose so \
                          that the scene is between"
                        .to_owned(),
                };
                return Err(Error::input(name, problem));
            }
            if method == Method::Frames && points.iter().all(|point| point.variance == 0.0) {
                let problem = "it is the same as the frames before, in every pixel; give frames that were taken one after \
                               the other";
                return Err(Error::input(name, problem));
            }
            lines.push(match flat_at(&points, noise_in_signal) {
                Some(signal) => NoiseLine { a: 0.0, b: mean_variance(&points), signal: [signal, signal] },
                None => {
                    let (a, b) = lower_line(&points);
                    NoiseLine { a, b, signal: range(&points) }
                }
            });
        }
        NoiseProfile::new(method, self.frames, [frame.width, frame.height], lines)
    }
}

impl Level {
    /// Turns the noise that was collected into a variance, and adds that to what was found before.
    fn settle(&mut self, quantum: f64) {
        let count = self.noise.len() as f64;
        if count > 0.0 {
            let variance = clipped_variance(&mut self.noise, quantum);
            let all = self.found.count + count;
            let share = count / all;
            self.found.variance += share * (variance - self.found.variance);
            self.found.signal += share * (self.signal / count - self.found.signal);
            self.found.count = all;
        }
        self.noise.clear();
        self.signal = 0.0;
    }

    fn is_intact(&self) -> bool {
        self.cut as f64 <= MOST_CUT * self.seen as f64
    }
}

/// The level of a signal.
fn level_of(signal: f64) -> usize {
    ((signal * LEVELS as f64) as usize).min(LEVELS - 1)
}

/// The lowest and the highest signal.
fn range(points: &[Point]) -> [f64; 2] {
    let signals = || points.iter().map(|point| point.signal);
    [signals().fold(1.0, f64::min), signals().fold(0.0, f64::max)]
}

fn mean_variance(points: &[Point]) -> f64 {
    let count: f64 = points.iter().map(|point| point.count).sum();
    points.iter().map(|point| point.count * point.variance).sum::<f64>() / count
}

/// The step between two samples.
fn quantum(frame: &Frame) -> f64 {
    1.0 / f64::from((1_u32 << frame.samples.bits()) - 1)
}

fn is_cut(value: f32) -> bool {
    // Far finer than a step of 16 bits.
    !(1e-6..=1.0 - 1e-6).contains(&value)
}

fn describe(frame: &Frame) -> String {
    let color = if frame.color_channels() == 3 { "RGB" } else { "grey" };
    format!("{}x{} in {}-bit {color}", frame.width, frame.height, frame.samples.bits())
}

/// Collects the differences of two frames.
fn compare(one: &Frame, other: &Frame, channels: &mut [Vec<Level>]) -> Result<()> {
    // A grid whose step is odd, so that it does not fall in with the grid of a compressed picture.
    let step = (one.width * one.height / SAMPLES).isqrt() | 1;
    let width = one.width + 2;
    let size = 3 * width;
    let (mut before, mut after) = (vec![0.0; channels.len() * size], vec![0.0; channels.len() * size]);
    for y in (0..one.height).step_by(step) {
        let rect = Rect { x0: -1, y0: y.cast_signed() - 1, width, height: 3 };
        read_region(one, Range::UNIT, rect, &mut before)?;
        read_region(other, Range::UNIT, rect, &mut after)?;
        let planes = before.chunks_exact(size).zip(after.chunks_exact(size));
        for (levels, (before, after)) in channels.iter_mut().zip(planes) {
            for x in (0..one.width).step_by(step) {
                let both = |i: usize| f64::from(before[i]) + f64::from(after[i]);
                let own = width + x + 1;
                let around = (0..3).flat_map(|row| row * width + x..row * width + x + 3);
                let neighbours = around.map(both).sum::<f64>() - both(own);
                let level = &mut levels[level_of(neighbours / 16.0)];
                let signal = both(own) / 2.0;
                let (before, after) = (before[own], after[own]);
                level.noise.push((after - before) * std::f32::consts::FRAC_1_SQRT_2);
                level.signal += signal;
                level.cut += usize::from(is_cut(before)) + usize::from(is_cut(after));
                level.seen += 2;
            }
        }
    }
    Ok(())
}

/// A patch of a channel.
struct Patch {
    signal: f64,
    /// The energy of its horizontal and vertical coefficients.
    roughness: f64,
    /// How many of its samples are black or white.
    cut: usize,
    diagonal: [f32; PATCH * PATCH / 4],
}

/// Collects the noise of the smooth parts of a picture.
fn look_at(frame: &Frame, channels: &mut [Vec<Level>]) -> Result<()> {
    if frame.width < COVERED || frame.height < COVERED {
        return Ok(());
    }
    let width = frame.width;
    let mut rows = vec![0.0; channels.len() * COVERED * width];
    let mut patches: Vec<Vec<Vec<Patch>>> =
        channels.iter().map(|_| (0..LEVELS).map(|_| Vec::new()).collect()).collect();
    for y in (0..=frame.height - COVERED).step_by(PATCH_STEP) {
        let rect = Rect { x0: 0, y0: y.cast_signed(), width, height: COVERED };
        read_region(frame, Range::UNIT, rect, &mut rows)?;
        for (rows, patches) in rows.chunks_exact(COVERED * width).zip(&mut patches) {
            for x in (0..=width - COVERED).step_by(PATCH_STEP) {
                let patch = Patch::new(|i, j| rows[j * width + x + i]);
                patches[level_of(patch.signal)].push(patch);
            }
        }
    }
    for (level, mut patches) in channels.iter_mut().flatten().zip(patches.into_iter().flatten()) {
        patches.sort_unstable_by(|one, other| one.roughness.total_cmp(&other.roughness));
        for patch in patches.iter().take(patches.len().div_ceil(SMOOTH)) {
            level.noise.extend(patch.diagonal);
            level.signal += patch.signal * patch.diagonal.len() as f64;
            level.cut += patch.cut;
            level.seen += PATCH * PATCH;
        }
    }
    Ok(())
}

impl Patch {
    fn new(at: impl Fn(usize, usize) -> f32) -> Self {
        let mut patch = Self { signal: 0.0, roughness: 0.0, cut: 0, diagonal: [0.0; PATCH * PATCH / 4] };
        for (index, diagonal) in patch.diagonal.iter_mut().enumerate() {
            let (x, y) = (index % (PATCH / 2) * 2, index / (PATCH / 2) * 2);
            let (mut horizontal, mut vertical, mut both) = (0.0, 0.0, 0.0);
            for j in 0..4 {
                let line = std::array::from_fn::<f64, 4, _>(|i| f64::from(at(x + i, y + j)));
                let filtered = |taps: &[f64; 4]| line.iter().zip(taps).map(|(value, tap)| value * tap).sum::<f64>();
                let (low, high) = (filtered(&LOW_PASS), filtered(&HIGH_PASS));
                horizontal += LOW_PASS[j] * high;
                vertical += HIGH_PASS[j] * low;
                both += HIGH_PASS[j] * high;
            }
            *diagonal = both as f32;
            patch.roughness += horizontal.powi(2) + vertical.powi(2);
        }
        for (i, j) in (0..PATCH).flat_map(|j| (0..PATCH).map(move |i| (i, j))) {
            patch.signal += f64::from(at(i, j)) / (PATCH * PATCH) as f64;
            patch.cut += usize::from(is_cut(at(i, j)));
        }
        patch
    }
}
