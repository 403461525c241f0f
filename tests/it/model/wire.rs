//! Connections in memory to the register, spoken over by the real HTTP client and a real HTTP server.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::Uri;
use hyper::service::service_fn;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::Dice;
use super::register::{self, Register};

type Serving = Option<(Arc<Mutex<Register>>, Arc<Mutex<Dice>>)>;

/// Where the register is: every connection reaches the one of the schedule that runs.
#[derive(Clone, Default)]
pub struct Origin {
    serving: Arc<Mutex<Serving>>,
}

impl Origin {
    pub fn serves(&self, register: Arc<Mutex<Register>>, dice: Dice) {
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some((register, Arc::new(Mutex::new(dice))));
    }
}

impl tower_service::Service<Uri> for Origin {
    type Response = TokioIo<InMemory>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let serving = self.serving.clone();
        let service = service_fn(move |request| {
            let serving = serving.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (register, dice) = serving.expect("a schedule runs");
            register::answer(register, dice, request)
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
