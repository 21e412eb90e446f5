//! What happens when a request is answered, or its client leaves: it is logged, counted and stopped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hyper::http::request::Parts;

use super::queue::Ticket;
use super::record::{CLIENT_LEFT, Record};
use super::shared::Shared;
use crate::http::Caller;

/// Characters of a path that are logged.
const MAX_PATH: usize = 256;

/// A request that is being answered. When it is dropped before, its client has left.
pub(super) struct Exchange<'a> {
    shared: &'a Shared,
    pub(super) endpoint: &'static str,
    pub(super) record: Record,
    started: Instant,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(shared: &'a Shared, caller: &Caller, head: &Parts) -> Self {
        shared.active.fetch_add(1, Ordering::Relaxed);
        let record = Record {
            id: shared.count.fetch_add(1, Ordering::Relaxed),
            client: caller.peer.to_string(),
            method: head.method.to_string(),
            path: head.uri.path().chars().take(MAX_PATH).collect(),
            status: CLIENT_LEFT,
            model: None,
            received: 0,
            sent: 0,
            waited: Duration::ZERO,
            ran: Duration::ZERO,
            total: Duration::ZERO,
            error: None,
        };
        Self { shared, endpoint: "none", record, started: Instant::now() }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.shared.active.fetch_sub(1, Ordering::Relaxed);
        self.record.total = self.started.elapsed();
        self.shared.metrics.add(self.endpoint, &self.record);
        if let Some(log) = &self.shared.log {
            log(&self.record);
        }
    }
}

/// Stops a request when it is dropped: its client left, its time is over, or it is done.
pub(super) struct Leaving<'a>(pub(super) &'a Shared, pub(super) Arc<Ticket>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.1.stop();
        self.0.purge();
    }
}
