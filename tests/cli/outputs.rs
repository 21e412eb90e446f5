//! Where a result cannot go: the exit code, words that tell what to do, and nothing left behind.

use std::process::Command;

use crate::common::frames::noisy;
use crate::common::place::Place;
use crate::common::{BINARY, Eddy, eddy, skip, unshare};

fn place() -> Place {
    Place::with("a.png", &noisy(40, 30, 3, 8))
}

#[test]
fn a_name_that_tells_no_format() {
    let place = place();
    for name in ["out", "out.gif", "out.png.part"] {
        eddy("denoise a.png -o").arg(name).within(&place).fails(2).says(name).says("tells no format; end it in .png");
    }
    place.holds_only(&["a.png"]);
}

#[test]
fn several_into_one_file() {
    let place = place().and("b.png", &noisy(8, 8, 3, 8));
    eddy("denoise a.png b.png -o out.png").within(&place).fails(2).says("cannot go into the one file");
    place.holds_only(&["a.png", "b.png"]);
}

#[test]
fn onto_an_input_or_onto_each_other() {
    let place = place();
    place.file("deep/a.png", place.bytes("a.png"));
    let before = place.bytes("a.png");
    eddy("denoise a.png -o a.png").within(&place).fails(2).says("would replace the input");
    eddy("denoise a.png -o .").within(&place).fails(2).says("would replace the input");
    eddy("denoise a.png deep/a.png -o out").within(&place).fails(2).says("would both be written to");
    assert!(place.bytes("a.png") == before);
    place.holds_only(&["a.png", "deep"]);
}

#[test]
fn a_stream_in_one_picture_or_onto_itself() {
    let place = place();
    eddy("denoise a.png a.png -o - -f png").within(&place).fails(2).says("a stream is many pictures");
    eddy("denoise - -o out.png").within(&place).fails(2).says("a stream is many pictures");
    place.file("in.y4m", "YUV4MPEG2 W1 H1 Cmono\nFRAME\na");
    eddy("denoise in.y4m -o ./in.y4m").within(&place).fails(2).says("would replace the input");
    eddy("denoise . -o ./ -f y4m").within(&place).fails(2);
    place.holds_only(&["a.png", "in.y4m"]);
}

#[test]
fn a_missing_folder() {
    let place = place();
    eddy("denoise a.png -o none/out.png").within(&place).fails(1).says("the folder none does not exist; create it");
    place.holds_only(&["a.png"]);
}

#[test]
fn under_a_file_or_into_a_system_folder() {
    let place = place();
    place.file("file", "in the way");
    eddy("denoise a.png -o file/out.png").within(&place).fails(1).says("file/out.png");
    eddy("denoise a.png -o file/out/").within(&place).fails(1).says("file/out/");
    eddy("denoise a.png -o /proc/out.png").within(&place).fails(1).says("/proc");
    eddy("denoise a.png -o /dev/full -f png").within(&place).fails(1).says("it is a device or a pipe and not a file");
    place.folder("folder.png/x");
    eddy("denoise a.png -o folder.png/x -f png").within(&place).succeeds();
    assert_eq!(place.names("folder.png/x"), ["a.png"]);
    place.holds_only(&["a.png", "file", "folder.png"]);
}

#[test]
fn what_would_lose_alpha() {
    let place = Place::with("a.png", &noisy(10, 10, 4, 8));
    eddy("denoise a.png -o out.jpg").within(&place).fails(1).says("out.jpg").says("holds no transparency");
    place.holds_only(&["a.png"]);
}

#[test]
fn a_file_system_that_is_full() {
    let Some(mut command) = unshare("-m") else { return skip("a full disk: no file system can be mounted here") };
    let place = Place::with("a.png", &noisy(400, 300, 3, 16));
    place.folder("full");
    // Mounted for this process alone, so that it is gone with it.
    command.args(["sh", "-c", "mount -t tmpfs -o size=64k none full && \"$@\"; code=$?; ls -A full; exit $code", "sh"]);
    command.arg(BINARY);
    let outcome = Eddy::new(command, "denoise a.png -o full/out.png").within(&place).fails(1);
    outcome.says("full/out.png").says("the disk is full; free some space").prints_nothing();
}

#[test]
fn a_file_system_that_is_read_only() {
    let Some(mut command) = unshare("-m") else { return skip("a read-only disk: none can be mounted here") };
    let place = place();
    place.folder("fixed");
    command.args(["sh", "-c", "mount -t tmpfs -o ro none fixed && \"$@\"", "sh"]).arg(BINARY);
    let outcome = Eddy::new(command, "denoise a.png -o fixed/out.png").within(&place).fails(1);
    outcome.says("the folder fixed cannot be written to").prints_nothing();
}

#[test]
fn standard_output_that_is_closed_early() {
    let place = place();
    let mut command = Command::new("sh");
    command.args(["-c", "\"$@\" | true", "sh"]).arg(BINARY);
    Eddy::new(command, "denoise a.png -o out.png --json").within(&place).succeeds().says_nothing();
    assert_eq!(place.frame("out.png").width, 40);
}

#[test]
fn standard_output_that_is_full() {
    let place = place();
    let mut command = Command::new("sh");
    command.args(["-c", "\"$@\" > /dev/full", "sh"]).arg(BINARY);
    Eddy::new(command, "denoise a.png -o out.png --json").within(&place).fails(1).says("standard output");
}
