//! How the samples of a moving frame lie in memory.

use std::fmt;
use std::str::FromStr;

/// How many chroma samples there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chroma {
    /// None: the frame is grey.
    Mono,
    /// One for two by two pixels (4:2:0).
    C420,
    /// One for two pixels of a row (4:2:2).
    C422,
    /// One for each pixel (4:4:4).
    C444,
}

impl Chroma {
    /// Pixels, along a row and along a column, that share a chroma sample, as powers of two.
    pub(crate) fn shifts(self) -> [u32; 2] {
        match self {
            Self::Mono | Self::C444 => [0, 0],
            Self::C422 => [1, 0],
            Self::C420 => [1, 1],
        }
    }
}

/// The order of a pixel's samples in packed RGB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// How the samples of a frame lie in memory. Formats are named as ffmpeg names them; samples of more than 8 bits take
/// 16, the lower byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Luma, then blue-difference, then red-difference chroma: `yuv420p`, `yuv422p10le`, `gray`, ...
    Planar {
        /// How much chroma there is.
        chroma: Chroma,
        /// Bits a sample, 8 to 16.
        bits: u32,
    },
    /// Luma, then both chromas of two by two pixels in turn: `nv12`.
    Nv12,
    /// Luma and chroma in turn, `Y U Y V` for two pixels: `yuyv422`.
    Yuyv,
    /// Three samples a pixel: `rgb24`, `bgr24`, `rgb48le`.
    Packed {
        /// Which comes first.
        order: Order,
        /// Bits a sample, 8 or 16.
        bits: u32,
    },
}

/// Where one plane of a frame lies, in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plane {
    /// Its first sample.
    pub(crate) start: usize,
    /// From one row to the next.
    pub(crate) stride: usize,
    /// From one sample to the next.
    pub(crate) step: usize,
    /// Samples of a row.
    pub(crate) width: usize,
    /// Rows.
    pub(crate) height: usize,
}

impl PixelFormat {
    /// 8 bits a sample, luma and then chroma of half the size: `yuv420p`, what most encoders take.
    pub const I420: Self = Self::Planar { chroma: Chroma::C420, bits: 8 };

    /// 8-bit planes.
    pub(crate) const fn planar(chroma: Chroma, bits: u32) -> Self {
        Self::Planar { chroma, bits }
    }

    /// 8-bit red, green, blue.
    pub const RGB24: Self = Self::Packed { order: Order::Rgb, bits: 8 };

    /// The names of the common ones, for messages.
    pub const NAMES: &'static str = "yuv420p, yuv422p, yuv444p and gray (each also with 10le, 12le or 16le), nv12, \
                                     yuyv422, rgb24, bgr24, rgb48le";

    /// Bits of a sample.
    pub fn bits(self) -> u32 {
        match self {
            Self::Planar { bits, .. } | Self::Packed { bits, .. } => bits,
            Self::Nv12 | Self::Yuyv => 8,
        }
    }

    /// Bytes that a sample takes: 1 or 2.
    pub fn bytes_per_sample(self) -> usize {
        if self.bits() > 8 { 2 } else { 1 }
    }

    /// How much chroma there is; none for RGB.
    pub fn chroma(self) -> Option<Chroma> {
        match self {
            Self::Planar { chroma, .. } => Some(chroma),
            Self::Nv12 => Some(Chroma::C420),
            Self::Yuyv => Some(Chroma::C422),
            Self::Packed { .. } => None,
        }
    }

    /// Whether a frame has no colour.
    pub fn is_grey(self) -> bool {
        self.chroma() == Some(Chroma::Mono)
    }

    /// Bytes of a frame of that size.
    pub fn bytes(self, width: usize, height: usize) -> usize {
        let samples = match self {
            Self::Planar { chroma: Chroma::Mono, .. } => width * height,
            Self::Planar { .. } | Self::Packed { .. } => {
                self.planes(width, height).iter().map(|p| p.width * p.height).sum()
            }
            Self::Nv12 => width * height + 2 * width.div_ceil(2) * height.div_ceil(2),
            Self::Yuyv => 4 * width.div_ceil(2) * height,
        };
        samples * self.bytes_per_sample()
    }

    /// The planes of a frame of that size: luma and the two chromas, or red, green and blue. Those of a grey frame are
    /// all the same one.
    pub(crate) fn planes(self, width: usize, height: usize) -> [Plane; 3] {
        let [across, down] = self.chroma().map_or([0, 0], Chroma::shifts);
        let (small, low) = (width.div_ceil(1 << across), height.div_ceil(1 << down));
        let full = Plane { start: 0, stride: width, step: 1, width, height };
        let part = Plane { start: width * height, stride: small, step: 1, width: small, height: low };
        match self {
            Self::Planar { chroma: Chroma::Mono, .. } => [full; 3],
            Self::Planar { .. } => [full, part, Plane { start: part.start + small * low, ..part }],
            Self::Nv12 => {
                let pair = Plane { stride: 2 * small, step: 2, ..part };
                [full, pair, Plane { start: pair.start + 1, ..pair }]
            }
            Self::Yuyv => {
                let stride = 4 * small;
                let luma = Plane { stride, step: 2, ..full };
                let chroma = Plane { start: 1, stride, step: 4, ..part };
                [luma, chroma, Plane { start: 3, ..chroma }]
            }
            Self::Packed { order, .. } => {
                let starts = if order == Order::Rgb { [0, 1, 2] } else { [2, 1, 0] };
                starts.map(|start| Plane { start, stride: 3 * width, step: 3, ..full })
            }
        }
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deep = |bits: u32| if bits > 8 { format!("{bits}le") } else { String::new() };
        match *self {
            Self::Planar { chroma: Chroma::Mono, bits } => write!(f, "gray{}", deep(bits)),
            Self::Planar { chroma: Chroma::C420, bits } => write!(f, "yuv420p{}", deep(bits)),
            Self::Planar { chroma: Chroma::C422, bits } => write!(f, "yuv422p{}", deep(bits)),
            Self::Planar { chroma: Chroma::C444, bits } => write!(f, "yuv444p{}", deep(bits)),
            Self::Nv12 => f.write_str("nv12"),
            Self::Yuyv => f.write_str("yuyv422"),
            Self::Packed { order: Order::Rgb, bits: 16 } => f.write_str("rgb48le"),
            Self::Packed { order: Order::Bgr, bits: 16 } => f.write_str("bgr48le"),
            Self::Packed { order: Order::Rgb, .. } => f.write_str("rgb24"),
            Self::Packed { order: Order::Bgr, .. } => f.write_str("bgr24"),
        }
    }
}

impl FromStr for PixelFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("expected one of {}", Self::NAMES);
        match text {
            "nv12" => return Ok(Self::Nv12),
            "yuyv422" | "yuyv" => return Ok(Self::Yuyv),
            "rgb24" => return Ok(Self::RGB24),
            "bgr24" => return Ok(Self::Packed { order: Order::Bgr, bits: 8 }),
            "rgb48le" => return Ok(Self::Packed { order: Order::Rgb, bits: 16 }),
            "bgr48le" => return Ok(Self::Packed { order: Order::Bgr, bits: 16 }),
            _ => {}
        }
        let kinds =
            [("yuv420p", Chroma::C420), ("yuv422p", Chroma::C422), ("yuv444p", Chroma::C444), ("gray", Chroma::Mono)];
        let (rest, chroma) =
            kinds.iter().find_map(|(name, chroma)| Some((text.strip_prefix(name)?, *chroma))).ok_or_else(unknown)?;
        let bits = match rest {
            "" => 8,
            "10le" => 10,
            "12le" => 12,
            "16le" => 16,
            _ => return Err(unknown()),
        };
        Ok(Self::Planar { chroma, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::{Chroma, PixelFormat};

    const ALL: [&str; 14] = [
        "yuv420p",
        "yuv422p",
        "yuv444p",
        "gray",
        "yuv420p10le",
        "yuv422p12le",
        "yuv444p16le",
        "gray10le",
        "nv12",
        "yuyv422",
        "rgb24",
        "bgr24",
        "rgb48le",
        "bgr48le",
    ];

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ALL {
            assert_eq!(name.parse::<PixelFormat>().map(|format| format.to_string()).as_deref(), Ok(name));
        }
        for name in ["", "yuv420p9le", "yuv411p", "gray8", "mjpeg"] {
            assert!(name.parse::<PixelFormat>().is_err(), "{name}");
        }
    }

    #[test]
    fn the_planes_of_a_frame_fill_it_without_overlap() {
        for name in ALL {
            let format: PixelFormat = name.parse().unwrap();
            for (width, height) in [(1, 1), (2, 2), (5, 3), (8, 7)] {
                let count = format.bytes(width, height) / format.bytes_per_sample();
                let mut seen = vec![0; count];
                let planes = format.planes(width, height);
                for plane in &planes[..if format.is_grey() { 1 } else { 3 }] {
                    for y in 0..plane.height {
                        (0..plane.width).for_each(|x| seen[plane.start + y * plane.stride + x * plane.step] += 1);
                    }
                }
                // A row of yuyv422 of odd width has one luma sample that no pixel has.
                let spare = if format == PixelFormat::Yuyv && width % 2 == 1 { height } else { 0 };
                assert_eq!(seen.iter().filter(|&&n| n != 1).count(), spare, "{name} {width}x{height}");
            }
        }
    }

    #[test]
    fn sizes_are_those_of_ffmpeg() {
        let sizes = [("yuv420p", 43), ("yuv422p", 55), ("nv12", 43), ("yuyv422", 60), ("gray10le", 50), ("rgb24", 75)];
        for (name, bytes) in sizes {
            assert_eq!(name.parse::<PixelFormat>().unwrap().bytes(5, 5), bytes, "{name}");
        }
        assert_eq!(PixelFormat::planar(Chroma::C420, 10).bytes(640, 480), 2 * 640 * 480 * 3 / 2);
    }
}
