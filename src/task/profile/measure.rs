//! Measures noise: the variance at each signal level, and the line through these.

use std::path::{Path, PathBuf};

use super::level::{LEVELS, Level};
use super::line::{Point, flat_at, lower_line};
use super::pairs::{self, YuvPlanes};
use super::{ColorModel, Method, NoiseLine, NoiseProfile, patches};
use crate::error::{Error, Result};
use crate::media::Image;

/// Minimum number of input of a level.
const MIN_SAMPLES: usize = 64;

/// Measures the noise of a camera.
///
/// **Several frames** of a static scene: the difference of a pixel between consecutive frames is
/// noise with twice the variance, for any scene. Pixels are sorted into levels by the mean of
/// their eight neighbors, whose noise is independent, so that the mean of the pixels themselves
/// is an unbiased signal of the level. In each level the mean difference (flicker of the light) is
/// subtracted, and differences beyond four standard deviations (motion) are left out.
///
/// **One image**: patches of 8x8 pixels are sorted into levels by their mean. In each level, the
/// smoothest eighth is selected by horizontal and vertical wavelet coefficients (Daubechies, two
/// vanishing moments). Noise is measured from the diagonal coefficients, which are independent of
/// the others for white noise, so that the selection is unbiased. This follows Foi et al. 2008
/// (section 3: level sets of a smoothed image without edges, a robust standard deviation in each,
/// a line through them). Texture at the scale of a pixel counts as noise, and spatially correlated
/// noise, as in a JPEG, is underestimated.
///
/// In both cases, the line is the lower envelope of the levels' variances, and levels with clipped
/// noise at black or white are left out.
///
/// Frames of video are measured in their own planes, by [`add_planes`](Self::add_planes), from
/// several frames only: chroma is sorted by the luma at its position. A codec that repeats blocks,
/// such as H.264, leaves no noise in differences, and the profile is too low.
#[derive(Debug, Default)]
pub struct Profiler {
    previous: Option<(PathBuf, MeasuredInput)>,
    frames: usize,
    channels: Vec<Vec<Level>>,
}

/// The last input.
#[derive(Debug)]
enum MeasuredInput {
    Image(Image),
    Planes(YuvPlanes),
}

impl Profiler {
    /// A profiler without measurements.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an image, which `name` identifies in messages. Holds it until the next one.
    ///
    /// # Errors
    /// [`Error::Input`] for an image whose size, depth or channels differ from the previous one's.
    pub fn add(&mut self, name: &Path, frame: Image) -> Result<()> {
        self.add_input(name, MeasuredInput::Image(frame))
    }

    /// Adds a frame of video. All inputs of a profiler must be of one kind.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_planes(&mut self, name: &Path, planes: YuvPlanes) -> Result<()> {
        self.add_input(name, MeasuredInput::Planes(planes))
    }

    fn add_input(&mut self, name: &Path, input: MeasuredInput) -> Result<()> {
        match &self.previous {
            None => self.channels = vec![vec![Level::default(); LEVELS]; input.channels()],
            Some((before, previous)) => {
                match (previous, &input) {
                    _ if previous.describe() != input.describe() => {
                        let problem = format!(
                            "it is {}, but {} is {}; frames of one scene must be alike",
                            input.describe(),
                            before.display(),
                            previous.describe()
                        );
                        return Err(Error::input(name, problem));
                    }
                    (MeasuredInput::Image(previous), MeasuredInput::Image(frame)) => {
                        pairs::compare(previous, frame, &mut self.channels)?
                    }
                    (MeasuredInput::Planes(previous), MeasuredInput::Planes(planes)) => {
                        pairs::compare_planes(previous, planes, &mut self.channels);
                    }
                    _ => {}
                }
                let quantum = input.quantum() / std::f64::consts::SQRT_2;
                self.channels.iter_mut().flatten().for_each(|level| level.settle(quantum));
            }
        }
        self.previous = Some((name.into(), input));
        self.frames += 1;
        Ok(())
    }

    /// The profile of all inputs.
    ///
    /// # Errors
    /// [`Error::Usage`] without any input; [`Error::Input`] for images that are too small,
    /// saturated, or copies of each other.
    pub fn finish(mut self) -> Result<NoiseProfile> {
        let Some((name, input)) = self.previous else {
            return Err(Error::usage("no image was given to measure"));
        };
        let [width, height] = input.size();
        let method = if self.frames == 1 { Method::Image } else { Method::Frames };
        let noise_in_signal = match method {
            // The mean of the neighbors does not contain the pixel's noise; that of a patch does.
            Method::Frames => 0.0,
            Method::Image => patches::NOISE_IN_SIGNAL,
        };
        if method == Method::Image {
            let MeasuredInput::Image(frame) = &input else {
                let problem = "it has one frame, and noise is measured by the differences of two \
                               or more of a still scene";
                return Err(Error::input(name, problem));
            };
            patches::measure(frame, &mut self.channels)?;
            self.channels.iter_mut().flatten().for_each(|level| level.settle(input.quantum()));
        }
        let mut lines = Vec::with_capacity(self.channels.len());
        let color_model = match input {
            MeasuredInput::Image(_) => ColorModel::Rgb,
            MeasuredInput::Planes(_) => ColorModel::Yuv,
        };
        for (index, levels) in self.channels.iter().enumerate() {
            let enough = levels.iter().filter(|level| level.found.count >= MIN_SAMPLES as f64);
            let points: Vec<Point> =
                enough.clone().filter(|level| level.is_intact()).map(|level| level.found).collect();
            if points.is_empty() {
                let problem = match enough.count() {
                    0 => format!("it has {width} x {height} pixels, too few to measure noise in"),
                    _ => "it is black or white wherever there is enough to measure, and noise is \
                          cut off there; expose so that the scene is between"
                        .to_owned(),
                };
                return Err(Error::input(name, problem));
            }
            let may_be_none = color_model == ColorModel::Yuv && index > 0;
            if method == Method::Frames
                && !may_be_none
                && points.iter().all(|point| point.variance == 0.0)
            {
                let problem = "it does not differ from the frames before but in a few pixels, as \
                               copies do; give frames that were taken one after the other";
                return Err(Error::input(name, problem));
            }
            lines.push(match flat_at(&points, noise_in_signal) {
                Some(signal) => {
                    NoiseLine { a: 0.0, b: mean_variance(&points), signal: [signal, signal] }
                }
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

impl MeasuredInput {
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

    /// The step between two sample values.
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
                let color = if frame.color_channels() == 3 { "RGB" } else { "gray" };
                format!("{width}x{height} in {}-bit {color}", frame.samples.bits())
            }
            Self::Planes(planes) => {
                format!("{width}x{height} in {}-bit luma and chroma", planes.bits)
            }
        }
    }
}

/// The lowest and highest signal.
fn range(points: &[Point]) -> [f64; 2] {
    let signals = || points.iter().map(|point| point.signal);
    [signals().fold(1.0, f64::min), signals().fold(0.0, f64::max)]
}

fn mean_variance(points: &[Point]) -> f64 {
    let count: f64 = points.iter().map(|point| point.count).sum();
    points.iter().map(|point| point.count * point.variance).sum::<f64>() / count
}
