//! The form one answer is sent in: ETag, 304, CORS.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use siphasher::sip128::SipHasher13;

use super::headers::{X_REQUEST_ID, append_via, has_origin, remove_hop_by_hop};

/// An answer made ready to be sent any number of times.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// 200, or another status that is authoritative.
    pub status: StatusCode,
    /// What every reader gets.
    pub head: HeaderMap,
    /// What readers from another origin get besides, if it is the same for all of them.
    pub cors: Option<HeaderMap>,
    /// The whole body.
    pub body: Bytes,
    /// Whether the body is the upstream's.
    changed: bool,
    /// The upstream's validator, if the body is no longer the upstream's.
    upstream_etag: Option<HeaderValue>,
}

/// Fields that are made anew for every answer, or belong to one request only.
const NOT_KEPT: [HeaderName; 6] = [
    header::AGE,
    header::CONTENT_LENGTH,
    header::SET_COOKIE,
    super::headers::CACHE_STATUS,
    X_REQUEST_ID,
    HeaderName::from_static("x-runtime"),
];

/// Fields of a 200 that a 304 does not have: the upstream leaves out these two (`api.md` 6.2).
const NOT_IN_304: [HeaderName; 2] = [header::CONTENT_TYPE, header::CONTENT_LENGTH];

/// Fields that hold of the upstream's body and of no other.
const OF_THE_UPSTREAMS_BODY: [&str; 5] = ["last-modified", "content-digest", "repr-digest", "digest", "content-md5"];

impl Prepared {
    /// Makes ready what the upstream answered to a shared fetch, which had an `Origin`.
    pub fn new(status: StatusCode, mut head: HeaderMap, body: Bytes, version: http::Version) -> Self {
        remove_hop_by_hop(&mut head);
        for name in &NOT_KEPT {
            head.remove(name);
        }
        let cors = split_cors(&mut head);
        append_via(&mut head, version);
        Self { status, head, cors, body, changed: false, upstream_etag: None }
    }

    /// Whether this reader may have it: one from another origin may not, if the upstream tells origins apart.
    pub fn serves(&self, asked: &HeaderMap) -> bool {
        self.cors.is_some() || !has_origin(asked)
    }

    /// The body is no longer the upstream's: it has a validator of our own, from [`own_etag`].
    pub fn made_anew(&mut self, etag: HeaderValue) {
        self.upstream_etag = self.head.insert(header::ETAG, etag);
        self.changed = true;
        // What describes the upstream's body would be wrong here (RFC 9110 section 8.8.2.2, RFC 9530).
        for name in OF_THE_UPSTREAMS_BODY {
            self.head.remove(name);
        }
    }

    /// The validator by which the upstream knows what this was made from.
    pub fn upstream_etag(&self) -> Option<&HeaderValue> {
        if self.changed { self.upstream_etag.as_ref() } else { self.head.get(header::ETAG) }
    }

    /// The answer to one reader: 200 or 304, with CORS if the request has an origin, without a body for `HEAD`.
    pub fn respond(&self, method: &Method, asked: &HeaderMap) -> Response<Bytes> {
        let mut head = self.head.clone();
        if has_origin(asked) && let Some(cors) = &self.cors {
            for (name, value) in cors {
                head.append(name, value.clone());
            }
        }
        let mut response = Response::new(Bytes::new());
        if self.status == StatusCode::OK && is_not_modified(&self.head, asked) {
            for name in &NOT_IN_304 {
                head.remove(name);
            }
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.status_mut() = self.status;
            // Set for HEAD too: it says what GET would send (RFC 9110 section 8.6).
            head.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
            if *method != Method::HEAD {
                *response.body_mut() = self.body.clone();
            }
        }
        *response.headers_mut() = head;
        response
    }

    /// Bytes it holds in memory, about.
    pub fn weight(&self) -> usize {
        let fields = |map: &HeaderMap| map.iter().map(|(name, value)| name.as_str().len() + value.len() + 96).sum::<usize>();
        fields(&self.head) + self.cors.as_ref().map_or(0, fields) + self.body.len()
    }
}

/// Takes the CORS fields out of a head; gives them if they are the same for every origin.
fn split_cors(head: &mut HeaderMap) -> Option<HeaderMap> {
    let names: Vec<HeaderName> =
        head.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    let mut cors = HeaderMap::with_capacity(names.len());
    for name in names {
        for value in head.get_all(&name) {
            cors.append(name.clone(), value.clone());
        }
        head.remove(&name);
    }
    let for_all = cors.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|origin| origin == "*");
    (for_all && !cors.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS)).then_some(cors)
}

/// Whether the client has this answer already (RFC 9110 section 13.2.2: `If-None-Match` first, else
/// `If-Modified-Since`).
pub fn is_not_modified(kept: &HeaderMap, asked: &HeaderMap) -> bool {
    if asked.contains_key(header::IF_NONE_MATCH) {
        let etag = kept.get(header::ETAG).map(HeaderValue::as_bytes);
        return asked.get_all(header::IF_NONE_MATCH).iter().any(|list| matches_weakly(list.as_bytes(), etag));
    }
    let date = |map: &HeaderMap, name| -> Option<_> { httpdate::parse_http_date(map.get(name)?.to_str().ok()?).ok() };
    match (date(asked, header::IF_MODIFIED_SINCE), date(kept, header::LAST_MODIFIED)) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// Weak comparison with a list of entity tags; `*` means whatever there is (RFC 9110 sections 8.8.3.2 and 13.1.2).
fn matches_weakly(list: &[u8], etag: Option<&[u8]>) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    let wanted = etag.strip_prefix(b"W/").unwrap_or(etag);
    let mut rest = list;
    // A comma may stand inside the quotes, so the list is walked tag by tag.
    loop {
        let Some(start) = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b',')) else { return false };
        rest = &rest[start..];
        let tag = rest.strip_prefix(b"W/").unwrap_or(rest);
        if tag.first() != Some(&b'"') {
            return false;
        }
        let Some(end) = tag[1..].iter().position(|byte| *byte == b'"') else { return false };
        if tag[..end + 2] == *wanted {
            return true;
        }
        rest = &tag[end + 2..];
    }
}

/// A weak validator of our own, from a hash that every replica makes alike. Reads the whole body.
pub fn own_etag(body: &[u8]) -> HeaderValue {
    let hash = u128::from(SipHasher13::new().hash(body));
    HeaderValue::try_from(format!("W/\"{hash:032x}\"")).expect("hex digits are a header value")
}

/// Whether a validator is made from the body alone: a strong one, or the hash that the upstream's framework makes
/// (`W/` and 32 hex digits, `api.md` 6.1). Only such a one may revalidate an answer that is known to be out of date.
pub fn is_made_from_body(etag: &HeaderValue) -> bool {
    match etag.as_bytes() {
        [b'W', b'/', b'"', hash @ .., b'"'] => hash.len() == 32 && hash.iter().all(u8::is_ascii_hexdigit),
        [b'"', .., b'"'] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn prepared(fields: &[(&'static str, &'static str)]) -> Prepared {
        Prepared::new(StatusCode::OK, map(fields), Bytes::from_static(b"[1]"), http::Version::HTTP_11)
    }

    const STOCK: &[(&str, &str)] = &[
        ("content-type", "application/json; charset=utf-8"),
        ("etag", "W/\"abc\""),
        ("vary", "Origin"),
        ("x-runtime", "0.1"),
        ("x-request-id", "leader"),
        ("set-cookie", "a=b"),
        ("connection", "keep-alive"),
        ("access-control-allow-origin", "*"),
        ("access-control-max-age", "7200"),
    ];

    #[test]
    fn what_belongs_to_one_request_is_not_kept() {
        let response = prepared(STOCK).respond(&Method::GET, &map(&[]));
        let expected = map(&[
            ("content-type", "application/json; charset=utf-8"),
            ("etag", "W/\"abc\""),
            ("vary", "Origin"),
            ("via", "1.1 anteroom"),
            ("content-length", "3"),
        ]);
        assert_eq!(response.headers(), &expected);
        assert_eq!(response.body(), "[1]");
    }

    #[test]
    fn readers_with_an_origin_get_the_cors_fields_and_others_do_not() {
        for (name, expected) in [("origin", true), ("x-origin", true), ("accept", false)] {
            let response = prepared(STOCK).respond(&Method::GET, &map(&[(name, "https://a.test")]));
            assert_eq!(response.headers().contains_key("access-control-allow-origin"), expected, "{name}");
        }
    }

    #[test]
    fn answers_that_differ_by_origin_are_not_for_readers_with_one() {
        let origin = map(&[("origin", "https://a.test")]);
        assert!(prepared(STOCK).serves(&origin));
        for fields in [
            &[("access-control-allow-origin", "https://a.test")][..],
            &[("access-control-allow-origin", "*"), ("access-control-allow-credentials", "true")],
            &[],
        ] {
            assert!(!prepared(fields).serves(&origin), "{fields:?}");
            assert!(prepared(fields).serves(&map(&[])), "{fields:?}");
        }
    }

    /// RFC 9110 section 13.1.2: weak comparison, lists, `*`.
    #[test]
    fn if_none_match() {
        for (asked, etag, expected) in [
            ("W/\"abc\"", "W/\"abc\"", true),
            ("\"abc\"", "W/\"abc\"", true),
            ("W/\"abc\"", "\"abc\"", true),
            ("\"x\", W/\"abc\" , \"y\"", "W/\"abc\"", true),
            ("\"a,b\", \"abc\"", "\"abc\"", true),
            ("\"a,b\"", "\"a,b\"", true),
            (" * ", "W/\"abc\"", true),
            ("\"ab\"", "W/\"abc\"", false),
            ("abc", "W/\"abc\"", false),
            ("\"abc", "W/\"abc\"", false),
            ("", "W/\"abc\"", false),
            ("w/\"abc\"", "W/\"abc\"", false),
        ] {
            let kept = map(&[("etag", etag)]);
            let asked_fields = map(&[("if-none-match", asked)]);
            assert_eq!(is_not_modified(&kept, &asked_fields), expected, "{asked} against {etag}");
        }
        assert!(is_not_modified(&map(&[]), &map(&[("if-none-match", "*")])));
        assert!(!is_not_modified(&map(&[]), &map(&[("if-none-match", "\"a\"")])), "nothing to compare with");
    }

    /// RFC 9110 section 13.1.3: only without `If-None-Match`.
    #[test]
    fn if_modified_since() {
        let kept = map(&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("etag", "\"a\"")]);
        for (since, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("Sun, 06 Nov 1994 08:49:36 GMT", false),
            ("yesterday", false),
        ] {
            assert_eq!(is_not_modified(&kept, &map(&[("if-modified-since", since)])), expected, "{since}");
        }
        let both = map(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"), ("if-none-match", "\"b\"")]);
        assert!(!is_not_modified(&kept, &both));
        assert!(!is_not_modified(&map(&[]), &map(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")])));
    }

    #[test]
    fn a_304_has_no_content_fields_and_head_no_body() {
        let response = prepared(STOCK).respond(&Method::GET, &map(&[("if-none-match", "\"abc\"")]));
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert!(response.body().is_empty());
        assert!(!response.headers().contains_key("content-length") && !response.headers().contains_key("content-type"));
        assert_eq!(response.headers()["etag"], "W/\"abc\"");
        let response = prepared(STOCK).respond(&Method::HEAD, &map(&[]));
        assert_eq!((response.headers()["content-length"].as_bytes(), response.body().len()), (&b"3"[..], 0));
    }

    #[test]
    fn validators_made_from_the_body() {
        for (etag, expected) in [
            ("W/\"4f53cda18c2baa0c0354bb5f9a3ecbe5\"", true),
            ("\"strong\"", true),
            ("W/\"v17\"", false),
            ("W/\"4f53cda18c2baa0c0354bb5f9a3ecbeg\"", false),
            ("odd", false),
        ] {
            assert_eq!(is_made_from_body(&HeaderValue::from_static(etag)), expected, "{etag}");
        }
    }
}
