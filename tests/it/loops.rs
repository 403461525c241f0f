//! An upstream that leads back here: told at once, and only to what really comes back (RFC 9110 section 7.6.3).

use http::StatusCode;

use crate::support::raw::Scripted;
use crate::support::relay::Relay;
use crate::support::{Proxy, both, get, get_with, post, request, send};

/// Well below every limit on time, so that nothing of these has ended by one.
async fn is_told_of_the_loop(proxy: &Proxy) {
    let asking = async {
        for (method, path) in [
            ("GET", "/public/api/v1/inboxes/i/contacts/c/conversations"),
            ("HEAD", "/public/api/v1/inboxes/i/contacts/c/conversations"),
            ("GET", "/public/api/v1/inboxes/i/contacts/c"),
            ("POST", "/public/api/v1/inboxes/i/contacts/c/conversations"),
            ("DELETE", "/anything"),
        ] {
            let answer = send(request(method, &format!("{}{path}", proxy.url), &[], "")).await;
            assert_eq!(answer.status, StatusCode::LOOP_DETECTED, "{method} {path}");
        }
        let list = get(&format!("{}/public/api/v1/inboxes/i/contacts/c/conversations", proxy.url)).await;
        assert!(list.text().contains("upstream.url leads back to this proxy"), "{}", list.text());
    };
    let limit = std::time::Duration::from_secs(10);
    assert!(tokio::time::timeout(limit, asking).await.is_ok(), "it waits for itself");
}

#[tokio::test]
async fn with_itself_as_upstream_every_request_is_answered_508_at_once() {
    let relay = Relay::start().await;
    let proxy = Proxy::in_front_of(&relay.url, "").await;
    relay.leads_to(&proxy.url);
    is_told_of_the_loop(&proxy).await;
    // Each went round once.
    assert!(proxy.metric("anteroom_upstream_requests_total{result=\"5xx\"}").await > 5.5);
    let refused = "anteroom_requests_total{method=\"POST\",outcome=\"refused\",status_class=\"5xx\"}";
    assert!((proxy.metric(refused).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_loop_over_two_proxies_is_told_at_once_too() {
    let relay = Relay::start().await;
    let second = Proxy::in_front_of(&relay.url, "").await;
    let first = Proxy::in_front_of(&second.url, "").await;
    relay.leads_to(&first.url);
    is_told_of_the_loop(&first).await;
    is_told_of_the_loop(&second).await;
}

#[tokio::test]
async fn two_proxies_in_a_row_are_no_loop() {
    let (stand_in, near) = both("").await;
    let far = Proxy::in_front_of(&near.url, "").await;
    assert_eq!(far.list("visitor-a").await.body, stand_in.list_body("visitor-a"));
    assert!(far.list("visitor-a").await.is_hit());
    let list = far.list_url("visitor-a");
    assert_eq!(post(&format!("{list}/131/messages"), r#"{"content":"x"}"#).await.status, StatusCode::OK);
    assert_eq!(far.list("visitor-a").await.body, stand_in.list_body("visitor-a"));
}

/// The upstream is told which Anteroom; clients are not, so that none of them can make a fetch look like a loop.
#[tokio::test]
async fn via_names_the_instance_to_the_upstream_alone() {
    let upstream = Scripted::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]".to_owned()).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    for url in [format!("{}/other", proxy.url), proxy.list_url("visitor-a")] {
        let answer = get_with(&url, &[("via", "1.0 fred, 1.1 anteroom (0123456789abcdef)")]).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("via"), Some("1.1 anteroom"));
    }
    let [passed, fetched] = &upstream.requests()[..] else { panic!("two requests") };
    let [fred, own] = passed.fields("via")[..] else { panic!("{}", passed.head) };
    assert_eq!(fred, "1.0 fred, 1.1 anteroom (0123456789abcdef)");
    assert!(own.starts_with("1.1 anteroom (") && own.len() == "1.1 anteroom (0123456789abcdef)".len(), "{own}");
    assert_eq!(fetched.fields("via"), ["1.1 anteroom (0123456789abcdef)", own]);
}
