//! RFC 9111 sections 3.1, 3.2, 4.3.4 and 4.3.5: which fields are stored, and what changes them.

use std::time::Duration;

use super::{Both, Fields, not_modified, plain, with_fields};
use crate::support::{jump, script};

/// Section 3.1.
#[tokio::test]
async fn all_fields_are_stored_but_those_of_one_hop() {
    const SENT: Fields = &[
        ("cache-control", "max-age=3600"),
        ("x-unknown", "1"),
        ("x-unknown", "2"),
        ("set-cookie", "a=b"),
        ("server", "s"),
        ("content-md5", "x"),
        ("content-language", "de"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
    ];
    let both = Both::always(SENT).await;
    let first = both.get(&[]).await;
    let hit = both.get(&[]).await;
    assert!(hit.is_hit());
    for name in
        ["cache-control", "server", "set-cookie", "content-md5", "content-language", "content-type", "date", "via"]
    {
        assert!(hit.header(name).is_some() && hit.header(name) == first.header(name), "{name}");
    }
    assert_eq!(hit.headers.get_all("x-unknown").iter().collect::<Vec<_>>(), ["1", "2"]);
    for name in ["x-hop", "keep-alive", "proxy-authenticate", "transfer-encoding"] {
        assert_eq!(hit.header(name), None, "{name}");
    }
}

/// RFC 9211 section 2: what other caches said stays before what this one says.
#[tokio::test]
async fn what_other_caches_said_is_told_on() {
    let both = Both::always(&[("cache-control", "max-age=3600"), ("cache-status", "origin; hit")]).await;
    for ours in ["anteroom; fwd=uri-miss; fwd-status=200; stored; ttl=3600", "anteroom; hit; ttl=3600"] {
        let answer = both.get(&[]).await;
        let told: Vec<_> = answer.headers.get_all("cache-status").iter().collect();
        assert_eq!(told, ["origin; hit", ours]);
    }
    assert_eq!(both.asked(), 1);
}

/// Sections 5.2.2.4 and 5.2.2.7.
#[tokio::test]
async fn fields_that_are_for_one_alone_are_not_stored() {
    const SENT: Fields = &[
        ("cache-control", "max-age=3600, no-cache=\"x-a\", private=\"set-cookie\""),
        ("x-a", "1"),
        ("set-cookie", "a=b"),
        ("x-b", "1"),
    ];
    let both = Both::always(SENT).await;
    let first = both.get(&[]).await;
    assert!(first.header("x-a").is_some() && first.header("set-cookie").is_some(), "whoever asked has them");
    let hit = both.get(&[]).await;
    assert!(hit.is_hit() && hit.header("x-b").is_some());
    assert_eq!((hit.header("x-a"), hit.header("set-cookie")), (None, None));
}

/// Sections 3.2 and 4.3.4.
#[tokio::test]
async fn a_304_updates_what_is_stored() {
    const FIRST: Fields = &[
        ("cache-control", "max-age=10"),
        ("etag", "\"a\""),
        ("x-old", "1"),
        ("x-both", "1"),
        ("content-encoding", "x"),
    ];
    const THEN: Fields = &[
        ("cache-control", "max-age=3600"),
        ("etag", "\"a\""),
        ("x-both", "2"),
        ("x-new", "1"),
        ("content-encoding", "y"),
    ];
    let both = Both::with(FIRST, |_| not_modified(THEN)).await;
    both.get(&[]).await;
    jump(Duration::from_secs(15)).await;
    for (count, told) in
        ["anteroom; fwd=stale; fwd-status=304; stored; ttl=3600", "anteroom; hit; ttl="].into_iter().enumerate()
    {
        let answer = both.get(&[]).await;
        assert!(answer.cache_status().starts_with(told), "{}", answer.cache_status());
        assert_eq!((answer.text().as_str(), answer.status.as_u16()), ("1", 200));
        let fields = ["x-old", "x-both", "x-new", "content-encoding"].map(|name| answer.header(name).unwrap());
        assert_eq!(fields, ["1", "2", "1", "x"], "{count}");
        assert_eq!(answer.header("age"), Some("0"));
    }
    jump(Duration::from_secs(20)).await;
    assert!(both.get(&[]).await.is_hit(), "the new lifetime holds");
    assert_eq!((both.asked(), both.last().header("if-none-match")), (2, Some("\"a\"")));
}

/// Section 4.3.1, and 4.3.4 for a 304 that is about another answer.
#[tokio::test]
async fn a_304_about_another_answer_is_none() {
    let both = Both::saying("", |number, request| {
        let asks = request.headers().contains_key("if-modified-since");
        match number {
            1 => plain(200, &[("cache-control", "max-age=1"), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], "1"),
            _ if asks => not_modified(&[("etag", "\"other\"")]),
            _ => plain(200, &[], "3"),
        }
    })
    .await;
    both.get(&[]).await;
    jump(Duration::from_secs(5)).await;
    let answer = both.get(&[]).await;
    assert_eq!(
        (answer.text().as_str(), answer.cache_status()),
        ("3", "anteroom; fwd=stale; fwd-status=200; stored; ttl=0")
    );
    assert_eq!((both.asked(), both.last().header("if-modified-since")), (3, None));
}

/// Section 4.3.5.
#[tokio::test]
async fn an_answer_to_head_updates_what_is_stored_or_makes_it_stale() {
    const FIRST: Fields = &[("cache-control", "max-age=10"), ("etag", "\"a\"")];
    for (head, text, hit) in [
        (&[("cache-control", "max-age=3600"), ("etag", "\"a\""), ("x-new", "1")][..], "1", true),
        (&[("cache-control", "max-age=3600"), ("etag", "\"b\""), ("x-new", "1")], "3", false),
    ] {
        let both = Both::saying("", move |number, request| {
            let fields = if number == 1 { FIRST } else { head };
            let body = if request.method() == "HEAD" { String::new() } else { number.to_string() };
            let mut answer = with_fields(script::answer(200, "text/plain", &body), fields);
            if request.method() == "HEAD" {
                answer.headers_mut().insert("content-length", 1.into());
            }
            answer
        })
        .await;
        both.get(&[]).await;
        jump(Duration::from_secs(15)).await;
        let answer = both.ask("HEAD", "a", &[]).await;
        assert_eq!(answer.cache_status(), "anteroom; fwd=stale; fwd-status=200; detail=method");
        let answer = both.get(&[]).await;
        assert_eq!(
            (answer.text().as_str(), answer.is_hit(), answer.header("x-new")),
            (text, hit, Some("1")),
            "{head:?}"
        );
    }
}

/// Section 3.3, and RFC 9112 section 8: what is not whole is not stored.
#[tokio::test]
async fn an_answer_that_breaks_off_is_not_stored() {
    use crate::support::raw::{Scripted, exchange};
    let upstream = Scripted::start(|number, mut talk| async move {
        let _ = talk.message().await;
        let body = if number == 0 { "half" } else { "whole one!" };
        talk.send(format!("HTTP/1.1 200 OK\r\ncache-control: max-age=3600\r\ncontent-length: 10\r\n\r\n{body}")).await;
    })
    .await;
    let proxy = crate::support::Proxy::in_front_of(&upstream.url(), super::ORIGIN).await;
    let request = format!("GET {} HTTP/1.1\r\nhost: h\r\n\r\n", anteroom_stand_in::StandIn::list_path("a"));
    let broken = exchange(&proxy.url, &request).await;
    assert!(
        broken.status() == 502 && broken.field("proxy-status").unwrap().contains("error=http_response_incomplete"),
        "{}",
        broken.head
    );
    for hit in [false, true] {
        let whole = exchange(&proxy.url, &request).await;
        assert_eq!((whole.text(), whole.field("cache-status").unwrap().contains("hit")), ("whole one!", hit));
    }
}
