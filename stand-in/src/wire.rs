//! Below HTTP: answers that hyper rightly refuses to send, and bodies that stop where they should not.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Any body of the stand-in.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body that is in memory.
pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// What a handler can do to its connection.
#[derive(Default)]
pub(super) struct Handle {
    raw: Mutex<Option<Bytes>>,
    busy: AtomicUsize,
}

impl Handle {
    /// From here on these bytes are written instead of what hyper writes.
    pub(super) fn write_instead(&self, raw: Bytes) {
        *self.raw.lock().unwrap_or_else(PoisonError::into_inner) = Some(raw);
    }

    /// Counts a request in until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(self))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.busy.load(Ordering::SeqCst) == 0
    }
}

/// A request under way, up to the end of its answer's body.
pub(super) struct Busy(Arc<Handle>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The socket of one connection.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    pub(super) handle: Arc<Handle>,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut raw = this.handle.raw.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(raw) = &mut *raw else {
            return Pin::new(&mut this.stream).poll_write(cx, bytes);
        };
        while raw.has_remaining() {
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, raw))?;
            raw.advance(written);
        }
        // What hyper wanted to say is swallowed.
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How a body ends that was cut short.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// As it should.
    Well,
    /// The connection breaks off.
    Breaks,
    /// Nothing more comes, ever.
    Hangs,
}

/// A body that is altered on its way: cut, or with its length kept quiet.
pub(super) struct Altered {
    pub(super) inner: Body,
    /// Bytes that still go out.
    pub(super) allowance: u64,
    pub(super) ending: Ending,
    /// Whether the length is announced (`content-length`) or not (chunked).
    pub(super) announced: bool,
    /// What was let through has been handed over for sending.
    pub(super) flushed: bool,
    /// Keeps the connection counted as busy until the body is gone.
    #[expect(dead_code, reason = "a guard: held, never looked at")]
    busy: Busy,
}

impl Altered {
    /// The body as it is, which keeps its connection busy.
    pub(super) fn unaltered(inner: Body, busy: Busy) -> Self {
        Self { inner, allowance: u64::MAX, ending: Ending::Well, announced: true, flushed: false, busy }
    }
}

impl http_body::Body for Altered {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.allowance > 0 || this.ending == Ending::Well {
            let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
            let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
            let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
            let kept = usize::try_from(this.allowance).unwrap_or(usize::MAX).min(data.len());
            data.truncate(kept);
            this.allowance -= kept as u64;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match this.ending {
            Ending::Breaks if this.flushed => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
            Ending::Breaks => {
                // One turn of the connection in between, so that hyper sends what it has before it gives up.
                this.flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ending::Well | Ending::Hangs => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ending == Ending::Well && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.announced { self.inner_size() } else { SizeHint::default() }
    }
}

impl Altered {
    fn inner_size(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The block that downloads repeat: the byte at place `n` of a download is `n % 251`.
const BLOCK: usize = 251 * 256;

/// A download of any size in a fixed amount of memory.
pub(super) struct Download {
    left: u64,
    block: Bytes,
}

impl Download {
    pub(super) fn of(length: u64) -> Self {
        let block: Vec<u8> = (0..=250).cycle().take(BLOCK).collect();
        Self { left: length, block: block.into() }
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.left).unwrap_or(BLOCK).min(BLOCK);
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(self.block.slice(..length)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
