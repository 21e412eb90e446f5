//! `eddy denoise`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use clap::Args;
use eddy::model::{Package, Precision};
use eddy::network::{Device, SessionOptions};
use eddy::task::{DenoiseOptions, Denoiser, NoiseProfile, SigmaChoice};
use eddy::video::{Candidate, Restore, StreamDenoiser, record};
use serde_json::{Value, json};

use super::console::Console;
use super::interrupt;
use super::options::{DeviceOptions, MemoryOptions, PrecisionOption, SamplingOptions};
use super::pictures::{Pictures, Turn, repeated, steps, tiles};
use super::stream::{Stream, StreamOptions};

/// Take the noise out of pictures and streams
///
/// Each picture is read, denoised and written before the next; one that fails is complained of and the others go on.
/// Of a stream, pictures are read, denoised and written at the same time.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eddy denoise photo.png -o clean.png\n  ffmpeg -i in.mp4 -f yuv4mpegpipe - | eddy denoise - -o clean.mp4"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pictures: Pictures,

    /// A bundled model or the folder of a model package; `denoise-fast` when left out, or with --fps or --deadline-ms the best
    /// that keeps up
    #[arg(short, long, value_name = "MODEL", help_heading = "Model")]
    model: Option<String>,

    #[command(flatten)]
    precision: PrecisionOption,

    /// Standard deviation of the noise in 8-bit units, such as 25; `auto` estimates it
    #[arg(long, value_name = "auto|SIGMA", default_value = "auto", help_heading = "Sampling")]
    sigma: Sigma,

    /// Noise that depends on the signal, as `eddy profile` measured it
    #[arg(long, value_name = "FILE", conflicts_with = "sigma", help_heading = "Sampling")]
    noise_profile: Option<PathBuf>,

    #[command(flatten)]
    sampling: SamplingOptions,

    /// Whether each picture of a stream draws on those before: on, off, or auto, which is on for live sources
    #[arg(long, value_name = "WHEN", default_value = "auto", default_missing_value = "on", num_args = 0..=1, require_equals = true, help_heading = "Video")]
    temporal: When,

    #[command(flatten)]
    stream: StreamOptions,

    #[command(flatten)]
    memory: MemoryOptions,

    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    console: Console,
}

#[derive(Clone, Debug)]
struct Sigma(SigmaChoice);

impl FromStr for Sigma {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self(SigmaChoice::Auto));
        }
        let sigma: f64 = text.parse().map_err(|_| "expected auto or a number, such as 25".to_owned())?;
        if sigma.is_finite() && sigma >= 0.0 {
            Ok(Self(SigmaChoice::Known(sigma)))
        } else {
            Err("expected auto or a number from 0 on".into())
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum When {
    Auto,
    On,
    Off,
}

/// The model where none is asked for, and the one that is better and slower.
const FAST: &str = "denoise-fast";
const GOOD: &str = "denoise";

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let packages = self.packages()?;
        let sigma = match &self.noise_profile {
            Some(path) => SigmaChoice::Profile(NoiseProfile::read(path)?),
            None => self.sigma.0.clone(),
        };
        let stream = self.stream.stream(&self.pictures)?;
        let jobs = if stream.is_none() { self.pictures.jobs(self.console)? } else { Vec::new() };
        let opened = self.device.open(self.console)?;
        // Between the pictures of a stream that keeps a pace, or comes at its own, there is time to rest.
        let rest = self.stream.target().is_some() || stream.as_ref().is_some_and(Stream::is_live);
        let session = SessionOptions { rest, ..opened.session() };
        let options = DenoiseOptions {
            sigma,
            steps: self.sampling.steps(),
            eta: self.sampling.eta,
            seed: self.sampling.seed,
            tile: self.memory.tile(),
            budget: self.memory.budget(),
        };
        let mut networks = Vec::new();
        for package in &packages {
            for precision in self.precisions(package, opened.device()) {
                let network = package.load_guarded(&opened.runtime, precision, session)?;
                networks.push((package, precision, network));
            }
        }
        let mut candidates = Vec::new();
        for (package, precision, network) in &mut networks {
            let denoiser = Denoiser::new(&package.manifest, network, options.clone())?;
            candidates.push(Candidate { denoiser, precision: *precision });
        }
        match (stream, candidates.as_mut_slice()) {
            (Some(stream), _) => self.denoise_stream(candidates, stream, opened.device()),
            (None, [Candidate { denoiser, precision }, ..]) => Pictures::each(&jobs, self.console, |turn| {
                let ran = json!({"precision": precision.name(), "device": opened.device().to_string()});
                self.denoise(denoiser, turn, ran)
            }),
            (None, []) => Ok(()),
        }
    }

    /// The models to choose from, the best first.
    fn packages(&self) -> eddy::Result<Vec<Package>> {
        let keeps_up = self.stream.target().is_some();
        let names = match (self.model.as_deref(), keeps_up) {
            (None | Some(GOOD), true) => vec![GOOD, FAST],
            (None, false) => vec![FAST],
            (Some(model), _) => vec![model],
        };
        names.into_iter().map(Package::find).collect()
    }

    /// In what numbers a model may run, the most exact first.
    fn precisions(&self, package: &Package, device: Device) -> Vec<Precision> {
        let mut precisions = vec![self.precision.on(device, package)];
        let has_int8 = package.manifest.files.contains_key(&Precision::Int8);
        // On a GPU 8 bits are no faster than 16.
        if self.stream.target().is_some() && self.precision.asked().is_none() && has_int8 && !device.is_gpu() {
            precisions.push(Precision::Int8);
        }
        precisions
    }

    fn denoise_stream(&self, candidates: Vec<Candidate<'_>>, stream: Stream<'_>, device: Device) -> anyhow::Result<()> {
        let result = stream.result(&stream.video);
        let temporal = self.temporal == When::On || (self.temporal == When::Auto && stream.is_live());
        let mut denoiser = StreamDenoiser::new(candidates, &stream.video, &result, temporal, stream.budget())?;
        stream.run(&mut denoiser, &result, self.console, |denoiser| {
            let (sigma, limited) = (denoiser.sigma(), denoiser.sigma_limited());
            let count = denoiser.treatment().quality.steps;
            let (steps, tiles) = (steps(count), tiles(denoiser.tiles().count(), denoiser.tiles().tile_size()));
            let how = self.how(limited);
            let mut facts = json!({
                "sigma_limited": limited, "tiles": denoiser.tiles().count(), "device": device.to_string(),
            });
            let mut words = format!("sigma {sigma:.1}{how}, {steps}, {tiles}");
            if let Some(past) = denoiser.persistence() {
                words += &format!(", {:.0} % of tiles computed", 100.0 * past.computed);
                words += &past.flicker.map_or(String::new(), |flicker| format!(", flicker {flicker:.2}"));
                facts["tiles_computed"] = past.computed.into();
                facts["flicker"] = past.flicker.into();
                facts["resets"] = past.resets.into();
            }
            (words, facts)
        })
    }

    /// How the sigma that is told came about.
    fn how(&self, limited: bool) -> &'static str {
        match (&self.noise_profile, &self.sigma.0, limited) {
            (None, _, true) => ", the most that the model knows; the picture is noisier",
            (Some(_), _, true) => " (by the profile, but for places that are noisier than the model knows)",
            (Some(_), _, false) => " (by the profile)",
            (None, SigmaChoice::Auto, false) => " (estimated)",
            (None, _, false) => "",
        }
    }

    /// Denoises a picture. `ran` says for machines how the network ran.
    fn denoise(&self, denoiser: &mut Denoiser<'_>, turn: &Turn<'_>, ran: Value) -> eddy::Result<()> {
        let mut frame = turn.read()?;
        turn.check(&frame)?;
        let begun = Instant::now();
        let report = denoiser.denoise(&mut frame, &mut |progress| {
            turn.bar.advance(turn.index, progress);
            interrupt::poll()
        })?;
        let seconds = begun.elapsed().as_secs_f64();
        let warnings = self.pictures.write(&frame, turn)?;
        let how = self.how(report.sigma_limited);
        let (sigma, steps, tiles) = (report.sigma, steps(report.steps), tiles(report.tiles, report.tile_size));
        let again = repeated(report.repeated);
        let line = format!("sigma {sigma:.1}{how}, {steps}, {tiles}{again}, {seconds:.2} s");
        let mut record = json!({
            "input": turn.job.input.to_string_lossy(), "output": turn.job.output.to_string_lossy(),
            "width": frame.width, "height": frame.height, "sigma": sigma, "sigma_limited": report.sigma_limited,
            "steps": report.steps, "tiles": report.tiles, "tile_width": report.tile_size.0, "tile_height": report.tile_size.1,
            "tiles_repeated": report.repeated, "seconds": seconds, "warnings": warnings,
        });
        record::extend(&mut record, ran);
        turn.report(&line, &record)
    }
}
