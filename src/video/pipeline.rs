//! Read, work and write at the same time.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::threads::{Item, Shared, spawn_reader, spawn_writer};
use super::histogram::Histogram;
use super::pace::{Pace, Target, moving_average};
use super::queue::{Popped, Queue};
use super::{QualityLevel, SettingsUpdate, StreamStatus};
use crate::error::{Error, Result};
use crate::media::stream::{Sink, Source, VideoFrame, reader_is_gone};

/// How long a thread waits before it looks up.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// How long it takes until it is looked again whether somebody reads, or has read.
const READER_POLL: Duration = Duration::from_millis(10);

/// How long a reader of ours may take what is written already, when the run is stopped.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// How frames go through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PipelineOptions {
    /// Frames that may wait to be worked on, and as many to be written. A live source's oldest is dropped for a newer one;
    /// any other source waits.
    pub waiting: usize,
    /// Whether a corrupt frame of a file is passed over. A live source's always is.
    pub skip_corrupt: bool,
    /// How long a source may be silent; `None` for ever.
    pub stall: Option<Duration>,
    /// How long a live source that is gone is waited for; `None` ends the run at once.
    pub reconnect: Option<Duration>,
    /// How fast frames are to go through.
    pub target: Target,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self { waiting: 2, skip_corrupt: false, stall: None, reconnect: None, target: Target::default() }
    }
}

/// What is done to a frame: from the source's into the sink's. `output` keeps its memory.
pub trait FrameProcessor {
    /// Works on one frame. `watch` is to be asked now and then whether to go on.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn restore(
        &mut self,
        input: &VideoFrame,
        output: &mut VideoFrame,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()>;

    /// What is being done to frames.
    fn stream_status(&self) -> StreamStatus;

    /// The next frame should take no longer than this.
    fn set_budget(&mut self, _budget: Duration) {}

    /// From the next frame on, do as is wished, as far as it can be done.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn apply_settings(&mut self, _wishes: &SettingsUpdate) -> Result<()> {
        Ok(())
    }
}

/// Who watches a run.
pub trait RunObserver {
    /// Hears of every frame, of every evaluation, and about twenty times a second; can stop the run.
    fn on_progress(&mut self, running: &RunStatus<'_>) -> ControlFlow<()>;

    /// Sees every frame, before and after.
    fn on_frame(&mut self, _before: &VideoFrame, _after: &VideoFrame) {}

    /// What is to be done otherwise, asked before every frame.
    fn settings(&mut self) -> Option<SettingsUpdate> {
        None
    }
}

impl<F: FnMut(&RunStatus<'_>) -> ControlFlow<()>> RunObserver for F {
    fn on_progress(&mut self, running: &RunStatus<'_>) -> ControlFlow<()> {
        self(running)
    }
}

/// A run, seen while it goes on.
pub struct RunStatus<'a> {
    shared: &'a Shared,
    begun: Option<Instant>,
    stream_status: &'a StreamStatus,
}

impl RunStatus<'_> {
    /// How far it has come.
    pub fn counters(&self) -> Counters {
        self.shared.counters(self.begun)
    }

    /// What was done to the last frame, or will be to the first.
    pub fn stream_status(&self) -> &StreamStatus {
        self.stream_status
    }

    /// From arrival to when it was written, of all frames so far; one of a file arrives when it is its turn.
    pub fn latency(&self) -> Histogram {
        self.shared.written().latency.clone()
    }
}

/// How far a run has come.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Frames that came.
    pub read: u64,
    /// Frames that were written.
    pub written: u64,
    /// Frames of a live source that were dropped because newer ones came.
    pub dropped: u64,
    /// Frames that were no whole frames.
    pub corrupt: u64,
    /// How often the source was gone and came back.
    pub reconnected: u64,
    /// Frames that were written after their deadline.
    pub late: u64,
    /// Since the first frame came.
    pub elapsed: Duration,
}

impl Counters {
    /// Frames written per second.
    pub fn rate(&self) -> f64 {
        self.written as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// What a run was like.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How far it came.
    pub counters: Counters,
    /// From a frame's arrival to when it was written; one of a file arrives when it is its turn.
    pub latency: Histogram,
    /// Waiting for a frame.
    pub waiting: Histogram,
    /// Work on a frame.
    pub work: Histogram,
    /// Writing a frame.
    pub writing: Histogram,
    /// How many frames were treated how, in the order in which that first happened.
    pub quality_levels: Vec<(QualityLevel, u64)>,
    /// What was done to the last frame.
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

/// Takes every frame from `source` through `restorer` to `sink`. `watch` can stop the run. Memory is taken for the first frames and then used again.
///
/// However it ends, the sink is finished, so that what was written is whole. The reading thread ends with the frame that
/// it waits for; if none comes, it stays until the process ends.
///
/// # Errors
/// What the source, the restorer or the sink met, [`Error::Interrupted`] when `watch` stopped the run. A sink whose reader has
/// had enough is no error.
pub fn run(
    source: Box<dyn Source>,
    sink: Box<dyn Sink>,
    restorer: &mut dyn FrameProcessor,
    flow: PipelineOptions,
    watch: &mut dyn RunObserver,
) -> (Summary, Result<()>) {
    let room = flow.waiting.max(1);
    let shared = Arc::new(Shared {
        incoming: Queue::new(room),
        spare_in: Queue::new(room + 2),
        outgoing: Queue::new(room),
        spare_out: Queue::new(room + 2),
        read: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        corrupt: AtomicU64::new(0),
        reconnected: AtomicU64::new(0),
        late: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        written: Mutex::default(),
    });
    for _ in 0..room + 2 {
        shared.spare_in.replace(VideoFrame::default());
        shared.spare_out.replace(VideoFrame::default());
    }
    let (live, waits_for_reader) = (source.is_live(), sink.waits_for_reader());
    let reader = spawn_reader(Arc::clone(&shared), source, flow);
    let writer = spawn_writer(Arc::clone(&shared), sink, live, flow.target.deadline);
    let stream_status = restorer.stream_status();
    let mut worker = Worker { shared: &shared, live, summary: Summary::default(), begun: None, stream_status, watch };
    let mut worked = worker.work(restorer, flow);
    shared.incoming.close();
    shared.spare_in.close();
    shared.outgoing.close();
    if let (true, Ok(writer)) = (waits_for_reader, &writer) {
        worked = worker.let_be_read(writer, worked);
    }
    let Worker { mut summary, begun, stream_status, .. } = worker;
    summary.stream_status = Some(stream_status);
    // The writer has something to write still; the reader may wait for what never comes.
    let written = match writer {
        Ok(writer) if writer.is_finished() || !waits_for_reader => {
            writer.join().unwrap_or_else(|_| Err(Error::evaluation("the writing thread broke down")))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    let read = match reader {
        Ok(reader) if reader.is_finished() || matches!(worked, Ok(true)) => {
            reader.join().unwrap_or_else(|_| Err(Error::evaluation("the reading thread broke down")))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    summary.counters = shared.counters(begun);
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
    begun: Option<Instant>,
    stream_status: StreamStatus,
    watch: &'a mut dyn RunObserver,
}

impl Worker<'_> {
    /// Works until the source ends, which gives true, or the sink does, or something else says stop.
    fn work(&mut self, restorer: &mut dyn FrameProcessor, flow: PipelineOptions) -> Result<bool> {
        let mut silent = Instant::now();
        let mut pace = flow.target.rate.map(Pace::new);
        let mut waited = Duration::ZERO;
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
                Popped::Closed => return Ok(true),
                Popped::Waiting => {
                    if let Some(stall) = flow.stall
                        && silent.elapsed() > stall
                    {
                        return Err(Error::input(
                            "the stream",
                            format!(
                                "no frame has come for {:.0} s; check the source, or raise --stall-timeout",
                                stall.as_secs_f64()
                            ),
                        ));
                    }
                    continue;
                }
            };
            if !self.live {
                // It waited for nothing but this.
                item.arrived = Instant::now();
            }
            self.begun.get_or_insert(item.arrived);
            self.summary.waiting.add(silent.elapsed());
            if let Some(pace) = &mut pace {
                pace.begin();
            }
            let Some(mut output) = self.spare()? else { return Ok(false) };
            if let Some(settings) = self.watch.settings() {
                restorer.apply_settings(&settings)?;
                self.stream_status = restorer.stream_status();
            }
            waited = moving_average(waited, item.arrived.elapsed());
            if let Some(budget) = flow.target.budget(waited, self.shared.written().moving_average) {
                restorer.set_budget(budget);
            }
            let begun = Instant::now();
            let Self { watch, shared, begun: first, stream_status, .. } = self;
            let running = RunStatus { shared, begun: *first, stream_status };
            restorer.restore(&item.frame, &mut output, &mut || watch.on_progress(&running))?;
            self.summary.work.add(begun.elapsed());
            // As it was for this frame; the next may be treated otherwise.
            self.summary.count(&self.stream_status.quality);
            self.stream_status = restorer.stream_status();
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
            silent = Instant::now();
        }
    }

    /// Waits until what is written is read. When the run is stopped, or was, that is not waited for long.
    fn let_be_read(&mut self, writer: &JoinHandle<Result<()>>, mut worked: Result<bool>) -> Result<bool> {
        let mut stopped = None;
        while !writer.is_finished() {
            if worked.is_ok() {
                worked = self.observe().and(worked);
            }
            if worked.is_err() {
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
        let running = RunStatus { shared: self.shared, begun: self.begun, stream_status: &self.stream_status };
        match self.watch.on_progress(&running) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }

    /// Memory for a result; none when nobody takes results any more.
    fn spare(&mut self) -> Result<Option<VideoFrame>> {
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
