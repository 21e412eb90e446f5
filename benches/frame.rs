//! A whole frame, pixels in and pixels out, beside the bare session that it takes.

// The macros of criterion make a public function without documentation.
#![allow(missing_docs, clippy::panic)]

use std::ops::ControlFlow;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use eddy::Result;
use eddy::media::{Image, Metadata, Samples};
use eddy::model::{Package, Precision};
use eddy::network::{Library, Network, Runtime, SessionOptions};
use eddy::task::{DenoiseOptions, Denoiser, SigmaChoice, TileChoice};

const WIDTH: usize = 640;
const HEIGHT: usize = 480;

fn frame(criterion: &mut Criterion) {
    if let Err(error) = measure(criterion) {
        panic!("nothing to measure is no success: {error}");
    }
}

fn measure(criterion: &mut Criterion) -> Result<()> {
    let package = Package::find("denoise-fast")?;
    let runtime = Runtime::load(&Library::Embedded)?;
    let mut network = package.load(&runtime, Precision::F32, SessionOptions::default())?;
    let mut group = criterion.benchmark_group("frame");
    group.sample_size(20);
    network.bind([1, 3, HEIGHT, WIDTH])?;
    group.bench_function("bare_session_640x480", |bencher| {
        bencher.iter(|| network.evaluate(1.0).map(<[f32]>::len));
    });
    let samples = Samples::U8((0..3 * WIDTH * HEIGHT).map(|at| (at * 31 % 251) as u8).collect());
    let noisy =
        Image { width: WIDTH, height: HEIGHT, channels: 3, samples, metadata: Metadata::default() };
    for (name, steps, limit) in
        [("1_step", 1, None), ("3_steps", 3, None), ("1_step_tiled", 1, Some(360))]
    {
        let options = DenoiseOptions {
            sigma: SigmaChoice::Known(25.0),
            steps: Some(steps),
            tile: TileChoice { limit, overlap: None },
            ..DenoiseOptions::default()
        };
        let mut denoiser = Denoiser::new(&package.manifest, &mut network, options)?;
        group.bench_function(format!("{name}_640x480"), |bencher| {
            bencher.iter_batched(
                || noisy.clone(),
                |mut frame| -> Result<_> {
                    let report =
                        denoiser.denoise(&mut frame, &mut |_| ControlFlow::Continue(()))?;
                    Ok((report, frame))
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    Ok(())
}

criterion_group!(benches, frame);
criterion_main!(benches);
