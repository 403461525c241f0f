//! An upstream that fails, or has had enough: it is left alone, what may stand in does, and nothing is sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use anteroom_stand_in::{Fault, Matcher, Point};
use http::StatusCode;
use tokio::net::TcpListener;

use crate::support::raw::Scripted;
use crate::support::script::{Script, answer, json};
use crate::support::{Answer, Proxy, both, get, jump, post, reading, settings};

const LIST: &str = r#"[{"id":1,"contact":{"id":7}}]"#;

/// An upstream that counts what it is asked, and answers with a status that a test sets.
struct Moody {
    script: Script,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Moody {
    async fn start(retry_after: Option<&'static str>) -> Self {
        let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        let (says, counts) = (status.clone(), asked.clone());
        let script = Script::start(move |_| {
            counts.fetch_add(1, Ordering::SeqCst);
            match says.load(Ordering::SeqCst) {
                200 => json(LIST),
                status => {
                    let mut answer = answer(status, "text/plain", "not now");
                    let told = retry_after.map(|told| (http::header::RETRY_AFTER, told.parse().unwrap()));
                    answer.headers_mut().extend(told);
                    answer
                }
            }
        })
        .await;
        Self { script, status, asked }
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Asks until nothing but failures has come for so long that the upstream is left alone.
async fn fail_for_a_while(proxy: &Proxy) {
    let path = format!("{}/x", proxy.url);
    for _ in 0..10 {
        assert!(get(&path).await.status.is_server_error());
    }
    jump(Duration::from_millis(5_100)).await;
    assert!(get(&path).await.status.is_server_error());
    assert!((proxy.metric("anteroom_upstream_breaker_open").await - 1.0).abs() < 0.1);
}

fn is_spared(answer: &Answer, kind: &str) -> bool {
    let seconds = answer.header("retry-after").and_then(|told| told.parse::<u32>().ok());
    answer.status == StatusCode::SERVICE_UNAVAILABLE
        && answer.header("content-type") == Some("application/problem+json")
        && answer.header("proxy-status").is_some_and(|told| told.starts_with(&format!("anteroom; error={kind}; ")))
        && seconds.is_some_and(|seconds| seconds > 0)
}

#[tokio::test]
async fn an_upstream_that_gives_nothing_but_failures_is_left_alone_until_the_first_success() {
    let upstream = Moody::start(None).await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    let path = format!("{}/x", proxy.url);
    for status in [502, 503, 504] {
        upstream.answers(status);
        fail_for_a_while(&proxy).await;
        let asked = upstream.asked();
        for _ in 0..10 {
            let refused = get(&path).await;
            assert!(is_spared(&refused, "destination_unavailable"), "{refused:?}");
            assert!(refused.cache_status().ends_with("detail=breaker"), "{}", refused.cache_status());
            assert!(is_spared(&post(&path, "{}").await, "destination_unavailable"));
        }
        assert_eq!(upstream.asked(), asked, "nothing was sent");
        // One a second, whoever it is.
        for _ in 0..3 {
            jump(Duration::from_millis(1_100)).await;
            for _ in 0..3 {
                post(&path, "{}").await;
            }
        }
        assert_eq!(upstream.asked(), asked + 3);
        upstream.answers(200);
        jump(Duration::from_millis(1_100)).await;
        for _ in 0..10 {
            assert_eq!(get(&path).await.status, StatusCode::OK);
            assert_eq!(post(&path, "{}").await.status, StatusCode::OK);
        }
        assert!(proxy.metric("anteroom_upstream_breaker_open").await < 0.1);
    }
    assert!((proxy.metric("anteroom_upstream_spared_total{why=\"breaker\"}").await - 78.0).abs() < 0.1);
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_or_says_nothing_is_left_alone() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = Scripted::start(|_, mut talk| async move { drop(talk.rest().await) }).await;
    let closing = Scripted::start(|_, mut talk| async move { drop(talk.head().await) }).await;
    for url in [format!("http://{free}"), silent.url(), closing.url()] {
        let proxy = Proxy::in_front_of(&url, "upstream.head_timeout = \"20ms\"").await;
        fail_for_a_while(&proxy).await;
        assert!(is_spared(&get(&format!("{}/x", proxy.url)).await, "destination_unavailable"), "{url}");
    }
    // It is there again.
    let proxy = Proxy::in_front_of(&format!("http://{free}"), "").await;
    fail_for_a_while(&proxy).await;
    let upstream = Scripted::start_at(&free.to_string(), |_, mut talk| async move {
        talk.message().await;
        talk.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    jump(Duration::from_millis(1_100)).await;
    for _ in 0..5 {
        assert_eq!(get(&format!("{}/x", proxy.url)).await.status, StatusCode::OK);
    }
    assert_eq!(upstream.connections(), 5);
}

#[tokio::test]
async fn while_it_is_left_alone_lists_stand_in_and_a_write_that_is_refused_changes_nothing() {
    let (stand_in, proxy) = both("cache.ttl = \"1s\"\ncache.stale_while_revalidate = \"0s\"").await;
    let good = proxy.list("visitor-a").await;
    stand_in.fault_on(Fault::Reset, Matcher::any());
    fail_for_a_while(&proxy).await;
    let asked = stand_in.list_requests("visitor-a");
    for _ in 0..5 {
        let stale = proxy.list("visitor-a").await;
        assert!(stale.body == good.body && stale.cache_status().contains("upstream-failing"), "{stale:?}");
        assert!(is_spared(&proxy.list("visitor-b").await, "destination_unavailable"));
    }
    let write = post(&format!("{}/conversations/1/messages", proxy.contact_url("visitor-a")), "{}").await;
    assert!(is_spared(&write, "destination_unavailable"), "{write:?}");
    assert!(proxy.list("visitor-a").await.body == good.body, "nothing was sent, so nothing has changed");
    assert_eq!(stand_in.list_requests("visitor-a"), asked);
    stand_in.clear_faults();
    jump(Duration::from_millis(1_100)).await;
    let fresh = proxy.list("visitor-a").await;
    assert_eq!((fresh.status, fresh.header("age")), (StatusCode::OK, Some("0")));
}

/// Whoever likes may provoke errors of the application: they must not shut others out.
#[tokio::test]
async fn errors_of_the_application_alone_do_not_make_it_left_alone() {
    let upstream = Moody::start(None).await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    for status in [500, 429, 501] {
        upstream.answers(status);
        for _ in 0..30 {
            assert_eq!(get(&format!("{}/x", proxy.url)).await.status, status);
            jump(Duration::from_secs(1)).await;
        }
    }
    // But for lists, which are asked for as the proxy likes.
    upstream.answers(500);
    for number in 0..12 {
        proxy.list(&format!("visitor-{number}")).await;
        jump(Duration::from_secs(1)).await;
    }
    assert!((proxy.metric("anteroom_upstream_breaker_open").await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_retry_after_is_heeded_for_all_while_it_is_left_alone() {
    let upstream = Moody::start(Some("20")).await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    upstream.answers(503);
    fail_for_a_while(&proxy).await;
    let asked = upstream.asked();
    for _ in 0..3 {
        jump(Duration::from_secs(6)).await;
        assert!(is_spared(&get(&format!("{}/x", proxy.url)).await, "destination_unavailable"));
    }
    assert_eq!(upstream.asked(), asked);
    upstream.answers(200);
    jump(Duration::from_secs(3)).await;
    assert_eq!(get(&format!("{}/x", proxy.url)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_does_not_want_to_leave_it_alone_need_not() {
    let upstream = Moody::start(None).await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "upstream.breaker = false").await;
    upstream.answers(503);
    for _ in 0..30 {
        assert_eq!(get(&format!("{}/x", proxy.url)).await.text(), "not now");
        jump(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_minute_has_no_more_requests_than_the_budget_and_a_part_is_kept_for_writes() {
    let upstream = Moody::start(None).await;
    let budget = "upstream.requests_per_minute = 20\ncache.ttl = \"1s\"\ncache.stale_while_revalidate = \"0s\"";
    let proxy = Proxy::in_front_of(&upstream.script.url, budget).await;
    let path = format!("{}/x", proxy.url);
    let good = proxy.list("visitor-a").await;
    for _ in 0..17 {
        assert_eq!(get(&path).await.status, StatusCode::OK);
    }
    assert!(is_spared(&get(&path).await, "connection_limit_reached"));
    jump(Duration::from_secs(2)).await;
    let stale = proxy.list("visitor-a").await;
    assert!(stale.body == good.body && stale.cache_status().contains("upstream-failing"), "{}", stale.cache_status());
    // What was sent before a reload counts, too.
    proxy.state.reload(settings(&upstream.script.url, budget)).unwrap();
    for _ in 0..2 {
        assert_eq!(post(&path, "{}").await.status, StatusCode::OK);
    }
    assert!(is_spared(&post(&path, "{}").await, "connection_limit_reached"));
    assert!(proxy.metric("anteroom_upstream_budget_left").await < 0.1);
    assert_eq!(upstream.asked(), 20);
    jump(Duration::from_secs(59)).await;
    assert_eq!(get(&path).await.status, StatusCode::OK);
    assert!((proxy.metric("anteroom_upstream_spared_total{why=\"budget\"}").await - 3.0).abs() < 0.1);
}

#[tokio::test]
async fn beyond_a_short_queue_fetches_are_refused_at_once() {
    let (stand_in, proxy) = both("upstream.max_in_flight = 1\nupstream.max_queued = 1").await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of("visitor-a"));
    let first = reading(&proxy, "visitor-a");
    proxy.wait_for_metric("anteroom_upstream_in_flight", 1.0).await;
    let second = reading(&proxy, "visitor-b");
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    let third = proxy.list("visitor-c").await;
    assert_eq!((third.status, third.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("1")));
    assert!(third.cache_status().contains("queue-full"), "{}", third.cache_status());
    gate.release_all();
    assert_eq!((first.await.unwrap().status, second.await.unwrap().status), (StatusCode::OK, StatusCode::OK));
    assert!(proxy.list("visitor-c").await.status.is_success());
}

#[tokio::test]
async fn what_may_have_been_seen_is_sent_again_only_within_a_budget() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let seen = Arc::new(AtomicUsize::new(0));
    let counting = seen.clone();
    // Every other connection answers once, reads a second request, and closes; the others, which are made for what is
    // sent again, give no answer.
    let upstream = Scripted::start(move |connection, mut talk| {
        let seen = counting.clone();
        async move {
            for number in 0..=usize::from(connection % 2 == 0) {
                if talk.message().await.is_some() {
                    seen.fetch_add(1, Ordering::SeqCst);
                    if number == 0 && connection % 2 == 0 {
                        talk.send(ANSWER).await;
                    }
                }
            }
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let (mut good, mut bad) = (0, 0);
    let began = tokio::time::Instant::now();
    for _ in 0..800 {
        match get(&format!("{}/x", proxy.url)).await.status {
            StatusCode::OK => good += 1,
            StatusCode::BAD_GATEWAY => bad += 1,
            other => panic!("{other}"),
        }
    }
    let seen = seen.load(Ordering::SeqCst);
    // Some are allowed each second, and a machine that is busy takes several.
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(seen <= 800 + 100 + good / 2 + 1 + 10 * seconds, "{seen} seen, {good} good, {bad} bad, {seconds} s");
    assert!(bad > 0);
}
