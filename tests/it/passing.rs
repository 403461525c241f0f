//! Whatever is not the list passes through: what the client sent is what the upstream gets, and the other way round.

use std::time::Duration;

use anteroom_stand_in::{Fault, Matcher, Options, StandIn};
use http::StatusCode;

use crate::support::raw::{Scripted, Talk, exchange};
use crate::support::{Proxy, get, get_with, jump, request, send, spawn};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn both(answer: &str) -> (Scripted, Proxy) {
    let upstream = Scripted::answering(answer).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    (upstream, proxy)
}

#[tokio::test]
async fn any_method_and_any_target_pass_byte_for_byte() {
    let (upstream, proxy) = both(OK).await;
    let mut client = Talk::to(&proxy.url).await;
    let targets = [
        "/",
        "/?",
        "/?a?b=?",
        "//",
        "/a//b/../c/./%2F%zz%?x=%20&y",
        "/;a=b/:c@d",
        "/{}|\\^[]\"~'!$&()*+,=",
        "/é/ü?ß",
        "/public/api/v1/inboxes/in/contacts/a.b/conversations",
        "/public/api/v1/inboxes/in/contacts/co/conversations/7/messages?before=1",
    ];
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE", "M-SEARCH", "x!#$%&'*+-.^_`|~9"] {
        for target in targets {
            client.send(format!("{method} {target} HTTP/1.1\r\nhost: front.test\r\n\r\n")).await;
            let answer = client.message().await.unwrap();
            assert_eq!((answer.status(), answer.text()), (200, "ok"), "{method} {target}");
            // A write may be followed by a look-up of the proxy's own.
            let line = format!("{method} {target} HTTP/1.1");
            assert!(upstream.requests().iter().any(|seen| seen.start_line() == line), "{line}");
        }
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn targets_in_asterisk_and_absolute_form_are_understood() {
    let (upstream, proxy) = both(OK).await;
    for (sent, passed) in [
        ("OPTIONS *", "OPTIONS *"),
        ("GET http://other.test/a?b", "GET /a?b"),
        ("GET http://other.test", "GET /"),
        ("GET http://other.test?b", "GET /?b"),
        ("GET HTTPS://other.test:8443/%2e/", "GET /%2e/"),
    ] {
        let answer = exchange(&proxy.url, format!("{sent} HTTP/1.1\r\nhost: front.test\r\n\r\n")).await;
        assert_eq!(answer.status(), 200, "{sent}: {}", answer.head);
        assert_eq!(upstream.last_request().start_line(), format!("{passed} HTTP/1.1"), "{sent}");
    }
}

#[tokio::test]
async fn a_path_prefix_of_the_upstream_stands_before_every_path() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&format!("{}/chat", upstream.url()), "").await;
    for (sent, passed) in
        [("GET /a%2Fb?c", "GET /chat/a%2Fb?c"), ("POST /", "POST /chat/"), ("GET //a", "GET /chat//a")]
    {
        exchange(&proxy.url, format!("{sent} HTTP/1.1\r\nhost: front.test\r\n\r\n")).await;
        assert_eq!(upstream.last_request().start_line(), format!("{passed} HTTP/1.1"));
    }
    // What the proxy asks for itself has it too.
    get(&proxy.list_url("visitor-a")).await;
    assert!(upstream.requests().iter().any(|seen| seen.head.starts_with("GET /chat/public/api/v1/inboxes/")));
}

#[tokio::test]
async fn fields_for_one_connection_stay_on_it_both_ways() {
    let (upstream, proxy) = both(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive, X-Up-Private\r\nx-up-private: 1\r\n\
         keep-alive: timeout=5\r\nproxy-authenticate: Basic\r\nupgrade: h2c\r\nx-up: a\r\nx-up: b\r\n\r\nok",
    )
    .await;
    let answer = exchange(
        &proxy.url,
        "GET /x HTTP/1.1\r\nhost: front.test\r\nconnection: Upgrade, HTTP2-Settings, X-Private\r\n\
         connection: content-length, host\r\nx-private: 1\r\nhttp2-settings: AAA\r\nupgrade: h2c\r\nte: trailers\r\n\
         keep-alive: 300\r\nproxy-connection: keep-alive\r\nproxy-authorization: Basic eDp5\r\nx-kept: \u{fc}\r\n\r\n",
    )
    .await;
    let seen = upstream.last_request();
    for gone in [
        "connection",
        "x-private",
        "http2-settings",
        "upgrade",
        "te",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
    ] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
    assert_eq!(seen.field("x-kept"), Some("\u{fc}"));
    for gone in ["connection", "x-up-private", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert_eq!(answer.field(gone), None, "{gone}");
    }
    assert_eq!(answer.fields("x-up"), ["a", "b"]);
}

#[tokio::test]
async fn the_upstream_learns_whom_a_request_is_for_and_the_client_who_answered() {
    let (upstream, proxy) = both(OK).await;
    let answer = exchange(
        &proxy.url,
        "GET /x HTTP/1.1\r\nHost: front.test:8080\r\nx-forwarded-for: 192.0.2.7\r\nx-forwarded-for: 10.0.0.1\r\n\
         forwarded: for=192.0.2.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: forged.test\r\n\
         via: 1.0 fred\r\nx-request-id: mine-1\r\n\r\n",
    )
    .await;
    let seen = upstream.last_request();
    assert_eq!(seen.field("host"), Some(upstream.address.to_string().as_str()));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-host"), Some("front.test:8080"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    let forwarded = "for=127.0.0.1;host=\"front.test:8080\";proto=http";
    assert_eq!(seen.field("forwarded"), Some(forwarded));
    let [fred, own] = seen.fields("via")[..] else { panic!("{}", seen.head) };
    assert!(fred == "1.0 fred" && own.starts_with("1.1 anteroom ("), "{fred}, {own}");
    assert_eq!(seen.field("x-request-id"), Some("mine-1"));
    assert_eq!(answer.field("via"), Some("1.1 anteroom"));
    assert_eq!(answer.field("x-request-id"), Some("mine-1"));
    assert_eq!(answer.field("cache-status"), Some("anteroom; fwd=bypass; fwd-status=200"));
}

#[tokio::test]
async fn bodies_pass_both_ways_with_a_length_and_in_chunks() {
    let (upstream, proxy) =
        both("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n4\r\ndefg\r\n0\r\nx-sum: 7\r\n\r\n")
            .await;
    let sized = "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello";
    let answer = exchange(&proxy.url, sized).await;
    assert_eq!((answer.text(), answer.whole), ("abcdefg", true));
    let seen = upstream.last_request();
    assert_eq!(
        (seen.text(), seen.field("content-length"), seen.field("transfer-encoding")),
        ("hello", Some("5"), None)
    );
    let chunked = "PATCH /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                   2\r\nhe\r\n3\r\nllo\r\n0\r\nx-sum: 5\r\n\r\n";
    exchange(&proxy.url, chunked).await;
    let seen = upstream.last_request();
    assert_eq!((seen.text(), seen.whole, seen.field("content-length")), ("hello", true, None));
    for empty in ["content-length: 0\r\n\r\n", "transfer-encoding: chunked\r\n\r\n0\r\n\r\n", "\r\n"] {
        exchange(&proxy.url, format!("POST /x HTTP/1.1\r\nhost: h\r\n{empty}")).await;
        assert_eq!(upstream.last_request().text(), "");
    }
    // A body of a GET passes too, on routes that are not ours.
    exchange(&proxy.url, sized.replace("POST", "GET")).await;
    assert_eq!(upstream.last_request().text(), "hello");
}

/// RFC 9112 section 6.3: the chunks decide, and the length must not be sent on.
#[tokio::test]
async fn a_length_beside_chunks_counts_for_nothing() {
    let (upstream, proxy) =
        both("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n7\r\nabcdefg\r\n0\r\n\r\n")
            .await;
    let answer = exchange(
        &proxy.url,
        "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    let seen = upstream.last_request();
    assert_eq!((seen.text(), seen.field("content-length")), ("hello", None));
    assert_eq!((answer.text(), answer.field("content-length")), ("abcdefg", None));
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_and_the_upstream_is_not_asked_to() {
    let (upstream, proxy) = both(OK).await;
    let mut client = Talk::to(&proxy.url).await;
    client.send("POST /x HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    assert_eq!(client.message().await.unwrap().status(), 100);
    client.send("hello").await;
    assert_eq!(client.message().await.unwrap().status(), 200);
    assert_eq!((upstream.last_request().field("expect"), upstream.last_request().text()), (None, "hello"));
}

#[tokio::test]
async fn a_request_has_exactly_one_host() {
    let (upstream, proxy) = both(OK).await;
    for fields in ["origin: https://shop.test\r\n", "origin: https://shop.test\r\nhost: a\r\nhost: a\r\n"] {
        let answer = exchange(&proxy.url, format!("GET /x HTTP/1.1\r\n{fields}\r\n")).await;
        assert_eq!(answer.status(), 400);
        assert_problem(&answer, 400);
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    }
    let without_origin = exchange(&proxy.url, "GET /x HTTP/1.1\r\n\r\n").await;
    assert_eq!(without_origin.field("access-control-allow-origin"), None);
    assert!(upstream.requests().is_empty());
}

fn assert_problem(answer: &crate::support::raw::Message, status: u16) {
    assert_eq!(answer.field("content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["status"], status);
    for name in ["type", "title", "detail"] {
        assert!(problem[name].as_str().is_some_and(|text| !text.is_empty()), "{name} of {problem}");
    }
    assert!(answer.field("x-request-id").is_some() && answer.field("cache-status").is_some());
}

#[tokio::test]
async fn connect_and_trace_are_not_served() {
    let (upstream, proxy) = both(OK).await;
    for line in ["CONNECT other.test:443", "TRACE /x", "TRACE /public/api/v1/inboxes/i/contacts/c/conversations"] {
        let answer = exchange(&proxy.url, format!("{line} HTTP/1.1\r\nhost: h\r\norigin: o\r\n\r\n")).await;
        assert_problem(&answer, 405);
        assert!(answer.field("allow").unwrap().contains("GET, HEAD, POST"));
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn an_unreachable_upstream_is_a_502_that_a_browser_can_read() {
    let gone = Scripted::answering(OK).await;
    let url = gone.url();
    drop(gone);
    let proxy = Proxy::in_front_of(&url, "").await;
    for path in ["/x", "/public/api/v1/inboxes/i/contacts/c/conversations"] {
        let answer =
            exchange(&proxy.url, format!("GET {path} HTTP/1.1\r\nhost: h\r\norigin: https://shop.test\r\n\r\n")).await;
        assert_problem(&answer, 502);
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    }
    let written = exchange(&proxy.url, "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi").await;
    assert_problem(&written, 502);
    assert!(proxy.metric("anteroom_upstream_requests_total{result=\"connect\"}").await > 2.9);
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_a_504_after_the_limit() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    stand_in.fault_on(Fault::Hang, Matcher::any());
    let proxy = Proxy::start(&stand_in, "").await;
    for (count, method) in ["GET", "POST"].into_iter().enumerate() {
        let asked = spawn(send(request(method, &proxy.contact_url("visitor-a"), &[], "")));
        stand_in.wait_for("the request", |seen| seen.len() > count).await;
        // The request is on its way; nothing is to come back but the limit's end.
        jump(Duration::from_secs(19)).await;
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(!asked.is_finished(), "before the limit");
        jump(Duration::from_secs(1)).await;
        let answer = asked.await.unwrap();
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
}

#[tokio::test]
async fn broken_and_senseless_answers_are_a_502() {
    for (answer, label) in [
        ("", "reset"),
        ("HTTP/1.1 200", "reset"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", "malformed"),
        ("HTTP/1.1 999999 What\r\n\r\n", "malformed"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", "malformed"),
        ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n", "malformed"),
    ] {
        let upstream = Scripted::start(move |_, mut talk| async move {
            talk.message().await;
            talk.send(answer).await;
        })
        .await;
        let proxy = Proxy::in_front_of(&upstream.url(), "").await;
        let got = exchange(&proxy.url, "GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await;
        assert_problem(&got, 502);
        assert!(got.field("cache-status").unwrap().ends_with(&format!("detail={label}")), "{answer}: {}", got.head);
    }
}

#[tokio::test]
async fn a_name_look_up_or_handshake_that_hangs_ends_with_the_connect_limit() {
    // It takes the connection and never says a word of TLS.
    let (told, mut connected) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut talk| {
        let told = told.clone();
        async move {
            talk.exactly(1).await;
            let _ = told.send(());
            talk.rest().await;
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&format!("https://{}", upstream.address), "").await;
    let url = proxy.url.clone();
    let asked = spawn(async move { get(&format!("{url}/x")).await });
    connected.recv().await.unwrap();
    jump(Duration::from_secs(3)).await;
    let answer = asked.await.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.cache_status().ends_with("detail=connect"), "{}", answer.cache_status());
}

#[tokio::test]
async fn an_answer_that_stalls_is_cut_and_so_is_its_connection() {
    let (told, mut sent) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut talk| {
        let told = told.clone();
        async move {
            talk.message().await;
            talk.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
            // The proxy's end of the connection ends.
            assert!(talk.rest().await.is_empty());
            let _ = told.send(());
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let mut client = Talk::to(&proxy.url).await;
    client.send("GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await;
    client.head().await.unwrap();
    assert_eq!(client.exactly(4).await.unwrap(), b"half");
    // Its reader has begun to wait.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    jump(Duration::from_secs(60)).await;
    assert!(client.rest().await.is_empty());
    sent.recv().await.unwrap();
    // The upstream's fault, and no limit of the client's.
    proxy.wait_for_metric("anteroom_upstream_errors_total{class=\"http_response_incomplete\"}", 1.0).await;
}

#[tokio::test]
async fn an_upload_that_stalls_is_a_408_and_the_upstream_sees_it_broken() {
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut talk| {
        let told = told.clone();
        async move {
            let _ = talk.head().await;
            let _ = told.send(None);
            let _ = told.send(Some(talk.rest().await));
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let mut client = Talk::to(&proxy.url).await;
    client.send("POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert!(seen.recv().await.unwrap().is_none());
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    jump(Duration::from_secs(60)).await;
    let answer = client.message().await.unwrap();
    assert_problem(&answer, 408);
    assert_eq!(seen.recv().await.unwrap(), Some(b"half".to_vec()));
    proxy.wait_for_metric("anteroom_limit_reached_total{limit=\"upstream.stall_timeout\"}", 1.0).await;
}

#[tokio::test]
async fn an_upload_with_broken_framing_is_a_400_and_never_whole_upstream() {
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut talk| {
        let told = told.clone();
        async move {
            if let Some(request) = talk.message().await {
                let _ = told.send(request.whole);
            }
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let broken = "POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n";
    assert_problem(&exchange(&proxy.url, broken).await, 400);
    assert_eq!(seen.recv().await, Some(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_safe_method_is_tried_once_more_if_a_pooled_connection_was_dead() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "").await;
    let url = proxy.contact_url("visitor-a");
    for method in ["GET", "HEAD", "OPTIONS"] {
        // Whether the end is noticed before, while or after the request is sent is the kernel's choice.
        for _ in 0..100 {
            assert_eq!(get(&url).await.status, StatusCode::OK);
            stand_in.close_idle_connections();
            let answer =
                send(request(method, &url, &[("origin", "o"), ("access-control-request-method", "GET")], "")).await;
            assert_eq!(answer.status, StatusCode::OK, "{method}: {}", answer.cache_status());
        }
    }
}

/// A connection answers one request well; what becomes of its second is the test's, and of later connections too.
async fn first_well_then(then: &'static str) -> (Scripted, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (told, seen) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Scripted::start(move |number, mut talk| {
        let told = told.clone();
        async move {
            if number == 0 {
                talk.message().await;
                talk.send(OK).await;
            }
            if let Some(request) = talk.message().await {
                let _ = told.send(request.start_line().to_owned());
                talk.send(then).await;
            }
        }
    })
    .await;
    (upstream, seen)
}

#[tokio::test]
async fn a_request_is_never_sent_a_third_time() {
    let (upstream, mut seen) = first_well_then("").await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    assert_eq!(get(&format!("{}/a", proxy.url)).await.status, StatusCode::OK);
    assert_eq!(get(&format!("{}/b", proxy.url)).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(
        (seen.recv().await.unwrap(), seen.recv().await.unwrap()),
        ("GET /b HTTP/1.1".into(), "GET /b HTTP/1.1".into())
    );
    // On a fresh connection there is no second try.
    assert_eq!(get(&format!("{}/c", proxy.url)).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!((seen.recv().await.unwrap(), seen.try_recv().ok()), ("GET /c HTTP/1.1".into(), None));
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn nothing_is_tried_again_once_a_byte_came_or_if_it_may_change_something() {
    for (method, body, then) in
        [("POST", "", ""), ("POST", "hi", ""), ("PURGE", "", ""), ("GET", "hi", ""), ("GET", "", "HTTP/1.1 2")]
    {
        let (upstream, mut seen) = first_well_then(then).await;
        let proxy = Proxy::in_front_of(&upstream.url(), "").await;
        assert_eq!(get(&format!("{}/a", proxy.url)).await.status, StatusCode::OK);
        let answer = send(request(method, &format!("{}/b", proxy.url), &[], body)).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{method} {body}");
        assert_eq!((seen.recv().await.unwrap(), seen.try_recv().ok()), (format!("{method} /b HTTP/1.1"), None));
        assert_eq!(upstream.connections(), 1, "{method} {body}");
    }
}

#[tokio::test]
async fn clients_of_http_1_0_are_served() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (upstream, proxy) = both(chunked).await;
    let mut client = Talk::to(&proxy.url).await;
    client.send("GET /x HTTP/1.0\r\n\r\n").await;
    let answer = client.message().await.unwrap();
    assert_eq!((answer.status(), answer.text(), answer.field("transfer-encoding")), (200, "abc", None));
    assert!(client.rest().await.is_empty(), "the end of the connection is the end of the answer");
    assert_eq!(upstream.last_request().start_line(), "GET /x HTTP/1.1");
    assert!(upstream.last_request().field("via").is_some_and(|via| via.starts_with("1.0 anteroom (")));
    assert_eq!(upstream.last_request().field("x-forwarded-host"), None);
}

#[tokio::test]
async fn informational_answers_stay_here() {
    let (_upstream, proxy) =
        both(&format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n{OK}")).await;
    let answer = exchange(&proxy.url, "GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!((answer.status(), answer.text(), answer.field("link")), (200, "ok", None));
}

#[tokio::test]
async fn answers_without_a_body_pass_as_they_are() {
    for (method, answer, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\netag: \"a\"\r\n\r\n", Some("12345")),
        ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\netag: \"a\"\r\n\r\n", None),
        ("GET", "HTTP/1.1 204 No Content\r\netag: \"a\"\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n", None),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\netag: \"a\"\r\n\r\n", Some("0")),
    ] {
        let (upstream, proxy) = both(answer).await;
        let mut client = Talk::to(&proxy.url).await;
        // Twice on one connection: the first has ended where it should.
        for _ in 0..2 {
            client.send(format!("{method} /x HTTP/1.1\r\nhost: h\r\n\r\n")).await;
            let got = client.message_to(method).await.unwrap();
            assert_eq!(got.start_line(), answer.lines().next().unwrap());
            assert_eq!((got.field("content-length"), got.field("etag")), (length, Some("\"a\"")), "{answer}");
            assert_eq!(got.field("transfer-encoding"), None);
        }
        assert_eq!(upstream.requests().len(), 2);
    }
}

/// A 304 may say how long the 200 would be (RFC 9110 section 8.6).
#[tokio::test]
async fn a_304_with_a_length_does_no_harm() {
    let (_upstream, proxy) = both("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: \"a\"\r\n\r\n").await;
    let answer = exchange(&proxy.url, "GET /x HTTP/1.1\r\nhost: h\r\nif-none-match: \"a\"\r\n\r\n").await;
    assert_eq!(answer.status(), 304);
}

#[tokio::test]
async fn conditions_and_ranges_pass_untouched() {
    let (upstream, proxy) = both(OK).await;
    let fields = [
        ("if-none-match", "W/\"a\", \"b\""),
        ("if-modified-since", "Sat, 29 Oct 1994 19:43:31 GMT"),
        ("if-match", "\"c\""),
        ("if-range", "\"d\""),
        ("range", "bytes=0-1"),
        ("accept-encoding", "br;q=0.5, gzip"),
        ("cache-control", "no-cache"),
        ("cookie", "a=b"),
        ("authorization", "Bearer x"),
    ];
    get_with(&format!("{}/x", proxy.url), &fields).await;
    for (name, value) in fields {
        assert_eq!(upstream.last_request().field(name), Some(value), "{name}");
    }
}

/// A certificate for 127.0.0.1 by an authority of its own, and an https upstream that has it.
async fn https_upstream() -> (tempfile::NamedTempFile, std::net::SocketAddr) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let ca_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca_file.path(), authority.pem()).unwrap();

    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut read = [0; 4096];
                while stream.read(&mut read).await.is_ok_and(|read| read > 0) {
                    stream.write_all(OK.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (ca_file, address)
}

#[tokio::test]
async fn an_https_upstream_is_asked_if_its_certificate_is_trusted() {
    let (ca_file, address) = https_upstream().await;
    let upstream = format!("https://{address}");
    let trusting = format!("upstream.ca_file = {:?}", ca_file.path());
    let proxy = Proxy::in_front_of(&upstream, &trusting).await;
    for _ in 0..2 {
        assert_eq!(get(&format!("{}/x", proxy.url)).await.text(), "ok");
    }
    let wary = Proxy::in_front_of(&upstream, "").await;
    let answer = get(&format!("{}/x", wary.url)).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.cache_status().ends_with("detail=connect"));
}

#[tokio::test]
async fn what_is_not_http_is_counted_and_hurts_nobody_else() {
    let (_upstream, proxy) = both(OK).await;
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\nhost h\r\n\r\n".to_owned(), Some(400)),
        // The head is too large before its target has come to an end.
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)), Some(431)),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)), Some(431)),
        ("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_owned(), Some(400)),
        ("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip\r\n\r\nab".to_owned(), Some(400)),
    ] {
        let mut talk = Talk::to(&proxy.url).await;
        talk.send(&bytes).await;
        let answer = talk.message().await;
        assert_eq!(answer.map(|answer| answer.status()), status, "{}", &bytes[..bytes.len().min(60)]);
    }
    let errors = get(&format!("{}/metrics", proxy.admin)).await.text();
    let errors: f64 = errors
        .lines()
        .filter(|line| line.starts_with("anteroom_connection_errors_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(errors > 4.9, "{errors}");
    assert_eq!(get(&format!("{}/x", proxy.url)).await.text(), "ok");
}

#[tokio::test]
async fn a_client_that_leaves_is_told_of_as_499() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    stand_in.fault_on(Fault::Hang, Matcher::any());
    let proxy = Proxy::start(&stand_in, "").await;
    let mut client = Talk::to(&proxy.url).await;
    client.send("GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await;
    stand_in.wait_for("the request", |seen| seen.len() == 1).await;
    drop(client);
    let failed = "anteroom_requests_total{method=\"GET\",outcome=\"failed\",status_class=\"4xx\"}";
    proxy.wait_for_metric(failed, 1.0).await;
    proxy.wait_for_metric("anteroom_upstream_in_flight", 0.0).await;
    proxy.wait_for_metric("anteroom_requests_in_flight", 0.0).await;
}

/// An idle connection that is closed after its time is nobody's mistake.
#[tokio::test]
async fn idle_connections_end_after_a_while_and_half_heads_are_a_mistake() {
    let errors = "anteroom_connection_errors_total{kind=\"timeout\"}";
    let (_upstream, proxy) = both(OK).await;
    // A write is another task's: after its answer, if that has no body, nothing is read again by itself.
    let (_nothing, of_nothing) = both("HTTP/1.1 204 No Content\r\n\r\n").await;
    let write = "POST /public/api/v1/inboxes/i/contacts/c/conversations/1/update_last_seen HTTP/1.1\r\n\
                 host: h\r\ncontent-length: 0\r\n\r\n";
    for (proxy, request) in [(&proxy, "GET /x HTTP/1.1\r\nhost: h\r\n\r\n"), (&of_nothing, write)] {
        let mut idle = Talk::to(&proxy.url).await;
        idle.send(request).await;
        idle.message().await.unwrap();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        jump(Duration::from_secs(60)).await;
        let ended = tokio::time::timeout(Duration::from_secs(30), idle.rest()).await;
        assert!(ended.expect("its time is over").is_empty());
        assert!(proxy.metric(errors).await < 0.1);
    }
    let mut half = Talk::to(&proxy.url).await;
    half.send("GET /x HTTP/1.1\r\nhost").await;
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 1.0).await;
    jump(Duration::from_secs(60)).await;
    assert_eq!(half.message().await.map(|answer| answer.status()), Some(408));
    assert!(half.rest().await.is_empty());
    proxy.wait_for_metric(errors, 1.0).await;
}
