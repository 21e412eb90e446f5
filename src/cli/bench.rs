//! `eddy bench`.

use std::time::{Duration, Instant};

use clap::Args;
use eddy::machine;
use eddy::model::Precision;
use eddy::network::Network;
use serde_json::json;

use super::bench_video::VideoBench;
use super::dry_run::{DryRun, noisy_frame};
use super::onnx_options::OnnxOptions;
use super::options::Size;
use super::run_args::RunArgs;

/// Measure the speed of a model: the time of a frame, or frames per second of video
///
/// Rounds alternate between evaluations of the network alone and whole frames (pixels in, pixels
/// out) with as many evaluations, so that disturbances affect both. Their medians are reported, and
/// the ratio of the two, which is Eddy's own overhead. With --video, a table of frames per second
/// of denoised streams is printed, by size and precision: evaluations of whole frames alone, frames
/// of a file one by one, several at the same time where that is faster, and with --temporal.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A bundled model, the folder of a model package or an .onnx file
    #[arg(value_name = "MODEL")]
    model: String,

    /// Measure frames per second of video, at 640x480, 1280x720 and 1920x1080 or at --size, each
    /// for --seconds
    #[arg(long, conflicts_with = "steps")]
    video: bool,

    /// Size of the frame; by default 640x480
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,

    /// Evaluations per frame
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    steps: u16,

    /// Duration of the measurement in seconds
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,

    #[command(flatten)]
    onnx: OnnxOptions,

    #[command(flatten)]
    run: RunArgs,
}

impl Arguments {
    pub(crate) fn run(self, started: Instant) -> anyhow::Result<()> {
        let package = self.onnx.find(&self.model, &self.run.device, self.run.console)?;
        let opened = self.run.open()?;
        let device = opened.device();
        if self.video {
            let precisions = match self.run.precision.requested() {
                Some(precision) => vec![precision],
                None => package
                    .precisions(None)?
                    .into_iter()
                    .filter(|p| device.is_gpu() || *p != Precision::F16)
                    .collect(),
            };
            let (tile, budget) = (self.run.memory.tile(), self.run.memory.budget());
            let (package, opened, size, seconds) = (&package, &opened, self.size, self.seconds);
            return VideoBench { package, opened, size, precisions, seconds, tile, budget }
                .run(self.run.console);
        }
        let size = self.size.unwrap_or(Size { width: 640, height: 480 });
        let precision = self.run.precision.on(device, &package);
        let mut network = opened.network(&package, precision)?;
        let start_up = started.elapsed();
        let dry_run = DryRun {
            steps: self.steps.into(),
            tile: self.run.memory.tile(),
            budget: self.run.memory.budget(),
        };
        let noisy = noisy_frame(size);
        let whole_frame = |network: &mut dyn Network| -> eddy::Result<(Duration, usize)> {
            let image = noisy.clone();
            let started = Instant::now();
            let evaluations = dry_run.run(&package.manifest, network, image)?;
            Ok((started.elapsed(), evaluations))
        };
        // Binds the buffers and warms up.
        let (_, evaluations) = whole_frame(&mut network)?;
        let (mut bare, mut whole) = (Vec::new(), Vec::new());
        let started = Instant::now();
        while bare.len() < 5 || started.elapsed().as_secs_f64() < self.seconds {
            let one = Instant::now();
            for _ in 0..evaluations {
                network.evaluate(1.0)?;
            }
            bare.push(one.elapsed().as_secs_f64() * 1e3);
            whole.push(whole_frame(&mut network)?.0.as_secs_f64() * 1e3);
        }
        // A disturbance affects one half of a round, which the median of the rounds' ratios
        // ignores.
        let mut ratios: Vec<f64> =
            whole.iter().zip(&bare).map(|(whole, bare)| whole / bare).collect();
        let rounds = bare.len();
        let (bare, whole, ratio) = (median(&mut bare), median(&mut whole), median(&mut ratios));
        let start_up = start_up.as_secs_f64() * 1e3;
        let peak = machine::peak_resident_memory();
        let name = &package.manifest.name;
        let Size { width, height } = size;
        let text = format!(
            "{name} {precision} on {device}, {width}x{height}, {evaluations} evaluations a frame, \
             medians of {rounds} rounds\n  \
             bare session   {bare:8.2} ms\n  \
             whole frame    {whole:8.2} ms\n  \
             ratio          {ratio:8.3}\n  \
             start-up       {start_up:8.2} ms\n  \
             peak resident  {:8.1} MiB",
            peak as f64 / f64::from(1 << 20)
        );
        let record = json!({
            "model": name, "precision": precision.name(), "width": width, "height": height,
            "steps": self.steps, "evaluations": evaluations,
            "rounds": rounds, "session_ms": bare, "frame_ms": whole, "ratio": ratio,
            "start_up_ms": start_up,
            "peak_resident_bytes": peak, "onnxruntime": opened.runtime.version(),
            "device": device.to_string(),
        });
        self.run.console.result(text, &record)
    }
}

fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}
