//! Images and seeds, as files.

use eddy::media::{Image, Samples};
use serde_json::Value;

use crate::common::eddy;
use crate::common::place::Place;

const RUN: &str = "generate -m pipeline --size 64x64 --steps 2";

fn samples(image: &Image) -> &[u8] {
    match &image.samples {
        Samples::U8(samples) => samples,
        Samples::U16(_) => panic!("8 bits were expected"),
    }
}

/// The parameters that a PNG has.
pub(crate) fn parameters(bytes: &[u8]) -> Value {
    let at = bytes.windows(11).position(|part| part == b"parameters\0").unwrap();
    let start = at + bytes[at..].iter().position(|byte| *byte == b'{').unwrap();
    let mut values = serde_json::Deserializer::from_slice(&bytes[start..]).into_iter();
    values.next().unwrap().unwrap()
}

#[test]
fn an_image_has_its_parameters() {
    let place = Place::with_pipeline("sd15");
    eddy(&format!("{RUN} -o a.png --seed 7 --guidance-scale 3.5 --negative-prompt dull --prompt"))
        .arg("a café, (red:1.2)")
        .within(&place)
        .succeeds()
        .says("one image of 64x64");
    let found = parameters(&place.bytes("a.png"));
    let expected = serde_json::json!({
        "model": "pipeline", "seed": 7, "prompt": "a café, (red:1.2)", "negative_prompt": "dull",
        "guidance_scale": 3.5, "width": 64, "height": 64, "steps": 2, "sampler": "pndm",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&found[key], value, "{key} in {found}");
    }
    let image = place.image("a.png");
    assert_eq!((image.width, image.height, image.channels), (64, 64, 3));
}

#[test]
fn a_seed_gives_one_image_alone_and_among_others() {
    let place = Place::with_pipeline("sd15-euler-ancestral");
    let run = |more: &str| {
        eddy(&format!("{RUN} --prompt cat {more}")).within(&place).succeeds();
    };
    run("-o all/ --seed 5 --count 2");
    assert_eq!(place.names("all"), ["000005.png", "000006.png"]);
    run("-o first.png --seed 5");
    run("-o again.png --seed 5");
    run("-o second.png --seed 6");
    let [first, again, second] =
        ["first.png", "again.png", "second.png"].map(|name| place.image(name));
    assert_eq!(samples(&first), samples(&again));
    assert_ne!(samples(&first), samples(&second));
    assert_eq!(samples(&first), samples(&place.image("all/000005.png")));
    assert_eq!(samples(&second), samples(&place.image("all/000006.png")));
}

#[test]
fn the_end_of_a_long_prompt_is_reported() {
    let place = Place::with_pipeline("sd15");
    let words: Vec<String> = (0..200).map(|i| format!("word{i}")).collect();
    let prompt = words.join(" ");
    let outcome = eddy(&format!("{RUN} -o a.png --prompt"))
        .arg(&prompt)
        .within(&place)
        .succeeds()
        .says("longer than 77 tokens; this end of it has no effect: ");
    let (_, end) = outcome.stderr.split_once("no effect: ").unwrap();
    let end = end.lines().next().unwrap();
    // Its beginning is shown.
    let shown = end.strip_suffix("...").expect(end);
    assert!(prompt.contains(shown) && !shown.is_empty(), "{end}");
    // What fits is silent.
    let short = eddy(&format!("{RUN} -o b.png --prompt short")).within(&place).succeeds();
    assert!(!short.stderr.contains("no effect"), "{short}");
    // In JSON it is a value.
    let json = eddy(&format!("{RUN} --json -o c.png --prompt"))
        .arg(&prompt)
        .within(&place)
        .succeeds()
        .json();
    let whole = json["truncated"][0].as_str().unwrap();
    assert!(whole.starts_with(shown) && prompt.ends_with(whole), "{whole}");
}

#[test]
fn networks_are_loaded_once_for_several_images() {
    for (name, expected) in [("sd15", 3), ("kandinsky22", 5)] {
        let place = Place::with_pipeline(name);
        let run = "generate -m pipeline --prompt cat --size 64x64 --json -o all/";
        let steps = if name == "sd15" { "--steps 2" } else { "--stage-steps 2,2" };
        let loads = |more: &str| {
            let outcome = eddy(&format!("{run} {steps} {more}")).within(&place).succeeds();
            outcome.json()["networks_loaded"].as_u64().unwrap()
        };
        assert_eq!(loads("--count 1"), expected, "{name}");
        assert_eq!(loads("--count 3"), expected, "{name}");
    }
    // A network alone that is too large is refused at once.
    let place = Place::with_pipeline("sd15");
    let run = eddy(&format!("{RUN} -o a.png --prompt cat --max-memory 8M")).within(&place);
    run.fails(2).says("text_encoder/model.onnx has 1 MiB of weights, and 0 of the limit's 8 MiB");
    assert!(!place.path("a.png").exists());
}

#[test]
fn a_precision_takes_files_of_its_own() {
    let place = Place::with_pipeline("sd15");
    let run = |more: &str| eddy(&format!("{RUN} -o a.png --prompt cat {more}")).within(&place);
    run("--precision f16").fails(4).says("none of its networks is there in f16");
    let unet = place.bytes("pipeline/unet/model.onnx");
    place.file("pipeline/unet/model_fp16.onnx", b"garbage");
    run("--precision f16").fails(4).says("unet/model_fp16.onnx");
    run("--precision f32").succeeds();
    place.file("pipeline/unet/model_int8.onnx", unet);
    run("--precision int8").succeeds();
}

/// Says that the pipeline of the folder is of another class.
fn set_class(place: &Place, class: &str) {
    let index = place.bytes("pipeline/model_index.json");
    let mut index: Value = serde_json::from_slice(&index).unwrap();
    index["_class_name"] = class.into();
    place.file("pipeline/model_index.json", index.to_string());
}

#[test]
fn folders_that_optimum_saved_have_their_own_class_names() {
    let place = Place::with_pipeline("sd15");
    let run = |name: &str| {
        eddy(&format!("{RUN} -o {name} --prompt cat")).within(&place).succeeds();
        place.image(name)
    };
    let expected = run("a.png");
    set_class(&place, "ORTStableDiffusionPipeline");
    assert_eq!(samples(&run("b.png")), samples(&expected));
}

/// From the signatures of diffusers 0.36.
#[test]
fn defaults_are_those_of_the_class() {
    for (folder, class, steps, guidance_scale, strengths, control_scale) in [
        ("sd15", "StableDiffusionPipeline", 50, 7.5, [0.8, 1.0], 1.0),
        ("sd15", "StableDiffusionControlNetImg2ImgPipeline", 50, 7.5, [0.8, 1.0], 0.8),
        ("sd15", "StableDiffusionControlNetInpaintPipeline", 50, 7.5, [1.0, 1.0], 0.5),
        ("sdxl", "StableDiffusionXLPipeline", 50, 5.0, [0.3, 0.9999], 1.0),
        ("sdxl", "StableDiffusionXLInpaintPipeline", 50, 7.5, [0.9999, 0.9999], 1.0),
        ("sdxl", "StableDiffusionXLControlNetPipeline", 50, 5.0, [0.3, 0.9999], 1.0),
        ("sdxl", "StableDiffusionXLInstructPix2PixPipeline", 100, 5.0, [0.3, 0.9999], 1.0),
        ("flux-schnell", "FluxImg2ImgPipeline", 28, 7.0, [0.6, 0.6], 1.0),
    ] {
        let place = Place::with_pipeline(folder);
        set_class(&place, class);
        let spec = eddy("info pipeline --json").within(&place).succeeds().json();
        let defaults = &spec["stages"][0]["defaults"];
        let number = |key: &str| defaults[key].as_f64();
        assert_eq!(defaults["steps"], steps, "{class}");
        assert_eq!(number("guidance_scale"), Some(guidance_scale), "{class}");
        assert_eq!(number("strength"), Some(strengths[0]), "{class}");
        assert_eq!(number("inpaint_strength").unwrap_or(strengths[0]), strengths[1], "{class}");
        assert_eq!(number("control_scale"), Some(control_scale), "{class}");
    }
}
