//! What may cross the proxy, and what it adds.

use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode, Version};

use super::encoding::coding_of;
use super::fields::has_one_of;
use super::framing::has_known_end;

/// The name of a request in logs on both sides.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// RFC 9211.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// `Proxy-Status` (RFC 9209): why there is no answer of the upstream.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// W3C Trace Context.
/// Which trace a request belongs to (W3C Trace Context).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What the programs of a trace have added to it (W3C Trace Context, section 3.3).
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// What rack-cors reads beside `Origin`.
const X_ORIGIN: HeaderName = HeaderName::from_static("x-origin");

/// Fields that mean one connection only (RFC 9110 section 7.6.1, and those for proxies of section 11.7).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Whether a body says that it is JSON, with whatever parameters (RFC 9110 section 8.3.1).
pub fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Removes the fields that mean one connection only, and those that `Connection` names.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none of them: names are compared faster than they are looked for.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|token| HeaderName::try_from(token.trim()).ok())
            // These frame or address the message: no sender may have them removed.
            .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // RFC 9112 section 6.3: the length beside it counts for nothing, and would cut the body short on the next hop.
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Adds this proxy to `Via` of an answer, with the version in which it was received.
pub fn append_via(headers: &mut HeaderMap, version: Version) {
    let via = if version == Version::HTTP_10 { "1.0 anteroom" } else { "1.1 anteroom" };
    headers.append(header::VIA, HeaderValue::from_static(via));
}

/// The client's request id if it is one that the upstream would echo unchanged (`api.md` 6.1).
pub fn usable_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    if !has_one_of(headers, &[X_REQUEST_ID]) {
        return None;
    }
    headers.get(X_REQUEST_ID).filter(|value| is_usable_request_id(value.as_bytes())).cloned()
}

/// Whether the upstream would echo this request id unchanged.
pub fn is_usable_request_id(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'@');
    (1..=255).contains(&id.len()) && id.iter().all(plain)
}

/// Digits of a number in [`hex`].
pub const DIGITS: usize = 16;

/// A number in hexadecimal digits, all of them.
pub fn hex(number: u64) -> [u8; DIGITS] {
    let bytes = number.to_be_bytes();
    std::array::from_fn(|at| {
        let byte = bytes[at / 2];
        b"0123456789abcdef"[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 15 })]
    })
}

/// The trace id of a valid `traceparent` (W3C Trace Context, section 3.2), in its only form: 32 lower-case hex digits. So
/// nothing else that a client may write there can get into the log.
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    if !has_one_of(headers, &[TRACEPARENT]) {
        return None;
    }
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let value = value.to_str().ok()?;
    let (fields, rest) = (value.get(..55)?, &value[55..]);
    let hex =
        |part: &str, length| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let something = |part: &str| part.bytes().any(|byte| byte != b'0');
    let mut parts = fields.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let valid = hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && something(trace)
        && hex(parent, 16)
        && something(parent)
        && hex(flags, 2)
        // Later versions may say more.
        && (rest.is_empty() || version != "00" && rest.starts_with('-'));
    valid.then_some(trace)
}

/// Whether the upstream takes a request for one of another origin (rack-cors reads both fields, `api.md` 6.6).
pub fn has_origin(headers: &HeaderMap) -> bool {
    has_one_of(headers, &[header::ORIGIN, X_ORIGIN])
}

/// The CORS fields that the upstream's stock configuration gives to every answer (`api.md` 6.6): for errors of our
/// own, which a browser could not read without them.
pub fn stock_cors(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    expose(headers);
}

/// Lets a page of another origin read the fields that this proxy adds, if it may read the answer at all (Fetch standard,
/// "CORS-safelisted response-header name"). What the upstream exposes itself stays as it is; that the stock one exposes
/// nothing is no wish of its own (`api.md` 6.6).
pub fn expose(headers: &mut HeaderMap) {
    let is_open = headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    let mut exposed = headers.get_all(header::ACCESS_CONTROL_EXPOSE_HEADERS).iter();
    if is_open && exposed.all(|names| names.as_bytes().trim_ascii().is_empty()) {
        let ours = HeaderValue::from_static("Age, Cache-Status, X-Request-Id");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ours);
    }
}

/// Whether anybody may have this answer: its end can be told from a broken connection, its coding is known, and it
/// does not vary by what a shared fetch leaves out.
pub fn is_shareable(status: StatusCode, version: Version, headers: &HeaderMap) -> bool {
    let decodable = coding_of(headers).is_ok();
    let varies = varies_beyond(headers, &["origin", "accept-encoding", "cookie", "authorization"]);
    (has_known_end(version, headers) || status == StatusCode::NO_CONTENT) && decodable && !varies
}

/// Whether an answer varies by another field than these, or by what cannot be read.
pub fn varies_beyond(headers: &HeaderMap, known: &[&str]) -> bool {
    headers.get_all(header::VARY).iter().any(|vary| match vary.to_str() {
        Ok(vary) => {
            vary.split(',').map(str::trim).any(|name| !known.iter().any(|known| known.eq_ignore_ascii_case(name)))
        }
        Err(_) => true,
    })
}

/// Whether `Cache-Control` has this directive (RFC 9111 section 5.2), whatever its argument.
pub fn has_directive(headers: &HeaderMap, name: &str) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directive = |part: &str| part.split('=').next().unwrap_or_default().trim().eq_ignore_ascii_case(name);
    values.flat_map(|value| value.split(',')).any(directive)
}

/// How old an answer was when it came (RFC 9111 section 5.1): of several ages the first counts, and one that cannot be read is none; section 1.2.2: more
/// seconds than anybody counts are 2^31.
pub fn initial_age(headers: &HeaderMap) -> Duration {
    const MAX: u64 = 1 << 31;
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok()).unwrap_or_default();
    let age = age.split(',').next().unwrap_or_default().trim();
    let is_number = !age.is_empty() && age.bytes().all(|byte| byte.is_ascii_digit());
    Duration::from_secs(if is_number { age.parse().unwrap_or(MAX).min(MAX) } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    #[test]
    fn a_number_has_all_its_digits() {
        assert_eq!(&hex(0x0123_4567_89ab_cdef), b"0123456789abcdef");
        assert_eq!(&hex(0xab), b"00000000000000ab");
    }

    /// RFC 9110 section 7.6.1.
    #[test]
    fn connection_fields_and_those_they_name_stay_here() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("connection", "content-length, host"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-secret", "1"),
            ("x-kept", "1"),
            ("host", "h"),
            ("content-length", "3"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("x-kept", "1"), ("host", "h"), ("content-length", "3")]));
    }

    #[test]
    fn a_length_beside_chunks_is_not_passed_on() {
        let mut headers = map(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[]));
    }

    #[test]
    fn what_is_open_to_pages_exposes_our_fields_unless_it_exposes_others() {
        const OURS: (&str, &str) = ("access-control-expose-headers", "Age, Cache-Status, X-Request-Id");
        let open = ("access-control-allow-origin", "https://a.test");
        for (given, expected) in [
            (&[][..], &[][..]),
            (&[open], &[open, OURS]),
            (&[open, ("access-control-expose-headers", " ")], &[open, OURS]),
            (&[open, ("access-control-expose-headers", "*")], &[open, ("access-control-expose-headers", "*")]),
            (&[("access-control-expose-headers", "")], &[("access-control-expose-headers", "")]),
        ] {
            let mut headers = map(given);
            expose(&mut headers);
            assert_eq!(headers, map(expected), "{given:?}");
        }
    }

    #[test]
    fn a_trace_id_is_taken_from_a_valid_traceparent_alone() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let trace_of = |value: &'static str| trace_id(&map(&[("traceparent", value)])).map(str::to_owned);
        for good in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-is-to-come",
        ] {
            assert_eq!(trace_of(good).as_deref(), Some(TRACE), "{good}");
        }
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-somebody-s-secret-identifier-000-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        ] {
            assert_eq!(trace_of(bad), None, "{bad}");
        }
        let strange = HeaderMap::from_iter([(
            HeaderName::from_static("traceparent"),
            HeaderValue::from_bytes("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-\u{e9}".as_bytes()).unwrap(),
        )]);
        assert_eq!(trace_id(&strange), None);
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace_id(&map(&[("traceparent", good), ("traceparent", good)])), None, "which one?");
    }

    #[test]
    fn a_request_id_that_the_upstream_would_change_is_not_taken() {
        assert!(usable_request_id(&map(&[("x-request-id", "aZ0_-@")])).is_some());
        for bad in ["", "a b", "a/b", "a\"b"] {
            assert!(usable_request_id(&map(&[("x-request-id", bad)])).is_none(), "{bad:?}");
        }
    }
}
