//! How much strangers may ask for: the length of a body, requests at once, requests in a time, heads that do not end. Who
//! is within the limits notices nothing.

use std::time::Duration;

use anteroom_stand_in::{Matcher, Options, Point, Shape, StandIn};
use bytes::Bytes;
use http::StatusCode;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::child::Program;
use crate::support::http2::{self, CONTINUATION, Frames, HEADERS, Http2, block};
use crate::support::raw::{Message, Scripted, Talk, exchange};
use crate::support::{Answer, Proxy, both, get, get_with, jump, post, reading, request, send, settings, spawn};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const A: &str = "visitor-a";
const IN_FLIGHT: &str = "anteroom_requests_in_flight";

fn reached(limit: &str) -> String {
    format!("anteroom_limit_reached_total{{limit=\"{limit}\"}}")
}

/// It is a problem document, and says when to come again if that is known.
fn assert_refused(answer: &Answer, status: u16, retry_after: Option<&str>) {
    assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!(problem["status"], status);
    assert_eq!(answer.header("retry-after"), retry_after, "{answer:?}");
    assert!(answer.header("x-request-id").is_some() && !answer.cache_status().contains("hit"));
}

fn assert_problem(answer: &Message, status: u16) {
    assert_eq!((answer.status(), answer.field("content-type")), (status, Some("application/problem+json")));
}

/// An upstream that reads to the end of each connection; what has come of each.
async fn reading_on() -> (Scripted, UnboundedReceiver<(String, Vec<u8>)>) {
    let (told, seen) = unbounded_channel();
    let upstream = Scripted::start(move |_, mut talk| {
        let told = told.clone();
        async move {
            let head = talk.head().await.unwrap_or_default();
            let _ = told.send((head, talk.rest().await));
        }
    })
    .await;
    (upstream, seen)
}

#[tokio::test]
async fn a_body_that_is_announced_too_long_is_a_413_before_a_byte_goes_on() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "limits.body = \"1KiB\"\ncache.ttl = \"1h\"").await;
    assert_eq!(proxy.list(A).await.status, StatusCode::OK);
    let before = stand_in.requests().len();
    let contact = proxy.contact_url(A);
    let path = contact.strip_prefix(&proxy.url).unwrap();
    let http2 = Http2::to(&proxy.url).await;
    let mut refused = 0;
    for (method, target) in [("PATCH", path), ("POST", "/nowhere"), ("GET", &StandIn::list_path(A))] {
        let announced = format!("{method} {target} HTTP/1.1\r\nhost: h\r\ncontent-length: 1025\r\n\r\n");
        assert_problem(&exchange(&proxy.url, announced).await, 413);
        // Nobody means that.
        let announced = format!("{method} {target} HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999999999999\r\n\r\n");
        assert_problem(&exchange(&proxy.url, announced).await, 413);
        let answer =
            http2.send(http2.request(method, target, &[("content-length", "1025")]), Some(vec![7; 1025].into()));
        assert_refused(&answer.await.unwrap(), 413, None);
        refused += 3;
    }
    assert_eq!(stand_in.requests().len(), before, "nothing was sent on");
    assert!(proxy.list(A).await.is_hit(), "and nothing was changed");
    assert!((proxy.metric(&reached("limits.body")).await - f64::from(refused)).abs() < 0.1);
    let fits = post(&format!("{}/nowhere", proxy.url), &"a".repeat(1024)).await;
    assert_eq!(fits.status, StatusCode::NOT_FOUND, "as long as it may be");
}

#[tokio::test]
async fn a_body_that_grows_too_long_is_a_413_and_never_whole_upstream() {
    let (upstream, mut seen) = reading_on().await;
    let proxy = Proxy::in_front_of(&upstream.url(), "limits.body = \"10B\"").await;
    let chunks = |target: &str, chunks: &str| {
        format!("POST {target} HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")
    };
    let write = "/public/api/v1/inboxes/i/contacts/c/conversations/1/messages";
    for target in ["/nowhere", write] {
        // The end of it is there, too: it must not look like one to the upstream.
        let answer = exchange(&proxy.url, chunks(target, "6\r\nabcdef\r\n5\r\nghijk\r\n0\r\n\r\n")).await;
        assert_problem(&answer, 413);
        let (head, body) = seen.recv().await.unwrap();
        assert!(head.starts_with(&format!("POST {target} ")), "{head}");
        assert!(!body.ends_with(b"0\r\n\r\n") && !body.windows(5).any(|part| part == b"ghijk"), "{body:?}");
        let http2 = Http2::to(&proxy.url).await;
        let answer = http2.send(http2.request("POST", target, &[]), Some(Bytes::from_static(b"abcdefghijk"))).await;
        assert_refused(&answer.unwrap(), 413, None);
        assert!(!seen.recv().await.unwrap().1.ends_with(b"0\r\n\r\n"));
    }
    assert!((proxy.metric(&reached("limits.body")).await - 4.0).abs() < 0.1);
    // No head of an answer can be taken back: then the upload breaks off at both sides.
    let (told, mut ended) = unbounded_channel();
    let upstream = Scripted::start(move |_, mut talk| {
        let told = told.clone();
        async move {
            talk.head().await;
            talk.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nyes\r\n").await;
            let _ = told.send(talk.rest().await);
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "limits.body = \"10B\"").await;
    let mut client = Talk::to(&proxy.url).await;
    client.send(chunks("/x", "6\r\nabcdef\r\n")).await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
    client.send("5\r\nghijk\r\n0\r\n\r\n").await;
    assert!(!ended.recv().await.unwrap().ends_with(b"0\r\n\r\n"));
    assert!(!client.rest().await.ends_with(b"0\r\n\r\n"));
}

/// Bytes of it were sent: nobody knows what the upstream has made of them.
#[tokio::test]
async fn a_write_that_is_cut_off_for_its_length_puts_lists_out_of_date() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "limits.body = \"10B\"\ncache.ttl = \"1h\"").await;
    proxy.list(A).await;
    assert!(proxy.list(A).await.is_hit());
    let contact = proxy.contact_url(A);
    let path = contact.strip_prefix(&proxy.url).unwrap();
    let chunks = "transfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n5\r\nghijk\r\n0\r\n\r\n";
    let cut = exchange(&proxy.url, format!("PATCH {path} HTTP/1.1\r\nhost: h\r\n{chunks}")).await;
    assert_problem(&cut, 413);
    assert!(!proxy.list(A).await.is_hit());
}

#[tokio::test]
async fn webhooks_have_limits_of_their_own() {
    let more = "webhook.secrets = [\"a secret of the application\"]\nlimits.body = \"1KiB\"\nlimits.requests = 1\n\
                limits.rate = 1\nlimits.burst = 1";
    let (stand_in, proxy) = both(more).await;
    let gate = stand_in.hold(Point::BeforeReading, Matcher::any());
    let waiting = reading(&proxy, A);
    gate.arrived(1).await;
    let webhooks = format!("{}/_anteroom/webhooks", proxy.url);
    for _ in 0..3 {
        assert_eq!(post(&webhooks, &"a".repeat(10_000)).await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(get(&format!("{}/live", proxy.admin)).await.status, StatusCode::OK, "so does the private listener");
    gate.release_all();
    assert_eq!(waiting.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn more_requests_at_once_are_a_503_and_the_others_notice_nothing() {
    let (stand_in, proxy) = both("limits.requests = 2\ncache.ttl = \"1h\"").await;
    proxy.list(A).await;
    let gate = stand_in.hold(Point::BeforeReading, Matcher::any());
    let waiting = [reading(&proxy, "visitor-b"), reading(&proxy, "visitor-c")];
    gate.arrived(2).await;
    proxy.wait_for_metric(IN_FLIGHT, 2.0).await;
    let http2 = Http2::to(&proxy.url).await;
    // Whatever it is: even a hit takes room until it has been taken.
    for path in [&StandIn::list_path(A), "/nowhere"] {
        assert_refused(&get_with(&format!("{}{path}", proxy.url), &[("origin", "o")]).await, 503, Some("1"));
        assert_refused(&http2.get(path).await, 503, Some("1"));
    }
    // Who takes no answer shall not make refusals pile up.
    let deaf = Http2::with(&proxy.url, h2::client::Builder::new().initial_window_size(0)).await;
    let refused = deaf.send(deaf.request("GET", "/nowhere", &[]), None).await;
    assert!(refused.unwrap_err().is_reset(), "at once");
    assert!((proxy.metric(&reached("limits.requests")).await - 5.0).abs() < 0.1);
    let refused = "anteroom_requests_total{method=\"GET\",outcome=\"refused\",status_class=\"5xx\"}";
    assert!((proxy.metric(refused).await - 5.0).abs() < 0.1);
    gate.release_all();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().status, StatusCode::OK);
    }
    proxy.wait_for_metric(IN_FLIGHT, 0.0).await;
    assert!(proxy.list(A).await.is_hit());
    assert!((proxy.metric("anteroom_limit{of=\"requests\"}").await - 2.0).abs() < 0.1);
}

/// A hit that nobody takes is a request as long as it lies there, in both protocols.
#[tokio::test]
async fn a_reader_that_takes_nothing_of_a_hit_keeps_its_place_until_it_goes() {
    let (stand_in, proxy) = both("limits.requests = 1\ncache.ttl = \"1h\"\nencoding.offer = []").await;
    stand_in.seed(A, Shape { conversations: 20, messages: 100, bytes: 4000 });
    let whole = proxy.list(A).await.body;
    assert!(whole.len() > 7_000_000, "more than sockets take: {}", whole.len());
    proxy.wait_for_metric(IN_FLIGHT, 0.0).await;

    let mut slow = Talk::to(&proxy.url).await;
    slow.send(format!("GET {} HTTP/1.1\r\nhost: h\r\n\r\n", StandIn::list_path(A))).await;
    assert!(slow.head().await.unwrap().contains("anteroom; hit"));
    assert_refused(&get(&format!("{}/x", proxy.url)).await, 503, Some("1"));
    proxy.wait_for_metric(IN_FLIGHT, 1.0).await;
    assert_eq!(slow.exactly(whole.len()).await.unwrap(), whole, "it arrives whole all the same");
    proxy.wait_for_metric(IN_FLIGHT, 0.0).await;

    let http2 = Http2::to(&proxy.url).await;
    let slow = http2.head(http2.request("GET", &StandIn::list_path(A), &[]), None).await.unwrap();
    assert_refused(&get(&format!("{}/x", proxy.url)).await, 503, Some("1"));
    proxy.wait_for_metric(IN_FLIGHT, 1.0).await;
    assert!(http2::rest(slow.into_body()).await.unwrap().0 == whole);
    proxy.wait_for_metric(IN_FLIGHT, 0.0).await;

    let slow = http2.head(http2.request("GET", &StandIn::list_path(A), &[]), None).await.unwrap();
    proxy.wait_for_metric(IN_FLIGHT, 1.0).await;
    drop(slow);
    proxy.wait_for_metric(IN_FLIGHT, 0.0).await;
}

/// It gives no byte for the limit: it is ended, and that is counted.
#[tokio::test]
async fn a_reader_that_takes_nothing_of_a_hit_is_ended() {
    let (stand_in, proxy) = both("upstream.stall_timeout = \"30s\"\ncache.ttl = \"1h\"\nencoding.offer = []").await;
    stand_in.seed(A, Shape { conversations: 20, messages: 100, bytes: 4000 });
    proxy.list(A).await;
    let mut slow = Talk::to(&proxy.url).await;
    slow.send(format!("GET {} HTTP/1.1\r\nhost: h\r\n\r\n", StandIn::list_path(A))).await;
    slow.head().await.unwrap();
    // Nothing more goes into the socket.
    for _ in 0..200 {
        assert!((proxy.metric(IN_FLIGHT).await - 1.0).abs() < 0.1);
    }
    jump(Duration::from_secs(31)).await;
    proxy.wait_for_metric(IN_FLIGHT, 0.0).await;
    proxy.wait_for_metric(&reached("upstream.stall_timeout"), 1.0).await;
}

#[tokio::test]
async fn one_address_has_its_share_of_the_requests_and_trusted_proxies_speak_for_others() {
    let more = "limits.requests_per_address = 1\nlisten.trusted_proxies = [\"127.0.0.1\"]";
    let (stand_in, proxy) = both(more).await;
    let gate = stand_in.hold(Point::BeforeReading, Matcher::any());
    let ask = |address: &'static str, source: &str| {
        let url = proxy.list_url(source);
        spawn(async move { get_with(&url, &[("x-forwarded-for", address)]).await })
    };
    let mut waiting = vec![ask("2001:db8::1", A)];
    gate.arrived(1).await;
    let refused = ask("2001:db8::ffff:1", "visitor-b").await.unwrap();
    assert_refused(&refused, 429, Some("1"));
    waiting.push(ask("2001:db8:0:1::1", "visitor-b"));
    waiting.push(reading(&proxy, "visitor-c"));
    gate.arrived(3).await;
    assert!((proxy.metric(&reached("limits.requests_per_address")).await - 1.0).abs() < 0.1);
    gate.release_all();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again_and_hits_are_counted_apart() {
    let more = "limits.rate = 1\nlimits.burst = 3\nlimits.hit_rate = 1\nlimits.hit_burst = 5\ncache.ttl = \"1h\"\n\
                listen.trusted_proxies = [\"127.0.0.1\"]";
    let (stand_in, proxy) = both(more).await;
    let list = proxy.list_url(A);
    let elsewhere = format!("{}/nowhere", proxy.url);
    let mine = [("x-forwarded-for", "192.0.2.1")];
    for url in [&list, &elsewhere, &elsewhere] {
        assert_ne!(get_with(url, &mine).await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    let before = stand_in.requests().len();
    let refused = get_with(&elsewhere, &[mine[0], ("origin", "https://site.test")]).await;
    assert_refused(&refused, 429, Some("1"));
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"), "a page can read it");
    assert_refused(&get_with(&proxy.list_url("visitor-b"), &mine).await, 429, Some("1"));
    assert_refused(&send(request("PATCH", &proxy.contact_url(A), &mine, "{}")).await, 429, Some("1"));
    assert_eq!(stand_in.requests().len(), before, "nothing was sent on");
    for _ in 0..5 {
        assert!(get_with(&list, &mine).await.is_hit(), "a write that was not sent changes nothing");
    }
    assert_refused(&get_with(&list, &mine).await, 429, Some("1"));
    assert!(get_with(&list, &[("x-forwarded-for", "192.0.2.2")]).await.is_hit(), "others notice nothing");
    assert!(get(&list).await.is_hit(), "nor does who speaks for others");
    let counted = [proxy.metric(&reached("limits.rate")).await, proxy.metric(&reached("limits.hit_rate")).await];
    assert!((counted[0] - 3.0).abs() < 0.1 && (counted[1] - 1.0).abs() < 0.1, "{counted:?}");
    jump(Duration::from_secs(2)).await;
    assert_eq!(get_with(&elsewhere, &mine).await.status, StatusCode::NOT_FOUND);
    assert!(get_with(&list, &mine).await.is_hit());
}

#[tokio::test]
async fn an_address_of_ipv6_is_a_network_where_rates_are_counted() {
    let more = "limits.rate = 1\nlimits.burst = 1\nlisten.trusted_proxies = [\"127.0.0.1\"]";
    let (_stand_in, proxy) = both(more).await;
    for (address, status) in [
        ("2001:db8::1", 404),
        ("2001:db8::2", 429),
        ("2001:db8::ffff:ffff:1", 429),
        ("2001:db8:0:1::1", 404),
        ("192.0.2.1", 404),
        ("::ffff:192.0.2.1", 429),
    ] {
        let answer = get_with(&format!("{}/nowhere", proxy.url), &[("x-forwarded-for", address)]).await;
        assert_eq!(answer.status.as_u16(), status, "{address}");
    }
}

#[tokio::test]
async fn without_limits_on_rates_nobody_is_refused_and_a_reload_changes_them() {
    let (stand_in, proxy) = both("cache.ttl = \"1h\"").await;
    let nowhere = format!("{}/nowhere", proxy.url);
    for _ in 0..200 {
        assert_eq!(get(&nowhere).await.status, StatusCode::NOT_FOUND);
    }
    let reload = |more: &str| proxy.state.reload(settings(&stand_in.url(), more)).unwrap();
    reload("limits.rate = 1\nlimits.burst = 2");
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(get(&nowhere).await.status.as_u16());
    }
    assert_eq!(statuses, [404, 404, 429]);
    reload("limits.rate = 1\nlimits.burst = 2\ncache.ttl = \"1h\"");
    assert_eq!(get(&nowhere).await.status, StatusCode::TOO_MANY_REQUESTS, "what has been taken is not given back");
    reload("");
    assert_eq!(get(&nowhere).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_flood_of_refusals_does_not_fill_the_log() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let more = "limits.rate = 1\nlimits.burst = 1\ndrain.notice = \"0s\"\nlog.format = \"json\"";
    let mut program = Program::serve(&stand_in.url(), more).await;
    let began = anteroom::engine::clock::now();
    for _ in 0..300 {
        get(&format!("{}/nowhere", program.url)).await;
    }
    let seconds = began.elapsed().as_secs() + 2;
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code(), Some(0));
    let lines = program.stderr().lines().filter(|line| line.contains("\"status\":429")).count() as u64;
    assert!((1..=10 * seconds).contains(&lines), "{lines} in {seconds} s");
}

#[tokio::test]
async fn each_limit_on_waiting_is_counted_by_its_name() {
    let more = "cache.max_waiters = 1\ncache.wait = \"10s\"";
    let (stand_in, proxy) = both(more).await;
    let gate = stand_in.hold(Point::BeforeReading, Matcher::any());
    let waiting = reading(&proxy, A);
    gate.arrived(1).await;
    assert_refused(&proxy.list("visitor-b").await, 503, Some("1"));
    assert!((proxy.metric(&reached("cache.max_waiters")).await - 1.0).abs() < 0.1);
    gate.release_all();
    waiting.await.unwrap();

    let (stand_in, proxy) = both("upstream.max_in_flight = 1\nupstream.max_queued = 1\ncache.wait = \"10s\"").await;
    let gate = stand_in.hold(Point::BeforeReading, Matcher::any());
    let first = reading(&proxy, A);
    gate.arrived(1).await;
    let second = reading(&proxy, "visitor-b");
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    assert_refused(&proxy.list("visitor-c").await, 503, Some("1"));
    assert!((proxy.metric(&reached("upstream.max_queued")).await - 1.0).abs() < 0.1);
    jump(Duration::from_secs(11)).await;
    assert_refused(&second.await.unwrap(), 503, Some("1"));
    assert!((proxy.metric(&reached("upstream.max_in_flight")).await - 1.0).abs() < 0.1);
    drop((gate, first));
}

/// HEADERS that are not the end of a head, and nothing more.
async fn half_a_head(proxy: &Proxy, length: usize) -> Frames {
    let mut frames = Frames::to(&proxy.url).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/x")];
    frames.write(HEADERS, 1, 1, &block(&fields)).await;
    frames.write(CONTINUATION, 0, 1, &block(&[("x-large", "a".repeat(length))])).await;
    frames
}

#[tokio::test]
async fn heads_of_http2_that_do_not_end_share_the_memory_and_the_time_of_all_heads() {
    let upstream = Scripted::answering(OK).await;
    let proxy =
        Proxy::in_front_of(&upstream.url(), "limits.head_memory = \"16KiB\"\nlimits.idle_timeout = \"1h\"").await;
    let mut first = half_a_head(&proxy, 15_000).await;
    let open = "anteroom_connections{listener=\"public\"}";
    proxy.wait_for_metric(open, 1.0).await;
    let mut small = half_a_head(&proxy, 1000).await;
    proxy.wait_for_metric(open, 2.0).await;
    let mut second = half_a_head(&proxy, 16_000).await;
    let mut third = half_a_head(&proxy, 16_000).await;
    second.goaway().await;
    third.goaway().await;
    let refused = proxy.metric(&reached("limits.head_memory")).await;
    assert!((1.0..=2.0).contains(&refused), "{refused}");
    assert_eq!(Http2::to(&proxy.url).await.get("/x").await.status, StatusCode::OK, "short heads always have room");
    // What fits has its time.
    jump(Duration::from_secs(16)).await;
    first.goaway().await;
    small.goaway().await;
    proxy.wait_for_metric(&reached("limits.head_timeout"), 2.0).await;
    proxy.wait_for_metric(open, 0.0).await;
    // All of it was given back.
    let mut again = half_a_head(&proxy, 15_000).await;
    again.write(CONTINUATION, http2::END_HEADERS, 1, &[]).await;
    assert_eq!(again.outcome(1).await, http2::Outcome::Answered(200));
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn limits_on_connections_and_heads_are_counted_by_their_names() {
    let (_stand_in, proxy) = both("limits.head = \"8KiB\"\nlimits.connections_per_address = 1").await;
    let mut talk = Talk::to(&proxy.url).await;
    talk.send("GET /x HTTP/1.1\r\nhost: h\r\n").await;
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 1.0).await;
    jump(Duration::from_secs(16)).await;
    assert_eq!(talk.message().await.unwrap().status(), 408);
    proxy.wait_for_metric(&reached("limits.head_timeout"), 1.0).await;
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 0.0).await;
    let mut talk = Talk::to(&proxy.url).await;
    talk.send(format!("GET /x HTTP/1.1\r\nhost: h\r\nx-large: {}\r\n\r\n", "a".repeat(9000))).await;
    assert_eq!(talk.message().await.unwrap().status(), 431);
    proxy.wait_for_metric(&reached("limits.head"), 1.0).await;
    drop(talk);
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 0.0).await;
    let mut idle = Talk::to(&proxy.url).await;
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 1.0).await;
    jump(Duration::from_secs(61)).await;
    assert!(idle.rest().await.is_empty());
    proxy.wait_for_metric(&reached("limits.idle_timeout"), 1.0).await;
}
