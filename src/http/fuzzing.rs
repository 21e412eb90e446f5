//! Connections in memory.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::runtime;
use tokio::sync::watch;

use super::connection::serve_connection;
use super::{ConnectionLimits, Connections, Handler, Profile, Served, lock};

/// A client that sends bytes, closes its sending side, and takes all answers.
struct Client {
    sent: io::Cursor<Vec<u8>>,
    answers: Arc<Mutex<Vec<u8>>>,
}

impl Read for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; 512];
        let most = buffer.remaining().min(bytes.len());
        let count = io::Read::read(&mut self.sent, &mut bytes[..most])?;
        buffer.put_slice(&bytes[..count]);
        Poll::Ready(Ok(()))
    }
}

impl Write for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        lock(&self.answers).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What is answered to a client that sends these bytes.
pub(crate) fn answers(handler: Arc<dyn Handler>, bytes: &[u8]) -> Vec<u8> {
    let limits = ConnectionLimits { total: 1, each: 1, local: 1 };
    let (_sender, draining) = watch::channel(false);
    let profile = Profile { idle: Duration::from_secs(30), half_close: true, lingers: false };
    let connections = Arc::new(Connections::new(limits));
    let served =
        Arc::new(Served { handler, connections: Arc::clone(&connections), profile, draining });
    let answers = Arc::default();
    let client = Client { sent: io::Cursor::new(bytes.to_vec()), answers: Arc::clone(&answers) };
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_time().build() else {
        return Vec::new();
    };
    runtime.block_on(async {
        let mut task = None;
        connections.serve(IpAddr::V4(Ipv4Addr::LOCALHOST), |caller| {
            let running = tokio::spawn(serve_connection(Box::new(client), caller, served));
            let handle = running.abort_handle();
            task = Some(running);
            handle
        });
        if let Some(task) = task {
            assert!(task.await.is_ok(), "the code of a connection panics");
        }
    });
    let answers = std::mem::take(&mut *lock(&answers));
    assert!(answers.is_empty() || answers.starts_with(b"HTTP/1."), "{answers:?}");
    answers
}
