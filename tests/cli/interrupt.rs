//! Ctrl-C: exit code 130, what was finished is whole, and nothing half-written.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::images::{encoded, noisy};
use crate::common::place::Place;
use crate::common::{BINARY, eddy};

/// Longer than any machine takes for what is waited for here.
const PATIENCE: Duration = Duration::from_secs(120);

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(place: &Place, arguments: &str) -> Child {
    let mut command = eddy(arguments).within(place).command();
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn interrupted(mut child: Child, signal: Signal) -> Output {
    kill_process(Pid::from_child(&child), signal).unwrap();
    wait_until("the end", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("interrupted; what was finished is kept"), "{stderr}");
    output
}

/// A folder `in` with as many images.
fn images(count: usize, size: usize) -> Place {
    let place = Place::new();
    let bytes = encoded(&noisy(size, size, 3, 8), "png");
    for i in 0..count {
        place.file(&format!("in/{i}.png"), &bytes);
    }
    place
}

#[test]
fn between_images_what_was_finished_is_whole() {
    for signal in [Signal::INT, Signal::TERM] {
        let place = images(40, 256);
        let child = start(&place, "denoise in -o out --sigma 25 --steps 40");
        let finished = || place.path("out/0.png").exists();
        wait_until("the first image", finished);
        interrupted(child, signal);
        let names = place.names("out");
        assert!((1..40).contains(&names.len()), "{names:?}");
        for name in names {
            assert_eq!(place.image(&format!("out/{name}")).width, 256, "{name}");
        }
    }
}

/// The terminal is closed. These tests may run under nohup themselves.
#[test]
fn a_run_under_nohup_goes_on_when_others_end() {
    let place = images(10, 256);
    let begun = || wait_until("the first image", || place.path("out/0.png").exists());
    let arguments = "denoise in -o out --sigma 25 --steps 10";
    let run = |program: &[&str]| {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(BINARY).args(arguments.split(' '));
        command.current_dir(place.path("")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let child = run(&["env", "--default-signal=HUP"]);
    begun();
    interrupted(child, Signal::HUP);
    std::fs::remove_dir_all(place.path("out")).unwrap();
    let child = run(&["nohup"]);
    begun();
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(place.names("out").len(), 10);
}

#[test]
fn within_a_image_nothing_is_left() {
    let place = images(1, 320);
    let child = start(&place, "denoise in/0.png -o out.png --sigma 25 --steps 1000");
    // The library is open, and so the handler is long in place.
    let maps = format!("/proc/{}/maps", child.id());
    wait_until("ONNX Runtime", || std::fs::read_to_string(&maps).is_ok_and(|maps| maps.contains("onnxruntime")));
    let output = interrupted(child, Signal::INT);
    assert!(output.stdout.is_empty());
    place.holds_only(&["in"]);
}

#[test]
fn images_that_need_no_evaluation_are_interrupted_too() {
    let place = images(400, 400);
    let child = start(&place, "denoise in -o out --sigma 0");
    wait_until("the first image", || place.path("out/0.png").exists());
    interrupted(child, Signal::INT);
    let done = place.names("out").len();
    assert!((1..400).contains(&done), "{done}");
}
