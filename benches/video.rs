//! What a stream's image takes beside the network, at the size of a camera's frame.

// The macros of criterion make a public function without documentation.
#![allow(missing_docs, clippy::expect_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use eddy::diffusion::{NoiseAt, NoiseSource, Philox};
use eddy::media::stream::{Rate, VideoFormat};
use eddy::tensor::{FrameConverter, Range};
use eddy::video::{Planes, Temporal};
use std::hint::black_box;

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
const SIGMA: f32 = 0.06;

/// A scene with noise, `[3, height, width]`.
fn image(seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; 3 * WIDTH * HEIGHT];
    for (row, values) in values.chunks_exact_mut(WIDTH).enumerate() {
        let y = row % HEIGHT;
        Philox::new(seed).fill(
            NoiseAt { step: 0, batch: 0, channel: (row / HEIGHT) as u32, y: y as u32 },
            0,
            values,
        );
        for (x, value) in values.iter_mut().enumerate() {
            *value = 0.5 + SIGMA * *value + 0.3 * ((x / 40 + y / 30) % 2) as f32;
        }
    }
    values
}

fn video(criterion: &mut Criterion) {
    let images = [image(0), image(1), image(2)];
    let mut temporal = Temporal::new(Planes::full(3, WIDTH, HEIGHT));
    let (mut x, mut sigma, mut i) = (images[0].clone(), [vec![SIGMA; WIDTH * HEIGHT]], 0);
    criterion.bench_function("video/temporal_1280x720", |bencher| {
        bencher.iter(|| {
            i += 1;
            x.copy_from_slice(&images[i % images.len()]);
            sigma[0].fill(SIGMA);
            temporal.track(&x, f64::from(SIGMA * SIGMA));
            temporal.fuse(black_box(&mut x), black_box(&mut sigma));
        });
    });
    let video = VideoFormat::new(WIDTH, HEIGHT, Rate::of(25), "yuv420p".parse().expect("a format"));
    let mut stream = FrameConverter::new(&video, 3, Range::UNIT).expect("three channels");
    let mut bytes = Vec::new();
    criterion.bench_function("video/write_yuv420p_1280x720", |bencher| {
        bencher.iter(|| stream.write(black_box(&images[0]), black_box(&mut bytes)));
    });
    criterion.bench_function("video/read_yuv420p_1280x720", |bencher| {
        bencher.iter(|| stream.read(black_box(&bytes), black_box(&mut x)));
    });
}

criterion_group!(benches, video);
criterion_main!(benches);
