//! A connection of HTTP/1.1 to the upstream, which whoever has a request on it drives: no other task is woken for a
//! request, and what has come of an answer goes on at once.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use http::uri::{Authority, Scheme};
use http::{Extensions, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::Connection;
use tokio::sync::oneshot;
use tower::ServiceExt;
use tower_service::Service;

use super::connections::Opened;
use super::connector::Traffic;
use super::outgoing::{Outgoing, Reached};

/// The longest head of an answer, and what one read takes of a body at most.
pub(super) const BUFFER: usize = 64 * 1024;

/// Any error.
pub(super) type Cause = Box<dyn Error + Send + Sync>;

/// Makes connections, of whatever kind.
pub trait Connector:
    Service<Uri, Response: Stream, Error: Into<Cause>, Future: Future + Unpin + Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<C> Connector for C where
    C: Service<Uri, Response: Stream, Error: Into<Cause>, Future: Unpin + Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A connection's bytes.
pub trait Stream: Read + Write + Connection + Unpin + Send + Sync + 'static {}

impl<S: Read + Write + Connection + Unpin + Send + Sync + 'static> Stream for S {}

/// A connection.
pub(super) struct Carrier {
    sender: SendRequest<Outgoing>,
    /// None once it has ended.
    connection: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send + Sync>>>,
    traffic: Option<Arc<Traffic>>,
    opened: Option<Arc<Opened>>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
}

impl Carrier {
    /// Connects.
    pub(super) async fn open<C: Connector>(connector: C, uri: Uri) -> Result<Self, Cause> {
        let (scheme, authority) = (uri.scheme().cloned(), uri.authority().cloned());
        let stream = connector.oneshot(uri).await.map_err(Into::into)?;
        let mut told = Extensions::new();
        stream.connected().get_extras(&mut told);
        let (sender, connection) = http1::Builder::new().max_buf_size(BUFFER).handshake(stream).await?;
        let connection: Option<Pin<Box<dyn Future<Output = _> + Send + Sync>>> = Some(Box::pin(connection));
        Ok(Self { sender, connection, traffic: told.remove(), opened: told.remove(), scheme, authority })
    }

    /// Whether it leads there.
    pub(super) fn leads_to(&self, uri: &Uri) -> bool {
        self.authority.as_ref() == uri.authority() && self.scheme.as_ref() == uri.scheme()
    }

    /// What is known of it, if it is one of ours.
    pub(super) fn opened(&self) -> Option<&Arc<Opened>> {
        self.opened.as_ref()
    }

    /// What passes over it, if that is known.
    pub(super) fn traffic(&self) -> Option<&Arc<Traffic>> {
        self.traffic.as_ref()
    }

    /// Sends and reads what can be.
    pub(super) fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(context).is_ready()
        {
            self.connection = None;
        }
    }

    /// Whether the next request may be sent.
    pub(super) fn is_free(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready() && self.is_flushed()
    }

    /// Of an answer that came early the end of its request may still lie in a buffer.
    fn is_flushed(&self) -> bool {
        self.traffic.as_ref().is_none_or(|traffic| traffic.is_flushed())
    }

    /// The same of one that nobody drives: the upstream may have closed it. Before it is asked for the first time, a
    /// connection does not say that it is free.
    pub(super) fn is_still_free(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.is_free()
    }

    /// Drives it until the next request may be sent. False if there will be none, or it is `told` that none shall.
    pub(super) async fn is_free_again(&mut self, mut told: oneshot::Receiver<bool>) -> bool {
        let mut may_stay = None;
        std::future::poll_fn(|context| {
            self.drive(context);
            if self.connection.is_none() {
                return Poll::Ready(false);
            }
            // Until the answer is there its request may lie unsent in the queue, though another one seems to be wanted.
            let may_stay = match may_stay {
                Some(may_stay) => may_stay,
                None => *may_stay.insert(ready!(Pin::new(&mut told).poll(context)) == Ok(true)),
            };
            if !self.is_flushed() {
                return Poll::Pending;
            }
            self.sender.poll_ready(context).map(|ready| ready.is_ok() && may_stay)
        })
        .await
    }

    /// A request on its way; it is sent and answered while the connection is driven.
    pub(super) fn ask(
        &mut self,
        request: Request<Outgoing>,
    ) -> impl Future<Output = Result<Response<Incoming>, Broken>> + use<> {
        let traffic = self.traffic.clone();
        if let Some(traffic) = &traffic {
            traffic.begin();
        }
        let answer = self.sender.try_send_request(request);
        async move {
            answer.await.map_err(|mut failed| {
                let reached = match (failed.take_message(), &traffic) {
                    (Some(_), _) => Reached::Nothing,
                    (None, None) => Reached::Upstream,
                    (None, Some(traffic)) => Reached::by(traffic),
                };
                Broken { error: failed.into_error(), reached }
            })
        }
    }
}

/// A request got no answer.
pub(super) struct Broken {
    pub(super) error: hyper::Error,
    pub(super) reached: Reached,
}
