//! What diffusers makes with the same networks, the same noise and the same prompts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use eddy::array;
use ndarray::{Array4, Ix4};
use serde::Deserialize;

use crate::common::eddy;
use crate::common::place::Place;
use crate::exported::{json, stored};

/// The largest difference of a value, of which black is 0 and white is 1.
const TOLERANCE: f32 = 1e-4;

/// How diffusers was called.
#[derive(Deserialize)]
struct Reference {
    folder: String,
    prompt: Option<String>,
    class_labels: Option<[usize; 1]>,
    negative_prompt: Option<String>,
    steps: usize,
    guidance_scale: Option<f64>,
    prior_num_inference_steps: Option<usize>,
    prior_guidance_scale: Option<f64>,
    noise_level: Option<usize>,
    guidance_rescale: Option<f64>,
    clip_skip: Option<usize>,
    width: Option<usize>,
    height: Option<usize>,
    image: Option<String>,
    mask_image: Option<String>,
    strength: Option<f64>,
}

/// Every stored run.
fn runs() -> BTreeSet<String> {
    let entries = fs::read_dir(stored("runs")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn tensor(path: &Path) -> Array4<f32> {
    array::read::<Ix4>(path).unwrap()
}

/// Generates with each run of these and compares; every image differs from the others.
fn agree(names: &[&str]) {
    let mut made: Vec<Array4<f32>> = Vec::new();
    for name in names {
        let of_run = |file: &str| stored(&format!("runs/{name}/{file}"));
        let arguments = json(&format!("runs/{name}/args.json"));
        let has_no_instruction =
            arguments.get("complex_human_instruction").is_some_and(serde_json::Value::is_null);
        let reference: Reference = serde_json::from_value(arguments).unwrap();
        let place = Place::with_pipeline(&reference.folder);
        let mut run = eddy("generate -m pipeline -o y.npy")
            .within(&place)
            .args(&format!("--steps {}", reference.steps))
            .arg("--initial-noise")
            .arg(of_run("initial-noise.npy"));
        if let Some(negative) = &reference.negative_prompt {
            run = run.arg("--negative-prompt").arg(negative);
        }
        if let (Some(width), Some(height)) = (reference.width, reference.height) {
            run = run.args(&format!("--size {width}x{height}"));
        }
        if let Some(prompt) = &reference.prompt {
            run = run.arg("--prompt").arg(prompt);
        }
        if let Some([class]) = reference.class_labels {
            run = run.args(&format!("--class {class}"));
        }
        if has_no_instruction {
            run = run.arg("--no-instruction");
        }
        if let Some(steps) = reference.prior_num_inference_steps {
            run = run.args(&format!("--stage-steps {steps},{}", reference.steps));
        }
        if let (Some(prior), Some(own)) = (reference.prior_guidance_scale, reference.guidance_scale)
        {
            run = run.args(&format!("--stage-guidance {prior},{own}"));
        }
        let numbers = [
            ("--guidance-scale", reference.guidance_scale),
            ("--guidance-rescale", reference.guidance_rescale),
            ("--clip-skip", reference.clip_skip.map(|layers| layers as f64)),
            ("--strength", reference.strength),
            ("--noise-level", reference.noise_level.map(|level| level as f64)),
        ];
        for (option, value) in numbers {
            if let Some(value) = value {
                run = run.args(&format!("{option} {value}"));
            }
        }
        let noise = of_run("noise.npy").exists().then(|| "noise.npy".to_owned());
        let files =
            [("--from", &reference.image), ("--mask", &reference.mask_image), ("--noise", &noise)];
        for (option, file) in files {
            if let Some(file) = file {
                run = run.arg(option).arg(of_run(file));
            }
        }
        run.succeeds().prints_nothing();
        let (result, expected) = (tensor(&place.path("y.npy")), tensor(&of_run("out.npy")));
        assert_eq!(result.dim(), expected.dim(), "{name}");
        let apart = |a: &Array4<f32>, b: &Array4<f32>| {
            a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let off = apart(&result, &expected);
        assert!(
            off < TOLERANCE && result.iter().all(|it| it.is_finite()),
            "{name} is off by {off}"
        );
        for other in &made {
            assert!(apart(&result, other) > 10.0 * TOLERANCE, "{name} is as a run before");
        }
        made.push(result);
    }
}

/// The runs of each test below.
const TEXT_TO_IMAGE: [&str; 4] = ["sd15", "sd15+empty", "sd15+long", "sd15+rescale"];
const SCHEDULERS: [&str; 3] = ["sd15-ddim", "sd15-euler", "sd15-euler-ancestral"];
const FROM_AN_IMAGE: [&str; 3] = ["sd15-img2img", "sd15-inpaint4+strength", "sdxl-img2img"];
const TWO_ENCODERS: [&str; 2] = ["sdxl+clip-skip", "sdxl+no-negative"];
const TRANSFORMERS: [&str; 5] =
    ["pixart-sigma", "flux-schnell", "sana", "sana+no-instruction", "sana-dpm"];
const PIXELS: [&str; 1] = ["if-base"];
const ENLARGED: [&str; 2] = ["x4-upscaler", "x4-upscaler+noise-level"];
const CLASSES: [&str; 2] = ["published-dit", "published-dit+no-guidance"];
const EMBEDDINGS: [&str; 1] = ["kandinsky22+negative"];

#[test]
fn text_to_image_is_as_diffusers_makes_it() {
    agree(&TEXT_TO_IMAGE);
}

#[test]
fn any_scheduler_serves_the_same_networks() {
    agree(&SCHEDULERS);
}

#[test]
fn an_image_is_changed_or_filled() {
    agree(&FROM_AN_IMAGE);
}

#[test]
fn two_text_encoders_are_joined() {
    agree(&TWO_ENCODERS);
}

#[test]
fn transformers_take_t5s_and_gemmas_embeddings() {
    agree(&TRANSFORMERS);
}

#[test]
fn pixels_are_sampled_with_learned_variance() {
    agree(&PIXELS);
}

#[test]
fn an_image_is_enlarged() {
    agree(&ENLARGED);
}

#[test]
fn a_class_is_generated_as_published() {
    agree(&CLASSES);
    // The last channel's last rows and columns, in diffusers' own tests of this pipeline.
    let published = [0.2946, 0.6601, 0.4329, 0.3296, 0.4144, 0.5319, 0.7273, 0.5013, 0.4457];
    let image = tensor(&stored("runs/published-dit/out.npy"));
    let slice = image.slice(ndarray::s![0, 2, -3.., -3..]);
    for (found, expected) in slice.iter().zip(published) {
        assert!((found - expected).abs() < 1e-3, "{slice}");
    }
}

#[test]
fn an_embedding_of_the_negative_prompt_guides() {
    agree(&EMBEDDINGS);
}

#[test]
fn every_stored_run_is_compared() {
    let compared = [
        TEXT_TO_IMAGE.as_slice(),
        &SCHEDULERS,
        &FROM_AN_IMAGE,
        &TWO_ENCODERS,
        &TRANSFORMERS,
        &PIXELS,
        &ENLARGED,
        &EMBEDDINGS,
        &CLASSES,
    ]
    .concat();
    let compared: BTreeSet<String> = compared.into_iter().map(str::to_owned).collect();
    assert_eq!(compared, runs());
}
