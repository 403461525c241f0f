//! How far a conversation in HTTP is: what its service tells its socket, and the socket its service.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::heads::Heads;
use crate::engine::body::{Body, BodyError, Guard, PART};
use crate::engine::metrics::Limit;

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
    /// No request came for too long.
    quiet: AtomicBool,
    /// The client took nothing of a hit for too long.
    stalled: AtomicBool,
    /// A hit could not be sent to its end.
    broken: AtomicBool,
}

impl Progress {
    pub(super) fn new(heads: Arc<Heads>) -> Self {
        let head = AtomicU64::new(0);
        let [asked, unread, answering, blocked, switched, refused, late, lingering, used, quiet, stalled, broken] =
            [const { AtomicBool::new(false) }; 12];
        Self { heads, head, asked, unread, answering, blocked, switched, refused, late, lingering, used, quiet, stalled, broken }
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
        self.was_used();
    }

    /// A request came.
    pub(super) fn was_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// No request came for too long.
    pub(super) fn is_quiet_for_too_long(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    /// Whether that is why the connection ends.
    pub(super) fn was_quiet_for_too_long(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
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

    /// A hit could not be sent to its end. hyper, which knows nothing of it, takes that for the end of an idle connection.
    pub(super) fn is_cut_short(&self, error: &io::Error) {
        let why = if error.kind() == io::ErrorKind::TimedOut { &self.stalled } else { &self.broken };
        why.store(true, Ordering::Relaxed);
    }

    /// Why the connection ends, if its stream knows: the metric label, and the limit if one was reached.
    pub(super) fn ended_by(&self) -> Option<(&'static str, Option<Limit>)> {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let reasons = [
            (&self.late, "timeout", Some(Limit::HeadTimeout)),
            (&self.refused, "too_large", Some(Limit::HeadMemory)),
            (&self.stalled, "timeout", Some(Limit::StallTimeout)),
            (&self.broken, "io", None),
        ];
        reasons.into_iter().find(|(flag, ..)| is(flag)).map(|(_, kind, limit)| (kind, limit))
    }

    /// Whether nothing is owed to the client any more.
    pub(super) fn is_done(&self) -> bool {
        self.lingering.load(Ordering::Relaxed) || (self.has_half_a_head() && !self.asked.load(Ordering::Relaxed))
    }

    /// Whether the client is owed nothing, and may be asked to go.
    pub(super) fn is_idle(&self) -> bool {
        !self.owes_an_answer() && !self.is_switched()
    }

    /// Whether a request came since this was asked last.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// It is another protocol now.
    pub(super) fn is_switched(&self) -> bool {
        self.switched.load(Ordering::Relaxed)
    }

    /// Whether the client takes no byte at the moment.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// What was sent was taken, or not yet.
    pub(super) fn is_taken(&self, taken: bool) {
        self.blocked.store(!taken, Ordering::Relaxed);
    }

    /// The body of the last request has not been read to its end.
    pub(super) fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// The last answer is out; what still comes is thrown away.
    pub(super) fn lingers(&self) {
        self.lingering.store(true, Ordering::Relaxed);
    }

    /// Counts what came if it belongs to a head. False if there is no room for it.
    pub(super) fn came(&self, bytes: u64) -> bool {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if bytes == 0 || is(&self.asked) || is(&self.unread) || is(&self.switched) {
            return true;
        }
        self.head_came(bytes)
    }

    /// Whether the client still gets something, or waits for it.
    pub(super) fn owes_an_answer(&self) -> bool {
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

/// An answer's body that waits while the client takes nothing: so two parts of it wait at most, not a whole buffer.
pub(super) struct Paced {
    inner: Body,
    progress: Arc<Progress>,
    /// Bytes that hyper may not have tried to send yet.
    given: usize,
    /// Why it ended early, until what came before is on its way.
    broken: Option<BodyError>,
}

impl Paced {
    pub(super) fn new(inner: Body, progress: Arc<Progress>) -> Self {
        progress.answering.store(true, Ordering::Relaxed);
        Self { inner, progress, given: 0, broken: None }
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
        if self.given >= PART {
            // hyper would fill its buffer first, as long as something comes.
            self.given = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
            self.given = 0;
            return Poll::Pending;
        };
        if let Some(Ok(frame)) = &frame {
            self.given += frame.data_ref().map_or(0, Bytes::len);
        }
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
