//! Pixels to planes and back, at the size of a camera's frame.

// The macros of criterion make a public function without documentation.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use eddy::media::{Image, Metadata, Samples};
use eddy::tensor::{Range, read_planes, write_planes};
use std::hint::black_box;

const WIDTH: usize = 640;
const HEIGHT: usize = 480;

fn frame(channels: usize, bits: usize) -> Image {
    let count = WIDTH * HEIGHT * channels;
    let samples = match bits {
        8 => Samples::U8((0..count).map(|at| (at * 31) as u8).collect()),
        _ => Samples::U16((0..count).map(|at| (at * 31) as u16).collect()),
    };
    Image { width: WIDTH, height: HEIGHT, channels, samples, metadata: Metadata::default() }
}

fn tensor(criterion: &mut Criterion) {
    let mut planes = vec![0.0; 3 * WIDTH * HEIGHT];
    for (channels, bits, name) in
        [(3, 8, "rgb8"), (4, 8, "rgba8"), (3, 16, "rgb16"), (1, 8, "gray8")]
    {
        let mut frame = frame(channels, bits);
        criterion.bench_function(&format!("tensor/read_{name}_640x480"), |bencher| {
            bencher.iter(|| read_planes(black_box(&frame), Range::UNIT, black_box(&mut planes)));
        });
        criterion.bench_function(&format!("tensor/write_{name}_640x480"), |bencher| {
            bencher.iter(|| write_planes(black_box(&planes), Range::UNIT, black_box(&mut frame)));
        });
    }
}

criterion_group!(benches, tensor);
criterion_main!(benches);
