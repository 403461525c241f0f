//! RFC 9111 sections 3, 4 and 4.2: what is stored, and for how long it is used.

use std::time::Duration;

use super::{Both, Fields, plain};
use crate::support::jump;

const HOUR: Fields = &[("cache-control", "max-age=3600")];

/// Section 4: "MUST generate an Age header field" when a stored answer is used; RFC 9211 for what is told of it.
#[tokio::test]
async fn what_is_fresh_is_used_with_its_age() {
    let both = Both::always(HOUR).await;
    let first = both.get(&[]).await;
    assert_eq!((first.text(), first.header("age")), ("1".to_owned(), None));
    assert_eq!(first.cache_status(), "anteroom; fwd=uri-miss; fwd-status=200; stored; ttl=3600");
    jump(Duration::from_secs(100)).await;
    let second = both.get(&[]).await;
    assert_eq!((second.text(), second.header("content-type")), ("1".to_owned(), Some("text/plain")));
    let age: u64 = second.header("age").unwrap().parse().unwrap();
    assert!((100..110).contains(&age), "{age}");
    assert!(second.cache_status().starts_with("anteroom; hit; ttl=3"), "{}", second.cache_status());
    assert_eq!(both.asked(), 1);
    jump(Duration::from_secs(3600)).await;
    let third = both.get(&[]).await;
    assert_eq!(
        (third.text(), third.cache_status()),
        ("2".to_owned(), "anteroom; fwd=stale; fwd-status=200; stored; ttl=3600")
    );
}

/// Section 3: a final status, whatever it is, if the answer says for how long.
#[tokio::test]
async fn every_final_status_is_stored_if_the_answer_says_so() {
    for status in [
        200, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 404, 405, 410, 414, 418, 451, 499, 500, 501, 502, 503,
        504, 599, 999,
    ] {
        let both =
            Both::saying("", move |number, _| plain(status, HOUR, if status == 204 { "" } else { &"x"[number - 1..] }))
                .await;
        for count in 0..2 {
            let answer = both.get(&[]).await;
            assert_eq!((answer.status.as_u16(), answer.is_hit()), (status, count == 1), "{status}");
        }
    }
}

/// Sections 3 and 4.2.2: without a word, only some statuses, and only for as long as is likely.
#[tokio::test]
async fn what_says_nothing_is_used_as_long_as_is_likely() {
    const CHANGED: Fields = &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
    for (status, fields, expected) in [
        (200, CHANGED, true),
        (404, CHANGED, true),
        (201, CHANGED, false),
        (302, CHANGED, false),
        (503, CHANGED, false),
        (200, &[], false),
    ] {
        let both = Both::saying("", move |_, _| plain(status, fields, "x")).await;
        both.get(&[]).await;
        assert_eq!(both.get(&[]).await.is_hit(), expected, "{status} {fields:?}");
    }
}

/// Sections 3, 3.5 and 5.2.2.
#[tokio::test]
async fn what_may_not_be_stored_is_asked_for_each_time() {
    for (fields, asked, told) in [
        (&[("cache-control", "no-store, max-age=3600")][..], &[][..], "no-store"),
        (&[("cache-control", "private, max-age=3600")], &[], "private"),
        (&[("cache-control", "max-age=3600"), ("vary", "*")], &[], "vary"),
        (HOUR, &[("authorization", "Basic x")], "credentials"),
        (HOUR, &[("api-access-token", "x")], "credentials"),
    ] {
        let both = Both::always(fields).await;
        for number in ["1", "2", "3"] {
            let answer = both.get(asked).await;
            assert_eq!((answer.text(), answer.is_hit()), (number.to_owned(), false), "{fields:?}");
            assert_eq!(answer.cache_status(), format!("anteroom; fwd=uri-miss; fwd-status=200; detail={told}"));
        }
        assert_eq!(both.proxy.state.cache.responses.size().0, 0);
    }
}

/// Section 3.5: what others may have; and cookies are no obstacle at all.
#[tokio::test]
async fn what_others_may_have_is_stored_whoever_asked() {
    for (fields, asked) in [
        (&[("cache-control", "public, max-age=3600")][..], &[("authorization", "Basic x")][..]),
        (&[("cache-control", "must-revalidate, max-age=3600")], &[("authorization", "Basic x")]),
        (&[("cache-control", "s-maxage=3600")], &[("authorization", "Basic x")]),
        (HOUR, &[("cookie", "a=b")]),
    ] {
        let both = Both::always(fields).await;
        assert!(!both.get(asked).await.is_hit());
        let answer = both.get(&[]).await;
        assert_eq!((answer.text(), answer.is_hit()), ("1".to_owned(), true), "{fields:?}");
        assert!(both.get(asked).await.is_hit());
    }
}

/// Section 5.2.2.4: `no-cache` is stored, and never used without asking.
#[tokio::test]
async fn what_needs_validation_is_validated_each_time() {
    let both = Both::saying("", |_, request| {
        let fields = &[("cache-control", "no-cache, max-age=3600"), ("etag", "\"a\"")];
        if request.headers().contains_key("if-none-match") {
            super::not_modified(fields)
        } else {
            plain(200, fields, "x")
        }
    })
    .await;
    both.get(&[]).await;
    for _ in 0..2 {
        let answer = both.get(&[]).await;
        assert_eq!(
            (answer.text(), answer.cache_status()),
            ("x".to_owned(), "anteroom; fwd=stale; fwd-status=304; stored; ttl=3600")
        );
    }
    assert_eq!((both.asked(), both.last().header("if-none-match")), (3, Some("\"a\"")));
}

/// Section 2: the key is the method and the target; another query is another one.
#[tokio::test]
async fn another_target_has_another_answer() {
    let both = Both::always(HOUR).await;
    let url = both.proxy.list_url("a");
    for target in [url.clone(), format!("{url}?"), format!("{url}?a=1"), format!("{url}?a=2"), both.proxy.list_url("b")]
    {
        assert!(!crate::support::get(&target).await.is_hit(), "{target}");
        assert!(crate::support::get(&target).await.is_hit(), "{target}");
    }
    assert_eq!(both.asked(), 5);
}
