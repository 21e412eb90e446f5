//! Reports on a stream while it runs and at its end.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use eddy::machine::Health;
use eddy::media::stream::{VideoFormat, VideoFrame};
use eddy::preview::Preview;
use eddy::video::record::{self, milliseconds};
use eddy::video::{
    QualityLevel, RunObserver, RunStatus, SettingsUpdate, StreamStatus, Summary, Target,
};
use serde_json::{Value, json};

use super::console::Console;
use super::interrupt;
use super::io_args::{self, IoArgs};

/// How often a run reports progress and checks for throttling.
const REPORT: Duration = Duration::from_secs(5);

/// The observers of a run: the terminal and the live view.
pub(super) struct Watcher<'a> {
    reporter: StreamReporter<'a>,
    line: Line,
    preview: Option<Preview>,
    before: StreamStatus,
    health: Health,
    examined: Instant,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(
        reporter: StreamReporter<'a>,
        preview: Option<Preview>,
        before: StreamStatus,
    ) -> Self {
        Self {
            reporter,
            line: reporter.line(),
            preview,
            before,
            health: Health::default(),
            examined: Instant::now(),
        }
    }
}

impl RunObserver for Watcher<'_> {
    fn on_progress(&mut self, running: &RunStatus<'_>) -> ControlFlow<()> {
        let now = running.stream_status();
        self.line.update(running);
        if let Some(preview) = &mut self.preview {
            preview.on_progress(running);
        }
        if now.quality != self.before.quality || (now.failed > 0) != (self.before.failed > 0) {
            self.line.bar.suspend(|| self.reporter.change(&self.before, running));
            self.before.clone_from(now);
        }
        if self.examined.elapsed() >= REPORT {
            self.examined = Instant::now();
            for problem in self.health.unreported() {
                self.line.bar.suspend(|| self.reporter.console.note(problem.to_string()));
            }
        }
        interrupt::poll()
    }

    fn on_frame(&mut self, before: &VideoFrame, after: &VideoFrame) {
        if let Some(preview) = &self.preview {
            preview.on_frame(before, after);
        }
    }

    fn settings(&mut self) -> Option<SettingsUpdate> {
        self.preview.as_ref()?.settings()
    }
}

/// Where messages about a stream go: never where its frames go.
#[derive(Clone, Copy)]
pub(super) struct StreamReporter<'a> {
    pub(super) console: Console,
    pub(super) to_stdout: bool,
    pub(super) frames: &'a IoArgs,
    pub(super) target: Target,
}

impl StreamReporter<'_> {
    /// Reports that the processing of frames has changed.
    fn change(self, before: &StreamStatus, running: &RunStatus<'_>) {
        let (now, counters) = (running.stream_status(), running.counters());
        let seconds = counters.elapsed.as_secs_f64();
        if now.quality != before.quality {
            let mut record = json!({"event": "change", "seconds": seconds});
            record::extend(&mut record, record::of_quality(&now.quality));
            self.console.progress_beside(self.to_stdout, &record);
            self.console.note_unless_json(format!(
                "{seconds:.1} s: {}, before {}",
                now.quality, before.quality
            ));
        }
        if now.failed > before.failed {
            self.console.note_unless_json(format!(
                "{seconds:.1} s: the output for frame {} was invalid, and the frame passed through \
                 unchanged; further ones are counted, and not reported",
                counters.written + 1
            ));
        }
    }

    fn line(self) -> Line {
        Line {
            bar: self.console.spinner(),
            console: self.console,
            to_stdout: self.to_stdout,
            shown: Instant::now(),
            recent: record::Recent::over(REPORT),
        }
    }

    /// The summary of a run with output format `video`.
    pub(super) fn summary(
        self,
        summary: &Summary,
        video: &VideoFormat,
        text: &str,
        fields: Value,
    ) -> anyhow::Result<()> {
        let Summary { counters, latency, waiting, work, writing, quality_levels, stream_status } =
            summary;
        let [p50, p95, p99] = latency.quantiles().map(milliseconds);
        let source = self
            .frames
            .sources()
            .iter()
            .map(|s| s.display().to_string())
            .collect::<Vec<_>>()
            .join(", ");
        let mut lost = String::new();
        let (repeated, failed) =
            stream_status.as_ref().map_or((0, 0), |now| (now.repeated as usize, now.failed));
        for (count, what) in [
            (counters.dropped, "dropped"),
            (counters.corrupt, "corrupt"),
            (counters.reconnected, "reconnections"),
            (counters.late, "late"),
            (failed, "passed through unchanged"),
        ] {
            if count > 0 {
                lost += &format!(", {count} {what}");
            }
        }
        lost += &io_args::repeated(repeated);
        let target_summary = self.target_summary(quality_levels);
        let line = format!(
            "{source} -> {}: {} of {}x{}{lost}, {text}, {:.1} fps{target_summary}, \
             {p50:.0}/{p95:.0}/{p99:.0} ms from arrival to written (p50/p95/p99)",
            self.frames.output().display(),
            io_args::counted(counters.written, "frame"),
            video.width,
            video.height,
            counters.rate()
        );
        let stage = |histogram: &eddy::video::Histogram| {
            milliseconds(histogram.total()) / histogram.count().max(1) as f64
        };
        let mut record = record::of_counters("summary", counters, counters.rate());
        let run = json!({
            "input": source, "output": self.frames.output().to_string_lossy(),
            "width": video.width, "height": video.height, "pixel_format": video.format.to_string(),
            "waiting_ms": stage(waiting), "work_ms": stage(work), "writing_ms": stage(writing),
        });
        record::extend(&mut record, run);
        record::extend(&mut record, record::of_latency(latency));
        if let Some(now) = stream_status {
            record::extend(&mut record, record::of_status(now));
        }
        record::extend(&mut record, fields);
        if self.target.is_some() {
            let deadline = self.target.deadline.map(milliseconds);
            let quality_levels = quality_levels.iter().map(|(of, count)| {
                let mut record = record::of_quality(of);
                record["frames"] = (*count).into();
                record
            });
            let kept = json!({
                "fps": self.target.rate, "deadline_ms": deadline,
                "qualities": quality_levels.collect::<Vec<_>>(),
            });
            record::extend(&mut record, kept);
        }
        self.console.report_beside(self.to_stdout, line, &record)
    }

    /// The target, and how many frames were processed at each quality level.
    fn target_summary(self, quality_levels: &[(QualityLevel, u64)]) -> String {
        let Target { rate, deadline } = self.target;
        let mut targets = Vec::new();
        targets.extend(rate.map(|rate| format!("{rate} requested")));
        targets.extend(
            deadline.map(|deadline| format!("within {} ms requested", deadline.as_millis())),
        );
        if targets.is_empty() {
            return String::new();
        }
        let total: u64 = quality_levels.iter().map(|(_, count)| count).sum();
        let of = |(quality, count): &(QualityLevel, u64)| {
            format!("{quality} ({:.0} %)", 100.0 * *count as f64 / total.max(1) as f64)
        };
        format!(
            " ({}; {})",
            targets.join(", "),
            quality_levels.iter().map(of).collect::<Vec<_>>().join("; ")
        )
    }
}

/// A progress line on a terminal, or periodic JSON objects.
struct Line {
    bar: indicatif::ProgressBar,
    console: Console,
    to_stdout: bool,
    shown: Instant,
    recent: record::Recent,
}

impl Line {
    fn update(&mut self, running: &RunStatus<'_>) {
        if self.shown.elapsed() < Duration::from_millis(500) {
            return;
        }
        self.shown = Instant::now();
        let (counters, stream_status) = (running.counters(), running.stream_status());
        let (rate, is_due) = self.recent.rate(&counters);
        if self.bar.is_hidden() && !is_due {
            return;
        }
        let latency = running.latency();
        let lost = if counters.dropped > 0 {
            format!(", {} dropped", counters.dropped)
        } else {
            String::new()
        };
        let [p50, p95, p99] = latency.quantiles().map(milliseconds);
        self.bar.set_message(format!(
            "{}, {rate:.1} fps{lost}, {p50:.0}/{p95:.0}/{p99:.0} ms, {}",
            io_args::counted(counters.written, "frame"),
            stream_status.quality
        ));
        if is_due {
            let mut record = record::of_counters("progress", &counters, rate);
            record::extend(&mut record, record::of_status(stream_status));
            record::extend(&mut record, record::of_latency(&latency));
            self.console.progress_beside(self.to_stdout, &record);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
