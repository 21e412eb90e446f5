//! A connection that waits for a slow reader with a time limit, and accepts no further request
//! meanwhile.
//!
//! When it is closed while its client still sends, what arrives may be read and discarded for a
//! moment. Otherwise the kernel would reset the connection, and the client might lose the answer that says
//! why its request is refused.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::time::{Sleep, sleep};

/// A client that reads nothing for this long is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that is behind for this long, although it reads, is disconnected.
const BEHIND_TIMEOUT: Duration = Duration::from_secs(600);

/// How long, and how much, a client may still send after its connection was closed.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 << 20;

/// A stream of bytes in both directions: TCP's or that of a Unix socket.
pub(super) trait Duplex: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Duplex for T {}

/// A connection whose client may read slowly.
pub(super) struct Socket {
    stream: Box<dyn Duplex>,
    lingers: bool,
    /// The timeout, which runs while the client does not read pending data.
    stuck: Option<Pin<Box<Sleep>>>,
    /// Since when there is always more to write than the client has room for.
    behind: Option<Instant>,
    /// The timeout after closing, and how many bytes were discarded.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Socket {
    pub(super) fn new(stream: Box<dyn Duplex>, lingers: bool) -> Self {
        Self { stream, lingers, stuck: None, behind: None, lingering: None }
    }

    /// Discards what still arrives, until the client closes its side or the time is over.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (timeout, discarded) =
            self.lingering.get_or_insert_with(|| (Box::pin(sleep(LINGER)), 0));
        let mut bytes = [0; 16 << 10];
        while timeout.as_mut().poll(context).is_pending() && *discarded < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut *self.stream).poll_read(context, buffer.unfilled());
            match (ready!(read), buffer.filled().len()) {
                (Ok(()), count @ 1..) => *discarded += count,
                _ => break,
            }
        }
        Poll::Ready(())
    }

    /// Checks the result of a write of `length` bytes, which fails when the client read nothing, or
    /// was behind, for too long.
    fn watched(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(count)) if count >= length) {
            self.behind = None;
        } else if self.behind.get_or_insert_with(Instant::now).elapsed() > BEHIND_TIMEOUT {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if written.is_ready() {
            if self.stuck.take().is_some() {
                // Resumes reading.
                context.waker().wake_by_ref();
            }
            return written;
        }
        ready!(
            self.stuck.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT))).as_mut().poll(context)
        );
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // Prevents responses from piling up for a client that sends requests and reads no
        // responses.
        if self.stuck.is_some() {
            return Poll::Pending;
        }
        Pin::new(&mut *self.stream).poll_read(context, buffer)
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream).poll_write(context, bytes);
        self.watched(context, written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream).poll_write_vectored(context, parts);
        let length = parts.iter().map(|part| part.len()).sum();
        self.watched(context, written, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut *self.stream).poll_shutdown(context))?;
        }
        if self.lingers { self.poll_linger(context).map(Ok) } else { Poll::Ready(Ok(())) }
    }
}
