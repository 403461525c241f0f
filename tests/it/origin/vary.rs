//! RFC 9111 section 4.1: which of several answers is the one for a request.

use super::{Both, Fields, plain};

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
        assert_eq!(answer.cache_status(), format!("anteroom; fwd={expected}; fwd-status=200; stored"));
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
