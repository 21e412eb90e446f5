//! Fuses known scenes and compares the result with the truth.

use super::Temporal;
use crate::diffusion::{NoiseAt, NoiseSource, Philox};
use crate::video::Planes;

const WIDTH: usize = 310;
const HEIGHT: usize = 130;
const SIGMA: f32 = 0.08;

/// A textured scene with a bright square at `square`, viewed from (x0, y0).
fn scene(x0: f32, y0: f32, square: Option<usize>) -> Vec<f32> {
    let mut planes = Vec::with_capacity(3 * WIDTH * HEIGHT);
    for channel in 0..3 {
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                let (u, v) = (x as f32 - x0, y as f32 - y0);
                let fine = (0.5 * u + 0.3 * v).sin() + (0.9 * v - 0.2 * u + channel as f32).sin();
                let waves = fine + (0.05 * u + 0.03 * v).cos() + (0.11 * v - 0.07 * u).sin();
                let inside = square
                    .is_some_and(|left| (left..left + 24).contains(&x) && (40..64).contains(&y));
                planes.push(if inside { 0.9 } else { 0.4 + 0.1 * waves });
            }
        }
    }
    planes
}

fn noisy(clean: &[f32], sigma: f32, seed: u64) -> Vec<f32> {
    let mut noise = vec![0.0; WIDTH];
    let mut values = clean.to_vec();
    for (i, row) in values.chunks_exact_mut(WIDTH).enumerate() {
        Philox::new(seed).fill(
            NoiseAt { step: 0, batch: 0, channel: 0, y: i as u32 },
            0,
            &mut noise,
        );
        row.iter_mut().zip(&noise).for_each(|(value, z)| *value += sigma * z);
    }
    values
}

fn variance(found: &[f32], clean: &[f32], keep: impl Fn(usize, usize) -> bool) -> f32 {
    let (mut sum, mut count) = (0.0, 0);
    for (i, (found, clean)) in found.iter().zip(clean).enumerate() {
        if keep(i % WIDTH, i / WIDTH % HEIGHT) {
            sum += (found - clean) * (found - clean);
            count += 1;
        }
    }
    sum / count as f32
}

/// Fuses the scenes in order, and returns the state, the last fusion and its map of sigma.
fn fused(scenes: &[Vec<f32>], sigma: f32) -> (Temporal, Vec<f32>, Vec<f32>) {
    let mut temporal = Temporal::new(Planes::full(3, WIDTH, HEIGHT));
    let mut last = (Vec::new(), Vec::new());
    for (i, clean) in scenes.iter().enumerate() {
        let mut frame = noisy(clean, sigma, i as u64);
        let mut map = [vec![sigma; WIDTH * HEIGHT]];
        temporal.track(&frame, f64::from(sigma * sigma));
        temporal.fuse(&mut frame, &mut map);
        let [map] = map;
        last = (frame, map);
    }
    (temporal, last.0, last.1)
}

#[test]
fn reduces_noise_of_a_static_scene_as_the_map_predicts() {
    for count in [1, 2, 4, 16] {
        let scenes = vec![scene(0.0, 0.0, None); count];
        let (temporal, frame, map) = fused(&scenes, SIGMA);
        let found = variance(&frame, &scenes[0], |_, _| true) / (SIGMA * SIGMA);
        let predicted =
            map.iter().map(|sigma| sigma * sigma).sum::<f32>() / map.len() as f32 / (SIGMA * SIGMA);
        let expected = 1.0 / count as f32;
        assert!((found / expected - 1.0).abs() < 0.15, "{count}: {found}");
        assert!(
            (predicted / found - 1.0).abs() < 0.15,
            "{count}: predicted {predicted}, found {found}"
        );
        assert_eq!(temporal.resets(), 0);
    }
}

#[test]
fn resets_moving_areas_and_keeps_static_ones() {
    let scenes: Vec<_> = (0..12).map(|i| scene(0.0, 0.0, Some(150 + 8 * i))).collect();
    let (temporal, frame, map) = fused(&scenes, SIGMA);
    let (left, top) = (150 + 8 * 11, 40);
    // The square and where it was just before: at most as noisy as a single frame.
    let around =
        |x: usize, y: usize| (left - 8..left + 24).contains(&x) && (top..top + 24).contains(&y);
    let near = variance(&frame, &scenes[11], around) / (SIGMA * SIGMA);
    assert!(near < 1.1, "{near}");
    let far = variance(&frame, &scenes[11], |x, _| x < 60) / (SIGMA * SIGMA);
    assert!(far < 0.3, "{far}");
    // The error hardly exceeds the map anywhere.
    for (x, y) in [(0, 0), (left - 8, top), (left, top), (left + 16, top + 16), (left + 24, top)] {
        let inside = |i: usize, j: usize| (x..x + 8).contains(&i) && (y..y + 8).contains(&j);
        let found = variance(&frame, &scenes[11], inside);
        let predicted = map[(y + 4) * WIDTH + x + 4].powi(2);
        assert!(found < 2.0 * predicted + 1e-4, "{x},{y}: found {found}, predicted {predicted}");
    }
    assert_eq!(temporal.resets(), 0);
}

#[test]
fn follows_global_motion() {
    let whole: Vec<_> = (0..10).map(|i| scene(2.0 * i as f32, -(i as f32), None)).collect();
    let parts: Vec<_> = (0..10).map(|i| scene(1.6 * i as f32, 0.4 * i as f32, None)).collect();
    let inner =
        |x: usize, y: usize| (24..WIDTH - 24).contains(&x) && (24..HEIGHT - 24).contains(&y);
    for (scenes, most) in [(whole, 0.3), (parts, 0.75)] {
        let (temporal, frame, _) = fused(&scenes, SIGMA);
        let found = variance(&frame, &scenes[9], inner) / (SIGMA * SIGMA);
        assert!(found < most, "{found} for {most}, {} resets", temporal.resets());
    }
}

#[test]
fn does_not_mistake_strong_noise_of_wrong_level_for_a_cut() {
    let scenes: Vec<_> = (0..10).map(|i| scene(2.0 * i as f32, -(i as f32), None)).collect();
    let inner =
        |x: usize, y: usize| (24..WIDTH - 24).contains(&x) && (24..HEIGHT - 24).contains(&y);
    let sigma = 0.25;
    for assumed in [0.75 * sigma, 1.3 * sigma] {
        let mut temporal = Temporal::new(Planes::full(3, WIDTH, HEIGHT));
        let mut last = Vec::new();
        for (i, clean) in scenes.iter().enumerate() {
            last = noisy(clean, sigma, i as u64);
            temporal.track(&last, f64::from(assumed * assumed));
            temporal.fuse(&mut last, &mut [vec![assumed; WIDTH * HEIGHT]]);
        }
        let found = variance(&last, &scenes[9], inner) / (sigma * sigma);
        assert!(
            found < 0.5 && temporal.resets() == 0,
            "assumed {assumed}: {found}, {} resets",
            temporal.resets()
        );
    }
}

#[test]
fn moves_planes_of_the_previous_frame_with_the_scene() {
    let scenes = [scene(0.0, 0.0, None), scene(3.0, -2.0, None)];
    let mut temporal = Temporal::new(Planes::full(3, WIDTH, HEIGHT));
    for clean in &scenes {
        let mut frame = clean.clone();
        temporal.track(&frame, 0.0);
        temporal.fuse(&mut frame, &mut [vec![0.01; WIDTH * HEIGHT]]);
    }
    let mut before = scenes[0].clone();
    assert!(temporal.move_along(&mut before));
    let inner = |x: usize, y: usize| (8..WIDTH - 8).contains(&x) && (8..HEIGHT - 8).contains(&y);
    assert!(variance(&before, &scenes[1], inner) < 1e-9);
}

#[test]
fn resets_at_a_scene_cut() {
    let mut scenes = vec![scene(0.0, 0.0, None); 8];
    scenes.push(scene(0.0, 0.0, None).iter().map(|value| 0.9 - value).collect());
    let (temporal, frame, map) = fused(&scenes, SIGMA);
    assert_eq!(temporal.resets(), 1);
    assert!(frame == noisy(&scenes[8], SIGMA, 8) && map.iter().all(|sigma| *sigma == SIGMA));
}

#[test]
fn follows_exposure_changes() {
    let still = scene(0.0, 0.0, None);
    let scenes: Vec<Vec<f32>> =
        (0..16).map(|i| still.iter().map(|v| v * (1.0 + 0.01 * i as f32)).collect()).collect();
    let (temporal, frame, _) = fused(&scenes, SIGMA);
    let found = variance(&frame, &scenes[15], |_, _| true) / (SIGMA * SIGMA);
    assert!(found < 0.15 && temporal.resets() == 0, "{found}");
}

#[test]
fn accepts_tiny_frames() {
    for (width, height) in [(1, 1), (2, 5), (7, 3)] {
        let mut temporal = Temporal::new(Planes::full(3, width, height));
        for i in 0..4 {
            let mut frame = vec![0.1 * i as f32; 3 * width * height];
            let mut sigma = [vec![0.1; width * height]];
            temporal.track(&frame, 0.01);
            temporal.fuse(&mut frame, &mut sigma);
            assert!(
                frame.iter().chain(&sigma[0]).all(|value| value.is_finite()),
                "{width}x{height}"
            );
        }
    }
}
