//! `eddy profile`.

use std::path::PathBuf;

use clap::Args;
use eddy::media::stream::{self, CameraRequest, FormatOverrides, ReadOutcome, VideoFrame};
use eddy::media::{source, still};
use eddy::task::{ColorModel, Method, NoiseLine, NoiseProfile, Profiler, YuvPlanes};
use eddy::tensor::{YuvFrameConverter, grid_of};
use serde_json::json;

use super::console::Console;
use super::interrupt;
use super::options::SyncOption;

/// Measure a camera's noise
///
/// The model is `variance = a * signal + b` in each channel, with signals from 0 (black) to 1
/// (white). Several images must be frames of a static scene with the same settings; 8 or more of a
/// scene with dark and bright parts are best. In a single image, its smooth parts are measured. In
/// video, the first 32 frames are measured, in luma and chroma; use raw frames or MJPEG, since
/// codecs such as H.264 repeat static areas with their noise.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  eddy profile still/ -o camera.toml && eddy denoise photo.png -o clean.png \
                  --noise-profile camera.toml\n  \
                  eddy profile /dev/video0 -o camera.toml && eddy denoise /dev/video0 -o clean.mp4 \
                  --noise-profile camera.toml")]
pub(crate) struct Arguments {
    /// An image, or frames of a still scene: images or folders of images (PNG, JPEG, WebP, TIFF,
    /// BMP, QOI), or one video
    #[arg(required = true, value_name = "SOURCE", help_heading = "Input and output")]
    sources: Vec<PathBuf>,

    /// The noise profile to write, a small TOML file
    #[arg(short, long, value_name = "FILE", help_heading = "Input and output")]
    output: PathBuf,

    #[command(flatten)]
    sync: SyncOption,

    #[command(flatten)]
    console: Console,
}

/// The number of frames of a video to measure.
const FRAMES: usize = 32;

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.sync.apply();
        NoiseProfile::check(&self.output)?;
        source::refuse_replacing(&self.sources, &self.output)?;
        source::refuse_lists(&self.sources, &self.output)?;
        let mut profiler = Profiler::new();
        if self.sources.iter().any(|source| stream::is_source(source)) {
            self.measure_video(&mut profiler)?;
        } else {
            for path in &source::together(&self.sources, &self.output)? {
                interrupt::check()?;
                profiler.add(path, still::read(path, &still::Limits::default())?.upright())?;
            }
        }
        let profile = profiler.finish()?;
        profile.write(&self.output)?;
        self.report(&profile)
    }

    /// Measures the first frames of a video.
    fn measure_video(&self, profiler: &mut Profiler) -> anyhow::Result<()> {
        let _opening = interrupt::guard_opening(None);
        let mut source = stream::open(
            &self.sources,
            CameraRequest::default(),
            FormatOverrides::default(),
            still::Limits::default(),
        )?;
        let video = source.video().clone();
        let mut frames = YuvFrameConverter::new(&video, &video)?;
        let grid = grid_of([video.width, video.height]);
        let bits = video.format.bits();
        let mut image = VideoFrame::default();
        let mut frames_read = 0;
        while frames_read < FRAMES {
            interrupt::check()?;
            match source.next(&mut image)? {
                ReadOutcome::Frame => {
                    let mut samples = vec![0.0; 6 * grid[0] * grid[1]];
                    frames.read(&image.bytes, &mut samples);
                    profiler.add_planes(&self.sources[0], YuvPlanes { samples, grid, bits })?;
                    frames_read += 1;
                }
                ReadOutcome::End => break,
                ReadOutcome::Corrupt(problem) | ReadOutcome::Disconnected(problem) => {
                    return Err(eddy::Error::input(&self.sources[0], problem).into());
                }
                ReadOutcome::Waiting => {}
            }
        }
        Ok(())
    }

    fn report(&self, profile: &NoiseProfile) -> anyhow::Result<()> {
        let names: &[&str] = match (profile.color_model, profile.channels.len()) {
            (ColorModel::Yuv, _) => &["luma", "Cb", "Cr"],
            (ColorModel::Rgb, 1) => &["gray"],
            (ColorModel::Rgb, _) => &["red", "green", "blue"],
        };
        let from = match profile.method {
            Method::Frames => format!("{} frames", profile.frames),
            Method::Image => "one image".to_owned(),
        };
        let mut text = format!(
            "{}: the noise of {from} of {}x{}",
            self.output.display(),
            profile.width,
            profile.height
        );
        for (name, line) in names.iter().zip(&profile.channels) {
            text += &format!("\n  {name}: {}", describe(line));
        }
        let channels: Vec<_> = profile
            .channels
            .iter()
            .map(|line| {
                json!({
                    "a": line.a, "b": line.b, "signal": line.signal, "flat": line.is_flat(),
                })
            })
            .collect();
        let record = json!({
            "output": self.output.to_string_lossy(), "method": profile.method.name(),
            "frames": profile.frames,
            "width": profile.width, "height": profile.height,
            "color_model": profile.color_model.name(), "channels": channels,
        });
        self.console.report(text, &record)
    }
}

fn describe(line: &NoiseLine) -> String {
    let NoiseLine { a, b, signal: [low, high] } = line;
    let sigma = |signal: f64| 255.0 * line.variance(signal).sqrt();
    if line.is_flat() {
        return format!(
            "variance = {b:.3e} at signal {low:.2} (sigma {:.1} in 8-bit units); the scene is too \
             flat to measure how it depends on the signal, so a = 0",
            sigma(*low)
        );
    }
    let remark = if *a == 0.0 { "; it does not grow with the signal" } else { "" };
    format!(
        "variance = {a:.3e} * signal + {b:.3e}, measured from {low:.2} to {high:.2} (sigma {:.1} \
         to {:.1} in 8-bit units){remark}",
        sigma(*low),
        sigma(*high)
    )
}
