//! The head of the plainest list request, read where it lies: nothing of it is copied. Whatever is said in it beyond what
//! [`PlainHead`] has is either of no account for an answer from memory, or makes it a request that is not plain.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use httparse::{Header, Request, Status};

use super::path::canonical_list;
use super::target::is_host;

/// A plain request has no more fields than that.
const MOST_FIELDS: usize = 48;

/// What a plain list request says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlainHead<'a> {
    /// The inbox identifier, which needs no decoding.
    pub inbox: &'a str,
    /// The contact identifier, likewise: a credential.
    pub contact: &'a str,
    /// `Accept-Encoding`.
    pub accept_encoding: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a [u8]>,
    /// `X-Request-Id`.
    pub request_id: Option<&'a [u8]>,
    /// `X-Forwarded-For`, which counts if a trusted proxy says it.
    pub forwarded_for: Option<&'a str>,
    /// It is for a reader from another origin.
    pub has_origin: bool,
}

/// A field that matters for an answer from memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Host,
    AcceptEncoding,
    IfNoneMatch,
    RequestId,
    ForwardedFor,
    Origin,
    /// It is plain if it says `keep-alive`, which is what HTTP/1.1 does anyway.
    Connection,
    /// Whoever says this gets an answer of another kind, or one that is made otherwise.
    Else,
}

/// In lower case. Of all other fields an answer from memory knows nothing, whoever makes it.
const FIELDS: [(&str, Field); 23] = [
    ("host", Field::Host),
    ("accept-encoding", Field::AcceptEncoding),
    ("if-none-match", Field::IfNoneMatch),
    ("x-request-id", Field::RequestId),
    ("x-forwarded-for", Field::ForwardedFor),
    ("origin", Field::Origin),
    ("x-origin", Field::Origin),
    ("connection", Field::Connection),
    // How the message ends, and what comes after it.
    ("content-length", Field::Else),
    ("transfer-encoding", Field::Else),
    ("expect", Field::Else),
    ("upgrade", Field::Else),
    // Whose answer it is.
    ("authorization", Field::Else),
    ("cookie", Field::Else),
    ("api-access-token", Field::Else),
    ("api_access_token", Field::Else),
    ("x-http-method-override", Field::Else),
    ("x-original-url", Field::Else),
    ("x-rewrite-url", Field::Else),
    // By which way it came, and what it is a part of.
    ("via", Field::Else),
    ("forwarded", Field::Else),
    ("traceparent", Field::Else),
    // A date is read: it is rare beside validators.
    ("if-modified-since", Field::Else),
];

/// The lengths of their names, a bit each: most other fields are passed by this.
const LENGTHS: u32 = {
    let (mut lengths, mut at) = (0, 0);
    while at < FIELDS.len() {
        lengths |= 1 << FIELDS[at].0.len();
        at += 1;
    }
    lengths
};

fn field(name: &str) -> Option<Field> {
    if name.len() >= 32 || LENGTHS & (1 << name.len()) == 0 {
        return None;
    }
    let found = FIELDS.iter().find(|(known, _)| known.len() == name.len() && known.eq_ignore_ascii_case(name));
    found.map(|(_, field)| *field)
}

/// A value that a field of letters may have.
fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| text.is_ascii())
}

/// What the bytes that come where a request begins are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning<'a> {
    /// One plain list request from their first to their last.
    Plain(PlainHead<'a>),
    /// Another request, of so many bytes with its body, which may not all have come; or fewer than have.
    Request(usize),
    /// Where the request ends is not told in the plainest way.
    Unclear,
}

impl<'a> Beginning<'a> {
    /// Reads them once.
    pub fn of(bytes: &'a [u8]) -> Self {
        let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; MOST_FIELDS];
        let mut request = Request::new(&mut []);
        let Ok(Status::Complete(length)) = request.parse_with_uninit_headers(bytes, &mut fields) else {
            return Self::Unclear;
        };
        match plain_head(&request).filter(|_| length == bytes.len()) {
            Some(head) => Self::Plain(head),
            None => extent(&request, length).map_or(Self::Unclear, Self::Request),
        }
    }
}

fn plain_head<'a>(request: &Request<'_, 'a>) -> Option<PlainHead<'a>> {
    if request.method != Some("GET") || request.version != Some(1) {
        return None;
    }
    let (Cow::Borrowed(inbox), Cow::Borrowed(contact)) = canonical_list(request.path?)? else { return None };
    let mut head = PlainHead { inbox, contact, ..PlainHead::default() };
    let mut has_host = false;
    for Header { name, value } in request.headers.iter() {
        let Some(field) = field(name) else { continue };
        let is_first = match field {
            Field::Host => is_host(value) && !std::mem::replace(&mut has_host, true),
            Field::AcceptEncoding => head.accept_encoding.replace(text(value)?).is_none(),
            Field::IfNoneMatch => head.if_none_match.replace(value).is_none(),
            Field::RequestId => head.request_id.replace(value).is_none(),
            Field::ForwardedFor => head.forwarded_for.replace(text(value)?).is_none(),
            Field::Origin => {
                head.has_origin = true;
                true
            }
            Field::Connection => value.eq_ignore_ascii_case(b"keep-alive"),
            Field::Else => false,
        };
        if !is_first {
            return None;
        }
    }
    has_host.then_some(head)
}

/// How many bytes a request has, head and body.
fn extent(request: &Request<'_, '_>, head: usize) -> Option<usize> {
    let mut body = None;
    for Header { name, value } in request.headers.iter() {
        if name.eq_ignore_ascii_case("content-length") {
            let digits =
                std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
            if body.replace(digits.parse::<usize>().ok()?).is_some() {
                return None;
            }
        } else if ["transfer-encoding", "upgrade", "expect"].iter().any(|other| name.eq_ignore_ascii_case(other)) {
            return None;
        }
    }
    let goes_on = request.version == Some(1) && request.method != Some("CONNECT");
    goes_on.then(|| head.checked_add(body.unwrap_or(0)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "/public/api/v1/inboxes/in-box/contacts/con:tact/conversations";

    fn plain_head(bytes: &[u8]) -> Option<PlainHead<'_>> {
        match Beginning::of(bytes) {
            Beginning::Plain(head) => Some(head),
            Beginning::Request(_) | Beginning::Unclear => None,
        }
    }

    fn extent(bytes: &[u8]) -> Option<usize> {
        match Beginning::of(bytes) {
            Beginning::Plain(_) => Some(bytes.len()),
            Beginning::Request(extent) => Some(extent),
            Beginning::Unclear => None,
        }
    }

    fn request(fields: &str) -> String {
        format!("GET {TARGET} HTTP/1.1\r\nHost: h.test:80\r\n{fields}\r\n")
    }

    #[test]
    fn a_plain_head_is_read_where_it_lies() {
        let bare = PlainHead { inbox: "in-box", contact: "con:tact", ..PlainHead::default() };
        assert_eq!(plain_head(request("").as_bytes()), Some(bare));
        let all = request(
            "accept: */*\r\nACCEPT-ENCODING: gzip, br\r\nIf-None-Match: W/\"a\", \"b\"\r\nx-request-id: r-1\r\n\
             X-Forwarded-For: 192.0.2.1\r\norigin: https://a.test\r\nx-origin: b\r\nConnection: Keep-Alive\r\n\
             cache-control: no-cache\r\nrange: bytes=0-1\r\nx-anything: at all\r\n",
        );
        let head = PlainHead {
            accept_encoding: Some("gzip, br"),
            if_none_match: Some(b"W/\"a\", \"b\""),
            request_id: Some(b"r-1"),
            forwarded_for: Some("192.0.2.1"),
            has_origin: true,
            ..bare
        };
        assert_eq!(plain_head(all.as_bytes()), Some(head));
    }

    #[test]
    fn whatever_else_it_may_be_is_not_plain() {
        let plain = request("");
        for end in 0..plain.len() {
            assert_eq!(plain_head(&plain.as_bytes()[..end]), None, "{end}");
        }
        assert_eq!(plain_head(format!("{plain}G").as_bytes()), None, "the next one has begun");
        for (name, _) in FIELDS.iter().filter(|(_, field)| *field == Field::Else) {
            assert_eq!(plain_head(request(&format!("{}: x\r\n", name.to_uppercase())).as_bytes()), None, "{name}");
        }
        for twice in ["host: h", "accept-encoding: br", "if-none-match: *", "x-request-id: a", "x-forwarded-for: ::1"] {
            assert_eq!(plain_head(request(&format!("{twice}\r\n{twice}\r\n")).as_bytes()), None, "{twice}");
        }
        for (was, is) in [
            ("GET", "HEAD"),
            ("GET", "POST"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("h.test:80", ""),
            ("h.test:80", "a b"),
            ("Host", "Hose"),
            (TARGET, "http://h.test/public/api/v1/inboxes/a/contacts/b/conversations"),
            ("conversations", "conversations?x=1"),
            ("conversations", "conversations/"),
            ("conversations", "conversations/1"),
            ("con:tact", "con%3Atact"),
            ("con:tact", ""),
            ("in-box", "."),
            ("Host: h.test:80\r\n", "Host: h.test:80\r\nconnection: close\r\n"),
            ("Host: h.test:80\r\n", "Host: h.test:80\r\nconnection: keep-alive, upgrade\r\n"),
            ("Host: h.test:80\r\n", "Host: h.test:80\r\n folded: x\r\n"),
            ("Host: h.test:80\r\n", "Host: h.test:80\r\naccept-encoding: \u{ff}\r\n"),
        ] {
            let other = plain.replacen(was, is, 1);
            assert!(other != plain);
            assert_eq!(plain_head(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_request_ends_where_its_head_says() {
        let head = "POST / HTTP/1.1\r\nhost: h\r\n";
        for (fields, beyond) in [
            ("", Some(0)),
            ("Content-Length: 5\r\n", Some(5)),
            ("content-length: 5\r\ncontent-length: 5\r\n", None),
            ("content-length: +5\r\n", None),
            ("content-length: 5, 5\r\n", None),
            ("content-length: 99999999999999999999\r\n", None),
            ("content-length: 18446744073709551615\r\n", None),
            ("Transfer-Encoding: chunked\r\n", None),
            ("upgrade: websocket\r\n", None),
            ("expect: 100-continue\r\n", None),
        ] {
            let whole = format!("{head}{fields}\r\n");
            let end = |bytes: &str| extent(bytes.as_bytes());
            assert_eq!(end(&whole), beyond.map(|beyond| whole.len() + beyond), "{fields}");
            assert_eq!(end(&format!("{whole}abc")), end(&whole));
            assert_eq!(end(&whole[..whole.len() - 1]), None);
        }
        assert_eq!(extent(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n"), None);
        assert_eq!(extent(b"GET / HTTP/1.0\r\n\r\n"), None, "the connection ends with it");
    }
}
