//! RFC 9111 section 4.1: which of several answers is the one for a request.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{Both, Fields, ORIGIN, plain};
use crate::support::raw::Scripted;
use crate::support::{Proxy, get, get_with, spawn};

/// An answer differs by what `Vary` names, and each is kept.
#[tokio::test]
async fn each_request_gets_the_answer_that_was_chosen_by_its_fields() {
    let both = Both::saying("", |_, request| {
        let kind = request.headers().get("foo").map_or("none", |value| value.to_str().unwrap());
        plain(200, &[("cache-control", "max-age=3600"), ("vary", "Foo")], kind)
    })
    .await;
    let kinds: [Fields; 4] = [&[("foo", "1")], &[("foo", "2")], &[("foo", "1, 2")], &[]];
    for (count, asked) in kinds.into_iter().enumerate() {
        let expected = if count == 0 { "uri-miss" } else { "vary-miss" };
        let answer = both.get(asked).await;
        assert_eq!(answer.cache_status(), format!("anteroom; fwd={expected}; fwd-status=200; stored; ttl=3600"));
    }
    for (asked, expected) in [
        (&[("foo", "1")][..], "1"),
        (&[("foo", "2"), ("bar", "x")], "2"),
        (&[("foo", "1,2")], "1, 2"),
        (&[("foo", "1"), ("foo", "2")], "1, 2"),
        (&[], "none"),
    ] {
        let answer = both.get(asked).await;
        assert_eq!((answer.text().as_str(), answer.is_hit()), (expected, true), "{asked:?}");
    }
    assert_eq!(both.asked(), 4);
}

/// No more answers of one target are kept than so many; the last ones are.
#[tokio::test]
async fn the_number_of_answers_for_one_target_is_bounded() {
    let both = Both::always(&[("cache-control", "max-age=3600"), ("vary", "foo")]).await;
    for number in 0..40 {
        both.get(&[("foo", &number.to_string())]).await;
    }
    let mut hits = 0;
    for number in (0..40).rev() {
        hits += u32::from(both.get(&[("foo", &number.to_string())]).await.is_hit());
    }
    assert_eq!(hits, 32);
}

/// "The most recent response (as determined by the Date header field)".
#[tokio::test]
async fn of_several_that_would_do_the_one_made_last_is_used() {
    const OLD: Fields =
        &[("cache-control", "max-age=3600"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("vary", "foo"), ("age", "0")];
    let both = Both::saying("", |number, _| match number {
        1 => plain(200, &[("cache-control", "max-age=999999999"), ("vary", "foo, bar")], "new"),
        _ => plain(200, &[("cache-control", "max-age=999999999"), ("date", OLD[1].1), ("vary", "bar, foo")], "old"),
    })
    .await;
    both.get(&[("foo", "1")]).await;
    // Chosen by the same fields in another order: both are there.
    both.get(&[("foo", "1"), ("bar", "x")]).await;
    let answer = both.get(&[("foo", "1")]).await;
    assert_eq!((answer.text().as_str(), answer.is_hit()), ("new", true));
}

/// What an older fetch brings late is in nobody's way, whatever chooses it.
#[tokio::test]
async fn an_older_fetch_does_not_take_the_place_of_a_newer_one() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let upstream = Scripted::start(move |_, mut talk| {
        let gate = gate.clone();
        async move {
            while let Some(message) = talk.message().await {
                let is_slow = message.head.contains("authorization");
                let (fields, body) = if is_slow { ("cache-control: public", "old") } else { ("vary: foo", "new") };
                if is_slow {
                    gate.acquire().await.unwrap().forget();
                }
                talk.send(format!(
                    "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n{fields}\r\ncontent-length: 3\r\n\r\n{body}"
                ))
                .await;
            }
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), ORIGIN).await;
    let url = proxy.list_url("a");
    let slow = spawn({
        let url = url.clone();
        async move { get_with(&url, &[("authorization", "Basic x")]).await }
    });
    proxy.wait_for_metric("anteroom_upstream_in_flight", 1.0).await;
    assert_eq!(get(&url).await.text(), "new");
    opened.add_permits(1);
    let slow = slow.await.unwrap();
    assert_eq!((slow.text().as_str(), slow.cache_status()), ("old", "anteroom; fwd=uri-miss; fwd-status=200; ttl=60"));
    let answer = get(&url).await;
    assert_eq!((answer.text().as_str(), answer.is_hit()), ("new", true));
}
