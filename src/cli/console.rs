//! Where words go: results to stdout, everything else to stderr, a progress bar on a terminal only.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use eddy::diffusion::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How much is said, and for whom.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(crate) struct Console {
    /// Print results as JSON, one object a line
    #[arg(long)]
    json: bool,

    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

impl Console {
    /// Says something that is no result.
    pub(crate) fn note(self, line: impl AsRef<str>) {
        if !self.quiet {
            // Nobody to tell is no reason to stop.
            let _ = writeln!(io::stderr(), "{}", plain(line.as_ref()));
        }
    }

    /// Says something that machines are told otherwise.
    pub(crate) fn note_unless_json(self, line: impl AsRef<str>) {
        if !self.json {
            self.note(line);
        }
    }

    /// Gives a result: `text` for people, or `json` for machines.
    pub(crate) fn result(self, text: impl AsRef<str>, json: &serde_json::Value) -> anyhow::Result<()> {
        let written = if self.json {
            writeln!(io::stdout(), "{json}")
        } else {
            writeln!(io::stdout(), "{}", plain(text.as_ref().trim_end()))
        };
        match written {
            // The reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }

    /// Reports a finished image: a line on stderr for people, an object on stdout for machines.
    pub(crate) fn report(self, line: impl AsRef<str>, json: &serde_json::Value) -> anyhow::Result<()> {
        if self.json {
            return self.result("", json);
        }
        self.note(line);
        Ok(())
    }

    /// Reports a finished stream as [`report`](Self::report) does; where stdout carries images, the object goes to stderr.
    pub(crate) fn report_beside(
        self,
        stdout_is_taken: bool,
        line: impl AsRef<str>,
        json: &serde_json::Value,
    ) -> anyhow::Result<()> {
        if self.json && stdout_is_taken {
            let _ = writeln!(io::stderr(), "{json}");
            return Ok(());
        }
        self.report(line, json)
    }

    /// Tells machines how far a stream has come.
    pub(crate) fn progress_beside(self, stdout_is_taken: bool, json: &serde_json::Value) {
        if self.json {
            // Nobody to tell is no reason to stop.
            let _ = if stdout_is_taken { writeln!(io::stderr(), "{json}") } else { writeln!(io::stdout(), "{json}") };
        }
    }

    /// One line for a stream, whose length is not known.
    pub(crate) fn spinner(self) -> ProgressBar {
        let shown = !self.quiet && !self.json && io::stderr().is_terminal();
        ProgressBar::with_draw_target(
            None,
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
        )
    }

    /// A bar over `images` images.
    pub(crate) fn bar(self, images: usize) -> Bar {
        let shown = !self.quiet && !self.json && io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(images as u64 * Bar::PARTS), target);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} % {eta:>4} left  {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Bar { bar, console: self }
    }
}

/// A progress bar on a terminal; nothing elsewhere.
pub(crate) struct Bar {
    bar: ProgressBar,
    console: Console,
}

impl Bar {
    /// Parts that an image is counted in.
    const PARTS: u64 = 1000;

    /// Image `index` of the run has begun.
    pub(crate) fn begin(&self, index: usize, name: &str) {
        self.bar.set_message(plain_line(name));
        self.bar.set_position(index as u64 * Self::PARTS);
    }

    /// Image `index` has come this far.
    pub(crate) fn advance(&self, index: usize, progress: Progress) {
        let parts = progress.done as u64 * Self::PARTS / progress.total.max(1) as u64;
        self.bar.set_position(index as u64 * Self::PARTS + parts);
    }

    /// Reports a finished image above the bar.
    pub(crate) fn report(&self, line: impl AsRef<str>, json: &serde_json::Value) -> anyhow::Result<()> {
        self.bar.suspend(|| self.console.report(line, json))
    }

    /// As [`report`](Self::report); the object goes to stderr where stdout carries images.
    pub(crate) fn report_beside(
        &self,
        stdout_is_taken: bool,
        line: impl AsRef<str>,
        json: &serde_json::Value,
    ) -> anyhow::Result<()> {
        self.bar.suspend(|| self.console.report_beside(stdout_is_taken, line, json))
    }

    /// Says something above the bar.
    pub(crate) fn note(&self, line: impl AsRef<str>) {
        self.bar.suspend(|| self.console.note(line));
    }

    /// Shows an error above the bar, whether quiet or not.
    pub(crate) fn error(&self, error: &eddy::Error) {
        self.bar.suspend(|| complain(&chain(error)));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Says what went wrong, and returns the exit code for it.
pub(crate) fn complain_of(error: &anyhow::Error) -> u8 {
    if let Some(failed) = error.downcast_ref::<SomeFailed>() {
        complain(&failed.to_string());
        return failed.exit_code;
    }
    complain(&format!("{error:#}"));
    error.downcast_ref::<eddy::Error>().map_or(1, eddy::Error::exit_code)
}

/// Some of several images failed; each was complained of when it did.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {total} images failed; the others are done")]
pub(crate) struct SomeFailed {
    pub(crate) failed: usize,
    pub(crate) total: usize,
    /// Of the first that failed.
    pub(crate) exit_code: u8,
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "eddy: {}", plain(text));
}

/// Text as it is shown, which may come from files that strangers made: what could steer a terminal, or turn the direction of the text,
/// is written out. Lines stay.
pub(crate) fn plain(text: &str) -> String {
    let is_shown = |c: char| c == '\n' || !(c.is_control() || is_mark(c));
    if text.chars().all(is_shown) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_shown(c) { shown.push(c) } else { shown.extend(c.escape_default()) }
    }
    shown
}

/// As [`plain`], in one line.
pub(crate) fn plain_line(text: &str) -> String {
    plain(text).replace('\n', "\\n")
}

/// Whether a character is none that is seen, but turns the direction of others or parts lines.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
