//! Streams of a run: moving pictures in, moving pictures out.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use eddy::frame::source;
use eddy::frame::stream::{self, CameraFormat, CameraWish, Interpretation, Matrix, Rate, SinkFormat, Source, Video};
use eddy::video::{Flow, Restore, Summary, Tally, run};
use serde_json::{Value, json};

use super::console::Console;
use super::interrupt;
use super::options::Size;
use super::pictures::Pictures;

/// How often a run says how far it has come.
const REPORT: Duration = Duration::from_secs(5);

/// What streams are like, and what becomes of them when something goes wrong.
#[derive(Debug, Args)]
#[command(next_help_heading = "Video")]
pub(crate) struct StreamOptions {
    /// Width and height of a camera's or of raw pictures, such as 640x480
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,

    /// How the samples of raw pictures lie in memory, as ffmpeg names it: yuv420p, nv12, rgb24, ...; or what a camera gives,
    /// where mjpeg is one more
    #[arg(long, value_name = "FORMAT")]
    pixel_format: Option<CameraFormat>,

    /// Pictures a second of the source, such as 25 or 30000/1001, where it says none or something else
    #[arg(long, value_name = "RATE")]
    fps_in: Option<Rate>,

    /// How luma and chroma come from RGB: bt601 or bt709; by the height when left out
    #[arg(long, value_name = "MATRIX")]
    matrix: Option<Matrix>,

    /// What black and white are: full (0 to 255) or limited (16 to 235); as the source says when left out
    #[arg(long, value_name = "RANGE")]
    range: Option<SampleRange>,

    /// Pass over pictures of a file that are damaged; otherwise the first ends the run
    #[arg(long)]
    skip_corrupt: bool,

    /// End the run when no picture comes for so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    stall_timeout: Option<Duration>,

    /// Wait so long for a live source that is gone
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    reconnect: Option<Duration>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SampleRange {
    Full,
    Limited,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or("expected seconds, such as 10 or 0.5")
}

/// A stream that is to be worked on.
pub(crate) struct Stream<'a> {
    pictures: &'a Pictures,
    flow: Flow,
    source: Box<dyn Source>,
    sink: SinkFormat,
    /// What its pictures are like.
    pub(crate) video: Video,
}

impl StreamOptions {
    /// The stream that is asked for; none where it is picture files into picture files.
    pub(crate) fn stream<'a>(&self, pictures: &'a Pictures) -> eddy::Result<Option<Stream<'a>>> {
        let (sources, output) = (pictures.sources(), pictures.output());
        let is_stream = pictures.asks_for_stream()
            || self.pixel_format.is_some()
            || stream::is_sink(output)
            || sources.iter().any(|source| stream::is_source(source));
        if !is_stream {
            return Ok(None);
        }
        let sink = SinkFormat::choose(output, pictures.sink_format())?;
        if output.is_file() || output.is_dir() {
            source::refuse_replacing(sources, output)?;
        }
        let size = self.size.map(|size| [size.width, size.height]);
        let wish = CameraWish { size, format: self.pixel_format };
        let full_range = self.range.map(|range| matches!(range, SampleRange::Full));
        let interpretation = Interpretation { rate: self.fps_in, matrix: self.matrix, full_range };
        let source = stream::open(sources, wish, interpretation)?;
        let flow = Flow {
            skip_corrupt: self.skip_corrupt,
            stall: self.stall_timeout,
            reconnect: self.reconnect,
            ..Flow::default()
        };
        let video = source.video().clone();
        Ok(Some(Stream { pictures, flow, source, sink, video }))
    }
}

impl Stream<'_> {
    /// Whether pictures come as they are taken.
    pub(crate) fn is_live(&self) -> bool {
        self.source.is_live()
    }

    /// What results are to be like, given what they could be.
    pub(crate) fn result(&self, video: &Video) -> Video {
        self.sink.video_for(video)
    }

    /// Runs the stream through `restorer`. `how` says in words, and for machines, what was done to the pictures.
    pub(crate) fn run<R: Restore>(
        self,
        restorer: &mut R,
        result: &Video,
        console: Console,
        how: impl Fn(&R) -> (String, Value),
    ) -> anyhow::Result<()> {
        let output = self.pictures.output();
        let sink = self.sink.create(output, self.pictures.options(), result)?;
        let told = Told { console, to_stdout: output == Path::new("-"), pictures: self.pictures };
        let mut line = told.line();
        let (summary, ended) = run(self.source, sink, restorer, self.flow, &mut |tally| {
            line.tell(tally);
            interrupt::poll()
        });
        drop(line);
        let (words, facts) = how(restorer);
        told.summary(&summary, result, &words, &facts)?;
        Ok(ended?)
    }
}

/// Where words about a stream go: never where its pictures do.
#[derive(Clone, Copy)]
struct Told<'a> {
    console: Console,
    to_stdout: bool,
    pictures: &'a Pictures,
}

impl Told<'_> {
    fn line(self) -> Line {
        Line {
            bar: self.console.spinner(),
            console: self.console,
            to_stdout: self.to_stdout,
            shown: Instant::now(),
            reported: Instant::now(),
            before: (0, Duration::ZERO),
        }
    }

    fn summary(self, summary: &Summary, video: &Video, words: &str, facts: &Value) -> anyhow::Result<()> {
        let Summary { tally, latency, waiting, work, writing } = summary;
        let milliseconds = |duration: Duration| 1000.0 * duration.as_secs_f64();
        let quantiles = [0.5, 0.95, 0.99].map(|part| milliseconds(latency.quantile(part)));
        let source = self.pictures.sources().iter().map(|s| s.display().to_string()).collect::<Vec<_>>().join(", ");
        let mut lost = String::new();
        for (count, what) in [(tally.dropped, "dropped"), (tally.corrupt, "corrupt"), (tally.reconnected, "times gone")]
        {
            if count > 0 {
                lost += &format!(", {count} {what}");
            }
        }
        let line = format!(
            "{source} -> {}: {} of {}x{}{lost}, {words}, {:.1} a second, {:.0}/{:.0}/{:.0} ms from arrival to \
             written (p50/p95/p99)",
            self.pictures.output().display(),
            pictures(tally.written),
            video.width,
            video.height,
            tally.rate(),
            quantiles[0],
            quantiles[1],
            quantiles[2]
        );
        let stage =
            |histogram: &eddy::video::Histogram| milliseconds(histogram.total()) / histogram.count().max(1) as f64;
        let mut record = counts("summary", tally, tally.rate());
        let run = json!({
            "input": source, "output": self.pictures.output().to_string_lossy(),
            "width": video.width, "height": video.height, "pixel_format": video.format.to_string(),
            "latency_p50_ms": quantiles[0], "latency_p95_ms": quantiles[1], "latency_p99_ms": quantiles[2],
            "waiting_ms": stage(waiting), "work_ms": stage(work), "writing_ms": stage(writing),
        });
        for more in [&run, facts] {
            if let (Value::Object(record), Value::Object(more)) = (&mut record, more) {
                record.extend(more.clone());
            }
        }
        self.console.report_beside(self.to_stdout, line, &record)
    }
}

/// What every record of a stream has.
fn counts(event: &str, tally: &Tally, rate: f64) -> Value {
    json!({
        "event": event, "read": tally.read, "written": tally.written, "dropped": tally.dropped,
        "corrupt": tally.corrupt, "reconnected": tally.reconnected, "seconds": tally.elapsed.as_secs_f64(), "rate": rate,
    })
}

/// `1 picture`, `3 pictures`.
fn pictures(count: u64) -> String {
    if count == 1 { "1 picture".to_owned() } else { format!("{count} pictures") }
}

/// One line on a terminal that says how far a run has come, or one JSON object now and then.
struct Line {
    bar: indicatif::ProgressBar,
    console: Console,
    to_stdout: bool,
    shown: Instant,
    reported: Instant,
    before: (u64, Duration),
}

impl Line {
    fn tell(&mut self, tally: &Tally) {
        if self.shown.elapsed() < Duration::from_millis(500) {
            return;
        }
        self.shown = Instant::now();
        let (count, elapsed) = self.before;
        let rate = (tally.written - count) as f64 / (tally.elapsed.saturating_sub(elapsed)).as_secs_f64().max(1e-9);
        let lost = if tally.dropped > 0 { format!(", {} dropped", tally.dropped) } else { String::new() };
        self.bar.set_message(format!("{}, {rate:.1} a second{lost}", pictures(tally.written)));
        if self.reported.elapsed() < REPORT {
            return;
        }
        self.reported = Instant::now();
        self.before = (tally.written, tally.elapsed);
        let record = counts("progress", tally, rate);
        self.console.progress_beside(self.to_stdout, &record);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
