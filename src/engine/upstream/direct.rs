//! The pool of connections of HTTP/1.1, and requests over them. A request without a body is carried by the task that
//! sent it, and so is its answer; one with a body by a task of its own, since its answer may stand still while the rest of
//! it is sent.
//!
//! Nobody drives a connection that lies idle: whether it has ended is seen when it is taken, and once a second.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{Notify, oneshot};

use super::addresses::Addresses;
use super::answers::{is_answer, kind, leaves_a_doubt};
use super::carrier::{Broken, Carrier, Cause, Connector};
use super::error::UpstreamError;
use super::outgoing::{Outgoing, Reached};
use crate::engine::body::longer;
use crate::engine::clock;

/// How often idle connections are looked after.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

type Connecting = Pin<Box<dyn Future<Output = Result<Box<Carrier>, Cause>> + Send>>;

/// The pool.
pub(super) struct Direct {
    connect: Box<dyn Fn(Uri) -> Connecting + Send + Sync>,
    idle: Arc<Idle>,
    /// Unless connections are of another kind.
    addresses: Option<Arc<Addresses>>,
}

/// A request got no answer.
pub(super) struct Unanswered {
    pub(super) error: UpstreamError,
    pub(super) reached: Reached,
}

impl From<Broken> for Unanswered {
    fn from(Broken { error, reached }: Broken) -> Self {
        Self { error: kind(&error), reached }
    }
}

impl Direct {
    pub(super) fn new<C: Connector>(connector: C, addresses: Option<Arc<Addresses>>, limit: Duration) -> Self {
        let connect = move |uri| {
            let connecting = Carrier::open(connector.clone(), uri);
            Box::pin(async move { connecting.await.map(Box::new) }) as Connecting
        };
        let idle = Idle { limit, lying: Mutex::default(), returned: Notify::new() };
        Self { connect: Box::new(connect), idle: Arc::new(idle), addresses }
    }

    /// Sends a request, of which `sending` keeps hold if it has a body; `is_fresh`: over a connection that is made for it.
    pub(super) async fn send(
        &self,
        mut request: Request<Outgoing>,
        is_fresh: bool,
    ) -> Result<Response<Arriving>, Unanswered> {
        let mut carrier = self
            .carrier(request.uri(), is_fresh)
            .await
            .map_err(|cause| Unanswered { error: kind(&*cause), reached: Reached::Nothing })?;
        // Requests of our own need not say it.
        if !request.headers().contains_key(header::HOST)
            && let Some(host) = request.uri().authority().and_then(|host| HeaderValue::try_from(host.as_str()).ok())
        {
            request.headers_mut().insert(header::HOST, host);
        }
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        request.body().goes_over(carrier.traffic());
        let has_body = !request.body().is_none();
        let mut answer = std::pin::pin!(carrier.ask(request));
        if has_body {
            let idle = self.idle.clone();
            let (tell, told) = oneshot::channel();
            tokio::spawn(async move {
                if carrier.is_free_again(told).await {
                    idle.keep(carrier);
                }
            });
            let response = answer.await?;
            let is_answer = is_answer(&response, false);
            let _ = tell.send(is_answer && !leaves_a_doubt(&response));
            return if is_answer { Ok(response.map(Arriving::Apart)) } else { Err(NO_ANSWER) };
        }
        let response = std::future::poll_fn(|context| {
            carrier.drive(context);
            answer.as_mut().poll(context)
        })
        .await?;
        if !is_answer(&response, false) {
            return Err(NO_ANSWER);
        }
        let idle = (!leaves_a_doubt(&response)).then(|| self.idle.clone());
        let (head, body) = response.into_parts();
        let mut body = Carried { body, first: None, carrier: Some(carrier), idle };
        // What came with the head is taken at once: of a short answer that is all, and its connection is free.
        std::future::poll_fn(|context| body.begin(context)).await;
        Ok(Response::from_parts(head, Arriving::Own(body)))
    }

    /// An idle connection, or a new one, whichever is there first.
    async fn carrier(&self, uri: &Uri, is_fresh: bool) -> Result<Box<Carrier>, Cause> {
        if !is_fresh && let Some(carrier) = self.idle.take(uri) {
            return Ok(carrier);
        }
        let connecting = (self.connect)(uri.clone());
        let addresses = self.addresses.clone();
        let mut connecting: Connecting = Box::pin(async move {
            let carrier = connecting.await?;
            if let (Some(addresses), Some(opened)) = (&addresses, carrier.opened()) {
                addresses.note_own(opened);
            }
            Ok(carrier)
        });
        if is_fresh {
            return connecting.await;
        }
        tokio::select! {
            biased;
            connected = &mut connecting => connected,
            carrier = self.idle.taken(uri) => {
                // It would be a pity to throw it away.
                let idle = self.idle.clone();
                tokio::spawn(async move {
                    if let Ok(mut carrier) = connecting.await
                        && carrier.is_still_free()
                    {
                        idle.keep(carrier);
                    }
                });
                Ok(carrier)
            }
        }
    }
}

/// What cannot be one.
const NO_ANSWER: Unanswered = Unanswered { error: UpstreamError::Malformed, reached: Reached::Upstream };

/// Connections without a request.
struct Idle {
    /// `upstream.pool_idle`.
    limit: Duration,
    lying: Mutex<Lying>,
    /// Told of each that comes back.
    returned: Notify,
}

#[derive(Default)]
struct Lying {
    /// Since when; the last one is taken first.
    carriers: Vec<(Instant, Box<Carrier>)>,
    /// They are looked after.
    is_swept: bool,
}

impl Idle {
    /// One that leads there and may be used.
    fn take(&self, uri: &Uri) -> Option<Box<Carrier>> {
        let now = clock::now();
        loop {
            let (since, mut carrier) = {
                let carriers = &mut self.lock().carriers;
                let place = carriers.iter().rposition(|(_, carrier)| carrier.leads_to(uri))?;
                carriers.remove(place)
            };
            if self.may_stay(now, since, &mut carrier) {
                return Some(carrier);
            }
        }
    }

    /// The same, as soon as one comes back.
    async fn taken(&self, uri: &Uri) -> Box<Carrier> {
        loop {
            // Two that come back at once are told of once.
            if let Some(carrier) = self.take(uri) {
                return carrier;
            }
            self.returned.notified().await;
        }
    }

    fn may_stay(&self, now: Instant, since: Instant, carrier: &mut Carrier) -> bool {
        now.saturating_duration_since(since) < self.limit
            && carrier.opened().is_none_or(|opened| !opened.is_retired())
            && carrier.is_still_free()
    }

    /// A request is done with it.
    fn keep(self: &Arc<Self>, carrier: Box<Carrier>) {
        if !carrier.is_free() {
            return;
        }
        let begins = {
            let mut lying = self.lock();
            lying.carriers.push((clock::now(), carrier));
            !std::mem::replace(&mut lying.is_swept, true)
        };
        self.returned.notify_one();
        if begins {
            let (idle, every) = (Arc::downgrade(self), self.limit.min(SWEEP_EVERY));
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(every).await;
                    let Some(idle) = idle.upgrade() else { return };
                    if !idle.sweep() {
                        return;
                    }
                }
            });
        }
    }

    /// Ends those that have lain for too long, or are of no use any more. False if none is left.
    fn sweep(&self) -> bool {
        let now = clock::now();
        let mut lying = self.lock();
        lying.carriers.retain_mut(|(since, carrier)| self.may_stay(now, *since, carrier));
        lying.is_swept = !lying.carriers.is_empty();
        lying.is_swept
    }

    /// Held briefly; a panic while it is held leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Lying> {
        self.lying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer's body as it comes from the upstream.
pub enum Arriving {
    /// Another task drives its connection.
    Apart(Incoming),
    /// Whoever reads it does.
    Own(Carried),
}

/// A body with the connection it comes on.
pub struct Carried {
    body: Incoming,
    /// What came with the head.
    first: Option<First>,
    /// Until the body has ended; dropped before that, it ends.
    carrier: Option<Box<Carrier>>,
    /// Where it goes then, if it may be used again.
    idle: Option<Arc<Idle>>,
}

/// What came first of a body.
enum First {
    Data(Bytes),
    /// Hardly ever: in a box, or every body would have room for it.
    Else(Box<hyper::Result<Frame<Bytes>>>),
}

impl Carried {
    fn give_back(&mut self) {
        if let (Some(carrier), Some(idle)) = (self.carrier.take(), self.idle.take()) {
            idle.keep(carrier);
        }
    }

    /// Ready at once.
    fn begin(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.body.is_end_stream() {
            self.give_back();
        } else if let Poll::Ready(Some(first)) = self.poll_rest(context) {
            self.first = Some(match first.map(Frame::into_data) {
                Ok(Ok(data)) => First::Data(data),
                Ok(Err(frame)) => First::Else(Box::new(Ok(frame))),
                Err(error) => First::Else(Box::new(Err(error))),
            });
        }
        Poll::Ready(())
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match self.first.take() {
            Some(First::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(First::Else(first)) => Poll::Ready(Some(*first)),
            None => self.poll_rest(context),
        }
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let mut frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending()
            && let Some(carrier) = &mut self.carrier
        {
            carrier.drive(context);
            frame = Pin::new(&mut self.body).poll_frame(context);
        }
        let frame = ready!(frame);
        // A sized body is not always polled to its end: its last frame tells.
        match &frame {
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            Some(Err(_)) => self.carrier = None,
            _ => self.give_back(),
        }
        Poll::Ready(frame)
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Apart(body) => Pin::new(body).poll_frame(context),
            Self::Own(body) => body.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Apart(body) => body.is_end_stream(),
            Self::Own(Carried { body, first, .. }) => first.is_none() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Apart(body) | Self::Own(Carried { body, first: None, .. }) => body.size_hint(),
            Self::Own(Carried { body, first: Some(first), .. }) => {
                longer(&body.size_hint(), if let First::Data(data) = first { data.len() as u64 } else { 0 })
            }
        }
    }
}
