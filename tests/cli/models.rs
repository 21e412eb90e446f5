//! Models that are missing, malformed or do not match their manifest: exit code 4, and nothing left
//! behind.

use std::fs;

use crate::common::eddy;
use crate::common::images::noisy;
use crate::common::place::{MANIFEST, Place, data};

fn place() -> Place {
    Place::with("a.png", &noisy(40, 30, 3, 8))
}

/// Denoising with the package `m` fails with this message.
fn refused(place: &Place, words: &str) {
    eddy("denoise a.png -o out.png -m m")
        .within(place)
        .fails(4)
        .says("cannot use model")
        .says(words)
        .prints_nothing();
    place.holds_only(&["a.png", "m"]);
}

#[test]
fn rejects_a_missing_model() {
    let place = place();
    eddy("denoise a.png -o out.png -m none")
        .within(&place)
        .fails(4)
        .says("none")
        .says("bundled are denoise-fast");
    place.file("m", "a file");
    refused(&place, "it is a file; expected a folder");
    place.file("bare.onnx", "");
    eddy("denoise a.png -o out.png -m bare.onnx")
        .within(&place)
        .fails(4)
        .says("ONNX Runtime does not accept it");
    place.holds_only(&["a.png", "bare.onnx", "m"]);
}

#[test]
fn rejects_packages_without_manifest_or_network() {
    let place = place();
    place.folder("m");
    refused(&place, "m/model.toml cannot be read");
    place.file("m/model.toml", MANIFEST);
    refused(&place, "m/network.onnx cannot be read");
}

#[test]
fn rejects_invalid_manifests() {
    let wrong = [
        ("version = \"1\"", "verzion = \"1\"", "verzion"),
        ("channels = 3", "channels = 3\ncolor = true", "color"),
        ("channels = 3", "channels = 4", "channels = 4; expected 1 or 3"),
        ("range = [0.0, 1.0]", "range = [1.0, 0.0]", "expected black's value below white's"),
        ("task = \"denoise\"", "task = \"dance\"", "dance"),
        (
            "task = \"denoise\"",
            "task = \"upscale\"",
            "expected that a model to upscale, and no other",
        ),
        ("task = \"denoise\"", "task = \"generate\"", "its task is generate"),
        ("sigma = \"sigma\"", "", "it has an input `sigma`"),
        ("min = 0.0", "min = 2.0", "expected 0 <= min < max"),
        ("name = ", "name ", "model.toml is not readable"),
    ];
    for (from, to, words) in wrong {
        let place = place();
        place.model("m", "darker", |manifest| manifest.replacen(from, to, 1));
        refused(&place, words);
    }
    let place = place();
    place.file("m/model.toml", b"name = \"\xff\"");
    refused(&place, "not UTF-8 text");
}

#[test]
fn rejects_damaged_or_replaced_networks() {
    let place = place();
    let hash = "0".repeat(64);
    place.model("m", "darker", |_| MANIFEST.replace("{sha256}", &hash));
    refused(&place, &format!("its manifest declares {hash}; the file is damaged or was replaced"));
    place.model_of("m", b"This is a text, not a graph.", |manifest| manifest);
    refused(&place, "ONNX Runtime does not accept it");
    place.model_of("m", b"", |manifest| manifest);
    refused(&place, "ONNX Runtime does not accept it");
    let bytes = fs::read(data("models/darker.onnx")).unwrap();
    place.model_of("m", &bytes[..bytes.len() - 40], |manifest| manifest);
    refused(&place, "cannot use model tested");
}

#[test]
fn rejects_networks_that_do_not_match_the_manifest() {
    for (network, words) in [
        ("names", "it has an input `pixels`"),
        ("extra", "it has an input `mask`"),
        ("rank", "expected a float32 or uint8 tensor of rank 4"),
        ("integers", "expected a float32 or uint8 tensor of rank 4"),
        ("gray", "its manifest declares 3 channels; its input `x` has 1"),
        ("operator", "expected an ONNX file whose operators it has"),
    ] {
        let place = place();
        place.model("m", network, |manifest| manifest);
        refused(&place, words);
    }
    let place = place();
    place.model("m", "darker", |manifest| {
        manifest.replace("\"denoised\"\n[files", "\"clean\"\n[files")
    });
    refused(&place, "it has no output named `clean`; it has denoised");
}

#[test]
fn enforces_the_size_of_a_fixed_network() {
    let place = place().and("fits.png", &noisy(32, 32, 3, 8));
    place.model("m", "fixed", |manifest| manifest);
    eddy("denoise fits.png -o b.png -m m --sigma 25").within(&place).succeeds();
    eddy("denoise a.png -o c.png -m m --sigma 25").within(&place).fails(4).says("is fixed at 32");
    place.holds_only(&["a.png", "b.png", "fits.png", "m"]);
}

#[test]
fn rejects_output_of_another_size() {
    let place = place();
    place.model("m", "smaller", |manifest| manifest);
    eddy("denoise a.png -o b.png -m m --sigma 25").within(&place).fails(1).says("model tested");
    place.holds_only(&["a.png", "m"]);
}

#[test]
fn rejects_non_finite_output() {
    let place = place();
    place.model("m", "nan", |manifest| manifest);
    for steps in [1, 3] {
        let outcome = eddy(&format!("denoise a.png -o b.png -m m --sigma 25 --steps {steps}"))
            .within(&place)
            .fails(1);
        outcome
            .says("step 1 gave an output with 3600 non-finite values (NaN or infinity)")
            .says("the tile at 0,0 of 40x30");
    }
    place.holds_only(&["a.png", "m"]);
}
