//! Connections in memory to the two installations, spoken over by the real HTTP client and a real HTTP server.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper::service::service_fn;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::upstream::Origin;

/// The hosts of the two installations.
pub const HOSTS: [&str; 2] = ["http://one.test", "http://two.test"];

/// Connects to whichever of the two is asked for.
#[derive(Clone)]
pub struct Wire(pub Origin);

impl tower_service::Service<Uri> for Wire {
    type Response = TokioIo<InMemory>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let (origin, world) = (self.0.clone(), usize::from(uri.host() == Some("two.test")));
        let service = service_fn(move |request| {
            let origin = origin.clone();
            async move { origin.answer(world, request).await }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service));
        std::future::ready(Ok(TokioIo::new(InMemory(near))))
    }
}

/// One end of a connection.
pub struct InMemory(DuplexStream);

impl Connection for InMemory {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for InMemory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for InMemory {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
