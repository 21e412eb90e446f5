//! After the first evaluation Eddy's own code allocates nothing, measured by a counting allocator.
//!
//! ONNX Runtime's memory does not come from Rust's allocator and is not counted.

// Test helpers may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "allocations/counting.rs"]
mod counting;

mod common;

use std::ops::ControlFlow;

use common::images::noisy;
use common::networks::Closed;
use counting::allocations;
use eddy::diffusion::{
    Clip, HistoryEntry, HistoryValue, Philox, Plan, Progress, SigmaMap, State, denoise_plan,
    execute,
};
use eddy::media::Image;
use eddy::media::stream::{Rate, VideoFormat, VideoFrame};
use eddy::model::{Package, Precision};
use eddy::network::{Library, Network, OnnxNetwork, Runtime, SessionOptions};
use eddy::task::{DenoiseOptions, Denoiser, SigmaChoice, TileChoice};
use eddy::tile::{Locality, TilePlan};
use eddy::video::FrameProcessor;
use ndarray::Array4;

/// The allocations of the `ort` crate for one evaluation with bound buffers: the list of returned
/// outputs, and their names.
const ORT_PER_EVALUATION: usize = 2;

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The allocations of `execute` alone, without those for the state.
fn of_execute(network: &mut dyn Network, plan: &Plan, tiles: &TilePlan, sigma: &SigmaMap) -> usize {
    let (width, height) = (tiles.horizontal.length, tiles.vertical.length);
    let noise = Philox::new(0);
    let x = Array4::from_shape_fn([1, 3, height, width], |(_, _, y, x)| ((x + y) % 7) as f32 / 7.0);
    let mut state = State::new(x, plan, &noise, sigma).unwrap();
    allocations(|| {
        execute(plan, network, &mut state, tiles, sigma, &mut go_on).unwrap();
    })
}

fn plans(steps: usize) -> Vec<(&'static str, Plan)> {
    let ddim = denoise_plan(steps, 0.0).unwrap();
    let fresh = denoise_plan(steps, 1.0).unwrap();
    let mut looking_back = ddim.clone();
    looking_back.steps.iter_mut().enumerate().for_each(|(i, step)| {
        step.past[..2].fill(0.1);
        step.store = Some(HistoryEntry { slot: i % 2, value: HistoryValue::Prediction });
    });
    let clipped = Plan { clip: Clip::Range(1.0), ..ddim.clone() };
    let thresholded = Plan { clip: Clip::Threshold { ratio: 0.9, max: 2.0 }, ..ddim.clone() };
    vec![
        ("ddim", ddim),
        ("fresh noise", fresh),
        ("looking back", looking_back),
        ("clipped", clipped),
        ("thresholded", thresholded),
    ]
}

#[test]
fn the_allocator_counts_allocations() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1, 2, 3]))), 1);
    assert_eq!(allocations(|| drop(std::hint::black_box((Box::new(1), String::from("two"))))), 2);
    assert_eq!(allocations(|| {}), 0);
}

#[test]
fn allocations_do_not_depend_on_the_number_of_steps() {
    let locality = Locality { multiple_of: 1, grid: 1, receptive_field: Some(1), size: None };
    let (width, height) = (40, 30);
    let per_pixel = SigmaMap::PerPixel { width, values: vec![0.1; width * height] };
    let cuts = [
        TilePlan::whole(width, height, 1),
        TilePlan::cut(width, height, 16, None, locality).unwrap(),
        TilePlan::cut(width, height, 16, Some(8), locality).unwrap(),
    ];
    for tiles in &cuts {
        for sigma in [&SigmaMap::Uniform(0.1), &per_pixel] {
            for ((name, few), (_, many)) in plans(4).into_iter().zip(plans(8)) {
                if name == "thresholded" && !tiles.is_whole() {
                    continue;
                }
                let mut network = Closed::new(|sample, _, _, _, out| out.copy_from_slice(sample));
                let first = of_execute(&mut network, &few, tiles, sigma);
                let (few, many) = (
                    of_execute(&mut network, &few, tiles, sigma),
                    of_execute(&mut network, &many, tiles, sigma),
                );
                let case = format!("{name} in {} tiles: {first}, {few}, {many}", tiles.count());
                assert_eq!(few, many, "{case}");
                // Only the band between tiles and the blending weights, and nothing for a single
                // tile.
                let is_mixed = tiles.horizontal.feather > 0;
                assert_eq!(few, usize::from(!tiles.is_whole()) + usize::from(is_mixed), "{case}");
            }
        }
    }
}

fn bundled() -> (Package, OnnxNetwork) {
    let package = Package::find("denoise-fast").unwrap();
    let runtime = Runtime::load(&Library::Embedded).unwrap();
    let network = package.load(&runtime, Precision::F32, SessionOptions::default()).unwrap();
    (package, network)
}

#[test]
fn an_evaluation_allocates_only_in_the_ort_crate() {
    let (package, mut network) = bundled();
    let sigma = SigmaMap::Uniform(0.1);
    for limit in [512, 256] {
        let tiles = TilePlan::cut(300, 100, limit, None, package.manifest.locality()).unwrap();
        of_execute(&mut network, &denoise_plan(1, 0.0).unwrap(), &tiles, &sigma);
        for steps in [1, 3, 6] {
            let plan = denoise_plan(steps, 0.0).unwrap();
            let found = of_execute(&mut network, &plan, &tiles, &sigma);
            let by_ort = ORT_PER_EVALUATION * steps * tiles.count();
            assert_eq!(
                found,
                by_ort + usize::from(!tiles.is_whole()),
                "{steps} steps in {} tiles",
                tiles.count()
            );
        }
    }
}

#[test]
fn allocations_of_a_second_image_do_not_depend_on_its_size() {
    let (package, mut network) = bundled();
    for (steps, limit) in [(1, None), (1, Some(256)), (3, None), (3, Some(256))] {
        let mut of_frame = |width: usize, height: usize| {
            let options = DenoiseOptions {
                sigma: SigmaChoice::Known(25.0),
                steps: Some(steps),
                tile: TileChoice { limit, overlap: None },
                ..DenoiseOptions::default()
            };
            let mut frames: Vec<Image> = (0..3).map(|_| noisy(width, height, 3, 8)).collect();
            let mut denoiser = Denoiser::new(&package.manifest, &mut network, options).unwrap();
            let mut evaluations = 0;
            let counts: Vec<usize> = frames
                .iter_mut()
                .map(|frame| {
                    allocations(|| {
                        let report = denoiser.denoise(frame, &mut go_on).unwrap();
                        evaluations = report.steps * report.tiles;
                    })
                })
                .collect();
            let by_ort = ORT_PER_EVALUATION * evaluations;
            assert_eq!(counts[1], counts[2], "{counts:?}");
            assert!(counts[1] < counts[0], "the first frame binds the buffers: {counts:?}");
            counts[1] - by_ort
        };
        let (small, large) = (of_frame(120, 90), of_frame(240, 200));
        assert_eq!(small, large, "{steps} steps");
        assert!(small <= 20, "{small} for {steps} steps, tiles of {limit:?}");
    }
}

#[test]
fn a_stream_frame_allocates_only_for_its_evaluation() {
    let (width, height) = (96, 64);
    let video = VideoFormat::new(width, height, Rate::of(25), "yuv420p".parse().unwrap());
    // The scene shifted by one pixel per frame, so that no tile is reused.
    let scene = |shift: usize| {
        let sample = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) as u8 / 2 + 64;
        let luma = (0..width * height).map(|i| sample(i / width * 4096 + i % width + shift));
        let bytes = luma.chain(std::iter::repeat_n(128, width * height / 2)).collect();
        VideoFrame { bytes, ..VideoFrame::default() }
    };
    for temporal in [false, true] {
        let (package, mut network) = bundled();
        let options =
            DenoiseOptions { sigma: SigmaChoice::Known(25.0), ..DenoiseOptions::default() };
        let denoiser = Denoiser::new(&package.manifest, &mut network, options).unwrap();
        let mut denoiser = denoiser.on_stream(&video, &video, temporal).unwrap();
        let mut output = VideoFrame::default();
        let go_on = &mut || ControlFlow::Continue(());
        for shift in 0..3 {
            denoiser.process(&scene(shift), &mut output, go_on).unwrap();
        }
        for shift in 3..6 {
            let input = scene(shift);
            let found = allocations(|| denoiser.process(&input, &mut output, go_on).unwrap());
            assert_eq!(found, ORT_PER_EVALUATION, "temporal: {temporal}");
        }
    }
}
