//! The main job: one list, fetched once, served to everyone who asks.

use std::time::Duration;

use anteroom_stand_in::StandIn;
use http::StatusCode;

use crate::support::script::{Script, json};
use crate::support::{Proxy, both, get, get_with, jump, request, send};

#[tokio::test]
async fn the_second_read_is_a_hit_and_the_upstream_was_asked_once() {
    let (stand_in, proxy) = both("").await;
    let first = proxy.list("visitor-a").await;
    assert_eq!(first.cache_status(), "anteroom; fwd=uri-miss; fwd-status=200; stored");
    let second = proxy.list("visitor-a").await;
    assert!(second.is_hit(), "{}", second.cache_status());
    assert_eq!(stand_in.list_requests("visitor-a"), 1);
    assert_eq!((&first.body, &second.body), (&stand_in.list_body("visitor-a"), &first.body));
    for name in ["etag", "content-type", "vary", "cache-control", "x-frame-options"] {
        assert_eq!(first.header(name), second.header(name), "{name}");
    }
    assert_eq!(second.header("age"), Some("0"));
    assert_eq!(second.header("via"), Some("1.1 anteroom"));
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    assert_eq!(second.header("x-runtime"), None, "the time of another request");
    assert!(
        (proxy.metric("anteroom_requests_total{method=\"GET\",outcome=\"hit\",status_class=\"2xx\"}").await - 1.0)
            .abs()
            < 0.1
    );
}

#[tokio::test]
async fn head_and_get_share_one_answer() {
    let (stand_in, proxy) = both("").await;
    let head = send(request("HEAD", &proxy.list_url("visitor-a"), &[], "")).await;
    assert_eq!(head.status, StatusCode::OK);
    let expected = stand_in.list_body("visitor-a").len().to_string();
    assert_eq!((head.header("content-length"), head.body.len()), (Some(expected.as_str()), 0));
    assert!(proxy.list("visitor-a").await.is_hit());
    assert!(send(request("HEAD", &proxy.list_url("visitor-a"), &[], "")).await.is_hit());
    assert_eq!(stand_in.list_requests("visitor-a"), 1);
}

#[tokio::test]
async fn contacts_and_queries_do_not_share_but_spellings_do() {
    let (stand_in, proxy) = both("").await;
    stand_in.seed("phone:1", anteroom_stand_in::Shape { conversations: 1, messages: 1, bytes: 10 });
    assert_ne!(proxy.list("visitor-a").await.body, proxy.list("visitor-b").await.body);
    assert_eq!(proxy.list("phone:1").await.status, StatusCode::OK);
    assert!(proxy.list("phone%3A1").await.is_hit());
    assert!(proxy.list("ph%6fne%3a1").await.is_hit());
    let url = proxy.list_url("phone:1");
    assert!(!get(&format!("{url}?page=2")).await.is_hit());
    assert!(get(&format!("{url}?page=2")).await.is_hit());
    assert!(!get(&format!("{url}?page=3")).await.is_hit());
}

#[tokio::test]
async fn without_the_query_in_the_key_it_neither_parts_answers_nor_is_sent() {
    let (stand_in, proxy) = both("cache.query = \"ignore\"").await;
    let url = proxy.list_url("visitor-a");
    assert!(!get(&format!("{url}?page=2")).await.is_hit());
    assert!(get(&url).await.is_hit());
    let asked = stand_in.requests();
    assert!(!asked.iter().find(|seen| seen.is_list).unwrap().target.contains('?'));
}

#[tokio::test]
async fn an_answer_expires_and_its_age_counts_from_the_start_of_its_fetch() {
    let (stand_in, proxy) = both("cache.stale_while_revalidate = \"0s\"").await;
    proxy.list("visitor-a").await;
    jump(Duration::from_secs(14)).await;
    let aged = proxy.list("visitor-a").await;
    assert!(aged.is_hit());
    assert_eq!(aged.header("age"), Some("14"));
    jump(Duration::from_secs(1)).await;
    let again = proxy.list("visitor-a").await;
    assert!(again.cache_status().starts_with("anteroom; fwd=stale"), "{}", again.cache_status());
    assert_eq!(stand_in.list_requests("visitor-a"), 2);
}

#[tokio::test]
async fn a_browser_and_a_plain_reader_share_one_answer() {
    let (stand_in, proxy) = both("").await;
    let plain = proxy.list("visitor-a").await;
    let browser = get_with(&proxy.list_url("visitor-a"), &[("origin", "https://shop.test")]).await;
    assert!(browser.is_hit());
    assert_eq!(plain.header("access-control-allow-origin"), None);
    assert_eq!(browser.header("access-control-allow-origin"), Some("*"));
    assert_eq!(browser.header("access-control-max-age"), Some("7200"));
    assert_eq!((browser.header("vary"), plain.header("vary")), (Some("Origin"), Some("Origin")));
    // As the upstream itself would have answered.
    let direct =
        get_with(&format!("{}{}", stand_in.url(), StandIn::list_path("visitor-a")), &[("origin", "https://shop.test")])
            .await;
    for (name, value) in &direct.headers {
        // What pages may read besides is the proxy's own.
        if !["x-request-id", "x-runtime", "access-control-expose-headers"].contains(&name.as_str()) {
            assert_eq!(browser.headers.get(name), Some(value), "{name}");
        }
    }
}

#[tokio::test]
async fn a_client_that_has_the_list_already_gets_a_304() {
    let (stand_in, proxy) = both("").await;
    let etag = proxy.list("visitor-a").await.header("etag").unwrap().to_owned();
    for asked in [etag.clone(), etag.trim_start_matches("W/").to_owned(), format!("\"x\", {etag}"), "*".to_owned()] {
        let answer = get_with(&proxy.list_url("visitor-a"), &[("if-none-match", &asked)]).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::NOT_MODIFIED, 0), "{asked}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()));
    }
    let other = get_with(&proxy.list_url("visitor-a"), &[("if-none-match", "\"other\"")]).await;
    assert_eq!(other.status, StatusCode::OK);
    let ranged = get_with(&proxy.list_url("visitor-a"), &[("range", "bytes=0-1")]).await;
    assert_eq!((ranged.status, ranged.body), (StatusCode::OK, stand_in.list_body("visitor-a")));
}

/// The pairs of what the API cuts off in the middle (RFC 8259 section 8.2).
#[tokio::test]
async fn a_list_with_half_of_a_surrogate_pair_is_a_list() {
    const CUT: &str = r#"[{"id":1,"status":"open","contact":{"id":7,"name":"\ud83d"},"messages":[]}]"#;
    let upstream = Script::start(|_| json(CUT)).await;
    let proxy = Proxy::in_front_of(&upstream.url, "").await;
    let first = proxy.list("visitor-a").await;
    assert_eq!((first.status, first.text()), (StatusCode::OK, CUT.to_owned()));
    let second = proxy.list("visitor-a").await;
    assert!(second.is_hit(), "{}", second.cache_status());
    assert_eq!(second.body, first.body);
}
