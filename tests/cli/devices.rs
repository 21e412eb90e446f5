//! Devices: the CPU, and messages about those that are absent.

use crate::common::eddy;
use crate::common::images::noisy;
use crate::common::place::Place;

#[test]
fn an_absent_gpu_fails_with_its_own_exit_code() {
    let place = Place::with("a.png", &noisy(20, 20, 3, 8));
    let embedded = "the ONNX Runtime inside eddy is for the CPU; name the library of onnxruntime-gpu by --runtime";
    for device in ["cuda", "cuda:1", "tensorrt"] {
        let run = eddy("denoise a.png -o out.png --device").arg(device).within(&place).fails(6);
        run.says(&format!("cannot use {device}")).says(embedded).prints_nothing();
    }
    eddy("denoise a.png -o out.png --require-device")
        .within(&place)
        .fails(6)
        .says("cannot use any GPU")
        .says(embedded);
    // An existing library without GPU support.
    let run = eddy("check denoise-fast --device cuda --runtime")
        .arg(env!("EDDY_EMBEDDED_ONNXRUNTIME"))
        .fails(6);
    run.says("cannot use cuda:0: this ONNX Runtime was built without it");
    place.holds_only(&["a.png"]);
}

#[test]
fn reports_the_device_and_the_reasons() {
    let place = Place::with("a.png", &noisy(20, 20, 3, 8));
    let quiet = eddy("denoise a.png -o out.png --json").within(&place).succeeds().says_nothing();
    assert_eq!(quiet.json()["device"], "cpu");
    let library = env!("EDDY_EMBEDDED_ONNXRUNTIME");
    let run = eddy("denoise a.png -o out.png --runtime").arg(library).within(&place).succeeds();
    run.says("runs on cpu (not tensorrt:0: this ONNX Runtime was built without it");
    eddy("check denoise-fast --device cpu --require-device").succeeds();
    let stream = eddy("denoise a.png -o out.y4m --json").within(&place).succeeds();
    assert_eq!(stream.summary()["device"], "cpu");
}

#[test]
fn rejects_invalid_device_names() {
    for device in ["gpu", "cuda:x", "cpu:0", ""] {
        eddy("check denoise-fast --device")
            .arg(device)
            .fails(2)
            .says("expected auto, tensorrt[:N], cuda[:N], openvino[:cpu|gpu|npu], plugin[:N], cpu");
    }
}

#[test]
fn counts_nodes_per_provider() {
    let record = eddy("info denoise-fast --nodes --precision f32 --json").succeeds().json();
    let nodes = record["files"][0]["nodes"].as_object().unwrap();
    assert_eq!(nodes.keys().collect::<Vec<_>>(), ["CPUExecutionProvider"]);
    let count = nodes["CPUExecutionProvider"].as_u64().unwrap();
    // The graph has 17 convolutions, which ONNX Runtime fuses with what follows them.
    assert!((17..60).contains(&count), "{count}");
    eddy("info denoise-fast --nodes --precision f32")
        .succeeds()
        .prints(&format!("nodes CPUExecutionProvider: {count}"));
    eddy("info --nodes").fails(2);
}

#[test]
fn doctor_tries_every_device() {
    let record = eddy("doctor --json").succeeds().json();
    let works: Vec<bool> = record["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["works"].as_bool().unwrap())
        .collect();
    assert_eq!(works, [false, false, false, true]);
    assert!(record["devices"][1]["problem"].as_str().unwrap().contains("--runtime"));
    let tried =
        eddy("doctor --json --runtime").arg(env!("EDDY_EMBEDDED_ONNXRUNTIME")).succeeds().json();
    assert!(
        tried["devices"][0]["problem"].as_str().unwrap().contains("was built without it"),
        "{tried}"
    );
}

#[test]
fn lowers_the_process_priority() {
    let place = Place::with("a.png", &noisy(20, 20, 3, 8));
    eddy("denoise a.png -o out.png --nice 19").within(&place).succeeds();
    eddy("denoise a.png -o out.png --nice 20").within(&place).fails(2);
}

#[test]
fn prepare_without_tensorrt_does_nothing() {
    eddy("prepare denoise-fast --device cpu --size 64x64")
        .fails(2)
        .says("there is nothing to prepare");
    eddy("prepare denoise-fast --size 64x64")
        .fails(6)
        .says("cannot use tensorrt:0")
        .says("--runtime");
    eddy("prepare denoise-fast --device tensorrt --size 64x64")
        .fails(6)
        .says("cannot use tensorrt:0")
        .says("--runtime");
    eddy("prepare none --device tensorrt --size 64x64").fails(4);
    eddy("prepare denoise-fast --device tensorrt").fails(2).says("--size");
}
