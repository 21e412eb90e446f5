//! A small language for tests of the binary: `eddy("denoise a.png -o
//! b.png").within(&place).fails(3).says("...")`.

// Not every test program uses all helpers; they may panic.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod images;
pub mod networks;
pub mod place;

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use place::Place;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_eddy");

/// A run of the binary, not started yet.
pub struct Eddy {
    command: Command,
    shown: String,
}

/// The binary with these arguments, separated by spaces.
pub fn eddy(arguments: &str) -> Eddy {
    Eddy::new(Command::new(BINARY), arguments)
}

impl Eddy {
    /// `command` is the binary, or a program that runs it with the arguments that follow its own.
    pub fn new(mut command: Command, arguments: &str) -> Self {
        command
            .args(arguments.split_whitespace())
            .env_remove("ORT_DYLIB_PATH")
            .stdin(Stdio::null());
        Self { command, shown: format!("eddy {arguments}") }
    }

    /// One more argument, which may contain spaces.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.shown += &format!(" {}", argument.as_ref().display());
        self.command.arg(argument);
        self
    }

    /// More arguments, separated by spaces.
    pub fn args(self, arguments: &str) -> Self {
        arguments.split_whitespace().fold(self, Self::arg)
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn within(mut self, place: &Place) -> Self {
        self.command.current_dir(place.path(""));
        self
    }

    /// The command itself, for tests that watch it run.
    pub fn command(self) -> Command {
        self.command
    }

    pub fn runs(mut self) -> Outcome {
        let output = self.command.output().unwrap();
        Outcome {
            shown: self.shown,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn succeeds(self) -> Outcome {
        self.runs().ended(0)
    }

    /// Ends with this exit code and a message, without a panic.
    pub fn fails(self, code: i32) -> Outcome {
        let outcome = self.runs().ended(code);
        assert!(!outcome.stderr.trim().is_empty(), "{outcome} failed without a message");
        assert!(!outcome.stderr.contains("panicked"), "{outcome} panicked");
        outcome
    }
}

/// The outcome of a run.
pub struct Outcome {
    shown: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// The message contains this text.
    pub fn says(self, words: &str) -> Self {
        assert!(self.stderr.contains(words), "{self}\ndoes not say {words:?}");
        self
    }

    pub fn says_nothing(self) -> Self {
        assert!(self.stderr.is_empty(), "{self}\nis not silent");
        self
    }

    /// Standard output contains this text.
    pub fn prints(self, words: &str) -> Self {
        assert!(self.stdout.contains(words), "{self}\ndoes not print {words:?}");
        self
    }

    pub fn prints_nothing(self) -> Self {
        assert!(self.stdout.is_empty(), "{self}\nprints something");
        self
    }

    /// The last JSON object that was printed: for a stream, its summary.
    pub fn summary(&self) -> serde_json::Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("{self}\nends with no JSON object: {error}"))
    }

    /// The one JSON object that was printed.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{self}\nprints no JSON object: {error}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shown, code, stdout, stderr } = self;
        write!(f, "`{shown}` ended with {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }
}

/// Reports why a test is skipped, past the harness, which would capture the message.
pub fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// `unshare` with `flag` (`-m`, `-n`), where this user may; without root, as root of a new user
/// namespace.
pub fn unshare(flag: &str) -> Option<Command> {
    let candidates: [&[&str]; 2] = [&[flag], &["--map-root-user", flag]];
    candidates.iter().find_map(|flags| {
        let works = Command::new("unshare")
            .args(*flags)
            .arg("true")
            .output()
            .is_ok_and(|run| run.status.success());
        works.then(|| {
            let mut command = Command::new("unshare");
            command.args(*flags);
            command
        })
    })
}
