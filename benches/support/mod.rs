//! What the benchmarks over loopback share: a client, a bare responder to compare with, rounds and medians.
#![allow(dead_code, unreachable_pub, reason = "each benchmark uses its part")]

use std::convert::Infallible;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anteroom::config::{self, Flags, SettingsFile};
use anteroom::engine::metrics::Metrics;
use anteroom::server::listeners::Server;
use anteroom::state::State;
use anteroom_stand_in::{Options, StandIn};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// Fields of a request.
pub type Fields = &'static [(&'static str, &'static str)];

/// How often each thing is measured, in turns.
pub const ROUNDS: usize = 30;
const CONNECTIONS: usize = 16;
const REQUESTS: usize = 60;

pub type Client = SendRequest<Empty<Bytes>>;

/// A connection.
pub async fn connect(address: SocketAddr) -> Client {
    let stream = TcpStream::connect(address).await.expect("loopback");
    stream.set_nodelay(true).expect("a socket option");
    let (client, connection) = handshake(TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    client
}

/// One request and its whole answer.
pub async fn ask(client: &mut Client, path: &str, fields: &[(&str, &str)]) -> (HeaderMap, Bytes) {
    let mut request = Request::get(path).header("host", "bench.test");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::new()).expect("a request");
    client.ready().await.expect("an open connection");
    let response = client.send_request(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    (head.headers, body.collect().await.expect("a body").to_bytes())
}

/// Sends the same bytes whatever is asked.
pub async fn bare(head: HeaderMap, body: Bytes) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("an address");
    let head = Arc::new(head);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("a socket option");
            let (head, body) = (head.clone(), body.clone());
            let service = service_fn(move |_| {
                let mut response = Response::new(Full::new(body.clone()));
                *response.headers_mut() = (*head).clone();
                async { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// The time per request of a round: some connections, each asking one request after another.
pub async fn round(address: SocketAddr, path: &str, fields: Fields) -> f64 {
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut client = connect(address).await;
        ask(&mut client, path, fields).await;
        clients.push(client);
    }
    let began = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let path = path.to_owned();
            tokio::spawn(async move {
                for _ in 0..REQUESTS {
                    black_box(ask(&mut client, &path, fields).await);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a round");
    }
    per_request(began.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand requests")]
fn per_request(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6 / (CONNECTIONS * REQUESTS) as f64
}

/// The middle of them.
pub fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A stand-in without latency, and a proxy in front of it whose answers stay fresh.
pub async fn both() -> (StandIn, SocketAddr) {
    let stand_in = StandIn::start(Options { kept_requests: 10, ..Options::default() }).await.expect("a stand-in");
    let (proxy, _) = proxy(&stand_in, "cache.ttl = \"10m\"\ncache.stale_if_error = \"1h\"").await;
    (stand_in, proxy)
}

/// A proxy in front of a stand-in, with more settings: its public and its private listener.
pub async fn proxy(stand_in: &StandIn, settings: &str) -> (SocketAddr, SocketAddr) {
    let any = Some("127.0.0.1:0".to_owned());
    let flags = Flags { upstream: Some(stand_in.url()), listen: any.clone(), admin: any };
    let none = std::iter::empty::<(String, String)>();
    let text = SettingsFile::Text("bench.toml".into(), settings.to_owned());
    let config = config::load(text, &flags, none).expect("settings").config;
    let settings = config.server.clone();
    let state = State::new(config, Arc::new(Metrics::new())).expect("a room");
    let server = Server::bind(state, settings).await.expect("loopback");
    let addresses = server.addresses().expect("addresses");
    tokio::spawn(server.run(std::future::pending()));
    (addresses.port().expect("one of TCP"), addresses.admin)
}
