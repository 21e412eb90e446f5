//! The server of the live view: one thread, with limits for each connection.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{oneshot, watch};

use super::handler::RequestHandler;
use super::state::{MetricsSampler, SharedState};
use super::{Address, Token};
use crate::error::{Error, Result};
use crate::http::{ConnectionLimits, Connections, Listener, Profile, Served, accept, listen_tcp};
use crate::media::stream::{VideoFormat, VideoFrame};
use crate::video::{RunStatus, SettingsUpdate};

/// Maximum number of connections, in all and of one address.
const CONNECTIONS: ConnectionLimits = ConnectionLimits { total: 64, each: 32, local: 32 };

/// A client that sent its request may close its sending side.
const PROFILE: Profile =
    Profile { idle: Duration::from_secs(10), half_close: true, lingers: false };

/// A running live view. It ends when it is dropped.
pub struct Preview {
    state: Arc<SharedState>,
    pen: MetricsSampler,
    url: String,
    /// Dropping it ends the server.
    _end: oneshot::Sender<()>,
}

impl Preview {
    /// Serves a live view of a run with input format `before` and result format `after`.
    /// `denoises` says whether sigma and the use of previous frames can be set. An address that
    /// other machines can reach requires a token.
    ///
    /// # Errors
    /// [`Error::Usage`] when it cannot be served there.
    pub fn serve(
        Address(address): Address,
        token: Option<Token>,
        before: &VideoFormat,
        after: &VideoFormat,
        denoises: bool,
    ) -> Result<Self> {
        let is_local = address.ip().is_loopback();
        if !is_local && token.is_none() {
            return Err(Error::usage(format!(
                "a preview at {address} can be reached from other machines and needs a token"
            )));
        }
        let unserved = |error: io::Error| {
            Error::usage(format!(
                "the preview cannot be served at {address} ({error}); choose another address or \
                 port"
            ))
        };
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(unserved)?;
        let listener = {
            let _inside = runtime.enter();
            listen_tcp(address).map_err(unserved)?
        };
        let address = listener.local_addr().map_err(unserved)?;
        let fragment =
            token.as_ref().map_or(String::new(), |token| format!("#token={}", token.text));
        let url = format!("http://{address}/{fragment}");
        let state = Arc::new(SharedState::new(before.clone(), after.clone()));
        let handler = RequestHandler::new(Arc::clone(&state), token, address, denoises);
        let (end, ended) = oneshot::channel();
        // It stays false, for as long as its sender is there.
        let (sender, draining) = watch::channel(false);
        let served = Served {
            handler: Arc::new(handler),
            connections: Arc::new(Connections::new(CONNECTIONS)),
            profile: PROFILE,
            draining,
        };
        let body = move || {
            let _sender = sender;
            runtime.spawn(accept(Listener::Tcp(listener), Arc::new(served)));
            // Dropping the runtime closes all connections.
            let _ = runtime.block_on(ended);
        };
        let spawned = thread::Builder::new().name("preview".to_owned()).spawn(body);
        spawned.map_err(|error| {
            Error::usage(format!("no thread could be started for the preview ({error})"))
        })?;
        Ok(Self { state, pen: MetricsSampler::new(), url, _end: end })
    }

    /// The URL of the live view, including its token.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Updates the metrics from a run.
    pub fn on_progress(&mut self, running: &RunStatus<'_>) {
        self.pen.write(&self.state, running);
    }

    /// Passes a frame to the clients that wait for one.
    pub fn on_frame(&self, before: &VideoFrame, after: &VideoFrame) {
        self.state.on_frame(before, after);
    }

    /// The new settings since the last call.
    pub fn settings(&self) -> Option<SettingsUpdate> {
        self.state.take_settings()
    }
}
