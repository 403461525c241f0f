//! An upstream that answers as a test's closure says, for what the stand-in does not do.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// What an upstream answers.
pub type Scripted = Response<Full<Bytes>>;

/// An answer with this status, kind and body.
pub fn answer(status: u16, kind: &'static str, body: &str) -> Scripted {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *answer.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// 200 with JSON.
pub fn json(body: &str) -> Scripted {
    answer(200, "application/json; charset=utf-8", body)
}

/// An upstream on loopback. It ends when this is dropped.
pub struct Script {
    pub url: String,
    accepting: JoinHandle<()>,
}

impl Script {
    pub async fn start(script: impl Fn(&Request<Incoming>) -> Scripted + Send + Sync + 'static) -> Self {
        Self::gated(Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)), script).await
    }

    /// One that answers once for each permit of the gate.
    pub async fn gated(
        gate: Arc<Semaphore>,
        script: impl Fn(&Request<Incoming>) -> Scripted + Send + Sync + 'static,
    ) -> Self {
        let script = Arc::new(script);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (gate, script) = (gate.clone(), script.clone());
                let service = service_fn(move |request| {
                    let (gate, answer) = (gate.clone(), script(&request));
                    async move {
                        gate.acquire().await.expect("never closed").forget();
                        Ok::<_, Infallible>(answer)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { url, accepting }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
