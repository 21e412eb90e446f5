//! The layout of a frame's samples in memory.

use std::fmt;
use std::str::FromStr;

/// Chroma subsampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chroma {
    /// No chroma: the frame is gray.
    Mono,
    /// One for 2x2 pixels (4:2:0).
    C420,
    /// One for two pixels of a row (4:2:2).
    C422,
    /// One for each pixel (4:4:4).
    C444,
}

impl Chroma {
    /// Base-2 logarithm of the pixels that share a chroma sample along a row and along a column.
    pub(crate) fn shifts(self) -> [u32; 2] {
        match self {
            Self::Mono | Self::C444 => [0, 0],
            Self::C422 => [1, 0],
            Self::C420 => [1, 1],
        }
    }
}

/// The order of the samples of a pixel in packed RGB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// The layout of a frame's samples in memory, with the names of ffmpeg. Samples of more than 8
/// bits take 16, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Planes of luma, then blue-difference, then red-difference chroma: `yuv420p`, `yuv422p10le`,
    /// `gray`, ...
    Planar {
        /// Chroma subsampling.
        chroma: Chroma,
        /// Bits per sample, 8 to 16.
        bits: u32,
    },
    /// A plane of luma, then a plane of interleaved chroma for 2x2 pixels: `nv12`.
    Nv12,
    /// Interleaved luma and chroma, `Y U Y V` for two pixels: `yuyv422`.
    Yuyv,
    /// Three samples per pixel: `rgb24`, `bgr24`, `rgb48le`.
    Packed {
        /// The order of the samples.
        order: Order,
        /// Bits per sample, 8 or 16.
        bits: u32,
    },
}

/// The position of a plane within a frame, in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plane {
    /// Index of the first sample.
    pub(crate) start: usize,
    /// Distance between rows.
    pub(crate) stride: usize,
    /// Distance between samples of a row.
    pub(crate) step: usize,
    /// Samples per row.
    pub(crate) width: usize,
    /// Number of rows.
    pub(crate) height: usize,
}

impl PixelFormat {
    /// Planes of 8-bit luma and chroma at half size: `yuv420p`, which most encoders take.
    pub const I420: Self = Self::Planar { chroma: Chroma::C420, bits: 8 };

    /// Planes with this many bits per sample.
    pub(crate) const fn planar(chroma: Chroma, bits: u32) -> Self {
        Self::Planar { chroma, bits }
    }

    /// 8-bit red, green, blue.
    pub const RGB24: Self = Self::Packed { order: Order::Rgb, bits: 8 };

    /// Names of common formats, for messages.
    pub const NAMES: &'static str = "yuv420p, yuv422p, yuv444p and gray (each also with 10le, 12le \
                                     or 16le), nv12, yuyv422, rgb24, bgr24, rgb48le";

    /// Bits per sample.
    pub fn bits(self) -> u32 {
        match self {
            Self::Planar { bits, .. } | Self::Packed { bits, .. } => bits,
            Self::Nv12 | Self::Yuyv => 8,
        }
    }

    /// Bytes per sample: 1 or 2.
    pub fn bytes_per_sample(self) -> usize {
        if self.bits() > 8 { 2 } else { 1 }
    }

    /// Chroma subsampling; `None` for RGB.
    pub fn chroma(self) -> Option<Chroma> {
        match self {
            Self::Planar { chroma, .. } => Some(chroma),
            Self::Nv12 => Some(Chroma::C420),
            Self::Yuyv => Some(Chroma::C422),
            Self::Packed { .. } => None,
        }
    }

    /// Whether frames have no color.
    pub fn is_gray(self) -> bool {
        self.chroma() == Some(Chroma::Mono)
    }

    /// Bytes per frame of that size.
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

    /// The planes of a frame of that size as they lie in memory, in bytes: the start of each, the
    /// length of a row, and the number of rows.
    pub fn byte_planes(self, width: usize, height: usize) -> Vec<[usize; 3]> {
        let bytes = self.bytes_per_sample();
        let (small, low) = (width.div_ceil(2), height.div_ceil(2));
        let luma = [0, width * bytes, height];
        let area = width * height * bytes;
        match self {
            Self::Planar { chroma: Chroma::Mono, .. } => vec![luma],
            Self::Planar { chroma, .. } => {
                let [row, rows] = match chroma {
                    Chroma::C420 => [small, low],
                    Chroma::C422 => [small, height],
                    _ => [width, height],
                };
                let row = row * bytes;
                vec![luma, [area, row, rows], [area + row * rows, row, rows]]
            }
            Self::Nv12 => vec![luma, [area, 2 * small, low]],
            Self::Yuyv => vec![[0, 4 * small, height]],
            Self::Packed { .. } => vec![[0, 3 * width * bytes, height]],
        }
    }

    /// The planes of a frame of that size: luma and the two chromas, or red, green and blue. For
    /// gray frames, all three are the same plane.
    pub(crate) fn planes(self, width: usize, height: usize) -> [Plane; 3] {
        let [across, down] = self.chroma().map_or([0, 0], Chroma::shifts);
        let (small, low) = (width.div_ceil(1 << across), height.div_ceil(1 << down));
        let full = Plane { start: 0, stride: width, step: 1, width, height };
        let part =
            Plane { start: width * height, stride: small, step: 1, width: small, height: low };
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
        let kinds = [
            ("yuv420p", Chroma::C420),
            ("yuv422p", Chroma::C422),
            ("yuv444p", Chroma::C444),
            ("gray", Chroma::Mono),
        ];
        let (rest, chroma) = kinds
            .iter()
            .find_map(|(name, chroma)| Some((text.strip_prefix(name)?, *chroma)))
            .ok_or_else(unknown)?;
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
    fn round_trips_names() {
        for name in ALL {
            assert_eq!(
                name.parse::<PixelFormat>().map(|format| format.to_string()).as_deref(),
                Ok(name)
            );
        }
        for name in ["", "yuv420p9le", "yuv411p", "gray8", "mjpeg"] {
            assert!(name.parse::<PixelFormat>().is_err(), "{name}");
        }
    }

    #[test]
    fn fills_a_frame_with_planes_that_do_not_overlap() {
        for name in ALL {
            let format: PixelFormat = name.parse().unwrap();
            for (width, height) in [(1, 1), (2, 2), (5, 3), (8, 7)] {
                let count = format.bytes(width, height) / format.bytes_per_sample();
                let mut seen = vec![0; count];
                let planes = format.planes(width, height);
                for plane in &planes[..if format.is_gray() { 1 } else { 3 }] {
                    for y in 0..plane.height {
                        (0..plane.width).for_each(|x| {
                            seen[plane.start + y * plane.stride + x * plane.step] += 1
                        });
                    }
                }
                // A row of yuyv422 with an odd width has one unused luma sample.
                let spare = if format == PixelFormat::Yuyv && width % 2 == 1 { height } else { 0 };
                assert_eq!(
                    seen.iter().filter(|&&n| n != 1).count(),
                    spare,
                    "{name} {width}x{height}"
                );
            }
        }
    }

    #[test]
    fn matches_the_sizes_of_ffmpeg() {
        let sizes = [
            ("yuv420p", 43),
            ("yuv422p", 55),
            ("nv12", 43),
            ("yuyv422", 60),
            ("gray10le", 50),
            ("rgb24", 75),
        ];
        for (name, bytes) in sizes {
            assert_eq!(name.parse::<PixelFormat>().unwrap().bytes(5, 5), bytes, "{name}");
        }
        assert_eq!(PixelFormat::planar(Chroma::C420, 10).bytes(640, 480), 2 * 640 * 480 * 3 / 2);
    }
}
