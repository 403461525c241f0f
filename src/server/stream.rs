//! A client's stream of bytes as HTTP/1.1 sees it, plain or out of TLS: it knows how far the conversation is, and so what
//! the client's silence means.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::time::{Instant, Sleep};

use super::heads::Heads;
use crate::engine::body::{Body, BodyError, Guard, poll_part};
use crate::engine::metrics::Limit;

/// The end of what a client sends may be the end of its sending alone, or of the client: who has left is not told
/// apart. For so long it is believed to listen, though nothing can be said yet.
const HALF_CLOSED: Duration = Duration::from_secs(2);
/// A client that still sends would lose the answer if the connection were closed: it is read on for so long ...
const LINGER: Duration = Duration::from_secs(30);
/// ... as long as it is not silent for so long.
const LINGER_SILENCE: Duration = Duration::from_secs(3);
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How far the conversation is; its service tells the socket.
#[derive(Debug)]
pub(super) struct Progress {
    heads: Arc<Heads>,
    /// Bytes of a head that has not ended.
    head: AtomicU64,
    /// A request is with its handler.
    asked: AtomicBool,
    /// The body of the last request has not been read to its end.
    unread: AtomicBool,
    /// An answer's body is on its way.
    answering: AtomicBool,
    /// The client takes no byte at the moment.
    blocked: AtomicBool,
    /// It is another protocol now.
    switched: AtomicBool,
    /// A head found no room.
    refused: AtomicBool,
    /// A head took too long.
    late: AtomicBool,
    /// The last answer is out; what still comes is thrown away.
    lingering: AtomicBool,
    /// A request came since somebody looked.
    used: AtomicBool,
}

impl Progress {
    pub(super) fn new(heads: Arc<Heads>) -> Self {
        let head = AtomicU64::new(0);
        let [asked, unread, answering, blocked, switched, refused, late, lingering, used] =
            [const { AtomicBool::new(false) }; 9];
        Self { heads, head, asked, unread, answering, blocked, switched, refused, late, lingering, used }
    }

    /// A head has come whole.
    pub(super) fn begin(&self, has_body: bool) {
        self.head_ended();
        self.accepted();
        self.unread.store(has_body, Ordering::Relaxed);
    }

    /// The same in HTTP/2, where the next head may have begun already.
    pub(super) fn accepted(&self) {
        self.asked.store(true, Ordering::Relaxed);
        self.used.store(true, Ordering::Relaxed);
    }

    /// So many bytes of a head came. False if there is no room for them.
    pub(super) fn head_came(&self, bytes: u64) -> bool {
        let before = self.head.fetch_add(bytes, Ordering::Relaxed);
        self.heads.grew(before, before + bytes)
    }

    /// The head has ended.
    pub(super) fn head_ended(&self) {
        self.heads.ended(self.head.swap(0, Ordering::Relaxed));
    }

    /// The head takes too long.
    pub(super) fn head_is_late(&self) {
        self.late.store(true, Ordering::Relaxed);
    }

    /// The head finds no room.
    pub(super) fn head_is_refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// The handler has answered.
    pub(super) fn answered(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    /// The answer says that another protocol follows.
    pub(super) fn switch(&self) {
        self.switched.store(true, Ordering::Relaxed);
    }

    /// Whether part of a head came, and no more.
    pub(super) fn has_half_a_head(&self) -> bool {
        self.head.load(Ordering::Relaxed) > 0
    }

    /// Why a head was refused, if one was: the metric label of its connection's end, and the limit.
    pub(super) fn refused_for(&self) -> Option<(&'static str, Limit)> {
        let late = self.late.load(Ordering::Relaxed).then_some(("timeout", Limit::HeadTimeout));
        late.or_else(|| self.refused.load(Ordering::Relaxed).then_some(("too_large", Limit::HeadMemory)))
    }

    /// Whether nothing is owed to the client any more.
    pub(super) fn is_done(&self) -> bool {
        self.lingering.load(Ordering::Relaxed) || (self.has_half_a_head() && !self.asked.load(Ordering::Relaxed))
    }

    /// Whether the client is owed nothing, and may be asked to go.
    pub(super) fn is_idle(&self) -> bool {
        !self.owes_an_answer() && !self.switched.load(Ordering::Relaxed)
    }

    /// Whether a request came since this was asked last.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Counts what came if it belongs to a head. False if there is no room for it.
    fn came(&self, bytes: u64) -> bool {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if bytes == 0 || is(&self.asked) || is(&self.unread) || is(&self.switched) {
            return true;
        }
        self.head_came(bytes)
    }

    fn owes_an_answer(&self) -> bool {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        is(&self.asked) || is(&self.answering) || is(&self.blocked)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.heads.ended(*self.head.get_mut());
    }
}

/// Tells when a request's body was read to its end.
pub(super) struct Reading(pub(super) Arc<Progress>);

impl Guard for Reading {
    fn whole(&mut self) {
        self.0.unread.store(false, Ordering::Relaxed);
    }
}

/// An answer's body that waits while the client takes nothing: so one part of it waits at most, not a whole buffer.
pub(super) struct Paced {
    inner: Body,
    progress: Arc<Progress>,
    /// Why it ended early, until what came before is on its way.
    broken: Option<BodyError>,
}

impl Paced {
    pub(super) fn new(inner: Body, progress: Arc<Progress>) -> Self {
        progress.answering.store(true, Ordering::Relaxed);
        Self { inner, progress, broken: None }
    }
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.progress.blocked.load(Ordering::Relaxed) {
            // The same task writes, and asks again when that goes on.
            return Poll::Pending;
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Err(error)) = frame {
            // hyper forgets what it has not written when it hears of this, be it the head: it writes first.
            self.broken = Some(error);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.progress.answering.store(false, Ordering::Relaxed);
    }
}

/// A client's stream of bytes.
pub(super) struct ClientStream<S> {
    io: Take<S>,
    progress: Arc<Progress>,
    /// Since when the client sends nothing more, or when it last took something after that.
    ended: Option<Pin<Box<Sleep>>>,
    /// Who reads, while the end is kept from him.
    reader: Option<Waker>,
    /// What is left of the refusal of a head.
    refusal: Option<&'static [u8]>,
    linger: Option<Linger>,
    head_timeout: Duration,
    /// Until when the head that has begun must end.
    slow: Option<Pin<Box<Sleep>>>,
}

/// Two limits: in all, and of silence.
struct Linger {
    until: Instant,
    silence: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    /// `head_timeout` is for each head, from its first byte.
    pub(super) fn new(io: S, progress: Arc<Progress>, head_timeout: Duration) -> Self {
        Self { io: io.take(0), progress, ended: None, reader: None, refusal: None, linger: None, head_timeout, slow: None }
    }

    /// Nothing comes: that is refused if the head that has begun takes too long.
    fn poll_slow(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.progress.has_half_a_head() {
            self.slow = None;
            return Poll::Pending;
        }
        let limit = self.head_timeout;
        let slow = self.slow.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(slow.as_mut().poll(context));
        self.progress.head_is_late();
        self.refusal = Some(TOO_SLOW);
        self.poll_refuse(context)
    }

    /// Says why nothing comes of this connection, reads on for a while so that it arrives, and ends.
    pub(super) async fn refuse(mut self, answer: &'static [u8]) {
        self.refusal = Some(answer);
        // Nobody is owed more than the attempt.
        let _ = std::future::poll_fn(|context| self.poll_refuse(context)).await;
    }

    /// Keeps the end of what the client sends from hyper, which would give the request up, while an answer is due.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.ended.get_or_insert_with(|| Box::pin(tokio::time::sleep(HALF_CLOSED)));
        if self.progress.switched.load(Ordering::Relaxed) || !self.progress.owes_an_answer() {
            return Poll::Ready(Ok(()));
        }
        self.reader = Some(context.waker().clone());
        // Somebody takes bytes, or is about to: the limit on stalls holds.
        if !self.progress.blocked.load(Ordering::Relaxed) {
            ready!(ended.as_mut().poll(context));
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Something was said, or could not be.
    fn wrote<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.progress.blocked.store(result.is_pending(), Ordering::Relaxed);
        if let (Poll::Ready(_), Some(ended)) = (&result, &mut self.ended) {
            ended.as_mut().reset(Instant::now() + HALF_CLOSED);
            self.reader.take().into_iter().for_each(Waker::wake);
        }
        result
    }

    /// Says that the head is too large, and then ends.
    fn poll_refuse(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.refusal.filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(self.io.get_mut()).poll_write(context, rest))?;
            self.refusal = Some(&rest[written..]);
        }
        if self.linger.is_none() {
            ready!(Pin::new(self.io.get_mut()).poll_shutdown(context))?;
            self.progress.lingering.store(true, Ordering::Relaxed);
        }
        self.poll_linger(context).map(Ok)
    }

    /// Reads what still comes, and throws it away.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Linger { until, silence } = self.linger.get_or_insert_with(|| Linger {
            until: Instant::now() + LINGER,
            silence: Box::pin(tokio::time::sleep(LINGER_SILENCE)),
        });
        let mut waste = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut waste);
            match Pin::new(self.io.get_mut()).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let now = Instant::now();
                    if now >= *until {
                        return Poll::Ready(());
                    }
                    silence.as_mut().reset((now + LINGER_SILENCE).min(*until));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return silence.as_mut().poll(context),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refusal.is_some() {
            return this.poll_refuse(context);
        }
        if this.ended.is_some() {
            return this.poll_end(context);
        }
        let before = buffer.filled().len();
        let Poll::Ready(result) = poll_part(&mut this.io, context, buffer) else {
            return this.poll_slow(context);
        };
        match result {
            // TLS that was not closed in order. A request says how long it is, so nobody is deceived by that.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            result => result?,
        }
        let read = buffer.filled().len() - before;
        if read == 0 && buffer.remaining() > 0 {
            return this.poll_end(context);
        }
        if !this.progress.has_half_a_head() {
            // Each head has its own time.
            this.slow = None;
        }
        if !this.progress.came(read as u64) {
            this.progress.head_is_refused();
            buffer.set_filled(before);
            this.refusal = Some(TOO_LARGE);
            return this.poll_refuse(context);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(this.io.get_mut()).poll_write(context, data);
        this.wrote(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(this.io.get_mut()).poll_write_vectored(context, data);
        this.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.get_ref().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Under TLS, what was taken may still wait for the socket.
        let result = Pin::new(this.io.get_mut()).poll_flush(context);
        let changes = result.is_pending() != this.progress.blocked.load(Ordering::Relaxed);
        if changes { this.wrote(result) } else { result }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let progress = &this.progress;
        let sends = progress.unread.load(Ordering::Relaxed) || progress.has_half_a_head();
        if this.linger.is_none() {
            ready!(Pin::new(this.io.get_mut()).poll_shutdown(context))?;
            if !sends || this.ended.is_some() || progress.switched.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            progress.lingering.store(true, Ordering::Relaxed);
        }
        this.poll_linger(context).map(Ok)
    }
}
