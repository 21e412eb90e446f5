//! Terminates evaluations and abandons loads on request, or when they exceed a time limit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ort::session::{NoSelectedOutputs, RunOptions};

use crate::error::{Error, Result};
use crate::setting::TIMEOUT;

/// Why an evaluation was terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// A stop was requested, and the evaluation did not finish in time.
    Stopped,
    /// It exceeded this limit.
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
    /// When the current evaluation began; none between evaluations.
    started: Option<Instant>,
    ended: Option<Ended>,
}

/// All networks.
static RUNNING_NETWORKS: Mutex<Vec<Weak<Watched>>> = Mutex::new(Vec::new());

/// The time limits of evaluations and loads: the start, the duration, and the reason.
static LIMITS: Mutex<Vec<(Instant, Duration, Ended)>> = Mutex::new(Vec::new());

/// Whether a load was abandoned and may still be running.
static LOAD_ABANDONED: AtomicBool = AtomicBool::new(false);

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched {
    pub(super) fn new() -> ort::Result<Arc<Self>> {
        let watched = Arc::new(Self { options: RunOptions::new()?, state: Mutex::default() });
        let mut all = locked(&RUNNING_NETWORKS);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&watched));
        Ok(watched)
    }

    /// Marks the start of an evaluation.
    pub(super) fn begin(&self) -> ort::Result<()> {
        let mut state = locked(&self.state);
        if state.ended.take().is_some() {
            self.options.unterminate()?;
        }
        state.started = Some(Instant::now());
        Ok(())
    }

    /// Marks the end of an evaluation. Returns why it was terminated, if it was.
    pub(super) fn end(&self) -> Option<Ended> {
        let mut state = locked(&self.state);
        state.started = None;
        state.ended
    }

    fn end_if_older(&self, since: Instant, limit: Duration, why: Ended) {
        let mut state = locked(&self.state);
        if state.ended.is_none()
            && state.started.is_some_and(|started| started.max(since).elapsed() >= limit)
        {
            // An evaluation that cannot be terminated continues.
            state.ended = self.options.terminate().ok().map(|()| why);
        }
    }
}

/// From now on, terminates every evaluation of this process that takes longer than `limit`. It
/// fails with [`Error::Evaluation`](crate::Error::Evaluation).
pub fn limit_evaluations(limit: Duration) {
    watch(limit, Ended::Late(limit));
}

/// Requests a stop: terminates every evaluation of this process that takes longer than `grace` from
/// now on or from its own start. It fails with [`Error::Interrupted`](crate::Error::Interrupted).
/// Evaluations that finish earlier are not affected.
pub fn stop_evaluations(grace: Duration) {
    watch(grace, Ended::Stopped);
}

fn watch(limit: Duration, why: Ended) {
    let since = Instant::now();
    locked(&LIMITS).push((since, limit, why));
    let pause = (limit / 16).clamp(Duration::from_millis(5), Duration::from_millis(500));
    let body = move || {
        loop {
            thread::sleep(pause);
            locked(&RUNNING_NETWORKS)
                .iter()
                .filter_map(Weak::upgrade)
                .for_each(|it| it.end_if_older(since, limit, why));
        }
    };
    // Without this thread, evaluations have no time limit.
    let _ = thread::Builder::new().name("watching".into()).spawn(body);
}

/// Loads a network during a run, on a separate thread. A load cannot be terminated, so one that
/// exceeds the limit on evaluations is abandoned and continues until the process ends.
///
/// # Errors
/// Those of `load`, [`Error::Model`] when it takes too long, and [`Error::Interrupted`].
pub(crate) fn load<T: Send + 'static>(
    model: &str,
    load: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let started = Instant::now();
    let (done, loaded) = mpsc::sync_channel(1);
    let body = move || drop(done.send(load()));
    let spawned = thread::Builder::new().name("loading".into()).spawn(body);
    spawned.map_err(|cause| {
        Error::model_from(model, "no thread could be started to load it", cause)
    })?;
    loop {
        match loaded.recv_timeout(Duration::from_millis(20)) {
            Ok(loaded) => return loaded,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Error::model(model, "loading it failed"));
            }
        }
        let is_over = |(since, limit, _): &&(Instant, Duration, Ended)| {
            started.max(*since).elapsed() >= *limit
        };
        if let Some((_, _, why)) = locked(&LIMITS).iter().find(is_over) {
            LOAD_ABANDONED.store(true, Ordering::Relaxed);
            return Err(match why {
                Ended::Stopped => Error::Interrupted,
                Ended::Late(limit) => too_long(model, *limit),
            });
        }
    }
}

/// The error for an evaluation that exceeded the time limit.
pub(super) fn took_too_long(model: &str, limit: Duration, cause: ort::Error) -> Error {
    let seconds = limit.as_secs_f64();
    Error::Evaluation {
        problem: format!(
            "model {model}: an evaluation took longer than {seconds} s and was ended; raise {TIMEOUT}"
        ),
        source: Some(Box::new(cause)),
    }
}

/// The error for a network that exceeds the time limit of loads.
pub fn too_long(model: &str, limit: Duration) -> Error {
    let seconds = limit.as_secs_f64();
    Error::model(
        model,
        format!("loading it takes longer than {seconds} s; raise {TIMEOUT}, or take another model"),
    )
}

/// Whether ONNX Runtime may still be running on an abandoned thread. The process must then end with
/// [`exit_at_once`](crate::machine::exit_at_once), because the library must not be unloaded under
/// that thread.
pub fn is_load_abandoned() -> bool {
    LOAD_ABANDONED.load(Ordering::Relaxed)
}
