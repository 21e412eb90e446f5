//! Programs that a suite runs: their time, their memory, and an end to those that take too long.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::interrupt;

/// A program that ended well.
pub(super) struct Finished {
    pub(super) seconds: f64,
    /// Its peak resident memory in bytes, as far as it was seen while it ran.
    pub(super) peak: Option<u64>,
    pub(super) stdout: String,
}

/// Why there is nothing to measure.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no such program.
    NotInstalled,
    /// It was ended after this time.
    Late(Duration),
    /// The suite has no time left for it.
    OutOfTime,
    /// It failed with this message.
    Failed(String),
    /// A stop was requested.
    Interrupted,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotInstalled => f.write_str("not installed"),
            Self::Late(limit) => {
                write!(f, "ended after {:.0} s without a result", limit.as_secs_f64())
            }
            Self::OutOfTime => f.write_str("left out: the time of the suite was over"),
            Self::Failed(message) => write!(f, "failed: {message}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// Runs a program to its end, at most for `limit`.
pub(super) fn run(mut command: Command, limit: Duration) -> Result<Finished, Failure> {
    if limit.is_zero() {
        return Err(Failure::OutOfTime);
    }
    let failed = |error: std::io::Error| Failure::Failed(error.to_string());
    // Files take any amount of output, where a pipe would have to be read meanwhile.
    let (mut stdout, mut stderr) =
        (tempfile::tempfile().map_err(failed)?, tempfile::tempfile().map_err(failed)?);
    command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().map_err(failed)?)
        .stderr(stderr.try_clone().map_err(failed)?)
        // Ctrl-C is for this process, which ends the program.
        .process_group(0);
    let started = Instant::now();
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::NotInstalled,
        _ => failed(error),
    })?;
    let mut peak = None;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        peak = peak_of(&child).or(peak);
        let elapsed = started.elapsed();
        let problem = if interrupt::poll().is_break() {
            Failure::Interrupted
        } else if elapsed > limit {
            Failure::Late(limit)
        } else {
            // Exact to a percent, without disturbing what is measured.
            std::thread::sleep(
                (elapsed / 100).clamp(Duration::from_millis(1), Duration::from_millis(50)),
            );
            continue;
        };
        // It may have ended meanwhile.
        let _ = child.kill();
        child.wait().map_err(failed)?;
        return Err(problem);
    };
    let seconds = started.elapsed().as_secs_f64();
    if !status.success() {
        let text = text_of(&mut stderr);
        let message = text.lines().rev().find(|line| !line.trim().is_empty());
        return Err(Failure::Failed(message.map_or(status.to_string(), str::to_owned)));
    }
    Ok(Finished { seconds, peak, stdout: text_of(&mut stdout) })
}

/// The peak resident memory of a running program.
fn peak_of(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn text_of(file: &mut File) -> String {
    const MOST: u64 = 1 << 20;
    let mut bytes = Vec::new();
    // What cannot be read is missing in a message alone.
    let _ = file.rewind().and_then(|()| file.take(MOST).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Failure, run};
    use std::process::Command;
    use std::time::Duration;

    fn shell(script: &str, limit: f64) -> Result<super::Finished, Failure> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, Duration::from_secs_f64(limit))
    }

    #[test]
    fn time_memory_and_output_are_measured() {
        let finished = shell("sleep 0.2; echo done", 60.0).unwrap_or_else(|it| panic!("{it}"));
        assert!((0.2..30.0).contains(&finished.seconds), "{}", finished.seconds);
        assert!(finished.peak.is_some_and(|peak| peak > 100_000), "{:?}", finished.peak);
        assert_eq!(finished.stdout, "done\n");
    }

    #[test]
    fn failures_say_why() {
        let message = |run: Result<super::Finished, Failure>| run.err().unwrap().to_string();
        assert_eq!(message(shell("echo first >&2; echo why >&2; exit 3", 60.0)), "failed: why");
        assert_eq!(message(shell("exit 3", 60.0)), "failed: exit status: 3");
        assert!(message(shell("sleep 60", 0.1)).contains("without a result"));
        assert!(message(shell("true", 0.0)).contains("left out"));
        let missing = run(Command::new("/nowhere/program"), Duration::from_secs(1));
        assert_eq!(message(missing), "not installed");
    }
}
