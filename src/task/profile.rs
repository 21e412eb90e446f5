//! Noise profiles of cameras: the variance as a linear function of the signal, measured and stored
//! in a file.

mod level;
mod line;
mod measure;
mod pairs;
mod patches;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::Path;

use serde::Deserialize;

pub use measure::Profiler;
pub use pairs::YuvPlanes;

use crate::error::{Error, Result};
use crate::media::still;

/// The only version of the file format.
const VERSION: u32 = 1;

/// The noise of a camera: for each channel, `variance = a * signal + b`.
///
/// Signal and variance are those of the delivered samples as parts of their full range, from 0
/// (black) to 1 (white), of any depth and transfer curve. The channels are gray, or red, green and
/// blue, each by its own signal; or luma and the two chromas (at half the width and height), all
/// by the signal of luma, on which the noise of each depends. `a` is the photon noise and `b` the
/// electronic noise (Foi, Trimeche, Katkovnik and Egiazarian 2008, "Practical Poissonian-Gaussian
/// noise modeling and fitting for single-image raw-data", equation 3).
///
/// [`Profiler`] measures one; [`read`](Self::read) and [`write`](Self::write) store it in a TOML
/// file:
///
/// ```toml
/// version = 1
/// method = "frames"  # differences of frames of a static scene; or "image", its smooth parts
/// frames = 8
/// width = 640
/// height = 480
/// color_model = "rgb"  # also for gray, and the default; or "yuv"
///
/// [[channels]]       # one for gray, or red, green and blue in order; for "yuv", luma, Cb and Cr
/// a = 1.2e-3
/// b = 4.1e-5
/// signal = [0.02, 0.91]  # measured range of signals; twice one value for a flat scene
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseProfile {
    version: u32,
    /// The method of measurement.
    pub method: Method,
    /// Number of images.
    pub frames: usize,
    /// Their width in pixels.
    pub width: usize,
    /// Their height in pixels.
    pub height: usize,
    /// The meaning of the channels.
    #[serde(default)]
    pub color_model: ColorModel,
    /// The noise of gray, of red, green and blue, or of luma, Cb and Cr.
    pub channels: Vec<NoiseLine>,
}

/// The meaning of the channels of a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColorModel {
    /// Red, green and blue, or gray.
    #[default]
    Rgb,
    /// Luma, and chroma at half the width and height, as in video.
    Yuv,
}

/// How the noise was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Differences between frames of a static scene.
    Frames,
    /// Smooth parts of a single image.
    Image,
}

/// The noise of a channel: `variance = a * signal + b`, all as parts of the full range.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseLine {
    /// Slope of the variance over the signal; at least 0.
    pub a: f64,
    /// Variance at signal 0; at least 0.
    pub b: f64,
    /// Lowest and highest signal of the measurement, 0 to 1. They are equal if the scene was too
    /// flat to determine the slope; then `a` is 0, and `b` the variance at that signal.
    pub signal: [f64; 2],
}

impl Method {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Image => "image",
        }
    }
}

impl ColorModel {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rgb => "rgb",
            Self::Yuv => "yuv",
        }
    }
}

impl NoiseLine {
    /// The variance at a signal; negative signals count as 0. The line is extrapolated beyond the
    /// measured signals.
    pub fn variance(&self, signal: f64) -> f64 {
        self.a * signal.max(0.0) + self.b
    }

    /// Whether the scene was too flat to determine `a`.
    pub fn is_flat(&self) -> bool {
        self.signal[0] == self.signal[1]
    }
}

impl NoiseProfile {
    /// A gray or RGB profile, measured with `method` from `frames` images of `width` by `height`
    /// pixels.
    ///
    /// # Errors
    /// [`Error::Usage`] for values that [`read`](Self::read) rejects.
    pub fn new(
        method: Method,
        frames: usize,
        [width, height]: [usize; 2],
        channels: impl Into<Vec<NoiseLine>>,
    ) -> Result<Self> {
        let (version, color_model) = (VERSION, ColorModel::Rgb);
        let profile =
            Self { version, method, frames, width, height, color_model, channels: channels.into() };
        match profile.defect() {
            None => Ok(profile),
            Some(defect) => Err(Error::usage(format!("this is not a noise profile: {defect}"))),
        }
    }

    /// Reads the file of a profile.
    ///
    /// # Errors
    /// [`Error::Input`] for a missing or invalid file: another version, unknown or missing fields,
    /// other than one or three channels, or numbers out of range.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|cause| {
            let problem = match cause.kind() {
                std::io::ErrorKind::NotFound => {
                    let problem = "there is no such file; make one with `eddy profile`";
                    return Error::input(path, problem);
                }
                std::io::ErrorKind::InvalidData => {
                    "it is a binary file, not a noise profile; make one with `eddy profile`"
                }
                _ => "the noise profile cannot be opened; check its permissions",
            };
            Error::input_from(path, problem, cause)
        })?;
        Self::parse(&text, path)
    }

    /// Reads the text of a profile; `path` is its file in messages.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self> {
        let profile: Self = toml::from_str(text).map_err(|cause| {
            Error::input_from(
                path,
                "it is not a noise profile; make one with `eddy profile`",
                cause,
            )
        })?;
        match profile.defect() {
            None => Ok(profile),
            Some(defect) => Err(Error::input(
                path,
                format!("it is not a valid noise profile: {defect}; measure it anew"),
            )),
        }
    }

    /// Writes the file of a profile, which appears only when complete.
    ///
    /// # Errors
    /// [`Error::Output`] when it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        still::save(path, |file| Ok(file.write_all(self.to_toml().as_bytes())?))
    }

    /// Checks whether `path` can be written; call it before long computations.
    ///
    /// # Errors
    /// [`Error::Output`] if not.
    pub fn check(path: &Path) -> Result<()> {
        still::check_place(path)
    }

    /// The text of the file.
    pub(crate) fn to_toml(&self) -> String {
        let method = self.method.name();
        let Self { version, frames, width, height, color_model, .. } = self;
        let color_model = color_model.name();
        let mut text = format!(
            "# A camera's noise, for `eddy denoise --noise-profile`: variance = a * signal + b for \
             each channel, with the\n\
             # samples from 0 (black) to 1 (white). `signal` is where it was measured.\n\
             version = {version}\n\
             method = \"{method}\"\n\
             frames = {frames}\n\
             width = {width}\n\
             height = {height}\n\
             color_model = \"{color_model}\"\n"
        );
        for NoiseLine { a, b, signal: [low, high] } in &self.channels {
            text +=
                &format!("\n[[channels]]\na = {a:e}\nb = {b:e}\nsignal = [{low:?}, {high:?}]\n");
        }
        text
    }

    /// What is invalid in this profile, if anything.
    fn defect(&self) -> Option<String> {
        let Self { version, method, frames, width, height, color_model, channels } = self;
        if *version != VERSION {
            return Some(format!("its version is {version}, expected {VERSION}"));
        }
        if (*method == Method::Image) != (*frames == 1) || *frames == 0 {
            return Some(format!(
                "{frames} frames contradict the method; `image` has one, `frames` has more"
            ));
        }
        if *width == 0 || *height == 0 {
            return Some(format!("its images have {width}x{height} pixels"));
        }
        match (color_model, channels.len()) {
            (ColorModel::Rgb, 1 | 3) | (ColorModel::Yuv, 3) => {}
            (ColorModel::Rgb, count) => {
                return Some(format!("it has {count} channels, expected 1 or 3"));
            }
            (ColorModel::Yuv, count) => {
                return Some(format!("it has {count} channels, expected luma, Cb and Cr"));
            }
        }
        let is_level = |value: f64| (0.0..=1.0).contains(&value);
        let is_sound = |line: &NoiseLine| {
            let [low, high] = line.signal;
            line.a.is_finite()
                && line.a >= 0.0
                && is_level(line.b)
                && is_level(low)
                && is_level(high)
                && low <= high
        };
        let position = channels.iter().position(|line| !is_sound(line))?;
        Some(format!(
            "channel {} has {:?}, expected a from 0 on and the others from 0 to 1",
            position + 1,
            channels[position]
        ))
    }
}
