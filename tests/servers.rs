//! Frames that are sent to a server by ffmpeg, and those of a camera that is restarted, where ffmpeg
//! is installed. Server and camera are an ffmpeg, too.

// Test helpers may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::place::Place;
use common::{BINARY, Eddy, eddy, skip};

/// Frames of the source, at 10 per second.
const FRAMES: usize = 30;

fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-y"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A place with a video; `None` without ffmpeg.
fn place() -> Option<Place> {
    let place = Place::new();
    let video = format!("testsrc2=size=65x48:rate=10,trim=end_frame={FRAMES}");
    let mut command = ffmpeg();
    command.args(["-f", "lavfi", "-i", &video, "-pix_fmt", "yuv420p", "in.y4m"]);
    if !command.current_dir(place.path("")).status().is_ok_and(|status| status.success()) {
        // CI installs ffmpeg, and requires it by an environment variable.
        assert!(std::env::var_os("EDDY_TEST_FFMPEG").is_none(), "ffmpeg is not installed");
        skip("ffmpeg is not installed");
        return None;
    }
    Some(place)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that keeps what it is sent in a file of this name, and ends with the stream. It is
/// killed on drop.
struct Server(Child);

impl Server {
    fn start(place: &Place, url: &str, name: &str) -> Self {
        let mut command = ffmpeg();
        match url.split_once("://").unwrap().0 {
            "rtsp" => command.args(["-rtsp_flags", "listen"]),
            _ => command.args(["-listen", "1"]),
        };
        command.args(["-i", url, "-c", "copy", name]).current_dir(place.path(""));
        let server = Self(command.spawn().unwrap());
        // It says nothing when it listens, and takes one connection only.
        std::thread::sleep(Duration::from_millis(700));
        server
    }

    fn end(mut self) {
        let started = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_secs(20), "the server does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The width, the height and the number of frames of a file.
fn probe(place: &Place, name: &str) -> (usize, usize, usize) {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-count_frames", "-of", "csv=p=0"]);
    command.args(["-show_entries", "stream=width,height,nb_read_frames", name]);
    let output = command.current_dir(place.path("")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<usize> =
        text.trim().split(',').filter_map(|number| number.parse().ok()).collect();
    let [width, height, frames] = numbers[..] else { panic!("{name}: {text}") };
    (width, height, frames)
}

#[test]
fn every_protocol_takes_all_frames_at_their_rate() {
    let Some(place) = place() else { return };
    for scheme in ["rtsp", "rtmp", "tcp"] {
        let url = format!("{scheme}://127.0.0.1:{}/live/night.mp4", free_port());
        let name = format!("{scheme}.mkv");
        let server = Server::start(&place, &url, &name);
        let started = Instant::now();
        eddy("denoise in.y4m --sigma 0 -o").arg(&url).within(&place).succeeds();
        let took = started.elapsed();
        server.end();
        let (width, height, frames) = probe(&place, &name);
        // Encoders of 4:2:0 take even sizes.
        assert_eq!((width, height), (64, 48), "{scheme}");
        assert!((FRAMES - 1..=FRAMES).contains(&frames), "{scheme}: {frames} frames");
        assert!(took > Duration::from_secs(2), "{scheme} took {took:?}");
    }
    place.holds_only(&["in.y4m", "rtmp.mkv", "rtsp.mkv", "tcp.mkv"]);
}

#[test]
fn a_server_that_is_missing_is_an_error() {
    let Some(place) = place() else { return };
    let url = format!("rtsp://127.0.0.1:{}/night", free_port());
    let run = eddy("denoise in.y4m --sigma 0 -o").arg(&url).within(&place);
    run.fails(1).says("Connection refused").says("--reconnect");
    // Its frames are larger than what a pipe holds.
    let mut command = ffmpeg();
    command.args(["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=10", "-t", "5"]);
    command.args(["-pix_fmt", "yuv420p", "large.y4m"]).current_dir(place.path(""));
    assert!(command.status().unwrap().success());
    let run = eddy("denoise large.y4m --sigma 0 --reconnect 2 -o").arg(&url).within(&place);
    run.fails(1).says("Connection refused").says("waited for 2 s");
    let run = eddy("denoise in.y4m -o http://127.0.0.1/night").within(&place);
    run.fails(2).says("expected rtsp://");
    let run = eddy("denoise in.y4m -f y4m -o").arg(&url).within(&place);
    run.fails(2).says("leave the format out");
    let run = eddy("denoise in.y4m --codec nothing -o").arg(&url).within(&place);
    run.fails(1).says("Unknown encoder");
    place.holds_only(&["in.y4m", "large.y4m"]);
}

#[test]
fn a_server_that_goes_away_is_waited_for() {
    let Some(place) = place() else { return };
    let url = format!("rtsp://127.0.0.1:{}/night", free_port());
    let server = Server::start(&place, &url, "first.mkv");
    let camera = "ffmpeg -nostdin -loglevel error -re -f lavfi -i testsrc2=size=64x48:rate=10 -t 10 \
                  -pix_fmt yuv420p -f yuv4mpegpipe -";
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{camera} | \"$0\" \"$@\""), BINARY]);
    let run = Eddy::new(command, "denoise - --live --sigma 0 --reconnect 20 --json -o").arg(&url);
    let summary = std::thread::scope(|scope| {
        let run = scope.spawn(|| run.within(&place).succeeds().summary());
        std::thread::sleep(Duration::from_secs(3));
        drop(server);
        let second = Server::start(&place, &url, "second.mkv");
        let summary = run.join().unwrap();
        second.end();
        summary
    });
    let (_, _, frames) = probe(&place, "second.mkv");
    assert!(frames > 10, "{frames} frames: {summary}");
    let written = summary["written"].as_u64().unwrap();
    assert!(written > 40 && written < 100, "{summary}");
    assert!(summary["dropped"].as_u64().unwrap() > 0, "{summary}");
}

#[test]
fn a_camera_that_is_restarted_is_read_further() {
    let Some(place) = place() else { return };
    let url = format!("tcp://127.0.0.1:{}", free_port());
    let camera = "ffmpeg -nostdin -loglevel error -re -f lavfi -i testsrc2=size=64x48:rate=10 -t 2 \
                  -c:v mpeg2video -f mpegts";
    let script = format!("{camera} '{url}?listen=1'; sleep 1; {camera} '{url}?listen=1'");
    let mut cameras = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--preserve-status", "-s", "INT", "12", BINARY]);
    let run = Eddy::new(command, "denoise --sigma 0 --reconnect 20 --json -o out.y4m").arg(&url);
    let summary = run.within(&place).fails(130).summary();
    cameras.wait().unwrap();
    assert!(summary["reconnected"].as_u64() == Some(1), "{summary}");
    // ffmpeg reads the first seconds before it gives a frame, so that some are dropped.
    assert!(summary["read"].as_u64() > Some(35), "{summary}");
}
