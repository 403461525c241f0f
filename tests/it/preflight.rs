//! Preflights of the list are answered from what the upstream said to one like it (the Fetch standard; `api.md` 6.6).

use std::time::Duration;

use anteroom_stand_in::{Options, StandIn};
use http::StatusCode;

use crate::support::raw::Scripted;
use crate::support::{Answer, Proxy, jump, request, send};

async fn ask(proxy: &Proxy, origin: &str, fields: &str) -> Answer {
    let asked =
        [("origin", origin), ("access-control-request-method", "GET"), ("access-control-request-headers", fields)];
    send(request("OPTIONS", &proxy.list_url("visitor-a"), &asked, "")).await
}

#[tokio::test]
async fn the_upstream_is_asked_once_for_all_origins_and_contacts() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "").await;
    let first = ask(&proxy, "https://a.test", "content-type").await;
    assert_eq!(first.status, StatusCode::OK);
    assert!(!first.is_hit());
    let second = ask(&proxy, "https://b.test", "content-type").await;
    assert!(second.is_hit(), "{}", second.cache_status());
    for name in ["origin", "methods", "headers"] {
        let name = format!("access-control-allow-{name}");
        assert!(second.header(&name).is_some() && first.header(&name) == second.header(&name), "{name}");
    }
    assert_eq!(second.header("access-control-max-age"), Some("7200"));
    assert_eq!(second.body, "");
    assert_eq!(stand_in.requests().len(), 1);
    // Other fields are another question.
    assert!(!ask(&proxy, "https://a.test", "x-other").await.is_hit());
    assert_eq!(ask(&proxy, "https://a.test", "x-other").await.header("access-control-allow-headers"), Some("x-other"));
    assert_eq!(stand_in.requests().len(), 2);
}

#[tokio::test]
async fn what_was_said_to_one_origin_holds_for_it_alone_and_for_as_long_as_was_said() {
    let upstream = Scripted::answering(
        "HTTP/1.1 204 No Content\r\naccess-control-allow-origin: https://a.test\r\naccess-control-max-age: 9\r\n\r\n",
    )
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    assert!(!ask(&proxy, "https://a.test", "x").await.is_hit());
    assert!(ask(&proxy, "https://a.test", "x").await.is_hit());
    assert!(!ask(&proxy, "https://b.test", "x").await.is_hit());
    jump(Duration::from_secs(9)).await;
    assert!(!ask(&proxy, "https://a.test", "x").await.is_hit());
}

#[tokio::test]
async fn a_refusal_is_not_remembered() {
    let upstream = Scripted::answering("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    for _ in 0..2 {
        let answer = ask(&proxy, "https://a.test", "x").await;
        assert_eq!((answer.status, answer.is_hit()), (StatusCode::FORBIDDEN, false));
    }
}
