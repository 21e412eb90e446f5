//! `eddy bench --video`: frames per second of whole streams, by size, precision and `--temporal`.

use std::time::{Duration, Instant};

use eddy::diffusion::{NoiseAt, NoiseSource, Philox};
use eddy::machine::{self, PowerMeter};
use eddy::media::stream::{
    Chroma, PixelFormat, Rate, ReadOutcome, Sink, Source, VideoFormat, VideoFrame,
};
use eddy::model::{Package, Precision, Task};
use eddy::network::Network;
use eddy::task::{Budget, DenoiseOptions, Denoiser, TileChoice};
use eddy::video::{Candidate, ParallelChoice, PipelineOptions, RunStatus, StreamDenoiser, run};
use serde_json::{Value, json};

use super::console::Console;
use super::interrupt;
use super::options::{Opened, Size};

/// The sizes of the table.
pub(super) const SIZES: [[usize; 2]; 3] = [[640, 480], [1280, 720], [1920, 1080]];

/// Each measurement runs at least this many frames.
const MIN_FRAMES: u64 = 12;

/// What is measured, and for how long.
pub(super) struct VideoBench<'a> {
    pub(super) package: &'a Package,
    pub(super) opened: &'a Opened,
    /// One size, or all of the table.
    pub(super) size: Option<Size>,
    pub(super) precisions: Vec<Precision>,
    /// The duration of each measurement.
    pub(super) seconds: f64,
    pub(super) tile: TileChoice,
    pub(super) budget: Budget,
}

impl VideoBench<'_> {
    /// Prints the table, each row as soon as it is complete.
    pub(super) fn run(&self, console: Console) -> anyhow::Result<()> {
        let manifest = &self.package.manifest;
        if manifest.task != Task::Denoise {
            let problem = format!(
                "{} is not for denoising, which --video measures; leave --video out",
                manifest.name
            );
            return Err(eddy::Error::usage(problem).into());
        }
        let device = self.opened.device();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut head = format!(
            "{} on {device}, {}, {cores} threads: 4:2:0 video of a scene at rest with noise of \
             sigma 10 in RGB\n\
             \n\
             | size | precision | fps of the network alone | fps, one by one | fps | fps with \
             --temporal | peak memory |\n\
             |---|---|---|---|---|---|---|\n",
            manifest.name,
            machine::cpu_name(),
        );
        let sizes =
            self.size.map_or(SIZES.to_vec(), |Size { width, height }| vec![[width, height]]);
        for [width, height] in sizes {
            for precision in &self.precisions {
                let mut network = self.opened.load(&manifest.name, |runtime, options| {
                    self.package.load_with_fallback(runtime, *precision, options)
                })?;
                let bare = self.bare_fps(&mut network, [width, height])?;
                let mut fps = |mode| -> eddy::Result<(f64, Option<f64>)> {
                    let options = DenoiseOptions {
                        tile: self.tile,
                        budget: self.budget,
                        ..DenoiseOptions::default()
                    };
                    let denoiser = Denoiser::new(manifest, &mut network, options)?;
                    self.fps(Candidate { denoiser, precision: *precision }, [width, height], mode)
                };
                let (single, _) = fps(Mode::FrameByFrame)?;
                let (parallel, energy) = fps(Mode::InParallel)?;
                let (temporal, temporal_energy) = fps(Mode::Temporal)?;
                let peak = machine::peak_resident_memory();
                let mebibytes = peak as f64 / f64::from(1 << 20);
                let row = format!(
                    "| {width}x{height} | {precision} | {bare:.1} | {single:.1} | {parallel:.1} | \
                     {temporal:.1} | {mebibytes:.0} MiB |"
                );
                let record: Value = json!({
                    "model": manifest.name, "precision": precision.name(), "width": width,
                    "height": height,
                    "fps_network": bare, "fps_one_by_one": single, "fps": parallel,
                    "fps_temporal": temporal, "energy_j": energy,
                    "energy_temporal_j": temporal_energy,
                    "temperature_c": machine::temperature().map(|it| it.celsius),
                    "onnxruntime": self.opened.runtime.version(), "peak_resident_bytes": peak,
                    "device": device.to_string(), "cpu": machine::cpu_name(),
                    "threads": cores,
                });
                console.result(std::mem::take(&mut head) + &row, &record)?;
            }
        }
        Ok(())
    }

    /// Evaluations of whole frames per second, without anything around them.
    fn bare_fps(
        &self,
        network: &mut dyn Network,
        [width, height]: [usize; 2],
    ) -> eddy::Result<f64> {
        let manifest = &self.package.manifest;
        let side = |length: usize| {
            length.div_ceil(manifest.layout.pixels()).next_multiple_of(manifest.multiple_of)
        };
        network.bind([1, manifest.channels, side(height), side(width)])?;
        network.evaluate(1.0)?;
        let (started, mut count) = (Instant::now(), 0);
        while count < MIN_FRAMES || started.elapsed().as_secs_f64() < self.seconds {
            interrupt::check()?;
            network.evaluate(1.0)?;
            count += 1;
        }
        Ok(count as f64 / started.elapsed().as_secs_f64())
    }

    /// Frames per second, measured with the threads of a file stream, and the energy of a frame in
    /// joules, where the kernel reports it.
    fn fps(
        &self,
        candidate: Candidate<'_>,
        size: [usize; 2],
        mode: Mode,
    ) -> eddy::Result<(f64, Option<f64>)> {
        let source = Scene::new(size, Duration::from_secs_f64(self.seconds));
        let video = source.video.clone();
        let temporal = mode == Mode::Temporal;
        let mut denoiser = StreamDenoiser::new(vec![candidate], &video, &video, temporal, None)?;
        if mode == Mode::InParallel {
            denoiser = denoiser.with_frames_in_parallel(ParallelChoice::IfFaster)?;
        }
        let sink = NullSink(video);
        let mut power = PowerMeter::start();
        let watch = &mut |_: &RunStatus<'_>| {
            power.iter_mut().for_each(PowerMeter::sample);
            interrupt::poll()
        };
        let (summary, ended) =
            run(Box::new(source), Box::new(sink), &mut denoiser, PipelineOptions::default(), watch);
        ended?;
        let rate = summary.counters.rate();
        Ok((rate, power.and_then(|power| power.watts()).map(|watts| watts / rate)))
    }
}

/// How the frames of a stream are processed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One after the other.
    FrameByFrame,
    /// Several at the same time, where that is faster.
    InParallel,
    /// With previous ones.
    Temporal,
}

/// The bytes of `count` frames of the scene that is measured, in planar 4:2:0 of 8 bits.
pub(super) fn frames(size: [usize; 2], count: usize) -> eddy::Result<Vec<u8>> {
    let mut scene = Scene::new(size, Duration::MAX);
    let (mut frame, mut bytes) = (VideoFrame::default(), Vec::new());
    for _ in 0..count {
        scene.next(&mut frame)?;
        bytes.extend_from_slice(&frame.bytes);
    }
    Ok(bytes)
}

/// A static shaded scene with new noise in each frame, of limited duration.
struct Scene {
    video: VideoFormat,
    clean: Vec<u8>,
    noise: Vec<i8>,
    started: Option<Instant>,
    lasts: Duration,
    index: u64,
}

impl Scene {
    fn new([width, height]: [usize; 2], lasts: Duration) -> Self {
        let format = PixelFormat::Planar { chroma: Chroma::C420, bits: 8 };
        let video = VideoFormat::new(width, height, Rate::of(25), format);
        let luma = width * height;
        let bytes = video.bytes();
        let shade =
            |i: usize| 40.0 + 160.0 * (i % width + i / width) as f32 / (width + height) as f32;
        let clean = (0..bytes).map(|i| if i < luma { shade(i) as u8 } else { 120 }).collect();
        let mut normal = vec![0.0; bytes];
        Philox::new(0).fill(NoiseAt { step: 0, batch: 0, channel: 0, y: 0 }, 0, &mut normal);
        // White noise of 10 in red, green and blue, converted to luma and chroma of limited range.
        let sigma = |i: usize| if i < luma { 5.7 } else { 2.8 };
        let noise = normal.iter().enumerate().map(|(i, z)| (sigma(i) * z).round() as i8).collect();
        Self { video, clean, noise, started: None, lasts, index: 0 }
    }
}

impl Source for Scene {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn next(&mut self, frame: &mut VideoFrame) -> eddy::Result<ReadOutcome> {
        let started = *self.started.get_or_insert_with(Instant::now);
        if self.index >= MIN_FRAMES && started.elapsed() >= self.lasts {
            return Ok(ReadOutcome::End);
        }
        let luma = self.video.width * self.video.height;
        frame.bytes.resize(self.clean.len(), 0);
        // The noise of luma, and that of chroma, each from another offset.
        let parts = [(0..luma, 7919), (luma..self.clean.len(), 3571)];
        for (part, step) in parts {
            let noise = &self.noise[part.clone()];
            if noise.is_empty() {
                continue;
            }
            let shift = self.index as usize * step % noise.len();
            let noise = noise[shift..].iter().chain(&noise[..shift]);
            let clean = self.clean[part.clone()].iter().zip(noise);
            frame.bytes[part]
                .iter_mut()
                .zip(clean)
                .for_each(|(out, (v, z))| *out = v.saturating_add_signed(*z));
        }
        (frame.index, frame.time) = (self.index, self.video.rate.time_of(self.index));
        self.index += 1;
        Ok(ReadOutcome::Frame)
    }
}

/// A sink that discards frames.
struct NullSink(VideoFormat);

impl Sink for NullSink {
    fn video(&self) -> &VideoFormat {
        &self.0
    }

    fn write(&mut self, _frame: &VideoFrame) -> eddy::Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> eddy::Result<()> {
        Ok(())
    }
}
