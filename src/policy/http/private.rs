//! Who may see the pages of the private listener. No page of another site may: it could let its own name lead to this machine
//! (DNS rebinding), and would then read what whoever looks at it may read.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use std::net::IpAddr;

/// Names that no stranger can have: none of these ends is given out (RFC 6761 section 6.3; Kubernetes; ICANN of `internal`).
const NOBODYS: [&str; 4] = [".localhost", ".svc", ".cluster.local", ".internal"];

/// Why a request is not answered that asks for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Its name for this machine may be a stranger's.
    Name,
    /// A browser sends it for a page of another site.
    Site,
}

/// Why a request is not answered that asks for a page, if it is not.
pub fn foreign(head: &Parts) -> Option<Foreign> {
    let hosts = head.headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let mut hosts = hosts.chain(head.uri.authority().map(|authority| authority.as_str().as_bytes()));
    if !hosts.all(is_own_name) {
        return Some(Foreign::Name);
    }
    is_of_another_site(&head.headers).then_some(Foreign::Site)
}

/// An address, a name without a dot (of this machine, or of a service beside it), or one that no stranger can have.
fn is_own_name(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok() || !name.contains('.') || NOBODYS.iter().any(|end| name.ends_with(end))
}

/// What browsers say of it (Fetch Metadata), but for a link that somebody follows.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|said| said.as_bytes() == value.as_bytes());
    let is_from_elsewhere = is("sec-fetch-site", "cross-site") || is("sec-fetch-site", "same-site");
    is_from_elsewhere && !(is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document"))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(target: &str, fields: &[(&str, &str)]) -> Option<Foreign> {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        foreign(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_name_that_a_stranger_may_have_is_refused() {
        for host in [
            "localhost",
            "LOCALHOST:9180",
            "app.localhost",
            "127.0.0.1:9180",
            "10.0.0.7",
            "[::1]:9180",
            "anteroom:9180",
            "anteroom-admin.chat.svc:9180",
            "anteroom-admin.chat.svc.cluster.local.",
            "host.docker.internal:9180",
        ] {
            assert_eq!(asked("/", &[("host", host)]), None, "{host}");
        }
        for host in [
            "chat.example",
            "a.evil.test:9180",
            "127.0.0.1.evil.test",
            "localhost.evil.test",
            "evil.svc.test",
            "",
            "a b",
        ] {
            assert_eq!(asked("/", &[("host", host)]), Some(Foreign::Name), "{host}");
        }
        assert_eq!(asked("/", &[]), None, "no browser leaves it out");
        assert_eq!(asked("/", &[("host", "localhost"), ("host", "evil.test")]), Some(Foreign::Name));
        assert_eq!(asked("http://evil.test/", &[("host", "localhost")]), Some(Foreign::Name));
    }

    #[test]
    fn a_page_of_another_site_asks_for_nothing_and_may_link_here() {
        let (site, mode, dest) = ("sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest");
        for (fields, expected) in [
            (&[(site, "none"), (mode, "navigate"), (dest, "document")][..], None),
            (&[(site, "same-origin"), (mode, "cors"), (dest, "empty")], None),
            (&[(site, "cross-site"), (mode, "navigate"), (dest, "document")], None),
            (&[(site, "cross-site"), (mode, "navigate"), (dest, "iframe")], Some(Foreign::Site)),
            (&[(site, "cross-site"), (mode, "no-cors"), (dest, "image")], Some(Foreign::Site)),
            (&[(site, "same-site"), (mode, "cors"), (dest, "empty")], Some(Foreign::Site)),
            (&[(site, "cross-site")], Some(Foreign::Site)),
        ] {
            assert_eq!(asked("/", fields), expected, "{fields:?}");
        }
    }
}
