//! What is said of a stream while it runs, and at its end.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use eddy::frame::stream::{Picture, Video};
use eddy::machine::Health;
use eddy::preview::Preview;
use eddy::video::record::{self, milliseconds};
use eddy::video::{Quality, Running, Summary, Target, Treatment, Watch, Wishes};
use serde_json::{Value, json};

use super::console::Console;
use super::interrupt;
use super::pictures::{self, Pictures};

/// How often a run says how far it has come, and looks whether the machine is held back.
const REPORT: Duration = Duration::from_secs(5);

/// Whoever watches a run: from the terminal, and from a browser.
pub(super) struct Watcher<'a> {
    told: Told<'a>,
    line: Line,
    preview: Option<Preview>,
    before: Treatment,
    health: Health,
    examined: Instant,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(told: Told<'a>, preview: Option<Preview>, before: Treatment) -> Self {
        Self { told, line: told.line(), preview, before, health: Health::default(), examined: Instant::now() }
    }
}

impl Watch for Watcher<'_> {
    fn look(&mut self, running: &Running<'_>) -> ControlFlow<()> {
        let now = running.treatment();
        self.line.tell(running);
        if let Some(preview) = &mut self.preview {
            preview.look(running);
        }
        if now.quality != self.before.quality || (now.failed > 0) != (self.before.failed > 0) {
            self.line.bar.suspend(|| self.told.change(&self.before, running));
            self.before.clone_from(now);
        }
        if self.examined.elapsed() >= REPORT {
            self.examined = Instant::now();
            for trouble in self.health.news() {
                self.line.bar.suspend(|| self.told.console.note(trouble.to_string()));
            }
        }
        interrupt::poll()
    }

    fn show(&mut self, before: &Picture, after: &Picture) {
        if let Some(preview) = &self.preview {
            preview.show(before, after);
        }
    }

    fn wishes(&mut self) -> Option<Wishes> {
        self.preview.as_ref()?.wishes()
    }
}

/// Where words about a stream go: never where its pictures do.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) console: Console,
    pub(super) to_stdout: bool,
    pub(super) pictures: &'a Pictures,
    pub(super) target: Target,
}

impl Told<'_> {
    /// Pictures are treated otherwise than before.
    fn change(self, before: &Treatment, running: &Running<'_>) {
        let (now, tally) = (running.treatment(), running.tally());
        let seconds = tally.elapsed.as_secs_f64();
        if now.quality != before.quality {
            let mut record = json!({"event": "change", "seconds": seconds});
            record::extend(&mut record, record::of_quality(&now.quality));
            self.console.progress_beside(self.to_stdout, &record);
            self.console.note_unless_json(format!("{seconds:.1} s: {}, before {}", now.quality, before.quality));
        }
        if now.failed > before.failed {
            self.console.note_unless_json(format!(
                "{seconds:.1} s: the network made no picture of picture {}, which was passed on as it was; this is said once, \
                 and counted",
                tally.written + 1
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

    /// What a run was like that gave pictures as `video` describes them.
    pub(super) fn summary(self, summary: &Summary, video: &Video, words: &str, facts: Value) -> anyhow::Result<()> {
        let Summary { tally, latency, waiting, work, writing, qualities, treatment } = summary;
        let [p50, p95, p99] = latency.told().map(milliseconds);
        let source = self.pictures.sources().iter().map(|s| s.display().to_string()).collect::<Vec<_>>().join(", ");
        let mut lost = String::new();
        let (repeated, failed) = treatment.as_ref().map_or((0, 0), |now| (now.repeated as usize, now.failed));
        for (count, what) in [
            (tally.dropped, "dropped"),
            (tally.corrupt, "corrupt"),
            (tally.reconnected, "times gone"),
            (tally.late, "late"),
            (failed, "passed on as they were"),
        ] {
            if count > 0 {
                lost += &format!(", {count} {what}");
            }
        }
        lost += &pictures::repeated(repeated);
        let aim = self.aim(qualities);
        let line = format!(
            "{source} -> {}: {} of {}x{}{lost}, {words}, {:.1} a second{aim}, {p50:.0}/{p95:.0}/{p99:.0} ms from arrival to \
             written (p50/p95/p99)",
            self.pictures.output().display(),
            counted(tally.written),
            video.width,
            video.height,
            tally.rate()
        );
        let stage =
            |histogram: &eddy::video::Histogram| milliseconds(histogram.total()) / histogram.count().max(1) as f64;
        let mut record = record::of_tally("summary", tally, tally.rate());
        let run = json!({
            "input": source, "output": self.pictures.output().to_string_lossy(),
            "width": video.width, "height": video.height, "pixel_format": video.format.to_string(),
            "waiting_ms": stage(waiting), "work_ms": stage(work), "writing_ms": stage(writing),
        });
        record::extend(&mut record, run);
        record::extend(&mut record, record::of_latency(latency));
        if let Some(now) = treatment {
            record::extend(&mut record, record::of_treatment(now));
        }
        record::extend(&mut record, facts);
        if self.target.is_some() {
            let deadline = self.target.deadline.map(milliseconds);
            let qualities = qualities.iter().map(|(of, count)| {
                let mut record = record::of_quality(of);
                record["pictures"] = (*count).into();
                record
            });
            let kept = json!({
                "fps": self.target.rate, "deadline_ms": deadline, "qualities": qualities.collect::<Vec<_>>(),
            });
            record::extend(&mut record, kept);
        }
        self.console.report_beside(self.to_stdout, line, &record)
    }

    /// How fast pictures were to be, and what was done to how many of them for that.
    fn aim(self, qualities: &[(Quality, u64)]) -> String {
        let Target { rate, deadline } = self.target;
        let mut aims = Vec::new();
        aims.extend(rate.map(|rate| format!("{rate} asked for")));
        aims.extend(deadline.map(|deadline| format!("within {} ms asked for", deadline.as_millis())));
        if aims.is_empty() {
            return String::new();
        }
        let total: u64 = qualities.iter().map(|(_, count)| count).sum();
        let of = |(quality, count): &(Quality, u64)| {
            format!("{quality} ({:.0} %)", 100.0 * *count as f64 / total.max(1) as f64)
        };
        format!(" ({}; {})", aims.join(", "), qualities.iter().map(of).collect::<Vec<_>>().join("; "))
    }
}

/// `1 picture`, `3 pictures`.
fn counted(count: u64) -> String {
    if count == 1 { "1 picture".to_owned() } else { format!("{count} pictures") }
}

/// One line on a terminal that says how far a run has come, or one JSON object now and then.
struct Line {
    bar: indicatif::ProgressBar,
    console: Console,
    to_stdout: bool,
    shown: Instant,
    recent: record::Recent,
}

impl Line {
    fn tell(&mut self, running: &Running<'_>) {
        if self.shown.elapsed() < Duration::from_millis(500) {
            return;
        }
        self.shown = Instant::now();
        let (tally, treatment) = (running.tally(), running.treatment());
        let (rate, is_due) = self.recent.rate(&tally);
        if self.bar.is_hidden() && !is_due {
            return;
        }
        let latency = running.latency();
        let lost = if tally.dropped > 0 { format!(", {} dropped", tally.dropped) } else { String::new() };
        let [p50, p95, p99] = latency.told().map(milliseconds);
        self.bar.set_message(format!(
            "{}, {rate:.1} a second{lost}, {p50:.0}/{p95:.0}/{p99:.0} ms, {}",
            counted(tally.written),
            treatment.quality
        ));
        if is_due {
            let mut record = record::of_tally("progress", &tally, rate);
            record::extend(&mut record, record::of_treatment(treatment));
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
