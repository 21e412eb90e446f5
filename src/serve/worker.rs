//! The thread of a model, which loads it and runs one request after the other.

use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use super::engine::Engine;
use super::problem::Problem;
use super::queue::{Done, Job, Ticket};
use super::shared::{ModelState, Shared};
use super::work::{Outcome, Step, Work};
use super::{Loader, ModelFiles, turns};
use crate::error::{Error, Result};
use crate::machine;
use crate::media::still::Limits;
use crate::model::{Package, Precision};
use crate::setting::MAX_MEMORY;
use crate::stages::TextToImage;
use crate::task::Budget;

/// What the work of a request depends on, beside its settings.
pub(super) struct Context<'a> {
    pub(super) shared: &'a Shared,
    pub(super) model: &'a str,
    pub(super) precision: &'static str,
    pub(super) device: &'a str,
    pub(super) limits: &'a Limits,
    pub(super) budget: Budget,
    pub(super) wording: fn(&str) -> String,
}

impl Context<'_> {
    /// Why a request failed.
    pub(super) fn problem(&self, error: &Error) -> Problem {
        let running = self.shared.models.iter().map(|model| model.queue.counts().1);
        turns::problem(error, running.sum::<usize>() > 1, self.wording)
    }

    /// Checks that the process may hold so many more bytes.
    pub(super) fn check_memory(&self, bytes: u64) -> Outcome<()> {
        let taken = machine::resident_memory().saturating_add(bytes);
        if taken <= self.limits.max_memory {
            return Ok(());
        }
        Err(self.problem(&Error::usage(format!(
            "the images take the process to about {} MiB, of {} that it may hold; raise \
             {MAX_MEMORY}, or send fewer or smaller ones",
            taken.div_ceil(1 << 20),
            self.limits.max_memory >> 20,
        ))))
    }

    /// Waits for the turn of an image of so many pixels.
    pub(super) fn turn(
        &self,
        pixels: usize,
        ticket: &Ticket,
    ) -> Outcome<Option<MutexGuard<'_, ()>>> {
        self.shared.turns.take(pixels as u64, self.budget, ticket)
    }
}

/// Loads a model and runs its requests until its queue is closed.
pub(super) fn run(shared: &Arc<Shared>, index: usize, files: ModelFiles, loader: &Loader) {
    let result = match files {
        ModelFiles::Package { package, precision } => {
            run_package(shared, index, &package, precision, loader)
        }
        ModelFiles::Pipeline { folder, options } => {
            TextToImage::open(&loader.runtime, &folder, options).map(|pipeline| {
                run_pipeline(shared, index, pipeline, options.precision, loader);
            })
        }
    };
    if let Err(error) = result {
        shared.fail(error);
    }
}

fn run_package(
    shared: &Arc<Shared>,
    index: usize,
    package: &Package,
    precision: Precision,
    loader: &Loader,
) -> Result<()> {
    let mut network = package.load_with_fallback(&loader.runtime, precision, loader.session)?;
    let Some(model) = shared.models.get(index) else { return Ok(()) };
    let mut engine = Engine {
        manifest: &package.manifest,
        network: &mut network,
        enlarges: model.scale().is_some(),
        tile: loader.tile,
        budget: loader.budget,
    };
    // Errors of the model are reported before a request comes.
    engine.check(&super::settings::Settings::default())?;
    let context = context(shared, model, precision, loader);
    shared.loaded(index);
    each(shared, index, model, |work, ticket| match work {
        Work::File(work) => work.run(&mut engine, ticket, &context),
        Work::Tensors(work) => work.run(&mut engine, ticket, &context),
        Work::Prompt(_) => Err(Problem::invalid("this model takes no prompt")),
    });
    Ok(())
}

fn run_pipeline(
    shared: &Arc<Shared>,
    index: usize,
    mut pipeline: TextToImage,
    precision: Precision,
    loader: &Loader,
) {
    let Some(model) = shared.models.get(index) else { return };
    let context = context(shared, model, precision, loader);
    shared.loaded(index);
    each(shared, index, model, |work, ticket| match work {
        Work::Prompt(work) => work.run(&mut pipeline, ticket, &context).map(Step::Done),
        Work::Tensors(work) => work.run_prompt(&mut pipeline, ticket, &context).map(Step::Done),
        Work::File(_) => Err(Problem::invalid("this model takes a prompt, and no image")),
    });
}

fn context<'a>(
    shared: &'a Shared,
    model: &'a ModelState,
    precision: Precision,
    loader: &'a Loader,
) -> Context<'a> {
    Context {
        shared,
        model: &model.name,
        precision: precision.name(),
        device: &loader.device,
        limits: &loader.limits,
        budget: loader.budget,
        wording: loader.wording,
    }
}

/// Runs requests until the queue is closed.
pub(super) fn each(
    shared: &Arc<Shared>,
    index: usize,
    model: &ModelState,
    mut run: impl FnMut(Work, &Ticket) -> Outcome<Step>,
) {
    while let Some(Job { work, ticket, reply, queued, hold }) = model.queue.pop() {
        let begun = Instant::now();
        let waited = begun.duration_since(queued);
        let step = run(work, &ticket);
        let ran = begun.elapsed();
        model.queue.finished(ran);
        let result = match step {
            Ok(Step::Done(output)) => Ok(output),
            Err(problem) => Err(problem),
            Ok(Step::Forward(other, work)) => {
                let Some(other) = shared.models.get(other) else { continue };
                match other.queue.push(Job { work, ticket, reply, queued, hold }) {
                    Ok(()) => continue,
                    Err(job) => {
                        let result = Err(shared.full(other));
                        let _ = job.reply.send(Done { result, model: index, waited, ran });
                        continue;
                    }
                }
            }
        };
        // The memory is free when the client knows of its result.
        drop(hold);
        // The client may have left.
        let _ = reply.send(Done { result, model: index, waited, ran });
    }
}
