//! `eddy serve`: models that are loaded once, and run the requests of many clients over HTTP.
//!
//! One thread runs all connections (hyper, as for the live view); each model has a thread of its
//! own, which loads it and runs one request after the other, from a bounded queue. Image files are
//! decoded and encoded there, too, so that the thread of the connections never works for long.
//!
//! A request passes `handler` (guards, limits, deadlines), a `queue`, and a `worker`, whose `engine`
//! runs the network. It is stopped between two evaluations when its client leaves.
//!
//! Requests are not joined to batches: on two cores, batches of 4 and 8 images of 64x64 to 512x512
//! took 0.7 to 4 times as long an image as single ones, which differ as much among themselves.

mod body;
mod bounded;
mod engine;
mod exchange;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handler;
mod kserve;
mod listen;
mod metrics;
mod negotiate;
mod openai;
mod options;
mod pixels;
mod problem;
mod query;
mod queue;
mod record;
mod route;
mod settings;
mod shared;
mod submit;
mod tensors;
mod turns;
mod work;
mod worker;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::error::{Error, Result};
pub use crate::http::Token;
use crate::http::{ConnectionLimits, Connections, Gate, Profile, Served, accept, lock};
use crate::network::stop_evaluations;
use body::BodyMemory;
use handler::RequestHandler;
pub use listen::Listen;
use metrics::Metrics;
pub use options::{Loader, ModelFiles, ServeOptions, ServedModel};
pub use record::{Log, Record};
use shared::{ModelState, Shared};
use turns::Turns;

/// A client that closes its sending side has left.
const PROFILE: Profile =
    Profile { idle: Duration::from_secs(30), half_close: false, lingers: true };

/// Connections beside those whose requests wait or run.
const CONNECTIONS: usize = 256;

/// Memory of the bodies of requests and answers: so many of the largest, and at least so much, but
/// no more than this part of the memory limit.
const BODIES: u64 = 4;
const MIN_BODY_MEMORY: u64 = 256 << 20;
const BODY_PART: u64 = 4;

/// After the grace, requests may take so long to end, and their answers to be sent.
const LAST: Duration = Duration::from_secs(2);

/// How often the end of requests is checked for.
const POLL: Duration = Duration::from_millis(20);

/// A server that listens, and does not answer yet.
pub struct Server {
    runtime: runtime::Runtime,
    sockets: Vec<listen::Open>,
    shared: Arc<Shared>,
    models: Vec<ModelFiles>,
    loader: Arc<Loader>,
    grace: Duration,
}

/// Requests that a server stops. It may be used on any thread.
#[derive(Clone)]
pub struct Stopper(Arc<watch::Sender<bool>>);

impl Stopper {
    /// Requests the stop: no further requests are taken.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Requests that were cut off at the end of the grace.
    pub cut_off: usize,
    /// Whether all threads have ended. If not, one runs a network, and the process has to end by
    /// [`exit_at_once`](crate::machine::exit_at_once).
    pub is_clean: bool,
}

impl Server {
    /// Listens at all places. The models are loaded by [`run`](Self::run).
    ///
    /// # Errors
    /// [`Error::Usage`] where it cannot listen, for an address that other machines can reach
    /// without a token, and for models with equal names; [`Error::Model`] for a model that neither
    /// denoises, nor enlarges, nor makes images of a text.
    pub fn bind(models: Vec<ServedModel>, loader: Loader, options: ServeOptions) -> Result<Self> {
        let mut states = Vec::new();
        for (i, model) in models.iter().enumerate() {
            let name = &model.name;
            if models.iter().take(i).any(|other| other.name == *name) {
                let text = format!("two models are called {name}; name one NAME=MODEL");
                return Err(Error::usage(text));
            }
            let precision = match &model.files {
                ModelFiles::Package { precision, .. } => precision.name(),
                ModelFiles::Pipeline { options, .. } => options.precision.name(),
            };
            let kind = model.kind()?;
            states.push(ModelState::new(name.clone(), kind, precision, options.queue));
        }
        let failed = |error| Error::usage(format!("no server can be started: {error}"));
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let sockets = {
            let _inside = runtime.enter();
            listen::open(&options.listen)?
        };
        let is_local = |socket: &listen::Open| socket.address.is_none_or(|it| it.is_loopback());
        if let Some(socket) = sockets.iter().find(|socket| !is_local(socket))
            && options.token.is_none()
        {
            return Err(Error::usage(format!(
                "{} can be reached from other machines and needs a token: --token-file FILE, or \
                 EDDY_TOKEN",
                socket.url
            )));
        }
        let total = CONNECTIONS + models.len() * options.queue;
        let limits = ConnectionLimits { total, each: total / 2, local: total };
        let body_memory = options.max_body.saturating_mul(BODIES).max(MIN_BODY_MEMORY);
        let body_memory = body_memory.min(loader.budget.max_memory / BODY_PART);
        let shared = Shared {
            models: states,
            has_token: options.token.is_some(),
            gate: Gate::new(options.token),
            max_body: options.max_body.min(body_memory),
            request_timeout: options.request_timeout,
            memory: BodyMemory::new(body_memory),
            turns: Turns::default(),
            connections: Arc::new(Connections::new(limits)),
            metrics: Metrics::default(),
            started: Instant::now(),
            device: loader.device.clone(),
            log: options.log,
            ready: Mutex::new(Some(options.ready)),
            failure: Mutex::default(),
            stop: Arc::new(watch::Sender::new(false)),
            active: AtomicUsize::new(0),
            count: AtomicU64::new(0),
        };
        Ok(Self {
            runtime,
            sockets,
            shared: Arc::new(shared),
            models: models.into_iter().map(|model| model.files).collect(),
            loader: Arc::new(loader),
            grace: options.grace,
        })
    }

    /// Where it listens.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().map(|socket| socket.url.as_str())
    }

    /// What requests that the server stops.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.shared.stop))
    }

    /// Loads the models and answers requests until a stop is requested.
    ///
    /// # Errors
    /// That of the first model that cannot be loaded.
    pub fn run(self) -> Result<Ended> {
        let Self { runtime, sockets, shared, models, loader, grace } = self;
        let mut workers = Vec::new();
        for (index, files) in models.into_iter().enumerate() {
            let (shared, loader) = (Arc::clone(&shared), Arc::clone(&loader));
            let body = move || worker::run(&shared, index, files, &loader);
            let spawned = thread::Builder::new().name(format!("model {index}")).spawn(body);
            workers.push(spawned.map_err(|error| {
                Error::usage(format!("a model gets no thread ({error}); serve fewer"))
            })?);
        }
        let mut files = Vec::new();
        let cut_off = runtime.block_on(async {
            for socket in sockets {
                let handler =
                    RequestHandler { shared: Arc::clone(&shared), address: socket.address };
                let served = Served {
                    handler: Arc::new(handler),
                    connections: Arc::clone(&shared.connections),
                    profile: PROFILE,
                    draining: shared.stop.subscribe(),
                };
                tokio::spawn(accept(socket.listener, Arc::new(served)));
                files.extend(socket.file);
            }
            drain(&shared, grace).await
        });
        drop((runtime, files));
        if let Some(error) = lock(&shared.failure).take() {
            return Err(error);
        }
        Ok(Ended { cut_off, is_clean: have_ended(&workers) })
    }
}

/// Waits for a stop, and then for the requests that are being answered; returns how many were cut
/// off.
async fn drain(shared: &Shared, grace: Duration) -> usize {
    let mut stop = shared.stop.subscribe();
    // The sender is not dropped before.
    let _ = stop.wait_for(|it| *it).await;
    let active = || shared.active.load(Ordering::Relaxed);
    let until = Instant::now() + grace;
    let has_failed = lock(&shared.failure).is_some();
    while active() > 0 && Instant::now() < until && !has_failed {
        sleep(POLL).await;
    }
    let cut_off = active();
    shared.models.iter().for_each(|model| model.queue.close());
    if cut_off > 0 {
        stop_evaluations(LAST / 4);
    }
    // Answers are being sent; idle connections are closed already.
    let until = Instant::now() + LAST;
    while shared.connections.count() > 0 && Instant::now() < until {
        sleep(POLL).await;
    }
    cut_off
}

/// Waits a moment for the workers, and returns whether they have ended.
fn have_ended(workers: &[JoinHandle<()>]) -> bool {
    let until = Instant::now() + LAST;
    let have_ended = || workers.iter().all(JoinHandle::is_finished);
    while !have_ended() && Instant::now() < until {
        thread::sleep(POLL);
    }
    have_ended()
}
