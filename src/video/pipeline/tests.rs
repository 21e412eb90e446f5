//! Scripted sources and sinks, for the behavior of cameras and for timing.

mod random;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{FrameProcessor, PipelineOptions, RunStatus, Summary, Target, run};
use crate::error::{Error, Result};
use crate::media::stream::{PixelFormat, Rate, ReadOutcome, Sink, Source, VideoFormat, VideoFrame};
use crate::model::Precision;
use crate::video::{QualityLevel, Scale, StreamStatus};

/// Interval between frames in milliseconds at which even a busy machine misses none.
const UNHURRIED: u64 = 150;

fn video() -> VideoFormat {
    VideoFormat::new(1, 1, Rate::of(25), PixelFormat::RGB24)
}

/// Returns scripted outcomes, each after a pause.
struct Scripted {
    video: VideoFormat,
    script: VecDeque<ReadOutcome>,
    pause: Duration,
    live: bool,
    index: u64,
}

impl Source for Scripted {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome> {
        std::thread::sleep(self.pause);
        let arrival = self.script.pop_front().unwrap_or(ReadOutcome::End);
        if arrival == ReadOutcome::Frame {
            frame.bytes.resize(self.video.bytes(), 0);
            frame.index = self.index;
            self.index += 1;
        }
        Ok(arrival)
    }

    fn is_live(&self) -> bool {
        self.live
    }
}

/// Keeps the indices of written frames; fails after `room` frames.
struct Kept {
    video: VideoFormat,
    numbers: Arc<Mutex<Vec<u64>>>,
    room: usize,
    finished: Arc<Mutex<bool>>,
}

impl Sink for Kept {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn write(&mut self, frame: &VideoFrame) -> Result<()> {
        let mut numbers = self.numbers.lock().unwrap();
        if numbers.len() == self.room {
            return Err(Error::output_from("kept", "it is full", std::io::Error::other("full")));
        }
        numbers.push(frame.index);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        *self.finished.lock().unwrap() = true;
        Ok(())
    }
}

/// Takes `work` for each frame, or half of the budget if it follows it.
struct Slow {
    work: Duration,
    heeds: bool,
}

impl FrameProcessor for Slow {
    fn process(
        &mut self,
        _: &VideoFrame,
        _: &mut VideoFrame,
        _: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        std::thread::sleep(self.work);
        Ok(())
    }

    fn stream_status(&self) -> StreamStatus {
        let quality = QualityLevel {
            model: "sleep".into(),
            precision: Precision::F32,
            steps: 1,
            reuse_tiles_longer: false,
            scale: Scale::FULL,
        };
        StreamStatus { quality, changes: 0, sigma: None, temporal: false, repeated: 0, failed: 0 }
    }

    fn set_budget(&mut self, budget: Duration) {
        if self.heeds {
            self.work = budget / 2;
        }
    }
}

struct RunResult {
    summary: Summary,
    result: Result<()>,
    numbers: Vec<u64>,
    finished: bool,
}

fn ran(
    script: Vec<ReadOutcome>,
    live: bool,
    pause: u64,
    work: u64,
    room: usize,
    flow: PipelineOptions,
) -> RunResult {
    let (numbers, finished) = (Arc::default(), Arc::default());
    let source = Scripted {
        video: video(),
        script: script.into(),
        pause: Duration::from_millis(pause),
        live,
        index: 0,
    };
    let sink = Kept {
        video: video(),
        numbers: Arc::clone(&numbers),
        room,
        finished: Arc::clone(&finished),
    };
    let mut work = Slow { work: Duration::from_millis(work), heeds: flow.target.is_some() };
    let go_on = &mut |_: &RunStatus<'_>| ControlFlow::Continue(());
    let (summary, result) = run(Box::new(source), Box::new(sink), &mut work, flow, go_on);
    let numbers = numbers.lock().unwrap().clone();
    let finished = *finished.lock().unwrap();
    RunResult { summary, result, numbers, finished }
}

fn frames(count: usize) -> Vec<ReadOutcome> {
    vec![ReadOutcome::Frame; count]
}

#[test]
fn keeps_all_frames_of_a_file_when_processing_is_slow() {
    let ran = ran(frames(30), false, 0, 3, usize::MAX, PipelineOptions::default());
    assert!(ran.result.is_ok() && ran.finished);
    assert_eq!(ran.numbers, (0..30).collect::<Vec<_>>());
    assert_eq!(
        (ran.summary.counters.read, ran.summary.counters.written, ran.summary.counters.dropped),
        (30, 30, 0)
    );
    assert_eq!(ran.summary.latency.count(), 30);
}

#[test]
fn drops_the_oldest_frames_of_a_fast_live_source() {
    let ran = ran(frames(40), true, 2, 20, usize::MAX, PipelineOptions::default());
    assert!(ran.result.is_ok());
    let counters = &ran.summary.counters;
    assert!(
        counters.dropped > 10 && counters.read == 40 && counters.written + counters.dropped == 40,
        "{counters:?}"
    );
    assert!(
        ran.numbers.is_sorted() && ran.numbers.last() == Some(&39),
        "the newest is there: {:?}",
        ran.numbers
    );
}

#[test]
fn ends_at_a_corrupt_frame_of_a_file_but_not_of_a_live_source() {
    let script = || [frames(2), vec![ReadOutcome::Corrupt("torn".into())], frames(2)].concat();
    let file = ran(script(), false, 0, 0, usize::MAX, PipelineOptions::default());
    assert!(file.result.unwrap_err().to_string().contains("torn") && file.finished);
    assert_eq!(file.numbers, [0, 1]);
    let skipping = PipelineOptions { skip_corrupt: true, ..PipelineOptions::default() };
    for (live, flow) in [(false, skipping), (true, PipelineOptions::default())] {
        let ran = ran(script(), live, UNHURRIED, 0, usize::MAX, flow);
        assert!(ran.result.is_ok());
        assert_eq!(
            (ran.numbers.as_slice(), ran.summary.counters.corrupt),
            ([0, 1, 2, 3].as_slice(), 1)
        );
    }
}

#[test]
fn waits_for_a_disconnected_camera_when_asked() {
    let script =
        || [frames(2), vec![ReadOutcome::Disconnected("gone".into()); 3], frames(2)].concat();
    let ended = ran(script(), true, UNHURRIED, 0, usize::MAX, PipelineOptions::default());
    assert!(ended.result.unwrap_err().to_string().contains("gone"));
    assert_eq!(ended.numbers, [0, 1]);
    let patient =
        PipelineOptions { reconnect: Some(Duration::from_secs(60)), ..PipelineOptions::default() };
    let found = ran(script(), true, UNHURRIED, 0, usize::MAX, patient);
    assert!(found.result.is_ok());
    assert_eq!(
        (found.numbers.as_slice(), found.summary.counters.reconnected),
        ([0, 1, 2, 3].as_slice(), 1)
    );
}

#[test]
fn ends_the_run_and_finishes_the_sink_when_it_fails() {
    let ran = ran(frames(1000), false, 1, 0, 3, PipelineOptions::default());
    assert!(ran.result.unwrap_err().to_string().contains("it is full") && ran.finished);
    assert_eq!(ran.numbers, [0, 1, 2]);
    assert!(ran.summary.counters.read < 1000);
}

#[test]
fn reports_a_stall_when_a_limit_is_set() {
    let script = [frames(1), vec![ReadOutcome::Waiting; 10_000]].concat();
    let flow =
        PipelineOptions { stall: Some(Duration::from_millis(100)), ..PipelineOptions::default() };
    let ran = ran(script, true, 5, 0, usize::MAX, flow);
    assert!(
        ran.result.unwrap_err().to_string().contains(&crate::setting::STALL_TIMEOUT.to_string())
    );
    assert_eq!(ran.numbers, [0]);
}

#[test]
fn processes_no_more_frames_than_the_target_rate() {
    let target = Target { rate: Some(50.0), deadline: None };
    let file = ran(
        frames(20),
        false,
        0,
        0,
        usize::MAX,
        PipelineOptions { target, ..PipelineOptions::default() },
    );
    assert!(file.result.is_ok() && file.numbers.len() == 20);
    assert!(
        file.summary.counters.elapsed >= Duration::from_millis(19 * 20),
        "{:?}",
        file.summary.counters
    );
    // Other frames of the live source are dropped, and the newest is processed.
    let flow = PipelineOptions { target, waiting: 1, ..PipelineOptions::default() };
    let live = ran(frames(60), true, 4, 0, usize::MAX, flow);
    assert!(
        live.result.is_ok() && live.summary.counters.dropped > 20,
        "{:?}",
        live.summary.counters
    );
    assert!(live.numbers.is_sorted() && live.numbers.last() == Some(&59));
}

#[test]
fn subtracts_waiting_and_writing_from_the_deadline() {
    let ms = Duration::from_millis;
    let target = Target { rate: Some(10.0), deadline: Some(ms(80)) };
    assert_eq!(target.budget(ms(0), ms(0)), Some(ms(80)));
    assert_eq!(target.budget(ms(20), ms(10)), Some(ms(50)));
    assert_eq!(target.budget(ms(200), ms(0)), Some(ms(4)));
    assert_eq!(Target { deadline: None, ..target }.budget(ms(90), ms(0)), Some(ms(100)));
    assert_eq!(Target::default().budget(ms(1), ms(1)), None);
}

#[test]
fn counts_late_frames() {
    let target = Target { rate: None, deadline: Some(Duration::from_nanos(1)) };
    let found = ran(
        frames(5),
        false,
        0,
        0,
        usize::MAX,
        PipelineOptions { target, ..PipelineOptions::default() },
    );
    assert!(
        found.result.is_ok() && found.summary.counters.late == 5,
        "{:?}",
        found.summary.counters
    );
}
