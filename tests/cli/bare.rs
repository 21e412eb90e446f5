//! Bare .onnx files: what is found out of them, and what is said.

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
fn a_network_that_nobody_describes_runs() {
    let place = place(&["identity.onnx"]);
    eddy("denoise a.png -o b.png -m identity.onnx --sigma 10")
        .within(&place)
        .succeeds()
        .says("is taken for a network to denoise");
    assert_eq!(place.image("a.png").samples, place.image("b.png").samples);
    eddy("info identity.onnx").within(&place).succeeds().prints("found");
    eddy("import identity.onnx -o p").within(&place).succeeds().says("reaches 0 pixels far");
    eddy("check p").within(&place).succeeds();
    let manifest = fs::read_to_string(place.path("p/model.toml")).unwrap();
    assert!(
        manifest.contains(
            "# a change of one pixel reaches 0 pixels far, measured\nreceptive_field = 0\n"
        ),
        "{manifest}"
    );
    assert_eq!((place.image("p/before.png").width, place.image("p/after.png").width), (96, 96));
}

/// The only size of a network is that of its tiles.
#[test]
fn a_fixed_size_takes_every_image() {
    let place = place(&["fixed.onnx"]);
    eddy("import fixed.onnx -o p").within(&place).succeeds();
    let manifest = fs::read_to_string(place.path("p/model.toml")).unwrap();
    let size = manifest.lines().find(|line| line.starts_with("size = ")).unwrap().to_owned();
    eddy("denoise a.png -o b.png -m p --sigma 10").within(&place).succeeds();
    assert_eq!(place.image("b.png").width, 90, "{size}");
}

#[test]
fn what_a_package_says_is_not_said_again() {
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
fn what_nobody_can_know_is_asked_for() {
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
        .says("no bundled model");
}
