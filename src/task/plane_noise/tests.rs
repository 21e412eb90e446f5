use serde::Deserialize;

use super::features::{self, Work};
use super::{
    NoiseKind, Plane, PlaneNoise, PlaneRole, SpatialEstimator, TemporalNoise, kind, regression,
};
use crate::diffusion::{NoiseAt, NoiseSource, Philox};

/// The output of `models/train/noise_estimate.py golden` for its example planes.
#[derive(Deserialize)]
struct Golden {
    features: Vec<f32>,
    said: Vec<f32>,
    pair: Vec<f32>,
    stream: Vec<f32>,
}

/// The plane that `example` in `models/train/noise_estimate.py` generates, in levels of 255.
fn example(width: usize, height: usize, sigma: f64, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64
    };
    let place = |i: usize| (i % width, i / width);
    let scene = |(x, y): (usize, usize)| {
        let edge = if x > 50 { 40.0 } else { 0.0 };
        let stripes = if y > 40 && (y / 3 + x) % 5 == 0 { 6.0 } else { 0.0 };
        60.0 + 0.5 * x as f64 + 0.25 * y as f64 + edge + stripes
    };
    let noise: Vec<f64> = (0..width * height)
        .map(|_| (0..4).map(|_| uniform()).sum::<f64>() / 16_777_216.0 - 2.0)
        .collect();
    noise
        .iter()
        .enumerate()
        .map(|(i, noise)| (scene(place(i)) + sigma * 3.0_f64.sqrt() * noise) as f32)
        .collect()
}

/// Asserts that numbers match the reference within the errors of single precision.
fn assert_near(found: &[f32], wanted: &[f32], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert!(
            (found - wanted).abs() < 0.01,
            "{what}, number {i}: {found}, the reference has {wanted}"
        );
    }
}

#[test]
fn agrees_with_the_reference() {
    let goldens: Vec<Golden> =
        serde_json::from_str(include_str!("../../../tests/golden/plane_noise.json")).unwrap();
    let sizes = [(96, 80, 6.0, 1), (64, 64, 0.0, 2), (120, 72, 20.0, 3)];
    assert_eq!(goldens.len(), sizes.len());
    for (number, (golden, (width, height, sigma, seed))) in goldens.iter().zip(sizes).enumerate() {
        let levels = example(width, height, sigma, seed);
        let role = if number == 2 { PlaneRole::Chroma } else { PlaneRole::Luma };
        let samples: Vec<f32> = levels.iter().map(|level| level / 255.0).collect();
        let other: Vec<f32> = if number == 0 {
            samples.chunks_exact(width).rev().flatten().copied().collect()
        } else {
            samples
                .chunks_exact(width)
                .flat_map(|row| [&row[width - 16..], &row[..width - 16]].concat())
                .collect()
        };
        let (plane, other) = (Plane::new(&samples, width, role), Plane::new(&other, width, role));
        let mut work = Work::default();
        let own = features::of_image(plane, &mut work).features.unwrap();
        assert_near(&own, &golden.features, "an image's features");
        let of_image = regression::of_image(&own);
        assert_near(&of_image, &golden.said, "the regression of an image");
        let found = features::of_pair(plane, other, &mut work);
        let (pair, still) = (found.features.unwrap(), found.still);
        assert_near(&pair, &golden.pair, "a pair's features");
        assert_near(
            &regression::of_stream(&pair, of_image, number == 2, still),
            &golden.stream,
            "the regression of a stream",
        );
    }
}

/// A plane of `scene(x, y)` with white noise, both in levels of 255, rounded to integers and
/// clipped.
fn noisy(
    [width, height]: [usize; 2],
    sigma: f32,
    seed: u64,
    scene: impl Fn(usize, usize) -> f32,
) -> Vec<f32> {
    let mut row = vec![0.0; width];
    (0..height)
        .flat_map(|y| {
            Philox::new(seed).fill(
                NoiseAt { step: 0, batch: 0, channel: 0, y: y as u32 },
                0,
                &mut row,
            );
            let line = row.iter().enumerate();
            line.map(|(x, z)| (scene(x, y) + sigma * z).round().clamp(0.0, 255.0) / 255.0)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// A gradient with an edge.
fn shaded(x: usize, y: usize) -> f32 {
    60.0 + 0.2 * x as f32 + 0.1 * y as f32 + if x > 150 { 40.0 } else { 0.0 }
}

const SIZE: [usize; 2] = [320, 240];

fn spatial(samples: &[f32], role: PlaneRole) -> Option<PlaneNoise> {
    SpatialEstimator::default().estimate(Plane::new(samples, SIZE[0], role))
}

#[test]
fn finds_the_deviation_of_white_noise() {
    for role in [PlaneRole::Luma, PlaneRole::Chroma] {
        for sigma in [3.0, 6.7, 13.4, 25.0] {
            let found = spatial(&noisy(SIZE, sigma, 7, shaded), role).unwrap();
            let ratio = 255.0 * found.sigma / f64::from(sigma);
            assert!((ratio - 1.0).abs() < 0.1, "{role:?} {sigma}: {ratio} times as much");
            assert!(found.clean < 0.0, "{role:?} {sigma}: taken for clean");
        }
    }
}

#[test]
fn ignores_ramps() {
    let found = spatial(&noisy(SIZE, 0.0, 7, shaded), PlaneRole::Luma).unwrap();
    assert!(255.0 * found.sigma < 1.0 && found.clean > 0.0, "{found:?}");
}

#[test]
fn returns_none_without_usable_blocks() {
    let constant = noisy(SIZE, 0.0, 7, |_, _| 99.0);
    let clipped = noisy(SIZE, 20.0, 7, |_, _| 300.0);
    assert_eq!(
        (spatial(&constant, PlaneRole::Luma), spatial(&clipped, PlaneRole::Luma)),
        (None, None)
    );
    assert_eq!(spatial(&constant[..320 * 7], PlaneRole::Luma), None);
    assert_eq!(SpatialEstimator::default().estimate(Plane::new(&[], 0, PlaneRole::Luma)), None);
}

#[test]
fn estimates_a_static_scene_better_from_several_frames() {
    let texture = |x: usize, y: usize| 128.0 + 25.0 * ((x * 7 + y * 13) % 9) as f32 / 4.0;
    let frames: Vec<_> = (0..4).map(|i| noisy(SIZE, 8.0, 7 + i, texture)).collect();
    let alone = spatial(&frames[3], PlaneRole::Luma).unwrap();
    let mut stream = TemporalNoise::new(PlaneRole::Luma);
    assert_eq!(stream.estimate(&alone), None);
    for pair in frames.windows(2) {
        stream.update([&pair[0], &pair[1]], SIZE[0], false);
    }
    let found = stream.estimate(&alone).unwrap();
    let [one, all] = [alone.sigma, found.noise.sigma].map(|sigma| 255.0 * sigma / 8.0);
    assert!(
        one > 1.6,
        "the texture does not mislead: a single frame estimates {one} times as much"
    );
    assert!((all - 1.0).abs() < 0.2, "{all} times as much; a frame alone says {one}");
    assert!(found.still > 0.7 && found.repeated == 0.0, "{found:?}");
}

/// Blocks whose difference the gradient explains look as if they moved; aligned frames cannot have
/// moved.
#[test]
fn treats_aligned_frames_as_static() {
    let at = |shift: f32| {
        move |x: usize, y: usize| 128.0 + 60.0 * ((x as f32 + shift) / 3.0 + y as f32 / 9.0).sin()
    };
    // Correlates the noise of neighbors, so that a single frame underestimates it.
    let smooth = |samples: Vec<f32>| {
        samples.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).chain([0.5]).collect::<Vec<_>>()
    };
    let [before, after] =
        [(0.0, 7), (1.0, 8)].map(|(shift, seed)| smooth(noisy(SIZE, 8.0, seed, at(shift))));
    let alone = spatial(&after, PlaneRole::Luma).unwrap();
    let [moving, aligned] = [false, true].map(|is_aligned| {
        let mut stream = TemporalNoise::new(PlaneRole::Luma);
        stream.update([&before, &after], SIZE[0], is_aligned);
        stream.estimate(&alone).unwrap()
    });
    assert!(moving.still < 0.3 && aligned.still == 1.0, "{moving:?} {aligned:?}");
    let [moving, aligned] = [moving, aligned].map(|found| found.noise.sigma / alone.sigma);
    assert!(moving <= 1.0 && aligned > 1.1, "{moving} and {aligned} times what a frame alone says");
}

#[test]
fn ignores_repeated_frames() {
    let frame = noisy(SIZE, 8.0, 7, shaded);
    let alone = spatial(&frame, PlaneRole::Luma).unwrap();
    let mut stream = TemporalNoise::new(PlaneRole::Luma);
    stream.update([&frame, &frame], SIZE[0], false);
    assert_eq!(stream.estimate(&alone), None);
}

#[test]
fn classifies_noise() {
    let of =
        |samples: &[f32]| kind(&spatial(samples, PlaneRole::Luma).into_iter().collect::<Vec<_>>());
    let white = noisy(SIZE, 12.0, 7, shaded);
    let mut smooth = white.clone();
    for i in SIZE[0]..white.len() - SIZE[0] {
        let around = [white[i - 1], white[i + 1], white[i - SIZE[0]], white[i + SIZE[0]]];
        smooth[i] = white[i] / 2.0 + around.iter().sum::<f32>() / 8.0;
    }
    assert_eq!(of(&noisy(SIZE, 0.0, 7, shaded)), NoiseKind::Clean);
    assert_eq!(of(&noisy(SIZE, 0.0, 7, |_, _| 40.0)), NoiseKind::Clean);
    assert_eq!(of(&white), NoiseKind::White);
    assert_eq!(of(&smooth), NoiseKind::Correlated);
}
