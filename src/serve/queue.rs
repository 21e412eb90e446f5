//! The requests that wait for a model, in the order in which they came.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::body::Hold;
use super::problem::Problem;
use super::work::Work;
use crate::http::lock;

/// What the handler and the worker know of a request.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    is_stopped: AtomicBool,
    is_started: AtomicBool,
}

impl Ticket {
    /// Stops the request: its client left, its time is over, or the server ends.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Whether to go on, between two evaluations of the network.
    pub(super) fn poll(&self) -> ControlFlow<()> {
        if self.is_stopped.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    pub(super) fn is_started(&self) -> bool {
        self.is_started.load(Ordering::Relaxed)
    }
}

/// A finished request.
pub(super) struct Done {
    pub(super) result: Result<super::work::Output, Problem>,
    /// The model that ran it.
    pub(super) model: usize,
    /// How long it waited for the model, and ran.
    pub(super) waited: Duration,
    pub(super) ran: Duration,
}

/// A request that waits.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) ticket: Arc<Ticket>,
    pub(super) reply: oneshot::Sender<Done>,
    pub(super) queued: Instant,
    /// The memory of its body.
    pub(super) hold: Hold,
}

/// The requests of one model.
pub(super) struct Queue {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<Job>,
    is_closed: bool,
    /// The request that runs.
    running: Option<Arc<Ticket>>,
    /// The mean time of a request, over the last ones.
    mean: Duration,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        let mean = Duration::from_millis(500);
        let waiting = VecDeque::new();
        let state = State { waiting, is_closed: false, running: None, mean };
        Self { limit, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// How many requests wait, and run.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.waiting.len(), usize::from(state.running.is_some()))
    }

    /// If there is no place, in how many seconds there may be one.
    pub(super) fn seconds_if_full(&self) -> Option<u64> {
        let state = lock(&self.state);
        (state.waiting.len() >= self.limit).then(|| {
            // By then, half of the queue is done.
            let wait = state.mean.mul_f64((state.waiting.len() as f64 / 2.0).max(1.0));
            wait.as_secs().clamp(1, 60)
        })
    }

    /// Appends a request, or returns it when the queue is full or closed.
    pub(super) fn push(&self, job: Job) -> Result<(), Job> {
        let mut state = lock(&self.state);
        if state.is_closed || state.waiting.len() >= self.limit {
            return Err(job);
        }
        state.waiting.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for a request whose client has not left; none when the queue is closed.
    pub(super) fn pop(&self) -> Option<Job> {
        let mut state = lock(&self.state);
        loop {
            if state.is_closed {
                return None;
            }
            while let Some(job) = state.waiting.pop_front() {
                if job.ticket.poll().is_continue() {
                    job.ticket.is_started.store(true, Ordering::Relaxed);
                    state.running = Some(Arc::clone(&job.ticket));
                    return Some(job);
                }
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Marks that the request in hand took so long.
    pub(super) fn finished(&self, ran: Duration) {
        let mut state = lock(&self.state);
        state.running = None;
        state.mean = state.mean.mul_f64(0.8) + ran.mul_f64(0.2);
    }

    /// Forgets requests that were stopped, so that others get their places.
    pub(super) fn purge(&self) {
        lock(&self.state).waiting.retain(|job| job.ticket.poll().is_continue());
    }

    /// Stops all requests, and lets the worker end.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        state.running.iter().for_each(|ticket| ticket.stop());
        // Their senders are dropped, and so their clients are told.
        state.waiting.clear();
        drop(state);
        self.changed.notify_all();
    }
}
