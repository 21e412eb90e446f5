//! Random sources, sinks and processors that wait, fail and end at any point, compared with what
//! the pipeline promises.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Slow, video};
use crate::error::{Error, Result};
use crate::media::stream::{ReadOutcome, Sink, Source, VideoFormat, VideoFrame};
use crate::random::cases;
use crate::video::StreamStatus;
use crate::video::pipeline::{FrameProcessor, PipelineOptions, RunStatus, Summary, Target, run};

/// A run that takes longer is stuck. Scripts take less than a tenth of it.
const STUCK: Duration = Duration::from_secs(20);

/// What a source does next. After the last, it ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Frame,
    /// Takes some milliseconds.
    Pause(u64),
    Waiting,
    Corrupt,
    Disconnected,
    /// A frame of another size.
    OtherSize,
    /// An error that ends the source.
    Fails,
    /// Waits until the test ends.
    Hangs,
}

/// What a sink does after it has taken some frames.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Full,
    ReaderLeaves,
    FinishFails,
}

/// One run.
#[derive(Clone, Debug)]
struct Script {
    events: Vec<Event>,
    live: bool,
    restarts: bool,
    /// Milliseconds to process a frame, and to write one.
    work: u64,
    writing: u64,
    /// Frames that the processor wants to see in advance.
    ahead: usize,
    /// The frame that the processor cannot process, by its position.
    unprocessed: Option<usize>,
    fate: Option<(usize, Fate)>,
    /// The number of times that the sink says that it has no reader, once it has taken a frame.
    absent: usize,
    /// Whether the sink may wait for its reader without limit.
    waits: bool,
    /// Milliseconds until the run is stopped.
    stop: Option<u64>,
    flow: PipelineOptions,
}

fn scripts() -> impl Strategy<Value = Script> {
    let event = prop_oneof![
        40 => Just(Event::Frame),
        6 => (1_u64..15).prop_map(Event::Pause),
        3 => Just(Event::Waiting),
        1 => Just(Event::Corrupt),
        1 => Just(Event::Disconnected),
        1 => prop::sample::select(vec![Event::OtherSize, Event::Fails, Event::Hangs]),
    ];
    let source = (prop::collection::vec(event, 0..40), any::<bool>(), any::<bool>());
    let processor = (0_u64..8, 0_usize..4, prop::option::weighted(0.1, 0_usize..20));
    let fate = (
        0_usize..20,
        prop::sample::select(vec![Fate::Full, Fate::ReaderLeaves, Fate::FinishFails]),
    );
    let sink = (0_u64..8, prop::option::weighted(0.3, fate), 0_usize..4, any::<bool>());
    let ms = Duration::from_millis;
    let options = (
        1_usize..4,
        any::<bool>(),
        prop::option::weighted(0.3, (80_u64..200).prop_map(ms)),
        prop::option::weighted(0.3, (0_u64..700).prop_map(ms)),
        (
            prop::option::weighted(0.3, 100.0..2000.0),
            prop::option::weighted(0.3, (1_u64..50).prop_map(ms)),
        ),
    );
    let stop = prop::option::weighted(0.3, 0_u64..150);
    (source, processor, sink, options, stop).prop_map(
        |(
            (events, live, restarts),
            (work, ahead, unprocessed),
            (writing, fate, absent, waits),
            (waiting, skip_corrupt, stall, reconnect, (rate, deadline)),
            stop,
        )| {
            let target = Target { rate, deadline };
            let flow = PipelineOptions { waiting, skip_corrupt, stall, reconnect, target };
            let mut script = Script {
                events,
                live,
                restarts,
                work,
                writing,
                ahead,
                unprocessed,
                fate,
                absent,
                waits,
                stop,
                flow,
            };
            // Nothing but a stop or a limit ends a run whose source is silent, and a source that
            // restarts never ends.
            if script.stop.is_none() && flow.stall.is_none() {
                script.events.retain(|event| *event != Event::Hangs);
            }
            script
        },
    )
}

/// The bytes of a frame, by its index.
fn content(index: u64) -> Vec<u8> {
    vec![index as u8; video().bytes()]
}

struct Scripted {
    video: VideoFormat,
    script: Script,
    at: usize,
    index: u64,
    /// Closed when the test ends.
    ended: Receiver<()>,
}

impl Source for Scripted {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome> {
        let event = self.script.events.get(self.at).copied();
        self.at += 1;
        Ok(match event {
            None => {
                // One that restarts takes its time.
                thread::sleep(Duration::from_millis(if self.script.restarts { 5 } else { 0 }));
                ReadOutcome::End
            }
            Some(Event::Frame) => {
                frame.bytes.clone_from(&content(self.index));
                frame.index = self.index;
                self.index += 1;
                ReadOutcome::Frame
            }
            Some(Event::OtherSize) => {
                frame.bytes.resize(self.video.bytes() + 3, 0);
                ReadOutcome::Frame
            }
            Some(Event::Pause(ms)) => {
                thread::sleep(Duration::from_millis(ms));
                ReadOutcome::Waiting
            }
            Some(Event::Waiting) => ReadOutcome::Waiting,
            Some(Event::Corrupt) => ReadOutcome::Corrupt("torn".into()),
            Some(Event::Disconnected) => ReadOutcome::Disconnected("gone".into()),
            Some(Event::Fails) => return Err(Error::input("scripted", "it fails")),
            Some(Event::Hangs) => {
                let _ = self.ended.recv();
                ReadOutcome::End
            }
        })
    }

    fn is_live(&self) -> bool {
        self.script.live
    }

    fn restarts(&self) -> bool {
        self.script.restarts
    }
}

/// What a sink was given.
#[derive(Clone, Debug, Default)]
struct Taken {
    indices: Vec<u64>,
    /// Frames that were not those of the source.
    wrong: usize,
    stopped: bool,
    finished: usize,
    /// Frames that were written after it was finished.
    late: usize,
}

struct Taker {
    video: VideoFormat,
    script: Script,
    taken: Arc<Mutex<Taken>>,
}

impl Sink for Taker {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn has_reader(&mut self) -> Result<bool> {
        let absent = !self.taken.lock().unwrap().indices.is_empty() && self.script.absent > 0;
        self.script.absent -= usize::from(absent);
        Ok(!absent)
    }

    fn waits_for_reader(&self) -> bool {
        self.script.waits
    }

    fn write(&mut self, frame: &VideoFrame) -> Result<()> {
        thread::sleep(Duration::from_millis(self.script.writing));
        let mut taken = self.taken.lock().unwrap();
        if let Some((after, fate)) = self.script.fate
            && taken.indices.len() == after
        {
            let error = match fate {
                Fate::Full => std::io::Error::from(std::io::ErrorKind::StorageFull),
                Fate::ReaderLeaves => std::io::Error::from(std::io::ErrorKind::BrokenPipe),
                Fate::FinishFails => {
                    taken.indices.push(frame.index);
                    return Ok(());
                }
            };
            return Err(Error::output_from("taker", "it takes no more", error));
        }
        taken.wrong += usize::from(frame.bytes != content(frame.index));
        taken.late += taken.finished;
        taken.indices.push(frame.index);
        Ok(())
    }

    fn stopped(&mut self) {
        self.taken.lock().unwrap().stopped = true;
    }

    fn finish(&mut self) -> Result<()> {
        self.taken.lock().unwrap().finished += 1;
        match self.script.fate {
            Some((_, Fate::FinishFails)) => Err(Error::output_from(
                "taker",
                "it cannot be finished",
                std::io::Error::from(std::io::ErrorKind::StorageFull),
            )),
            _ => Ok(()),
        }
    }
}

/// Copies frames, and checks that they were announced as promised.
struct Copier {
    inner: Slow,
    ahead: usize,
    unprocessed: Option<usize>,
    announced: usize,
    processed: usize,
}

impl FrameProcessor for Copier {
    fn process(
        &mut self,
        input: &VideoFrame,
        output: &mut VideoFrame,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        assert_eq!(self.announced, self.processed + 1 + self.ahead);
        if self.unprocessed == Some(self.processed) {
            return Err(Error::evaluation("scripted"));
        }
        self.processed += 1;
        output.bytes.clone_from(&input.bytes);
        self.inner.process(input, output, watch)?;
        match watch() {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }

    fn look_ahead(&self) -> usize {
        self.ahead
    }

    fn announce(&mut self, _: Option<&VideoFrame>) {
        self.announced += 1;
    }

    fn stream_status(&self) -> StreamStatus {
        self.inner.stream_status()
    }
}

struct Ended {
    summary: Summary,
    result: Result<()>,
    taken: Taken,
}

/// Runs the script; `None` when it does not end, or panics.
fn ran(script: &Script) -> Option<Ended> {
    let (ended, waits): (Sender<()>, _) = channel();
    let (send, receive) = channel();
    let script = script.clone();
    thread::spawn(move || {
        let taken = Arc::default();
        let source =
            Scripted { video: video(), script: script.clone(), at: 0, index: 0, ended: waits };
        let sink = Taker { video: video(), script: script.clone(), taken: Arc::clone(&taken) };
        let mut processor = Copier {
            inner: Slow { work: Duration::from_millis(script.work), heeds: false },
            ahead: script.ahead,
            unprocessed: script.unprocessed,
            announced: 0,
            processed: 0,
        };
        let stop = script.stop.map(|ms| Instant::now() + Duration::from_millis(ms));
        let watch = &mut |_: &RunStatus<'_>| match stop {
            Some(stop) if Instant::now() > stop => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let (summary, result) =
            run(Box::new(source), Box::new(sink), &mut processor, script.flow, watch);
        let taken = taken.lock().unwrap().clone();
        let _ = send.send(Ended { summary, result, taken });
    });
    let found = receive.recv_timeout(STUCK).ok();
    drop(ended);
    found
}

impl Script {
    /// A file without frames, whose run goes well.
    fn plain() -> Self {
        Self {
            events: Vec::new(),
            live: false,
            restarts: false,
            work: 0,
            writing: 0,
            ahead: 0,
            unprocessed: None,
            fate: None,
            absent: 0,
            waits: false,
            stop: None,
            flow: PipelineOptions::default(),
        }
    }

    /// The frames of the source before its first event of that kind.
    fn frames_before(&self, is: impl Fn(Event) -> bool) -> usize {
        let before = self.events.iter().take_while(|event| !is(**event));
        before.filter(|event| **event == Event::Frame).count()
    }

    /// Whether an event makes the reading thread end with an error.
    fn is_fatal(&self, event: Event) -> bool {
        match event {
            Event::Corrupt => !self.live && !self.flow.skip_corrupt,
            Event::Disconnected => self.flow.reconnect.is_none(),
            Event::OtherSize | Event::Fails => true,
            Event::Frame | Event::Pause(_) | Event::Waiting | Event::Hangs => false,
        }
    }

    /// Whether the source may end the run with an error.
    fn source_may_fail(&self) -> bool {
        // A source that is waited for may be given up after its last frame.
        let is_waited_for = self.flow.reconnect.is_some()
            && (self.restarts || self.events.contains(&Event::Disconnected));
        is_waited_for
            || self.flow.stall.is_some()
            || self.events.iter().any(|event| self.is_fatal(*event))
    }

    /// Checks how a run ended, and what the sink was given.
    fn check(&self, Ended { summary, result, taken }: &Ended) -> std::result::Result<(), String> {
        let holds = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let counters = &summary.counters;
        let written = taken.indices.len() as u64;
        let gone =
            matches!(self.fate, Some((after, Fate::ReaderLeaves)) if after as u64 == written);
        holds(taken.indices.is_sorted_by(|a, b| a < b), "frames are in order, none twice")?;
        holds(taken.wrong == 0, "frames are written as they were read")?;
        holds(taken.finished == 1 && taken.late == 0, "the sink is finished once, at the end")?;
        holds(counters.written == written, "written frames are counted")?;
        holds(summary.latency.count() == written, "each written frame has a latency")?;
        let missing = counters.read as i64 - (counters.written + counters.dropped) as i64;
        // In both queues, at the processor, at the writer, and waiting for later ones.
        let held = 2 * self.flow.waiting + self.ahead + 3;
        holds((0..=held as i64).contains(&missing), "frames are counted that are lost")?;
        match result {
            Ok(()) if gone => return Ok(()),
            Ok(()) => {
                holds(missing == 0, "a run without error has written or dropped all frames")?;
                holds(self.live || counters.dropped == 0, "no frame of a file is dropped")?;
                let all = self.frames_before(|_| false) as u64;
                holds(counters.read == all, "a run without error has read all frames")?;
                holds(!taken.stopped, "the sink is not told of a stop without one")?;
                let fatal = self.events.iter().any(|event| self.is_fatal(*event));
                holds(!fatal, "an error of the source is reported")?;
                let fails = !self.live && self.unprocessed.is_some_and(|n| (n as u64) < all);
                holds(!fails, "an error of the processor is reported")?;
                let unfinished = matches!(self.fate, Some((_, Fate::FinishFails)));
                return holds(!unfinished, "an error of the sink is reported");
            }
            Err(Error::Interrupted) => holds(self.stop.is_some(), "stops when asked")?,
            Err(Error::Input { .. }) => {
                holds(self.source_may_fail(), "blames the source for its own errors")?;
                let hurries = self.stop.is_some() || self.flow.stall.is_some();
                if !hurries && self.flow.reconnect.is_none() {
                    let before = self.frames_before(|event| self.is_fatal(event)) as u64;
                    holds(counters.read == before, "reads all frames before the error")?;
                    holds(missing == 0, "keeps all frames before the error")?;
                }
            }
            Err(Error::Output { .. }) => holds(self.fate.is_some(), "blames the sink alone")?,
            Err(Error::Evaluation { .. }) => {
                let first = self.unprocessed.ok_or("blames the processor for its own errors")?;
                let first = first as u64;
                // Without a reader at the end, frames are dropped.
                let kept = if self.live || self.fate.is_some() {
                    written <= first
                } else {
                    written + counters.dropped == first
                };
                holds(kept, "keeps all frames before the error")?;
            }
            Err(other) => return Err(format!("an error of another kind: {other}")),
        }
        // A run may be stopped while its last frames are written.
        let is_whole = written == self.frames_before(|_| false) as u64;
        let is_cut = !is_whole && matches!(result, Err(Error::Interrupted | Error::Input { .. }));
        holds(
            !is_cut || taken.stopped || self.fate.is_some(),
            "the sink is told that frames are missing",
        )
    }
}

/// A source that ends before the processor has seen as many frames in advance as it wants.
#[test]
fn frames_that_are_missing_at_the_end_are_announced() {
    for frames in 0..5 {
        let script = Script { events: vec![Event::Frame; frames], ahead: 3, ..Script::plain() };
        let ended = ran(&script).unwrap();
        assert_eq!(script.check(&ended), Ok(()), "{frames}: {:?}", ended.result);
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn any_run_ends_and_accounts_for_its_frames(script in scripts()) {
        let Some(ended) = ran(&script) else {
            return Err(TestCaseError::fail("the run does not end, or panics"));
        };
        if let Err(broken) = script.check(&ended) {
            let Ended { summary, result, taken } = ended;
            let counters = summary.counters;
            prop_assert!(false, "not kept: {broken}: {result:?}, {counters:?}, {taken:?}");
        }
    }
}
