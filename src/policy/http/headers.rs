//! What may cross the proxy, and what it adds.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Version};

use super::encoding::coding_of;

/// The name of a request in logs on both sides.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// RFC 9211.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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

/// What the upstream is told of the client's side.
#[derive(Clone, Debug)]
pub struct ClientSide<'a> {
    /// The peer of the client's connection.
    pub peer: IpAddr,
    /// `Host` as the client sent it.
    pub host: Option<HeaderValue>,
    /// The version the client spoke.
    pub version: Version,
    /// The request's id.
    pub request_id: &'a HeaderValue,
}

/// Adds to a request towards the upstream whom it is for: `Host`, `X-Forwarded-*`, `Forwarded` (RFC 7239), `Via`
/// (RFC 9110 section 7.6.3) and the request's id.
///
/// The public listener is plain HTTP, so the protocol is `http`, whatever the client claims.
pub fn forward(headers: &mut HeaderMap, upstream: &Authority, client: &ClientSide<'_>) {
    let host = HeaderValue::try_from(upstream.as_str()).expect("an authority is a header value");
    headers.insert(header::HOST, host);
    headers.insert(X_FORWARDED_FOR, forwarded_for(headers, client.peer));
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    let mut forwarded = match client.peer {
        IpAddr::V4(peer) => format!("for={peer}"),
        IpAddr::V6(peer) => format!("for=\"[{peer}]\""),
    };
    headers.remove(X_FORWARDED_HOST);
    if let Some(host) = &client.host {
        headers.insert(X_FORWARDED_HOST, host.clone());
        if let Some(host) = host.to_str().ok().filter(|host| !host.contains(['"', '\\'])) {
            let _ = write!(forwarded, ";host=\"{host}\"");
        }
    }
    forwarded.push_str(";proto=http");
    headers.insert(header::FORWARDED, appended(headers, &header::FORWARDED, &forwarded));
    append_via(headers, client.version);
    headers.insert(X_REQUEST_ID, client.request_id.clone());
}

/// Adds this proxy to `Via`, with the version in which the message was received.
pub fn append_via(headers: &mut HeaderMap, version: Version) {
    let via = if version == Version::HTTP_10 { "1.0 anteroom" } else { "1.1 anteroom" };
    headers.append(header::VIA, HeaderValue::from_static(via));
}

/// The list of addresses of `X-Forwarded-For`, with the peer's added.
pub fn forwarded_for(headers: &HeaderMap, peer: IpAddr) -> HeaderValue {
    appended(headers, &X_FORWARDED_FOR, &peer.to_string())
}

/// Who counts as one client where clients take turns: whoever connected. Behind a proxy of one's own, which connects from
/// a private address, whoever that proxy says it was: the last address, since all before it are what the client wrote.
/// Of IPv6 the network counts (RFC 6177): one customer has all of its addresses.
pub fn client_of(headers: &HeaderMap, peer: IpAddr) -> IpAddr {
    let last = headers.get_all(&X_FORWARDED_FOR).iter().next_back();
    let named = last.and_then(|list| list.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    let client = named.filter(|_: &IpAddr| is_private(peer)).unwrap_or(peer);
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_private() || address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

fn appended(headers: &HeaderMap, name: &HeaderName, value: &str) -> HeaderValue {
    let before: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    let list = if before.is_empty() { value.to_owned() } else { format!("{}, {value}", before.join(", ")) };
    HeaderValue::try_from(list).expect("addresses and hosts are header values")
}

/// The client's request id if it is one that the upstream would echo unchanged (`api.md` 6.1).
pub fn usable_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(X_REQUEST_ID)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'@');
    let fits = (1..=255).contains(&value.len()) && value.as_bytes().iter().all(plain);
    fits.then(|| value.clone())
}

/// The trace id of a valid `traceparent` (W3C Trace Context, section 3.2), in its only form: 32 lower-case hex digits. So
/// nothing else that a client may write there can get into the log.
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("traceparent").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let value = value.to_str().ok()?;
    let (fields, rest) = (value.get(..55)?, &value[55..]);
    let hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
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
    headers.contains_key(header::ORIGIN) || headers.contains_key("x-origin")
}

/// The CORS fields that the upstream's stock configuration gives to every answer (`api.md` 6.6): for errors of our
/// own, which a browser could not read without them.
pub fn stock_cors(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(""));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
}

/// Whether anybody may have this answer: its end can be told from a broken connection, its coding is known, and it
/// does not vary by what a shared fetch leaves out.
pub fn is_shareable(status: StatusCode, headers: &HeaderMap) -> bool {
    let framed =
        headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    let decodable = coding_of(headers).is_ok();
    let known = ["origin", "accept-encoding", "cookie", "authorization"];
    let varies = headers.get_all(header::VARY).iter().any(|vary| match vary.to_str() {
        Ok(vary) => {
            vary.split(',').map(str::trim).any(|name| !known.iter().any(|known| known.eq_ignore_ascii_case(name)))
        }
        Err(_) => true,
    });
    (framed || status == StatusCode::NO_CONTENT) && decodable && !varies
}

/// Whether `Cache-Control` has this directive (RFC 9111 section 5.2).
pub fn has_directive(headers: &HeaderMap, name: &str) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|directive| directive.trim().eq_ignore_ascii_case(name))
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

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
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
    fn the_upstream_learns_whom_a_request_is_for() {
        let mut headers = map(&[("host", "front.test"), ("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "https")]);
        let id = HeaderValue::from_static("abc");
        let client = ClientSide {
            peer: "2001:db8::1".parse().unwrap(),
            host: headers.get("host").cloned(),
            version: Version::HTTP_11,
            request_id: &id,
        };
        forward(&mut headers, &Authority::from_static("up.test:3000"), &client);
        let expected = map(&[
            ("host", "up.test:3000"),
            ("x-forwarded-for", "10.0.0.1, 2001:db8::1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "front.test"),
            ("forwarded", "for=\"[2001:db8::1]\";host=\"front.test\";proto=http"),
            ("via", "1.1 anteroom"),
            ("x-request-id", "abc"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_client_is_who_connected_or_who_ones_own_proxy_names() {
        for (peer, fields, client) in [
            ("203.0.113.9", &[][..], "203.0.113.9"),
            ("203.0.113.9", &[("x-forwarded-for", "198.51.100.1")], "203.0.113.9"),
            ("10.0.0.2", &[("x-forwarded-for", "6.6.6.6, 198.51.100.1")], "198.51.100.1"),
            ("127.0.0.1", &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "198.51.100.2")], "198.51.100.2"),
            ("127.0.0.1", &[("x-forwarded-for", "198.51.100.2, unknown")], "127.0.0.1"),
            ("fd00::2", &[("x-forwarded-for", "2001:db8:1:2:3:4:5:6")], "2001:db8:1:2::"),
            ("::ffff:10.0.0.2", &[("x-forwarded-for", "::ffff:198.51.100.1")], "198.51.100.1"),
            ("2001:db8:1:2:9::", &[], "2001:db8:1:2::"),
        ] {
            let client: IpAddr = client.parse().unwrap();
            assert_eq!(client_of(&map(fields), peer.parse().unwrap()), client, "{peer} {fields:?}");
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
