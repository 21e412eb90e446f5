//! The files of a package: which one runs, and whether each reproduces its recorded output.

use crate::common::eddy;
use crate::common::images::{distance, noisy};
use crate::common::place::{MANIFEST, Place, data, npy, sha256};

const CHECK: &str =
    "[check]\nsample = \"x.npy\"\nsigma = \"s.npy\"\ndenoised = \"y.npy\"\ntolerance = 1e-6\n";

/// The package `m`: `darker` in these precisions, each with further lines in its manifest entry.
fn place(files: &[(&str, &str)]) -> Place {
    let place = Place::with("a.png", &noisy(16, 16, 3, 8));
    let mut manifest = MANIFEST.split("[files").next().unwrap().to_owned();
    for (precision, lines) in files {
        let name = if *precision == "f32" {
            "darker.onnx".to_owned()
        } else {
            format!("darker-{precision}.onnx")
        };
        let bytes = std::fs::read(data("models").join(&name)).unwrap();
        place.file(&format!("m/{name}"), &bytes);
        let hash = sha256(&bytes);
        manifest +=
            &format!("[files.{precision}]\npath = \"{name}\"\nsha256 = \"{hash}\"\n{lines}\n");
    }
    place.file("m/model.toml", manifest + CHECK);
    place.file("m/x.npy", npy([1, 3, 2, 2], &[0.5; 12]));
    place.file("m/s.npy", npy([1, 1, 2, 2], &[0.25; 4]));
    place.file("m/y.npy", npy([1, 3, 2, 2], &[0.375; 12]));
    place
}

/// The mean decrease of samples by `eddy denoise` with sigma 51: about half of sigma for `darker`.
fn taken(place: &Place, options: &str) -> f64 {
    eddy(&format!("denoise a.png -o b.png -m m --sigma 51 {options}")).within(place).succeeds();
    distance(&place.image("a.png"), &place.image("b.png"))
}

#[test]
fn runs_every_precision() {
    let place = place(&[("f32", ""), ("f16", ""), ("int8", "")]);
    for precision in ["f32", "f16", "int8"] {
        let darker = taken(&place, &format!("--precision {precision}"));
        assert!((darker - 25.5).abs() < 0.6, "{precision}: {darker}");
        let options =
            format!("denoise a.png -o b.png -m m --sigma 51 --json --precision {precision}");
        assert_eq!(eddy(&options).within(&place).succeeds().json()["precision"], precision);
        let bench = format!("bench m --size 20x20 --seconds 0.01 --json --precision {precision}");
        assert_eq!(eddy(&bench).within(&place).succeeds().json()["precision"], precision);
    }
    let record = eddy("denoise a.png -o b.png -m m --json").within(&place).succeeds().json();
    assert_eq!(record["precision"], "f32");
}

/// The networks differ in more than precision, so that the result shows which one ran.
#[test]
fn runs_only_the_requested_precision() {
    let place = place(&[("f32", ""), ("int8", "")]);
    place.file("x.npy", npy([1, 3, 1, 1], &[0.5; 3]));
    let sampled = |options: &str| {
        let arguments =
            format!("sample m --input x.npy -o y.npy --sampler euler --steps 1 {options}");
        eddy(&arguments).within(&place).succeeds();
        place.bytes("y.npy")
    };
    let (auto, f32, int8) =
        (sampled("--precision auto"), sampled("--precision f32"), sampled("--precision int8"));
    assert!(auto == f32 && f32 != int8);
}

#[test]
fn rejects_a_precision_that_the_package_lacks() {
    let lacks = |place: &Place, arguments: &str, words: &str| {
        eddy(arguments).within(place).fails(4).says(words);
        place.holds_only(&["a.png", "m"]);
    };
    let both = place(&[("f32", ""), ("int8", "")]);
    both.file("m/x.npy", npy([1, 3, 2, 2], &[0.5; 12]));
    for command in ["denoise a.png -o b.png -m m", "bench m", "check m", "info m"] {
        lacks(&both, &format!("{command} --precision f16"), "it has no f16 file; it has f32, int8");
    }
    lacks(
        &both,
        "sample m --input m/x.npy -o y.npy --sampler euler --steps 1 --precision f16",
        "it has no f16 file",
    );
    // No other precision replaces the one that is requested; without one, a package's only file
    // runs.
    let half = place(&[("f16", "")]);
    lacks(&half, "denoise a.png -o b.png -m m --precision f32", "it has no f32 file; it has f16");
    eddy("denoise a.png -o b.png -m m").within(&half).succeeds();
    for command in ["denoise a.png -o b.png", "bench m", "check m", "info m"] {
        eddy(&format!("{command} --precision f8")).fails(2).says("expected auto, f32, f16 or int8");
    }
}

#[test]
fn rejects_files_of_another_type_than_in_the_manifest() {
    for (network, precision, words) in [
        ("darker", "f16", "expected a float16 tensor of rank 4"),
        ("darker-f16", "f32", "expected a float32 or uint8 tensor of rank 4"),
        ("darker-f16", "int8", "expected a float32 or uint8 tensor of rank 4"),
    ] {
        let place = Place::with("a.png", &noisy(16, 16, 3, 8));
        place.model("m", network, |manifest| {
            manifest.replace("files.f32", &format!("files.{precision}"))
        });
        eddy(&format!("denoise a.png -o b.png -m m --precision {precision}"))
            .within(&place)
            .fails(4)
            .says(words);
        place.holds_only(&["a.png", "m"]);
    }
}

#[test]
fn info_describes_every_file() {
    let place = place(&[("f32", ""), ("f16", ""), ("int8", "")]);
    let text = eddy("info m")
        .within(&place)
        .succeeds()
        .prints("f32: darker.onnx, 1 KiB")
        .prints("int8: darker-int8.onnx");
    assert_eq!(text.stdout.matches("the default precision").count(), 1, "{text}");
    let record = eddy("info m --json").within(&place).succeeds().json();
    let told: Vec<_> =
        record["files"].as_array().unwrap().iter().map(|file| file["precision"].as_str()).collect();
    assert_eq!(told, [Some("f32"), Some("f16"), Some("int8")]);
    assert_eq!(
        record["files"][0]["bytes"].as_u64(),
        Some(place.bytes("m/darker.onnx").len() as u64)
    );
    let record = eddy("info m --json --precision f16").within(&place).succeeds().json();
    assert_eq!(record["files"].as_array().unwrap().len(), 1);
    let list = eddy("info --json --precision f32").succeeds().json();
    assert!(list["models"].as_array().unwrap().iter().any(|model| model["name"] == "denoise-fast"));
}

#[test]
fn check_uses_the_tolerance_of_each_file() {
    // 0.5 is 127.5 of 255, so the 8-bit file is off by 1 / 510.
    let loose = "tolerance = 2e-3";
    let place = place(&[("f32", ""), ("f16", "tolerance = 1e-3"), ("int8", loose)]);
    eddy("check m")
        .within(&place)
        .succeeds()
        .prints("f32: ok")
        .prints("f16: ok")
        .prints("int8: ok")
        .prints("1.96e-3");
    let record = eddy("check m --precision int8 --json").within(&place).succeeds().json();
    assert_eq!(record["precision"], "int8");
    let manifest = String::from_utf8(place.bytes("m/model.toml")).unwrap();
    // Without its own tolerance, a file has the tolerance of f32.
    for tight in ["tolerance = 1e-3", ""] {
        place.file("m/model.toml", manifest.replace(loose, tight));
        let outcome =
            eddy("check m").within(&place).fails(4).prints("f32: ok").prints("int8: WRONG");
        outcome.says("its int8 file gives other values");
        eddy("check m --precision f16").within(&place).succeeds();
    }
}

#[test]
fn check_reports_invalid_records() {
    let place = Place::new();
    place.model("m", "darker", |manifest| manifest);
    eddy("check m").within(&place).fails(4).says("its manifest has no [check]");
    place.model("m", "darker", |manifest| manifest + CHECK);
    place.file("m/x.npy", npy([1, 3, 2, 2], &[0.5; 12]));
    place.file("m/s.npy", npy([1, 1, 2, 2], &[0.25; 4]));
    place.file("m/y.npy", npy([1, 3, 2, 2], &[0.375; 12]));
    eddy("check m").within(&place).succeeds().prints("tested f32: ok");
    let mut wrong = [0.375; 12];
    wrong[11] = 0.376;
    place.file("m/y.npy", npy([1, 3, 2, 2], &wrong));
    eddy("check m")
        .within(&place)
        .fails(4)
        .prints("WRONG, largest difference 1.0")
        .says("gives other values");
    wrong[11] = f32::NAN;
    place.file("m/y.npy", npy([1, 3, 2, 2], &wrong));
    eddy("check m").within(&place).fails(4).prints("WRONG");
    place.file("m/y.npy", "no array");
    eddy("check m").within(&place).fails(4).says("its y.npy is not readable; expected a .npy file");
}
