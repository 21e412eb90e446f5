//! GStreamer's text for a format of frames ("caps"), and the layout of its frames in memory.

use std::collections::BTreeMap;

use crate::media::stream::{
    Chroma, Color, Matrix, Order, PixelFormat, Rate, Scan, Siting, TagSource, VideoFormat,
};

/// The formats that are read, by their names in GStreamer.
pub const GSTREAMER_FORMATS: &[(&str, PixelFormat)] = &[
    ("NV12", PixelFormat::Nv12),
    ("I420", PixelFormat::I420),
    ("YUY2", PixelFormat::Yuyv),
    ("Y42B", PixelFormat::planar(Chroma::C422, 8)),
    ("Y444", PixelFormat::planar(Chroma::C444, 8)),
    ("GRAY8", PixelFormat::planar(Chroma::Mono, 8)),
    ("RGB", PixelFormat::RGB24),
    ("BGR", PixelFormat::Packed { order: Order::Bgr, bits: 8 }),
    ("I420_10LE", PixelFormat::planar(Chroma::C420, 10)),
    ("I422_10LE", PixelFormat::planar(Chroma::C422, 10)),
    ("Y444_10LE", PixelFormat::planar(Chroma::C444, 10)),
    ("I420_12LE", PixelFormat::planar(Chroma::C420, 12)),
    ("I422_12LE", PixelFormat::planar(Chroma::C422, 12)),
    ("Y444_12LE", PixelFormat::planar(Chroma::C444, 12)),
    ("GRAY16_LE", PixelFormat::planar(Chroma::Mono, 16)),
];

/// The rate where the caps declare none, or a variable one.
const USUAL_RATE: Rate = Rate::of(25);

impl VideoFormat {
    /// The format of frames that GStreamer describes by `caps`, such as `video/x-raw,
    /// format=(string)NV12, width=(int)640, height=(int)480`. Frames are in the memory of this
    /// process, in one of [`GSTREAMER_FORMATS`]. What caps leave out has GStreamer's defaults: the
    /// matrix by the height, full range for gray and RGB, and 25 frames per second.
    ///
    /// # Errors
    /// What is missing or not supported.
    pub fn of_gstreamer_caps(caps: &str) -> Result<Self, String> {
        let (media, rest) = caps.split_once(',').unwrap_or((caps, ""));
        let unexpected = |expected: &str| format!("frames are {caps}; expected {expected}");
        if !matches!(media.trim(), "video/x-raw" | "video/x-raw(memory:SystemMemory)") {
            return Err(unexpected("video/x-raw in the memory of this process"));
        }
        let fields: BTreeMap<&str, &str> = fields(rest).collect();
        let named = |key: &str| fields.get(key).copied();
        let format = GSTREAMER_FORMATS.iter().find(|(name, _)| named("format") == Some(name));
        let Some((_, format)) = format else {
            let names: Vec<&str> = GSTREAMER_FORMATS.iter().map(|(name, _)| *name).collect();
            return Err(unexpected(&format!("a format of {}", names.join(", "))));
        };
        let side = |key: &str| {
            let side: Option<usize> = named(key)?.parse().ok();
            side.filter(|side| (1..=65_535).contains(side))
        };
        let (Some(width), Some(height)) = (side("width"), side("height")) else {
            return Err(unexpected("a width and a height from 1 to 65535"));
        };
        let rate = named("framerate").and_then(|rate| rate.parse().ok()).unwrap_or(USUAL_RATE);
        let aspect = named("pixel-aspect-ratio").and_then(|aspect| aspect.split_once('/'));
        Ok(Self {
            color: color(*format, height, named("colorimetry"), named("chroma-site")),
            scan: scan(named("interlace-mode"), named("field-order"))
                .ok_or_else(|| unexpected("whole frames (interlace-mode)"))?,
            aspect: aspect.and_then(|(x, y)| Some([x.parse().ok()?, y.parse().ok()?])),
            ..Self::new(width, height, rate, *format)
        })
    }

    /// The planes of a frame as GStreamer lays them out by default, in bytes: the start of each,
    /// the distance between rows, and the bytes of the whole frame. Rows begin at multiples of 4.
    /// The number of rows is rounded up to an even one for luma of 4:2:0, and for all planes of
    /// 4:2:2 with more than 8 bits.
    pub(super) fn gstreamer_planes(&self) -> (Vec<[usize; 2]>, usize) {
        let mut start = 0;
        let (chroma, bits) = (self.format.chroma(), self.format.bits());
        let planes = self.format.byte_planes(self.width, self.height);
        let planes = planes.into_iter().enumerate().map(|(i, [_, row, rows])| {
            let (at, stride) = (start, row.next_multiple_of(4));
            let is_even = match chroma {
                Some(Chroma::C420) => i == 0,
                Some(Chroma::C422) => bits > 8,
                _ => false,
            };
            start += stride * if is_even { rows.next_multiple_of(2) } else { rows };
            [at, stride]
        });
        (planes.collect(), start)
    }
}

/// The fields of caps, without the types of their values.
fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').filter_map(|field| {
        let (key, value) = field.split_once('=')?;
        let value = value.trim();
        let value = match value.strip_prefix('(').and_then(|typed| typed.split_once(')')) {
            Some((_, value)) => value,
            None => value,
        };
        Some((key.trim(), value.trim_matches('"')))
    })
}

fn scan(mode: Option<&str>, order: Option<&str>) -> Option<Scan> {
    match (mode.unwrap_or("progressive"), order) {
        ("progressive", _) => Some(Scan::Progressive),
        ("interleaved", Some("bottom-field-first")) => Some(Scan::BottomFirst),
        ("interleaved", _) => Some(Scan::TopFirst),
        ("mixed", _) => Some(Scan::Mixed),
        // Fields in buffers of their own.
        _ => None,
    }
}

/// `colorimetry` is a name, or `range:matrix:transfer:primaries` in GStreamer's numbers.
fn color(
    format: PixelFormat,
    height: usize,
    colorimetry: Option<&str>,
    site: Option<&str>,
) -> Color {
    let is_luma = format.is_gray() || format.chroma().is_none();
    let default = match height {
        _ if is_luma => Matrix::Bt601,
        2160.. => Matrix::Bt2020,
        577.. => Matrix::Bt709,
        _ => Matrix::Bt601,
    };
    let mut parts = colorimetry.unwrap_or_default().split(':');
    let first = parts.next();
    let second = parts.next();
    let (range, matrix) = match (first, second) {
        (Some(range), Some(matrix)) => (Some(range), matrix_of_number(matrix)),
        (Some(name), None) => (None, matrix_of_name(name)),
        _ => (None, None),
    };
    let full_range = match range {
        Some("1") => true,
        Some("2") => false,
        // Names are of limited range, except that of RGB.
        _ => is_luma && matrix.is_none(),
    };
    let siting = match site {
        Some("jpeg" | "none") => Siting::Center,
        Some("cosited" | "dv") => Siting::TopLeft,
        Some(site) if site.contains("v-cosited") => Siting::TopLeft,
        _ => Siting::Left,
    };
    Color {
        matrix: matrix.unwrap_or(default),
        matrix_source: TagSource::Source,
        full_range,
        siting,
        ..Color::default_for(height, format)
    }
}

fn matrix_of_name(name: &str) -> Option<Matrix> {
    match name {
        "bt601" => Some(Matrix::Bt601),
        "bt709" => Some(Matrix::Bt709),
        "smpte240m" => Some(Matrix::Smpte240m),
        "bt2020" | "bt2020-10" | "bt2100-pq" | "bt2100-hlg" => Some(Matrix::Bt2020),
        _ => None,
    }
}

/// The values of `GstVideoColorMatrix`.
fn matrix_of_number(number: &str) -> Option<Matrix> {
    match number {
        "2" => Some(Matrix::Fcc),
        "3" => Some(Matrix::Bt709),
        "4" => Some(Matrix::Bt601),
        "5" => Some(Matrix::Smpte240m),
        "6" => Some(Matrix::Bt2020),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Matrix, Rate, Scan, Siting, VideoFormat};

    #[test]
    fn parses_caps() {
        let video = VideoFormat::of_gstreamer_caps(
            "video/x-raw, format=(string)NV12, width=(int)33, height=(int)17, \
             framerate=(fraction)30000/1001, multiview-mode=(string)mono, \
             pixel-aspect-ratio=(fraction)10/11, interlace-mode=(string)interleaved, \
             field-order=(string)bottom-field-first, chroma-site=(string)jpeg, \
             colorimetry=(string)1:3:5:1",
        )
        .unwrap();
        assert_eq!((video.width, video.height, video.format.to_string()), (33, 17, "nv12".into()));
        assert_eq!(video.rate, Rate { frames: 30_000, seconds: 1001 });
        assert_eq!((video.scan, video.aspect), (Scan::BottomFirst, Some([10, 11])));
        assert_eq!((video.color.matrix, video.color.full_range), (Matrix::Bt709, true));
        assert_eq!(video.color.siting, Siting::Center);
    }

    #[test]
    fn takes_the_defaults_of_gstreamer() {
        for (format, height, matrix, full_range) in [
            ("I420", 576, Matrix::Bt601, false),
            ("I420", 600, Matrix::Bt709, false),
            ("NV12", 2160, Matrix::Bt2020, false),
            ("GRAY8", 720, Matrix::Bt601, true),
            ("RGB", 720, Matrix::Bt601, true),
            ("I420,colorimetry=bt709", 480, Matrix::Bt709, false),
            ("I420,colorimetry=\"bt2100-pq\"", 480, Matrix::Bt2020, false),
            ("RGB,colorimetry=sRGB", 480, Matrix::Bt601, true),
            ("GRAY8,colorimetry=2:4:7:1", 480, Matrix::Bt601, false),
        ] {
            let caps = format!("video/x-raw,format={format},width=8,height={height},framerate=0/1");
            let video = VideoFormat::of_gstreamer_caps(&caps).unwrap();
            assert_eq!(
                (video.color.matrix, video.color.full_range),
                (matrix, full_range),
                "{caps}"
            );
            assert_eq!(video.rate, Rate::of(25));
        }
    }

    #[test]
    fn rejects_what_it_cannot_read_with_a_reason() {
        for (caps, reason) in [
            ("video/x-raw(memory:NVMM),format=NV12,width=8,height=8", "memory of this process"),
            ("video/x-h264", "video/x-raw"),
            ("video/x-raw,format=UYVY,width=8,height=8", "NV12, I420"),
            ("video/x-raw,format=NV12,width=8", "a height"),
            ("video/x-raw,format=NV12,width=8,height=99999", "65535"),
            ("video/x-raw,format=NV12,width=8,height=8,interlace-mode=alternate", "whole frames"),
        ] {
            let problem = VideoFormat::of_gstreamer_caps(caps).unwrap_err();
            assert!(problem.contains(reason), "{problem}");
        }
    }

    /// The strides, offsets and sizes that GStreamer 1.22 gives.
    #[test]
    fn lays_frames_out_like_gstreamer() {
        let formats: [(&str, &[[usize; 2]], usize); 10] = [
            ("NV12", &[[0, 36], [648, 36]], 972),
            ("I420", &[[0, 36], [648, 20], [828, 20]], 1008),
            ("YUY2", &[[0, 68]], 1156),
            ("Y42B", &[[0, 36], [612, 20], [952, 20]], 1292),
            ("Y444", &[[0, 36], [612, 36], [1224, 36]], 1836),
            ("GRAY8", &[[0, 36]], 612),
            ("RGB", &[[0, 100]], 1700),
            ("I420_10LE", &[[0, 68], [1224, 36], [1548, 36]], 1872),
            ("I422_12LE", &[[0, 68], [1224, 36], [1872, 36]], 2520),
            ("Y444_10LE", &[[0, 68], [1156, 68], [2312, 68]], 3468),
        ];
        for (format, planes, bytes) in formats {
            let caps = format!("video/x-raw,format={format},width=33,height=17");
            let video = VideoFormat::of_gstreamer_caps(&caps).unwrap();
            assert_eq!(video.gstreamer_planes(), (planes.to_vec(), bytes), "{format}");
        }
    }
}
