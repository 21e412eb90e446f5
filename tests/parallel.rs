//! Streams whose frames are processed at the same time, compared with one frame after the other.

// Test helpers may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::ops::ControlFlow;

use eddy::Error;
use eddy::diffusion::{NoiseAt, NoiseSource, Philox};
use eddy::media::stream::{Rate, VideoFormat, VideoFrame};
use eddy::model::{NetworkWithFallback, Package, Precision};
use eddy::network::{Library, Runtime, SessionOptions};
use eddy::task::{DenoiseOptions, Denoiser, SigmaChoice, Strength, TileChoice};
use eddy::video::{FrameProcessor, ParallelChoice, SettingsUpdate, StreamDenoiser};

const FRAMES: usize = 11;

/// A network on `threads` threads.
fn network(package: &Package, precision: Precision, threads: usize) -> NetworkWithFallback<'_> {
    let runtime = Runtime::load(&Library::Embedded).unwrap();
    let options = SessionOptions { threads, ..SessionOptions::default() };
    package.load_with_fallback(&runtime, precision, options).unwrap()
}

/// Frames of noise around a level that changes; one of them is black, without noise.
fn frames(video: &VideoFormat) -> Vec<VideoFrame> {
    let frame = |index: usize| {
        let mut normal = vec![0.0; video.bytes()];
        let at = NoiseAt { step: index as u32, batch: 0, channel: 0, y: 0 };
        Philox::new(5).fill(at, 0, &mut normal);
        let sigma = if index == 3 { 0.0 } else { 4.0 + 2.0 * index as f32 };
        let bytes = normal
            .iter()
            .enumerate()
            .map(|(i, z)| (100.0 + 8.0 * index as f32 + (i % 97) as f32 * 0.3 + sigma * z) as u8);
        VideoFrame { bytes: bytes.collect(), ..VideoFrame::default() }
    };
    (0..FRAMES).map(frame).collect()
}

/// Processes frames as the pipeline does. `before` is called before each frame is processed.
fn results(
    denoiser: &mut StreamDenoiser<'_>,
    frames: &[VideoFrame],
    before: &mut dyn FnMut(usize, &mut StreamDenoiser<'_>),
) -> Vec<(Vec<u8>, Option<f64>)> {
    let (mut waiting, mut found) = (VecDeque::new(), Vec::new());
    let arriving = frames.iter().map(Some).chain(std::iter::repeat(None));
    for next in arriving {
        denoiser.announce(next);
        waiting.extend(next);
        if waiting.len() > denoiser.look_ahead() || next.is_none() {
            let Some(frame) = waiting.pop_front() else { break };
            before(found.len(), denoiser);
            let mut output = VideoFrame::default();
            let on = &mut || ControlFlow::Continue(());
            denoiser.process(frame, &mut output, on).unwrap();
            found.push((output.bytes, denoiser.stream_status().sigma));
        }
    }
    found
}

fn video(width: usize, height: usize, format: &str) -> VideoFormat {
    VideoFormat::new(width, height, Rate::of(25), format.parse().unwrap())
}

#[test]
fn frames_in_parallel_have_the_same_bits() {
    let tile = |limit| TileChoice { limit, overlap: None };
    let known = SigmaChoice::Known(12.0);
    let auto = SigmaChoice::Auto;
    let cases = [
        ("denoise-fast", "yuv420p", [96, 64], (known.clone(), 1, 1.0, None)),
        ("denoise-fast", "rgb24", [61, 45], (auto.clone(), 1, 1.0, None)),
        ("denoise-fast", "yuv420p", [320, 40], (auto.clone(), 2, 0.6, Some(256))),
        ("camera", "yuv420p", [130, 94], (auto.clone(), 1, 1.0, None)),
        ("camera", "yuv444p", [61, 45], (auto.clone(), 1, 0.5, None)),
        ("camera", "rgb24", [64, 48], (known, 1, 1.0, None)),
        ("camera", "gray", [64, 48], (auto, 1, 1.0, None)),
    ];
    for (model, format, [width, height], (sigma, steps, strength, limit)) in cases {
        let package = Package::find(model).unwrap();
        let video = video(width, height, format);
        let frames = frames(&video);
        let options = DenoiseOptions {
            sigma,
            steps: Some(steps),
            strength: Strength::new(strength).unwrap(),
            tile: tile(limit),
            ..DenoiseOptions::default()
        };
        let run = |threads, parallel| {
            let mut network = network(&package, Precision::F32, threads);
            let denoiser = Denoiser::new(&package.manifest, &mut network, options.clone()).unwrap();
            let mut denoiser = denoiser.on_stream(&video, &video, false).unwrap();
            if parallel {
                denoiser = denoiser.with_frames_in_parallel(ParallelChoice::Always).unwrap();
                assert_eq!(denoiser.frames_in_process(), 2 * threads, "{model} {format}");
            }
            results(&mut denoiser, &frames, &mut |_, _| {})
        };
        let expected = run(1, false);
        assert_eq!(expected.len(), FRAMES);
        assert!(expected.iter().zip(&frames).filter(|(a, b)| a.0 != b.bytes).count() > FRAMES / 2);
        for threads in [2, 3] {
            assert!(run(threads, true) == expected, "{model} {format}, {threads} threads");
        }
    }
}

#[test]
fn one_thread_processes_one_frame_at_a_time() {
    let package = Package::find("denoise-fast").unwrap();
    let mut network = network(&package, Precision::F32, 1);
    let video = video(96, 64, "yuv420p");
    let denoiser = Denoiser::new(&package.manifest, &mut network, DenoiseOptions::default());
    let denoiser = denoiser.unwrap().on_stream(&video, &video, false).unwrap();
    let denoiser = denoiser.with_frames_in_parallel(ParallelChoice::Always).unwrap();
    assert_eq!((denoiser.frames_in_process(), denoiser.look_ahead()), (1, 0));
}

/// Frames that were announced before a change keep their settings; later ones have the new ones.
#[test]
fn settings_apply_to_frames_that_were_not_announced() {
    let package = Package::find("denoise-fast").unwrap();
    let video = video(96, 64, "yuv420p");
    let frames = frames(&video);
    let with = |sigma: f64| DenoiseOptions {
        sigma: SigmaChoice::Known(sigma),
        ..DenoiseOptions::default()
    };
    let mut network_ = network(&package, Precision::F32, 2);
    let mut plain = |sigma| {
        let denoiser = Denoiser::new(&package.manifest, &mut network_, with(sigma)).unwrap();
        let mut denoiser = denoiser.on_stream(&video, &video, false).unwrap();
        results(&mut denoiser, &frames, &mut |_, _| {})
    };
    let (before, after) = (plain(5.0), plain(20.0));
    for temporal in [None, Some(true)] {
        let mut network = network(&package, Precision::F32, 2);
        let denoiser = Denoiser::new(&package.manifest, &mut network, with(5.0)).unwrap();
        let denoiser = denoiser.on_stream(&video, &video, false).unwrap();
        let mut denoiser = denoiser.with_frames_in_parallel(ParallelChoice::Always).unwrap();
        let ahead = denoiser.look_ahead();
        assert_eq!(ahead, 3);
        let found = results(&mut denoiser, &frames, &mut |index, denoiser| {
            if index == 2 {
                let sigma = Some(SigmaChoice::Known(20.0));
                let update = SettingsUpdate { sigma, temporal, ..SettingsUpdate::default() };
                denoiser.apply_settings(&update).unwrap();
            }
        });
        assert_eq!(found.len(), FRAMES);
        let announced = 2 + ahead + 1;
        assert!(found[..announced] == before[..announced], "{temporal:?}");
        if temporal.is_none() {
            assert!(found[announced..] == after[announced..]);
        } else {
            assert_eq!(denoiser.frames_in_process(), 1);
            assert_eq!(denoiser.temporal_statistics().map(|it| it.computed > 0.0), Some(true));
        }
    }
}

#[test]
fn a_stop_request_ends_a_wait_for_frames() {
    let package = Package::find("denoise-fast").unwrap();
    let video = video(96, 64, "yuv420p");
    let frames = frames(&video);
    let mut network = network(&package, Precision::F32, 2);
    let denoiser = Denoiser::new(&package.manifest, &mut network, DenoiseOptions::default());
    let denoiser = denoiser.unwrap().on_stream(&video, &video, false).unwrap();
    let mut denoiser = denoiser.with_frames_in_parallel(ParallelChoice::Always).unwrap();
    frames[..4].iter().for_each(|frame| denoiser.announce(Some(frame)));
    let mut output = VideoFrame::default();
    let stop = &mut || ControlFlow::Break(());
    let error = denoiser.process(&frames[0], &mut output, stop).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
}
