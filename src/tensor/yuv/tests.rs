use super::{YuvFrameConverter, grid_of, pack, sigmas_of_rgb, unpack};
use crate::diffusion::{NoiseAt, NoiseSource, Philox};
use crate::media::stream::{Matrix, Rate, VideoFormat};
use crate::tensor::stream::tests::{FORMATS, random};

const SIZES: [(usize, usize); 7] = [(1, 1), (2, 2), (3, 5), (8, 6), (31, 1), (1, 17), (33, 18)];

#[test]
fn reproduces_unchanged_planes_bit_exactly() {
    for name in FORMATS {
        for (full_range, matrix) in [(false, Matrix::Bt601), (true, Matrix::Bt709)] {
            for (width, height) in SIZES {
                let mut video =
                    VideoFormat::new(width, height, Rate::of(25), name.parse().unwrap());
                (video.color.matrix, video.color.full_range) = (matrix, full_range);
                let before = random(&video);
                let mut after = before.clone();
                let mut frames = YuvFrameConverter::new(&video, &video).unwrap();
                let [across, down] = grid_of([width, height]);
                let mut planes = vec![f32::NAN; 6 * across * down];
                frames.read(&before, &mut planes);
                assert!(planes.iter().all(|value| value.is_finite()), "{name} {width}x{height}");
                frames.write(&planes, 0.0, &mut after);
                assert!(before == after, "{name} {width}x{height} full range: {full_range}");
            }
        }
    }
}

#[test]
fn packs_two_by_two_luma_in_row_order() {
    // Luma of 4x2, and chroma of 2x1.
    let planes: Vec<f32> = (0..12_u8).map(f32::from).collect();
    let mut packed = vec![0.0; 12];
    pack(&planes, [2, 1], &mut packed);
    assert_eq!(packed, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
    let mut back = vec![0.0; 12];
    unpack(&packed, [2, 1], &mut back);
    assert_eq!(back, planes);
}

/// The chroma planes of a 4:2:2 frame whose color is a ramp, with noise in its detail.
fn ramp(noise: f32) -> (VideoFormat, Vec<u8>, Vec<f32>) {
    let (width, height) = (64, 64);
    let video = VideoFormat::new(width, height, Rate::of(25), "yuv422p".parse().unwrap());
    let mut draws = vec![0.0; width / 2 * height];
    Philox::new(5).fill(NoiseAt { step: 0, batch: 0, channel: 0, y: 0 }, 0, &mut draws);
    let clean: Vec<f32> =
        (0..width / 2 * height).map(|i| 60.0 + 1.7 * (i / (width / 2)) as f32).collect();
    let chroma = clean.iter().zip(draws).map(|(clean, draw)| (clean + noise * draw).round() as u8);
    let chroma: Vec<u8> = chroma.collect();
    let bytes = [vec![90; width * height], chroma.clone(), chroma].concat();
    (video, bytes, clean)
}

/// Chroma detail beyond 4:2:0: noise is removed, and a ramp is kept.
#[test]
fn removes_noise_from_chroma_detail() {
    let (video, bytes, clean) = ramp(6.0);
    let mut frames = YuvFrameConverter::new(&video, &video).unwrap();
    let area = 32 * 32;
    let mut planes = vec![0.0; 6 * area];
    frames.read(&bytes, &mut planes);
    // Simulates a network that returns the true means.
    for plane in planes[4 * area..].chunks_exact_mut(area) {
        for (i, value) in plane.iter_mut().enumerate() {
            let pair = 0.5 * (clean[i / 32 * 64 + i % 32] + clean[(i / 32 * 2 + 1) * 32 + i % 32]);
            *value = (pair - 128.0) / 224.0 + 0.5;
        }
    }
    let mut after = Vec::new();
    frames.write(&planes, 6.0 / 2.0_f32.sqrt() / 224.0, &mut after);
    let error = |bytes: &[u8]| {
        let squares = bytes[64 * 64..][..32 * 64]
            .iter()
            .zip(&clean)
            .map(|(a, b)| (f32::from(*a) - b).powi(2));
        (squares.sum::<f32>() / clean.len() as f32).sqrt()
    };
    assert!(
        error(&bytes) > 5.5 && error(&after) < 1.5,
        "{} became {}",
        error(&bytes),
        error(&after)
    );
}

/// ITU-R BT.601-7: the weights of luma, from which the standard deviations follow.
#[test]
fn matches_known_deviations_of_white_rgb_noise_in_planes() {
    let [luma, chroma] = sigmas_of_rgb(Matrix::Bt601);
    assert!((luma - 0.6685).abs() < 1e-3 && (chroma - 0.320).abs() < 5e-3, "{luma} {chroma}");
}
