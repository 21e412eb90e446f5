//! Images made again from the parameters in their PNG.

use std::fs;

use serde_json::Value;

use crate::common::eddy;
use crate::common::place::Place;
use crate::exported::stored;
use crate::images::parameters;

/// Values that say something about the run, and that no option takes.
const TOLD: [&str; 2] = ["eddy", "evaluations"];

/// The options of a run with these parameters.
fn options(parameters: &Value) -> Vec<String> {
    let mut options = Vec::new();
    let entries = parameters.as_object().unwrap().iter();
    for (key, value) in entries.filter(|(key, _)| !TOLD.contains(&key.as_str())) {
        let option = format!("--{}", key.replace('_', "-"));
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match key.as_str() {
            "height" => {}
            "width" => {
                options.extend(["--size".into(), format!("{value}x{}", parameters["height"])])
            }
            _ if key.ends_with("_sha256") => assert_eq!(value.as_str().unwrap().len(), 64),
            _ if *value == Value::Bool(true) => options.push(option),
            _ => {
                let values = match value {
                    Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
                    other => text(other),
                };
                options.push(format!("{option}={values}"));
            }
        }
    }
    options
}

/// Runs with these options, and again with the parameters of the result.
fn is_made_again(place: &Place, run: &str) {
    eddy("generate -m pipeline -o first.png --prompt")
        .arg("a (red:1.2) café")
        .args(run)
        .within(place)
        .succeeds();
    let first = place.bytes("first.png");
    let again = options(&parameters(&first)).into_iter();
    let again = again.fold(eddy("generate -o again.png").within(place), |run, it| run.arg(it));
    again.succeeds();
    assert!(first == place.bytes("again.png"), "{run}\n{}", parameters(&first));
}

#[test]
fn of_a_prompt_alone() {
    is_made_again(&Place::with_pipeline("sd15"), "--steps 2");
    is_made_again(
        &Place::with_pipeline("sd15"),
        "--seed 9 --size 64x96 --steps 3 --sampler ddim --eta 0.5 --guidance-scale 4 \
         --guidance-rescale 0.4 --guidance-interval 0.2,9 --negative-prompt dull --tile 64",
    );
    is_made_again(&Place::with_pipeline("sdxl"), "--steps 2 --clip-skip 1");
    is_made_again(&Place::with_pipeline("sana"), "--steps 2 --no-instruction --size 96x64");
}

#[test]
fn of_images_and_noise() {
    let place = Place::with_pipeline("sd15-inpaint4");
    let run = "sd15-inpaint4+strength";
    for name in ["image.png", "mask_image.png", "initial-noise.npy", "noise.npy"] {
        fs::copy(stored(&format!("runs/{run}/{name}")), place.path(name)).unwrap();
    }
    is_made_again(&place, "--from image.png --steps 3 --mask mask_image.png");
    is_made_again(
        &place,
        "--from image.png --mask mask_image.png --steps 6 --strength 0.6 \
         --initial-noise initial-noise.npy --noise noise.npy",
    );
}

#[test]
fn of_a_class() {
    let place = Place::with_pipeline("published-dit");
    let run = "generate -m pipeline -o first.png --class 3 --negative-class 7 --steps 2 --seed 4";
    eddy(run).within(&place).succeeds();
    let first = place.bytes("first.png");
    let again = options(&parameters(&first)).into_iter();
    again.fold(eddy("generate -o again.png").within(&place), |run, it| run.arg(it)).succeeds();
    assert!(first == place.bytes("again.png"));
}

#[test]
fn of_a_cascade() {
    let place = Place::with_pipeline("kandinsky22");
    let cascade = "--stage-steps 2,3 --stage-guidance 3,2 --negative-prompt dull --size 96x64";
    is_made_again(&place, cascade);
}
