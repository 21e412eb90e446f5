//! Input and output streams of the binary.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::eddy;
use crate::common::images::psnr;
use crate::common::place::{MANIFEST, Place, data, sha256};

/// Random samples of `bits` bits, two bytes each if there are more than
/// eight.
fn random(bits: u32, bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut byte = |i: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let byte = (state >> 40) as u8;
        if bits > 8 && i % 2 == 1 { byte >> (16 - bits) } else { byte }
    };
    (0..bytes).map(&mut byte).collect()
}

/// A y4m stream with this header and random frames of this size in bytes.
pub(super) fn y4m(kind: &str, width: usize, height: usize, bytes: usize, count: usize) -> Vec<u8> {
    let bits = if kind.ends_with("10") { 10 } else { 8 };
    let mut stream =
        format!("YUV4MPEG2 W{width} H{height} F30000:1001 Ip A1:1 C{kind} XCOLORRANGE=LIMITED\n")
            .into_bytes();
    for frame in random(bits, bytes * count).chunks(bytes) {
        stream.extend(b"FRAME\n");
        stream.extend(frame);
    }
    stream
}

/// A model whose network is the identity.
fn identity(place: &Place) {
    let bytes = fs::read(data("models").join("identity.onnx")).unwrap();
    place.file("identity/network.onnx", &bytes);
    place.file("identity/model.toml", MANIFEST.replace("{sha256}", &sha256(&bytes)));
}

#[test]
fn unchanged_frames_are_bit_identical() {
    let kinds = [
        ("420jpeg", 17 * 9 + 2 * 9 * 5),
        ("420mpeg2", 17 * 9 + 2 * 9 * 5),
        ("420paldv", 17 * 9 + 2 * 9 * 5),
        ("422", 17 * 9 + 2 * 9 * 9),
        ("444", 3 * 17 * 9),
        ("mono", 17 * 9),
        ("420p10", 2 * (17 * 9 + 2 * 9 * 5)),
        ("422p10", 2 * (17 * 9 + 2 * 9 * 9)),
        ("444p10", 6 * 17 * 9),
        ("mono10", 2 * 17 * 9),
    ];
    let place = Place::new();
    identity(&place);
    for (kind, bytes) in kinds {
        let stream = y4m(kind, 17, 9, bytes, 3);
        place.file("in.y4m", &stream);
        for options in ["", "--steps 1 -t 16", "--range full --matrix bt709"] {
            eddy("denoise in.y4m -o out.y4m -m identity --sigma 25")
                .args(options)
                .within(&place)
                .succeeds();
            let out = place.bytes("out.y4m");
            let header = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n').unwrap();
            assert!(out[header(&out)..] == stream[header(&stream)..], "{kind} {options}");
            assert!(
                out.starts_with(
                    format!("YUV4MPEG2 W17 H9 F30000:1001 Ip A1:1 C{kind} ").as_bytes()
                ),
                "{kind}"
            );
        }
    }
}

#[test]
fn raw_frames_of_every_format_are_unchanged() {
    let place = Place::new();
    identity(&place);
    let formats = [
        ("nv12", 243),
        ("yuyv422", 324),
        ("rgb24", 459),
        ("bgr24", 459),
        ("gray", 153),
        ("rgb48le", 918),
    ];
    for (format, bytes) in formats {
        let frames = random(if format == "rgb48le" { 16 } else { 8 }, 2 * bytes);
        place.file("in.raw", &frames);
        eddy("denoise in.raw -o out.raw --size 17x9 -m identity --sigma 9 --pixel-format")
            .arg(format)
            .within(&place)
            .succeeds();
        let out = place.bytes("out.raw");
        let same = out.iter().zip(&frames).filter(|(a, b)| a == b).count();
        // A row of yuyv422 of odd width ends in a luma sample that no pixel has.
        let spare = if format == "yuyv422" { 2 * 9 } else { 0 };
        assert!(
            out.len() == frames.len() && same + spare >= out.len(),
            "{format}: {same} of {}",
            out.len()
        );
    }
}

/// The photograph with noise as a stream of equal frames.
fn photographs(place: &Place, count: usize) {
    for i in 0..count {
        place.file(&format!("in/{i}.png"), fs::read(data("noisy-chelsea.png")).unwrap());
    }
}

#[test]
fn converts_between_sequences_and_streams() {
    let place = Place::new();
    photographs(&place, 3);
    let record = eddy("denoise in -o out.y4m --sigma 25 --fps-in 12.5 --json")
        .within(&place)
        .succeeds()
        .json();
    assert_eq!((record["event"].as_str(), record["written"].as_u64()), (Some("summary"), Some(3)));
    assert!(
        place
            .bytes("out.y4m")
            .starts_with(b"YUV4MPEG2 W451 H300 F12500:1000 Ip C444 XCOLORRANGE=LIMITED\nFRAME\n")
    );
    // Sigma 0 leaves frames unchanged, so that the output equals the input.
    eddy("denoise out.y4m -o frames/ --sigma 0").within(&place).succeeds();
    assert_eq!(place.names("frames"), ["000001.png", "000002.png", "000003.png"]);
    let clean = crate::common::images::read(&data("chelsea.png"));
    let found = psnr(&clean, &place.image("frames/000002.png"));
    assert!(found > 29.0, "{found}");
    eddy("denoise out.y4m -o one.png").within(&place).fails(2).says("a stream is many frames");
}

#[test]
fn upscales_a_stream() {
    let place = Place::new();
    place.file("in.y4m", y4m("420jpeg", 24, 16, 24 * 16 * 3 / 2, 2));
    for (options, kind) in [("", "420jpeg"), ("--steps 2", "420jpeg")] {
        eddy("upscale in.y4m -o out.y4m -s 2")
            .args(options)
            .within(&place)
            .succeeds()
            .says("2 frames of 48x32");
        let out = place.bytes("out.y4m");
        assert!(
            out.starts_with(format!("YUV4MPEG2 W48 H32 F30000:1001 Ip A1:1 C{kind} ").as_bytes())
        );
        assert_eq!(
            out.len(),
            2 * (6 + 48 * 32 * 3 / 2) + out.iter().position(|b| *b == b'\n').unwrap() + 1
        );
    }
}

#[test]
fn distinguishes_damage_from_the_end_and_keeps_earlier_frames() {
    let place = Place::new();
    let whole = y4m("mono", 16, 16, 256, 4);
    place.file("cut.y4m", &whole[..whole.len() - 100]);
    let three = |name: &str| {
        let out = place.bytes(name);
        assert_eq!(out.windows(6).filter(|six| six == b"FRAME\n").count(), 3);
        assert_eq!(out.len(), out.iter().position(|b| *b == b'\n').unwrap() + 1 + 3 * 262);
    };
    eddy("denoise cut.y4m -o a.y4m --sigma 5")
        .within(&place)
        .fails(3)
        .says("ends within frame 4: 156 of 256 bytes");
    three("a.y4m");
    let record = eddy("denoise cut.y4m -o b.y4m --sigma 5 --skip-corrupt --json")
        .within(&place)
        .succeeds()
        .json();
    assert_eq!((record["written"].as_u64(), record["corrupt"].as_u64()), (Some(3), Some(1)));
    three("b.y4m");
    let mut torn = whole.clone();
    let second =
        whole.windows(6).enumerate().filter(|(_, six)| six == b"FRAME\n").nth(1).unwrap().0;
    torn[second] = b'X';
    place.file("torn.y4m", &torn);
    eddy("denoise torn.y4m -o c.y4m --sigma 5")
        .within(&place)
        .fails(3)
        .says("frame 2")
        .says("no FRAME");
}

#[test]
fn reports_invalid_stream_options() {
    let place = Place::new();
    place.file("in.y4m", y4m("mono", 16, 16, 256, 1));
    place.file("notes.txt", "no frames at all");
    let cases = [
        ("denoise in.y4m in.y4m -o out.y4m", 2, "must be the only source"),
        ("denoise in.y4m -o out.y4m --size 16x16", 2, "--pixel-format"),
        ("denoise in.y4m -o out.y4m --pixel-format yuv9 --size 4x4", 2, "expected one of yuv420p"),
        ("denoise in.y4m -o missing/out.y4m", 1, "does not exist"),
        ("denoise gone.y4m -o out.y4m", 3, "no such file"),
        ("denoise notes.txt -o out.y4m --pixel-format rgb24 --size 64x64", 3, "16 of 12288 bytes"),
        ("denoise - -o out.y4m", 3, "is empty"),
        ("denoise in.y4m -o out.y4m --stall-timeout 0", 2, "expected seconds"),
        ("denoise in.y4m -o out.y4m --live", 2, "leave --live out"),
    ];
    for (arguments, code, words) in cases {
        eddy(arguments).within(&place).fails(code).says(words);
    }
    assert!(!place.names("").iter().any(|name| name.contains("out") || name.contains(".part")));
}

/// A run that reads from its standard input.
fn fed(place: &Place, arguments: &str) -> Child {
    let mut command = eddy(arguments).within(place).command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn drops_frames_of_a_live_pipe_when_too_slow() {
    let place = Place::new();
    let fed = |options: &str| {
        let mut child = fed(
            &place,
            &format!("denoise - -o out.y4m --sigma 25 -m denoise --temporal=off --json {options}"),
        );
        // All frames at once; the network takes a while for each.
        child.stdin.take().unwrap().write_all(&y4m("420jpeg", 320, 240, 115_200, 40)).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let mut record = String::new();
        child.stdout.take().unwrap().read_to_string(&mut record).unwrap();
        let record: serde_json::Value =
            serde_json::from_str(record.lines().last().unwrap()).unwrap();
        let counts = ["read", "written", "dropped"].map(|name| record[name].as_u64().unwrap());
        assert_eq!((counts[0], counts[1] + counts[2]), (40, 40), "{record}");
        counts[2]
    };
    assert!(fed("--live") > 0);
    assert_eq!(fed(""), 0);
}

#[test]
fn a_closed_output_pipe_ends_the_run() {
    let place = Place::new();
    place.file("in.y4m", y4m("mono", 64, 64, 4096, 200));
    let mut child = eddy("denoise in.y4m -o - --sigma 5")
        .within(&place)
        .command()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut start = vec![0; 9000];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(start.starts_with(b"YUV4MPEG2 W64 H64 "));
}

#[test]
fn signals_keep_finished_frames_while_the_source_is_silent() {
    for signal in [Signal::INT, Signal::TERM] {
        let place = Place::new();
        let mut child = fed(&place, "denoise - -o out.y4m --sigma 5");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&y4m("mono", 16, 16, 256, 5)).unwrap();
        // The frames are being processed, and no more arrive.
        let written = || {
            let parts = place.names("").into_iter().find(|name| name.ends_with(".part"));
            parts.is_some_and(|name| place.bytes(&name).len() >= 5 * 262)
        };
        let started = std::time::Instant::now();
        while !written() {
            assert!(started.elapsed() < Duration::from_secs(60), "no frame was written");
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(place.bytes("out.y4m").windows(6).filter(|six| six == b"FRAME\n").count(), 5);
        place.holds_only(&["out.y4m"]);
        drop(stdin);
    }
}

fn is_open(child: &Child, path: &Path) -> bool {
    let files = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|link| link == path))
}

#[test]
fn readers_of_a_live_stream_may_reconnect() {
    let place = Place::new();
    let pipe = place.path("pipe.y4m");
    mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    let mut child = fed(&place, "denoise - -o pipe.y4m --live --sigma 0 --json");
    let mut stdin = child.stdin.take().unwrap();
    let stream = y4m("mono", 64, 64, 4096, 1);
    let header = stream.windows(6).position(|six| six == b"FRAME\n").unwrap();
    stdin.write_all(&stream[..header]).unwrap();
    let mut feed = || stdin.write_all(&stream[header..]).unwrap();
    for _ in 0..2 {
        let path = pipe.clone();
        let reader = std::thread::spawn(move || {
            let mut start = vec![0; 3 * 4102];
            File::open(path).unwrap().read_exact(&mut start).unwrap();
            start
        });
        while !reader.is_finished() {
            feed();
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(reader.join().unwrap().starts_with(b"YUV4MPEG2 W64 H64 "));
        while is_open(&child, &pipe) {
            feed();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    feed();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let record: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert!(record["dropped"].as_u64() > Some(0), "{record}");
}

fn catches_sigterm(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
    u64::from_str_radix(caught, 16).unwrap() & 1 << (Signal::TERM.as_raw() - 1) != 0
}

#[test]
fn a_blocked_reader_does_not_block_the_run() {
    for named in [true, false] {
        let place = Place::new();
        mkfifoat(CWD, place.path("pipe.y4m"), Mode::RUSR | Mode::WUSR).unwrap();
        // More data than a pipe buffers.
        place.file("in.y4m", y4m("mono", 256, 256, 65_536, 30));
        let mut child = fed(
            &place,
            &format!("denoise in.y4m --sigma 0 -o {}", if named { "pipe.y4m" } else { "-" }),
        );
        let mut stdout = child.stdout.take().unwrap();
        if !named {
            // A part is read, and then no more.
            stdout.read_exact(&mut [0; 9]).unwrap();
        }
        while !catches_sigterm(&child) {
            std::thread::sleep(Duration::from_millis(5));
        }
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let started = std::time::Instant::now();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(started.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn reports_a_silent_source_as_a_stall() {
    let place = Place::new();
    let mut child = fed(&place, "denoise - -o out.y4m --sigma 5 --stall-timeout 0.3");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&y4m("mono", 16, 16, 256, 2)).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && stderr.contains("--stall-timeout"), "{stderr}");
    assert_eq!(place.bytes("out.y4m").windows(6).filter(|six| six == b"FRAME\n").count(), 2);
}

#[test]
fn a_full_disk_keeps_complete_frames() {
    let Some(mut command) = crate::common::unshare("-m") else {
        return crate::common::skip("a full disk: no file system can be mounted here");
    };
    let place = Place::new();
    place.file("in.y4m", y4m("mono", 64, 64, 4096, 60));
    place.folder("full");
    let binary = crate::common::BINARY;
    let script = format!(
        "mount -t tmpfs -o size=100k tmpfs full && {binary} denoise in.y4m -o full/out.y4m --sigma 5; code=$?; \
         cp full/out.y4m kept.y4m; ls -a full; exit $code"
    );
    let output =
        command.args(["sh", "-c"]).arg(script).current_dir(place.path("")).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("mount:") {
        return crate::common::skip("a full disk: no file system can be mounted here");
    }
    assert!(output.status.code() == Some(1) && stderr.contains("the disk is full"), "{stderr}");
    let kept = place.bytes("kept.y4m");
    let header = kept.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert!(
        kept.len() > header + 4102 && (kept.len() - header).is_multiple_of(4102),
        "{}",
        kept.len()
    );
    assert!(!String::from_utf8_lossy(&output.stdout).contains(".part"));
}
