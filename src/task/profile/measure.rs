//! Measuring noise: what is found at each level of the signal, and the line through it.

use std::path::{Path, PathBuf};

use super::line::{Point, clipped_variance, flat_at, lower_line};
use super::{Method, NoiseLine, NoiseProfile, pairs, patches};
use crate::error::{Error, Result};
use crate::frame::Frame;

/// Signals are told apart in so many levels.
const LEVELS: usize = 48;

/// A level with fewer samples is left out.
const FEWEST: usize = 64;

/// A level of which more samples than this part are black or white is left out, since there noise is cut off.
const MOST_CUT: f64 = 0.005;

/// Measures a camera's noise.
///
/// **Several frames** of a still scene: the difference of a pixel in one frame and the next is noise, of twice its
/// variance, whatever the scene is. Pixels are sorted into levels by their eight neighbours, whose noise is not theirs,
/// so that the mean of the pixels themselves is a level's signal without a bias. In each level the mean difference is
/// taken off, which is flicker of the light, and differences beyond four standard deviations are left out, which are
/// things that moved.
///
/// **One picture**: patches of 8x8 pixels are sorted into levels by their mean. In each level the eighth counts that is
/// smoothest by its horizontal and vertical wavelet coefficients (Daubechies, two vanishing moments); its noise is read
/// from the diagonal ones, which in white noise do not depend on the others, so that choosing does not make noise seem
/// less. This is the plan of Foi et al. 2008 (section 3: level sets of a smooth picture without its edges, a robust
/// deviation in each, a line through them). Textures as fine as a pixel count as noise, and noise that neighbouring
/// pixels share, as a JPEG has it, is underestimated.
///
/// Either way, the line is the lower envelope of the levels' variances, and levels where noise is cut off at black or
/// white are left out.
#[derive(Debug, Default)]
pub struct Profiler {
    previous: Option<(PathBuf, Frame)>,
    frames: usize,
    channels: Vec<Vec<Level>>,
}

/// What was found at about one signal.
#[derive(Clone, Debug, Default)]
pub(super) struct Level {
    /// Noise, scaled to the variance of a single sample.
    pub(super) noise: Vec<f32>,
    /// The sum of the signals that it was found at.
    pub(super) signal: f64,
    /// Samples that are black or white.
    pub(super) cut: usize,
    /// Samples that were looked at for `cut`.
    pub(super) seen: usize,
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
                pairs::compare(previous, &frame, &mut self.channels)?;
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
            Method::Picture => patches::NOISE_IN_SIGNAL,
        };
        if method == Method::Picture {
            patches::look_at(&frame, &mut self.channels)?;
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
                let problem = "it does not differ from the frames before but in a few pixels, as copies do; give frames that were \
                               taken one after the other";
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

/// The index of a signal's level.
pub(super) fn level_of(signal: f64) -> usize {
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

/// Whether a sample is black or white.
pub(super) fn is_cut(value: f32) -> bool {
    // Far finer than a step of 16 bits.
    !(1e-6..=1.0 - 1e-6).contains(&value)
}

fn describe(frame: &Frame) -> String {
    let color = if frame.color_channels() == 3 { "RGB" } else { "grey" };
    format!("{}x{} in {}-bit {color}", frame.width, frame.height, frame.samples.bits())
}
