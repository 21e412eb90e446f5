//! The reading and the writing thread, and the state that they share with the processing thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::pace::moving_average;
use super::queue::{Popped, Queue};
use super::{Counters, POLL_TIMEOUT, PipelineOptions, READER_POLL};
use crate::error::{Error, Result};
use crate::media::stream::{ReadOutcome, Sink, Source, VideoFrame};
use crate::setting::{RECONNECT, SKIP_CORRUPT};

/// A frame and its arrival time.
pub(super) struct Item {
    pub(super) frame: VideoFrame,
    pub(super) arrived: Instant,
}

/// State shared by the threads.
pub(super) struct Shared {
    /// Frames to process.
    pub(super) incoming: Queue<Item>,
    /// Buffers of processed frames, returned to the reader.
    pub(super) spare_in: Queue<VideoFrame>,
    pub(super) outgoing: Queue<Item>,
    pub(super) spare_out: Queue<VideoFrame>,
    pub(super) read: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) corrupt: AtomicU64,
    pub(super) reconnected: AtomicU64,
    pub(super) late: AtomicU64,
    /// Whether the run was stopped before the source ended.
    pub(super) stopped: AtomicBool,
    /// Whether the frames end before those of the source: it cannot be read further, or the run was
    /// stopped. Set before the queues are closed.
    pub(super) cut: AtomicBool,
    pub(super) written: Mutex<Written>,
}

/// Statistics of written frames.
#[derive(Default)]
pub(super) struct Written {
    pub(super) count: u64,
    pub(super) writing: Histogram,
    pub(super) latency: Histogram,
    /// Moving average of the time to write a frame.
    pub(super) moving_average: Duration,
}

impl Shared {
    pub(super) fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counters(&self, started: Option<Instant>) -> Counters {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            read: count(&self.read),
            late: count(&self.late),
            written: self.written().count,
            dropped: count(&self.dropped),
            corrupt: count(&self.corrupt),
            reconnected: count(&self.reconnected),
            elapsed: started.map_or(Duration::ZERO, |started| started.elapsed()),
        }
    }
}

fn thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map_err(|error| Error::Evaluation {
        problem: format!("no thread could be started for {name}"),
        source: Some(error.into()),
    })
}

pub(super) fn spawn_reader(
    shared: Arc<Shared>,
    mut source: Box<dyn Source>,
    flow: PipelineOptions,
) -> Result<JoinHandle<Result<()>>> {
    thread("reading", move || {
        let result = read_all(&shared, source.as_mut(), flow);
        if result.is_err() {
            shared.cut.store(true, Ordering::Relaxed);
        }
        shared.incoming.close();
        result
    })
}

fn read_all(shared: &Shared, source: &mut dyn Source, flow: PipelineOptions) -> Result<()> {
    let live = source.is_live();
    let mut lost: Option<Instant> = None;
    loop {
        let mut frame = loop {
            match shared.spare_in.pop(POLL_TIMEOUT) {
                Popped::Item(frame) => break frame,
                Popped::Closed => return Ok(()),
                Popped::Waiting => {}
            }
        };
        loop {
            let outcome = match source.next(&mut frame)? {
                ReadOutcome::End if flow.reconnect.is_some() && source.restarts() => {
                    ReadOutcome::Disconnected("it has ended".into())
                }
                outcome => outcome,
            };
            match outcome {
                ReadOutcome::Frame => {
                    source.video().check(&frame)?;
                    break;
                }
                ReadOutcome::End => return Ok(()),
                ReadOutcome::Waiting => {}
                ReadOutcome::Corrupt(why) => {
                    shared.corrupt.fetch_add(1, Ordering::Relaxed);
                    if !live && !flow.skip_corrupt {
                        let advice =
                            format!("earlier frames are kept; {SKIP_CORRUPT} skips damaged frames");
                        return Err(Error::input("the stream", format!("{why}; {advice}")));
                    }
                }
                ReadOutcome::Disconnected(why) => {
                    let since = *lost.get_or_insert_with(Instant::now);
                    if flow.reconnect.is_none_or(|patience| since.elapsed() > patience) {
                        let advice = format!("plug it in again; {RECONNECT} SECONDS waits for it");
                        return Err(Error::input("the stream", format!("{why}; {advice}")));
                    }
                    thread::sleep(Duration::from_millis(200));
                }
            }
            if shared.incoming.is_closed() {
                return Ok(());
            }
        }
        if lost.take().is_some() {
            shared.reconnected.fetch_add(1, Ordering::Relaxed);
        }
        shared.read.fetch_add(1, Ordering::Relaxed);
        let mut item = Item { frame, arrived: Instant::now() };
        if live {
            if let Some(dropped) = shared.incoming.replace(item) {
                shared.dropped.fetch_add(1, Ordering::Relaxed);
                shared.spare_in.replace(dropped.frame);
            }
            continue;
        }
        while let Err(back) = shared.incoming.push(item, POLL_TIMEOUT) {
            if shared.incoming.is_closed() {
                return Ok(());
            }
            item = back;
        }
    }
}

pub(super) fn spawn_writer(
    shared: Arc<Shared>,
    mut sink: Box<dyn Sink>,
    live: bool,
    deadline: Option<Duration>,
) -> Result<JoinHandle<Result<()>>> {
    thread("writing", move || {
        let result = write_all(&shared, sink.as_mut(), live, deadline);
        shared.outgoing.close();
        shared.spare_out.close();
        // Finishes the sink in any case, so that complete frames are kept.
        if shared.cut.load(Ordering::Relaxed) {
            sink.stopped();
        }
        let finished = sink.finish();
        result.and(finished)
    })
}

fn write_all(
    shared: &Shared,
    sink: &mut dyn Sink,
    live: bool,
    deadline: Option<Duration>,
) -> Result<()> {
    loop {
        match shared.outgoing.pop(POLL_TIMEOUT) {
            Popped::Item(item) => {
                let started = Instant::now();
                let mut has_reader = sink.has_reader()?;
                while !has_reader && !live && !shared.stopped.load(Ordering::Relaxed) {
                    thread::sleep(READER_POLL);
                    has_reader = sink.has_reader()?;
                }
                if !has_reader {
                    shared.dropped.fetch_add(1, Ordering::Relaxed);
                    shared.spare_out.replace(item.frame);
                    continue;
                }
                sink.write(&item.frame)?;
                let (writing, latency) = (started.elapsed(), item.arrived.elapsed());
                if deadline.is_some_and(|deadline| latency > deadline) {
                    shared.late.fetch_add(1, Ordering::Relaxed);
                }
                let mut written = shared.written();
                written.count += 1;
                written.writing.add(writing);
                written.latency.add(latency);
                written.moving_average = moving_average(written.moving_average, writing);
                drop(written);
                shared.spare_out.replace(item.frame);
            }
            Popped::Waiting => {}
            Popped::Closed => return Ok(()),
        }
    }
}
