use super::FrameConverter;
use crate::diffusion::{NoiseAt, NoiseSource, Philox};
use crate::media::stream::{Matrix, Rate, Siting, VideoFormat};
use crate::tensor::Range;

pub(in crate::tensor) const FORMATS: [&str; 13] = [
    "yuv420p",
    "yuv422p",
    "yuv444p",
    "gray",
    "yuv420p10le",
    "yuv422p10le",
    "yuv444p12le",
    "gray16le",
    "nv12",
    "yuyv422",
    "rgb24",
    "bgr24",
    "rgb48le",
];

/// Random bytes that are valid samples of this format: the worst case.
pub(in crate::tensor) fn random(video: &VideoFormat) -> Vec<u8> {
    let mut values = vec![0.0; video.bytes()];
    Philox::new(3).fill(NoiseAt { step: 0, batch: 0, channel: 0, y: 0 }, 0, &mut values);
    let bits = video.format.bits();
    let samples = values.iter().map(|value| (value.abs() * 40_000.0) as u16 >> (16 - bits));
    if bits == 8 {
        return samples.map(|sample| sample as u8).collect();
    }
    samples.take(video.bytes() / 2).flat_map(u16::to_le_bytes).collect()
}

#[test]
fn reproduces_unchanged_frames_bit_exactly() {
    for name in FORMATS {
        for siting in [Siting::Center, Siting::Left, Siting::TopLeft] {
            for (full_range, matrix) in [(false, Matrix::Bt601), (true, Matrix::Bt709)] {
                for (width, height) in [(1, 1), (2, 2), (3, 5), (8, 6), (31, 1), (1, 17), (33, 18)]
                {
                    let mut video =
                        VideoFormat::new(width, height, Rate::of(25), name.parse().unwrap());
                    video.color =
                        crate::media::stream::Color { matrix, full_range, siting, ..video.color };
                    let before = random(&video);
                    let mut after = before.clone();
                    for range in [Range::UNIT, Range::SIGNED] {
                        let mut frames = FrameConverter::new(&video, 3, range).unwrap();
                        let mut planes = vec![0.0; 3 * width * height];
                        frames.read(&before, &mut planes);
                        frames.write(&planes, &mut after);
                        assert!(
                            before == after,
                            "{name} {siting:?} {width}x{height} full range: {full_range}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn converts_known_colors() {
    // ITU-R BT.601 and BT.709, 100 % color bars in 8 bits, limited range.
    let cases = [
        (Matrix::Bt601, [235, 128, 128], [1.0, 1.0, 1.0]),
        (Matrix::Bt601, [16, 128, 128], [0.0, 0.0, 0.0]),
        (Matrix::Bt601, [81, 90, 240], [1.0, 0.0, 0.0]),
        (Matrix::Bt601, [145, 54, 34], [0.0, 1.0, 0.0]),
        (Matrix::Bt601, [41, 240, 110], [0.0, 0.0, 1.0]),
        (Matrix::Bt709, [63, 102, 240], [1.0, 0.0, 0.0]),
        (Matrix::Bt709, [173, 42, 26], [0.0, 1.0, 0.0]),
        (Matrix::Bt709, [32, 240, 118], [0.0, 0.0, 1.0]),
    ];
    for (matrix, yuv, rgb) in cases {
        let mut video = VideoFormat::new(1, 1, Rate::of(25), "yuv444p".parse().unwrap());
        video.color.matrix = matrix;
        let mut frames = FrameConverter::new(&video, 3, Range::UNIT).unwrap();
        let mut planes = [0.0; 3];
        frames.read(&yuv, &mut planes);
        assert!(
            planes.iter().zip(rgb).all(|(found, known)| (found - known).abs() < 0.01),
            "{yuv:?} is {planes:?}"
        );
        let mut again = Vec::new();
        frames.write(&rgb, &mut again);
        assert_eq!(again, yuv);
    }
}

#[test]
fn places_chroma_by_its_siting() {
    // A ramp of chroma stays a ramp where samples are on pixels, and becomes a staircase where
    // they are between.
    let mut video = VideoFormat::new(8, 2, Rate::of(25), "yuv420p".parse().unwrap());
    video.color.full_range = true;
    let mut bytes = vec![128; 16];
    bytes.extend([100, 110, 120, 130].iter().chain(&[128; 4]));
    let blues = |siting: Siting| {
        let mut video = video.clone();
        video.color.siting = siting;
        let mut planes = vec![0.0; 48];
        FrameConverter::new(&video, 3, Range::UNIT).unwrap().read(&bytes, &mut planes);
        planes[32..40]
            .iter()
            .map(|b| ((b * 255.0 - 128.0) / 1.772 + 128.0).round() as i32)
            .collect::<Vec<_>>()
    };
    assert_eq!(blues(Siting::Left), [100, 105, 110, 115, 120, 125, 130, 130]);
    assert_eq!(blues(Siting::Center), [100, 100, 110, 110, 120, 120, 130, 130]);
}

#[test]
fn fits_gray_into_one_or_three_planes_and_color_into_three() {
    let gray = VideoFormat::new(2, 1, Rate::of(25), "gray".parse().unwrap());
    for channels in [1, 3] {
        let mut planes = vec![0.0; 2 * channels];
        let mut frames = FrameConverter::new(&gray, channels, Range::UNIT).unwrap();
        frames.read(&[16, 235], &mut planes);
        assert!(
            planes
                .iter()
                .zip([0.0, 1.0].repeat(channels))
                .all(|(found, known)| (found - known).abs() < 1e-6)
        );
        let mut bytes = Vec::new();
        frames.write(&planes, &mut bytes);
        assert_eq!(bytes, [16, 235]);
    }
    let color = VideoFormat { format: "rgb24".parse().unwrap(), ..gray };
    assert!(FrameConverter::new(&color, 1, Range::UNIT).is_err());
}
