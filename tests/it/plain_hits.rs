//! Plain hits, which are answered from the bytes of their requests: the same answers as everybody's, and never to anything
//! but a request.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anteroom::engine::body::Body;
use anteroom::policy::http::client::Side;
use anteroom::policy::http::exposition::Exposition;
use anteroom::policy::http::plain_head::{Beginning, PlainHead};
use anteroom::proxy::handle::handle;
use anteroom::proxy::plain_hit::plain_hit;
use anteroom_stand_in::StandIn;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;

use crate::support::raw::{Message, Talk};
use crate::support::{Proxy, both, get};

const PEER: ([u8; 4], u16) = ([192, 0, 2, 7], 1234);

/// A head as a client sends it.
fn head(fields: &[(&str, &str)]) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {} HTTP/1.1\r\nHost: front.test\r\n{fields}\r\n", StandIn::list_path("visitor-a"))
}

fn plain_head(text: &str) -> Option<PlainHead<'_>> {
    match Beginning::of(text.as_bytes()) {
        Beginning::Plain(head) => Some(head),
        Beginning::Request(_) | Beginning::Unclear => None,
    }
}

/// An answer: its status, its fields in order of their names, its body.
type Told = (u16, Vec<(String, String)>, Bytes);

async fn by_handle(proxy: &Proxy, fields: &[(&str, &str)]) -> Told {
    let mut request = Request::get(StandIn::list_path("visitor-a")).header("host", "front.test");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let answer = handle(proxy.state.clone(), SocketAddr::from(PEER), request.body(Body::empty()).unwrap()).await;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut told: Vec<(String, String)> =
        head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    if head.status != 304 {
        // hyper's work.
        told.push(("content-length".into(), body.len().to_string()));
    }
    told.sort();
    (head.status.as_u16(), told, body)
}

fn at_once(proxy: &Proxy, fields: &[(&str, &str)]) -> Option<Told> {
    let text = head(fields);
    let hit = plain_hit(&proxy.state, Side::from(SocketAddr::from(PEER)), &plain_head(&text)?)?;
    let text = String::from_utf8(hit.head).unwrap();
    let mut lines = text.strip_suffix("\r\n\r\n").expect("one empty line, at its end").split("\r\n");
    let status = lines.next().unwrap();
    let code: u16 = status.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    assert_eq!(status[13..], *http::StatusCode::from_u16(code).unwrap().canonical_reason().unwrap());
    let mut told: Vec<(String, String)> =
        lines.map(|line| line.split_once(": ").unwrap()).map(|(name, value)| (name.into(), value.into())).collect();
    told.sort();
    Some((code, told, hit.body.to_bytes()))
}

/// Every series but times.
fn counted(proxy: &Proxy) -> BTreeMap<String, String> {
    let text = String::from_utf8(proxy.state.metrics.render(Exposition::Prometheus)).unwrap();
    let series = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap());
    let is_count =
        |name: &str| !name.contains("seconds_bucket") && !name.contains("seconds_sum") && !name.starts_with("process_");
    series.filter(|(name, _)| is_count(name)).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn added(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<(String, i64)> {
    let number = |text: Option<&String>| text.map_or(0.0, |text| text.parse::<f64>().unwrap());
    #[expect(clippy::cast_possible_truncation, reason = "counts are small here")]
    let added =
        after.iter().map(|(name, value)| (name.clone(), (number(Some(value)) - number(before.get(name))) as i64));
    added.filter(|(_, more)| *more != 0).collect()
}

/// Both ways, one after the other, at one moment: alike in every byte and every count.
async fn is_the_same(proxy: &Proxy, fields: &[(&str, &str)]) -> bool {
    let id = ("x-request-id", "request-1");
    let fields = [fields, &[id]].concat();
    // It makes the form that is asked for, if nobody had it yet.
    by_handle(proxy, &fields).await;
    let before = counted(proxy);
    let as_always = by_handle(proxy, &fields).await;
    let between = counted(proxy);
    let Some(told) = at_once(proxy, &fields) else { return false };
    assert_eq!(told, as_always, "{fields:?}");
    assert_eq!(added(&between, &counted(proxy)), added(&before, &between), "{fields:?}");
    true
}

const BROWSER: [(&str, &str); 8] = [
    ("user-agent", "Mozilla/5.0"),
    ("accept", "application/json"),
    ("accept-language", "pt-BR,pt;q=0.9"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("sec-fetch-mode", "cors"),
    ("referer", "https://shop.test/"),
    ("connection", "keep-alive"),
    ("pragma", "no-cache"),
];

/// Every field that the request path looks at, and many that it does not: what is answered at once is what `handle` answers.
#[tokio::test]
async fn a_plain_hit_is_the_answer_that_everybody_gets() {
    for (settings, plain) in [
        ("", Some(true)),
        // As it is kept, or for who has it; all others wait until it is unpacked.
        ("cache.compress = \"zstd\"", None),
        ("encoding.offer = []", Some(true)),
        ("listen.trusted_proxies = [\"192.0.2.0/24\"]", Some(true)),
        ("limits.hit_rate = 1000", Some(true)),
        ("log.hits = 1.0", Some(true)),
        ("audit.share = 0.5", Some(false)),
        ("upstream.host = \"client\"", Some(false)),
    ] {
        let (_stand_in, proxy) = both(&format!("cache.ttl = \"1h\"\ncache.stale_if_error = \"2h\"\n{settings}")).await;
        let etag = proxy.list("visitor-a").await.header("etag").expect("it has a validator").to_owned();
        let strong = etag.trim_start_matches("W/").to_owned();
        let lists = format!("\"x\", {etag}");
        tokio::time::pause();
        let always: &[&[(&str, &str)]] = &[
            &[],
            &BROWSER,
            &[("accept-encoding", "gzip")],
            &[("accept-encoding", "br;q=0.5, zstd;q=0.4, identity;q=0.1")],
            &[("accept-encoding", "identity")],
            &[("accept-encoding", "*;q=0")],
            &[("origin", "https://shop.test")],
            &[("x-origin", "a"), ("origin", "b")],
            &[("if-none-match", &etag)],
            &[("if-none-match", &strong), ("accept-encoding", "gzip"), ("origin", "null")],
            &[("if-none-match", &lists)],
            &[("if-none-match", "*")],
            &[("if-none-match", "\"other\"")],
            &[("if-none-match", "nonsense")],
            &[("x-forwarded-for", "198.51.100.4, 192.0.2.9")],
            &[("x-forwarded-for", "\"")],
            &[("range", "bytes=0-1"), ("if-range", &etag)],
            &[("if-match", "\"other\""), ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT")],
            &[("cache-control", "no-cache, no-store"), ("te", "trailers"), ("keep-alive", "timeout=5")],
            &[("x-forwarded-host", "a"), ("x-forwarded-proto", "https"), ("x-real-ip", "::1"), ("content-type", "a/b")],
            &[
                ("access-control-request-method", "GET"),
                ("sec-websocket-key", "a"),
                ("tracestate", "a=b"),
                ("dnt", "1"),
            ],
        ];
        let mut some = false;
        for fields in always {
            let is_plain = is_the_same(&proxy, fields).await;
            assert!(plain.is_none_or(|plain| plain == is_plain), "{settings} {fields:?}");
            some |= is_plain;
        }
        assert_eq!(some, plain != Some(false), "{settings}");
        for name in [
            "authorization",
            "cookie",
            "api-access-token",
            "api_access_token",
            "via",
            "traceparent",
            "expect",
            "upgrade",
            "forwarded",
            "x-http-method-override",
            "x-original-url",
            "x-rewrite-url",
            "if-modified-since",
            "content-length",
        ] {
            assert!(at_once(&proxy, &[(name, "0")]).is_none(), "{name} is for handle to judge");
        }
        // Any field that HTTP has a name for: at once, if at all, as always.
        for name in (0..=u8::MAX).filter_map(standard_name) {
            is_the_same(&proxy, &[(name.as_str(), "1")]).await;
        }
        tokio::time::resume();
    }
}

/// The names that the HTTP library knows, in no order that matters.
fn standard_name(at: u8) -> Option<http::HeaderName> {
    const NAMES: &str = "accept accept-charset accept-ranges age allow alt-svc authorization-info cdn-cache-control \
        content-disposition content-encoding content-language content-location content-range content-security-policy date dnt \
        etag expires from if-match if-range if-unmodified-since last-modified link location max-forwards proxy-authorization \
        public-key-pins range referer retry-after sec-websocket-accept sec-websocket-version server set-cookie \
        strict-transport-security te trailer upgrade-insecure-requests user-agent vary warning x-content-type-options \
        x-dns-prefetch-control x-frame-options x-xss-protection accept-datetime early-data priority save-data \
        sec-ch-ua sec-fetch-dest sec-gpc x-requested-with x-csrf-token x-api-key cf-connecting-ip true-client-ip";
    NAMES.split_ascii_whitespace().nth(at.into()).map(|name| name.parse().unwrap())
}

#[tokio::test]
async fn what_is_no_hit_is_left_alone_and_counted_by_nobody() {
    let (_stand_in, proxy) =
        both("cache.ttl = \"1h\"\nlimits.requests_per_address = 1\nlimits.hit_rate = 1\nlimits.hit_burst = 2").await;
    let nothing = counted(&proxy);
    assert!(at_once(&proxy, &[]).is_none(), "it is not there");
    assert_eq!(added(&nothing, &counted(&proxy)), []);
    proxy.list("visitor-a").await;
    assert!(at_once(&proxy, &[]).is_some());
    let text = head(&[]);
    let asked = plain_head(&text).unwrap();
    let held = plain_hit(&proxy.state, Side::from(SocketAddr::from(PEER)), &asked).expect("the second of two");
    let before = counted(&proxy);
    assert!(at_once(&proxy, &[]).is_none(), "one of this address is still being taken");
    drop(held);
    assert!(at_once(&proxy, &[]).is_none(), "it asks too often");
    let added = added(&before, &counted(&proxy));
    assert!(!added.iter().any(|(name, _)| name.contains("requests_total")), "{added:?}");
}

#[tokio::test]
async fn what_is_no_hit_any_more_is_left_alone() {
    let (_stand_in, proxy) = both("cache.ttl = \"1h\"").await;
    proxy.list("visitor-a").await;
    assert!(at_once(&proxy, &[]).is_some());
    let before = counted(&proxy);
    proxy.state.invalidation.outdate_all(anteroom::policy::coherence::causes::Cause::Settings);
    assert!(at_once(&proxy, &[]).is_none(), "it is out of date");
    let added = added(&before, &counted(&proxy));
    assert!(!added.iter().any(|(name, _)| name.contains("requests_total")), "{added:?}");
}

/// A `PATCH` whose body is `body`.
fn patch(body: &str) -> String {
    let path = StandIn::list_path("visitor-a").replace("/conversations", "");
    let length = body.len();
    format!(
        "PATCH {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

async fn status(talk: &mut Talk) -> (u16, String) {
    let answer: Message = talk.message().await.expect("an answer");
    assert!(answer.whole);
    (answer.status(), answer.field("cache-status").unwrap_or_default().to_owned())
}

/// Hits and all other requests on one connection, in every order and however they are cut: each has its answer, in order.
#[tokio::test]
async fn hits_and_other_requests_share_a_connection() {
    let (_stand_in, proxy) = both("cache.ttl = \"1h\"").await;
    let (list, write) = (head(&[]), patch(r#"{"name":"a"}"#));
    let (other, past) = (head(&[("via", "1.1 other")]), head(&[("cookie", "a=b")]));
    let wanted = |text: &str| match text {
        text if *text == write => "",
        text if *text == past => "anteroom; fwd=bypass",
        _ => "anteroom; hit",
    };
    let is_right = |(code, told): (u16, String), text: &str| {
        assert!(code == 200 && told.starts_with(wanted(text)), "{code} {told}: {text}");
    };
    let mut talk = Talk::to(&proxy.url).await;
    for round in [
        vec![&list, &list, &other, &list, &write, &other, &list, &past, &list, &list],
        vec![&write, &other, &list, &list],
    ] {
        for text in round {
            if *text != write {
                proxy.list("visitor-a").await;
            }
            talk.send(text).await;
            is_right(status(&mut talk).await, text);
        }
    }
    // A body that comes behind its head.
    let (before, after) = write.split_at(write.len() - 5);
    talk.send(before).await;
    tokio::task::yield_now().await;
    talk.send(after).await;
    is_right(status(&mut talk).await, &write);
    proxy.list("visitor-a").await;
    talk.send(&list).await;
    is_right(status(&mut talk).await, &list);
    // Several at once, and one in pieces: from then on they are hyper's.
    talk.send([&*list, &*other, &*list].concat()).await;
    for text in [&list, &other, &list] {
        is_right(status(&mut talk).await, text);
    }
    for piece in list.as_bytes().chunks(40) {
        talk.send(piece).await;
        talk.stream.set_nodelay(true).unwrap();
        tokio::task::yield_now().await;
    }
    is_right(status(&mut talk).await, &list);
    talk.send(&list).await;
    is_right(status(&mut talk).await, &list);
}

/// What looks like a plain request and is part of another's body, or of its head, is no request.
#[tokio::test]
async fn a_list_request_inside_another_request_is_not_answered() {
    let (_stand_in, proxy) = both("cache.ttl = \"1h\"").await;
    proxy.list("visitor-a").await;
    let list = head(&[]);
    let chunk = format!("{:x}\r\n{list}\r\n0\r\n\r\n", list.len());
    let chunked = "POST /elsewhere HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let sized = format!("POST /elsewhere HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", list.len());
    let expecting = format!(
        "POST /elsewhere HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        list.len()
    );
    for pieces in [
        vec![chunked, &chunk],
        vec![chunked, &chunk[..4], &list, "\r\n0\r\n\r\n"],
        vec![&*sized, &list],
        vec![&*expecting, &list],
        vec!["POST /elsewhere HTTP/1.1\r\nhost: a\r\nx-one: ", &list],
        vec!["GET /elsewhere HTTP/1.1\r\nhost: a\r\n\r\nGET /second HTTP/1.1\r\nhost: a\r\nx-one: ", &list],
    ] {
        let mut talk = Talk::to(&proxy.url).await;
        talk.stream.set_nodelay(true).unwrap();
        let hits = proxy.metric("anteroom_requests_total{method=\"GET\",outcome=\"hit\",status_class=\"2xx\"}").await;
        for piece in &pieces {
            talk.send(piece).await;
            // So that it is read by itself: that there are fewer reads than pieces would not make it fail.
            get(&format!("{}/live", proxy.admin)).await;
        }
        talk.send("GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        let answers = String::from_utf8_lossy(&talk.rest().await).into_owned();
        assert!(!answers.contains("; hit"), "{pieces:?}: {answers}");
        let after = proxy.metric("anteroom_requests_total{method=\"GET\",outcome=\"hit\",status_class=\"2xx\"}").await;
        assert!((after - hits).abs() < 0.5, "{pieces:?}");
    }
}
