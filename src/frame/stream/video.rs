//! What all pictures of a stream have in common.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::format::PixelFormat;

/// What all pictures of a stream have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Pictures a second.
    pub rate: Rate,
    /// How the samples lie in memory.
    pub format: PixelFormat,
    /// What the samples mean.
    pub color: Color,
    /// What a y4m header says beside that, from its interlacing on; it travels untouched.
    pub tags: Vec<String>,
}

impl Video {
    /// Progressive pictures with samples as `format` usually has them.
    pub fn new(width: usize, height: usize, rate: Rate, format: PixelFormat) -> Self {
        Self { width, height, rate, format, color: Color::usual(height, format), tags: Vec::new() }
    }

    /// Bytes of one picture.
    pub fn bytes(&self) -> usize {
        self.format.bytes(self.width, self.height)
    }
}

/// Pictures a second, as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Pictures ...
    pub pictures: u32,
    /// ... in so many seconds.
    pub seconds: u32,
}

impl Rate {
    /// A rate of whole pictures a second.
    pub const fn of(pictures: u32) -> Self {
        Self { pictures, seconds: 1 }
    }

    /// When picture `index` is due, counted from the first.
    pub fn time_of(self, index: u64) -> Duration {
        Duration::from_secs_f64(index as f64 * f64::from(self.seconds) / f64::from(self.pictures.max(1)))
    }

    /// Pictures a second.
    pub fn per_second(self) -> f64 {
        f64::from(self.pictures) / f64::from(self.seconds.max(1))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seconds == 1 { write!(f, "{}", self.pictures) } else { write!(f, "{}/{}", self.pictures, self.seconds) }
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected pictures a second, such as 25, 29.97 or 30000/1001";
        let whole = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0);
        if let Some((pictures, seconds)) = text.split_once(['/', ':']) {
            let rate = whole(pictures).zip(whole(seconds)).map(|(pictures, seconds)| Self { pictures, seconds });
            return rate.ok_or(EXPECTED);
        }
        if let Some(pictures) = whole(text) {
            return Ok(Self::of(pictures));
        }
        let rate: f64 = text.parse().map_err(|_| EXPECTED)?;
        // 29.97 and its like are of 1001 seconds.
        let ntsc = (rate * 1.001).round();
        match rate {
            rate if !(0.001..=100_000.0).contains(&rate) => Err(EXPECTED),
            rate if (ntsc * 1000.0 / 1001.0 - rate).abs() < 0.005 && (rate - rate.round()).abs() > 1e-9 => {
                Ok(Self { pictures: (ntsc * 1000.0) as u32, seconds: 1001 })
            }
            rate => Ok(Self { pictures: (rate * 1000.0).round() as u32, seconds: 1000 }),
        }
    }
}

/// What samples mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Color {
    /// How luma and chroma come from red, green and blue; of no account for those themselves.
    pub matrix: Matrix,
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
        let matrix = if height >= 720 { Matrix::Bt709 } else { Matrix::Bt601 };
        Self { matrix, full_range: format.chroma().is_none(), siting: Siting::Left }
    }
}

/// How luma is weighed: `Y = r R + (1 - r - b) G + b B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// ITU-R BT.601: television of standard definition, JPEG, and most cameras.
    Bt601,
    /// ITU-R BT.709: television of high definition.
    Bt709,
}

impl Matrix {
    /// The weights of red and of blue.
    pub(crate) fn weights(self) -> [f32; 2] {
        match self {
            Self::Bt601 => [0.299, 0.114],
            Self::Bt709 => [0.2126, 0.0722],
        }
    }
}

impl FromStr for Matrix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "bt601" => Ok(Self::Bt601),
            "bt709" => Ok(Self::Bt709),
            _ => Err("expected bt601 or bt709"),
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
        let ntsc = Rate { pictures: 30_000, seconds: 1001 };
        let cases = [("25", Rate::of(25)), ("30000/1001", ntsc), ("29.97", ntsc), ("30000:1001", ntsc)];
        for (text, rate) in cases {
            assert_eq!(text.parse(), Ok(rate), "{text}");
        }
        assert_eq!("12.5".parse(), Ok(Rate { pictures: 12_500, seconds: 1000 }));
        for text in ["", "0", "25/0", "-1", "nan", "fast"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!(Rate::of(25).time_of(50), Duration::from_secs(2));
    }
}
