//! Networks that were saved after optimization.

use std::fs;

use crate::common::place::Place;
use crate::common::{BINARY, Eddy, eddy, skip, unshare};

fn cached(place: &Place, command: &str) -> Eddy {
    eddy(command).env("XDG_CACHE_HOME", place.path("cache")).within(place)
}

const RUN: &str = "generate -m pipeline --size 64x64 --steps 2 --prompt cat -o";

#[test]
fn prepared_networks_give_the_same_image() {
    let place = Place::with_pipeline("sd15");
    cached(&place, &format!("{RUN} plain.png")).succeeds();
    let saved = cached(&place, "prepare pipeline --json").succeeds().summary();
    let files: Vec<&str> = saved["networks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["file"].as_str().unwrap())
        .collect();
    assert_eq!(files, ["text_encoder/model.onnx", "unet/model.onnx"]);
    assert!(saved["networks"][1]["bytes"].as_u64().unwrap() > 10_000, "{saved}");
    assert_eq!(place.names("cache/eddy/optimized").len(), 2);
    cached(&place, &format!("{RUN} prepared.png")).succeeds();
    assert_eq!(place.bytes("plain.png"), place.bytes("prepared.png"));
    cached(&place, "prepare pipeline").succeeds().says("unet/model.onnx: already there");
}

#[test]
fn a_changed_network_is_prepared_again_and_a_damaged_one_is_not_used() {
    let place = Place::with_pipeline("sd15");
    cached(&place, "prepare pipeline").succeeds();
    let optimized = place.path("cache/eddy/optimized");
    let before = place.names("cache/eddy/optimized");
    let unet = place.path("pipeline/unet/model.onnx");
    let bytes = fs::read(&unet).unwrap();
    // An empty graph that is appended changes nothing in what is computed.
    fs::write(&unet, [bytes.as_slice(), &[0x3A, 0x00]].concat()).unwrap();
    cached(&place, "prepare pipeline").succeeds().says("unet/model.onnx: saved");
    let after = place.names("cache/eddy/optimized");
    assert_eq!((before.len(), after.len()), (2, 2), "that of the earlier network is deleted");
    assert_ne!(before, after);
    cached(&place, &format!("{RUN} whole.png")).succeeds();
    for name in after {
        let graph = optimized.join(name).join("model.onnx");
        let whole = fs::read(&graph).unwrap();
        fs::write(&graph, &whole[..whole.len() / 2]).unwrap();
    }
    cached(&place, &format!("{RUN} damaged.png")).succeeds();
    assert_eq!(place.bytes("whole.png"), place.bytes("damaged.png"));
}

#[test]
fn nothing_is_prepared_for_a_size_or_without_a_cache() {
    let place = Place::with_pipeline("sd15");
    cached(&place, "prepare pipeline --size 64x64").fails(2).says("leave --size out");
    eddy("prepare pipeline")
        .env("XDG_CACHE_HOME", "")
        .env("HOME", "")
        .within(&place)
        .fails(2)
        .says("set HOME or XDG_CACHE_HOME");
    cached(&place, "prepare denoise-fast").fails(2).says("give it with --size WxH");
}

#[test]
fn a_full_disk_is_no_fault_of_the_network() {
    // ONNX Runtime has another message for each of its files.
    for size in ["100k", "300k", "448k", "456k"] {
        let Some(mut command) = unshare("-m") else {
            return skip("a full disk: no file system can be mounted here");
        };
        let place = Place::with_pipeline("sd15");
        place.folder("cache");
        let script = format!(
            "mount -t tmpfs -o size={size} none cache && \"$@\"; code=$?; \
             ls -A cache/eddy/optimized; exit $code"
        );
        command.args(["sh", "-c", &script, "sh"]).arg(BINARY);
        let run = Eddy::new(command, "prepare pipeline");
        let outcome = run.env("XDG_CACHE_HOME", place.path("cache")).within(&place).fails(1);
        outcome.says("the optimized graph cannot be saved; free some space").prints_nothing();
    }
}
