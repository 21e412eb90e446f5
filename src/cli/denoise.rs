//! `eddy denoise`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use eddy::machine::Sandbox;
use eddy::model::{CAMERA_DENOISER, NetworkWithFallback, Package, WHITE_NOISE_DENOISER};
use eddy::network::Device;
use eddy::task::{
    Assessment, DenoiseOptions, Denoiser, NoiseKind, NoiseProfile, SigmaChoice, Strength,
};
use eddy::video::{
    Candidate, Fields, FrameProcessor, FrameWindowDenoiser, ParallelChoice, ParallelStatistics,
    StreamDenoiser, field_of, models_of_stream, precisions_of_stream,
};
use serde_json::{Value, json};

use super::io_args::{ImageJob, IoArgs, repeated, steps, tiles};
use super::onnx_options::OnnxOptions;
use super::options::{Opened, SamplingOptions};
use super::run_args::{NetworkRecord, RunArgs};
use super::sandbox::SandboxOption;
use super::stream::{Stream, StreamOptions};

/// Denoise images and video
///
/// Images are processed one by one; failures are reported, and the run continues. For a stream,
/// reading, denoising and writing overlap.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  eddy denoise photo.png -o clean.png\n  \
                  ffmpeg -i in.mp4 -f yuv4mpegpipe - | eddy denoise - -o clean.mp4")]
pub(crate) struct Arguments {
    #[command(flatten)]
    images: IoArgs,

    /// A bundled model, the folder of a model package, or an .onnx file. Default: `camera` for
    /// 4:2:0, 4:2:2 and gray video and for images with the noise of a camera or a codec;
    /// `denoise-fast` for other video and for images with white noise. With --fps or --deadline-ms,
    /// other video uses `denoise` as long as it keeps the rate
    #[arg(short, long, value_name = "MODEL", help_heading = "Model")]
    model: Option<String>,

    #[command(flatten)]
    onnx: OnnxOptions,

    /// Standard deviation of the noise in 8-bit units, such as 25 for white noise in RGB, or 12,5
    /// for luma and chroma of 4:2:0; `auto` estimates it
    #[arg(
        long,
        value_name = "auto|SIGMA|LUMA,CHROMA",
        default_value = "auto",
        allow_hyphen_values = true,
        help_heading = "Sampling"
    )]
    sigma: SigmaChoice,

    /// How much of the change is kept: 0 gives the input, 1 the denoised result
    ///
    /// The result is `input + F * (denoised - input)`. Unlike `--strength` of generate and inpaint,
    /// which is the part of the noise schedule that is sampled, it does not affect sampling.
    #[arg(long, value_name = "0..1", default_value = "1", help_heading = "Sampling")]
    strength: Strength,

    /// Signal-dependent noise, as measured by `eddy profile`
    #[arg(long, value_name = "FILE", conflicts_with = "sigma", help_heading = "Sampling")]
    noise_profile: Option<PathBuf>,

    #[command(flatten)]
    sampling: SamplingOptions,

    /// Temporal fusion, which uses previous frames: on, off, or auto, which is on for live sources
    ///
    /// Without it, several frames of a file are denoised at the same time, on one thread each, while
    /// that is faster.
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        default_missing_value = "on",
        num_args = 0..=1,
        require_equals = true,
        help_heading = "Video"
    )]
    temporal: CodecCondition,

    #[command(flatten)]
    stream: StreamOptions,

    #[command(flatten)]
    sandbox: SandboxOption,

    #[command(flatten)]
    run: RunArgs,
}

/// A model for images, and its network once it is loaded.
struct Choice<'a> {
    package: &'a Package,
    loaded: Option<NetworkWithFallback<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CodecCondition {
    Auto,
    On,
    Off,
}

impl Arguments {
    /// The files of the run, if it is to be confined.
    pub(crate) fn sandbox(&self) -> eddy::Result<Option<Sandbox>> {
        let Some(sandbox) = self.sandbox.start() else { return Ok(None) };
        let sandbox = self.images.confine(sandbox)?;
        self.stream.confine()?;
        let sandbox = self.run.device.confine(sandbox)?;
        let sandbox = self.model.iter().fold(sandbox, |it, model| it.model(Path::new(model)));
        Ok(Some(self.noise_profile.iter().fold(sandbox, |it, path| it.read(path))))
    }

    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.images.sync.apply();
        let sigma = match &self.noise_profile {
            Some(path) => SigmaChoice::Profile(NoiseProfile::read(path)?),
            None => self.sigma.clone(),
        };
        let stream = self.stream.stream(
            &self.images,
            self.noise_profile.as_slice(),
            self.run.memory.limits(),
        )?;
        let jobs = if stream.is_none() {
            self.images.jobs(self.noise_profile.as_slice(), self.run.console)?
        } else {
            Vec::new()
        };
        let packages = self.packages(stream.as_ref(), &sigma)?;
        let mut opened = self.run.open()?;
        // A live or paced stream has pauses between frames, in which threads can sleep.
        opened.sleep_when_idle =
            self.stream.target().is_some() || stream.as_ref().is_some_and(Stream::is_live);
        let options = DenoiseOptions {
            sigma,
            steps: self.sampling.steps(),
            eta: self.sampling.eta,
            seed: self.sampling.seed,
            strength: self.strength,
            tile: self.run.memory.tile(),
            budget: self.run.memory.budget(),
        };
        let Some(stream) = stream else {
            if self.temporal == CodecCondition::On {
                self.run.console.note("--temporal has no effect on stills; it is for streams");
            }
            let mut choices: Vec<Choice<'_>> =
                packages.iter().map(|package| Choice { package, loaded: None }).collect();
            if let [choice] = choices.as_mut_slice() {
                // Errors of the model are reported before an image is read.
                self.denoiser(choice, &opened, options.clone())?;
            }
            return IoArgs::each(&jobs, self.run.console, |job| {
                self.denoise(&mut choices, job, &opened, &options)
            });
        };
        if let [package] = packages.as_slice()
            && package.manifest.is_of_video()
        {
            return self.denoise_video(package, &opened, options, stream);
        }
        let mut networks = Vec::new();
        for package in &packages {
            let (requested, keeps_up) =
                (self.run.precision.requested(), self.stream.target().is_some());
            for precision in precisions_of_stream(package, requested, opened.device(), keeps_up) {
                let network = opened.network_with_fallback(package, precision)?;
                networks.push((package, precision, network));
            }
        }
        let mut candidates = Vec::new();
        for (package, precision, network) in &mut networks {
            let denoiser = Denoiser::new(&package.manifest, network, options.clone())?;
            candidates.push(Candidate { denoiser, precision: *precision });
        }
        self.denoise_stream(candidates, stream, opened.device())
    }

    /// A denoiser for images, whose network is loaded when an image first needs it.
    fn denoiser<'c>(
        &self,
        choice: &'c mut Choice<'_>,
        opened: &Opened,
        options: DenoiseOptions,
    ) -> eddy::Result<(Denoiser<'c>, NetworkRecord)> {
        let record = self.run.record(choice.package, opened.device());
        let network = match choice.loaded.take() {
            Some(network) => network,
            None => opened.network_with_fallback(choice.package, record.precision)?,
        };
        let network = choice.loaded.insert(network);
        Ok((Denoiser::new(&choice.package.manifest, network, options)?, record))
    }

    /// The candidate models, the best first; for images without --model, one per kind of noise.
    fn packages(
        &self,
        stream: Option<&Stream<'_>>,
        sigma: &SigmaChoice,
    ) -> eddy::Result<Vec<Package>> {
        let of_planes = sigma.is_of_planes();
        let names = match (self.model.as_deref(), stream) {
            (Some(model), None) => vec![model],
            (None, None) if of_planes => vec![CAMERA_DENOISER],
            (None, None) => vec![WHITE_NOISE_DENOISER, CAMERA_DENOISER],
            (model, Some(stream)) => {
                let keeps_up = self.stream.target().is_some();
                models_of_stream(model, stream.video.format, of_planes, keeps_up)
            }
        };
        names
            .into_iter()
            .map(|name| self.onnx.find(name, &self.run.device, self.run.console))
            .collect()
    }

    /// Denoises a stream with a network that takes a window of frames or has a recurrent state.
    fn denoise_video(
        &self,
        package: &Package,
        opened: &Opened,
        options: DenoiseOptions,
        stream: Stream<'_>,
    ) -> anyhow::Result<()> {
        let name = &package.manifest.name;
        if stream.video.scan.has_fields() {
            let problem = format!(
                "{name} takes whole frames, and these are interlaced; deinterlace them first, such \
                 as by ffmpeg's bwdif"
            );
            return Err(eddy::Error::usage(problem).into());
        }
        if self.temporal == CodecCondition::On {
            self.run.console.note(format!(
                "--temporal has no effect with {name}, which takes several frames at once"
            ));
        }
        let precision = self.run.precision.on(opened.device(), package);
        let mut network = opened.network_with_fallback(package, precision)?;
        let denoiser = Denoiser::new(&package.manifest, &mut network, options)?;
        let result = stream.result(&stream.video);
        let mut denoiser = FrameWindowDenoiser::new(denoiser, &stream.video, &result, precision)?;
        let device = opened.device().to_string();
        stream.run(&mut denoiser, &result, self.run.console, |denoiser| {
            let tiles_of = denoiser.tiles();
            let summary = tiles(tiles_of.count(), tiles_of.tile_size());
            let sigma = (!denoiser.is_blind()).then(|| denoiser.sigma());
            let level = sigma.map_or(String::new(), |sigma| format!(", sigma {sigma:.1}"));
            let fields = json!({
                "frames_at_once": denoiser.frames(), "tiles": tiles_of.count(), "device": device,
            });
            (format!("{name}, {} frames at once{level}, {summary}", denoiser.frames()), fields)
        })
    }

    fn denoise_stream(
        &self,
        candidates: Vec<Candidate<'_>>,
        stream: Stream<'_>,
        device: Device,
    ) -> anyhow::Result<()> {
        let result = stream.result(&stream.video);
        let temporal = self.temporal == CodecCondition::On
            || (self.temporal == CodecCondition::Auto && stream.is_live());
        if !stream.video.scan.has_fields() {
            let mut denoiser =
                StreamDenoiser::new(candidates, &stream.video, &result, temporal, stream.budget())?;
            if !stream.is_live() {
                denoiser = denoiser.with_frames_in_parallel(ParallelChoice::IfFaster)?;
            }
            return stream.run(&mut denoiser, &result, self.run.console, |denoiser| {
                self.describe(denoiser, device)
            });
        }
        if self.temporal == CodecCondition::On {
            self.run.console.note(
                "the frames are interlaced: fields are denoised one by one, without those before",
            );
        }
        let (field, field_result) = (field_of(&stream.video)?, field_of(&result)?);
        let budget = stream.budget().map(|budget| budget / 2);
        let denoiser = StreamDenoiser::new(candidates, &field, &field_result, false, budget)?;
        let mut fields = Fields::new(denoiser, &stream.video, &result);
        stream.run(&mut fields, &result, self.run.console, |fields| {
            self.describe(fields.inner(), device)
        })
    }

    /// How the frames of a stream were processed, as text and as JSON.
    fn describe(&self, denoiser: &StreamDenoiser<'_>, device: Device) -> (String, Value) {
        let (sigma, limited) = (denoiser.sigma(), denoiser.sigma_limited());
        let count = denoiser.stream_status().quality.steps;
        let (steps, tiles) =
            (steps(count), tiles(denoiser.tiles().count(), denoiser.tiles().tile_size()));
        let note = self.sigma_note(limited);
        let chroma = denoiser.chroma_sigma();
        let mut fields = json!({
            "sigma_limited": limited, "tiles": denoiser.tiles().count(),
            "device": device.to_string(),
            "sigma_chroma": chroma,
        });
        let chroma = chroma.map_or(String::new(), |sigma| format!(" luma, {sigma:.1} chroma"));
        let model = denoiser.stream_status().quality.model;
        let mut summary = match (sigma, &self.sigma, &self.noise_profile) {
            _ if denoiser.is_blind() => format!("{model}, blind, {tiles}"),
            (0.0, SigmaChoice::Auto, None) => "clean, left as it is".to_owned(),
            _ => format!("{model}, sigma {sigma:.1}{chroma}{note}, {steps}, {tiles}"),
        };
        if let Some(statistics) = denoiser.temporal_statistics() {
            summary += &format!(", {:.0} % of tiles computed", 100.0 * statistics.computed);
            summary += &statistics
                .flicker
                .map_or(String::new(), |flicker| format!(", flicker {flicker:.2}"));
            fields["tiles_computed"] = statistics.computed.into();
            fields["flicker"] = statistics.flicker.into();
            fields["resets"] = statistics.resets.into();
        }
        if let Some(ParallelStatistics { lanes, frames, changes, seconds }) =
            denoiser.parallel_statistics()
        {
            if frames > 0 {
                summary += &format!(", {frames} frames up to {lanes} at a time");
            }
            let [alone, together] = seconds.map(|seconds| seconds.map(|seconds| 1e3 * seconds));
            fields["parallel_lanes"] = lanes.into();
            fields["parallel_frames"] = frames.into();
            fields["parallel_changes"] = changes.into();
            fields["one_by_one_ms"] = alone.into();
            fields["in_parallel_ms"] = together.into();
        }
        (summary, fields)
    }

    /// Where the reported sigma comes from.
    fn sigma_note(&self, limited: bool) -> &'static str {
        match (&self.noise_profile, &self.sigma, limited) {
            (None, _, true) => ", limited to the range of the model",
            (Some(_), _, true) => {
                " (by the profile, limited to the range of the model where it is exceeded)"
            }
            (Some(_), _, false) => " (by the profile)",
            (None, SigmaChoice::Auto, false) => " (estimated)",
            (None, _, false) => "",
        }
    }

    /// Denoises an image with the candidate for its kind of noise, if there are several.
    fn denoise(
        &self,
        choices: &mut [Choice<'_>],
        job: &ImageJob<'_>,
        opened: &Opened,
        options: &DenoiseOptions,
    ) -> eddy::Result<()> {
        let mut image = job.read(&self.run.memory.limits())?;
        job.check(&image)?;
        let started = Instant::now();
        let is_auto = self.noise_profile.is_none() && self.sigma == SigmaChoice::Auto;
        let is_blind = matches!(choices, [choice] if choice.package.manifest.is_blind());
        let is_auto = is_auto && !is_blind;
        let assessment =
            (is_auto || choices.len() > 1).then(|| Assessment::of_file(job.source(), &image));
        let assessment = assessment.transpose()?;
        let kind = assessment.map(|assessment| assessment.kind);
        let index = if kind == Some(NoiseKind::Camera) { choices.len() - 1 } else { 0 };
        let Some(choice) = choices.get_mut(index) else { return Ok(()) };
        let (mut denoiser, record) = self.denoiser(choice, opened, options.clone())?;
        if let (true, Some(assessment)) = (is_auto, &assessment) {
            denoiser.set_assessment(assessment);
        }
        let report = denoiser.denoise(&mut image, &mut |progress| job.on_progress(progress))?;
        let note = self.sigma_note(report.sigma_limited);
        let (sigma, steps, tiles) =
            (report.sigma, steps(report.steps), tiles(report.tiles, report.tile_size));
        let again = repeated(report.repeated);
        let chroma =
            report.chroma_sigma.map_or(String::new(), |sigma| format!(" luma, {sigma:.1} chroma"));
        let model = &record.model;
        let name = kind.map_or(String::new(), |kind| format!("{model} for {}, ", kind.name()));
        let summary = if is_auto && kind == Some(NoiseKind::Clean) {
            "clean, left as it is".to_owned()
        } else if is_blind {
            format!("{model}, blind, {tiles}{again}")
        } else {
            format!("{name}sigma {sigma:.1}{chroma}{note}, {steps}, {tiles}{again}")
        };
        let fields = report.fields(kind);
        self.images.finish(job, &image, started, &record, &summary, fields)
    }
}
