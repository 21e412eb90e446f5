//! A real encoder and decoder at both ends: ffmpeg, where it is installed.

// Helpers beside the tests panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use common::place::{MANIFEST, Place, data, sha256};
use common::{BINARY, eddy, skip};

fn ffmpeg(place: &Place, arguments: &str) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-y"]).args(arguments.split_whitespace());
    let output = command.current_dir(place.path("")).output().unwrap();
    assert!(output.status.success(), "ffmpeg {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A place with a model that changes nothing, or none where there is no ffmpeg.
fn place() -> Option<Place> {
    if !Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        // CI installs it and says so.
        assert!(std::env::var_os("EDDY_TEST_FFMPEG").is_none(), "ffmpeg is not installed");
        skip("ffmpeg is not installed");
        return None;
    }
    let place = Place::new();
    let bytes = std::fs::read(data("models").join("identity.onnx")).unwrap();
    place.file("identity/network.onnx", &bytes);
    place.file("identity/model.toml", MANIFEST.replace("{sha256}", &sha256(&bytes)));
    Some(place)
}

#[test]
fn through_pipes_every_pixel_format_comes_back_as_it_went() {
    let Some(place) = place() else { return };
    let formats =
        ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "gray", "yuv420p10le", "yuv422p10le", "yuv444p10le", "gray10le"];
    for format in formats {
        for size in ["160x120", "322x182", "34x18"] {
            let source = format!("-f lavfi -i testsrc2=size={size}:rate=10:duration=0.4 -pix_fmt {format} -strict -1");
            let sent = ffmpeg(&place, &format!("{source} -f rawvideo -"));
            let script = format!(
                "ffmpeg -nostdin -loglevel error {source} -f yuv4mpegpipe - | {BINARY} denoise - -o - -m identity --sigma 9 \
                 -q | ffmpeg -loglevel error -f yuv4mpegpipe -i - -f rawvideo -"
            );
            let mut bash = Command::new("bash");
            let output = bash.args(["-o", "pipefail", "-c", &script]).current_dir(place.path("")).output().unwrap();
            assert!(output.status.success(), "{format} {size}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(output.stdout == sent, "{format} {size}");
        }
    }
}

#[test]
fn containers_are_read_and_written() {
    let Some(place) = place() else { return };
    ffmpeg(&place, "-f lavfi -i testsrc2=size=160x120:rate=12:duration=1 in.mp4");
    eddy("denoise in.mp4 -o out.mkv -m identity --sigma 1").within(&place).succeeds().says("12 pictures of 160x120");
    eddy("upscale out.mkv -o large.mp4 -s 2").within(&place).succeeds().says("12 pictures of 320x240");
    assert_eq!(probe(&place, "stream=width,height,avg_frame_rate,nb_frames", "large.mp4"), "320,240,12/1,12");
    assert!(!place.names("").iter().any(|name| name.contains(".eddy-")), "{:?}", place.names(""));
}

/// What ffprobe says of a file.
fn probe(place: &Place, entries: &str, file: &str) -> String {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-of", "csv=p=0", "-show_entries", entries, file]);
    let output = command.current_dir(place.path("")).output().unwrap();
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn sound_goes_along() {
    let Some(place) = place() else { return };
    let sources = "-f lavfi -i testsrc2=size=64x48:rate=10:duration=2 -f lavfi -i sine=duration=2";
    ffmpeg(&place, &format!("{sources} in.mkv"));
    let packets = |file: &str| ffmpeg(&place, &format!("-i {file} -map 0:a -c copy -f data -"));
    eddy("denoise in.mkv -o same.mkv -m identity --sigma 1").within(&place).succeeds().says("20 pictures");
    assert_eq!(probe(&place, "stream=codec_type", "same.mkv"), "video\naudio");
    assert!(packets("same.mkv") == packets("in.mkv"), "sound into the same kind of file is what it was");
    eddy("denoise in.mkv -o other.mp4 -m identity --sigma 1").within(&place).succeeds();
    assert_eq!(probe(&place, "stream=codec_type", "other.mp4"), "video\naudio");
    let seconds: f64 = probe(&place, "format=duration", "other.mp4").parse().unwrap();
    assert!((seconds - 2.0).abs() < 0.2, "{seconds}");
}

#[test]
fn what_comes_live_is_shown_when_it_came() {
    let Some(place) = place() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut sender = Command::new("ffmpeg");
    let source =
        "-nostdin -loglevel error -re -f lavfi -i testsrc2=size=64x48:rate=10:duration=4 -c:v mjpeg -f matroska -";
    sender.args(source.split(' '));
    // Ten pictures a second come, whatever is said.
    let arguments = format!("denoise tcp://127.0.0.1:{port} -o out.mkv -m identity --sigma 1 --fps-in 100 --json");
    let run = std::thread::scope(|scope| {
        let run = scope.spawn(|| eddy(&arguments).within(&place).succeeds());
        let (connection, _) = listener.accept().unwrap();
        assert!(sender.stdout(OwnedFd::from(connection)).status().unwrap().success());
        // The last copy of the connection.
        drop(sender);
        run.join().unwrap()
    });
    let written = run.summary()["written"].as_f64().unwrap();
    let seconds: f64 = probe(&place, "format=duration", "out.mkv").parse().unwrap();
    // A busy machine sends them later, never sooner.
    assert!(written >= 20.0 && seconds * 10.0 / written > 0.5, "{written} pictures in {seconds} s");
}

#[test]
fn what_ffmpeg_complains_of_is_passed_on() {
    let Some(place) = place() else { return };
    place.file("broken.mp4", [7; 2000]);
    eddy("denoise broken.mp4 -o out.y4m").within(&place).fails(3).says("broken.mp4").says("ffmpeg says");
    eddy("denoise gone.mkv -o out.y4m").within(&place).fails(3).says("No such file");
    eddy("denoise http://127.0.0.1:9/x -o out.y4m").within(&place).fails(3).says("Connection refused");
    ffmpeg(&place, "-f lavfi -i testsrc2=size=64x48:rate=5:duration=1 in.y4m");
    eddy("denoise in.y4m -o missing/out.mp4 -m identity").within(&place).fails(1).says("does not exist");
    eddy("denoise in.y4m -o out.mp4 -m identity --sigma 1")
        .env("PATH", "/nowhere")
        .within(&place)
        .fails(1)
        .says("apt install ffmpeg");
    place.holds_only(&["broken.mp4", "identity", "in.y4m"]);
}

#[test]
fn a_source_that_is_cut_off_leaves_what_can_be_read() {
    let Some(place) = place() else { return };
    let whole = ffmpeg(&place, "-f lavfi -i testsrc2=size=64x48:rate=5:duration=3 -f yuv4mpegpipe -");
    place.file("cut.y4m", &whole[..whole.len() * 2 / 3]);
    for output in ["out.y4m", "out.mkv"] {
        eddy("denoise cut.y4m -m identity --sigma 1 -o")
            .arg(output)
            .within(&place)
            .fails(3)
            .says("ends within picture");
        let pictures = ffmpeg(&place, &format!("-i {output} -f rawvideo -pix_fmt gray -")).len() / (64 * 48);
        assert!((9..=10).contains(&pictures), "{output}: {pictures}");
    }
}
