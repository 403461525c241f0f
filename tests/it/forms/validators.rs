//! Validators and conditional requests: RFC 9110 sections 8.8 and 13, RFC 9111 section 4.3.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anteroom_stand_in::Options;
use http::StatusCode;

use super::{Asked, json_with, list};
use crate::support::raw::{Scripted, exchange};
use crate::support::script::answer;
use crate::support::{Answer, Proxy, both, get_with, jump, request, send};

const CODINGS: [&str; 4] = ["identity", "gzip", "br", "zstd"];

async fn with(proxy: &Proxy, fields: &[(&str, &str)]) -> Answer {
    get_with(&proxy.list_url("visitor-a"), fields).await
}

/// RFC 9110 sections 8.8.3, 13.1.2 and 15.4.5; `api.md` 6.2 for the fields of a 304.
#[tokio::test]
async fn whoever_holds_a_list_in_one_form_holds_it_in_all() {
    let (_stand_in, proxy) = both("").await;
    for coding in CODINGS {
        let whole = with(&proxy, &[("accept-encoding", coding)]).await;
        let etag = whole.header("etag").unwrap().to_owned();
        for asked in CODINGS {
            for tag in [etag.clone(), etag[2..].to_owned(), format!("\"x\", {etag}"), "*".to_owned()] {
                for method in ["GET", "HEAD"] {
                    let fields = [("if-none-match", tag.as_str()), ("accept-encoding", asked)];
                    let held = send(request(method, &proxy.list_url("visitor-a"), &fields, "")).await;
                    assert_eq!((held.status, held.body.len()), (StatusCode::NOT_MODIFIED, 0), "{method} {tag}");
                    assert_eq!(held.header("etag"), Some(etag.as_str()));
                    let vary: Vec<_> = held.headers.get_all("vary").iter().collect();
                    assert_eq!(vary, ["Origin", "Accept-Encoding"]);
                    assert!(
                        held.headers.keys().all(|name| !name.as_str().starts_with("content-")),
                        "{:?}",
                        held.headers
                    );
                    for name in ["cache-control", "date", "via", "x-frame-options"] {
                        assert_eq!(held.header(name), whole.header(name), "{name}");
                    }
                }
            }
        }
    }
}

/// RFC 9110 sections 8.8.1 and 15.4.5: a strong validator means one sequence of bytes, and a 304 has the validator
/// that the 200 in its place would have.
#[tokio::test]
async fn a_strong_validator_is_weak_in_a_coding() {
    let upstream = Asked::start(|_| json_with(&list(5000), &[("etag", "\"strong\"")])).await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    for _ in 0..2 {
        for coding in CODINGS {
            let expected = if coding == "identity" { "\"strong\"" } else { "W/\"strong\"" };
            assert_eq!(with(&proxy, &[("accept-encoding", coding)]).await.header("etag"), Some(expected), "{coding}");
            for tag in ["\"strong\"", "W/\"strong\""] {
                let held = with(&proxy, &[("accept-encoding", coding), ("if-none-match", tag)]).await;
                assert_eq!((held.status, held.header("etag")), (StatusCode::NOT_MODIFIED, Some(expected)), "{coding}");
            }
        }
    }
}

/// RFC 9110 section 13.1.3.
#[tokio::test]
async fn a_date_is_compared_where_the_upstream_gives_one() {
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    let upstream = Asked::start(move |_| json_with(&list(50), &[("last-modified", modified)])).await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    assert_eq!(with(&proxy, &[]).await.header("last-modified"), Some(modified));
    for (since, expected) in [
        (modified, 304),
        ("Mon, 07 Nov 1994 08:49:37 GMT", 304),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 304),
        ("yesterday", 200),
    ] {
        assert_eq!(with(&proxy, &[("if-modified-since", since)]).await.status.as_u16(), expected, "{since}");
    }
    // Section 13.2.2: the validator goes before the date.
    let fields = [("if-modified-since", modified), ("if-none-match", "\"other\"")];
    assert_eq!(with(&proxy, &fields).await.status, StatusCode::OK);
    assert_eq!(upstream.lists(), 1);
    // A trimmed list does not change when the upstream's does (section 8.8.2).
    let proxy =
        Proxy::in_front_of(&upstream.script.url, "payload.trim.drop = [\"contact.email\", \"messages.content\"]").await;
    assert_eq!(with(&proxy, &[]).await.header("last-modified"), None);
    assert_eq!(with(&proxy, &[("if-modified-since", modified)]).await.status, StatusCode::OK);
}

/// RFC 9110 section 14.2: a server may ignore `Range`.
#[tokio::test]
async fn a_range_is_ignored() {
    let (stand_in, proxy) = both("").await;
    for fields in [&[("range", "bytes=0-1")][..], &[("range", "bytes=0-1"), ("if-range", "\"x\"")]] {
        for _ in 0..2 {
            let whole = with(&proxy, fields).await;
            assert_eq!((whole.status, whole.body), (StatusCode::OK, stand_in.list_body("visitor-a")));
        }
    }
}

/// RFC 9110 section 13.1.2: a condition on what there is applies to a 200 only; clients wipe their storage on a 404.
#[tokio::test]
async fn a_404_is_never_a_304() {
    let (_stand_in, proxy) = both("cache.negative_ttl = \"5s\"").await;
    for cache_status in ["anteroom; fwd=uri-miss; fwd-status=404; stored", "anteroom; hit; ttl=5"] {
        let missing = get_with(&proxy.list_url("nobody"), &[("if-none-match", "*")]).await;
        assert_eq!((missing.status, missing.cache_status()), (StatusCode::NOT_FOUND, cache_status));
    }
}

/// RFC 9111 section 4.3.3: a 304 that nobody asked for has no answer that it could stand for.
#[tokio::test]
async fn an_unsolicited_304_never_reaches_a_client() {
    let upstream = Scripted::answering("HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n").await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    for fields in [&[][..], &[("if-none-match", "\"x\"")], &[("if-none-match", "*"), ("accept-encoding", "gzip")]] {
        let answer = with(&proxy, fields).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert_eq!(answer.cache_status(), "anteroom; fwd=uri-miss; detail=malformed");
    }
    assert!(upstream.last_request().field("if-none-match").is_none());
}

/// RFC 9111 sections 3.2, 4.3.3 and 4.3.4.
#[tokio::test]
async fn an_expired_answer_is_asked_for_with_the_upstreams_validator_and_refreshed_by_a_304() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let upstream = Scripted::start(move |_, mut talk| {
        let count = counted.clone();
        async move {
            while let Some(request) = talk.message().await {
                if count.fetch_add(1, Ordering::SeqCst) == 0 {
                    let body = list(3000);
                    talk.send(format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\netag: \"v1\"\r\ncache-control: max-age=1\r\n\
                         x-old: 1\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                         access-control-allow-origin: *\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    ))
                    .await;
                } else {
                    assert_eq!(request.field("if-none-match"), Some("\"v1\""));
                    talk.send(
                        "HTTP/1.1 304 Not Modified\r\netag: W/\"v1\"\r\ncache-control: max-age=2\r\nx-new: 1\r\n\
                         content-type: text/html\r\ncontent-encoding: gzip\r\nset-cookie: a=b\r\nx-runtime: 0.1\r\n\
                         date: Mon, 07 Nov 1994 08:49:37 GMT\r\nlast-modified: Mon, 07 Nov 1994 08:49:37 GMT\r\nage: 3\r\n\
                         access-control-allow-origin: https://other.test\r\n\r\n",
                    )
                    .await;
                }
            }
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "cache.stale_while_revalidate = \"0s\"").await;
    let first = with(&proxy, &[("origin", "https://shop.test")]).await;
    jump(Duration::from_secs(15)).await;
    let second = with(&proxy, &[("origin", "https://shop.test")]).await;
    assert_eq!(second.cache_status(), "anteroom; fwd=stale; fwd-status=304; stored");
    assert_eq!((second.status, &second.body), (StatusCode::OK, &first.body));
    for name in [
        "content-type",
        "content-length",
        "content-encoding",
        "etag",
        "last-modified",
        "x-old",
        "via",
        "access-control-allow-origin",
        "vary",
    ] {
        assert_eq!(second.header(name), first.header(name), "{name} is kept");
    }
    for (name, value) in [
        ("cache-control", Some("max-age=2")),
        ("x-new", Some("1")),
        ("date", Some("Mon, 07 Nov 1994 08:49:37 GMT")),
        ("age", Some("3")),
        ("set-cookie", None),
        ("x-runtime", None),
    ] {
        assert_eq!(second.header(name), value, "{name}");
    }
    assert!(with(&proxy, &[]).await.is_hit());
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

/// RFC 9111 section 5.2.2.5: what must not be stored is not, even if it comes with a 304.
#[tokio::test]
async fn a_304_may_say_that_nothing_is_to_be_stored() {
    let upstream = Asked::start(|asked| {
        if asked.contains_key("if-none-match") {
            super::with(answer(304, "text/html", ""), &[("cache-control", "no-store")])
        } else {
            json_with(&list(50), &[("etag", "\"v1\"")])
        }
    })
    .await;
    let proxy =
        Proxy::in_front_of(&upstream.script.url, "cache.ttl = \"0s\"\ncache.stale_while_revalidate = \"0s\"").await;
    with(&proxy, &[]).await;
    let again = with(&proxy, &[]).await;
    assert_eq!(again.cache_status(), "anteroom; fwd=stale; fwd-status=304");
    assert_eq!((again.text(), proxy.state.cache.store.size().0), (list(50), 0));
}

/// The upstream compares one value, as it is (`api.md` 6.2): it gets back what it gave, not what readers get.
#[tokio::test]
async fn a_trimmed_list_is_revalidated_with_the_upstreams_validator() {
    let stand_in = anteroom_stand_in::StandIn::start(Options::default()).await.unwrap();
    let settings = "payload.trim.messages_per_conversation = 1\ncache.stale_while_revalidate = \"0s\"";
    let proxy = Proxy::start(&stand_in, settings).await;
    let first = with(&proxy, &[]).await;
    jump(Duration::from_secs(15)).await;
    let second = with(&proxy, &[]).await;
    assert_eq!(second.cache_status(), "anteroom; fwd=stale; fwd-status=304; stored");
    assert_eq!((&second.body, second.header("etag")), (&first.body, first.header("etag")));
    let own = first.header("etag").unwrap();
    let asked = stand_in.requests().last().unwrap().headers["if-none-match"].clone();
    assert_ne!(asked, own, "the body is not the upstream's");
    // Whoever holds the upstream's own does not hold ours.
    assert_eq!(with(&proxy, &[("if-none-match", asked.to_str().unwrap())]).await.status, StatusCode::OK);
    assert_eq!(with(&proxy, &[("if-none-match", own)]).await.status, StatusCode::NOT_MODIFIED);
}

/// RFC 9110 section 13.1.2, over bytes that hyper's client would not send: several fields are one list.
#[tokio::test]
async fn a_list_of_tags_may_come_in_several_fields() {
    let (_stand_in, proxy) = both("").await;
    let etag = with(&proxy, &[]).await.header("etag").unwrap().to_owned();
    let path = anteroom_stand_in::StandIn::list_path("visitor-a");
    let fields = format!("if-none-match: \"a,b\" , \"c\"\r\nif-none-match: \"d\",,{etag}");
    let held = exchange(&proxy.url, format!("GET {path} HTTP/1.1\r\nhost: h\r\n{fields}\r\n\r\n")).await;
    assert_eq!(held.status(), 304);
}
