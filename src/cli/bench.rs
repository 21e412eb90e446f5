//! `eddy bench`.

use std::time::{Duration, Instant};

use clap::Args;
use eddy::machine::{self, PowerMeter};
use eddy::model::{Package, Precision};
use eddy::network::Network;
use serde_json::json;

use super::bench_suite::{Suite, SuiteOptions};
use super::bench_video::VideoBench;
use super::dry_run::{DryRun, noisy_frame};
use super::io_args::evaluations as count_of;
use super::onnx_options::OnnxOptions;
use super::options::{Opened, Size};
use super::run_args::RunArgs;

/// Measure the speed of a model: the time of a frame, or frames per second of video
///
/// Rounds alternate between evaluations of the network alone and whole frames (pixels in, pixels
/// out) with as many evaluations, so that disturbances affect both. Their medians are reported, and
/// the ratio of the two, which is Eddy's own overhead. With --video, a table of frames per second
/// of denoised streams is printed, by size and precision: evaluations of whole frames alone, frames
/// of a file one by one, several at the same time where that is faster, and with --temporal. With
/// --suite, the whole machine is measured, which takes up to ten minutes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples: eddy bench denoise-fast --size 1280x720\n          eddy bench --suite -o \
                  board.json --compare before.json"
)]
pub(crate) struct Arguments {
    /// A bundled model, the folder of a model package or an .onnx file
    #[arg(value_name = "MODEL", required_unless_present = "suite")]
    model: Option<String>,

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

    /// Duration of the measurement in seconds, by default 5; of each figure with --suite, by
    /// default 1
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<f64>,

    /// End after this many seconds although there are fewer than five rounds
    #[arg(long, value_name = "S", value_parser = seconds, hide = true)]
    within: Option<f64>,

    #[command(flatten)]
    suite: SuiteOptions,

    #[command(flatten)]
    onnx: OnnxOptions,

    #[command(flatten)]
    run: RunArgs,
}

/// Each measurement has at least this many rounds.
const MIN_ROUNDS: usize = 5;

impl Arguments {
    pub(crate) fn run(self, started: Instant) -> anyhow::Result<()> {
        let Some(model) = &self.model else {
            self.onnx.refuse()?;
            let seconds = self.seconds.unwrap_or(1.0);
            return Suite { options: &self.suite, run: &self.run, seconds }.run();
        };
        let seconds = self.seconds.unwrap_or(5.0);
        let package = self.onnx.find(model, &self.run.device, self.run.console)?;
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
            let (package, opened, size) = (&package, &opened, self.size);
            return VideoBench { package, opened, size, precisions, seconds, tile, budget }
                .run(self.run.console);
        }
        self.image(&package, &opened, seconds, started)
    }

    /// Measures whole images, in rounds with the network alone.
    fn image(
        &self,
        package: &Package,
        opened: &Opened,
        seconds: f64,
        started: Instant,
    ) -> anyhow::Result<()> {
        let size = self.size.unwrap_or(Size { width: 640, height: 480 });
        let device = opened.device();
        let precision = self.run.precision.on(device, package);
        let mut network = opened.network(package, precision)?;
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
        let mut power = PowerMeter::start();
        let (started, within) = (Instant::now(), self.within.unwrap_or(f64::INFINITY));
        let goes_on = |rounds: usize| {
            let elapsed = started.elapsed().as_secs_f64();
            rounds == 0 || elapsed < seconds || (rounds < MIN_ROUNDS && elapsed < within)
        };
        while goes_on(bare.len()) {
            let one = Instant::now();
            for _ in 0..evaluations {
                network.evaluate(1.0)?;
            }
            bare.push(one.elapsed().as_secs_f64() * 1e3);
            whole.push(whole_frame(&mut network)?.0.as_secs_f64() * 1e3);
            power.iter_mut().for_each(PowerMeter::sample);
        }
        let temperature = machine::temperature().map(|it| it.celsius);
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
        // The power of both halves of a round is about the same.
        let energy = power.and_then(|power| power.watts()).map(|watts| watts * whole / 1e3);
        let mut text = format!(
            "{name} {precision} on {device}, {width}x{height}, {} a frame, \
             medians of {rounds} rounds\n  \
             bare session   {bare:8.2} ms\n  \
             whole frame    {whole:8.2} ms\n  \
             ratio          {ratio:8.3}\n  \
             start-up       {start_up:8.2} ms\n  \
             peak resident  {:8.1} MiB",
            count_of(evaluations),
            peak as f64 / f64::from(1 << 20)
        );
        if let Some(energy) = energy {
            text += &format!("\n  energy         {energy:8.3} J a frame");
        }
        if let Some(celsius) = temperature {
            text += &format!("\n  temperature    {celsius:8.1} °C at the end");
        }
        let record = json!({
            "model": name, "precision": precision.name(), "width": width, "height": height,
            "steps": self.steps, "evaluations": evaluations,
            "rounds": rounds, "session_ms": bare, "frame_ms": whole, "ratio": ratio,
            "start_up_ms": start_up, "energy_j": energy, "temperature_c": temperature,
            "peak_resident_bytes": peak, "onnxruntime": opened.runtime.version(),
            "device": device.to_string(),
        });
        self.run.console.result(text, &record)
    }
}

/// Seconds of a measurement.
fn seconds(text: &str) -> Result<f64, &'static str> {
    let parsed = text.parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    parsed.ok_or("expected seconds, 0 to 86400")
}

/// The median of values, of which there must be one.
pub(super) fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}
