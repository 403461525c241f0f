//! What a hit and a pass-through cost over loopback, as ratios against a bare hyper responder that sends the same
//! bytes, and what the ledger's check adds to a hit. All in one run, in rounds that take turns, by medians: absolute
//! times mean little on shared machines.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark prints and measures")]

use std::convert::Infallible;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anteroom::config::{self, Flags, SettingsFile};
use anteroom::demo::{Options, Shape, StandIn};
use anteroom::engine::metrics::Metrics;
use anteroom::policy::ledger::{Ledger, PLACES, Scope};
use anteroom::room::Room;
use anteroom::server::Server;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

const ROUNDS: usize = 30;
const CONNECTIONS: usize = 16;
const REQUESTS: usize = 60;

type Client = SendRequest<Empty<Bytes>>;

async fn connect(address: SocketAddr) -> Client {
    let stream = TcpStream::connect(address).await.expect("loopback");
    stream.set_nodelay(true).expect("a socket option");
    let (client, connection) = handshake(TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    client
}

async fn ask(client: &mut Client, path: &str, fields: &[(&'static str, &'static str)]) -> (HeaderMap, Bytes) {
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
async fn bare(head: HeaderMap, body: Bytes) -> SocketAddr {
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
async fn round(address: SocketAddr, path: &str, fields: &'static [(&'static str, &'static str)]) -> f64 {
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

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

async fn compare(stand_in: &StandIn, proxy: SocketAddr, size: usize) {
    let source = format!("bench-{size}");
    stand_in.seed(&source, Shape { conversations: 1, messages: 1, bytes: size });
    let list = StandIn::list_path(&source);
    let passed = format!("{list}?api_access_token=none");
    let mut client = connect(proxy).await;
    ask(&mut client, &list, &[]).await;
    let (mut head, body) = ask(&mut client, &list, &[]).await;
    assert!(head["cache-status"].as_bytes().starts_with(b"anteroom; hit"), "not a hit");
    head.remove("date");
    let bare = bare(head, body.clone()).await;
    let stand_in = stand_in.addr();
    let (mut baseline, mut hit, mut not_modified, mut direct, mut pass) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        baseline.push(round(bare, &list, &[]).await);
        hit.push(round(proxy, &list, &[]).await);
        not_modified.push(round(proxy, &list, &[("if-none-match", "*")]).await);
        direct.push(round(stand_in, &passed, &[]).await);
        pass.push(round(proxy, &passed, &[]).await);
    }
    let (baseline, hit, not_modified) = (median(baseline), median(hit), median(not_modified));
    let (direct, pass) = (median(direct), median(pass));
    println!("body of {:>7} bytes, per request:", body.len());
    println!("  bare responder      {baseline:8.1} us   1.00");
    println!("  hit                 {hit:8.1} us   {:.2} of the bare responder", hit / baseline);
    println!("  hit, 304            {not_modified:8.1} us   {:.2} of the bare responder", not_modified / baseline);
    println!("  stand-in, direct    {direct:8.1} us");
    let added = (pass - direct) / baseline;
    println!("  pass-through        {pass:8.1} us   adds {added:.2} bare responders to the stand-in's own time");
}

/// What the one rule costs a hit: the check of a typical answer's places.
fn ledger(hit: f64) {
    let ledger = Ledger::new(PLACES, [1, 2]);
    let scopes = [Scope::Source("a"), Scope::Inbox("b"), Scope::List("c"), Scope::Contact(42)];
    let mut places: Vec<_> = scopes.iter().map(|scope| ledger.place(scope)).collect();
    for id in 0..4 {
        places.push(ledger.place(&Scope::AccountConversation(7, id)));
    }
    let noted = ledger.now();
    let times = 1_000_000_u32;
    let began = Instant::now();
    for _ in 0..times {
        black_box(ledger.is_current(black_box(noted), black_box(&places)));
    }
    let check = began.elapsed().as_secs_f64() * 1e9 / f64::from(times);
    println!("the ledger's check of {} places: {check:.1} ns, {:.3} % of a hit", places.len(), check / hit / 10.0);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stand_in = StandIn::start(Options { kept_requests: 10, ..Options::default() }).await.expect("a stand-in");
        let flags = Flags {
            upstream: Some(stand_in.url()),
            listen: Some("127.0.0.1:0".into()),
            admin: Some("127.0.0.1:0".into()),
        };
        let text = "cache.ttl = \"10m\"\ncache.stale_if_error = \"1h\"".to_owned();
        let none = std::iter::empty::<(String, String)>();
        let loaded = config::load(SettingsFile::Text("bench.toml".into(), text), &flags, none).expect("settings");
        let settings = loaded.config.server;
        let room = Room::new(loaded.config, Arc::new(Metrics::new())).expect("a room");
        let server = Server::bind(room, settings).await.expect("loopback");
        let (proxy, _) = server.addresses().expect("addresses");
        tokio::spawn(server.run(std::future::pending()));
        for size in [100, 11_000, 200_000] {
            compare(&stand_in, proxy, size).await;
        }
        let path = StandIn::list_path("bench-11000");
        let hit = round(proxy, &path, &[]).await;
        ledger(hit);
    });
}
