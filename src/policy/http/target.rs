//! Whom a request is addressed to: the form of its target, and its `Host` (RFC 9112 section 3.2) or `:authority` (RFC 9113
//! section 8.3.1).

use std::net::Ipv6Addr;

use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Version, header};

use super::route::Refusal;

/// Why a request is not understood, if it is not: exactly one `Host` that is a host (before HTTP/1.1 it could be left
/// out, and HTTP/2 has `:authority` for it, which it may not contradict), and a target in the form that its method has.
pub fn refuse(head: &Parts) -> Option<Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let authority = head.uri.authority().filter(|_| head.version == Version::HTTP_2);
    let well = match (hosts.next(), hosts.next()) {
        (None, _) => head.version < Version::HTTP_11 || authority.is_some(),
        (Some(host), None) => {
            let agrees = |authority: &Authority| authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes());
            is_host(host.as_bytes()) && authority.is_none_or(agrees)
        }
        _ => false,
    };
    if !well {
        return Some(Refusal::Host);
    }
    let uri = &head.uri;
    let is_path = uri.path().starts_with('/') || uri.path() == "*" && head.method == Method::OPTIONS;
    let well = match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) => {
            let is_http = *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
            is_http && is_host(authority.as_str().as_bytes()) && is_path
        }
        // The authority form is CONNECT's, which is refused for what it is.
        (None, Some(_)) => head.method == Method::CONNECT,
        _ => is_path,
    };
    (!well).then_some(Refusal::Target)
}

/// The host that a request was sent to: that of a target in absolute form, whatever `Host` says (section 3.2.2).
pub fn host(head: &Parts) -> Option<HeaderValue> {
    match head.uri.authority().map(Authority::as_str) {
        Some(authority) => HeaderValue::try_from(authority).ok(),
        None => head.headers.get(header::HOST).cloned(),
    }
}

/// Whether an authority is a host that can be connected to, and a port if it names one: no user, no port 0.
pub fn is_reachable(authority: &Authority) -> bool {
    let port = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, port)| port).rsplit_once(':');
    is_host(authority.as_str().as_bytes()) && port.is_none_or(|_| authority.port_u16().is_some_and(|port| port > 0))
}

/// A name or an address, and a port if it has one. Of what RFC 3986 section 3.2.2 allows in names, what no name in use
/// has is left out: commas make lists, semicolons end a part of `Forwarded`, and percent signs mean anything.
pub(super) fn is_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => ("", port),
        Some(_) => return false,
        None => match host.bytes().position(|byte| byte == b':') {
            Some(colon) => host.split_at(colon),
            None => (host, ""),
        },
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok());
    (host.starts_with('[') || !name.is_empty() && name.bytes().all(plain))
        && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_connected_to_is_a_host_with_a_port_that_is_one() {
        for (text, expected) in [
            ("h", true),
            ("h:1", true),
            ("[::1]", true),
            ("[::1]:65535", true),
            ("h:", false),
            ("h:0", false),
            ("h:65536", false),
            ("[::1]:0", false),
            ("u@h", false),
            (":1", false),
        ] {
            let authority = Authority::try_from(text);
            assert_eq!(authority.as_ref().is_ok_and(is_reachable), expected, "{text}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port_or_without() {
        for good in
            ["h", "front.test", "front.test:8080", "a_b-c.test.", "127.0.0.1:80", "[::1]", "[2001:db8::1]:80", "h:"]
        {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "u@h",
            "u:p@h",
            "a,b",
            "a;b",
            "a\"b",
            "a\\b",
            "a%2Fb",
            "h:x",
            "h:-1",
            "h:65536",
            "h:80:80",
            "[::1",
            "[]",
            "[::1]x",
            "[h]",
            "[::1%25eth0]",
            "::1",
            "\u{e9}",
            "a\tb",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad:?}");
        }
        assert!(!is_host(b"\xff"));
    }

    #[test]
    fn an_authority_is_the_host_and_nothing_contradicts_it() {
        for (target, host, refusal) in [
            ("https://front.test/a", None, None),
            ("https://front.test/a", Some("front.test"), None),
            ("https://front.test/a", Some("FRONT.test"), None),
            ("https://front.test/a", Some("other.test"), Some(Refusal::Host)),
            ("https://front.test/a", Some("front.test:443"), Some(Refusal::Host)),
            ("https://u@front.test/a", None, Some(Refusal::Target)),
            ("https://u@front.test/a", Some("u@front.test"), Some(Refusal::Host)),
            ("ftp://front.test/a", None, Some(Refusal::Target)),
            ("/a", Some("front.test"), None),
            ("/a", None, Some(Refusal::Host)),
        ] {
            let request = http::Request::builder().version(Version::HTTP_2).uri(target);
            let request = host.into_iter().fold(request, |request, host| request.header("host", host));
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(refuse(&head), refusal, "{target} {host:?}");
        }
    }

    #[test]
    fn the_form_of_a_target_belongs_to_its_method_and_tells_the_host() {
        for (method, target, well, told) in [
            ("GET", "/a", true, Some("front.test")),
            ("GET", "//a", true, Some("front.test")),
            ("GET", "http://other.test/a", true, Some("other.test")),
            ("GET", "https://other.test:8443", true, Some("other.test:8443")),
            ("GET", "http://u@other.test/", false, None),
            ("GET", "ftp://other.test/", false, None),
            ("OPTIONS", "*", true, Some("front.test")),
            ("GET", "*", false, None),
            ("GET", "other.test", false, None),
            ("GET", "other.test:443", false, None),
            ("POST", "other.test:443", false, None),
            ("OPTIONS", "other.test:443", false, None),
            ("CONNECT", "other.test:443", true, Some("other.test:443")),
        ] {
            let request = http::Request::builder().method(method).uri(target).header("host", "front.test");
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(refuse(&head), (!well).then_some(Refusal::Target), "{method} {target}");
            if well {
                assert_eq!(host(&head).as_ref().map(|host| host.to_str().unwrap()), told, "{method} {target}");
            }
        }
    }
}
