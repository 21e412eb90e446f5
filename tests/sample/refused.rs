//! What `eddy sample` rejects: exit code and message, and no partial output.

use std::fs;

use ndarray::{Array3, Array4, Array5, Axis, s};

use crate::common::place::Place;
use crate::common::{Outcome, eddy};
use crate::pipelines::{place_of, start, stored};

const SCHEDULER: &str = r#"{"_class_name": "DDIMScheduler", "prediction_type": "epsilon"}"#;

/// A place that holds a state and a pipeline, `m`.
fn place() -> Place {
    let place = place_of(&start());
    place.pipeline("m", "int64-scalar/unet/model.onnx", SCHEDULER);
    place
}

/// The run fails with this code and writes nothing. An earlier result stays.
#[track_caller]
fn refused(place: &Place, code: i32, options: &str) -> Outcome {
    place.file("y.npy", "an earlier result");
    let before = place.names("");
    let outcome =
        eddy(&format!("sample -o y.npy {options}")).within(place).fails(code).prints_nothing();
    assert_eq!(place.bytes("y.npy"), b"an earlier result", "{outcome}");
    assert_eq!(place.names(""), before, "{outcome}");
    outcome
}

const DDIM: &str = "m --input x.npy --sampler ddim --steps 4";
const DDPM: &str = "m --input x.npy --sampler ddpm --steps 4";

#[test]
fn rejects_invalid_options() {
    let place = place();
    refused(&place, 2, "m --input x.npy --sampler magic --steps 4").says("magic").says("dpmpp-2m");
    refused(&place, 2, "m --input x.npy --sampler ddim --steps 0").says("at least one step");
    refused(&place, 2, "m --input x.npy --sampler ddim --steps 1001").says("1001").says("1000");
    refused(&place, 2, &format!("{DDIM} --eta -1")).says("-1");
    refused(&place, 2, &format!("{DDIM} --eta nan")).says("NaN");
    refused(&place, 2, &format!("{DDIM} --noise x.npy --seed 1")).says("--seed");
    refused(&place, 2, "m --sampler ddim --steps 4").says("--input");
    refused(&place, 2, "m --input x.npy --steps 4").says("--sampler");
}

/// An option without effect.
#[test]
fn rejects_a_precision_of_single_file_models() {
    let place = place();
    refused(&place, 2, &format!("{DDIM} --precision f16")).says("leave --precision out");
}

#[test]
fn rejects_too_little_noise() {
    let place = place();
    let noise = Array5::<f32>::zeros((2, 2, 3, 7, 12));
    place.tensor("z.npy", &noise);
    // The last of four steps adds no noise.
    refused(&place, 2, &format!("{DDPM} --noise z.npy"))
        .says("3 steps of noise")
        .says("2 of shape [2, 3, 7, 12]");
    place.tensor("z.npy", &Array5::<f32>::zeros((4, 1, 3, 7, 12)));
    refused(&place, 2, &format!("{DDPM} --noise z.npy"))
        .says("[2, 3, 7, 12]")
        .says("4 of shape [1, 3, 7, 12]");
    place.tensor("z.npy", &noise.index_axis(Axis(0), 0).to_owned());
    refused(&place, 3, &format!("{DDPM} --noise z.npy")).says("z.npy").says("5 axes").says("4");
    refused(&place, 3, &format!("{DDPM} --noise none.npy")).says("none.npy");
}

#[test]
fn rejects_states_of_other_rank() {
    let place = place();
    place.tensor("x.npy", &Array3::<f32>::zeros((3, 7, 12)));
    refused(&place, 3, DDIM).says("x.npy").says("4 axes").says("3");
    place.file("x.npy", "no tensor");
    refused(&place, 3, DDIM).says("x.npy").says("expected a .npy file");
    let whole = fs::read(stored("start.npy")).unwrap();
    place.file("x.npy", &whole[..whole.len() - 1]);
    refused(&place, 3, DDIM).says("x.npy");
    fs::remove_file(place.path("x.npy")).unwrap();
    refused(&place, 3, DDIM).says("x.npy").says("there is no such file");
}

#[test]
fn rejects_states_of_size_zero() {
    let place = place();
    for shape in [(0, 3, 7, 12), (2, 0, 7, 12), (2, 3, 0, 12), (2, 3, 7, 0)] {
        place.tensor("x.npy", &Array4::<f32>::zeros(shape));
        refused(&place, 3, DDIM).says("x.npy").says("which holds no values");
    }
}

#[test]
fn rejects_non_finite_states() {
    let place = place();
    for value in [f32::NAN, f32::INFINITY] {
        let mut x = start();
        x[[1, 2, 3, 4]] = value;
        place.tensor("x.npy", &x);
        refused(&place, 3, DDIM).says("x.npy").says("1 of its 504 values are not finite");
    }
}

#[test]
fn rejects_mismatched_channels() {
    let place = place();
    place.tensor("x.npy", &start().slice(s![.., ..1, .., ..]).to_owned());
    refused(&place, 4, DDIM).says("channels is fixed at 3; 1 was requested");
    let line = "denoise-fast --input x.npy --sampler ddim --steps 4";
    refused(&place, 4, line).says("channels");
}

#[test]
fn rejects_folders_with_missing_parts() {
    for part in ["unet/model.onnx", "scheduler/scheduler_config.json"] {
        let place = place();
        fs::remove_file(place.path("m").join(part)).unwrap();
        refused(&place, 4, DDIM).says("cannot use model m").says(part);
    }
    let place = place();
    refused(&place, 4, "none --input x.npy --sampler ddim --steps 4").says("none");
    place.folder("empty");
    refused(&place, 4, "empty --input x.npy --sampler ddim --steps 4").says("model.toml");
}

#[test]
fn rejects_unsupported_schedulers() {
    for (config, words) in [
        (r#"{"snr_shift_scale": 3.0}"#, "'snr_shift_scale' = 3.0"),
        (
            r#"{"prediction_type": "flow_prediction"}"#,
            "possible: epsilon, v_prediction, sample; or use_flow_sigmas",
        ),
        (
            r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#,
            "FlowMatchEulerDiscreteScheduler",
        ),
        (r#"{"variance_type": "learned_range"}"#, "possible: fixed_small"),
        ("{", "not JSON"),
    ] {
        let place = place();
        place.file("m/scheduler/scheduler_config.json", config);
        refused(&place, 4, DDIM)
            .says("cannot use model m")
            .says("scheduler_config.json")
            .says(words);
    }
}

#[test]
fn rejects_networks_with_unexpected_inputs_or_outputs() {
    let place = place();
    let refused_network = |network: &[u8]| {
        place.file("m/unet/model.onnx", network);
        refused(&place, 4, DDIM).says("m/unet/model.onnx")
    };
    refused_network(&fs::read(stored("conditional.onnx")).unwrap())
        .says("an input `encoder_hidden_states`")
        .says("with a role are: sample, timestep");
    refused_network(&fs::read(stored("../models/darker.onnx")).unwrap())
        .says("with a role are: sample, timestep");
    refused_network(b"no graph").says("ONNX Runtime does not accept it");
}

#[test]
fn rejects_unwritable_outputs() {
    let place = place();
    let run = |output: &str| eddy(&format!("sample {DDIM} -o {output}")).within(&place).fails(1);
    run("none/y.npy").says("none/y.npy");
    run("m").says("it is a folder");
    place.holds_only(&["m", "x.npy"]);
}
