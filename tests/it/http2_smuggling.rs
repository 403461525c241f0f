//! What HTTP/2 lets a client say that HTTP/1.1 has no form for, written frame by frame: it is refused, or reaches the
//! upstream as what it is and for its sender alone. No shared answer depends on anything outside the key.

use anteroom_stand_in::{Options, StandIn};

use crate::support::Proxy;
use crate::support::http2::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Http2, Outcome, block};
use crate::support::raw::{Message, Scripted};

const LIST: &str = "/public/api/v1/inboxes/in/contacts/co/conversations";
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]";

/// What has to become of a case.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Its stream or its connection is reset, or it is a 400; the upstream never hears of it.
    Refused,
    /// It reaches the upstream with this start line.
    Passes(&'static str),
}

use Fate::{Passes, Refused};

struct Case {
    name: &'static str,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// What comes after the head, if it is not the end.
    body: Option<&'static [u8]>,
    fate: Fate,
}

/// Pseudo fields of a good request for a path.
fn good(method: &'static str, path: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    [(":method", method), (":scheme", "http"), (":authority", "front.test"), (":path", path)]
        .map(|(name, value)| (name.into(), value.into()))
        .to_vec()
}

fn case(name: &'static str, fields: Vec<(Vec<u8>, Vec<u8>)>, fate: Fate) -> Case {
    Case { name, fields, body: None, fate }
}

/// A good request with one more field.
fn with(name: &'static str, field: &str, value: impl AsRef<[u8]>, fate: Fate) -> Case {
    let mut fields = good("GET", "/x");
    fields.push((field.into(), value.as_ref().to_vec()));
    case(name, fields, fate)
}

/// A good request with another value of one of its pseudo fields.
fn but(name: &'static str, field: &str, value: impl AsRef<[u8]>, fate: Fate) -> Case {
    let mut fields = good("GET", "/x");
    for (found, old) in &mut fields {
        if found == field.as_bytes() {
            *old = value.as_ref().to_vec();
        }
    }
    case(name, fields, fate)
}

fn without(name: &'static str, field: &str, fate: Fate) -> Case {
    let fields = good("GET", "/x").into_iter().filter(|(found, _)| found != field.as_bytes()).collect();
    case(name, fields, fate)
}

fn posting(name: &'static str, field: Option<(&str, &str)>, body: &'static [u8], fate: Fate) -> Case {
    let mut fields = good("POST", "/x");
    fields.extend(field.map(|(name, value)| (name.into(), value.into())));
    Case { name, fields, body: Some(body), fate }
}

fn pseudo_fields() -> Vec<Case> {
    let x = "GET /x HTTP/1.1";
    let inner = "/x HTTP/1.1\r\nhost: h\r\n\r\nGET /smuggled";
    let mut doubled = good("GET", "/x");
    doubled.push((b":path".to_vec(), b"/y".to_vec()));
    let mut twice = good("GET", "/x");
    twice.push((b":authority".to_vec(), b"other.test".to_vec()));
    let mut late = good("GET", "/x");
    late.insert(0, (b"x-first".to_vec(), b"1".to_vec()));
    let mut unknown = good("GET", "/x");
    unknown.push((b":evil".to_vec(), b"1".to_vec()));
    let mut answer = good("GET", "/x");
    answer.push((b":status".to_vec(), b"200".to_vec()));
    vec![
        case("it is a request like others", good("GET", "/x"), Passes(x)),
        but("a path with a space", ":path", "/x HTTP/1.1", Refused),
        but("a path that is a request", ":path", inner, Refused),
        but("a path with a line feed", ":path", "/x\n", Refused),
        but("a path with a zero", ":path", "/x\0y", Refused),
        but("a path that is empty", ":path", "", Refused),
        but("a path that is absolute", ":path", "http://other.test/x", Refused),
        but("a path that is a word", ":path", "x", Refused),
        but("a path that is a star", ":path", "*", Refused),
        but("a path with a fragment", ":path", "/x#/y", Passes(x)),
        but("a path with two slashes", ":path", "//other.test/x", Passes("GET //other.test/x HTTP/1.1")),
        but("a method with a space", ":method", "GET /y", Refused),
        but("a method with a line", ":method", "GET / HTTP/1.1\r\nx: y", Refused),
        but("a method that is empty", ":method", "", Refused),
        but("a scheme with a line", ":scheme", "http\r\nx: y", Refused),
        but("a scheme that is a URL", ":scheme", "http://other.test/?", Refused),
        but("a scheme that is another", ":scheme", "ftp", Refused),
        but("the other scheme", ":scheme", "https", Passes(x)),
        but("an authority with a user", ":authority", "u@front.test", Refused),
        but("an authority with a path", ":authority", "front.test/y", Refused),
        but("an authority with a space", ":authority", "front.test x", Refused),
        but("an authority with a line", ":authority", "front.test\r\nx: y", Refused),
        but("an authority that is a list", ":authority", "front.test,other.test", Refused),
        but("an authority that is empty", ":authority", "", Refused),
        without("no method", ":method", Refused),
        without("no scheme", ":scheme", Refused),
        without("no path", ":path", Refused),
        without("no authority and no host", ":authority", Refused),
        case("two paths", doubled, Refused),
        case("two authorities", twice, Refused),
        case("a pseudo field after another", late, Refused),
        case("an unknown pseudo field", unknown, Refused),
        case("the status of an answer", answer, Refused),
    ]
}

fn fields() -> Vec<Case> {
    let x = "GET /x HTTP/1.1";
    let mut host_alone = good("GET", "/x");
    host_alone.remove(2);
    host_alone.push((b"host".to_vec(), b"front.test".to_vec()));
    let mut two_hosts = host_alone.clone();
    two_hosts.push((b"host".to_vec(), b"other.test".to_vec()));
    vec![
        with("a name in capitals", "X-Upper", "1", Refused),
        with("a name with a space", "x y", "1", Refused),
        with("a name with a colon", "x:y", "1", Refused),
        with("a name that is a line", "x: y\r\nz", "1", Refused),
        with("a name that is empty", "", "1", Refused),
        with("a value with a line", "x-value", "1\r\ntransfer-encoding: chunked", Refused),
        with("a value with a line feed", "x-value", "1\ny: z", Refused),
        with("a value with a zero", "x-value", "1\0", Refused),
        with("connection", "connection", "close", Refused),
        with("connection that names a field", "connection", "authorization", Refused),
        with("keep-alive", "keep-alive", "timeout=5", Refused),
        with("proxy-connection", "proxy-connection", "keep-alive", Refused),
        with("transfer-encoding", "transfer-encoding", "chunked", Refused),
        with("transfer-encoding that is none", "transfer-encoding", "identity", Refused),
        with("upgrade", "upgrade", "websocket", Refused),
        with("te", "te", "chunked", Refused),
        with("te: trailers", "te", "trailers", Passes(x)),
        with("a host that differs", "host", "other.test", Refused),
        with("a host with a port that differs", "host", "front.test:81", Refused),
        with("a host that is the same", "host", "FRONT.test", Passes(x)),
        with("a host that is none", "host", "front.test/y", Refused),
        case("a host alone", host_alone, Passes(x)),
        case("two hosts", two_hosts, Refused),
        with("another path in a field", "x-original-url", "/y", Passes(x)),
        with("another method in a field", "x-http-method-override", "POST", Passes(x)),
    ]
}

fn bodies() -> Vec<Case> {
    let post = "POST /x HTTP/1.1";
    let smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n";
    let mut announced = good("POST", "/x");
    announced.push((b"content-length".to_vec(), b"5".to_vec()));
    let mut two = good("POST", "/x");
    two.push((b"content-length".to_vec(), b"2".to_vec()));
    two.push((b"content-length".to_vec(), b"3".to_vec()));
    vec![
        posting("a body without a length", None, smuggled, Passes(post)),
        posting("a body of its length", Some(("content-length", "2")), b"hi", Passes(post)),
        posting("a body that is longer", Some(("content-length", "0")), smuggled, Refused),
        posting("a length with a sign", Some(("content-length", "+2")), b"hi", Refused),
        posting("a length in hex", Some(("content-length", "0x2")), b"hi", Refused),
        posting("a length that is a list", Some(("content-length", "2, 2")), b"hi", Refused),
        posting("a length with a space", Some(("content-length", "2 ")), b"hi", Refused),
        posting("a length beyond counting", Some(("content-length", "99999999999999999999999")), b"hi", Refused),
        posting("a coding beside a body", Some(("transfer-encoding", "chunked")), smuggled, Refused),
        case("a length and the end", announced, Refused),
        Case { name: "two lengths", fields: two, body: Some(b"hi"), fate: Refused },
    ]
}

async fn outcome(proxy: &Proxy, case: &Case) -> Outcome {
    let mut frames = Frames::to(&proxy.url).await;
    let end = if case.body.is_none() { END_STREAM } else { 0 };
    frames.write(HEADERS, END_HEADERS | end, 1, &block(&case.fields)).await;
    if let Some(body) = case.body {
        frames.write(DATA, END_STREAM, 1, body).await;
    }
    frames.outcome(1).await
}

#[tokio::test]
async fn what_has_no_form_in_http_1_is_refused_or_passes_as_what_it_is() {
    let upstream = Scripted::answering(ANSWER).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "cache.ttl = \"0s\"").await;
    let cases: Vec<Case> = [pseudo_fields(), fields(), bodies()].into_iter().flatten().collect();
    assert!(cases.len() >= 60, "{}", cases.len());
    for case in cases {
        let before = upstream.requests().len();
        let outcome = outcome(&proxy, &case).await;
        // A victim after it gets what it asked for, and nothing else has come by then.
        let victim =
            Http2::to(&proxy.url).await.get_with("/victim", &[("authorization", "Bearer of-the-victim")]).await;
        assert_eq!(victim.text(), "[]", "{}", case.name);
        let seen: Vec<Message> = upstream.requests().split_off(before);
        let lines: Vec<&str> = seen.iter().map(Message::start_line).collect();
        match case.fate {
            Refused => {
                let is_refused = matches!(outcome, Outcome::Reset(_) | Outcome::Gone(_) | Outcome::Answered(400));
                assert!(is_refused, "{}: {outcome:?}", case.name);
                // The body of one came too late to be refused before it was begun; its end never came.
                let own = lines.iter().filter(|line| **line != "GET /victim HTTP/1.1").count();
                assert!(own == 0 || seen.iter().any(|seen| !seen.whole), "{}: {seen:#?}", case.name);
            }
            Passes(line) => {
                assert_eq!(outcome, Outcome::Answered(200), "{}", case.name);
                assert_eq!(lines, [line, "GET /victim HTTP/1.1"], "{}", case.name);
                let body = case.body.unwrap_or_default();
                assert_eq!(seen[0].body, body, "{}", case.name);
            }
        }
        let told = seen.iter().filter(|seen| format!("{seen:?}").contains("of-the-victim")).count();
        assert_eq!(told, 1, "{}", case.name);
    }
}

/// Two requests that differ in what is outside the key: the second gets what the first got, and the upstream was told of
/// nothing outside it; what changes the meaning of the path is another request.
#[tokio::test]
async fn nothing_outside_the_key_gets_into_a_shared_answer() {
    // A list that names its contact, for every path.
    let list = StandIn::start(Options::default()).await.unwrap().list_body("visitor-a");
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", list.len());
    let upstream = Scripted::answering([head.as_bytes(), &list].concat()).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let unkeyed: [(&str, &str); 13] = [
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "192.0.2.66"),
        ("forwarded", "for=192.0.2.66;host=evil.test"),
        ("x-original-url", "/evil"),
        ("x-rewrite-url", "/evil"),
        ("x_forwarded_host", "evil.test"),
        ("x-host", "evil.test"),
        ("accept-language", "evil"),
        ("user-agent", "evil"),
        ("referer", "https://evil.test/"),
        ("te", "trailers"),
        ("x-other", "evil"),
    ];
    for (name, value) in unkeyed {
        // Nobody else has asked for this one.
        let path = LIST.replace("/co/", &format!("/co-{}/", name.replace('_', "-u-")));
        let http2 = Http2::to(&proxy.url).await;
        let first = http2.get_with(&path, &[(name, value)]).await;
        assert!(!first.is_hit(), "{name}");
        let told = upstream.last_request();
        assert!(!told.head.contains("evil") && !told.head.contains("192.0.2.66"), "{name}: {}", told.head);
        assert_eq!(told.field("x-forwarded-proto"), Some("http"), "{name}");
        let second = http2.get(&path).await;
        assert!(second.is_hit(), "{name} is no part of the key: {}, {}", first.cache_status(), second.cache_status());
    }
    let other_authority = {
        let mut frames = Frames::to(&proxy.url).await;
        let mut fields = good("GET", LIST);
        fields[2].1 = b"evil.test".to_vec();
        frames.write(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)).await;
        frames.outcome(1).await
    };
    assert_eq!(other_authority, Outcome::Answered(200));
    assert!(!upstream.last_request().head.contains("evil"), "{}", upstream.last_request().head);
    let http2 = Http2::to(&proxy.url).await;
    assert!(http2.get(LIST).await.is_hit());
    let before = upstream.requests().len();
    for trick in [
        format!("{LIST}.css"),
        format!("{LIST};x=.css"),
        format!("{LIST}%00"),
        format!("{LIST}%2f"),
        format!("{LIST}%2F..%2fx"),
        format!("{LIST}/../x"),
        format!("{LIST}/."),
        format!("/{LIST}"),
        LIST.replace("/contacts/", "//contacts/"),
        LIST.replace("/contacts/", "/./contacts/"),
        LIST.replace("/contacts/", "/%63ontacts/"),
        LIST.replace("/co/", "/co%2fx/../"),
        LIST.to_uppercase(),
    ] {
        for _ in 0..2 {
            let answer = http2.get(&trick).await;
            assert!(!answer.is_hit(), "{trick}");
        }
    }
    assert_eq!(upstream.requests().len() - before, 26, "each went to the upstream, for its reader alone");
}
