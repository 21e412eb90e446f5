//! Runs a pipeline with the interpreter's lock released, and takes it for signals and progress.

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use eddy::Error;
use eddy::diffusion::Progress;
use pyo3::prelude::*;

use crate::errors::{exception, usage};

/// A pipeline that one thread at a time uses, and that thread.
pub(crate) struct Shared<P> {
    pipeline: Mutex<P>,
    user: Mutex<Option<ThreadId>>,
}

/// How often a call that waits for another one looks for Ctrl-C.
const POLL: Duration = Duration::from_millis(2);

impl<P: Send> Shared<P> {
    pub(crate) fn new(pipeline: P) -> Self {
        Self { pipeline: Mutex::new(pipeline), user: Mutex::new(None) }
    }

    /// Calls `run` with the pipeline and an observer. `progress`, a callable of the evaluations
    /// done and their total, stops the run by an exception, or by returning `False`; so does
    /// Ctrl-C. A call waits for those of other threads; one from within `progress` is refused.
    pub(crate) fn run<T: Send>(
        &self,
        py: Python<'_>,
        progress: Option<&Py<PyAny>>,
        run: impl FnOnce(&mut P, &mut dyn FnMut(Progress) -> ControlFlow<()>) -> eddy::Result<T> + Send,
    ) -> PyResult<T> {
        if *lock(&self.user) == Some(thread::current().id()) {
            let problem = "it is called from within its own progress; make another one for that";
            return Err(usage(py, problem));
        }
        let mut raised = None;
        let result = py.detach(|| {
            let mut pipeline = loop {
                match self.pipeline.try_lock() {
                    Ok(pipeline) => break pipeline,
                    // A panic of another call leaves nothing half done that the next one would see.
                    Err(TryLockError::Poisoned(error)) => break error.into_inner(),
                    Err(TryLockError::WouldBlock) => thread::sleep(POLL),
                }
                if let Err(error) = Python::attach(|py| py.check_signals()) {
                    raised = Some(error);
                    return Err(Error::Interrupted);
                }
            };
            let _use = Use::begin(self);
            let mut observe = |at: Progress| match Python::attach(|py| report(py, progress, at)) {
                Ok(flow) => flow,
                Err(error) => {
                    raised = Some(error);
                    ControlFlow::Break(())
                }
            };
            run(&mut pipeline, &mut observe)
        });
        match (raised, result) {
            (Some(error), _) => Err(error),
            (None, result) => result.map_err(|error| exception(py, &error)),
        }
    }
}

/// The time during which a thread uses a pipeline.
struct Use<'a>(&'a Mutex<Option<ThreadId>>);

impl<'a> Use<'a> {
    fn begin<P>(shared: &'a Shared<P>) -> Self {
        *lock(&shared.user) = Some(thread::current().id());
        Self(&shared.user)
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        *lock(self.0) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(py: Python<'_>, progress: Option<&Py<PyAny>>, at: Progress) -> PyResult<ControlFlow<()>> {
    py.check_signals()?;
    let Some(progress) = progress else { return Ok(ControlFlow::Continue(())) };
    let answer = progress.call1(py, (at.done, at.total))?;
    let is_false = answer.bind(py).extract::<bool>().is_ok_and(|goes_on| !goes_on);
    Ok(if is_false { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
}
