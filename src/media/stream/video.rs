//! The format that all frames of a stream share.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::VideoFrame;
use super::format::PixelFormat;
use crate::error::{Error, Result};

/// The format that all frames of a stream share.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoFormat {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Frames per second.
    pub rate: Rate,
    /// The layout of samples in memory.
    pub format: PixelFormat,
    /// The meaning of the samples.
    pub color: Color,
    /// Progressive or interlaced, with the order of fields.
    pub scan: Scan,
    /// Pixel aspect ratio as a fraction, width to height; `None` where the source does not specify
    /// it.
    pub aspect: Option<[u32; 2]>,
    /// Presentation time of the first frame, from the beginning of its file, where sound may begin
    /// earlier.
    pub delay: Duration,
    /// Whether the source has transparency, which video frames do not hold.
    pub alpha: bool,
    /// Further parameters of a y4m header, which are passed through.
    pub tags: Vec<String>,
}

impl VideoFormat {
    /// Progressive frames with the usual color for `format`. Frames are upright: a source rotates
    /// them where its file states them.
    pub fn new(width: usize, height: usize, rate: Rate, format: PixelFormat) -> Self {
        Self {
            width,
            height,
            rate,
            format,
            color: Color::default_for(height, format),
            scan: Scan::Progressive,
            aspect: None,
            delay: Duration::ZERO,
            alpha: false,
            tags: Vec::new(),
        }
    }

    /// Bytes per frame.
    pub fn bytes(&self) -> usize {
        self.format.bytes(self.width, self.height)
    }

    /// Checks that a frame has the bytes of this format.
    ///
    /// # Errors
    /// [`Error::Input`] with both numbers.
    pub(crate) fn check(&self, frame: &VideoFrame) -> Result<()> {
        let (found, expected) = (frame.bytes.len(), self.bytes());
        if found == expected {
            return Ok(());
        }
        let problem = format!(
            "frame {} has {found} bytes; expected {expected} for {}x{}",
            frame.index, self.width, self.height
        );
        Err(Error::input("the stream", problem))
    }
}

/// Frame rate as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Frames ...
    pub frames: u32,
    /// ... per this many seconds.
    pub seconds: u32,
}

impl Rate {
    /// A rate of whole frames per second.
    pub const fn of(frames: u32) -> Self {
        Self { frames, seconds: 1 }
    }

    /// Presentation time of frame `index`, relative to the first.
    pub fn time_of(self, index: u64) -> Duration {
        Duration::from_secs_f64(
            index as f64 * f64::from(self.seconds) / f64::from(self.frames.max(1)),
        )
    }

    /// Frames per second.
    pub fn per_second(self) -> f64 {
        f64::from(self.frames) / f64::from(self.seconds.max(1))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seconds == 1 {
            write!(f, "{}", self.frames)
        } else {
            write!(f, "{}/{}", self.frames, self.seconds)
        }
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected frames per second, such as 25, 29.97 or 30000/1001";
        let whole = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0);
        if let Some((frames, seconds)) = text.split_once(['/', ':']) {
            let rate =
                whole(frames).zip(whole(seconds)).map(|(frames, seconds)| Self { frames, seconds });
            return rate.ok_or(EXPECTED);
        }
        if let Some(frames) = whole(text) {
            return Ok(Self::of(frames));
        }
        let rate: f64 = text.parse().map_err(|_| EXPECTED)?;
        // NTSC rates such as 29.97 have a denominator of 1001.
        let ntsc = (rate * 1.001).round();
        match rate {
            rate if !(0.001..=100_000.0).contains(&rate) => Err(EXPECTED),
            rate if (ntsc * 1000.0 / 1001.0 - rate).abs() < 0.005
                && (rate - rate.round()).abs() > 1e-9 =>
            {
                Ok(Self { frames: (ntsc * 1000.0) as u32, seconds: 1001 })
            }
            rate => Ok(Self { frames: (rate * 1000.0).round() as u32, seconds: 1000 }),
        }
    }
}

/// Progressive or interlaced, with the order of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// All rows at once.
    Progressive,
    /// Two fields: the odd rows, counted from 1, and then the even ones.
    TopFirst,
    /// Two fields: the even rows, counted from 1, and then the odd ones.
    BottomFirst,
    /// Each frame says which.
    Mixed,
}

impl Scan {
    /// Whether each frame consists of two fields.
    pub fn has_fields(self) -> bool {
        matches!(self, Self::TopFirst | Self::BottomFirst)
    }
}

/// The meaning of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Color {
    /// The matrix from red, green and blue to luma and chroma; ignored for RGB.
    pub matrix: Matrix,
    /// Where the matrix comes from.
    pub matrix_source: TagSource,
    /// The chromaticities of red, green, blue and white.
    pub primaries: CodePoint,
    /// The transfer characteristics.
    pub transfer: CodePoint,
    /// Whether black and white are the ends of the sample range. Otherwise, for 8 bits, luma has
    /// 16 to 235 and chroma 16 to 240 (ITU-R BT.601-7, section 2.5.3).
    pub full_range: bool,
    /// The position of chroma samples.
    pub siting: Siting,
}

impl Color {
    /// Defaults for unspecified properties: BT.709 from 720 rows on and BT.601 below, limited
    /// range, chroma on the left. RGB has full range.
    pub fn default_for(height: usize, format: PixelFormat) -> Self {
        Self {
            matrix: Matrix::default_for(height),
            matrix_source: TagSource::None,
            primaries: CodePoint::UNSPECIFIED,
            transfer: CodePoint::UNSPECIFIED,
            full_range: format.chroma().is_none(),
            siting: Siting::Left,
        }
    }
}

/// Where a stream's matrix comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagSource {
    /// Unspecified: the default for that height.
    None,
    /// The source.
    Source,
    /// The caller's override.
    Caller,
}

/// A code point of ITU-T H.273 for primaries (table 2) or transfer characteristics (table 3). It
/// is passed through; nothing is computed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePoint(pub u8);

impl CodePoint {
    /// Unspecified.
    pub const UNSPECIFIED: Self = Self(2);

    /// Names of primaries in ffmpeg.
    const PRIMARIES: [(u8, &'static str); 11] = [
        (1, "bt709"),
        (4, "bt470m"),
        (5, "bt470bg"),
        (6, "smpte170m"),
        (7, "smpte240m"),
        (8, "film"),
        (9, "bt2020"),
        (10, "smpte428"),
        (11, "smpte431"),
        (12, "smpte432"),
        (22, "ebu3213"),
    ];

    /// Names of transfer characteristics in ffmpeg.
    const TRANSFERS: [(u8, &'static str); 17] = [
        (1, "bt709"),
        (4, "gamma22"),
        (4, "bt470m"),
        (5, "gamma28"),
        (5, "bt470bg"),
        (6, "smpte170m"),
        (7, "smpte240m"),
        (8, "linear"),
        (9, "log100"),
        (10, "log316"),
        (11, "iec61966-2-4"),
        (12, "bt1361e"),
        (13, "iec61966-2-1"),
        (14, "bt2020-10"),
        (15, "bt2020-12"),
        (16, "smpte2084"),
        (18, "arib-std-b67"),
    ];

    /// Primaries by their name in ffmpeg.
    pub fn of_primaries(name: &str) -> Self {
        Self::of(&Self::PRIMARIES, name)
    }

    /// Transfer characteristics by their name in ffmpeg.
    pub fn of_transfer(name: &str) -> Self {
        Self::of(&Self::TRANSFERS, name)
    }

    fn of(names: &[(u8, &str)], name: &str) -> Self {
        names
            .iter()
            .find(|(_, known)| *known == name)
            .map_or(Self::UNSPECIFIED, |(code, _)| Self(*code))
    }

    /// The name of primaries, if known.
    pub fn primaries(self) -> Option<&'static str> {
        Self::PRIMARIES.iter().find(|(code, _)| *code == self.0).map(|(_, name)| *name)
    }

    /// The name of transfer characteristics, if known.
    pub fn transfer(self) -> Option<&'static str> {
        Self::TRANSFERS.iter().find(|(code, _)| *code == self.0).map(|(_, name)| *name)
    }
}

/// The matrix that defines luma: `Y = r R + (1 - r - b) G + b B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// ITU-R BT.601: standard-definition television, JPEG, and most cameras.
    Bt601,
    /// ITU-R BT.709: high-definition television.
    Bt709,
    /// ITU-R BT.2020, non-constant luminance: ultra-high-definition television.
    Bt2020,
    /// FCC (1953).
    Fcc,
    /// SMPTE 240M: high-definition television before BT.709.
    Smpte240m,
}

impl Matrix {
    /// The default for frames of that height that do not specify it.
    pub fn default_for(height: usize) -> Self {
        if height >= 720 { Self::Bt709 } else { Self::Bt601 }
    }

    /// The weights of red and blue.
    pub(crate) fn weights(self) -> [f32; 2] {
        match self {
            Self::Bt601 => [0.299, 0.114],
            Self::Bt709 => [0.2126, 0.0722],
            Self::Bt2020 => [0.2627, 0.0593],
            Self::Fcc => [0.3, 0.11],
            Self::Smpte240m => [0.212, 0.087],
        }
    }

    /// Its name in ffmpeg, where BT.601 has two equivalent names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bt601 => "smpte170m",
            Self::Bt709 => "bt709",
            Self::Bt2020 => "bt2020nc",
            Self::Fcc => "fcc",
            Self::Smpte240m => "smpte240m",
        }
    }

    /// Its code point in ITU-T H.273, table 4.
    pub fn code(self) -> u8 {
        match self {
            Self::Bt709 => 1,
            Self::Fcc => 4,
            Self::Bt601 => 6,
            Self::Smpte240m => 7,
            Self::Bt2020 => 9,
        }
    }

    /// The inverse of [`code`](Self::code); `None` for other matrices.
    pub fn of_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Bt709),
            4 => Some(Self::Fcc),
            5 | 6 => Some(Self::Bt601),
            7 => Some(Self::Smpte240m),
            9 => Some(Self::Bt2020),
            _ => None,
        }
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bt601 => "bt601",
            Self::Bt2020 => "bt2020",
            other => other.name(),
        })
    }
}

impl FromStr for Matrix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "bt601" | "smpte170m" | "bt470bg" => Ok(Self::Bt601),
            "bt709" => Ok(Self::Bt709),
            "bt2020" | "bt2020nc" => Ok(Self::Bt2020),
            "fcc" => Ok(Self::Fcc),
            "smpte240m" => Ok(Self::Smpte240m),
            _ => Err("expected bt601, bt709 or bt2020"),
        }
    }
}

/// The position of a chroma sample among the pixels that share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Siting {
    /// In their center, as in JPEG and MPEG-1.
    Center,
    /// On the left column, between the rows, as in MPEG-2 and later.
    Left,
    /// On the upper left pixel, as in DV and BT.2020.
    TopLeft,
}

#[cfg(test)]
mod tests {
    use super::Rate;
    use std::time::Duration;

    #[test]
    fn parses_common_frame_rates() {
        let ntsc = Rate { frames: 30_000, seconds: 1001 };
        let cases =
            [("25", Rate::of(25)), ("30000/1001", ntsc), ("29.97", ntsc), ("30000:1001", ntsc)];
        for (text, rate) in cases {
            assert_eq!(text.parse(), Ok(rate), "{text}");
        }
        assert_eq!("12.5".parse(), Ok(Rate { frames: 12_500, seconds: 1000 }));
        for text in ["", "0", "25/0", "-1", "nan", "fast"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!(Rate::of(25).time_of(50), Duration::from_secs(2));
    }
}
