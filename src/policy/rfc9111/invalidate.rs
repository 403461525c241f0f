//! What else a successful write changes: what its answer names (RFC 9111 section 4.4). Its own target the ledger knows.

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Uri, header};

use crate::policy::http::route::{Effect, effect_of};

/// Where something is, for comparing.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Host and port as a client writes them.
    pub authority: &'a str,
    /// The path that everything there begins with.
    pub prefix: &'a str,
}

/// Whether a request may have changed something, and the answer does not say that it has not (section 4.4: "a non-error
/// response status code is 2xx or 3xx").
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    !is_safe && (status.is_success() || status.is_redirection())
}

/// What a request with an unsafe method did to its own target (section 4.4): an error changed nothing, unless a gateway says by it
/// that it does not know, or this API that it refuses what it had half done (422, as for any write).
pub fn effect_on_target(status: StatusCode) -> Effect {
    match status.as_u16() {
        422 | 502 | 504 => Effect::Unclear,
        400..=999 => Effect::Nothing,
        _ => effect_of(status),
    }
}

/// The targets that `Location` and `Content-Location` name, of the same host as the request: its own, or the upstream's (section
/// 4.4: "a cache MUST NOT trigger an invalidation ... if the origin differs").
pub fn named(target: &Uri, answer: &HeaderMap, places: &[Place<'_>]) -> Vec<PathAndQuery> {
    let names = [header::LOCATION, header::CONTENT_LOCATION];
    let values = names.iter().flat_map(|name| answer.get_all(name)).filter_map(|value| value.to_str().ok());
    values.filter_map(|reference| resolved(target, reference.trim(), places)).collect()
}

/// A reference as path and query (RFC 3986 section 5.2), if it leads to one of these places.
fn resolved(target: &Uri, reference: &str, places: &[Place<'_>]) -> Option<PathAndQuery> {
    let reference = reference.split('#').next().unwrap_or_default();
    let lower = reference.to_ascii_lowercase();
    let absolute = ["http://", "https://", "//"].into_iter().find(|scheme| lower.starts_with(scheme));
    if let Some(scheme) = absolute {
        let rest = &reference[scheme.len()..];
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let place = places.iter().find(|place| is_same_host(place.authority, authority))?;
        let below = path.strip_prefix(place.prefix).filter(|below| below.starts_with('/')).unwrap_or(path);
        return if below.starts_with('/') { below.parse().ok() } else { format!("/{below}").parse().ok() };
    }
    if reference.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
        return None;
    }
    let path = target.path();
    let resolved = match reference.as_bytes() {
        [] => return None,
        [b'?', ..] => format!("{path}{reference}"),
        [b'/', ..] => {
            let of_upstream = places
                .iter()
                .find_map(|place| reference.strip_prefix(place.prefix).filter(|_| !place.prefix.is_empty()));
            of_upstream.filter(|below| below.starts_with('/')).unwrap_or(reference).to_owned()
        }
        _ => format!("{}{reference}", &path[..=path.rfind('/')?]),
    };
    without_dots(&resolved).parse().ok()
}

/// A path without `.` and `..` (RFC 3986 section 5.2.4).
fn without_dots(path_and_query: &str) -> String {
    let (path, query) = path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()));
    let mut steps: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    steps.pop();
                }
                if segments.peek().is_none() {
                    steps.push("");
                }
            }
            segment => steps.push(segment),
        }
    }
    format!("/{}{query}", steps.join("/"))
}

/// Whether two authorities are of one host and port. The port of a scheme may be written or not.
fn is_same_host(one: &str, other: &str) -> bool {
    let bare = |text: &str| {
        let text = text.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let usual = [":80", ":443"].into_iter().find_map(|port| text.strip_suffix(port).map(str::to_owned));
        usual.unwrap_or(text)
    };
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    /// Section 4.4.
    #[test]
    fn what_is_not_safe_and_no_error_changes_something() {
        for (method, status, expected) in [
            ("POST", 200, true),
            ("PUT", 204, true),
            ("DELETE", 303, true),
            ("PATCH", 201, true),
            ("M-SEARCH", 200, true),
            ("POST", 404, false),
            ("POST", 500, false),
            ("GET", 200, false),
            ("HEAD", 200, false),
            ("OPTIONS", 200, false),
        ] {
            let method = method.parse().unwrap();
            assert_eq!(invalidates(&method, StatusCode::from_u16(status).unwrap()), expected, "{method} {status}");
        }
    }

    /// Section 4.4.
    #[test]
    fn an_error_changed_nothing_unless_nobody_knows() {
        for (status, expected) in [
            (200, Effect::Committed),
            (303, Effect::Unclear),
            (404, Effect::Nothing),
            (422, Effect::Unclear),
            (500, Effect::Nothing),
            (503, Effect::Nothing),
            (502, Effect::Unclear),
            (504, Effect::Unclear),
        ] {
            assert_eq!(effect_on_target(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }

    /// Section 4.4; RFC 3986 section 5.2.
    #[test]
    fn what_the_answer_names_is_changed_if_it_is_of_the_same_host() {
        let target: Uri = "/a/b/c?q".parse().unwrap();
        let places =
            [Place { authority: "shop.test:8080", prefix: "" }, Place { authority: "chat.test", prefix: "/base" }];
        for (reference, expected) in [
            ("/x/y?z", Some("/x/y?z")),
            ("/x/y#z", Some("/x/y")),
            ("y", Some("/a/b/y")),
            ("../y", Some("/a/y")),
            ("./y/./z/..", Some("/a/b/y/")),
            ("../../../y", Some("/y")),
            ("?z", Some("/a/b/c?z")),
            ("http://shop.test:8080/x", Some("/x")),
            ("HTTP://SHOP.test:8080/x", Some("/x")),
            ("//shop.test:8080/x?y", Some("/x?y")),
            ("http://shop.test/x", None),
            ("https://chat.test/base/x", Some("/x")),
            ("https://chat.test:443/base/x", Some("/x")),
            ("/base/x", Some("/x")),
            ("/basement/x", Some("/basement/x")),
            ("https://chat.test", Some("/")),
            ("https://elsewhere.test/x", None),
            ("//elsewhere.test/x", None),
            ("mailto:a@b", None),
            ("#z", None),
            ("", None),
        ] {
            for name in ["location", "content-location"] {
                let found = named(&target, &map(&[(name, reference)]), &places);
                assert_eq!(found.first().map(PathAndQuery::as_str), expected, "{name}: {reference}");
            }
        }
        let both = map(&[("location", "/x"), ("content-location", "/y"), ("content-location", "/z")]);
        assert_eq!(named(&target, &both, &places), ["/x", "/y", "/z"]);
    }
}
