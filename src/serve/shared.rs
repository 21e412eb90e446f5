//! What the connections and the workers share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::sync::watch;

use super::body::BodyMemory;
use super::metrics::Metrics;
use super::problem::Problem;
use super::queue::Queue;
use super::record::Log;
use super::turns::Turns;
use crate::error::Error;
use crate::http::{Connections, Gate, lock};

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Denoises, or sharpens. `has_planes` is true for networks of luma and chroma, which remove
    /// the noise of cameras and codecs.
    Denoise { has_planes: bool },
    /// Enlarges by this factor.
    Upscale { scale: usize },
    /// Makes images of a text.
    Generate,
}

/// A model, from the start of the server on.
pub(super) struct ModelState {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) precision: &'static str,
    pub(super) queue: Queue,
    is_ready: AtomicBool,
}

impl ModelState {
    pub(super) fn new(name: String, kind: Kind, precision: &'static str, limit: usize) -> Self {
        let (queue, is_ready) = (Queue::new(limit), AtomicBool::new(false));
        Self { name, kind, precision, queue, is_ready }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    /// The factor of a model that enlarges.
    pub(super) fn scale(&self) -> Option<usize> {
        match self.kind {
            Kind::Upscale { scale } => Some(scale),
            _ => None,
        }
    }
}

/// What the connections and the workers share.
pub(super) struct Shared {
    pub(super) models: Vec<ModelState>,
    pub(super) gate: Gate,
    pub(super) has_token: bool,
    pub(super) max_body: u64,
    pub(super) request_timeout: Option<Duration>,
    pub(super) memory: Arc<BodyMemory>,
    pub(super) turns: Turns,
    pub(super) connections: Arc<Connections>,
    pub(super) metrics: Metrics,
    pub(super) started: Instant,
    pub(super) device: String,
    pub(super) log: Option<Log>,
    pub(super) ready: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    pub(super) failure: Mutex<Option<Error>>,
    pub(super) stop: Arc<watch::Sender<bool>>,
    /// Requests that are being answered.
    pub(super) active: AtomicUsize,
    pub(super) count: AtomicU64,
}

impl Shared {
    /// Whether the server is shutting down.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.is_stopping() && self.models.iter().all(ModelState::is_ready)
    }

    /// Called by a worker whose model is loaded.
    pub(super) fn loaded(&self, index: usize) {
        if let Some(model) = self.models.get(index) {
            model.is_ready.store(true, Ordering::Relaxed);
        }
        if self.models.iter().all(ModelState::is_ready)
            && let Some(ready) = lock(&self.ready).take()
        {
            ready();
        }
    }

    /// Called by a worker whose model cannot be loaded, which ends the server.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
        self.stop.send_replace(true);
    }

    /// Why a model takes no further request.
    pub(super) fn full(&self, model: &ModelState) -> Problem {
        if self.is_stopping() {
            return Problem::stopping();
        }
        let seconds = model.queue.seconds_if_full().unwrap_or(1);
        let (waiting, _) = model.queue.counts();
        let text = format!(
            "{waiting} requests wait for {} already, and no more may (--queue); try again in \
             {seconds} s",
            model.name
        );
        Problem::retry(StatusCode::TOO_MANY_REQUESTS, text, seconds)
    }

    /// The index of a model by its name.
    pub(super) fn model(&self, name: &str) -> Result<usize, Problem> {
        self.models.iter().position(|model| model.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.models.iter().map(|model| model.name.as_str()).collect();
            let text = format!("the model {name:?} is not loaded; there are {}", names.join(", "));
            Problem::not_found(text)
        })
    }

    /// The index of the first model of which that is true.
    pub(super) fn first(&self, is_it: impl Fn(&ModelState) -> bool) -> Option<usize> {
        self.models.iter().position(is_it)
    }

    /// Frees the places of requests that were stopped.
    pub(super) fn purge(&self) {
        self.models.iter().for_each(|model| model.queue.purge());
    }
}
