//! HTTP/2 towards the upstream: for the proxy's own fetches, where it is offered, and for nothing else.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anteroom_stand_in::INBOX;
use bytes::Bytes;
use http::{Response, StatusCode, Version};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::support::raw::exchange;
use crate::support::tls::Certificate;
use crate::support::{Proxy, get, post, reading, spawn};

const LIST: &str = r#"[{"id":1,"contact":{"id":7}}]"#;

/// What an upstream does with a connection of HTTP/2.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    Answers,
    /// The connection ends with its first request.
    Breaks,
    /// The first connection gives no answer.
    FirstHangs,
}

/// An upstream with TLS that notes the connection, the version, the method and the path of each request.
pub struct Secure {
    pub url: String,
    pub certificate: Certificate,
    seen: Arc<Mutex<Vec<(usize, Version, String)>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Secure {
    pub async fn start(protocols: &[&str], manner: Manner) -> Self {
        let certificate = Certificate::for_names(&["127.0.0.1"]);
        let acceptor = certificate.acceptor_of(protocols);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let noted = seen.clone();
        let accepting = spawn(async move {
            let mut connection = 0;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                connection += 1;
                let (number, noted) = (connection, noted.clone());
                let breaking = tokio_util::sync::CancellationToken::new();
                let broken = breaking.clone();
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let what = format!("{} {}", request.method(), request.uri().path());
                    noted.lock().unwrap().push((number, request.version(), what));
                    if manner == Manner::Breaks && is_http2 {
                        breaking.cancel();
                    }
                    let hangs = is_http2 && (manner == Manner::Breaks || manner == Manner::FirstHangs && number == 1);
                    async move {
                        if hangs {
                            std::future::pending::<()>().await;
                        }
                        // Without a length: in HTTP/2 its end is known all the same.
                        let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from_static(LIST.as_bytes())))];
                        let body = StreamBody::new(futures_util::stream::iter(frames));
                        Ok::<_, Infallible>(
                            Response::builder().header("content-type", "application/json").body(body).unwrap(),
                        )
                    }
                });
                let io = TokioIo::new(stream);
                spawn(async move {
                    if is_http2 {
                        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service);
                        tokio::select! {
                            _ = serving => {}
                            () = broken.cancelled() => {}
                        }
                    } else {
                        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                    }
                });
            }
        });
        Self { url, certificate, seen, accepting }
    }

    async fn proxy(&self, more: &str) -> Proxy {
        let trusting = format!("upstream.ca_file = \"{}\"\n{more}", self.certificate.authority().display());
        Proxy::in_front_of(&self.url, &trusting).await
    }

    fn seen(&self, part: &str) -> Vec<(usize, Version)> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(.., what)| what.contains(part)).map(|(number, version, _)| (*number, *version)).collect()
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[tokio::test]
async fn shared_fetches_share_a_connection_and_everything_else_has_its_own() {
    let upstream = Secure::start(&["h2", "http/1.1"], Manner::Answers).await;
    let proxy = upstream.proxy("").await;
    assert_eq!(proxy.list("first").await.status, StatusCode::OK);
    let readers: Vec<_> = (0..12).map(|number| reading(&proxy, &format!("visitor-{number}"))).collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap().body, LIST);
    }
    let lists = upstream.seen("/conversations");
    assert_eq!(lists.len(), 13);
    assert!(lists.iter().all(|list| *list == (lists[0].0, Version::HTTP_2)), "{lists:?}");
    assert!(proxy.list("first").await.is_hit(), "its end is known without a length");
    assert_eq!(get(&format!("{}/passes", proxy.url)).await.status, StatusCode::OK);
    assert_eq!(post(&format!("{}/writes", proxy.url), "{}").await.status, StatusCode::OK);
    let handshake = "GET /cable HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                     sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    assert_eq!(exchange(&proxy.url, handshake).await.status(), 200);
    for what in ["GET /passes", "POST /writes", "GET /cable"] {
        let seen = upstream.seen(what);
        assert!(seen.len() == 1 && seen[0].1 == Version::HTTP_11, "{what}: {seen:?}");
    }
}

#[tokio::test]
async fn where_it_is_not_offered_or_not_wanted_all_is_as_before() {
    for (protocols, settings) in [
        (&["http/1.1"][..], ""),
        (&[][..], ""),
        (&["h2", "http/1.1"][..], "upstream.http2 = \"off\""),
        (&["h2", "http/1.1"][..], "upstream.host = \"client\""),
    ] {
        let upstream = Secure::start(protocols, Manner::Answers).await;
        let proxy = upstream.proxy(settings).await;
        assert_eq!(proxy.list("visitor-a").await.body, LIST);
        assert!(upstream.seen(INBOX).iter().all(|(_, version)| *version == Version::HTTP_11), "{settings}");
    }
}

#[tokio::test]
async fn a_fetch_whose_shared_connection_breaks_is_made_again_on_one_of_its_own() {
    let upstream = Secure::start(&["h2", "http/1.1"], Manner::Breaks).await;
    let proxy = upstream.proxy("").await;
    for visitor in ["a", "b", "c"] {
        assert_eq!(proxy.list(visitor).await.body, LIST);
        let seen = upstream.seen(&format!("/{visitor}/"));
        let versions: Vec<_> = seen.iter().map(|(_, version)| *version).collect();
        assert_eq!(versions, [Version::HTTP_2, Version::HTTP_11]);
    }
}

#[tokio::test]
async fn a_shared_connection_that_gives_no_answer_is_left() {
    let upstream = Secure::start(&["h2", "http/1.1"], Manner::FirstHangs).await;
    let proxy = upstream.proxy("upstream.head_timeout = \"300ms\"").await;
    assert_eq!(proxy.list("visitor-a").await.status, StatusCode::GATEWAY_TIMEOUT);
    let second = tokio::time::timeout(Duration::from_secs(20), proxy.list("visitor-b")).await.unwrap();
    assert_eq!(second.body, LIST);
    assert_eq!(upstream.seen("/visitor-b/"), [(2, Version::HTTP_2)]);
}
