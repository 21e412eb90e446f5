use std::fs;
use std::path::{Path, PathBuf};

use crate::diffusion::{Prediction, Sampler};
use crate::model::{Manifest, Precision};

const GOOD: &str = r#"
    name = "m"
    version = "1"
    task = "denoise"
    prediction = "denoised"
    channels = 3
    range = [0.0, 1.0]
    license = "CC0-1.0"
    description = "a test"
    [inputs]
    sample = "x"
    sigma = "sigma"
    [outputs]
    denoised = "y"
    [files.f32]
    path = "m.onnx"
    sha256 = "00"
"#;

pub(super) fn good() -> Manifest {
    Manifest::parse(GOOD, "m").unwrap()
}

fn problem(text: &str) -> String {
    format!("{:#}", anyhow::Error::from(Manifest::parse(text, "m").unwrap_err()))
}

#[test]
fn a_minimal_manifest_has_defaults() {
    let manifest = good();
    assert_eq!((manifest.multiple_of, manifest.scale, manifest.defaults.steps), (1, 1, 1));
    assert_eq!(manifest.outputs.prediction, "y");
}

#[test]
fn reports_inconsistent_fields() {
    const SCHEDULED: &str = "[schedule]\nprediction_type = \"sample\"\n[inputs]";
    for (from, to, message) in [
        ("channels = 3", "channels = 2", "channels = 2"),
        ("[0.0, 1.0]", "[1.0, 0.0]", "range"),
        ("[0.0, 1.0]", "[nan, 1.0]", "range = NaN"),
        ("version", "verzion", "verzion"),
        ("\"denoised\"", "\"magic\"", "magic"),
        ("\"denoised\"", "{ edm = { sigma_data = 0 } }", "sigma_data = 0; expected 0.000001 to"),
        ("channels = 3", "channels = 3\nmultiple_of = 0", "multiple_of"),
        ("channels = 3", "channels = 3\nscale = 64\nmultiple_of = 64", "times scale = 4096"),
        ("[inputs]", "[defaults]\nsteps = 1\nsampler = \"dpm\"\n[inputs]", "expected one of ddim"),
        ("[inputs]", "[schedule]\n[inputs]", "its prediction is denoised, but a [schedule] needs"),
    ] {
        let text = problem(&GOOD.replace(from, to));
        assert!(text.contains(message), "{text} does not mention {message}");
    }
    for number in ["nan", "inf"] {
        let schedule = format!("[schedule]\nbeta_start = {number}\n[inputs]");
        let text =
            problem(&GOOD.replace("\"denoised\"", "\"epsilon\"").replace("[inputs]", &schedule));
        assert!(text.contains("beta_start"), "{text}");
    }
    let epsilon = GOOD.replace("\"denoised\"", "\"epsilon\"").replace("[inputs]", SCHEDULED);
    let text = problem(&epsilon);
    assert!(text.contains("\"epsilon\"") && text.contains("\"sample\""), "{text}");
    assert!(Manifest::parse(&epsilon.replace("\"sample\"", "\"epsilon\""), "m").is_ok());
}

#[test]
fn rejects_contradictory_and_oversized_manifests() {
    let upscaler = Manifest { scale: 2, ..good() };
    let problem = upscaler.to_toml().unwrap_err().to_string();
    assert!(problem.contains("scale = 2, no condition"), "{problem}");
    let wordy = Manifest { training: "a".repeat(1 << 20), ..good() };
    assert!(wordy.to_toml().unwrap_err().to_string().contains("expected at most 1048576"));
}

#[test]
fn writes_short_decimals_and_no_absent_option() {
    let mut manifest = Manifest { range: [0.1, 0.7], ..good() };
    manifest.prediction = Prediction::Edm { sigma_data: 0.5 };
    manifest.defaults.sampler = Some(Sampler::DPMPP_2M);
    manifest.set_file(Precision::F16, "half.onnx", b"bytes");
    let text = manifest.to_toml().unwrap();
    assert_eq!(text, WRITTEN);
    assert_eq!(Manifest::parse(&text, "m").unwrap(), manifest);
}

const WRITTEN: &str = r#"name = "m"
version = "1"
task = "denoise"
channels = 3
range = [0.1, 0.7]
scale = 1
multiple_of = 1
license = "CC0-1.0"
description = "a test"

[prediction.edm]
sigma_data = 0.5

[inputs]
sample = "x"
sigma = "sigma"

[outputs]
prediction = "y"

[defaults]
steps = 1
sampler = "dpmpp-2m"

[files.f32]
path = "m.onnx"
sha256 = "00"

[files.f16]
path = "half.onnx"
sha256 = "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9"
"#;

/// The `model.toml` of every bundled model.
fn bundled() -> Vec<PathBuf> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let folders = fs::read_dir(models).unwrap().map(|entry| entry.unwrap().path());
    folders.map(|folder| folder.join("model.toml")).filter(|file| file.is_file()).collect()
}

#[test]
fn bundled_manifests_are_unchanged_by_writing() {
    let files = bundled();
    assert_eq!(files.len(), crate::model::bundled_names().len(), "{files:?}");
    for file in files {
        let read = |text: &str| Manifest::parse(text, &file.display().to_string()).unwrap();
        let manifest = read(&fs::read_to_string(&file).unwrap());
        assert_eq!(read(&manifest.to_toml().unwrap()), manifest, "{}", file.display());
    }
}
