//! A client's stream of bytes as HTTP/1.1 sees it, plain or out of TLS: it knows how far the conversation is, and so what
//! the client's silence means.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::time::{Instant, Sleep};

use super::at_once::AtOnce;
use super::conversation::Conversation;
use super::progress::Progress;
use crate::engine::body::{PART, poll_part};

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
    /// What may be answered without hyper, if anything may.
    at_once: Option<AtOnce>,
    quiet: Quiet,
}

/// How long the next request is waited for.
struct Quiet {
    limit: Duration,
    /// Since when, if it is.
    since: Option<Instant>,
    /// It is not set anew for every request: those are many.
    ends: Option<Pin<Box<Sleep>>>,
}

impl Quiet {
    /// Nothing comes: over when that has lasted for the limit.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let until = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let Some(ends) = &mut self.ends else {
            let ends = self.ends.insert(Box::pin(tokio::time::sleep_until(until)));
            return ends.as_mut().poll(context);
        };
        if !ends.is_elapsed() {
            return Poll::Pending;
        }
        if Instant::now() >= until {
            return Poll::Ready(());
        }
        // Something came meanwhile.
        ends.as_mut().reset(until);
        ends.as_mut().poll(context)
    }
}

/// Two limits: in all, and of silence.
struct Linger {
    until: Instant,
    silence: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    /// `head_timeout` is for each head, from its first byte; `idle_timeout` for the time between requests.
    pub(super) fn new(io: S, progress: Arc<Progress>, head_timeout: Duration, idle_timeout: Duration) -> Self {
        Self {
            io: io.take(0),
            progress,
            ended: None,
            reader: None,
            refusal: None,
            linger: None,
            head_timeout,
            slow: None,
            at_once: None,
            quiet: Quiet { limit: idle_timeout, since: None, ends: None },
        }
    }

    /// The same, where plain hits are answered without hyper.
    pub(super) fn with_hits(self, conversation: Arc<Conversation>) -> Self {
        Self { at_once: Some(AtOnce::new(conversation)), ..self }
    }

    /// Sends what is left of a hit.
    fn poll_hit_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.at_once {
            Some(at_once) if at_once.is_sending() => {
                let sent = at_once.poll_sent(self.io.get_mut(), context);
                if let Poll::Ready(Err(error)) = &sent {
                    self.progress.is_cut_short(error);
                    self.at_once = None;
                }
                self.wrote(sent)
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Whether these bytes are a plain hit.
    fn is_hit(&mut self, bytes: &[u8]) -> bool {
        self.quiet.since = self.at_once.as_mut().and_then(|at_once| at_once.came(bytes));
        self.quiet.since.is_some()
    }

    /// Nothing comes: that is refused if the head that has begun takes too long.
    fn poll_slow(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.progress.has_half_a_head() {
            self.slow = None;
            return self.poll_quiet(context);
        }
        let limit = self.head_timeout;
        let slow = self.slow.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(slow.as_mut().poll(context));
        self.progress.head_is_late();
        self.refusal = Some(TOO_SLOW);
        self.poll_refuse(context)
    }

    /// Nothing comes at all: that is the end if the next request is waited for too long.
    fn poll_quiet(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.progress.owes_an_answer() || self.progress.is_switched() {
            self.quiet.since = None;
            return Poll::Pending;
        }
        ready!(self.quiet.poll(context));
        self.progress.is_quiet_for_too_long();
        Poll::Ready(Ok(()))
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
        if self.progress.is_switched() || !self.progress.owes_an_answer() {
            return Poll::Ready(Ok(()));
        }
        self.reader = Some(context.waker().clone());
        // Somebody takes bytes, or is about to: the limit on stalls holds.
        if !self.progress.is_blocked() {
            ready!(ended.as_mut().poll(context));
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Something was said, or could not be.
    fn wrote<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.progress.is_taken(!result.is_pending());
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
            self.progress.lingers();
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
        let before = buffer.filled().len();
        loop {
            ready!(this.poll_hit_sent(context))?;
            if this.refusal.is_some() {
                return this.poll_refuse(context);
            }
            if this.ended.is_some() {
                return this.poll_end(context);
            }
            let Poll::Ready(result) = poll_part(&mut this.io, context, buffer, PART) else {
                return this.poll_slow(context);
            };
            match result {
                // TLS that was not closed in order. A request says how long it is, so nobody is deceived by that.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                result => result?,
            }
            if !this.is_hit(&buffer.filled()[before..]) {
                break;
            }
            this.progress.was_used();
            buffer.set_filled(before);
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
        // First, since a flush that succeeds begins the limit of stalls anew.
        ready!(this.poll_hit_sent(context))?;
        // Under TLS, what was taken may still wait for the socket.
        let result = Pin::new(this.io.get_mut()).poll_flush(context);
        let changes = result.is_pending() != this.progress.is_blocked();
        let result = if changes { this.wrote(result) } else { result };
        if let Poll::Ready(Ok(())) = &result
            && !this.progress.owes_an_answer()
        {
            if let Some(at_once) = &mut this.at_once
                && !this.progress.has_unread()
            {
                at_once.is_answered();
            }
            // hyper, which has tried to read already, does not try again: the next request is waited for from now on.
            if !this.progress.has_half_a_head() {
                let _ = this.poll_quiet(context)?;
            }
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_hit_sent(context))?;
        let progress = &this.progress;
        let sends = progress.has_unread() || progress.has_half_a_head();
        if this.linger.is_none() {
            ready!(Pin::new(this.io.get_mut()).poll_shutdown(context))?;
            if !sends || this.ended.is_some() || progress.is_switched() {
                return Poll::Ready(Ok(()));
            }
            progress.lingers();
        }
        this.poll_linger(context).map(Ok)
    }
}
