//! Output: results to stdout, everything else to stderr, and a progress bar on terminals only.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use eddy::diffusion::Progress;
use eddy::error::with_causes;
use eddy::setting::{self, Setting};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How much is printed, and in which format.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(crate) struct Console {
    /// Print results as JSON, one object a line
    #[arg(long)]
    json: bool,

    /// Print only errors
    #[arg(short, long)]
    quiet: bool,
}

impl Console {
    /// Whether only errors are printed.
    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Prints a message that is not a result.
    pub(crate) fn note(self, line: impl AsRef<str>) {
        if !self.quiet {
            // A closed stderr does not stop the run.
            let _ = writeln!(io::stderr(), "{}", plain(line.as_ref()));
        }
    }

    /// Prints a message that JSON output contains in another form.
    pub(crate) fn note_unless_json(self, line: impl AsRef<str>) {
        if !self.json {
            self.note(line);
        }
    }

    /// Prints a result: `text` for people, or `json` for machines.
    pub(crate) fn result(
        self,
        text: impl AsRef<str>,
        json: &serde_json::Value,
    ) -> anyhow::Result<()> {
        let written = if self.json {
            writeln!(io::stdout(), "{json}")
        } else {
            writeln!(io::stdout(), "{}", plain(text.as_ref().trim_end()))
        };
        match written {
            // The reader has closed the pipe.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other.map_err(cannot_print)?),
        }
    }

    /// Reports a finished image: a line on stderr for people, an object on stdout for machines.
    pub(crate) fn report(
        self,
        line: impl AsRef<str>,
        json: &serde_json::Value,
    ) -> anyhow::Result<()> {
        if self.json {
            return self.result("", json);
        }
        self.note(line);
        Ok(())
    }

    /// Reports a finished stream like [`report`](Self::report). If stdout carries images, the
    /// object goes to stderr.
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

    /// Prints the progress of a stream as JSON.
    pub(crate) fn progress_beside(self, stdout_is_taken: bool, json: &serde_json::Value) {
        if self.json {
            // A closed output does not stop the run.
            let _ = if stdout_is_taken {
                writeln!(io::stderr(), "{json}")
            } else {
                writeln!(io::stdout(), "{json}")
            };
        }
    }

    /// A status line for a stream of unknown length.
    pub(crate) fn spinner(self) -> ProgressBar {
        let shown = !self.quiet && !self.json && io::stderr().is_terminal();
        ProgressBar::with_draw_target(
            None,
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
        )
    }

    /// A progress bar for `images` images.
    pub(crate) fn bar(self, images: usize) -> Bar {
        let shown = !self.quiet && !self.json && io::stderr().is_terminal();
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(images as u64 * Bar::PARTS), target);
        if let Ok(style) =
            ProgressStyle::with_template("{wide_bar} {percent:>3} % {eta:>4} left  {msg}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Bar { bar, console: self }
    }
}

/// A progress bar on a terminal; prints nothing elsewhere.
pub(crate) struct Bar {
    bar: ProgressBar,
    console: Console,
}

impl Bar {
    /// Units of progress per image.
    const PARTS: u64 = 1000;

    /// Marks the start of image `index`.
    pub(crate) fn begin(&self, index: usize, name: &str) {
        self.bar.set_message(plain_line(name));
        self.bar.set_position(index as u64 * Self::PARTS);
    }

    /// Shows the progress of image `index`.
    pub(crate) fn advance(&self, index: usize, progress: Progress) {
        let parts = progress.done as u64 * Self::PARTS / progress.total.max(1) as u64;
        self.bar.set_position(index as u64 * Self::PARTS + parts);
    }

    /// Reports a finished image above the bar.
    pub(crate) fn report(
        &self,
        line: impl AsRef<str>,
        json: &serde_json::Value,
    ) -> anyhow::Result<()> {
        self.bar.suspend(|| self.console.report(line, json))
    }

    /// Like [`report`](Self::report). If stdout carries images, the object goes to stderr.
    pub(crate) fn report_beside(
        &self,
        stdout_is_taken: bool,
        line: impl AsRef<str>,
        json: &serde_json::Value,
    ) -> anyhow::Result<()> {
        self.bar.suspend(|| self.console.report_beside(stdout_is_taken, line, json))
    }

    /// Prints a message above the bar.
    pub(crate) fn note(&self, line: impl AsRef<str>) {
        self.bar.suspend(|| self.console.note(line));
    }

    /// Prints an error above the bar, even with --quiet.
    pub(crate) fn error(&self, error: &eddy::Error) {
        self.bar.suspend(|| print_error(&with_causes(error)));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Why a result is not on stdout.
pub(crate) fn cannot_print(cause: io::Error) -> eddy::Error {
    let problem = match cause.kind() {
        io::ErrorKind::BrokenPipe => "its reader closed the pipe before the end",
        io::ErrorKind::StorageFull => "the disk is full; free some space and try again",
        _ => "writing failed",
    };
    eddy::Error::output_from("standard output", problem, cause)
}

/// Prints an error and returns its exit code.
pub(crate) fn report_error(error: &anyhow::Error) -> u8 {
    if let Some(failed) = error.downcast_ref::<SomeFailed>() {
        print_error(&failed.to_string());
        return failed.exit_code;
    }
    print_error(&format!("{error:#}"));
    error.downcast_ref::<eddy::Error>().map_or(1, eddy::Error::exit_code)
}

/// Some of several images failed. Each failure was reported when it happened.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {total} images failed; the others are done")]
pub(crate) struct SomeFailed {
    pub(crate) failed: usize,
    pub(crate) total: usize,
    /// The exit code of the first failure.
    pub(crate) exit_code: u8,
}

fn print_error(text: &str) {
    // Messages of ONNX Runtime may end with a line break.
    let _ = writeln!(io::stderr(), "eddy: {}", plain(text.trim_end()));
}

/// The options by which users know the settings that messages of the library name.
const FLAGS: [(Setting, &str); 23] = [
    (setting::ALL_ON_DEVICE, "--require-device"),
    (setting::CLASS, "--class"),
    (setting::DEVICE, "--device"),
    (setting::IMAGE_FORMAT, "-f"),
    (setting::INPUT, "--input"),
    (setting::INPUTS, "--inputs"),
    (setting::MATRIX, "--matrix"),
    (setting::MAX_MEMORY, "--max-memory"),
    (setting::MODEL, "-m"),
    (setting::OUTPUT, "--output-name"),
    (setting::PIXEL_FORMAT, "--pixel-format"),
    (setting::PLUGIN, "--ep-library"),
    (setting::PRECISION, "--precision"),
    (setting::RECONNECT, "--reconnect"),
    (setting::RUNTIME, "--runtime"),
    (setting::SANDBOX, "--sandbox"),
    (setting::SIZE, "--size"),
    (setting::SKIP_CORRUPT, "--skip-corrupt"),
    (setting::STALL_TIMEOUT, "--stall-timeout"),
    (setting::STREAM_SIZE, "--size"),
    (setting::TILE, "-t"),
    (setting::TILE_OVERLAP, "--tile-overlap"),
    (setting::TIMEOUT, "--timeout"),
];

/// Puts options in the place of the settings in a message.
pub(crate) fn with_flags(text: &str) -> String {
    setting::named(text, &FLAGS)
}

/// Names options in place of the library's settings, and escapes characters that could control a
/// terminal or change the direction of text, since file content is untrusted. Line breaks are kept.
pub(crate) fn plain(text: &str) -> String {
    let text = with_flags(text);
    let is_shown = |c: char| c == '\n' || !(c.is_control() || is_mark(c));
    if text.chars().all(is_shown) {
        return text;
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_shown(c) { shown.push(c) } else { shown.extend(c.escape_default()) }
    }
    shown
}

/// Like [`plain`], in one line.
pub(crate) fn plain_line(text: &str) -> String {
    plain(text).replace('\n', "\\n")
}

/// Whether a character is invisible and changes the direction of text or breaks lines.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::{FLAGS, plain};
    use eddy::setting;

    #[test]
    fn every_setting_is_shown_as_an_option() {
        for setting in setting::ALL {
            let shown = plain(&format!("raise {setting}"));
            assert!(shown.starts_with("raise -") && !shown.contains('`'), "{shown}");
        }
        assert_eq!(FLAGS.len(), setting::ALL.len());
        assert_eq!(plain("its input `x`\u{1b}[2J"), "its input `x`\\u{1b}[2J");
    }
}
