//! The forms of an answer over real sockets: codings, validators, origins, refreshed fields.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anteroom::demo::{Options, Shape, StandIn};
use anteroom::policy::encoding::{Coding, EncodingSettings, decode, encode};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::Full;

use crate::support::script::{Script, answer, json};
use crate::support::{Proxy, get, get_with, jump, post, request, send, spawn};

const CODINGS: [(&str, Coding); 3] = [("zstd", Coding::Zstd), ("br", Coding::Brotli), ("gzip", Coding::Gzip)];
const LIST: &str = r#"[{"id":1,"uuid":"u-1","inbox_id":1,"contact_last_seen_at":0,"status":"open","agent_last_seen_at":0,
    "messages":[],"contact":{"id":42,"account_id":7,"blocked":false,"label_list":[]}}]"#;

async fn both(more: &str) -> (StandIn, Proxy) {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    stand_in.seed("long", Shape { conversations: 3, messages: 20, bytes: 200 });
    let proxy = Proxy::start(&stand_in, more).await;
    (stand_in, proxy)
}

/// RFC 9110 sections 8.4, 8.6, 8.8.3.3 and 12.5.5.
#[tokio::test]
async fn a_list_is_sent_in_each_coding_and_is_the_same_list() {
    let (stand_in, proxy) = both("").await;
    let plain = proxy.list("long").await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("Origin")));
    let varies: Vec<_> = plain.headers.get_all("vary").iter().collect();
    assert_eq!(varies, ["Origin", "Accept-Encoding"]);
    for (name, coding) in CODINGS {
        let asked = [("accept-encoding", name)];
        let coded = get_with(&proxy.list_url("long"), &asked).await;
        assert!(coded.is_hit());
        assert_eq!(coded.header("content-encoding"), Some(name));
        assert!(coded.body.len() < plain.body.len() / 2);
        assert_eq!(decode(&coded.body, coding, 1 << 24).unwrap().unwrap(), plain.body);
        assert_eq!(coded.header("etag"), plain.header("etag"), "one weak validator for all codings");
        let head = send(request("HEAD", &proxy.list_url("long"), &asked, "")).await;
        assert_eq!(head.header("content-length"), coded.header("content-length"));
        assert_eq!((head.body.len(), head.header("content-encoding")), (0, Some(name)));
        let revalidating = [("accept-encoding", name), ("if-none-match", coded.header("etag").unwrap())];
        let not_modified = get_with(&proxy.list_url("long"), &revalidating).await;
        assert_eq!(not_modified.status, StatusCode::NOT_MODIFIED);
        assert_eq!((not_modified.header("content-encoding"), not_modified.body.len()), (None, 0));
        assert_eq!(not_modified.headers.get_all("vary").iter().count(), 2);
    }
    assert_eq!(stand_in.list_requests("long"), 1);
}

#[tokio::test]
async fn a_coded_form_is_made_once_and_counted() {
    let (_stand_in, proxy) = both("").await;
    proxy.list("long").await;
    let (weight, free) = (proxy.metric("anteroom_cache_bytes").await, proxy.room.memory.free());
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let url = proxy.list_url("long");
            spawn(async move { get_with(&url, &[("accept-encoding", "gzip")]).await })
        })
        .collect();
    let mut coded = Vec::new();
    for reader in readers {
        let answer = reader.await.unwrap();
        // While too many are being made, a reader gets the plain body.
        if answer.header("content-encoding").is_some() {
            coded.push(answer.body);
        }
    }
    assert!(!coded.is_empty() && coded.windows(2).all(|pair| pair[0] == pair[1]));
    let grown = proxy.metric("anteroom_cache_bytes").await - weight;
    assert!((grown - coded[0].len() as f64).abs() < 1.0, "weighed: {grown}");
    let taken = free - proxy.room.memory.free();
    assert_eq!(taken, (coded[0].len() as u64).div_ceil(1024) * 1024, "counted once");
}

/// RFC 9110 section 12.5.3.
#[tokio::test]
async fn short_lists_are_plain_unless_the_client_takes_no_plain_ones() {
    let (_stand_in, proxy) = both("encoding.min_size = \"1MiB\"").await;
    let url = proxy.list_url("long");
    assert_eq!(get_with(&url, &[("accept-encoding", "gzip")]).await.header("content-encoding"), None);
    let asked = [("accept-encoding", "gzip, identity;q=0")];
    assert_eq!(get_with(&url, &asked).await.header("content-encoding"), Some("gzip"));
    let impossible = get_with(&url, &[("accept-encoding", "identity;q=0")]).await;
    assert_eq!((impossible.status, impossible.header("content-encoding")), (StatusCode::OK, None));
}

#[tokio::test]
async fn without_codings_nothing_varies_by_them() {
    let (_stand_in, proxy) = both("encoding.offer = []").await;
    let answer = get_with(&proxy.list_url("long"), &[("accept-encoding", "gzip, br, zstd")]).await;
    assert_eq!(answer.header("content-encoding"), None);
    assert_eq!(answer.headers.get_all("vary").iter().collect::<Vec<_>>(), ["Origin"]);
}

#[tokio::test]
async fn an_upstream_that_compresses_is_understood() {
    let settings = EncodingSettings { offer: vec![], min_size: 0, zstd_level: 3, br_level: 5, gzip_level: 6 };
    for (name, coding) in CODINGS {
        let coded = Bytes::from(encode(LIST.as_bytes(), coding, &settings).unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let upstream = Script::start(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut answer = json("").map(|_| Full::new(coded.clone()));
            answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
            answer.headers_mut().insert(header::ETAG, HeaderValue::from_static("\"strong\""));
            answer
        })
        .await;
        let proxy = Proxy::in_front_of(&upstream.url, "").await;
        for _ in 0..2 {
            let answer = proxy.list("a").await;
            assert_eq!((answer.header("content-encoding"), answer.text().as_str()), (None, LIST), "{name}");
            assert_eq!(answer.header("etag"), Some("W/\"strong\""), "that was of other bytes");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_not_shared() {
    for (coding, body, status) in [("gzip", "no gzip at all", 502), ("deflate", "whatever", 200)] {
        let upstream = Script::start(move |_| {
            let mut answer = json(body);
            answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            answer
        })
        .await;
        let proxy = Proxy::in_front_of(&upstream.url, "").await;
        for _ in 0..2 {
            let answer = proxy.list("a").await;
            assert_eq!((answer.status.as_u16(), answer.is_hit()), (status, false), "{coding}");
        }
    }
}

/// An upstream that echoes the origin and allows credentials, and whose lists tell whom they were made for.
async fn telling_origins_apart() -> (Script, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    let upstream = Script::start(move |request| {
        if request.method() == http::Method::POST {
            return json(r#"{"id":9,"conversation_id":1,"sender":{"id":42,"type":"contact"}}"#);
        }
        let mut answer = json(LIST);
        if let Some(origin) = request.headers().get(header::ORIGIN) {
            log.lock().unwrap().push(origin.to_str().unwrap().to_owned());
            answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        answer
    })
    .await;
    (upstream, seen)
}

#[tokio::test]
async fn an_upstream_that_tells_origins_apart_gets_an_answer_per_origin() {
    let (upstream, seen) = telling_origins_apart().await;
    let proxy = Proxy::in_front_of(&upstream.url, "").await;
    let url = proxy.list_url("a");
    let origins = ["https://a.test", "https://b.test"];
    for origin in origins {
        let first = get_with(&url, &[("origin", origin)]).await;
        let second = get_with(&url, &[("origin", origin)]).await;
        assert!(!first.is_hit() && second.is_hit(), "{}", second.cache_status());
        for answer in [first, second] {
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
            assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        }
    }
    let plain = get(&url).await;
    assert!(plain.is_hit() && plain.header("access-control-allow-origin").is_none());
    // The first reader's question went out with the upstream's own origin, and showed that they differ.
    assert_eq!(*seen.lock().unwrap(), [upstream.url.as_str(), origins[0], origins[1]]);
    // One write makes all of them out of date.
    post(&format!("{url}/1/messages"), "{}").await;
    for origin in origins {
        assert!(!get_with(&url, &[("origin", origin)]).await.is_hit());
    }
    assert!(get(&url).await.cache_status().contains("fwd=stale"));
}

/// RFC 9111 sections 3.2, 4.2.3 and 4.3.4.
#[tokio::test]
async fn a_304_of_the_upstream_refreshes_fields_and_age() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let upstream = Script::start(move |request| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        let held = request.headers().get(header::IF_NONE_MATCH).is_some_and(|etag| etag == "W/\"v1\"");
        let mut answer = if held { answer(304, "text/html", "") } else { json(LIST) };
        let fields = answer.headers_mut();
        fields.insert(header::ETAG, HeaderValue::from_static("W/\"v1\""));
        fields.insert(header::CACHE_CONTROL, format!("max-age={number}").parse().unwrap());
        fields.insert(header::AGE, HeaderValue::from(if held { 3 } else { 7 }));
        answer
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url, "cache.stale_while_revalidate = \"0s\"").await;
    let first = proxy.list("a").await;
    assert_eq!((first.header("age"), first.header("cache-control")), (Some("7"), Some("max-age=0")));
    let date = first.header("date").unwrap().to_owned();
    jump(Duration::from_secs(5)).await;
    let hit = proxy.list("a").await;
    assert_eq!(
        (hit.header("age"), hit.header("date")),
        (Some("12"), Some(date.as_str())),
        "the age of the upstream's own"
    );
    jump(Duration::from_secs(11)).await;
    let refreshed = proxy.list("a").await;
    assert_eq!(refreshed.cache_status(), "anteroom; fwd=stale; fwd-status=304; stored");
    assert_eq!((refreshed.status, refreshed.text().as_str()), (StatusCode::OK, LIST), "no unsolicited 304");
    assert_eq!((refreshed.header("age"), refreshed.header("cache-control")), (Some("3"), Some("max-age=1")));
    assert_eq!(refreshed.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

/// RFC 9211 section 2; RFC 9110 section 6.6.1.
#[tokio::test]
async fn what_belongs_to_one_request_is_never_replayed() {
    let upstream = Script::start(|_| {
        let mut answer = json(LIST);
        for (name, value) in
            [("set-cookie", "a=b"), ("x-request-id", "theirs"), ("x-runtime", "0.1"), ("cache-status", "cdn; hit")]
        {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url, "").await;
    for status in ["anteroom; fwd=uri-miss; fwd-status=200; stored", "anteroom; hit; ttl=15"] {
        let answer = proxy.list("a").await;
        assert_eq!(answer.cache_status(), status);
        assert_eq!(answer.headers.get_all("cache-status").iter().count(), 1);
        for name in ["set-cookie", "x-runtime"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        assert_ne!(answer.header("x-request-id"), Some("theirs"));
        assert!(answer.header("date").is_some());
    }
}
