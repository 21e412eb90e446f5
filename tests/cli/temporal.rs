//! The benefit of previous frames, on a real photograph, static and moving.

use eddy::diffusion::{NoiseAt, NoiseSource, Philox};
use eddy::media::{Image, Samples};

use crate::common::eddy;
use crate::common::images::read;
use crate::common::place::{Place, data};

const WIDTH: usize = 320;
const HEIGHT: usize = 240;
const SIGMA: f32 = 25.0;

/// A part of the photograph with its upper left corner at (x, y), in 8-bit gray levels,
/// interpolated linearly.
fn window(photograph: &Image, x: f32, y: f32) -> Vec<f32> {
    let Samples::U8(samples) = &photograph.samples else { panic!("the photograph has 8 bits") };
    let at = |x: usize, y: usize, c: usize| f32::from(samples[(y * photograph.width + x) * 3 + c]);
    let mut values = Vec::with_capacity(3 * WIDTH * HEIGHT);
    for j in 0..HEIGHT {
        for i in 0..WIDTH {
            let (u, v) = (x + i as f32, y + j as f32);
            let (left, top, a, b) = (u as usize, v as usize, u.fract(), v.fract());
            for c in 0..3 {
                let above = (1.0 - a) * at(left, top, c) + a * at(left + 1, top, c);
                let below = (1.0 - a) * at(left, top + 1, c) + a * at(left + 1, top + 1, c);
                values.push((1.0 - b) * above + b * below);
            }
        }
    }
    values
}

struct Clip {
    place: Place,
    clean: Vec<Vec<f32>>,
}

/// The photograph seen from several positions, with noise, as raw frames.
fn clip(corners: impl Iterator<Item = (f32, f32)>) -> Clip {
    let photograph = read(&data("chelsea.png"));
    let clean: Vec<Vec<f32>> = corners.map(|(x, y)| window(&photograph, x, y)).collect();
    let mut bytes = Vec::new();
    let mut noise = vec![0.0; 3 * WIDTH];
    for (i, frame) in clean.iter().enumerate() {
        for (y, row) in frame.chunks_exact(3 * WIDTH).enumerate() {
            Philox::new(i as u64).fill(
                NoiseAt { step: 0, batch: 0, channel: 0, y: y as u32 },
                0,
                &mut noise,
            );
            bytes.extend(
                row.iter()
                    .zip(&noise)
                    .map(|(value, z)| (value + SIGMA * z).round().clamp(0.0, 255.0) as u8),
            );
        }
    }
    let place = Place::new();
    place.file("noisy.raw", bytes);
    Clip { place, clean }
}

struct Result {
    /// Mean squared error of each frame.
    errors: Vec<f64>,
    /// Mean standard deviation over time in the second half.
    flicker: f64,
    record: serde_json::Value,
}

impl Clip {
    /// The noise level estimated from the frames, in 8-bit units.
    fn estimated(&self, temporal: &str) -> f64 {
        self.run("-m denoise-fast", temporal)["sigma"].as_f64().expect("a number")
    }

    /// The report of a run on the noisy frames.
    fn run(&self, options: &str, temporal: &str) -> serde_json::Value {
        eddy(&format!(
            "denoise noisy.raw -o clean.raw --pixel-format rgb24 {options} --json --size"
        ))
        .arg(format!("{WIDTH}x{HEIGHT}"))
        .arg(format!("--temporal={temporal}"))
        .within(&self.place)
        .succeeds()
        .summary()
    }

    fn denoised(&self, temporal: &str) -> Result {
        let record = self.run("--sigma 25", temporal);
        let bytes = self.place.bytes("clean.raw");
        let frames: Vec<&[u8]> = bytes.chunks_exact(3 * WIDTH * HEIGHT).collect();
        assert_eq!(frames.len(), self.clean.len());
        let error = |(found, clean): (&&[u8], &Vec<f32>)| {
            let squares = found
                .iter()
                .zip(clean)
                .map(|(found, clean)| f64::from(f32::from(*found) - clean).powi(2));
            squares.sum::<f64>() / clean.len() as f64
        };
        let errors = frames.iter().zip(&self.clean).map(error).collect();
        let later = &frames[frames.len() / 2..];
        let count = later.len() as f64;
        let deviation = |i: usize| {
            let values = || later.iter().map(|frame| f64::from(frame[i]));
            let mean = values().sum::<f64>() / count;
            (values().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
        };
        let flicker =
            (0..3 * WIDTH * HEIGHT).map(deviation).sum::<f64>() / (3 * WIDTH * HEIGHT) as f64;
        Result { errors, flicker, record }
    }
}

/// How many dB lower the mean squared error of `on` is than that of `off`, over all frames.
fn gain(off: &Result, on: &Result) -> f64 {
    10.0 * (off.errors.iter().sum::<f64>() / on.errors.iter().sum::<f64>()).log10()
}

#[test]
fn previous_frames_improve_a_static_scene_with_fewer_evaluations() {
    let clip = clip(std::iter::repeat_n((60.0, 30.0), 30));
    let (off, on) = (clip.denoised("off"), clip.denoised("on"));
    assert!(gain(&off, &on) > 1.5, "{} dB", gain(&off, &on));
    assert!(on.flicker < off.flicker / 3.0, "{} of {}", on.flicker, off.flicker);
    let computed = on.record["tiles_computed"].as_f64().unwrap();
    assert!(computed < 0.4 && off.record["tiles_computed"].is_null(), "{computed}");
    assert!(on.record["flicker"].as_f64().unwrap() < 2.0);
}

#[test]
fn a_moving_camera_loses_no_quality() {
    let pans: [(f32, f32); 3] = [(2.0, 1.0), (1.3, 0.7), (-3.6, 0.4)];
    for (dx, dy) in pans {
        let start = if dx < 0.0 { 110.0 } else { 5.0 };
        let clip = clip((0..14).map(|i| (start + dx * i as f32, 5.0 + dy * i as f32)));
        let (off, on) = (clip.denoised("off"), clip.denoised("on"));
        assert!(gain(&off, &on) > 0.0, "{dx},{dy}: {} dB", gain(&off, &on));
    }
}

#[test]
fn estimates_noise_with_a_moving_camera() {
    let pan = clip((0..8).map(|i| (5.0 + 2.0 * i as f32, 5.0 + i as f32))).estimated("on");
    let still = clip(std::iter::repeat_n((5.0, 5.0), 8)).estimated("on");
    assert!((pan / still - 1.0).abs() < 0.02, "{pan} where it moves, {still} where it does not");
}

#[test]
fn a_cut_discards_previous_frames() {
    let clip = clip((0..16).map(|i| if i < 10 { (5.0, 5.0) } else { (120.0, 50.0) }));
    let (off, on) = (clip.denoised("off"), clip.denoised("on"));
    // The first frame after the cut is as good as without previous frames.
    assert!(on.errors[10] < 1.02 * off.errors[10], "{} {}", on.errors[10], off.errors[10]);
    assert_eq!(on.record["resets"].as_u64(), Some(1));
}

#[test]
fn previous_frames_help_grayscale_video_too() {
    let Clip { place, clean } = clip(std::iter::repeat_n((60.0, 40.0), 8));
    // The red plane of each frame, as a grayscale video.
    let (noisy, area) = (place.bytes("noisy.raw"), WIDTH * HEIGHT);
    let red: Vec<u8> = noisy.iter().step_by(3).copied().collect();
    place.file("gray.raw", red);
    let mut errors = Vec::new();
    for temporal in ["off", "on"] {
        eddy("denoise gray.raw -o clean.raw --pixel-format gray --size")
            .arg(format!("{WIDTH}x{HEIGHT}"))
            .arg(format!("--temporal={temporal}"))
            .within(&place)
            .succeeds();
        let last = &place.bytes("clean.raw")[7 * area..];
        let truth = clean[7].iter().step_by(3);
        let squares = last.iter().zip(truth).map(|(a, b)| f64::from(f32::from(*a) - b).powi(2));
        errors.push(squares.sum::<f64>() / area as f64);
    }
    assert!(errors[1] < 0.7 * errors[0], "mean squared errors {errors:?}");
}
