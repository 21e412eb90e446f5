//! The other commands, and what all commands share.

use std::collections::BTreeSet;
use std::path::Path;

use crate::common::place::Place;
use crate::common::{eddy, skip};

const COMMANDS: [&str; 14] = [
    "denoise", "upscale", "inpaint", "deblur", "generate", "profile", "sample", "info", "check",
    "doctor", "bench", "prepare", "compile", "import",
];

#[test]
fn a_missing_command_is_a_usage_error() {
    eddy("").fails(2).says("Usage: eddy").prints_nothing();
    eddy("dance").fails(2).says("dance");
    eddy("denoise").fails(2).says("--output");
    eddy("denoise a.png").fails(2).says("--output");
    eddy("denoise -o a.png").fails(2).says("SOURCE");
    eddy("denoise a.png -o b.png --loud").fails(2).says("--loud");
}

#[test]
fn prints_help_and_version() {
    let help = eddy("--help").succeeds().says_nothing().prints("Exit codes: 0 done");
    for command in COMMANDS {
        assert!(help.stdout.contains(command), "{help}\ndoes not name {command}");
        eddy(command).arg("--help").succeeds().says_nothing().prints("Usage: eddy ");
        eddy(command).arg("--version").succeeds().prints(env!("CARGO_PKG_VERSION"));
    }
    eddy("--version").succeeds().prints(env!("CARGO_PKG_VERSION"));
    // The embedded library is the one that the build found.
    let library = std::fs::read(env!("EDDY_EMBEDDED_ONNXRUNTIME")).unwrap();
    let digest = eddy::digest::sha256(&library);
    eddy("--version --verbose").succeeds().prints(&digest).prints("denoise-fast f32: SHA-256 ");
}

/// Every option in the README must be in the help.
#[test]
fn every_flag_of_the_readme_is_in_the_help() {
    let Ok(readme) =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))
    else {
        return skip("the README's flags: there is no README");
    };
    let known: BTreeSet<String> = COMMANDS
        .iter()
        .flat_map(|command| flags(&eddy(command).arg("--help").runs().stdout))
        .collect();
    assert!(known.contains("--tile-overlap") && known.contains("-o"), "{known:?}");
    let foreign = ["cargo ", "git ", "pip ", "python", "just ", "apt", "docker", "rustup", "curl "];
    for line in readme.lines().filter(|line| !foreign.iter().any(|word| line.contains(word))) {
        for flag in flags(line) {
            assert!(known.contains(&flag), "the README has {flag}, no command has: {line}");
        }
    }
}

/// The options in a text: `-o`, `--output`.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let is_flag = |word: &&str| {
        let name = word.strip_prefix("--").filter(|name| name.len() > 1);
        let letter = word.strip_prefix('-').filter(|name| name.len() == 1);
        name.or(letter).is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    words.filter(is_flag).map(str::to_owned).collect()
}

#[test]
fn info_describes_models() {
    eddy("info")
        .succeeds()
        .says_nothing()
        .prints("denoise-fast")
        .prints(env!("EDDY_ONNXRUNTIME_VERSION"));
    let list = eddy("info --json").succeeds().json();
    assert_eq!(list["models"][0]["name"], "denoise-fast");
    eddy("info denoise-fast").succeeds().prints("inside this binary").prints("input x");
    let record = eddy("info denoise-fast --json").succeeds().json();
    assert_eq!((record["task"].as_str(), record["channels"].as_u64()), (Some("denoise"), Some(3)));
    assert_eq!(record["files"][0]["signature"].as_array().unwrap().len(), 3);
    eddy("info none").fails(4).says("bundled are denoise-fast");
}

#[test]
fn check_and_doctor_pass() {
    eddy("check").succeeds().says_nothing().prints("denoise-fast f32: ok");
    let files = eddy("check denoise-fast --json").succeeds();
    for (line, precision) in files.stdout.lines().zip(["f32", "f16", "int8"]) {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&record["passes"], &record["precision"]), (&true.into(), &precision.into()));
    }
    assert_eq!(files.stdout.lines().count(), 3);
    eddy("doctor").succeeds().says_nothing().prints("gives the expected result");
    let record = eddy("doctor --json --threads 1").succeeds().json();
    assert_eq!(record["models"][0]["passes"], true);
    assert!(
        env!("EDDY_ONNXRUNTIME_VERSION").starts_with(record["onnxruntime"].as_str().unwrap()),
        "{record}"
    );
}

#[test]
fn bench_measures_images() {
    let record = eddy("bench denoise-fast --size 100x60 --steps 2 --seconds 0.1 --json")
        .succeeds()
        .says_nothing()
        .json();
    assert_eq!((record["width"].as_u64(), record["height"].as_u64()), (Some(100), Some(60)));
    assert_eq!(record["evaluations"].as_u64(), Some(2));
    for key in ["session_ms", "frame_ms", "ratio", "start_up_ms", "peak_resident_bytes"] {
        assert!(record[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {record}");
    }
    let tiled =
        eddy("bench denoise-fast --size 300x60 -t 256 --seconds 0.1 --json").succeeds().json();
    assert!(tiled["evaluations"].as_u64() > Some(1), "{tiled}");
    // A network that makes images.
    let made = eddy("bench prior --size 64x48 --steps 2 --seconds 0 --json").succeeds().json();
    assert_eq!(made["evaluations"].as_u64(), Some(2), "{made}");
    eddy("bench denoise-fast --size 100").fails(2).says("such as 640x480");
    eddy("bench none").fails(4).says("none");
}

#[test]
fn bench_measures_video() {
    let record = eddy("bench camera --video --size 96x64 --precision int8 --seconds 0.1 --json")
        .succeeds()
        .json();
    assert_eq!(
        (record["width"].as_u64(), record["precision"].as_str()),
        (Some(96), Some("int8")),
        "{record}"
    );
    for key in ["fps_network", "fps_one_by_one", "fps", "fps_temporal", "peak_resident_bytes"] {
        assert!(record[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {record}");
    }
    eddy("bench denoise-fast --video --size 33x35 --seconds 0.1")
        .succeeds()
        .prints("| 33x35 | f32 |")
        .prints("| int8 |");
    eddy("bench upscale-x2 --video").fails(2).says("leave --video out");
}

#[test]
fn completions_and_man_pages_list_all_commands() {
    for shell in ["bash", "zsh", "fish"] {
        eddy(&format!("completions {shell}")).succeeds().prints("denoise").prints("preview");
    }
    // Words of values, also where a value may be something else.
    eddy("completions bash")
        .succeeds()
        .prints(r#"compgen -W "auto cpu cuda tensorrt openvino plugin""#)
        .prints(r#"compgen -W "auto f32 f16 int8""#);
    let place = Place::new();
    eddy("man .").within(&place).succeeds();
    assert!(place.names("").contains(&"eddy-denoise.1".to_owned()), "{:?}", place.names(""));
    eddy("man missing").within(&place).fails(1).says("cannot be written");
}
