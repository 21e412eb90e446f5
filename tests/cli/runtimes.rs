//! Unusable ONNX Runtime libraries: exit code 5, and nothing left behind.

use std::fs;

use crate::common::eddy;
use crate::common::images::noisy;
use crate::common::place::Place;

fn refused(place: &Place, library: &str, words: &str) {
    let before = place.names("");
    let outcome = eddy("denoise a.png -o out.png --runtime").arg(library).within(place).fails(5);
    outcome.says("cannot use ONNX Runtime").says(library).says(words).prints_nothing();
    assert_eq!(place.names(""), before);
}

fn place() -> Place {
    Place::with("a.png", &noisy(20, 20, 3, 8))
}

/// A shared library that this process has loaded and that is not ONNX Runtime.
fn some_library() -> String {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    paths
        .filter(|path| path.contains("/libc.so") || path.contains("/libc-"))
        .map(str::to_owned)
        .next()
        .unwrap()
}

#[test]
fn rejects_a_missing_library() {
    let place = place();
    refused(&place, "none.so", "there is no such file; name a libonnxruntime.so or a folder");
    place.folder("lib");
    refused(&place, "lib", "the folder holds no libonnxruntime.so");
}

#[test]
fn rejects_files_that_are_not_libraries() {
    let place = place();
    place.file("text.so", "Dear loader, I am a text.");
    refused(&place, "text.so", "the file is not a 64-bit Linux library");
    place.file("empty.so", "");
    refused(&place, "empty.so", "the file is empty");
    // The loader would map missing pages and crash.
    place.file("cut.so", &fs::read(some_library()).unwrap()[..4000]);
    refused(&place, "cut.so", "the file is cut off");
}

#[test]
fn rejects_a_library_other_than_onnx_runtime() {
    refused(&place(), &some_library(), "it is a library, but no ONNX Runtime");
}

#[test]
fn rejects_a_library_for_another_cpu() {
    let place = place();
    let mut bytes = fs::read(some_library()).unwrap();
    let (here, there, number) = if cfg!(target_arch = "x86_64") {
        ("x86_64", "aarch64", 183_u16)
    } else {
        ("aarch64", "x86_64", 62)
    };
    // `e_machine`. Eddy is not built for IBM S/390.
    for (number, name) in [(number, there), (22, "a CPU of ELF's number 22")] {
        bytes[18..20].copy_from_slice(&number.to_le_bytes());
        place.file("foreign.so", &bytes);
        refused(
            &place,
            "foreign.so",
            &format!("the library is for {name}, and this machine is {here}"),
        );
    }
}

#[test]
fn doctor_reports_an_unusable_library() {
    let place = place();
    place.file("text.so", "no library");
    let outcome = eddy("doctor --runtime text.so").within(&place).fails(5);
    outcome
        .prints("DOES NOT OPEN")
        .prints("unset ORT_DYLIB_PATH")
        .says("the file is not a 64-bit Linux library");
}
