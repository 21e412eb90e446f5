//! Runs a pipeline with the interpreter's lock released, and takes it for signals and progress.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use eddy::diffusion::Progress;
use pyo3::prelude::*;

use crate::errors::exception;

/// A pipeline that one thread at a time uses.
pub(crate) struct Shared<P>(Mutex<P>);

impl<P: Send> Shared<P> {
    pub(crate) fn new(pipeline: P) -> Self {
        Self(Mutex::new(pipeline))
    }

    /// Calls `run` with the pipeline and an observer. `progress`, a callable of the evaluations
    /// done and their total, stops the run by an exception, or by returning `False`; so does
    /// Ctrl-C.
    pub(crate) fn run<T: Send>(
        &self,
        py: Python<'_>,
        progress: Option<&Py<PyAny>>,
        run: impl FnOnce(&mut P, &mut dyn FnMut(Progress) -> ControlFlow<()>) -> eddy::Result<T> + Send,
    ) -> PyResult<T> {
        let mut raised = None;
        let result = py.detach(|| {
            let mut observe = |at: Progress| match Python::attach(|py| report(py, progress, at)) {
                Ok(flow) => flow,
                Err(error) => {
                    raised = Some(error);
                    ControlFlow::Break(())
                }
            };
            // A panic of another call leaves nothing half done that the next one would see.
            let mut pipeline = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            run(&mut pipeline, &mut observe)
        });
        match (raised, result) {
            (Some(error), _) => Err(error),
            (None, result) => result.map_err(|error| exception(py, &error)),
        }
    }
}

fn report(py: Python<'_>, progress: Option<&Py<PyAny>>, at: Progress) -> PyResult<ControlFlow<()>> {
    py.check_signals()?;
    let Some(progress) = progress else { return Ok(ControlFlow::Continue(())) };
    let answer = progress.call1(py, (at.done, at.total))?;
    let is_false = answer.bind(py).extract::<bool>().is_ok_and(|goes_on| !goes_on);
    Ok(if is_false { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
}
