//! What all frames of a stream have in common.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::format::PixelFormat;

/// What all frames of a stream have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoFormat {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Frames per second.
    pub rate: Rate,
    /// How the samples lie in memory.
    pub format: PixelFormat,
    /// What the samples mean.
    pub color: Color,
    /// In what order the rows of a frame were taken.
    pub scan: Scan,
    /// Width and height of a pixel as it is shown, as a fraction; none where the source does not say.
    pub aspect: Option<[u32; 2]>,
    /// When the first frame is shown, counted from the beginning of the file that it comes from, where sound may begin sooner.
    pub delay: Duration,
    /// Whether the source has transparency, which frames of a stream do not hold.
    pub alpha: bool,
    /// What a y4m header says beside that; it travels untouched.
    pub tags: Vec<String>,
}

impl VideoFormat {
    /// Progressive frames with samples as `format` usually has them. They are upright: a source turns them where its file
    /// says so.
    pub fn new(width: usize, height: usize, rate: Rate, format: PixelFormat) -> Self {
        Self {
            width,
            height,
            rate,
            format,
            color: Color::usual(height, format),
            scan: Scan::Progressive,
            aspect: None,
            delay: Duration::ZERO,
            alpha: false,
            tags: Vec::new(),
        }
    }

    /// Bytes of one frame.
    pub fn bytes(&self) -> usize {
        self.format.bytes(self.width, self.height)
    }
}

/// Frames per second, as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Frames ...
    pub frames: u32,
    /// ... in so many seconds.
    pub seconds: u32,
}

impl Rate {
    /// A rate of whole frames per second.
    pub const fn of(frames: u32) -> Self {
        Self { frames, seconds: 1 }
    }

    /// When frame `index` is due, counted from the first.
    pub fn time_of(self, index: u64) -> Duration {
        Duration::from_secs_f64(index as f64 * f64::from(self.seconds) / f64::from(self.frames.max(1)))
    }

    /// Frames per second.
    pub fn per_second(self) -> f64 {
        f64::from(self.frames) / f64::from(self.seconds.max(1))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seconds == 1 { write!(f, "{}", self.frames) } else { write!(f, "{}/{}", self.frames, self.seconds) }
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected frames per second, such as 25, 29.97 or 30000/1001";
        let whole = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0);
        if let Some((frames, seconds)) = text.split_once(['/', ':']) {
            let rate = whole(frames).zip(whole(seconds)).map(|(frames, seconds)| Self { frames, seconds });
            return rate.ok_or(EXPECTED);
        }
        if let Some(frames) = whole(text) {
            return Ok(Self::of(frames));
        }
        let rate: f64 = text.parse().map_err(|_| EXPECTED)?;
        // 29.97 and its like are of 1001 seconds.
        let ntsc = (rate * 1.001).round();
        match rate {
            rate if !(0.001..=100_000.0).contains(&rate) => Err(EXPECTED),
            rate if (ntsc * 1000.0 / 1001.0 - rate).abs() < 0.005 && (rate - rate.round()).abs() > 1e-9 => {
                Ok(Self { frames: (ntsc * 1000.0) as u32, seconds: 1001 })
            }
            rate => Ok(Self { frames: (rate * 1000.0).round() as u32, seconds: 1000 }),
        }
    }
}

/// In what order the rows of a frame were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// All at once.
    Progressive,
    /// Every second row, from the first on, and then those between: two fields.
    TopFirst,
    /// Every second row, from the second on, and then those between.
    BottomFirst,
    /// One or the other, as each frame says.
    Mixed,
}

impl Scan {
    /// Whether each frame is two fields.
    pub fn has_fields(self) -> bool {
        matches!(self, Self::TopFirst | Self::BottomFirst)
    }
}

/// What samples mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Color {
    /// How luma and chroma come from red, green and blue; of no account for those themselves.
    pub matrix: Matrix,
    /// Who says so.
    pub said_by: SaidBy,
    /// Which red, green, blue and white are meant.
    pub primaries: CodePoint,
    /// How much light a value stands for.
    pub transfer: CodePoint,
    /// Whether black and white are the ends of the samples' range. Otherwise, for 8 bits, luma has 16 to 235 and chroma 16 to
    /// 240 (ITU-R BT.601-7, section 2.5.3).
    pub full_range: bool,
    /// Where chroma samples lie.
    pub siting: Siting,
}

impl Color {
    /// What a stream means that does not say: BT.709 from 720 rows on and BT.601 below, limited range, chroma to the left.
    /// RGB has the full range.
    pub fn usual(height: usize, format: PixelFormat) -> Self {
        Self {
            matrix: Matrix::usual(height),
            said_by: SaidBy::Nobody,
            primaries: CodePoint::UNSAID,
            transfer: CodePoint::UNSAID,
            full_range: format.chroma().is_none(),
            siting: Siting::Left,
        }
    }
}

/// Who says what a stream's matrix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaidBy {
    /// Nobody: it is what readers take for granted at that height.
    Nobody,
    /// The source.
    Source,
    /// The caller, who knows better.
    Caller,
}

/// A code point of ITU-T H.273, for primaries (its table 2) or transfer characteristics (its table 3). Nothing is computed
/// from it; it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePoint(pub u8);

impl CodePoint {
    /// Not known.
    pub const UNSAID: Self = Self(2);

    /// Primaries, as ffmpeg names them.
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

    /// Transfer characteristics, as ffmpeg names them.
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

    /// Primaries by ffmpeg's name for them.
    pub fn of_primaries(name: &str) -> Self {
        Self::of(&Self::PRIMARIES, name)
    }

    /// Transfer characteristics by ffmpeg's name for them.
    pub fn of_transfer(name: &str) -> Self {
        Self::of(&Self::TRANSFERS, name)
    }

    fn of(names: &[(u8, &str)], name: &str) -> Self {
        names.iter().find(|(_, known)| *known == name).map_or(Self::UNSAID, |(code, _)| Self(*code))
    }

    /// The name of primaries, where they are known.
    pub fn primaries(self) -> Option<&'static str> {
        Self::PRIMARIES.iter().find(|(code, _)| *code == self.0).map(|(_, name)| *name)
    }

    /// The name of transfer characteristics, where they are known.
    pub fn transfer(self) -> Option<&'static str> {
        Self::TRANSFERS.iter().find(|(code, _)| *code == self.0).map(|(_, name)| *name)
    }
}

/// How luma is weighed: `Y = r R + (1 - r - b) G + b B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// ITU-R BT.601: television of standard definition, JPEG, and most cameras.
    Bt601,
    /// ITU-R BT.709: television of high definition.
    Bt709,
    /// ITU-R BT.2020, of values that are not linear: television of ultra-high definition.
    Bt2020,
    /// FCC's of 1953.
    Fcc,
    /// SMPTE 240M: high definition before BT.709.
    Smpte240m,
}

impl Matrix {
    /// What readers take for granted of a frame that does not say.
    pub fn usual(height: usize) -> Self {
        if height >= 720 { Self::Bt709 } else { Self::Bt601 }
    }

    /// The weights of red and of blue.
    pub(crate) fn weights(self) -> [f32; 2] {
        match self {
            Self::Bt601 => [0.299, 0.114],
            Self::Bt709 => [0.2126, 0.0722],
            Self::Bt2020 => [0.2627, 0.0593],
            Self::Fcc => [0.3, 0.11],
            Self::Smpte240m => [0.212, 0.087],
        }
    }

    /// As ffmpeg names it. BT.601 has two names there, which mean the same.
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

    /// What [`code`](Self::code) gives, backwards; none for a matrix that is none of these.
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

/// Where a chroma sample lies among the pixels that share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Siting {
    /// In their middle, as in JPEG and MPEG-1.
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
    fn rates_as_people_write_them() {
        let ntsc = Rate { frames: 30_000, seconds: 1001 };
        let cases = [("25", Rate::of(25)), ("30000/1001", ntsc), ("29.97", ntsc), ("30000:1001", ntsc)];
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
