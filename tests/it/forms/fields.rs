//! The fields of an answer besides: `Age` (RFC 9111 section 5.1), `Date` (RFC 9110 section 6.6.1), `Cache-Status`
//! (RFC 9211), and what belongs to one request only.

use std::time::Duration;

use anteroom_stand_in::{Fault, Matcher, Options, Point, StandIn};
use http::StatusCode;

use super::{Asked, json_with, list};
use crate::support::raw::{Scripted, exchange};
use crate::support::{Proxy, both, get, get_with, jump, post, request, send, spawn};

/// A list from an upstream that sends these fields and no `Date`.
fn raw(fields: &str) -> String {
    let body = list(50);
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{fields}\r\n{body}", body.len())
}

/// RFC 9111 sections 4.2.3 and 5.1.
#[tokio::test]
async fn the_age_that_the_upstream_gives_counts() {
    for (sent, first, later) in [
        ("age: 30\r\n", "30", "35"),
        ("age: 0\r\n", "0", "5"),
        ("", "0", "5"),
        ("age: 7, 900\r\n", "7", "12"),
        ("age: soon\r\n", "0", "5"),
        ("age: -1\r\n", "0", "5"),
        ("age: 1.5\r\n", "0", "5"),
        // Section 1.2.2: too many seconds are very many.
        ("age: 18446744073709551615\r\n", "2147483648", "2147483653"),
        ("age: 99999999999999999999999\r\n", "2147483648", "2147483653"),
    ] {
        let upstream = Scripted::answering(raw(sent)).await;
        let proxy = Proxy::in_front_of(&upstream.url(), "").await;
        assert_eq!(proxy.list("visitor-a").await.header("age"), Some(first), "{sent}");
        jump(Duration::from_secs(5)).await;
        let hit = proxy.list("visitor-a").await;
        assert!(hit.is_hit());
        assert_eq!(hit.header("age"), Some(later), "{sent}");
    }
}

/// RFC 9111 section 4.3.4: what the upstream has just confirmed is as young as its confirmation.
#[tokio::test]
async fn an_answer_is_young_again_after_revalidation() {
    let (stand_in, proxy) = both("cache.stale_while_revalidate = \"0s\"").await;
    let first = proxy.list("visitor-a").await;
    jump(Duration::from_secs(14)).await;
    assert_eq!(proxy.list("visitor-a").await.header("age"), Some("14"));
    jump(Duration::from_secs(2)).await;
    let again = proxy.list("visitor-a").await;
    assert_eq!((again.cache_status(), again.header("age")), ("anteroom; fwd=stale; fwd-status=304; stored", Some("0")));
    assert_eq!(stand_in.requests().last().unwrap().headers["if-none-match"], first.header("etag").unwrap());
    jump(Duration::from_secs(3)).await;
    let hit = proxy.list("visitor-a").await;
    assert_eq!((hit.cache_status(), hit.header("age")), ("anteroom; hit; ttl=12", Some("3")));
}

/// RFC 9110 section 6.6.1.
#[tokio::test]
async fn a_date_is_added_where_the_upstream_sends_none_and_stays_with_the_answer() {
    let upstream = Scripted::answering(raw("")).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let first = proxy.list("visitor-a").await;
    let date = first.header("date").unwrap();
    assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
    // The wall clock goes on, a hit's date does not.
    let second = async {
        loop {
            let hit = proxy.list("visitor-a").await;
            let now = httpdate::fmt_http_date(anteroom::engine::clock::wall());
            assert!(hit.is_hit());
            assert_eq!(hit.headers.get_all("date").iter().collect::<Vec<_>>(), [date]);
            if now != date {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), second).await.unwrap();

    let sent = "Sun, 06 Nov 1994 08:49:37 GMT";
    let upstream = Scripted::answering(raw(&format!("date: {sent}\r\n"))).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    for _ in 0..2 {
        let answer = proxy.list("visitor-a").await;
        assert_eq!(answer.headers.get_all("date").iter().collect::<Vec<_>>(), [sent]);
    }
}

/// RFC 9110 section 6.6.1 and RFC 9111 section 4.2.3: a date older than the age lets the next cache think that the
/// answer is old.
#[tokio::test]
async fn a_304_without_a_date_gets_one_when_it_is_received() {
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    let upstream = Scripted::start(move |_, mut talk| async move {
        while let Some(request) = talk.message().await {
            if request.field("if-none-match").is_some() {
                talk.send("HTTP/1.1 304 Not Modified\r\n\r\n").await;
            } else {
                talk.send(raw(&format!("etag: \"x\"\r\ndate: {old}\r\n"))).await;
            }
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "cache.stale_while_revalidate = \"0s\"").await;
    assert_eq!(proxy.list("visitor-a").await.header("date"), Some(old));
    jump(Duration::from_secs(15)).await;
    let again = proxy.list("visitor-a").await;
    let date = httpdate::parse_http_date(again.header("date").unwrap()).unwrap();
    assert!(date > httpdate::parse_http_date(old).unwrap() + Duration::from_secs(86400), "{again:?}");
}

/// RFC 6265 section 3: a cookie is for one reader. `api.md` 6.1: the id and the time are one request's.
#[tokio::test]
async fn what_belongs_to_one_request_is_never_replayed() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "cache.stale_while_revalidate = \"0s\"").await;
    stand_in.fault(Fault::SetCookie);
    let gate = stand_in.hold(Point::AfterReading, Matcher::lists());
    let readers = ["first", "second"].map(|id| {
        let url = proxy.list_url("visitor-a");
        spawn(async move { get_with(&url, &[("x-request-id", id)]).await })
    });
    gate.arrived(1).await;
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    gate.release_all();
    let mut ids = Vec::new();
    let mut shared = Vec::new();
    for reader in readers {
        shared.push(reader.await.unwrap());
    }
    shared.push(get_with(&proxy.list_url("visitor-a"), &[("x-request-id", "third")]).await);
    jump(Duration::from_secs(15)).await;
    shared.push(get_with(&proxy.list_url("visitor-a"), &[("x-request-id", "fourth")]).await);
    for answer in &shared {
        assert_eq!(
            (answer.header("set-cookie"), answer.header("x-runtime")),
            (None, None),
            "{}",
            answer.cache_status()
        );
        ids.push(answer.header("x-request-id").unwrap());
    }
    assert_eq!(ids, ["first", "second", "third", "fourth"]);
    let fetched: Vec<_> = stand_in.requests().iter().map(|seen| seen.headers["x-request-id"].clone()).collect();
    assert!(fetched.iter().all(|id| !ids.contains(&id.to_str().unwrap())), "a shared fetch has an id of its own");
    // Whoever asks alone gets all that the upstream gave.
    let own = get_with(&proxy.list_url("visitor-a"), &[("cookie", "a=b")]).await;
    assert!(own.header("set-cookie").is_some() && own.header("x-runtime").is_some());
}

/// RFC 9211 section 2, each ending as it is told.
#[tokio::test]
async fn cache_status_of_each_ending() {
    let (stand_in, proxy) = both("cache.stale_while_revalidate = \"5s\"").await;
    let url = proxy.list_url("visitor-a");
    assert_eq!(get(&url).await.cache_status(), "anteroom; fwd=uri-miss; fwd-status=200; stored");
    assert_eq!(get(&url).await.cache_status(), "anteroom; hit; ttl=15");
    let held = get_with(&url, &[("if-none-match", "*")]).await;
    assert_eq!((held.status.as_u16(), held.cache_status()), (304, "anteroom; hit; ttl=15"));
    // Stale: while one asks behind, everyone gets it.
    jump(Duration::from_secs(17)).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::lists());
    assert_eq!(get(&url).await.cache_status(), "anteroom; hit; ttl=-2");
    gate.arrived(1).await;
    gate.release_all();
    proxy.wait_for_metric("anteroom_flights", 0.0).await;
    assert_eq!(get(&url).await.cache_status(), "anteroom; hit; ttl=15");
    // Joined: both ask for what has expired, one of them asks the upstream.
    jump(Duration::from_secs(20)).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::lists());
    let readers = [(); 2].map(|()| {
        spawn({
            let url = url.clone();
            async move { get(&url).await }
        })
    });
    gate.arrived(1).await;
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    gate.release_all();
    let mut told = Vec::new();
    for reader in readers {
        told.push(reader.await.unwrap().cache_status().to_owned());
    }
    told.sort();
    assert_eq!(told, ["anteroom; fwd=stale; fwd-status=304; collapsed", "anteroom; fwd=stale; fwd-status=304; stored"]);
    // A write, and the read after it.
    let conversation = stand_in.conversation_ids("visitor-a")[0];
    let written = post(&format!("{url}/{conversation}/messages"), r#"{"content":"x"}"#).await;
    assert_eq!(written.cache_status(), "anteroom; fwd=method; fwd-status=200");
    assert_eq!(get(&url).await.cache_status(), "anteroom; fwd=stale; fwd-status=200; stored");
    // By the cache, and not ours.
    let bypass = get_with(&url, &[("cookie", "a=b")]).await;
    assert_eq!(bypass.cache_status(), "anteroom; fwd=bypass; fwd-status=200; detail=cookie");
    assert_eq!(get(&proxy.inbox_url()).await.cache_status(), "anteroom; fwd=bypass; fwd-status=200");
    let missing = get(&format!("{}/nothing", proxy.url)).await;
    assert_eq!((missing.status.as_u16(), missing.cache_status()), (404, "anteroom; fwd=bypass; fwd-status=404"));
    // Refused.
    let refused = send(request("TRACE", &url, &[], "")).await;
    assert_eq!(refused.cache_status(), "anteroom; detail=method");
    let path = StandIn::list_path("visitor-a");
    let hostless = exchange(&proxy.url, format!("GET {path} HTTP/1.1\r\n\r\n")).await;
    assert_eq!((hostless.status(), hostless.field("cache-status")), (400, Some("anteroom; detail=host")));
    // Failed, and the last good answer in its place.
    stand_in.fault(Fault::Error);
    let failed = get(&proxy.list_url("visitor-b")).await;
    assert_eq!(failed.cache_status(), "anteroom; fwd=uri-miss; fwd-status=500");
    jump(Duration::from_secs(30)).await;
    let stood_in = get(&url).await;
    assert!(stood_in.status == StatusCode::OK && stood_in.cache_status().starts_with("anteroom; hit; ttl=-"));
    assert!(stood_in.cache_status().ends_with("; detail=upstream-failing"), "{}", stood_in.cache_status());
    stand_in.stop().await;
    let failed = get(&proxy.list_url("visitor-c")).await;
    assert_eq!((failed.status.as_u16(), failed.cache_status()), (502, "anteroom; fwd=uri-miss; detail=connect"));
    let failed = get(&proxy.inbox_url()).await;
    assert_eq!(failed.cache_status(), "anteroom; fwd=bypass; detail=connect");
}

/// RFC 9211 section 2: ours comes after those of caches nearer to the origin, on a miss and on a pass-through; on a
/// hit it is the only one, since the others' is about another request.
#[tokio::test]
async fn caches_nearer_to_the_origin_are_told_of_first() {
    let upstream = Asked::start(|_| json_with(&list(50), &[("cache-status", "edge; hit")])).await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    let passed = get(&proxy.inbox_url()).await;
    let told: Vec<_> = passed.headers.get_all("cache-status").iter().collect();
    assert_eq!(told, ["edge; hit", "anteroom; fwd=bypass; fwd-status=200"]);
    proxy.list("visitor-a").await;
    let hit = proxy.list("visitor-a").await;
    assert_eq!(hit.headers.get_all("cache-status").iter().count(), 1);
}

/// No field is sent empty that is to be set for each answer.
#[tokio::test]
async fn an_error_of_the_upstream_has_no_empty_fields() {
    let (stand_in, proxy) = both("").await;
    stand_in.fault(Fault::Throttle);
    let throttled = proxy.list("visitor-a").await;
    assert_eq!(throttled.status, StatusCode::TOO_MANY_REQUESTS);
    for (name, value) in &throttled.headers {
        assert!(!value.is_empty(), "{name}");
    }
    assert_eq!(throttled.text(), "Retry later\n");
}
