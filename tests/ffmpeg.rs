//! Containers and codecs through ffmpeg, where it is installed.

// Test helpers may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use common::place::{MANIFEST, Place, data, sha256};
use common::{BINARY, Eddy, eddy, skip, unshare};
use eddy::media::Samples;

fn ffmpeg(place: &Place, arguments: &str) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-y"]).args(arguments.split_whitespace());
    let output = command.current_dir(place.path("")).output().unwrap();
    assert!(
        output.status.success(),
        "ffmpeg {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// A place with a model that changes nothing; `None` without ffmpeg.
fn place() -> Option<Place> {
    if !Command::new("ffmpeg")
        .arg("-version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        // CI installs ffmpeg, and requires it by an environment variable.
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
fn every_pixel_format_survives_pipes_unchanged() {
    let Some(place) = place() else { return };
    let formats = [
        "yuv420p",
        "yuvj420p",
        "yuv422p",
        "yuv444p",
        "gray",
        "yuv420p10le",
        "yuv422p10le",
        "yuv444p10le",
        "gray10le",
    ];
    for format in formats {
        for size in ["160x120", "322x182", "34x18"] {
            let source = format!(
                "-f lavfi -i testsrc2=size={size}:rate=10:duration=0.4 -pix_fmt {format} -strict -1"
            );
            let sent = ffmpeg(&place, &format!("{source} -f rawvideo -"));
            let script = format!(
                "ffmpeg -nostdin -loglevel error {source} -f yuv4mpegpipe - | {BINARY} denoise - -o - -m identity --sigma 9 \
                 -q | ffmpeg -loglevel error -f yuv4mpegpipe -i - -f rawvideo -"
            );
            let mut bash = Command::new("bash");
            let output = bash
                .args(["-o", "pipefail", "-c", &script])
                .current_dir(place.path(""))
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{format} {size}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(output.stdout == sent, "{format} {size}");
        }
    }
}

#[test]
fn reads_avif_and_jpeg_2000() {
    let Some(place) = place() else { return };
    for (name, turned) in [("turned-5.avif", false), ("turned-6.avif", true)] {
        std::fs::create_dir_all(place.path("in")).unwrap();
        std::fs::copy(data("images").join(name), place.path("in").join(name)).unwrap();
        eddy("denoise in -o out --strength 0").within(&place).succeeds();
        let frame = place.image(&format!("out/{}", name.replace("avif", "png"))).upright();
        // Pixel (x, y) is red 5 x, green 6 y, blue 2 (x + y), stored so; shown mirrored along its
        // diagonal, or turned to the right.
        let Samples::U8(samples) = &frame.samples else { panic!("{name}: 8 bits") };
        assert_eq!((frame.width, frame.height), (40, 48), "{name}");
        for (i, pixel) in samples.chunks_exact(3).enumerate() {
            let (x, y) = (i % 40, i / 40);
            let (from_x, from_y) = if turned { (y, 39 - x) } else { (y, x) };
            let expected = [5 * from_x, 6 * from_y, 2 * (from_x + from_y)];
            let error = pixel.iter().zip(expected).map(|(a, b)| a.abs_diff(b as u8)).max();
            assert!(error < Some(25), "{name}: {pixel:?} for {expected:?} at {x}, {y}");
        }
    }
    std::fs::copy(data("images").join("clear.avif"), place.path("clear.avif")).unwrap();
    eddy("denoise clear.avif -o a.png")
        .within(&place)
        .fails(3)
        .says("has transparency")
        .says("avifdec");
    ffmpeg(&place, "-f lavfi -i testsrc2=size=64x48 -frames:v 1 -pix_fmt rgb24 p.jp2");
    eddy("denoise p.jp2 -o b.png").within(&place).succeeds();
    assert_eq!((place.image("b.png").width, place.image("b.png").height), (64, 48));
    // Without ffmpeg, the message names it.
    place.file("cut.avif", &std::fs::read(place.path("clear.avif")).unwrap()[..200]);
    eddy("denoise cut.avif -o c.png").within(&place).fails(3).says("cannot decode");
    eddy("denoise cut.avif -o c.png")
        .within(&place)
        .env("PATH", "")
        .fails(3)
        .says("ffmpeg is not installed");
    assert!(!place.path("c.png").exists() && !place.path("a.png").exists());
}

#[test]
fn limits_the_memory_of_frames_that_ffmpeg_decodes() {
    let Some(place) = place() else { return };
    ffmpeg(&place, "-f lavfi -i color=size=9000x9000 -frames:v 1 -pix_fmt rgb24 large.jp2");
    let run =
        eddy("denoise large.jp2 -o a.png --sigma 0 --max-memory 200M").within(&place).fails(3);
    // Checked before decoding, for which ffmpeg has no limit in bytes.
    run.says("9000 x 9000 pixels").says("raise --max-memory");
    ffmpeg(&place, "-f lavfi -i testsrc2=size=640x480 -frames:v 1 -pix_fmt rgb24 small.jp2");
    eddy("denoise small.jp2 -o a.png --sigma 0 --max-memory 400M").within(&place).succeeds();
}

#[test]
fn writes_bare_streams_without_sound() {
    let Some(place) = place() else { return };
    ffmpeg(
        &place,
        "-f lavfi -i testsrc2=size=176x144:rate=10:duration=1 -f lavfi -i sine=duration=1 in.mkv",
    );
    for output in ["out.h264", "out.mjpeg", "out.3gp"] {
        eddy(&format!("denoise in.mkv -o {output} -m identity --sigma 1"))
            .within(&place)
            .succeeds();
        assert_eq!(
            probe(&place, "stream=nb_read_frames -count_frames -select_streams v", output),
            "10",
            "{output}"
        );
    }
}

#[test]
fn reads_and_writes_containers() {
    let Some(place) = place() else { return };
    ffmpeg(&place, "-f lavfi -i testsrc2=size=160x120:rate=12:duration=1 in.mp4");
    eddy("denoise in.mp4 -o out.mkv -m identity --sigma 1")
        .within(&place)
        .succeeds()
        .says("12 frames of 160x120");
    eddy("upscale out.mkv -o large.mp4 -s 2")
        .within(&place)
        .succeeds()
        .says("12 frames of 320x240");
    assert_eq!(
        probe(&place, "stream=width,height,avg_frame_rate,nb_frames", "large.mp4"),
        "320,240,12/1,12"
    );
    assert!(!place.names("").iter().any(|name| name.contains(".eddy-")), "{:?}", place.names(""));
}

/// The output of ffprobe for a file.
fn probe(place: &Place, entries: &str, file: &str) -> String {
    let mut command = Command::new("ffprobe");
    command
        .args(["-v", "error", "-of", "csv=p=0", "-show_entries"])
        .args(entries.split(' '))
        .arg(file);
    let output = command.current_dir(place.path("")).output().unwrap();
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn copies_sound() {
    let Some(place) = place() else { return };
    let sources = "-f lavfi -i testsrc2=size=64x48:rate=10:duration=2 -f lavfi -i sine=duration=2";
    ffmpeg(&place, &format!("{sources} in.mkv"));
    let packets = |file: &str| ffmpeg(&place, &format!("-i {file} -map 0:a -c copy -f data -"));
    eddy("denoise in.mkv -o same.mkv -m identity --sigma 1")
        .within(&place)
        .succeeds()
        .says("20 frames");
    assert_eq!(probe(&place, "stream=codec_type", "same.mkv"), "video\naudio");
    assert!(
        packets("same.mkv") == packets("in.mkv"),
        "sound into the same kind of file is what it was"
    );
    eddy("denoise in.mkv -o other.mp4 -m identity --sigma 1").within(&place).succeeds();
    assert_eq!(probe(&place, "stream=codec_type", "other.mp4"), "video\naudio");
    let seconds: f64 = probe(&place, "format=duration", "other.mp4").parse().unwrap();
    assert!((seconds - 2.0).abs() < 0.3, "{seconds}");
}

#[test]
fn copies_titles_and_subtitles() {
    let Some(place) = place() else { return };
    place.file("a.srt", "1\n00:00:00,200 --> 00:00:01,000\nhello\n");
    let video =
        "-f lavfi -i testsrc2=size=64x48:rate=10:duration=2 -i a.srt -map 0 -map 1 -c:s srt";
    ffmpeg(&place, &format!("{video} -metadata title=Garden in.mkv"));
    for output in ["out.mkv", "out.mp4"] {
        eddy("denoise in.mkv -m identity --sigma 1 -o").arg(output).within(&place).succeeds();
        assert_eq!(probe(&place, "format_tags=title", output), "Garden", "{output}");
    }
    assert_eq!(probe(&place, "stream=codec_type", "out.mkv"), "video\nsubtitle");
    ffmpeg(
        &place,
        "-i in.mkv -f lavfi -i sine=duration=2 -map 0 -map 1 -c:v copy -c:s mov_text in.mp4",
    );
    eddy("denoise in.mp4 -o all.mp4 -m identity --sigma 1").within(&place).succeeds();
    assert_eq!(probe(&place, "stream=codec_type", "all.mp4"), "video\naudio\nsubtitle");
}

#[test]
fn mp4_frames_start_with_their_sound() {
    let Some(place) = place() else { return };
    let sources = "-f lavfi -i testsrc2=size=64x48:rate=25:duration=2 -f lavfi -i sine=duration=2";
    ffmpeg(&place, &format!("{sources} -c:v libx264 -c:a aac in.mp4"));
    eddy("denoise in.mp4 -o out.mp4 -m identity --sigma 1").within(&place).succeeds();
    let starts = probe(&place, "stream=start_time", "out.mp4");
    let starts: Vec<f64> = starts.lines().map(|start| start.parse().unwrap()).collect();
    assert!((starts[0] - starts[1]).abs() < 0.03, "{starts:?}");
}

#[test]
fn live_frames_keep_their_arrival_times() {
    let Some(place) = place() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut sender = Command::new("ffmpeg");
    let source = "-nostdin -loglevel error -re -f lavfi -i testsrc2=size=64x48:rate=10:duration=4 -c:v mjpeg -f matroska -";
    sender.args(source.split(' '));
    // Ten frames per second arrive, whatever rate is declared.
    let arguments = format!(
        "denoise tcp://127.0.0.1:{port} -o out.mkv -m identity --sigma 1 --fps-in 100 --json"
    );
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
    let kept: f64 =
        probe(&place, "stream=nb_read_packets -count_packets", "out.mkv").parse().unwrap();
    assert_eq!(kept, written, "each has its time");
    assert!(written >= 20.0 && seconds * 10.0 / written > 0.5, "{written} frames in {seconds} s");
}

/// Every pixel format reaches an encoder without loss, also at a variable rate.
#[test]
fn records_live_frames_at_their_times() {
    let Some(place) = place() else { return };
    let kinds = [
        "gray",
        "yuv420p",
        "yuvj420p",
        "yuv422p",
        "yuv444p",
        "gray10le",
        "yuv420p10le",
        "yuv422p10le",
        "yuv444p12le",
    ];
    for kind in kinds {
        let source = format!(
            "-f lavfi -i testsrc2=size=66x34:rate=10:duration=0.5,setsar=4/3 -pix_fmt {kind} -strict -1"
        );
        place.file("in.y4m", ffmpeg(&place, &format!("{source} -f yuv4mpegpipe -")));
        let script = format!(
            "cat in.y4m | {BINARY} denoise - -o out.mkv --live --temporal=off --codec ffv1 -m identity --sigma 1 -q"
        );
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(place.path(""))
            .output()
            .unwrap();
        assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(probe(&place, "stream=sample_aspect_ratio", "out.mkv"), "4:3", "{kind}");
        // Older frames may be dropped on a slow machine; the last one never is.
        let all = |name: &str| {
            ffmpeg(&place, &format!("-i {name} -vsync passthrough -pix_fmt {kind} -f rawvideo -"))
        };
        let (came, recorded) = (all("in.y4m"), all("out.mkv"));
        let last = &came[came.len() / 5 * 4..];
        assert!(recorded.ends_with(last), "{kind}");
        eddy("denoise in.y4m -o kept.mkv --codec ffv1 -m identity --sigma 1")
            .within(&place)
            .succeeds();
        let [live, kept] =
            ["out.mkv", "kept.mkv"].map(|name| probe(&place, "stream=color_range", name));
        assert_eq!(live, kept, "{kind}");
    }
}

#[test]
fn passes_on_messages_of_ffmpeg() {
    let Some(place) = place() else { return };
    place.file("broken.mp4", [7; 2000]);
    eddy("denoise broken.mp4 -o out.y4m")
        .within(&place)
        .fails(3)
        .says("broken.mp4")
        .says("ffmpeg says");
    eddy("denoise gone.mkv -o out.y4m").within(&place).fails(3).says("No such file");
    eddy("denoise http://127.0.0.1:9/x -o out.y4m")
        .within(&place)
        .fails(3)
        .says("Connection refused");
    ffmpeg(&place, "-f lavfi -i testsrc2=size=64x48:rate=5:duration=1 in.y4m");
    eddy("denoise in.y4m -o missing/out.mp4 -m identity")
        .within(&place)
        .fails(1)
        .says("does not exist");
    eddy("denoise in.y4m -o out.mp4 -m identity --sigma 1")
        .env("PATH", "/nowhere")
        .within(&place)
        .fails(1)
        .says("apt install ffmpeg");
    place.holds_only(&["broken.mp4", "identity", "in.y4m"]);
}

/// In every container, truncation and damage are reported, although ffmpeg ends with
/// success.
#[test]
fn reports_truncated_and_damaged_containers_with_the_frame_count() {
    let Some(place) = place() else { return };
    ffmpeg(&place, "-f lavfi -i testsrc2=size=160x120:rate=25:duration=4 -c:v libx264 -g 10 a.mkv");
    for name in ["a.ts", "a.h264", "b.mp4"] {
        ffmpeg(&place, &format!("-i a.mkv -c copy -movflags +faststart {name}"));
    }
    ffmpeg(&place, "-i a.mkv -c:v mjpeg a.avi");
    // A file that begins like MPEG packets but is not MPEG.
    ffmpeg(&place, "-i a.mkv -frames:v 7 a.gif");
    std::fs::rename(place.path("a.gif"), place.path("gif.mkv")).unwrap();
    eddy("denoise gif.mkv -o gif.y4m -m identity --sigma 1").within(&place).succeeds();
    for name in ["a.mkv", "a.ts", "a.h264", "a.avi", "b.mp4"] {
        let whole = std::fs::read(place.path(name)).unwrap();
        let record = eddy(&format!("denoise {name} -o whole.y4m -m identity --sigma 1 --json"));
        assert_eq!(record.within(&place).succeeds().summary()["written"], 100, "{name}");
        let mut damaged = whole.clone();
        damaged[whole.len() / 2..][..600].iter_mut().for_each(|byte| *byte ^= 0x5a);
        let cut = [3, 5, 9].map(|part| &whole[..whole.len() * part / 10]);
        for (kind, bytes) in
            cut.into_iter().map(|bytes| ("cut", bytes)).chain([("bad", damaged.as_slice())])
        {
            let broken = format!("{kind}-{name}");
            place.file(&broken, bytes);
            let said = eddy(&format!("denoise {broken} -o part.y4m -m identity --sigma 1"))
                .within(&place)
                .fails(3);
            said.says(&broken).says("frames were read and are kept");
            assert!(place.path("part.y4m").exists(), "{broken}");
        }
    }
}

/// ffmpeg does not report these; Eddy finds them in the container's structure.
#[test]
fn reports_containers_with_truncated_parts() {
    let Some(place) = place() else { return };
    ffmpeg(&place, "-f lavfi -i testsrc2=size=160x120:rate=25:duration=4 -c:v libx264 -g 10 a.flv");
    ffmpeg(&place, "-i a.flv -c:v libtheora a.ogv");
    ffmpeg(&place, "-i a.flv a.gif");
    ffmpeg(&place, "-i a.flv -frames:v 5 -target pal-dv a.dv");
    ffmpeg(&place, "-i a.flv -c:v wmv2 a.wmv");
    ffmpeg(&place, "-i a.flv -c:v mpeg2video -b:v 2M a.mxf");
    ffmpeg(&place, "-i a.flv -c copy -movflags +frag_keyframe+empty_moov a.mov");
    let all = ["a.flv", "a.ogv", "a.gif", "a.wmv", "a.mxf", "a.mov"].map(|name| (name, 100));
    for (name, frames) in all.into_iter().chain([("a.dv", 5)]) {
        let whole = std::fs::read(place.path(name)).unwrap();
        let record = eddy(&format!("denoise {name} -o whole.y4m -m identity --sigma 1 --json"));
        assert_eq!(record.within(&place).succeeds().summary()["written"], frames, "{name}");
        // A prime number, so that no part ends there.
        for part in [31, 53, 97] {
            place.file(&format!("cut-{name}"), &whole[..whole.len() * part / 101]);
            let denoise = format!("denoise cut-{name} -o part.y4m -m identity --sigma 1");
            // For MXF the message names the defect, except where only the last frame is
            // missing.
            if (name, part) != ("a.mxf", 97) {
                eddy(&denoise)
                    .within(&place)
                    .fails(3)
                    .says("it is truncated")
                    .says("frames were read and are kept");
            }
        }
    }
}

/// Missing parts, and parts that were never fetched, are detected by declared lengths or by how the
/// parts are numbered.
#[test]
fn reports_containers_with_missing_parts() {
    let Some(place) = place() else { return };
    let sources =
        "-f lavfi -i testsrc2=size=160x120:rate=25:duration=8 -f lavfi -i sine=duration=8";
    ffmpeg(&place, &format!("{sources} -c:v flv1 -c:a mp3 -ar 44100 a.flv"));
    ffmpeg(&place, "-i a.flv -c:v libtheora -b:v 2M -an a.ogv");
    ffmpeg(&place, "-i a.flv -c:v mjpeg -an a.avi");
    ffmpeg(&place, "-i a.flv -c:v libvpx -an a.ivf");
    let position = |bytes: &[u8], part: &[u8]| {
        bytes.windows(part.len()).position(|found| found == part).unwrap()
    };
    let fails = |name: &str, bytes: &[u8]| {
        place.file(name, bytes);
        eddy(&format!("denoise {name} -o part.y4m -m identity --sigma 1")).within(&place).fails(3)
    };

    let flv = place.bytes("a.flv");
    // A tag's length stands in its second to fourth byte, and it is followed by four bytes.
    let mut at = 13;
    while at < flv.len() / 2 {
        at += 15 + u32::from_be_bytes([0, flv[at + 1], flv[at + 2], flv[at + 3]]) as usize;
    }
    fails("cut.flv", &flv[..at]).says("it is truncated").says("of 20");
    let ogv = place.bytes("a.ogv");
    let page = ogv.len() / 2 + position(&ogv[ogv.len() / 2..], b"OggS");
    let next = page + 4 + position(&ogv[page + 4..], b"OggS");
    fails("cut.ogv", &ogv[..page]).says("it is truncated");
    fails("hole.ogv", &[&ogv[..page], &ogv[next..]].concat()).says("parts of it are missing");
    let mut spoilt = ogv.clone();
    spoilt[page + 200] ^= 1;
    fails("bad.ogv", &spoilt).says("CRC mismatch");
    let mut avi = place.bytes("a.avi");
    let half = avi.len() / 2;
    avi[half..].fill(0);
    fails("half.avi", &avi).says("it is truncated").says("of 20");
    let ivf = place.bytes("a.ivf");
    let mut at = 32;
    while at < ivf.len() / 2 {
        at += 12 + u32::from_le_bytes([ivf[at], ivf[at + 1], ivf[at + 2], ivf[at + 3]]) as usize;
    }
    fails("cut.ivf", &ivf[..at]).says("it is truncated");
    // Parts that were never fetched are zeros.
    let zeroed = |bytes: &[u8], from: usize, to: usize| {
        let mut bytes = bytes.to_vec();
        bytes[from..to].fill(0);
        bytes
    };
    fails("zero.ivf", &zeroed(&ivf, ivf.len() / 2, ivf.len() / 2 + 8192))
        .says("frames were read and are kept");
    ffmpeg(&place, "-i a.flv -c:v wmv2 -an w.avi");
    let wmv = place.bytes("w.avi");
    fails("zero.avi", &zeroed(&wmv, wmv.len() / 2, wmv.len() / 2 + 8192))
        .says("parts of it are missing");
    ffmpeg(&place, "-i a.flv -c:v libx264 -an a.ts");
    let ts = place.bytes("a.ts");
    fails("zero.ts", &zeroed(&ts, ts.len() / 3, ts.len())).says("it is truncated");
    ffmpeg(&place, "-i a.flv -c:v libx264 -an a.h264");
    let h264 = place.bytes("a.h264");
    let unit = h264.len() / 3 + position(&h264[h264.len() / 3..], &[0, 0, 1]);
    fails("zero.h264", &zeroed(&h264, unit, h264.len())).says("parts of it are missing");
    ffmpeg(&place, "-i a.flv -frames:v 30 -f apng a.apng");
    let apng = place.bytes("a.apng");
    fails("zero.apng", &zeroed(&apng, apng.len() / 2, apng.len() / 2 + 50_000))
        .says("frames were read and are kept");
    ffmpeg(&place, "-i a.flv -frames:v 100 -c:v libx265 -x265-params log-level=none -an a.h265");
    let h265 = place.bytes("a.h265");
    let lost = position(&h265[h265.len() / 3..], &[0, 0, 1]) + h265.len() / 3;
    let after = lost + 3 + position(&h265[lost + 3..], &[0, 0, 1]);
    fails("bad.h265", &[&h265[..lost], &h265[after..]].concat())
        .says("Could not find ref with POC");
    let spoilt = |bytes: &[u8], from: usize| {
        let mut bytes = bytes.to_vec();
        bytes[from..from + 2000].iter_mut().for_each(|byte| *byte ^= 0x5a);
        bytes
    };
    ffmpeg(&place, "-i a.flv -c:v wmv2 -c:a wmav2 a.wmv");
    let asf = place.bytes("a.wmv");
    fails("bad.wmv", &spoilt(&asf, asf.len() / 2)).says("parts of it are missing");
    ffmpeg(&place, "-i a.flv -c:v mpeg2video -b:v 2M -ar 48000 a.mxf");
    let mxf = place.bytes("a.mxf");
    fails("zero.mxf", &zeroed(&mxf, mxf.len() / 2, mxf.len() / 2 + 40_000))
        .says("edit unit sync lost");
    ffmpeg(&place, "-i a.flv -c:v mpeg2video -b:v 2M -f vob a.mpg");
    let mpg = place.bytes("a.mpg");
    let pack = mpg.len() / 2048 / 2 * 2048;
    fails("cut.mpg", &mpg[..pack + 900]).says("it is truncated");
    fails("zero.mpg", &zeroed(&mpg, pack, mpg.len())).says("it is truncated");
    // The index, at its end, has a track of frames and then one of sound.
    ffmpeg(&place, "-i a.flv -c:v libx264 -c:a aac a.mp4");
    let mp4 = place.bytes("a.mp4");
    let sound = mp4.windows(4).rposition(|bytes| bytes == b"trak").unwrap();
    fails("index.mp4", &mp4[..sound + 150]).says("it is truncated").says("frames were read");
    for whole in
        ["a.ivf", "w.avi", "a.ts", "a.h264", "a.apng", "a.h265", "a.wmv", "a.mxf", "a.mpg", "a.mp4"]
    {
        eddy(&format!("denoise {whole} -o whole.y4m -m identity --sigma 1"))
            .within(&place)
            .succeeds();
    }
    std::fs::remove_file(place.path("part.y4m")).unwrap();
    fails("list.ffconcat", b"ffconcat version 1.0\nfile a.flv\nfile gone.flv\n")
        .says("Impossible to open");
}

#[test]
fn reports_a_server_that_sends_less_than_announced() {
    let Some(place) = place() else { return };
    ffmpeg(&place, "-f lavfi -i testsrc2=size=160x120:rate=25:duration=4 -c:v mpeg4 a.avi");
    let whole = place.bytes("a.avi");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a.avi", listener.local_addr().unwrap());
    let half = whole.len() / 2;
    std::thread::spawn(move || {
        while let Ok((mut connection, _)) = listener.accept() {
            let _ = std::io::Read::read(&mut connection, &mut [0; 4096]);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                whole.len()
            );
            let _ = std::io::Write::write_all(
                &mut connection,
                &[head.as_bytes(), &whole[..half]].concat(),
            );
        }
    });
    eddy(&format!("denoise {url} -o part.y4m -m identity --sigma 1"))
        .within(&place)
        .fails(3)
        .says("ends prematurely");
}

/// Two seconds at 25 frames per second, then ten at 5, beside sound.
#[test]
fn frames_of_variable_rate_keep_their_times() {
    let Some(place) = place() else { return };
    let uneven = "setpts=if(lt(N\\,50)\\,N/25/TB\\,(2+(N-50)/5)/TB)";
    let sources = "-f lavfi -i testsrc2=size=64x48:rate=25:duration=4 -f lavfi -i sine=duration=12";
    ffmpeg(&place, &format!("{sources} -vf {uneven} -vsync vfr a.mkv"));
    ffmpeg(&place, "-i a.mkv -c copy a.mp4");
    let times = |name: &str| -> Vec<f64> {
        let times = probe(&place, "frame=best_effort_timestamp_time -select_streams v", name);
        let times: Vec<f64> =
            times.lines().filter_map(|line| line.trim_matches(',').parse().ok()).collect();
        times.iter().map(|time| time - times[0]).collect()
    };
    let before = times("a.mkv");
    assert_eq!(before.len(), 100);
    for source in ["a.mkv", "a.mp4"] {
        for output in ["out.mkv", "out.mp4"] {
            eddy(&format!("denoise {source} -o {output} -m identity --sigma 1"))
                .within(&place)
                .succeeds();
            let after = times(output);
            let late = |(before, after): (&f64, &f64)| (before - after).abs();
            let latest = before.iter().zip(&after).map(late).fold(0.0, f64::max);
            assert!(
                after.len() == 100 && latest < 0.03,
                "{source} {output}: {latest} s, {} frames",
                after.len()
            );
        }
    }
    for output in ["out.y4m", "out/"] {
        let run = eddy(&format!("denoise a.mkv -o {output} -m identity --sigma 1"))
            .within(&place)
            .succeeds();
        run.says("the frame rate is variable");
    }
}

/// A variable frame rate, sound that is longer, frames that are left out by the container, and
/// frames in another order.
#[test]
fn reads_complete_containers_without_warnings() {
    let Some(place) = place() else { return };
    let moving = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=4";
    let sound = "-f lavfi -i sine=duration=12";
    let uneven = "setpts=if(lt(N\\,50)\\,N/25/TB\\,(2+(N-50)/5)/TB)";
    for end in
        ["mkv", "mp4", "mov", "avi", "flv", "wmv", "webm", "ogv", "ts", "mpg", "nut", "asf", "3gp"]
    {
        let (name, odd) = (format!("long.{end}"), format!("uneven.{end}"));
        let small = if end == "3gp" { "-c:v mpeg4 -c:a aac" } else { "" };
        let fast =
            if end == "webm" { "-deadline realtime -cpu-used 8 -ar 48000" } else { "-ar 44100" };
        ffmpeg(&place, &format!("{moving} {sound} {small} {fast} -bf 0 {name}"));
        ffmpeg(&place, &format!("{moving} {sound} -vf {uneven} {small} {fast} -vsync vfr {odd}"));
        for name in [name, odd] {
            let run = eddy(&format!("denoise {name} -o out.y4m -m identity --sigma 1 --json"))
                .within(&place)
                .succeeds();
            assert!(run.summary()["written"].as_u64() >= Some(99), "{name}");
        }
    }
    ffmpeg(&place, &format!("{moving} -c:v libx264 -bf 3 -g 50 b.mp4"));
    for (name, cut) in
        [("from.mp4", "-ss 1.3 -i b.mp4 -c copy"), ("to.mkv", "-i b.mp4 -t 1.7 -c copy")]
    {
        ffmpeg(&place, &format!("{cut} {name}"));
        eddy(&format!("denoise {name} -o out.y4m -m identity --sigma 1")).within(&place).succeeds();
    }
}

#[test]
fn reports_truncated_sound_when_it_is_copied() {
    let Some(place) = place() else { return };
    let sources =
        "-f lavfi -i testsrc2=size=160x120:rate=25:duration=1 -f lavfi -i sine=duration=20";
    ffmpeg(&place, &format!("{sources} -c:v libx264 -c:a aac -movflags +faststart a.mp4"));
    let whole = std::fs::read(place.path("a.mp4")).unwrap();
    place.file("cut.mp4", &whole[..whole.len() * 9 / 10]);
    let denoise = |from: &str, to: &str| {
        eddy(&format!("denoise {from} -o {to} -m identity --sigma 1")).within(&place)
    };
    denoise("a.mp4", "whole.mp4").succeeds();
    denoise("cut.mp4", "b.mp4").fails(3).says("cut.mp4: its sound is truncated").says("25 frames");
    // All frames are there, and y4m has no sound.
    denoise("cut.mp4", "b.y4m").succeeds();
    place.holds_only(&["a.mp4", "b.mp4", "b.y4m", "cut.mp4", "identity", "whole.mp4"]);
}

/// If there are hardly any frames, the encoder still gets the start of the sound, or no sound
/// stream.
#[test]
fn a_truncated_file_keeps_its_frames_for_any_length_of_sound() {
    let Some(place) = place() else { return };
    let sources =
        "-f lavfi -i testsrc2=size=160x120:rate=25:duration=2 -f lavfi -i sine=duration=2";
    ffmpeg(&place, &format!("{sources} -c:v mpeg4 -q:v 2 -c:a mp3 a.avi"));
    ffmpeg(&place, "-i a.avi -c:v flv1 -q:v 2 -c:a mp3 -ar 44100 a.flv");
    ffmpeg(&place, "-i a.avi -c:v wmv2 -q:v 2 a.wmv");
    for name in ["a.avi", "a.flv", "a.wmv"] {
        let whole = place.bytes(name);
        let cut = format!("cut-{name}");
        place.file(&cut, &whole[..whole.len() / 8]);
        for output in ["out.mkv", "out.mp4", "out.ogv", "out.webm"] {
            let denoise = format!("denoise {cut} -m identity --sigma 1 -o");
            eddy(&denoise).arg("frames.y4m").within(&place).fails(3).says("it is truncated");
            eddy(&denoise).arg(output).within(&place).fails(3).says("it is truncated");
            let frames = |file| {
                probe(&place, "stream=nb_read_packets -count_packets -select_streams v", file)
            };
            // Theora has no packet for a frame that equals the previous one.
            if output != "out.ogv" {
                assert_eq!(frames(output), frames("frames.y4m"), "{name} {output}");
            }
            assert_eq!(
                probe(&place, "stream=codec_type", output),
                "video\naudio",
                "{name} {output}"
            );
        }
    }
    // A declared sound stream without packets.
    ffmpeg(&place, &format!("{sources} -itsoffset 1 -i a.avi -map 0:v -map 2:a -c:a mp3 late.mkv"));
    let whole = place.bytes("late.mkv");
    place.file("cut.mkv", &whole[..whole.len() / 4]);
    let run = eddy("denoise cut.mkv -o out.mkv -m identity --sigma 1").within(&place).fails(3);
    run.says("frames were read and are kept; none of its sound was read; fetch the file again");
    assert_eq!(probe(&place, "stream=codec_type", "out.mkv"), "video");
}

#[test]
fn reads_a_container_from_a_named_pipe_once() {
    let Some(place) = place() else { return };
    ffmpeg(
        &place,
        "-f lavfi -i testsrc2=size=160x120:rate=25:duration=1 -f lavfi -i sine=duration=1 -c:v libx264 a.ts",
    );
    let (from, pipe) = (place.path("a.ts"), place.path("pipe.ts"));
    drop(silent(&place, "pipe.ts"));
    let writer = std::thread::spawn(move || std::fs::copy(from, pipe));
    // As MP4 the result would have the sound, of which nothing is left.
    let denoise = "denoise pipe.ts -o out.mp4 -m identity --sigma 1 --stall-timeout 20 --json";
    assert_eq!(eddy(denoise).within(&place).succeeds().summary()["written"], 25);
    writer.join().unwrap().unwrap();
}

/// A container on standard input is a stream as y4m is, whatever name is given to standard
/// input.
#[test]
fn reads_a_container_from_standard_input() {
    let Some(place) = place() else { return };
    ffmpeg(&place, "-f lavfi -i testsrc2=size=160x120:rate=25:duration=1 a.mkv");
    ffmpeg(&place, "-i a.mkv a.y4m");
    for name in ["a.mkv", "a.y4m"] {
        for source in ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("cat {name} | \"$@\""), "sh"]).arg(BINARY);
            let run = Eddy::new(command, &format!("denoise {source} -o out.mkv --sigma 1 --json"))
                .within(&place)
                .succeeds();
            assert_eq!(run.summary()["written"], 25, "{name} {source}");
        }
    }
    let mut command = Command::new("sh");
    command.args(["-c", "head -c 5000 a.mkv | \"$@\"", "sh"]).arg(BINARY);
    Eddy::new(command, "denoise - -o out.mkv --sigma 1")
        .within(&place)
        .fails(3)
        .says("standard input")
        .says("frames were read and are kept");
}

/// A pipe without a writer.
fn silent(place: &Place, name: &str) -> std::fs::File {
    let path = place.path(name);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    // For reading, too, so that opening it does not wait for a writer.
    std::fs::File::options().read(true).write(true).open(path).unwrap()
}

/// Processes whose command line contains these words.
fn running(words: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(words)).count()
}

/// Processes that have this file open.
fn holding(path: &std::path::Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let open = processes.filter_map(|entry| std::fs::read_dir(entry.path().join("fd")).ok());
    let holds = |files: std::fs::ReadDir| {
        files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|file| file == path))
    };
    open.map(holds).filter(|holds| *holds).count()
}

#[test]
fn interrupting_a_silent_source_leaves_no_process() {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(place) = place() else { return };
    let pipe = place.path("silent.mkv").display().to_string();
    let _kept = silent(&place, "silent.mkv");
    let arguments = format!("denoise {pipe} -o out.y4m -m identity --sigma 1");
    let wait_for = |what: &str, count: &dyn Fn(usize) -> bool| {
        let started = std::time::Instant::now();
        while !count(running(&pipe)) {
            assert!(started.elapsed().as_secs() < 60, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    for (signal, code) in
        [(Signal::TERM, Some(130)), (Signal::INT, Some(130)), (Signal::KILL, None)]
    {
        let mut child =
            eddy(&arguments).within(&place).command().stderr(Stdio::null()).spawn().unwrap();
        // This process, and ffmpeg, which waits for the pipe.
        wait_for("ffprobe was never there", &|count| count >= 2);
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), code, "{signal:?}");
        wait_for("a process is left", &|count| count == 0);
    }
    eddy(&arguments)
        .args("--stall-timeout 0.5")
        .within(&place)
        .fails(3)
        .says("no data has arrived for 0.5 s");
    wait_for("a process is left", &|count| count == 0);
    let mut child = eddy("denoise - -o out.y4m -m identity").within(&place).command();
    let mut child = child.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // `wait` would close it.
    let _stdin = child.stdin.take();
    std::thread::sleep(std::time::Duration::from_millis(500));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "nothing in standard input");
    assert!(!place.path("out.y4m").exists());
}

/// Ten minutes of frames beside two hours of sound, which nothing waits for.
#[test]
fn sound_ends_with_the_last_frame_of_an_interrupted_run() {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(place) = place() else { return };
    let sources =
        "-f lavfi -i testsrc2=size=160x120:rate=25:duration=600 -f lavfi -i sine=duration=7200";
    ffmpeg(&place, &format!("{sources} -c:v libx264 -preset ultrafast -c:a flac long.mkv"));
    let start = |output: &str| {
        let child =
            eddy(&format!("denoise long.mkv -o {output} -m identity --sigma 1 --threads 1 -q"));
        let child = child.within(&place).command().spawn().unwrap();
        let part = place.path(&output.replace('.', ".part."));
        let started = std::time::Instant::now();
        while part.metadata().map_or(0, |part| part.len()) < 50_000 {
            assert!(started.elapsed().as_secs() < 60, "{output}: nothing is recorded");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        (child, part)
    };
    let seconds = |name: &str, stream: &str| -> f64 {
        let times = probe(&place, &format!("packet=pts_time -select_streams {stream}"), name);
        times.lines().filter_map(|line| line.trim_matches(',').parse().ok()).fold(0.0, f64::max)
    };
    for (i, output) in ["a.mp4", "a.mkv", "a.mov", "a.ts"].into_iter().enumerate() {
        let (mut child, _) = start(output);
        let started = std::time::Instant::now();
        kill_process(Pid::from_child(&child), if i == 0 { Signal::TERM } else { Signal::INT })
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{output}");
        assert!(started.elapsed().as_secs_f64() < 5.0, "{output}: {:?}", started.elapsed());
        let start: f64 = probe(&place, "format=start_time", output).parse().unwrap();
        let [frames, sound] = ["v", "a"].map(|stream| seconds(output, stream) - start);
        assert!(
            frames < 500.0 && (sound - frames).abs() < 0.5,
            "{output}: {frames} s of frames, {sound} s of sound"
        );
    }
    for signals in [&[Signal::KILL][..], &[Signal::INT, Signal::INT]] {
        let (mut child, part) = start("b.mp4");
        for signal in signals {
            kill_process(Pid::from_child(&child), *signal).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        child.wait().unwrap();
        let started = std::time::Instant::now();
        while holding(&part) + running("long.mkv") > 0 {
            assert!(started.elapsed().as_secs_f64() < 3.0, "{signals:?}: the encoder goes on");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(seconds("b.part.mp4", "v") > 0.5, "{signals:?}");
        std::fs::remove_file(part).unwrap();
    }
    // Sound ends, too, where the frames of a truncated source end.
    let whole = place.bytes("long.mkv");
    place.file("cut.mkv", &whole[..whole.len() / 20]);
    eddy("denoise cut.mkv -o c.mp4 -m identity --sigma 1").within(&place).fails(3);
    assert!((seconds("c.mp4", "v") - seconds("c.mp4", "a")).abs() < 0.5);
}

/// The partial recording is playable, under its temporary name: all of it after SIGKILL, and
/// all but the last seconds after a power cut, for which a copy taken meanwhile stands.
#[test]
fn a_recording_survives_sigkill() {
    let Some(place) = place() else { return };
    let frames =
        ffmpeg(&place, "-f lavfi -i testsrc2=size=160x120:rate=25:duration=10 -f yuv4mpegpipe -");
    let count = |name: &str| -> u64 {
        let mut command = Command::new("ffprobe");
        command.args([
            "-v",
            "quiet",
            "-of",
            "csv=p=0",
            "-count_packets",
            "-show_entries",
            "stream=nb_read_packets",
        ]);
        let output = command.arg(place.path(name)).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_default()
    };
    for end in ["mp4", "mkv", "webm"] {
        let out = place.path(&format!("out.{end}"));
        let part = place.path(&format!("out.part.{end}"));
        let speed = if end == "webm" { "cpu-used=8,deadline=realtime" } else { "preset=medium" };
        let command = eddy("denoise - -m identity --sigma 1 -q --encoder-options")
            .arg(speed)
            .arg("-o")
            .arg(&out);
        let mut child =
            command.command().current_dir(place.path("")).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, &frames).unwrap();
        // Frames in the pipe are still read, and then no more arrive.
        let started = std::time::Instant::now();
        let copy = format!("copy.{end}");
        while started.elapsed().as_secs() < 60 {
            std::fs::copy(&part, place.path(&copy)).unwrap();
            if count(&copy) > 100 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        let copied = count(&copy);
        std::thread::sleep(std::time::Duration::from_secs(1));
        child.kill().unwrap();
        child.wait().unwrap();
        while holding(&part) > 0 {
            assert!(started.elapsed().as_secs() < 120, "ffmpeg never ends");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let kept = count(&format!("out.part.{end}"));
        assert!(kept >= 245 && copied > 100 && !out.exists(), "{end}: {kept}, {copied} before");
    }
}

/// At two frames per second an encoder that looks far ahead would hold back the last half minute.
#[test]
fn a_slow_recording_is_flushed_within_seconds() {
    let Some(place) = place() else { return };
    let frames =
        ffmpeg(&place, "-f lavfi -i testsrc2=size=160x120:rate=2:duration=12 -f yuv4mpegpipe -");
    for end in ["mp4", "mkv", "webm"] {
        let command =
            eddy("denoise - -m identity --sigma 1 -q -o").arg(place.path(&format!("out.{end}")));
        let mut child =
            command.command().current_dir(place.path("")).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, &frames).unwrap();
        let part = place.path(&format!("out.part.{end}"));
        let started = std::time::Instant::now();
        let mut count = 0;
        // Of 24, two seconds are in the encoder, and one in the muxer.
        while count < 18 {
            assert!(started.elapsed().as_secs() < 30, "{end}: {count} frames");
            std::thread::sleep(std::time::Duration::from_millis(200));
            std::fs::copy(&part, place.path("copy")).unwrap();
            let mut command = Command::new("ffprobe");
            command.args(["-v", "quiet", "-of", "csv=p=0", "-count_packets", "-show_entries"]);
            let output =
                command.arg("stream=nb_read_packets").arg(place.path("copy")).output().unwrap();
            count = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_default();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_truncated_source_leaves_a_readable_result() {
    let Some(place) = place() else { return };
    let whole =
        ffmpeg(&place, "-f lavfi -i testsrc2=size=64x48:rate=5:duration=3 -f yuv4mpegpipe -");
    place.file("cut.y4m", &whole[..whole.len() * 2 / 3]);
    for output in ["out.y4m", "out.mkv"] {
        eddy("denoise cut.y4m -m identity --sigma 1 -o")
            .arg(output)
            .within(&place)
            .fails(3)
            .says("ends within frame");
        let frames =
            ffmpeg(&place, &format!("-i {output} -f rawvideo -pix_fmt gray -")).len() / (64 * 48);
        assert!((9..=10).contains(&frames), "{output}: {frames}");
    }
}

#[test]
fn sound_of_other_length_changes_no_frame_count() {
    let Some(place) = place() else { return };
    let sources =
        "-f lavfi -i testsrc2=size=64x48:rate=25:duration=4 -f lavfi -i sine=duration=0.5";
    ffmpeg(&place, &format!("{sources} short.mp4"));
    ffmpeg(
        &place,
        "-f lavfi -i testsrc2=size=64x48:rate=25:duration=2 -f lavfi -i sine=duration=2 -c:a aac EARLY.MKV",
    );
    let count = |file: &str| {
        probe(&place, "stream=codec_type,nb_read_frames -count_frames -select_streams v", file)
    };
    for (source, frames) in [("short.mp4", 100), ("EARLY.MKV", 50)] {
        for output in ["out.mp4", "out.mkv", "out.avi", "out.y4m"] {
            eddy("denoise -m identity --sigma 1 -o")
                .arg(output)
                .arg(source)
                .within(&place)
                .succeeds();
            assert_eq!(count(output), format!("video,{frames}"), "{source} {output}");
        }
    }
    eddy("denoise EARLY.MKV -o out.mkv -m identity --sigma 1").within(&place).succeeds();
    assert!(
        probe(&place, "stream=codec_name", "out.mkv").ends_with("aac"),
        "one kind of file has one kind of sound"
    );
}

#[test]
fn copies_color_tags_between_containers() {
    let Some(place) = place() else { return };
    let tags = "-color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc -color_range tv";
    let source = "-f lavfi -i testsrc2=size=64x48:rate=5:duration=1";
    ffmpeg(&place, &format!("{source} -pix_fmt yuv420p10le {tags} in.mkv"));
    let entries = "stream=color_space,color_transfer,color_primaries,color_range";
    for output in ["out.mp4", "out.mkv"] {
        eddy("denoise in.mkv -m identity --sigma 1 -o").arg(output).within(&place).succeeds();
        assert_eq!(probe(&place, entries, output), probe(&place, entries, "in.mkv"), "{output}");
    }
    // The y4m stream in between has it in a tag of Eddy's.
    eddy("denoise in.mkv -m identity --sigma 1 -o way.y4m")
        .within(&place)
        .succeeds()
        .says("y4m cannot declare");
    eddy("denoise way.y4m -m identity --sigma 1 -o out.mkv").within(&place).succeeds();
    assert_eq!(probe(&place, entries, "out.mkv"), probe(&place, entries, "in.mkv"));
}

#[test]
fn applies_the_matrix_of_the_file_and_none_to_rgb() {
    let Some(place) = place() else { return };
    let red = |height: u32| {
        format!("-f lavfi -i color=c=0xc81e1e:size=64x{height}:rate=5:duration=0.4,format=gbrp")
    };
    let yuv = |matrix: &str| {
        format!("-vf scale=out_color_matrix={matrix},format=yuv444p -colorspace {matrix} -qp 0")
    };
    let cases = [
        (64, "bt709.mp4", yuv("bt709")),
        (720, "bt601.mp4", yuv("smpte170m")),
        (64, "bt2020.mp4", yuv("bt2020nc")),
        (720, "rgb.mkv", "-c:v ffv1 -pix_fmt bgr0".to_owned()),
        (720, "jpeg.avi", "-c:v mjpeg -q:v 1 -pix_fmt yuvj444p".to_owned()),
    ];
    for (height, file, codec) in cases {
        ffmpeg(&place, &format!("{} {codec} {file}", red(height)));
        eddy("denoise -m identity --sigma 1 -o out/").arg(file).within(&place).succeeds();
        let near = |place: &Place, file: &str| {
            let pixel = ffmpeg(
                place,
                &format!("-i {file} -frames:v 1 -vf crop=1:1:20:20 -f rawvideo -pix_fmt rgb24 -"),
            );
            let off = pixel.iter().zip([200, 30, 30]).map(|(a, b): (&u8, u8)| a.abs_diff(b)).max();
            assert!(off <= Some(3), "{file}: {pixel:?}");
        };
        near(&place, "out/000001.png");
    }
}

#[test]
fn keeps_depth_range_and_fields_and_ignores_cover_images() {
    let Some(place) = place() else { return };
    for (codec, format, kept) in [
        ("ffv1", "yuv420p12le", "C420p12 "),
        ("ffv1", "gray16le", "Cmono16 "),
        ("mjpeg", "yuvj444p", "=FULL"),
    ] {
        ffmpeg(
            &place,
            &format!(
                "-f lavfi -i testsrc2=size=64x48:rate=5:duration=1 -c:v {codec} -pix_fmt {format} deep.mkv"
            ),
        );
        eddy("denoise deep.mkv -m identity --sigma 1 -o out.y4m").within(&place).succeeds();
        let bytes = std::fs::read(place.path("out.y4m")).unwrap();
        let header =
            String::from_utf8_lossy(&bytes[..bytes.iter().position(|b| *b == b'\n').unwrap() + 1])
                .into_owned();
        assert!(header.contains(kept), "{format}: {header}");
    }
    ffmpeg(
        &place,
        "-f lavfi -i testsrc2=size=64x48:rate=5:duration=1 -flags +ilme+ildct -top 1 fields.mp4",
    );
    eddy("denoise fields.mp4 -m identity --sigma 1 -o out.mp4").within(&place).succeeds();
    assert_eq!(
        probe(&place, "stream=field_order", "out.mp4"),
        probe(&place, "stream=field_order", "fields.mp4")
    );
    eddy("upscale fields.mp4 -s 2 -o up.mp4").within(&place).fails(2).says("-vf bwdif");
    ffmpeg(
        &place,
        "-f lavfi -i color=c=red@0.5:size=64x48:rate=5:duration=1,format=yuva444p10le -c:v prores_ks alpha.mov",
    );
    eddy("denoise alpha.mov -m identity --sigma 1 -o out.mov")
        .within(&place)
        .succeeds()
        .says("transparency");
    ffmpeg(&place, "-f lavfi -i color=size=20x20 -frames:v 1 cover.png");
    let cover = "-i cover.png -i deep.mkv -map 0 -map 1:v -c:v:0 copy -c:v:1 mpeg4 -disposition:v:0 attached_pic cover.mp4";
    ffmpeg(&place, cover);
    eddy("denoise cover.mp4 -m identity --sigma 1 -o out.y4m")
        .within(&place)
        .succeeds()
        .says("5 frames of 64x48");
}

#[test]
fn keeps_and_reports_the_recording_of_a_killed_run() {
    let Some(place) = place() else { return };
    ffmpeg(&place, "-f lavfi -i testsrc2=size=160x120:rate=12:duration=1 in.mp4");
    place.file("out.part.mp4", "a recording");
    let run = eddy("denoise in.mp4 -o out.mp4 -m identity --sigma 1").within(&place).succeeds();
    run.says("out.part.mp4 already exists").says("this one writes").says("out.part1.mp4");
    assert_eq!(place.bytes("out.part.mp4"), b"a recording");
    assert_eq!(probe(&place, "stream=nb_frames", "out.mp4"), "12");
    place.holds_only(&["identity", "in.mp4", "out.mp4", "out.part.mp4"]);
}

/// In a folder that others may write to, somebody renames a link over a file that is being written,
/// before ffmpeg opens it.
#[test]
fn does_not_follow_a_link_at_the_recordings_path() {
    use std::os::unix::fs::PermissionsExt;
    let Some(place) = place() else { return };
    ffmpeg(&place, "-f lavfi -i testsrc2=size=64x48:rate=10:duration=1 in.y4m");
    let real = Command::new("sh").args(["-c", "command -v ffmpeg"]).output().unwrap();
    let real = String::from_utf8(real.stdout).unwrap();
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap());
    place.file("victim", "a secret");
    for (name, pattern, code) in [
        ("out.mkv", "out.part.mkv", 1),
        ("out.mp4", "out.part.mp4", 0),
        ("out.mp4", ".eddy-*.part.mp4", 1),
    ] {
        let script = format!(
            "#!/bin/sh\nfor new in {pattern}; do test -f $new && ln -s victim link && mv -fT link $new; done\nexec {real}"
        );
        place.file("bin/ffmpeg", script.trim().to_owned() + " \"$@\"\n");
        std::fs::set_permissions(place.path("bin/ffmpeg"), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        let run = eddy(&format!("denoise in.y4m -o {name} -m identity --sigma 1"))
            .env("PATH", &path)
            .within(&place);
        match code {
            0 => drop(run.succeeds()),
            _ => drop(run.fails(1).says("cannot be renamed").says("another program replaced")),
        }
        assert_eq!(place.bytes("victim"), b"a secret", "{pattern}");
        if code == 0 {
            assert_eq!(probe(&place, "stream=nb_frames", name), "10");
            std::fs::remove_file(place.path(name)).unwrap();
        }
        assert!(!place.path(name).exists(), "{name}");
    }
}

#[test]
fn the_extension_selects_the_container() {
    let Some(place) = place() else { return };
    ffmpeg(
        &place,
        "-f lavfi -i testsrc2=size=176x144:rate=25:duration=1 -f lavfi -i sine=duration=1 in.mkv",
    );
    for (name, format) in [
        ("mp4", "mov,"),
        ("m4v", "mov,"),
        ("mkv", "matroska,"),
        ("mov", "mov,"),
        ("avi", "avi"),
        ("webm", "matroska,"),
        ("ts", "mpegts"),
        ("m2ts", "mpegts"),
        ("mts", "mpegts"),
        ("mpg", "mpeg"),
        ("mpeg", "mpeg"),
        ("flv", "flv"),
        ("wmv", "asf"),
        ("ogv", "ogg"),
        ("mjpeg", "jpeg_pipe"),
        ("h264", "h264"),
        ("hevc", "hevc"),
        ("3gp", "mov,"),
    ] {
        let speed =
            if name == "webm" { "--encoder-options cpu-used=8,deadline=realtime" } else { "" };
        let name = format!("out.{name}");
        eddy(&format!("denoise in.mkv -o {name} -m identity --sigma 1 {speed}"))
            .within(&place)
            .succeeds();
        assert!(
            probe(&place, "format=format_name", &name).trim_matches('"').starts_with(format),
            "{name}"
        );
        let frames =
            probe(&place, "stream=nb_read_packets -count_packets -select_streams v", &name);
        assert!(
            frames.lines().any(|frames| ["25", "26"].contains(&frames.trim_matches(','))),
            "{name}: {frames}"
        );
    }
    assert!(place.bytes("out.m2ts")[4] == 0x47 && place.bytes("out.mts")[0] == 0x47);
}

#[test]
fn a_full_disk_keeps_the_recorded_frames() {
    let Some(place) = place() else { return };
    ffmpeg(
        &place,
        "-f lavfi -i testsrc2=size=320x240:rate=25:duration=8 -vf noise=alls=60:allf=t -f yuv4mpegpipe in.y4m",
    );
    place.folder("full");
    // For Matroska ffmpeg ends with success.
    for end in ["mp4", "mkv"] {
        let Some(mut command) = unshare("-m") else {
            return skip("a full disk: no file system can be mounted here");
        };
        let script =
            "mount -t tmpfs -o size=2m none full && \"$@\"; code=$?; cp -r full/. kept; exit $code";
        place.folder("kept");
        command.args(["sh", "-c", script, "sh"]).arg(BINARY);
        let arguments = format!(
            "denoise in.y4m -o full/out.{end} -m identity --sigma 1 --encoder-options g=10"
        );
        let run =
            Eddy::new(command, &arguments).within(&place).fails(1).says(&format!("full/out.{end}"));
        let run = run.says("the disk is full; free some space and try again; what was recorded");
        run.says("what was recorded until then is kept in").says(&format!("full/out.part.{end}"));
        assert_eq!(place.names("kept"), [format!("out.part.{end}")]);
        let kept = format!("kept/out.part.{end}");
        let frames: u64 =
            probe(&place, "stream=nb_read_packets -count_packets", &kept).parse().unwrap();
        assert!((10..200).contains(&frames), "{frames}");
        std::fs::remove_dir_all(place.path("kept")).unwrap();
    }
}
