//! Plain hits of a connection, answered before hyper has seen their requests. hyper gets all other requests, and nothing while
//! an answer from here is being sent.
//!
//! That is safe only where it is known for certain that a request begins: when hyper has answered all that it was given. So
//! what it is given is counted by requests, each whole and by itself. As soon as one cannot be told from the next (several at
//! once, a head in pieces, a body of unknown length) the connection is hyper's to its end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::conversation::Conversation;
use crate::policy::http::pieces::Pieces;
use crate::policy::http::plain_head::Beginning;
use crate::proxy::plain_hit::PlainHit;

/// The hits of one connection.
pub(super) struct AtOnce {
    conversation: Arc<Conversation>,
    hyper: Hyper,
    sending: Option<Sending>,
}

/// What hyper has of this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hyper {
    /// Nothing: the next byte is the first of a request.
    Nothing,
    /// A request, of which so many bytes are still to come, and which may not have been answered.
    Request { left: usize },
    /// More than one request, or part of one.
    All,
}

/// An answer on its way.
struct Sending {
    hit: PlainHit,
    /// Bytes of head and body that were taken.
    taken: usize,
}

impl AtOnce {
    pub(super) fn new(conversation: Arc<Conversation>) -> Self {
        Self { conversation, hyper: Hyper::Nothing, sending: None }
    }

    /// These bytes came. Gives the answer's beginning if they are a plain hit, which [`Self::poll_sent`] sends; else hyper is
    /// to have them.
    pub(super) fn came(&mut self, bytes: &[u8]) -> Option<tokio::time::Instant> {
        self.hyper = match self.hyper {
            Hyper::Nothing => {
                let beginning = Beginning::of(bytes);
                let is_short = bytes.len() <= self.conversation.head_limit;
                if let Beginning::Plain(asked) = &beginning
                    && is_short
                    && let Some(hit) = self.conversation.plain_hit(asked)
                {
                    let began = hit.began;
                    self.sending = Some(Sending { hit, taken: 0 });
                    return Some(began.into());
                }
                let left = match beginning {
                    Beginning::Plain(_) => Some(0),
                    Beginning::Request(extent) => extent.checked_sub(bytes.len()),
                    Beginning::Unclear => None,
                };
                left.map_or(Hyper::All, |left| Hyper::Request { left })
            }
            Hyper::Request { left } => match left.checked_sub(bytes.len()) {
                Some(left) => Hyper::Request { left },
                None => Hyper::All,
            },
            Hyper::All => Hyper::All,
        };
        None
    }

    /// hyper owes nothing any more.
    pub(super) fn is_answered(&mut self) {
        if self.hyper == (Hyper::Request { left: 0 }) {
            self.hyper = Hyper::Nothing;
        }
    }

    /// Sends what is left of an answer.
    pub(super) fn poll_sent<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        while let Some(parts) = sending.left() {
            match ready!(Pin::new(&mut *io).poll_write_vectored(context, &parts))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => sending.taken += taken,
            }
        }
        ready!(Pin::new(io).poll_flush(context))?;
        self.sending = None;
        Poll::Ready(Ok(()))
    }

    /// Whether an answer is on its way.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }
}

impl Sending {
    /// What is left, if anything is: of the head and of each piece of the body.
    fn left(&self) -> Option<[IoSlice<'_>; 1 + Pieces::MOST]> {
        let [first, rest] = self.hit.body.all();
        let (mut taken, mut is_left) = (self.taken, false);
        let parts = [&self.hit.head, first, rest].map(|part| {
            let of_part = taken.min(part.len());
            taken -= of_part;
            is_left |= of_part < part.len();
            IoSlice::new(&part[of_part..])
        });
        is_left.then_some(parts)
    }
}
