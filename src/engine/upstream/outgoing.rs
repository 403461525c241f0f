//! A request's body on its way to a connection: it can be taken back as long as no byte of the request was sent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper_util::client::legacy::connect::{CaptureConnection, Connected};
use tokio::sync::oneshot;

use super::connector::Traffic;
use crate::engine::body::{Body, BodyError, longer};

/// How soon hyper tells that a connection is gone.
const TOLD_WITHIN: Duration = Duration::from_millis(50);

/// The body as hyper gets it.
pub(super) struct Outgoing {
    /// None if there is no body.
    shared: Option<Arc<Shared>>,
    /// Dropped when the body has been given to the connection, or is dropped.
    tell: Option<oneshot::Sender<()>>,
}

/// The sender's hold on it, for as long as the request may have to be sent again.
pub(super) struct Sending(Arc<Shared>);

struct Shared {
    /// The connection that was chosen last.
    chosen: OnceLock<Chosen>,
    /// What took the request up; without an account of what passes over it, the worst is assumed.
    taken: OnceLock<Option<Arc<Traffic>>>,
    body: Mutex<Replayed>,
}

/// A connection for a request.
enum Chosen {
    /// By hyper-util, which may choose another one.
    Captured(CaptureConnection),
    /// By our own pool, with the account of what passes over it if there is one.
    Own(Option<Arc<Traffic>>),
}

impl Chosen {
    fn traffic(&self) -> Option<Arc<Traffic>> {
        match self {
            Self::Captured(chosen) => traffic_of(chosen.connection_metadata().as_ref()),
            Self::Own(traffic) => traffic.clone(),
        }
    }
}

/// How far a request came that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// No byte of it was sent: any request may be sent again.
    Nothing,
    /// It was sent on a connection that had lain idle and gave no byte: the upstream had most likely closed it.
    IdleConnection,
    /// It may have been acted on.
    Upstream,
}

impl Reached {
    /// By what has passed since the connection took the request up.
    pub(super) fn by(traffic: &Traffic) -> Self {
        if !traffic.was_sent() {
            Self::Nothing
        } else if traffic.was_idle() && !traffic.has_answered() {
            Self::IdleConnection
        } else {
            Self::Upstream
        }
    }
}

impl Outgoing {
    /// No body, of which nobody need keep hold.
    pub(super) fn none() -> Self {
        Self { shared: None, tell: None }
    }

    /// Whether that is what it is.
    pub(super) fn is_none(&self) -> bool {
        self.shared.is_none()
    }

    /// It goes over this connection of our own.
    pub(super) fn goes_over(&self, traffic: Option<&Arc<Traffic>>) {
        if let Some(shared) = &self.shared {
            let _ = shared.chosen.set(Chosen::Own(traffic.cloned()));
        }
    }

    /// A body for hyper, the hold on it, and what ends when it has been given away.
    pub(super) fn new(body: Body) -> (Self, Sending, oneshot::Receiver<()>) {
        let (tell, told) = oneshot::channel();
        // An empty body has been given away from the start.
        let tell = (!body.is_empty()).then_some(tell);
        let body = Mutex::new(Replayed { again: VecDeque::new(), given: Vec::new(), rest: body });
        let shared = Arc::new(Shared { chosen: OnceLock::new(), taken: OnceLock::new(), body });
        (Self { shared: Some(shared.clone()), tell }, Sending(shared), told)
    }
}

impl Sending {
    /// Where to look for the connection that hyper chose.
    pub(super) fn goes_over(&self, chosen: CaptureConnection) {
        // There is one for each try.
        let _ = self.0.chosen.set(Chosen::Captured(chosen));
    }

    /// Ends when the request waits at a connection that is gone. hyper says so itself, but for a race: what is handed
    /// over in the very moment of a connection's end stays with it.
    pub(super) async fn stranded(&self) {
        let Some(Chosen::Captured(chosen)) = self.0.chosen.get() else { return std::future::pending().await };
        let mut chosen = chosen.clone();
        loop {
            let traffic = traffic_of(chosen.wait_for_connection_metadata().await.as_ref());
            let Some(traffic) = traffic else { return std::future::pending().await };
            traffic.gone().await;
            tokio::time::sleep(TOLD_WITHIN).await;
            if self.0.taken.get().is_some() {
                return std::future::pending().await;
            }
            let now = traffic_of(chosen.connection_metadata().as_ref());
            if now.is_some_and(|now| Arc::ptr_eq(&now, &traffic)) {
                return;
            }
        }
    }

    /// How far it came, after it has failed.
    pub(super) fn reached(&self) -> Reached {
        match self.0.taken.get() {
            None => Reached::Nothing,
            Some(Some(traffic)) => Reached::by(traffic),
            Some(None) => Reached::Upstream,
        }
    }

    /// The whole body again; only what [`Reached::Nothing`] is whole.
    pub(super) fn take_back(self) -> Body {
        let mut body = self.0.lock();
        let Replayed { again, given, rest } = &mut *body;
        let again: VecDeque<Piece> = given.drain(..).chain(again.drain(..)).collect();
        let rest = std::mem::replace(rest, Body::empty());
        if again.is_empty() { rest } else { Body::stream(Replayed { again, given: Vec::new(), rest }) }
    }
}

fn traffic_of(connection: Option<&Connected>) -> Option<Arc<Traffic>> {
    let mut extras = http::Extensions::new();
    connection?.get_extras(&mut extras);
    extras.remove::<Arc<Traffic>>()
}

impl Shared {
    /// Held for one poll; nobody else polls.
    fn lock(&self) -> MutexGuard<'_, Replayed> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection takes the request up: what passes over it from now on belongs to this request.
    fn take_up(&self) {
        self.taken.get_or_init(|| {
            let traffic = self.chosen.get()?.traffic()?;
            traffic.begin();
            Some(traffic)
        });
    }

    fn is_blocked(&self) -> bool {
        matches!(self.taken.get(), Some(Some(traffic)) if traffic.is_blocked())
    }

    fn may_be_taken_back(&self) -> bool {
        matches!(self.taken.get(), Some(Some(traffic)) if !traffic.was_sent())
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { shared: Some(shared), tell } = self.get_mut() else { return Poll::Ready(None) };
        if shared.is_blocked() {
            // The same task writes, and asks again when that goes on: so one frame waits at most.
            return Poll::Pending;
        }
        let mut body = shared.lock();
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) if shared.may_be_taken_back() => body.given.extend(Piece::of(frame)),
            _ => body.given = Vec::new(),
        }
        // A sized body is not always polled to its end: its last frame tells.
        if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
            *tell = None;
        }
        Poll::Ready(frame)
    }

    /// The first thing a connection asks of a request that it takes up, before it writes any of it.
    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        shared.take_up();
        shared.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.shared.as_ref().map_or_else(|| SizeHint::with_exact(0), |shared| shared.lock().size_hint())
    }
}

/// A part of a body.
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Piece {
    fn of(frame: &Frame<Bytes>) -> Option<Self> {
        let trailers = || frame.trailers_ref().cloned().map(Self::Trailers);
        frame.data_ref().cloned().map(Self::Data).or_else(trailers)
    }

    fn length(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Trailers(_) => 0,
        }
    }
}

/// A body whose first parts were given away already, and come again.
struct Replayed {
    again: VecDeque<Piece>,
    /// Given to a connection that may not have sent any of it. No more than hyper holds itself before it writes.
    given: Vec<Piece>,
    rest: Body,
}

impl http_body::Body for Replayed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this.again.pop_front() {
            Some(Piece::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Piece::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            None => Pin::new(&mut this.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_empty() && self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        longer(&http_body::Body::size_hint(&self.rest), self.again.iter().map(Piece::length).sum())
    }
}
