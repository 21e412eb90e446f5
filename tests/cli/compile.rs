//! `eddy compile`: what it reports, and what it rejects. The numbers are compared with the loop's in
//! `src/compile/tests.rs`.

use serde_json::json;

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
    // As docs/json.md lists it.
    let network =
        std::fs::metadata(data("../../models/denoise-fast/denoise-fast.onnx")).unwrap().len();
    let expected = json!({
        "model": "denoise-fast", "output": "whole.onnx", "sampler": null, "steps": 1,
        "evaluations": 1, "guidance_scale": null, "bytes": place.bytes("whole.onnx").len(),
        "network_bytes": network,
    });
    assert_eq!(record, expected);
    let line = "compile denoise-fast --sampler heun --steps 3 -o whole.onnx --json";
    let record = eddy(line).within(&place).succeeds().json();
    assert_eq!(record["evaluations"], 5);
    place.holds_only(&["whole.onnx"]);
}

/// A compiled file is no model for the other commands, which say what it is.
#[test]
fn a_compiled_graph_is_described() {
    let place = Place::new();
    eddy("compile digits-ddpm --sampler euler-a --steps 4 -o whole.onnx").within(&place).succeeds();
    let mut told = eddy("info whole.onnx").within(&place).succeeds();
    for line in [
        "whole.onnx, a trajectory compiled to one graph",
        "  model             digits-ddpm 1",
        "  sampler           euler-a",
        "  steps             4",
        "  input             sample: float32(batch, 1, 8, 8). The state before the first step",
        "  input             class: int64(batch). The class of each sample, counted from 0",
        "  output            image: float32(batch, 1, 8, 8). The state after the last step",
    ] {
        told = told.prints(line);
    }
    let record = eddy("info whole.onnx --json").within(&place).succeeds().json();
    assert_eq!(record["compiled"]["guidance_scale"], "1.5");
    assert_eq!(record["outputs"][0]["shape"], json!(["batch", "1", "8", "8"]));
    assert_eq!(record["bytes"], place.bytes("whole.onnx").len());
    for line in ["check whole.onnx", "compile whole.onnx -o w.onnx"] {
        eddy(line).within(&place).fails(2).says("compiled from, digits-ddpm 1");
    }
    eddy("generate -m whole.onnx -o a.png").within(&place).fails(2).says("`eddy compile` wrote");
    eddy("import whole.onnx -o package").within(&place).fails(2).says("`eddy compile` wrote");
    // A denoiser in one step is a network for images like any other.
    eddy("compile denoise-fast -o denoise.onnx").within(&place).succeeds();
    eddy("import denoise.onnx -o package").within(&place).succeeds();
    eddy("compile package -o twice.onnx").within(&place).fails(4).says("compiled already");
    place.holds_only(&["whole.onnx", "denoise.onnx", "package"]);
}

#[test]
fn rejects_what_it_cannot_compile() {
    let place = Place::new();
    let refused = |line: &str, model: &str, code, words| {
        eddy(line).arg(data(model)).within(&place).fails(code).says(words);
    };
    refused("compile -o w.onnx", "models/fixed.onnx", 2, "bare .onnx");
    refused("compile -o w.onnx", "pipelines/int64-one", 2, "no number of steps");
    eddy("compile none -o w.onnx").within(&place).fails(4);
    eddy("compile denoise-fast --steps 0 -o w.onnx").within(&place).fails(2);
    eddy("compile denoise-fast --eta 2 -o w.onnx").within(&place).fails(2).says("eta is 2");
    eddy("compile denoise-fast -o none/w.onnx").within(&place).fails(1).says("none");
    for name in ["-", "w.png", "w"] {
        eddy(&format!("compile denoise-fast -o {name}")).within(&place).fails(2).says("NAME.onnx");
    }
    for scale in ["-1", "1e300", "nan"] {
        eddy(&format!("compile digits-ddpm --guidance-scale {scale} -o w.onnx"))
            .within(&place)
            .fails(2)
            .says("expected a number from 0");
    }
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
    // A link to the network would be written through.
    std::os::unix::fs::symlink("model/unet/model.onnx", place.path("link.onnx")).unwrap();
    eddy("compile model --sampler ddim --steps 2 -o link.onnx")
        .within(&place)
        .fails(2)
        .says("folder of the model");
    assert_eq!(place.bytes("model/unet/model.onnx"), network);
    eddy("compile model --sampler ddim --steps 2 -o whole.onnx").within(&place).succeeds();
}
