//! Two requests are never taken for one another: what one client sends cannot become part of another's request or
//! answer, however it is framed, cut off or dressed up as a switch of protocols.
//!
//! The upstream here answers as soon as it has a head, as servers do that read no body for a redirect or a file. Such a
//! server takes what comes next on the connection for the body that it was told of.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anteroom_stand_in::{Options, StandIn};

use crate::support::raw::{Message, Scripted, Talk, exchange};
use crate::support::{Proxy, jump};
use crate::tunnels::{HANDSHAKE, SWITCHED};

const LIST: &str = "/public/api/v1/inboxes/in/contacts/co/conversations";
const CONTACT: &str = "/public/api/v1/inboxes/in/contacts/co";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VICTIM: &str = "GET /victim HTTP/1.1\r\nhost: h\r\nauthorization: Bearer of-the-victim\r\n\r\n";

/// Answers each head at once, then reads what the head said of a body. Records all messages.
struct Hasty {
    upstream: Scripted,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Hasty {
    async fn start(answer: &'static str) -> Self {
        let seen: Arc<Mutex<Vec<Message>>> = Arc::default();
        let told = seen.clone();
        let upstream = Scripted::start(move |_, mut talk| {
            let told = told.clone();
            async move {
                while let Some(head) = talk.head().await {
                    let end = if head.starts_with("HEAD ") { answer.len() - 2 } else { answer.len() };
                    talk.send(&answer[..end]).await;
                    let message = talk.rest_of(head, "").await;
                    told.lock().unwrap().push(message);
                }
            }
        })
        .await;
        Self { upstream, seen }
    }

    fn seen(&self) -> Vec<Message> {
        self.seen.lock().unwrap().clone()
    }

    /// A victim's request is answered by what it asked for, and reaches the upstream as it is and nowhere else.
    async fn assert_safe(&self, proxy: &Proxy, attack: &str) {
        let answer = tokio::time::timeout(Duration::from_secs(10), exchange(&proxy.url, VICTIM)).await;
        let answer = answer.unwrap_or_else(|_| panic!("the victim waits for ever after {attack:?}"));
        assert_eq!((answer.status(), answer.text()), (200, "ok"), "{attack:?}");
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let with_token: Vec<_> = seen.iter().filter(|seen| format!("{seen:?}").contains("of-the-victim")).collect();
        let [victim] = with_token[..] else { panic!("{attack:?}: {seen:#?}") };
        assert_eq!((victim.start_line(), victim.text()), ("GET /victim HTTP/1.1", ""), "{attack:?}");
        for message in &seen {
            let target = message.start_line().split(' ').nth(1).unwrap_or_default();
            let is_known = ["/x", LIST, CONTACT, "/cable", "/victim"].contains(&target);
            assert!(is_known && message.start_line().ends_with(" HTTP/1.1"), "{attack:?}: {message:?}");
        }
    }
}

/// Requests of which a length, a coding, or a switch of protocols could be carried on without the body it belongs to.
fn attacks() -> Vec<String> {
    let mut attacks = Vec::new();
    let framings = [
        "",
        "content-length: 60\r\n",
        "content-length: 0\r\n",
        "content-length: 60\r\ncontent-length: 60\r\n",
        "content-length: 60, 60\r\n",
        "content-length: 060\r\n",
        "content-length: +60\r\n",
        "content-length : 60\r\n",
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: Chunked\r\ncontent-length: 60\r\n",
        "content-length: 60\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: identity\r\ncontent-length: 60\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: \x0bchunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "connection: content-length\r\ncontent-length: 60\r\n",
        "connection: transfer-encoding\r\ntransfer-encoding: chunked\r\n",
    ];
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "POST"] {
        for target in ["/x", LIST, CONTACT] {
            for dress in ["", UPGRADE, "connection: upgrade\r\nupgrade: websocket\r\n", "cookie: a=b\r\n"] {
                for framing in framings {
                    for version in ["1.1", "1.0"] {
                        attacks.push(format!("{method} {target} HTTP/{version}\r\nhost: h\r\n{dress}{framing}\r\n"));
                    }
                }
            }
        }
    }
    attacks
}

/// Nothing follows the head: its sender has his answer and goes, and what was announced never comes.
#[tokio::test]
async fn a_head_without_its_body_takes_nobody_elses_request_for_it() {
    let upstream = Hasty::start(OK).await;
    let proxy = Proxy::in_front_of(&upstream.upstream.url(), "cache.ttl = \"0s\"").await;
    let attacks = attacks();
    for attack in attacks {
        let got = tokio::time::timeout(Duration::from_secs(10), exchange(&proxy.url, &attack)).await;
        got.unwrap_or_else(|_| panic!("no answer to {attack:?}"));
        upstream.assert_safe(&proxy, &attack).await;
    }
}

/// What follows the head is a request of the attacker's choice, for whoever would take it for one.
#[tokio::test]
async fn a_body_is_never_a_request() {
    let upstream = Hasty::start(OK).await;
    let proxy = Proxy::in_front_of(&upstream.upstream.url(), "cache.ttl = \"0s\"").await;
    let inner = "GET /smuggled HTTP/1.1\r\nhost: h\r\nx-ignored: 123456789012\r\n\r\n";
    assert_eq!(inner.len(), 60);
    let attacks = attacks();
    for attack in attacks {
        let is_chunked = attack.to_lowercase().contains("chunked\r\n");
        // What has no body is followed by a request of the attacker's own, and that is no smuggling.
        if !attack.contains("60\r\n") && !is_chunked {
            continue;
        }
        let body = if is_chunked { format!("3c\r\n{inner}\r\n0\r\n\r\n") } else { inner.to_owned() };
        let got = tokio::time::timeout(Duration::from_secs(10), exchange(&proxy.url, format!("{attack}{body}"))).await;
        got.unwrap_or_else(|_| panic!("no answer to {attack:?}"));
        upstream.assert_safe(&proxy, &attack).await;
    }
}

#[tokio::test]
async fn a_handshake_that_is_refused_leaves_no_length_behind() {
    for framing in ["content-length: 60\r\n", "content-length: 0\r\n", "transfer-encoding: chunked\r\n", ""] {
        let upstream = Hasty::start(OK).await;
        let proxy = Proxy::in_front_of(&upstream.upstream.url(), "").await;
        let mut attacker = Talk::to(&proxy.url).await;
        attacker.send(HANDSHAKE.replacen("\r\n\r\n", &format!("\r\n{framing}\r\n"), 1)).await;
        assert_eq!(attacker.message().await.unwrap().text(), "ok");
        drop(attacker);
        proxy.wait_for_metric("anteroom_requests_in_flight", 0.0).await;
        upstream.assert_safe(&proxy, framing).await;
    }
}

/// What is a list or a write without the field is one with it, down to what it puts out of date.
#[tokio::test]
async fn an_upgrade_changes_nothing_of_what_a_request_is() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "").await;
    let path = |url: String| url.strip_prefix(&proxy.url).unwrap().to_owned();
    let (list, contact) = (path(proxy.list_url("visitor-a")), path(proxy.contact_url("visitor-a")));
    let ask = |target: String| {
        let url = proxy.url.clone();
        async move { exchange(&url, format!("GET {target} HTTP/1.1\r\nhost: h\r\n{UPGRADE}\r\n")).await }
    };
    assert!(ask(list.clone()).await.field("cache-status").unwrap().contains("stored"));
    assert!(ask(list.clone()).await.field("cache-status").unwrap().starts_with("anteroom; hit"));
    // Another spelling of it, and one with credentials, pass by the cache.
    assert!(ask(format!("{list}.json")).await.field("cache-status").unwrap().contains("detail=alias"));
    let token = ask(format!("{list}?api_access_token=x")).await;
    assert!(token.field("cache-status").unwrap().contains("detail=api_access_token"));
    assert!(proxy.list("visitor-a").await.is_hit());
    let written = "anteroom_requests_total{method=\"GET\",outcome=\"write\",status_class=\"2xx\"}";
    assert_eq!(ask(format!("{contact}?identifier_hash=valid-hash")).await.status(), 200);
    assert!((proxy.metric(written).await - 1.0).abs() < 0.1);
    assert!(!proxy.list("visitor-a").await.is_hit(), "a write puts the list out of date, upgrade or not");
    let upgraded = stand_in.requests().iter().any(|seen| seen.headers.contains_key("upgrade"));
    assert!(!upgraded, "none of them was a handshake upstream");
}

/// The answer to a bypassed list is newer than what is kept, whatever it was dressed up as.
#[tokio::test]
async fn a_bypassed_list_with_an_upgrade_is_compared_with_what_is_kept() {
    let versions = Arc::new(Mutex::new(0));
    let upstream = Scripted::start(move |_, mut talk| {
        let versions = versions.clone();
        async move {
            while talk.message().await.is_some() {
                let version = {
                    let mut version = versions.lock().unwrap();
                    *version += 1;
                    *version
                };
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2";
                talk.send(format!("{head}\r\netag: \"{version}\"\r\n\r\n[]")).await;
            }
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let plain = format!("GET {LIST} HTTP/1.1\r\nhost: h\r\n\r\n");
    exchange(&proxy.url, &plain).await;
    let dressed = exchange(&proxy.url, format!("GET {LIST} HTTP/1.1\r\nhost: h\r\ncookie: a=b\r\n{UPGRADE}\r\n")).await;
    assert!(dressed.field("cache-status").unwrap().contains("detail=cookie"), "{}", dressed.head);
    let number = |message: &Message| message.field("etag").unwrap().trim_matches('"').parse::<u32>().unwrap();
    let after = exchange(&proxy.url, &plain).await;
    assert!(number(&after) > number(&dressed), "{} after {}", after.head, dressed.head);
}

#[tokio::test]
async fn what_is_not_the_whole_of_a_handshake_is_sent_without_the_field() {
    let upstream = Hasty::start(OK).await;
    let proxy = Proxy::in_front_of(&upstream.upstream.url(), "").await;
    for request in [
        HANDSHAKE.replacen("HTTP/1.1", "HTTP/1.0", 1),
        HANDSHAKE.replacen("sec-websocket-version: 13", "sec-websocket-version: 8", 1),
        HANDSHAKE.replacen("sec-websocket-version: 13\r\n", "", 1),
        HANDSHAKE.replacen("dGhlIHNhbXBsZSBub25jZQ==", "x", 1),
        HANDSHAKE.replacen("sec-websocket-key", "x-key", 1),
        HANDSHAKE.replacen("\r\n\r\n", "\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", 1),
        HANDSHAKE.replacen("\r\n\r\n", "\r\nx-http-method-override: POST\r\n\r\n", 1),
        HANDSHAKE.replacen("\r\n\r\n", "\r\ncontent-length: 2\r\n\r\nhi", 1),
        HANDSHAKE.replacen("/cable", "/public/api/v1/inboxes/in/contacts/co/conversations/7/messages", 1),
    ] {
        assert_eq!(exchange(&proxy.url, &request).await.text(), "ok", "{request}");
        let seen = upstream.seen().pop().unwrap();
        assert_eq!((seen.field("upgrade"), seen.text()), (None, if request.ends_with("hi") { "hi" } else { "" }));
    }
    assert_eq!(exchange(&proxy.url, HANDSHAKE).await.text(), "ok");
    assert_eq!(upstream.seen().pop().unwrap().field("upgrade"), Some("websocket"));
}

/// One that was refused could still be half switched on the other side.
#[tokio::test]
async fn the_connection_of_a_handshake_is_its_own() {
    let upstream = Hasty::start(OK).await;
    let proxy = Proxy::in_front_of(&upstream.upstream.url(), "").await;
    let plain = "GET /x HTTP/1.1\r\nhost: h\r\n\r\n";
    for (request, connections) in [(plain, 1), (HANDSHAKE, 2), (plain, 2), (HANDSHAKE, 3), (plain, 3)] {
        assert_eq!(exchange(&proxy.url, request).await.text(), "ok");
        assert!(upstream.upstream.connections() <= connections, "{request}");
        proxy.wait_for_metric("anteroom_requests_in_flight", 0.0).await;
    }
    assert_eq!(upstream.upstream.connections(), 3);
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_ends_its_connection() {
    let other = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n";
    let bare = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
    for (request, switch) in [
        ("GET /x HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(), SWITCHED),
        ("HEAD /x HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(), SWITCHED),
        (format!("POST {CONTACT} HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi"), SWITCHED),
        (format!("GET {LIST} HTTP/1.1\r\nhost: h\r\n\r\n"), SWITCHED),
        (format!("GET {LIST} HTTP/1.1\r\nhost: h\r\n{UPGRADE}\r\n"), SWITCHED),
        (format!("GET {LIST} HTTP/1.1\r\nhost: h\r\ncookie: a=b\r\n\r\n"), SWITCHED),
        (
            format!("OPTIONS {LIST} HTTP/1.1\r\nhost: h\r\norigin: o\r\naccess-control-request-method: GET\r\n\r\n"),
            SWITCHED,
        ),
        (HANDSHAKE.to_owned(), other),
        (HANDSHAKE.to_owned(), bare),
    ] {
        let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let upstream = Scripted::start(move |_, mut talk| {
            let told = told.clone();
            async move {
                talk.message().await;
                talk.send(format!("{switch}{OK}")).await;
                let _ = told.send(talk.rest().await);
            }
        })
        .await;
        let proxy = Proxy::in_front_of(&upstream.url(), "").await;
        assert_eq!(exchange(&proxy.url, &request).await.status(), 502, "{request}");
        assert_eq!(ended.recv().await.unwrap(), b"", "{request}");
    }
}

/// After a 204 with a length, or one with chunks, nobody knows whether what comes is its body or the next answer.
#[tokio::test]
async fn after_an_answer_that_contradicts_itself_its_connection_is_not_used_again() {
    for framing in ["content-length: 4\r\n", "transfer-encoding: chunked\r\n", "content-length: x\r\n"] {
        let upstream = Scripted::start(move |_, mut talk| async move {
            while talk.message().await.is_some() {
                talk.send(format!("HTTP/1.1 204 No Content\r\n{framing}\r\n")).await;
            }
        })
        .await;
        let proxy = Proxy::in_front_of(&upstream.url(), "").await;
        for connections in 1..4 {
            let answer = exchange(&proxy.url, "GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await;
            assert_eq!((answer.status(), answer.field("content-length")), (204, None));
            assert_eq!(upstream.connections(), connections, "{framing}");
        }
    }
}

#[tokio::test]
async fn a_body_without_a_length_arrives_with_every_method_and_after_every_version() {
    let answers = [OK, "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok"];
    for answer in answers {
        let upstream = Scripted::answering(answer).await;
        let proxy = Proxy::in_front_of(&upstream.url(), "").await;
        for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH", "PURGE"] {
            let chunks = "transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
            // Of a HEAD's answer the upstream here sends a body, which is none of this test's business.
            let answer = exchange(&proxy.url, format!("{method} /x HTTP/1.1\r\nhost: h\r\n{chunks}")).await;
            assert_eq!(answer.status(), 200, "{method}");
            let seen = upstream.requests().into_iter().rfind(|seen| seen.start_line().starts_with(method)).unwrap();
            assert_eq!((seen.text(), seen.whole, seen.field("content-length")), ("hello", true, None), "{method}");
        }
    }
}

/// `Content-Length: 5, 5` means five (RFC 9110 section 8.6), and is said as five.
#[tokio::test]
async fn a_length_is_said_once_or_not_at_all() {
    for (method, said, passed) in [
        ("GET", "content-length: 2, 2\r\n", "2"),
        ("GET", "content-length: 2\r\ncontent-length: 02\r\n", "2"),
        ("HEAD", "content-length: 2, 2\r\n", "2"),
    ] {
        let body = if method == "HEAD" { "" } else { "ok" };
        let upstream = Scripted::answering(format!("HTTP/1.1 200 OK\r\n{said}\r\n{body}")).await;
        let proxy = Proxy::in_front_of(&upstream.url(), "").await;
        let answer = exchange(&proxy.url, format!("{method} /x HTTP/1.1\r\nhost: h\r\n\r\n")).await;
        assert_eq!((answer.field("content-length"), answer.text()), (Some(passed), body), "{said}");
    }
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let sent = exchange(&proxy.url, "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 5, 5\r\n\r\nhello").await;
    assert_eq!(sent.status(), 400);
    exchange(&proxy.url, "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ncontent-length: 005\r\n\r\nhello").await;
    assert_eq!((upstream.last_request().field("content-length"), upstream.last_request().text()), (Some("5"), "hello"));
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_list_whose_end_cannot_be_told_is_never_shared() {
    for (coding, body, status) in [
        ("transfer-encoding: identity\r\n", "[]", 200),
        ("transfer-encoding: identity\r\ncontent-length: 1\r\n", "[]", 200),
        ("transfer-encoding: identity, chunked\r\n", "2\r\n[]\r\n0\r\n\r\n", 200),
        ("", "[]", 200),
        // Their bytes are not the list, and no client was told so.
        ("transfer-encoding: gzip\r\n", "[]", 502),
        ("transfer-encoding: gzip, chunked\r\n", "2\r\n[]\r\n0\r\n\r\n", 502),
        ("transfer-encoding: chunked, chunked\r\n", "2\r\n[]\r\n0\r\n\r\n", 502),
        ("transfer-encoding: chunked, identity\r\n", "2\r\n[]\r\n0\r\n\r\n", 502),
        ("transfer-encoding: x-unknown\r\n", "[]", 502),
    ] {
        let upstream = Scripted::start(move |_, mut talk| async move {
            talk.message().await;
            talk.send(format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{coding}\r\n{body}")).await;
        })
        .await;
        let proxy = Proxy::in_front_of(&upstream.url(), "").await;
        for _ in 0..2 {
            let answer = exchange(&proxy.url, format!("GET {LIST} HTTP/1.1\r\nhost: h\r\n\r\n")).await;
            assert_eq!(answer.status(), status, "{coding}");
            let told = answer.field("cache-status").unwrap();
            assert!(!told.contains("hit") && !told.contains("stored"), "{coding}: {told}");
            if status == 200 {
                assert_eq!((answer.text(), answer.field("transfer-encoding")), ("[]", Some("chunked")), "{coding}");
            }
        }
        let passed = exchange(&proxy.url, "GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await;
        assert_eq!(passed.status(), status, "{coding}");
    }
}

#[tokio::test]
async fn a_host_is_a_host_and_a_target_has_the_form_of_its_method() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    for host in
        ["a b", "a/b", "u@a", "u:p@a", "a, b", "a;b", "a\"", "a?b", "a#b", "a%2f", "a:x", "[::1", "", ":80", "\u{e9}"]
    {
        for target in ["/x", LIST, "http://other.test/x"] {
            let answer = exchange(&proxy.url, format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
            assert_eq!(answer.status(), 400, "{host} {target}");
        }
    }
    for line in [
        "GET *",
        "POST *",
        "GET other.test",
        "GET other.test:443",
        "POST other.test:443",
        "OPTIONS other.test:80",
        "GET ftp://other.test/",
        "GET http://u:p@other.test/",
        "GET http://u@other.test/x",
    ] {
        let answer = exchange(&proxy.url, format!("{line} HTTP/1.1\r\nhost: h\r\n\r\n")).await;
        assert_eq!(answer.status(), 400, "{line}");
    }
    assert!(upstream.requests().is_empty());
    for host in ["front.test", "front.test:8080", "127.0.0.1:80", "[::1]:80", "a_b"] {
        exchange(&proxy.url, format!("GET /x HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(upstream.last_request().field("x-forwarded-host"), Some(host));
    }
}

/// RFC 9112 section 3.2.2.
#[tokio::test]
async fn the_host_of_an_absolute_target_is_the_one_that_counts() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    exchange(&proxy.url, "POST http://other.test:81/x HTTP/1.1\r\nhost: front.test\r\n\r\n").await;
    let seen = upstream.last_request();
    assert_eq!(seen.field("x-forwarded-host"), Some("other.test:81"));
    assert_eq!(seen.field("forwarded"), Some("for=127.0.0.1;host=\"other.test:81\";proto=http"));
    assert_eq!(seen.field("host"), Some(upstream.address.to_string().as_str()));
}

#[tokio::test]
async fn what_no_body_is_is_refused_before_it_comes() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    for (framing, status) in [
        ("content-length: 9223372036854775807", 413),
        ("content-length: 9223372036854775808", 413),
        ("content-length: 18446744073709551613", 413),
        ("content-length: 1099511627777", 413),
        // hyper cannot count so far.
        ("content-length: 18446744073709551615", 431),
        ("content-length: 18446744073709551616", 400),
        ("transfer-encoding: gzip, chunked", 501),
        ("transfer-encoding: chunked, chunked", 501),
    ] {
        for path in ["/x", CONTACT, LIST] {
            let mut client = Talk::to(&proxy.url).await;
            client.send(format!("POST {path} HTTP/1.1\r\nhost: h\r\n{framing}\r\n\r\n")).await;
            assert_eq!(client.message().await.unwrap().status(), status, "{framing}");
        }
    }
    assert!(upstream.requests().is_empty());
}

/// They come last, so the upstream may have the body; it never has the end of it.
#[tokio::test]
async fn trailers_without_end_are_a_400_and_the_upstream_never_sees_a_whole_request() {
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
    let head = "POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
    let long = format!("x-sum: {}\r\n", "a".repeat(100_000));
    let many = "x-sum: a\r\n".repeat(10_000);
    for trailers in [&long, &many] {
        let answer = exchange(&proxy.url, format!("{head}5\r\nhello\r\n0\r\n{trailers}\r\n")).await;
        assert_eq!(answer.status(), 400);
        assert_eq!(seen.recv().await, Some(false));
    }
}

#[tokio::test]
async fn a_trickled_body_ends_and_one_that_is_slow_but_whole_arrives() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let settle = || async {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    };
    for (piece, pieces, status) in [(1, 20, 408), (3000, 20, 200)] {
        let mut client = Talk::to(&proxy.url).await;
        client.send(format!("POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", piece * pieces)).await;
        for _ in 0..pieces {
            settle().await;
            jump(Duration::from_secs(10)).await;
            // Whoever was refused is not listened to any more.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &vec![b'a'; piece]).await;
            settle().await;
        }
        assert_eq!(client.message().await.unwrap().status(), status, "{piece}");
    }
    assert_eq!(upstream.requests().iter().filter(|seen| seen.whole).count(), 1);
}
