use std::path::Path;

use super::{Method, NoiseLine, NoiseProfile, Profiler};
use crate::diffusion::{NoiseAt, NoiseSource, Philox};
use crate::error::Error;
use crate::media::still::{self, Limits};
use crate::media::{Image, Metadata, Samples};
use crate::tensor::{Range, read_planes};

/// A clean scene with values from 0 to 1 in planes.
struct Scene {
    width: usize,
    height: usize,
    planes: Vec<Vec<f32>>,
}

/// Patches of 16x16 pixels in shades from 0.1 to 0.85, each with an edge around it.
fn patches(channels: usize) -> Scene {
    let (width, height) = (320, 240);
    let shade = |x: usize, y: usize, c: usize| {
        0.1 + 0.75 * ((7 * (x / 16) + 13 * (y / 16) + 5 * c) % 32) as f32 / 31.0
    };
    let plane = |c: usize| (0..width * height).map(|i| shade(i % width, i / width, c)).collect();
    Scene { width, height, planes: (0..channels).map(plane).collect() }
}

fn flat(level: f32) -> Scene {
    Scene { width: 128, height: 96, planes: vec![vec![level; 128 * 96]] }
}

fn photograph(name: &str) -> Scene {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let frame = still::read(&path, &Limits::default()).unwrap();
    let mut values = vec![0.0; 3 * frame.width * frame.height];
    read_planes(&frame, Range::UNIT, &mut values).unwrap();
    let planes = values.chunks_exact(frame.width * frame.height).map(<[f32]>::to_vec).collect();
    Scene { width: frame.width, height: frame.height, planes }
}

/// An image of the scene from a camera with noise variance `a * signal + b`.
fn shot(scene: &Scene, (a, b): (f32, f32), seed: u64, bits: u32) -> Image {
    let Scene { width, height, ref planes } = *scene;
    let white = ((1_u32 << bits) - 1) as f32;
    let mut values = vec![0.0; width * height * planes.len()];
    let mut row = vec![0.0; width];
    for (c, plane) in planes.iter().enumerate() {
        for y in 0..height {
            Philox::new(seed).fill(
                NoiseAt { step: 0, batch: 0, channel: c as u32, y: y as u32 },
                0,
                &mut row,
            );
            for (x, z) in row.iter().enumerate() {
                let signal = plane[y * width + x];
                let value = signal + (a * signal + b).sqrt() * z;
                values[(y * width + x) * planes.len() + c] =
                    (white * value).round().clamp(0.0, white);
            }
        }
    }
    let samples = match bits {
        8 => Samples::U8(values.iter().map(|value| *value as u8).collect()),
        _ => Samples::U16(values.iter().map(|value| *value as u16).collect()),
    };
    Image { width, height, channels: planes.len(), samples, metadata: Metadata::default() }
}

fn measured(frames: impl IntoIterator<Item = Image>) -> crate::Result<NoiseProfile> {
    let mut profiler = Profiler::new();
    for (index, frame) in frames.into_iter().enumerate() {
        profiler.add(Path::new(&format!("{index}.png")), frame)?;
    }
    profiler.finish()
}

/// Asserts that the variances match within a relative tolerance, over the measured signals.
fn is_near(profile: &NoiseProfile, noise: (f32, f32), tolerance: f64) {
    is_within(profile, noise, tolerance, tolerance);
}

/// As [`is_near`], with separate tolerances in the middle of the signals and at their ends.
fn is_within(profile: &NoiseProfile, (a, b): (f32, f32), middle: f64, ends: f64) {
    for line in &profile.channels {
        let [low, high] = line.signal;
        for (signal, tolerance) in [(low, ends), (f64::midpoint(low, high), middle), (high, ends)] {
            let expected = f64::from(a) * signal + f64::from(b);
            let found = line.variance(signal);
            assert!(
                (found / expected - 1.0).abs() < tolerance,
                "{found} for {expected} at {signal}: {line:?}"
            );
        }
    }
}

const NOISES: [(f32, f32); 4] = [(0.01, 1e-4), (0.002, 4e-4), (3e-4, 2e-5), (0.0, 1e-3)];

#[test]
fn measures_the_line_from_frames_of_a_static_scene() {
    for noise in NOISES {
        for (channels, bits) in [(1, 8), (3, 8), (3, 16)] {
            let scene = patches(channels);
            let profile = measured((1..=6).map(|seed| shot(&scene, noise, seed, bits))).unwrap();
            assert_eq!(
                (profile.method, profile.frames, profile.channels.len()),
                (Method::Frames, 6, channels)
            );
            is_near(&profile, noise, 0.05);
        }
    }
}

#[test]
fn measures_the_line_from_frames_of_a_photograph() {
    for noise in NOISES {
        let scene = photograph("chelsea.png");
        for count in [2, 5] {
            let profile = measured((1..=count).map(|seed| shot(&scene, noise, seed, 8))).unwrap();
            is_near(&profile, noise, 0.06);
        }
    }
}

#[test]
fn measures_the_line_from_one_image() {
    for noise in NOISES {
        let profile = measured([shot(&patches(3), noise, 1, 8)]).unwrap();
        assert_eq!((profile.method, profile.frames), (Method::Image, 1));
        is_near(&profile, noise, 0.15);
    }
}

#[test]
fn measures_the_line_from_one_photograph() {
    for name in ["chelsea.png", "coffee.png", "astronaut.png"] {
        for noise in [(0.02, 4e-4), (0.01, 1e-4), (0.002, 4e-4)] {
            let profile = measured([shot(&photograph(name), noise, 1, 8)]).unwrap();
            // In a single image texture counts as noise, and where pixels are few there may be
            // nothing else.
            is_within(&profile, noise, 0.12, 0.35);
        }
    }
}

#[test]
fn ignores_flicker_and_motion() {
    let noise = (0.004, 1e-4);
    let frames = (1..=6).map(|seed| {
        let mut scene = patches(1);
        for (i, value) in scene.planes[0].iter_mut().enumerate() {
            let (x, y) = (i % scene.width, i / scene.width);
            // A moving object that covers a hundredth of the image, and light that varies by 6 %.
            let left = 40 * seed as usize;
            if (left..left + 32).contains(&x) && (100..124).contains(&y) {
                *value = 0.9;
            }
            *value *= if seed % 2 == 0 { 1.03 } else { 0.97 };
        }
        shot(&scene, noise, seed, 8)
    });
    is_near(&measured(frames).unwrap(), noise, 0.08);
}

#[test]
fn ignores_clipped_noise() {
    let mut scene = patches(1);
    let (width, noise) = (scene.width, (0.01, 1e-4));
    for (i, value) in scene.planes[0].iter_mut().enumerate() {
        match i % width / 80 {
            0 => *value = 0.0,
            1 => *value = 1.0,
            _ => {}
        }
    }
    let profile = measured((1..=4).map(|seed| shot(&scene, noise, seed, 8))).unwrap();
    let [low, high] = profile.channels[0].signal;
    assert!(low > 0.05 && high < 0.9, "{low} {high}");
    is_near(&profile, noise, 0.08);
    is_near(&measured([shot(&scene, noise, 1, 8)]).unwrap(), noise, 0.2);
}

#[test]
fn measures_one_variance_in_a_flat_scene() {
    for count in [1, 5] {
        let profile =
            measured((1..=count).map(|seed| shot(&flat(0.4), (0.01, 1e-3), seed, 8))).unwrap();
        let line = profile.channels[0];
        assert!(line.is_flat() && line.a == 0.0 && (line.signal[0] - 0.4).abs() < 0.01, "{line:?}");
        assert!((line.b / 5e-3 - 1.0).abs() < 0.1, "{line:?}");
    }
}

fn refused(frames: impl IntoIterator<Item = Image>, words: &str) {
    match measured(frames) {
        Err(Error::Input { problem, .. }) => assert!(problem.contains(words), "{problem}"),
        other => panic!("{other:?} where an input was to be refused: {words}"),
    }
}

#[test]
fn rejects_inputs_without_information() {
    let shot = |level, seed| shot(&flat(level), (0.001, 1e-4), seed, 8);
    for level in [0.0, 1.0] {
        refused([shot(level, 1)], "expose so");
        refused([shot(level, 1), shot(level, 2)], "expose so");
    }
    refused([shot(0.5, 1), shot(0.5, 1)], "does not differ from the frames before");
    let tiny = Image { width: 4, height: 4, samples: Samples::U8(vec![90; 16]), ..shot(0.5, 1) };
    refused([tiny.clone()], "too few");
    refused([tiny.clone(), tiny.clone()], "too few");
    refused([shot(0.5, 1), tiny], "4x4 in 8-bit gray, but 0.png is 128x96");
    assert!(matches!(measured([]), Err(Error::Usage { .. })));
}

#[test]
fn round_trips_a_file() {
    let line = NoiseLine { a: 1.0 / 3.0, b: 1e-7, signal: [0.0, 0.1 + 0.2] };
    let flat = NoiseLine { a: 0.0, b: 0.0, signal: [1.0, 1.0] };
    for channels in [vec![line], vec![line, flat, line]] {
        let profile = NoiseProfile::new(Method::Frames, 9, [640, 480], channels).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("camera.toml");
        profile.write(&path).unwrap();
        assert_eq!(NoiseProfile::read(&path).unwrap(), profile);
    }
}

#[test]
fn rejects_invalid_profiles() {
    let line = NoiseLine { a: 0.01, b: 1e-4, signal: [0.1, 0.9] };
    let good = NoiseProfile::new(Method::Image, 1, [64, 48], [line]).unwrap().to_toml();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("camera.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        NoiseProfile::read(&path)
    };
    assert!(read(&good).is_ok());
    for (from, to) in [
        ("version = 1", "version = 2"),
        ("version = 1", ""),
        ("frames = 1", "frames = 3"),
        ("frames = 1", "frames = 0"),
        ("width = 64", "width = 0"),
        ("width = 64", "width = 64\nbreadth = 2"),
        ("a = 1e-2", "a = -1e-2"),
        ("a = 1e-2", "a = nan"),
        ("a = 1e-2", "a = inf"),
        ("b = 1e-4", "b = 1.5"),
        ("b = 1e-4", "b = 1e-4\nc = 0.0"),
        ("[0.1, 0.9]", "[0.9, 0.1]"),
        ("[0.1, 0.9]", "[0.1, 1.1]"),
        ("[0.1, 0.9]", "[0.1]"),
        ("image", "guess"),
        (&good, ""),
        (&good, "Dear diary"),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good);
        assert!(matches!(read(&text), Err(Error::Input { .. })), "{text}");
    }
    assert!(NoiseProfile::new(Method::Image, 1, [64, 48], [line, line]).is_err());
}
