//! `eddy bench --suite`: its record, its tables, comparisons, and ends before the end.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::served::wait_until;
use crate::common::place::Place;
use crate::common::{Eddy, eddy, skip};

/// A suite of one small network in an instant, without other programs.
fn suite(place: &Place, options: &str) -> Eddy {
    let arguments = "bench --suite --models denoise-nano --sizes 64x48 --seconds 0.02";
    eddy(&format!("{arguments} {options}")).within(place).env("PATH", "/nowhere")
}

/// The rows of a kind.
fn rows<'r>(record: &'r Value, kind: &str) -> Vec<&'r Value> {
    record["rows"].as_array().unwrap().iter().filter(|row| row["kind"] == kind).collect()
}

/// That figures were measured.
fn assert_positive(row: &Value, figures: &[&str]) {
    for figure in figures {
        assert!(row[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {row}");
    }
}

#[test]
fn measures_and_compares_with_an_earlier_suite() {
    let place = Place::new();
    let record = suite(&place, "-o old.json --json").succeeds().says_nothing().json();
    let saved: Value = serde_json::from_slice(&place.bytes("old.json")).unwrap();
    assert_eq!(saved, record);
    assert_eq!((&record["suite"], &record["complete"]), (&1.into(), &true.into()));
    let start = rows(&record, "start");
    assert_eq!((start.len(), &start[0]["width"]), (1, &64.into()), "{record}");
    assert_positive(start[0], &["wall_ms", "version_ms", "peak_resident_bytes"]);
    assert!(start[0]["wall_ms"].as_f64() > start[0]["version_ms"].as_f64(), "{record}");
    let images = rows(&record, "image");
    let precisions: Vec<_> = images.iter().map(|row| row["precision"].as_str().unwrap()).collect();
    assert_eq!(precisions, ["f32", "f16"]);
    for image in images {
        let figures = ["frame_ms", "session_ms", "ratio", "rounds", "peak_resident_bytes"];
        assert_positive(image, &figures);
        for sensor in ["energy_j", "temperature_c"] {
            let value = &image[sensor];
            assert!(value.is_null() || value.as_f64().is_some_and(|it| it > 0.0), "{image}");
        }
    }
    let [stream, half] = rows(&record, "stream")[..] else { panic!("{record}") };
    assert_positive(stream, &["fps", "fps_temporal", "fps_network", "peak_resident_bytes"]);
    assert!(half["note"].as_str().unwrap().contains("f16 is not faster"), "{half}");
    let peers = rows(&record, "peer");
    assert_eq!(peers.len(), 5, "{record}");
    assert!(peers.iter().all(|peer| peer["note"] == "not installed"), "{record}");

    // As if the machine had been another, and twice as slow.
    let mut doctored = record;
    doctored["machine"]["cpu"] = "an abacus".into();
    for row in doctored["rows"].as_array_mut().unwrap() {
        for figure in ["frame_ms", "session_ms"] {
            row[figure] = row[figure].as_f64().map(|ms| 2.0 * ms).into();
        }
    }
    place.file("old.json", doctored.to_string());
    let run = suite(&place, "--precision f32 --compare old.json --json").succeeds();
    let run = run.says("warning: old.json is of another machine").says(": an abacus with ");
    let compared = run.json()["comparison"]["rows"].as_array().unwrap().clone();
    // The start, an image, and a stream twice.
    assert_eq!(compared.len(), 4, "{compared:?}");
    assert_eq!(compared[1]["what"], "denoise-nano, f32, 64x48");
    assert_eq!(compared[1]["old_ms"], doctored["rows"][1]["frame_ms"]);
    assert_positive(&compared[1], &["new_ms", "ratio", "ratio_network", "ratio_memory"]);
    let page = suite(&place, "--precision f32 --compare old.json -q").succeeds().says_nothing();
    page.prints("# Benchmarks\n\nMade by `eddy bench --suite --models denoise-nano ")
        .prints("\n| denoise-nano, f32 | 64x48 | ")
        .prints("| ffmpeg nlmeans | 64x48 | not installed |")
        .prints("\n## Compared with old.json\n\n**Another machine**: ")
        .prints("\n| stream, denoise-nano --temporal, f32, 64x48 | ");
}

#[test]
fn wrong_requests_fail_before_anything_is_measured() {
    let place = Place::new();
    let wrong = [
        ("", "not JSON"),
        ("{\"model\": \"camera\"}", "it is not the record of a suite; expected the file that"),
        ("{\"suite\": 7}", "it is a record in format 7"),
        ("{\"suite\": 1, \"rows\": []}", "the record is damaged"),
    ];
    for (text, message) in wrong {
        place.file("old.json", text);
        suite(&place, "--compare old.json").fails(3).says("old.json").says(message);
    }
    suite(&place, "--compare none.json").fails(3).says("none.json");
    suite(&place, "--compare old.json -o old.json").fails(2).says("would replace the input");
    suite(&place, "-o none/new.json").fails(1).says("does not exist; create it");
    suite(&place, "--colors rgb").fails(2).says("leave out the options that describe an .onnx");
    eddy("bench --suite --models none").fails(4).says("none");
    eddy("bench --suite --sizes 64").fails(2).says("such as 640x480");
    eddy("bench --suite --seconds=-1").fails(2).says("expected seconds, 0 to 86400");
    eddy("bench denoise-fast --suite").fails(2).says("cannot be used with");
    eddy("bench denoise-fast --sizes 64x48").fails(2).says("cannot be used with");
    eddy("bench").fails(2).says("MODEL");
    place.holds_only(&["old.json"]);
}

#[test]
fn failures_do_not_end_the_suite() {
    let place = Place::new();
    for name in ["ffmpeg", "python3"] {
        place.file(name, "#!/bin/sh\necho 'a library | is broken' >&2\nexit 1\n");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(place.path(name), executable).unwrap();
    }
    let run = suite(&place, "--precision f32").env("PATH", place.path("")).succeeds();
    run.prints("| ffmpeg hqdn3d | 64x48 | failed: a library \\| is broken |")
        .prints("| OpenCV fastNlMeansDenoisingColored | 64x48 | failed: ");
    // A network that no run can load.
    let bad = Place::new();
    bad.model_of("bad", b"not a network", |manifest| manifest);
    eddy("bench --suite --models bad --sizes 8x8 --seconds 0.01")
        .within(&bad)
        .env("PATH", "/nowhere")
        .fails(1)
        .prints("failed: ")
        .says("nothing could be measured");
}

#[test]
fn measures_ffmpeg_where_it_is_installed() {
    let found = Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return skip("ffmpeg beside a suite: it is not installed");
    }
    let arguments = "bench --suite --models denoise-nano --precision f32 --sizes 160x120 --json";
    let record = eddy(&format!("{arguments} --seconds 0.2")).succeeds().json();
    let peers = rows(&record, "peer");
    let nlmeans = peers.iter().find(|row| row["name"] == "ffmpeg nlmeans").unwrap();
    assert_positive(nlmeans, &["ms", "eddy_ms", "ratio", "peak_resident_bytes"]);
    let note = nlmeans["note"].as_str().unwrap();
    assert!(note.contains("beside denoise-nano in f32, stream"), "{note}");
}

#[test]
fn keeps_what_was_measured_when_interrupted() {
    let place = Place::new();
    let arguments = "bench --suite --models denoise-nano --sizes 64x48 --seconds 60 -o new.json";
    let mut command = eddy(arguments).within(&place).env("PATH", "/nowhere").command();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the first row", || place.path("new.json").exists());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let [page, said] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted; what was finished is kept"), "{said}");
    assert!(page.contains("**Incomplete**: stopped after 1 of "), "{page}");
    let record: Value = serde_json::from_slice(&place.bytes("new.json")).unwrap();
    assert_eq!(record["complete"], false);
    assert_positive(rows(&record, "start")[0], &["wall_ms"]);
    place.holds_only(&["new.json"]);
}
