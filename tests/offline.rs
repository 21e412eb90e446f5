//! Nothing is sent over the network.

// Test helpers may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;
use std::process::Command;

use common::images::noisy;
use common::place::Place;
use common::{BINARY, Eddy, skip, unshare};
use eddy::network::{Library, Runtime};

#[test]
fn works_without_a_network() {
    let Some(mut command) = unshare("-n") else {
        return skip("no network: no namespace can be made here");
    };
    // There is not even a loopback interface.
    let inside = command.args(["cat", "/proc/net/dev"]).output().unwrap();
    let interfaces = String::from_utf8_lossy(&inside.stdout).lines().skip(2).count();
    assert_eq!(interfaces, 1, "the loopback alone, which is down");
    let place = Place::with("a.png", &noisy(60, 40, 3, 8));
    for arguments in [
        "denoise a.png -o b.png --steps 2",
        "doctor",
        "check",
        "info denoise-fast",
        "generate -o g.png --size 16x16 --steps 1",
    ] {
        let mut command = unshare("-n").unwrap();
        command.arg(BINARY);
        Eddy::new(command, arguments).within(&place).succeeds();
    }
    assert_eq!(place.image("b.png").width, 60);
}

#[test]
fn opens_no_socket() {
    if !Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output()
        .is_ok_and(|run| run.status.success())
    {
        return skip("no socket: strace is not installed, or may not trace");
    }
    let place = Place::with("a.png", &noisy(60, 40, 3, 8));
    for arguments in ["denoise a.png -o b.png --steps 2", "doctor"] {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=network,execve", "-o", "calls"]).arg(BINARY);
        Eddy::new(command, arguments).within(&place).succeeds();
        let calls = String::from_utf8(place.bytes("calls")).unwrap();
        assert_eq!(
            calls.matches("execve(").count(),
            1,
            "the trace is empty, or another program was run:\n{calls}"
        );
        assert_eq!(calls.lines().count(), 1, "the network was requested:\n{calls}");
    }
    // The trace would contain a socket call.
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=network", "-o", "calls", "python3", "-c"]);
    command.arg("import socket; socket.socket().close()").current_dir(place.path(""));
    if command.output().is_ok_and(|run| run.status.success()) {
        assert!(String::from_utf8(place.bytes("calls")).unwrap().contains("socket("));
    }
}

/// The only test here that loads a library in its own process; the load fails.
#[test]
fn telemetry_is_off_before_a_library_is_opened() {
    let names = ["ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"];
    assert!(
        names.iter().all(|name| std::env::var_os(name).is_none()),
        "the surroundings switch it off already"
    );
    let none = Library::File(Path::new("/nowhere/libonnxruntime.so").into());
    Runtime::load(&none).unwrap_err();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains("onnxruntime"), "a library is open:\n{maps}");
    for name in names {
        assert_eq!(std::env::var(name).as_deref(), Ok("1"), "{name}");
    }
}
