//! RFC 9111 section 4.2.4 and RFC 5861: what is sent stale, and what is not.

use std::time::Duration;

use http::StatusCode;

use super::{Both, Fields, plain};
use crate::support::raw::Scripted;
use crate::support::{Proxy, get, jump};

/// RFC 5861 section 3.
#[tokio::test]
async fn an_answer_that_says_so_is_sent_while_it_is_asked_for_behind() {
    let both = Both::always(&[("cache-control", "max-age=10, stale-while-revalidate=20")]).await;
    both.get(&[]).await;
    jump(Duration::from_secs(15)).await;
    let stale = both.get(&[]).await;
    assert_eq!(stale.text(), "1");
    assert!(stale.cache_status().starts_with("anteroom; hit; ttl=-"), "{}", stale.cache_status());
    both.proxy.wait_for_metric("anteroom_flight_ends_total{end=\"answered\"}", 2.0).await;
    let fresh = both.get(&[]).await;
    assert_eq!((fresh.text(), fresh.is_hit()), ("2".to_owned(), true));
    jump(Duration::from_secs(31)).await;
    assert_eq!(both.get(&[]).await.cache_status(), "anteroom; fwd=stale; fwd-status=200; stored; ttl=10");
}

/// RFC 5861 section 3: what is asked for behind is the whole, whatever the one who was answered wanted of it.
#[tokio::test]
async fn what_is_asked_for_behind_is_the_whole() {
    for (method, asks) in
        [("HEAD", &[][..]), ("GET", &[("range", "bytes=0-0")]), ("GET", &[("if-none-match", "\"x\"")])]
    {
        let both = Both::always(&[("cache-control", "max-age=10, stale-while-revalidate=20")]).await;
        both.get(&[]).await;
        jump(Duration::from_secs(15)).await;
        assert!(both.ask(method, "a", asks).await.is_hit());
        both.proxy.wait_for_metric("anteroom_flight_ends_total{end=\"answered\"}", 2.0).await;
        let fresh = both.get(&[]).await;
        assert_eq!((fresh.text().as_str(), fresh.is_hit()), ("2", true), "{method} {asks:?}");
    }
}

/// RFC 5861 section 4; sections 4.3.3 and 5.2.2.2: an error is passed on where nothing may stand in for it.
#[tokio::test]
async fn a_stale_answer_stands_in_for_an_error() {
    const USUAL: Fields = &[("cache-control", "max-age=10")];
    for (first, status, later, expected) in [
        (USUAL, 503, 20, "1"),
        (USUAL, 500, 20, "1"),
        (USUAL, 502, 20, "1"),
        (USUAL, 504, 20, "1"),
        (USUAL, 503, 700, "2"),
        (USUAL, 501, 20, "2"),
        (USUAL, 404, 20, "2"),
        (&[("cache-control", "max-age=10, stale-if-error=5")], 503, 20, "2"),
        (&[("cache-control", "max-age=10, stale-if-error=1000")], 503, 700, "1"),
        (&[("cache-control", "max-age=10, must-revalidate")], 503, 20, "2"),
        (&[("cache-control", "max-age=10, proxy-revalidate")], 503, 20, "2"),
        (&[("cache-control", "s-maxage=10")], 503, 20, "2"),
        (&[("cache-control", "max-age=10, no-cache")], 503, 20, "2"),
    ] {
        let both = Both::with(first, move |number| plain(status, &[], &number.to_string())).await;
        both.get(&[]).await;
        jump(Duration::from_secs(later)).await;
        let answer = both.get(&[]).await;
        assert_eq!((answer.text(), both.asked()), (expected.to_owned(), 2), "{first:?} {status}");
        let told = answer.cache_status();
        if expected == "1" {
            // RFC 9211 section 2.1: what has gone forward is no hit.
            let expected =
                format!("anteroom; fwd=stale; fwd-status={status}; ttl=-{}; detail=upstream-failing", later - 10);
            assert_eq!((answer.status.as_u16(), told), (200, expected.as_str()));
        } else {
            assert_eq!(answer.status.as_u16(), status);
            assert!(told.starts_with(&format!("anteroom; fwd=stale; fwd-status={status}")), "{told}");
        }
    }
}

/// While the upstream fails, what stands in does so at once, and is asked for again after a while.
#[tokio::test]
async fn an_upstream_that_fails_is_not_asked_each_time() {
    let both = Both::with(&[("cache-control", "max-age=10")], |number| match number {
        2 | 3 => plain(503, &[], ""),
        _ => plain(200, &[("cache-control", "max-age=10")], "4"),
    })
    .await;
    both.get(&[]).await;
    jump(Duration::from_secs(15)).await;
    let mut asked_before = 1;
    for (later, text, asked) in [(0, "1", 2), (0, "1", 2), (2, "1", 3), (0, "1", 3), (2, "4", 4), (0, "4", 4)] {
        jump(Duration::from_secs(later)).await;
        let answer = both.get(&[]).await;
        assert_eq!((answer.text().as_str(), both.asked()), (text, asked));
        assert_eq!(answer.is_hit(), asked == asked_before, "{}", answer.cache_status());
        asked_before = asked;
    }
}

/// Sections 4.2.4 and 5.2.2.2: "MUST NOT reuse", "SHOULD be 504"; RFC 9209 for why.
#[tokio::test]
async fn a_stale_answer_stands_in_for_an_upstream_that_is_gone() {
    for (fields, status, proxy_status) in [
        ("max-age=10", 200, Some("anteroom; error=connection_terminated")),
        ("max-age=10, must-revalidate", 504, Some("anteroom; error=connection_terminated; details=")),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\ncache-control: {fields}\r\ncontent-length: 1\r\n\r\nx");
        let upstream = Scripted::start(move |number, mut talk| {
            let answer = answer.clone();
            async move {
                // One answer in all; later requests end without one.
                let _ = talk.message().await;
                if number == 0 {
                    talk.send(&answer).await;
                    let _ = talk.message().await;
                }
            }
        })
        .await;
        let proxy = Proxy::in_front_of(&upstream.url(), super::ORIGIN).await;
        assert_eq!(get(&proxy.list_url("a")).await.status, StatusCode::OK);
        jump(Duration::from_secs(15)).await;
        let answer = get(&proxy.list_url("a")).await;
        assert_eq!(answer.status.as_u16(), status, "{fields}");
        let told = answer.header("proxy-status");
        assert!(told.zip(proxy_status).is_some_and(|(told, expected)| told.starts_with(expected)), "{told:?}");
    }
}
