//! The live view's server: one thread, and what each connection may take of it.

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

/// Whoever is connected and has not asked (again) by then is left.
const IDLE: Duration = Duration::from_secs(10);

/// The head of a request is no longer than this, and what is read ahead neither.
const LONGEST_HEAD: usize = 16 << 10;

/// The system keeps so much of what a connection does not take, and of what is not taken from it.
const BUFFER: u32 = 128 << 10;

/// So many connections wait to be taken.
const BACKLOG: u32 = 128;

/// Where the system has no room for a connection, it may have some a moment later.
const MOMENT: Duration = Duration::from_millis(10);

/// A live view that is being served. It ends when it is dropped.
pub struct Preview {
    board: Arc<SharedState>,
    pen: MetricsSampler,
    url: String,
    /// Ends the server when it is dropped.
    _end: oneshot::Sender<()>,
}

impl Preview {
    /// Serves a view of frames that are as `before` describes them and become what `after` describes. `denoises` says whether
    /// their noise is known and frames before may be drawn on. An address that is not for this machine alone wants a token.
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
            return Err(Error::usage(format!("a preview at {address} can be seen from elsewhere and needs a token")));
        }
        let unserved = |error: io::Error| {
            Error::usage(format!(
                "the preview cannot be served at {address} ({error}); choose another --preview=ADDRESS:PORT"
            ))
        };
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(unserved)?;
        let listener = listen(&runtime, Address(address)).map_err(unserved)?;
        let address = listener.local_addr().map_err(unserved)?;
        let fragment = token.as_ref().map_or(String::new(), |token| format!("#token={}", token.text));
        let url = format!("http://{address}/{fragment}");
        let board = Arc::new(SharedState::new(before.clone(), after.clone()));
        let desk = RequestHandler::new(Arc::clone(&board), token, address, denoises);
        let (end, ended) = oneshot::channel();
        let body = move || {
            runtime.spawn(accept(listener, Arc::new(desk)));
            // With the runtime go all connections.
            let _ = runtime.block_on(ended);
        };
        let spawned = thread::Builder::new().name("preview".to_owned()).spawn(body);
        spawned.map_err(|error| Error::usage(format!("the preview gets no thread ({error})")))?;
        Ok(Self { board, pen: MetricsSampler::new(), url, _end: end })
    }

    /// Where it is to be seen, with its token.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Tells how far the run has come.
    pub fn on_progress(&mut self, running: &RunStatus<'_>) {
        self.pen.write(&self.board, running);
    }

    /// Shows a frame to whoever waits for one.
    pub fn on_frame(&self, before: &VideoFrame, after: &VideoFrame) {
        self.board.on_frame(before, after);
    }

    /// What is wished for since this was last asked.
    pub fn settings(&self) -> Option<SettingsUpdate> {
        self.board.take_wishes()
    }
}

fn listen(runtime: &Runtime, Address(address): Address) -> io::Result<TcpListener> {
    let _inside = runtime.enter();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Connections have these of it.
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Takes connections for ever.
async fn accept(listener: TcpListener, desk: Arc<RequestHandler>) {
    let connections = Arc::new(Connections::default());
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            // Most likely no descriptor is left.
            connections.end_one();
            sleep(MOMENT).await;
            continue;
        };
        let desk = Arc::clone(&desk);
        connections.serve(address.ip(), |caller| tokio::spawn(attend(stream, caller, desk)).abort_handle());
    }
}

/// Answers what comes over one connection.
async fn attend(stream: TcpStream, caller: Caller, desk: Arc<RequestHandler>) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(desk.answer(&caller, request).await) });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(LONGEST_HEAD)
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(Socket::new(stream), service);
    // Whoever asked may be gone.
    let _ = served.await;
}
