//! Evaluations that are ended from outside: when somebody asked to stop, or when one takes longer than it may.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use ort::session::{NoSelectedOutputs, RunOptions};

/// Why an evaluation was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Somebody asked to stop, and it did not end by itself.
    Stopped,
    /// It took longer than this.
    Late(Duration),
}

/// The evaluations of one network, one at a time.
pub(super) struct Watched {
    pub(super) options: RunOptions<NoSelectedOutputs>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    /// When the evaluation at hand began; none while there is none.
    begun: Option<Instant>,
    ended: Option<Ended>,
}

/// All networks that there are.
static WATCHED: Mutex<Vec<Weak<Watched>>> = Mutex::new(Vec::new());

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched {
    pub(super) fn new() -> ort::Result<Arc<Self>> {
        let watched = Arc::new(Self { options: RunOptions::new()?, state: Mutex::default() });
        let mut all = locked(&WATCHED);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&watched));
        Ok(watched)
    }

    /// An evaluation begins.
    pub(super) fn begin(&self) -> ort::Result<()> {
        let mut state = locked(&self.state);
        if state.ended.take().is_some() {
            self.options.unterminate()?;
        }
        state.begun = Some(Instant::now());
        Ok(())
    }

    /// It has come to an end; by itself, or else why.
    pub(super) fn end(&self) -> Option<Ended> {
        let mut state = locked(&self.state);
        state.begun = None;
        state.ended
    }

    fn end_if_older(&self, since: Instant, limit: Duration, why: Ended) {
        let mut state = locked(&self.state);
        if state.ended.is_none() && state.begun.is_some_and(|begun| begun.max(since).elapsed() >= limit) {
            // What cannot be ended goes on.
            state.ended = self.options.terminate().ok().map(|()| why);
        }
    }
}

/// Ends every evaluation of this process, from now on, that takes longer than `limit`: it fails as
/// [`Error::Evaluation`](crate::Error::Evaluation).
pub fn limit_evaluations(limit: Duration) {
    watch(limit, Ended::Late(limit));
}

/// Somebody asked to stop: ends every evaluation of this process that takes longer than `grace` from now on, or from its own beginning.
/// It fails as [`Error::Interrupted`](crate::Error::Interrupted). Those that come to an end before are as they would have been.
pub fn stop_evaluations(grace: Duration) {
    watch(grace, Ended::Stopped);
}

fn watch(limit: Duration, why: Ended) {
    let since = Instant::now();
    let pause = (limit / 16).clamp(Duration::from_millis(5), Duration::from_millis(500));
    let body = move || {
        loop {
            thread::sleep(pause);
            locked(&WATCHED).iter().filter_map(Weak::upgrade).for_each(|it| it.end_if_older(since, limit, why));
        }
    };
    // Without a thread nobody watches, and evaluations end by themselves or not at all.
    let _ = thread::Builder::new().name("watching".into()).spawn(body);
}
