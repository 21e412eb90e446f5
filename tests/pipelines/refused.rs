//! Folders and requests that cannot be used: one line that says what was found, and an exit code.

use std::fs;

use serde_json::json;

use crate::common::eddy;
use crate::common::place::{Place, npy};
use crate::exported::stored;

const RUN: &str = "generate -m pipeline -o x.png --size 64x64 --steps 2";

/// Generating within the place ends with this code, one line that has these words, and no image.
fn refuses(place: &Place, options: &str, code: i32, words: &str) {
    let outcome = eddy(&format!("{RUN} {options}")).within(place).fails(code).says(words);
    assert_eq!(outcome.stderr.trim_end().lines().count(), 1, "{outcome}");
    assert!(outcome.stderr.starts_with("eddy: "), "{outcome}");
    assert!(!outcome.stderr.contains("onnxruntime_src"), "{outcome}");
    assert!(!place.path("x.png").exists(), "{outcome}");
}

/// The model is refused.
fn is_no_model(place: &Place, words: &str) {
    refuses(place, "--prompt cat", 4, words);
}

fn sd15() -> Place {
    Place::with_pipeline("sd15")
}

#[test]
fn parts_that_are_missing() {
    for (part, words) in [
        ("text_encoder/model.onnx", "it has no text_encoder/model.onnx"),
        ("text_encoder", "it has no text_encoder/model.onnx"),
        ("tokenizer", "it has no folder tokenizer"),
        ("tokenizer/vocab.json", "it has no vocab.json"),
        ("tokenizer/merges.txt", "it has no merges.txt"),
        ("scheduler", "its scheduler/scheduler_config.json cannot be read"),
        ("unet/model.onnx", "it has no unet/model.onnx"),
        ("vae_decoder", "it has no vae_decoder/model.onnx"),
    ] {
        is_no_model(&sd15().without(part), words);
    }
    let place = Place::with_pipeline("sdxl").without("text_encoder");
    is_no_model(&place, "it has no text_encoder/model.onnx");
    // An encoder of images is needed for one alone.
    let place = Place::with_pipeline("sd15-img2img").without("vae_encoder");
    fs::copy(stored("runs/sd15-img2img/image.png"), place.path("a.png")).unwrap();
    refuses(&place, "--prompt cat --from a.png", 4, "it has no vae_encoder");
    eddy(RUN).args("--prompt cat").within(&place).succeeds();
}

#[test]
fn parts_that_belong_elsewhere() {
    let swapped = Place::with_pipeline("sdxl").swapping("text_encoder", "text_encoder_2");
    is_no_model(&swapped, "gives no text_embeds; expected one with a projection");
    let network = |name: &str| fs::read(stored(&format!("folders/{name}/model.onnx"))).unwrap();
    let at = "text_encoder/model.onnx";
    let place = Place::with_pipeline("sdxl").holding(at, network("sd15/text_encoder"));
    is_no_model(&place, "expected hidden_states.N");
    let place = sd15().holding(at, network("sd15/vae_decoder"));
    is_no_model(&place, "its text encoder gives sample; expected last_hidden_state");
    let place = sd15().holding("unet/model.onnx", network("sdxl/unet"));
    is_no_model(&place, "`encoder_hidden_states` cannot be filled");
    let place = sd15().holding("vae_decoder/model.onnx", network("sd15/vae_encoder"));
    is_no_model(&place, "an input `sample`");
    // The end of the prompt has the id 2000 in this vocabulary.
    let mut vocabulary: serde_json::Value =
        serde_json::from_slice(&sd15().bytes("pipeline/tokenizer/vocab.json")).unwrap();
    vocabulary["<|endoftext|>"] = json!(2000);
    let place = sd15().holding("tokenizer/vocab.json", vocabulary.to_string());
    is_no_model(
        &place,
        "a token of the id 2000, and by text_encoder/config.json it has a vocabulary of 2000",
    );
    let longer = json!({ "model_max_length": 200 });
    let place = sd15().edit("tokenizer/tokenizer_config.json", &longer);
    is_no_model(&place, "a prompt of 200 tokens, and by text_encoder/config.json it takes 77");
}

#[test]
fn classes_that_are_not_known() {
    let place = sd15().edit("model_index.json", &json!({ "_class_name": "WanPipeline" }));
    is_no_model(&place, "is of WanPipeline; Eddy runs StableDiffusionPipeline, ");
    let place = sd15().edit("model_index.json", &json!({ "_class_name": null }));
    is_no_model(&place, "is of no class; Eddy runs ");
    let scheduler = "scheduler/scheduler_config.json";
    let place = sd15().edit(scheduler, &json!({ "_class_name": "FooScheduler" }));
    is_no_model(&place, "is of FooScheduler, of which Eddy has no sampler");
}

#[test]
fn files_that_are_damaged() {
    for (file, bytes, words) in [
        ("tokenizer/tokenizer.json", "garbage", "its tokenizer.json is not a valid tokenizer file"),
        ("tokenizer/tokenizer.json", "{}", "its tokenizer.json is not a valid tokenizer file"),
        ("tokenizer/vocab.json", "garbage", "its vocab.json is not a valid tokenizer file"),
        ("tokenizer/vocab.json", "[]", "its vocab.json has no <|startoftext|>"),
        (
            "tokenizer/merges.txt",
            "alone",
            "its vocab.json or merges.txt is not a valid tokenizer file",
        ),
        ("tokenizer/merges.txt", "zzz qqq", "Token `zzz` out of vocabulary"),
        ("text_encoder/model.onnx", "garbage", "ONNX Runtime does not accept it"),
        ("text_encoder/config.json", "{", "is not as diffusers writes it"),
        ("vae_decoder/model.onnx", "garbage", "ONNX Runtime does not accept it"),
        ("vae_decoder/config.json", "{", "is not as diffusers writes it"),
        ("scheduler/scheduler_config.json", "[]", "is not a JSON object"),
        ("model_index.json", "{", "is not as diffusers writes it"),
    ] {
        is_no_model(&sd15().holding(file, bytes), words);
    }
    let without_end = json!({ "<|endoftext|>": null });
    let place = sd15().edit("tokenizer/vocab.json", &without_end);
    is_no_model(&place, "its vocab.json has no <|endoftext|>");
    for (key, value, words) in [
        ("pad_token", json!("<nope>"), "its padding is \"<nope>\""),
        ("model_max_length", json!(2), "leaves no room for a word"),
        (
            "model_max_length",
            json!("many"),
            "its tokenizer_config.json is not a valid tokenizer file",
        ),
    ] {
        let place = sd15().edit("tokenizer/tokenizer_config.json", &json!({ key: value }));
        is_no_model(&place, words);
    }
    let spiece = fs::read(stored("folders/pixart-sigma/tokenizer/spiece.model")).unwrap();
    // Cut at pieces, within one, and within the settings behind them.
    for end in [0, 100, spiece.len() / 50, spiece.len() / 2, spiece.len() - 1] {
        let place = Place::with_pipeline("pixart-sigma");
        let place = place.holding("tokenizer/spiece.model", &spiece[..end]);
        is_no_model(&place, "its spiece.model is not as SentencePiece writes it");
    }
}

#[test]
fn requests_that_cannot_be_met() {
    let place = Place::with_pipeline("sd15-inpaint4");
    for (from, to) in [("image.png", "a.png"), ("mask_image.png", "mask.png")] {
        fs::copy(stored("runs/sd15-inpaint4+strength").join(from), place.path(to)).unwrap();
    }
    place.file("short.npy", npy([1, 4, 4, 4], &[0.5; 64]));
    let from = |more: &str| format!("--prompt cat --from a.png {more}");
    refuses(&place, "", 2, "generates images of a text; give it with --prompt");
    refuses(&place, "--from a.png", 2, "give it with --prompt");
    refuses(&place, &from("--strength 0"), 2, "the strength is too low: none of 2 steps remain");
    refuses(&place, &from("--strength 1.5"), 2, "must lie between 0 and 1");
    refuses(&place, &from("--mask gone.png"), 3, "cannot read gone.png: there is no such file");
    refuses(&place, "--prompt cat --control a.png", 2, "has no ControlNet");
    refuses(&place, "--prompt cat --stage-steps 2,3", 2, "has 1 stage, and values for 2");
    refuses(&place, &from("--noise-level 3"), 2, "leave the noise level out");
    refuses(&place, &from("--image-guidance-scale 2"), 2, "leave the image guidance scale out");
    refuses(&place, "--prompt cat --clip-skip 1", 4, "no layer can be skipped");
    let noise = |file: &str| format!("--prompt cat --initial-noise {file}");
    refuses(&place, &noise("short.npy"), 2, "the noise has 64 values, and draw 1 takes 256");
    refuses(&place, &noise("gone.npy"), 3, "cannot read gone.npy");
    let odd = eddy("generate -m pipeline -o x.png --size 60x64 --prompt cat").within(&place);
    odd.fails(2).says("multiples of 16 pixels, and 60x64 was requested; change --size");
    let classes = Place::with_pipeline("published-dit");
    let run = |more: &str| eddy(&format!("generate -m pipeline -o x.png {more}")).within(&classes);
    run("--prompt cat --class 1").fails(2).says("has no text encoder; leave the prompts out");
    run("--steps 2").fails(2).says("needs a class; choose one with --class");
    run("--class 1001").fails(2).says("has the classes 0 to 999, and 1001 was requested");
    refuses(
        &place,
        "--prompt cat --class 1",
        2,
        "is not conditioned on a class; leave the class out",
    );
    // What belongs to an image is of no use without one.
    for option in ["--mask mask.png", "--strength 0.5", "--noise-level 3"] {
        let run = eddy(RUN).args("--prompt cat").args(option).within(&place);
        run.fails(2).says("--from <IMAGE>");
    }
    eddy(RUN).args("--negative-prompt cat").within(&place).fails(2).says("--prompt <TEXT>");
    // A model package has no text encoder.
    let run = eddy("generate -m prior -o x.png --size 16x16 --prompt cat").within(&place);
    run.fails(2).says("prior has no text encoder, so --prompt does not apply to it");
    place.holds_only(&["a.png", "mask.png", "pipeline", "short.npy"]);
}
