//! `--sandbox`. What it refuses to the process itself is in `tests/sandbox.rs`.

use std::fs;

use super::common::images::noisy;
use super::common::place::{Place, npy};
use super::common::{eddy, skip};

/// Whether this kernel can confine a process.
fn is_supported() -> bool {
    let outcome = eddy("info denoise-nano --sandbox").runs();
    let lacks = outcome.stderr.contains("the kernel has no ");
    if lacks {
        skip(&format!("--sandbox: {}", outcome.stderr.trim()));
    }
    !lacks
}

#[test]
fn results_are_the_same() {
    if !is_supported() {
        return;
    }
    let image = noisy(60, 40, 3, 8);
    let place = Place::with("in/a.png", &image).and("in/b.png", &image).and("mask.png", &image);
    place.file("x.npy", npy([1, 3, 16, 16], &[0.5; 768]));
    for (command, name) in [
        ("denoise in/a.png -o out/a.png --steps 2", "a.png"),
        ("denoise in -o out", "b.png"),
        ("denoise in -o out/a.y4m --temporal", "a.y4m"),
        ("upscale in/a.png -o out/large.png", "large.png"),
        ("inpaint in/a.png --mask mask.png -o out/whole.png --samples 1 --steps 2", "whole.png"),
        ("deblur in/a.png --kernel gaussian:1 -o out/sharp.png --samples 1 --steps 2", "sharp.png"),
        ("generate -o out/g.png --size 16x16 --steps 2 --save-steps out/steps", "g.png"),
        ("sample prior --input x.npy -o out/y.npy --sampler euler --steps 2", "y.npy"),
    ] {
        let results = ["", " --sandbox"].map(|option| {
            fs::create_dir(place.path("out")).unwrap();
            eddy(&format!("{command}{option}")).within(&place).succeeds();
            let result = place.bytes(&format!("out/{name}"));
            fs::remove_dir_all(place.path("out")).unwrap();
            result
        });
        assert!(results[0] == results[1], "{command}");
    }
}

#[test]
fn a_link_does_not_lead_out_of_the_inputs() {
    if !is_supported() {
        return;
    }
    let image = noisy(20, 20, 3, 8);
    let place = Place::with("in/a.png", &image).and("elsewhere/b.png", &image);
    std::os::unix::fs::symlink("../elsewhere/b.png", place.path("in/b.png")).unwrap();
    eddy("denoise in -o out").within(&place).succeeds();
    fs::remove_dir_all(place.path("out")).unwrap();
    // Without it, the folder above could be written, and read.
    fs::create_dir(place.path("out")).unwrap();
    let outcome = eddy("denoise in -o out --sandbox").within(&place).fails(3);
    outcome.says("in/b.png").says("it may not be read");
    assert!(place.path("out/a.png").exists() && !place.path("out/b.png").exists());
}

#[test]
fn other_programs_are_not_started() {
    if !is_supported() {
        return;
    }
    let place = Place::with("a.png", &noisy(20, 20, 3, 8));
    place.file("a.mkv", b"\x1a\x45\xdf\xa3");
    let outcome = eddy("denoise a.mkv -o b.y4m --sandbox").within(&place).fails(3);
    outcome.says("--sandbox lets it start no other program");
    place.holds_only(&["a.mkv", "a.png"]);
}

#[test]
fn what_needs_more_than_files_is_refused() {
    let place = Place::with("a.png", &noisy(20, 20, 3, 8));
    for arguments in [
        "rtsp://127.0.0.1/a -o b.y4m",
        "gst:videotestsrc -o b.y4m",
        "/dev/video0 -o b.y4m",
        "a.png -o rtsp://127.0.0.1/a",
        "a.png -o b.y4m --preview",
        "a.png -o b.png --device cuda --runtime .",
        "a.png -o b.png --ep-library plugin.so",
    ] {
        let outcome = eddy(&format!("denoise {arguments} --sandbox")).within(&place).fails(2);
        outcome.says("--sandbox does not go with ");
    }
    place.holds_only(&["a.png"]);
}
