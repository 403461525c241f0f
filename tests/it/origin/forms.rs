//! RFC 9111 sections 3.3 and 4.3.2, RFC 9110 section 14: a stored answer for `HEAD`, for a part, for who has it already.

use http::StatusCode;

use super::{Both, Fields, plain};

const STORED: Fields =
    &[("cache-control", "max-age=3600"), ("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];

async fn stored() -> Both {
    let both = Both::with(STORED, |_| plain(500, &[], "")).await;
    both.get(&[]).await;
    both
}

/// RFC 9110 sections 13.1 and 15.4.5.
#[tokio::test]
async fn who_has_it_already_gets_304() {
    let both = stored().await;
    for (asked, status) in [
        (&[("if-none-match", "\"a\"")][..], 304),
        (&[("if-none-match", "W/\"a\"")], 304),
        (&[("if-none-match", "\"b\"")], 200),
        (&[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], 304),
        (&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], 200),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = both.ask(method, "a", asked).await;
            assert_eq!((answer.status.as_u16(), answer.is_hit()), (status, true), "{asked:?}");
            assert_eq!(answer.header("etag"), Some("\"a\""));
            let has_body = status == 200 && method == "GET";
            assert_eq!(answer.text(), if has_body { "1" } else { "" });
            assert_eq!(answer.header("content-type").is_some(), status == 200);
        }
    }
    assert_eq!(both.asked(), 1);
}

/// RFC 9110 section 9.3.2.
#[tokio::test]
async fn head_is_answered_from_what_get_stored() {
    let both = stored().await;
    let answer = both.ask("HEAD", "a", &[]).await;
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.header("content-length")),
        (StatusCode::OK, "", Some("1"))
    );
    assert!(answer.is_hit());
}

/// Section 3.3; RFC 9110 sections 14.2 and 15.3.7.
#[tokio::test]
async fn a_part_is_served_from_the_whole() {
    let both = Both::saying("", |_, _| plain(200, STORED, "0123456789")).await;
    both.get(&[]).await;
    for (range, status, part, told) in [
        ("bytes=0-3", 206, "0123", Some("bytes 0-3/10")),
        ("bytes=8-", 206, "89", Some("bytes 8-9/10")),
        ("bytes=-1", 206, "9", Some("bytes 9-9/10")),
        ("bytes=10-", 416, "", Some("bytes */10")),
        ("bytes=0-1,3-4", 200, "0123456789", None),
        ("pages=1", 200, "0123456789", None),
    ] {
        let answer = both.get(&[("range", range)]).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (status, part), "{range}");
        assert_eq!((answer.header("content-range"), answer.is_hit()), (told, true), "{range}");
        assert_eq!(answer.header("content-length"), Some(part.len().to_string().as_str()));
    }
    let other = both.get(&[("range", "bytes=0-3"), ("if-range", "\"b\"")]).await;
    assert_eq!((other.status.as_u16(), other.text().as_str()), (200, "0123456789"));
    assert_eq!(both.asked(), 1);
}

/// Section 3.3: a part is stored as a part, and serves who asks for no more.
#[tokio::test]
async fn a_part_of_the_upstream_is_stored_as_a_part() {
    let both = Both::saying("", |_, request| match request.headers().get("range") {
        Some(_) => plain(206, &[("cache-control", "max-age=3600"), ("content-range", "bytes 0-1/4")], "01"),
        None if request.method() == "HEAD" => plain(200, &[], ""),
        None => plain(200, &[("cache-control", "max-age=3600")], "0123"),
    })
    .await;
    let part = both.get(&[("range", "bytes=0-1")]).await;
    assert_eq!((part.status.as_u16(), part.text().as_str()), (206, "01"));
    assert_eq!(part.cache_status(), "anteroom; fwd=uri-miss; fwd-status=206; stored; ttl=3600");
    for (range, text, told) in [("bytes=0-1", "01", "bytes 0-1/4"), ("bytes=1-1", "1", "bytes 1-1/4")] {
        let again = both.get(&[("range", range)]).await;
        assert_eq!((again.status.as_u16(), again.text().as_str(), again.is_hit()), (206, text, true), "{range}");
        assert_eq!(again.header("content-range"), Some(told));
    }
    assert_eq!(both.ask("HEAD", "a", &[]).await.cache_status(), "anteroom; fwd=partial; fwd-status=200; detail=method");
    let whole = both.get(&[]).await;
    assert_eq!(
        (whole.text().as_str(), whole.cache_status()),
        ("0123", "anteroom; fwd=partial; fwd-status=200; stored; ttl=3600")
    );
    for range in ["bytes=2-3", "bytes=0-1", "bytes=-1"] {
        assert!(both.get(&[("range", range)]).await.is_hit(), "{range}");
    }
    assert_eq!(both.proxy.state.cache.responses.all().count(), 1, "the whole is in the place of the part");
}
