//! Compares tiles with the whole image, for the bundled network in ONNX Runtime and for closed-form
//! networks.

// Test helpers may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

#[path = "tiles/random.rs"]
mod random;

use std::ops::ControlFlow;

use common::networks::{Closed, blur};
use eddy::Error;
use eddy::diffusion::{
    NoiseAt, NoiseSource, Philox, Progress, SigmaMap, State, denoise_plan, execute,
};
use eddy::model::{Package, Precision};
use eddy::network::{Library, Network, OnnxNetwork, Runtime, SessionOptions};
use eddy::tile::{Locality, TilePlan};
use ndarray::Array4;

/// The allowed difference between tiles and the whole image, for a range of 1: f32 sums in another
/// order.
const TOLERANCE: f32 = 1e-5;

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A noisy gradient, `[1, channels, height, width]`.
fn image(channels: usize, width: usize, height: usize) -> Array4<f32> {
    let mut x = Array4::zeros([1, channels, height, width]);
    for (index, row) in x.as_slice_mut().unwrap().chunks_exact_mut(width).enumerate() {
        let (channel, y) = (index / height, index % height);
        Philox::new(3).fill(
            NoiseAt { step: 0, batch: 0, channel: channel as u32, y: y as u32 },
            0,
            row,
        );
        row.iter_mut()
            .enumerate()
            .for_each(|(i, x)| *x = 0.5 + 0.1 * *x + 0.3 * (i as f32 / 40.0).sin());
    }
    x
}

/// Sigma that differs between pixels, also near the borders.
fn sloping(width: usize, height: usize) -> SigmaMap {
    let values = (0..width * height)
        .map(|i| 0.02 + 0.3 * ((i % width * 7 + i / width * 13) % 29) as f32 / 29.0);
    SigmaMap::PerPixel { width, values: values.collect() }
}

/// The result after `steps` steps, with fresh noise if there are several.
fn run(
    network: &mut dyn Network,
    x: &Array4<f32>,
    tiles: &TilePlan,
    sigma: &SigmaMap,
    steps: usize,
) -> Array4<f32> {
    let plan = denoise_plan(steps, if steps == 1 { 0.0 } else { 0.5 }).unwrap();
    let noise = Philox::new(11);
    let mut state = State::new(x.clone(), &plan, &noise, sigma).unwrap();
    execute(&plan, network, &mut state, tiles, sigma, &mut go_on).unwrap();
    state.into_inner()
}

fn largest_difference(one: &Array4<f32>, other: &Array4<f32>) -> f32 {
    assert_eq!(one.dim(), other.dim());
    let differences = one.iter().zip(other).map(|(a, b)| (a - b).abs());
    // A NaN counts as the largest difference.
    differences
        .fold(0.0, |largest, difference| if difference <= largest { largest } else { difference })
}

fn bundled() -> (OnnxNetwork, Locality) {
    let package = Package::find("denoise-fast").unwrap();
    let runtime = Runtime::load(&Library::Embedded).unwrap();
    let network = package.load(&runtime, Precision::F32, SessionOptions::default()).unwrap();
    (network, package.manifest.locality())
}

#[test]
fn tiles_of_the_bundled_network_match_the_whole_image() {
    let (mut network, locality) = bundled();
    // Width, height and the longest side of a tile: sizes that are not multiples of 8, a single
    // pixel, tiles that mostly overlap, seams along one axis and along both.
    let cases = [
        (1, 1, 136),
        (3, 200, 136),
        (200, 3, 144),
        (61, 45, 256),
        (255, 257, 256),
        (301, 139, 200),
        (139, 301, 256),
        (417, 18, 264),
        (310, 333, 256),
    ];
    for (width, height, limit) in cases {
        let x = image(3, width, height);
        let whole = TilePlan::whole(width, height, locality.multiple_of);
        let tiled = TilePlan::cut(width, height, limit, None, locality).unwrap();
        assert_eq!(tiled.is_whole(), width.max(height).next_multiple_of(8) <= limit, "{tiled:?}");
        for sigma in [SigmaMap::Uniform(0.1), sloping(width, height)] {
            for steps in [1, 3] {
                let expected = run(&mut network, &x, &whole, &sigma, steps);
                let found = run(&mut network, &x, &tiled, &sigma, steps);
                let difference = largest_difference(&found, &expected);
                assert!(
                    difference <= TOLERANCE,
                    "{width}x{height} by {limit}, {steps} steps: {difference}"
                );
                // The network changed the image where it is noisy.
                let done = largest_difference(&found, &x);
                assert!(done > 0.01 || width * height == 1, "{width}x{height}: {done}");
            }
        }
    }
}

/// The receptive field in the manifest is tight: with a smaller margin, tiles differ.
#[test]
fn an_overlap_below_the_receptive_field_changes_the_result() {
    let (mut network, locality) = bundled();
    let (width, height) = (301, 40);
    let x = image(3, width, height);
    let blind = Locality { receptive_field: Some(16), ..locality };
    let whole =
        run(&mut network, &x, &TilePlan::whole(width, height, 8), &SigmaMap::Uniform(0.1), 1);
    let tiled = run(
        &mut network,
        &x,
        &TilePlan::cut(width, height, 128, None, blind).unwrap(),
        &SigmaMap::Uniform(0.1),
        1,
    );
    let difference = largest_difference(&tiled, &whole);
    assert!(difference > TOLERANCE, "{difference}");
}

#[test]
fn an_overlap_above_the_receptive_field_matches_the_whole_image() {
    let (mut network, locality) = bundled();
    let (width, height) = (333, 290);
    let x = image(3, width, height);
    let sigma = sloping(width, height);
    let whole = run(&mut network, &x, &TilePlan::whole(width, height, 8), &sigma, 2);
    let mixed = TilePlan::cut(width, height, 264, Some(170), locality).unwrap();
    assert!(mixed.horizontal.feather > 0 && mixed.count() > 2, "{mixed:?}");
    let difference = largest_difference(&run(&mut network, &x, &mixed, &sigma, 2), &whole);
    assert!(difference <= TOLERANCE, "{difference}");
}

/// The blur computed on the whole image in f64, step by step.
fn blurred_by_hand(x: &Array4<f32>, sigma: &SigmaMap, steps: usize) -> Vec<f64> {
    let (_, channels, height, width) = x.dim();
    let mut x: Vec<f64> = x.iter().map(|value| f64::from(*value)).collect();
    for step in denoise_plan(steps, 0.0).unwrap().steps {
        let before = x.clone();
        for plane in 0..channels {
            let at = |i: usize, j: usize| before[(plane * height + j) * width + i];
            for j in 0..height {
                for i in 0..width {
                    let rows = j.saturating_sub(1)..=(j + 1).min(height - 1);
                    let columns = i.saturating_sub(1)..=(i + 1).min(width - 1);
                    let sum: f64 =
                        rows.map(|j| columns.clone().map(|i| at(i, j)).sum::<f64>()).sum();
                    let d = sum / 9.0 * f64::from(sigma.at(0, i, j)) * step.level.noise;
                    x[(plane * height + j) * width + i] = step.a * at(i, j) + step.b * d;
                }
            }
        }
    }
    x
}

#[test]
fn a_blur_in_tiles_matches_its_closed_form() {
    let locality = Locality { multiple_of: 1, grid: 1, receptive_field: Some(1), size: None };
    for (width, height) in [(1, 1), (1, 17), (23, 2), (16, 16), (29, 31), (40, 13)] {
        let x = image(2, width, height);
        for sigma in [SigmaMap::Uniform(0.7), sloping(width, height)] {
            for steps in [1, 2, 5] {
                let expected = blurred_by_hand(&x, &sigma, steps);
                for (limit, overlap) in
                    [(3, None), (5, None), (8, Some(2)), (8, Some(5)), (16, Some(11)), (64, None)]
                {
                    let tiles = TilePlan::cut(width, height, limit, overlap, locality).unwrap();
                    let plan = denoise_plan(steps, 0.0).unwrap();
                    let noise = Philox::new(0);
                    let mut network =
                        Closed::new(|sample, sigma, shape, _, out| blur(sample, sigma, shape, out));
                    let mut state = State::new(x.clone(), &plan, &noise, &sigma).unwrap();
                    execute(&plan, &mut network, &mut state, &tiles, &sigma, &mut go_on).unwrap();
                    assert_eq!(network.evaluations, steps * tiles.count());
                    let found = state.into_inner();
                    let wrong = found
                        .iter()
                        .zip(&expected)
                        .position(|(a, b)| (f64::from(*a) - b).abs() > 1e-6);
                    assert_eq!(
                        wrong, None,
                        "{width}x{height} by {limit} {overlap:?}, {steps} steps, {sigma:?}"
                    );
                }
            }
        }
    }
}

/// Blended tiles of ones are one everywhere.
#[test]
fn blending_weights_sum_to_one() {
    for (width, height, limit, overlap) in
        [(100, 1, 32, 20), (61, 47, 24, 13), (33, 90, 40, 38), (50, 50, 17, 9)]
    {
        for receptive_field in [None, Some(2)] {
            let locality = Locality { multiple_of: 1, grid: 1, receptive_field, size: None };
            let Ok(tiles) = TilePlan::cut(width, height, limit, Some(overlap), locality) else {
                continue;
            };
            let mut network = Closed::new(|_, _, _, _, out| out.fill(1.0));
            let found =
                run(&mut network, &image(3, width, height), &tiles, &SigmaMap::Uniform(1.0), 1);
            let wrong = found.iter().find(|value| (**value - 1.0).abs() > 1e-6);
            assert_eq!(
                wrong, None,
                "{width}x{height} by {limit}, overlap {overlap}, field {receptive_field:?}"
            );
        }
    }
}

/// Tiles of 0 and 1 blend in a linear ramp over the part of the overlap outside both margins.
#[test]
fn neighboring_tiles_blend_in_a_ramp() {
    let locality = Locality { multiple_of: 1, grid: 1, receptive_field: Some(4), size: None };
    let tiles = TilePlan::cut(40, 1, 28, Some(16), locality).unwrap();
    assert_eq!((tiles.count(), tiles.horizontal.feather), (2, 4));
    let mut network = Closed::new(|_, _, _, evaluation, out| out.fill(evaluation as f32));
    let found = run(&mut network, &image(1, 40, 1), &tiles, &SigmaMap::Uniform(1.0), 1);
    let expected: Vec<f32> =
        (0..40).map(|x| ((x as f32 - 16.0 + 0.5) / 8.0).clamp(0.0, 1.0)).collect();
    let found = found.as_slice().unwrap();
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
}

/// A network that gives `value` in the corner of one evaluation, out of 2 rows of 3 tiles and 3
/// steps.
fn spoilt(evaluation: usize, value: f32) -> eddy::Result<()> {
    let tiles = TilePlan::cut(
        20,
        14,
        8,
        None,
        Locality { multiple_of: 1, grid: 1, receptive_field: Some(1), size: None },
    )
    .unwrap();
    assert_eq!((tiles.horizontal.spans.len(), tiles.vertical.spans.len()), (3, 2));
    let plan = denoise_plan(3, 0.0).unwrap();
    let (noise, sigma) = (Philox::new(0), SigmaMap::Uniform(1.0));
    let mut state = State::new(image(3, 20, 14), &plan, &noise, &sigma).unwrap();
    let mut network = Closed::new(|sample, _, _, now, out| {
        out.copy_from_slice(sample);
        if now == evaluation {
            out[out.len() - 1] = value;
        }
    });
    execute(&plan, &mut network, &mut state, &tiles, &sigma, &mut go_on).map(drop)
}

#[test]
fn non_finite_output_is_reported_at_its_step() {
    spoilt(usize::MAX, f32::NAN).unwrap();
    spoilt(7, 1e30).unwrap();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (evaluation, step, tile) in
            [(0, 1, "0,0"), (2, 1, "12,0"), (6, 2, "0,0"), (17, 3, "12,6")]
        {
            let error = spoilt(evaluation, value).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::Evaluation { .. }), "{text}");
            let expected = format!(
                "step {step} gave an output with 1 non-finite value (NaN or infinity), in the tile \
                 at {tile} of 8x8"
            );
            assert!(text.starts_with(&expected), "{text}");
        }
    }
}

#[test]
fn progress_is_reported_per_evaluation_and_can_stop_the_run() {
    let tiles = TilePlan::cut(
        20,
        14,
        8,
        None,
        Locality { multiple_of: 1, grid: 1, receptive_field: Some(1), size: None },
    )
    .unwrap();
    let plan = denoise_plan(2, 0.0).unwrap();
    let (noise, sigma) = (Philox::new(0), SigmaMap::Uniform(1.0));
    for stop in [1, 6, 9, 12, 13] {
        let mut network = Closed::new(|sample, _, _, _, out| out.copy_from_slice(sample));
        let mut state = State::new(image(3, 20, 14), &plan, &noise, &sigma).unwrap();
        let mut heard = Vec::new();
        let result = execute(&plan, &mut network, &mut state, &tiles, &sigma, &mut |progress| {
            heard.push(progress);
            if progress.done == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(matches!(result, Err(Error::Interrupted)), stop <= 12, "{result:?}");
        assert_eq!(network.evaluations, stop.min(12));
        let expected: Vec<Progress> =
            (1..=stop.min(12)).map(|done| Progress { done, total: 12 }).collect();
        assert_eq!(heard, expected);
    }
}
