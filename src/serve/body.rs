//! Bodies of requests, within limits of size, time and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Bytes, Incoming};
use tokio::time::timeout;

use super::problem::Problem;

/// The longest pause within a body, and the longest time for a whole one.
const PAUSE: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(600);

/// The memory that bodies of all requests and answers take.
#[derive(Debug)]
pub(super) struct BodyMemory {
    used: AtomicU64,
    limit: u64,
}

/// A part of that memory, until it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    memory: Arc<BodyMemory>,
    bytes: u64,
}

impl BodyMemory {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit })
    }

    /// Bytes that are held now.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn hold(self: &Arc<Self>) -> Hold {
        Hold { memory: Arc::clone(self), bytes: 0 }
    }

    /// The bytes of an answer, which count until they are sent. They are there already, so that the
    /// limit is not applied; it lets no further requests in meanwhile.
    pub(super) fn keep(self: &Arc<Self>, bytes: Vec<u8>) -> Bytes {
        struct Kept(Vec<u8>, #[expect(dead_code, reason = "it is dropped with the bytes")] Hold);
        impl AsRef<[u8]> for Kept {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let mut hold = self.hold();
        hold.add(bytes.len() as u64);
        Bytes::from_owner(Kept(bytes, hold))
    }
}

impl Hold {
    fn add(&mut self, bytes: u64) {
        self.memory.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }

    fn try_add(&mut self, bytes: u64) -> Result<(), Problem> {
        if self.memory.used().saturating_add(bytes) > self.memory.limit {
            let text = format!(
                "the bodies of other requests take the {} MiB that there are for them; try again",
                self.memory.limit >> 20
            );
            return Err(Problem::retry(StatusCode::SERVICE_UNAVAILABLE, text, 1));
        }
        self.add(bytes);
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The least by which the buffer of a body grows.
const MIN_GROWTH: usize = 64 << 10;

/// The whole body of a request, of at most `most` bytes. A body that is still coming when
/// `is_stopping` turns true is refused.
pub(super) async fn receive(
    body: Incoming,
    most: u64,
    memory: &Arc<BodyMemory>,
    is_stopping: impl Fn() -> bool,
) -> Result<(Vec<u8>, Hold), Problem> {
    let too_large = || {
        let text = format!(
            "the body is larger than the {} KiB that are taken; send less, or start the server \
             with a larger --max-body and --max-memory",
            most >> 10
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    // Refuses by the declared length, before the body arrives.
    if body.size_hint().lower() > most {
        return Err(too_large());
    }
    let declared = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let mut hold = memory.hold();
    let mut bytes = Vec::new();
    let all = async {
        let mut body = body;
        loop {
            let frame = match timeout(PAUSE, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => return Ok(()),
                Ok(Some(Err(_))) => {
                    return Err(Problem::invalid("the body of the request is damaged or cut off"));
                }
                Err(_) => return Err(late()),
            };
            let Ok(data) = frame.into_data() else { continue };
            if (bytes.len() + data.len()) as u64 > most {
                return Err(too_large());
            }
            hold.try_add(data.len() as u64)?;
            if bytes.capacity() - bytes.len() < data.len() {
                // It doubles, and does not exceed the length that is declared.
                let more = bytes.len().max(MIN_GROWTH);
                let rest = declared.map_or(more, |length| length.saturating_sub(bytes.len()));
                bytes.reserve_exact(more.min(rest).max(data.len()));
            }
            bytes.extend_from_slice(&data);
            if is_stopping() {
                return Err(Problem::stopping());
            }
        }
    };
    timeout(WHOLE, all).await.unwrap_or_else(|_| Err(late()))?;
    Ok((bytes, hold))
}

fn late() -> Problem {
    let text = format!(
        "the body did not come in time; at most {} s may pass without a byte of it, and {} s in all",
        PAUSE.as_secs(),
        WHOLE.as_secs()
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, text)
}
