//! Bodies: whole ones from memory, and streamed ones that are watched for stalls and tell when they end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use tokio::io::{AsyncRead, ReadBuf, Take};
use tokio::time::Sleep;

use super::clock;
use super::requests::InFlight;
use super::unsent::{Unsent, held_with};
use crate::policy::http::pieces::Pieces;

/// The longest part that is read of a client at once. A connection holds a few of them; each takes twice the memory.
pub const PART: usize = 8 * 1024;
/// The same of the upstream: a list of usual length with its head comes in one.
pub const UPSTREAM_PART: usize = 16 * 1024;

/// Reads a part of so many bytes at most, however large the buffer has become.
pub fn poll_part(
    io: &mut Take<impl AsyncRead + Unpin>,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
    part: usize,
) -> Poll<io::Result<()>> {
    // What is left of the last limit does not matter.
    io.set_limit(part as u64);
    Pin::new(io).poll_read(context, buffer)
}

/// Why a body ended early.
#[derive(Debug)]
pub enum BodyError {
    /// The sender gave no byte for the stall limit.
    Stalled,
    /// It is longer than it may be.
    TooLong,
    /// The connection broke, or the framing is wrong: the body is not whole.
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stalled => "the body stalled",
            Self::TooLong => "the body is too long",
            Self::Broken(_) => "the body is not whole",
        })
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Stalled | Self::TooLong => None,
            Self::Broken(error) => Some(&**error),
        }
    }
}

/// A body towards the client or the upstream.
pub enum Body {
    /// In memory, sent as it is. `None` once it is sent, or if it is empty.
    Whole(Option<Bytes>),
    /// Kept in memory, sent piece by piece.
    Kept(Unsent),
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

    /// How long it is, if all of it is in memory.
    pub fn length_in_memory(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Kept(unsent) => Some(unsent.length()),
            Self::Stream(_) | Self::Incoming(_) => None,
        }
    }

    /// The same with the end of the request that it answers: that is over when the last byte has been taken, or given up.
    #[must_use]
    pub fn with_end_of(self, request: InFlight) -> Self {
        match self {
            Self::Whole(None) => self,
            Self::Whole(Some(bytes)) => Self::Whole(Some(held_with(bytes, request))),
            Self::Kept(unsent) => Self::Kept(unsent.until(request)),
            body => Self::stream(Watched::guarded(body, request)),
        }
    }

    /// Whether nothing will be sent.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Kept(unsent) => unsent.length() == 0,
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

impl From<Pieces> for Body {
    fn from(pieces: Pieces) -> Self {
        Self::Kept(pieces.into())
    }
}

impl Guard for InFlight {}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Kept(unsent) => Poll::Ready(unsent.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body) => Pin::new(body).poll_frame(context),
            Self::Incoming(body) => Pin::new(body).poll_frame(context).map_err(BodyError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(_) | Self::Kept(_) => SizeHint::with_exact(self.length_in_memory().unwrap_or_default()),
            Self::Stream(body) => body.size_hint(),
            Self::Incoming(body) => body.size_hint(),
        }
    }
}

/// A body as it arrives, with a limit on its sender's silence if it has one. The guard goes with it: whatever must happen when the body has
/// ended, broken off or been dropped, happens in the guard's `Drop`.
pub struct Watched<B, G> {
    inner: B,
    patience: Option<Patience>,
    /// So many more bytes it may have.
    left: Option<u64>,
    guard: G,
    ended: bool,
}

/// How long a sender may still keep its reader waiting. What it sends gives it time again: all of it, or, if there is a
/// least speed, as much as so many bytes are worth.
struct Patience {
    limit: Duration,
    /// In bytes a second.
    least: Option<u32>,
    left: Duration,
    /// Since when it has been silent, and the end of that. It exists only while the sender is silent.
    silence: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, least: None, left: limit, silence: None }
    }

    /// Ready once it is over.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let left = self.left;
        let (_, end) = self.silence.get_or_insert_with(|| (clock::now(), Box::pin(tokio::time::sleep(left))));
        end.as_mut().poll(context)
    }

    /// So many bytes have come.
    fn renew(&mut self, bytes: usize) {
        let waited = self.silence.take().map(|(since, _)| clock::now().saturating_duration_since(since));
        self.left = match self.least {
            None => self.limit,
            Some(least) => {
                let worth = Duration::from_secs(bytes as u64) / least;
                let left = self.left.saturating_sub(waited.unwrap_or_default());
                left.saturating_add(worth).min(self.limit)
            }
        };
    }
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

impl<B, G: Guard> Watched<B, G> {
    /// Watches over a body, whose sender may be silent for so long.
    pub fn new(inner: B, limit: Duration, guard: G) -> Self {
        Self { inner, patience: Some(Patience::new(limit)), left: None, guard, ended: false }
    }

    /// Bounds the sender's speed from below too, in bytes a second: what comes in ever so small pieces ends some day.
    #[must_use]
    pub fn at_least(mut self, speed: u32) -> Self {
        if let Some(patience) = &mut self.patience {
            patience.least = Some(speed);
        }
        self
    }

    /// Bounds its length, too: it breaks off before the byte that is one too many.
    #[must_use]
    pub fn at_most(mut self, bytes: u64) -> Self {
        self.left = Some(bytes);
        self
    }

    /// A body that somebody else watches over, with a guard.
    pub fn guarded(inner: B, guard: G) -> Self {
        Self { inner, patience: None, left: None, guard, ended: false }
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

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) else {
            let Some(patience) = &mut this.patience else { return Poll::Pending };
            ready!(patience.poll_over(context));
            this.guard.broken();
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        if let Some(patience) = &mut this.patience {
            patience.renew(bytes);
        }
        if let Some(left) = &mut this.left {
            let Some(less) = left.checked_sub(bytes as u64) else {
                this.guard.broken();
                return Poll::Ready(Some(Err(BodyError::TooLong)));
            };
            *left = less;
        }
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                this.guard.passed(bytes);
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
        Self::Broken(error.into())
    }
}

impl From<h2::Error> for BodyError {
    fn from(error: h2::Error) -> Self {
        Self::Broken(error.into())
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
        longer(&self.rest.size_hint(), self.read.as_ref().map_or(0, |read| read.len() as u64))
    }
}

/// How long a body is that has so many more bytes.
pub fn longer(rest: &SizeHint, more: u64) -> SizeHint {
    let mut hint = SizeHint::new();
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper.saturating_add(more));
    }
    hint.set_lower(rest.lower().saturating_add(more));
    hint
}

/// Reads a body of at most `limit` bytes. If it is longer, gives back what can still be streamed on, unchanged.
pub async fn read_at_most(mut body: Body, limit: usize) -> Result<Read, BodyError> {
    if http_body::Body::size_hint(&body).lower() > limit as u64 {
        return Ok(Read::Longer(body));
    }
    let told = usize::try_from(http_body::Body::size_hint(&body).lower()).unwrap_or(limit).min(limit);
    let mut read = Vec::with_capacity(told);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::requests::Requests;

    #[tokio::test]
    async fn a_request_lasts_until_the_last_byte_of_its_answer_is_taken() {
        let requests = Requests::new(1, 1);
        let begin = || requests.begin(None).unwrap_or_else(|full| panic!("{full:?}"));
        let whole = Pieces::from(Bytes::from_static(b"abc"));
        let [first_cut, cut, last_cut] = [0, 1, 3].map(|at| Pieces::cut(b"abc", at, Arc::new(|_| {})));
        for body in [Bytes::from_static(b"abc").into(), whole.into(), first_cut.into(), last_cut.into()] {
            let mut body = Body::with_end_of(body, begin());
            let mut data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(body.frame().await.is_none());
            drop(body);
            drop(data.split_to(2));
            assert_eq!(requests.under_way(), 1, "a byte is left");
            drop(data);
            assert_eq!(requests.under_way(), 0);
        }
        let mut body = Body::from(cut).with_end_of(begin());
        drop(body.frame().await);
        assert_eq!((http_body::Body::size_hint(&body).exact(), requests.under_way()), (Some(2), 1), "a piece is left");
        assert_eq!(body.collect().await.unwrap().to_bytes(), "bc");
        assert_eq!(requests.under_way(), 0);
        drop(Body::empty().with_end_of(begin()));
        let stream = Body::stream(Watched::guarded(Body::from(Bytes::from_static(b"x")), Nothing)).with_end_of(begin());
        assert_eq!(requests.under_way(), 1);
        drop(stream);
        assert_eq!(requests.under_way(), 0);
    }

    struct Nothing;

    impl Guard for Nothing {}
}
