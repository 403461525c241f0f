//! Readers from other origins (Fetch standard, "CORS protocol"; `api.md` 6.6), and what the upstream makes of them.

use anteroom::policy::coherence::ledger::Scope;
use anteroom::policy::http::key::Key;
use anteroom_stand_in::INBOX;
use http::{HeaderMap, StatusCode};

use super::{Asked, json_with, list};
use crate::support::script::Scripted;
use crate::support::{Answer, Proxy, both, get_with, post, request, send};

const A: &str = "https://a.test";
const B: &str = "https://b.test";

async fn from(proxy: &Proxy, origin: &str) -> Answer {
    get_with(&proxy.list_url("visitor-a"), &[("origin", origin)]).await
}

/// As an upstream does that trusts some sites with credentials.
fn echoing(asked: &HeaderMap, body: &str) -> Scripted {
    match asked.get("origin") {
        Some(origin) => json_with(
            body,
            &[
                ("access-control-allow-origin", origin.to_str().unwrap()),
                ("access-control-allow-credentials", "true"),
                ("vary", "Origin"),
                ("etag", "W/\"4f53cda18c2baa0c0354bb5f9a3ecbe5\""),
            ],
        ),
        None => json_with(body, &[("vary", "Origin"), ("etag", "W/\"4f53cda18c2baa0c0354bb5f9a3ecbe5\"")]),
    }
}

fn cors(answer: &Answer) -> Vec<(String, String)> {
    let fields = answer.headers.iter().filter(|(name, _)| name.as_str().starts_with("access-control-"));
    let mut fields: Vec<_> =
        fields.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    fields.sort();
    fields
}

#[tokio::test]
async fn the_stock_upstream_is_asked_once_for_readers_of_all_origins() {
    let (stand_in, proxy) = both("").await;
    let miss = from(&proxy, A).await;
    assert!(miss.cache_status().contains("stored"));
    assert_eq!(miss.header("access-control-allow-origin"), Some("*"));
    for field in ["origin", "x-origin"] {
        let hit = get_with(&proxy.list_url("visitor-a"), &[(field, B), ("accept-encoding", "gzip")]).await;
        assert!(hit.is_hit(), "{field}");
        assert_eq!((cors(&hit), hit.header("content-encoding")), (cors(&miss), Some("gzip")), "{field}");
    }
    let plain = proxy.list("visitor-a").await;
    assert!(plain.is_hit() && cors(&plain).is_empty());
    let held = get_with(&proxy.list_url("visitor-a"), &[("origin", A), ("if-none-match", "*")]).await;
    assert_eq!((held.status, cors(&held)), (StatusCode::NOT_MODIFIED, cors(&miss)));
    assert_eq!(stand_in.list_requests("visitor-a"), 1);
}

/// The Fetch standard, "CORS check": with credentials the origin must be the reader's own.
#[tokio::test]
async fn an_upstream_that_tells_origins_apart_has_answers_for_each() {
    let upstream = Asked::start(|asked| echoing(asked, &list(3000))).await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "admin.token = \"t\"").await;
    // The first fetch finds it out.
    for (origin, asked) in [(A, 2), (B, 3)] {
        let miss = from(&proxy, origin).await;
        assert!(miss.cache_status().contains("stored"), "{}", miss.cache_status());
        assert_eq!(upstream.lists(), asked);
        assert_eq!(upstream.last("origin").as_deref(), Some(origin));
        for accepted in ["identity", "br"] {
            let hit =
                get_with(&proxy.list_url("visitor-a"), &[("origin", origin), ("accept-encoding", accepted)]).await;
            assert!(hit.is_hit());
            assert_eq!(hit.header("access-control-allow-origin"), Some(origin));
            assert_eq!(hit.header("access-control-allow-credentials"), Some("true"));
        }
    }
    let plain = proxy.list("visitor-a").await;
    assert!(plain.is_hit() && cors(&plain).is_empty(), "{:?}", plain.headers);
    // One that cannot be compared passes by.
    let odd = get_with(&proxy.list_url("visitor-a"), &[("x-origin", A)]).await;
    assert_eq!(odd.cache_status(), "anteroom; fwd=bypass; fwd-status=200; detail=origin");
    for origin in [A, B] {
        assert!(from(&proxy, origin).await.is_hit());
    }

    // A write, and then a purge, are about all of them.
    let written = post(&format!("{}/7/messages", proxy.list_url("visitor-a")), r#"{"content":"x"}"#).await;
    assert_eq!(written.status, StatusCode::OK);
    for round in 0..2 {
        let before = upstream.lists();
        for origin in [A, B] {
            let again = from(&proxy, origin).await;
            assert!(again.cache_status().starts_with("anteroom; fwd="), "{round}: {}", again.cache_status());
            assert_eq!(again.header("access-control-allow-origin"), Some(origin));
        }
        let again = proxy.list("visitor-a").await;
        assert!(cors(&again).is_empty());
        assert!(upstream.lists() >= before + 3, "{round}: nobody got what was out of date");
        let purge = request(
            "POST",
            &format!("{}/purge", proxy.admin),
            &[("authorization", "Bearer t")],
            r#"{"contact":"visitor-a"}"#,
        );
        assert!(send(purge).await.status.is_success());
    }
}

/// RFC 9211 section 2.2: there was an answer, but none for this reader.
#[tokio::test]
async fn a_miss_of_one_origin_only_says_so() {
    let upstream = Asked::start(|asked| echoing(asked, &list(50))).await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    proxy.list("visitor-a").await;
    assert_eq!(from(&proxy, A).await.cache_status(), "anteroom; fwd=vary-miss; fwd-status=200; stored");
}

/// Without CORS fields nothing says that readers of two origins get the same.
#[tokio::test]
async fn an_upstream_without_cors_gives_readers_what_it_would_have_given() {
    let upstream = Asked::start(|_| json_with(&list(50), &[])).await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    for _ in 0..2 {
        let other = from(&proxy, A).await;
        assert_eq!((other.status, cors(&other)), (StatusCode::OK, vec![]));
    }
    assert!(from(&proxy, A).await.is_hit() && proxy.list("visitor-a").await.is_hit());
    assert_eq!(upstream.lists(), 2);
}

/// What a list that cannot be shared says to the origin of the fetch, it does not say to its reader's.
#[tokio::test]
async fn an_answer_for_one_reader_is_for_its_origin() {
    let upstream = Asked::start(|asked| {
        let mut answer = echoing(asked, &list(50));
        answer.headers_mut().append("vary", http::HeaderValue::from_static("Accept-Language"));
        answer
    })
    .await;
    for origin in [Some(A), None] {
        let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
        for _ in 0..2 {
            let fields: Vec<_> = origin.iter().map(|origin| ("origin", *origin)).collect();
            let own = get_with(&proxy.list_url("visitor-a"), &fields).await;
            assert_eq!(own.header("access-control-allow-origin"), origin, "{}", own.cache_status());
            assert!(own.cache_status().ends_with("detail=not_storable"), "{}", own.cache_status());
        }
    }
}

/// A reader must not see an older list after a newer one, though the newer one passed by the cache.
#[tokio::test]
async fn a_list_that_passed_by_outdates_the_one_of_its_origin() {
    let current = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let changed = current.clone();
    let upstream = Asked::start(move |asked| {
        if changed.load(std::sync::atomic::Ordering::SeqCst) {
            let mut answer = echoing(asked, &list(60));
            answer.headers_mut().insert("etag", http::HeaderValue::from_static("\"changed\""));
            answer
        } else {
            echoing(asked, &list(50))
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    from(&proxy, A).await;
    assert!(from(&proxy, A).await.is_hit());
    // Readers without an origin have the newer one by now.
    current.store(true, std::sync::atomic::Ordering::SeqCst);
    let key = Key::new(INBOX, "visitor-a", None);
    proxy.state.cache.store.forget(&key, proxy.state.invalidation.ledger.now());
    assert_eq!(proxy.list("visitor-a").await.text(), list(60));
    let seen = get_with(&proxy.list_url("visitor-a"), &[("origin", A), ("cookie", "a=b")]).await;
    assert_eq!(seen.text(), list(60));
    assert_eq!(from(&proxy, A).await.text(), list(60));
}

/// A browser can read no answer without these, an error's neither.
#[tokio::test]
async fn errors_have_the_fields_too() {
    let (stand_in, proxy) = both("").await;
    let mut direct = get_with(&format!("{}/public/api/v1/inboxes/x", stand_in.url()), &[("origin", A)]).await;
    // The stock upstream exposes nothing, which the proxy's own fields are added to.
    assert_eq!(direct.header("access-control-expose-headers"), Some(""));
    let ours = http::HeaderValue::from_static("Age, Cache-Status, X-Request-Id");
    direct.headers.insert("access-control-expose-headers", ours);
    // The upstream's own.
    let missing = get_with(&proxy.list_url("nobody"), &[("origin", A)]).await;
    assert_eq!((missing.status, cors(&missing)), (StatusCode::NOT_FOUND, cors(&direct)));
    stand_in.fault(anteroom_stand_in::Fault::Error);
    let failed = from(&proxy, A).await;
    assert_eq!((failed.status, cors(&failed)), (StatusCode::INTERNAL_SERVER_ERROR, cors(&direct)));
    assert!(cors(&proxy.list("visitor-a").await).is_empty());
    // Our own.
    let refused = send(request("TRACE", &proxy.list_url("visitor-a"), &[("origin", A)], "")).await;
    assert_eq!((refused.status, cors(&refused)), (StatusCode::METHOD_NOT_ALLOWED, cors(&direct)));
    stand_in.stop().await;
    for (origin, expected) in [(Some(A), cors(&direct)), (None, vec![])] {
        let fields: Vec<_> = origin.iter().map(|origin| ("origin", *origin)).collect();
        for url in [proxy.list_url("visitor-b"), proxy.contact_url("visitor-b")] {
            let own = get_with(&url, &fields).await;
            assert_eq!((own.status, cors(&own)), (StatusCode::BAD_GATEWAY, expected.clone()), "{url}");
            assert_eq!(own.header("content-type"), Some("application/problem+json"));
            assert_eq!(own.header("vary"), Some("Origin"));
        }
    }
}

/// An error of an upstream that tells origins apart: the reader's own, or one it cannot read, but never another's.
#[tokio::test]
async fn an_error_for_another_origin_is_not_given() {
    let upstream = Asked::start(|asked| {
        let mut answer = echoing(asked, "{}");
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    let failed = from(&proxy, A).await;
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!([None, Some(A)].contains(&failed.header("access-control-allow-origin")));
    assert!(cors(&proxy.list("visitor-a").await).is_empty());
}

/// A page can read what the proxy says of an answer (Fetch standard, "CORS-exposed header-name list").
#[tokio::test]
async fn pages_may_read_the_fields_of_the_proxy() {
    const OURS: &str = "Age, Cache-Status, X-Request-Id";
    let (stand_in, proxy) = both("").await;
    let exposed = |answer: &Answer| answer.header("access-control-expose-headers").map(str::to_owned);
    let list = proxy.list_url("visitor-a");
    let (miss, hit) = (from(&proxy, A).await, from(&proxy, A).await);
    assert!(!miss.is_hit() && hit.is_hit());
    let held = get_with(&list, &[("origin", A), ("if-none-match", "*")]).await;
    let bypass = get_with(&list, &[("origin", A), ("cookie", "a=b")]).await;
    let passed = get_with(&proxy.inbox_url(), &[("origin", A)]).await;
    let json = [("origin", A), ("content-type", "application/json")];
    let write = send(request("POST", &format!("{list}/131/messages"), &json, r#"{"content":"x"}"#)).await;
    for (answer, status) in [(&miss, 200), (&hit, 200), (&held, 304), (&bypass, 200), (&passed, 200), (&write, 200)] {
        assert_eq!((answer.status.as_u16(), exposed(answer).as_deref()), (status, Some(OURS)), "{:?}", answer.headers);
    }
    // Without an origin there is nothing to be opened.
    assert_eq!(exposed(&proxy.list("visitor-a").await), None);
    stand_in.stop().await;
    let failed = get_with(&proxy.inbox_url(), &[("origin", A)]).await;
    assert_eq!((failed.status, exposed(&failed).as_deref()), (StatusCode::BAD_GATEWAY, Some(OURS)));
}

#[tokio::test]
async fn what_the_upstream_exposes_itself_stays_as_it_is() {
    let fields = [("access-control-allow-origin", "*"), ("access-control-expose-headers", "X-Own")];
    let upstream = Asked::start(move |_| json_with(&list(10), &fields)).await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    let passed = get_with(&proxy.inbox_url(), &[("origin", A)]).await;
    for answer in [from(&proxy, A).await, from(&proxy, A).await, passed] {
        assert_eq!(answer.headers.get_all("access-control-expose-headers").iter().collect::<Vec<_>>(), ["X-Own"]);
    }
}

/// What readers of one origin have seen, those of another see too: no client steps backwards by changing its origin.
#[tokio::test]
async fn what_one_origin_has_seen_puts_older_answers_to_others_out_of_date() {
    let version = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1));
    let state = version.clone();
    let upstream = crate::support::script::Script::start(move |asked| {
        let version = state.load(std::sync::atomic::Ordering::SeqCst);
        let body = format!(r#"[{{"id":{version},"contact":{{"id":7}}}}]"#);
        match asked.headers().get("origin") {
            Some(origin) => json_with(
                &body,
                &[
                    ("access-control-allow-origin", origin.to_str().unwrap()),
                    ("access-control-allow-credentials", "true"),
                    ("vary", "Origin"),
                ],
            ),
            None => json_with(&body, &[("vary", "Origin")]),
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url, "").await;
    for origin in [A, B, A, B] {
        from(&proxy, origin).await;
    }
    assert!(from(&proxy, A).await.is_hit() && from(&proxy, B).await.is_hit(), "what is alike stays");
    version.store(2, std::sync::atomic::Ordering::SeqCst);
    let third = "https://c.test";
    let newer = from(&proxy, third).await;
    for origin in [A, B, third] {
        assert_eq!(from(&proxy, origin).await.text(), newer.text(), "{origin}");
        assert!(from(&proxy, origin).await.is_hit(), "{origin}");
    }
}

/// The first list of all puts nothing out of date: where it is written that somebody has seen a newer one may be the place
/// of other lists, too.
#[tokio::test]
async fn the_first_that_an_upstream_without_cors_shows_outdates_nothing() {
    let upstream = Asked::start(move |_| json_with(&list(10), &[])).await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    let ledger = &proxy.state.invalidation.ledger;
    let (before, key) = (ledger.now(), Key::new(INBOX, "visitor-a", None));
    assert!(!proxy.list("visitor-a").await.is_hit());
    assert!(ledger.is_current(before, &[ledger.place(&Scope::Variants(key.text_of_list()))]));
    assert!(proxy.list("visitor-a").await.is_hit());
}
