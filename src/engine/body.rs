//! Bodies: whole ones from memory, and streamed ones that are watched for stalls and tell when they end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

/// The longest part of a body that is read at once. A connection holds a few of them; each takes twice the memory.
const PART: usize = 8 * 1024;

/// Reads a part, however large the buffer has become.
pub fn poll_part(
    io: Pin<&mut impl AsyncRead>,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    if buffer.remaining() <= PART {
        return io.poll_read(context, buffer);
    }
    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(PART));
    ready!(io.poll_read(context, &mut part))?;
    let read = part.filled().len();
    buffer.advance(read);
    Poll::Ready(Ok(()))
}

/// Why a body ended early.
#[derive(Debug)]
pub enum BodyError {
    /// The sender gave no byte for the stall limit.
    Stalled,
    /// The connection broke, or the framing is wrong: the body is not whole.
    Broken(hyper::Error),
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stalled => "the body stalled",
            Self::Broken(_) => "the body is not whole",
        })
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Stalled => None,
            Self::Broken(error) => Some(error),
        }
    }
}

/// A body towards the client or the upstream.
pub enum Body {
    /// In memory, sent as it is. `None` once it is sent, or if it is empty.
    Whole(Option<Bytes>),
    /// Streamed.
    Stream(BoxBody<Bytes, BodyError>),
    /// As it comes from a connection.
    Incoming(hyper::body::Incoming),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::Whole(None)
    }

    /// Any other body.
    pub fn stream(body: impl http_body::Body<Data = Bytes, Error = BodyError> + Send + Sync + 'static) -> Self {
        Self::Stream(body.boxed())
    }

    /// Whether nothing will be sent.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(body) => http_body::Body::is_end_stream(body),
            Self::Incoming(body) => http_body::Body::is_end_stream(body),
        }
    }
}

impl From<hyper::body::Incoming> for Body {
    fn from(body: hyper::body::Incoming) -> Self {
        Self::Incoming(body)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body) => Pin::new(body).poll_frame(context),
            Self::Incoming(body) => Pin::new(body).poll_frame(context).map_err(BodyError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(body) => body.size_hint(),
            Self::Incoming(body) => body.size_hint(),
        }
    }
}

/// A body as it arrives, with a limit on silence if it has one. The guard goes with it: whatever must happen when the body has
/// ended, broken off or been dropped, happens in the guard's `Drop`.
pub struct Watched<B, G> {
    inner: B,
    limit: Option<Duration>,
    silence: Option<Pin<Box<Sleep>>>,
    guard: G,
    ended: bool,
}

/// Something that goes with a body and hears of what passes.
pub trait Guard: Send + Sync + Unpin + 'static {
    /// So many bytes have passed.
    fn passed(&mut self, _bytes: usize) {}
    /// The body has ended whole.
    fn whole(&mut self) {}
    /// The body has broken off.
    fn broken(&mut self) {}
}

/// A place among so many at once, given back with the body.
impl Guard for tokio::sync::OwnedSemaphorePermit {}

impl<B, G: Guard> Watched<B, G> {
    /// Watches over a body, whose sender may be silent for so long.
    pub fn new(inner: B, limit: Duration, guard: G) -> Self {
        Self { inner, limit: Some(limit), silence: None, guard, ended: false }
    }

    /// A body that somebody else watches over, with a guard.
    pub fn guarded(inner: B, guard: G) -> Self {
        Self { inner, limit: None, silence: None, guard, ended: false }
    }
}

impl<B, G> http_body::Body for Watched<B, G>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
    G: Guard,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) else {
            let Some(limit) = this.limit else { return Poll::Pending };
            // The timer exists only while the sender is silent.
            let silence = this.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            ready!(silence.as_mut().poll(context));
            this.guard.broken();
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        this.silence = None;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                this.guard.passed(frame.data_ref().map_or(0, Bytes::len));
                // A sized body is not always polled to its end: its last frame tells.
                this.tell_end();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                this.guard.broken();
                Some(Err(error.into()))
            }
            None => {
                if !this.ended {
                    this.ended = true;
                    this.guard.whole();
                }
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: http_body::Body, G: Guard> Watched<B, G> {
    fn tell_end(&mut self) {
        if !self.ended && self.inner.is_end_stream() {
            self.ended = true;
            self.guard.whole();
        }
    }
}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error)
    }
}

/// A body whose first part has been read already.
pub struct Resumed<B> {
    read: Option<Bytes>,
    rest: B,
}

impl<B> Resumed<B> {
    /// `read`, then `rest`.
    pub fn new(read: Bytes, rest: B) -> Self {
        Self { read: Some(read).filter(|read| !read.is_empty()), rest }
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Resumed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        match this.read.take() {
            Some(read) => Poll::Ready(Some(Ok(Frame::data(read)))),
            None => Pin::new(&mut this.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.as_ref().map_or(0, |read| read.len() as u64);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint
    }
}

/// Reads a body of at most `limit` bytes. If it is longer, gives back what can still be streamed on, unchanged.
pub async fn read_at_most(mut body: Body, limit: usize) -> Result<Read, BodyError> {
    if http_body::Body::size_hint(&body).lower() > limit as u64 {
        return Ok(Read::Longer(body));
    }
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        read.extend_from_slice(&data);
        if read.len() > limit {
            return Ok(Read::Longer(Body::stream(Resumed::new(read.into(), body))));
        }
    }
    Ok(Read::Whole(read.into()))
}

/// What [`read_at_most`] found.
pub enum Read {
    /// All of it.
    Whole(Bytes),
    /// More than the limit: the whole body again, to be streamed on.
    Longer(Body),
}
