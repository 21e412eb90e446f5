//! Several frames at the same time, each on its own thread and with its own copy of the network.
//!
//! The threads of one evaluation wait for each other after every operator, and for a core that
//! another program uses. Threads with a frame each do not, and the frames are read, measured and
//! written meanwhile.

mod trials;

pub(super) use self::trials::Trials;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::noise::Noise;
use super::planes::Planes;
use super::working_layout::NetworkInput;
use crate::diffusion::RunStats;
use crate::error::{Error, Result};
use crate::model::Layout;
use crate::network::Network;
use crate::task::Recipe;
use crate::tile::TilePlan;

/// Largest number of lanes. With more threads, each lane has several.
pub(super) const MOST: usize = 4;

/// Frames in process for each lane: the one that it denoises, and the next.
pub(super) const FRAMES_PER_LANE: usize = 2;

/// How often a wait for a frame checks for a stop request.
const POLL_TIMEOUT: Duration = Duration::from_millis(20);

/// A frame in process.
#[derive(Debug)]
pub(super) struct LaneFrame {
    pub(super) x: Vec<f32>,
    /// The input, where the strength is below full.
    pub(super) original: Vec<f32>,
    pub(super) noise: Noise,
    input: NetworkInput,
    /// Standard deviation of the noise for each group of planes, as a part of the full range.
    pub(super) levels: [f64; 2],
}

impl LaneFrame {
    pub(super) fn new(layout: Layout, planes: &Planes, noise: Noise) -> Self {
        Self {
            x: vec![0.0; planes.samples()],
            original: Vec::new(),
            noise,
            input: NetworkInput::new(layout, planes),
            levels: [0.0; 2],
        }
    }
}

/// What is done to every frame.
#[derive(Debug)]
pub(super) struct LaneWork {
    pub(super) recipe: Recipe,
    pub(super) tiles: TilePlan,
    pub(super) layout: Layout,
    pub(super) planes: Planes,
}

/// The result for a frame: statistics, or none if it needed no evaluation.
pub(super) type Outcome = Result<Option<RunStats>>;

/// A frame on its way to a lane, or back.
struct Numbered<T> {
    number: usize,
    frame: LaneFrame,
    rest: T,
}

/// Threads that denoise frames, and the frames in process, which are returned in order.
pub(super) struct Lanes {
    /// Present until the lanes end.
    jobs: Option<Sender<Numbered<Arc<LaneWork>>>>,
    done: Receiver<Numbered<Outcome>>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    work: Arc<LaneWork>,
    /// The frames that were taken, in order; none while a lane has the frame.
    pending: VecDeque<Option<(LaneFrame, Outcome)>>,
    /// The number of the first of them.
    first: usize,
    spare: Vec<LaneFrame>,
}

impl Lanes {
    /// A lane for each of `networks`.
    pub(super) fn new(networks: Vec<Box<dyn Network + Send>>, work: LaneWork) -> Result<Self> {
        let (jobs, waiting) = channel();
        let (finished, done) = channel();
        let (waiting, stop) = (Arc::new(Mutex::new(waiting)), Arc::new(AtomicBool::new(false)));
        let mut lanes = Self {
            jobs: Some(jobs),
            done,
            threads: Vec::new(),
            stop,
            work: Arc::new(work),
            pending: VecDeque::new(),
            first: 0,
            spare: Vec::new(),
        };
        for mut network in networks {
            let (waiting, finished, stop) =
                (Arc::clone(&waiting), finished.clone(), Arc::clone(&lanes.stop));
            let body = move || run_lane(network.as_mut(), &waiting, &finished, &stop);
            let spawned = thread::Builder::new().name("denoising".into()).spawn(body);
            let spawned = spawned.map_err(|error| Error::Evaluation {
                problem: "no thread could be started for denoising".into(),
                source: Some(error.into()),
            });
            lanes.threads.push(spawned?);
        }
        Ok(lanes)
    }

    /// Sets what is done to frames from now on.
    pub(super) fn set_work(&mut self, work: LaneWork) {
        self.work = Arc::new(work);
    }

    /// A frame that was returned by [`recycle`](Self::recycle), to be filled again.
    pub(super) fn spare(&mut self) -> Option<LaneFrame> {
        self.spare.pop()
    }

    pub(super) fn recycle(&mut self, frame: LaneFrame) {
        self.spare.push(frame);
    }

    /// Takes a frame to be denoised.
    pub(super) fn denoise(&mut self, frame: LaneFrame) {
        let number = self.first + self.pending.len();
        self.pending.push_back(None);
        if let Some(jobs) = &self.jobs {
            // The lanes take jobs until the sender is dropped.
            let _ = jobs.send(Numbered { number, frame, rest: Arc::clone(&self.work) });
        }
    }

    /// Takes a frame that needs no evaluation, or whose input is invalid.
    pub(super) fn keep(&mut self, frame: LaneFrame, outcome: Result<()>) {
        self.pending.push_back(Some((frame, outcome.map(|()| None))));
    }

    /// The next frame, in order, once it is done.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `watch` stops the wait; an error when the lanes have failed.
    pub(super) fn next(
        &mut self,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<(LaneFrame, Outcome)> {
        loop {
            if watch().is_break() {
                self.stop.store(true, Ordering::Relaxed);
                return Err(Error::Interrupted);
            }
            if let Some(Some(finished)) = self.pending.front_mut().map(Option::take) {
                self.pending.pop_front();
                self.first += 1;
                return Ok(finished);
            }
            match self.done.recv_timeout(POLL_TIMEOUT) {
                Ok(Numbered { number, frame, rest }) => {
                    if let Some(place) = self.pending.get_mut(number - self.first) {
                        *place = Some((frame, rest));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::evaluation("the threads that denoise frames have ended"));
                }
            }
        }
    }
}

impl Drop for Lanes {
    /// Ends the threads after their current evaluations.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Denoises frames until there are no more.
fn run_lane(
    network: &mut (dyn Network + Send),
    waiting: &Mutex<Receiver<Numbered<Arc<LaneWork>>>>,
    finished: &Sender<Numbered<Outcome>>,
    stop: &AtomicBool,
) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Numbered { number, mut frame, rest: work }) = next else { return };
        // A frame without an answer would be waited for forever.
        let outcome = catch_unwind(AssertUnwindSafe(|| denoise(network, &work, &mut frame, stop)));
        let rest = outcome.unwrap_or_else(|_| {
            // Its buffers may be missing.
            let noise = Noise::none(&work.planes, frame.noise.is_per_sample());
            frame = LaneFrame::new(work.layout, &work.planes, noise);
            Err(Error::evaluation("a thread panicked while it denoised"))
        });
        if finished.send(Numbered { number, frame, rest: rest.map(Some) }).is_err() {
            return;
        }
    }
}

fn denoise(
    network: &mut (dyn Network + Send),
    work: &LaneWork,
    frame: &mut LaneFrame,
    stop: &AtomicBool,
) -> Result<RunStats> {
    let goes_on = || match stop.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    if goes_on().is_break() {
        return Err(Error::Interrupted);
    }
    let LaneFrame { x, noise, input, .. } = frame;
    input.pass(work.layout, &work.planes, (x, noise), |tensor, map| {
        work.recipe.run(network, tensor, map, &work.tiles, None, &mut |_| goes_on())
    })
}

#[cfg(test)]
mod tests;
