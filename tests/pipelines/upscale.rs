//! `eddy upscale` with a pipeline.

use std::fs;

use eddy::media::{Image, Samples};

use crate::common::eddy;
use crate::common::place::Place;
use crate::exported::{json, stored};
use crate::images::parameters;

/// Stable Diffusion's upscaler, with the image of its reference.
fn upscaler() -> Place {
    let place = Place::with_pipeline("x4-upscaler");
    fs::copy(stored("runs/x4-upscaler/image.png"), place.path("small.png")).unwrap();
    place
}

fn samples(image: &Image) -> &[u8] {
    match &image.samples {
        Samples::U8(samples) => samples,
        Samples::U16(_) => panic!("8 bits were expected"),
    }
}

#[test]
fn is_as_diffusers_makes_it() {
    let place = upscaler();
    for run in ["x4-upscaler", "x4-upscaler+noise-level"] {
        let arguments = json(&format!("runs/{run}/args.json"));
        let text = |key: &str| arguments[key].as_str().unwrap();
        let number = |key: &str| arguments[key].to_string();
        let noise = |name: &str| stored(&format!("runs/{run}/{name}"));
        let mut upscale = eddy("upscale small.png -o large.png -m pipeline --prompt")
            .within(&place)
            .arg(text("prompt"))
            .arg("--negative-prompt")
            .arg(text("negative_prompt"))
            .args(&format!("--steps {} -s 4", number("steps")))
            .args(&format!("--guidance-scale {}", number("guidance_scale")))
            .arg("--initial-noise")
            .arg(noise("initial-noise.npy"))
            .arg("--noise")
            .arg(noise("noise.npy"));
        if !arguments["noise_level"].is_null() {
            upscale = upscale.args(&format!("--noise-level {}", number("noise_level")));
        }
        upscale.succeeds().says("4 times larger, 96x64");
        let large = place.image("large.png");
        let expected = eddy::array::read::<ndarray::Ix4>(&noise("out.npy")).unwrap();
        for ((y, x), color) in (0..64).flat_map(|y| (0..96).map(move |x| (y, x))).zip(0..) {
            let color = color % 3;
            let found = f32::from(samples(&large)[3 * (96 * y + x) + color]) / 255.0;
            let off = (found - expected[[0, color, y, x]]).abs();
            assert!(off < 0.5 / 255.0 + 1e-4, "{run}: off by {off} at {x},{y}");
        }
    }
    let found = parameters(&place.bytes("large.png"));
    for key in ["prompt", "negative_prompt", "seed", "steps", "noise_level", "from_sha256"] {
        assert!(!found[key].is_null(), "{key} in {found}");
    }
}

#[test]
fn any_size_and_alpha_and_several_images() {
    let place = upscaler();
    // 24x16 in RGB; and one of 11x9 with alpha, which the network cannot take as it is.
    let rgba: Vec<u8> = (0..11 * 9 * 4).map(|i| (i * 7 % 256) as u8).collect();
    let place = place.and("odd.png", &Image::new(11, 9, 4, Samples::U8(rgba)).unwrap());
    let run = "upscale small.png odd.png -m pipeline --steps 2";
    let outcome = eddy(&format!("{run} -o large/ --json")).within(&place).succeeds();
    let loads: Vec<u64> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|record| record["networks_loaded"].as_u64().unwrap())
        .collect();
    assert_eq!(loads[1], 0, "{outcome}");
    let odd = place.image("large/odd.png");
    assert_eq!((odd.width, odd.height, odd.channels), (44, 36, 4));
    eddy("upscale small.png -m pipeline --steps 2 -o alone.png").within(&place).succeeds();
    assert_eq!(samples(&place.image("alone.png")), samples(&place.image("large/small.png")));
}

#[test]
fn what_it_does_not_take() {
    let place = upscaler();
    let run = |options: &str| eddy(&format!("upscale {options}")).within(&place);
    run("small.png -o x.png -m pipeline -s 2").fails(2).says("enlarges 4 times, 2 was requested");
    run("small.png -o x.y4m -m pipeline")
        .fails(2)
        .says("a stream needs a model such as upscale-x2");
    run("small.png -o x.png --prompt cat").fails(2).says("no text encoder, so --prompt does not");
    run("small.png -o x.png --guidance-scale 2").fails(2).says("so --guidance-scale does not");
    run("small.png -o x.png -m pipeline --axes nhwc").fails(2).says("is not an .onnx; leave out");
    run("small.png -o x.png -m pipeline --prior")
        .fails(4)
        .says("it is a text-conditioned pipeline");
    run("small.png -o x.png -m pipeline --noise-level 5000").fails(2).says("beyond the schedule");
    let place = Place::with_pipeline("sd15");
    fs::copy(stored("runs/x4-upscaler/image.png"), place.path("small.png")).unwrap();
    let run = eddy("upscale small.png -o x.png -m pipeline").within(&place);
    run.fails(2).says("`eddy generate -m pipeline` runs it");
}
