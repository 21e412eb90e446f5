//! Sources and sinks by script: what only a camera does, and what only time does.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Flow, Restore, Running, Summary, Target, run};
use crate::error::{Error, Result};
use crate::frame::stream::{Arrival, Picture, PixelFormat, Rate, Sink, Source, Video};
use crate::model::Precision;
use crate::video::{Quality, Scale, Treatment};

/// Milliseconds between pictures in which a busy machine, too, takes one.
const UNHURRIED: u64 = 150;

fn video() -> Video {
    Video::new(1, 1, Rate::of(25), PixelFormat::RGB24)
}

/// Gives what it is told to, each after a pause.
struct Scripted {
    video: Video,
    script: VecDeque<Arrival>,
    pause: Duration,
    live: bool,
    index: u64,
}

impl Source for Scripted {
    fn video(&self) -> &Video {
        &self.video
    }

    fn next(&mut self, picture: &mut Picture) -> Result<Arrival> {
        std::thread::sleep(self.pause);
        let arrival = self.script.pop_front().unwrap_or(Arrival::End);
        if arrival == Arrival::Picture {
            picture.index = self.index;
            self.index += 1;
        }
        Ok(arrival)
    }

    fn is_live(&self) -> bool {
        self.live
    }
}

/// Keeps the numbers of what is written; fails after so many.
struct Kept {
    video: Video,
    numbers: Arc<Mutex<Vec<u64>>>,
    room: usize,
    finished: Arc<Mutex<bool>>,
}

impl Sink for Kept {
    fn video(&self) -> &Video {
        &self.video
    }

    fn write(&mut self, picture: &Picture) -> Result<()> {
        let mut numbers = self.numbers.lock().unwrap();
        if numbers.len() == self.room {
            return Err(Error::output_from("kept", "it is full", std::io::Error::other("full")));
        }
        numbers.push(picture.index);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        *self.finished.lock().unwrap() = true;
        Ok(())
    }
}

/// Takes so long for each picture, or half of what it is allowed where it heeds that.
struct Slow {
    work: Duration,
    heeds: bool,
}

impl Restore for Slow {
    fn restore(&mut self, _: &Picture, _: &mut Picture, _: &mut dyn FnMut() -> ControlFlow<()>) -> Result<()> {
        std::thread::sleep(self.work);
        Ok(())
    }

    fn treatment(&self) -> Treatment {
        let quality =
            Quality { model: "sleep".into(), precision: Precision::F32, steps: 1, thrifty: false, scale: Scale::FULL };
        Treatment { quality, changes: 0, sigma: None, temporal: false, repeated: 0, failed: 0 }
    }

    fn allow(&mut self, budget: Duration) {
        if self.heeds {
            self.work = budget / 2;
        }
    }
}

struct Ran {
    summary: Summary,
    result: Result<()>,
    numbers: Vec<u64>,
    finished: bool,
}

fn ran(script: Vec<Arrival>, live: bool, pause: u64, work: u64, room: usize, flow: Flow) -> Ran {
    let (numbers, finished) = (Arc::default(), Arc::default());
    let source =
        Scripted { video: video(), script: script.into(), pause: Duration::from_millis(pause), live, index: 0 };
    let sink = Kept { video: video(), numbers: Arc::clone(&numbers), room, finished: Arc::clone(&finished) };
    let mut work = Slow { work: Duration::from_millis(work), heeds: flow.target.is_some() };
    let go_on = &mut |_: &Running<'_>| ControlFlow::Continue(());
    let (summary, result) = run(Box::new(source), Box::new(sink), &mut work, flow, go_on);
    let numbers = numbers.lock().unwrap().clone();
    let finished = *finished.lock().unwrap();
    Ran { summary, result, numbers, finished }
}

fn pictures(count: usize) -> Vec<Arrival> {
    vec![Arrival::Picture; count]
}

#[test]
fn a_file_loses_nothing_however_slow_the_work_is() {
    let ran = ran(pictures(30), false, 0, 3, usize::MAX, Flow::default());
    assert!(ran.result.is_ok() && ran.finished);
    assert_eq!(ran.numbers, (0..30).collect::<Vec<_>>());
    assert_eq!((ran.summary.tally.read, ran.summary.tally.written, ran.summary.tally.dropped), (30, 30, 0));
    assert_eq!(ran.summary.latency.count(), 30);
}

#[test]
fn a_live_source_that_is_too_fast_loses_the_oldest() {
    let ran = ran(pictures(40), true, 2, 20, usize::MAX, Flow::default());
    assert!(ran.result.is_ok());
    let tally = &ran.summary.tally;
    assert!(tally.dropped > 10 && tally.read == 40 && tally.written + tally.dropped == 40, "{tally:?}");
    assert!(ran.numbers.is_sorted() && ran.numbers.last() == Some(&39), "the newest is there: {:?}", ran.numbers);
}

#[test]
fn damage_ends_a_file_and_not_a_live_source() {
    let script = || [pictures(2), vec![Arrival::Corrupt("torn".into())], pictures(2)].concat();
    let file = ran(script(), false, 0, 0, usize::MAX, Flow::default());
    assert!(file.result.unwrap_err().to_string().contains("torn") && file.finished);
    assert_eq!(file.numbers, [0, 1]);
    let skipping = Flow { skip_corrupt: true, ..Flow::default() };
    for (live, flow) in [(false, skipping), (true, Flow::default())] {
        let ran = ran(script(), live, UNHURRIED, 0, usize::MAX, flow);
        assert!(ran.result.is_ok());
        assert_eq!((ran.numbers.as_slice(), ran.summary.tally.corrupt), ([0, 1, 2, 3].as_slice(), 1));
    }
}

#[test]
fn a_camera_that_is_gone_is_waited_for_where_that_is_asked() {
    let script = || [pictures(2), vec![Arrival::Lost("gone".into()); 3], pictures(2)].concat();
    let ended = ran(script(), true, UNHURRIED, 0, usize::MAX, Flow::default());
    assert!(ended.result.unwrap_err().to_string().contains("gone"));
    assert_eq!(ended.numbers, [0, 1]);
    let patient = Flow { reconnect: Some(Duration::from_secs(60)), ..Flow::default() };
    let found = ran(script(), true, UNHURRIED, 0, usize::MAX, patient);
    assert!(found.result.is_ok());
    assert_eq!((found.numbers.as_slice(), found.summary.tally.reconnected), ([0, 1, 2, 3].as_slice(), 1));
}

#[test]
fn a_sink_that_fails_ends_the_run_and_is_finished() {
    let ran = ran(pictures(1000), false, 1, 0, 3, Flow::default());
    assert!(ran.result.unwrap_err().to_string().contains("it is full") && ran.finished);
    assert_eq!(ran.numbers, [0, 1, 2]);
    assert!(ran.summary.tally.read < 1000);
}

#[test]
fn silence_is_a_stall_where_one_is_looked_for() {
    let script = [pictures(1), vec![Arrival::Waiting; 10_000]].concat();
    let flow = Flow { stall: Some(Duration::from_millis(100)), ..Flow::default() };
    let ran = ran(script, true, 5, 0, usize::MAX, flow);
    assert!(ran.result.unwrap_err().to_string().contains("--stall-timeout"));
    assert_eq!(ran.numbers, [0]);
}

#[test]
fn no_more_pictures_are_worked_on_than_are_asked_for() {
    let target = Target { rate: Some(50.0), deadline: None };
    let file = ran(pictures(20), false, 0, 0, usize::MAX, Flow { target, ..Flow::default() });
    assert!(file.result.is_ok() && file.numbers.len() == 20);
    assert!(file.summary.tally.elapsed >= Duration::from_millis(19 * 20), "{:?}", file.summary.tally);
    // A live source's other pictures are dropped, and the newest is taken.
    let flow = Flow { target, waiting: 1, ..Flow::default() };
    let live = ran(pictures(60), true, 4, 0, usize::MAX, flow);
    assert!(live.result.is_ok() && live.summary.tally.dropped > 20, "{:?}", live.summary.tally);
    assert!(live.numbers.is_sorted() && live.numbers.last() == Some(&59));
}

#[test]
fn what_waiting_and_writing_take_is_taken_off_a_deadline() {
    let ms = Duration::from_millis;
    let target = Target { rate: Some(10.0), deadline: Some(ms(80)) };
    assert_eq!(target.budget(ms(0), ms(0)), Some(ms(80)));
    assert_eq!(target.budget(ms(20), ms(10)), Some(ms(50)));
    assert_eq!(target.budget(ms(200), ms(0)), Some(ms(4)));
    assert_eq!(Target { deadline: None, ..target }.budget(ms(90), ms(0)), Some(ms(100)));
    assert_eq!(Target::default().budget(ms(1), ms(1)), None);
}

#[test]
fn late_pictures_are_counted() {
    let target = Target { rate: None, deadline: Some(Duration::from_nanos(1)) };
    let found = ran(pictures(5), false, 0, 0, usize::MAX, Flow { target, ..Flow::default() });
    assert!(found.result.is_ok() && found.summary.tally.late == 5, "{:?}", found.summary.tally);
}
