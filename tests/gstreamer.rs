//! Sources that are GStreamer pipelines, where GStreamer is installed.

// Test helpers may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::place::Place;
use common::{BINARY, Eddy, eddy, skip};

/// An empty place; `None` without GStreamer.
fn place() -> Option<Place> {
    let mut command = Command::new("gst-inspect-1.0");
    command.args(["--exists", "multipartmux"]).stdout(Stdio::null()).stderr(Stdio::null());
    if !command.status().is_ok_and(|status| status.success()) {
        // CI installs GStreamer, and requires it by an environment variable.
        let is_required = std::env::var_os("EDDY_TEST_GSTREAMER").is_some();
        assert!(!is_required, "GStreamer is not installed");
        skip("GStreamer is not installed");
        return None;
    }
    Some(Place::new())
}

/// The frames of a pipeline, with rows that follow each other.
fn frames(place: &Place, source: &str) -> Vec<u8> {
    // Without noise, frames are left as they are.
    let run = eddy("denoise -o out.raw --sigma 0 --temporal=off").arg(source);
    run.within(place).succeeds();
    let frames = place.bytes("out.raw");
    std::fs::remove_file(place.path("out.raw")).unwrap();
    frames
}

/// What `gst-launch-1.0` writes without padding: widths are multiples of 8, and heights of 2.
fn reference(place: &Place, pipeline: &str) -> Vec<u8> {
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q"]).args(pipeline.split_whitespace());
    command.args(["!", "filesink", "location=reference.raw"]).current_dir(place.path(""));
    assert!(command.status().unwrap().success(), "{pipeline}");
    place.bytes("reference.raw")
}

#[test]
fn every_format_comes_unchanged() {
    let Some(place) = place() else { return };
    for format in
        ["NV12", "I420", "YUY2", "Y42B", "Y444", "GRAY8", "RGB", "BGR", "I420_10LE", "GRAY16_LE"]
    {
        let pipeline = format!(
            "videotestsrc num-buffers=3 pattern=smpte ! video/x-raw,format={format},width=64,height=48"
        );
        let expected = reference(&place, &pipeline);
        assert!(frames(&place, &format!("gst:{pipeline}")) == expected, "{format}");
    }
}

#[test]
fn rows_of_odd_widths_are_read_without_their_padding() {
    let Some(place) = place() else { return };
    for (format, [row, rows], stride) in [("GRAY8", [33, 17], 36), ("RGB", [99, 17], 100)] {
        let pipeline =
            format!("videotestsrc num-buffers=2 ! video/x-raw,format={format},width=33,height=17");
        let padded = reference(&place, &pipeline);
        let expected: Vec<u8> =
            padded.chunks_exact(stride).flat_map(|padded| &padded[..row]).copied().collect();
        assert_eq!(expected.len(), 2 * row * rows);
        assert!(frames(&place, &format!("gst:{pipeline}")) == expected, "{format}");
    }
}

#[test]
fn formats_and_color_come_from_the_caps() {
    let Some(place) = place() else { return };
    for (caps, head) in [
        ("format=NV12,framerate=30000/1001", "F30000:1001 Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED"),
        ("format=NV12,colorimetry=1:4:0:0", "XCOLORRANGE=FULL"),
        ("format=I420,chroma-site=jpeg", "C420jpeg"),
        ("format=I420,pixel-aspect-ratio=10/11", "A10:11"),
        ("format=I420,interlace-mode=interleaved,field-order=bottom-field-first", " Ib "),
        // Converted to the nearest format that is read.
        ("format=UYVY", "C422"),
        ("format=BGRx", "C444"),
    ] {
        let source =
            format!("gst:videotestsrc num-buffers=2 ! video/x-raw,width=64,height=48,{caps}");
        eddy("denoise -o out.y4m --sigma 0").arg(&source).within(&place).succeeds();
        let written = place.bytes("out.y4m");
        let line = String::from_utf8_lossy(written.split(|byte| *byte == b'\n').next().unwrap());
        assert!(line.contains(head), "{caps}: {line}");
        std::fs::remove_file(place.path("out.y4m")).unwrap();
    }
}

#[test]
fn quotes_are_those_of_a_shell() {
    let Some(place) = place() else { return };
    let caps = "video/x-raw,format=NV12,width=64,height=48";
    let name = place.path("it's \"$HOME\" ; a\\b.raw");
    let expected = reference(&place, &format!("videotestsrc num-buffers=2 ! {caps}"));
    std::fs::copy(place.path("reference.raw"), &name).unwrap();
    let parse = "rawvideoparse format=nv12 width=64 height=48";
    let plain = name.to_str().unwrap();
    let escaped: String = plain.chars().flat_map(|c| ['\\', c]).collect();
    let single = plain.replace('\'', "'\\''");
    let double = plain.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
    for location in [
        format!("location={escaped}"),
        format!("location='{single}'"),
        format!("'location={single}'"),
        format!("location=\"{double}\""),
    ] {
        let source = format!("gst:filesrc {location} ! {parse}");
        assert!(frames(&place, &source) == expected, "{source}");
    }
    let run = eddy("denoise -o out.y4m").arg("gst:filesrc location='a").within(&place);
    run.fails(2).says("a quote is not closed");
}

#[test]
fn size_and_rate_are_requested() {
    let Some(place) = place() else { return };
    let source = "gst:videotestsrc num-buffers=2 ! video/x-raw,framerate=10/1";
    let run = eddy("denoise -o out.y4m --sigma 0 --size 48x32 --fps-in 5").arg(source);
    run.within(&place).succeeds();
    let head = b"YUV4MPEG2 W48 H32 F5:1";
    assert_eq!(place.bytes("out.y4m").get(..head.len()), Some(&head[..]));
    // A pipeline may read what would be replaced.
    let again = eddy("denoise -o out.y4m --sigma 0").arg(source).within(&place);
    again.fails(2).says("choose a new name");
    let run = eddy("denoise -o other.y4m --pixel-format nv12 --size 48x32").arg(source);
    run.within(&place).fails(2).says("end the pipeline in the format");
}

#[test]
fn a_live_pipeline_starts_again() {
    let Some(place) = place() else { return };
    let source = "gst:videotestsrc is-live=true ! video/x-raw,width=32,height=32,framerate=20/1 ! \
                  identity error-after=8";
    let run = eddy("denoise -o out.y4m --sigma 0").arg(source).within(&place);
    run.fails(3).says("gst-launch-1.0 says").says("--reconnect");
    // A camera that is restarted may end like a file.
    let ends = "gst:videotestsrc is-live=true num-buffers=8 ! video/x-raw,width=32,height=32,\
                framerate=20/1";
    eddy("denoise -o ended.y4m --sigma 0").arg(ends).within(&place).succeeds();
    for (name, source) in [("again.y4m", source), ("more.y4m", ends)] {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--preserve-status", "-s", "INT", "5", BINARY]);
        let run = Eddy::new(command, "denoise --sigma 0 --reconnect 9 --json -o").arg(name);
        let summary = run.arg(source).within(&place).fails(130).summary();
        assert!(summary["reconnected"].as_u64() > Some(0), "{summary}");
        assert!(summary["written"].as_u64() > Some(8), "{summary}");
    }
}

#[test]
fn a_format_that_changes_is_an_error() {
    let Some(place) = place() else { return };
    let source = "gst:concat name=all videotestsrc num-buffers=2 ! video/x-raw,width=32,height=32 \
                  ! all. videotestsrc num-buffers=2 ! video/x-raw,width=48,height=32 ! all. all.";
    let run = eddy("denoise -o out.y4m --sigma 0").arg(source).within(&place);
    run.fails(3).says("its frames were 32x32").says("are 48x32").says("width=32");
}

#[test]
fn a_program_that_hangs_after_an_error_is_ended() {
    // gst-launch-1.0 does so now and then: if the error comes before its main loop runs.
    let place = Place::new();
    place.file(
        "gst-launch-1.0",
        "#!/bin/sh\necho 'ERROR: from element /a: no data.' >&2\nexec sleep 60\n",
    );
    let script = place.path("gst-launch-1.0");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", place.path("").display());
    let started = Instant::now();
    let run = eddy("denoise -o out.y4m").arg("gst:videotestsrc").env("PATH", path).within(&place);
    run.fails(3).says("from element /a: no data.");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn errors_are_those_of_gstreamer() {
    let Some(place) = place() else { return };
    for (source, words) in [
        ("gst:nothing", "no element \"nothing\""),
        ("gst:videotestsrc ! video/x-raw,format=none", "neither element can handle caps"),
        ("gst:videotestsrc num-buffers=1 ! jpegenc", "could not link"),
        ("gst:videotestsrc num-buffers=1 ! fakesink", "not in a sink"),
        ("gst:audiotestsrc num-buffers=1", "that ends in frames"),
        ("gst:filesrc location=missing.y4m ! decodebin", "No such file"),
        ("csi://front", "expected its number"),
        ("libcamera://3", "cam --list"),
    ] {
        let run = eddy("denoise -o out.y4m").arg(source).within(&place);
        run.fails(if source.contains("://") { 2 } else { 3 }).says(words);
    }
    let run = eddy("denoise -o out.y4m").arg("gst:videotestsrc").env("PATH", "/nowhere");
    run.within(&place).fails(3).says("apt install gstreamer1.0-tools");
    place.holds_only(&[]);
}
