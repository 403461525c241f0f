//! Preflights of the list are answered from what the upstream said to one like it (the Fetch standard; `api.md` 6.6).

use std::time::Duration;

use anteroom_stand_in::{Options, StandIn};
use http::StatusCode;

use crate::support::raw::{Scripted, exchange};
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

const LIST: &str = "/public/api/v1/inboxes/in/contacts/co/conversations";

fn preflight(more: &str) -> String {
    format!(
        "OPTIONS {LIST}?a=b HTTP/1.1\r\nhost: front.test\r\norigin: https://a.test\r\n\
         access-control-request-method: GET\r\naccess-control-request-headers: x\r\n{more}\r\n"
    )
}

/// What it says beside its question could change what all others get for two hours.
#[tokio::test]
async fn a_shared_preflight_has_nothing_of_whoever_asked_first() {
    let upstream = Scripted::answering(
        "HTTP/1.1 204 No Content\r\naccess-control-allow-origin: *\r\naccess-control-max-age: 9\r\n\r\n",
    )
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let more = "user-agent: u\r\naccept-language: de\r\nx-forwarded-host: forged.test\r\nx-original-url: /admin\r\n\
                x-rewrite-url: /admin\r\nforwarded: for=192.0.2.7\r\nreferer: r\r\nx-custom: 1\r\nrange: bytes=0-1\r\n\
                cache-control: no-cache\r\nx-forwarded-for: 192.0.2.7\r\n";
    let first = exchange(&proxy.url, preflight(more)).await;
    assert_eq!(first.field("access-control-allow-origin"), Some("*"));
    let seen = upstream.last_request();
    assert_eq!(seen.start_line(), format!("OPTIONS {LIST} HTTP/1.1"));
    let mut names: Vec<_> =
        seen.head.lines().skip(1).map(|line| line.split(':').next().unwrap().to_lowercase()).collect();
    names.sort();
    let allowed = [
        "accept",
        "accept-encoding",
        "access-control-request-headers",
        "access-control-request-method",
        "host",
        "origin",
        "via",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-request-id",
    ];
    assert_eq!(names, allowed);
    assert_eq!(seen.field("origin"), Some("https://a.test"));
    assert!(exchange(&proxy.url, preflight("")).await.field("cache-status").unwrap().contains("hit"));
}

/// Browsers send none of these. Whoever does is answered for himself, and teaches the others nothing.
#[tokio::test]
async fn what_is_more_than_a_preflight_passes_and_is_not_shared() {
    let upstream = Scripted::answering(
        "HTTP/1.1 204 No Content\r\naccess-control-allow-origin: *\r\naccess-control-max-age: 9\r\n\r\n",
    )
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    for more in [
        "cookie: a=b\r\n",
        "authorization: Bearer x\r\n",
        "api_access_token: x\r\n",
        "origin: https://b.test\r\n",
        "access-control-request-method: PUT\r\n",
        "access-control-request-headers: y\r\n",
        "x-http-method-override: POST\r\n",
        "content-length: 2\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        let body = match more {
            "content-length: 2\r\n" => "hi",
            "transfer-encoding: chunked\r\n" => "0\r\n\r\n",
            _ => "",
        };
        for _ in 0..2 {
            let before = upstream.requests().len();
            let answer = exchange(&proxy.url, format!("{}{body}", preflight(more))).await;
            assert!(!answer.field("cache-status").unwrap().contains("hit"), "{more}");
            assert!(upstream.requests().len() > before, "{more}");
        }
        let (name, value) = more.trim().split_once(": ").unwrap();
        let seen = upstream.requests();
        assert!(seen.iter().any(|seen| seen.fields(name).contains(&value)), "{more} is sent on");
    }
    assert!(!exchange(&proxy.url, preflight("")).await.field("cache-status").unwrap().contains("hit"));
    assert!(exchange(&proxy.url, preflight("")).await.field("cache-status").unwrap().contains("hit"));
}

#[tokio::test]
async fn a_preflight_that_may_not_be_kept_or_varies_by_more_than_it_was_told_is_not_shared() {
    for (fields, kept, for_all) in [
        ("", true, true),
        ("cache-control: max-age=9\r\n", true, true),
        ("vary: Origin, Access-Control-Request-Method, access-control-request-headers\r\n", true, false),
        ("vary: Origin\r\nvary: User-Agent\r\n", false, false),
        ("vary: *\r\n", false, false),
        ("vary: Cookie\r\n", false, false),
        ("cache-control: max-age=9, No-Store\r\n", false, false),
        ("cache-control: no-cache=\"x\"\r\n", false, false),
        ("cache-control: private\r\n", false, false),
    ] {
        let upstream = Scripted::answering(format!(
            "HTTP/1.1 204 No Content\r\naccess-control-allow-origin: *\r\naccess-control-max-age: 9\r\n{fields}\r\n"
        ))
        .await;
        let proxy = Proxy::in_front_of(&upstream.url(), "").await;
        assert!(!ask(&proxy, "https://a.test", "x").await.is_hit(), "{fields}");
        assert_eq!(ask(&proxy, "https://a.test", "x").await.is_hit(), kept, "{fields}");
        assert_eq!(ask(&proxy, "https://b.test", "x").await.is_hit(), for_all, "{fields}");
    }
}
