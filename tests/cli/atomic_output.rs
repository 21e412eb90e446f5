//! Results appear complete or not at all: the order of syncs, disk failures, leftovers of killed
//! runs, and links that are not followed. `tests/power_cut.py` cuts the power.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eddy::media::{Image, Metadata, Samples};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::common::images::{encoded, noisy};
use crate::common::place::{Place, data};
use crate::common::{BINARY, Eddy, eddy, skip};

const FRAMES: usize = 40;

/// A place with an image, `a.png`, and a clean video, `a.y4m`.
fn place() -> Place {
    let place = Place::with("a.png", &noisy(40, 30, 3, 8));
    place.file("a.y4m", y4m(FRAMES));
    place
}

/// `frames` gray frames of 64x48.
fn y4m(frames: usize) -> Vec<u8> {
    let mut stream = b"YUV4MPEG2 W64 H48 F25:1 Ip Cmono XCOLORRANGE=LIMITED\n".to_vec();
    for _ in 0..frames {
        stream.extend(b"FRAME\n");
        stream.extend([90; 64 * 48]);
    }
    stream
}

/// The binary under `strace` with these options; the log is `log`.
pub(super) fn traced(options: &str, place: &Place, arguments: &str) -> Option<Eddy> {
    let works = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output()
        .is_ok_and(|run| run.status.success());
    if !works {
        skip("strace is missing, or may not be used here");
        return None;
    }
    let mut command = Command::new("strace");
    command
        .args(["-f", "-o", "log", "-e", "trace=fsync,rename,renameat,renameat2"])
        .args(options.split_whitespace());
    command.arg(BINARY);
    Some(Eddy::new(command, arguments).within(place))
}

/// The order of operations: `s` for a sync and `r` for the rename of a result.
fn order(place: &Place) -> String {
    let log = String::from_utf8(place.bytes("log")).unwrap();
    let calls = log.lines().filter_map(|line| match line {
        line if line.contains("fsync(") => Some('s'),
        line if line.contains("rename") && line.contains(".part\"") => Some('r'),
        _ => None,
    });
    calls.collect()
}

#[test]
fn syncs_a_file_before_its_rename_and_its_folder_after() {
    let place = place();
    for (arguments, expected) in [
        ("denoise a.png -o b.png --sigma 5", "srs"),
        ("denoise a.y4m -o b.y4m --sigma 0", "srs"),
        ("denoise a.png -o new/b/ --sigma 5", "sssrs"),
        ("denoise a.png -o b.png --sigma 5 --no-sync", "r"),
        ("denoise a.y4m -o frames/ --sigma 0 --no-sync", &"r".repeat(FRAMES)),
    ] {
        let Some(run) = traced("", &place, arguments) else { return };
        run.succeeds();
        assert_eq!(order(&place), expected, "{arguments}");
    }
}

#[test]
fn syncs_frames_in_batches_before_their_renames() {
    let place = place();
    let Some(run) = traced("", &place, "denoise a.y4m -o frames/ --sigma 0") else { return };
    run.succeeds();
    let order = order(&place);
    assert_eq!(order.matches('r').count(), FRAMES, "{order}");
    // The folder's parent first, then each batch: its files, their renames, the folder.
    let mut batches = 0;
    let mut calls = order.strip_prefix('s').unwrap();
    while !calls.is_empty() {
        let files = calls.find('r').unwrap();
        let names = calls[files..].find('s').unwrap_or(0);
        assert_eq!(files, names, "{order}");
        calls = &calls[files + names + 1..];
        batches += 1;
    }
    assert!(batches >= FRAMES / 32, "{order}");
    assert_eq!(place.names("frames").len(), FRAMES);
}

#[test]
fn a_failed_sync_leaves_nothing_behind() {
    let place = place();
    for (inject, arguments, words) in [
        (
            "fsync:error=EIO:when=1",
            "denoise a.png -o b.png --sigma 5",
            "the system reports an error",
        ),
        ("fsync:error=ENOSPC:when=1", "denoise a.png -o b.png --sigma 5", "the disk is full"),
        (
            "fsync:error=ENOSPC:when=1",
            "denoise a.y4m -o b.y4m --sigma 0",
            "the disk is full, and nothing is kept",
        ),
        (
            "fsync:error=EIO:when=2",
            "denoise a.png -o b.png --sigma 5",
            "the system reports an error",
        ),
        (
            "fsync:error=EIO:when=1",
            "denoise a.y4m -o b.y4m --sigma 0",
            "the system reports an error",
        ),
        (
            "fsync:error=EIO:when=2",
            "denoise a.y4m -o b.y4m --sigma 0",
            "the system reports an error",
        ),
    ] {
        let Some(run) = traced(&format!("-e inject={inject}"), &place, arguments) else { return };
        run.fails(1).says(words).says(arguments.split(' ').nth(3).unwrap());
        place.holds_only(&["a.png", "a.y4m", "log"]);
    }
    // Results that were complete before the disk failed are kept.
    place.folder("frames");
    let run =
        traced("-e inject=fsync:error=EIO:when=3+", &place, "denoise a.y4m -o frames/ --sigma 0");
    run.unwrap().fails(1).says("frames/0000");
    assert!(place.names("frames").len() < FRAMES);
    assert!(
        place.names("frames").iter().all(|name| place.image(&format!("frames/{name}")).width == 64)
    );
}

#[test]
fn accepts_a_file_system_without_sync() {
    let place = place();
    for error in ["EINVAL", "EOPNOTSUPP"] {
        for output in ["b.png", "new/"] {
            let arguments = format!("denoise a.png -o {output} --sigma 5");
            let Some(run) = traced(&format!("-e inject=fsync:error={error}"), &place, &arguments)
            else {
                return;
            };
            run.succeeds();
        }
    }
    place.holds_only(&["a.png", "a.y4m", "b.png", "log", "new"]);
}

/// A run that has started to write `out.y4m`, and waits for more.
fn writing(place: &Place) -> Child {
    let mut command = eddy("denoise - -o out.y4m --sigma 0").within(place).command();
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(&y4m(3)).unwrap();
    let started = Instant::now();
    while parts(place, child.id()).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// The unfinished results of a process.
pub(super) fn parts(place: &Place, process: u32) -> Vec<String> {
    let begin = format!(".eddy-{process}-");
    place
        .names("")
        .into_iter()
        .filter(|name| name.starts_with(&begin) && name.ends_with(".part"))
        .collect()
}

#[test]
fn deletes_leftovers_of_killed_runs() {
    let place = place();
    let mut killed = writing(&place);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(parts(&place, killed.id()).len(), 1);
    let mut alive = writing(&place);
    assert!(parts(&place, killed.id()).is_empty());
    // Files of the live process, and files with similar names.
    let own = parts(&place, alive.id()).remove(0);
    let others = [
        ".eddy-1-1-abc.part",
        ".eddy-4194999-1-abcdef.partial",
        ".eddy-4194999-1-linked.part",
        ".eddy-notes",
    ];
    for name in others {
        match name.contains("linked") {
            true => symlink(place.path("a.png"), place.path(name)).unwrap(),
            false => place.file(name, "kept"),
        }
    }
    place.file(".eddy-4194999-1-abcdef.part", "left");
    eddy("denoise a.png -o b.png --sigma 5").within(&place).succeeds();
    place.holds_only(&[&others[..], &["a.png", "a.y4m", "b.png", own.as_str()]].concat());
    drop(alive.stdin.take());
    assert!(alive.wait().unwrap().success());
    assert!(place.bytes("out.y4m") == y4m(3));
}

#[test]
fn does_not_follow_foreign_links_in_shared_folders() {
    let place = place();
    if !rustix::process::geteuid().is_root() {
        return skip("a link of another user: it takes root to make one");
    }
    place.file("precious", "as it was");
    place.folder("everybody");
    for (name, mode) in [("b.png", 0o1777), ("b.y4m", 0o1777), ("b.png", 0o777), ("b.y4m", 0o775)] {
        fs::set_permissions(place.path("everybody"), fs::Permissions::from_mode(mode)).unwrap();
        let link = place.path(&format!("everybody/{name}"));
        symlink(place.path("precious"), &link).unwrap();
        lchown(&link, Some(65534), Some(65534)).unwrap();
        let source = name.replace('b', "a");
        let refused = eddy(&format!("denoise {source} -o everybody/{name} --sigma 5"))
            .within(&place)
            .fails(1);
        refused.says(
            "is a link of another user in a folder that others may write to; choose another name",
        );
        assert_eq!(place.bytes("precious"), b"as it was");
        // Our own link is followed.
        lchown(&link, Some(0), Some(0)).unwrap();
        eddy(&format!("denoise {source} -o everybody/{name} --sigma 5")).within(&place).succeeds();
        assert!(link.is_symlink());
        fs::remove_file(link).unwrap();
        place.file("precious", "as it was");
    }
    let folder = place.path("everybody/frames");
    symlink(place.path(""), &folder).unwrap();
    lchown(&folder, Some(65534), Some(65534)).unwrap();
    symlink("everybody/frames", place.path("ours")).unwrap();
    place.file("net.onnx", fs::read(data("models/identity.onnx")).unwrap());
    for arguments in [
        "denoise a.y4m -o everybody/frames/ --sigma 0",
        "denoise a.y4m -o everybody/frames/new/ --sigma 0",
        "denoise a.png -o everybody/frames/new/ --sigma 0",
        "denoise a.png -o ours/b.png --sigma 0",
        "import net.onnx -o everybody/frames/net --task denoise --prediction denoised --sigma-range 0,1 \
         --inputs sample=x,sigma=sigma --output-name denoised",
    ] {
        eddy(arguments).within(&place).fails(1).says("is a link of another user");
    }
    place.holds_only(&["a.png", "a.y4m", "everybody", "net.onnx", "ours", "precious"]);
    let pipe = place.path("everybody/b.y4m");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from(0o666), 0).unwrap();
    lchown(&pipe, Some(65534), Some(65534)).unwrap();
    eddy("denoise a.y4m -o everybody/b.y4m --sigma 0")
        .within(&place)
        .fails(1)
        .says("is a pipe of another user");
}

#[test]
fn running_out_of_memory_is_an_error() {
    let place = place();
    // Below that, the system cannot load the program.
    for megabytes in [2, 4, 10, 20, 30, 40, 60, 80, 120] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--data={}", megabytes << 20)).arg("--").arg(BINARY);
        let arguments = "denoise a.png -o b.png --sigma 5 --threads 2 --timeout 20";
        let outcome = Eddy::new(command, arguments).within(&place).runs();
        assert!(matches!(outcome.code, Some(0 | 1 | 4 | 5)), "{megabytes} MiB: {outcome}");
    }
}

/// Rust's runtime panics in a thread for whose signal stack there is no memory.
#[test]
fn a_thread_without_memory_is_an_error() {
    let place = place();
    for megabytes in 270..310 {
        let mut command = Command::new("prlimit");
        command.arg(format!("--as={}", megabytes << 20)).arg("--").arg(BINARY);
        let arguments = "denoise a.png -o b.png --sigma 5 --threads 1 --timeout 20";
        let outcome = Eddy::new(command, arguments).within(&place).runs();
        // Where memory runs out inside glibc, it ends the process by itself.
        let is_of_glibc = outcome.stderr.contains("Fatal glibc error");
        let is_documented = is_of_glibc || matches!(outcome.code, Some(0 | 1 | 4 | 5));
        assert!(is_documented, "{megabytes} MiB: {outcome}");
        assert!(!outcome.stderr.contains("panicked"), "{megabytes} MiB: {outcome}");
    }
}

#[test]
fn writes_directly_to_devices_and_pipes() {
    let place = place();
    eddy("denoise a.y4m -o /dev/null -f y4m --sigma 0").within(&place).succeeds();
    let mut command =
        eddy("denoise a.y4m -o /dev/stdout -f y4m --sigma 0").within(&place).command();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut written = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut written).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(written == y4m(FRAMES));
    place.holds_only(&["a.png", "a.y4m"]);
}

#[test]
fn reports_the_file_size_limit() {
    // More than the unpacked library, and less than the results.
    const LIMIT: usize = 50 << 20;
    const SIDE: usize = 4500;
    let place = Place::new();
    let limited = |arguments: &str| {
        let mut command = Command::new("prlimit");
        command.arg(format!("--fsize={LIMIT}")).arg(BINARY);
        Eddy::new(command, arguments)
            .within(&place)
            .fails(1)
            .says("b.")
            .says("raise the limit (ulimit -f)");
    };
    place.file("flat.png", encoded(&flat(SIDE), "png"));
    limited("denoise flat.png -o b.bmp --sigma 0");
    place.holds_only(&["flat.png"]);
    let header = format!("YUV4MPEG2 W{SIDE} H{SIDE} F25:1 Ip Cmono XCOLORRANGE=LIMITED\n");
    let frame = [b"FRAME\n".to_vec(), vec![90; SIDE * SIDE]].concat();
    place.file("long.y4m", [header.as_bytes(), &frame.repeat(4)].concat());
    limited("denoise long.y4m -o b.y4m --sigma 0");
    // Complete frames are kept, and nothing else.
    assert!(place.bytes("b.y4m") == [header.as_bytes(), &frame.repeat(2)].concat());
    place.holds_only(&["b.y4m", "flat.png", "long.y4m"]);
}

/// A gray-blue square.
fn flat(side: usize) -> Image {
    let samples = Samples::U8([90, 90, 120].repeat(side * side));
    Image { width: side, height: side, channels: 3, samples, metadata: Metadata::default() }
}

#[test]
fn rejects_too_many_threads() {
    let place = place();
    for wrong in ["100000000", "-1", "many"] {
        eddy(&format!("denoise a.png -o b.png --threads={wrong}"))
            .within(&place)
            .fails(2)
            .says("expected 0 to ");
    }
    place.holds_only(&["a.png", "a.y4m"]);
}

#[test]
fn reads_again_after_an_interruption() {
    let place = place();
    for source in ["a.png", "a.y4m"] {
        // Every second read of the source is interrupted.
        let options = format!("-e trace=read -P {source} -e inject=read:error=EINTR:when=1+2");
        let command = |to: &str| format!("denoise {source} -o {to}-{source} --sigma 0");
        let Some(run) = traced(&options, &place, &command("interrupted")) else { return };
        run.succeeds();
        eddy(&command("plain")).within(&place).succeeds();
        let [interrupted, plain] = ["interrupted", "plain"].map(|it| format!("{it}-{source}"));
        assert_eq!(place.bytes(&interrupted), place.bytes(&plain));
        let log = String::from_utf8(place.bytes("log")).unwrap();
        assert!(log.contains("(INJECTED)"), "{log}");
    }
}
