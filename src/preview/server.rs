//! The server of the live view: one thread, with limits for each connection.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::callers::{Caller, Connections};
use super::handler::RequestHandler;
use super::socket::Socket;
use super::state::{MetricsSampler, SharedState};
use super::{Address, Token};
use crate::error::{Error, Result};
use crate::media::stream::{VideoFormat, VideoFrame};
use crate::video::{RunStatus, SettingsUpdate};

/// A connection without a (further) request for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of the head of a request and of read-ahead.
const MAX_HEAD: usize = 16 << 10;

/// Size of the kernel's send and receive buffers of a connection.
const BUFFER: u32 = 128 << 10;

/// Maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// Pause after the system had no resources for a connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(10);

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
        let listener = listen(&runtime, Address(address)).map_err(unserved)?;
        let address = listener.local_addr().map_err(unserved)?;
        let fragment =
            token.as_ref().map_or(String::new(), |token| format!("#token={}", token.text));
        let url = format!("http://{address}/{fragment}");
        let state = Arc::new(SharedState::new(before.clone(), after.clone()));
        let handler = RequestHandler::new(Arc::clone(&state), token, address, denoises);
        let (end, ended) = oneshot::channel();
        let body = move || {
            runtime.spawn(accept(listener, Arc::new(handler)));
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

fn listen(runtime: &Runtime, Address(address): Address) -> io::Result<TcpListener> {
    let _inside = runtime.enter();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit these.
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections for ever.
async fn accept(listener: TcpListener, handler: Arc<RequestHandler>) {
    let connections = Arc::new(Connections::default());
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            // Probably there is no free file descriptor.
            connections.end_one();
            sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        let handler = Arc::clone(&handler);
        connections.serve(address.ip(), |caller| {
            tokio::spawn(serve_connection(stream, caller, handler)).abort_handle()
        });
    }
}

/// Answers the requests of one connection.
async fn serve_connection(stream: TcpStream, caller: Caller, handler: Arc<RequestHandler>) {
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(handler.answer(&caller, request).await) });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(Socket::new(stream), service);
    // The client may have disconnected.
    let _ = served.await;
}
