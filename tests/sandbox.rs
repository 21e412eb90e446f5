//! What a confined process cannot do, tried in a process of its own.
//!
//! This program has no test harness, whose threads would not be confined: it starts itself with the
//! name of a folder, and tries everything there.

// A test may panic, and says what it skips.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::io::ErrorKind::PermissionDenied;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs, io, thread};

use eddy::machine::Sandbox;

/// The variable that names the folder to the process that is confined.
const FOLDER: &str = "EDDY_TEST_SANDBOX";

/// The exit code of a kernel that cannot confine.
const LACKS: u8 = 77;

fn main() -> ExitCode {
    if let Some(folder) = env::var_os(FOLDER) {
        return confined(Path::new(&folder));
    }
    let place = tempfile::tempdir().unwrap();
    for (name, content) in [("in/a", "a"), ("secret", "b"), ("model/net.onnx", "c")] {
        let path = place.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::create_dir(place.path().join("out")).unwrap();
    symlink("../secret", place.path().join("in/link")).unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let _local = UnixListener::bind(place.path().join("in/socket")).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(FOLDER, place.path()).arg(server.local_addr().unwrap().to_string());
    let code = command.status().unwrap().code();
    if code == Some(i32::from(LACKS)) {
        eprintln!("SKIPPED: the sandbox: this kernel cannot confine a process");
        return ExitCode::SUCCESS;
    }
    assert_eq!(code, Some(0), "the confined process did what it must not, or could not enter");
    assert_eq!(fs::read_to_string(place.path().join("secret")).unwrap(), "b");
    assert_eq!(fs::read_to_string(place.path().join("out/renamed")).unwrap(), "x");
    ExitCode::SUCCESS
}

/// Enters the sandbox, and tries what is allowed and what is not.
fn confined(folder: &Path) -> ExitCode {
    let at = |name: &str| folder.join(name);
    let address = env::args().nth(1).unwrap();
    // Both work before.
    TcpStream::connect(&address).unwrap();
    assert!(Command::new("true").status().unwrap().success());
    let sandbox = Sandbox::default().read(&at("in")).model(&at("model/net.onnx"));
    if let Err(error) = sandbox.write(&at("out/new/result.png")).enter() {
        eprintln!("{error}");
        let lacks = error.to_string().contains("the kernel has no ");
        return ExitCode::from(if lacks { LACKS } else { 1 });
    }
    let allowed: [(&str, io::Result<()>); 6] = [
        ("read an input", fs::read(at("in/a")).map(drop)),
        ("list the inputs", fs::read_dir(at("in")).map(drop)),
        ("read the model", fs::read(at("model/net.onnx")).map(drop)),
        ("write a result", fs::write(at("out/result"), "x")),
        ("rename a result", fs::rename(at("out/result"), at("out/renamed"))),
        ("make a folder", fs::create_dir(at("out/new"))),
    ];
    for (what, done) in allowed {
        assert!(done.is_ok(), "cannot {what}: {done:?}");
    }
    refuses_all(folder, &address);
    // Threads that start later are confined as well.
    thread::scope(|scope| scope.spawn(|| refuses_all(folder, &address)).join()).unwrap();
    ExitCode::SUCCESS
}

fn refuses_all(folder: &Path, address: &str) {
    let at = |name: &str| folder.join(name);
    let refused: [(&str, io::Result<()>); 17] = [
        ("read another file", fs::read(at("secret")).map(drop)),
        ("read through a link", fs::read(at("in/link")).map(drop)),
        ("read a system file", fs::read("/etc/passwd").map(drop)),
        ("read of another process", fs::read("/proc/1/environ").map(drop)),
        ("write beside the inputs", fs::write(at("in/new"), "x")),
        ("write to the model", fs::write(at("model/net.onnx"), "x")),
        ("write another file", fs::write(at("secret"), "x")),
        ("delete an input", fs::remove_file(at("in/a"))),
        ("move a file out", fs::rename(at("out/renamed"), at("in/renamed"))),
        ("link a file in", fs::hard_link(at("secret"), at("out/secret"))),
        (
            "change permissions",
            fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o666)),
        ),
        ("connect", TcpStream::connect(address).map(drop)),
        ("listen", TcpListener::bind("127.0.0.1:0").map(drop)),
        ("send", UdpSocket::bind("127.0.0.1:0").map(drop)),
        ("connect locally", UnixStream::connect(at("in/socket")).map(drop)),
        ("start a program", Command::new("true").status().map(drop)),
        ("start itself", Command::new(env::current_exe().unwrap()).status().map(drop)),
    ];
    for (what, done) in refused {
        // Landlock reports a link or a move between folders as one between file systems.
        let is_refused = done.as_ref().is_err_and(|error| {
            matches!(error.kind(), PermissionDenied | io::ErrorKind::CrossesDevices)
        });
        assert!(is_refused, "could {what}, or not for this reason: {done:?}");
    }
}
