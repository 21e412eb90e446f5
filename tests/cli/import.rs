//! `eddy import`, and folders in the layout of diffusers as they are.

use std::fs;

use crate::common::eddy;
use crate::common::place::{Place, data};

/// A pipeline that draws, as diffusers saves one: random weights, classes or none.
fn pipeline(place: &Place, config: &str) {
    let from = data("pipelines/int64-batch");
    for part in ["unet/model.onnx", "scheduler/scheduler_config.json"] {
        place.file(&format!("pipeline/{part}"), fs::read(from.join(part)).unwrap());
    }
    place.file("pipeline/unet/config.json", config);
    place.file("pipeline/model_index.json", r#"{"_class_name": "DDPMPipeline"}"#);
}

const UNET: &str = r#"{"_class_name": "UNet2DModel", "in_channels": 3, "out_channels": 3, "sample_size": [8, 12]}"#;

#[test]
fn a_pipeline_draws_as_it_is_and_as_a_package() {
    let place = Place::new();
    pipeline(&place, UNET);
    eddy("generate -m pipeline -o a.png --steps 5 --seed 3").within(&place).succeeds().says("12x8");
    eddy("import pipeline -o package/ --licence CC0-1.0")
        .within(&place)
        .succeeds()
        .says("a model to generate, which `eddy check package/`");
    assert_eq!(place.names("package"), ["check-prediction.npy", "check-sample.npy", "model.toml", "network.onnx"]);
    eddy("check package").within(&place).succeeds();
    eddy("generate -m package -o b.png --steps 5 --seed 3").within(&place).succeeds();
    assert_eq!(place.frame("a.png").samples, place.frame("b.png").samples);
    eddy("info package").within(&place).succeeds().prints("CC0-1.0");
    // The same numbers as the loop of `eddy sample`, which is compared with diffusers.
    eddy("generate -m package -o c.png --size 10x10").within(&place).fails(2).says("12x8 alone");
    eddy("import pipeline -o package").within(&place).fails(2).says("is there already");
}

#[test]
fn a_bare_network_is_what_is_said_of_it() {
    let place = Place::new();
    place.file("net.onnx", fs::read(data("models/identity.onnx")).unwrap());
    let said = "--task denoise --prediction denoised --sigma-range 0,1 --inputs sample=x,sigma=sigma --result denoised";
    eddy(&format!("import net.onnx -o net/ {said} --receptive-field 0")).within(&place).succeeds();
    eddy("check net").within(&place).succeeds();
    eddy("denoise").arg(data("chelsea.png")).args("-m net --sigma 10 -o out.png").within(&place).succeeds();
    for (left_out, words) in
        [("--task denoise", "--task"), ("--prediction denoised", "--prediction"), ("--result denoised", "--result")]
    {
        eddy(&format!("import net.onnx -o other/ {}", said.replace(left_out, ""))).within(&place).fails(2).says(words);
    }
    eddy(&format!("import net.onnx -o other/ {}", said.replace("sample=x", "sample=z")))
        .within(&place)
        .fails(4)
        .says("expected z");
    eddy(&format!("import net.onnx -o other/ {}", said.replace("denoise ", "dance ")))
        .within(&place)
        .fails(4)
        .says("dance");
    place.holds_only(&["net", "net.onnx", "out.png"]);
}

#[test]
fn what_cannot_be_imported_is_said() {
    let place = Place::new();
    pipeline(&place, &UNET.replace("\"in_channels\": 3", "\"in_channels\": 6"));
    eddy("import pipeline -o out/").within(&place).fails(4).says("takes 6 channels and gives 3");
    place.file("pipeline/unet/config.json", "no json");
    eddy("import pipeline -o out/").within(&place).fails(4).says("config.json is not as diffusers writes it");
    fs::remove_file(place.path("pipeline/unet/config.json")).unwrap();
    eddy("generate -m pipeline -o a.png").within(&place).fails(4).says("how many channels");
    place.file("text.onnx", "a text");
    let said = "--task denoise --prediction denoised --sigma-range 0,1 --inputs sample=x,sigma=sigma --result y";
    eddy(&format!("import text.onnx -o out/ {said}")).within(&place).fails(4).says("ONNX Runtime does not accept it");
    eddy(&format!("import gone.onnx -o out/ {said}")).within(&place).fails(3).says("gone.onnx");
    place.holds_only(&["pipeline", "text.onnx"]);
}
