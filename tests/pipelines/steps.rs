//! `--save-steps`, and guidance within an interval.

use eddy::media::{Image, Samples};
use serde_json::json;

use crate::common::eddy;
use crate::common::place::Place;

const RUN: &str = "generate -m pipeline --prompt cat --negative-prompt dog";

fn samples(image: &Image) -> &[u8] {
    match &image.samples {
        Samples::U8(samples) => samples,
        Samples::U16(_) => panic!("8 bits were expected"),
    }
}

/// The mean distance of two images' samples.
fn apart(a: &Image, b: &Image) -> f64 {
    let (a, b) = (samples(a), samples(b));
    assert_eq!(a.len(), b.len());
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    sum / a.len() as f64
}

#[test]
fn steps_are_saved_and_change_nothing() {
    let place = Place::with_pipeline("sd15-euler");
    let run = |more: &str| {
        eddy(&format!("{RUN} --size 64x96 --steps 3 {more}")).within(&place).succeeds();
    };
    run("-o plain.png");
    run("-o a.png --save-steps steps");
    assert_eq!(samples(&place.image("plain.png")), samples(&place.image("a.png")));
    let names = ["step-1.png", "step-2.png", "step-3.png"];
    assert_eq!(place.names("steps"), names);
    let [first, second, third] = names.map(|name| place.image(&format!("steps/{name}")));
    assert_eq!((first.width, first.height, first.channels), (64, 96, 3));
    assert_ne!(samples(&first), samples(&second));
    assert_ne!(samples(&second), samples(&third));
    assert!(apart(&first, &second) > apart(&second, &third));
    // Of several images, each has a folder.
    run("-o all/ --seed 4 --count 2 --save-steps many");
    assert_eq!(place.names("many"), ["000004", "000005"]);
    assert_eq!(place.names("many/000005"), names);
}

#[test]
fn a_tiny_decoder_shows_steps() {
    // The decoder itself takes the place of a tiny one: its last step is the image.
    let place = Place::with_pipeline("sd15-euler");
    let decoder = place.bytes("pipeline/vae_decoder/model.onnx");
    let config = json!({ "scaling_factor": 0.18215, "block_out_channels": [4, 8, 8, 8] });
    let config = match place.bytes("pipeline/vae_decoder/config.json") {
        bytes if bytes.is_empty() => config.to_string().into_bytes(),
        bytes => bytes,
    };
    place.file("tiny/model.onnx", decoder.clone());
    place.file("tiny/config.json", config.clone());
    let run = |more: &str| {
        eddy(&format!("{RUN} --size 64x64 --steps 2 -o a.png {more}")).within(&place).succeeds();
    };
    run("--save-steps steps --preview-decoder tiny");
    assert_eq!(apart(&place.image("a.png"), &place.image("steps/step-2.png")), 0.0);
    let place = place.holding("vae_tiny_decoder/model.onnx", decoder);
    let place = place.holding("vae_tiny_decoder/config.json", config);
    eddy(&format!("{RUN} --size 64x64 --steps 2 -o b.png --save-steps own"))
        .within(&place)
        .succeeds();
    assert_eq!(apart(&place.image("b.png"), &place.image("own/step-2.png")), 0.0);
    let gone = "-o c.png --save-steps c --preview-decoder gone";
    let run = eddy(&format!("{RUN} --size 64x64 --steps 2 {gone}")).within(&place);
    run.fails(4).says("it has no model.onnx");
    let run = eddy(&format!("{RUN} -o c.png --preview-decoder tiny")).within(&place);
    run.fails(2).says("--save-steps <DIR>");
}

#[test]
fn colors_of_unknown_latents_are_fitted_to_the_image() {
    for (name, size) in [("sdxl", "64x64"), ("flux-schnell", "64x64")] {
        let place = Place::with_pipeline(name);
        eddy(&format!("generate -m pipeline --prompt cat --size {size} --steps 2 -o a.png"))
            .args("--save-steps steps")
            .within(&place)
            .succeeds();
        let [first, last] = ["1", "2"].map(|i| place.image(&format!("steps/step-{i}.png")));
        let image = place.image("a.png");
        assert_ne!(samples(&first), samples(&last), "{name}");
        // The last prediction is what was decoded, but for its detail.
        let flat = Image::new(64, 64, 3, Samples::U8(mean(&image))).unwrap();
        assert!(apart(&image, &last) < apart(&image, &flat), "{name}");
    }
}

/// The samples of an image of the mean color.
fn mean(image: &Image) -> Vec<u8> {
    let samples = samples(image);
    let count = samples.len() / 3;
    let of = |color: usize| {
        let sum: usize = samples.iter().skip(color).step_by(3).map(|it| usize::from(*it)).sum();
        (sum / count) as u8
    };
    [of(0), of(1), of(2)].repeat(count)
}

#[test]
fn pixels_are_shown_as_they_are() {
    let place = Place::with_pipeline("if-base");
    eddy(&format!("{RUN} --steps 4 -o a.png --save-steps steps")).within(&place).succeeds();
    assert_eq!(place.names("steps").len(), 4);
    // The image is the last prediction, thresholded.
    let image = place.image("a.png");
    let [first, last] = ["1", "4"].map(|i| place.image(&format!("steps/step-{i}.png")));
    assert!(apart(&image, &last) < 8.0 && apart(&image, &last) < apart(&image, &first) / 2.0);
}

#[test]
fn guidance_is_within_its_interval_alone() {
    for name in ["sd15-euler", "sdxl", "pixart-sigma"] {
        let place = Place::with_pipeline(name);
        let run = |more: &str| {
            let run = format!("{RUN} --size 96x64 --steps 3 -o a.png --guidance-scale 6 {more}");
            let outcome = eddy(&run).within(&place).succeeds();
            (place.image("a.png"), outcome.stderr)
        };
        let (guided, _) = run("");
        let (everywhere, _) = run("--guidance-interval 0,100000");
        assert_eq!(samples(&guided), samples(&everywhere), "{name}");
        let (nowhere, said) = run("--guidance-interval 0,0.0001");
        assert!(said.contains("the negative prompt has no effect"), "{said}");
        eddy(&format!("{RUN} --size 96x64 --steps 3 -o b.png --guidance-scale 1"))
            .within(&place)
            .succeeds();
        assert_eq!(samples(&nowhere), samples(&place.image("b.png")), "{name}");
        let (partly, _) = run("--guidance-interval 0.5,3");
        assert_ne!(samples(&partly), samples(&guided), "{name}");
        assert_ne!(samples(&partly), samples(&nowhere), "{name}");
    }
}
