//! `eddy compile`: what it reports, and what it rejects. The numbers are compared with the loop's in
//! `src/compile/tests.rs`.

use crate::common::eddy;
use crate::common::place::{Place, data};

#[test]
fn writes_one_graph_and_says_what_it_holds() {
    let place = Place::new();
    eddy("compile digits-ddpm --sampler ddim --steps 4 -o whole.onnx")
        .within(&place)
        .succeeds()
        .says("digits-ddpm -> whole.onnx: ddim in 4 steps, with guidance of scale 1.5 by default")
        .prints_nothing();
    let line = "compile denoise-fast --steps 1 -o whole.onnx --json";
    let record = eddy(line).within(&place).succeeds().says_nothing().json();
    assert_eq!(record["sampler"], serde_json::Value::Null);
    assert_eq!((&record["steps"], &record["evaluations"]), (&1.into(), &1.into()));
    assert_eq!(record["bytes"], place.bytes("whole.onnx").len());
    let line = "compile denoise-fast --sampler heun --steps 3 -o whole.onnx --json";
    let record = eddy(line).within(&place).succeeds().json();
    assert_eq!(record["evaluations"], 5);
    place.holds_only(&["whole.onnx"]);
}

#[test]
fn rejects_what_it_cannot_compile() {
    let place = Place::new();
    let refused = |line: &str, model: &str, code, words| {
        eddy(line).arg(data(model)).within(&place).fails(code).says(words);
    };
    refused("compile -o w.onnx", "models/fixed.onnx", 2, "bare .onnx");
    let folder = "pipelines/text/folders/sd15";
    refused("compile -o w.onnx --steps 4", folder, 4, "pipeline of several networks");
    refused("compile -o w.onnx", "pipelines/int64-one", 2, "no number of steps");
    eddy("compile none -o w.onnx").within(&place).fails(4);
    eddy("compile denoise-fast --steps 0 -o w.onnx").within(&place).fails(2);
    eddy("compile denoise-fast --eta 2 -o w.onnx").within(&place).fails(2).says("eta is 2");
    eddy("compile denoise-fast -o none/w.onnx").within(&place).fails(1).says("none");
    place.holds_only(&[]);
}

/// A model is never written over by its own trajectory.
#[test]
fn rejects_an_output_inside_of_the_model() {
    let place = Place::new();
    let network = std::fs::read(data("pipelines/int64-one/unet/model.onnx")).unwrap();
    let schedule = data("pipelines/int64-one/scheduler/scheduler_config.json");
    for folder in ["model", "model/unet", "model/scheduler"] {
        place.folder(folder);
    }
    place.file("model/unet/model.onnx", &network);
    place.file("model/scheduler/scheduler_config.json", std::fs::read(schedule).unwrap());
    eddy("compile model --sampler ddim --steps 2 -o model/unet/model.onnx")
        .within(&place)
        .fails(2)
        .says("folder of the model");
    assert_eq!(place.bytes("model/unet/model.onnx"), network);
    eddy("compile model --sampler ddim --steps 2 -o whole.onnx").within(&place).succeeds();
}
