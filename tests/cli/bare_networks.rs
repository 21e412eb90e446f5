//! Bare .onnx files: their detected properties, and the options that describe them.

use std::fs;

use crate::common::eddy;
use crate::common::images::noisy;
use crate::common::place::{Place, data};

/// An image, and networks of the tests without a manifest.
fn place(networks: &[&str]) -> Place {
    let place = Place::with("a.png", &noisy(90, 70, 3, 8));
    for name in networks {
        place.file(name, fs::read(data("models").join(name)).unwrap());
    }
    place
}

#[test]
fn detects_the_properties_of_a_bare_network() {
    let place = place(&["identity.onnx"]);
    eddy("denoise a.png -o b.png -m identity.onnx --sigma 10")
        .within(&place)
        .succeeds()
        .says("is used to denoise");
    assert_eq!(place.image("a.png").samples, place.image("b.png").samples);
    eddy("info identity.onnx").within(&place).succeeds().prints("detected");
    eddy("import identity.onnx -o p")
        .within(&place)
        .succeeds()
        .says("changes the output up to 0 pixels away");
    eddy("check p").within(&place).succeeds();
    let manifest = fs::read_to_string(place.path("p/model.toml")).unwrap();
    assert!(
        manifest.contains(
            "# changing one pixel changes the output up to 0 pixels away\nreceptive_field = 0\n"
        ),
        "{manifest}"
    );
    assert_eq!((place.image("p/before.png").width, place.image("p/after.png").width), (96, 96));
}

/// A fixed size of a network is that of its tiles.
#[test]
fn a_network_of_fixed_size_accepts_every_image() {
    let place = place(&["fixed.onnx"]);
    eddy("import fixed.onnx -o p").within(&place).succeeds();
    let manifest = fs::read_to_string(place.path("p/model.toml")).unwrap();
    let size = manifest.lines().find(|line| line.starts_with("size = ")).unwrap().to_owned();
    eddy("denoise a.png -o b.png -m p --sigma 10").within(&place).succeeds();
    assert_eq!(place.image("b.png").width, 90, "{size}");
}

#[test]
fn a_network_may_lack_a_batch() {
    let place = place(&["no-batch.onnx", "darker.onnx"]);
    for (network, result) in [("no-batch.onnx", "b.png"), ("darker.onnx", "c.png")] {
        eddy(&format!("denoise a.png -o {result} -m {network} --sigma 10 --tile 48"))
            .within(&place)
            .succeeds();
    }
    assert_eq!(place.image("b.png").samples, place.image("c.png").samples);
}

/// The image is extended by mirroring, by the border that convolutions without padding remove.
#[test]
fn a_network_without_padding_keeps_the_size() {
    let place = place(&["unpadded.onnx"]);
    eddy("import unpadded.onnx -o p").within(&place).succeeds().says("mirrored");
    let manifest = fs::read_to_string(place.path("p/model.toml")).unwrap();
    assert!(manifest.contains("\nborder = 1\n"), "{manifest}");
    eddy("denoise a.png -o whole.png -m p").within(&place).succeeds();
    eddy("denoise a.png -o tiles.png -m p --tile 32").within(&place).succeeds();
    let [original, whole, tiles] = ["a.png", "whole.png", "tiles.png"].map(|it| place.image(it));
    assert_eq!((whole.width, whole.height), (original.width, original.height));
    assert_eq!(whole.samples, tiles.samples);
    assert_ne!(whole.samples, original.samples);
}

#[test]
fn rejects_options_that_describe_a_package() {
    let place = place(&[]);
    eddy("denoise a.png -o b.png -m camera --value-range 0,255")
        .within(&place)
        .fails(2)
        .says("leave out the options that describe an .onnx");
    eddy("denoise a.png -o b.png -m camera --input depth=3")
        .within(&place)
        .fails(2)
        .says("no constant input of that name; it has none");
    place.holds_only(&["a.png"]);
}

#[test]
fn rejects_inputs_of_unknown_role() {
    let place = place(&["extra.onnx", "integers.onnx", "rank.onnx", "nan.onnx"]);
    eddy("denoise a.png -o b.png -m extra.onnx").within(&place).fails(4).says("--input NAME=VALUE");
    for network in ["integers.onnx", "rank.onnx"] {
        eddy(&format!("denoise a.png -o b.png -m {network}"))
            .within(&place)
            .fails(4)
            .says("none of its inputs is an image");
    }
    eddy("denoise a.png -o b.png -m identity.onnx")
        .within(&place)
        .fails(4)
        .says("there is no such file");
}
