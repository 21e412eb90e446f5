//! Frames of a file that are denoised at the same time.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::atomic_output::parts;
use super::served::wait_until;
use super::streams::y4m;
use crate::common::eddy;
use crate::common::place::Place;

const HEADER: &str = "FRAME\n";

/// A stream of random frames.
fn place([width, height]: [usize; 2], count: usize) -> Place {
    let place = Place::new();
    place.file("in.y4m", y4m("420jpeg", width, height, width * height * 3 / 2, count));
    place
}

/// The frames of a y4m stream with such frames.
fn frames(bytes: &[u8], [width, height]: [usize; 2]) -> Vec<&[u8]> {
    let start = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    bytes[start..].chunks(HEADER.len() + width * height * 3 / 2).collect()
}

#[test]
fn frames_have_the_bits_and_the_order_of_one_thread() {
    let (size, count) = ([160, 128], 400);
    let place = place(size, count);
    for model in ["denoise-fast", "camera"] {
        let run = |threads: usize| {
            eddy(&format!(
                "denoise in.y4m -o {threads}.y4m -m {model} --sigma 25 --threads {threads} --json"
            ))
            .within(&place)
            .succeeds()
            .summary()
        };
        assert!(run(1)["parallel_lanes"].is_null());
        let record = run(2);
        assert_eq!(record["parallel_lanes"], 2, "{record}");
        assert_eq!(record["written"], count, "{record}");
        // At least the first trial, since the network is slower than reading.
        assert!(record["parallel_frames"].as_u64().is_some_and(|frames| frames > 4), "{record}");
        for name in ["one_by_one_ms", "in_parallel_ms"] {
            assert!(record[name].as_f64().is_some_and(|time| time > 0.0), "{name}: {record}");
        }
        let (one, two) = (place.bytes("1.y4m"), place.bytes("2.y4m"));
        let (one, two) = (frames(&one, size), frames(&two, size));
        let different: Vec<_> = (0..count).filter(|i| one[*i] != two[*i]).collect();
        assert!(different.is_empty() && two.len() == count, "{model}: {different:?}");
    }
}

#[test]
fn paced_streams_and_previous_frames_have_no_lanes() {
    let place = place([64, 48], 4);
    for options in ["--temporal", "--fps 50", "--threads 1"] {
        let record = eddy(&format!("denoise in.y4m -o out.y4m --sigma 25 --json {options}"))
            .within(&place)
            .succeeds()
            .summary();
        assert!(record["parallel_lanes"].is_null(), "{options}: {record}");
    }
}

#[test]
fn an_interrupted_stream_has_whole_frames() {
    let size = [320, 240];
    let place = place(size, 4000);
    let mut child = eddy("denoise in.y4m -o out.y4m --threads 2 --sigma 25")
        .within(&place)
        .command()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let frame = HEADER.len() + size[0] * size[1] * 3 / 2;
    // Long enough for the first trial.
    let written = || {
        let part = parts(&place, child.id()).first().map(|name| place.path(name));
        part.and_then(|file| file.metadata().ok())
            .is_some_and(|file| file.len() > 60 * frame as u64)
    };
    wait_until("frames", written);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    wait_until("the end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let bytes = place.bytes("out.y4m");
    let found = frames(&bytes, size);
    assert!((60..4000).contains(&found.len()), "{}", found.len());
    assert!(found.iter().all(|found| found.len() == frame && found.starts_with(b"FRAME\n")));
}
