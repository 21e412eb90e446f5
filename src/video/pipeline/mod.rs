//! Reads, processes and writes frames in parallel.

mod failure_policy;
mod histogram;
pub(super) mod memory;
mod pace;
mod queue;
pub mod record;

pub(super) use self::failure_policy::FailurePolicy;
pub use self::histogram::Histogram;
pub use self::pace::Target;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::pace::{Pace, moving_average};
use self::queue::{Popped, Queue};
use self::threads::{Item, Shared, spawn_reader, spawn_writer};
use super::{QualityLevel, SettingsUpdate, StreamStatus};
use crate::error::{Error, Result};
use crate::media::stream::{Sink, Source, VideoFrame, reader_is_gone};
use crate::setting::STALL_TIMEOUT;

/// How long a thread waits before it checks for a stop request.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// Interval between checks for a reader of the output.
const READER_POLL: Duration = Duration::from_millis(10);

/// How long a reader of the output may still consume written data after the run is stopped.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// How frames are queued and paced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PipelineOptions {
    /// Capacity of the queue of frames to process and of that of frames to write. When a queue is
    /// full, a live source drops its oldest frame for a newer one; any other source waits. Default:
    /// 2.
    pub waiting: usize,
    /// Whether corrupt frames of a file are skipped. Those of a live source always are. Default:
    /// false.
    pub skip_corrupt: bool,
    /// How long a source may send no frame. Default: without limit.
    pub stall: Option<Duration>,
    /// How long to wait for a live source that is disconnected. Default: `None`, which ends the run
    /// at once.
    pub reconnect: Option<Duration>,
    /// Target frame rate and deadline. Default: none.
    pub target: Target,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            waiting: 2,
            skip_corrupt: false,
            stall: None,
            reconnect: None,
            target: Target::default(),
        }
    }
}

/// Processes frames from the source for the sink. `output` keeps its memory.
pub trait FrameProcessor {
    /// Processes one frame. Call `watch` regularly; it returns whether to continue.
    ///
    /// # Errors
    /// Any error that ends the run.
    fn process(
        &mut self,
        input: &VideoFrame,
        output: &mut VideoFrame,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()>;

    /// The number of following frames that are announced before a frame is processed, at present.
    fn look_ahead(&self) -> usize {
        0
    }

    /// The largest [`look_ahead`](Self::look_ahead) of the run.
    fn most_look_ahead(&self) -> usize {
        self.look_ahead()
    }

    /// Called for each frame as it arrives, [`look_ahead`](Self::look_ahead) frames before it is
    /// processed; after the last frame, called with none for each missing one.
    fn announce(&mut self, _next: Option<&VideoFrame>) {}

    /// How frames are processed at present.
    fn stream_status(&self) -> StreamStatus;

    /// Sets the time budget of the next frame.
    fn set_budget(&mut self, _budget: Duration) {}

    /// Applies settings from the next frame on, as far as possible.
    ///
    /// # Errors
    /// Any error that ends the run.
    fn apply_settings(&mut self, _settings: &SettingsUpdate) -> Result<()> {
        Ok(())
    }
}

/// Observes a run.
pub trait RunObserver {
    /// Called for every frame, for every evaluation, and about twenty times a second; can stop the
    /// run.
    fn on_progress(&mut self, running: &RunStatus<'_>) -> ControlFlow<()>;

    /// Called for every frame, with its input and result.
    fn on_frame(&mut self, _before: &VideoFrame, _after: &VideoFrame) {}

    /// Called before every frame for new settings.
    fn settings(&mut self) -> Option<SettingsUpdate> {
        None
    }
}

impl<F: FnMut(&RunStatus<'_>) -> ControlFlow<()>> RunObserver for F {
    fn on_progress(&mut self, running: &RunStatus<'_>) -> ControlFlow<()> {
        self(running)
    }
}

/// The status of a run in progress.
pub struct RunStatus<'a> {
    shared: &'a Shared,
    started: Option<Instant>,
    stream_status: &'a StreamStatus,
}

impl RunStatus<'_> {
    /// The counters so far.
    pub fn counters(&self) -> Counters {
        self.shared.counters(self.started)
    }

    /// How the last frame was processed, or how the first will be.
    pub fn stream_status(&self) -> &StreamStatus {
        self.stream_status
    }

    /// Latency from arrival to writing of all frames so far. A frame of a file arrives when its
    /// processing begins.
    pub fn latency(&self) -> Histogram {
        self.shared.written().latency.clone()
    }
}

/// Counters of a run.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Frames read.
    pub read: u64,
    /// Frames written.
    pub written: u64,
    /// Frames of a live source that were dropped for newer ones.
    pub dropped: u64,
    /// Frames that were corrupt.
    pub corrupt: u64,
    /// How often the source was disconnected and reconnected.
    pub reconnected: u64,
    /// Frames that were written after their deadline.
    pub late: u64,
    /// Time since the first frame arrived.
    pub elapsed: Duration,
}

impl Counters {
    /// Frames written per second.
    pub fn rate(&self) -> f64 {
        self.written as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// The summary of a finished run.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The final counters.
    pub counters: Counters,
    /// Latency from arrival to writing. A frame of a file arrives when its processing begins.
    pub latency: Histogram,
    /// Time spent waiting for a frame.
    pub waiting: Histogram,
    /// Time spent processing a frame.
    pub work: Histogram,
    /// Time spent writing a frame.
    pub writing: Histogram,
    /// Number of frames at each quality level, in order of first use.
    pub quality_levels: Vec<(QualityLevel, u64)>,
    /// How the last frame was processed.
    pub stream_status: Option<StreamStatus>,
}

impl Summary {
    fn count(&mut self, quality: &QualityLevel) {
        match self.quality_levels.iter_mut().find(|(of, _)| of == quality) {
            Some((_, count)) => *count += 1,
            None => self.quality_levels.push((quality.clone(), 1)),
        }
    }
}

/// Processes all frames of `source` with `processor` and writes them to `sink`. `watch` can stop
/// the run. Buffers are allocated for the first frames and then reused.
///
/// The sink is always finished, so that the output is complete. The reading thread ends with the
/// frame that it waits for; if none arrives, it stays until the process ends.
///
/// # Errors
/// Errors of the source, the processor or the sink; [`Error::Interrupted`] when `watch` stopped the
/// run. A reader of the output that disconnects is not an error.
pub fn run(
    source: Box<dyn Source>,
    sink: Box<dyn Sink>,
    processor: &mut dyn FrameProcessor,
    flow: PipelineOptions,
    watch: &mut dyn RunObserver,
) -> (Summary, Result<()>) {
    let room = flow.waiting.max(1);
    // Frames that wait for their following frames.
    let held = processor.most_look_ahead();
    let shared = Arc::new(Shared {
        incoming: Queue::new(room),
        spare_in: Queue::new(room + 2 + held),
        outgoing: Queue::new(room),
        spare_out: Queue::new(room + 2),
        read: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        corrupt: AtomicU64::new(0),
        reconnected: AtomicU64::new(0),
        late: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        cut: AtomicBool::new(false),
        written: Mutex::default(),
    });
    (0..held).for_each(|_| drop(shared.spare_in.replace(VideoFrame::default())));
    for _ in 0..room + 2 {
        shared.spare_in.replace(VideoFrame::default());
        shared.spare_out.replace(VideoFrame::default());
    }
    let (live, waits_for_reader) = (source.is_live(), sink.waits_for_reader());
    let reader = spawn_reader(Arc::clone(&shared), source, flow);
    let writer = spawn_writer(Arc::clone(&shared), sink, live, flow.target.deadline);
    let stream_status = processor.stream_status();
    let mut worker = Worker {
        shared: &shared,
        live,
        summary: Summary::default(),
        started: None,
        stream_status,
        watch,
    };
    let mut worked = worker.work(processor, flow);
    if worked.is_err() {
        shared.cut.store(true, Ordering::Relaxed);
    }
    shared.incoming.close();
    shared.spare_in.close();
    shared.outgoing.close();
    if let (true, Ok(writer)) = (waits_for_reader, &writer) {
        worked = worker.wait_for_readers(writer, worked);
    }
    let Worker { mut summary, started, stream_status, .. } = worker;
    summary.stream_status = Some(stream_status);
    // The writer still has frames to write; the reader may wait for a frame that never arrives.
    let written = match writer {
        Ok(writer) if writer.is_finished() || !waits_for_reader => {
            writer.join().unwrap_or_else(|_| Err(Error::evaluation("the writing thread panicked")))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    let read = match reader {
        Ok(reader) if reader.is_finished() || matches!(worked, Ok(true)) => {
            reader.join().unwrap_or_else(|_| Err(Error::evaluation("the reading thread panicked")))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    summary.counters = shared.counters(started);
    {
        let written = shared.written();
        (summary.writing, summary.latency) = (written.writing.clone(), written.latency.clone());
    }
    let sunk = match written {
        Err(error) if reader_is_gone(&error) => return (summary, Ok(())),
        other => other,
    };
    (summary, worked.and(sunk).and(read))
}

struct Worker<'a> {
    shared: &'a Shared,
    live: bool,
    summary: Summary,
    started: Option<Instant>,
    stream_status: StreamStatus,
    watch: &'a mut dyn RunObserver,
}

impl Worker<'_> {
    /// Processes frames until the source ends, which returns true, or the sink does. Errors
    /// include a stop request.
    fn work(&mut self, processor: &mut dyn FrameProcessor, flow: PipelineOptions) -> Result<bool> {
        let mut silent = Instant::now();
        let mut pace = flow.target.rate.map(Pace::new);
        let mut waited = Duration::ZERO;
        let mut pending = VecDeque::new();
        loop {
            if let Some(pace) = &mut pace {
                while let Some(early) = pace.early() {
                    thread::sleep(early.min(POLL_TIMEOUT));
                    self.observe()?;
                }
            }
            self.observe()?;
            let mut item = match self.shared.incoming.pop(POLL_TIMEOUT) {
                Popped::Item(item) => item,
                Popped::Closed => {
                    let mut missing = 0;
                    while let Some(item) = pending.pop_front() {
                        // Several, when the source has ended before the first could be processed.
                        while pending.len() + missing < processor.look_ahead() {
                            processor.announce(None);
                            missing += 1;
                        }
                        if !self.process(processor, item, flow, &mut waited)? {
                            return Ok(false);
                        }
                    }
                    return Ok(true);
                }
                Popped::Waiting => {
                    if let Some(stall) = flow.stall
                        && silent.elapsed() > stall
                    {
                        return Err(Error::input(
                            "the stream",
                            format!(
                                "no frame has come for {:.0} s; check the source, or raise \
                                 {STALL_TIMEOUT}",
                                stall.as_secs_f64()
                            ),
                        ));
                    }
                    continue;
                }
            };
            if !self.live {
                // A frame of a file did not wait for anything else.
                item.arrived = Instant::now();
            }
            self.started.get_or_insert(item.arrived);
            self.summary.waiting.add(silent.elapsed());
            if let Some(pace) = &mut pace {
                pace.begin();
            }
            processor.announce(Some(&item.frame));
            pending.push_back(item);
            // Several, when the frames that wait have become fewer.
            while pending.len() > processor.look_ahead()
                && let Some(item) = pending.pop_front()
            {
                if !self.process(processor, item, flow, &mut waited)? {
                    return Ok(false);
                }
            }
            silent = Instant::now();
        }
    }

    /// Processes a frame and passes the result on. Returns whether the writer still takes frames.
    fn process(
        &mut self,
        processor: &mut dyn FrameProcessor,
        item: Item,
        flow: PipelineOptions,
        waited: &mut Duration,
    ) -> Result<bool> {
        let Some(mut output) = self.result_buffer()? else { return Ok(false) };
        if let Some(settings) = self.watch.settings() {
            processor.apply_settings(&settings)?;
            self.stream_status = processor.stream_status();
        }
        *waited = moving_average(*waited, item.arrived.elapsed());
        if let Some(budget) = flow.target.budget(*waited, self.shared.written().moving_average) {
            processor.set_budget(budget);
        }
        let started = Instant::now();
        let Self { watch, shared, started: first, stream_status, .. } = self;
        let running = RunStatus { shared, started: *first, stream_status };
        processor.process(&item.frame, &mut output, &mut || watch.on_progress(&running))?;
        self.summary.work.add(started.elapsed());
        // Counts the status of this frame; the next may be processed differently.
        self.summary.count(&self.stream_status.quality);
        self.stream_status = processor.stream_status();
        (output.index, output.time) = (item.frame.index, item.frame.time);
        output.tags.clone_from(&item.frame.tags);
        self.watch.on_frame(&item.frame, &output);
        self.shared.spare_in.replace(item.frame);
        let mut done = Item { frame: output, arrived: item.arrived };
        while let Err(back) = self.shared.outgoing.push(done, POLL_TIMEOUT) {
            if self.shared.outgoing.is_closed() {
                return Ok(false);
            }
            self.observe()?;
            done = back;
        }
        Ok(true)
    }

    /// Waits until the output is read, at most `SHUTDOWN_GRACE` once the run is stopped.
    fn wait_for_readers(
        &mut self,
        writer: &JoinHandle<Result<()>>,
        mut worked: Result<bool>,
    ) -> Result<bool> {
        let mut stopped = None;
        while !writer.is_finished() {
            if worked.is_ok() {
                worked = self.observe().and(worked);
            }
            if worked.is_err() {
                // Frames without a reader are dropped from here on.
                self.shared.cut.store(true, Ordering::Relaxed);
                self.shared.stopped.store(true, Ordering::Relaxed);
                if stopped.get_or_insert_with(Instant::now).elapsed() > SHUTDOWN_GRACE {
                    break;
                }
            }
            thread::sleep(READER_POLL);
        }
        worked
    }

    fn observe(&mut self) -> Result<()> {
        let running = RunStatus {
            shared: self.shared,
            started: self.started,
            stream_status: &self.stream_status,
        };
        match self.watch.on_progress(&running) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }

    /// A buffer for a result; `None` when the writer has ended.
    fn result_buffer(&mut self) -> Result<Option<VideoFrame>> {
        loop {
            match self.shared.spare_out.pop(POLL_TIMEOUT) {
                Popped::Item(frame) => return Ok(Some(frame)),
                Popped::Closed => return Ok(None),
                Popped::Waiting => self.observe()?,
            }
        }
    }
}

mod threads;

#[cfg(test)]
mod tests;
