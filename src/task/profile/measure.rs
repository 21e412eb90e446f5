//! Measuring noise: what is found at each level of the signal, and the line through it.

use std::path::{Path, PathBuf};

use super::line::{Point, clipped_variance, flat_at, lower_line};
use super::{ColorModel, Method, NoiseLine, NoiseProfile, pairs, patches};
use crate::error::{Error, Result};
use crate::media::Image;

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
/// **One image**: patches of 8x8 pixels are sorted into levels by their mean. In each level the eighth counts that is
/// smoothest by its horizontal and vertical wavelet coefficients (Daubechies, two vanishing moments); its noise is read
/// from the diagonal ones, which in white noise do not depend on the others, so that choosing does not make noise seem
/// less. This is the plan of Foi et al. 2008 (section 3: level sets of a smooth image without its edges, a robust
/// deviation in each, a line through them). Textures as fine as a pixel count as noise, and noise that neighbouring
/// pixels share, as a JPEG has it, is underestimated.
///
/// Either way, the line is the lower envelope of the levels' variances, and levels where noise is cut off at black or
/// white are left out.
///
/// Frames of video are measured in their own planes, by [`add_planes`](Self::add_planes), and in no other way: chroma is told apart
/// by the luma that it lies under. A codec that repeats blocks, as H.264 does, leaves no noise in differences; such frames make a
/// profile that says too little.
#[derive(Debug, Default)]
pub struct Profiler {
    previous: Option<(PathBuf, Seen)>,
    frames: usize,
    channels: Vec<Vec<Level>>,
}

/// What was looked at last.
#[derive(Debug)]
enum Seen {
    Image(Image),
    Planes(YuvPlanes),
}

/// The planes of a frame of video, as [`YuvFrameConverter`](crate::tensor::YuvFrameConverter) reads them.
#[derive(Clone, Debug)]
pub struct YuvPlanes {
    /// Luma `[2 H, 2 W]` from 0 to 1, then Cb and Cr `[H, W]`, centred on 0.5.
    pub samples: Vec<f32>,
    /// `[W, H]`.
    pub grid: [usize; 2],
    /// Bits of a sample of the source.
    pub bits: u32,
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

    /// Looks at an image, for which `name` stands in messages. Holds it until the next one.
    ///
    /// # Errors
    /// [`Error::Input`] for an image that is not of the size, the depth and the channels of the one before.
    pub fn add(&mut self, name: &Path, frame: Image) -> Result<()> {
        self.see(name, Seen::Image(frame))
    }

    /// Looks at a frame of video. All that a profiler looks at is of one kind.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_planes(&mut self, name: &Path, planes: YuvPlanes) -> Result<()> {
        self.see(name, Seen::Planes(planes))
    }

    fn see(&mut self, name: &Path, seen: Seen) -> Result<()> {
        match &self.previous {
            None => self.channels = vec![vec![Level::default(); LEVELS]; seen.channels()],
            Some((before, previous)) => {
                match (previous, &seen) {
                    _ if previous.describe() != seen.describe() => {
                        let problem = format!(
                            "it is {}, {} is {}; frames of one scene must be alike",
                            seen.describe(),
                            before.display(),
                            previous.describe()
                        );
                        return Err(Error::input(name, problem));
                    }
                    (Seen::Image(previous), Seen::Image(frame)) => pairs::compare(previous, frame, &mut self.channels)?,
                    (Seen::Planes(previous), Seen::Planes(planes)) => {
                        pairs::compare_planes(previous, planes, &mut self.channels);
                    }
                    _ => {}
                }
                let quantum = seen.quantum() / std::f64::consts::SQRT_2;
                self.channels.iter_mut().flatten().for_each(|level| level.settle(quantum));
            }
        }
        self.previous = Some((name.into(), seen));
        self.frames += 1;
        Ok(())
    }

    /// The profile of all that was seen.
    ///
    /// # Errors
    /// [`Error::Usage`] when nothing was; [`Error::Input`] for images that are too small, saturated, or copies of each
    /// other.
    pub fn finish(mut self) -> Result<NoiseProfile> {
        let Some((name, seen)) = self.previous else { return Err(Error::usage("no image was given to measure")) };
        let [width, height] = seen.size();
        let method = if self.frames == 1 { Method::Image } else { Method::Frames };
        let noise_in_signal = match method {
            // Neighbours do not carry the noise of a pixel; the mean of a patch has its own.
            Method::Frames => 0.0,
            Method::Image => patches::NOISE_IN_SIGNAL,
        };
        if method == Method::Image {
            let Seen::Image(frame) = &seen else {
                let problem =
                    "it has one frame, and noise is measured by the differences of two or more of a still scene";
                return Err(Error::input(name, problem));
            };
            patches::look_at(frame, &mut self.channels)?;
            self.channels.iter_mut().flatten().for_each(|level| level.settle(seen.quantum()));
        }
        let mut lines = Vec::with_capacity(self.channels.len());
        let color_model = match seen {
            Seen::Image(_) => ColorModel::Rgb,
            Seen::Planes(_) => ColorModel::Yuv,
        };
        for (index, levels) in self.channels.iter().enumerate() {
            let enough = levels.iter().filter(|level| level.found.count >= FEWEST as f64);
            let points: Vec<Point> =
                enough.clone().filter(|level| level.is_intact()).map(|level| level.found).collect();
            if points.is_empty() {
                let problem = match enough.count() {
                    0 => format!("it has {width} x {height} pixels, too few to measure noise in"),
                    _ => "it is black or white wherever there is enough to measure, and noise is cut off there; expose so \
                          that the scene is between"
                        .to_owned(),
                };
                return Err(Error::input(name, problem));
            }
            let may_be_none = color_model == ColorModel::Yuv && index > 0;
            if method == Method::Frames && !may_be_none && points.iter().all(|point| point.variance == 0.0) {
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
        let profile = NoiseProfile::new(method, self.frames, [width, height], lines)?;
        Ok(NoiseProfile { color_model, ..profile })
    }
}

impl Seen {
    fn channels(&self) -> usize {
        match self {
            Self::Image(frame) => frame.color_channels(),
            Self::Planes(_) => 3,
        }
    }

    fn size(&self) -> [usize; 2] {
        match self {
            Self::Image(frame) => [frame.width, frame.height],
            Self::Planes(planes) => planes.grid.map(|side| 2 * side),
        }
    }

    /// The step between two samples.
    fn quantum(&self) -> f64 {
        let bits = match self {
            Self::Image(frame) => frame.samples.bits(),
            Self::Planes(planes) => planes.bits,
        };
        1.0 / f64::from((1_u32 << bits) - 1)
    }

    fn describe(&self) -> String {
        let [width, height] = self.size();
        match self {
            Self::Image(frame) => {
                let color = if frame.color_channels() == 3 { "RGB" } else { "grey" };
                format!("{width}x{height} in {}-bit {color}", frame.samples.bits())
            }
            Self::Planes(planes) => format!("{width}x{height} in {}-bit luma and chroma", planes.bits),
        }
    }
}

impl Level {
    /// Takes the samples of one place in two frames; `cut` of them are black or white.
    pub(super) fn add_pair(&mut self, [before, after]: [f32; 2], signal: f64, cut: usize) {
        self.noise.push((after - before) * std::f32::consts::FRAC_1_SQRT_2);
        self.signal += signal;
        self.cut += cut;
        self.seen += 2;
    }

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

/// Whether a sample is black or white.
pub(super) fn is_cut(value: f32) -> bool {
    // Far finer than a step of 16 bits.
    !(1e-6..=1.0 - 1e-6).contains(&value)
}
