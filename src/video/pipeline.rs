//! Read, work and write at the same time.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::threads::{Item, Shared, spawn_reader, spawn_writer};
use super::histogram::Histogram;
use super::pace::{Pace, Target, lately};
use super::queue::{Popped, Queue};
use super::{Quality, Treatment, Wishes};
use crate::error::{Error, Result};
use crate::frame::stream::{Picture, Sink, Source, reader_is_gone};

/// How long a thread waits before it looks up.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long it takes until it is looked again whether somebody reads, or has read.
const GLANCE: Duration = Duration::from_millis(10);

/// How long a reader of ours may take what is written already, when the run is stopped.
const GRACE: Duration = Duration::from_secs(2);

/// How pictures go through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    /// Pictures that may wait to be worked on, and as many to be written. A live source's oldest is dropped for a newer one;
    /// any other source waits.
    pub waiting: usize,
    /// Whether a corrupt picture of a file is passed over. A live source's always is.
    pub skip_corrupt: bool,
    /// How long a source may be silent; `None` for ever.
    pub stall: Option<Duration>,
    /// How long a live source that is gone is waited for; `None` ends the run at once.
    pub reconnect: Option<Duration>,
    /// How fast pictures are to go through.
    pub target: Target,
}

impl Default for Flow {
    fn default() -> Self {
        Self { waiting: 2, skip_corrupt: false, stall: None, reconnect: None, target: Target::default() }
    }
}

/// What is done to a picture: from the source's into the sink's. `output` keeps its memory.
pub trait Restore {
    /// Works on one picture. `watch` is to be asked now and then whether to go on.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn restore(
        &mut self,
        input: &Picture,
        output: &mut Picture,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()>;

    /// What is being done to pictures.
    fn treatment(&self) -> Treatment;

    /// The next picture should take no longer than this.
    fn allow(&mut self, _budget: Duration) {}

    /// From the next picture on, do as is wished, as far as it can be done.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn heed(&mut self, _wishes: &Wishes) -> Result<()> {
        Ok(())
    }
}

/// Who watches a run.
pub trait Watch {
    /// Hears of every picture, of every evaluation, and about twenty times a second; can stop the run.
    fn look(&mut self, running: &Running<'_>) -> ControlFlow<()>;

    /// Sees every picture, before and after.
    fn show(&mut self, _before: &Picture, _after: &Picture) {}

    /// What is to be done otherwise, asked before every picture.
    fn wishes(&mut self) -> Option<Wishes> {
        None
    }
}

impl<F: FnMut(&Running<'_>) -> ControlFlow<()>> Watch for F {
    fn look(&mut self, running: &Running<'_>) -> ControlFlow<()> {
        self(running)
    }
}

/// A run, seen while it goes on.
pub struct Running<'a> {
    shared: &'a Shared,
    begun: Option<Instant>,
    treatment: &'a Treatment,
}

impl Running<'_> {
    /// How far it has come.
    pub fn tally(&self) -> Tally {
        self.shared.tally(self.begun)
    }

    /// What was done to the last picture, or will be to the first.
    pub fn treatment(&self) -> &Treatment {
        self.treatment
    }

    /// From arrival to when it was written, of all pictures so far; one of a file arrives when it is its turn.
    pub fn latency(&self) -> Histogram {
        self.shared.written().latency.clone()
    }
}

/// How far a run has come.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Pictures that came.
    pub read: u64,
    /// Pictures that were written.
    pub written: u64,
    /// Pictures of a live source that were dropped because newer ones came.
    pub dropped: u64,
    /// Pictures that were no whole pictures.
    pub corrupt: u64,
    /// How often the source was gone and came back.
    pub reconnected: u64,
    /// Pictures that were written after their deadline.
    pub late: u64,
    /// Since the first picture came.
    pub elapsed: Duration,
}

impl Tally {
    /// Pictures written a second.
    pub fn rate(&self) -> f64 {
        self.written as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// What a run was like.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How far it came.
    pub tally: Tally,
    /// From a picture's arrival to when it was written; one of a file arrives when it is its turn.
    pub latency: Histogram,
    /// Waiting for a picture.
    pub waiting: Histogram,
    /// Work on a picture.
    pub work: Histogram,
    /// Writing a picture.
    pub writing: Histogram,
    /// How many pictures were treated how, in the order in which that first happened.
    pub qualities: Vec<(Quality, u64)>,
    /// What was done to the last picture.
    pub treatment: Option<Treatment>,
}

impl Summary {
    fn count(&mut self, quality: &Quality) {
        match self.qualities.iter_mut().find(|(of, _)| of == quality) {
            Some((_, count)) => *count += 1,
            None => self.qualities.push((quality.clone(), 1)),
        }
    }
}

/// Takes every picture from `source` through `restorer` to `sink`. `watch` can stop the run. Memory is taken for the first pictures and then used again.
///
/// However it ends, the sink is finished, so that what was written is whole. The reading thread ends with the picture that
/// it waits for; if none comes, it stays until the process ends.
///
/// # Errors
/// What the source, the restorer or the sink met, [`Error::Interrupted`] when `watch` stopped the run. A sink whose reader has
/// had enough is no error.
pub fn run(
    source: Box<dyn Source>,
    sink: Box<dyn Sink>,
    restorer: &mut dyn Restore,
    flow: Flow,
    watch: &mut dyn Watch,
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
        shared.spare_in.replace(Picture::default());
        shared.spare_out.replace(Picture::default());
    }
    let (live, waits_for_reader) = (source.is_live(), sink.waits_for_reader());
    let reader = spawn_reader(Arc::clone(&shared), source, flow);
    let writer = spawn_writer(Arc::clone(&shared), sink, live, flow.target.deadline);
    let treatment = restorer.treatment();
    let mut worker = Worker { shared: &shared, live, summary: Summary::default(), begun: None, treatment, watch };
    let mut worked = worker.work(restorer, flow);
    shared.incoming.close();
    shared.spare_in.close();
    shared.outgoing.close();
    if let (true, Ok(writer)) = (waits_for_reader, &writer) {
        worked = worker.let_be_read(writer, worked);
    }
    let Worker { mut summary, begun, treatment, .. } = worker;
    summary.treatment = Some(treatment);
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
    summary.tally = shared.tally(begun);
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
    treatment: Treatment,
    watch: &'a mut dyn Watch,
}

impl Worker<'_> {
    /// Works until the source ends, which gives true, or the sink does, or something else says stop.
    fn work(&mut self, restorer: &mut dyn Restore, flow: Flow) -> Result<bool> {
        let mut silent = Instant::now();
        let mut pace = flow.target.rate.map(Pace::new);
        let mut waited = Duration::ZERO;
        loop {
            if let Some(pace) = &mut pace {
                while let Some(early) = pace.early() {
                    thread::sleep(early.min(PATIENCE));
                    self.look_up()?;
                }
            }
            self.look_up()?;
            let mut item = match self.shared.incoming.pop(PATIENCE) {
                Popped::Item(item) => item,
                Popped::Closed => return Ok(true),
                Popped::Waiting => {
                    if let Some(stall) = flow.stall
                        && silent.elapsed() > stall
                    {
                        return Err(Error::input(
                            "the stream",
                            format!(
                                "no picture has come for {:.0} s; check the source, or raise --stall-timeout",
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
            if let Some(wishes) = self.watch.wishes() {
                restorer.heed(&wishes)?;
                self.treatment = restorer.treatment();
            }
            waited = lately(waited, item.arrived.elapsed());
            if let Some(budget) = flow.target.budget(waited, self.shared.written().lately) {
                restorer.allow(budget);
            }
            let begun = Instant::now();
            let Self { watch, shared, begun: first, treatment, .. } = self;
            let running = Running { shared, begun: *first, treatment };
            restorer.restore(&item.picture, &mut output, &mut || watch.look(&running))?;
            self.summary.work.add(begun.elapsed());
            // As it was for this picture; the next may be treated otherwise.
            self.summary.count(&self.treatment.quality);
            self.treatment = restorer.treatment();
            (output.index, output.time) = (item.picture.index, item.picture.time);
            output.tags.clone_from(&item.picture.tags);
            self.watch.show(&item.picture, &output);
            self.shared.spare_in.replace(item.picture);
            let mut done = Item { picture: output, arrived: item.arrived };
            while let Err(back) = self.shared.outgoing.push(done, PATIENCE) {
                if self.shared.outgoing.is_closed() {
                    return Ok(false);
                }
                self.look_up()?;
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
                worked = self.look_up().and(worked);
            }
            if worked.is_err() {
                self.shared.stopped.store(true, Ordering::Relaxed);
                if stopped.get_or_insert_with(Instant::now).elapsed() > GRACE {
                    break;
                }
            }
            thread::sleep(GLANCE);
        }
        worked
    }

    fn look_up(&mut self) -> Result<()> {
        let running = Running { shared: self.shared, begun: self.begun, treatment: &self.treatment };
        match self.watch.look(&running) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }

    /// Memory for a result; none when nobody takes results any more.
    fn spare(&mut self) -> Result<Option<Picture>> {
        loop {
            match self.shared.spare_out.pop(PATIENCE) {
                Popped::Item(picture) => return Ok(Some(picture)),
                Popped::Closed => return Ok(None),
                Popped::Waiting => self.look_up()?,
            }
        }
    }
}

mod threads;

#[cfg(test)]
mod tests;
