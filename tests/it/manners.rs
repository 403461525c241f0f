//! Clients with manners of their own: they stop sending, send what nobody asked for, or too much; and faults of ours.

use std::sync::Arc;
use std::time::Duration;

use anteroom::config::Config;
use anteroom::engine::metrics::Metrics;
use anteroom::engine::upstream::client::Upstream;
use anteroom::server::listeners::Server;
use anteroom::server::panics;
use anteroom::state::State;
use anteroom_stand_in::{Matcher, Point, StandIn};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::io::AsyncWriteExt;

use crate::support::raw::{Talk, exchange};
use crate::support::{both, get, settings};

fn list(source: &str) -> String {
    format!("GET {} HTTP/1.1\r\nhost: h\r\n\r\n", StandIn::list_path(source))
}

#[tokio::test]
async fn a_client_that_stops_sending_after_its_request_is_answered() {
    let (stand_in, proxy) = both("").await;
    // A miss and a passing request that take their time, then a hit.
    let passing = list("visitor-a").replace("/conversations ", " ");
    for request in [list("visitor-a"), passing] {
        let gate = stand_in.hold(Point::BeforeReading, Matcher::any());
        let mut talk = Talk::to(&proxy.url).await;
        talk.send(&request).await;
        talk.stream.shutdown().await.expect("an open socket");
        gate.arrived(1).await;
        for _ in 0..100 {
            // The proxy has seen the end by now.
            tokio::task::yield_now().await;
        }
        gate.release_all();
        assert!(talk.message().await.expect("an answer").whole, "{request}");
        assert!(talk.rest().await.is_empty(), "the connection ends");
    }
    let mut talk = Talk::to(&proxy.url).await;
    talk.send(list("visitor-a")).await;
    talk.stream.shutdown().await.expect("an open socket");
    assert!(talk.message().await.expect("an answer").head.contains("anteroom; hit"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_sent_with_a_hit_is_read_on_so_that_the_answer_arrives() {
    let (_stand_in, proxy) = both("").await;
    proxy.list("visitor-a").await;
    let body = "x".repeat(1 << 20);
    for round in 0..20 {
        let head = list("visitor-a").replace("\r\n\r\n", &format!("\r\ncontent-length: {}\r\n\r\n", body.len()));
        let answer = exchange(&proxy.url, format!("{head}{body}")).await;
        assert!(answer.status() == 200 && answer.whole, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_are_too_long_or_have_too_many_fields_are_answered_431() {
    let (_stand_in, proxy) = both("limits.head = \"16KiB\"\nlimits.head_memory = \"8KiB\"").await;
    let long = |length: usize| format!("GET /nowhere HTTP/1.1\r\nhost: h\r\nx-long: {}\r\n\r\n", "x".repeat(length));
    let many = format!("GET /nowhere HTTP/1.1\r\nhost: h\r\n{}\r\n", "x-many: 1\r\n".repeat(200));
    assert_eq!(exchange(&proxy.url, long(8_000)).await.status(), 404);
    for request in [long(20_000), long(1_000_000), many] {
        assert_eq!(exchange(&proxy.url, request).await.status(), 431);
    }
    // Together: the second one finds no room beside the first.
    let half = format!("GET /nowhere HTTP/1.1\r\nhost: h\r\nx-long: {}", "x".repeat(15_000));
    // Those before have gone, with what they held.
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 0.0).await;
    let mut first = Talk::to(&proxy.url).await;
    first.send(&half).await;
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 1.0).await;
    let mut refused = 0;
    for _ in 0..3 {
        // Bytes on the way are not counted yet.
        refused += u32::from(exchange(&proxy.url, &half).await.status() == 431);
    }
    assert!(refused >= 2, "{refused}");
    assert_eq!(get(&format!("{}/nowhere", proxy.url)).await.status, 404);
    first.send("\r\n\r\n").await;
    // There is room for one of the four, and it need not be the first.
    let expected = if refused == 3 { 404 } else { 431 };
    assert_eq!(first.message().await.expect("an answer").status(), expected);
}

/// A way to the upstream that is a fault of ours.
#[derive(Clone)]
struct Faulty(HttpConnector);

impl tower_service::Service<http::Uri> for Faulty {
    type Response = <HttpConnector as tower_service::Service<http::Uri>>::Response;
    type Error = <HttpConnector as tower_service::Service<http::Uri>>::Error;
    type Future = <HttpConnector as tower_service::Service<http::Uri>>::Future;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        panic!("a secret: {uri}")
    }
}

#[tokio::test]
async fn a_panic_ends_its_request_only_and_is_counted() {
    let stand_in = StandIn::start(anteroom_stand_in::Options::default()).await.expect("a stand-in");
    let config: Config = settings(&stand_in.url(), "");
    let metrics = Arc::new(Metrics::new());
    let before = std::panic::take_hook();
    let ours = panics::hook(metrics.clone());
    std::panic::set_hook(Box::new(move |info| {
        ours(info);
        before(info);
    }));
    let upstream = Upstream::over(Faulty(HttpConnector::new()), config.upstream.clone(), metrics.clone());
    let server = config.server.clone();
    let state = State::with(config, upstream, metrics.clone());
    let server = Server::bind(state, server).await.expect("loopback can be bound");
    let url = format!("http://{}", server.addresses().expect("an address").port().expect("one of TCP"));
    let running = tokio::spawn(server.run(std::future::pending()));
    let mut talk = Talk::to(&url).await;
    for _ in 0..2 {
        talk.send("GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let answer = tokio::time::timeout(Duration::from_secs(20), talk.message()).await.expect("it does not hang");
        let answer = answer.expect("the connection goes on");
        assert_eq!(answer.status(), 500);
        assert!(!answer.text().contains("secret"));
    }
    assert!(metrics.panics.get() >= 2);
    running.abort();
}
