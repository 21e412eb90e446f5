//! Runs the streaming pipeline of the binary with a sink of one's own: reading, denoising and
//! writing at the same time.
//!
//!     cargo run --release --example custom_sink

#![allow(clippy::print_stdout)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use eddy::Eddy;
use eddy::media::stream::{PixelFormat, Rate, ReadOutcome, Sink, Source, VideoFormat, VideoFrame};
use eddy::model::{Package, Precision};
use eddy::network::SessionOptions;
use eddy::task::{DenoiseOptions, Denoiser};
use eddy::video::{PipelineOptions, RunStatus, run};

struct Noise(VideoFormat, u8);

impl Source for Noise {
    fn video(&self) -> &VideoFormat {
        &self.0
    }

    fn next(&mut self, frame: &mut VideoFrame) -> eddy::Result<ReadOutcome> {
        self.1 += 1;
        let mut state = u32::from(self.1);
        frame.bytes.clear();
        frame.bytes.extend((0..self.0.bytes()).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            118 + (state >> 27) as u8
        }));
        (frame.index, frame.time) =
            (u64::from(self.1) - 1, Duration::from_millis(40) * u32::from(self.1));
        Ok(if self.1 > 4 { ReadOutcome::End } else { ReadOutcome::Frame })
    }
}

/// Keeps the mean of each frame: in place of a file, a socket or a screen.
struct Means(VideoFormat, Arc<Mutex<Vec<f64>>>);

impl Sink for Means {
    fn video(&self) -> &VideoFormat {
        &self.0
    }

    fn write(&mut self, frame: &VideoFrame) -> eddy::Result<()> {
        let sum: u64 = frame.bytes.iter().map(|&value| u64::from(value)).sum();
        if let Ok(mut means) = self.1.lock() {
            means.push(sum as f64 / frame.bytes.len() as f64);
        }
        Ok(())
    }

    fn finish(&mut self) -> eddy::Result<()> {
        Ok(())
    }
}

fn main() -> eddy::Result<()> {
    let format = VideoFormat::new(64, 48, Rate { frames: 25, seconds: 1 }, PixelFormat::I420);
    let means = Arc::new(Mutex::new(Vec::new()));
    let (source, sink) = (Noise(format.clone(), 0), Means(format.clone(), Arc::clone(&means)));

    let eddy = Eddy::new()?;
    let package = Package::find("camera")?;
    let mut network = package.load(eddy.runtime(), Precision::F32, SessionOptions::default())?;
    let denoiser = Denoiser::new(&package.manifest, &mut network, DenoiseOptions::default())?;
    let mut denoiser = denoiser.on_stream(&format, &format, true)?;
    let (summary, result) = run(
        Box::new(source),
        Box::new(sink),
        &mut denoiser,
        PipelineOptions::default(),
        &mut |_: &RunStatus<'_>| std::ops::ControlFlow::Continue(()),
    );
    result?;
    println!(
        "{} frames written, means {:.1?}",
        summary.counters.written,
        means.lock().map(|means| means.clone())
    );
    assert_eq!(summary.counters.written, 4);
    Ok(())
}
