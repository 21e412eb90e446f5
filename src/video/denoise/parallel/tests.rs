//! Changes between the two ways, and what keeps frames from being processed in parallel.

use std::collections::VecDeque;
use std::fs;
use std::ops::ControlFlow;

use super::ParallelChoice;
use crate::diffusion::{NoiseAt, NoiseSource, Philox};
use crate::media::stream::{Rate, VideoFormat, VideoFrame};
use crate::model::{NetworkWithFallback, Package, Precision};
use crate::network::{Library, Runtime, SessionOptions};
use crate::task::{Budget, DenoiseOptions, Denoiser};
use crate::video::lanes::Trials;
use crate::video::{FrameProcessor, StreamDenoiser};

const FRAMES: usize = 40;

fn video() -> VideoFormat {
    VideoFormat::new(96, 64, Rate::of(25), "yuv420p".parse().unwrap())
}

fn network(package: &Package, threads: usize) -> NetworkWithFallback<'_> {
    let runtime = Runtime::load(&Library::Embedded).unwrap();
    let options = SessionOptions { threads, ..SessionOptions::default() };
    package.load_with_fallback(&runtime, Precision::F32, options).unwrap()
}

fn frames() -> Vec<VideoFrame> {
    let frame = |index: usize| {
        let mut normal = vec![0.0; video().bytes()];
        let at = NoiseAt { step: index as u32, batch: 0, channel: 0, y: 0 };
        Philox::new(9).fill(at, 0, &mut normal);
        let bytes = normal.iter().map(|z| (90.0 + 2.0 * index as f32 + 9.0 * z) as u8);
        VideoFrame { bytes: bytes.collect(), ..VideoFrame::default() }
    };
    (0..FRAMES).map(frame).collect()
}

/// The frames in the order of a run. `before` is called before each is announced.
fn run(
    denoiser: &mut StreamDenoiser<'_>,
    before: &mut dyn FnMut(usize, &mut StreamDenoiser<'_>),
) -> Vec<Vec<u8>> {
    let frames = frames();
    let (mut waiting, mut found) = (VecDeque::new(), Vec::new());
    let mut process = |denoiser: &mut StreamDenoiser<'_>, frame: &VideoFrame| {
        let mut output = VideoFrame::default();
        denoiser.process(frame, &mut output, &mut || ControlFlow::Continue(())).unwrap();
        found.push(output.bytes);
    };
    for (index, frame) in frames.iter().enumerate() {
        before(index, denoiser);
        denoiser.announce(Some(frame));
        waiting.push_back(frame);
        while waiting.len() > denoiser.look_ahead() {
            process(denoiser, waiting.pop_front().unwrap());
        }
    }
    for frame in waiting {
        denoiser.announce(None);
        process(denoiser, frame);
    }
    found
}

#[test]
fn every_order_of_both_ways_gives_the_same_frames() {
    let package = Package::find("denoise-fast").unwrap();
    let options = DenoiseOptions::default;
    let mut single = network(&package, 1);
    let denoiser = Denoiser::new(&package.manifest, &mut single, options()).unwrap();
    let expected = run(&mut denoiser.on_stream(&video(), &video(), false).unwrap(), &mut |_, _| {});
    let mut network = network(&package, 2);
    // A bit for each of a few frames: whether it begins to be processed in parallel.
    for pattern in [0b1, 0b10, 0b0110, 0b1011_0100_1111_0001, 0b0111_1111_0000_0010_u32] {
        let denoiser = Denoiser::new(&package.manifest, &mut network, options()).unwrap();
        let denoiser = denoiser.on_stream(&video(), &video(), false).unwrap();
        let mut denoiser = denoiser.with_frames_in_parallel(ParallelChoice::IfFaster).unwrap();
        assert_eq!((denoiser.look_ahead(), denoiser.most_look_ahead()), (0, 3));
        let period = 32 - pattern.leading_zeros() as usize + 1;
        let mut chosen = 0;
        let found = run(&mut denoiser, &mut |index, denoiser| {
            let parallel = pattern >> (index % period) & 1 == 1;
            chosen += u64::from(parallel);
            denoiser.parallel.as_mut().unwrap().trials = (!parallel).then(|| Trials::new(2));
        });
        assert!(found == expected, "{pattern:b}");
        let statistics = denoiser.parallel_statistics().unwrap();
        assert_eq!((statistics.lanes, statistics.frames), (2, chosen));
        assert!(chosen > 0 && chosen < FRAMES as u64);
    }
}

#[test]
fn memory_that_is_short_allows_one_frame_at_a_time() {
    let package = Package::find("denoise-fast").unwrap();
    let mut network = network(&package, 2);
    let mut count = |max_memory| {
        let budget = Budget { max_memory };
        let options = DenoiseOptions { budget, ..DenoiseOptions::default() };
        let denoiser = Denoiser::new(&package.manifest, &mut network, options).unwrap();
        let denoiser = denoiser.on_stream(&video(), &video(), false).unwrap();
        let denoiser = denoiser.with_frames_in_parallel(ParallelChoice::IfFaster).unwrap();
        (denoiser.most_look_ahead(), denoiser.parallel_statistics().is_some())
    };
    let held = crate::machine::resident_memory();
    assert_eq!(count(held + (14 << 20)), (0, false));
    assert_eq!(count(held + (400 << 20)), (3, true));
}

/// As when memory for them is missing.
#[test]
fn a_stream_goes_on_when_copies_cannot_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/models/denoise-fast");
    for entry in fs::read_dir(bundled).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let package = Package::find(folder.path().to_str().unwrap()).unwrap();
    let mut network = network(&package, 2);
    drop(folder);
    let denoiser = Denoiser::new(&package.manifest, &mut network, DenoiseOptions::default());
    let denoiser = denoiser.unwrap().on_stream(&video(), &video(), false).unwrap();
    let mut denoiser = denoiser.with_frames_in_parallel(ParallelChoice::IfFaster).unwrap();
    let found = run(&mut denoiser, &mut |index, denoiser| {
        if index == 4 {
            assert_eq!(denoiser.most_look_ahead(), 3);
            denoiser.parallel.as_mut().unwrap().trials = None;
        }
    });
    assert_eq!((found.len(), denoiser.most_look_ahead()), (FRAMES, 0));
    assert_eq!(denoiser.parallel_statistics().unwrap().frames, 0);
}
