//! Accepting connections, and answering their requests one after the other.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::callers::{Caller, Connections};
use super::socket::{Duplex, Socket};

/// Maximum size of the head of a request and of read-ahead.
const MAX_HEAD: usize = 16 << 10;

/// Size of the kernel's send and receive buffers of a connection.
const BUFFER: u32 = 128 << 10;

/// Maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 512;

/// Pause after the system had no resources for a connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(10);

pub(crate) type Answer = Response<Full<Bytes>>;

/// Answers requests. It is a trait object, so that hyper is compiled once for all servers.
pub(crate) trait Handler: Send + Sync {
    /// Answers a request. It is dropped when the client leaves.
    fn answer<'a>(
        &'a self,
        caller: &'a Caller,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;
}

/// How connections are served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    /// A connection without a (further) request for this long is closed.
    pub(crate) idle: Duration,
    /// Whether a client that closed its sending side still gets its answer. Otherwise that ends the
    /// request.
    pub(crate) half_close: bool,
    /// Whether what a client still sends is discarded for a moment when its connection is closed.
    pub(crate) lingers: bool,
}

/// What connections are accepted from.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What connections are served with.
pub(crate) struct Served {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) profile: Profile,
    /// Turns true when connections are to be closed as soon as their request is answered.
    pub(crate) draining: watch::Receiver<bool>,
}

/// Listens at an address. Call it within a runtime.
///
/// # Errors
/// When the address is taken or is not this machine's.
pub(crate) fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit these.
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener {
    async fn accept(&self) -> io::Result<(Box<dyn Duplex>, IpAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers are written at once; without this, small ones may wait for 40 ms.
                let _ = stream.set_nodelay(true);
                Ok((Box::new(TokioIo::new(stream)), address.ip()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(TokioIo::new(stream)), Ipv4Addr::LOCALHOST.into()))
            }
        }
    }
}

/// Accepts connections for ever.
pub(crate) async fn accept(listener: Listener, served: Arc<Served>) {
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            // Probably there is no free file descriptor.
            served.connections.end_one();
            sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        let own = Arc::clone(&served);
        served.connections.serve(address, |caller| {
            tokio::spawn(serve_connection(stream, caller, own)).abort_handle()
        });
        // It reads what has come already, before another may take its place.
        yield_now().await;
    }
}

/// Answers the requests of one connection.
pub(super) async fn serve_connection(stream: Box<dyn Duplex>, caller: Caller, served: Arc<Served>) {
    let has_asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        has_asked.store(true, Ordering::Relaxed);
        let answer = served.handler.answer(&caller, request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(served.profile.idle)
        .max_buf_size(MAX_HEAD)
        .half_close(served.profile.half_close)
        .title_case_headers(true)
        .serve_connection(Socket::new(stream, served.profile.lingers), service);
    let mut draining = served.draining.clone();
    let (mut connection, mut drained) = (pin!(connection), pin!(draining.wait_for(|it| *it)));
    let mut is_told = false;
    let served = poll_fn(|context| {
        if !is_told && drained.as_mut().poll(context).is_ready() {
            is_told = true;
            // A client that has not asked yet gets an answer first.
            if has_asked.load(Ordering::Relaxed) {
                connection.as_mut().graceful_shutdown();
            }
        }
        connection.as_mut().poll(context)
    });
    // The client may have disconnected.
    let _ = served.await;
}
