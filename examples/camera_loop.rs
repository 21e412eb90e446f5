//! Denoises what a camera gives, on a worker thread, with the help of previous frames.
//!
//!     cargo run --release --example camera_loop -- /dev/video0
//!
//! Without an argument frames are made up.

#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Duration;

use eddy::Eddy;
use eddy::media::still::Limits;
use eddy::media::stream::{
    CameraRequest, FormatOverrides, PixelFormat, Rate, ReadOutcome, Source, VideoFormat,
    VideoFrame, open,
};

/// A gray scene at rest, with noise.
struct Scene {
    format: VideoFormat,
    left: u64,
    state: u32,
}

impl Source for Scene {
    fn video(&self) -> &VideoFormat {
        &self.format
    }

    fn next(&mut self, frame: &mut VideoFrame) -> eddy::Result<ReadOutcome> {
        if self.left == 0 {
            return Ok(ReadOutcome::End);
        }
        self.left -= 1;
        frame.bytes.clear();
        frame.bytes.extend((0..self.format.bytes()).map(|_| {
            self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            118 + (self.state >> 27) as u8
        }));
        frame.index += 1;
        frame.time += Duration::from_millis(40);
        Ok(ReadOutcome::Frame)
    }
}

fn main() -> eddy::Result<()> {
    let source: Box<dyn Source> = match std::env::args().nth(1) {
        Some(device) => open(
            &[PathBuf::from(device)],
            CameraRequest::default(),
            FormatOverrides::default(),
            Limits::default(),
        )?,
        None => {
            let format =
                VideoFormat::new(128, 96, Rate { frames: 25, seconds: 1 }, PixelFormat::I420);
            Box::new(Scene { format, left: 5, state: 1 })
        }
    };
    let pipeline = Eddy::new()?.denoiser("camera")?;
    let worker = std::thread::spawn(move || -> eddy::Result<usize> {
        let mut count = 0;
        for frame in pipeline.stream(source)? {
            let image = frame?.to_rgb()?;
            // Here it would be shown, or given to a detector.
            count += 1;
            println!("frame {count}: {}x{}", image.width, image.height);
        }
        Ok(count)
    });
    let count = worker.join().unwrap_or(Ok(0))?;
    println!("{count} frames");
    assert!(count > 0, "the stream is empty");
    Ok(())
}
