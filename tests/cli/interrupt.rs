//! Ctrl-C: exit code 130, finished results are complete, and nothing is half written.

use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::atomic_output::traced;
use super::served::wait_until;
use crate::common::images::{encoded, noisy};
use crate::common::place::Place;
use crate::common::{BINARY, eddy};

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

/// A folder `in` with `count` images.
fn images(count: usize, size: usize) -> Place {
    let place = Place::new();
    let bytes = encoded(&noisy(size, size, 3, 8), "png");
    for i in 0..count {
        place.file(&format!("in/{i}.png"), &bytes);
    }
    place
}

#[test]
fn keeps_finished_images_when_interrupted() {
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
fn a_run_under_nohup_ignores_hangups() {
    let place = images(10, 256);
    let started = || wait_until("the first image", || place.path("out/0.png").exists());
    let arguments = "denoise in -o out --sigma 25 --steps 10";
    let run = |program: &[&str]| {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(BINARY).args(arguments.split(' '));
        command
            .current_dir(place.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let child = run(&["env", "--default-signal=HUP"]);
    started();
    interrupted(child, Signal::HUP);
    std::fs::remove_dir_all(place.path("out")).unwrap();
    let child = run(&["nohup"]);
    started();
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(place.names("out").len(), 10);
}

#[test]
fn leaves_nothing_when_interrupted_within_an_image() {
    let place = images(1, 320);
    let child = start(&place, "denoise in/0.png -o out.png --sigma 25 --steps 1000");
    // When the library is loaded, the signal handler has long been installed.
    let maps = format!("/proc/{}/maps", child.id());
    wait_until("ONNX Runtime", || {
        std::fs::read_to_string(&maps).is_ok_and(|maps| maps.contains("onnxruntime"))
    });
    let output = interrupted(child, Signal::INT);
    assert!(output.stdout.is_empty());
    place.holds_only(&["in"]);
}

#[test]
fn interrupts_runs_without_evaluations() {
    let place = images(400, 400);
    let child = start(&place, "denoise in -o out --sigma 0");
    wait_until("the first image", || place.path("out/0.png").exists());
    interrupted(child, Signal::INT);
    let done = place.names("out").len();
    assert!((1..400).contains(&done), "{done}");
}

#[test]
fn says_so_when_interrupted_between_opening_and_loading() {
    let place = Place::new();
    place.file(
        "a.y4m",
        [&b"YUV4MPEG2 W64 H48 F25:1 Ip Cmono\nFRAME\n"[..], &[90; 64 * 48]].concat(),
    );
    // The stream is open, and ONNX Runtime is being unpacked.
    let options = "-e trace=memfd_create -e inject=memfd_create:signal=SIGTERM:delay_exit=300000";
    let Some(run) = traced(options, &place, "denoise a.y4m -o b.y4m --sigma 5") else { return };
    run.fails(130).says("interrupted; what was finished is kept");
}
