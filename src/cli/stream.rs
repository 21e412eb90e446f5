//! Streams of a run: video in, video out.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use eddy::media::source;
use eddy::media::still::Limits;
use eddy::media::stream::{
    self, CameraFormat, CameraRequest, Encoder, FormatOverrides, LiveSource, Matrix, Origin, Rate,
    Scan, SinkFormat, Source, VideoFormat,
};
use eddy::preview::{Address, Preview, Token};
use eddy::video::{FrameProcessor, PipelineOptions, Target, run};
use serde_json::Value;

use super::console::Console;
use super::interrupt;
use super::io_args::IoArgs;
use super::options::Size;
use super::report::{StreamReporter, Watcher};
use super::sandbox::refused;

/// The format of streams, and how errors are handled.
#[derive(Debug, Args)]
#[command(next_help_heading = "Video")]
pub(crate) struct StreamOptions {
    /// Width and height of camera or raw frames, such as 640x480
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,

    /// Pixel format of raw frames, as ffmpeg names it: yuv420p, nv12, rgb24, ...; or of a camera,
    /// also mjpeg
    #[arg(long, value_name = "FORMAT")]
    pixel_format: Option<CameraFormat>,

    /// Frame rate of the source in fps, such as 25 or 30000/1001, if it declares none or a wrong
    /// one
    #[arg(long, value_name = "RATE")]
    fps_in: Option<Rate>,

    /// Color matrix: bt601, bt709 or bt2020. Default: the source's, or else by the height
    #[arg(long, value_name = "MATRIX")]
    matrix: Option<Matrix>,

    /// Color range: full (0 to 255) or limited (16 to 235). Default: the source's
    #[arg(long, value_name = "RANGE")]
    range: Option<SampleRange>,

    /// Target frame rate in fps. If frames take too long, quality is reduced: fewer steps, and for
    /// denoising also smaller networks and lower resolutions
    #[arg(long, value_name = "RATE", help_heading = "Real time")]
    fps: Option<Rate>,

    /// Latency target per frame, in milliseconds from arrival to writing; if frames take longer,
    /// quality is reduced
    #[arg(
        long,
        value_name = "MS",
        value_parser = clap::value_parser!(u32).range(1..=60_000),
        help_heading = "Real time"
    )]
    deadline_ms: Option<u32>,

    /// Serve a live view, before and after, with statistics and controls, and /metrics; at
    /// 127.0.0.1:8070 when no address is given. Addresses of other machines need a token, which
    /// is printed [env: EDDY_PREVIEW_TOKEN]
    #[arg(
        long,
        value_name = "ADDR",
        default_missing_value = "127.0.0.1:8070",
        num_args = 0..=1,
        require_equals = true
    )]
    preview: Option<Address>,

    /// Treat piped input as live: if processing is too slow, the oldest waiting frame is dropped
    #[arg(long)]
    live: bool,

    /// Skip damaged frames of a file; otherwise the first ends the run
    #[arg(long)]
    skip_corrupt: bool,

    /// The encoder of a container, as ffmpeg names it, such as libx265; by default ffmpeg's choice
    /// for the container
    #[arg(long, value_name = "NAME", help_heading = "Encoder")]
    codec: Option<String>,

    /// Constant quality of a container, in the encoder's scale, where smaller is better; 18 for
    /// MP4, MOV and Matroska when neither this nor --bitrate is given
    #[arg(long, value_name = "N", conflicts_with = "bitrate", help_heading = "Encoder")]
    crf: Option<f64>,

    /// Bits per second of a container, such as 4M
    #[arg(long, value_name = "RATE", help_heading = "Encoder")]
    bitrate: Option<String>,

    /// Further options of the encoder, as ffmpeg names them, such as preset=fast,tune=grain
    #[arg(
        long,
        value_name = "KEY=VALUE,...",
        value_delimiter = ',',
        value_parser = key_and_value,
        help_heading = "Encoder"
    )]
    encoder_options: Vec<(String, String)>,

    /// End the run when no frame arrives for this long
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    stall_timeout: Option<Duration>,

    /// Wait this long for a live source that is disconnected or not available yet, and for a
    /// server that takes the frames
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    reconnect: Option<Duration>,
}

/// The delay between attempts to open a source that is not available yet.
const RETRY: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SampleRange {
    Full,
    Limited,
}

fn key_and_value(text: &str) -> Result<(String, String), &'static str> {
    let both = text.split_once('=').filter(|(key, _)| !key.is_empty() && !key.starts_with('-'));
    both.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or("expected KEY=VALUE, such as preset=fast")
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or("expected seconds, such as 10 or 0.5")
}

/// A stream to process.
pub(crate) struct Stream<'a> {
    frames: &'a IoArgs,
    flow: PipelineOptions,
    fps: Option<Rate>,
    preview: Option<Address>,
    encoder: Encoder,
    source: Box<dyn Source>,
    sink: SinkFormat,
    /// The format of its frames.
    pub(crate) video: VideoFormat,
}

impl StreamOptions {
    /// Checks that a confined process can run the stream.
    ///
    /// # Errors
    /// [`eddy::Error::Usage`] with a live view, which is a server.
    pub(crate) fn confine(&self) -> eddy::Result<()> {
        match &self.preview {
            Some(_) => Err(refused("--preview", "which opens connections")),
            None => Ok(()),
        }
    }

    /// The target rate and latency.
    pub(crate) fn target(&self) -> Target {
        let deadline = self.deadline_ms.map(|ms| Duration::from_millis(ms.into()));
        Target { rate: self.fps.map(Rate::per_second), deadline }
    }

    /// Opens a stream. With --reconnect, waits for a camera or a URL that is not available yet.
    fn open(
        &self,
        sources: &[PathBuf],
        open: impl Fn() -> eddy::Result<Box<dyn Source>>,
    ) -> eddy::Result<Box<dyn Source>> {
        let is_live = |source: &PathBuf| {
            source.starts_with("/dev")
                || source.to_string_lossy().contains("://")
                || stream::is_gstreamer(source)
        };
        let _opening = self.opening(sources);
        let patience = self.reconnect.filter(|_| sources.iter().all(is_live));
        let started = Instant::now();
        loop {
            match open() {
                Err(eddy::Error::Input { .. })
                    if patience.is_some_and(|patience| started.elapsed() < patience) =>
                {
                    interrupt::check()?;
                    std::thread::sleep(RETRY);
                }
                other => return other,
            }
        }
    }

    /// While the source is being opened, signals and --stall-timeout end the wait.
    fn opening(&self, sources: &[PathBuf]) -> interrupt::OpeningGuard {
        let limit = self.stall_timeout.map(|limit| limit.max(self.reconnect.unwrap_or_default()));
        interrupt::guard_opening(limit.map(|limit| {
            let seconds = limit.as_secs_f64();
            let problem = format!(
                "no data has arrived for {seconds} s; check the source, or raise --stall-timeout"
            );
            (
                limit,
                eddy::Error::input(
                    sources.first().map_or("the stream".into(), PathBuf::clone),
                    problem,
                ),
            )
        }))
    }

    /// The requested stream; none if the inputs and outputs are images. Fails if a result would
    /// replace a source or a file in `also_read`.
    pub(crate) fn stream<'a>(
        &self,
        frames: &'a IoArgs,
        also_read: &[PathBuf],
        limits: Limits,
    ) -> eddy::Result<Option<Stream<'a>>> {
        let (sources, output) = (frames.sources(), frames.output());
        let is_stream = self.live
            || frames.is_stream_requested()
            || self.pixel_format.is_some()
            || self.target().is_some()
            || self.preview.is_some()
            || stream::is_sink(output)
            || sources.iter().any(|source| stream::is_source(source));
        let opening = self.opening(sources);
        if !is_stream
            || (self.pixel_format.is_none() && !self.live && frames.is_standard_image()?)
        {
            return Ok(None);
        }
        drop(opening);
        frames.refuse_recursion()?;
        let sink = SinkFormat::choose(output, frames.sink_format())?;
        source::refuse_replacing(&[sources, also_read].concat(), output)?;
        if self.pixel_format.is_none() {
            source::refuse_lists(sources, output)?;
        }
        if let SinkFormat::ImageSequence(format) = sink
            && !sources.iter().any(|source| stream::is_source(source))
        {
            source::refuse_numbering_over(sources, output, format)?;
        }
        let size = self.size.map(|size| [size.width, size.height]);
        let request = CameraRequest { size, format: self.pixel_format };
        let full_range = self.range.map(|range| matches!(range, SampleRange::Full));
        let interpretation = FormatOverrides { rate: self.fps_in, matrix: self.matrix, full_range };
        if self.live
            && let Some(kept) = sources.iter().find(|source| source.is_file() || source.is_dir())
        {
            let problem =
                "is kept on disk, and --live drops frames that would wait; leave --live out";
            return Err(eddy::Error::usage(format!("{} {problem}", kept.display())));
        }
        let mut source =
            self.open(sources, || stream::open(sources, request, interpretation, limits))?;
        if self.live {
            source = Box::new(LiveSource(source));
        }
        let target = self.target();
        // Every waiting frame adds latency.
        let waiting = if source.is_live() && target.is_some() {
            1
        } else {
            PipelineOptions::default().waiting
        };
        let flow = PipelineOptions {
            waiting,
            skip_corrupt: self.skip_corrupt,
            stall: self.stall_timeout,
            reconnect: self.reconnect,
            target,
        };
        let video = source.video().clone();
        if video.scan == Scan::Mixed {
            return Err(refuse_fields(
                sources,
                "has frames of which some are interlaced and some are not",
            ));
        }
        let encoder = Encoder {
            codec: self.codec.clone(),
            crf: self.crf,
            bitrate: self.bitrate.clone(),
            options: self.encoder_options.clone(),
        };
        Ok(Some(Stream {
            frames,
            flow,
            fps: self.fps,
            preview: self.preview,
            encoder,
            source,
            sink,
            video,
        }))
    }
}

impl Stream<'_> {
    /// Whether the source is live.
    pub(crate) fn is_live(&self) -> bool {
        self.source.is_live()
    }

    /// The time limit per frame, if any.
    pub(crate) fn budget(&self) -> Option<Duration> {
        self.flow.target.budget(Duration::ZERO, Duration::ZERO)
    }

    /// The format of the result, from the format at the source's rate.
    pub(crate) fn result(&self, video: &VideoFormat) -> VideoFormat {
        let mut result = self.sink.video_for(video);
        // A live source is limited to the target rate; a file keeps all frames.
        if self.is_live() {
            result.rate = self.fps.unwrap_or(result.rate);
        }
        result
    }

    /// Runs the stream through `processor`. `describe` gives the processing of frames, as text and
    /// as JSON.
    pub(crate) fn run<R: FrameProcessor>(
        self,
        processor: &mut R,
        result: &VideoFormat,
        console: Console,
        describe: impl Fn(&R) -> (String, Value),
    ) -> anyhow::Result<()> {
        let output = self.frames.output();
        if self.video.scan != Scan::Progressive && result.height != self.video.height {
            return Err(refuse_fields(self.frames.sources(), "is interlaced").into());
        }
        for loss in self.sink.losses(&self.video, result) {
            console.note(format!("{}: {loss}", output.display()));
        }
        if self.source.is_uneven()
            && !matches!(self.sink, SinkFormat::Container | SinkFormat::Server)
        {
            let problem = "the frame rate is variable, which this format cannot store: frames are \
                           shown too early or too late; a container, such as .mkv, keeps their \
                           times";
            console.note(format!("{}: {problem}", output.display()));
        }
        if self.sink == SinkFormat::Server && self.source.container().is_some() {
            console.note(format!("{}: frames are sent without sound", output.display()));
        }
        let origin = Origin {
            encoder: Some(&self.encoder),
            reconnect: self.flow.reconnect,
            ..Origin::of(self.source.as_ref())
        };
        let sink = self.sink.create(output, self.frames.options(), result, origin)?;
        let reporter = StreamReporter {
            console,
            to_stdout: output == Path::new("-"),
            frames: self.frames,
            target: self.flow.target,
        };
        let before = processor.stream_status();
        let preview = match self.preview {
            Some(address) => {
                let preview = serve(address, &self.video, result, before.sigma.is_some())?;
                console.note(format!("preview: {}", preview.url()));
                Some(preview)
            }
            None => None,
        };
        let mut watcher = Watcher::new(reporter, preview, before);
        if let Some(part) = sink.part() {
            interrupt::announce_finishing(output, part);
            if let existing = stream::part_of(output)
                && existing.file_name() != part.file_name()
            {
                let (existing, part) = (existing.display(), part.display());
                console.note(format!(
                    "{existing} already exists, of a run that was killed or is still running: it \
                     stays, this one writes {part}"
                ));
            }
        }
        let (summary, ended) = run(self.source, sink, processor, self.flow, &mut watcher);
        drop(watcher);
        let (text, fields) = describe(processor);
        reporter.summary(&summary, result, &text, fields)?;
        Ok(ended?)
    }
}

/// The error for interlaced frames, with a command that deinterlaces them.
fn refuse_fields(sources: &[PathBuf], problem: &str) -> eddy::Error {
    let name = sources.first().map(|source| source.display().to_string()).unwrap_or_default();
    eddy::Error::usage(format!(
        "{name} {problem}; make whole frames of its fields first: ffmpeg -i {name} -vf bwdif -f \
         yuv4mpegpipe - | eddy ... -"
    ))
}

/// A live view at `address`. Other machines need the token of the environment, or a new one.
fn serve(
    address: Address,
    before: &VideoFormat,
    after: &VideoFormat,
    denoises: bool,
) -> eddy::Result<Preview> {
    let token = match std::env::var("EDDY_PREVIEW_TOKEN") {
        Ok(token) => Some(Token::chosen(token)?),
        Err(_) if address.0.ip().is_loopback() => None,
        Err(_) => Some(Token::random()?),
    };
    Preview::serve(address, token, before, after, denoises)
}
