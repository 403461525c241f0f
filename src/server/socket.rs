//! A client's socket below TLS and HTTP: what was read of it to tell what comes is read again.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_io_timeout::TimeoutStream;

/// The most that is read before it is known what comes.
const FIRST: usize = 8 * 1024;

/// A socket whose other side has to take what is sent within a limit.
pub(super) type Socket<S> = Pin<Box<TimeoutStream<Rewound<S>>>>;

/// A client that takes no byte for `stall` is gone.
pub(super) fn socket<S: AsyncRead + AsyncWrite + Unpin>(io: S, stall: Duration) -> Socket<S> {
    let mut stream = TimeoutStream::new(Rewound { early: Bytes::new(), io });
    stream.set_write_timeout(Some(stall));
    Box::pin(stream)
}

/// Reads until `tells` says what comes, and gives that; `None` is the end of what the client sends. What was read is
/// read again by whoever comes next. `has_begun` is told when there is a byte.
pub(super) async fn first_bytes<S: AsyncRead + AsyncWrite + Unpin, T>(
    socket: &mut Socket<S>,
    has_begun: &mut bool,
    tells: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut early = Vec::new();
    let told = loop {
        if std::future::poll_fn(|context| poll_more(socket, context, &mut early)).await? == 0 {
            break None;
        }
        *has_begun = true;
        if let Some(told) = tells(&early) {
            break Some(told);
        }
    };
    socket.as_mut().get_pin_mut().get_mut().early = early.into();
    Ok(told)
}

/// Reads without a buffer of its own while nothing comes: idle connections are many.
fn poll_more<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    context: &mut Context<'_>,
    early: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let mut part = [0; FIRST];
    let mut part = ReadBuf::new(&mut part);
    socket.as_mut().poll_read(context, &mut part).map_ok(|()| {
        early.extend_from_slice(part.filled());
        part.filled().len()
    })
}

/// A socket of which a part is read again.
pub(super) struct Rewound<S> {
    early: Bytes,
    io: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let length = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..length]);
        self.early.advance(length);
        if self.early.is_empty() {
            self.early = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
